// SPDX-License-Identifier: Apache-2.0
//! Selects the DKIM signatures of a mail that count, and verifies them.
//!
//! Some signatures that mail-auth would verify are not accepted: `rsa-sha1` and RSA keys below 1024 bits (RFC 8301);
//! `l=`, which lets text be added below what was signed; signatures that omit a field consumers act on; and those of
//! domains other than the author's, which prove nothing, so nobody should wait for their DNS. Expiry is judged by the
//! caller's clock.
//!
//! Alignment is left to DMARC in [`super`]; what an order needs beyond this, to [`order`].

use std::{
    borrow::Cow,
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use mail::{AuthResult, parse::MAX_FIELDS};
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DkimResult, Error,
    common::{crypto::Algorithm, headers::Header, verify::VerifySignature},
    dkim::{DkimError, Signature},
};

use super::{Policy, Section, may_align, order};
use crate::{
    dns::{Dns, TxtRecords},
    records,
    silence::Question,
    suffixes::Suffixes,
};

/// Fields that a signature must cover if the mail has them: author, subject, date and reply address. Without that,
/// the signature could be reused under another subject. [`order`] lists what an order needs in addition.
const COVERED: &[&str] = &["From", "Subject", "Date", "Reply-To"];
/// Shortest RSA key accepted, in bits (RFC 8301 section 3.2).
pub(super) const MIN_RSA_BITS: usize = 1024;

/// Results of the signatures of one mail.
pub(super) struct Signatures<'m> {
    /// Best result; `None` if the mail has no signature.
    pub(super) result: AuthResult,
    /// Outputs of the verified signatures, for DMARC.
    pub(super) outputs: Vec<DkimOutput<'m>>,
    /// SHA-256 of the keys of those that passed, by the name of the key's record.
    keys: HashMap<String, [u8; 32]>,
    /// Whether DNS did not answer in time.
    pub(super) timed_out: bool,
    /// Reason given for the best result below a pass.
    why: Cow<'static, str>,
}

impl Signatures<'_> {
    /// SHA-256 of the keys by which these signatures passed.
    pub(super) fn keys(&self, outputs: &[DkimOutput]) -> Vec<[u8; 32]> {
        let passed = outputs.iter().filter(|output| *output.result() == DkimResult::Pass);
        let names = passed.filter_map(DkimOutput::signature).map(Signature::domain_key);
        names.filter_map(|name| self.keys.get(&name).copied()).collect()
    }

    fn note(&mut self, result: AuthResult, why: impl Into<Cow<'static, str>>) {
        // Best result first; a signature that could still pass ranks second.
        let rank = |result| match result {
            AuthResult::Pass => 5,
            AuthResult::TempError => 4,
            AuthResult::Fail => 3,
            AuthResult::Neutral => 2,
            AuthResult::PermError => 1,
            _ => 0,
        };
        if rank(result) > rank(self.result) {
            (self.result, self.why) = (result, why.into());
        }
    }

    /// Keeps the signatures that passed, with those that an order of `domain` can rest on first; returns how many of these
    /// there are.
    pub(super) fn for_orders(&mut self, suffixes: &Suffixes, domain: &str, section: &Section) -> usize {
        self.outputs.retain(|output| *output.result() == DkimResult::Pass && output.signature().is_some());
        let suits = |output: &DkimOutput| {
            output.signature().is_some_and(|signature| gap_of(signature, suffixes, domain, section).is_none())
        };
        self.outputs.sort_by_key(|output| !suits(output));
        self.outputs.iter().filter(|output| suits(output)).count()
    }

    /// Returns a signature that passed, preferably one of `domain` or its organisation.
    fn passed(&self, domain: &str) -> Option<&Signature> {
        let distance = |signer: &str| match domain {
            _ if signer.eq_ignore_ascii_case(domain) => 0,
            _ if domain.ends_with(&format!(".{signer}")) || signer.ends_with(&format!(".{domain}")) => 1,
            _ => 2,
        };
        self.outputs
            .iter()
            .filter(|output| *output.result() == DkimResult::Pass)
            .filter_map(DkimOutput::signature)
            .min_by_key(|signature| distance(&signature.d))
    }

    /// Returns domain and selector of a signature that passed, preferably one of `domain` or its organisation.
    pub(super) fn proof(&self, domain: &str) -> (String, String) {
        self.passed(domain).map(|one| (one.d.clone(), one.s.clone())).unwrap_or_default()
    }

    /// Returns what the signature that proves `domain` lacks for an order.
    pub(super) fn gap(&self, suffixes: &Suffixes, domain: &str, section: &Section) -> Option<String> {
        self.passed(domain).and_then(|signature| gap_of(signature, suffixes, domain, section))
    }

    /// Describes the result for people, in half a sentence.
    pub(super) fn summary(&self, aligned: bool) -> &str {
        match self.result {
            AuthResult::Pass if !aligned => "its DKIM signature is of another domain",
            AuthResult::Pass => "DKIM passed",
            AuthResult::None => "it has no DKIM signature",
            _ => &self.why,
        }
    }
}

