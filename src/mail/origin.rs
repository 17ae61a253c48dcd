// SPDX-License-Identifier: Apache-2.0
//! How a mail came in: delivered by a client, or fetched from a mailbox.

use std::{net::IpAddr, slice};

use serde::{Deserialize, Serialize};
use serde_indexed::{DeserializeIndexed, SerializeIndexed};

/// How a mail came in, as its client or server said. None of it is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub enum Origin {
    /// A client delivered it by SMTP (RFC 5321).
    Smtp(Envelope),
    /// A client delivered it by LMTP (RFC 2033): a mail server of our own, which took it from somebody else.
    Lmtp(Envelope),
    /// It was fetched by IMAP (RFC 9051).
    Imap(ImapMessage),
}

/// The envelope of an SMTP or LMTP transaction, and the client that sent it.
#[derive(Clone, Debug, PartialEq, Eq, SerializeIndexed, DeserializeIndexed)]
pub struct Envelope {
    /// IP address of the client.
    #[serde(index = 1)]
    pub peer: IpAddr,
    /// Name that the client gave in EHLO, HELO or LHLO.
    #[serde(index = 2)]
    pub helo: String,
    /// Reverse-path without angle brackets; empty is the null reverse-path `<>`.
    #[serde(index = 3)]
    pub mail_from: String,
    /// Forward-paths without angle brackets, at least one.
    #[serde(index = 4)]
    pub rcpt_to: Vec<String>,
}

/// A message in a mailbox. The four fields together name it for ever (RFC 9051 section 2.3.1.1).
#[derive(Clone, Debug, PartialEq, Eq, SerializeIndexed, DeserializeIndexed)]
pub struct ImapMessage {
    /// The account, as configured: usually the address whose mails it holds.
    #[serde(index = 1)]
    pub account: String,
    /// Name of the folder.
    #[serde(index = 2)]
    pub folder: String,
    /// UIDVALIDITY of the folder.
    #[serde(index = 3)]
    pub uid_validity: u32,
    /// UID of the message.
    #[serde(index = 4)]
    pub uid: u32,
}

impl Origin {
    /// The envelope; `None` if the mail was fetched, so that nobody can tell a bounce by its reverse-path.
    pub fn envelope(&self) -> Option<&Envelope> {
        match self {
            Self::Smtp(envelope) | Self::Lmtp(envelope) => Some(envelope),
            Self::Imap(_) => None,
        }
    }

    /// Whom the mail is for: the forward-paths of the envelope, or the account that it was fetched from.
    pub fn recipients(&self) -> &[String] {
        match self {
            Self::Smtp(envelope) | Self::Lmtp(envelope) => &envelope.rcpt_to,
            Self::Imap(message) => slice::from_ref(&message.account),
        }
    }
}

/// An origin as it is stored: exactly one of the fields is set.
#[derive(Default, SerializeIndexed, DeserializeIndexed)]
struct Stored {
    #[serde(index = 1, skip_serializing_if = "Option::is_none")]
    smtp: Option<Envelope>,
    #[serde(index = 2, skip_serializing_if = "Option::is_none")]
    lmtp: Option<Envelope>,
    #[serde(index = 3, skip_serializing_if = "Option::is_none")]
    imap: Option<ImapMessage>,
}

impl From<Origin> for Stored {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Smtp(envelope) => Self { smtp: Some(envelope), ..Self::default() },
            Origin::Lmtp(envelope) => Self { lmtp: Some(envelope), ..Self::default() },
            Origin::Imap(message) => Self { imap: Some(message), ..Self::default() },
        }
    }
}

impl TryFrom<Stored> for Origin {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        match stored {
            Stored { smtp: Some(envelope), lmtp: None, imap: None } => Ok(Self::Smtp(envelope)),
            Stored { smtp: None, lmtp: Some(envelope), imap: None } => Ok(Self::Lmtp(envelope)),
            Stored { smtp: None, lmtp: None, imap: Some(message) } => Ok(Self::Imap(message)),
            _ => Err("an origin is one of SMTP, LMTP and IMAP"),
        }
    }
}
