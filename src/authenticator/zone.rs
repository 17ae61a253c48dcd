// SPDX-License-Identifier: Apache-2.0
//! Parses a DNS zone file as the only source of answers, for hosts without DNS, demonstrations and tests. Pure,
//! except that [`Zone::read`] reads the file.
//!
//! Supports the subset of RFC 1035 section 5 that sender authentication needs: `$ORIGIN`, `$TTL`, relative and
//! absolute names, `@`, comments, parentheses, quoted strings, `TXT`, `A`, `AAAA` and `MX`. `SOA` and `NS` are
//! skipped. Anything that would be answered wrongly is rejected with file and line, such as other types: a `CNAME`
//! would have to be followed.
//!
//! `entry` splits the text into entries; answering queries is left to `dns`.

mod entry;

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use self::entry::{Entry, Token, entries};

/// The zone file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    /// The file cannot be read.
    #[error("zone file {file} cannot be read: {source}")]
    Read {
        /// Path of the file.
        file: String,
        /// Cause of the failure.
        source: io::Error,
    },
    /// An entry breaks a rule.
    #[error("{file}:{line}: {rule}")]
    Syntax {
        /// Name of the file.
        file: String,
        /// Line of the error, counted from 1; for an unsuitable entry, the line where it starts.
        line: usize,
        /// The rule that is broken.
        rule: String,
    },
}

/// The records of one owner name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// TXT records, the strings of each concatenated.
    pub txt: Vec<Vec<u8>>,
    /// Addresses from A records.
    pub a: Vec<Ipv4Addr>,
    /// Addresses from AAAA records.
    pub aaaa: Vec<Ipv6Addr>,
    /// Preference and exchange of each MX record.
    pub mx: Vec<(u16, String)>,
}

/// All records by owner name: absolute, with the final dot, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    records: BTreeMap<String, Records>,
}

impl Zone {
    /// Reads and parses a zone file.
    ///
    /// # Errors
    /// If the file cannot be read, or at the first entry that cannot be used.
    pub fn read(path: &Path) -> Result<Self, ZoneError> {
        let file = path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|source| ZoneError::Read { file: file.clone(), source })?;
        Self::parse(&text, &file)
    }

    /// Parses the text of a zone file; `file` is its name in errors.
    ///
    /// # Errors
    /// At the first entry that cannot be used.
    pub fn parse(text: &str, file: &str) -> Result<Self, ZoneError> {
        let mut zone = Self::default();
        let mut state = State { origin: None, owner: None };
        for (line, entry) in entries(text).map_err(|(line, rule)| syntax(file, line, rule))? {
            zone.enter(&mut state, &entry).map_err(|rule| syntax(file, line, rule))?;
        }
        Ok(zone)
    }

    /// The records of a name without its final dot; `None` if the zone does not have it.
    pub fn get(&self, name: &str) -> Option<&Records> {
        self.records.get(&format!("{}.", name.to_ascii_lowercase()))
    }

    /// Iterates over the names and their records.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Records)> {
        self.records.iter().map(|(name, records)| (name.as_str(), records))
    }

    fn enter(&mut self, state: &mut State, entry: &Entry) -> Result<(), String> {
        let mut tokens = entry.tokens.iter();
        if !entry.continues {
            let first = tokens.next().map(Token::text).unwrap_or_default();
            match first.to_ascii_uppercase().as_str() {
                "$ORIGIN" => {
                    let origin = tokens.next().map(Token::text).unwrap_or_default();
                    state.origin = Some(name(&origin, state.origin.as_deref())?);
                    return end(tokens);
                }
                "$TTL" => {
                    let ttl = tokens.next().map(Token::text).unwrap_or_default();
                    return if is_ttl(&ttl) {
                        end(tokens)
                    } else {
                        Err(format!("$TTL must be a time, not {ttl:?}"))
                    };
                }
                directive if directive.starts_with('$') => {
                    return Err(format!("{directive} is not supported"));
                }
                _ => state.owner = Some(name(&first, state.origin.as_deref())?),
            }
        }
        let owner = state.owner.clone().ok_or("the first entry must start with a name")?;
        // TTL and class may precede the type, in either order.
        let kind = loop {
            let word =
                tokens.next().map(Token::text).ok_or("an entry must have a type")?.to_ascii_uppercase();
            if word != "IN" && !is_ttl(&word) {
                break word;
            }
        };
        let records = self.records.entry(owner).or_default();
        let mut next = |what: &str| tokens.next().ok_or_else(|| format!("{kind} must have {what}"));
        match kind.as_str() {
            "A" => {
                let text = next("an IPv4 address")?.text();
                records
                    .a
                    .push(text.parse().map_err(|_| format!("A must have an IPv4 address, not {text:?}"))?);
            }
            "AAAA" => {
                let text = next("an IPv6 address")?.text();
                records
                    .aaaa
                    .push(text.parse().map_err(|_| format!("AAAA must have an IPv6 address, not {text:?}"))?);
            }
            "MX" => {
                let text = next("a preference")?.text();
                let preference =
                    text.parse().map_err(|_| format!("MX must have a preference, not {text:?}"))?;
                let exchange = name(&next("an exchange")?.text(), state.origin.as_deref())?;
                records.mx.push((preference, exchange));
            }
            "TXT" => {
                let mut text = next("a string")?.string()?;
                for token in tokens.by_ref() {
                    text.extend(token.string()?);
                }
                records.txt.push(text);
            }
            "SOA" | "NS" => return Ok(()),
            other => {
                return Err(format!("type {other} is not supported; these are: TXT, A, AAAA, MX, SOA, NS"));
            }
        }
        end(tokens)
    }
}

