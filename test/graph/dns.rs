// SPDX-License-Identifier: Apache-2.0
//! DNS servers that do not answer.

use std::time::{Duration, Instant};

use mail::Role;
use ros::{msg, topics};
use testbed::{
    dns::NameServer,
    posthorn::{HUMAN, POSTHORN, Posthorn, SENDER, SENDER_DOMAIN, Unready, id_of, message},
    smtp::Client,
};

/// A graph whose DNS server is `server`, with [`SENDER`] registered as operator.
fn start(server: &NameServer, more: &[(&str, &str)]) -> Posthorn {
    let servers = format!("[\"{}\"]", server.address);
    let parameters = [&[("dns_servers", servers.as_str())], more].concat();
    let observed = [topics::MAIL_AUTHENTICATED.facts, super::life::DIAGNOSTICS];
    let mut posthorn = Unready::start(&observed, &parameters).0;
    server.serve(&posthorn.sender.zone());
    posthorn.register(SENDER, Role::Operator);
    posthorn
}

/// The verdict on a signed question from [`SENDER`].
fn judged(posthorn: &mut Posthorn, tag: &str) -> serde_json::Value {
    let data = posthorn.question(tag, "help", "");
    let id = posthorn.accept(SENDER, &data);
    let is_it = |message: &serde_json::Value| id_of(&message["mail"]["id"]) == id;
    posthorn.observer.message(topics::MAIL_AUTHENTICATED.facts, is_it)["verdict"].clone()
}

fn level(message: &serde_json::Value, level: u64) -> bool {
    message["status"].as_array().into_iter().flatten().any(|status| {
        status["name"].as_str().unwrap_or_default().ends_with("authenticator: mails")
            && status["level"] == level
    })
}

#[test]
fn after_a_hiccup_the_mail_is_judged_and_the_warning_ends() {
    let server = NameServer::start("", &[SENDER_DOMAIN]);
    let mut posthorn = start(&server, &[("dns_timeout_s", "0.3"), ("dns_silence_s", "0.3")]);
    let data = posthorn.question("early", "help", "");
    let early = posthorn.accept(SENDER, &data);
    posthorn.authenticator.wait_for_log("left to be delivered again");
    posthorn.observer.message(super::life::DIAGNOSTICS, |message| level(message, 1));
    assert!(server.unanswered() > 0);
    server.answer_all();
    let is_early = |message: &serde_json::Value| id_of(&message["mail"]["id"]) == early;
    let judged = posthorn.observer.message(topics::MAIL_AUTHENTICATED.facts, is_early);
    assert_eq!(judged["verdict"]["authenticated"], true, "{judged}");
    posthorn.observer.forget(super::life::DIAGNOSTICS);
    posthorn.observer.message(super::life::DIAGNOSTICS, |message| level(message, 0));
}

/// An order could not be judged. Its sender is not answered, because nobody knows who that is; a person is told
/// instead.
#[test]
fn an_order_of_a_registered_sender_that_is_given_up_goes_to_a_person() {
    let server = NameServer::start("", &[SENDER_DOMAIN]);
    let mut posthorn = start(&server, &[("dns_timeout_s", "0.3"), ("temperror_give_up_s", "0.0")]);
    let verdict = judged(&mut posthorn, "unjudged");
    assert_eq!(verdict["dmarc"], msg::Verdict::TEMPERROR as u64, "{verdict}");
    assert_eq!(verdict["registry"], msg::Verdict::REGISTRY_ACTIVE as u64, "{verdict}");
    assert_eq!((&verdict["authenticated"], &verdict["role"]), (&false.into(), &0.into()), "{verdict}");
    assert_eq!(posthorn.sink.next().rcpt_to, [HUMAN]);
    assert!(posthorn.sink.rest().is_empty());
}

#[test]
fn four_hundred_mails_of_a_silent_domain_do_not_delay_a_registered_operator() {
    let server = NameServer::start("", &["silent.test"]);
    let mut posthorn = start(&server, &[]);
    judged(&mut posthorn, "first");
    let alone = delay(&mut posthorn, "alone");
    let mut stranger = Client::connect(posthorn.smtp);
    for number in 0..400 {
        let mail = message(&format!("s{number}"), "help", "").replace(SENDER_DOMAIN, "silent.test");
        let reply = stranger.send("mallory@silent.test", POSTHORN, mail.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
    }
    let behind = delay(&mut posthorn, "behind");
    println!("from SMTP to the verdict: alone {alone:?}, behind 400 mails of a silent domain {behind:?}");
    assert!(behind < alone + Duration::from_millis(50), "{alone:?}, {behind:?}");
    assert!(server.unanswered() > 0);
}

/// Median time from submitting a question to its verdict on the topic.
fn delay(posthorn: &mut Posthorn, tag: &str) -> Duration {
    let mut delays = Vec::new();
    for number in 0..11 {
        let asked = Instant::now();
        let verdict = judged(posthorn, &format!("{tag}{number}"));
        assert_eq!(verdict["authenticated"], true, "{verdict}");
        delays.push(asked.elapsed());
    }
    delays.sort();
    delays[5]
}
