// SPDX-License-Identifier: Apache-2.0
//! The journal survives restarts, kills, torn tails and rotation.

use std::{fs::OpenOptions, io::Write, os::unix::fs::PermissionsExt, path::Path};

use health::Level;
use mail::{Action, DeliveryState, MailId, OutboundKind, OutboundMail};
use mail_bridge::bridge::{Bridge, Submitted};
use settings::Value;

use super::support::{Talk, answer, deliver, disposition, params, soon, start, start_publishing};

fn segments(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_mail_outlives_a_kill_and_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, streams) = start(dir.path(), &[]).await;
    let ids = [deliver(&bridge, "one\r\n").await, deliver(&bridge, "two\r\n").await];
    drop((bridge, streams));
    let (_bridge, mut streams) = start_publishing(dir.path(), &[]).await;
    for id in ids {
        assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_reported_and_the_rest_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, _streams) = start(dir.path(), &[]).await;
    let id = deliver(&bridge, "whole\r\n").await;
    assert!(bridge.drain().await);
    let last = segments(dir.path()).pop().unwrap();
    OpenOptions::new().append(true).open(last).unwrap().write_all(&[7; 100]).unwrap();
    let (bridge, mut streams) = start_publishing(dir.path(), &[]).await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
    let status = bridge.handle().status().remove(0);
    assert_eq!((status.name.as_ref(), status.level), ("journal", Level::Warn));
    assert!(status.message.contains("unless the disk was full"), "{}", status.message);
    deliver(&bridge, "after\r\n").await;
    assert!(bridge.drain().await);
    assert_eq!(start(dir.path(), &[]).await.0.handle().state().journal.unsettled, 2);
}

#[tokio::test]
async fn the_journal_is_its_owners_only() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let (bridge, _streams) = start(&journal, &[]).await;
    deliver(&bridge, "secret\r\n").await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&journal), 0o700);
    for entry in std::fs::read_dir(&journal).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn damage_before_the_last_segment_is_told_and_cuts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let overrides = [("journal_segment_bytes", Value::Int(4096))];
    let (bridge, _streams) = start(dir.path(), &overrides).await;
    for n in 0..3 {
        deliver(&bridge, &format!("{n} {}\r\n", "x".repeat(3000))).await;
    }
    assert!(bridge.drain().await);
    let first = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&first, &bytes).unwrap();
    let Err(error) = Bridge::start(params(dir.path(), &overrides)).await else { panic!("started") };
    let expected = format!("record log '{}': damaged at byte 32,", first.display());
    assert!(error.to_string().contains(&expected), "{error}");
    assert_eq!(std::fs::read(&first).unwrap(), bytes);
}

#[tokio::test]
async fn damage_in_the_middle_of_the_last_segment_is_told_and_cuts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, _streams) = start(dir.path(), &[]).await;
    for n in 0..3 {
        deliver(&bridge, &format!("acknowledged {n}\r\n")).await;
    }
    assert!(bridge.drain().await);
    let last = segments(dir.path()).remove(0);
    let whole = std::fs::read(&last).unwrap();
    for mail in ["acknowledged 0", "acknowledged 1", "acknowledged 2"] {
        let mut bytes = whole.clone();
        let at = whole.windows(mail.len()).position(|window| window == mail.as_bytes()).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&last, &bytes).unwrap();
        let Err(error) = Bridge::start(params(dir.path(), &[])).await else {
            panic!("started without {mail}")
        };
        assert!(error.to_string().contains("damaged at byte"), "{error}");
        assert_eq!(std::fs::read(&last).unwrap(), bytes);
    }
    std::fs::write(&last, whole).unwrap();
    assert_eq!(start(dir.path(), &[]).await.0.handle().state().journal.unsettled, 3);
}

#[tokio::test]
async fn the_same_bytes_are_one_mail_also_after_settlement_and_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, mut streams) = start_publishing(dir.path(), &[]).await;
    let first = deliver(&bridge, "again\r\n").await;
    assert_eq!(deliver(&bridge, "again\r\n").await, first);
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, first);
    bridge.handle().disposition(disposition(first, Action::Ignored)).await.unwrap();
    assert!(bridge.drain().await);
    let (bridge, mut streams) = start_publishing(dir.path(), &[]).await;
    deliver(&bridge, "again\r\n").await;
    let second = deliver(&bridge, "other\r\n").await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, second);
    assert!(streams.mails.try_recv().is_err());
    assert_eq!(bridge.handle().state().journal.unsettled, 1);
}

