// SPDX-License-Identifier: Apache-2.0
//! `kill -9` under load: every mail that was answered with 250 is on disk, complete, and once.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use mail::{Action, MailId};
use settings::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::{disposition, soon, start, start_publishing};

const DIRECTORY: &str = "POSTHORN_TEST_KILLED_BRIDGE";
/// If set, the killed process settles about half of the mails, so that segments are retired.
const SETTLES: &str = "POSTHORN_TEST_KILLED_BRIDGE_SETTLES";
const KEEP: (&str, Value) = ("journal_keep_segments", Value::Int(1));
const SEGMENT: (&str, Value) = ("journal_segment_bytes", Value::Int(16_384));

/// Not a test itself: this is the process that the tests below kill.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by bridge_killed_under_load_keeps_every_mail_it_acknowledged"]
async fn killed_bridge() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let overrides = [SEGMENT, KEEP, ("redelivery_min_s", Value::Double(0.2))];
    let (bridge, mut streams) = start(Path::new(&directory), &overrides).await;
    let handle = bridge.handle();
    handle.set_subscribers(usize::from(std::env::var_os(SETTLES).is_some()));
    eprintln!("port={}", bridge.smtp_addr().unwrap().port());
    while let Some(mail) = streams.mails.recv().await {
        if settled(&mail.id) {
            handle.disposition(disposition(mail.id, Action::Ignored)).await.unwrap();
        }
    }
}

fn settled(id: &MailId) -> bool {
    id.as_bytes()[0].is_multiple_of(2)
}

fn spawn(directory: &Path, settles: bool) -> (Child, u16) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "mail_bridge::kill::killed_bridge", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .envs(settles.then_some((SETTLES, "1")))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if let Some(port) = line.strip_prefix("port=").and_then(|port| port.parse().ok()) {
            return (child, port);
        }
        said.push(line);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("the bridge did not start: {said:#?}");
}

/// Sends mails until the connection breaks; returns the acknowledged ones.
async fn client(port: u16, name: String, count: Arc<AtomicUsize>) -> Vec<MailId> {
    let mut acknowledged = Vec::new();
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await else { return acknowledged };
    let mut lines = tokio::io::BufReader::new(stream);
    let mut reply = String::new();
    for number in 0.. {
        let data = format!("Subject: {name} {number}\r\n\r\n{}\r\n", "x".repeat(number * 37 % 900));
        let hello = if number == 0 { "EHLO c\r\n" } else { "" };
        let mail = format!("{hello}MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nDATA\r\n{data}.\r\n");
        if lines.write_all(mail.as_bytes()).await.is_err() {
            return acknowledged;
        }
        while !reply.starts_with("250 2.6.0") {
            reply.clear();
            if !matches!(lines.read_line(&mut reply).await, Ok(1..)) {
                return acknowledged;
            }
        }
        acknowledged.push(MailId::of(data.as_bytes()));
        count.fetch_add(1, Ordering::Relaxed);
        reply.clear();
    }
    acknowledged
}

/// File of the journal's first segment.
const FIRST_SEGMENT: &str = "0000000001.log";

/// Five times loads and kills the bridge; returns the mails it acknowledged.
async fn kill_under_load(directory: &Path, settles: bool) -> BTreeSet<MailId> {
    let mut acknowledged = BTreeSet::new();
    for round in 0..5 {
        let (mut child, port) = spawn(directory, settles);
        let count = Arc::new(AtomicUsize::new(0));
        let start = |n| tokio::spawn(client(port, format!("{round} {n}"), Arc::clone(&count)));
        let clients: Vec<_> = (0..8).map(start).collect();
        // Kill it in the middle of the load, later in each round, so that arbitrary work is in progress.
        let enough = if settles { 150 } else { 20 } + round * 17;
        // On a busy machine settling lags behind; without it nothing is retired.
        let is_retired = || !settles || !directory.join(FIRST_SEGMENT).exists();
        soon(async {
            while count.load(Ordering::Relaxed) < enough || !is_retired() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        child.kill().unwrap();
        child.wait().unwrap();
        for client in clients {
            acknowledged.extend(soon(client).await.unwrap());
        }
    }
    acknowledged
}

/// Starts the bridge and returns what it publishes, each mail once, until that includes `expected`.
async fn published(directory: &Path, expected: &BTreeSet<MailId>) -> BTreeSet<MailId> {
    let overrides =
        [SEGMENT, KEEP, ("max_in_flight", Value::Int(10_000)), ("redelivery_min_s", Value::Double(500.0))];
    let (bridge, mut streams) = start_publishing(directory, &overrides).await;
    let mut published = BTreeSet::new();
    while !expected.is_subset(&published) {
        let mail = soon(streams.mails.recv()).await.unwrap();
        assert_eq!(mail.id, MailId::of(&mail.data));
        assert!(published.insert(mail.id), "published twice");
    }
    assert!(bridge.handle().state().journal.unsettled >= expected.len());
    published
}

#[tokio::test(flavor = "multi_thread")]
async fn bridge_killed_under_load_keeps_every_mail_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let acknowledged = kill_under_load(dir.path(), false).await;
    assert!(acknowledged.len() >= 5 * 20);
    published(dir.path(), &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bridge_killed_while_it_retires_segments_keeps_every_mail_that_is_not_settled() {
    let dir = tempfile::tempdir().unwrap();
    let acknowledged = kill_under_load(dir.path(), true).await;
    assert!(!dir.path().join(FIRST_SEGMENT).exists(), "no segment was retired");
    let open: BTreeSet<_> = acknowledged.into_iter().filter(|id| !settled(id)).collect();
    assert!(open.len() >= 100);
    published(dir.path(), &open).await;
}
