// SPDX-License-Identifier: Apache-2.0
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
