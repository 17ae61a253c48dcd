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

    /// Whether the line is the command AUTH; then its parameters.
    pub(super) fn auth_parameters(line: &str) -> Option<&str> {
        let (verb, parameters) = line.split_once(' ').unwrap_or((line, ""));
        verb.eq_ignore_ascii_case("AUTH").then_some(parameters)
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::tests::session;
    use crate::session::{Access, COMMAND_LINE_BYTES, Progress, Protocol, Tls};

    fn offering() -> Session {
        let access = Access { tls: Tls::Active, auth: true, ..Access::default() };
        session(Protocol::Smtp).with_access(access)
    }

    /// Talks to the session; `ada` has the password `secret`. Returns the codes, and the names that were checked.
    fn talk(session: &mut Session, input: &str) -> (String, Vec<String>) {
        let mut input = input.as_bytes();
        let mut checked = Vec::new();
        while let Progress::Credentials(given) = session.receive(&mut input) {
            let right = given.name == "ada" && given.password == "secret";
            session.conclude_auth(if right { AuthOutcome::Accepted } else { AuthOutcome::Rejected });
            checked.push(given.name);
        }
        let output = String::from_utf8(session.take_output()).unwrap();
        let last = output.lines().filter(|line| line.as_bytes()[3] == b' ');
        (last.map(|line| line[..3].to_owned()).collect::<Vec<_>>().join(" "), checked)
    }

    fn codes(input: &str) -> String {
        talk(&mut offering(), &format!("EHLO c\r\n{input}")).0
    }

    fn plain(text: &str) -> String {
        format!("AUTH PLAIN {}\r\n", STANDARD.encode(text))
    }

    #[test]
    fn takes_plain_and_login_in_one_step_or_more() {
        let line = |text: &str| format!("{}\r\n", STANDARD.encode(text));
        for (input, expected) in [
            (plain("\0ada\0secret"), "250 235"),
            (plain("ada\0ada\0secret"), "250 235"),
            (format!("auth plain\r\n{}", line("\0ada\0secret")), "250 334 235"),
            (format!("AUTH LOGIN\r\n{}{}", line("ada"), line("secret")), "250 334 334 235"),
            (format!("Auth Login {}{}", line("ada"), line("secret")), "250 334 235"),
            (format!("AUTH LOGIN =\r\n{}", line("secret")), "250 334 535"),
            (plain("\0ada\0Secret"), "250 535"),
            (plain("\0\0"), "250 535"),
        ] {
            assert_eq!(codes(&input), expected, "{input}");
        }
    }

    #[test]
    fn nobody_may_act_as_somebody_else() {
        let (codes, checked) = talk(&mut offering(), &format!("EHLO c\r\n{}", plain("root\0ada\0secret")));
        assert_eq!((codes.as_str(), checked), ("250 535", vec![String::new()]));
    }

    #[test]
    fn refuses_what_is_malformed_and_goes_on() {
        let long = "A".repeat(COMMAND_LINE_BYTES);
        for (input, code) in [
            ("AUTH\r\n".to_owned(), "501"),
            ("AUTH PLAIN a b\r\n".to_owned(), "501"),
            ("AUTH CRAM-MD5\r\n".to_owned(), "504"),
            ("AUTH PLAIN =\r\n".to_owned(), "501"),
            ("AUTH PLAIN !!!!\r\n".to_owned(), "501"),
            // No padding, and bits that mean nothing.
            ("AUTH PLAIN AGFkYQBzZWNyZXQx=\r\n".to_owned(), "501"),
            ("AUTH PLAIN AB==\r\n".to_owned(), "501"),
            (plain("ada secret"), "501"),
            (plain("\0ada\0sec\0ret"), "501"),
            (format!("AUTH PLAIN {}\r\n", STANDARD.encode([0, 0xff, 0, 0xfe])), "501"),
            (format!("AUTH PLAIN {long}\r\n"), "500"),
            ("AUTH PLAIN\r\n*\r\n".to_owned(), "334 501"),
            ("AUTH LOGIN\r\n*\r\n".to_owned(), "334 501"),
            ("AUTH LOGIN\r\nYWRh\r\n*\r\n".to_owned(), "334 334 501"),
            ("AUTH LOGIN\r\nAAAA\r\n".to_owned(), "334 501"),
            (format!("AUTH PLAIN\r\n{long}{long}\r\n"), "334 500"),
            ("AUTH PLAIN\r\nAGFkYQBzZWNyZXQ=\n".to_owned(), "334 500"),
            ("AUTH PLAIN\r\nAGFk\0\r\n".to_owned(), "334 501"),
        ] {
            assert_eq!(codes(&format!("{input}NOOP\r\n")), format!("250 {code} 250"), "{input:?}");
        }
    }

    #[test]
    fn comes_once_after_ehlo_and_between_mails() {
        let auth = plain("\0ada\0secret");
        assert_eq!(talk(&mut offering(), &auth).0, "503");
        assert_eq!(codes(&format!("{auth}{auth}")), "250 235 503");
        assert_eq!(codes(&format!("MAIL FROM:<>\r\n{auth}")), "250 250 503");
        assert_eq!(codes(&format!("{auth}MAIL FROM:<a@x.test> AUTH=<>\r\n")), "250 235 250");
        assert_eq!(talk(&mut session(Protocol::Smtp), &format!("EHLO c\r\n{auth}")).0, "250 502");
    }

    #[test]
    fn a_stranger_gets_three_attempts() {
        let wrong = plain("\0ada\0wrong").repeat(9);
        let (codes, checked) = talk(&mut offering(), &format!("EHLO c\r\n{wrong}"));
        assert_eq!((codes.as_str(), checked.len()), ("250 535 535 535 421", 3));
    }

    #[test]
    fn no_password_goes_where_somebody_can_listen() {
        let access = Access { tls: Tls::Offered, auth: true, ..Access::default() };
        let auth = format!("EHLO c\r\n{}", plain("\0ada\0secret"));
        let mut open = session(Protocol::Smtp).with_access(access.clone());
        open.receive(&mut &b"EHLO c\r\n"[..]);
        assert!(!String::from_utf8(open.take_output()).unwrap().contains("AUTH"));
        let (codes, checked) = talk(&mut session(Protocol::Smtp).with_access(access.clone()), &auth);
        assert_eq!((codes.as_str(), checked.len()), ("250 538", 0));
        let local = Access { local: true, ..access };
        assert_eq!(talk(&mut session(Protocol::Smtp).with_access(local), &auth).0, "250 235");
    }

    #[test]
    fn mail_waits_for_auth_if_it_must_and_tls_forgets_it() {
        let access =
            Access { tls: Tls::Offered, local: true, auth: true, require_auth: true, ..Access::default() };
        let mut session = session(Protocol::Smtp).with_access(access);
        let input = format!("EHLO c\r\nMAIL FROM:<>\r\n{}MAIL FROM:<>\r\nRSET\r\n", plain("\0ada\0secret"));
        assert_eq!(talk(&mut session, &input).0, "250 530 235 250 250");
        assert_eq!(session.receive(&mut &b"STARTTLS\r\n"[..]), Progress::StartTls);
        session.take_output();
        session.tls_started();
        assert_eq!(talk(&mut session, "EHLO c\r\nMAIL FROM:<>\r\n").0, "250 530");
    }

    #[test]
    fn a_password_is_in_no_debug_text() {
        let mut session = offering();
        let input = format!("EHLO c\r\n{}", plain("\0ada\0secret"));
        let progress = session.receive(&mut input.as_bytes());
        assert!(!format!("{progress:?}{session:?}").contains("secret"));
        assert_eq!(session.receive(&mut &b"NOOP\r\n"[..]), Progress::More, "the reply is owed");
        session.conclude_auth(AuthOutcome::TryAgain);
        assert!(String::from_utf8(session.take_output()).unwrap().contains("\r\n454 4.7.0 "));
    }

    proptest! {
        #[test]
        fn survives_any_exchange(lines in prop::collection::vec("[A-Za-z0-9+/=*\\x00-\\x7f]{0,40}", 0..6)) {
            let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            for start in ["PLAIN", "LOGIN"] {
                talk(&mut offering(), &format!("EHLO c\r\nAUTH {start}\r\n{lines}"));
            }
        }
    }
}
