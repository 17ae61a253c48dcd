// SPDX-License-Identifier: Apache-2.0
//! Domains of SPF terms, and the macros in them (RFC 7208 sections 7 and 12). Pure.
//!
//! The macro `p` is refused: it would be what the client's own DNS says (section 7.2 advises against it). `c`, `r` and
//! `t` belong in the text that `exp` names, which is never asked for.

use std::net::IpAddr;

/// Longest name that DNS can be asked for, without the final dot.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// What macros stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'q> {
    /// Local part of the sender, as it is in the envelope.
    pub local: &'q str,
    /// Domain of the sender.
    pub sender_domain: &'q str,
    pub ip: IpAddr,
    pub helo: &'q str,
}

/// A domain, perhaps with macros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DomainSpec(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Macro { letter: u8, escapes: bool, labels: Option<usize>, reverses: bool, delimiters: String },
}

impl DomainSpec {
    /// Parses a `domain-spec`: a macro string that ends in a macro, or in a dot and a top label. Also refuses what DNS
    /// cannot be asked for.
    pub fn parse(text: &str) -> Option<Self> {
        let (spec, ends_in_macro) = Self::read(text)?;
        let labels = text.strip_suffix('.').unwrap_or(text);
        let ends_in_label = labels.rsplit_once('.').is_some_and(|(_, top)| {
            let is_label = top.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            is_label
                && !top.starts_with('-')
                && !top.ends_with('-')
                && top.bytes().any(|byte| !byte.is_ascii_digit())
        });
        let can_be_asked = text.contains('%') || is_name(labels);
        ((ends_in_macro || ends_in_label) && can_be_asked).then_some(spec)
    }

    /// Parses any `macro-string`.
    pub fn parse_any(text: &str) -> Option<Self> {
        Self::read(text).map(|(spec, _)| spec)
    }

    /// Also tells whether it ends in a macro, which `%%`, `%_` and `%-` are.
    fn read(text: &str) -> Option<(Self, bool)> {
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        let mut ends_in_macro = false;
        while let Some(first) = rest.chars().next() {
            if !first.is_ascii_graphic() {
                return None;
            }
            let after = rest.get(1..)?;
            ends_in_macro = first == '%';
            if !ends_in_macro {
                literal.push(first);
                rest = after;
                continue;
            }
            let escaped = match after.as_bytes().first()? {
                b'%' => Some("%"),
                b'_' => Some(" "),
                b'-' => Some("%20"),
                b'{' => None,
                _ => return None,
            };
            rest = after.get(1..)?;
            match escaped {
                Some(escaped) => literal += escaped,
                None => {
                    let (body, behind) = rest.split_once('}')?;
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    pieces.push(expansion(body)?);
                    rest = behind;
                }
            }
        }
        pieces.push(Piece::Literal(literal));
        Some((Self(pieces), ends_in_macro))
    }

    /// The domain for these facts, in which `d` stands for `current`; labels in front are dropped until DNS can be asked
    /// for the rest (section 7.3). `None` if it cannot be asked for it, or if it needs a local part beyond ASCII
    /// (RFC 8616 section 4).
    pub fn expand(&self, facts: &Facts<'_>, current: &str) -> Option<String> {
        let needs_local = |piece: &Piece| matches!(piece, Piece::Macro { letter: b's' | b'l', .. });
        if !facts.local.is_ascii() && self.0.iter().any(needs_local) {
            return None;
        }
        let expanded: String = self.0.iter().map(|piece| piece.expand(facts, current)).collect();
        let mut name = expanded.strip_suffix('.').unwrap_or(&expanded);
        while name.len() > MAX_NAME {
            name = name.split_once('.')?.1;
        }
        is_name(name).then(|| name.to_owned())
    }
}

