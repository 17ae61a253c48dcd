// SPDX-License-Identifier: Apache-2.0
//! Command lines of a session: framing, grammar and order.
//!
//! The grammar is `smtp_proto::Request::parse`. Its `RequestReceiver` is not used, because it accepts a bare LF as
//! the end of a line and removes a CR anywhere. It removes the quotes of a local part, so `"a@b"@c` reaches us as
//! another text, which [`EmailAddress`] refuses; `"ab"@c` is `ab@c` (RFC 5321 section 4.1.2). Here a line ends with
//! CRLF and holds no other control character.

use mail::EmailAddress;
use smtp_proto::{Error, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_SMTPUTF8, MailFrom, RcptTo, Request};

use crate::session::{
    COMMAND_LINE_BYTES, DataReader, JUNK_COMMANDS, NO_ROOM, Phase, Protocol, RECIPIENTS_OVER, Session, Tls,
    Transaction,
};

const SIZE_MALFORMED: &str = "501 5.5.4 SIZE must be 1 to 20 digits";
/// The recipient that every server has, without a domain (RFC 5321 section 4.5.1).
const POSTMASTER: &str = "postmaster";
/// Length of the verbs of SMTP, bytes.
const VERB_BYTES: usize = 4;
/// First words of HTTP requests, from a browser that was tricked into posting to this port. The session ends at once.
const HTTP_METHODS: &[&str] =
    &["CONNECT ", "DELETE ", "GET ", "HEAD ", "OPTIONS ", "PATCH ", "POST ", "PUT "];

