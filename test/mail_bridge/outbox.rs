// SPDX-License-Identifier: Apache-2.0
//! Sends over a real connection to a smart host that follows a script.

use std::{
    collections::BTreeSet,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use health::Level;
use mail::{DeliveryState, MailId, OutboundKind, OutboundMail};
use mail_bridge::bridge::{Bridge, Submitted};
use settings::Value;

use super::support::{GONE, HELD, LATE, Script, answer, free_address, soon, start, states, text};

/// Waits until the bridge has failed to reach the smart host four times in a row.
async fn away(bridge: &Bridge) {
    soon(async {
        while bridge.handle().state().outbox.failures_in_a_row < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(bridge.handle().status().last().unwrap().level, Level::Error);
}

fn notice(message_id: &str, text: &str) -> OutboundMail {
    OutboundMail {
        message_id: message_id.into(),
        text: text.into(),
        answers: None,
        ..answer(MailId::of(b"none"), OutboundKind::Notice)
    }
}

#[tokio::test]
async fn when_a_dead_host_comes_back_everything_is_out_at_once_and_attempts_are_those_made() {
    let dir = tempfile::tempdir().unwrap();
    let smarthost = free_address();
    let overrides = [
        ("smarthost", text(smarthost)),
        ("retry_min_s", Value::Double(1000.0)),
        ("retry_max_s", Value::Double(1000.0)),
    ];
    let (bridge, mut streams) = start(dir.path(), &overrides).await;
    for n in 0..20u8 {
        bridge.handle().outbound(answer(MailId::of(&[n]), OutboundKind::Answer)).await.unwrap();
    }
    let states = states(&mut streams, 21).await;
    assert_eq!(states.iter().filter(|state| **state == (DeliveryState::Deferred, 1)).count(), 1);
    away(&bridge).await;
    let script = Script::default();
    let connections = script.connections.clone();
    let back = Instant::now();
    let (_, mut taken) = script.serve_at(smarthost).await;
    let mut attempts = Vec::new();
    while attempts.len() < 20 {
        let delivery = soon(streams.deliveries.recv()).await.unwrap();
        assert_eq!(delivery.state, DeliveryState::Delivered);
        attempts.push(delivery.attempts);
    }
    // This once failed: the mails were tried one after the other, and each then slept for its back-off of 1000 s.
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    attempts.sort_unstable();
    assert_eq!((attempts[18], attempts[19]), (1, 2), "only the one that found out was tried twice");
    assert!(connections.load(Ordering::SeqCst) <= 4);
    for _ in 0..20 {
        soon(taken.recv()).await.unwrap();
    }
    assert!(taken.try_recv().is_err(), "one was sent twice");
}

#[tokio::test]
async fn the_only_mail_goes_out_when_the_host_is_back_and_not_after_its_back_off() {
    let dir = tempfile::tempdir().unwrap();
    let smarthost = free_address();
    let wait = Value::Double(1000.0);
    let overrides = [("smarthost", text(smarthost)), ("retry_min_s", wait.clone()), ("retry_max_s", wait)];
    let (bridge, mut streams) = start(dir.path(), &overrides).await;
    bridge.handle().outbound(answer(MailId::of(b"q"), OutboundKind::Answer)).await.unwrap();
    assert_eq!(states(&mut streams, 2).await[1], (DeliveryState::Deferred, 1));
    away(&bridge).await;
    let (_, mut taken) = Script::default().serve_at(smarthost).await;
    soon(taken.recv()).await.unwrap();
    assert_eq!(states(&mut streams, 1).await, [(DeliveryState::Delivered, 2)]);
}

#[tokio::test]
async fn a_slow_recipient_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script::new(&[], &["250 ok", HELD]);
    let release = script.release.clone();
    let (smarthost, _taken) = script.serve().await;
    let (bridge, mut streams) = start(dir.path(), &[("smarthost", text(smarthost))]).await;
    let mut ends = Vec::new();
    for question in [b"a", b"b", b"c", b"d"] {
        bridge.handle().outbound(answer(MailId::of(question), OutboundKind::Answer)).await.unwrap();
    }
    while ends.len() < 4 {
        let delivery = soon(streams.deliveries.recv()).await.unwrap();
        if delivery.state == DeliveryState::Delivered {
            ends.push(delivery.reply);
        }
        // This once failed: the others waited behind the slow one.
        if ends.len() == 3 {
            release.notify_one();
        }
    }
    assert_eq!(ends.iter().position(|reply| reply == HELD), Some(3), "{ends:?}");
}

#[tokio::test]
async fn notices_without_message_id_are_all_sent_with_ids_that_are_told_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let smarthost = free_address();
    let (bridge, mut streams) = start(dir.path(), &[("smarthost", text(smarthost))]).await;
    // The first two are identical, but without an id nobody can tell that this is unintended. Once, only the first was
    // sent.
    for words in ["battery low", "battery low", "truck_2 is silent"] {
        assert_eq!(bridge.handle().outbound(notice("", words)).await.unwrap(), Submitted::New);
    }
    let mut told = BTreeSet::new();
    while told.len() < 3 {
        told.insert(soon(streams.deliveries.recv()).await.unwrap().message_id);
    }
    assert!(told.iter().all(|id| id.ends_with("@localhost")), "{told:?}");
    drop((bridge, streams));
    let (_, mut taken) = Script::default().serve_at(smarthost).await;
    let (_bridge, _streams) = start(dir.path(), &[("smarthost", text(smarthost))]).await;
    for _ in 0..3 {
        let mail = soon(taken.recv()).await.unwrap();
        let line = mail.data.lines().find_map(|line| line.strip_prefix("Message-ID: <")).unwrap();
        assert!(told.remove(line.trim_end_matches('>')), "{line} was not told, or twice");
        assert_eq!(mail.mail_from, "");
    }
}

#[tokio::test]
async fn a_malformed_notice_is_refused_with_the_reason_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, mut streams) = start(dir.path(), &[]).await;
    let bad = [
        (
            OutboundMail { to: vec!["a@x.test>\r\nRCPT TO:<b@x.test".into()], ..notice("1@b.test", "t") },
            "to is not",
        ),
        (OutboundMail { reply_to: vec!["nobody".into()], ..notice("2@b.test", "t") }, "reply_to is not"),
        (notice("a b", "t"), "is not a Message-ID"),
    ];
    for (mail, reason) in bad {
        assert_eq!(bridge.handle().outbound(mail.clone()).await.unwrap(), Submitted::Refused);
        let refusal = soon(streams.deliveries.recv()).await.unwrap();
        assert_eq!((refusal.state, refusal.kind), (DeliveryState::Refused, OutboundKind::Notice));
        assert_eq!(refusal.message_id, mail.message_id);
        assert!(
            refusal.reply.starts_with("malformed: ") && refusal.reply.contains(reason),
            "{}",
            refusal.reply
        );
    }
    assert_eq!(bridge.handle().state().outbox.pending, 0);
}

