//! The DKIM signatures of a mail: which are accepted at all, and which of them pass.
//!
//! Not accepted, though mail-auth would verify them: `rsa-sha1` and RSA keys below 1024 bits (RFC 8301), `l=` (text can
//! be added below what was signed), signatures that leave out a field that consumers act on, and those of other domains
//! than the author's, which prove nothing and whose DNS nobody has to wait for. Expiry is judged by the caller's clock.

use std::{
    borrow::Cow,
    time::{SystemTime, UNIX_EPOCH},
};

use mail_auth::{
    AuthenticatedMessage, DkimOutput, DkimResult, Error,
    common::{crypto::Algorithm, verify::VerifySignature},
    dkim::{DkimError, Signature},
};

use super::{Policy, Section, may_align, order};
use crate::{
    authenticator::{dns::Dns, silence::Question},
    mail::{AuthResult, parse::MAX_FIELDS},
};

/// Fields that a signature covers if the mail has them: who wrote, what, when, and where answers go. A signature
/// without them could be put under another subject. What an order needs beside them: [`order`].
const COVERED: &[&str] = &["From", "Subject", "Date", "Reply-To"];
/// RFC 8301 section 3.2.
const MIN_RSA_BITS: usize = 1024;

/// What became of the signatures of a mail.
pub(super) struct Signatures<'m> {
    /// Best result; `None` without a signature.
    pub(super) result: AuthResult,
    /// Of the signatures that were verified, for DMARC.
    pub(super) outputs: Vec<DkimOutput<'m>>,
    /// The DNS did not answer in time.
    pub(super) timed_out: bool,
    /// Why the best one that did not pass did not.
    why: Cow<'static, str>,
}

impl Signatures<'_> {
    fn note(&mut self, result: AuthResult, why: impl Into<Cow<'static, str>>) {
        // Best first; what could still pass comes next.
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

    /// Those that passed, first the ones an order can rest on; and how many these are.
    pub(super) fn for_orders(&mut self, section: &Section) -> usize {
        self.outputs.retain(|output| *output.result() == DkimResult::Pass && output.signature().is_some());
        let suits =
            |output: &DkimOutput| output.signature().is_some_and(|one| order::gap(one, section).is_none());
        self.outputs.sort_by_key(|output| !suits(output));
        self.outputs.iter().filter(|output| suits(output)).count()
    }

    /// The signature that passed, if possible one of `domain` or its organisation.
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

    /// Domain and selector of the signature that passed, if possible one of `domain` or its organisation.
    pub(super) fn proof(&self, domain: &str) -> (String, String) {
        self.passed(domain).map(|one| (one.d.clone(), one.s.clone())).unwrap_or_default()
    }

    /// What an order lacks in the signature that proves `domain`.
    pub(super) fn gap(&self, domain: &str, section: &Section) -> Option<String> {
        self.passed(domain).and_then(|signature| order::gap(signature, section))
    }

    /// For a person, in half a sentence.
    pub(super) fn summary(&self, aligned: bool) -> &str {
        match self.result {
            AuthResult::Pass if !aligned => "its DKIM signature is of another domain",
            AuthResult::Pass => "DKIM passed",
            AuthResult::None => "it has no DKIM signature",
            _ => &self.why,
        }
    }
}

/// Leaves in `message`, whose header section is `section` and whose author is of `domain`, the signatures that are to be
/// verified.
pub(super) fn select<'m>(
    policy: &Policy,
    section: &Section<'_>,
    message: &mut AuthenticatedMessage<'_>,
    domain: &str,
    now: SystemTime,
) -> Signatures<'m> {
    let mut signatures =
        Signatures { result: AuthResult::None, outputs: Vec::new(), timed_out: false, why: "".into() };
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
    message.dkim_headers.retain_mut(|header| match accept(&mut header.header, section, now) {
        Ok(()) => true,
        Err((result, why)) => {
            signatures.note(result, why);
            false
        }
    });
    signatures
}

impl<'m> Signatures<'m> {
    /// Verifies those that were selected.
    pub(super) async fn verify(&mut self, dns: &'m Dns, message: &'m AuthenticatedMessage<'m>) {
        let mut domains: Vec<_> =
            message.dkim_headers.iter().map(|header| header.header.d.as_str()).collect();
        domains.sort_unstable();
        domains.dedup();
        let is_answer = |outputs: &Outputs<'m>| {
            !outputs.iter().any(|(output, _)| matches!(output.result(), DkimResult::TempError(_)))
        };
        let asked = dns.ask(Question::Dkim, &domains.join(" "), check(dns, message), is_answer).await;
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
            if accepted.is_ok() {
                self.outputs.push(output);
            }
        }
    }
}

/// Whether a signature is to be verified at all.
fn accept(
    signature: &mut Signature,
    section: &Section,
    now: u64,
) -> Result<(), (AuthResult, Cow<'static, str>)> {
    let refuse = |result, why: &'static str| Err((result, why.into()));
    if signature.a == Algorithm::RsaSha1 {
        return refuse(AuthResult::Neutral, "its DKIM signature is of the withdrawn kind rsa-sha1");
    }
    if signature.x != 0 && (signature.x <= now || signature.x <= signature.t) {
        return refuse(AuthResult::Fail, "its DKIM signature has expired");
    }
    // The list is walked for each field of the mail.
    if signature.h.len() > MAX_FIELDS {
        return refuse(AuthResult::Neutral, "its DKIM signature names too many fields");
    }
    let present = |name: &str| name == "From" || section.named(name).next().is_some();
    let missing: Vec<_> =
        COVERED.iter().copied().filter(|name| present(name) && !covers(signature, name)).collect();
    if !missing.is_empty() {
        let why = format!("its DKIM signature does not cover {}", missing.join(" and "));
        return Err((AuthResult::Neutral, why.into()));
    }
    // Judged above; mail-auth would take the system's clock.
    signature.x = 0;
    // No failure reports, no signatures on behalf of others: both ask the DNS for more, and posthorn uses neither.
    signature.r = false;
    signature.atps = None;
    Ok(())
}

/// Whether a signature names a field.
pub(super) fn covers(signature: &Signature, name: &str) -> bool {
    signature.h.iter().any(|field| field.trim().eq_ignore_ascii_case(name))
}

type Outputs<'m> = Vec<(DkimOutput<'m>, Result<(), &'static str>)>;

/// Verifies, and says of each signature whether its key is strong enough.
async fn check<'m>(dns: &'m Dns, message: &'m AuthenticatedMessage<'m>) -> Outputs<'m> {
    let mut checked = Vec::new();
    for output in dns.resolver.verify_dkim(dns.dkim(message)).await {
        let Some(signature) = output.signature() else { continue };
        let mut accepted = Ok(());
        if *output.result() == DkimResult::Pass {
            let bits = dns.key_bits(&signature.domain_key()).await.unwrap_or(0);
            if bits < MIN_RSA_BITS {
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
