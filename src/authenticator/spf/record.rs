// SPDX-License-Identifier: Apache-2.0
//! Reads SPF records by the grammar of RFC 7208 section 12, whole, before any of it counts (section 4.6). Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use mail::AuthResult;

use super::macros::DomainSpec;

/// A record without a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub directives: Vec<Directive>,
    /// Which record decides if no directive matches.
    pub redirect: Option<DomainSpec>,
}

/// Who matches the mechanism, and what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    /// `Pass`, `Fail`, `SoftFail` or `Neutral`.
    pub result: AuthResult,
    pub mechanism: Mechanism,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Include(DomainSpec),
    /// The host itself; `None`: the current domain.
    A(Option<DomainSpec>, Prefixes),
    /// Its mail exchangers.
    Mx(Option<DomainSpec>, Prefixes),
    Ptr(Option<DomainSpec>),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(DomainSpec),
}

/// Lengths of the prefixes within which addresses match [bits].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefixes {
    pub v4: u8,
    pub v6: u8,
}

/// Maximum size of a record in bytes; DNS over UDP carries less. Beyond it, reading one would take long.
const MAX_RECORD_BYTES: usize = 4096;

/// What the TXT records of a name have of SPF (RFC 7208 section 4.5).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selected {
    None,
    One(Record),
    /// More than one, or one with a mistake.
    Broken,
}

/// Selects the SPF record.
pub(super) fn select(records: &[Vec<u8>]) -> Selected {
    let is_spf = |record: &&Vec<u8>| {
        let version = record.split(|byte| *byte == b' ').next().unwrap_or_default();
        version.eq_ignore_ascii_case(b"v=spf1")
    };
    let mut found = records.iter().filter(is_spf);
    match (found.next(), found.next()) {
        (None, _) => Selected::None,
        (Some(record), None) => {
            str::from_utf8(record).ok().and_then(parse).map_or(Selected::Broken, Selected::One)
        }
        (Some(_), _) => Selected::Broken,
    }
}

/// Parses a record; `None` if it has a mistake anywhere.
fn parse(text: &str) -> Option<Record> {
    if text.len() > MAX_RECORD_BYTES {
        return None;
    }
    let mut record = Record { directives: Vec::new(), redirect: None };
    let mut explains = false;
    for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
        let Some((name, value)) = modifier(term) else {
            record.directives.push(directive(term)?);
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "redirect" if record.redirect.is_some() => return None,
            "redirect" => record.redirect = Some(DomainSpec::parse(value)?),
            "exp" if std::mem::replace(&mut explains, true) => return None,
            // The text is not asked for: nobody reads it.
            "exp" => _ = DomainSpec::parse(value)?,
            // Others are ignored (section 6), if they are macro strings.
            _ => _ = DomainSpec::parse_any(value)?,
        }
    }
    Some(record)
}

/// Name and value of a modifier; `None` if the term is none. An equals sign may also be part of a domain.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    is_name.then_some((name, value))
}

fn directive(term: &str) -> Option<Directive> {
    let (result, term) = match term.as_bytes().first()? {
        b'+' => (AuthResult::Pass, term.get(1..)?),
        b'-' => (AuthResult::Fail, term.get(1..)?),
        b'~' => (AuthResult::SoftFail, term.get(1..)?),
        b'?' => (AuthResult::Neutral, term.get(1..)?),
        _ => (AuthResult::Pass, term),
    };
    let (name, rest) = term.split_at(term.find([':', '/']).unwrap_or(term.len()));
    let after_colon = rest.strip_prefix(':');
    let domain = || DomainSpec::parse(after_colon?);
    let host = || {
        let Some(text) = after_colon else { return Some((None, prefixes(rest)?)) };
        // A domain may have slashes, too: what can be lengths at its end, are some.
        let ends = text.rmatch_indices('/').take(3).map(|(at, _)| text.split_at(at));
        let (domain, lengths) =
            ends.filter(|(_, lengths)| prefixes(lengths).is_some()).last().unwrap_or((text, ""));
        Some((Some(DomainSpec::parse(domain)?), prefixes(lengths)?))
    };
    let network = || match after_colon?.split_once('/') {
        None => Some((after_colon?, None)),
        Some((address, length)) => Some((address, Some(length))),
    };
    let mechanism = match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(domain()?),
        "exists" => Mechanism::Exists(domain()?),
        "ptr" if rest.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(domain()?)),
        "a" => host().map(|(domain, prefixes)| Mechanism::A(domain, prefixes))?,
        "mx" => host().map(|(domain, prefixes)| Mechanism::Mx(domain, prefixes))?,
        "ip4" => {
            let (address, length) = network()?;
            Mechanism::Ip4(address.parse().ok()?, length.map_or(Some(32), |text| prefix(text, 32))?)
        }
        "ip6" => {
            let (address, length) = network()?;
            Mechanism::Ip6(address.parse().ok()?, length.map_or(Some(128), |text| prefix(text, 128))?)
        }
        _ => return None,
    };
    Some(Directive { result, mechanism })
}

