// SPDX-License-Identifier: Apache-2.0
//! How a session with a server fails.

use std::{io, time::Duration};

/// The connection is no longer usable, and the fate of a mail under way is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Connecting, reading or writing failed.
    #[error("smart host: {0}")]
    Io(#[from] io::Error),
    /// Connecting, writing or waiting for a reply took too long.
    #[error("smart host: no reply within {0:?}")]
    Timeout(Duration),
    /// The server's reply is not SMTP.
    #[error("smart host: reply is not SMTP")]
    Reply,
    /// The server refused to talk, with this reply.
    #[error("smart host: {0}")]
    Refused(String),
    /// The server refused STARTTLS, with this reply.
    #[error("smart host: STARTTLS refused: {0}")]
    StartTls(String),
    /// More came with the reply to STARTTLS: somebody on the way may have put it there.
    #[error("smart host: something in clear behind the reply to STARTTLS")]
    Injected,
    /// The server takes no mail in this session, as 530 says: it wants STARTTLS (RFC 3207) or AUTH (RFC 4954) first.
    #[error("smart host: it wants TLS or a login: {0}")]
    Wants(String),
    /// The server offers no AUTH that we know.
    #[error("smart host: it offers neither AUTH PLAIN nor AUTH LOGIN")]
    NoLogin,
    /// The server did not accept name and password.
    #[error("smart host: login refused: {reply}")]
    Login {
        /// The server's reply.
        reply: String,
        /// Whether the same name and password will be refused again.
        for_good: bool,
    },
}

/// The connection failed while a mail was being sent.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct SendError {
    /// The failure.
    pub error: ClientError,
    /// Whether the whole mail was written, including the final dot: then the server may have taken it.
    pub data_sent: bool,
}

impl From<ClientError> for SendError {
    fn from(error: ClientError) -> Self {
        Self { error, data_sent: false }
    }
}
