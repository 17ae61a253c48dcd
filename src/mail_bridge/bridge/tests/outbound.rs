// SPDX-License-Identifier: Apache-2.0
use mail::{DeliveryState, OutboundKind, OutboundMail};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::*;

/// A smart host that takes every mail, if it takes a login; what it took.
async fn serve(listener: TcpListener, takes_login: bool, took: mpsc::UnboundedSender<String>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(session(stream, takes_login, took.clone()));
    }
}

async fn session(stream: TcpStream, takes_login: bool, took: mpsc::UnboundedSender<String>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 sink\r\n").await.ok()?;
    let (mut line, mut mail) = (String::new(), None::<String>);
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        if let Some(text) = &mut mail {
            if line != ".\r\n" {
                text.push_str(&line);
                continue;
            }
            let _ = took.send(mail.take().unwrap_or_default());
        }
        let reply = match &line[..4.min(line.len())] {
            "EHLO" => "250-sink\r\n250 AUTH PLAIN\r\n",
            "AUTH" if !takes_login => "535 5.7.8 wrong\r\n",
            "AUTH" => "235 in\r\n",
            "DATA" => {
                mail = Some(String::new());
                "354 go\r\n"
            }
            _ => "250 ok\r\n",
        };
        stream.write_all(reply.as_bytes()).await.ok()?;
    }
}

fn notice(text: &str) -> OutboundMail {
    OutboundMail {
        answers: None,
        kind: OutboundKind::Notice,
        message_id: format!("{text}@bridge.test"),
        from: String::new(),
        to: vec!["ada@x.test".to_owned()],
        reply_to: Vec::new(),
        urgent: false,
        subject: "notice".to_owned(),
        in_reply_to: String::new(),
        text: text.to_owned(),
        authentication_results: String::new(),
    }
}

/// The next delivery that is not `Queued`.
async fn outcome(streams: &mut Streams) -> Delivery {
    let next = async {
        loop {
            let delivery = streams.deliveries.recv().await.unwrap();
            if delivery.state != DeliveryState::Queued {
                return delivery;
            }
        }
    };
    timeout(Duration::from_secs(20), next).await.unwrap()
}

#[tokio::test]
async fn the_next_smart_host_takes_over_and_the_first_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (first_address, second) =
        (first.local_addr().unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    drop(first);
    let overrides = [
        ("smarthost", Value::Text(first_address.to_string())),
        ("smarthost_fallbacks", Value::Texts(vec![second.local_addr().unwrap().to_string()])),
        ("smarthost_probe_s", Value::Double(0.05)),
    ];
    let (took_second, mut by_second) = mpsc::unbounded_channel();
    tokio::spawn(serve(second, true, took_second));
    let (bridge, mut streams) = start_with(dir.path(), &overrides).await;
    bridge.handle().outbound(notice("one")).await.unwrap();
    let delivery = outcome(&mut streams).await;
    assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Delivered, 1));
    assert!(by_second.recv().await.unwrap().contains("one"));
    let status = bridge.handle().status().pop().unwrap();
    assert!(status.message.starts_with("sending by another smart host, the first is away: "), "{status:?}");

    let (took_first, mut by_first) = mpsc::unbounded_channel();
    tokio::spawn(serve(TcpListener::bind(first_address).await.unwrap(), true, took_first));
    for n in 0.. {
        bridge.handle().outbound(notice(&format!("more{n}"))).await.unwrap();
        assert_eq!(outcome(&mut streams).await.state, DeliveryState::Delivered);
        if by_first.try_recv().is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bridge.handle().status().pop().unwrap().message, "sending");
    assert!(bridge.drain().await);
}

#[tokio::test]
async fn a_refused_login_is_a_host_that_is_away_and_the_status_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "open sesame").unwrap();
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let overrides = [
        ("smarthost", Value::Text(listener.local_addr().unwrap().to_string())),
        ("smarthost_user", Value::Text("robot".to_owned())),
        ("smarthost_password_path", Value::Text(password.display().to_string())),
    ];
    let (took, mut mails) = mpsc::unbounded_channel();
    tokio::spawn(serve(listener, false, took));
    let (bridge, mut streams) = start_with(dir.path(), &overrides).await;
    bridge.handle().outbound(notice("one")).await.unwrap();
    let delivery = outcome(&mut streams).await;
    assert_eq!(delivery.state, DeliveryState::Deferred);
    assert_eq!(delivery.reply, "smart host: login refused: 535 5.7.8 wrong");
    let status = bridge.handle().status().pop().unwrap();
    assert_eq!(status.message, "the last mail was not delivered: smart host: login refused: 535 5.7.8 wrong");
    assert!(mails.try_recv().is_err());
    // Without the password nothing starts.
    assert!(bridge.drain().await);
    std::fs::remove_file(&password).unwrap();
    let values = overrides.map(|(name, value)| (name.to_owned(), value));
    let values = resolve(SPECS, BTreeMap::from(values)).unwrap();
    let started = Bridge::start(Params::load(&values, dir.path()).unwrap()).await;
    let error = started.err().unwrap().to_string();
    assert!(error.starts_with("parameter 'smarthost_password_path': "), "{error}");
}