fn gap_of(signature: &Signature, suffixes: &Suffixes, domain: &str, section: &Section) -> Option<String> {
    if suffixes.is_one_organisation(&signature.d, domain) {
        return order::gap(signature, section);
    }
    Some(format!("its DKIM signature is of {}, by the public suffix list another organisation", signature.d))
}

/// Drops from `message` the signatures that will not be verified. `section` is its header section, `domain` its
/// author's.
pub(super) fn select<'m>(
    policy: &Policy,
    section: &Section<'_>,
    message: &mut AuthenticatedMessage<'_>,
    domain: &str,
    now: SystemTime,
) -> Signatures<'m> {
    let mut signatures = Signatures {
        result: AuthResult::None,
        outputs: Vec::new(),
        keys: HashMap::new(),
        timed_out: false,
        why: "".into(),
    };
    let is_dkim = |name: &[u8]| name.trim_ascii().eq_ignore_ascii_case(b"dkim-signature");
    for error in message.errors.iter().filter(|error| is_dkim(error.name)) {
        match error.header {
            Error::Dkim(DkimError::SignatureLength) => {
                signatures
                    .note(AuthResult::Neutral, "its DKIM signature covers only a part of the body (l=)");
            }
            _ => signatures.note(AuthResult::PermError, "its DKIM signature cannot be read"),
        }
    }
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    message.dkim_headers.retain(|header| {
        let aligns = may_align(&header.header.d, domain);
        if !aligns {
            signatures.note(AuthResult::Neutral, "its DKIM signature is of another domain");
        }
        aligns
    });
    message.dkim_headers.truncate(policy.dkim_max_signatures);
    message.dkim_headers.retain_mut(|header| match accept(header, section, now) {
        Ok(()) => true,
        Err((result, why)) => {
            signatures.note(result, why);
            false
        }
    });
    signatures
}

impl<'m> Signatures<'m> {
    pub(super) async fn verify(
        &mut self,
        dns: &'m Dns,
        keys: &'m TxtRecords<'m>,
        message: &'m AuthenticatedMessage<'m>,
    ) {
        let mut domains: Vec<_> =
            message.dkim_headers.iter().map(|header| header.header.d.as_str()).collect();
        domains.sort_unstable();
        domains.dedup();
        let is_answer = |outputs: &Outputs<'m>| {
            !outputs.iter().any(|(output, _)| matches!(output.result(), DkimResult::TempError(_)))
        };
        let asked = dns.ask(Question::Dkim, &domains.join(" "), check(dns, keys, message), is_answer).await;
        let Some(outputs) = asked else {
            self.timed_out = true;
            self.note(AuthResult::TempError, "its DKIM key could not be asked for now");
            return;
        };
        for (output, accepted) in outputs {
            let (result, why) = match accepted {
                Ok(()) => judge(output.result()),
                Err(why) => (AuthResult::Neutral, why),
            };
            self.note(result, why);
            if accepted.is_err() {
                continue;
            }
            if let (AuthResult::Pass, Some(signature)) = (result, output.signature()) {
                let name = signature.domain_key();
                if let Some(digest) = keys.key_digest(&name) {
                    self.keys.insert(name, digest);
                }
            }
            self.outputs.push(output);
        }
    }
}

