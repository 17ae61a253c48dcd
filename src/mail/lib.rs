// SPDX-License-Identifier: Apache-2.0
//! Defines the domain types that more than one node shares: mail, verdict, outbound mail and disposition. Pure.
//!
//! The messages in `msg/` carry the same facts on the wire, and the enum numbers are theirs; converting is left to
//! `ros::convert`. The numbers of fields (`serde(index)`) are those of the journal of mail_bridge: one is never used
//! for another field, and a field that is added later has a default.

mod address;
mod automatic;
mod delivery;
mod id;
mod origin;
pub mod parse;
mod pattern;
pub mod unix_nanos;

pub use address::{AddressError, EmailAddress, Part, ascii_domain};
pub use automatic::is_automatic;
pub use delivery::{Delivery, DeliveryState};
pub use id::{MailId, MailIdError};
pub use origin::{Envelope, ImapMessage, Origin};
pub use parse::parse;
pub use pattern::AddressPattern;

use std::time::SystemTime;

use serde_indexed::{DeserializeIndexed, SerializeIndexed};
use serde_repr::{Deserialize_repr, Serialize_repr};

/// A mail on disk, as `250` promised.
#[derive(Clone, Debug, PartialEq, Eq, SerializeIndexed, DeserializeIndexed)]
pub struct AcceptedMail {
    /// SHA-256 of `data`.
    #[serde(index = 1)]
    pub id: MailId,
    /// When the mail was journaled.
    #[serde(index = 2, with = "unix_nanos")]
    pub received_at: SystemTime,
    /// How it came in.
    #[serde(index = 3)]
    pub origin: Origin,
    /// Names of the consumers that it is for and that have not disposed of it.
    #[serde(index = 4)]
    pub consumers: Vec<String>,
    /// The mail as received, byte for byte.
    #[serde(index = 5, with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// One mailbox of an address header (RFC 5322 section 3.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// Display name, decoded; empty if none.
    pub name: String,
    /// addr-spec as the sender wrote it, the domain in lower case; often, but not always, an [`EmailAddress`].
    pub address: String,
}

/// One header field, unfolded and decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Field name as received.
    pub name: String,
    /// Field body, unfolded and decoded.
    pub value: String,
}

/// An attachment without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// File name, decoded; empty if none. Never a path.
    pub filename: String,
    /// Media type (RFC 2046).
    pub media_type: String,
    /// Size of the decoded content, bytes.
    pub size: u64,
    /// SHA-256 of the decoded content.
    pub digest: [u8; 32],
}

/// The content of a mail, parsed and kept within the bounds of `Mail.msg`. None of it is authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Message-ID without angle brackets; empty if none.
    pub message_id: String,
    /// Message-ID of the mail this one answers; empty if none.
    pub in_reply_to: String,
    /// Subject, decoded.
    pub subject: String,
    /// Mailboxes of From; exactly one in a well-formed mail.
    pub from: Vec<Mailbox>,
    /// Mailboxes of Reply-To.
    pub reply_to: Vec<Mailbox>,
    /// Mailboxes of To.
    pub to: Vec<Mailbox>,
    /// Mailboxes of Cc.
    pub cc: Vec<Mailbox>,
    /// Date header; `None` if it is missing or cannot be read.
    pub date: Option<SystemTime>,
    /// All header fields in the order received.
    pub headers: Vec<Header>,
    /// First text/plain part, or text/html reduced to text.
    pub text: String,
    /// Parts of the mail are missing here: something was cut at its bound, or lies outside the parts of a multipart.
    pub truncated: bool,
    /// `text` holds all of the sender's words: one inline text/plain part, alone or with HTML of the same words.
    pub text_only: bool,
    /// Attachments in the order of the mail.
    pub attachments: Vec<Attachment>,
}

/// A mail as the graph sees it: origin and content without the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// SHA-256 of the bytes as received.
    pub id: MailId,
    /// When the mail was journaled.
    pub received_at: SystemTime,
    /// How it came in.
    pub origin: Origin,
    /// Names of the consumers that it is for and that have not disposed of it.
    pub consumers: Vec<String>,
    /// Headers, text and attachments.
    pub content: Content,
    /// Size of the mail as received, bytes.
    pub size: u64,
}

/// Parses an accepted mail into what the graph sees.
pub fn mail_of(accepted: &AcceptedMail) -> Mail {
    Mail {
        id: accepted.id,
        received_at: accepted.received_at,
        origin: accepted.origin.clone(),
        consumers: accepted.consumers.clone(),
        content: parse(&accepted.data),
        size: accepted.data.len() as u64,
    }
}

/// Result of one authentication method (RFC 8601 section 2.7). Numbers are those of `Verdict.msg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum AuthResult {
    /// The method was not evaluated.
    #[default]
    Unknown = 0,
    /// There was nothing to evaluate: no signature, no record.
    None = 1,
    /// The method passed.
    Pass = 2,
    /// The method failed.
    Fail = 3,
    /// The SPF record ends in a weak fail (`~all`).
    SoftFail = 4,
    /// The domain makes no statement either way.
    Neutral = 5,
    /// DNS did not answer; try again later.
    TempError = 6,
    /// A record or signature cannot be read.
    PermError = 7,
}

/// The registry contract's answer about a sender. Numbers are those of `Verdict.msg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Registration {
    /// The registry was not asked, because DMARC gave neither `Pass` nor `TempError`.
    #[default]
    Unknown = 0,
    /// The sender is not in the registry.
    Unregistered = 1,
    /// The sender is registered and not revoked.
    Active = 2,
    /// The sender was registered, and has been revoked since.
    Revoked = 3,
    /// The chain could not be asked.
    Unavailable = 4,
    /// The sender is registered for another time: not yet, or not any more.
    NotValidNow = 5,
    /// The sender is registered with a DKIM key that did not sign the mail.
    OtherKey = 6,
}

