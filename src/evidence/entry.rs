// SPDX-License-Identifier: Apache-2.0
//! The entries of the ledger: which node states which facts about what. Pure.
//!
//! An entry has a kind, a source, a subject and the digest of its facts. Names that break a rule, and facts that are
//! not those of the digest, make no entry. The ledger holds the facts of what the authenticator itself states ([`Finding`],
//! [`EmbeddedBlock`]); the facts of all other kinds stay with the node that recorded them.
//!
//! Its place in the sequence, and how it is hashed, is left to [`super::Evidence`].

mod block;
mod finding;

use std::{borrow::Cow, fmt, str::FromStr};

use mail::MailId;
use sha2::{Digest, Sha256};

pub use block::EmbeddedBlock;
pub use finding::Finding;

use crate::merkle::Hash;

/// Longest kind [bytes].
pub const MAX_KIND_BYTES: usize = 32;
/// Longest source [bytes].
pub const MAX_SOURCE_BYTES: usize = 64;
/// Most facts of an entry that the ledger holds [bytes].
pub const MAX_FACTS_BYTES: usize = 63;

/// A text that is no kind or no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: must be {rule}")]
pub struct NameError {
    what: &'static str,
    value: String,
    rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, value: &str, rule: &'static str) -> Self {
        // It may come from anybody, so it is cut.
        Self { what, value: value.chars().take(80).collect(), rule }
    }
}

/// The sort of an entry's facts, which says how they are read. The set is open: a node may bring a kind of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(Cow<'static, str>);

impl Kind {
    /// What the authenticator found out about a mail; the subject is the mail's id.
    pub const MAIL_VERDICT: Self = Self(Cow::Borrowed("mail_verdict"));
    /// An order to a vehicle; the subject is its `command_id`.
    pub const ORDER: Self = Self(Cow::Borrowed("order"));
    /// A block of the authenticator's embedded chain, on the ledger of a shared one; the subject is its hash.
    pub const EMBEDDED_BLOCK: Self = Self(Cow::Borrowed("embedded_block"));
    /// What a text must be to name a kind.
    pub const RULE: &str = "1 to 32 of a-z, 0-9, _ and ., the first a letter";

    /// The kind as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn padded(&self) -> [u8; MAX_KIND_BYTES] {
        padded(&self.0)
    }
}

impl FromStr for Kind {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let begins = text.starts_with(|first: char| first.is_ascii_lowercase());
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.".contains(&byte);
        if begins && text.bytes().all(fits) && text.len() <= MAX_KIND_BYTES {
            Ok(Self(Cow::Owned(text.to_owned())))
        } else {
            Err(NameError::new("kind", text, Self::RULE))
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fully qualified name of the node that states the facts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(String);

impl Source {
    /// What a text must be to name a source.
    pub const RULE: &str = "the fully qualified name of a node, such as /fleet/chatbot, of at most 64 bytes";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn padded(&self) -> [u8; MAX_SOURCE_BYTES] {
        padded(&self.0)
    }
}

impl FromStr for Source {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let token = |token: &str| {
            token.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let is_name = text.strip_prefix('/').is_some_and(|tokens| tokens.split('/').all(token));
        if is_name && text.len() <= MAX_SOURCE_BYTES {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new("source", text, Self::RULE))
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text with zeros behind it. It is ASCII without zeros and no longer than `N`, or it would be no name.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    bytes
}

/// Reads what [`padded`] wrote, and nothing else: a name holds no zero.
pub(crate) fn unpadded<T: FromStr>(bytes: &[u8]) -> Option<T> {
    let end = bytes.iter().rposition(|byte| *byte != 0)?;
    std::str::from_utf8(bytes.get(..=end)?).ok()?.parse().ok()
}

/// Facts that do not suit their entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The kind is the authenticator's own, and these are not its facts.
    #[error("kind \"{0}\": its facts must be those that the authenticator records")]
    NotOwn(Kind),
    /// More than [`MAX_FACTS_BYTES`].
    #[error("facts of {0} bytes: must be at most {MAX_FACTS_BYTES}")]
    Length(usize),
    /// Other facts than those of the digest.
    #[error("facts: their SHA-256 must be the digest of the entry")]
    Digest,
}

/// What a node states, without its place in the sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    kind: Kind,
    source: Source,
    subject: [u8; 32],
    digest: Hash,
    facts: Vec<u8>,
}

impl Entry {
    /// An entry whose facts stay with its node.
    ///
    /// # Errors
    /// If the kind is the authenticator's own: [`Kind::MAIL_VERDICT`] or [`Kind::EMBEDDED_BLOCK`].
    pub fn new(kind: Kind, source: Source, subject: [u8; 32], digest: Hash) -> Result<Self, EntryError> {
        Self::with_facts(kind, source, subject, digest, Vec::new())
    }

