// SPDX-License-Identifier: Apache-2.0
//! What settles a mail, what does not, and who waits meanwhile.

use std::time::{Duration, Instant};

use mail::{Action, Disposition, MailId, OutboundKind};
use mail_bridge::bridge::Submitted;
use settings::Value;

use super::support::{Talk, answer, deliver, disposition, soon, start, start_publishing};

#[tokio::test]
async fn nothing_is_published_while_nobody_subscribes() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, mut streams) = start(dir.path(), &[]).await;
    let id = deliver(&bridge, "wait\r\n").await;
    assert!(streams.mails.try_recv().is_err());
    bridge.handle().set_subscribers(1);
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
}

#[tokio::test]
async fn an_unsettled_mail_comes_again_and_a_rejected_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, mut streams) =
        start_publishing(dir.path(), &[("redelivery_min_s", Value::Double(0.02))]).await;
    let id = deliver(&bridge, "again\r\n").await;
    for _ in 0..3 {
        assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
    }
    bridge.handle().disposition(disposition(MailId::of(b"unknown"), Action::Rejected)).await.unwrap();
    bridge.handle().disposition(disposition(id, Action::Rejected)).await.unwrap();
    bridge.handle().disposition(disposition(id, Action::Rejected)).await.unwrap();
    let handle = bridge.handle();
    assert!(bridge.drain().await);
    assert_eq!(handle.state().journal.unsettled, 0);
}

#[tokio::test]
async fn a_subscriber_beside_another_gets_what_is_not_settled_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let overrides =
        [("redelivery_min_s", Value::Double(1000.0)), ("redelivery_max_s", Value::Double(1000.0))];
    let (bridge, mut streams) = start_publishing(dir.path(), &overrides).await;
    let id = deliver(&bridge, "recorded only\r\n").await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
    bridge.handle().set_subscribers(2);
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
}

#[tokio::test]
async fn a_promised_answer_settles_only_when_it_is_in_the_outbox() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, mut streams) = start_publishing(dir.path(), &[]).await;
    let id = deliver(&bridge, "question\r\n").await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
    let handle = bridge.handle();
    handle.disposition(disposition(id, Action::Answered)).await.unwrap();
    handle.outbound(answer(id, OutboundKind::Forward)).await.unwrap();
    assert!(bridge.drain().await);
    assert_eq!(handle.state().journal.unsettled, 1, "a forward is no answer");

    // The disposition was held only in memory: the mail is published again and needs a new disposition.
    let (bridge, mut streams) = start_publishing(dir.path(), &[]).await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
    let handle = bridge.handle();
    handle.disposition(disposition(id, Action::Ordered)).await.unwrap();
    assert_eq!(handle.outbound(answer(id, OutboundKind::Answer)).await.unwrap(), Submitted::New);
    assert!(bridge.drain().await);
    assert_eq!(handle.state().journal.unsettled, 0);
}

#[tokio::test]
async fn an_answer_stored_before_a_kill_settles_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, streams) = start(dir.path(), &[]).await;
    let id = deliver(&bridge, "question\r\n").await;
    bridge.handle().outbound(answer(id, OutboundKind::Answer)).await.unwrap();
    drop((bridge, streams));
    let (bridge, mut streams) = start_publishing(dir.path(), &[]).await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
    let handle = bridge.handle();
    assert_eq!(handle.outbound(answer(id, OutboundKind::Answer)).await.unwrap(), Submitted::Repeated);
    handle.disposition(disposition(id, Action::Answered)).await.unwrap();
    assert!(bridge.drain().await);
    assert_eq!(handle.state().journal.unsettled, 0);
}

#[tokio::test]
async fn no_more_than_the_window_is_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let overrides = [("max_in_flight", Value::Int(2))];
    let (bridge, mut streams) = start_publishing(dir.path(), &overrides).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(deliver(&bridge, &format!("{n}\r\n")).await);
    }
    let handle = bridge.handle();
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id, "{n}");
        assert!(handle.state().intake.in_flight <= 2);
        handle.disposition(disposition(id, Action::Ignored)).await.unwrap();
    }
}

#[tokio::test]
async fn mails_of_a_stranger_that_nobody_settles_do_not_hold_up_another_domain_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, mut streams) = start_publishing(dir.path(), &[]).await;
    let mail = |domain: &str, n: usize| format!("From: a@{domain}\r\nSubject: {n}\r\n\r\n{n}\r\n");
    let mut talk = Talk::connect(bridge.smtp_addr().unwrap()).await;
    talk.say("EHLO gateway.test", "250").await;
    for n in 0..100 {
        talk.begin_next().await;
        talk.send(&format!("{}.\r\n", mail(&format!("n{n}.evil.test"), n))).await;
        talk.expect("250").await;
    }
    // A quarter of the window: the share of one domain with all its subdomains.
    for _ in 0..32 {
        soon(streams.mails.recv()).await.unwrap();
    }
    assert!(streams.mails.try_recv().is_err());
    let start = Instant::now();
    let good = deliver(&bridge, &mail("good.test", 0)).await;
    // This once failed: the window of 32 was full, and the first slot was freed only after redelivery_min_s, 10 s.
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, good);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let intake = bridge.handle().state().intake;
    assert_eq!(intake.in_flight, 33);
    assert!((33 * 40..33 * 80).contains(&intake.in_flight_bytes), "{}", intake.in_flight_bytes);
    drop((bridge, streams, talk));
    // After the restart, the bridge reads from disk whose mails these are.
    let (_bridge, mut streams) = start_publishing(dir.path(), &[]).await;
    let mut seen = Vec::new();
    for _ in 0..33 {
        seen.push(soon(streams.mails.recv()).await.unwrap().id);
    }
    assert!(seen.contains(&good), "behind 100 others");
}