#[tokio::test]
async fn an_answer_is_delivered_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (smarthost, mut taken) = Script::default().serve().await;
    let (bridge, mut streams) = start(dir.path(), &[("smarthost", text(smarthost))]).await;
    let mail = answer(MailId::of(b"q"), OutboundKind::Answer);
    assert_eq!(bridge.handle().outbound(mail.clone()).await.unwrap(), Submitted::New);
    assert_eq!(states(&mut streams, 1).await, [(DeliveryState::Queued, 0)]);
    let delivery = soon(streams.deliveries.recv()).await.unwrap();
    assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Delivered, 1));
    assert_eq!(
        (delivery.answers, delivery.kind, delivery.message_id),
        (mail.answers, mail.kind, mail.message_id)
    );
    assert_eq!(delivery.reply, "250 2.0.0 ok");
    let mail = soon(taken.recv()).await.unwrap();
    assert_eq!((mail.mail_from.as_str(), mail.rcpt_to), ("", vec!["ada@x.test".to_owned()]));
    assert!(mail.data.contains("Auto-Submitted: auto-replied\r\n"), "{}", mail.data);
    assert!(mail.data.contains("at the depot\r\n.\r\n"), "{}", mail.data);
    assert_eq!(bridge.handle().state().outbox.delivered, 1);
}

