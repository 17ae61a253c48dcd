// SPDX-License-Identifier: Apache-2.0
//! Verifies SPF, DKIM and DMARC of one mail from its bytes and envelope. Queries DNS and nothing else; has no clock.
//!
//! What the mail says about itself (`Authentication-Results`, `Received-SPF`) is ignored, except for what trusted sealers say
//! by ARC. Two parsers read the
//! header section: ours for what consumers see, mail-auth's for what is signed. If they disagree, the mail is
//! malformed. A malformed mail has no From mailbox, and its DMARC result is a permanent error.
//!
//! The registry and the verdict are left to [`super::core`] and [`super::verdict`].

mod arc;
mod dkim;
mod order;
mod spf;

use std::{net::IpAddr, time::SystemTime};

use mail::{
    AuthResult, EmailAddress, Origin,
    parse::{MAX_FIELDS, Section, authors, plain_address, section},
};
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DmarcOutput, DmarcResult, SpfOutput, dmarc::verify::DmarcParameters,
};
use memchr::memchr_iter;

use self::{arc::Chain, dkim::Signatures, spf::Spf};
use super::{
    dns::Dns,
    params::Params,
    silence::Question,
    suffixes::{Suffixes, SuffixesError},
    verdict::Checked,
};

/// Local rules in addition to the standards.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Maximum number of DKIM signatures evaluated per mail, from the top; signatures of other domains do not count,
    /// and any beyond the limit are ignored.
    pub dkim_max_signatures: usize,
    /// Our own hosts that pass on other people's mail. The client that delivers such a mail says nothing about its
    /// sender, so SPF is not evaluated. The same goes for private addresses and for LMTP, which only mail systems
    /// speak.
    pub relays: Vec<IpAddr>,
    /// By which the signature that an order rests on must be of the author's organisation.
    pub suffixes: Suffixes,
    /// Domains whose ARC seals are believed.
    pub arc_sealers: Vec<String>,
}

impl Policy {
    /// Reads the public suffix list. Blocking.
    ///
    /// # Errors
    /// If the list cannot be used.
    pub fn open(params: &Params) -> Result<Self, SuffixesError> {
        Ok(Self {
            dkim_max_signatures: params.dkim_max_signatures,
            relays: params.relays.clone(),
            suffixes: Suffixes::open(params.public_suffix_list.as_deref())?,
            arc_sealers: params.arc_sealers.clone(),
        })
    }
}

/// Fields that occur once in a well-formed mail (RFC 5322 section 3.6, RFC 2045) and change what a reader sees. If
/// one occurs twice, the signed one and the displayed one may differ (RFC 6376 section 8.15).
const ONCE: &[&str] = &[
    "from",
    "sender",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "in-reply-to",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
];

/// Verifies the sender of a mail as of `now`.
pub async fn verify(dns: &Dns, policy: &Policy, origin: &Origin, data: &[u8], now: SystemTime) -> Checked {
    let section = section(data, MAX_FIELDS);
    // Check before mail-auth parses the mail: its work grows with the number of fields.
    if section.count > MAX_FIELDS {
        return malformed(Checked::default(), &format!("it has more than {MAX_FIELDS} header fields"));
    }
    let Some(mut message) = AuthenticatedMessage::parse(data) else {
        return malformed(Checked::default(), "it has no header field");
    };
    let author = if has_bare_return(data) {
        Err("it has a carriage return without a line feed".to_owned())
    } else {
        the_author(&section, &message)
    };
    let from = match author {
        Ok(from) => from,
        Err(why) => return malformed(Checked::default(), &why),
    };
    let domain = from.domain().to_owned();
    // mail-auth takes the domain from here, also from one that has white space in front.
    message.from = vec![from.to_lowercase()];
    let mut signatures = dkim::select(policy, &section, &mut message, &domain, now);
    let chain = arc::select(policy, &section, &mut message, now);
    let (message, keys) = (message, dns.dkim_keys());
    let (spf, ()) =
        tokio::join!(spf::verify(dns, policy, origin, &domain), signatures.verify(dns, &keys, &message));
    let mut checked = Checked { spf: spf.result, dkim: signatures.result, ..Checked::default() };
    (checked.dkim_domain, checked.dkim_selector) = signatures.proof(&domain);
    let outcome = verify_dmarc(dns, &message, &signatures, &spf.output, origin, &domain).await;
    checked.dmarc = outcome.result;
    let chain = match chain {
        _ if outcome.result != AuthResult::Fail => Chain::default(),
        Ok(()) => arc::verify(dns, &keys, &message, &section, &domain).await,
        Err(chain) => chain,
    };
    (checked.arc, checked.arc_domain) = (chain.result, chain.sealer);
    let nothing = || signatures.summary(false).to_owned();
    checked.order_gap = match outcome.result {
        AuthResult::Pass if !outcome.by_dkim => nothing(),
        AuthResult::Pass => signatures.gap(&policy.suffixes, &domain, &section).unwrap_or_else(nothing),
        _ if checked.arc == AuthResult::Pass => {
            "only an ARC chain proves its sender, which is not enough for an order".to_owned()
        }
        _ => "nothing proves its sender".to_owned(),
    };
    checked.dkim_keys = signatures.keys(&signatures.outputs);
    if outcome.by_dkim {
        let list = (&policy.suffixes, &section);
        let count = rests_on_dkim(dns, &message, &mut signatures, list, origin, &domain).await;
        let suitable = signatures.outputs.get(..count).unwrap_or_default();
        if !suitable.is_empty() {
            (checked.order_covered, checked.order_gap) = (true, String::new());
            checked.order_keys = signatures.keys(suitable);
        }
    }
    checked.reason = reason(&checked, &domain, &outcome, &signatures, (&spf, chain.why));
    checked.from = Some(from);
    checked
}