impl Session {
    /// Takes bytes off `input` up to the end of a line and runs the command; false if the line is not complete.
    pub(super) fn read_line(&mut self, input: &mut &[u8]) -> bool {
        let end = input.iter().position(|&byte| byte == b'\n');
        let (part, rest) = input.split_at(end.map_or(input.len(), |end| end.saturating_add(1)));
        *input = rest;
        if self.line.len().saturating_add(part.len()) > COMMAND_LINE_BYTES {
            self.skipping = true;
            // Its verb is all that matters of it.
            self.line.extend_from_slice(part.get(..VERB_BYTES).unwrap_or_default());
            self.line.truncate(VERB_BYTES);
        } else if !self.skipping {
            self.line.extend_from_slice(part);
        }
        if end.is_none() {
            return false;
        }
        if self.chunks.is_none() {
            self.steps = self.steps.wrapping_add(1);
        }
        let line = std::mem::take(&mut self.line);
        let too_long = std::mem::take(&mut self.skipping);
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Auth(exchange) => self.auth_line(exchange, (!too_long).then_some(&line)),
            // What follows is a chunk.
            _ if too_long && line.eq_ignore_ascii_case(b"BDAT") => {
                self.end_with("500 5.5.2 command line is too long, closing connection");
            }
            _ if too_long => {
                self.refuse(&format!("500 5.5.2 command line is longer than {COMMAND_LINE_BYTES} bytes"));
            }
            _ => self.run_command(&line),
        }
        true
    }

    fn run_command(&mut self, line: &[u8]) {
        let text = match text_of(line) {
            Ok(text) => text,
            // What follows may be a chunk.
            Err(reply) if line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT")) => {
                return self.end_with(reply);
            }
            Err(reply) => return self.refuse(reply),
        };
        if HTTP_METHODS.iter().any(|method| text.starts_with(method)) {
            return self.end_with("554 5.7.1 this is not an HTTP server, closing connection");
        }
        // The parser takes only mechanisms that it knows, the first of two parameters, and sizes that wrap around.
        let (verb, parameters) = text.split_once(' ').unwrap_or((text, ""));
        if verb.eq_ignore_ascii_case("AUTH") {
            return self.auth(parameters);
        }
        if verb.eq_ignore_ascii_case("BDAT") {
            return self.bdat(parameters);
        }
        match Request::parse(&mut line.iter()) {
            Ok(Request::Ehlo { host }) => self.hello(Protocol::Smtp, "EHLO", &host),
            Ok(Request::Helo { host }) => self.hello(Protocol::Smtp, "HELO", &host),
            Ok(Request::Lhlo { host }) => self.hello(Protocol::Lmtp, "LHLO", &host),
            Ok(Request::Mail { from }) => self.mail(&from, text),
            Ok(Request::Rcpt { to }) => self.rcpt(&to, text),
            Ok(Request::Data) => self.data(),
            Ok(Request::Rset) => {
                self.transaction = None;
                self.junk("250 2.0.0 reset");
                self.abandon_chunks();
            }
            Ok(Request::Noop { .. }) => self.junk("250 2.0.0 ok"),
            Ok(Request::Vrfy { .. }) => self.junk("252 2.5.0 not verified, send some mail"),
            Ok(Request::Help { .. }) => self.junk("214 2.0.0 RFC 5321, RFC 2033"),
            Ok(Request::StartTls) if !text.eq_ignore_ascii_case("STARTTLS") => {
                self.refuse("501 5.5.4 STARTTLS has no parameters");
            }
            Ok(Request::StartTls) => self.starttls(),
            Ok(Request::Quit) => {
                self.say(&format!("221 2.0.0 {} closing connection", self.hostname));
                self.phase = Phase::Closed;
            }
            Ok(_) => self.refuse("502 5.5.1 command not implemented"),
            Err(Error::InvalidSenderAddress) => self.refuse("501 5.1.7 sender address is malformed"),
            Err(Error::InvalidRecipientAddress) => self.refuse("501 5.1.3 recipient address is malformed"),
            Err(Error::SyntaxError { syntax }) => self.refuse(&format!("501 5.5.4 must be {syntax}")),
            // The parser uses the largest number for a missing one, so it rejects that SIZE.
            Err(Error::InvalidParameter { param: "SIZE" }) => match announced(text) {
                None => self.refuse(SIZE_MALFORMED),
                Some(_) => self.too_large(),
            },
            Err(Error::InvalidParameter { .. } | Error::UnsupportedParameter { .. }) => {
                self.refuse("555 5.5.4 parameter not supported or malformed");
            }
            Err(_) => self.refuse("500 5.5.1 command unknown"),
        }
    }

    fn hello(&mut self, protocol: Protocol, command: &str, host: &str) {
        if protocol != self.protocol {
            return self.refuse(match self.protocol {
                Protocol::Smtp => "500 5.5.1 this is SMTP, say EHLO",
                Protocol::Lmtp => "500 5.5.1 this is LMTP, say LHLO",
            });
        }
        self.helo = Some(host.to_owned());
        self.transaction = None;
        if command == "HELO" {
            self.junk(&format!("250 {}", self.hostname));
            return self.abandon_chunks();
        }
        self.say(&format!("250-{}", self.hostname));
        self.say("250-PIPELINING");
        self.say(&format!("250-SIZE {}", self.limits.message_bytes));
        self.say("250-8BITMIME");
        self.say("250-SMTPUTF8");
        self.say("250-CHUNKING");
        if self.access.tls == Tls::Offered {
            self.say("250-STARTTLS");
        }
        if self.offers_auth() {
            self.say("250-AUTH PLAIN LOGIN");
        }
        self.junk("250 ENHANCEDSTATUSCODES");
        self.abandon_chunks();
    }

    fn mail(&mut self, from: &MailFrom<std::borrow::Cow<'_, str>>, line: &str) {
        const SUPPORTED: u64 = MAIL_BODY_7BIT | MAIL_BODY_8BITMIME | MAIL_SMTPUTF8;
        let utf8 = from.flags & MAIL_SMTPUTF8 != 0;
        let other = from.trans_id.is_some()
            || from.env_id.is_some()
            || from.solicit.is_some()
            || from.mtrk.is_some()
            || (from.auth.is_some() && !self.access.auth)
            // The parser reports absent numbers as 0 and lets some wrap around, so check the names.
            || parameters(line).any(|(name, _)| {
                // AUTH (RFC 4954 section 5) is taken and believed by nobody.
                !["SIZE", "BODY", "SMTPUTF8", "AUTH"].iter().any(|known| name.eq_ignore_ascii_case(known))
            });
        let size = announced(line);
        let address = path(&from.address, line);
        if self.helo.is_none() {
            self.refuse(match self.protocol {
                Protocol::Smtp => "503 5.5.1 say EHLO first",
                Protocol::Lmtp => "503 5.5.1 say LHLO first",
            });
        } else if let Some(reply) = self.barred() {
            self.refuse(reply);
        } else if self.transaction.is_some() {
            self.refuse("503 5.5.1 sender already given, say RSET first");
        } else if self.mails >= self.limits.mails {
            self.say("421 4.7.0 too many mails in one session, closing connection");
            self.phase = Phase::Closed;
        } else if other || from.flags & !SUPPORTED != 0 {
            self.refuse("555 5.5.4 parameter not supported");
        } else if size.is_none() {
            self.refuse(SIZE_MALFORMED);
        } else if size.is_some_and(|size| size > self.limits.message_bytes) {
            self.too_large();
        } else if let (false, Err(error)) = (address.is_empty(), EmailAddress::parse(address)) {
            self.refuse(&format!("553 5.1.7 sender address is not supported: {error}"));
        } else if !from.address.is_ascii() && !utf8 {
            self.refuse("553 5.6.7 address needs SMTPUTF8");
        } else if !self.room {
            self.turned_away = self.turned_away.saturating_add(1);
            self.junk(NO_ROOM);
        } else {
            let mail_from = from.address.clone().into_owned();
            self.transaction = Some(Transaction { mail_from, rcpt_to: Vec::new(), utf8 });
            self.say("250 2.1.0 sender ok");
        }
    }

    fn rcpt(&mut self, to: &RcptTo<std::borrow::Cow<'_, str>>, line: &str) {
        let address = path(&to.address, line);
        let postmaster = address == POSTMASTER;
        let Some(transaction) = &mut self.transaction else {
            return self.refuse("503 5.5.1 say MAIL first");
        };
        if self.chunks.is_some() {
            return self.refuse("503 5.5.1 the mail has begun");
        }
        if to.orcpt.is_some() || to.flags != 0 || to.rrvs != 0 {
            self.refuse("555 5.5.4 parameter not supported");
        } else if let (false, Err(error)) = (postmaster, EmailAddress::parse(address)) {
            self.refuse(&format!("553 5.1.3 recipient address is not supported: {error}"));
        } else if !address.is_ascii() && !transaction.utf8 {
            self.refuse("553 5.6.7 address needs SMTPUTF8");
        } else if !postmaster && !self.access.accepts(address) {
            self.refuse("550 5.1.1 no such recipient here");
        } else if transaction.rcpt_to.len() >= self.limits.recipients {
            self.say(&format!("452 4.5.3 more than {} recipients", self.limits.recipients));
            self.over = self.over.saturating_add(1);
            if self.over > RECIPIENTS_OVER {
                self.say("421 4.7.0 too many recipients, closing connection");
                self.phase = Phase::Closed;
            }
        } else {
            transaction.rcpt_to.push(address.to_owned());
            self.say("250 2.1.5 recipient ok");
        }
    }

    fn data(&mut self) {
        match &self.transaction {
            None => self.refuse("503 5.5.1 say MAIL first"),
            Some(_) if self.chunks.is_some() => self.refuse("503 5.5.1 the mail has begun with BDAT"),
            Some(transaction) if transaction.rcpt_to.is_empty() => {
                self.refuse("503 5.5.1 no valid recipient")
            }
            Some(_) => {
                self.say("354 end with a line that is a dot");
                self.texts = self.texts.wrapping_add(1);
                self.phase = Phase::Data(DataReader::new(self.limits.message_bytes));
            }
        }
    }

    fn too_large(&mut self) {
        self.refuse(&format!("552 5.3.4 mail is larger than {} bytes", self.limits.message_bytes));
    }

    pub(super) fn refuse(&mut self, reply: &str) {
        self.say(reply);
        self.count_error();
    }

    pub(super) fn junk(&mut self, reply: &str) {
        self.say(reply);
        self.junk = self.junk.saturating_add(1);
        if self.junk > JUNK_COMMANDS {
            self.say("421 4.7.0 too many commands without a mail, closing connection");
            self.phase = Phase::Closed;
        }
    }
}

