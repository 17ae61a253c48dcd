// SPDX-License-Identifier: Apache-2.0
//! Takes SPF records, DKIM keys and DMARC policies from TXT records as their RFCs say. Pure.
//!
//! mail-auth takes the first record that it can parse and reads on where a record is broken; who controls no more than
//! one of several records, or profits from a mistake in one, could prove a sender by that. Here a record is checked
//! whole, and mail-auth gets no more of it than what counts.
//!
//! | the name has | result |
//! |---|---|
//! | more than one SPF record | permanent error (RFC 7208 section 4.5) |
//! | an SPF record with a mistake anywhere, also behind the term that matches | permanent error (section 4.6) |
//! | the macro `p` in an SPF record, which the client's own DNS decides | permanent error (section 7.2 advises against it) |
//! | more than one DMARC policy | none (RFC 9989 section 4.10) |
//! | `v=dmarc1`, or another tag in front of `v`, or a tag twice | none (section 4.7, RFC 6376 section 3.2) |
//! | an invalid `p`, `sp` or `np` | `p=none` if there is a `rua`, else none (RFC 9989 section 4.10.1) |
//! | another invalid tag, or a piece that is no tag | as if it were not there (section 4.8) |
//! | a DKIM key with `v` not in front, `s` without email, `h` without sha256, a tag twice, or a piece that is no tag | unusable (RFC 6376 sections 3.2 and 3.6.1) |

use std::collections::HashSet;

use mail_auth::{
    DnsError, Error, Txt,
    common::{parse::TxtRecordParser, verify::DomainKey},
    dmarc::Dmarc,
    spf::Spf,
};

/// What a name's TXT records mean to one of the three.
pub(super) type Reading = fn(&[Vec<u8>]) -> Txt;

/// Says that there is no such record.
fn none() -> Txt {
    Txt::Error(Error::Dns(DnsError::InvalidRecordType))
}

/// Says that there is one that cannot be used.
fn broken() -> Txt {
    Txt::Error(Error::ParseError)
}

/// The SPF record (RFC 7208 section 4.5).
pub(super) fn spf(records: &[Vec<u8>]) -> Txt {
    let is_spf = |record: &&Vec<u8>| {
        let version = record.split(|byte| *byte == b' ').next().unwrap_or_default();
        version.eq_ignore_ascii_case(b"v=spf1")
    };
    let mut found = records.iter().filter(is_spf);
    match (found.next(), found.next()) {
        (None, _) => none(),
        (Some(record), None) => match what_counts(record) {
            Some(record) => Spf::parse(record.as_bytes()).map_or_else(|_| broken(), Into::into),
            None => broken(),
        },
        (Some(_), _) => broken(),
    }
}

/// What counts of an SPF record: its directives and `redirect`. Other modifiers are ignored (RFC 7208 section 6), but
/// mail-auth takes `a=example.org` for a directive. `None` unless every term follows the grammar of section 12.
fn what_counts(record: &[u8]) -> Option<String> {
    let text = str::from_utf8(record).ok()?;
    let mut counts = "v=spf1".to_owned();
    let mut seen = Vec::new();
    for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
        let is_directive = match modifier(term) {
            Some((_, false)) => return None,
            Some((name, true)) => {
                let is_known = matches!(name.as_str(), "redirect" | "exp");
                if is_known && seen.contains(&name) {
                    return None;
                }
                let is_redirect = name == "redirect";
                seen.push(name);
                is_redirect
            }
            None if directive(term) => true,
            None => return None,
        };
        if is_directive {
            counts = format!("{counts} {term}");
        }
    }
    Some(counts)
}

/// A modifier's name in lower case, and whether its value is valid; `None` if the term is no modifier.
fn modifier(term: &str) -> Option<(String, bool)> {
    let (name, value) = term.split_once('=')?;
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    // An equals sign may also be part of a domain.
    is_name.then(|| {
        let name = name.to_ascii_lowercase();
        let is_valid = match name.as_str() {
            "redirect" | "exp" => is_domain_spec(value),
            _ => is_macro_string(value),
        };
        (name, is_valid)
    })
}

