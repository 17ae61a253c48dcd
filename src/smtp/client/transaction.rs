// SPDX-License-Identifier: Apache-2.0
//! A mail transaction (RFC 5321 section 3.3): MAIL, RCPT, DATA, and what the replies mean for each recipient.
//!
//! What a server has refused stays refused if it closes the connection behind its reply.

use std::time::Duration;

use smtp_proto::Response;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    Client, ClientError, Message, Outcome, SendError,
    text::{refusal, stuffed, text},
};

/// The mail is written in parts of this size, bytes; each has the whole timeout (RFC 5321 section 4.5.3.2.5).
const PART_BYTES: usize = 64 * 1024;
/// Longest time for all parts: 14 MB take it at 4 KB/s.
const ALL_PARTS: Duration = Duration::from_secs(3600);
/// Least time to wait for the reply to the final dot (RFC 5321 section 4.5.3.2.6): a client that gives up earlier
/// sends the mail twice.
const DATA_REPLY: Duration = Duration::from_secs(600);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends a mail to the recipients in the bit mask `open`. Refusals by the server are an [`Outcome`].
    ///
    /// # Errors
    /// If the connection fails. All that is known then is whether the whole mail was written.
    pub async fn send(&mut self, mail: &Message, open: u128) -> Result<Outcome, SendError> {
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
        wants(&reply)?;
        if reply.code != 250 {
            self.reset().await;
            return Ok(refusal(&reply, open, 0));
        }
        let (mut taken, mut refused, mut last) = (0u128, 0u128, None);
        for (index, to) in mail.rcpt_to.iter().enumerate() {
            let bit =
                u32::try_from(index).ok().and_then(|index| 1u128.checked_shl(index)).unwrap_or_default();
            if open & bit == 0 {
                continue;
            }
            let reply = match self.command(&format!("RCPT TO:<{to}>\r\n")).await {
                Ok(reply) => reply,
                Err(_) if refused != 0 => {
                    self.usable = false;
                    let reply = last.as_ref().map(text).unwrap_or_default();
                    return Ok(Outcome { delivered: 0, refused, reply });
                }
                Err(error) => return Err(error.into()),
            };
            wants(&reply)?;
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
            self.reset().await;
            let reply = last.as_ref().map(text).unwrap_or_default();
            return Ok(Outcome { delivered: 0, refused, reply });
        }
        let reply = self.command("DATA\r\n").await?;
        wants(&reply)?;
        if reply.code != 354 {
            self.reset().await;
            return Ok(refusal(&reply, taken, refused));
        }
        self.write_data(&stuffed(&mail.data)).await?;
        let reply = self.reply_within(self.timeout.max(DATA_REPLY)).await;
        let reply = reply.map_err(|error| SendError { error, data_sent: true })?;
        // Any 2yz is success (RFC 5321 section 4.2.1): the server has the mail.
        if !(200..=299).contains(&reply.code) {
            return Ok(refusal(&reply, taken, refused));
        }
        // If a recipient was refused, people want that reply rather than the one to the mail.
        Ok(Outcome { delivered: taken, refused, reply: text(last.as_ref().unwrap_or(&reply)) })
    }

    async fn write_data(&mut self, data: &[u8]) -> Result<(), ClientError> {
        let write = async {
            for part in data.chunks(PART_BYTES) {
                self.write(part).await?;
            }
            Ok(())
        };
        timeout(ALL_PARTS, write).await.map_err(|_| ClientError::Timeout(ALL_PARTS))?
    }

    /// Makes the session fit for the next mail. The outcome of this one is known, so that it does not matter for it.
    async fn reset(&mut self) {
        let done = self.command("RSET\r\n").await;
        self.usable = done.is_ok_and(|reply| reply.code == 250);
    }
}

/// 530 says that the session lacks TLS or a login, whichever command it replies to; nothing about mail or recipients.
fn wants(reply: &Response<String>) -> Result<(), ClientError> {
    if reply.code == 530 { Err(ClientError::Wants(text(reply))) } else { Ok(()) }
}
