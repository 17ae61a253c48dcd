// SPDX-License-Identifier: Apache-2.0
use std::{collections::BTreeMap, fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path};

use settings::{Value, resolve};
use smtp::client::Message;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::mpsc,
};

use super::*;
use crate::params::SPECS;

/// What a server does when it is asked for TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StartTls {
    NotOffered,
    Refused,
    Garbage,
    Hangs,
    Works,
    /// Says more in clear behind its reply.
    Injects,
    /// TLS from the first byte.
    Implicit,
}

/// A server with a certificate for `localhost`, and every line it is told; those told within TLS begin with a lock.
struct Scene {
    directory: TempDir,
    address: SocketAddr,
    tls: Arc<tls::server::Server>,
    told: mpsc::UnboundedReceiver<String>,
}

async fn scene(starttls: StartTls) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(path("ca.pem"), made.cert.pem()).unwrap();
    fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(path("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    let tls = Arc::new(tls::server::Server::new(&path("ca.pem"), &path("key.pem")).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    let server = Arc::clone(&tls);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(Box::new(stream), starttls, Arc::clone(&server), tell.clone()));
        }
    });
    Scene { directory, address, tls, told }
}

async fn serve(
    stream: Box<dyn Stream>,
    starttls: StartTls,
    tls: Arc<tls::server::Server>,
    tell: mpsc::UnboundedSender<String>,
) -> Option<()> {
    let mut is_locked = starttls == StartTls::Implicit;
    let stream: Box<dyn Stream> = if is_locked { Box::new(tls.accept(stream).await.ok()?) } else { stream };
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 server\r\n").await.ok()?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let _ = tell.send(format!("{}{}", if is_locked { "🔒" } else { "" }, line.trim_end()));
        let offers = !matches!(starttls, StartTls::NotOffered | StartTls::Implicit) && !is_locked;
        let reply = match (line.get(..4).unwrap_or_default(), starttls) {
            ("EHLO", _) if offers => "250-server\r\n250 STARTTLS\r\n",
            ("EHLO", _) => "250-server\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME\r\n",
            ("AUTH", _) if line.ends_with("AGEAb3Blbg==\r\n") => "235 in\r\n",
            ("AUTH", _) => "535 5.7.8 wrong\r\n",
            ("DATA", _) => {
                stream.write_all(b"354 go\r\n").await.ok()?;
                while line != ".\r\n" {
                    line.clear();
                    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
                }
                "250 ok\r\n"
            }
            ("STAR", StartTls::Refused) => "454 4.7.0 no key\r\n",
            ("STAR", StartTls::Injects) => "220 go\r\n250 evil\r\n",
            ("STAR", _) => "220 go\r\n",
            _ => "250 ok\r\n",
        };
        stream.write_all(reply.as_bytes()).await.ok()?;
        if line.starts_with("STAR") {
            match starttls {
                StartTls::Garbage => stream.write_all(&[b'x'; 5000]).await.ok()?,
                StartTls::Hangs => std::future::pending().await,
                StartTls::Works => {
                    let raw = stream.into_inner();
                    stream = BufReader::new(Box::new(tls.accept(raw).await.ok()?));
                    is_locked = true;
                }
                _ => {}
            }
        }
    }
}

impl Scene {
    fn relay(&self, security: &str, overrides: &[(&str, &str)]) -> Relay {
        let ca = self.directory.path().join("ca.pem");
        let pinned = if matches!(security, "starttls" | "tls") { ca.to_str().unwrap() } else { "" };
        let smarthost = format!("localhost:{}", self.address.port());
        let values: BTreeMap<_, _> = [
            ("smarthost", smarthost.as_str()),
            ("smarthost_security", security),
            ("smarthost_ca_path", pinned),
        ]
        .iter()
        .chain(overrides)
        .map(|(name, value)| ((*name).to_owned(), Value::Text((*value).to_owned())))
        .chain([("smarthost_timeout_s".to_owned(), Value::Double(0.3))])
        .collect();
        let params = Params::load(&resolve(SPECS, values).unwrap(), Path::new("/nowhere")).unwrap();
        Relay::new(Arc::new(params)).unwrap()
    }

    /// Connects; returns what the server was told, and the error.
    async fn connect(&mut self, security: &str) -> (String, Option<String>) {
        let connected = self.relay(security, &[]).connect(0).await;
        (self.told(), connected.err().map(|error| error.to_string()))
    }

    fn told(&mut self) -> String {
        std::iter::from_fn(|| self.told.try_recv().ok()).collect::<Vec<_>>().join(",")
    }
}

#[tokio::test]
async fn encrypts_where_it_can_and_only_there() {
    const CLEAR: &str = "EHLO localhost";
    const BOTH: &str = "EHLO localhost,STARTTLS,🔒EHLO localhost";
    for (server, security, said) in [
        (StartTls::Works, "starttls", BOTH),
        (StartTls::Works, "opportunistic", BOTH),
        (StartTls::Works, "none", CLEAR),
        (StartTls::NotOffered, "none", CLEAR),
        (StartTls::NotOffered, "opportunistic", CLEAR),
        (StartTls::Implicit, "tls", "🔒EHLO localhost"),
        // There is no TLS after all: once more, in clear.
        (StartTls::Refused, "opportunistic", "EHLO localhost,STARTTLS,EHLO localhost"),
        (StartTls::Garbage, "opportunistic", "EHLO localhost,STARTTLS,EHLO localhost"),
        (StartTls::Hangs, "opportunistic", "EHLO localhost,STARTTLS,EHLO localhost"),
    ] {
        let (told, error) = scene(server).await.connect(security).await;
        assert_eq!((told.as_str(), error), (said, None), "{security}");
    }
}

