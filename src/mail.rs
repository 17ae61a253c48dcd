//! What a mail, a verdict and an answer are: the domain types that two nodes share. Pure.
//!
//! The ROS messages in `msg/` are the same facts on the wire; `ros::convert` translates.

mod address;
mod automatic;
mod id;
pub(crate) mod parse;

pub use address::is_address;
pub use automatic::is_automatic;
pub use id::{MailId, MailIdError};
pub use parse::parse;

use std::{net::IpAddr, time::SystemTime};

/// How a mail came in. Numbers are those of `Mail.SOURCE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// SMTP, RFC 5321.
    Smtp = 1,
    /// LMTP, RFC 2033.
    Lmtp = 2,
}

/// The SMTP envelope: who delivers, from whom, to whom. Unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// How it came in.
    pub source: Source,
    /// Address of the client.
    pub peer: IpAddr,
    /// Name the client gave in EHLO, HELO or LHLO.
    pub helo: String,
    /// Reverse-path without angle brackets; empty is the null reverse-path `<>`.
    pub mail_from: String,
    /// Forward-paths without angle brackets, at least one.
    pub rcpt_to: Vec<String>,
}

/// A mail on disk: what `250` promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedMail {
    /// SHA-256 of `data`.
    pub id: MailId,
    /// When it was journaled.
    pub received_at: SystemTime,
    /// Its envelope.
    pub envelope: Envelope,
    /// The bytes as received.
    pub data: Vec<u8>,
}

/// One mailbox of an address header (RFC 5322 section 3.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Display name, decoded; empty if none.
    pub name: String,
    /// addr-spec, the domain in lower case.
    pub address: String,
}

/// One header field, unfolded and decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Field name as received.
    pub name: String,
    /// Field value.
    pub value: String,
}

/// What is known of an attachment without its bytes.
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

/// The content of a mail, parsed and bounded as `Mail.msg` says. Nothing in it is authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Message-ID without angle brackets; empty if none.
    pub message_id: String,
    /// Message-ID of the mail this one answers; empty if none.
    pub in_reply_to: String,
    /// Subject, decoded.
    pub subject: String,
    /// Mailboxes of From; exactly one in a well-formed mail.
    pub from: Vec<Address>,
    /// Mailboxes of Reply-To.
    pub reply_to: Vec<Address>,
    /// Mailboxes of To.
    pub to: Vec<Address>,
    /// Mailboxes of Cc.
    pub cc: Vec<Address>,
    /// Date header, if it can be read.
    pub date: Option<SystemTime>,
    /// All header fields in the order received.
    pub headers: Vec<Header>,
    /// First text/plain part, or text/html reduced to text.
    pub text: String,
    /// Not all is shown: something was cut at its bound, or stands outside the parts of a multipart.
    pub truncated: bool,
    /// The sender's words are all in `text`: one inline text/plain part, or that and HTML of the same words.
    pub text_only: bool,
    /// Attachments in the order of the mail.
    pub attachments: Vec<Attachment>,
}

/// A mail as the graph sees it: envelope and content, no bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// SHA-256 of the bytes as received.
    pub id: MailId,
    /// When it was journaled.
    pub received_at: SystemTime,
    /// Its envelope.
    pub envelope: Envelope,
    /// Its content.
    pub content: Content,
    /// Size of the bytes as received.
    pub size: u64,
}

/// The mail as the graph sees it, from what was accepted.
pub fn mail_of(accepted: &AcceptedMail) -> Mail {
    Mail {
        id: accepted.id,
        received_at: accepted.received_at,
        envelope: accepted.envelope.clone(),
        content: parse(&accepted.data),
        size: accepted.data.len() as u64,
    }
}

/// Result of one authentication method, as in RFC 8601 section 2.7 (`Verdict.NONE` …). Numbers are those of `Verdict.msg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum AuthResult {
    /// Not evaluated.
    #[default]
    Unknown = 0,
    /// Nothing to evaluate.
    None = 1,
    /// Passed.
    Pass = 2,
    /// Failed.
    Fail = 3,
    /// SPF `~all`.
    SoftFail = 4,
    /// No statement.
    Neutral = 5,
    /// DNS did not answer; try later.
    TempError = 6,
    /// A record or signature that cannot be read.
    PermError = 7,
}

/// What the registry contract says of a sender. Numbers are those of `Verdict.msg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Registration {
    /// Not asked: DMARC did not pass.
    #[default]
    Unknown = 0,
    /// Not in the registry.
    Unregistered = 1,
    /// Registered and not revoked.
    Active = 2,
    /// Registered once, revoked since.
    Revoked = 3,
    /// The chain could not be asked.
    Unavailable = 4,
}

/// What a registered sender may do. Numbers are those of `Verdict.msg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Role {
    /// Nothing.
    #[default]
    None = 0,
    /// Ask.
    Observer = 1,
    /// Ask and order.
    Operator = 2,
}

/// What the authenticator found out about a mail's sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// SPF of the envelope's sender (RFC 7208).
    pub spf: AuthResult,
    /// Best result over all DKIM signatures (RFC 6376).
    pub dkim: AuthResult,
    /// DMARC of the From domain (RFC 7489).
    pub dmarc: AuthResult,
    /// Domain of the DKIM signature that passed; empty if none.
    pub dkim_domain: String,
    /// Selector of the DKIM signature that passed; empty if none.
    pub dkim_selector: String,
    /// An aligned DKIM signature covers all that an order depends on (`Verdict.order_covered`).
    pub order_covered: bool,
    /// Why not; empty if it does.
    pub order_gap: String,
    /// What the registry says.
    pub registry: Registration,
    /// Role of the sender; `None` unless the registration is active.
    pub role: Role,
    /// DMARC passed and the registration is active.
    pub authenticated: bool,
    /// Why, for a person; names no address.
    pub reason: String,
}

/// Why an outbound mail is sent. Numbers are those of `OutboundMail.msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum OutboundKind {
    /// To the sender of the mail answered.
    Answer = 1,
    /// The mail answered, passed on to a person.
    Forward = 2,
    /// Of posthorn's own accord.
    Notice = 3,
}

/// A mail to be sent, unique by (`answers`, `kind`), or by `message_id` if it answers none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundMail {
    /// Id of the mail that this one answers or passes on, if there is one.
    pub answers: Option<MailId>,
    /// Why it is sent.
    pub kind: OutboundKind,
    /// Message-ID to give it, without angle brackets.
    pub message_id: String,
    /// From header; empty for the bridge's own address.
    pub from: String,
    /// Recipients, at least one.
    pub to: Vec<String>,
    /// Who gets a person's reply; empty: no Reply-To.
    pub reply_to: Vec<String>,
    /// A person should look at once.
    pub urgent: bool,
    /// Subject.
    pub subject: String,
    /// Message-ID of the mail answered; empty if none.
    pub in_reply_to: String,
    /// Body.
    pub text: String,
}

/// What became of a mail. Numbers are those of `Disposition.msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// An answer is on its way.
    Answered = 1,
    /// An order was carried out and an answer is on its way.
    Ordered = 2,
    /// A person gets it.
    Forwarded = 3,
    /// An automatic mail (RFC 3834), never answered.
    Ignored = 4,
    /// The sender is not authenticated or not allowed.
    Rejected = 5,
}

/// Settles a mail: it is delivered no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disposition {
    /// The mail.
    pub mail_id: MailId,
    /// What became of it.
    pub action: Action,
    /// Why, for a person; names no address.
    pub reason: String,
}
