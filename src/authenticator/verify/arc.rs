// SPDX-License-Identifier: Apache-2.0
//! Verifies the ARC chain (RFC 8617) of a mail that DMARC does not prove: mailing lists change mails, and a trusted one
//! says what it saw before.
//!
//! A chain passes only if all who sealed it are trusted by parameter, and the first of them found DMARC to pass for the
//! mail's author. As all are trusted, a stranger has nobody's DNS asked but theirs, and each key only after those above it
//! fitted. An order never rests on it.

use std::time::{SystemTime, UNIX_EPOCH};

use mail::{AuthResult, ascii_domain, parse::Section};
use mail_auth::{
    ArcOutput, AuthenticatedMessage, DkimResult,
    arc::{ChainValidation, Signature},
    common::{crypto::Algorithm, headers::Header, verify::VerifySignature},
};

use super::{
    Policy,
    dkim::{MIN_RSA_BITS, is_expired, uncovered},
};
use crate::{
    dns::{Dns, TxtRecords},
    silence::Question,
};

/// Field in which a sealer says what it found.
const RESULTS: &str = "arc-authentication-results";

/// Why a chain is left open.
const UNASKED: &str = "a key of its ARC chain could not be asked for now";

/// What a mail's chain proves.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// `None` without a chain, `Unknown` if it was not evaluated, `Neutral` if it is not one that is trusted.
    pub(super) result: AuthResult,
    /// Domain of the newest sealer; empty unless it passed.
    pub(super) sealer: String,
    /// Why it does not pass, in half a sentence; empty if it does, or if there is none.
    pub(super) why: &'static str,
}

impl Chain {
    fn of(result: AuthResult, why: &'static str) -> Self {
        Self { result, why, ..Self::default() }
    }
}

/// Checks the chain without the DNS, and has mail-auth not look at the system's clock. `Ok` if it is to be verified.
pub(super) fn select(
    policy: &Policy,
    section: &Section<'_>,
    message: &mut AuthenticatedMessage<'_>,
    now: SystemTime,
) -> Result<(), Chain> {
    let refuse = |result, why| Err(Chain::of(result, why));
    let sets = message.as_headers.len();
    if sets == 0 && message.ams_headers.is_empty() && section.named(RESULTS).next().is_none() {
        return refuse(AuthResult::None, "");
    }
    if policy.arc_sealers.is_empty() {
        return Err(Chain::default());
    }
    if !is_whole(message) {
        return refuse(AuthResult::Fail, "its ARC chain is broken");
    }
    if sets > policy.dkim_max_signatures {
        return refuse(AuthResult::Neutral, "its ARC chain is too long");
    }
    let is_trusted =
        |domain: &str| policy.arc_sealers.iter().any(|sealer| sealer.eq_ignore_ascii_case(domain));
    let seals = message.as_headers.iter().map(|Header { header, .. }| (&header.d, header.a));
    let signatures = message.ams_headers.iter().map(|Header { header, .. }| (&header.d, header.a));
    for (domain, algorithm) in seals.chain(signatures) {
        if !is_trusted(domain) {
            return refuse(AuthResult::Neutral, "somebody sealed its ARC chain who is not trusted");
        }
        if algorithm == Algorithm::RsaSha1 {
            return refuse(AuthResult::Fail, "its ARC chain is of the withdrawn kind rsa-sha1");
        }
    }
    // A field that an earlier one leaves out could have come in before a later one.
    let covers = |Header { header, .. }: &Header<Signature>| {
        uncovered(&header.h, section).is_some_and(|missing| missing.is_empty())
    };
    if !message.ams_headers.iter().all(covers) {
        return refuse(AuthResult::Fail, "its ARC chain does not cover author, subject and date");
    }
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let Some(Header { header: newest, .. }) = message.ams_headers.last_mut() else {
        return refuse(AuthResult::None, "");
    };
    if !message.body_hashes.iter().any(|(.., hash)| *hash == newest.bh) {
        return refuse(AuthResult::Fail, "its body is not the one that was sealed");
    }
    if is_expired((newest.t, newest.x), now) {
        return refuse(AuthResult::Fail, "its ARC chain has expired");
    }
    newest.x = 0;
    Ok(())
}

