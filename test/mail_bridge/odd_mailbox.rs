// SPDX-License-Identifier: Apache-2.0
//! Mailboxes on servers that are broken or lie. They speak as much IMAP as the bridge asks for, made from RFC 3501.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use mail::{Action, MailId};
use mail_bridge::{
    bridge::{Bridge, Streams},
    imap::status::{FolderStatus, Phase},
};
use settings::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::support::{disposition, soon, start_publishing, text};

/// The folder of a server, and how it is odd.
#[derive(Default)]
struct Folder {
    messages: BTreeMap<u32, Vec<u8>>,
    uid_validity: u32,
    /// What it says of the next UID, instead of the truth; 0: nothing.
    uid_next: Option<u32>,
    /// UIDs that a search finds although there is no such message.
    invented: Vec<u32>,
    /// Messages that it lists and leaves out of every answer.
    withheld: BTreeSet<u32>,
    /// Messages at which it closes the connection.
    breaks_at: BTreeSet<u32>,
    /// It offers IDLE and refuses it.
    refuses_idle: bool,
    /// It gives no message at all, as while its storage is away.
    refuses_fetch: bool,
    fetches: u32,
    /// It tells of messages in every IDLE, and there are none.
    has_hollow_news: bool,
    logins: u32,
    looks: u32,
}

type Shared = Arc<Mutex<Folder>>;

fn folder(uids: impl IntoIterator<Item = u32>) -> Shared {
    let messages = uids.into_iter().map(|uid| (uid, message(uid))).collect();
    Arc::new(Mutex::new(Folder { messages, uid_validity: 7, ..Folder::default() }))
}

fn message(number: u32) -> Vec<u8> {
    format!("From: ada@x.test\r\nSubject: mail {number}\r\n\r\nwhere is vehicle {number}?\r\n").into_bytes()
}

async fn serve(folder: Shared) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(session(stream, Arc::clone(&folder)));
        }
    });
    port
}

async fn session(stream: TcpStream, folder: Shared) -> Option<()> {
    let (read, mut write) = stream.into_split();
    write.write_all(b"* OK [CAPABILITY IMAP4rev1 IDLE] odd\r\n").await.ok()?;
    let mut lines = BufReader::new(read).lines();
    let mut idle = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        let (tag, command) = line.split_once(' ').unwrap_or((&idle, &line));
        let tag = tag.to_owned();
        let (answer, is_over) = folder.lock().unwrap().answer(command);
        if command == "IDLE" {
            idle.clone_from(&tag);
        }
        write.write_all(&answer).await.ok()?;
        if is_over {
            return None;
        }
        if !answer.starts_with(b"+") {
            let refuses = command.starts_with("UID FETCH") && folder.lock().unwrap().refuses_fetch;
            let end = if refuses { "NO [UNAVAILABLE] later" } else { "OK done" };
            write.write_all(format!("{tag} {end}\r\n").as_bytes()).await.ok()?;
        }
    }
    Some(())
}

impl Folder {
    /// The untagged part of an answer, and whether the connection ends there.
    fn answer(&mut self, command: &str) -> (Vec<u8>, bool) {
        let words: Vec<_> = command.split(' ').collect();
        match *words.as_slice() {
            ["CAPABILITY"] => return (b"* CAPABILITY IMAP4rev1 IDLE\r\n".to_vec(), false),
            ["LOGIN", ..] => self.logins += 1,
            ["EXAMINE" | "SELECT", ..] => {
                self.looks += 1;
                let next = self.messages.last_key_value().map_or(1, |(uid, _)| uid + 1);
                let mut said = format!(
                    "* {} EXISTS\r\n* OK [UIDVALIDITY {}] x\r\n",
                    self.messages.len(),
                    self.uid_validity
                );
                match self.uid_next {
                    Some(0) => {}
                    lie => said += &format!("* OK [UIDNEXT {}] x\r\n", lie.unwrap_or(next)),
                }
                return (said.into_bytes(), false);
            }
            ["UID", "SEARCH", range] => {
                let uids = self.messages.keys().chain(&self.invented).filter(|uid| contains(range, **uid));
                let uids: Vec<_> = uids.map(u32::to_string).collect();
                return (format!("* SEARCH {}\r\n", uids.join(" ")).into_bytes(), false);
            }
            ["UID", "FETCH", ..] if self.refuses_fetch => self.fetches += 1,
            ["UID", "FETCH", range, ..] => {
                let mut said = Vec::new();
                for (uid, data) in self.messages.iter().filter(|(uid, _)| contains(range, **uid)) {
                    if self.breaks_at.contains(uid) {
                        return (said, true);
                    }
                    if !self.withheld.contains(uid) {
                        said.extend(
                            format!("* 1 FETCH (UID {uid} BODY[] {{{}}}\r\n", data.len()).into_bytes(),
                        );
                        said.extend(data);
                        said.extend(b")\r\n");
                    }
                }
                return (said, false);
            }
            ["IDLE"] if self.refuses_idle => return (b"* BYE not here\r\n".to_vec(), true),
            ["IDLE"] if self.has_hollow_news => return (b"+ idling\r\n* 9 EXISTS\r\n".to_vec(), false),
            ["IDLE"] => return (b"+ idling\r\n".to_vec(), false),
            _ => {}
        }
        (Vec::new(), false)
    }
}

