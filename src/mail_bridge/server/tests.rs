// SPDX-License-Identifier: Apache-2.0
//! The servers of a whole bridge, as hostile and honest clients meet them.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use settings::{Value, resolve};
use tempfile::TempDir;
use tls::client::Client;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::{
    bridge::{Bridge, BridgeError, Streams},
    params::{Params, SPECS},
    users::cheap,
};

/// Nothing here takes this long, so a test that would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(20);

const MAIL: &str = "MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n";

struct Scene {
    directory: TempDir,
    bridge: Bridge,
    streams: Streams,
}

async fn try_start(directory: &Path, overrides: &[(&str, Value)]) -> Result<(Bridge, Streams), BridgeError> {
    let mut values: BTreeMap<String, Value> =
        ["smtp_listen", "lmtp_listen"].map(|name| (name.to_owned(), text("127.0.0.1:0"))).into();
    values.extend(overrides.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Bridge::start(Params::load(&resolve(SPECS, values).unwrap(), &directory.join("journal")).unwrap()).await
}

async fn start(overrides: &[(&str, Value)]) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let (bridge, streams) = try_start(directory.path(), overrides).await.unwrap();
    Scene { directory, bridge, streams }
}

/// A bridge with a certificate for `localhost`, and a listener for TLS from the first byte.
async fn start_tls(overrides: &[(&str, Value)]) -> Scene {
    start_tls_in(tempfile::tempdir().unwrap(), overrides).await
}

async fn start_tls_in(directory: TempDir, overrides: &[(&str, Value)]) -> Scene {
    renew(directory.path());
    let path = |name: &str| text(directory.path().join(name).to_str().unwrap());
    let mut all = vec![
        ("smtps_listen", text("127.0.0.1:0")),
        ("tls_certificate_path", path("cert.pem")),
        ("tls_key_path", path("key.pem")),
    ];
    all.extend_from_slice(overrides);
    let (bridge, streams) = try_start(directory.path(), &all).await.unwrap();
    Scene { directory, bridge, streams }
}

fn renew(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write(directory.join("key.pem"), &made.signing_key.serialize_pem());
    write(directory.join("cert.pem"), &made.cert.pem());
}

fn write(path: PathBuf, text: &str) {
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

impl Scene {
    fn smtp(&self) -> SocketAddr {
        self.bridge.smtp_addr().unwrap()
    }

    fn client(&self) -> Client {
        Client::new(Some(&self.directory.path().join("cert.pem"))).unwrap()
    }

    fn intake(&self) -> crate::health::Intake {
        self.bridge.handle().state().intake
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("waited in vain")
}

/// Sends `text` and returns the codes of as many replies.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, text: &str, replies: usize) -> String {
    soon(async {
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut reader = BufReader::with_capacity(1, stream);
        let mut codes = Vec::new();
        while codes.len() < replies {
            let mut line = String::new();
            reader.read_line(&mut line).await.unwrap();
            assert!(!line.is_empty(), "closed after {codes:?}");
            if line.as_bytes()[3] == b' ' {
                codes.push(line[..3].to_owned());
            }
        }
        codes.join(" ")
    })
    .await
}

async fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(talk(&mut stream, "", 1).await, "220");
    stream
}

/// What is left to read until the server closes the connection.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset after what was sent in vain is an end, too.
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    bytes
}

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

/// A bridge with the account `ada`, password `secret`, beside a certificate.
async fn start_auth(overrides: &[(&str, Value)]) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    write(path.clone(), &format!("ada:{}\n", cheap("secret")));
    let mut all = vec![("auth_users_path", text(path.to_str().unwrap()))];
    all.extend_from_slice(overrides);
    start_tls_in(directory, &all).await
}

/// `\0ada\0secret` and `\0ada\0wrong`.
const RIGHT: &str = "AUTH PLAIN AGFkYQBzZWNyZXQ=\r\n";
const WRONG: &str = "AUTH PLAIN AGFkYQB3cm9uZw==\r\n";

#[tokio::test]
async fn an_own_device_hands_in_mails_with_its_password() {
    let scene = start_auth(&[("require_auth", Value::Bool(true))]).await;
    let plain = TcpStream::connect(scene.bridge.smtps_addr().unwrap()).await.unwrap();
    let mut stream = scene.client().connect("localhost", plain).await.unwrap();
    assert_eq!(talk(&mut stream, &format!("EHLO c\r\nMAIL FROM:<>\r\n{RIGHT}"), 4).await, "220 250 530 235");
    assert_eq!(talk(&mut stream, &format!("{MAIL}hi\r\n.\r\n"), 4).await, "250 250 354 250");
    // LMTP is the gateway's.
    let mut gateway = connect(scene.bridge.lmtp_addr().unwrap()).await;
    let codes = talk(&mut gateway, &format!("LHLO c\r\n{RIGHT}MAIL FROM:<>\r\n"), 3).await;
    assert_eq!(codes, "250 502 250");
}

#[tokio::test]
async fn an_address_that_guesses_is_not_listened_to_for_a_while() {
    let scene = start_auth(&[]).await;
    let mut guesses = JoinSet::new();
    for _ in 0..12 {
        let address = scene.smtp();
        guesses.spawn(async move {
            let mut stream = connect(address).await;
            talk(&mut stream, &format!("EHLO c\r\n{WRONG}"), 2).await
        });
    }
    let mut codes = soon(guesses.join_all()).await;
    codes.sort();
    assert_eq!(codes, [vec!["250 454"; 2], vec!["250 535"; 10]].concat());
    assert_eq!(scene.bridge.handle().state().users.unwrap().rejected, 10);
    assert_eq!(talk(&mut connect(scene.smtp()).await, &format!("EHLO c\r\n{RIGHT}"), 2).await, "250 454");
}

#[tokio::test]
async fn accounts_that_others_can_read_stop_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    write(path.clone(), &format!("ada:{}\n", cheap("secret")));
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let overrides = [("auth_users_path", text(path.to_str().unwrap()))];
    let error = try_start(directory.path(), &overrides).await.err().unwrap().to_string();
    assert!(error.starts_with("parameter 'auth_users_path': ") && error.contains("has mode 640"), "{error}");
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

#[tokio::test]
async fn a_session_that_panics_is_no_longer_counted_as_open() {
    let counters = Arc::new(Counters::default());
    let open = counters.open(Protocol::Smtp);
    assert_eq!(counters.smtp_connections.load(Ordering::Relaxed), 1);
    let session = tokio::spawn(async move {
        let _open = open;
        panic!("on purpose");
    });
    assert!(session.await.unwrap_err().is_panic());
    assert_eq!(counters.smtp_connections.load(Ordering::Relaxed), 0);
}