/// Whether the mail has all sets of a chain, which mail-auth has sorted then, and each says that those before it passed.
fn is_whole(message: &AuthenticatedMessage) -> bool {
    let is_arc = |name: &[u8]| name.trim_ascii().to_ascii_lowercase().starts_with(b"arc-");
    let (seals, signatures, results) = (&message.as_headers, &message.ams_headers, &message.aar_headers);
    let sets = seals.iter().zip(signatures).zip(results);
    !message.errors.iter().any(|error| is_arc(error.name))
        && !seals.is_empty()
        && [signatures.len(), results.len()] == [seals.len(); 2]
        && (1_u32..).zip(sets).all(|(place, ((seal, signature), results))| {
            let cv = if place == 1 { ChainValidation::None } else { ChainValidation::Pass };
            [seal.header.i, signature.header.i, results.header.i] == [place; 3] && seal.header.cv == cv
        })
}

/// Verifies a chain that [`select`] let pass, of a mail by `author`.
pub(super) async fn verify<'m>(
    dns: &'m Dns,
    keys: &'m TxtRecords<'m>,
    message: &'m AuthenticatedMessage<'m>,
    section: &Section<'_>,
    author: &str,
) -> Chain {
    let seals = || message.as_headers.iter().map(|header| &header.header);
    let Some(Header { header: newest, .. }) = message.ams_headers.last() else { return Chain::default() };
    let mut domains: Vec<_> = seals().map(|seal| seal.d.as_str()).collect();
    domains.sort_unstable();
    domains.dedup();
    let is_answer =
        |(output, _): &(ArcOutput<'m>, bool)| !matches!(output.result(), DkimResult::TempError(_));
    let asked =
        dns.ask(Question::Dkim, &domains.join(" "), check(dns, keys, message, newest), is_answer).await;
    let Some((output, are_long_enough)) = asked else {
        return Chain::of(AuthResult::TempError, UNASKED);
    };
    match output.result() {
        DkimResult::Pass | DkimResult::Fail(_) if !are_long_enough => {
            Chain::of(AuthResult::Neutral, "a key of its ARC chain is too short")
        }
        DkimResult::Pass if found_dmarc_to_pass(section, author) => {
            let sealer = seals().next_back().map(|seal| seal.d.to_ascii_lowercase());
            Chain { result: AuthResult::Pass, sealer: sealer.unwrap_or_default(), why: "" }
        }
        DkimResult::Pass => {
            Chain::of(AuthResult::Neutral, "the first who sealed its ARC chain found nothing to prove it")
        }
        DkimResult::TempError(_) => Chain::of(AuthResult::TempError, UNASKED),
        DkimResult::None => Chain::of(AuthResult::None, ""),
        _ => Chain::of(AuthResult::Fail, "its ARC chain does not fit"),
    }
}

/// Verifies the chain, and whether its keys are strong enough.
async fn check<'m>(
    dns: &'m Dns,
    keys: &'m TxtRecords<'m>,
    message: &'m AuthenticatedMessage<'m>,
    newest: &Signature,
) -> (ArcOutput<'m>, bool) {
    let seals = message.as_headers.iter().map(|Header { header, .. }| header.domain_key());
    keys.will_ask(&newest.domain_key());
    dns.read(keys).await;
    // It asks for each key when the seals above fit, and is run again with it.
    let output = dns.run(keys, || dns.resolver.verify_arc(dns.query(message, keys))).await;
    let mut are_long_enough = true;
    for name in seals.chain([newest.domain_key()]) {
        // One that was not asked for verified nothing.
        are_long_enough &= keys.key_digest(&name).is_none()
            || dns.key_bits(&name, keys).await.is_some_and(|bits| bits >= MIN_RSA_BITS);
    }
    (output, are_long_enough)
}

/// Whether the first sealer says that DMARC passed for mails of this domain. The chain proves that the sealer said so.
fn found_dmarc_to_pass(section: &Section, author: &str) -> bool {
    let mut first = section.named(RESULTS).filter_map(|field| results(field.value)).filter(|(i, _)| *i == 1);
    let (Some((_, results)), None) = (first.next(), first.next()) else { return false };
    let mut dmarc = results.into_iter().filter(|result| result.method == "dmarc");
    let (Some(dmarc), None) = (dmarc.next(), dmarc.next()) else { return false };
    let name = |domain: &str| ascii_domain(domain).unwrap_or_else(|| domain.to_ascii_lowercase());
    dmarc.result == "pass" && dmarc.from.is_some_and(|from| name(&from) == name(author))
}

/// One result of an `Authentication-Results` field (RFC 8601 section 2.2).
struct MethodResult {
    method: String,
    result: String,
    /// Its property `header.from`, if it has one.
    from: Option<String>,
}