impl Piece {
    fn expand(&self, facts: &Facts<'_>, current: &str) -> String {
        let (letter, escapes, labels, reverses, delimiters) = match self {
            Self::Literal(text) => return text.clone(),
            Self::Macro { letter, escapes, labels, reverses, delimiters } => {
                (letter, escapes, labels, reverses, delimiters)
            }
        };
        let value = match letter {
            b's' => format!("{}@{}", facts.local, facts.sender_domain),
            b'l' => facts.local.to_owned(),
            b'o' => facts.sender_domain.to_owned(),
            b'd' => current.to_owned(),
            b'i' => dotted(facts.ip),
            b'v' => if facts.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            _ => facts.helo.to_owned(),
        };
        let mut parts: Vec<_> = value.split(|c| delimiters.contains(c)).collect();
        if *reverses {
            parts.reverse();
        }
        // The rightmost ones.
        let kept = labels.map_or(0, |labels| parts.len().saturating_sub(labels));
        let text = parts.get(kept..).unwrap_or_default().join(".");
        if *escapes { escape(&text) } else { text }
    }
}

/// Parses what stands between the braces of a macro.
fn expansion(body: &str) -> Option<Piece> {
    let (letter, rest) = (body.bytes().next()?, body.get(1..)?);
    if !b"slodihv".contains(&letter.to_ascii_lowercase()) {
        return None;
    }
    let after_digits = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = rest.get(..rest.len() - after_digits.len())?;
    let labels = match digits {
        "" => None,
        // A number that does not fit is more than there are labels.
        digits => Some(digits.parse().unwrap_or(usize::MAX)).filter(|count| *count > 0).map(Some)?,
    };
    let delimiters = after_digits.strip_prefix(['r', 'R']);
    let (reverses, delimiters) = (delimiters.is_some(), delimiters.unwrap_or(after_digits));
    let is_valid = delimiters.chars().all(|c| ".-+,/_=".contains(c));
    is_valid.then(|| Piece::Macro {
        letter: letter.to_ascii_lowercase(),
        escapes: letter.is_ascii_uppercase(),
        labels,
        reverses,
        delimiters: if delimiters.is_empty() { "." } else { delimiters }.to_owned(),
    })
}

/// An IPv6 address has 32 parts of one digit each.
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let digits = format!("{:032x}", v6.to_bits());
            digits.chars().map(String::from).collect::<Vec<_>>().join(".")
        }
    }
}

/// Escapes all but unreserved characters (RFC 3986 section 2.3).
fn escape(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Whether DNS can be asked for it.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('.').all(|label| (1..=MAX_LABEL).contains(&label.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7208 section 7.4.
    #[test]
    fn macros_stand_for_what_the_rfc_says() {
        let expand = |text: &str, ip: &str| {
            let (local, sender_domain, helo) = ("strong-bad", "email.example.com", "mx.example.org");
            let facts = Facts { local, sender_domain, ip: ip.parse().unwrap(), helo };
            DomainSpec::parse_any(text).unwrap().expand(&facts, "email.example.com")
        };
        for (text, expected) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
            ("%{S}.%%.%_.%-.%{H}", "strong-bad%40email.example.com.%. .%20.mx.example.org"),
        ] {
            assert_eq!(expand(text, "192.0.2.3").as_deref(), Some(expected), "{text}");
        }
        let nibbles = "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com";
        assert_eq!(expand("%{ir}.%{v}._spf.%{d2}", "2001:db8::cb01").as_deref(), Some(nibbles));
    }

    #[test]
    fn a_name_that_is_too_long_loses_labels_in_front_and_one_that_stays_impossible_is_none() {
        let long = format!("{0}.{0}.{0}.{0}", "a".repeat(62));
        let facts = Facts { local: "", sender_domain: "", ip: [192, 0, 2, 1].into(), helo: &long };
        let expand = |text: &str| DomainSpec::parse_any(text).unwrap().expand(&facts, "example.org");
        assert_eq!(expand("%{h}.%{d}"), Some(format!("{0}.{0}.{0}.example.org", "a".repeat(62))));
        assert_eq!(expand("%{l}.%{d}"), None, "an empty label");
        assert_eq!(expand(&"x".repeat(64)), None);
    }
}
