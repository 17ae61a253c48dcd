// SPDX-License-Identifier: Apache-2.0
//! One SMTP (RFC 5321) or LMTP (RFC 2033) session without IO: bytes in, replies and mails out. Pure.
//!
//! When a mail is complete, the session waits for [`Session::conclude`] and takes no bytes until then, so that `250`
//! MUST follow the journal. The data of a mail are its bytes as received, after dot-unstuffing; no header is added. A
//! mail without a header, or an empty one, is accepted: RFC 5321 does not look into the text. Sockets, timers and the
//! journal are left to the server, which passes bytes to [`Session::receive`] and writes what
//! [`Session::take_output`] returns.
//!
//! Extensions: PIPELINING, SIZE, 8BITMIME, SMTPUTF8, CHUNKING, ENHANCEDSTATUSCODES; STARTTLS and AUTH if [`Access`] has
//! them. Strict line ends are the point, after DATA and in BDAT (see `docs/decisions/0021-smtp-session.md`).

mod access;
mod auth;
mod chunk;
mod command;
mod data;
mod end;

use std::{net::IpAddr, sync::Arc};

use auth::Exchange;
use chunk::Chunk;
use data::DataReader;
use mail::{Envelope, MailId};

pub use access::{Access, Tls};
pub use auth::{AuthOutcome, Credentials};
pub use data::TEXT_LINE_BYTES;

/// Longest command line, bytes with its CRLF. RFC 5321 section 4.5.3.1.4 requires 512, and extensions require more.
pub const COMMAND_LINE_BYTES: usize = 1024;
/// Commands that bring no mail nearer (HELO, EHLO, LHLO, NOOP, RSET, VRFY, HELP, and MAIL while there is no room),
/// between two mails, before the session ends.
const JUNK_COMMANDS: u32 = 100;
/// Recipients over the bound, between two mails, before the session ends. A client that reaches the bound still sends
/// the rest of its list (RFC 5321 section 4.5.3.1.10), so these do not count as errors.
const RECIPIENTS_OVER: u32 = 10_000;

/// Reply if the disk has no room for mails.
const NO_ROOM: &str = "452 4.3.1 no room for mails now, try again later";

/// What a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 2033.
    Lmtp,
}

/// Bounds on a session, from the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest mail, bytes.
    pub message_bytes: usize,
    /// Largest number of recipients of a mail.
    pub recipients: usize,
    /// Largest number of `Received` fields in a mail; more are taken for a loop.
    pub received_headers: usize,
    /// Number of refused commands and mails at which the session ends.
    pub errors: u32,
    /// Largest number of mails in a session; a further MAIL ends it.
    pub mails: u32,
}

/// A complete mail that waits for its [`Outcome`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Who sent the mail to whom, and from where.
    pub envelope: Envelope,
    /// The mail as received, after dot-unstuffing.
    pub data: Vec<u8>,
}

/// What the session needs next from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes from the client, once the output is written.
    More,
    /// The reply to this mail, by [`Session::conclude`].
    Mail(Box<Incoming>),
    /// The TLS handshake, once the output is written, and then [`Session::tls_started`]. If the handshake fails, the
    /// connection must be closed without a word.
    StartTls,
    /// The reply to these credentials, by [`Session::conclude_auth`].
    Credentials(Credentials),
    /// The connection must be closed, once the output is written.
    Close,
}

/// Outcome of storing a mail, from which the session makes its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The mail is on disk and synced: 250.
    Stored(MailId),
    /// The mail could not be stored, and the client should try again: 451.
    TryAgain,
    /// The disk has no room for the mail: 452.
    NoRoom,
    /// The same bytes were stored before for other recipients, and what is kept of them cannot be changed: 554.
    ForOthers,
}

/// Why the server ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client took too long.
    Timeout,
    /// The client talked for too long without a mail.
    NoMail,
    /// The node is shutting down.
    Shutdown,
}

#[derive(Debug)]
enum Phase {
    Command,
    Data(DataReader),
    Chunk(Chunk),
    Storing,
    StartingTls,
    Auth(Exchange),
    /// Until the credentials are taken, and then until it is known whether they are right.
    Checking(Option<Credentials>),
    Closed,
}

#[derive(Debug)]
struct Transaction {
    mail_from: String,
    rcpt_to: Vec<String>,
    /// Whether MAIL had the parameter SMTPUTF8.
    utf8: bool,
}

/// A session: its state, its envelope so far, and the output not yet written.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    peer: IpAddr,
    hostname: Arc<str>,
    limits: Limits,
    access: Access,
    phase: Phase,
    helo: Option<String>,
    transaction: Option<Transaction>,
    /// The chunks of the mail so far; `None` before the first.
    chunks: Option<DataReader>,
    /// The command line so far; at most [`COMMAND_LINE_BYTES`].
    line: Vec<u8>,
    /// Whether the rest of a line that is too long is being skipped.
    skipping: bool,
    output: Vec<u8>,
    authenticated: bool,
    failed_logins: u32,
    errors: u32,
    junk: u32,
    /// Recipients over the bound since the last mail.
    over: u32,
    mails: u32,
    texts: u64,
    steps: u64,
    /// Whether there is room for mails.
    room: bool,
    /// Mails that got 452, and that the server has not taken note of yet.
    turned_away: u64,
}