fn malformed(checked: Checked, why: &str) -> Checked {
    let reason = format!("The mail is malformed and proves nothing: {why}.");
    let order_gap = "the mail is malformed".to_owned();
    Checked { dmarc: AuthResult::PermError, from: None, order_gap, reason, ..checked }
}

/// Whether the mail contains a bare CR. RFC 5321 section 2.3.8 forbids it, but mail-auth ignores it in signed
/// text, so one could be slipped into a signed Message-ID unnoticed.
fn has_bare_return(data: &[u8]) -> bool {
    memchr_iter(b'\r', data).any(|at| data.get(at.saturating_add(1)) != Some(&b'\n'))
}

/// Whether DMARC could find `domain` aligned with the author's. That requires the same organisation, which means that
/// at least the last two labels match; an internationalised name may match one in `xn--` form.
fn may_align(domain: &str, author: &str) -> bool {
    let end = |name: &str| {
        name.trim_end_matches('.').rsplit('.').take(2).map(str::to_lowercase).collect::<Vec<_>>()
    };
    let is_encoded = |name: &str| name.to_ascii_lowercase().contains("xn--");
    end(domain) == end(author)
        || !domain.is_ascii() && is_encoded(author)
        || !author.is_ascii() && is_encoded(domain)
}

/// Returns the one mailbox of the one From field, if both parsers read the mail alike; otherwise why there is none.
fn the_author(section: &Section, message: &AuthenticatedMessage) -> Result<EmailAddress, String> {
    if section.count != message.headers.len() || section.body != message.body_offset() {
        return Err("its header section can be read in two ways".to_owned());
    }
    // mail-auth treats "Subject :" and "Subject:" as different fields, so a signature over the absence of one would
    // still hold.
    let differ = section
        .fields
        .iter()
        .zip(&message.headers)
        .any(|(ours, (name, value))| ours.name != *name || ours.value.trim_ascii() != value.trim_ascii());
    if differ {
        return Err("its header section can be read in two ways".to_owned());
    }
    for name in ONCE {
        if section.named(name).count() > 1 {
            return Err(format!("it has more than one {name} field"));
        }
    }
    let from = match authors(section).as_slice() {
        [] => return Err("it has no From mailbox".to_owned()),
        [one] => one.address.clone(),
        _ => return Err("it has more than one From mailbox".to_owned()),
    };
    if message.from.len() != 1 || plain_address(message.from()) != from.to_lowercase() {
        return Err("its From field can be read in two ways".to_owned());
    }
    EmailAddress::parse(&from).map_err(|error| format!("its From mailbox is not an address, as {error}"))
}

