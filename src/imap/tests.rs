// SPDX-License-Identifier: Apache-2.0
//! Servers that do not do as they should.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    time::{Instant, sleep},
};

use crate::{Access, Body, Credentials, ImapError, Memory, Security, Server, Session, Wake};

const PASSWORD: &str = "secret-of-the-tests";

/// What a server says to a command without its tag; `{tag}` stands for that. Nothing: it is silent.
type Script = fn(&str) -> String;

/// What a server says that lets anybody in, and has one empty folder.
fn usual(command: &str) -> String {
    let verb = command.split(' ').next().unwrap_or_default();
    match verb {
        "CAPABILITY" => "* CAPABILITY IMAP4rev1 IDLE\r\n{tag} OK done\r\n".to_owned(),
        "EXAMINE" | "SELECT" => {
            "* 0 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 1] x\r\n{tag} OK done\r\n".to_owned()
        }
        "LOGOUT" => "* BYE\r\n{tag} OK done\r\n".to_owned(),
        _ => "{tag} OK done\r\n".to_owned(),
    }
}

/// Serves with this greeting; returns how to reach it, and all that it will have been told.
async fn serve(greeting: &'static str, script: Script, security: Security) -> (Server, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&told);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let _ = write.write_all(greeting.as_bytes()).await;
            let mut lines = BufReader::new(read).lines();
            let mut idle = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                *heard.lock().unwrap() += &format!("{line}\n");
                // DONE has no tag, and what answers it has that of IDLE.
                let (tag, command) = line.split_once(' ').unwrap_or((&idle, &line));
                let tag = tag.to_owned();
                if command == "IDLE" {
                    idle.clone_from(&tag);
                }
                let reply = script(command).replace("{tag}", &tag);
                if write.write_all(reply.as_bytes()).await.is_err() {
                    break;
                }
                if reply.ends_with('!') {
                    break;
                }
            }
        }
    });
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("ca.pem");
    std::fs::write(&authority, made.cert.pem()).unwrap();
    let tls = tls::client::Client::new(Some(&authority)).unwrap();
    let patience = Duration::from_millis(300);
    (Server { host: "127.0.0.1".to_owned(), port, security, tls, patience }, told)
}

async fn open(script: Script) -> Result<Session, ImapError> {
    let (server, _) = serve("* OK ready\r\n", script, Security::Plaintext).await;
    Session::open(&server, "dispatch", &Credentials::Password(PASSWORD.to_owned())).await
}

fn words(result: Result<Session, ImapError>) -> String {
    result.err().expect("an error").to_string()
}

#[tokio::test]
async fn a_greeting_that_makes_no_sense_ends_only_this_session() {
    for greeting in
        ["* OK {0}\r\n", "* OK {5}\r\nabcde\r\n", "+ \r\n", "\0\0\0\r\n", "220 smtp.test ESMTP\r\n"]
    {
        let (server, _) = serve(greeting, usual, Security::Plaintext).await;
        let session = Session::open(&server, "dispatch", &Credentials::Password(PASSWORD.to_owned())).await;
        assert!(matches!(session, Err(ImapError::Protocol(_) | ImapError::Silent(_))), "{greeting:?}");
    }
    let (server, _) = serve("* BYE too many connections\r\n", usual, Security::Plaintext).await;
    let session = Session::open(&server, "dispatch", &Credentials::Password(PASSWORD.to_owned())).await;
    assert_eq!(words(session), "the server ended the session: too many connections");
}

#[tokio::test]
async fn a_refused_login_needs_a_person_and_its_words_are_short() {
    for answer in [
        "{tag} NO [AUTHENTICATIONFAILED] no\r\n",
        "{tag} BAD no\r\n",
        "{tag} NO mot de passe refus\u{e9}\r\n",
    ] {
        let script: Script = match answer {
            "{tag} BAD no\r\n" => |command| {
                if command.starts_with("LOGIN") { "{tag} BAD no\r\n".into() } else { usual(command) }
            },
            _ if answer.is_ascii() => |command| {
                let long = "x".repeat(100_000);
                if command.starts_with("LOGIN") { format!("{{tag}} NO {long}\r\n") } else { usual(command) }
            },
            _ => |command| {
                let words = "{tag} NO mot de passe refus\u{e9}\r\n";
                if command.starts_with("LOGIN") { words.into() } else { usual(command) }
            },
        };
        let error = open(script).await.err().unwrap();
        assert!(error.needs_a_person() && error.to_string().len() < 400, "{answer}: {error}");
    }
}