fn directive(term: &str) -> bool {
    let term = term.strip_prefix(['+', '-', '~', '?']).unwrap_or(term);
    let end = term.find([':', '/']).unwrap_or(term.len());
    let (name, rest) = term.split_at(end);
    let after_colon = rest.strip_prefix(':');
    let address = || {
        let (address, length) =
            after_colon?.split_once('/').map_or((after_colon?, None), |(a, l)| (a, Some(l)));
        Some((address, length))
    };
    match name.to_ascii_lowercase().as_str() {
        "all" => rest.is_empty(),
        "include" | "exists" => after_colon.is_some_and(is_domain_spec),
        "ptr" => rest.is_empty() || after_colon.is_some_and(is_domain_spec),
        "a" | "mx" => match after_colon {
            None => is_dual_length(rest),
            Some(domain) => {
                let end = domain.find('/').unwrap_or(domain.len());
                let (domain, lengths) = domain.split_at(end);
                is_domain_spec(domain) && is_dual_length(lengths)
            }
        },
        "ip4" => address().is_some_and(|(address, length)| {
            address.parse::<std::net::Ipv4Addr>().is_ok() && length.is_none_or(|length| is_length(length, 32))
        }),
        "ip6" => address().is_some_and(|(address, length)| {
            address.parse::<std::net::Ipv6Addr>().is_ok()
                && length.is_none_or(|length| is_length(length, 128))
        }),
        _ => false,
    }
}

/// Whether `text` is empty, `/24`, `//64` or `/24//64`.
fn is_dual_length(text: &str) -> bool {
    let (v4, v6) = text.split_once("//").map_or((text, None), |(v4, v6)| (v4, Some(v6)));
    let v4 = match v4.strip_prefix('/') {
        None => v4.is_empty(),
        Some(length) => is_length(length, 32),
    };
    v4 && v6.is_none_or(|length| is_length(length, 128))
}

/// Whether `text` is the length of a prefix: no more than `most`, and without a leading zero.
fn is_length(text: &str, most: u8) -> bool {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_number && text.parse::<u8>().is_ok_and(|length| length <= most)
}

/// Whether `text` is a `domain-spec`: a macro string that ends in a macro, or in a dot and a top label.
fn is_domain_spec(text: &str) -> bool {
    let ends_in_macro =
        text.ends_with('}') || text.ends_with("%%") || text.ends_with("%_") || text.ends_with("%-");
    let labels = text.strip_suffix('.').unwrap_or(text);
    let ends_in_label = labels.rsplit_once('.').is_some_and(|(_, top)| {
        let is_label = top.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_label
            && !top.starts_with('-')
            && !top.ends_with('-')
            && top.bytes().any(|byte| !byte.is_ascii_digit())
    });
    // DNS cannot be asked for such a name.
    let can_be_asked = text.contains('%') || labels.split('.').all(|label| (1..=63).contains(&label.len()));
    is_macro_string(text) && (ends_in_macro || ends_in_label) && can_be_asked
}

fn is_macro_string(text: &str) -> bool {
    let mut rest = text;
    while let Some(begin) = rest.find('%') {
        let (literal, expansion) = rest.split_at(begin);
        if !literal.bytes().all(|byte| byte.is_ascii_graphic()) {
            return false;
        }
        rest = match expansion.as_bytes() {
            [b'%', b'%' | b'_' | b'-', ..] => expansion.get(2..).unwrap_or_default(),
            [b'%', b'{', ..] => {
                let Some((body, after)) = expansion.get(2..).and_then(|body| body.split_once('}')) else {
                    return false;
                };
                if !is_macro(body) {
                    return false;
                }
                after
            }
            _ => return false,
        };
    }
    rest.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether `body` is what stands between the braces of a macro (RFC 7208 section 7.1).
fn is_macro(body: &str) -> bool {
    let mut rest = body.chars();
    // `c`, `r` and `t` are for the text that `exp` names, not for a record. `p` would be what the client's DNS says.
    let is_letter = rest.next().is_some_and(|letter| "slodihv".contains(letter.to_ascii_lowercase()));
    let after_digits = rest.as_str().trim_start_matches(|c: char| c.is_ascii_digit());
    let delimiters = after_digits.strip_prefix(['r', 'R']).unwrap_or(after_digits);
    let digits = rest.as_str().len() - after_digits.len();
    let is_count =
        digits == 0 || rest.as_str().get(..digits).and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n > 0);
    is_letter && is_count && delimiters.chars().all(|c| ".-+,/_=".contains(c))
}