/// How many signatures an order can rest on, which are then the first; none if not one of them is aligned without help
/// from others.
async fn rests_on_dkim(
    dns: &Dns,
    message: &AuthenticatedMessage<'_>,
    signatures: &mut Signatures<'_>,
    (suffixes, section): (&Suffixes, &Section<'_>),
    origin: &Origin,
    domain: &str,
) -> usize {
    let count = signatures.for_orders(suffixes, domain, section);
    match signatures.outputs.split_at_checked(count) {
        // All signatures that passed are suitable, and DMARC found one of them aligned.
        Some((_, [])) => count,
        Some(([], _)) | None => 0,
        Some((some, _)) => {
            let output = ask_dmarc(dns, message, some, &SpfOutput::default(), origin, domain).await;
            let is_aligned = output.is_some_and(|output| *output.dkim_result() == DmarcResult::Pass);
            if is_aligned { count } else { 0 }
        }
    }
}

struct Dmarc {
    result: AuthResult,
    /// Whether SPF passed and is aligned; likewise for DKIM.
    by_spf: bool,
    by_dkim: bool,
}

async fn verify_dmarc(
    dns: &Dns,
    message: &AuthenticatedMessage<'_>,
    signatures: &Signatures<'_>,
    spf: &SpfOutput,
    origin: &Origin,
    domain: &str,
) -> Dmarc {
    let Some(output) = ask_dmarc(dns, message, &signatures.outputs, spf, origin, domain).await else {
        return Dmarc { result: AuthResult::TempError, by_spf: false, by_dkim: false };
    };
    let results = [output.spf_result(), output.dkim_result()];
    let [by_spf, by_dkim] = results.map(|result| *result == DmarcResult::Pass);
    let result = if by_spf || by_dkim {
        AuthResult::Pass
    } else if results.iter().any(|result| matches!(result, DmarcResult::TempError(_))) || signatures.timed_out
    {
        AuthResult::TempError
    } else if results.iter().any(|result| matches!(result, DmarcResult::PermError(_))) {
        AuthResult::PermError
    } else if output.dmarc_record().is_none() {
        AuthResult::None
    } else {
        AuthResult::Fail
    };
    Dmarc { result, by_spf, by_dkim }
}

/// Evaluates DMARC over these signatures and SPF; `None` if DNS did not answer in time.
async fn ask_dmarc(
    dns: &Dns,
    message: &AuthenticatedMessage<'_>,
    signatures: &[DkimOutput<'_>],
    spf: &SpfOutput,
    origin: &Origin,
    domain: &str,
) -> Option<DmarcOutput> {
    let mail_from_domain = origin.envelope().map(spf::domain).unwrap_or_default();
    let params = || DmarcParameters {
        message,
        dkim_output: signatures,
        dkim2_output: None,
        rfc5321_mail_from_domain: &mail_from_domain,
        spf_output: spf,
    };
    let policies = dns.dmarc_policies();
    let check = dns.run(&policies, || dns.resolver.verify_dmarc(dns.query(params(), &policies)));
    let is_answer = |output: &DmarcOutput| {
        let results = [output.spf_result(), output.dkim_result()];
        output.dmarc_record().is_some()
            || !results.iter().any(|result| matches!(result, DmarcResult::TempError(_)))
    };
    dns.ask(Question::Dmarc, domain, check, is_answer).await
}

/// Sums up the result in one sentence. The domain comes from the sender, but has no white space, brackets or quotes.
fn reason(
    checked: &Checked,
    domain: &str,
    outcome: &Dmarc,
    signatures: &Signatures,
    (spf, arc): (&Spf, &str),
) -> String {
    let spf = match checked.spf {
        AuthResult::Unknown => spf.why_not,
        AuthResult::None => "no SPF record",
        AuthResult::Pass if outcome.by_spf => "SPF passed",
        AuthResult::Pass => "SPF passed for another domain",
        AuthResult::TempError => "SPF could not be evaluated now",
        AuthResult::PermError => "the SPF record cannot be read",
        AuthResult::Fail | AuthResult::SoftFail | AuthResult::Neutral => "SPF did not pass",
    };
    let dkim = signatures.summary(outcome.by_dkim);
    match outcome.result {
        AuthResult::Pass => {
            let by = match (outcome.by_dkim, outcome.by_spf) {
                (true, true) => "DKIM and SPF",
                (true, false) => "DKIM",
                _ => "SPF",
            };
            format!("{domain} is proven by {by} to have sent the mail.")
        }
        AuthResult::None => {
            format!("{domain} publishes no DMARC policy, so that nothing can prove that it sent the mail.")
        }
        AuthResult::TempError => {
            format!("It cannot be told now whether {domain} sent the mail, as the DNS did not answer.")
        }
        AuthResult::PermError => format!("The DMARC policy of {domain} cannot be read."),
        _ if checked.arc == AuthResult::Pass => {
            format!(
                "{}, whose ARC seal is trusted, vouches for {domain} having sent the mail.",
                checked.arc_domain
            )
        }
        _ if arc.is_empty() => {
            format!("Nothing proves that {domain} sent the mail: {dkim}, {spf}.")
        }
        _ => format!("Nothing proves that {domain} sent the mail: {dkim}, {spf}, {arc}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_domains_of_one_organisation_can_align() {
        let aligned = [
            ("example.org", "example.org"),
            ("mail.Example.org", "example.org."),
            ("example.org", "a.b.example.org"),
            ("a.shop.co.uk", "shop.co.uk"),
            ("xn--bcher-kva.example", "b\u{fc}cher.example"),
            ("b\u{fc}cher.example", "xn--bcher-kva.example"),
        ];
        assert_eq!(aligned.into_iter().find(|(domain, author)| !may_align(domain, author)), None);
        let foreign = [
            ("example.com", "example.org"),
            ("org", "example.org"),
            ("", "example.org"),
            ("badexample.org", "example.org"),
            ("example.org.evil.test", "example.org"),
            ("b\u{fc}cher.example", "dispatch.example"),
            ("xn--bcher-kva.example", "dispatch.example"),
        ];
        assert_eq!(foreign.into_iter().find(|(domain, author)| may_align(domain, author)), None);
    }
}
