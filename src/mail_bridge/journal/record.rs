// SPDX-License-Identifier: Apache-2.0
//! The journal's records and how they are encoded. Pure.
//!
//! A record is a tag byte and fields. Numbers are little-endian; texts and lists are preceded by a `u32` length;
//! times are nanoseconds since 1970 as `u64`. A tag is never reused for something else, and the fields of a tag never
//! change.

use std::{
    fmt,
    net::IpAddr,
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

use mail::{AcceptedMail, Action, Disposition, Envelope, MailId, OutboundKind, OutboundMail, Source};
use sha2::{Digest, Sha256};

/// Written in place of the mail answered if there is none.
const NO_MAIL: [u8; 32] = [0; 32];

/// Identity of an outbound mail: the mail answered and the kind, or its Message-ID if it answers none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutboundKey {
    /// The mail answered, or the SHA-256 of the Message-ID.
    id: [u8; 32],
    /// Number of the kind; its highest bit is set if the mail answers none.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Identity of the outbound mail.
    pub key: OutboundKey,
    /// State after this attempt.
    pub state: SendState,
    /// Number of attempts so far.
    pub attempts: u32,
    /// Recipients still to be tried.
    pub open: u128,
    /// Recipients that failed for good.
    pub failed: u128,
    /// The server's reply or an error, one line.
    pub reply: String,
}

/// A change of state, as the journal writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A mail was accepted.
    Accepted(AcceptedMail),
    /// A mail is settled.
    Settled(Disposition),
    /// An outbound mail was queued at this time.
    Queued(SystemTime, OutboundMail),
    /// An attempt was made to send an outbound mail.
    Attempted(Attempt),
    /// Settled mails and finished outbound mails whose records were deleted.
    Remembered(Vec<MailId>, Vec<OutboundKey>),
}

/// Bytes that are not a record of this version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("record with tag {tag} of {bytes} bytes is malformed or of a later version")]
pub struct RecordError {
    /// First byte; 0 if there is none.
    pub tag: u8,
    /// Number of bytes.
    pub bytes: usize,
}

impl Record {
    /// Encodes the record; [`decode`](Self::decode) reverses it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Accepted(mail) => {
                out.reserve(mail.data.len().saturating_add(1024));
                out.push(1);
                out.extend_from_slice(mail.id.as_bytes());
                time(&mut out, mail.received_at);
                out.push(match mail.envelope.source {
                    Source::Smtp => 1,
                    Source::Lmtp => 2,
                });
                text(&mut out, &mail.envelope.peer.to_string());
                text(&mut out, &mail.envelope.helo);
                text(&mut out, &mail.envelope.mail_from);
                texts(&mut out, &mail.envelope.rcpt_to);
                out.extend_from_slice(&mail.data);
            }
            Self::Settled(disposition) => {
                out.push(2);
                out.extend_from_slice(disposition.mail_id.as_bytes());
                out.push(disposition.action as u8);
                text(&mut out, &disposition.reason);
            }
            Self::Queued(at, mail) => {
                out.push(3);
                time(&mut out, *at);
                out.extend_from_slice(&mail.answers.map_or(NO_MAIL, |id| *id.as_bytes()));
                out.push(mail.kind as u8);
                for field in [&mail.message_id, &mail.from, &mail.subject, &mail.in_reply_to, &mail.text] {
                    text(&mut out, field);
                }
                texts(&mut out, &mail.to);
                texts(&mut out, &mail.reply_to);
                out.push(u8::from(mail.urgent));
            }
            Self::Attempted(attempt) => {
                out.push(4);
                key(&mut out, &attempt.key);
                out.push(attempt.state as u8);
                out.extend_from_slice(&attempt.attempts.to_le_bytes());
                out.extend_from_slice(&attempt.open.to_le_bytes());
                out.extend_from_slice(&attempt.failed.to_le_bytes());
                text(&mut out, &attempt.reply);
            }
            Self::Remembered(mails, keys) => {
                out.push(5);
                length(&mut out, mails.len());
                mails.iter().for_each(|id| out.extend_from_slice(id.as_bytes()));
                length(&mut out, keys.len());
                keys.iter().for_each(|item| key(&mut out, item));
            }
        }
        out
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// If this version does not know the tag, or the fields do not match it.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let error = RecordError { tag: bytes.first().copied().unwrap_or_default(), bytes: bytes.len() };
        let mut reader = Reader(bytes);
        reader.record().filter(|_| reader.0.is_empty()).ok_or(error)
    }
}

