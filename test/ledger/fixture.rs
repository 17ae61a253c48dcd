// SPDX-License-Identifier: Apache-2.0
//! Provides the embedded chain and a real anvil; every test gets its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use chain::{Connection, EmbeddedChain, Http, Ledger, LedgerError, LedgerKey, LedgerOptions, Mined};
use evidence::merkle::Tree;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedRwLockWriteGuard, RwLock},
};
use web3::{
    Transport, Web3,
    ethabi::{self, Token},
    signing::{Key, SecretKey, SecretKeyRef, keccak256},
    types::{Address, Bytes, CallRequest, TransactionParameters, TransactionReceipt, U64, U256},
};

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
        // By default it moves states to disk when blocks come fast, and does not get all of them back for a reorganisation.
        let mut child = Command::new(ANVIL)
            .args(["--port", &port.to_string(), "--accounts", "1", "--prune-history", "2000"])
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
    anvil: Option<Anvil>,
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
        chain::want_new_contracts(dir.path()).unwrap();
        if anvil.is_some() {
            fund(&chain, key.address()).await;
        }
        Self { dir, key, chain, anvil }
    }

    pub async fn ledger(&self) -> Ledger {
        self.connect(self.key.clone()).await.unwrap()
    }

    pub async fn connect(&self, key: LedgerKey) -> Result<Ledger, LedgerError> {
        Ledger::connect(self.chain.clone(), key, self.dir.path(), options()).await
    }

    /// The file of transactions in flight.
    pub async fn transactions(&self) -> PathBuf {
        let chain_id = web3::Web3::new(self.chain.clone()).eth().chain_id().await.unwrap();
        self.path(&format!("transactions-{chain_id}-{:?}.json", self.key.address()))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Port of anvil.
    pub fn port(&self) -> u16 {
        self.anvil.as_ref().expect("anvil").port
    }

    /// Whether anvil mines each transaction at once.
    pub async fn automine(&self, on: bool) {
        self.chain.execute("evm_setAutomine", vec![json!(on)]).await.unwrap();
    }

    /// Remembers the chain of anvil as it is.
    pub async fn snapshot(&self) -> serde_json::Value {
        self.chain.execute("evm_snapshot", vec![]).await.unwrap()
    }

    /// Takes the chain of anvil back to where it was.
    pub async fn revert(&self, snapshot: serde_json::Value) {
        self.chain.execute("evm_revert", vec![snapshot]).await.unwrap();
    }

    /// Mines a block with what is in the pool.
    pub async fn mine(&self) {
        mine(&self.chain).await;
    }
}

/// Passes HTTP requests on to anvil. On demand it closes the connection in place of an answer.
pub struct CuttingProxy {
    pub address: SocketAddr,
    passage: Passage,
}

/// What its connections share.
#[derive(Clone, Default)]
struct Passage {
    cut: Arc<Mutex<Cut>>,
    cuts: Arc<AtomicUsize>,
    /// Read-locked from each request to its answer.
    open: Arc<RwLock<()>>,
}

/// Which connections are cut.
#[derive(Default)]
enum Cut {
    #[default]
    None,
    /// The next one whose request contains this.
    Next(String),
    /// All whose requests contain this.
    All(String),
}

impl Cut {
    fn takes(&mut self, request: &str) -> bool {
        let is_cut = matches!(self, Self::Next(text) | Self::All(text) if request.contains(text.as_str()));
        if is_cut && matches!(self, Self::Next(_)) {
            *self = Self::None;
        }
        is_cut
    }
}

impl CuttingProxy {
    pub async fn start(anvil: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passage = Passage::default();
        let proxy = Self { address, passage: passage.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", anvil)).await.unwrap();
                tokio::spawn(pass(client, server, passage.clone()));
            }
        });
        proxy
    }

    /// Cuts the next connection whose request contains `text`, once anvil has answered.
    pub fn cut_after(&self, text: &str) {
        *self.passage.cut.lock().unwrap() = Cut::Next(text.to_owned());
    }

    /// Cuts every connection from now on whose request contains `text`, once anvil has answered.
    pub fn cut_all_after(&self, text: &str) {
        *self.passage.cut.lock().unwrap() = Cut::All(text.to_owned());
    }

    /// Cuts nothing any more.
    pub fn pass_all(&self) {
        *self.passage.cut.lock().unwrap() = Cut::None;
    }

    /// How often it has cut a connection.
    pub fn cuts(&self) -> usize {
        self.passage.cuts.load(Ordering::SeqCst)
    }

    /// Waits until all requests are answered; others wait until this is dropped.
    pub async fn hold(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.passage.open).write_owned().await
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, passage: Passage) {
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let (mut is_cut, mut unanswered) = (false, None);
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(read @ 1..) = read else { return };
                if unanswered.is_none() {
                    unanswered = Some(passage.open.read().await);
                }
                let text = String::from_utf8_lossy(&request[..read]);
                is_cut |= passage.cut.lock().unwrap().takes(&text);
                server.write_all(&request[..read]).await.unwrap();
            }
            read = server.read(&mut answer) => {
                let Ok(read @ 1..) = read else { return };
                unanswered = None;
                if is_cut {
                    passage.cuts.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                client.write_all(&answer[..read]).await.unwrap();
            }
        }
    }
}