#[tokio::test]
async fn where_tls_is_required_a_server_without_it_is_away() {
    const SAID: &str = "EHLO localhost,STARTTLS";
    for (server, security, said, reason) in [
        (StartTls::NotOffered, "starttls", "EHLO localhost", "it offers no STARTTLS"),
        (StartTls::Refused, "starttls", SAID, "STARTTLS refused: 454 4.7.0 no key"),
        (StartTls::Garbage, "starttls", SAID, "no TLS with localhost"),
        (StartTls::Hangs, "starttls", SAID, "no TLS within 300ms"),
        (StartTls::Injects, "starttls", SAID, "in clear behind the reply to STARTTLS"),
        (StartTls::Injects, "opportunistic", SAID, "in clear behind the reply to STARTTLS"),
        (StartTls::NotOffered, "tls", "", "is this the port for TLS?"),
    ] {
        let (told, error) = scene(server).await.connect(security).await;
        let error = error.unwrap();
        assert!(error.contains(reason), "{error}");
        assert!(said.is_empty() || told == said, "{told}");
    }
}

#[tokio::test]
async fn a_certificate_of_a_stranger_is_refused_where_it_is_checked() {
    let other = scene(StartTls::Works).await;
    let stranger = other.directory.path().join("ca.pem");
    let mut scene = scene(StartTls::Works).await;
    let relay = scene.relay("starttls", &[("smarthost_ca_path", stranger.to_str().unwrap())]);
    let error = relay.connect(0).await.err().unwrap().to_string();
    assert!(error.starts_with("smart host: the certificate of localhost is refused"), "{error}");
    assert_eq!(scene.told(), "EHLO localhost,STARTTLS");
    // It is for localhost, not for an address.
    let by_address = scene.address.to_string();
    let relay = scene.relay("starttls", &[("smarthost", &by_address)]);
    assert!(relay.connect(0).await.err().unwrap().to_string().contains("for another name"));
}

/// `a` and `open`, by PLAIN.
const LOGIN: &str = "AUTH PLAIN AGEAb3Blbg==";

impl Scene {
    fn write_password(&self, password: &str) -> String {
        let path = self.directory.path().join("password");
        fs::write(&path, password).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn logs_in_behind_tls_or_on_this_host_with_the_password_of_now() {
    for (server, security, said) in [
        (StartTls::Works, "starttls", format!("EHLO localhost,STARTTLS,🔒EHLO localhost,🔒{LOGIN}")),
        (StartTls::Implicit, "tls", format!("🔒EHLO localhost,🔒{LOGIN}")),
        (StartTls::NotOffered, "none", format!("EHLO localhost,{LOGIN}")),
        (StartTls::NotOffered, "opportunistic", format!("EHLO localhost,{LOGIN}")),
    ] {
        let mut scene = scene(server).await;
        let path = scene.write_password("stale\n");
        let relay = scene.relay(security, &[("smarthost_user", "a"), ("smarthost_password_path", &path)]);
        let error = relay.connect(0).await.err().unwrap();
        assert_eq!(error.to_string(), "smart host: login refused: 535 5.7.8 wrong");
        scene.told();
        scene.write_password("open\nsecond line\n");
        relay.connect(0).await.unwrap();
        assert_eq!(scene.told(), said);
        scene.write_password("\n");
        assert!(relay.connect(0).await.err().unwrap().to_string().ends_with("its first line is empty"));
    }
}

#[tokio::test]
async fn no_password_goes_in_clear() {
    for server in [StartTls::NotOffered, StartTls::Garbage, StartTls::Refused, StartTls::Injects] {
        let mut scene = scene(server).await;
        let path = scene.write_password("open");
        let login = [("smarthost_user", "a"), ("smarthost_password_path", path.as_str())];
        let relay = scene.relay("starttls", &login);
        assert!(relay.connect(0).await.is_err());
        assert!(!scene.told().contains("AUTH"));
    }
}

#[tokio::test]
async fn without_a_password_it_does_not_start() {
    let scene = scene(StartTls::Works).await;
    let path = scene.write_password("");
    let mut params = (*scene.relay("none", &[]).params).clone();
    params.sending.login = Some(Login { user: "a".to_owned(), password_path: path.into() });
    let error = Relay::new(Arc::new(params)).err().unwrap().to_string();
    assert!(error.starts_with("parameter 'smarthost_password_path': "), "{error}");
}

#[tokio::test]
async fn what_the_network_does_not_take_at_once_reaches_the_server_all_the_same() {
    let scene = scene(StartTls::Implicit).await;
    let (near, far) = tokio::io::duplex(1024);
    let (tell, _told) = mpsc::unbounded_channel();
    tokio::spawn(serve(Box::new(far), StartTls::Implicit, Arc::clone(&scene.tls), tell));
    let relay = scene.relay("tls", &[]);
    let mut client = relay.open("localhost", Box::new(near), Security::Tls).await.unwrap();
    let data = format!("{}\r\n", "x".repeat(998)).repeat(30).into_bytes();
    let mail = Message { mail_from: String::new(), rcpt_to: vec!["a@x.test".to_owned()], data };
    let sent = timeout(Duration::from_secs(5), client.send(&mail, 1)).await.unwrap();
    assert_eq!(sent.unwrap().delivered, 1);
}