/// The instance of an `ARC-Authentication-Results` field and its results; `None` if it cannot be read.
fn results(value: &[u8]) -> Option<(u32, Vec<MethodResult>)> {
    let text = without_comments(str::from_utf8(value).ok()?)?;
    let mut parts = text.split(';').map(|part| {
        // White space may stand around `=` and `.`.
        let part = part.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        part.replace(" =", "=").replace("= ", "=").to_ascii_lowercase()
    });
    let instance = parts.next()?.strip_prefix("i=")?.parse().ok()?;
    // The name of who says it.
    parts.next()?;
    let result = |part: String| {
        let mut words = part.split(' ');
        let (method, result) = words.next()?.split_once('=')?;
        let from = words.find_map(|word| word.strip_prefix("header.from=").map(str::to_owned));
        // A method may have a version: `dmarc/1`.
        let method = method.split('/').next().unwrap_or_default().to_owned();
        Some(MethodResult { method, result: result.to_owned(), from })
    };
    Some((instance, parts.filter_map(result).collect()))
}

/// The text without its comments and without the quotes of quoted strings; `None` if it has a quoted string with a
/// character that means something outside of it, or an open end.
fn without_comments(text: &str) -> Option<String> {
    let (mut plain, mut depth, mut quoted) = (String::with_capacity(text.len()), 0_u32, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted || depth > 0 => {
                characters.next()?;
                if quoted {
                    return None;
                }
            }
            '"' if depth == 0 => quoted = !quoted,
            '(' if !quoted => {
                depth += 1;
                plain.push(' ');
            }
            ')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            ';' | '=' | '(' | ')' if quoted => return None,
            _ => plain.push(character),
        }
    }
    (depth == 0 && !quoted).then_some(plain)
}

#[cfg(test)]
mod tests {
    use mail::parse::section;
    use proptest::prelude::*;

    use super::*;

    fn says(value: &str) -> bool {
        let mail = format!("ARC-Authentication-Results: {value}\r\nFrom: a@dispatch.example\r\n\r\nx\r\n");
        found_dmarc_to_pass(&section(mail.as_bytes(), 100), "dispatch.example")
    }

    #[test]
    fn the_first_sealer_must_say_that_dmarc_passed_for_the_author() {
        for value in [
            "i=1; list.example; dmarc=pass header.from=dispatch.example",
            "i=1; mx.google.com;\r\n dkim=pass header.i=@dispatch.example header.s=s1;\r\n spf=pass \
             (google.com: domain of a@dispatch.example designates 192.0.2.1) smtp.mailfrom=a@dispatch.example;\r\n \
             dmarc=pass (p=REJECT sp=REJECT dis=NONE) header.from=dispatch.example",
            "i=1; list.example 1; dmarc/1 = Pass (a (b) \\) c) policy.dmarc=reject header.from = DISPATCH.example",
            "i = 1; list.example; spf=none; dmarc=pass header.from=\"dispatch.example\"",
        ] {
            assert!(says(value), "{value}");
        }
        for value in [
            "i=2; list.example; dmarc=pass header.from=dispatch.example",
            "i=1; list.example; dmarc=fail header.from=dispatch.example",
            "i=1; list.example; dmarc=pass",
            "i=1; list.example; dmarc=pass header.from=evil.example",
            "i=1; list.example; dmarc=pass header.from=dispatch.example.evil.example",
            "i=1; dmarc=pass header.from=dispatch.example",
            "list.example; dmarc=pass header.from=dispatch.example",
            "i=1; list.example; dkim=pass (; dmarc=pass header.from=dispatch.example)",
            "i=1; list.example; dkim=pass reason=\"; dmarc=pass header.from=dispatch.example\"",
            "i=1; list.example; dkim=pass reason=\"\\\"; dmarc=pass header.from=dispatch.example",
            "i=1; list.example; dmarc=fail header.from=dispatch.example; dmarc=pass header.from=dispatch.example",
            "i=1; list.example; xdmarc=pass header.from=dispatch.example",
            "i=1; list.example; dmarc=pass header.from=dispatch.example (",
            "i=1; list.example; none",
            "",
        ] {
            assert!(!says(value), "{value}");
        }
        let twice = "i=1; a.example; dmarc=pass header.from=dispatch.example\r\n\
                     ARC-Authentication-Results: i=1; b.example; dmarc=pass header.from=dispatch.example";
        assert!(!says(twice));
    }

    proptest! {
        #[test]
        fn hostile_results_are_only_refused(value: Vec<u8>) {
            let read = results(&value);
            prop_assert!(read.is_none_or(|(_, results)| results.iter().all(|one| one.method != "dmarc")));
        }
    }
}