/// Mines a block of an anvil chain with what is in the pool.
pub async fn mine(chain: &Connection) {
    chain.execute("evm_mine", vec![]).await.unwrap();
}

/// Sets the base fee of the next block of an anvil chain [wei].
pub async fn base_fee(chain: &Connection, base_fee: u64) {
    let base_fee = json!(format!("{base_fee:#x}"));
    chain.execute("anvil_setNextBlockBaseFeePerGas", vec![base_fee]).await.unwrap();
}

/// Mines a block of an anvil chain with this base fee [wei].
pub async fn mine_at(chain: &Connection, wei: u64) {
    base_fee(chain, wei).await;
    mine(chain).await;
}

/// Funds an account on an anvil chain.
pub async fn fund(chain: &Connection, account: Address) {
    chain.execute("anvil_setBalance", vec![json!(account), json!("0x3635c9adc5dea00000")]).await.unwrap();
}

/// Has the account whose key is in this file call a function of a contract, as an owner does with tools of its own.
///
/// # Errors
/// The node's message if the contract reverts.
pub async fn call_as(
    chain: &Connection,
    key: &Path,
    contract: Address,
    signature: &str,
    arguments: &[Token],
) -> Result<(), String> {
    let mut data = keccak256(signature.as_bytes())[..4].to_vec();
    data.extend(ethabi::encode(arguments));
    send_as(chain, key, Some(contract), data).await.map(drop)
}

/// Has the account whose key is in this file deploy a contract; returns its address.
pub async fn deploy_as(chain: &Connection, key: &Path, code: Vec<u8>) -> Address {
    send_as(chain, key, None, code).await.unwrap().contract_address.unwrap()
}

async fn send_as(
    chain: &Connection,
    key: &Path,
    to: Option<Address>,
    data: Vec<u8>,
) -> Result<TransactionReceipt, String> {
    let web3 = Web3::new(chain.clone());
    let secret: SecretKey = fs::read_to_string(key).unwrap().trim().parse().unwrap();
    let from = SecretKeyRef::new(&secret).address();
    let request =
        CallRequest { from: Some(from), to, data: Some(Bytes(data.clone())), ..CallRequest::default() };
    let gas = web3.eth().estimate_gas(request, None).await.map_err(|error| error.to_string())?;
    let transaction = TransactionParameters {
        nonce: web3.eth().transaction_count(from, None).await.ok(),
        to,
        data: Bytes(data),
        gas: gas * 5 / 4,
        chain_id: Some(web3.eth().chain_id().await.unwrap().as_u64()),
        transaction_type: Some(U64::from(2)),
        max_fee_per_gas: Some(web3.eth().gas_price().await.unwrap() * 2),
        max_priority_fee_per_gas: Some(U256::one()),
        ..TransactionParameters::default()
    };
    let signed = web3.accounts().sign_transaction(transaction, &secret).await.unwrap();
    let sent = web3.eth().send_raw_transaction(signed.raw_transaction).await.unwrap();
    // anvil mines it a moment after its answer.
    loop {
        if let Some(receipt) = web3.eth().transaction_receipt(sent).await.unwrap() {
            return Ok(receipt);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Anchors a batch without an anchorer.
pub async fn anchor(ledger: &Ledger, first: u64, leaves: Vec<[u8; 32]>) -> Result<Mined, LedgerError> {
    ledger.rest().await?;
    let count = u32::try_from(leaves.len()).unwrap();
    ledger.anchor(ledger.slot().await?, (first, count, Tree::new(leaves).root())).await
}

pub fn options() -> LedgerOptions {
    LedgerOptions {
        confirmations: Some(1),
        timeout: Duration::from_secs(30),
        in_flight: 16,
        max_fee: u64::MAX.into(),
        contracts: None,
        registrar: None,
        refused_chain_id: None,
    }
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