#[tokio::test]
async fn what_a_server_says_is_bounded_in_bytes_and_time() {
    let mut session =
        open(
            |command| {
                if command.starts_with("LIST") { "* 1 EXISTS\r\n".repeat(500_000) } else { usual(command) }
            },
        )
        .await
        .unwrap();
    assert!(matches!(session.folders().await, Err(ImapError::TooMuch(_))));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while stream.write_all(b"*").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    let (other, _) = serve("", usual, Security::Plaintext).await;
    let began = Instant::now();
    let server = Server { port, ..other };
    let session = Session::open(&server, "dispatch", &Credentials::Password(PASSWORD.to_owned())).await;
    assert!(matches!(session, Err(ImapError::Slow)));
    assert!((3..20).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_in_several_lines_is_one_answer() {
    let mut session = open(|command| {
        if command.starts_with("UID SEARCH") {
            "* SEARCH 9 7\r\n* 3 EXISTS\r\n* SEARCH 8\r\n{tag} OK done\r\n".into()
        } else {
            usual(command)
        }
    })
    .await
    .unwrap();
    assert_eq!(session.uids_from(8).await.unwrap(), [8, 9]);
}

/// Fetches UIDs 5 to 9, up to 100 bytes each.
async fn fetch(script: Script) -> Result<Vec<(u32, Option<Vec<u8>>)>, ImapError> {
    let mut session = open(script).await?;
    session.open_folder("INBOX", Access::Read).await?;
    let memory = Memory::new(1000);
    let mut fetch = session.fetch(5..=9, 100, &memory)?;
    let mut messages = Vec::new();
    while let Some(message) = fetch.next().await? {
        let Body::Whole(data) = message.body else {
            messages.push((message.uid, None));
            break;
        };
        messages.push((message.uid, Some(data)));
    }
    Ok(messages)
}

#[tokio::test]
async fn messages_come_once_and_only_those_that_were_asked_for() {
    fn with(command: &str, messages: &str) -> String {
        if command.starts_with("UID FETCH") {
            format!("{messages}{{tag}} OK done\r\n")
        } else {
            usual(command)
        }
    }
    let taken = fetch(|command| {
        with(
            command,
            "* 1 FETCH (UID 9 BODY[] {2}\r\nhi)\r\n* 2 FETCH (FLAGS (\\Seen))\r\n* 3 FETCH (UID 5 BODY[] {0}\r\n)\r\n",
        )
    });
    assert_eq!(taken.await.unwrap(), [(9, Some(b"hi".to_vec())), (5, Some(Vec::new()))]);
    for script in [
        (|command| {
            with(command, "* 1 FETCH (UID 9 BODY[] {2}\r\nhi)\r\n* 1 FETCH (UID 9 BODY[] {2}\r\nho)\r\n")
        }) as Script,
        |command| with(command, "* 1 FETCH (UID 10 BODY[] {2}\r\nhi)\r\n"),
        |command| with(command, "* 1 FETCH (BODY[] {2}\r\nhi)\r\n"),
    ] {
        assert!(matches!(fetch(script).await, Err(ImapError::Protocol(_))));
    }
    // Nobody waits for the rest of what is too large.
    let large = fetch(|command| with(command, "* 1 FETCH (UID 6 BODY[] {4000000000}\r\nbegin!"));
    assert_eq!(large.await.unwrap(), [(6, None)]);
    let cut = fetch(|command| with(command, "* 1 FETCH (UID 6 BODY[] {50}\r\nbegin!")).await;
    assert!(matches!(cut, Err(ImapError::Closed | ImapError::Silent(_))), "{cut:?}");
    let mute =
        fetch(|command| if command.starts_with("UID FETCH") { String::new() } else { usual(command) }).await;
    assert!(matches!(mute, Err(ImapError::Silent(_))), "{mute:?}");
}

#[tokio::test]
async fn idle_ends_with_news_with_time_or_with_a_refusal() {
    async fn idle(script: Script) -> Result<Wake, ImapError> {
        let mut session = open(script).await?;
        session.idle(Duration::from_millis(200), std::future::pending()).await
    }
    let time = idle(|command| match command {
        "IDLE" => "+ idling\r\n* OK still here\r\n* 1 FETCH (FLAGS ())\r\n".into(),
        other => usual(other),
    });
    assert_eq!(time.await.unwrap(), Wake::Time);
    let news = idle(|command| match command {
        "IDLE" => "+ idling\r\n* 3 EXISTS\r\n".into(),
        other => usual(other),
    });
    assert_eq!(news.await.unwrap(), Wake::News);
    let mute = idle(|command| match command {
        "IDLE" => "+ idling\r\n".into(),
        "DONE" => String::new(),
        other => usual(other),
    });
    assert!(matches!(mute.await, Err(ImapError::Silent(_))));
    let refused =
        idle(|command| if command == "IDLE" { "{tag} NO not now\r\n".into() } else { usual(command) });
    assert!(matches!(refused.await, Err(ImapError::No(_))));
    let gone = idle(|command| if command == "IDLE" { "* BYE!".into() } else { usual(command) });
    assert!(matches!(gone.await, Err(ImapError::Closed)));
}

#[tokio::test]
async fn without_tls_after_starttls_nothing_secret_is_said() {
    let (server, told) = serve(
        "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n",
        |command| if command == "STARTTLS" { "{tag} BAD what\r\n".into() } else { usual(command) },
        Security::StartTls,
    )
    .await;
    let session = Session::open(&server, "dispatch", &Credentials::Password(PASSWORD.to_owned())).await;
    let error = words(session);
    assert!(error.contains("perhaps it does not offer it") || error.contains("silent"), "{error}");
    let told = told.lock().unwrap().clone();
    assert!(told.contains("STARTTLS") && !told.contains("LOGIN") && !told.contains("AUTHENTICATE"), "{told}");
}
