// SPDX-License-Identifier: Apache-2.0
//! Forwards, with the mails that they pass on.

use mail::{Action, DeliveryState, OutboundKind};
use settings::Value;

use super::support::{
    Script, answer, deliver, disposition, free_address, soon, start_publishing, states, text,
};

const PHOTO: &str = "From: ada@x.test\r\nSubject: photo\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\n\r\nlook\r\n--b\r\nContent-Type: image/jpeg\r\nContent-Disposition: attachment; filename=yard.jpg\r\n\r\n\
    PIXELS\r\n--b--\r\n";

#[tokio::test]
async fn a_forward_carries_its_mail_though_that_was_settled_and_its_segment_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let smarthost = free_address();
    let overrides = [
        ("smarthost", text(smarthost)),
        ("journal_segment_bytes", Value::Int(4096)),
        ("journal_keep_segments", Value::Int(1)),
    ];
    let (bridge, mut streams) = start_publishing(dir.path(), &overrides).await;
    let id = deliver(&bridge, PHOTO).await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
    let handle = bridge.handle();
    handle.outbound(answer(id, OutboundKind::Forward)).await.unwrap();
    handle.disposition(disposition(id, Action::Forwarded)).await.unwrap();
    // Enough mails after it that its segment is retired twice over.
    for n in 0..60 {
        let id = deliver(&bridge, &format!("{n} {}\r\n", "x".repeat(1000))).await;
        assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
        handle.disposition(disposition(id, Action::Ignored)).await.unwrap();
    }
    assert!(bridge.drain().await);
    assert!(!dir.path().join("0000000001.log").exists());
    drop(streams);
    // After a restart it is still settled, and its bytes are still there. This once failed: the bytes were deleted with
    // their segment and the forward was never sent.
    let (bridge, mut streams) = start_publishing(dir.path(), &overrides).await;
    assert_eq!(bridge.handle().state().journal.unsettled, 0);
    let (_, mut taken) = Script::default().serve_at(smarthost).await;
    let mail = soon(taken.recv()).await.unwrap();
    assert!(mail.data.contains(PHOTO.trim_end()), "{}", mail.data);
    assert!(mail.data.replace("=\r\n", "").contains("with 1 attachment of its own"), "{}", mail.data);
    assert!(streams.mails.try_recv().is_err(), "published again");
}

#[tokio::test]
async fn a_forward_that_the_server_does_not_take_goes_without_its_mail_and_says_so() {
    for refusal in ["552 5.3.4 too large", "554 5.7.1 virus found"] {
        let dir = tempfile::tempdir().unwrap();
        let (smarthost, mut taken) = Script::new(&[], &[refusal]).serve().await;
        let (bridge, mut streams) = start_publishing(dir.path(), &[("smarthost", text(smarthost))]).await;
        let id = deliver(&bridge, PHOTO).await;
        bridge.handle().outbound(answer(id, OutboundKind::Forward)).await.unwrap();
        assert_eq!(states(&mut streams, 2).await[1], (DeliveryState::Delivered, 1));
        let mail = soon(taken.recv()).await.unwrap();
        assert!(!mail.data.contains("PIXELS"), "{}", mail.data);
        assert!(mail.data.contains("does not take it, for its size"), "{}", mail.data);
        assert!(mail.data.contains("- yard.jpg (image/jpeg, 6 bytes)"), "{}", mail.data);
    }
}
