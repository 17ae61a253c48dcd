//! The DKIM signatures of a mail: which are accepted at all, and which of them pass.
//!
//! Not accepted, though mail-auth would verify them: `rsa-sha1` and RSA keys below 1024 bits (RFC 8301), `l=` (text can
//! be added below what was signed), and signatures that leave out a field that consumers act on. Expiry is judged by
//! the caller's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use mail_auth::{
    AuthenticatedMessage, DkimOutput, DkimResult, Error,
    common::{crypto::Algorithm, verify::VerifySignature},
    dkim::{DkimError, Signature},
};
use tokio::time::timeout;

use super::{Policy, Section};
use crate::{
    authenticator::dns::Dns,
    mail::{AuthResult, parse::MAX_FIELDS},
};

/// Fields that a signature covers if the mail has them: who wrote, what, when, and where answers go. A signature
/// without them could be put under another subject, or the mail be sent again as a new one.
const COVERED: &[&str] = &["from", "subject", "date", "message-id", "reply-to"];
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
    why: &'static str,
}

impl Signatures<'_> {
    fn note(&mut self, result: AuthResult, why: &'static str) {
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
            (self.result, self.why) = (result, why);
        }
    }

    /// Domain and selector of the signature that passed, if possible one of `domain` or its organisation.
    pub(super) fn proof(&self, domain: &str) -> (String, String) {
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
            .map(|signature| (signature.d.clone(), signature.s.clone()))
            .unwrap_or_default()
    }

    /// For a person, in half a sentence.
    pub(super) fn summary(&self, aligned: bool) -> &'static str {
        match self.result {
            AuthResult::Pass if !aligned => "its DKIM signature is of another domain",
            AuthResult::Pass => "DKIM passed",
            AuthResult::None => "it has no DKIM signature",
            _ => self.why,
        }
    }
}

/// Leaves in `message`, whose header section is `section`, the signatures that are to be verified.
pub(super) fn select<'m>(
    policy: &Policy,
    section: &Section<'_>,
    message: &mut AuthenticatedMessage<'_>,
    now: SystemTime,
) -> Signatures<'m> {
    let mut signatures =
        Signatures { result: AuthResult::None, outputs: Vec::new(), timed_out: false, why: "" };
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
        let Ok(outputs) = timeout(dns.timeout, check(dns, message)).await else {
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
fn accept(signature: &mut Signature, section: &Section, now: u64) -> Result<(), (AuthResult, &'static str)> {
    if signature.a == Algorithm::RsaSha1 {
        return Err((AuthResult::Neutral, "its DKIM signature is of the withdrawn kind rsa-sha1"));
    }
    if signature.x != 0 && (signature.x <= now || signature.x <= signature.t) {
        return Err((AuthResult::Fail, "its DKIM signature has expired"));
    }
    let covers = |name: &&str| signature.h.iter().any(|field| field.trim().eq_ignore_ascii_case(name));
    let present = |name: &&&str| **name == "from" || section.named(name).next().is_some();
    // The list is walked for each field of the mail.
    if signature.h.len() > MAX_FIELDS || !COVERED.iter().filter(present).all(covers) {
        return Err((
            AuthResult::Neutral,
            "its DKIM signature leaves out the author, subject, date, id or answer address",
        ));
    }
    // Judged above; mail-auth would take the system's clock.
    signature.x = 0;
    // No failure reports, no signatures on behalf of others: both ask the DNS for more, and posthorn uses neither.
    signature.r = false;
    signature.atps = None;
    Ok(())
}

/// Verifies, and says of each signature whether its key is strong enough.
async fn check<'m>(
    dns: &'m Dns,
    message: &'m AuthenticatedMessage<'m>,
) -> Vec<(DkimOutput<'m>, Result<(), &'static str>)> {
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