/// Writes a length, saturated where it does not fit. Such a record is larger than any log takes, so appending it is an
/// error.
fn length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn texts(out: &mut Vec<u8>, list: &[String]) {
    length(out, list.len());
    list.iter().for_each(|item| text(out, item));
}

fn time(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    out.extend_from_slice(&u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
}

fn key(out: &mut Vec<u8>, key: &OutboundKey) {
    out.extend_from_slice(&key.id);
    out.push(key.kind);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    fn text(&mut self) -> Option<String> {
        let length = self.length()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    fn texts(&mut self) -> Option<Vec<String>> {
        (0..self.length()?).map(|_| self.text()).collect()
    }

    fn time(&mut self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(u64::from_le_bytes(self.array()?)))
    }

    fn id(&mut self) -> Option<MailId> {
        self.array().map(MailId::from_bytes)
    }

    fn key(&mut self) -> Option<OutboundKey> {
        Some(OutboundKey { id: self.array()?, kind: self.byte()? })
    }

    fn kind(&mut self) -> Option<OutboundKind> {
        [OutboundKind::Answer, OutboundKind::Forward, OutboundKind::Notice]
            .into_iter()
            .find(|kind| Some(*kind as u8) == self.0.first().copied())
            .filter(|_| self.byte().is_some())
    }

    fn record(&mut self) -> Option<Record> {
        Some(match self.byte()? {
            1 => Record::Accepted(AcceptedMail {
                id: self.id()?,
                received_at: self.time()?,
                envelope: Envelope {
                    source: match self.byte()? {
                        1 => Source::Smtp,
                        2 => Source::Lmtp,
                        _ => return None,
                    },
                    peer: self.text()?.parse::<IpAddr>().ok()?,
                    helo: self.text()?,
                    mail_from: self.text()?,
                    rcpt_to: self.texts()?,
                },
                data: std::mem::take(&mut self.0).to_vec(),
            }),
            2 => Record::Settled(Disposition {
                mail_id: self.id()?,
                action: match self.byte()? {
                    1 => Action::Answered,
                    2 => Action::Ordered,
                    3 => Action::Forwarded,
                    4 => Action::Ignored,
                    5 => Action::Rejected,
                    _ => return None,
                },
                reason: self.text()?,
            }),
            3 => {
                let at = self.time()?;
                let answers = self.array().map(|id| (id != NO_MAIL).then(|| MailId::from_bytes(id)))?;
                let kind = self.kind()?;
                let (message_id, from, subject) = (self.text()?, self.text()?, self.text()?);
                let (in_reply_to, text, to) = (self.text()?, self.text()?, self.texts()?);
                let (reply_to, urgent) = (self.texts()?, self.byte()? == 1);
                Record::Queued(
                    at,
                    OutboundMail {
                        answers,
                        kind,
                        message_id,
                        from,
                        to,
                        reply_to,
                        urgent,
                        subject,
                        in_reply_to,
                        text,
                    },
                )
            }
            4 => Record::Attempted(Attempt {
                key: self.key()?,
                state: match self.byte()? {
                    1 => SendState::Queued,
                    2 => SendState::Delivered,
                    3 => SendState::Deferred,
                    4 => SendState::Failed,
                    _ => return None,
                },
                attempts: u32::from_le_bytes(self.array()?),
                open: u128::from_le_bytes(self.array()?),
                failed: u128::from_le_bytes(self.array()?),
                reply: self.text()?,
            }),
            5 => {
                let mails = (0..self.length()?).map(|_| self.id()).collect::<Option<_>>()?;
                let keys = (0..self.length()?).map(|_| self.key()).collect::<Option<_>>()?;
                Record::Remembered(mails, keys)
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