impl Session {
    /// A new session, with its greeting in the output. `hostname` is the server's name in greetings and replies.
    pub fn new(protocol: Protocol, peer: IpAddr, hostname: Arc<str>, limits: Limits) -> Self {
        let mut session = Self {
            protocol,
            peer,
            hostname,
            limits,
            access: Access::default(),
            phase: Phase::Command,
            helo: None,
            transaction: None,
            chunks: None,
            line: Vec::new(),
            skipping: false,
            output: Vec::new(),
            authenticated: false,
            failed_logins: 0,
            errors: 0,
            junk: 0,
            over: 0,
            mails: 0,
            texts: 0,
            steps: 0,
            room: true,
            turned_away: 0,
        };
        let name = match protocol {
            Protocol::Smtp => "ESMTP",
            Protocol::Lmtp => "LMTP",
        };
        session.say(&format!("220 {} {name} posthorn", session.hostname));
        session
    }

    /// Takes bytes off `input`, as many as it can use now.
    pub fn receive(&mut self, input: &mut &[u8]) -> Progress {
        loop {
            match &mut self.phase {
                Phase::Closed => return Progress::Close,
                // The caller still owes the reply to the last mail, or the handshake.
                Phase::Storing | Phase::StartingTls => return Progress::More,
                Phase::Checking(credentials) => {
                    return credentials.take().map_or(Progress::More, Progress::Credentials);
                }
                Phase::Data(reader) => match reader.read(input) {
                    None => return Progress::More,
                    Some(result) => {
                        if let Some(mail) = self.end_of_data(result) {
                            return Progress::Mail(mail);
                        }
                    }
                },
                Phase::Chunk(chunk) => {
                    if !chunk.read(self.chunks.as_mut(), input) {
                        return Progress::More;
                    }
                    let chunk = *chunk;
                    if let Some(mail) = self.end_of_chunk(chunk) {
                        return Progress::Mail(mail);
                    }
                }
                Phase::Command | Phase::Auth(_) => {
                    if !self.read_line(input) {
                        return Progress::More;
                    }
                    if matches!(self.phase, Phase::StartingTls) {
                        return self.begin_tls(input);
                    }
                }
            }
        }
    }

    /// Replies to the mail that [`receive`](Self::receive) returned last.
    pub fn conclude(&mut self, outcome: Outcome) {
        if matches!(self.phase, Phase::Storing) {
            self.phase = Phase::Command;
            self.reply_to_data(&match outcome {
                Outcome::Stored(id) => format!("250 2.6.0 journaled as {id}"),
                Outcome::TryAgain => "451 4.3.0 cannot be journaled now, try again later".to_owned(),
                Outcome::NoRoom => NO_ROOM.to_owned(),
                Outcome::ForOthers => {
                    "554 5.6.0 the same mail came before for other recipients, change it and send it again"
                        .to_owned()
                }
            });
        }
    }

    /// Sets whether there is room for mails; while there is none, MAIL gets 452.
    pub fn set_room(&mut self, room: bool) {
        self.room = room;
    }

    /// Bytes of memory that the mail being received takes, until its [`Progress::Mail`].
    pub fn held_bytes(&self) -> usize {
        match &self.phase {
            Phase::Data(reader) => reader.held_bytes(),
            _ => self.chunks.as_ref().map_or(0, DataReader::held_bytes),
        }
    }

    /// Drops the mail being received for lack of memory; it gets 452 at its end.
    pub fn no_memory(&mut self) {
        let reader = match &mut self.phase {
            Phase::Data(reader) => Some(reader),
            _ => self.chunks.as_mut(),
        };
        if let Some(reader) = reader {
            reader.no_memory();
        }
    }

    /// Takes the number of mails that got 452 since the last call, at MAIL for lack of room or at their end for lack of
    /// memory.
    pub fn take_turned_away(&mut self) -> u64 {
        std::mem::take(&mut self.turned_away)
    }

    /// Ends the session with 421 and the reason.
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

    /// Takes the bytes to be written to the client.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Whether a mail is being transferred: after DATA or the first BDAT, and before its reply.
    pub fn in_mail(&self) -> bool {
        match &self.phase {
            Phase::Data(_) | Phase::Storing => true,
            Phase::Chunk(chunk) => chunk.is_of_a_mail(),
            _ => self.chunks.is_some(),
        }
    }

    /// Number of complete commands and mails so far, but for commands within a mail in chunks, so that a server can tell progress from dribbled bytes.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Number of mail texts begun so far, accepted or not, so that a server can tell a client that brings mails from
    /// one that only talks.
    pub fn texts(&self) -> u64 {
        self.texts
    }

    fn say(&mut self, reply: &str) {
        self.output.extend_from_slice(reply.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    fn end_with(&mut self, reply: &str) {
        self.say(reply);
        self.phase = Phase::Closed;
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
