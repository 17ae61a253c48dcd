// SPDX-License-Identifier: Apache-2.0
//! SMTP, composing, verification, the registry and the parameters agree on what an address is.

use std::path::Path;

use authenticator::{gate::Gate, sender::SenderName};
use mail::{OutboundKind, OutboundMail};
use mail_bridge::outbox::check;
use settings::{Value, resolve};
use smtp::session::{Limits, Protocol, Session};

use crate::authentication::scene::Scene;

/// Addresses that all take, those beyond ASCII where a caller takes UTF-8.
const GOOD: &[&str] = &[
    "a@b",
    "robot@localhost",
    "dana+x@dispatch.example",
    "Dana.Ray@Dispatch.Example",
    "!#$%&'*+-/=?^_`{|}~@dispatch.example",
    "dana@my_host.example",
    "dana@192.0.2.1",
    "jürgen@dispatch.example",
    "dana@bücher.example",
    "用户@例子.example",
];

/// Texts that none takes. Those with a line end or a NUL cannot reach a session as one command.
const BAD: &[&str] = &[
    "dana",
    "@dispatch.example",
    "dana@",
    "dana@ray@dispatch.example",
    ".dana@dispatch.example",
    "dana.@dispatch.example",
    "dana..ray@dispatch.example",
    "dana@.dispatch.example",
    "dana@dispatch..example",
    "dana@dispatch.example.",
    "dana@[192.0.2.1]",
    "dana@[IPv6:2001:db8::1]",
    "\"dana ray\"@dispatch.example",
    "\"dana@ray\"@dispatch.example",
    "dana\"@dispatch.example",
    "dana ray@dispatch.example",
    "dana@dispatch.example>",
    "<dana@dispatch.example>",
    "dana@dispatch.example,carl@dispatch.example",
    "dana;@dispatch.example",
    "da(n)a@dispatch.example",
    "da\\na@dispatch.example",
    "da:na@dispatch.example",
    "dana\u{a0}ray@dispatch.example",
    "dana\u{85}@dispatch.example",
    "dana@dispatch\u{3000}.example",
    "dana@dispatch.example\r\nRCPT TO:<carl@dispatch.example>",
    "dana\n@dispatch.example",
    "dana\0@dispatch.example",
];

/// A place that takes addresses, and whether it takes this one.
type Caller = (&'static str, fn(&str) -> bool);

/// The callers that take any address, and those that demand ASCII.
const ANY: &[Caller] = &[
    ("MAIL", |text| in_session(&format!("MAIL FROM:<{text}> SMTPUTF8\r\n"))),
    ("RCPT", |text| in_session(&format!("MAIL FROM:<a@b> SMTPUTF8\r\nRCPT TO:<{text}>\r\n"))),
    ("composing", composes),
    ("verification", has_author),
    ("registry", |text| matches!(Gate::open(None).unwrap().admit("", text), Ok(SenderName::Mailbox(_)))),
];
const ASCII: &[Caller] = &[
    ("human_mailbox", |text| {
        let values = [("human_mailbox".to_owned(), Value::Text(text.to_owned()))];
        let values = resolve(chatbot::params::SPECS, values.into());
        values.is_ok_and(|values| chatbot::params::Params::load(&values, Path::new("/state")).is_ok())
    }),
    ("sender_address", |text| {
        let values = [("sender_address".to_owned(), Value::Text(text.to_owned()))];
        let values = resolve(mail_bridge::params::SPECS, values.into());
        values.is_ok_and(|values| mail_bridge::params::Params::load(&values, Path::new("/state")).is_ok())
    }),
];

/// Whether a session says 250 to each line of these commands.
fn in_session(commands: &str) -> bool {
    let limits = Limits { message_bytes: 1000, recipients: 2, received_headers: 3, errors: 4, mails: 3 };
    let mut session = Session::new(Protocol::Smtp, [192, 0, 2, 1].into(), "mx.test".into(), limits);
    session.take_output();
    session.receive(&mut format!("EHLO c\r\n{commands}").as_bytes());
    let output = String::from_utf8(session.take_output()).unwrap();
    output.lines().all(|line| line.starts_with("250"))
}

fn composes(text: &str) -> bool {
    let mail = |from: &str, to: &str, reply_to: &str| OutboundMail {
        answers: None,
        kind: OutboundKind::Notice,
        message_id: "notice@bridge.test".to_owned(),
        from: from.to_owned(),
        to: vec![to.to_owned()],
        reply_to: vec![reply_to.to_owned()],
        urgent: false,
        subject: String::new(),
        in_reply_to: String::new(),
        text: String::new(),
        authentication_results: String::new(),
    };
    let mails = [mail(text, "a@b", "a@b"), mail("a@b", text, "a@b"), mail("a@b", "a@b", text)];
    let taken = mails.each_ref().map(|mail| check(mail, "posthorn@bridge.test").is_ok());
    assert!(taken == [taken[0]; 3], "{text:?}: from, to and reply_to differ");
    taken[0]
}

fn has_author(text: &str) -> bool {
    let mail = format!("From: <{text}>\r\nSubject: s\r\n\r\nhi\r\n");
    Scene::new().check(mail.as_bytes()).from.is_some_and(|from| from.eq_ignore_ascii_case(text))
}

#[test]
fn every_caller_takes_the_same_addresses() {
    let mut wrong = Vec::new();
    let longest = format!("{}@dispatch.example", "a".repeat(254 - "@dispatch.example".len()));
    let too_long = format!("a{longest}");
    let good = GOOD.iter().copied().chain([longest.as_str()]).map(|text| (text, true));
    let bad = BAD.iter().copied().chain([too_long.as_str()]).map(|text| (text, false));
    for (text, is_good) in good.chain(bad) {
        let any = ANY.iter().map(|&(caller, takes)| (caller, takes, is_good));
        let ascii = ASCII.iter().map(|&(caller, takes)| (caller, takes, is_good && text.is_ascii()));
        for (caller, takes, expected) in any.chain(ascii) {
            if takes(text) != expected {
                wrong.push(format!("{caller} should {}take {text:?}", if expected { "" } else { "not " }));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
