// SPDX-License-Identifier: Apache-2.0
use tokio::io::DuplexStream;

use super::{text::stuffed, *};

const PATIENCE: Duration = Duration::from_secs(5);

/// A client of a server that says all of this by itself, and the server's end.
async fn greeted(said: &str) -> (Result<Client<DuplexStream>, ClientError>, DuplexStream) {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    far.write_all(said.as_bytes()).await.unwrap();
    (Client::greet(near, "here", PATIENCE).await, far)
}

#[tokio::test]
async fn a_server_that_does_not_answer_quit_is_left_soon() {
    let (near, mut far) = tokio::io::duplex(1024);
    far.write_all(b"220 there\r\n250 there\r\n").await.unwrap();
    let client = Client::greet(near, "here", Duration::from_secs(60)).await.unwrap();
    assert!(timeout(QUIT.saturating_mul(2), client.quit()).await.is_ok());
}

#[tokio::test]
async fn the_servers_name_is_no_extension() {
    let (client, _far) = greeted("220 a\r\n250-STARTTLS\r\n250-SIZE 9\r\n250 starttls\r\n").await;
    let client = client.unwrap();
    assert!(client.offers_starttls());
    assert_eq!(client.accepts().size, Some(9));
    let (client, _far) = greeted("220 a\r\n250 STARTTLS\r\n").await;
    assert!(!client.unwrap().offers_starttls());
}

#[tokio::test]
async fn whatever_comes_in_clear_behind_the_reply_to_starttls_ends_the_session() {
    for (behind, injected) in
        [("220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n", true), ("220 go\r\n2", true), ("220 go\r\n", false)]
    {
        let (client, mut far) = greeted("220 a\r\n250-a\r\n250 STARTTLS\r\n").await;
        far.write_all(behind.as_bytes()).await.unwrap();
        let started = client.unwrap().start_tls().await;
        assert_eq!(matches!(started, Err(ClientError::Injected)), injected, "{behind:?}");
        assert_eq!(started.is_ok(), !injected, "{behind:?}");
    }
    // Also if it comes before the command.
    let (client, _far) = greeted("220 a\r\n250-a\r\n250 STARTTLS\r\n220 go\r\n250 evil\r\n").await;
    assert!(matches!(client.unwrap().start_tls().await, Err(ClientError::Injected)));
}

#[tokio::test]
async fn what_was_offered_before_tls_is_forgotten() {
    let (near, mut far) = tokio::io::duplex(1024);
    far.write_all(b"250-a\r\n250 SIZE 5\r\n").await.unwrap();
    let client = Client::after_tls(near, "here", PATIENCE).await.unwrap();
    assert_eq!((client.offers_starttls(), client.accepts().size), (false, Some(5)));
    let mut said = [0; 11];
    far.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"EHLO here\r\n");
}

#[tokio::test]
async fn a_refusal_of_starttls_is_told() {
    let (client, mut far) = greeted("220 a\r\n250-a\r\n250 STARTTLS\r\n").await;
    far.write_all(b"454 4.7.0 no key\r\n").await.unwrap();
    let error = client.unwrap().start_tls().await.err().unwrap();
    assert_eq!(error.to_string(), "smart host: STARTTLS refused: 454 4.7.0 no key");
}

#[tokio::test]
async fn a_server_that_wants_tls_or_a_login_refuses_no_mail_for_good() {
    for replies in ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n", "250 ok\r\n250 ok\r\n250 ok\r\n"] {
        let error = sent(&format!("{replies}530 5.7.0 Authentication required\r\n")).await.0.unwrap_err();
        assert!(!error.data_sent && matches!(error.error, ClientError::Wants(_)), "{error}");
    }
}

#[tokio::test]
async fn a_mail_is_taken_by_any_reply_of_success() {
    for (code, delivered, refused) in
        [(250, 0b11, 0), (251, 0b11, 0), (252, 0b11, 0), (354, 0, 0), (451, 0, 0), (554, 0, 0b11)]
    {
        let outcome =
            sent(&format!("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n{code} so\r\n")).await.0.unwrap();
        assert_eq!((outcome.delivered, outcome.refused), (delivered, refused), "{code}");
    }
}

