// SPDX-License-Identifier: Apache-2.0
//! What a client needs to know of a server, and what it learns of its folders. Pure.

use std::{fmt, time::Duration};

/// How a connection is kept from being read on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte on, usually at port 993.
    Tls,
    /// TLS by STARTTLS, usually at port 143. It is never left out because the server does not offer it.
    StartTls,
    /// None. Only for a server on this host.
    Plaintext,
}

/// A server, and how to reach it.
#[derive(Clone)]
pub struct Server {
    /// Name, as in its certificate, or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether to encrypt, and from when on.
    pub security: Security,
    /// Whose certificate to trust.
    pub tls: tls::client::Client,
    /// Bound on connecting and on each silence.
    pub patience: Duration,
}

/// What proves who we are. Never printed.
#[derive(Clone)]
pub enum Credentials {
    /// By PLAIN (RFC 4616) or, where the server does not offer that, LOGIN (RFC 3501 section 6.2.3).
    Password(String),
    /// An OAuth 2.0 access token, by XOAUTH2.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password",
            Self::Token(_) => "Token",
        })
    }
}

/// What not every server can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Tells of new messages by itself (RFC 2177).
    Idle,
    /// Counts changes to a folder (RFC 7162).
    CondStore,
    /// Moves messages in one step (RFC 6851).
    Move,
}

/// How a folder is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// By EXAMINE: nothing there can change.
    Read,
    /// By SELECT.
    Write,
}

/// A folder by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Name, decoded.
    pub name: String,
    /// Whether it can have messages.
    pub has_messages: bool,
}

/// How many messages a folder has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FolderCounts {
    /// All of them.
    pub messages: u32,
    /// Those that nobody has read.
    pub unseen: u32,
}

/// What a server says of a folder that it opens (RFC 3501 section 6.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Number of messages.
    pub messages: u32,
    /// If it changes, all UIDs have.
    pub uid_validity: u32,
    /// The UID that the next message will have; `None` if the server does not say.
    pub uid_next: Option<u32>,
    /// Number of the last change to the folder; `None` without CONDSTORE.
    pub changes: Option<u64>,
}

/// Why `Session::idle` has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The server tells of messages.
    News,
    /// Nothing for as long as was asked for.
    Time,
    /// The caller's own reason.
    Called,
}