    /// An entry with its facts; without, if they are empty.
    ///
    /// # Errors
    /// If the facts are too long, not those of the digest, or not those of a mail or a block if the kind says so.
    pub fn with_facts(
        kind: Kind,
        source: Source,
        subject: [u8; 32],
        digest: Hash,
        facts: Vec<u8>,
    ) -> Result<Self, EntryError> {
        if facts.len() > MAX_FACTS_BYTES {
            return Err(EntryError::Length(facts.len()));
        }
        if !facts.is_empty() && digest_of(&facts) != digest {
            return Err(EntryError::Digest);
        }
        let entry = Self { kind, source, subject, digest, facts };
        let suits = match &entry.kind {
            kind if *kind == Kind::MAIL_VERDICT => Finding::of(&entry).is_some(),
            kind if *kind == Kind::EMBEDDED_BLOCK => EmbeddedBlock::of(&entry).is_some(),
            _ => true,
        };
        if suits { Ok(entry) } else { Err(EntryError::NotOwn(entry.kind)) }
    }

    /// The sort of its facts.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The node that states them.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What they are about.
    pub fn subject(&self) -> &[u8; 32] {
        &self.subject
    }

    /// SHA-256 of the facts.
    pub fn digest(&self) -> &Hash {
        &self.digest
    }

    /// The facts, at most [`MAX_FACTS_BYTES`]; empty if the ledger does not hold them.
    pub fn facts(&self) -> &[u8] {
        &self.facts
    }

    /// What the entry is recorded once by.
    pub fn identity(&self) -> Identity {
        if self.kind == Kind::MAIL_VERDICT {
            return Identity::of_mail(&MailId::from_bytes(self.subject));
        }
        let hash = Sha256::new_with_prefix(self.kind.padded()).chain_update(self.source.padded());
        Identity(hash.chain_update(self.subject).chain_update(self.digest).finalize().into())
    }
}

/// What an entry is recorded once by: a mail's verdict by the mail, so that the first one stands; any other entry by
/// everything that it says, so that nobody can keep it out by recording another one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(Hash);

impl Identity {
    /// Identity of the verdict on a mail.
    pub fn of_mail(id: &MailId) -> Self {
        // Shorter than what is hashed for other kinds, so the two never meet.
        let hash = Sha256::new_with_prefix(Kind::MAIL_VERDICT.padded()).chain_update(id.as_bytes());
        Self(hash.finalize().into())
    }

