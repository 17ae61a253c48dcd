// SPDX-License-Identifier: Apache-2.0
//! The journal's records and how they are encoded. Pure.
//!
//! A record is [`VERSION`], the number of its kind, and a CBOR value (RFC 8949): a map from the numbers of its fields
//! (`serde(index)`, here and in the crate `mail`). A number is never used for something else. A field that is added
//! later has a default, so that older records stay readable; any other change needs a new version (see
//! `docs/decisions/0063`).

use std::{collections::TryReserveError, fmt, ops::RangeInclusive, time::SystemTime};

use cbor4ii::core::{dec::Read, utils::SliceReader};
use mail::{AcceptedMail, Disposition, MailId, OutboundKind, OutboundMail};
use serde::{Serialize, de::DeserializeOwned};
use serde_indexed::{DeserializeIndexed, SerializeIndexed};
use serde_repr::{Deserialize_repr, Serialize_repr};
use sha2::{Digest, Sha256};

/// There is not enough memory for the bytes of a record.
pub type EncodeError = cbor4ii::serde::EncodeError<TryReserveError>;

/// Identity of an outbound mail: the mail answered and the kind, or its Message-ID if it answers none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, SerializeIndexed, DeserializeIndexed)]
pub struct OutboundKey {
    /// The mail answered, or the SHA-256 of the Message-ID.
    #[serde(index = 1, with = "serde_bytes")]
    id: [u8; 32],
    /// Number of the kind; its highest bit is set if the mail answers none.
    #[serde(index = 2)]
    kind: u8,
}

impl OutboundKey {
    /// The key by which the journal knows this mail.
    pub fn of(mail: &OutboundMail) -> Self {
        match mail.answers {
            Some(id) => Self::answering(id, mail.kind),
            None => Self { id: Sha256::digest(&mail.message_id).into(), kind: mail.kind as u8 | 0x80 },
        }
    }

    /// The key of the outbound mail of this kind that answers this mail.
    pub fn answering(id: MailId, kind: OutboundKind) -> Self {
        Self { id: *id.as_bytes(), kind: kind as u8 }
    }
}

impl OutboundKey {
    /// The id of the mail answered, or the digest of the Message-ID.
    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.id
    }

    /// All keys whose digests are from `lowest` to `highest`.
    pub(super) fn between(lowest: [u8; 32], highest: [u8; 32]) -> RangeInclusive<Self> {
        Self { id: lowest, kind: u8::MIN }..=Self { id: highest, kind: u8::MAX }
    }

    /// The mail that is passed on, if this is the key of a forward.
    pub fn forwarded(&self) -> Option<MailId> {
        (self.kind == OutboundKind::Forward as u8).then(|| MailId::from_bytes(self.id))
    }
}

impl fmt::Display for OutboundKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", MailId::from_bytes(self.id), self.kind)
    }
}

/// How far the delivery of an outbound mail has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum SendState {
    /// Not tried yet.
    Queued = 1,
    /// The receiving server took it, for every recipient.
    Delivered = 2,
    /// Failed for now, to be tried again.
    Deferred = 3,
    /// Failed for good for at least one recipient.
    Failed = 4,
}

/// Result of an attempt to send. Recipient sets are bit masks; the lowest bit is the first of `OutboundMail.to`.
#[derive(Clone, Debug, PartialEq, Eq, SerializeIndexed, DeserializeIndexed)]
pub struct Attempt {
    /// Identity of the outbound mail.
    #[serde(index = 1)]
    pub key: OutboundKey,
    /// State after this attempt.
    #[serde(index = 2)]
    pub state: SendState,
    /// Number of attempts so far.
    #[serde(index = 3)]
    pub attempts: u32,
    /// Recipients still to be tried.
    #[serde(index = 4)]
    pub open: u128,
    /// Recipients that failed for good.
    #[serde(index = 5)]
    pub failed: u128,
    /// The server's reply or an error, one line.
    #[serde(index = 6)]
    pub reply: String,
}