/// The DMARC policy (RFC 9989 sections 4.7 to 4.10).
pub(super) fn dmarc(records: &[Vec<u8>]) -> Txt {
    let is_policy = |record: &&Vec<u8>| {
        tags(record)
            .next()
            .flatten()
            .is_some_and(|(name, value)| name.eq_ignore_ascii_case("v") && value == "DMARC1")
    };
    let mut found = records.iter().filter(is_policy);
    let (Some(record), None) = (found.next(), found.next()) else { return none() };
    let tags: Vec<_> =
        tags(record).flatten().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let is_read = |name: &str| matches!(name, "v" | "p" | "sp" | "np" | "adkim" | "aspf" | "psd" | "t");
    if has_twice(tags.iter().map(|(name, _)| name.as_str()).filter(|name| is_read(name))) {
        return none();
    }
    let is_policy = |name: &str| matches!(name, "p" | "sp" | "np");
    let has_policy = tags.iter().all(|(name, value)| !is_policy(name) || is_valid(name, value));
    let policy = |reports: bool| {
        let counts = |(name, value): &&(String, &str)| match name.as_str() {
            "rua" => reports,
            name if is_policy(name) => has_policy,
            name => is_read(name) && is_valid(name, value),
        };
        let text: String =
            tags.iter().filter(counts).map(|(name, value)| format!("{name}={value};")).collect();
        Dmarc::parse(text.as_bytes())
    };
    // Where reports go matters only to whoever sends some, and that there is such a place if there is no policy.
    policy(true).or_else(|_| policy(false)).map_or_else(|_| none(), Into::into)
}

fn is_valid(name: &str, value: &str) -> bool {
    let is_one_of = |values: &[&str]| values.iter().any(|one| one.eq_ignore_ascii_case(value));
    match name {
        "v" => true,
        "p" | "sp" | "np" => is_one_of(&["none", "quarantine", "reject"]),
        "adkim" | "aspf" => is_one_of(&["r", "s"]),
        "psd" => is_one_of(&["y", "n", "u"]),
        "t" => is_one_of(&["y", "n"]),
        _ => false,
    }
}

/// The DKIM key: of several records, the first that can be used (RFC 6376 section 3.6.2.2 leaves it open).
pub(super) fn key(records: &[Vec<u8>]) -> Txt {
    let mut result = none();
    for record in records {
        match key_of(record) {
            key @ Txt::DomainKey(_) => return key,
            other => result = other,
        }
    }
    result
}

fn key_of(record: &[u8]) -> Txt {
    let Some(tags) = tags(record).collect::<Option<Vec<_>>>() else { return broken() };
    let value = |wanted: &str| tags.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    let lists = |wanted: &str, accepted: &[&str]| {
        value(wanted).is_none_or(|list| list.split(':').any(|one| accepted.contains(&one.trim())))
    };
    let is_versioned = value("v")
        .is_none_or(|version| version == "DKIM1" && tags.first().is_some_and(|(name, _)| *name == "v"));
    if !is_versioned {
        return none();
    }
    if has_twice(tags.iter().map(|(name, _)| *name))
        || !lists("s", &["*", "email"])
        || !lists("h", &["sha256"])
    {
        return broken();
    }
    // mail-auth also takes tags in upper case, which are others.
    let counts = tags.iter().filter(|(name, _)| matches!(*name, "k" | "t" | "p"));
    let text: String = counts.map(|(name, value)| format!("{name}={value};")).collect();
    DomainKey::parse(text.as_bytes()).map_or_else(Txt::Error, Into::into)
}

/// Whether a name occurs twice.
fn has_twice<'n>(mut names: impl Iterator<Item = &'n str>) -> bool {
    let mut seen = HashSet::new();
    !names.all(|name| seen.insert(name))
}

