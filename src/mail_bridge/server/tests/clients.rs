// SPDX-License-Identifier: Apache-2.0
use super::*;

#[tokio::test]
async fn a_client_that_is_not_named_is_refused_and_counted() {
    for (client, codes) in [("192.0.2.1", "554"), ("127.0.0.0/8", "220")] {
        let scene = start(&[("allowed_clients", Value::Texts(vec![client.to_owned()]))]).await;
        for address in [scene.smtp(), scene.bridge.lmtp_addr().unwrap()] {
            assert_eq!(talk(&mut TcpStream::connect(address).await.unwrap(), "", 1).await, codes);
        }
        assert_eq!(
            (scene.intake().refused_clients, scene.intake().refused_connections),
            (if codes == "554" { 2 } else { 0 }, 0)
        );
    }
}

/// A header of the PROXY protocol for an IPv4 client.
fn header(client: [u8; 4]) -> Vec<u8> {
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &client, &[10, 0, 0, 1, 0x9c, 0x40, 0, 25]].concat()
}

/// Connects, sends `first`, and returns the code of the greeting.
async fn greeting(address: SocketAddr, first: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(first).await.unwrap();
    talk(&mut stream, "", 1).await
}

#[tokio::test]
async fn the_client_that_a_load_balancer_names_is_who_is_admitted_and_recorded() {
    let mut scene = start_tls(&[
        ("proxy_protocol_from", Value::Texts(vec!["127.0.0.1".to_owned()])),
        ("allowed_clients", Value::Texts(vec!["192.0.2.0/24".to_owned()])),
        ("require_tls", Value::Bool(true)),
    ])
    .await;
    scene.bridge.handle().set_subscribers(1);
    assert_eq!(greeting(scene.smtp(), &header([198, 51, 100, 1])).await, "554");
    assert_eq!(greeting(scene.smtp(), &header([127, 0, 0, 1])).await, "554");
    let mut stream = TcpStream::connect(scene.smtp()).await.unwrap();
    stream.write_all(&header([192, 0, 2, 7])).await.unwrap();
    let codes = talk(&mut stream, "EHLO c\r\nMAIL FROM:<>\r\n", 3).await;
    assert_eq!(codes, "220 250 530", "the client is not on this host");
    let mut stream = TcpStream::connect(scene.bridge.smtps_addr().unwrap()).await.unwrap();
    stream.write_all(&header([192, 0, 2, 7])).await.unwrap();
    let mut stream = scene.client().connect("localhost", stream).await.unwrap();
    assert_eq!(
        talk(&mut stream, &format!("EHLO c\r\n{MAIL}hi\r\n.\r\n"), 6).await,
        "220 250 250 250 354 250"
    );
    let mail = soon(scene.streams.mails.recv()).await.unwrap();
    assert!(
        matches!(mail.origin, mail::Origin::Smtp(envelope) if envelope.peer == IpAddr::from([192, 0, 2, 7]))
    );
}

#[tokio::test]
async fn a_load_balancer_without_a_header_is_dropped_without_a_word() {
    let scene = start(&[
        ("proxy_protocol_from", Value::Texts(vec!["127.0.0.0/8".to_owned()])),
        ("session_timeout_s", Value::Double(0.3)),
        ("max_connections", Value::Int(2)),
    ])
    .await;
    let huge = [&header([192, 0, 2, 7])[..14], &[0xff; 65_537]].concat();
    let first: [&[u8]; 5] = [b"EHLO client.example\r\n", &huge, b"", b"\r\n\r\n\0\r", &[0; 70_000]];
    for bytes in first {
        let mut stream = TcpStream::connect(scene.smtp()).await.unwrap();
        // The server may be gone before all is sent.
        let _ = stream.write_all(bytes).await;
        assert!(rest(&mut stream).await.is_empty());
    }
    assert_eq!(scene.intake().refused_clients, 5);
    assert_eq!(greeting(scene.smtp(), &header([192, 0, 2, 7])).await, "220");
}

#[tokio::test]
async fn a_header_of_anybody_else_is_a_bad_command() {
    let scene = start(&[("proxy_protocol_from", Value::Texts(vec!["192.0.2.1".to_owned()]))]).await;
    let mut stream = connect(scene.smtp()).await;
    stream.write_all(&header([192, 0, 2, 7])).await.unwrap();
    assert!(talk(&mut stream, "\r\n", 1).await.starts_with("500"));
}