#[tokio::test]
async fn settled_segments_are_deleted_and_nothing_in_them_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let overrides = [
        ("journal_segment_bytes", Value::Int(4096)),
        ("journal_keep_segments", Value::Int(1)),
        ("max_in_flight", Value::Int(100)),
        ("retry_min_s", Value::Double(1000.0)),
    ];
    let (bridge, mut streams) = start_publishing(dir.path(), &overrides).await;
    let handle = bridge.handle();
    let text = |n: usize| format!("{n} {}\r\n", "x".repeat(1000));
    let stuck = deliver(&bridge, "never settled\r\n").await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, stuck);
    // One mail that stays deferred, because there is no smart host, and one that fails for good.
    let deferred = answer(stuck, OutboundKind::Answer);
    let failed = OutboundMail { to: Vec::new(), ..answer(stuck, OutboundKind::Forward) };
    for (mail, end) in [(&deferred, DeliveryState::Deferred), (&failed, DeliveryState::Failed)] {
        handle.outbound(mail.clone()).await.unwrap();
        for state in [DeliveryState::Queued, end] {
            assert_eq!(soon(streams.deliveries.recv()).await.unwrap().state, state);
        }
    }
    for n in 0..60 {
        let id = deliver(&bridge, &text(n)).await;
        assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
        handle.disposition(disposition(id, Action::Rejected)).await.unwrap();
    }
    assert!(bridge.drain().await);
    let files = segments(dir.path());
    assert!(files.len() <= 4 && !files[0].ends_with("0000000001.log"), "{files:?}");

    let (bridge, mut streams) = start_publishing(dir.path(), &overrides).await;
    let mail = soon(streams.mails.recv()).await.unwrap();
    assert_eq!((mail.id, mail.data.as_slice()), (stuck, &b"never settled\r\n"[..]));
    // The first mail is gone from disk, but its identity is remembered, so it is not published again.
    assert_eq!(bridge.handle().get_raw(MailId::of(text(0).as_bytes())).await.unwrap(), None);
    deliver(&bridge, &text(0)).await;
    assert_eq!(bridge.handle().state().journal.unsettled, 1);
    assert!(bridge.handle().get_raw(MailId::of(text(59).as_bytes())).await.unwrap().is_some());
    assert_eq!(bridge.handle().outbound(deferred).await.unwrap(), Submitted::Repeated);
    // Of a mail that is finished and gone from disk, only the identity is known.
    assert_eq!(bridge.handle().outbound(failed).await.unwrap(), Submitted::Refused);
    // The deferred mail is due immediately after a start, and its attempt count continues.
    soon(async {
        loop {
            let delivery = streams.deliveries.recv().await.unwrap();
            assert_eq!(delivery.answers, Some(stuck));
            if (delivery.state, delivery.attempts) == (DeliveryState::Deferred, 2) {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn settled_segments_go_at_once_and_identities_that_outgrow_a_segment_stay_split_and_known() {
    const MAILS: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    let overrides = [
        ("journal_segment_bytes", Value::Int(4096)),
        ("journal_keep_segments", Value::Int(1)),
        ("max_in_flight", Value::Int(1000)),
        ("max_class_share", Value::Double(1.0)),
    ];
    let (bridge, mut streams) = start_publishing(dir.path(), &overrides).await;
    let text = |n: usize| format!("{n} {}\r\n", "x".repeat(400));
    let mut talk = Talk::connect(bridge.smtp_addr().unwrap()).await;
    talk.say("EHLO c", "250").await;
    for n in 0..MAILS {
        talk.begin_next().await;
        talk.send(&format!("{}.\r\n", text(n))).await;
        talk.expect("250").await;
    }
    let before = segments(dir.path()).len();
    assert!(before > 40, "{before} segments");
    for _ in 0..MAILS {
        let id = soon(streams.mails.recv()).await.unwrap().id;
        bridge.handle().disposition(disposition(id, Action::Rejected)).await.unwrap();
    }
    // 13 kB of identities in segments of 4 kB, up to half of which may be obsolete; no mail arrives meanwhile.
    soon(async {
        while segments(dir.path()).len() > 12 || bridge.handle().state().journal.unsettled > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(bridge.drain().await);
    for file in segments(dir.path()) {
        let bytes = std::fs::metadata(&file).unwrap().len();
        assert!(bytes < 3 * 4096, "{}: {bytes} bytes", file.display());
    }
    let (bridge, mut streams) = start_publishing(dir.path(), &overrides).await;
    for n in [0, MAILS / 2, MAILS - 1] {
        deliver(&bridge, &text(n)).await;
    }
    assert_eq!(bridge.handle().state().journal.unsettled, 0);
    assert!(streams.mails.try_recv().is_err());
}

#[tokio::test]
async fn a_mail_damaged_while_the_bridge_runs_is_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, _streams) = start(dir.path(), &[]).await;
    let id = deliver(&bridge, "stop truck_1\r\n").await;
    let file = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(7).position(|window| window == b"truck_1").unwrap();
    bytes[at + 6] = b'2';
    std::fs::write(&file, bytes).unwrap();
    let error = bridge.handle().get_raw(id).await.unwrap_err();
    assert!(error.to_string().contains("damaged at byte"), "{error}");
}