fn consumers(entries: &[&str]) -> [(&'static str, Value); 2] {
    let entries = entries.iter().map(|entry| (*entry).to_owned()).collect();
    [("consumers", Value::Texts(entries)), ("redelivery_min_s", Value::Double(0.02))]
}

#[tokio::test]
async fn a_mail_comes_until_each_consumer_has_disposed_of_it_also_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let overrides = consumers(&["chatbot", "archive=*"]);
    let kept = |id| Disposition { consumer: "archive".to_owned(), ..disposition(id, Action::Kept) };
    let (bridge, mut streams) = start_publishing(dir.path(), &overrides).await;
    let id = deliver(&bridge, "for two\r\n").await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().consumers, ["chatbot", "archive"]);
    bridge.handle().disposition(kept(id)).await.unwrap();
    while soon(streams.mails.recv()).await.unwrap().consumers != ["chatbot"] {}
    assert_eq!(bridge.handle().state().intake.waiting["chatbot"], 1);
    drop((bridge, streams));

    let (bridge, mut streams) = start_publishing(dir.path(), &overrides).await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().consumers, ["chatbot"], "archive has it");
    // Nobody's mail is settled by a name that is not configured.
    let handle = bridge.handle();
    let stranger = Disposition { consumer: "stranger".to_owned(), ..disposition(id, Action::Kept) };
    handle.disposition(stranger).await.unwrap();
    handle.disposition(kept(id)).await.unwrap();
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
    handle.disposition(disposition(id, Action::Ignored)).await.unwrap();
    assert!(bridge.drain().await);
    assert_eq!(handle.state().journal.unsettled, 0);
}

#[tokio::test]
async fn a_pattern_decides_whose_a_mail_is_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, mut streams) =
        start_publishing(dir.path(), &consumers(&["chatbot", "requirements=Reqs@bridge.test"])).await;
    let mut talk = Talk::connect(bridge.smtp_addr().unwrap()).await;
    talk.say("EHLO client.test", "250").await;
    talk.say("MAIL FROM:<ada@x.test>", "250").await;
    talk.say("RCPT TO:<reqs@BRIDGE.test>", "250").await;
    talk.say("DATA", "354").await;
    talk.send("Subject: r\r\n\r\nr\r\n.\r\n").await;
    talk.expect("250").await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().consumers, ["requirements"]);
    let id = deliver(&bridge, "for the chatbot\r\n").await;
    loop {
        let mail = soon(streams.mails.recv()).await.unwrap();
        assert_eq!(mail.consumers, [if mail.id == id { "chatbot" } else { "requirements" }]);
        if mail.id == id {
            return;
        }
    }
}

#[tokio::test]
async fn mails_do_not_wait_for_a_consumer_that_is_configured_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, streams) = start(dir.path(), &consumers(&["chatbot", "lab=*@lab.test", "archive=*"])).await;
    deliver(&bridge, "for chatbot and archive\r\n").await;
    assert_eq!(bridge.handle().state().journal.unsettled, 1);
    drop((bridge, streams));
    let (bridge, mut streams) = start_publishing(dir.path(), &consumers(&["chatbot"])).await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().consumers, ["chatbot"]);
    drop((bridge, streams));
    // Nobody has disposed of it, so it is not lost to a misspelt entry.
    let misspelt = consumers(&["chatbto", "archive=*"]);
    let (bridge, mut streams) = start_publishing(dir.path(), &misspelt).await;
    let mail = soon(streams.mails.recv()).await.unwrap();
    assert_eq!(mail.consumers, ["archive"], "it waits for it since it came");
    drop((bridge, streams));
    let (bridge, mut streams) = start_publishing(dir.path(), &consumers(&["other"])).await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().consumers, ["other"]);
    drop((bridge, streams));
    // Somebody has disposed of it, and the one it waits for is gone: it is done with.
    let (bridge, _streams) = start(dir.path(), &consumers(&["chatbot", "archive=*"])).await;
    let kept = Disposition { consumer: "archive".to_owned(), ..disposition(mail.id, Action::Kept) };
    let handle = bridge.handle();
    handle.disposition(kept).await.unwrap();
    assert!(bridge.drain().await);
    assert_eq!(handle.state().journal.unsettled, 1);
    let (bridge, _streams) = start(dir.path(), &consumers(&["other"])).await;
    let handle = bridge.handle();
    assert!(bridge.drain().await);
    assert_eq!(handle.state().journal.unsettled, 0);
}

#[tokio::test]
async fn the_same_bytes_for_a_further_consumer_are_refused_and_not_lost_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let overrides = consumers(&["chatbot", "requirements=reqs@bridge.test"]);
    let (bridge, _streams) = start(dir.path(), &overrides).await;
    let mut talk = Talk::connect(bridge.smtp_addr().unwrap()).await;
    talk.say("EHLO client.test", "250").await;
    for (recipients, code) in [
        (&["reqs@bridge.test"][..], "250"),
        (&["reqs@bridge.test"], "250"),
        (&["fleet@bridge.test"], "554 5.6.0"),
        (&["fleet@bridge.test", "reqs@bridge.test"], "554 5.6.0"),
    ] {
        talk.say("MAIL FROM:<ada@x.test>", "250").await;
        for recipient in recipients {
            talk.say(&format!("RCPT TO:<{recipient}>"), "250").await;
        }
        talk.say("DATA", "354").await;
        talk.send("Subject: s\r\n\r\nsame\r\n.\r\n").await;
        talk.expect(code).await;
    }
    assert_eq!(bridge.handle().state().journal.unsettled, 1);
}