fn contains(range: &str, uid: u32) -> bool {
    let (first, last) = range.split_once(':').unwrap_or((range, range));
    let last = if last == "*" { u32::MAX } else { last.parse().unwrap() };
    (first.parse().unwrap()..=last).contains(&uid)
}

async fn start(directory: &std::path::Path, port: u16, more: &[(&str, Value)]) -> (Bridge, Streams) {
    let password = directory.join("password");
    std::fs::write(&password, "secret").unwrap();
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut values = vec![
        ("imap.accounts", Value::Texts(vec!["odd".into()])),
        ("imap.odd.host", text("127.0.0.1")),
        ("imap.odd.port", Value::Int(port.into())),
        ("imap.odd.security", text("none")),
        ("imap.odd.user", text("fleet@odd.test")),
        ("imap.odd.password_path", text(password.display())),
        ("imap.odd.first_sync", text("all")),
        ("imap.odd.retry_min_s", Value::Double(0.01)),
        ("imap.odd.retry_max_s", Value::Double(0.02)),
        ("imap.odd.idle_s", Value::Double(1.0)),
        ("imap.odd.poll_s", Value::Double(0.1)),
        ("imap.odd.timeout_s", Value::Double(2.0)),
    ];
    values.extend(more.iter().cloned());
    start_publishing(&directory.join("journal"), &values).await
}

async fn expect(bridge: &Bridge, streams: &mut Streams, numbers: impl IntoIterator<Item = u32>) {
    let mut wanted: BTreeSet<_> = numbers.into_iter().map(|number| MailId::of(&message(number))).collect();
    while !wanted.is_empty() {
        let mail = soon(streams.mails.recv()).await.unwrap();
        assert!(wanted.remove(&mail.id), "unexpected: {}", String::from_utf8_lossy(&mail.data));
        bridge.handle().disposition(disposition(mail.id, Action::Ignored)).await.unwrap();
    }
}

async fn status(bridge: &Bridge, wanted: impl Fn(&FolderStatus) -> bool) -> FolderStatus {
    let handle = bridge.handle();
    let found = async {
        loop {
            if let Some(status) = handle.board().read().into_iter().find(&wanted) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), found).await;
    found.unwrap_or_else(|_| panic!("waited in vain: {:?}", handle.board().read()))
}

fn is_watching(status: &FolderStatus) -> bool {
    status.phase == Phase::Watching
}

#[tokio::test]
async fn a_mailbox_from_a_backup_whose_uids_go_back_loses_nothing() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), folder(1..=9));
    let port = serve(Arc::clone(&folder)).await;
    let (bridge, mut streams) = start(dir.path(), port, &[]).await;
    expect(&bridge, &mut streams, 1..=9).await;
    status(&bridge, is_watching).await;
    // The backup had six of them; three others come after it.
    folder.lock().unwrap().messages.retain(|uid, _| *uid <= 6);
    status(&bridge, |status| status.messages == 6).await;
    for uid in 7..=9 {
        folder.lock().unwrap().messages.insert(uid, message(uid + 100));
    }
    expect(&bridge, &mut streams, 107..=109).await;
    assert!(bridge.drain().await);
}