impl Registration {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Unregistered,
        Self::Active,
        Self::Revoked,
        Self::Unavailable,
        Self::NotValidNow,
        Self::OtherKey,
    ];
}

/// What a registered sender may do, least first. Numbers are those of `Verdict.msg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Role {
    /// May do nothing.
    #[default]
    None = 0,
    /// May ask.
    Observer = 1,
    /// May ask and order.
    Operator = 2,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Observer, Self::Operator];
}

/// The authenticator's findings about the sender of a mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// SPF result for the envelope sender (RFC 7208).
    pub spf: AuthResult,
    /// Best DKIM result (RFC 6376) over the signatures of the From domain's organisation; `Neutral` if all are of
    /// others.
    pub dkim: AuthResult,
    /// DMARC result for the From domain (RFC 7489).
    pub dmarc: AuthResult,
    /// Whether trusted sealers vouch for the From domain by ARC (RFC 8617).
    pub arc: AuthResult,
    /// Domain of the newest of them; empty unless they do.
    pub arc_domain: String,
    /// Domain of the DKIM signature that passed; empty if none.
    pub dkim_domain: String,
    /// Selector of the DKIM signature that passed; empty if none.
    pub dkim_selector: String,
    /// An aligned DKIM signature covers everything that an order depends on (`Verdict.order_covered`).
    pub order_covered: bool,
    /// Why `order_covered` is false, naming the field; empty if it is true.
    pub order_gap: String,
    /// The registry's answer about the From address.
    pub registry: Registration,
    /// The sender's role; `None` unless DMARC or ARC passed and the registration is active.
    pub role: Role,
    /// DMARC or ARC passed and the registration is active.
    pub authenticated: bool,
    /// The grounds for the verdict, for a person; names no address.
    pub reason: String,
}

impl Verdict {
    /// Whether the From domain is proven to have sent the mail, by DMARC or by ARC.
    pub fn is_proven(&self) -> bool {
        [self.dmarc, self.arc].contains(&AuthResult::Pass)
    }

    /// Whether DNS did not answer, and an answer could have proven it.
    pub fn is_open(&self) -> bool {
        [self.dmarc, self.arc].contains(&AuthResult::TempError)
    }
}

/// The purpose of an outbound mail. Numbers are those of `OutboundMail.msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum OutboundKind {
    /// Answers a mail, to its sender.
    Answer = 1,
    /// Passes a mail on to a person.
    Forward = 2,
    /// Sent on posthorn's own initiative.
    Notice = 3,
}

/// A mail to be sent, identified by (`answers`, `kind`), or by `message_id` if it answers none.
#[derive(Clone, Debug, PartialEq, Eq, SerializeIndexed, DeserializeIndexed)]
pub struct OutboundMail {
    /// Id of the mail that this one answers or passes on; `None` if there is none.
    #[serde(index = 1)]
    pub answers: Option<MailId>,
    /// Purpose of the mail.
    #[serde(index = 2)]
    pub kind: OutboundKind,
    /// Message-ID for the mail, without angle brackets.
    #[serde(index = 3)]
    pub message_id: String,
    /// From header; empty means the bridge's own address.
    #[serde(index = 4)]
    pub from: String,
    /// Recipients, at least one.
    #[serde(index = 5)]
    pub to: Vec<String>,
    /// Reply-To addresses, which receive a person's reply; empty means no Reply-To header.
    #[serde(index = 6)]
    pub reply_to: Vec<String>,
    /// Marks the mail as urgent: a person should look at it at once.
    #[serde(index = 7)]
    pub urgent: bool,
    /// Subject header.
    #[serde(index = 8)]
    pub subject: String,
    /// Message-ID of the mail this one answers; empty if none.
    #[serde(index = 9)]
    pub in_reply_to: String,
    /// Body of the mail, plain text.
    #[serde(index = 10)]
    pub text: String,
    /// What was found out about the mail that a forward passes on, as in an `Authentication-Results` field without the name
    /// of who found it (RFC 8601 section 2.2); empty if nothing is to be said.
    #[serde(index = 11)]
    pub authentication_results: String,
}

/// What a consumer did with a mail. Numbers are those of `Disposition.msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum Action {
    /// An answer was published.
    Answered = 1,
    /// A vehicle accepted the order in the mail, and an answer was published.
    Ordered = 2,
    /// The mail was passed on to a person.
    Forwarded = 3,
    /// The mail is automatic (RFC 3834) or posthorn's own, and is never answered.
    Ignored = 4,
    /// The sender is not authenticated or not allowed.
    Rejected = 5,
    /// The mail is on the consumer's own disk.
    Kept = 6,
}

/// Ends a consumer's part in a mail. A mail that each of its consumers has disposed of is settled, and not delivered
/// again.
#[derive(Clone, Debug, PartialEq, Eq, SerializeIndexed, DeserializeIndexed)]
pub struct Disposition {
    /// Id of the mail.
    #[serde(index = 1)]
    pub mail_id: MailId,
    /// Name of the consumer, as in the parameter `consumers` of mail_bridge.
    #[serde(index = 2)]
    pub consumer: String,
    /// What was done with the mail.
    #[serde(index = 3)]
    pub action: Action,
    /// Why that was done, for a person; names no address.
    #[serde(index = 4)]
    pub reason: String,
}