struct State {
    origin: Option<String>,
    owner: Option<String>,
}

fn syntax(file: &str, line: usize, rule: String) -> ZoneError {
    ZoneError::Syntax { file: file.to_owned(), line, rule }
}

fn end<'t>(mut rest: impl Iterator<Item = &'t Token>) -> Result<(), String> {
    rest.next().map_or(Ok(()), |token| Err(format!("{:?} must not follow", token.text())))
}

/// Whether a word is a number of seconds, or a number with a unit as in BIND.
fn is_ttl(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
        && word.chars().all(|c| c.is_ascii_digit() || "smhdwSMHDW".contains(c))
}

/// Makes a name absolute: lower case, with the final dot.
fn name(text: &str, origin: Option<&str>) -> Result<String, String> {
    let absolute = match (text, origin) {
        ("@", Some(origin)) => origin.to_owned(),
        ("@", None) => return Err("@ needs $ORIGIN".to_owned()),
        (text, _) if text.ends_with('.') => text.to_owned(),
        (text, Some(".")) => format!("{text}."),
        (text, Some(origin)) => format!("{text}.{origin}"),
        (text, None) => return Err(format!("name {text:?} must end with a dot, or $ORIGIN be given")),
    };
    let is_label =
        |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic());
    let is_name = absolute == "." || absolute.strip_suffix('.').unwrap_or_default().split('.').all(is_label);
    if !is_name || absolute.len() > 254 {
        return Err(format!("{text:?} is not a domain name"));
    }
    Ok(absolute.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str, name: &str) -> Records {
        Zone::parse(text, "test.zone").unwrap().records.get(name).cloned().unwrap_or_default()
    }

    fn error(text: &str) -> String {
        Zone::parse(text, "test.zone").unwrap_err().to_string()
    }

    const ZONE: &str = "\
$ORIGIN Example.ORG. ; of everything below
$TTL 1h
@   3600 IN SOA ns hostmaster ( 1 2h ; serial, refresh
        3 4 5 )
    IN  NS  ns
    IN 60 TXT \"v=spf1 mx \" \"-all\"
        MX 10 mail
mail    A 192.0.2.1
        AAAA 2001:db8::1
_dmarc  TXT v=DMARC1\\;p=reject
s._domainkey TXT ( \"v=DKIM1; k=ed25519; \"
                   \"p=\\065\" )
other.example. TXT \"a \\\"b\\\"; c\"
";

    #[test]
    fn reads_the_subset_of_rfc_1035() {
        let origin = records(ZONE, "example.org.");
        assert_eq!(origin.txt, [b"v=spf1 mx -all"]);
        assert_eq!(origin.mx, [(10, "mail.example.org.".to_owned())]);
        let mail = records(ZONE, "mail.example.org.");
        assert_eq!((mail.a.len(), mail.aaaa.len()), (1, 1));
        assert_eq!(records(ZONE, "_dmarc.example.org.").txt, [b"v=DMARC1;p=reject"]);
        assert_eq!(records(ZONE, "s._domainkey.example.org.").txt, [b"v=DKIM1; k=ed25519; p=A"]);
        assert_eq!(records(ZONE, "other.example.").txt, [b"a \"b\"; c"]);
    }

    #[test]
    fn names_file_line_and_rule() {
        assert_eq!(
            error("\nwww A 1.2.3.4"),
            "test.zone:2: name \"www\" must end with a dot, or $ORIGIN be given"
        );
        assert_eq!(error("a. A 1.2.3"), "test.zone:1: A must have an IPv4 address, not \"1.2.3\"");
        assert_eq!(error("a. A 1.2.3.4 5"), "test.zone:1: \"5\" must not follow");
        assert_eq!(error("a. TXT \"open"), "test.zone:1: a quoted string must end on its line");
        assert_eq!(error("a. TXT (\n\"x\""), "test.zone:1: a parenthesis must be closed");
        assert_eq!(error("$INCLUDE b"), "test.zone:1: $INCLUDE is not supported");
        assert!(error("a. CNAME b.").contains("type CNAME is not supported"));
        assert!(error(&format!("a. TXT \"{}\"", "x".repeat(256))).contains("256 bytes"));
        assert!(error("a..b. A 1.2.3.4").contains("is not a domain name"));
        assert!(error(" A 1.2.3.4").contains("must start with a name"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_zone_or_an_error(text in "([a-z@.$\\\\\"(); \t0-9]|TXT|IN|\n){0,60}") {
            let _ = Zone::parse(&text, "test.zone");
        }
    }
}
