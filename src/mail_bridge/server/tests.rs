// SPDX-License-Identifier: Apache-2.0
//! The servers of a whole bridge, as hostile and honest clients meet them.

mod auth;
mod clients;
mod encryption;

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