/// Parses the empty text, `/24`, `//64` or `/24//64`.
fn prefixes(text: &str) -> Option<Prefixes> {
    let (v4, v6) = text.split_once("//").map_or((text, None), |(v4, v6)| (v4, Some(v6)));
    let v4 = if v4.is_empty() { Some(32) } else { prefix(v4.strip_prefix('/')?, 32) };
    Some(Prefixes { v4: v4?, v6: v6.map_or(Some(128), |text| prefix(text, 128))? })
}

/// Parses the length of a prefix: at most `most`, without a leading zero.
fn prefix(text: &str, most: u8) -> Option<u8> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|length| is_number && *length <= most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_record_is_the_only_one_and_without_a_mistake() {
        for valid in [
            "v=spf1",
            "V=SPF1 -ALL",
            "v=spf1 a mx/24 a:mail.example.org/24//64 ~mx:%{d}//48 ptr ?ptr:example.org -all",
            "v=spf1 exists:%{i}._spf.mta.salesforce.com include:%{ir}.%{v}.%{d}.spf.has.pphosted.com ~all",
            "v=spf1 include:_spf.example.org ip4=192.0.2.1 x= y=a/b rp=abc ~all",
            "v=spf1  ip4:192.0.2.0/24 ip4:192.0.2.1 ip6:2001:db8::/32 include:_spf.example.org -all ",
            "v=spf1 exists:%{ir}.%{v}.%{l1r-}._spf.%{d2} redirect=%{d}",
            "v=spf1 a:%{d1r/}.example.org/24",
            "v=spf1 a:foo:bar/24.example.org//64",
            "v=spf1 redirect=example.org. exp=explain.%{d} unknown=%%%_%-anything",
        ] {
            let selected = select(&records(&["something else", valid]));
            assert!(matches!(selected, Selected::One(_)), "{valid}");
        }
        for mistaken in [
            // Behind what matches: section 4.6 wants the whole record checked first.
            "v=spf1 +all foo",
            "v=spf1 ip4:192.0.2.1 ipv4:192.0.2.2 -all",
            "v=spf1 all:example.org",
            "v=spf1 all/24",
            "v=spf1 ip4:192.0.2.1/33",
            "v=spf1 ip4:192.0.2.1/08",
            "v=spf1 ip4:192.0.2.1/",
            "v=spf1 ip4:192.0.2",
            "v=spf1 ip4",
            "v=spf1 ip6:2001:db8::/129",
            "v=spf1 a/24/64",
            "v=spf1 a:example.org/33",
            "v=spf1 a:example.org/24//",
            "v=spf1 a:x} +all",
            "v=spf1 a:100%%- +all",
            &format!("v=spf1 -all a:{}%{{d}}", "/o".repeat(4096)),
            "v=spf1 a/+24",
            "v=spf1 a:localhost",
            "v=spf1 a:example.123",
            "v=spf1 include",
            "v=spf1 include: -all",
            "v=spf1 include:example.org/24",
            "v=spf1 exists:%{z}.example.org",
            "v=spf1 include:%{p} -all",
            "v=spf1 a:foo..example.org",
            "v=spf1 exists:%{d0}.example.org",
            "v=spf1 exists:%{d.example.org",
            "v=spf1 exists:100%.example.org",
            "v=spf1 redirect=a.example redirect=b.example",
            "v=spf1 exp=a.example exp=b.example",
            "v=spf1 redirect=",
            "v=spf1 x=%",
            "v=spf1 -\u{fc}:example.org",
        ] {
            assert_eq!(select(&records(&[mistaken])), Selected::Broken, "{mistaken}");
        }
        assert_eq!(select(&records(&["v=spf1 -all", "v=spf1 -all"])), Selected::Broken);
        assert_eq!(select(&records(&["v=spf1 -all", "v=spf10 +all"])), select(&records(&["v=spf1 -all"])));
        for other in ["v=spf10 -all", "v=spf1\t-all", " v=spf1 -all", "spf1", ""] {
            assert_eq!(select(&records(&[other])), Selected::None, "{other}");
        }
    }

    #[test]
    fn qualifiers_and_lengths_are_read() {
        let text = "v=spf1 a/0 -mx:e.example/8//9 ~ip6:::1/127 ?all";
        let Selected::One(record) = select(&records(&[text])) else { panic!("{text}") };
        let results: Vec<_> = record.directives.iter().map(|directive| directive.result).collect();
        assert_eq!(results, [AuthResult::Pass, AuthResult::Fail, AuthResult::SoftFail, AuthResult::Neutral]);
        assert_eq!(record.directives[0].mechanism, Mechanism::A(None, Prefixes { v4: 0, v6: 128 }));
        let Mechanism::Mx(Some(_), prefixes) = &record.directives[1].mechanism else { panic!("{record:?}") };
        assert_eq!(*prefixes, Prefixes { v4: 8, v6: 9 });
        assert_eq!(record.directives[2].mechanism, Mechanism::Ip6(Ipv6Addr::LOCALHOST, 127));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(record in "v=spf1( [-+?~]?(a|mx|ptr|ip4|ip6|exists|include|redirect|x)?[:=/%{}.a-z0-9é]{0,9}){0,4}") {
            let _ = select(&[record.into_bytes()]);
        }
    }
}
