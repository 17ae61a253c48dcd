//! Sending over a real connection to a smart host that obeys a script.

use std::sync::atomic::Ordering;

use posthorn::{
    health::Level,
    mail::{MailId, OutboundKind, OutboundMail},
    mail_bridge::{
        bridge::Streams,
        journal::{Queued, SendState},
    },
    params::Value,
};

use super::support::{GONE, LATE, Script, answer, soon, start, text};

async fn states(streams: &mut Streams, count: usize) -> Vec<(SendState, u32)> {
    let mut states = Vec::new();
    while states.len() < count {
        let delivery = soon(streams.deliveries.recv()).await.unwrap();
        states.push((delivery.state, delivery.attempts));
    }
    states
}

#[tokio::test]
async fn an_answer_is_delivered_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (smarthost, mut taken) = Script::default().serve().await;
    let (bridge, mut streams) = start(dir.path(), &[("smarthost", text(smarthost))]).await;
    let mail = answer(MailId::of(b"q"), OutboundKind::Answer);
    assert_eq!(bridge.handle().outbound(mail.clone()).await.unwrap(), Queued::New);
    assert_eq!(states(&mut streams, 1).await, [(SendState::Queued, 0)]);
    let delivery = soon(streams.deliveries.recv()).await.unwrap();
    assert_eq!((delivery.state, delivery.attempts), (SendState::Delivered, 1));
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
        (SendState::Queued, 0),
        (SendState::Deferred, 1),
        (SendState::Deferred, 2),
        (SendState::Delivered, 3),
    ];
    assert_eq!(states(&mut streams, 4).await, expected);
    soon(taken.recv()).await.unwrap();
    bridge.handle().outbound(answer(MailId::of(b"b"), OutboundKind::Answer)).await.unwrap();
    assert_eq!(states(&mut streams, 1).await, [(SendState::Queued, 0)]);
    let failed = soon(streams.deliveries.recv()).await.unwrap();
    assert_eq!((failed.state, failed.reply.as_str()), (SendState::Failed, "550 5.1.1 no such user"));
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
    let expected = [(SendState::Queued, 0), (SendState::Deferred, 1), (SendState::Delivered, 2)];
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
    assert_eq!(bridge.handle().outbound(mail.clone()).await.unwrap(), Queued::New);
    assert_eq!(bridge.handle().outbound(other.clone()).await.unwrap(), Queued::Known);
    states(&mut streams, 2).await;
    drop((bridge, streams));
    let (bridge, mut streams) = start(dir.path(), &overrides).await;
    assert_eq!(bridge.handle().outbound(other).await.unwrap(), Queued::Known);
    let forward = answer(MailId::of(b"q"), OutboundKind::Forward);
    assert_eq!(bridge.handle().outbound(forward).await.unwrap(), Queued::New);
    states(&mut streams, 2).await;
    assert!(bridge.drain().await);
    let (first, second) = (taken.recv().await.unwrap(), taken.recv().await.unwrap());
    assert!(first.data.contains(".Answer@") && second.data.contains(".Forward@"));
    assert!(taken.try_recv().is_err());
}

#[tokio::test]
async fn what_was_queued_before_a_kill_is_sent_after_it_over_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    let overrides = [("retry_min_s", Value::Double(1000.0)), ("retry_max_s", Value::Double(1000.0))];
    let (bridge, mut streams) = start(dir.path(), &overrides).await;
    for question in [b"a", b"b", b"c"] {
        bridge.handle().outbound(answer(MailId::of(question), OutboundKind::Answer)).await.unwrap();
    }
    // Nobody listens at the smart host: each is queued and deferred.
    states(&mut streams, 6).await;
    assert_eq!(bridge.handle().state().outbox.failures_in_a_row, 3);
    drop((bridge, streams));
    let script = Script::default();
    let connections = script.connections.clone();
    let (smarthost, mut taken) = script.serve().await;
    let (bridge, mut streams) = start(dir.path(), &[("smarthost", text(smarthost))]).await;
    assert_eq!(states(&mut streams, 3).await, [(SendState::Delivered, 2); 3]);
    for _ in 0..3 {
        soon(taken.recv()).await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert!(bridge.drain().await);
    // Nothing is left to send.
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
        let end = if delivered { SendState::Delivered } else { SendState::Failed };
        assert_eq!(states(&mut streams, 2).await, [(SendState::Queued, 0), (end, 1)]);
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
    states(&mut streams, 4).await;
    drop((bridge, streams));
    // Both go over one connection, which is lost when the second was taken.
    let (smarthost, mut taken) = Script::new(&[], &["250 ok", GONE]).serve().await;
    let (bridge, mut streams) =
        start(dir.path(), &[("smarthost", text(smarthost)), wait[0].clone(), wait[1].clone()]).await;
    let expected = [(SendState::Delivered, 2), (SendState::Deferred, 2)];
    assert_eq!(states(&mut streams, 2).await, expected);
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
    assert_eq!(states(&mut streams, 2).await, [(SendState::Queued, 0), (SendState::Delivered, 1)]);
}

#[tokio::test]
async fn an_outbound_mail_that_cannot_be_composed_fails_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, mut streams) = start(dir.path(), &[]).await;
    let to = vec!["a@x.test>\r\nRCPT TO:<b@x.test".to_owned()];
    let mail = OutboundMail { to, ..answer(MailId::of(b"q"), OutboundKind::Answer) };
    bridge.handle().outbound(mail).await.unwrap();
    assert_eq!(states(&mut streams, 2).await, [(SendState::Queued, 0), (SendState::Failed, 1)]);
    let mail = OutboundMail { to: Vec::new(), ..answer(MailId::of(b"r"), OutboundKind::Answer) };
    bridge.handle().outbound(mail).await.unwrap();
    assert_eq!(states(&mut streams, 2).await, [(SendState::Queued, 0), (SendState::Failed, 1)]);
}