/// The text of a command line, or why there is none.
fn text_of(line: &[u8]) -> Result<&str, &'static str> {
    let text = line.strip_suffix(b"\r\n").ok_or("500 5.5.2 command line must end with CRLF")?;
    if text.iter().any(u8::is_ascii_control) {
        return Err("500 5.5.2 control character in command line");
    }
    std::str::from_utf8(text).map_err(|_| "500 5.5.2 command line is not UTF-8")
}

/// The address in a path. The parser returns the empty one both for `<>` and for `<postmaster>`.
fn path<'p>(address: &'p str, line: &str) -> &'p str {
    let is_postmaster = address.is_empty() && line.to_ascii_lowercase().contains("<postmaster>");
    if is_postmaster { POSTMASTER } else { address }
}

/// Parameters of a MAIL command, which follow the path. A path with a `>` inside is quoted, and refused for that.
fn parameters(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let behind = line.split_once('>').map_or("", |(_, behind)| behind);
    behind.split_ascii_whitespace().map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
}

/// Largest SIZE of a MAIL command (RFC 1870 section 3: 1 to 20 digits); 0 if there is none, `None` if one is
/// malformed.
fn announced(line: &str) -> Option<usize> {
    parameters(line).filter(|(name, _)| name.eq_ignore_ascii_case("SIZE")).try_fold(
        0,
        |largest, (_, value)| {
            let digits = (1..=20).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| value.parse().unwrap_or(usize::MAX).max(largest))
        },
    )
}
