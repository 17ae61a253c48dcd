//! An SMTP client (RFC 5321) over any stream: what the outbox needs of it, bounded in bytes and time.

use std::{io, time::Duration};

use smtp_proto::{Response, response::parser::ResponseReceiver};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    compose::{Accepts, Composed},
    schedule::Outcome,
};

/// A reply is bounded by `smtp_proto` (4 KiB of text); this much is read at once, bytes.
const BUFFER_BYTES: usize = 4096;
/// Kept of a reply for people, characters: at most 998 bytes, the bound of `DeliveryStatus.reply`.
const REPLY_CHARS: usize = 240;
/// The reply to the final dot is waited for at least so long (RFC 5321 section 4.5.3.2.6): who gives up earlier sends the
/// mail twice.
const DATA_REPLY: Duration = Duration::from_secs(600);

/// The connection is of no more use; nothing is known of the mail under way.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Connecting, reading or writing failed.
    #[error("smart host: {0}")]
    Io(#[from] io::Error),
    /// No reply in time.
    #[error("smart host: no reply within {0:?}")]
    Timeout(Duration),
    /// The reply is not SMTP.
    #[error("smart host: reply is not SMTP")]
    Reply,
    /// The server does not want to talk.
    #[error("smart host: {0}")]
    Refused(String),
}

/// A connection that failed while a mail was sent.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct SendError {
    /// How.
    pub error: ClientError,
    /// Whether the whole mail was written, final dot and all: then the server may have taken it.
    pub data_sent: bool,
}

impl From<ClientError> for SendError {
    fn from(error: ClientError) -> Self {
        Self { error, data_sent: false }
    }
}

/// A session with a server.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    timeout: Duration,
    /// Read and not yet parsed.
    rest: Vec<u8>,
    utf8: bool,
    /// It offers SIZE.
    sizes: bool,
    accepts: Accepts,
}

