// SPDX-License-Identifier: Apache-2.0
//! What a client may and must do: the rules of a session, and STARTTLS (RFC 3207).
//!
//! Bytes that came with STARTTLS in one piece were not encrypted, and would be taken for what the client says
//! afterwards (CVE-2011-0411). They end the session. What is known of the client by then is forgotten with the
//! handshake, so that only the encrypted session counts.

use std::sync::Arc;

use mail::AddressPattern;

use crate::session::{Phase, Progress, Session};

/// The rules of a session, from the parameters and from where the client connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Whether the connection is encrypted, or can be.
    pub tls: Tls,
    /// Whether the connection stays on this host, so that nobody can listen to it.
    pub local: bool,
    /// Whether MAIL needs TLS, except on a connection that is local.
    pub require_tls: bool,
    /// Whether AUTH is offered, where nobody can listen.
    pub auth: bool,
    /// Whether MAIL needs AUTH.
    pub require_auth: bool,
    /// Recipients that are accepted, besides `<postmaster>`; empty: all.
    pub recipients: Arc<[AddressPattern]>,
}

/// Encryption of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// There is no certificate.
    #[default]
    Unavailable,
    /// STARTTLS is offered.
    Offered,
    /// The connection is encrypted.
    Active,
}

impl Access {
    /// Whether mails to this address are accepted.
    pub(super) fn accepts(&self, address: &str) -> bool {
        self.recipients.is_empty() || self.recipients.iter().any(|pattern| pattern.fits(address))
    }

    /// Whether nobody can listen to the connection.
    pub(super) fn is_private(&self) -> bool {
        self.local || self.tls == Tls::Active
    }
}

impl Session {
    /// Sets the rules; without this call there are none.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Goes on after the handshake that [`Progress::StartTls`] asked for: as new, but for the counts.
    pub fn tls_started(&mut self) {
        if matches!(self.phase, Phase::StartingTls) {
            self.phase = Phase::Command;
            self.access.tls = Tls::Active;
            self.helo = None;
            self.transaction = None;
            self.chunks = None;
            self.authenticated = false;
        }
    }

    pub(super) fn starttls(&mut self) {
        match self.access.tls {
            Tls::Unavailable => self.refuse("502 5.5.1 command not implemented"),
            Tls::Active => self.refuse("503 5.5.1 TLS is active already"),
            Tls::Offered => self.phase = Phase::StartingTls,
        }
    }

    /// Replies to STARTTLS. `input` is what came behind it.
    pub(super) fn begin_tls(&mut self, input: &mut &[u8]) -> Progress {
        if input.is_empty() {
            self.say("220 2.0.0 ready for TLS");
            return Progress::StartTls;
        }
        *input = &[];
        self.say("554 5.5.1 more than STARTTLS without waiting for the reply, closing connection");
        self.phase = Phase::Closed;
        Progress::Close
    }

