// SPDX-License-Identifier: Apache-2.0
//! AUTH (RFC 4954) with PLAIN (RFC 4616) and LOGIN, for own devices that hand in mails.
//!
//! The session reads the credentials and waits for [`Session::conclude_auth`]; whether they are right, and what finding
//! that out may cost, is left to the server. AUTH is refused where somebody could listen. An exchange that is too long,
//! no base64 or malformed is over: what follows is read as commands.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::session::{Phase, Session};

/// Failed attempts after which the session ends.
const FAILURES: u32 = 3;

/// `Username:` and `Password:`, which LOGIN asks for.
const ASK_NAME: &str = "334 VXNlcm5hbWU6";
const ASK_PASSWORD: &str = "334 UGFzc3dvcmQ6";
const MALFORMED: &str = "501 5.5.2 credentials are not base64 of what the mechanism asks for";

/// A name and a password, both as the client gave them.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Name of the account.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Outcome of checking credentials, from which the session makes its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// Name and password are right: 235.
    Accepted,
    /// One of them is wrong: 535.
    Rejected,
    /// They were not looked at, and the client should try again: 454.
    TryAgain,
}

/// What the client is to send next.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Exchange {
    Plain,
    LoginName,
    /// The name is known.
    LoginPassword(String),
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange")
    }
}

impl Session {
    /// Replies to the credentials that [`receive`](Self::receive) returned last.
    pub fn conclude_auth(&mut self, outcome: AuthOutcome) {
        if !matches!(self.phase, Phase::Checking(None)) {
            return;
        }
        self.phase = Phase::Command;
        match outcome {
            AuthOutcome::Accepted => {
                self.authenticated = true;
                self.say("235 2.7.0 authenticated");
            }
            AuthOutcome::TryAgain => self.refuse("454 4.7.0 cannot check a password now, try again later"),
            AuthOutcome::Rejected => {
                self.failed_logins = self.failed_logins.saturating_add(1);
                self.say("535 5.7.8 name or password is wrong");
                if self.failed_logins >= FAILURES {
                    self.say("421 4.7.0 too many failed attempts, closing connection");
                    self.phase = Phase::Closed;
                } else {
                    self.count_error();
                }
            }
        }
    }

    /// Whether AUTH is offered now.
    pub(super) fn offers_auth(&self) -> bool {
        self.access.auth && self.access.is_private() && !self.authenticated
    }

    pub(super) fn auth(&mut self, parameters: &str) {
        let words: Vec<_> = parameters.split_ascii_whitespace().collect();
        if !self.access.auth {
            self.refuse("502 5.5.1 command not implemented");
        } else if !self.access.is_private() {
            self.refuse("538 5.7.11 say STARTTLS first");
        } else if self.helo.is_none() {
            self.refuse("503 5.5.1 say EHLO first");
        } else if self.authenticated {
            self.refuse("503 5.5.1 authenticated already");
        } else if self.transaction.is_some() {
            self.refuse("503 5.5.1 not during a mail");
        } else if let [mechanism, ref initial @ ..] = words[..]
            && initial.len() <= 1
        {
            self.begin_auth(mechanism, initial.first().copied());
        } else {
            self.refuse("501 5.5.4 must be AUTH mechanism [initial-response]");
        }
    }

    fn begin_auth(&mut self, mechanism: &str, initial: Option<&str>) {
        // RFC 4954 section 4: an empty challenge is `334 ` with its space.
        let (exchange, challenge) = if mechanism.eq_ignore_ascii_case("PLAIN") {
            (Exchange::Plain, "334 ")
        } else if mechanism.eq_ignore_ascii_case("LOGIN") {
            (Exchange::LoginName, ASK_NAME)
        } else {
            return self.refuse("504 5.5.4 mechanism is not supported, use PLAIN or LOGIN");
        };
        match initial {
            // An empty response.
            Some("=") => self.auth_step(exchange, b""),
            Some(response) => self.auth_step(exchange, response.as_bytes()),
            None => {
                self.say(challenge);
                self.phase = Phase::Auth(exchange);
            }
        }
    }

    /// Takes a line of the exchange, with its end; `None` if it was too long.
    pub(super) fn auth_line(&mut self, exchange: Exchange, line: Option<&[u8]>) {
        match line.map(|line| line.strip_suffix(b"\r\n")) {
            None => self.refuse("500 5.5.6 line of the exchange is too long"),
            Some(None) => self.refuse("500 5.5.2 line must end with CRLF"),
            Some(Some(b"*")) => self.refuse("501 5.7.0 authentication cancelled"),
            Some(Some(response)) => self.auth_step(exchange, response),
        }
    }

    fn auth_step(&mut self, exchange: Exchange, response: &[u8]) {
        let text = STANDARD.decode(response).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(text) = text else { return self.refuse(MALFORMED) };
        let parts: Vec<_> = text.split('\0').collect();
        let (name, password) = match (exchange, &parts[..]) {
            (Exchange::Plain, [identity, name, password]) => {
                // Nobody may act as somebody else: no account has an empty name.
                let own = identity.is_empty() || identity == name;
                (if own { (*name).to_owned() } else { String::new() }, *password)
            }
            (Exchange::LoginName, [_]) => {
                self.phase = Phase::Auth(Exchange::LoginPassword(text));
                return self.say(ASK_PASSWORD);
            }
            (Exchange::LoginPassword(name), [password]) => (name, *password),
            _ => return self.refuse(MALFORMED),
        };
        let password = password.to_owned();
        self.phase = Phase::Checking(Some(Credentials { name, password }));
    }
}

#[cfg(test)]
mod tests;