impl Client<TcpStream> {
    /// Connects to `host` (`name:port`) and says EHLO.
    ///
    /// # Errors
    /// If there is no server, or it does not greet with 220.
    pub async fn connect(host: &str, hostname: &str, limit: Duration) -> Result<Self, ClientError> {
        let stream =
            timeout(limit, TcpStream::connect(host)).await.map_err(|_| ClientError::Timeout(limit))??;
        // Commands are small: Nagle's algorithm would cost a round trip of 40 ms each.
        stream.set_nodelay(true)?;
        Self::greet(stream, hostname, limit).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Waits for the greeting on `stream` and says EHLO, or HELO to a server that does not know it.
    ///
    /// # Errors
    /// If the server does not greet with 220 or refuses both.
    pub async fn greet(stream: S, hostname: &str, timeout: Duration) -> Result<Self, ClientError> {
        let accepts = Accepts::default();
        let mut client = Self { stream, timeout, rest: Vec::new(), utf8: false, sizes: false, accepts };
        client.expect(220).await?;
        let ehlo = client.command(&format!("EHLO {hostname}\r\n")).await?;
        if ehlo.code == 250 {
            let extensions: Vec<_> =
                ehlo.message.lines().map(|line| line.trim().to_ascii_uppercase()).collect();
            client.utf8 = extensions.iter().any(|line| line == "SMTPUTF8");
            client.accepts.eight_bit = extensions.iter().any(|line| line == "8BITMIME");
            let size = extensions.iter().find_map(|line| line.strip_prefix("SIZE"));
            client.sizes = size.is_some();
            // 0 is no bound (RFC 1870 section 4).
            client.accepts.size = size.and_then(|size| size.trim().parse().ok()).filter(|size| *size > 0);
        } else {
            client.write(format!("HELO {hostname}\r\n").as_bytes()).await?;
            client.expect(250).await?;
        }
        Ok(client)
    }

    /// What the server takes.
    pub fn accepts(&self) -> Accepts {
        self.accepts
    }

    /// Sends a mail to the recipients in `open` (bits). Refusals by the server are an [`Outcome`].
    ///
    /// # Errors
    /// If the connection fails: nothing is known of the mail but whether all of it was written.
    pub async fn send(&mut self, mail: &Composed, open: u128) -> Result<Outcome, SendError> {
        let utf8 = !mail.mail_from.is_ascii() || !mail.rcpt_to.iter().all(|to| to.is_ascii());
        let mut parameters = String::new();
        if utf8 && !self.utf8 {
            let reply = "553 5.6.7 address needs SMTPUTF8, which the smart host lacks".to_owned();
            return Ok(Outcome { delivered: 0, refused: open, reply });
        }
        if utf8 {
            parameters.push_str(" SMTPUTF8");
        }
        if self.accepts.eight_bit && !mail.data.is_ascii() {
            parameters.push_str(" BODY=8BITMIME");
        }
        if self.sizes {
            parameters.push_str(&format!(" SIZE={}", mail.data.len()));
        }
        let reply = self.command(&format!("MAIL FROM:<{}>{parameters}\r\n", mail.mail_from)).await?;
        if reply.code != 250 {
            self.reset().await?;
            return Ok(refusal(&reply, open, 0));
        }
        let (mut taken, mut refused, mut last) = (0u128, 0u128, None);
        for (index, to) in mail.rcpt_to.iter().enumerate() {
            let bit =
                u32::try_from(index).ok().and_then(|index| 1u128.checked_shl(index)).unwrap_or_default();
            if open & bit == 0 {
                continue;
            }
            let reply = self.command(&format!("RCPT TO:<{to}>\r\n")).await?;
            match reply.code {
                250..=259 => taken |= bit,
                code => {
                    if code >= 500 {
                        refused |= bit;
                    }
                    last = Some(reply);
                }
            }
        }
        if taken == 0 {
            self.reset().await?;
            let reply = last.as_ref().map(text).unwrap_or_default();
            return Ok(Outcome { delivered: 0, refused, reply });
        }
        let reply = self.command("DATA\r\n").await?;
        if reply.code != 354 {
            self.reset().await?;
            return Ok(refusal(&reply, taken, refused));
        }
        self.write(&stuffed(&mail.data)).await?;
        let reply = self.reply_within(self.timeout.max(DATA_REPLY)).await;
        let reply = reply.map_err(|error| SendError { error, data_sent: true })?;
        if reply.code != 250 {
            return Ok(refusal(&reply, taken, refused));
        }
        // What a person wants to know is why a recipient is missing, if one is.
        Ok(Outcome { delivered: taken, refused, reply: text(last.as_ref().unwrap_or(&reply)) })
    }

    /// Says goodbye and does not wait long for the reply.
    pub async fn quit(mut self) {
        if self.write(b"QUIT\r\n").await.is_ok() {
            let _ = self.reply().await;
        }
    }

    async fn reset(&mut self) -> Result<(), ClientError> {
        self.write(b"RSET\r\n").await?;
        self.expect(250).await
    }

    async fn command(&mut self, command: &str) -> Result<Response<String>, ClientError> {
        self.write(command.as_bytes()).await?;
        let reply = self.reply().await?;
        // The server is about to close the connection, whatever was asked (RFC 5321 section 3.8).
        if reply.code == 421 { Err(ClientError::Refused(text(&reply))) } else { Ok(reply) }
    }

    async fn expect(&mut self, code: u16) -> Result<(), ClientError> {
        let reply = self.reply().await?;
        if reply.code == code { Ok(()) } else { Err(ClientError::Refused(text(&reply))) }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let written = timeout(self.timeout, self.stream.write_all(bytes)).await;
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
        loop {
            let bytes = std::mem::take(&mut self.rest);
            let mut unread = bytes.iter();
            match receiver.parse(&mut unread) {
                Ok(reply) => {
                    self.rest = unread.as_slice().to_vec();
                    return Ok(reply);
                }
                Err(smtp_proto::Error::NeedsMoreData { .. }) => {}
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

/// A refusal of everything in `asked`: for good if 5xx, else for now.
fn refusal(reply: &Response<String>, asked: u128, refused: u128) -> Outcome {
    let refused = if reply.code >= 500 { refused | asked } else { refused };
    Outcome { delivered: 0, refused, reply: text(reply) }
}

/// A reply as one line.
fn text(reply: &Response<String>) -> String {
    let [class, subject, detail] = reply.esc;
    let esc = if class == 0 { String::new() } else { format!("{class}.{subject}.{detail} ") };
    one_line(&format!("{} {esc}{}", reply.code, reply.message))
}

/// A text for people, from elsewhere: one line, bounded, nothing that moves a cursor.
pub(super) fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(REPLY_CHARS).collect()
}

/// The data of a mail on the wire: dots at line starts doubled, a final dot line.
fn stuffed(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len().saturating_add(16));
    for line in data.split_inclusive(|&byte| byte == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffs_dots_and_ends_with_a_dot_line() {
        assert_eq!(stuffed(b".a\r\n\r\n..\r\nb"), b"..a\r\n\r\n...\r\nb\r\n.\r\n");
        assert_eq!(stuffed(b""), b".\r\n");
    }
}