#[tokio::test]
async fn a_smart_host_that_ignores_quit_does_not_hold_up_the_next_mail() {
    let dir = tempfile::tempdir().unwrap();
    let (smarthost, mut taken) = Script { ignores_quit: true, ..Script::default() }.serve().await;
    let (bridge, mut streams) = start(dir.path(), &[("smarthost", text(smarthost))]).await;
    for n in [1, 2] {
        bridge.handle().outbound(answer(MailId::of(&[n]), OutboundKind::Answer)).await.unwrap();
        soon(taken.recv()).await.unwrap();
        assert_eq!(
            states(&mut streams, 2).await,
            [(DeliveryState::Queued, 0), (DeliveryState::Delivered, 1)]
        );
    }
    assert!(soon(bridge.drain()).await);
}

#[tokio::test]
async fn a_refusal_for_now_is_tried_again_and_one_for_good_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script::new(
        &["451 4.2.1 greylisted", "250 ok", "250 ok", "550 5.1.1 no such user"],
        &["452 4.3.1 full"],
    );
    let (smarthost, mut taken) = script.serve().await;
    let (bridge, mut streams) = start(dir.path(), &[("smarthost", text(smarthost))]).await;
    bridge.handle().outbound(answer(MailId::of(b"a"), OutboundKind::Answer)).await.unwrap();
    let expected = [
        (DeliveryState::Queued, 0),
        (DeliveryState::Deferred, 1),
        (DeliveryState::Deferred, 2),
        (DeliveryState::Delivered, 3),
    ];
    assert_eq!(states(&mut streams, 4).await, expected);
    soon(taken.recv()).await.unwrap();
    bridge.handle().outbound(answer(MailId::of(b"b"), OutboundKind::Answer)).await.unwrap();
    assert_eq!(states(&mut streams, 1).await, [(DeliveryState::Queued, 0)]);
    let failed = soon(streams.deliveries.recv()).await.unwrap();
    assert_eq!((failed.state, failed.reply.as_str()), (DeliveryState::Failed, "550 5.1.1 no such user"));
    assert_eq!(bridge.handle().state().outbox.pending, 0);
}

#[tokio::test]
async fn of_two_recipients_only_the_one_deferred_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (smarthost, mut taken) = Script::new(&["250 ok", "450 4.2.0 later"], &[]).serve().await;
    let (bridge, mut streams) = start(dir.path(), &[("smarthost", text(smarthost))]).await;
    let to = vec!["a@x.test".to_owned(), "b@x.test".to_owned()];
    let mail = OutboundMail { to, ..answer(MailId::of(b"a"), OutboundKind::Forward) };
    bridge.handle().outbound(mail).await.unwrap();
    let expected = [(DeliveryState::Queued, 0), (DeliveryState::Deferred, 1), (DeliveryState::Delivered, 2)];
    assert_eq!(states(&mut streams, 3).await, expected);
    assert_eq!(soon(taken.recv()).await.unwrap().rcpt_to, ["a@x.test"]);
    let second = soon(taken.recv()).await.unwrap();
    assert_eq!(
        (second.mail_from.as_str(), second.rcpt_to),
        ("posthorn@localhost", vec!["b@x.test".to_owned()])
    );
}