/// Whether a signature should be verified at all.
fn accept(
    header: &mut Header<Signature>,
    section: &Section,
    now: u64,
) -> Result<(), (AuthResult, Cow<'static, str>)> {
    let refuse = |result, why: &'static str| Err((result, why.into()));
    // mail-auth does not read `q=`, which says how to ask for the key (RFC 6376 section 3.5).
    let Some(tags) = records::tags(header.value).collect::<Option<Vec<_>>>() else {
        return refuse(AuthResult::PermError, "its DKIM signature cannot be read");
    };
    let asks_dns = |(name, value): &(&str, &str)| {
        *name != "q" || value.split(':').any(|method| method.trim().eq_ignore_ascii_case("dns/txt"))
    };
    if !tags.iter().all(asks_dns) {
        return refuse(
            AuthResult::PermError,
            "its DKIM signature names another place than the DNS for its key",
        );
    }
    let signature = &mut header.header;
    if signature.a == Algorithm::RsaSha1 {
        return refuse(AuthResult::Neutral, "its DKIM signature is of the withdrawn kind rsa-sha1");
    }
    if is_expired((signature.t, signature.x), now) {
        return refuse(AuthResult::Fail, "its DKIM signature has expired");
    }
    let Some(missing) = uncovered(&signature.h, section) else {
        return refuse(AuthResult::Neutral, "its DKIM signature names too many fields");
    };
    if !missing.is_empty() {
        let why = format!("its DKIM signature does not cover {}", missing.join(" and "));
        return Err((AuthResult::Neutral, why.into()));
    }
    // Expiry was checked above; mail-auth would use the system clock.
    signature.x = 0;
    // Turn off failure reports and third-party signatures: both cause more DNS queries, and posthorn uses neither.
    signature.r = false;
    signature.atps = None;
    Ok(())
}

/// Whether a signature of time `t` that counts until `x` counts no more; 0 is no time.
pub(super) fn is_expired((t, x): (u64, u64), now: u64) -> bool {
    x != 0 && (x <= now || x <= t)
}

/// Fields of the mail that a signature over the fields `signed` must cover and does not; `None` if it names too many: the
/// list is searched for each.
pub(super) fn uncovered(signed: &[String], section: &Section) -> Option<Vec<&'static str>> {
    let is_there = |name: &str| name == "From" || section.named(name).next().is_some();
    let missing =
        || COVERED.iter().copied().filter(|name| is_there(name) && !order::names(signed, name)).collect();
    (signed.len() <= MAX_FIELDS).then(missing)
}

type Outputs<'m> = Vec<(DkimOutput<'m>, Result<(), &'static str>)>;

/// Verifies the signatures and checks for each one that passes whether its key is strong enough.
async fn check<'m>(
    dns: &'m Dns,
    keys: &'m TxtRecords<'m>,
    message: &'m AuthenticatedMessage<'m>,
) -> Outputs<'m> {
    for header in &message.dkim_headers {
        // Nobody asks for the key of a signature over another body.
        if message.body_hashes.iter().any(|(.., hash)| *hash == header.header.bh) {
            keys.will_ask(&header.header.domain_key());
        }
    }
    dns.read(keys).await;
    let outputs = dns.run(keys, || dns.resolver.verify_dkim(dns.query(message, keys))).await;
    let mut checked = Vec::new();
    for output in outputs {
        let Some(signature) = output.signature() else { continue };
        let mut accepted = Ok(());
        // A key that is too short verifies nothing.
        if matches!(output.result(), DkimResult::Pass | DkimResult::Fail(_)) {
            let bits = dns.key_bits(&signature.domain_key(), keys).await;
            if bits.is_none_or(|bits| bits < MIN_RSA_BITS) {
                accepted = Err("its DKIM key is too short");
            }
        }
        checked.push((output, accepted));
    }
    checked
}

fn judge(result: &DkimResult) -> (AuthResult, &'static str) {
    match result {
        DkimResult::Pass => (AuthResult::Pass, ""),
        DkimResult::TempError(_) => (AuthResult::TempError, "its DKIM key could not be asked for now"),
        DkimResult::Neutral(Error::Dkim(DkimError::FailedBodyHashMatch)) => {
            (AuthResult::Fail, "its body is not the one that was signed")
        }
        DkimResult::Fail(_) => (AuthResult::Fail, "its DKIM signature does not fit"),
        DkimResult::PermError(Error::Dns(_)) => (AuthResult::PermError, "its DKIM key is not published"),
        DkimResult::PermError(Error::Dkim(DkimError::RevokedPublicKey)) => {
            (AuthResult::PermError, "its DKIM key is revoked")
        }
        DkimResult::PermError(_) => (AuthResult::PermError, "its DKIM key cannot be read"),
        DkimResult::Neutral(_) | DkimResult::None => {
            (AuthResult::Neutral, "its DKIM signature cannot be used")
        }
    }
}
