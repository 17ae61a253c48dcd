// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a server, in words for whoever set up the account.

use std::{io, time::Duration};

use io_imap::{
    rfc2177::idle::ImapIdleError,
    rfc3501::{
        capability::ImapCapabilityGetError, examine::ImapMailboxExamineError,
        fetch_stream_batch::ImapMessageFetchStreamBatchError, greeting::ImapGreetingGetError,
        list::ImapMailboxListError, login::ImapLoginError, select::ImapMailboxSelectError,
        status::ImapMailboxStatusError, store::ImapMessageStoreError,
    },
    rfc6851::r#move::ImapMessageMoveError,
    sasl::{auth_plain::ImapAuthPlainError, auth_xoauth2::ImapAuthXoauth2Error},
    send::ImapSendError,
    session::ImapSessionOpenError,
};
use tls::client::ConnectError;

/// How much of a server's words is passed on, characters.
const WORDS: usize = 300;

/// No answer, or not the one that was wanted. The session is of no more use, except after [`ImapError::No`].
#[derive(Debug, thiserror::Error)]
pub enum ImapError {
    /// There is no connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Host and port.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// There is no encrypted connection.
    #[error(transparent)]
    Tls(#[from] ConnectError),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The server went away.
    #[error("the server closed the connection")]
    Closed,
    /// The server was silent.
    #[error("the server is silent for {0:?}")]
    Silent(Duration),
    /// The server dribbles its answer.
    #[error("the server takes too long for an answer, though it is not silent")]
    Slow,
    /// Large messages of others take all memory.
    #[error("large messages of other folders take the memory for them")]
    Crowded,
    /// The server refuses this user. Trying often may lock the account.
    #[error("the server refuses the user or the password: {0}")]
    Refused(String),
    /// The server has no way to log in that is wanted here.
    #[error("the server offers no way to log in with {0}")]
    NoWay(&'static str),
    /// The server refuses a command.
    #[error("the server says no: {0}")]
    No(String),
    /// The server ended the session.
    #[error("the server ended the session: {0}")]
    Ended(String),
    /// What the server says is not IMAP, or not in its order.
    #[error("the server does not keep to the protocol: {0}")]
    Protocol(String),
    /// The server says more than there is room for.
    #[error("the server answers a command with more than {0} bytes")]
    TooMuch(usize),
    /// A name that IMAP cannot carry.
    #[error("{what} {value:?}: {why}")]
    Name {
        /// What has the name.
        what: &'static str,
        /// The name.
        value: String,
        /// The rule that it breaks.
        why: String,
    },
}

impl ImapError {
    /// Whether trying again soon is of no use, and of harm where accounts are locked after some failures.
    pub fn needs_a_person(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::NoWay(_) | Self::Name { .. })
            || matches!(self, Self::Tls(ConnectError::Certificate { .. } | ConnectError::Name(_)))
    }
}

/// Errors of io-imap's commands, which all have the same variants.
macro_rules! command_errors {
    ($($error:ty),+) => {$(
        impl From<$error> for ImapError {
            fn from(error: $error) -> Self {
                type Error = $error;
                match error {
                    Error::No(text) | Error::Bad(text) => Self::No(clipped(&text)),
                    Error::Bye(text) => Self::Ended(clipped(&text)),
                    other => Self::Protocol(clipped(&other.to_string())),
                }
            }
        }
    )+};
}

/// What a server says, at the length that a person reads.
pub(crate) fn clipped(text: &str) -> String {
    let mut short: String = text.chars().take(WORDS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

impl From<ImapSendError> for ImapError {
    fn from(error: ImapSendError) -> Self {
        Self::Protocol(error.to_string())
    }
}

command_errors!(
    ImapCapabilityGetError,
    ImapIdleError,
    ImapLoginError,
    ImapAuthPlainError,
    ImapAuthXoauth2Error,
    ImapMailboxListError,
    ImapMailboxExamineError,
    ImapMailboxSelectError,
    ImapMailboxStatusError,
    ImapMessageFetchStreamBatchError,
    ImapMessageMoveError,
    ImapMessageStoreError
);

impl From<ImapSessionOpenError> for ImapError {
    fn from(error: ImapSessionOpenError) -> Self {
        match error {
            ImapSessionOpenError::Greeting(ImapGreetingGetError::Bye(text)) => Self::Ended(clipped(&text)),
            ImapSessionOpenError::Capability(error) => error.into(),
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// A command that logs in was refused, perhaps in words that cannot be read: that is about the user.
pub(crate) fn login_error(error: ImapError) -> ImapError {
    match error {
        ImapError::No(text) | ImapError::Protocol(text) => ImapError::Refused(text),
        other => other,
    }
}
