//! One SMTP (RFC 5321) or LMTP (RFC 2033) session without IO: bytes in, replies and mails out. Pure.
//!
//! The server gives bytes to [`Session::receive`] and writes what [`Session::take_output`] holds. When a mail is
//! complete the session waits for [`Session::verdict`]; until then it takes no more bytes, so that `250` MUST follow
//! the journal. The data of a mail are its bytes as received after dot-unstuffing; no header is added. A mail
//! without headers, or empty, is taken: RFC 5321 does not look into the text.
//!
//! Extensions: PIPELINING, SIZE, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES. CHUNKING is not offered: BDAT carries
//! bare CR and LF through, and strict line ends are the point (see `docs/decisions/0021-smtp-session.md`).

mod command;
mod data;

use std::{net::IpAddr, sync::Arc};

use crate::mail::{Envelope, MailId, Source};
use data::{DataReader, Refusal, received_fields};

pub use data::TEXT_LINE_BYTES;

/// A longer command line is refused, bytes with its CRLF. RFC 5321 section 4.5.3.1.4 demands 512 and extensions more.
pub const COMMAND_LINE_BYTES: usize = 1024;
/// Commands that bring no mail nearer (EHLO, NOOP, RSET, VRFY, HELP) between two mails before the session ends.
const JUNK_COMMANDS: u32 = 100;
/// Recipients over the bound between two mails before the session ends. A client that meets the bound gives the rest of
/// its list all the same (RFC 5321 section 4.5.3.1.10), so that they are no errors.
const RECIPIENTS_OVER: u32 = 10_000;

/// Reply to a mail that the disk has no room for.
const NO_ROOM: &str = "452 4.3.1 no room for mails now, try again later";

/// Bounds of a session, from the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of a mail, bytes.
    pub message_bytes: usize,
    /// Recipients of a mail.
    pub recipients: usize,
    /// `Received` fields of a mail; more is taken for a loop.
    pub received_headers: usize,
    /// Refused commands before the session ends.
    pub errors: u32,
    /// Mails before the session ends.
    pub mails: u32,
}

/// A complete mail that waits for its [`Verdict`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its envelope.
    pub envelope: Envelope,
    /// Its bytes as received.
    pub data: Vec<u8>,
}

/// What the session wants next.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes, after the output is written.
    More,
    /// A verdict on this mail.
    Mail(Box<Incoming>),
    /// The end of the connection, after the output is written.
    Close,
}

/// What became of a complete mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is on disk and synced.
    Stored(MailId),
    /// It is not; the client shall try again.
    TryAgain,
    /// It is not, as the disk has no room for it.
    NoRoom,
}

/// Why the server ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client took too long.
    Timeout,
    /// The client talked and brought no mail.
    NoMail,
    /// The node shuts down.
    Shutdown,
}

#[derive(Debug)]
enum Phase {
    Command,
    Data(DataReader),
    Verdict,
    Closed,
}

#[derive(Debug)]
struct Transaction {
    mail_from: String,
    rcpt_to: Vec<String>,
    /// MAIL had the parameter SMTPUTF8.
    utf8: bool,
}

/// The state of a session.
#[derive(Debug)]
pub struct Session {
    protocol: Source,
    peer: IpAddr,
    hostname: Arc<str>,
    limits: Limits,
    phase: Phase,
    helo: Option<String>,
    transaction: Option<Transaction>,
    /// The command line so far, at most [`COMMAND_LINE_BYTES`].
    line: Vec<u8>,
    /// The rest of a line that is too long is skipped.
    skipping: bool,
    output: Vec<u8>,
    errors: u32,
    junk: u32,
    /// Recipients over the bound since the last mail.
    over: u32,
    mails: u32,
    texts: u64,
    steps: u64,
    /// Whether a mail would be taken.
    room: bool,
}

impl Session {
    /// A new session, its greeting in the output. `hostname` is the name that the server gives.
    pub fn new(protocol: Source, peer: IpAddr, hostname: Arc<str>, limits: Limits) -> Self {
        let mut session = Self {
            protocol,
            peer,
            hostname,
            limits,
            phase: Phase::Command,
            helo: None,
            transaction: None,
            line: Vec::new(),
            skipping: false,
            output: Vec::new(),
            errors: 0,
            junk: 0,
            over: 0,
            mails: 0,
            texts: 0,
            steps: 0,
            room: true,
        };
        let name = match protocol {
            Source::Smtp => "ESMTP",
            Source::Lmtp => "LMTP",
        };
        session.say(&format!("220 {} {name} posthorn", session.hostname));
        session
    }

