// SPDX-License-Identifier: Apache-2.0
//! Measures how fast a mailbox on a real Dovecot is read: for the first time, beside mbsync without and with its fsync, in turns;
//! and again when nothing has changed, beside what the round trips alone take.
//!
//! Both sides read 10,000 messages of 10 kB over the loopback interface without TLS. Ours is the bridge: each mail is in the
//! journal and synced before the folder's log says so. Messages are not published, and mbsync writes a Maildir.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use imap::{Access, Credentials, Security, Server, Session};
use mail_bridge::{
    bridge::Bridge,
    imap::status::Phase,
    params::{GROUPS, Params, SPECS},
};
use settings::{Value, resolve_groups};
use testbed::dovecot::{Dovecot, PASSWORD, Wish};

const MESSAGES: usize = 10_000;
const MESSAGE_BYTES: usize = 10_000;
const UNCHANGED: usize = 100_000;
const ROUNDS: usize = 3;

fn fill(server: &Dovecot, user: &str, count: usize, bytes: usize) {
    let line = format!("{}\r\n", "x".repeat(70));
    let body = line.repeat(bytes / line.len());
    let message = |number| {
        format!(
            "From: a{number}@x.test\r\nSubject: mail {number}\r\nMessage-ID: <{number}@x.test>\r\n\r\n{body}"
        )
        .into_bytes()
    };
    server.deliver_all(user, "INBOX", (0..count).map(message));
}

fn password(directory: &Path) -> String {
    let path = directory.join("password");
    fs::write(&path, PASSWORD).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// Starts a bridge and waits until it has everything; returns how long each took.
async fn read(server: &Dovecot, user: &str, directory: &Path, count: u64) -> [Duration; 2] {
    let text = |text: &str| Value::Text(text.to_owned());
    let values = [
        ("smtp_listen", text("")),
        ("lmtp_listen", text("")),
        ("journal_directory", text(&directory.join("journal").display().to_string())),
        ("imap.accounts", Value::Texts(vec!["one".to_owned()])),
        ("imap.one.host", text("127.0.0.1")),
        ("imap.one.port", Value::Int(server.port.into())),
        ("imap.one.security", text("none")),
        ("imap.one.user", text(user)),
        ("imap.one.password_path", text(&password(directory))),
        ("imap.one.first_sync", text("all")),
        ("imap_max_unsettled", Value::Int(1_000_000)),
    ];
    let values = values.map(|(name, value)| (name.to_owned(), value)).into();
    let params = Params::load(&resolve_groups(SPECS, GROUPS, values).unwrap(), directory).unwrap();
    let began = Instant::now();
    let (bridge, _streams) = Bridge::start(params).await.unwrap();
    let started = began.elapsed();
    let board = bridge.handle().board().clone();
    let mut changes = board.changes();
    loop {
        let status = board.read().remove(0);
        assert_eq!(status.last_error, "");
        if status.phase == Phase::Watching {
            assert_eq!((status.fetched, status.skipped), (count, 0));
            break;
        }
        changes.changed().await.unwrap();
    }
    let took = began.elapsed() - started;
    assert!(bridge.drain().await);
    [started, took]
}

/// Runs mbsync on the same mailbox.
fn mbsync(server: &Dovecot, user: &str, directory: &Path, has_fsync: bool) -> Duration {
    let here = directory.display();
    let configuration = format!(
        "FSync {}\nIMAPStore far\nHost 127.0.0.1\nPort {}\nUser {user}\nPass {PASSWORD}\nSSLType None\nAuthMechs LOGIN\n\
         PipelineDepth 500\n\nMaildirStore near\nPath {here}/\nInbox {here}/inbox\n\n\
         Channel all\nFar :far:\nNear :near:\nSync Pull\nCreate Near\nSyncState *\n",
        if has_fsync { "yes" } else { "no" },
        server.port,
    );
    let file = directory.join("mbsyncrc");
    fs::write(&file, configuration).unwrap();
    let began = Instant::now();
    let output = Command::new("mbsync").arg("-q").arg("-c").arg(&file).arg("all").output();
    let output = output.expect("no mbsync: apt-get install isync");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    began.elapsed()
}

/// How long it takes to connect, to log in, and to open the folder: what nobody can do without.
async fn round_trips(server: &Dovecot, user: &str) -> Duration {
    let tls = tls::client::Client::new(Some(&server.certificate())).unwrap();
    let (host, patience) = ("127.0.0.1".to_owned(), Duration::from_secs(60));
    let server = Server { host, port: server.port, security: Security::Plaintext, tls, patience };
    let began = Instant::now();
    let mut session =
        Session::open(&server, user, &Credentials::Password(PASSWORD.to_owned())).await.unwrap();
    let opened = session.open_folder("INBOX", Access::Read).await.unwrap();
    let took = began.elapsed();
    assert_eq!(usize::try_from(opened.messages).unwrap(), UNCHANGED);
    session.close().await;
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::main]
async fn main() {
    let server = Dovecot::start(Wish::default());
    fill(&server, "first", MESSAGES, MESSAGE_BYTES);
    let mut times = [const { Vec::new() }; 3];
    // Dovecot indexes the folder when it is opened for the first time.
    let scratch = tempfile::tempdir().unwrap();
    read(&server, "first", scratch.path(), MESSAGES as u64).await;
    for _ in 0..ROUNDS {
        let scratch = tempfile::tempdir().unwrap();
        times[0].push(read(&server, "first", scratch.path(), MESSAGES as u64).await.into_iter().sum());
        for has_fsync in [false, true] {
            let scratch = tempfile::tempdir().unwrap();
            times[1 + usize::from(has_fsync)].push(mbsync(&server, "first", scratch.path(), has_fsync));
        }
    }
    println!(
        "first sync of {MESSAGES} messages of {MESSAGE_BYTES} bytes, median of {ROUNDS} rounds in turns:\n"
    );
    println!("| side | messages a second | posthorn is |\n|---|---|---|");
    let rates = times.map(|times| MESSAGES as f64 / median(times).as_secs_f64());
    println!("| posthorn, journaled and synced | {:.0} | |", rates[0]);
    for (name, rate) in [("mbsync without fsync", rates[1]), ("mbsync with its fsync", rates[2])] {
        println!("| {name} | {rate:.0} | {:.1} times as fast |", rates[0] / rate);
    }

    fill(&server, "unchanged", UNCHANGED, 500);
    let scratch = tempfile::tempdir().unwrap();
    read(&server, "unchanged", scratch.path(), UNCHANGED as u64).await;
    let (mut alone, mut start, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..7 {
        alone.push(round_trips(&server, "unchanged").await);
        // Without the journal of as many mails, whose opening would hide it.
        let fresh = tempfile::tempdir().unwrap();
        let (from, to) = (scratch.path().join("journal/imap"), fresh.path().join("journal/imap"));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
        for directory in [to.parent().unwrap(), &to] {
            fs::set_permissions(directory, PermissionsExt::from_mode(0o700)).unwrap();
        }
        let [started, took] = read(&server, "unchanged", fresh.path(), 0).await;
        start.push(started);
        again.push(took);
    }
    let [alone, start, again] = [alone, start, again].map(median);
    println!(
        "\n{UNCHANGED} unchanged messages: up to date {again:.1?} after the start; connecting, logging in and opening the folder alone take \
         {alone:.1?}.\nThe start, which reads the folder's log of {UNCHANGED} digests, takes {start:.1?}."
    );
}