    pub(crate) fn as_bytes(&self) -> &Hash {
        &self.0
    }
}

/// Digest of an entry's facts.
pub fn digest_of(facts: &[u8]) -> Hash {
    Sha256::digest(facts).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn source() -> Source {
        "/fleet/authenticator".parse().unwrap()
    }

    pub(crate) fn order(number: u8) -> Entry {
        Entry::new(Kind::ORDER, "/fleet/chatbot".parse().unwrap(), [number; 32], [7; 32]).unwrap()
    }

    #[test]
    fn a_name_that_breaks_its_rule_is_refused_with_thing_value_and_rule() {
        let longest = "a".repeat(MAX_KIND_BYTES);
        for kind in ["order", "mail_verdict", "acme.v2_x", &longest] {
            assert_eq!(kind.parse::<Kind>().unwrap().as_str(), kind);
        }
        for kind in ["", "Order", "2", "_a", ".a", "a b", "a-b", "\u{e4}", "a\0", &format!("{longest}a")] {
            let error = kind.parse::<Kind>().unwrap_err().to_string();
            assert_eq!(error, format!("kind {kind:?}: must be {}", Kind::RULE));
        }
        let longest = format!("/{}", "a".repeat(MAX_SOURCE_BYTES - 1));
        for source in ["/chatbot", "/fleet/chatbot", "/a/b/_c2", &longest] {
            assert_eq!(source.parse::<Source>().unwrap().as_str(), source);
        }
        for source in
            ["", "/", "chatbot", "/a/", "//a", "/a//b", "/2a", "/a-b", "/\u{e4}", &format!("{longest}a")]
        {
            let error = source.parse::<Source>().unwrap_err().to_string();
            assert_eq!(error, format!("source {source:?}: must be {}", Source::RULE));
        }
        let hostile = "\0".repeat(1_000_000).parse::<Source>().unwrap_err().to_string();
        assert!(hostile.len() < 998 && !hostile.contains('\0'), "{hostile}");
    }

    #[test]
    fn only_facts_that_suit_their_entry_are_taken() {
        let entry = |kind: &str, digest, facts: &[u8]| {
            Entry::with_facts(kind.parse().unwrap(), source(), [1; 32], digest, facts.to_vec())
        };
        let facts = [5; MAX_FACTS_BYTES];
        assert_eq!(entry("x", digest_of(&facts), &facts).unwrap().facts(), facts);
        assert_eq!(entry("x", [0; 32], &facts), Err(EntryError::Digest));
        let long = [5; MAX_FACTS_BYTES + 1];
        assert_eq!(entry("x", digest_of(&long), &long), Err(EntryError::Length(64)));
        // The authenticator's own kind: with nothing else than what it found out.
        assert_eq!(entry("mail_verdict", [0; 32], &[]), Err(EntryError::NotOwn(Kind::MAIL_VERDICT)));
        assert_eq!(
            entry("mail_verdict", digest_of(&facts), &facts),
            Err(EntryError::NotOwn(Kind::MAIL_VERDICT))
        );
    }

    #[test]
    fn an_entry_is_once_by_all_that_it_says_and_a_verdict_by_its_mail() {
        let entry = |kind: &str, source: &str, subject: u8, digest: u8| {
            let (kind, source) = (kind.parse().unwrap(), source.parse().unwrap());
            Entry::new(kind, source, [subject; 32], [digest; 32]).unwrap().identity()
        };
        let first = entry("order", "/a", 1, 1);
        assert_eq!(entry("order", "/a", 1, 1), first);
        let others = [
            entry("orders", "/a", 1, 1),
            entry("order", "/b", 1, 1),
            entry("order", "/a", 2, 1),
            entry("order", "/a", 1, 2),
        ];
        assert!(others.iter().all(|other| *other != first));
        let finding = crate::tests::finding(1);
        let second = Finding { verdict: [0; 7], sender_digest: [0; 32], ..finding.clone() };
        assert_eq!(finding.entry(&source()).identity(), second.entry(&"/other".parse().unwrap()).identity());
        assert_eq!(finding.entry(&source()).identity(), Identity::of_mail(&finding.mail_id));
        assert_ne!(finding.entry(&source()).identity(), crate::tests::finding(2).entry(&source()).identity());
    }

    proptest! {
        #[test]
        fn a_padded_name_reads_back_and_other_padding_does_not(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(kind) = unpadded::<Kind>(&bytes) {
                let padded = kind.padded();
                let written = padded.iter().chain([0; 8].iter()).take(bytes.len());
                prop_assert!(written.eq(&bytes));
            }
        }

        #[test]
        fn every_kind_reads_back(text in "[a-z][a-z0-9_.]{0,31}") {
            let kind: Kind = text.parse().unwrap();
            prop_assert_eq!(unpadded::<Kind>(&kind.padded()), Some(kind));
        }
    }
}
