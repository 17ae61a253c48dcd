// SPDX-License-Identifier: Apache-2.0
//! Mailboxes on a real Dovecot, read by IMAP.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use health::Level;
use mail::{Action, MailId, Origin};
use mail_bridge::{
    bridge::{Bridge, Streams},
    imap::status::{FolderStatus, Phase},
};
use settings::Value;
use testbed::dovecot::{Dovecot, PASSWORD, Wish};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::support::{deliver, disposition, soon, start_publishing, text};

/// A bridge with one account named `dispatch`, and where it keeps everything.
struct Reader {
    directory: tempfile::TempDir,
    values: BTreeMap<String, Value>,
}

impl Reader {
    fn of(server: &Dovecot, overrides: &[(&str, Value)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut reader = Self { directory, values: BTreeMap::new() };
        reader.values.insert("imap.accounts".into(), Value::Texts(vec!["dispatch".into()]));
        reader.set(&[
            ("host", text("localhost")),
            ("port", Value::Int(server.tls_port.into())),
            ("ca_path", text(server.certificate().display())),
            ("user", text("dispatch@fleet.test")),
            ("password_path", text(password(reader.directory.path(), PASSWORD).display())),
            ("first_sync", text("all")),
            ("retry_min_s", Value::Double(0.05)),
            ("retry_max_s", Value::Double(0.5)),
            ("timeout_s", Value::Double(10.0)),
        ]);
        reader.set(overrides);
        reader
    }

    fn set(&mut self, overrides: &[(&str, Value)]) {
        let full = |name: &str| format!("imap.dispatch.{name}");
        self.values.extend(overrides.iter().map(|(name, value)| (full(name), value.clone())));
    }

    async fn start(&self) -> (Bridge, Streams) {
        let values: Vec<_> = self.values.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        start_publishing(&self.directory.path().join("journal"), &values).await
    }
}

fn password(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("password");
    fs::write(&path, format!("{text}\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

const USER: &str = "dispatch@fleet.test";

fn message(number: usize) -> Vec<u8> {
    format!("From: ada@x.test\r\nSubject: mail {number}\r\n\r\nwhere is vehicle {number}?\r\n").into_bytes()
}

/// The next mails, as many as there are numbers; each must come once. In what order is the window's business.
async fn expect(bridge: &Bridge, streams: &mut Streams, numbers: impl Iterator<Item = usize>) {
    let mut wanted: BTreeMap<_, _> = numbers.map(|number| (MailId::of(&message(number)), number)).collect();
    while !wanted.is_empty() {
        let mail = soon(streams.mails.recv()).await.unwrap();
        assert!(
            wanted.remove(&mail.id).is_some(),
            "came twice, or was not sent: {}",
            String::from_utf8_lossy(&mail.data)
        );
        bridge.handle().disposition(disposition(mail.id, Action::Ignored)).await.unwrap();
    }
}

/// Waits until the status of the only folder is as wanted.
async fn status(bridge: &Bridge, wanted: impl Fn(&FolderStatus) -> bool) -> FolderStatus {
    let handle = bridge.handle();
    let mut changes = handle.board().changes();
    let found = async {
        loop {
            if let Some(status) = handle.board().read().into_iter().find(&wanted) {
                return status;
            }
            changes.changed().await.unwrap();
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), found).await;
    found.unwrap_or_else(|_| panic!("waited in vain: {:?}", handle.board().read()))
}

fn is_watching(status: &FolderStatus) -> bool {
    status.phase == Phase::Watching
}

#[tokio::test]
async fn fetches_what_is_there_and_what_comes_and_changes_nothing() {
    let server = Dovecot::start(Wish::default());
    for number in 0..3 {
        server.deliver(USER, "INBOX", &message(number));
    }
    let reader = Reader::of(&server, &[]);
    let (bridge, mut streams) = reader.start().await;
    let mail = soon(streams.mails.recv()).await.unwrap();
    assert_eq!(mail.data, message(0));
    let Origin::Imap(origin) = &mail.origin else { panic!("{:?}", mail.origin) };
    assert_eq!((origin.account.as_str(), origin.folder.as_str(), origin.uid), (USER, "INBOX", 1));
    bridge.handle().disposition(disposition(mail.id, Action::Ignored)).await.unwrap();
    expect(&bridge, &mut streams, 1..3).await;
    let status = status(&bridge, is_watching).await;
    assert_eq!((status.messages, status.fetched, status.skipped, status.failures), (3, 3, 0, 0));
    server.deliver(USER, "INBOX", &message(3));
    expect(&bridge, &mut streams, 3..4).await;
    assert!(bridge.drain().await);
    let messages = server.messages(USER, "INBOX");
    assert!(messages.iter().all(|(flags, _)| flags.is_empty()), "marked as read: {messages:?}");
}

#[tokio::test]
async fn a_new_account_takes_only_what_comes_from_now_on() {
    let server = Dovecot::start(Wish::default());
    server.deliver(USER, "INBOX", &message(0));
    let reader = Reader::of(&server, &[("first_sync", text("new"))]);
    let (bridge, mut streams) = reader.start().await;
    status(&bridge, is_watching).await;
    server.deliver(USER, "INBOX", &message(1));
    expect(&bridge, &mut streams, 1..2).await;
    assert!(bridge.drain().await);

    // Also what comes while it is not there.
    server.deliver(USER, "INBOX", &message(2));
    let (bridge, mut streams) = reader.start().await;
    expect(&bridge, &mut streams, 2..3).await;
    status(&bridge, is_watching).await;
    assert!(bridge.drain().await);
}

#[tokio::test]
async fn a_date_takes_what_came_then_or_later() {
    let server = Dovecot::start(Wish::default());
    server.deliver(USER, "INBOX", &message(0));
    // INTERNALDATE is the time of the file.
    for (date, count) in [("2001-02-03", 1), ("2101-02-03", 0)] {
        let reader = Reader::of(&server, &[("first_sync", text(date))]);
        let (bridge, _streams) = reader.start().await;
        assert_eq!(status(&bridge, is_watching).await.fetched, count, "{date}");
        assert!(bridge.drain().await);
    }
}

#[tokio::test]
async fn a_server_that_was_away_is_read_when_it_is_back() {
    let mut server = Dovecot::start(Wish::default());
    server.deliver(USER, "INBOX", &message(0));
    let reader = Reader::of(&server, &[]);
    let (bridge, mut streams) = reader.start().await;
    expect(&bridge, &mut streams, 0..1).await;
    status(&bridge, is_watching).await;
    server.pause();
    let failed = status(&bridge, |status| status.failures >= 3).await;
    assert!(failed.last_error.starts_with("cannot connect to localhost:"), "{}", failed.last_error);
    assert!(failed.next_try.is_some());
    let account = bridge.handle().status().into_iter().find(|status| status.name == "imap dispatch").unwrap();
    assert_eq!(account.level, Level::Error);
    server.deliver(USER, "INBOX", &message(1));
    server.resume();
    expect(&bridge, &mut streams, 1..2).await;
    let status = status(&bridge, is_watching).await;
    assert_eq!((status.failures, status.last_error.as_str()), (0, ""));
    assert!(bridge.drain().await);
}

#[tokio::test]
async fn new_uids_bring_no_mail_twice_and_leave_none_out() {
    let mut server = Dovecot::start(Wish::default());
    for number in 0..20 {
        server.deliver(USER, "INBOX", &message(number));
    }
    for first_sync in ["all", "new"] {
        let mut reader = Reader::of(&server, &[("first_sync", text("all"))]);
        // The journal forgets at once what is settled, so only the folder's own log can tell.
        reader.values.insert("journal_remembered".into(), Value::Int(0));
        reader.values.insert("journal_keep_segments".into(), Value::Int(1));
        reader.values.insert("journal_segment_bytes".into(), Value::Int(4096));
        let (bridge, mut streams) = reader.start().await;
        let there = server.messages(USER, "INBOX").len();
        expect(&bridge, &mut streams, 0..there).await;
        status(&bridge, is_watching).await;
        assert!(bridge.drain().await);

        reader.set(&[("first_sync", text(first_sync))]);
        server.deliver(USER, "INBOX", &message(there));
        server.renumber(USER, "INBOX");
        let (bridge, mut streams) = reader.start().await;
        // Were one of the old mails published, this would find it.
        expect(&bridge, &mut streams, there..=there).await;
        status(&bridge, is_watching).await;
        server.deliver(USER, "INBOX", &message(there + 1));
        expect(&bridge, &mut streams, there + 1..there + 2).await;
        assert!(bridge.drain().await);
    }
}

#[tokio::test]
async fn settled_messages_are_flagged_or_moved_also_after_a_restart() {
    for (action, change) in
        [("flag", ("settled_flag", text("\\Flagged"))), ("move", ("settled_folder", text("Done")))]
    {
        let server = Dovecot::start(Wish::default());
        for number in 0..3 {
            server.deliver(USER, "INBOX", &message(number));
        }
        server.deliver(USER, "Done", &message(99));
        let reader = Reader::of(&server, &[("when_settled", text(action)), change]);
        let (bridge, mut streams) = reader.start().await;
        let marked = |count: usize| {
            let (inbox, done) = (server.messages(USER, "INBOX"), server.messages(USER, "Done"));
            match action {
                "flag" => inbox.iter().filter(|(flags, _)| flags.contains('F')).count() == count,
                _ => (inbox.len(), done.len()) == (3 - count, 1 + count),
            }
        };
        let mut ids = Vec::new();
        while ids.len() < 3 {
            ids.push(soon(streams.mails.recv()).await.unwrap().id);
        }
        status(&bridge, is_watching).await;
        assert!(marked(0));
        bridge.handle().disposition(disposition(ids[0], Action::Ignored)).await.unwrap();
        soon(async {
            while !marked(1) {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
        })
        .await;

        // One is settled while the server is away.
        let mut server = server;
        server.pause();
        status(&bridge, |status| status.failures > 0).await;
        bridge.handle().disposition(disposition(ids[1], Action::Ignored)).await.unwrap();
        assert!(bridge.drain().await);
        server.resume();
        let (bridge, _streams) = reader.start().await;
        let marked = |count: usize| match action {
            "flag" => {
                server.messages(USER, "INBOX").iter().filter(|(flags, _)| flags.contains('F')).count()
                    == count
            }
            _ => server.messages(USER, "INBOX").len() == 3 - count,
        };
        soon(async {
            while !marked(2) {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
        })
        .await;
        assert!(bridge.drain().await);
    }
}

#[tokio::test]
async fn says_in_words_why_a_mailbox_cannot_be_read() {
    let server = Dovecot::start(Wish::default());
    server.deliver(USER, "INBOX", &message(0));
    let wrong = tempfile::tempdir().unwrap();
    let other = Dovecot::start(Wish::default());
    for (change, says) in [
        (
            ("password_path", text(password(wrong.path(), "wrong").display())),
            "refuses the user or the password",
        ),
        (("password_path", text("/nowhere")), "secret file '/nowhere': cannot open"),
        (("ca_path", text(other.certificate().display())), "authority that this host does not trust"),
        (("host", text("127.0.0.1")), "it is for another name"),
        (("port", Value::Int(server.port.into())), "is this the port for TLS?"),
        (("folders", Value::Texts(vec!["Nothing".into()])), "the server says no: "),
    ] {
        let reader = Reader::of(&server, &[change]);
        let (bridge, _streams) = reader.start().await;
        let status = status(&bridge, |status| status.failures > 0).await;
        assert!(status.last_error.contains(says), "{says}: {}", status.last_error);
        let trial = soon(bridge.handle().try_mailbox("dispatch")).await;
        assert!(
            trial.problem.contains(if says.starts_with("the server") {
                "no folder \"Nothing\""
            } else {
                says
            }),
            "{trial:?}"
        );
        assert!(bridge.drain().await);
    }
    let reader = Reader::of(&server, &[]);
    let (bridge, _streams) = reader.start().await;
    let trial = soon(bridge.handle().try_mailbox("dispatch")).await;
    assert_eq!(trial.problem, "");
    let inbox = trial.folders.iter().find(|folder| folder.name == "INBOX").unwrap();
    assert!(inbox.is_read && inbox.counts.messages == 1 && inbox.counts.unseen == 1, "{trial:?}");
    let trial = soon(bridge.handle().try_mailbox("claims")).await;
    assert_eq!(trial.problem, "no account \"claims\": imap.accounts has dispatch");
    assert!(bridge.drain().await);
}

#[tokio::test]
async fn speaks_starttls_and_polls_where_there_is_no_idle() {
    let server = Dovecot::start(Wish { capabilities: Some("IMAP4rev1") });
    server.deliver(USER, "INBOX", &message(0));
    let starttls = [("security", text("starttls")), ("port", Value::Int(server.port.into()))];
    let mut reader = Reader::of(&server, &starttls);
    reader.set(&[("poll_s", Value::Double(0.2))]);
    let (bridge, mut streams) = reader.start().await;
    expect(&bridge, &mut streams, 0..1).await;
    status(&bridge, |status| status.phase == Phase::Polling).await;
    server.deliver(USER, "INBOX", &message(1));
    expect(&bridge, &mut streams, 1..2).await;
    assert!(bridge.drain().await);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_skipped_and_told() {
    let server = Dovecot::start(Wish::default());
    server.deliver(USER, "INBOX", &message(0));
    let large = [b"Subject: large\r\n\r\n".as_slice(), &b"x".repeat(70_000), b"\r\n"].concat();
    server.deliver(USER, "INBOX", &large);
    server.deliver(USER, "INBOX", &message(1));
    let mut reader = Reader::of(&server, &[]);
    reader.values.insert("max_message_bytes".into(), Value::Int(65_536));
    let (bridge, mut streams) = reader.start().await;
    expect(&bridge, &mut streams, 0..2).await;
    let status = status(&bridge, is_watching).await;
    assert_eq!((status.fetched, status.skipped, status.messages), (2, 1, 3));
    assert!(bridge.drain().await);
}

#[tokio::test]
async fn a_message_that_came_before_for_other_consumers_is_skipped_at_once() {
    let server = Dovecot::start(Wish::default());
    for number in 0..3 {
        server.deliver(USER, "INBOX", &message(number));
    }
    let mut reader = Reader::of(&server, &[]);
    let consumers = ["chatbot", "archive=archive@fleet.test"].map(str::to_owned).to_vec();
    reader.values.insert("consumers".into(), Value::Texts(consumers));
    reader.set(&[("address", text("archive@fleet.test"))]);
    // The second of them came by SMTP before, for chatbot.
    let mut accounts = Value::Texts(Vec::new());
    std::mem::swap(reader.values.get_mut("imap.accounts").unwrap(), &mut accounts);
    let mailbox: BTreeMap<_, _> = reader
        .values
        .extract_if("imap.dispatch.".to_owned().., |name, _| name.starts_with("imap.dispatch."))
        .collect();
    let (bridge, mut streams) = reader.start().await;
    deliver(&bridge, std::str::from_utf8(&message(1)).unwrap()).await;
    let id = soon(streams.mails.recv()).await.unwrap().id;
    bridge.handle().disposition(disposition(id, Action::Ignored)).await.unwrap();
    assert!(bridge.drain().await);
    reader.values.insert("imap.accounts".into(), accounts);
    reader.values.extend(mailbox);
    let (bridge, _streams) = reader.start().await;
    let status = status(&bridge, is_watching).await;
    assert_eq!((status.fetched, status.skipped, status.failures), (3, 1, 0));
    assert!(bridge.drain().await);
}

/// Passes connections on to `to`, and cuts each after so many bytes from the server; 0 passes all.
async fn cutting_proxy(to: u16, mut cuts: Vec<u64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let cut = if cuts.is_empty() { u64::MAX } else { cuts.remove(0) };
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let (client_read, mut client_write) = client.into_split();
                let (server_read, mut server_write) = server.into_split();
                tokio::spawn(async move {
                    let mut client_read = client_read;
                    let _ = copy(&mut client_read, &mut server_write).await;
                });
                let _ = copy(&mut server_read.take(cut), &mut client_write).await;
                let _ = client_write.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_connection_cut_anywhere_loses_and_repeats_nothing() {
    let server = Dovecot::start(Wish::default());
    for number in 0..40 {
        server.deliver(USER, "INBOX", &message(number));
    }
    // Every 97 bytes through handshake, login, the list, and the messages.
    let cuts: Vec<u64> = (1..90).map(|step| step * 97).collect();
    let proxy = cutting_proxy(server.port, cuts).await;
    let mut reader = Reader::of(&server, &[]);
    reader.set(&[
        ("host", text("127.0.0.1")),
        ("security", text("none")),
        ("port", Value::Int(proxy.port().into())),
        ("retry_min_s", Value::Double(0.01)),
        ("retry_max_s", Value::Double(0.01)),
    ]);
    let (bridge, mut streams) = reader.start().await;
    expect(&bridge, &mut streams, 0..40).await;
    status(&bridge, is_watching).await;
    soon(async {
        while bridge.handle().state().journal.unsettled > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(streams.mails.try_recv().is_err(), "a mail came twice");
    assert!(bridge.drain().await);
}

#[tokio::test]
async fn while_the_disk_is_full_the_messages_stay_where_they_are() {
    let server = Dovecot::start(Wish::default());
    for number in 0..5 {
        server.deliver(USER, "INBOX", &message(number));
    }
    let mut reader = Reader::of(&server, &[]);
    reader.values.insert("journal_reserve_bytes".into(), Value::Int(1 << 50));
    let (bridge, _streams) = reader.start().await;
    let status = status(&bridge, |status| status.failures > 2).await;
    assert!(status.last_error.contains("bytes free on its disk"), "{}", status.last_error);
    assert_eq!((status.skipped, bridge.handle().state().journal.unsettled), (0, 0));
    assert!(bridge.drain().await);

    reader.values.insert("journal_reserve_bytes".into(), Value::Int(0));
    let (bridge, mut streams) = reader.start().await;
    expect(&bridge, &mut streams, 0..5).await;
    assert!(bridge.drain().await);
}

/// A bridge that is dropped stops without a drain; only its journal finishes what it has been given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_at_any_moment_it_publishes_every_message() {
    const MESSAGES: usize = 1500;
    let server = Dovecot::start(Wish::default());
    server.deliver_all(USER, "INBOX", (0..MESSAGES).map(message));
    let mut reader = Reader::of(&server, &[]);
    reader.values.insert("max_in_flight".into(), Value::Int(10_000));
    let mut published = BTreeSet::new();
    let (mut cuts, mut partly) = (0, 0);
    for cut in 0..30_u64 {
        let (bridge, mut streams) = reader.start().await;
        let moment = Instant::now() + Duration::from_millis(cut * 7 % 120);
        while let Ok(Some(mail)) = tokio::time::timeout_at(moment, streams.mails.recv()).await {
            published.insert(mail.id);
            // Some of them are settled before the end.
            if mail.data.len() % 3 == 0 {
                bridge.handle().disposition(disposition(mail.id, Action::Ignored)).await.unwrap();
            }
        }
        cuts += 1;
        partly += u32::from((1..MESSAGES as u64).contains(&bridge.handle().board().read()[0].fetched));
        drop((bridge, streams));
    }
    let (bridge, mut streams) = reader.start().await;
    while published.len() < MESSAGES {
        published.insert(soon(streams.mails.recv()).await.unwrap().id);
    }
    status(&bridge, is_watching).await;
    let all: BTreeSet<_> = (0..MESSAGES).map(|number| MailId::of(&message(number))).collect();
    assert!(published == all, "{} of {}", published.len(), all.len());
    assert!(partly > 2, "{partly} of {cuts} were while messages were fetched");
    assert!(bridge.drain().await);
}

#[tokio::test]
async fn ninety_dead_servers_do_not_delay_ten_that_live() {
    let server = Dovecot::start(Wish::default());
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut reader = Reader::of(&server, &[]);
    let names: Vec<_> = (0..100).map(|number| format!("a{number}")).collect();
    reader.values.insert("imap.accounts".into(), Value::Texts(names.clone()));
    reader.values.insert("imap_connections_per_server".into(), Value::Int(100));
    let dispatch: Vec<_> =
        reader.values.clone().into_iter().filter(|(name, _)| name.starts_with("imap.dispatch.")).collect();
    reader.values.retain(|name, _| !name.starts_with("imap.dispatch."));
    for (number, name) in names.iter().enumerate() {
        for (full, value) in &dispatch {
            reader.values.insert(full.replace("dispatch", name), value.clone());
        }
        let mut set =
            |parameter: &str, value| reader.values.insert(format!("imap.{name}.{parameter}"), value);
        if number % 10 == 0 {
            let user = format!("user{number}");
            server.deliver(&user, "INBOX", &message(number));
            set("user", text(user));
        } else if number % 2 == 0 {
            set("port", Value::Int(silent.local_addr().unwrap().port().into()));
        } else {
            set("port", Value::Int(1));
        }
    }
    let (bridge, mut streams) = reader.start().await;
    expect(&bridge, &mut streams, (0..100).step_by(10)).await;
    assert!(bridge.drain().await);
}