/// Sends a mail to `a@x.test` and `b@x.test` by a server that says `replies` to it and closes the connection.
async fn sent(replies: &str) -> (Result<Outcome, SendError>, bool) {
    let to = ["a@x.test", "b@x.test"].map(str::to_owned).to_vec();
    let mail = Message { mail_from: String::new(), rcpt_to: to, data: b"Subject: s\r\n\r\n".to_vec() };
    let (client, mut far) = greeted("220 a\r\n250 a\r\n").await;
    far.write_all(replies.as_bytes()).await.unwrap();
    far.shutdown().await.unwrap();
    let mut client = client.unwrap();
    (client.send(&mail, 0b11).await, client.is_usable())
}

#[tokio::test]
async fn a_refusal_counts_though_the_server_closes_behind_it() {
    for (replies, refused, reply) in [
        ("550 5.7.1 blocked\r\n", 0b11, "550 5.7.1 blocked"),
        ("451 later\r\n", 0, "451 later"),
        ("250 ok\r\n550 who\r\n550 gone\r\n", 0b11, "550 gone"),
        ("250 ok\r\n550 who\r\n", 0b01, "550 who"),
        ("250 ok\r\n550 who\r\n421 closing\r\n", 0b01, "550 who"),
        ("250 ok\r\n250 ok\r\n550 who\r\n554 no\r\n", 0b11, "554 no"),
        ("550 no\r\n421 closing\r\n", 0b11, "550 no"),
    ] {
        let (outcome, is_usable) = sent(replies).await;
        let told = Outcome { delivered: 0, refused, reply: reply.to_owned() };
        assert_eq!((outcome.unwrap(), is_usable), (told, false), "{replies}");
    }
    for lost in ["", "250 ok\r\n", "250 ok\r\n450 later\r\n", "421 closing\r\n"] {
        assert!(sent(lost).await.0.is_err(), "{lost}");
    }
    assert!(sent("550 no\r\n250 reset\r\n").await.1);
}

#[tokio::test]
async fn a_large_mail_may_take_longer_than_the_timeout_as_long_as_it_moves() {
    let limit = Duration::from_millis(500);
    let (near, mut far) = tokio::io::duplex(1 << 15);
    far.write_all(b"220 a\r\n250 a\r\n250 ok\r\n250 ok\r\n354 go\r\n").await.unwrap();
    let mut client = Client::greet(near, "here", limit).await.unwrap();
    let slow = tokio::spawn(async move {
        let (mut read, mut part) = (Vec::new(), vec![0; 1 << 16]);
        while !read.ends_with(b"\r\n.\r\n") {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let length = far.read(&mut part).await.unwrap();
            read.extend_from_slice(&part[..length]);
        }
        far.write_all(b"250 taken\r\n").await.unwrap();
    });
    let data = b"0123456789abcd\r\n".repeat(1 << 16);
    let mail = Message { mail_from: String::new(), rcpt_to: vec!["a@x.test".to_owned()], data };
    let start = tokio::time::Instant::now();
    assert_eq!(client.send(&mail, 1).await.unwrap().delivered, 1);
    assert!(start.elapsed() > limit);
    slow.await.unwrap();
    // A server that reads nothing is left after the timeout.
    let (near, mut far) = tokio::io::duplex(1 << 15);
    far.write_all(b"220 a\r\n250 a\r\n250 ok\r\n250 ok\r\n354 go\r\n").await.unwrap();
    let mut client = Client::greet(near, "here", Duration::from_millis(50)).await.unwrap();
    let error = client.send(&mail, 1).await.unwrap_err();
    assert!(!error.data_sent && matches!(error.error, ClientError::Timeout(_)), "{error}");
}

#[test]
fn stuffs_dots_and_ends_with_a_dot_line() {
    assert_eq!(stuffed(b".a\r\n\r\n..\r\nb"), b"..a\r\n\r\n...\r\nb\r\n.\r\n");
    assert_eq!(stuffed(b""), b".\r\n");
}