#[tokio::test]
async fn an_answer_submitted_twice_is_sent_once_also_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (smarthost, mut taken) = Script::default().serve().await;
    let overrides = [("smarthost", text(smarthost))];
    let mail = answer(MailId::of(b"q"), OutboundKind::Answer);
    let other =
        OutboundMail { text: "another text".into(), message_id: "other@b.test".into(), ..mail.clone() };
    let (bridge, mut streams) = start(dir.path(), &overrides).await;
    assert_eq!(bridge.handle().outbound(mail.clone()).await.unwrap(), Submitted::New);
    states(&mut streams, 2).await;
    // The same answer again, as from a chatbot whose mail was published again: its state is reported once more.
    assert_eq!(bridge.handle().outbound(mail.clone()).await.unwrap(), Submitted::Repeated);
    assert_eq!(states(&mut streams, 1).await, [(DeliveryState::Delivered, 1)]);
    // Another text for the same mail. It was once dropped without telling anybody.
    assert_eq!(bridge.handle().outbound(other.clone()).await.unwrap(), Submitted::Refused);
    let refusal = soon(streams.deliveries.recv()).await.unwrap();
    assert_eq!((refusal.state, refusal.message_id.as_str()), (DeliveryState::Refused, "other@b.test"));
    assert!(refusal.reply.contains("with other content was taken before"), "{}", refusal.reply);
    drop((bridge, streams));
    let (bridge, mut streams) = start(dir.path(), &overrides).await;
    assert_eq!(bridge.handle().outbound(mail.clone()).await.unwrap(), Submitted::Repeated);
    let repeated = soon(streams.deliveries.recv()).await.unwrap();
    assert_eq!((repeated.state, repeated.attempts), (DeliveryState::Delivered, 1));
    assert!(repeated.reply.starts_with("250 "), "{}", repeated.reply);
    assert_eq!(bridge.handle().outbound(other).await.unwrap(), Submitted::Refused);
    assert_eq!(states(&mut streams, 1).await, [(DeliveryState::Refused, 0)]);
    let forward = answer(MailId::of(b"q"), OutboundKind::Forward);
    assert_eq!(bridge.handle().outbound(forward).await.unwrap(), Submitted::New);
    states(&mut streams, 2).await;
    assert!(bridge.drain().await);
    let (first, second) = (taken.recv().await.unwrap(), taken.recv().await.unwrap());
    assert!(first.data.contains(".Answer@") && second.data.contains(".Forward@"));
    assert!(taken.try_recv().is_err());
}

#[tokio::test]
async fn what_was_queued_before_a_kill_is_sent_after_it_over_few_connections() {
    let dir = tempfile::tempdir().unwrap();
    let overrides = [("retry_min_s", Value::Double(1000.0)), ("retry_max_s", Value::Double(1000.0))];
    let (bridge, mut streams) = start(dir.path(), &overrides).await;
    for question in [b"a", b"b", b"c"] {
        bridge.handle().outbound(answer(MailId::of(question), OutboundKind::Answer)).await.unwrap();
    }
    // Nobody listens at the smart host: every mail is queued, the first is deferred, and then the host is probed.
    states(&mut streams, 4).await;
    away(&bridge).await;
    drop((bridge, streams));
    let script = Script::default();
    let connections = script.connections.clone();
    let (smarthost, mut taken) = script.serve().await;
    let (bridge, mut streams) = start(dir.path(), &[("smarthost", text(smarthost))]).await;
    let mut delivered = states(&mut streams, 3).await;
    delivered.sort_by_key(|&(_, attempts)| attempts);
    assert_eq!(delivered.iter().map(|&(_, attempts)| attempts).collect::<Vec<_>>(), [1, 1, 2]);
    assert!(delivered.iter().all(|&(state, _)| state == DeliveryState::Delivered));
    for _ in 0..3 {
        soon(taken.recv()).await.unwrap();
    }
    // The first mail shows that the host works; then the other two are sent in parallel.
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    assert!(bridge.drain().await);
    assert_eq!(start(dir.path(), &overrides).await.0.handle().state().outbox.pending, 0);
}