#[tokio::test]
async fn a_server_that_lies_about_uids_loses_nothing_that_comes_later() {
    for (uid_next, invented) in
        [(Some(u32::MAX), vec![]), (Some(1_000), vec![u32::MAX]), (Some(0), vec![]), (None, vec![4_000])]
    {
        let (dir, folder) = (tempfile::tempdir().unwrap(), folder(1..=3));
        {
            let mut folder = folder.lock().unwrap();
            (folder.uid_next, folder.invented) = (uid_next, invented.clone());
        }
        let port = serve(Arc::clone(&folder)).await;
        let (bridge, mut streams) = start(dir.path(), port, &[]).await;
        expect(&bridge, &mut streams, 1..=3).await;
        status(&bridge, is_watching).await;
        folder.lock().unwrap().messages.insert(4, message(4));
        expect(&bridge, &mut streams, 4..=4).await;
        assert!(bridge.drain().await, "{uid_next:?} {invented:?}");
    }
}

#[tokio::test]
async fn one_message_that_cannot_be_had_does_not_keep_the_others() {
    for is_withheld in [true, false] {
        let (dir, folder) = (tempfile::tempdir().unwrap(), folder(1..=20));
        if is_withheld {
            folder.lock().unwrap().withheld.insert(7);
        } else {
            folder.lock().unwrap().breaks_at.insert(7);
        }
        let port = serve(Arc::clone(&folder)).await;
        let (bridge, mut streams) = start(dir.path(), port, &[]).await;
        expect(&bridge, &mut streams, (1..=20).filter(|number| *number != 7)).await;
        let ended = status(&bridge, is_watching).await;
        assert_eq!((ended.skipped, ended.failures), (1, 0), "{ended:?}");
        // What comes afterwards comes once.
        folder.lock().unwrap().messages.insert(21, message(21));
        expect(&bridge, &mut streams, [21]).await;
        assert!(bridge.drain().await);
    }
}

#[tokio::test]
async fn a_server_whose_storage_is_away_for_long_loses_no_message() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), folder(1..=5));
    folder.lock().unwrap().refuses_fetch = true;
    let port = serve(Arc::clone(&folder)).await;
    let (bridge, mut streams) = start(dir.path(), port, &[]).await;
    soon(async {
        while folder.lock().unwrap().fetches < 40 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    folder.lock().unwrap().refuses_fetch = false;
    expect(&bridge, &mut streams, 1..=5).await;
    let ended = status(&bridge, is_watching).await;
    assert_eq!((ended.skipped, ended.failures), (0, 0), "{ended:?}");
    assert!(bridge.drain().await);
}

#[tokio::test]
async fn a_server_that_refuses_idle_is_neither_hammered_nor_taken_for_well() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), folder(1..=2));
    folder.lock().unwrap().refuses_idle = true;
    let port = serve(Arc::clone(&folder)).await;
    let slow = [("imap.odd.retry_min_s", Value::Double(0.5)), ("imap.odd.retry_max_s", Value::Double(0.5))];
    let (bridge, mut streams) = start(dir.path(), port, &slow).await;
    expect(&bridge, &mut streams, 1..=2).await;
    let failed = status(&bridge, |status| status.failures >= 3).await;
    assert_eq!(failed.last_error, "the server ended the session: not here");
    let logins = folder.lock().unwrap().logins;
    assert!(logins <= 6, "{logins} logins");
    assert!(bridge.drain().await);
}

#[tokio::test]
async fn news_without_end_are_looked_at_once_a_second() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), folder(1..=2));
    folder.lock().unwrap().has_hollow_news = true;
    let port = serve(Arc::clone(&folder)).await;
    let (bridge, mut streams) = start(dir.path(), port, &[("imap.odd.idle_s", Value::Double(60.0))]).await;
    expect(&bridge, &mut streams, 1..=2).await;
    status(&bridge, is_watching).await;
    let before = folder.lock().unwrap().looks;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let looks = folder.lock().unwrap().looks - before;
    assert!((1..=4).contains(&looks), "{looks} looks in 2.5 s");
    assert!(bridge.drain().await);
}