/// The tags of a `name=value` list (RFC 6376 section 3.2), in order; `None` for a piece that is no tag.
pub(super) fn tags(record: &[u8]) -> impl Iterator<Item = Option<(&str, &str)>> {
    let pieces = record.split(|byte| *byte == b';').filter(|piece| !piece.trim_ascii().is_empty());
    pieces.map(|piece| {
        let (name, value) = str::from_utf8(piece).ok()?.split_once('=')?;
        Some((name.trim(), value.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    fn is_none(txt: &Txt) -> bool {
        matches!(txt, Txt::Error(Error::Dns(DnsError::InvalidRecordType)))
    }

    fn is_broken(txt: &Txt) -> bool {
        matches!(txt, Txt::Error(Error::ParseError))
    }

    #[test]
    fn an_spf_record_is_the_only_one_and_without_a_mistake() {
        for valid in [
            "v=spf1",
            "V=SPF1 -ALL",
            "v=spf1 a mx/24 a:mail.example.org/24//64 ~mx:%{d}//48 ptr ?ptr:example.org -all",
            "v=spf1 exists:%{i}._spf.mta.salesforce.com include:%{ir}.%{v}.%{d}.spf.has.pphosted.com ~all",
            "v=spf1 include:_spf.example.org ip4=192.0.2.1 x= y=a/b rp=abc ~all",
            "v=spf1  ip4:192.0.2.0/24 ip4:192.0.2.1 ip6:2001:db8::/32 include:_spf.example.org -all ",
            "v=spf1 exists:%{ir}.%{v}.%{l1r-}._spf.%{d2} redirect=%{d}",
            "v=spf1 redirect=example.org. exp=explain.%{d} unknown=%%%_%-anything",
        ] {
            assert!(matches!(spf(&records(&["something else", valid])), Txt::Spf(_)), "{valid}");
        }
        for mistaken in [
            // Behind what matches: RFC 7208 section 4.6 wants the whole record checked first.
            "v=spf1 +all foo",
            "v=spf1 ip4:192.0.2.1 ipv4:192.0.2.2 -all",
            "v=spf1 all:example.org",
            "v=spf1 ip4:192.0.2.1/33",
            "v=spf1 ip4:192.0.2.1/08",
            "v=spf1 ip4:192.0.2",
            "v=spf1 ip6:2001:db8::/129",
            "v=spf1 a/24/64",
            "v=spf1 a:localhost",
            "v=spf1 a:example.123",
            "v=spf1 include",
            "v=spf1 include: -all",
            "v=spf1 exists:%{z}.example.org",
            "v=spf1 include:%{p} -all",
            "v=spf1 a:foo..example.org",
            "v=spf1 exists:%{d0}.example.org",
            "v=spf1 exists:%{d.example.org",
            "v=spf1 exists:100%.example.org",
            "v=spf1 redirect=a.example redirect=b.example",
            "v=spf1 redirect=",
            "v=spf1\ta -all",
            "v=spf1 a\t-all",
            "v=spf1 -all \u{fc}",
        ] {
            let result = spf(&records(&[mistaken]));
            let is_no_record = mistaken.starts_with("v=spf1\t");
            assert!(if is_no_record { is_none(&result) } else { is_broken(&result) }, "{mistaken}");
        }
        // A modifier that nobody knows is no directive, whatever its name.
        let Txt::Spf(modified) =
            spf(&records(&["v=spf1 a=mail.example.org mx=x.example -all exp=e.example"]))
        else {
            panic!("it is valid");
        };
        assert_eq!(modified.directives.len(), 1);
        assert!(is_broken(&spf(&records(&["v=spf1 -all", "v=spf1 +all"]))));
        assert!(is_none(&spf(&records(&["v=spf10 +all", "spf2.0/pra +all"]))));
        assert!(is_none(&spf(&[])));
    }

    #[test]
    fn a_dmarc_policy_is_the_only_one_and_its_mistakes_are_defaults() {
        let policy = |text: &str| match dmarc(&records(&["something else", text])) {
            Txt::Dmarc(policy) => Some(policy),
            other => {
                assert!(is_none(&other), "{text}");
                None
            }
        };
        let read = |text: &str| {
            policy(text).map(|policy| format!("{:?} {:?} {:?}", policy.p, policy.adkim, policy.aspf))
        };
        for (text, wanted) in [
            ("v=DMARC1; p=reject; adkim=s", Some("Reject Strict Relaxed")),
            ("v = DMARC1 ;p = Quarantine", Some("Quarantine Relaxed Relaxed")),
            ("v=DMARC1; adkim=strict; p=reject; aspf=s; fo=x; pct=no", Some("Reject Relaxed Strict")),
            ("v=DMARC1; p=rejects; rua=mailto:d@example.org", Some("Unspecified Relaxed Relaxed")),
            (
                "v=DMARC1; p=reject; sp=x; adkim=s; rua=mailto:d@example.org",
                Some("Unspecified Strict Relaxed"),
            ),
            ("V=DMARC1; P=Reject", Some("Reject Relaxed Relaxed")),
            ("v=DMARC1; p=reject; fo; adkim=s; n=\u{fc}; aspf=s", Some("Reject Strict Strict")),
            ("v=DMARC1; p=reject; adkim=s; adkim=r", None),
            ("v=dmarc1; p=reject", None),
            ("p=reject; v=DMARC1", None),
            ("v=DMARC10; p=reject", None),
            ("v=DMARC1 p=reject", None),
        ] {
            assert_eq!(read(text).as_deref(), wanted, "{text}");
        }
        let bytes = b"v=DMARC1; p=reject; n=\xe9; adkim=s".to_vec();
        assert!(matches!(dmarc(&[bytes]), Txt::Dmarc(policy) if format!("{:?}", policy.adkim) == "Strict"));
        let reports =
            policy("v=DMARC1; rua=mailto:d@example.org; ruf=mailto:x@y!z").map(|policy| policy.rua.len());
        assert_eq!(reports, Some(1));
        assert_eq!(policy("v=DMARC1; p=none; rua=%zz").map(|policy| policy.rua.len()), Some(0));
        assert!(is_none(&dmarc(&records(&["v=DMARC1; p=reject", "v=DMARC1; p=none"]))));
    }

    #[test]
    fn a_dkim_key_is_for_mail_and_sha256_and_begins_with_its_version() {
        // The key of RFC 8463 appendix A.2.
        const KEY: &str = "p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        for valid in [
            "k=ed25519; ",
            "v=DKIM1; k=ed25519; ",
            "k=ed25519; s=*; h=sha1:sha256; ",
            "v=DKIM1;k=ed25519; s=email:x; x=y;",
        ] {
            assert!(matches!(key(&records(&[&format!("{valid}{KEY}")])), Txt::DomainKey(_)), "{valid}");
        }
        for unusable in [
            "k=ed25519; s=tlsrpt; ",
            "k=ed25519; h=sha1; ",
            "k=ed25519; k=ed25519; ",
            "k=ed25519; x; s=tlsrpt; ",
            "v=DKIM1; s=tlsrpt; n=\u{e9}; k=ed25519; ",
            "k=ed25519; x; ",
            "v=DKIM1; k=ed25519; s=; ",
        ] {
            assert!(is_broken(&key(&records(&[&format!("{unusable}{KEY}")]))), "{unusable}");
        }
        for other in ["k=ed25519; v=DKIM1; ", "v=DKIM2; k=ed25519; ", "v=dkim1; k=ed25519; "] {
            assert!(is_none(&key(&records(&[&format!("{other}{KEY}")]))), "{other}");
        }
        let revoked = format!("v=DKIM1; k=ed25519; p=; {}", KEY.replacen('p', "P", 1));
        assert!(matches!(key(&records(&[&revoked])), Txt::Error(Error::Dkim(_))));
        let second = format!("k=ed25519; {KEY}");
        assert!(matches!(key(&records(&["v=spf1 -all", &second])), Txt::DomainKey(_)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
            text in "v=(spf1|DMARC1|DKIM1)[ ;].{0,40}",
        ) {
            for record in [bytes, text.into_bytes()] {
                for reading in [spf, dmarc, key] {
                    let _ = reading(std::slice::from_ref(&record));
                }
            }
        }
    }
}
