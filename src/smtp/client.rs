// SPDX-License-Identifier: Apache-2.0
//! An SMTP client (RFC 5321) over any stream: what the outbox needs, bounded in bytes and time. Connecting, the TLS
//! handshake and retries are left to the caller.

mod error;
mod login;
mod text;
mod transaction;

use std::{io, time::Duration};

use smtp_proto::{Response, response::parser::ResponseReceiver};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

pub use error::{ClientError, SendError};
pub use text::one_line;
use text::text;

/// Size of one read, bytes.
const BUFFER_BYTES: usize = 4096;
/// Longest reply, bytes. `smtp_proto` bounds its text to 4 KiB, but not the number of its lines.
const REPLY_BYTES: usize = 64 * 1024;
/// Time for QUIT and its reply, which change nothing any more.
const QUIT: Duration = Duration::from_secs(2);

/// What the server accepts, from its reply to EHLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts {
    /// 8BITMIME (RFC 6152): lines of 8 bits.
    pub eight_bit: bool,
    /// SIZE (RFC 1870): largest mail, bytes; `None` if the server gives no limit.
    pub size: Option<usize>,
}

/// A mail to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Reverse-path; empty is null.
    pub mail_from: String,
    /// Forward-paths, at most 128.
    pub rcpt_to: Vec<String>,
    /// Header and body, lines ending with CRLF, not dot-stuffed.
    pub data: Vec<u8>,
}

/// Outcome of an attempt. Recipient sets are bit masks; the lowest bit is the first of [`Message::rcpt_to`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Recipients that the server accepted the mail for.
    pub delivered: u128,
    /// Recipients that the server refused for good.
    pub refused: u128,
    /// The server's reply or an error, one line.
    pub reply: String,
}

/// A session with a server, after EHLO or HELO.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    timeout: Duration,
    /// Bytes that were read but not yet parsed.
    rest: Vec<u8>,
    utf8: bool,
    /// Whether the server offers SIZE.
    sizes: bool,
    /// Whether the server offers STARTTLS.
    starttls: bool,
    mechanisms: login::Mechanisms,
    accepts: Accepts,
    usable: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Waits for the greeting on `stream` and says EHLO, or HELO if the server does not know EHLO.
    ///
    /// # Errors
    /// If the server does not greet with 220 or refuses both.
    pub async fn greet(stream: S, hostname: &str, timeout: Duration) -> Result<Self, ClientError> {
        let mut client = Self::new(stream, timeout);
        client.expect(220).await?;
        client.hello(hostname).await?;
        Ok(client)
    }

    /// Says EHLO on a `stream` on which TLS has begun after [`start_tls`](Self::start_tls): there is no second greeting, and
    /// nothing of what the server offered before counts.
    ///
    /// # Errors
    /// If the server refuses both EHLO and HELO.
    pub async fn after_tls(stream: S, hostname: &str, timeout: Duration) -> Result<Self, ClientError> {
        let mut client = Self::new(stream, timeout);
        client.hello(hostname).await?;
        Ok(client)
    }

    /// Whether the server offers STARTTLS (RFC 3207).
    pub fn offers_starttls(&self) -> bool {
        self.starttls
    }

    /// Says STARTTLS and returns the stream for the handshake.
    ///
    /// # Errors
    /// If the server refuses, or has sent anything in clear beside the reply, which would pass for encrypted.
    pub async fn start_tls(mut self) -> Result<S, ClientError> {
        let reply = self.command("STARTTLS\r\n").await?;
        if reply.code != 220 {
            return Err(ClientError::StartTls(text(&reply)));
        }
        if self.rest.is_empty() { Ok(self.stream) } else { Err(ClientError::Injected) }
    }

    /// What the server accepts, by its reply to EHLO.
    pub fn accepts(&self) -> Accepts {
        self.accepts
    }

    /// Whether another mail can be sent: the server has not closed the connection, as far as is known.
    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// Says QUIT and waits for the reply, for two seconds at most.
    pub async fn quit(mut self) {
        // Whether the server says goodbye or not, the connection ends.
        let _ = timeout(QUIT, self.command("QUIT\r\n")).await;
    }

    fn new(stream: S, timeout: Duration) -> Self {
        let accepts = Accepts::default();
        let mechanisms = login::Mechanisms::default();
        Self {
            stream,
            timeout,
            rest: Vec::new(),
            utf8: false,
            sizes: false,
            starttls: false,
            mechanisms,
            accepts,
            usable: true,
        }
    }

    async fn hello(&mut self, hostname: &str) -> Result<(), ClientError> {
        let ehlo = self.command(&format!("EHLO {hostname}\r\n")).await?;
        if ehlo.code != 250 {
            self.write(format!("HELO {hostname}\r\n").as_bytes()).await?;
            return self.expect(250).await;
        }
        // The first line is the server's name.
        let extensions: Vec<_> =
            ehlo.message.lines().skip(1).map(|line| line.trim().to_ascii_uppercase()).collect();
        let offers = |name: &str| extensions.iter().any(|line| line == name);
        self.utf8 = offers("SMTPUTF8");
        self.starttls = offers("STARTTLS");
        self.mechanisms = login::Mechanisms::offered(&extensions);
        self.accepts.eight_bit = offers("8BITMIME");
        let size = extensions.iter().find_map(|line| line.strip_prefix("SIZE"));
        self.sizes = size.is_some();
        // 0 means no bound (RFC 1870 section 4).
        self.accepts.size = size.and_then(|size| size.trim().parse().ok()).filter(|size| *size > 0);
        Ok(())
    }

    async fn command(&mut self, command: &str) -> Result<Response<String>, ClientError> {
        self.write(command.as_bytes()).await?;
        let reply = self.reply().await?;
        // 421 means that the server is about to close the connection, whatever was asked (RFC 5321 section 3.8).
        if reply.code == 421 { Err(ClientError::Refused(text(&reply))) } else { Ok(reply) }
    }

    async fn expect(&mut self, code: u16) -> Result<(), ClientError> {
        let reply = self.reply().await?;
        if reply.code == code { Ok(()) } else { Err(ClientError::Refused(text(&reply))) }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let write = async {
            self.stream.write_all(bytes).await?;
            // TLS keeps back what the socket did not take at once.
            self.stream.flush().await
        };
        let written = timeout(self.timeout, write).await;
        Ok(written.map_err(|_| ClientError::Timeout(self.timeout))??)
    }

    async fn reply(&mut self) -> Result<Response<String>, ClientError> {
        self.reply_within(self.timeout).await
    }

    async fn reply_within(&mut self, limit: Duration) -> Result<Response<String>, ClientError> {
        timeout(limit, self.read_reply()).await.map_err(|_| ClientError::Timeout(limit))?
    }

    async fn read_reply(&mut self) -> Result<Response<String>, ClientError> {
        let mut receiver = ResponseReceiver::default();
        let mut buffer = [0; BUFFER_BYTES];
        let mut length = 0_usize;
        loop {
            let bytes = std::mem::take(&mut self.rest);
            length = length.saturating_add(bytes.len());
            let mut unread = bytes.iter();
            match receiver.parse(&mut unread) {
                Ok(reply) => {
                    self.rest = unread.as_slice().to_vec();
                    return Ok(reply);
                }
                Err(smtp_proto::Error::NeedsMoreData { .. }) if length < REPLY_BYTES => {}
                Err(_) => return Err(ClientError::Reply),
            }
            let read = self.stream.read(&mut buffer).await?;
            if read == 0 {
                return Err(ClientError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            self.rest = buffer.get(..read).unwrap_or_default().to_vec();
        }
    }
}

#[cfg(test)]
mod tests;