    /// Why MAIL is not for this client yet.
    pub(super) fn barred(&self) -> Option<&'static str> {
        if self.access.require_tls && !self.access.is_private() {
            return Some("530 5.7.0 say STARTTLS first");
        }
        if self.access.require_auth && !self.authenticated {
            return Some("530 5.7.0 say AUTH first");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Protocol;
    use crate::session::tests::{codes, session};

    fn offering(protocol: Protocol) -> Session {
        session(protocol).with_access(Access { tls: Tls::Offered, ..Access::default() })
    }

    fn upgraded(protocol: Protocol, hello: &str) -> Session {
        let mut session = offering(protocol);
        let line = format!("{hello} c\r\nMAIL FROM:<old@x.test>\r\nSTARTTLS\r\n");
        assert_eq!(session.receive(&mut line.as_bytes()), Progress::StartTls);
        assert!(session.take_output().ends_with(b"220 2.0.0 ready for TLS\r\n"));
        session.tls_started();
        session
    }

    #[test]
    fn what_comes_with_starttls_in_one_piece_ends_the_session() {
        for injected in ["RSET\r\n", "EHLO evil\r\nMAIL FROM:<evil@x.test>\r\n", "x", "\u{16}\u{3}\u{1}"] {
            let mut session = offering(Protocol::Smtp);
            let line = format!("EHLO c\r\nSTARTTLS\r\n{injected}");
            let mut input = line.as_bytes();
            assert_eq!(session.receive(&mut input), Progress::Close, "{injected:?}");
            assert!(input.is_empty());
            let output = String::from_utf8(session.take_output()).unwrap();
            assert!(output.ends_with("closing connection\r\n") && !output.contains("\r\n220 "), "{output}");
            session.tls_started();
            assert_eq!(session.receive(&mut &b"NOOP\r\n"[..]), Progress::Close);
        }
    }

    #[test]
    fn takes_nothing_between_the_reply_to_starttls_and_the_handshake() {
        let mut session = offering(Protocol::Smtp);
        assert_eq!(session.receive(&mut &b"STARTTLS\r\n"[..]), Progress::StartTls);
        let mut input = &b"NOOP\r\n"[..];
        assert_eq!(session.receive(&mut input), Progress::More);
        assert_eq!(input, b"NOOP\r\n");
    }

    #[test]
    fn nothing_said_before_tls_counts_after_it() {
        for (protocol, hello) in [(Protocol::Smtp, "EHLO"), (Protocol::Lmtp, "LHLO")] {
            let mut session = upgraded(protocol, hello);
            let rest = format!("RCPT TO:<a@b>\r\nMAIL FROM:<>\r\n{hello} c\r\nMAIL FROM:<>\r\n");
            assert_eq!(codes(&mut session, &rest), "503 503 250 250");
        }
    }

    #[test]
    fn is_offered_only_while_it_makes_sense() {
        let offers = |session: &mut Session| {
            session.receive(&mut &b"EHLO c\r\n"[..]);
            String::from_utf8(session.take_output()).unwrap().contains("250-STARTTLS\r\n")
        };
        assert!(offers(&mut offering(Protocol::Smtp)));
        assert!(!offers(&mut session(Protocol::Smtp)));
        let mut upgraded = upgraded(Protocol::Smtp, "EHLO");
        assert!(!offers(&mut upgraded));
        assert_eq!(codes(&mut upgraded, "STARTTLS\r\n"), "503");
        assert_eq!(codes(&mut offering(Protocol::Smtp), "STARTTLS now\r\nNOOP\r\n"), "501 250");
    }

    #[test]
    fn mail_waits_for_tls_if_it_must_unless_nobody_can_listen() {
        let access = Access { tls: Tls::Offered, require_tls: true, ..Access::default() };
        let mail = "EHLO c\r\nMAIL FROM:<>\r\n";
        let with = |access: &Access| codes(&mut session(Protocol::Smtp).with_access(access.clone()), mail);
        assert_eq!(with(&access), "250 530");
        assert_eq!(with(&Access { local: true, ..access.clone() }), "250 250");
        assert_eq!(with(&Access { tls: Tls::Active, ..access }), "250 250");
    }
    #[test]
    fn a_recipient_that_nobody_has_is_refused_and_the_others_get_the_mail() {
        let patterns =
            ["*@fleet.example", "Reqs+*@lab.example"].map(|text| AddressPattern::parse(text, None).unwrap());
        let access = Access { recipients: patterns.into(), ..Access::default() };
        for (protocol, hello) in [(Protocol::Smtp, "EHLO"), (Protocol::Lmtp, "LHLO")] {
            for (recipient, code) in [
                ("a@fleet.example", "250"),
                ("A@FLEET.example", "250"),
                ("reqs+7@lab.example", "250"),
                ("Postmaster", "250"),
                ("reqs@lab.example", "550"),
                ("a@fleet.example.evil.test", "550"),
                ("a%fleet.example@evil.test", "550"),
                ("postmaster@evil.test", "550"),
            ] {
                let mut session = session(protocol).with_access(access.clone());
                let line = format!("{hello} c\r\nMAIL FROM:<>\r\nRCPT TO:<{recipient}>\r\n");
                assert_eq!(codes(&mut session, &line), format!("250 250 {code}"), "{recipient}");
            }
        }
        let mut session = session(Protocol::Smtp).with_access(access);
        let mail = "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nRCPT TO:<a@fleet.example>\r\nDATA\r\n";
        assert_eq!(codes(&mut session, mail), "250 250 550 503 250 354");
    }
}
