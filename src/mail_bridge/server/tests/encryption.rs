// SPDX-License-Identifier: Apache-2.0
use super::*;

#[tokio::test]
async fn takes_mails_after_starttls_on_smtp_and_lmtp_and_over_implicit_tls() {
    let scene = start_tls(&[]).await;
    for (address, hello) in [(scene.smtp(), "EHLO c"), (scene.bridge.lmtp_addr().unwrap(), "LHLO c")] {
        let mut plain = connect(address).await;
        assert_eq!(talk(&mut plain, &format!("{hello}\r\n"), 1).await, "250");
        assert_eq!(talk(&mut plain, "STARTTLS\r\n", 1).await, "220");
        let mut stream = scene.client().connect("localhost", plain).await.unwrap();
        assert_eq!(talk(&mut stream, "MAIL FROM:<>\r\n", 1).await, "503");
        assert_eq!(
            talk(&mut stream, &format!("{hello}\r\n{MAIL}hi {hello}\r\n.\r\nQUIT\r\n"), 6).await,
            "250 250 250 354 250 221"
        );
        assert!(rest(&mut stream).await.is_empty());
    }
    let plain = TcpStream::connect(scene.bridge.smtps_addr().unwrap()).await.unwrap();
    let mut stream = scene.client().connect("localhost", plain).await.unwrap();
    assert_eq!(talk(&mut stream, "EHLO c\r\n", 2).await, "220 250");
    // More than TLS and the socket keep at once.
    let big = format!("{MAIL}{}.\r\nQUIT\r\n", format!("{}\r\n", "x".repeat(998)).repeat(3000));
    assert_eq!(talk(&mut stream, &big, 5).await, "250 250 354 250 221");
    assert_eq!(scene.intake().accepted, 3);
}

#[tokio::test]
async fn plaintext_after_starttls_is_never_a_command() {
    let scene = start_tls(&[]).await;
    let mut stream = connect(scene.smtp()).await;
    stream.write_all(b"STARTTLS\r\nEHLO evil\r\nMAIL FROM:<evil@x.test>\r\n").await.unwrap();
    let reply = String::from_utf8(rest(&mut stream).await).unwrap();
    assert!(reply.starts_with("554 5.5.1 ") && reply.lines().count() == 1, "{reply}");

    let mut stream = connect(scene.smtp()).await;
    assert_eq!(talk(&mut stream, "STARTTLS\r\n", 1).await, "220");
    stream.write_all(b"EHLO evil\r\nMAIL FROM:<evil@x.test>\r\n").await.unwrap();
    // At most a TLS alert.
    let reply = rest(&mut stream).await;
    assert!(reply.is_empty() || reply.starts_with(&[21]), "{reply:?}");
    assert_eq!(scene.bridge.handle().state().tls.unwrap().failed_handshakes, 1);
}

#[tokio::test]
async fn a_handshake_that_dribbles_ends_and_gives_its_place_back() {
    let timeouts = [("session_timeout_s", Value::Double(0.2)), ("max_connections", Value::Int(1))];
    let scene = start_tls(&timeouts).await;
    let smtps = scene.bridge.smtps_addr().unwrap();
    for address in [scene.smtp(), smtps] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if address != smtps {
            assert_eq!(talk(&mut stream, "STARTTLS\r\n", 2).await, "220 220");
        }
        let dribble = async {
            for byte in [0x16_u8, 3, 1, 2, 0, 1].into_iter().chain(std::iter::repeat(0)) {
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(dribble).await;
    }
    soon(async {
        while scene.intake().smtp_connections > 0 {
            tokio::task::yield_now().await
        }
    })
    .await;
    connect(scene.smtp()).await;
}

#[tokio::test]
async fn without_a_certificate_there_is_no_starttls() {
    let scene = start(&[]).await;
    assert_eq!(talk(&mut connect(scene.smtp()).await, "EHLO c\r\nSTARTTLS\r\n", 2).await, "250 502");
    assert_eq!(scene.bridge.handle().state().tls, None);
}

#[tokio::test]
async fn require_tls_does_not_hold_on_this_host() {
    let scene = start_tls(&[("require_tls", Value::Bool(true))]).await;
    assert_eq!(talk(&mut connect(scene.smtp()).await, "EHLO c\r\nMAIL FROM:<>\r\n", 2).await, "250 250");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_stops_the_start_and_names_parameter_and_file() {
    let directory = tempfile::tempdir().unwrap();
    renew(directory.path());
    let path = |name: &str| text(directory.path().join(name).to_str().unwrap());
    fs::set_permissions(directory.path().join("key.pem"), PermissionsExt::from_mode(0o644)).unwrap();
    let overrides = [("tls_certificate_path", path("cert.pem")), ("tls_key_path", path("key.pem"))];
    let error = try_start(directory.path(), &overrides).await.err().unwrap().to_string();
    assert!(error.contains("'tls_key_path'") && error.contains("key.pem': has mode 644"), "{error}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_client() {
    let scene = start_tls(&[]).await;
    let old = scene.client();
    renew(scene.directory.path());
    let new = scene.client();
    let address = scene.bridge.smtps_addr().unwrap();
    soon(async {
        while new.connect("localhost", TcpStream::connect(address).await.unwrap()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(old.connect("localhost", TcpStream::connect(address).await.unwrap()).await.is_err());
}
