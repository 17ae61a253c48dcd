// SPDX-License-Identifier: Apache-2.0
//! A disk that fills up and is freed again: nothing acknowledged is lost, and what was stored can be settled without a
//! restart.
//!
//! A file size limit on the process stands in for a full disk, because it works everywhere. If `POSTHORN_TEST_DISK`
//! names a directory on a small file system of its own, such as `/mnt/small`, that disk is filled instead: `unshare
//! -Urm sh -c 'mount -t tmpfs -o size=4M none /mnt && POSTHORN_TEST_DISK=/mnt … full_disk --test-threads=1'`.

use std::{fs::File, io::Write, path::PathBuf, process::Command};

use health::Level;
use mail::{Action, DeliveryState, OutboundKind, OutboundMail};
use mail_bridge::bridge::{Bridge, Submitted};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use settings::Value;

use super::support::{Talk, answer, deliver, disposition, soon, start, start_publishing};

/// A reserve larger than any disk.
const ALL: (&str, Value) = ("journal_reserve_bytes", Value::Int(1 << 50));
const NOTHING: (&str, Value) = ("journal_reserve_bytes", Value::Int(0));
const LIMITED: &str = "POSTHORN_TEST_LIMITED";

/// Runs the calling test again, alone in a process where a write beyond the limit is an error instead of a signal.
/// Returns true in that process.
fn limited(name: &str) -> bool {
    if std::env::var_os(LIMITED).is_some() {
        return true;
    }
    let ran = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("mail_bridge::full_disk::{name}"), "--nocapture"])
        .env(LIMITED, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    false
}

fn disk() -> Option<PathBuf> {
    std::env::var_os("POSTHORN_TEST_DISK").map(PathBuf::from)
}

fn scratch() -> tempfile::TempDir {
    disk().map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap()
}

/// From now on no file may grow beyond `bytes`; `None` lifts the limit. With `POSTHORN_TEST_DISK`, fills or frees the
/// disk.
fn limit(bytes: Option<u64>) {
    if let Some(disk) = disk() {
        let ballast = disk.join("ballast");
        match bytes {
            None => std::fs::remove_file(ballast).unwrap(),
            Some(_) => {
                let mut ballast = File::create(ballast).unwrap();
                while ballast.write_all(&[1; 4096]).is_ok() {}
            }
        }
        return;
    }
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

fn failed(bridge: &Bridge) -> Option<String> {
    bridge.handle().state().journal.failed
}

async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Sends a mail for which there is no room. On a disk that reports itself full, the bridge does not even try to write.
async fn refuse(bridge: &Bridge) {
    let mut talk = Talk::connect(bridge.smtp_addr().unwrap()).await;
    talk.begin("EHLO client.test").await;
    talk.send(&format!("{}.\r\n", "lost\r\n".repeat(1500))).await;
    talk.expect(if disk().is_some() { "452 4.3.1" } else { "451 4.3.0" }).await;
}

#[tokio::test]
async fn a_write_that_fails_is_told_and_the_journal_goes_on_when_there_is_room() {
    if !limited("a_write_that_fails_is_told_and_the_journal_goes_on_when_there_is_room") {
        return;
    }
    let dir = scratch();
    let (bridge, mut streams) = start_publishing(dir.path(), &[NOTHING]).await;
    let id = deliver(&bridge, "before\r\n").await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);

    let segment = dir.path().join("0000000001.log");
    limit(Some(std::fs::metadata(&segment).unwrap().len()));
    let long = OutboundMail { text: "x".repeat(9000), ..answer(id, OutboundKind::Answer) };
    bridge.handle().outbound(long).await.unwrap_err();
    assert!(failed(&bridge).is_some());
    // If there is no room for the settlement either, the settlement waits for it.
    bridge.handle().disposition(disposition(id, Action::Rejected)).await.unwrap();
    refuse(&bridge).await;

    limit(None);
    until(|| bridge.handle().state().journal.unsettled == 0).await;
    assert_eq!(failed(&bridge), None);
    deliver(&bridge, "after\r\n").await;
    assert!(bridge.drain().await);
    let (bridge, mut streams) = start_publishing(dir.path(), &[]).await;
    assert_eq!(soon(streams.mails.recv()).await.unwrap().data, b"after\r\n");
    assert_eq!(bridge.handle().state().journal.unsettled, 1);
    assert_eq!(bridge.handle().state().journal.torn_bytes, 0);
}

#[tokio::test]
async fn a_journal_that_cannot_recover_ends_the_bridge() {
    if !limited("a_journal_that_cannot_recover_ends_the_bridge") {
        return;
    }
    let dir = scratch();
    let (mut bridge, _streams) = start(dir.path(), &[NOTHING]).await;
    let id = deliver(&bridge, "before\r\n").await;
    let segment = dir.path().join("0000000001.log");
    limit(Some(std::fs::metadata(&segment).unwrap().len()));
    std::fs::rename(&segment, dir.path().join("elsewhere")).unwrap();
    for text in ["x".repeat(9000), String::new()] {
        let mail = OutboundMail { text, ..answer(id, OutboundKind::Answer) };
        bridge.handle().outbound(mail).await.unwrap_err();
    }
    soon(bridge.ended()).await;
    limit(None);
    assert!(failed(&bridge).unwrap().contains("cannot find"), "{:?}", failed(&bridge));
    assert!(!bridge.drain().await);
}

#[tokio::test]
async fn under_the_reserve_mails_are_refused_and_those_there_are_settled() {
    let dir = tempfile::tempdir().unwrap();
    let (bridge, _streams) = start(dir.path(), &[]).await;
    let id = deliver(&bridge, "question\r\n").await;
    assert!(bridge.drain().await);

    let (bridge, mut streams) = start_publishing(dir.path(), &[ALL]).await;
    let handle = bridge.handle();
    for address in [bridge.smtp_addr(), bridge.lmtp_addr()] {
        let mut talk = Talk::connect(address.unwrap()).await;
        let hello = if address == bridge.smtp_addr() { "EHLO c" } else { "LHLO c" };
        talk.say(hello, "250").await;
        talk.say("MAIL FROM:<ada@x.test>", "452 4.3.1").await;
        // The client did nothing wrong, so the session continues.
        talk.say("RSET", "250").await;
    }
    assert_eq!(handle.state().intake.deferred, 2);
    let status = handle.status();
    assert_eq!((status[0].level, status[1].level), (Level::Error, Level::Error));
    assert!(status[0].message.contains("(journal_reserve_bytes); make room"), "{}", status[0].message);

    assert_eq!(soon(streams.mails.recv()).await.unwrap().id, id);
    assert_eq!(handle.outbound(answer(id, OutboundKind::Answer)).await.unwrap(), Submitted::New);
    for state in [DeliveryState::Queued, DeliveryState::Deferred] {
        assert_eq!(soon(streams.deliveries.recv()).await.unwrap().state, state);
    }
    handle.disposition(disposition(id, Action::Answered)).await.unwrap();
    until(|| handle.state().journal.unsettled == 0).await;
    drop((bridge, handle, streams));
    assert_eq!(start(dir.path(), &[]).await.0.handle().state().journal.unsettled, 0);
}