#[tokio::test]
async fn a_smart_host_that_refuses_everything_for_good_is_an_error_until_it_takes_one() {
    let dir = tempfile::tempdir().unwrap();
    let refused = "554 5.7.1 relaying denied";
    let (smarthost, _taken) = Script::new(&[refused, refused, refused], &[]).serve().await;
    let (bridge, mut streams) = start(dir.path(), &[("smarthost", text(smarthost))]).await;
    let handle = bridge.handle();
    for (question, level) in
        [(b"a", Level::Warn), (b"b", Level::Warn), (b"c", Level::Error), (b"d", Level::Ok)]
    {
        handle.outbound(answer(MailId::of(question), OutboundKind::Answer)).await.unwrap();
        let delivered = level == Level::Ok;
        let end = if delivered { DeliveryState::Delivered } else { DeliveryState::Failed };
        assert_eq!(states(&mut streams, 2).await, [(DeliveryState::Queued, 0), (end, 1)]);
        assert_eq!(handle.status().last().unwrap().level, level);
    }
    assert_eq!(handle.state().outbox.failed, 3);
}

#[tokio::test]
async fn a_connection_lost_after_the_dot_sends_nothing_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let wait = [("retry_min_s", Value::Double(1000.0)), ("retry_max_s", Value::Double(1000.0))];
    let (bridge, mut streams) = start(dir.path(), &wait).await;
    for question in [b"a", b"b"] {
        bridge.handle().outbound(answer(MailId::of(question), OutboundKind::Answer)).await.unwrap();
    }
    states(&mut streams, 3).await;
    drop((bridge, streams));
    // Both go over one connection, which is lost after the second mail was taken.
    let (smarthost, mut taken) = Script::new(&[], &["250 ok", GONE]).serve().await;
    let (bridge, mut streams) =
        start(dir.path(), &[("smarthost", text(smarthost)), wait[0].clone(), wait[1].clone()]).await;
    let states = states(&mut streams, 2).await;
    assert_eq!((states[0].0, states[1].0), (DeliveryState::Delivered, DeliveryState::Deferred));
    assert_eq!(states[0].1 + states[1].1, 3, "one had been tried before: {states:?}");
    assert!(bridge.drain().await);
    soon(taken.recv()).await.unwrap();
    soon(taken.recv()).await.unwrap();
    assert!(taken.try_recv().is_err(), "sent again at once");
}

#[tokio::test]
async fn the_reply_to_the_dot_has_more_time_than_others() {
    let dir = tempfile::tempdir().unwrap();
    let (smarthost, _taken) = Script::new(&[], &[LATE]).serve().await;
    let overrides = [("smarthost", text(smarthost)), ("smarthost_timeout_s", Value::Double(0.3))];
    let (bridge, mut streams) = start(dir.path(), &overrides).await;
    bridge.handle().outbound(answer(MailId::of(b"a"), OutboundKind::Answer)).await.unwrap();
    assert_eq!(states(&mut streams, 2).await, [(DeliveryState::Queued, 0), (DeliveryState::Delivered, 1)]);
}

#[tokio::test]
async fn an_outbound_mail_that_cannot_be_composed_fails_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, mut streams) = start(dir.path(), &[]).await;
    let to = vec!["a@x.test>\r\nRCPT TO:<b@x.test".to_owned()];
    let mail = OutboundMail { to, ..answer(MailId::of(b"q"), OutboundKind::Answer) };
    bridge.handle().outbound(mail).await.unwrap();
    assert_eq!(states(&mut streams, 2).await, [(DeliveryState::Queued, 0), (DeliveryState::Failed, 1)]);
    let mail = OutboundMail { to: Vec::new(), ..answer(MailId::of(b"r"), OutboundKind::Answer) };
    bridge.handle().outbound(mail).await.unwrap();
    assert_eq!(states(&mut streams, 2).await, [(DeliveryState::Queued, 0), (DeliveryState::Failed, 1)]);
}
