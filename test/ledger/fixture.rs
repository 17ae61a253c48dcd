// SPDX-License-Identifier: Apache-2.0
//! Provides the embedded chain and a real anvil; every test gets its own.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use chain::{Connection, EmbeddedChain, Http, Ledger, LedgerError, LedgerKey, LedgerOptions};
use serde_json::json;
use tempfile::TempDir;
use web3::{Transport, types::Address};

const ANVIL: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Embedded,
    Anvil,
}

/// An anvil process; killed on drop.
pub struct Anvil {
    child: Child,
    pub port: u16,
}

impl Anvil {
    /// Starts anvil on `port` (0 picks a free one) and waits until it listens.
    pub fn start(port: u16) -> Self {
        assert!(
            Path::new(ANVIL).exists(),
            "anvil is not installed: run `make test`, or `npm ci --prefix contracts`"
        );
        let mut child = Command::new(ANVIL)
            .args(["--port", &port.to_string(), "--accounts", "1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("anvil starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("anvil says where it listens before it ends").unwrap();
            if let Some(address) = line.strip_prefix("Listening on ") {
                break address.rsplit(':').next().unwrap().parse().unwrap();
            }
        };
        // Keep draining the pipe: a full one would block anvil.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }

    /// URL of its JSON-RPC.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn chain(&self) -> Connection {
        Connection::Http(Http::new(&self.endpoint()).unwrap())
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A chain, a funded account and a state directory.
pub struct World {
    pub dir: TempDir,
    pub key: LedgerKey,
    pub chain: Connection,
    _anvil: Option<Anvil>,
}

impl World {
    pub async fn new(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = LedgerKey::load_or_create(&dir.path().join("ledger.key")).unwrap();
        Self::with_key(kind, dir, key).await
    }

    pub async fn with_key(kind: Kind, dir: TempDir, key: LedgerKey) -> Self {
        let anvil = (kind == Kind::Anvil).then(|| Anvil::start(0));
        let chain = match &anvil {
            Some(anvil) => anvil.chain(),
            None => Connection::Embedded(
                EmbeddedChain::open(&dir.path().join("chain"), key.address(), SystemTime::now).unwrap(),
            ),
        };
        if anvil.is_some() {
            fund(&chain, key.address()).await;
        }
        Self { dir, key, chain, _anvil: anvil }
    }

    pub async fn ledger(&self) -> Ledger {
        self.connect(self.key.clone()).await.unwrap()
    }

    pub async fn connect(&self, key: LedgerKey) -> Result<Ledger, LedgerError> {
        Ledger::connect(self.chain.clone(), key, self.dir.path(), options()).await
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Funds an account on an anvil chain.
pub async fn fund(chain: &Connection, account: Address) {
    chain.execute("anvil_setBalance", vec![json!(account), json!("0x3635c9adc5dea00000")]).await.unwrap();
}

pub fn options() -> LedgerOptions {
    LedgerOptions { confirmations: 1, timeout: Duration::from_secs(30), contracts: None }
}

/// Runs each test function on both chains.
macro_rules! on_both_chains {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            use crate::ledger::fixture::{Kind, World};

            #[tokio::test]
            async fn embedded() {
                super::$test(World::new(Kind::Embedded).await).await;
            }

            #[tokio::test]
            async fn anvil() {
                super::$test(World::new(Kind::Anvil).await).await;
            }
        }
    )*};
}
pub(crate) use on_both_chains;