    /// Takes bytes off `input`, as many as can be used now.
    pub fn receive(&mut self, input: &mut &[u8]) -> Progress {
        loop {
            match &mut self.phase {
                Phase::Closed => return Progress::Close,
                // The caller has yet to give its verdict.
                Phase::Verdict => return Progress::More,
                Phase::Data(reader) => match reader.read(input) {
                    None => return Progress::More,
                    Some(result) => {
                        if let Some(mail) = self.end_of_data(result) {
                            return Progress::Mail(mail);
                        }
                    }
                },
                Phase::Command => {
                    if !self.read_line(input) {
                        return Progress::More;
                    }
                }
            }
        }
    }

    /// Tells the client what became of the mail that [`receive`](Self::receive) gave last.
    pub fn verdict(&mut self, verdict: Verdict) {
        if matches!(self.phase, Phase::Verdict) {
            self.phase = Phase::Command;
            self.reply_to_data(&match verdict {
                Verdict::Stored(id) => format!("250 2.6.0 journaled as {id}"),
                Verdict::TryAgain => "451 4.3.0 cannot be journaled now, try again later".to_owned(),
                Verdict::NoRoom => NO_ROOM.to_owned(),
            });
        }
    }

    /// Whether there is room for a mail now; while there is none, MAIL gets 452.
    pub fn set_room(&mut self, room: bool) {
        self.room = room;
    }

    /// Ends the session with 421.
    pub fn end(&mut self, ending: Ending) {
        if !matches!(self.phase, Phase::Closed) {
            self.say(match ending {
                Ending::Timeout => "421 4.4.2 timeout, closing connection",
                Ending::NoMail => "421 4.4.2 no mail for too long, closing connection",
                Ending::Shutdown => "421 4.3.2 shutting down, closing connection",
            });
            self.phase = Phase::Closed;
        }
    }

    /// What is to be written to the client; the session keeps none of it.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Whether a mail is on its way: DATA was said and its verdict was not.
    pub fn in_mail(&self) -> bool {
        matches!(self.phase, Phase::Data(_) | Phase::Verdict)
    }

    /// Counts complete commands and mails, so that a server can tell progress from dribbled bytes.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Counts texts of mails begun, taken or not, so that a server can tell a client that brings mails from one that talks.
    pub fn texts(&self) -> u64 {
        self.texts
    }

    fn say(&mut self, reply: &str) {
        self.output.extend_from_slice(reply.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    /// A reply to the end of DATA: one, or in LMTP one for each recipient (RFC 2033 section 4.2). Ends the transaction.
    fn reply_to_data(&mut self, reply: &str) {
        let recipients = self.transaction.take().map_or(1, |transaction| transaction.rcpt_to.len());
        let replies = if self.protocol == Source::Lmtp { recipients } else { 1 };
        (0..replies).for_each(|_| self.say(reply));
        self.steps = self.steps.wrapping_add(1);
    }

    fn end_of_data(&mut self, result: Result<Vec<u8>, Refusal>) -> Option<Box<Incoming>> {
        self.phase = Phase::Command;
        let result = match result {
            Ok(data) if received_fields(&data) > self.limits.received_headers => {
                Err(("554 5.4.6 too many Received fields, the mail loops".to_owned(), false))
            }
            Ok(data) => Ok(data),
            Err(refusal) => Err((self.refusal_text(refusal), refusal.closes())),
        };
        match result {
            Ok(data) => {
                let (Some(transaction), Some(helo)) = (&self.transaction, &self.helo) else {
                    self.reply_to_data("503 5.5.1 no transaction");
                    return None;
                };
                let envelope = Envelope {
                    source: self.protocol,
                    peer: self.peer,
                    helo: helo.clone(),
                    mail_from: transaction.mail_from.clone(),
                    rcpt_to: transaction.rcpt_to.clone(),
                };
                self.mails = self.mails.saturating_add(1);
                (self.junk, self.over) = (0, 0);
                self.phase = Phase::Verdict;
                Some(Box::new(Incoming { envelope, data }))
            }
            Err((reply, closes)) => {
                self.reply_to_data(&reply);
                if closes {
                    self.phase = Phase::Closed;
                } else {
                    self.count_error();
                }
                None
            }
        }
    }

    fn refusal_text(&self, refusal: Refusal) -> String {
        match refusal {
            Refusal::BareLineEnding => "550 5.6.11 bare CR or LF in the mail, lines end with CRLF".to_owned(),
            Refusal::TooLarge | Refusal::Endless => {
                format!("552 5.3.4 mail is larger than {} bytes", self.limits.message_bytes)
            }
            Refusal::LineTooLong => format!("554 5.6.0 line of text is longer than {TEXT_LINE_BYTES} bytes"),
        }
    }

    fn count_error(&mut self) {
        self.errors = self.errors.saturating_add(1);
        if self.errors >= self.limits.errors {
            self.say("421 4.7.0 too many errors, closing connection");
            self.phase = Phase::Closed;
        }
    }
}

#[cfg(test)]
mod tests;
