// SPDX-License-Identifier: Apache-2.0
//! Takes DKIM keys and DMARC policies from TXT records as their RFCs say; `spf` reads SPF records. Pure.
//!
//! mail-auth takes the first record that it can parse and reads on where a record is broken; who controls no more than
//! one of several records, or profits from a mistake in one, could prove a sender by that. Here a record is checked
//! whole, and mail-auth gets no more of it than what counts.
//!
//! | the name has | result |
//! |---|---|
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
};

use crate::key_digest::{digest_of_key, key_bytes};

/// What a name's TXT records mean to one of the two.
pub(super) type Reading = fn(&[Vec<u8>]) -> TxtAnswer;

/// What mail-auth gets of a name's TXT records.
#[derive(Clone)]
pub(super) struct TxtAnswer {
    pub txt: Txt,
    /// SHA-256 of the DKIM key that it is: one value with the key, so that nobody can have one key verified and another
    /// taken for it.
    pub key_digest: Option<[u8; 32]>,
}

impl From<Txt> for TxtAnswer {
    fn from(txt: Txt) -> Self {
        Self { txt, key_digest: None }
    }
}

/// Says that there is no such record.
fn none() -> Txt {
    Txt::Error(Error::Dns(DnsError::InvalidRecordType))
}

/// Says that there is one that cannot be used.
fn broken() -> Txt {
    Txt::Error(Error::ParseError)
}

/// The DMARC policy (RFC 9989 sections 4.7 to 4.10).
pub(super) fn dmarc(records: &[Vec<u8>]) -> TxtAnswer {
    policy_of(records).into()
}

fn policy_of(records: &[Vec<u8>]) -> Txt {
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
pub(super) fn key(records: &[Vec<u8>]) -> TxtAnswer {
    let mut result = none();
    for record in records {
        match key_of(record) {
            txt @ Txt::DomainKey(_) => {
                let public = tags(record).flatten().find(|(name, _)| *name == "p");
                return TxtAnswer { txt, key_digest: public.and_then(|(_, text)| digest_of_key(text)) };
            }
            other => result = other,
        }
    }
    result.into()
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
    match DomainKey::parse(text.as_bytes()) {
        // Otherwise it is noticed only when a signature does not fit.
        Ok(key) if key.p.public_key_bits() == 0 => broken(),
        Ok(_)
            if value("k") == Some("ed25519")
                && value("p").and_then(key_bytes).map(|key| key.len()) != Some(32) =>
        {
            broken()
        }
        key => key.map_or_else(Txt::Error, Into::into),
    }
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
    fn a_dmarc_policy_is_the_only_one_and_its_mistakes_are_defaults() {
        let policy = |text: &str| match policy_of(&records(&["something else", text])) {
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
        assert!(
            matches!(policy_of(&[bytes]), Txt::Dmarc(policy) if format!("{:?}", policy.adkim) == "Strict")
        );
        let reports =
            policy("v=DMARC1; rua=mailto:d@example.org; ruf=mailto:x@y!z").map(|policy| policy.rua.len());
        assert_eq!(reports, Some(1));
        assert_eq!(policy("v=DMARC1; p=none; rua=%zz").map(|policy| policy.rua.len()), Some(0));
        assert!(is_none(&policy_of(&records(&["v=DMARC1; p=reject", "v=DMARC1; p=none"]))));
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
            assert!(matches!(key(&records(&[&format!("{valid}{KEY}")])).txt, Txt::DomainKey(_)), "{valid}");
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
            assert!(is_broken(&key(&records(&[&format!("{unusable}{KEY}")])).txt), "{unusable}");
        }
        for other in ["k=ed25519; v=DKIM1; ", "v=DKIM2; k=ed25519; ", "v=dkim1; k=ed25519; "] {
            assert!(is_none(&key(&records(&[&format!("{other}{KEY}")])).txt), "{other}");
        }
        let revoked = format!("v=DKIM1; k=ed25519; p=; {}", KEY.replacen('p', "P", 1));
        assert!(matches!(key(&records(&[&revoked])).txt, Txt::Error(Error::Dkim(_))));
        let second = format!("k=ed25519; {KEY}");
        assert!(matches!(key(&records(&["v=spf1 -all", &second])).txt, Txt::DomainKey(_)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
            text in "v=(spf1|DMARC1|DKIM1)[ ;].{0,40}",
        ) {
            for record in [bytes, text.into_bytes()] {
                for reading in [dmarc, key] {
                    let _ = reading(std::slice::from_ref(&record));
                }
            }
        }
    }
}