/// A change of state, as the journal writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A mail was accepted.
    Accepted(AcceptedMail),
    /// A consumer has disposed of a mail.
    Disposed(Disposition),
    /// All consumers have disposed of the mail.
    Settled(MailId),
    /// An outbound mail was queued.
    Queued(QueuedMail),
    /// An attempt was made to send an outbound mail.
    Attempted(Attempt),
    /// Settled mails and finished outbound mails whose records were deleted.
    Remembered(Remembered),
}

/// An outbound mail, and when it was queued.
#[derive(Clone, Debug, PartialEq, Eq, SerializeIndexed, DeserializeIndexed)]
pub struct QueuedMail {
    /// When it was queued.
    #[serde(index = 1, with = "mail::unix_nanos")]
    pub at: SystemTime,
    /// The mail.
    #[serde(index = 2)]
    pub mail: OutboundMail,
}

/// Identities whose records were deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, SerializeIndexed, DeserializeIndexed)]
pub struct Remembered {
    /// Of settled mails.
    #[serde(index = 1)]
    pub mails: Vec<MailId>,
    /// Of finished outbound mails.
    #[serde(index = 2)]
    pub keys: Vec<OutboundKey>,
}

/// Version of the records. A record of another version is not read.
pub const VERSION: u8 = 2;

/// Bytes that are not a record of this version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// The record was written by another version of posthorn.
    #[error("a record of version {0}, must be {VERSION}: written by another version of posthorn")]
    Version(u8),
    /// The record is not what its kind says.
    #[error("a record of kind {kind} and {bytes} bytes is malformed: {source}")]
    Malformed {
        /// Number of the kind; 0 if there is none.
        kind: u8,
        /// Number of bytes.
        bytes: usize,
        /// What does not fit.
        source: Malformed,
    },
}

/// What does not fit in a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// The kind is none of this version.
    #[error("no such kind")]
    Kind,
    /// The fields are not those of the kind.
    #[error("{0}")]
    Fields(String),
    /// There is something after the fields.
    #[error("bytes after its fields")]
    Trailing,
}

impl Record {
    /// Encodes the record; [`decode`](Self::decode) reverses it.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Accepted(mail) => encode(1, mail.data.len(), mail),
            Self::Disposed(disposition) => encode(2, 0, disposition),
            Self::Settled(id) => encode(3, 0, id),
            Self::Queued(queued) => encode(4, queued.mail.text.len(), queued),
            Self::Attempted(attempt) => encode(5, 0, attempt),
            Self::Remembered(remembered) => encode(6, 0, remembered),
        }
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// If it is of another version, or the fields do not match its kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (version, kind, fields) = match bytes {
            [version, kind, fields @ ..] => (*version, *kind, fields),
            [version] => (*version, 0, &[][..]),
            [] => (0, 0, &[][..]),
        };
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let record = match kind {
            1 => decode(fields).map(Self::Accepted),
            2 => decode(fields).map(Self::Disposed),
            3 => decode(fields).map(Self::Settled),
            4 => decode(fields).map(Self::Queued),
            5 => decode(fields).map(Self::Attempted),
            6 => decode(fields).map(Self::Remembered),
            _ => Err(Malformed::Kind),
        };
        record.map_err(|source| RecordError::Malformed { kind, bytes: bytes.len(), source })
    }
}

fn encode(kind: u8, content: usize, fields: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(content.saturating_add(1024));
    out.extend_from_slice(&[VERSION, kind]);
    cbor4ii::serde::to_vec(out, fields)
}

fn decode<T: DeserializeOwned>(fields: &[u8]) -> Result<T, Malformed> {
    let mut deserializer = cbor4ii::serde::Deserializer::new(SliceReader::new(fields));
    let value = T::deserialize(&mut deserializer).map_err(|error| Malformed::Fields(error.to_string()))?;
    let mut rest = deserializer.into_inner();
    let Ok(rest) = rest.fill(1);
    if rest.as_ref().is_empty() { Ok(value) } else { Err(Malformed::Trailing) }
}

#[cfg(test)]
mod tests;
