// SPDX-License-Identifier: Apache-2.0
//! From evidence to receipt on both chains, through restarts and faults.

mod blocks;
mod faults;
pub mod fixture;
mod json_rpc;
mod keys;
mod kill;
mod liar;
mod nodes;
mod registry;
mod shared;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use authenticator::{
    anchor::{AnchorError, AnchorPolicy, AnchorState, Anchorer},
    store::EvidenceStore,
};
use chain::{
    Connection, Contracts, EmbeddedChain, Finality, InFlight, Ledger, LedgerError, LedgerKey, LedgerOptions,
    Terms, WaitsFor,
};
use evidence::{Entry, Evidence, Finding, Receipt, log::EvidenceLog};
use fixture::{
    Anvil, CuttingProxy, Kind, World, anchor, base_fee, fund, mine, mine_at, on_both_chains, options,
};
use jsonrpc_core::Value;
use mail::{MailId, Registration, Role};
use serde_json::json;
use testbed::{PATIENCE, free_port, wait_for};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use web3::{
    Transport, Web3,
    signing::SecretKey,
    types::{H256, SignedTransaction, TransactionParameters, U64, U256},
};

on_both_chains!(
    evidence_gets_receipts_that_verify_and_tampered_ones_do_not,
    an_anchor_without_receipts_gets_them_after_a_crash_and_once,
    a_lost_log_and_a_changed_log_stop_the_anchorer,
    refuses_transactions_as_a_real_node_does,
    names_file_and_chain_if_the_contracts_are_elsewhere,
);

fn finding(number: u64) -> Finding {
    Finding {
        mail_id: MailId::of(&number.to_be_bytes()),
        received_at: SystemTime::UNIX_EPOCH + Duration::from_nanos(1_790_000_000_123_456_789 + number),
        sender_digest: [9; 32],
        verdict: [1, 2, 2, 2, 2, 2, 0],
    }
}

/// Every third entry is an order of the chatbot, the others are what the authenticator found out about mails.
fn entry(number: u64) -> Entry {
    let finding = finding(number);
    if number % 3 == 2 {
        let subject = *finding.mail_id.as_bytes();
        return Entry::new(evidence::Kind::ORDER, "/chatbot".parse().unwrap(), subject, [7; 32]).unwrap();
    }
    finding.entry(&"/authenticator".parse().unwrap())
}

pub async fn append(store: &EvidenceStore, numbers: std::ops::Range<u64>) -> Vec<Evidence> {
    store.append(numbers.map(entry).collect(), NOW).await.unwrap()
}

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// Opens the log, again if need be: a process that another test is starting shares the lock of a log that was just
/// closed until it runs its own program.
pub fn store(dir: &Path) -> EvidenceStore {
    let unlocked = || match EvidenceLog::open(&dir.join("evidence")) {
        Err(error) if error.to_string().contains("in use") => None,
        opened => Some(opened.unwrap().0),
    };
    EvidenceStore::new(wait_for("the lock of the evidence log", unlocked))
}

/// A running anchorer and its channels.
pub struct Running {
    receipts: mpsc::Receiver<Receipt>,
    state: watch::Receiver<AnchorState>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), AnchorError>>,
}

pub fn start(store: &EvidenceStore, ledger: &Arc<Ledger>) -> Running {
    start_with(store, ledger, Duration::ZERO)
}

/// An anchorer that believes a chain which contradicts the log after `patience`.
fn start_with(store: &EvidenceStore, ledger: &Arc<Ledger>, patience: Duration) -> Running {
    let (receipts_in, receipts) = mpsc::channel(8);
    let (state_in, state) = watch::channel(AnchorState::default());
    let (stop, stopped) = oneshot::channel();
    let anchorer = Anchorer {
        store: store.clone(),
        ledger: ledger.clone(),
        policy: AnchorPolicy {
            max_batch: 4,
            max_age: Duration::from_millis(20),
            patience,
            watch: Duration::from_millis(50),
            lag: Duration::from_millis(200),
        },
        receipts: receipts_in,
        state: state_in,
        now: SystemTime::now,
    };
    let task = tokio::spawn(anchorer.run(async {
        let _ = stopped.await;
    }));
    Running { receipts, state, stop, task }
}

impl Running {
    pub async fn receive(&mut self, count: usize) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        while receipts.len() < count {
            match self.receipts.recv().await {
                Some(receipt) => receipts.push(receipt),
                None => panic!("the anchorer ended: {:?}", (&mut self.task).await),
            }
        }
        receipts
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

async fn evidence_gets_receipts_that_verify_and_tampered_ones_do_not(world: World) {
    let (store, ledger) = (store(world.dir.path()), Arc::new(world.ledger().await));
    let mut running = start(&store, &ledger);
    assert_eq!(append(&store, 0..10).await.len(), 10);
    let receipts = running.receive(10).await;
    for (index, receipt) in receipts.iter().enumerate() {
        assert_eq!(receipt.evidence.index, index as u64);
        assert_eq!(receipt.evidence.entry, entry(index as u64));
        ledger.verify(receipt).await.unwrap();
        assert_eq!(store.receipt(receipt.evidence.entry.identity()).await.unwrap().as_ref(), Some(receipt));
    }
    assert!(receipts.iter().any(|receipt| receipt.anchor.count > 1));
    running
        .state
        .wait_for(|state| state.anchored == 10 && state.pending == 0 && state.reachable)
        .await
        .unwrap();
    // Appending the same entries again adds no leaf.
    append(&store, 0..10).await;
    assert_eq!(store.counts(), (10, 10));
    running.stop().await;

    let other = receipts[9].anchor.clone();
    let other_verdict =
        || Finding { verdict: [0; 7], ..finding(0) }.entry(&"/authenticator".parse().unwrap());
    type Tamper<'a> = (&'a str, &'a dyn Fn(&mut Receipt));
    let tampered: [Tamper; 9] = [
        ("mail", &|receipt| receipt.evidence.entry = entry(1)),
        ("verdict", &|receipt| receipt.evidence.entry = other_verdict()),
        ("root", &|receipt| receipt.anchor.root[31] ^= 1),
        ("chain", &|receipt| receipt.anchor.chain_id += 1),
        ("contract", &|receipt| receipt.anchor.contract[0] ^= 1),
        ("transaction", &|receipt| receipt.anchor.transaction[0] ^= 1),
        ("other transaction", &|receipt| receipt.anchor.transaction = other.transaction),
        ("block number", &|receipt| receipt.anchor.block_number += 1),
        ("block hash", &|receipt| receipt.anchor.block_hash[0] ^= 1),
    ];
    for (what, tamper) in tampered {
        let mut receipt = receipts[0].clone();
        tamper(&mut receipt);
        let error = ledger.verify(&receipt).await.expect_err(what);
        assert!(!error.is_retryable(), "{what}: {error}");
    }
    // A forged batch: the proof is valid, but nobody anchored its root.
    let mut forged = receipts[0].clone();
    forged.evidence.entry = other_verdict();
    forged.leaf = forged.evidence.leaf();
    forged.anchor.root = forged.leaf;
    (forged.anchor.count, forged.inclusion_proof) = (1, Vec::new());
    assert_eq!(forged.verify_offline(), Ok(()));
    assert!(matches!(ledger.verify(&forged).await, Err(LedgerError::NotOnChain { .. })));
}

async fn an_anchor_without_receipts_gets_them_after_a_crash_and_once(world: World) {
    let (store_before, ledger) = (store(world.dir.path()), Arc::new(world.ledger().await));
    let evidence = append(&store_before, 0..3).await;
    // The process dies after anchoring and before it has written a receipt.
    let mined = anchor(&ledger, 0, evidence.iter().map(Evidence::leaf).collect()).await.unwrap();
    drop(store_before);

    let store = store(world.dir.path());
    let mut running = start(&store, &ledger);
    for receipt in running.receive(3).await {
        assert_eq!(receipt.anchor.transaction, mined.transaction.0);
        assert_eq!((receipt.anchor.first, receipt.anchor.count), (0, 3));
        ledger.verify(&receipt).await.unwrap();
    }
    running.stop().await;

    // The next start restores nothing: the first receipt is for the next mail.
    let mut running = start(&store, &ledger);
    append(&store, 3..4).await;
    assert_eq!(running.receive(1).await[0].evidence.index, 3);
    assert_eq!(ledger.next_index().await.unwrap(), 4);
    running.stop().await;
}

async fn a_lost_log_and_a_changed_log_stop_the_anchorer(world: World) {
    let ledger = Arc::new(world.ledger().await);
    anchor(&ledger, 0, vec![[1; 32], [2; 32]]).await.unwrap();
    let store = store(world.dir.path());
    let error = start(&store, &ledger).task.await.unwrap().unwrap_err();
    assert!(matches!(error, AnchorError::LogLost { next: 2, evidenced: 0 }), "{error}");
    append(&store, 0..2).await;
    let error = start(&store, &ledger).task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("its root is not that of the evidence log"), "{error}");
}

async fn refuses_transactions_as_a_real_node_does(world: World) {
    let ledger = world.ledger().await;
    let web3 = Web3::new(world.chain.clone());
    let chain_id = ledger.addresses().chain_id;
    let key = |name: &str| {
        LedgerKey::load_or_create(&world.path(name)).unwrap();
        fs::read_to_string(world.path(name)).unwrap().trim().parse::<SecretKey>().unwrap()
    };
    let send = async |key: &SecretKey, nonce: u64, chain_id: u64| {
        let transaction = TransactionParameters {
            nonce: Some(nonce.into()),
            to: Some(ledger.addresses().evidence_ledger),
            value: U256::zero(),
            chain_id: Some(chain_id),
            transaction_type: Some(U64::from(2)),
            max_fee_per_gas: Some(U256::from(3_000_000_000_u64)),
            max_priority_fee_per_gas: Some(U256::one()),
            ..TransactionParameters::default()
        };
        let signed = web3.accounts().sign_transaction(transaction, key).await.unwrap();
        match web3.eth().send_raw_transaction(signed.raw_transaction).await {
            Err(web3::Error::Rpc(error)) => error.message.to_ascii_lowercase(),
            other => panic!("expected a refusal, got {other:?}"),
        }
    };
    let owner = key("ledger.key");
    let refusal = send(&owner, 0, chain_id).await;
    assert!(refusal.contains("nonce too low"), "{refusal}");
    let refusal = send(&key("poor.key"), 0, chain_id).await;
    assert!(refusal.contains("insufficient funds"), "{refusal}");
    let refusal = send(&owner, 2, chain_id + 1).await;
    assert!(refusal.contains("chain id"), "{refusal}");

    match world.chain.execute("eth_noSuchThing", vec![]).await {
        Err(web3::Error::Rpc(error)) => assert_eq!(error.code.code(), -32601),
        other => panic!("expected an error, got {other:?}"),
    }
    // Both chains show the block and the transaction.
    let mined = anchor(&ledger, 0, vec![[1; 32]]).await.unwrap();
    let block = web3.eth().block(web3::types::BlockId::Hash(mined.block_hash)).await.unwrap().unwrap();
    assert_eq!(
        (block.number, block.transactions),
        (Some(mined.block_number.into()), vec![mined.transaction])
    );
    let shown = web3.eth().transaction(mined.transaction.into()).await.unwrap().unwrap();
    assert_eq!((shown.from, shown.block_hash), (Some(world.key.address()), Some(mined.block_hash)));
    assert!(web3.eth().balance(world.key.address(), None).await.unwrap() > U256::zero());
    assert_eq!(web3.eth().transaction(H256::zero().into()).await.unwrap(), None);
}

async fn names_file_and_chain_if_the_contracts_are_elsewhere(world: World) {
    let addresses = world.ledger().await.addresses().clone();
    let path = world.path("contracts.json");
    let edit = |name: &str, value: Value| {
        let mut file = serde_json::to_value(&addresses).unwrap();
        file[name] = value;
        fs::write(&path, file.to_string()).unwrap();
    };
    edit("chain_id", json!(1));
    let error = world.connect(world.key.clone()).await.err().unwrap();
    assert!(matches!(error, LedgerError::WrongChain { expected: 1, .. }), "{error}");
    edit("evidence_ledger", json!(world.key.address()));
    let error = world.connect(world.key.clone()).await.err().unwrap();
    assert!(matches!(error, LedgerError::NoCode { contract: "EvidenceLedger", .. }), "{error}");
    assert!(error.to_string().contains("contracts.json"), "{error}");
    assert!(!error.is_retryable());
    let (registry, ledger) = (addresses.sender_registry.into(), world.key.address().into());
    let options = LedgerOptions { contracts: Some(Contracts { registry, ledger }), ..options() };
    let error = Ledger::connect(world.chain.clone(), world.key.clone(), world.dir.path(), options).await;
    let error = error.err().unwrap().to_string();
    assert!(
        error.starts_with("contract EvidenceLedger of parameter 'ledger_address': no code at"),
        "{error}"
    );
    fs::write(&path, "{\"chain_id\": 1}").unwrap();
    let error = world.connect(world.key.clone()).await.err().unwrap();
    assert!(matches!(error, LedgerError::State { .. }), "{error}");
}

#[tokio::test]
async fn waits_for_a_chain_that_is_not_there_yet_and_for_one_that_went_away() {
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    chain::want_new_contracts(dir.path()).unwrap();
    let key = LedgerKey::load_or_create(&dir.path().join("ledger.key")).unwrap();
    let http = chain::Http::new(&format!("http://127.0.0.1:{port}")).unwrap();
    let (failed, mut failures) = mpsc::unbounded_channel();
    let (path, chain, account) = (dir.path().to_owned(), Connection::Http(http), key.address());
    // First the chain is unreachable, then the account has no money, then it has.
    let connecting = {
        let chain = chain.clone();
        tokio::spawn(async move {
            let report = move |error: &LedgerError| failed.send(error.to_string()).unwrap();
            loop {
                match Ledger::connect_patiently(chain.clone(), key.clone(), &path, options(), &report).await {
                    Err(LedgerError::Refused { .. } | LedgerError::Reverted { .. }) => {}
                    result => return result,
                }
            }
        })
    };
    let failure = failures.recv().await.unwrap();
    assert!(failure.contains("cannot be reached") && !failure.contains("127.0.0.1"), "{failure}");
    let anvil = Anvil::start(port);
    fund(&chain, account).await;
    let ledger = Arc::new(connecting.await.unwrap().unwrap());

    let store = store(dir.path());
    let mut running = start(&store, &ledger);
    append(&store, 0..1).await;
    assert_eq!(running.receive(1).await[0].evidence.index, 0);
    running.state.wait_for(|state| state.reachable && state.anchored == 1).await.unwrap();
    drop(anvil);
    append(&store, 1..2).await;
    let down = running.state.wait_for(|state| !state.reachable && state.pending == 1).await.unwrap().clone();
    assert_eq!(down.anchored, 1);
    assert!(down.last_error.unwrap().contains("cannot be reached"));
    assert!(ledger.sender([0; 32]).await.unwrap_err().is_retryable());
    running.stop().await;
}

#[tokio::test]
async fn the_embedded_chain_survives_restarts_with_and_without_its_snapshot() {
    let world = World::new(Kind::Embedded).await;
    let World { dir, key, chain, .. } = world;
    let open = |name: &str| EmbeddedChain::open(&dir.path().join(name), key.address(), SystemTime::now);
    let ledger = Ledger::connect(chain.clone(), key.clone(), dir.path(), options()).await.unwrap();
    ledger.register([1; 32], Terms { dkim_key: Some([2; 32]), ..Terms::of(Role::Operator) }).await.unwrap();
    let started = std::time::Instant::now();
    let anchors = 600;
    for first in 0..anchors {
        anchor(&ledger, first, vec![[3; 32]]).await.unwrap();
    }
    eprintln!("{anchors} anchors in {:?}", started.elapsed());
    let head = newest(&chain).await;
    assert_eq!(head.0, anchors + 3);

    assert!(open("chain").unwrap_err().to_string().contains("in use"));
    drop((ledger, chain));
    // The task that sends its transactions ends soon after.
    let is_closed = async |name: &str| {
        while open(name).is_err_and(|error| error.to_string().contains("in use")) {
            tokio::task::yield_now().await;
        }
    };
    is_closed("chain").await;

    let copy = |to: &str, snapshot: Option<&[u8]>| {
        fs::create_dir(dir.path().join(to)).unwrap();
        fs::copy(dir.path().join("chain/chain.log"), dir.path().join(to).join("chain.log")).unwrap();
        if let Some(bytes) = snapshot {
            fs::write(dir.path().join(to).join("snapshot.log"), bytes).unwrap();
        }
    };
    let snapshot = fs::read(dir.path().join("chain/snapshot.log")).expect("a snapshot was written");
    copy("replayed", None);
    copy("torn", Some(&snapshot[..snapshot.len() / 2]));
    for name in ["chain", "replayed", "torn"] {
        let started = std::time::Instant::now();
        let chain = Connection::Embedded(open(name).unwrap());
        eprintln!("{name}: opened in {:?}", started.elapsed());
        assert_eq!(newest(&chain).await, head, "{name}");
        let ledger = Ledger::connect(chain, key.clone(), dir.path(), options()).await.unwrap();
        assert_eq!(ledger.next_index().await.unwrap(), anchors, "{name}");
        let sender = ledger.sender([1; 32]).await.unwrap();
        assert_eq!(sender.terms, Terms { dkim_key: Some([2; 32]), ..Terms::of(Role::Operator) }, "{name}");
        anchor(&ledger, anchors, vec![[4; 32]]).await.unwrap();
        drop(ledger);
        is_closed(name).await;
    }
    let other = LedgerKey::load_or_create(&dir.path().join("other.key")).unwrap();
    let error = EmbeddedChain::open(&dir.path().join("torn"), other.address(), SystemTime::now).unwrap_err();
    assert!(error.to_string().contains("was made for account"), "{error}");
}

/// Number and hash of the newest block.
async fn newest(chain: &Connection) -> (u64, H256) {
    let latest = web3::types::BlockId::Number(web3::types::BlockNumber::Latest);
    let block = Web3::new(chain.clone()).eth().block(latest).await.unwrap().unwrap();
    (block.number.unwrap().as_u64(), block.hash.unwrap())
}

/// Connects to the contracts of `world` with these options.
async fn reconnect(world: &World, confirmations: u64, timeout: Duration) -> Arc<Ledger> {
    let options = LedgerOptions { confirmations: Some(confirmations), timeout, ..options() };
    let ledger = Ledger::connect(world.chain.clone(), world.key.clone(), world.dir.path(), options).await;
    Arc::new(ledger.unwrap())
}

#[tokio::test]
async fn goes_on_with_a_transaction_that_was_not_confirmed_in_time() {
    let world = World::new(Kind::Anvil).await;
    world.ledger().await;
    let ledger = reconnect(&world, 1, Duration::from_secs(1)).await;
    let store = store(world.dir.path());
    let first = append(&store, 0..1).await;
    world.automine(false).await;
    let late = anchor(&ledger, 0, first.iter().map(Evidence::leaf).collect()).await.unwrap_err();
    assert!(matches!(late, LedgerError::Timeout { .. }) && late.is_retryable(), "{late}");

    // More evidence has arrived, which wants to be in the same batch.
    append(&store, 1..2).await;
    let mut running = start(&store, &ledger);
    let waiting = running.state.wait_for(|state| state.last_error.is_some()).await.unwrap().clone();
    let reason = waiting.last_error.unwrap();
    assert!(reason.contains("not confirmed after 1 s"), "{reason}");
    world.automine(true).await;
    world.mine().await;
    let receipts = running.receive(2).await;
    assert_eq!(receipts.iter().map(|receipt| receipt.anchor.first).collect::<Vec<_>>(), [0, 1]);
    for receipt in &receipts {
        ledger.verify(receipt).await.unwrap();
    }
    assert_eq!(ledger.next_index().await.unwrap(), 2);
    running.stop().await;
}

/// An anchorer on anvil whose transactions are in the pool and not mined.
struct Waiting {
    world: World,
    ledger: Arc<Ledger>,
    store: EvidenceStore,
    running: Running,
    in_flight: watch::Receiver<Option<InFlight>>,
    /// The first one.
    transaction: H256,
}

impl Waiting {
    async fn start(options: LedgerOptions) -> Self {
        Self::with_entries(1, options).await
    }

    /// There are four entries in a transaction.
    async fn with_entries(count: u64, options: LedgerOptions) -> Self {
        let world = World::new(Kind::Anvil).await;
        // It deploys the contracts, which with more confirmations would need blocks that nobody mines.
        world.ledger().await;
        let ledger = Ledger::connect(world.chain.clone(), world.key.clone(), world.dir.path(), options).await;
        let ledger = Arc::new(ledger.unwrap());
        world.automine(false).await;
        let store = store(world.dir.path());
        let running = start(&store, &ledger);
        append(&store, 0..count).await;
        let in_flight = ledger.in_flight();
        let mut waiting = Self { world, ledger, store, running, in_flight, transaction: H256::zero() };
        waiting.transaction = waiting.wait_for(|now| now.transaction.is_some()).await.transaction.unwrap();
        waiting
    }

    async fn wait_for(&mut self, what: impl Fn(&InFlight) -> bool) -> InFlight {
        let found = self.in_flight.wait_for(|now| now.as_ref().is_some_and(&what));
        let found = tokio::time::timeout(PATIENCE, found).await.expect("what is waited for");
        found.unwrap().clone().unwrap()
    }

    /// Mines until the receipt comes; it must be true on the chain as it is then. Nothing is anchored twice.
    async fn receipt_is_true(self) -> (Receipt, World) {
        self.world.automine(true).await;
        let mining = mine_each(Duration::from_millis(200), &self.world);
        let (mut receipts, world) = self.all_are_true().await;
        mining.abort();
        (receipts.remove(0), world)
    }

    /// Waits for all receipts; they must be in order, and true on the chain as it is then. Nothing is anchored twice.
    async fn all_are_true(mut self) -> (Vec<Receipt>, World) {
        let evidenced = self.store.counts().0;
        let receipts = self.running.receive(evidenced as usize);
        let receipts = tokio::time::timeout(PATIENCE, receipts).await.expect("receipts");
        assert_eq!(receipts.len() as u64, evidenced);
        are_true(&self.ledger, &receipts).await;
        assert_eq!(self.ledger.next_index().await.unwrap(), evidenced);
        let anchors =
            chain::anchors_on(self.world.chain.clone(), self.ledger.addresses().evidence_ledger.0, 0);
        let anchored: u64 = anchors.await.unwrap().1.iter().map(|anchor| u64::from(anchor.count)).sum();
        assert_eq!(anchored, evidenced);
        self.in_flight.wait_for(Option::is_none).await.unwrap();
        self.running.stop().await;
        (receipts, self.world)
    }

    /// Hashes of the transactions in the pool, by their nonces.
    async fn pool(&self) -> Vec<H256> {
        pool(&self.world).await
    }
}

/// The receipts must be those of the first leaves, in order, and true on the chain as it is now.
async fn are_true(ledger: &Ledger, receipts: &[Receipt]) {
    for (index, receipt) in receipts.iter().enumerate() {
        assert_eq!(receipt.evidence.index, index as u64);
        ledger.verify(receipt).await.unwrap();
    }
}

/// Hashes of the transactions in anvil's pool, by their nonces.
async fn pool(world: &World) -> Vec<H256> {
    let content = world.chain.execute("txpool_content", vec![]).await.unwrap();
    let mut found = Vec::new();
    for list in ["pending", "queued"] {
        let accounts = content[list].as_object().unwrap().values();
        found.extend(accounts.flat_map(|nonces| nonces.as_object().unwrap()).map(|(nonce, transaction)| {
            let hash: H256 = serde_json::from_value(transaction["hash"].clone()).unwrap();
            (nonce.parse::<u64>().unwrap(), hash)
        }));
    }
    found.sort_unstable();
    found.into_iter().map(|(_, hash)| hash).collect()
}

async fn drop_from_pool(world: &World, transaction: H256) {
    let dropped = world.chain.execute("anvil_dropTransaction", vec![json!(transaction)]).await.unwrap();
    assert_eq!(dropped, json!(transaction));
}

/// Waits until so many transactions are in the pool; returns their hashes.
async fn wait_for_pool(world: &World, count: usize) -> Vec<H256> {
    let began = std::time::Instant::now();
    loop {
        let pool = pool(world).await;
        if pool.len() == count {
            return pool;
        }
        assert!(began.elapsed() < PATIENCE, "{} in the pool, must be {count}", pool.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until as many other transactions have taken the place of these in the pool.
async fn wait_for_others(world: &World, these: &[H256]) {
    let began = std::time::Instant::now();
    while wait_for_pool(world, these.len()).await.iter().any(|hash| these.contains(hash)) {
        assert!(began.elapsed() < PATIENCE, "some of them are still in the pool");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn many_batches_are_in_flight_and_one_block_takes_them_all() {
    let mut waiting = Waiting::with_entries(40, options()).await;
    waiting.wait_for(|now| now.count == 10).await;
    assert_eq!(waiting.pool().await.len(), 10);
    waiting.world.mine().await;
    let (receipts, _) = waiting.all_are_true().await;
    assert!(receipts.iter().all(|receipt| receipt.anchor.block_number == receipts[0].anchor.block_number));
}

#[tokio::test]
async fn no_more_batches_than_allowed_wait_for_a_block_but_any_number_for_confirmations() {
    let mut waiting =
        Waiting::with_entries(20, LedgerOptions { in_flight: 2, confirmations: Some(4), ..options() }).await;
    for in_pool in [2, 2, 1] {
        wait_for_pool(&waiting.world, in_pool).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(waiting.pool().await.len(), in_pool);
        waiting.world.mine().await;
    }
    waiting.wait_for(|now| now.waits_for == WaitsFor::Confirmations { have: 3, of: 4 }).await;
    assert!(waiting.running.receipts.try_recv().is_err());
    waiting.world.mine().await;
    let final_ones = tokio::time::timeout(PATIENCE, waiting.running.receive(8)).await.expect("receipts");
    assert_eq!(final_ones[7].anchor.block_number, final_ones[0].anchor.block_number);
    assert_eq!(waiting.in_flight.borrow().as_ref().map(|now| now.count), Some(3));
}

#[tokio::test]
async fn a_registration_does_not_wait_until_batches_before_it_are_final() {
    let waiting = Waiting::with_entries(8, LedgerOptions { confirmations: Some(2), ..options() }).await;
    wait_for_pool(&waiting.world, 2).await;
    waiting.world.mine().await;
    let ledger = Arc::clone(&waiting.ledger);
    let registering = tokio::spawn(async move { ledger.register([1; 32], Terms::of(Role::Operator)).await });
    wait_for_pool(&waiting.world, 1).await;
    append(&waiting.store, 8..12).await;
    wait_for_pool(&waiting.world, 2).await;
    // The batches behind it are in no block yet.
    waiting.world.mine().await;
    waiting.world.mine().await;
    let registered = tokio::time::timeout(PATIENCE, registering).await.expect("registered").unwrap().unwrap();
    assert_eq!(waiting.ledger.sender([1; 32]).await.unwrap().terms.role, Role::Operator);
    let (receipts, _) = waiting.all_are_true().await;
    assert_eq!(receipts[11].anchor.block_number, registered.block_number);
    assert_eq!(receipts[0].anchor.block_number, registered.block_number - 1);
}

#[tokio::test]
async fn a_gap_that_the_pool_made_is_filled() {
    let waiting = Waiting::with_entries(16, options()).await;
    let pool = wait_for_pool(&waiting.world, 4).await;
    // With it, anvil drops those behind it.
    drop_from_pool(&waiting.world, pool[1]).await;
    assert_eq!(wait_for_pool(&waiting.world, 4).await, pool);
    waiting.world.mine().await;
    waiting.all_are_true().await;
}

#[tokio::test]
async fn fees_that_rise_are_followed_by_all_that_wait() {
    let waiting = Waiting::with_entries(16, options()).await;
    let cheap = wait_for_pool(&waiting.world, 4).await;
    mine_at(&waiting.world.chain, 100_000_000_000).await;
    wait_for_others(&waiting.world, &cheap).await;
    waiting.world.mine().await;
    let (receipts, _) = waiting.all_are_true().await;
    assert_eq!(receipts[15].anchor.block_number, receipts[0].anchor.block_number);
}

/// A process dies with transactions in the pool, of which one is then dropped.
#[tokio::test]
async fn the_next_process_takes_up_what_is_in_flight() {
    let waiting = Waiting::with_entries(16, options()).await;
    let pool_before = wait_for_pool(&waiting.world, 4).await;
    let Waiting { world, ledger, running, store, .. } = waiting;
    running.task.abort();
    drop((ledger, running.receipts, running.state));
    assert!(world.transactions().await.exists());
    drop_from_pool(&world, pool_before[1]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(pool(&world).await, pool_before[..1], "nobody is at it");

    let ledger = Arc::new(world.ledger().await);
    let running = start(&store, &ledger);
    assert_eq!(wait_for_pool(&world, 4).await, pool_before);
    let in_flight = ledger.in_flight();
    let transaction = pool_before[0];
    let waiting = Waiting { world, ledger, store, running, in_flight, transaction };
    waiting.world.mine().await;
    let (receipts, world) = waiting.all_are_true().await;
    let anchored: std::collections::BTreeSet<_> =
        receipts.iter().map(|receipt| H256(receipt.anchor.transaction)).collect();
    assert_eq!(anchored, pool_before.into_iter().collect());
    assert!(!world.transactions().await.exists());
}

/// A revocation that was not confirmed in time, and a registration after it: asked for again, it is not the old one.
#[tokio::test]
async fn a_revocation_that_a_registration_undoes_is_sent_again() {
    let world = World::new(Kind::Anvil).await;
    world.ledger().await.register([1; 32], Terms::of(Role::Operator)).await.unwrap();
    let ledger = reconnect(&world, 2, Duration::from_secs(1)).await;
    world.automine(false).await;
    let revoked = ledger.revoke([1; 32]).await.unwrap_err();
    assert!(matches!(revoked, LedgerError::Timeout { .. }), "{revoked}");
    let registered = ledger.register([1; 32], Terms::of(Role::Observer)).await.unwrap_err();
    assert!(matches!(registered, LedgerError::Timeout { .. }), "{registered}");
    world.mine().await;
    let mut in_flight = ledger.in_flight();
    let one_of_two = WaitsFor::Confirmations { have: 1, of: 2 };
    in_flight.wait_for(|now| now.as_ref().is_some_and(|now| now.waits_for == one_of_two)).await.unwrap();
    let again = tokio::spawn({
        let ledger = Arc::clone(&ledger);
        async move { ledger.revoke([1; 32]).await }
    });
    wait_for_pool(&world, 1).await;
    world.mine().await;
    world.mine().await;
    tokio::time::timeout(PATIENCE, again).await.expect("revoked").unwrap().unwrap();
    assert_eq!(ledger.sender([1; 32]).await.unwrap().registration(0), Registration::Revoked);
}

#[tokio::test]
async fn whoever_asks_again_waits_again_for_the_same_transaction() {
    let world = World::new(Kind::Anvil).await;
    world.ledger().await;
    let ledger = reconnect(&world, 1, Duration::from_secs(1)).await;
    world.automine(false).await;
    ledger.register([1; 32], Terms::of(Role::Operator)).await.unwrap_err();
    let sent = wait_for_pool(&world, 1).await;
    let began = std::time::Instant::now();
    ledger.register([1; 32], Terms::of(Role::Operator)).await.unwrap_err();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    world.automine(true).await;
    world.mine().await;
    let mut in_flight = ledger.in_flight();
    tokio::time::timeout(PATIENCE, in_flight.wait_for(Option::is_none)).await.expect("its end").unwrap();
    assert_eq!(pool(&world).await, []);
    let receipt = json!(sent[0]);
    assert!(world.chain.execute("eth_getTransactionReceipt", vec![receipt]).await.unwrap().is_object());
}

#[tokio::test]
async fn no_attempt_goes_out_that_is_not_on_disk() {
    let mut waiting = Waiting::with_entries(8, options()).await;
    let before = wait_for_pool(&waiting.world, 2).await;
    let draft = waiting.world.transactions().await.with_extension("json.tmp");
    fs::create_dir(&draft).unwrap();
    mine_at(&waiting.world.chain, 20_000_000_000).await;
    waiting.wait_for(|now| matches!(&now.waits_for, WaitsFor::Answer(why) if why.contains("written"))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(waiting.pool().await.iter().all(|hash| before.contains(hash)));
    fs::remove_dir(&draft).unwrap();
    wait_for_others(&waiting.world, &before).await;
    waiting.world.mine().await;
    waiting.all_are_true().await;
}

/// The blocks of two batches are gone while others wait in the pool, whose nonces are too high now.
#[tokio::test]
async fn nonces_that_became_free_are_taken_by_all_that_wait_in_their_order() {
    let world = World::new(Kind::Anvil).await;
    let ledger = Arc::new(world.ledger().await);
    let store = store(world.dir.path());
    let before = world.snapshot().await;
    let mut running = start(&store, &ledger);
    append(&store, 0..8).await;
    running.receive(8).await;
    world.automine(false).await;
    append(&store, 8..16).await;
    let stranded = wait_for_pool(&world, 2).await;
    world.revert(before).await;
    let in_flight = ledger.in_flight();
    let mining = mine_each(Duration::from_millis(300), &world);
    let receipts = tokio::time::timeout(2 * PATIENCE, running.receive(16)).await.expect("receipts");
    mining.abort();
    are_true(&ledger, &receipts).await;
    assert!(!receipts.iter().any(|receipt| stranded.contains(&H256(receipt.anchor.transaction))));
    assert_eq!(in_flight.borrow().as_ref().map(|now| now.count), None);
    running.stop().await;
}

/// A batch fails behind one that is not final yet: nobody waits for that one before the others are sent again.
#[tokio::test]
async fn a_batch_that_fails_is_noticed_before_those_in_front_are_final() {
    let mut waiting = Waiting::with_entries(4, LedgerOptions { confirmations: Some(50), ..options() }).await;
    waiting.world.mine().await;
    waiting.wait_for(|now| matches!(now.waits_for, WaitsFor::Confirmations { .. })).await;
    append(&waiting.store, 4..12).await;
    wait_for_pool(&waiting.world, 2).await;
    take_nonce(&waiting.world).await;
    // The second of them was mined in that block and has failed; the first gets another nonce.
    let state = waiting.running.state.wait_for(|state| state.last_error.is_some());
    tokio::time::timeout(PATIENCE, state).await.expect("an error").unwrap();
    waiting.world.chain.execute("anvil_mine", vec![json!("0x32")]).await.unwrap();
    waiting.world.automine(true).await;
    let mining = mine_each(Duration::from_millis(20), &waiting.world);
    let receipts = tokio::time::timeout(PATIENCE, waiting.running.receive(12)).await.expect("receipts");
    assert!(receipts.iter().map(|receipt| receipt.evidence.index).eq(0..12));
    assert_eq!(waiting.ledger.next_index().await.unwrap(), 12);
    mining.abort();
}

/// The chain goes away before the first look at a transaction.
#[tokio::test]
async fn a_chain_that_never_answers_about_a_transaction_is_said_to_be_silent() {
    let world = World::new(Kind::Anvil).await;
    world.ledger().await;
    let proxy = CuttingProxy::start(world.port()).await;
    let chain = Connection::Http(chain::Http::new(&format!("http://{}", proxy.address)).unwrap());
    let ledger = Ledger::connect(chain, world.key.clone(), world.dir.path(), options()).await.unwrap();
    world.automine(false).await;
    let mut in_flight = ledger.in_flight();
    proxy.cut_all_after("eth_getTransactionReceipt");
    let anchoring = tokio::spawn(ledger.anchor(ledger.slot().await.unwrap(), (0, 1, [1; 32])));
    let silent = in_flight.wait_for(|now| {
        now.as_ref().is_some_and(|now| now.is_late && matches!(now.waits_for, WaitsFor::Answer(_)))
    });
    tokio::time::timeout(PATIENCE, silent).await.expect("a report").unwrap();
    anchoring.abort();
}

/// A registration of an earlier process that never came to pass is not what anybody wants now.
#[tokio::test]
async fn what_an_earlier_process_could_not_do_is_not_done_later() {
    let world = World::new(Kind::Anvil).await;
    let ledger = world.ledger().await;
    world.automine(false).await;
    let registering = ledger.register([1; 32], Terms::of(Role::Operator));
    tokio::time::timeout(Duration::from_secs(1), registering).await.expect_err("nobody mines");
    let sent = wait_for_pool(&world, 1).await;
    drop(ledger);
    tokio::task::yield_now().await;
    drop_from_pool(&world, sent[0]).await;
    take_nonce(&world).await;

    let ledger = Arc::new(world.ledger().await);
    let store = store(world.dir.path());
    let mut running = start(&store, &ledger);
    append(&store, 0..1).await;
    world.automine(true).await;
    assert_eq!(running.receive(1).await[0].evidence.index, 0);
    assert_eq!(ledger.sender([1; 32]).await.unwrap().registration(0), Registration::Unregistered);
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_sent_that_is_not_on_disk() {
    let world = World::new(Kind::Anvil).await;
    let ledger = Arc::new(world.ledger().await);
    world.automine(false).await;
    // A directory in place of the file's draft.
    let draft = world.transactions().await.with_extension("json.tmp");
    fs::create_dir(&draft).unwrap();
    let refused = anchor(&ledger, 0, vec![[1; 32]]).await.unwrap_err();
    assert!(refused.is_retryable() && refused.to_string().contains("transactions-31337-0x"), "{refused}");
    assert_eq!(pool(&world).await, []);
    fs::remove_dir(&draft).unwrap();
    world.automine(true).await;
    anchor(&ledger, 0, vec![[1; 32]]).await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_the_pool_dropped_is_sent_again_at_once() {
    let waiting = Waiting::start(options()).await;
    let hash = json!(waiting.transaction);
    let dropped = waiting.world.chain.execute("anvil_dropTransaction", vec![hash.clone()]).await.unwrap();
    assert_eq!(dropped, hash);
    let began = std::time::Instant::now();
    loop {
        let known =
            waiting.world.chain.execute("eth_getTransactionByHash", vec![hash.clone()]).await.unwrap();
        if !known.is_null() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(3), "not sent again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let transaction = waiting.transaction;
    assert_eq!(waiting.receipt_is_true().await.0.anchor.transaction, transaction.0);
}

#[tokio::test]
async fn fees_that_rise_are_followed_up_to_the_limit_and_waited_for_above_it() {
    const GWEI: u64 = 1_000_000_000;
    let cap = 100 * GWEI;
    let mut waiting = Waiting::start(LedgerOptions { max_fee: cap.into(), ..options() }).await;
    let first = waiting.transaction;
    // Below the limit: the next block does not take it, so it pays more.
    mine_at(&waiting.world.chain, 20 * GWEI).await;
    waiting.wait_for(|now| now.transaction != Some(first)).await;
    // Above the limit.
    mine_at(&waiting.world.chain, 1_000 * GWEI).await;
    let now = waiting.wait_for(|now| now.waits_for == WaitsFor::LowerFees { cap: cap.into() }).await;
    assert!(now.is_late, "{now:?}");
    assert!(now.to_string().ends_with("waits for fees below max_fee_gwei = 100"), "{now}");
    base_fee(&waiting.world.chain, 90 * GWEI).await;
    let (receipt, world) = waiting.receipt_is_true().await;
    let transaction = H256(receipt.anchor.transaction).into();
    let mined = Web3::new(world.chain.clone()).eth().transaction(transaction).await.unwrap().unwrap();
    let paid = mined.max_fee_per_gas.unwrap();
    assert!(paid <= cap.into() && paid > (40 * GWEI).into(), "{paid}");
}

#[tokio::test]
async fn a_nonce_that_somebody_else_with_the_key_took_is_given_up() {
    let waiting = Waiting::start(options()).await;
    take_nonce(&waiting.world).await;
    let first = waiting.transaction;
    assert_ne!(waiting.receipt_is_true().await.0.anchor.transaction, first.0);
}

#[tokio::test]
async fn a_nonce_taken_before_many_batches_costs_none_of_them() {
    for confirmations in [1, 8] {
        let options = LedgerOptions { confirmations: Some(confirmations), ..options() };
        let waiting = Waiting::with_entries(16, options).await;
        wait_for_pool(&waiting.world, 4).await;
        // The block has this one, and the three behind the first, which are out of order without it.
        take_nonce(&waiting.world).await;
        waiting.world.automine(true).await;
        let mining = mine_each(Duration::from_millis(500), &waiting.world);
        waiting.all_are_true().await;
        mining.abort();
    }
}

/// Mines blocks until it is aborted.
fn mine_each(pause: Duration, world: &World) -> JoinHandle<()> {
    let chain = world.chain.clone();
    tokio::spawn(async move {
        loop {
            mine(&chain).await;
            tokio::time::sleep(pause).await;
        }
    })
}

/// Signs a transfer of nothing with this nonce and our key, as somebody else with the key does.
async fn plain_transfer(world: &World, nonce: U256, max_fee: u64) -> SignedTransaction {
    let web3 = Web3::new(world.chain.clone());
    let secret = fs::read_to_string(world.path("ledger.key")).unwrap();
    let secret: SecretKey = secret.trim().parse().unwrap();
    let transaction = TransactionParameters {
        nonce: Some(nonce),
        to: Some(world.key.address()),
        gas: 21_000.into(),
        chain_id: Some(web3.eth().chain_id().await.unwrap().as_u64()),
        transaction_type: Some(U64::from(2)),
        max_fee_per_gas: Some(max_fee.into()),
        max_priority_fee_per_gas: Some((max_fee / 10).into()),
        ..TransactionParameters::default()
    };
    web3.accounts().sign_transaction(transaction, &secret).await.unwrap()
}

/// Has a transaction mined with the next nonce of the account, in place of ours.
async fn take_nonce(world: &World) {
    let web3 = Web3::new(world.chain.clone());
    let nonce = web3.eth().transaction_count(world.key.address(), None).await.unwrap();
    let signed = plain_transfer(world, nonce, 90_000_000_000).await;
    web3.eth().send_raw_transaction(signed.raw_transaction).await.unwrap();
    world.mine().await;
    let stranger = web3.eth().transaction_receipt(signed.transaction_hash).await.unwrap();
    assert!(stranger.is_some(), "it was mined in place of ours");
}

#[tokio::test]
async fn a_block_that_is_replaced_before_the_confirmations_leaves_no_receipt_behind() {
    for depth in [1, 2] {
        let mut waiting = Waiting::start(LedgerOptions { confirmations: Some(3), ..options() }).await;
        waiting.world.mine().await;
        if depth == 2 {
            waiting.world.mine().await;
        }
        let of = WaitsFor::Confirmations { have: depth, of: 3 };
        waiting.wait_for(|now| now.waits_for == of).await;
        let block = json!(waiting.transaction);
        let before = waiting.world.chain.execute("eth_getTransactionReceipt", vec![block]).await.unwrap();
        waiting.world.chain.execute("anvil_reorg", vec![json!(depth), json!([])]).await.unwrap();
        waiting.wait_for(|now| !matches!(now.waits_for, WaitsFor::Confirmations { .. })).await;
        assert!(waiting.running.receipts.try_recv().is_err());
        waiting.world.mine().await;
        waiting.world.mine().await;
        let receipt = waiting.receipt_is_true().await.0;
        assert_ne!(json!(H256(receipt.anchor.block_hash)), before["blockHash"]);
    }
}

/// The node has the transaction, but the connection was cut before it said so; the same for a replacement.
#[tokio::test]
async fn answers_that_are_cut_off_cost_nothing() {
    let world = World::new(Kind::Anvil).await;
    world.ledger().await;
    let proxy = CuttingProxy::start(world.port()).await;
    let chain = Connection::Http(chain::Http::new(&format!("http://{}", proxy.address)).unwrap());
    let ledger = Ledger::connect(chain, world.key.clone(), world.dir.path(), options()).await.unwrap();
    let (store, ledger) = (store(world.dir.path()), Arc::new(ledger));
    let web3 = Web3::new(world.chain.clone());
    let nonce = async || web3.eth().transaction_count(world.key.address(), None).await.unwrap();
    let before = nonce().await;
    world.automine(false).await;
    proxy.cut_after("eth_sendRawTransaction");
    let mut running = start(&store, &ledger);
    append(&store, 0..1).await;
    let mut in_flight = ledger.in_flight();
    let first = in_flight.wait_for(Option::is_some).await.unwrap().clone().unwrap().transaction;
    assert_eq!(proxy.cuts(), 1);

    proxy.cut_after("eth_sendRawTransaction");
    mine_at(&world.chain, 20_000_000_000).await;
    let replaced = in_flight.wait_for(|now| now.as_ref().is_some_and(|now| now.transaction != first));
    let replaced = tokio::time::timeout(PATIENCE, replaced).await.expect("a replacement").unwrap().clone();
    assert_eq!(proxy.cuts(), 2);
    world.mine().await;
    let receipt = tokio::time::timeout(PATIENCE, running.receive(1)).await.expect("a receipt").remove(0);
    assert_eq!(Some(H256(receipt.anchor.transaction)), replaced.unwrap().transaction);
    ledger.verify(&receipt).await.unwrap();
    assert_eq!(nonce().await, before + 1, "nothing was sent twice");
    running.stop().await;
}

/// Who wanted the registration has gone.
#[tokio::test]
async fn a_transaction_that_nobody_waits_for_is_brought_to_its_end() {
    let world = World::new(Kind::Anvil).await;
    let ledger = Arc::new(world.ledger().await);
    world.automine(false).await;
    let registering = ledger.register([1; 32], Terms::of(Role::Operator));
    tokio::time::timeout(Duration::from_secs(1), registering).await.expect_err("nobody mines");
    let mut in_flight = ledger.in_flight();
    let open = in_flight.borrow_and_update().clone().expect("in flight").transaction.expect("sent");
    world.chain.execute("anvil_dropTransaction", vec![json!(open)]).await.unwrap();
    world.automine(true).await;
    tokio::time::timeout(PATIENCE, in_flight.wait_for(Option::is_none)).await.expect("its end").unwrap();
    assert_eq!(ledger.sender([1; 32]).await.unwrap().terms.role, Role::Operator);
}

#[tokio::test]
async fn gives_no_receipt_before_the_confirmations() {
    let world = World::new(Kind::Anvil).await;
    world.ledger().await;
    let ledger = reconnect(&world, 3, Duration::from_secs(30)).await;
    let store = store(world.dir.path());
    let mut running = start(&store, &ledger);
    append(&store, 0..1).await;
    while ledger.next_index().await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    world.mine().await;
    let two_of_three = WaitsFor::Confirmations { have: 2, of: 3 };
    let mut in_flight = ledger.in_flight();
    let waits = in_flight.wait_for(|now| now.as_ref().is_some_and(|now| now.waits_for == two_of_three));
    tokio::time::timeout(PATIENCE, waits).await.expect("two confirmations").unwrap();
    assert!(running.receipts.try_recv().is_err());
    world.mine().await;
    let receipt = running.receive(1).await.remove(0);
    let head = Web3::new(world.chain.clone()).eth().block_number().await.unwrap().as_u64();
    assert_eq!(head, receipt.anchor.block_number + 2);
    ledger.verify(&receipt).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn gives_no_receipt_before_the_chain_calls_the_block_final() {
    let mut waiting = Waiting::start(LedgerOptions { confirmations: None, ..options() }).await;
    waiting.world.mine().await;
    let number = |tag: &str| {
        let block = waiting.world.chain.execute("eth_getBlockByNumber", vec![json!(tag), json!(false)]);
        async { serde_json::from_value::<U64>(block.await.unwrap()["number"].clone()).unwrap().as_u64() }
    };
    let block = number("latest").await;
    assert_eq!(waiting.ledger.finality(), Finality::Finalized);
    while number("finalized").await < block {
        assert!(waiting.running.receipts.try_recv().is_err());
        waiting.world.chain.execute("anvil_mine", vec![json!("0x4")]).await.unwrap();
    }
    let (receipts, _) = waiting.all_are_true().await;
    assert_eq!(receipts[0].anchor.block_number, block);
}

/// A receipt on anvil, and what its transaction was.
async fn final_receipt() -> (World, Arc<Ledger>, EvidenceStore, Running, Receipt, Value) {
    let world = World::new(Kind::Anvil).await;
    let ledger = Arc::new(world.ledger().await);
    let store = store(world.dir.path());
    let mut running = start(&store, &ledger);
    append(&store, 0..2).await;
    let receipts = running.receive(2).await;
    let hash = json!(H256(receipts[0].anchor.transaction));
    let raw = world.chain.execute("eth_getRawTransactionByHash", vec![hash]).await.unwrap();
    (world, ledger, store, running, receipts[0].clone(), raw)
}

/// The receipts that supersede others must be true on the chain as it is now.
async fn superseded(ledger: &Ledger, store: &EvidenceStore, running: &mut Running, old: &Receipt) -> Receipt {
    let receipts = tokio::time::timeout(PATIENCE, running.receive(2)).await.expect("receipts again");
    for (index, receipt) in receipts.iter().enumerate() {
        assert_eq!((receipt.evidence.index, receipt.anchor.revision), (index as u64, 1));
        ledger.verify(receipt).await.unwrap();
        assert_eq!(store.receipt(receipt.evidence.entry.identity()).await.unwrap().as_ref(), Some(receipt));
    }
    assert!(!ledger.verify(old).await.unwrap_err().is_retryable());
    assert_eq!((ledger.next_index().await.unwrap(), store.counts()), (2, (2, 2)));
    receipts[0].clone()
}

#[tokio::test]
async fn what_a_reorganisation_deeper_than_the_confirmations_drops_is_anchored_again() {
    for depth in [1, 2, 20, 60] {
        let (world, ledger, store, mut running, old, _) = final_receipt().await;
        for _ in 1..depth {
            world.mine().await;
        }
        world.chain.execute("anvil_reorg", vec![json!(depth), json!([])]).await.unwrap();
        running.state.wait_for(|state| state.last_error.is_some()).await.unwrap();
        let new = superseded(&ledger, &store, &mut running, &old).await;
        assert_ne!(new.anchor.block_hash, old.anchor.block_hash);
        append(&store, 2..3).await;
        assert_eq!(running.receive(1).await[0].anchor.revision, 0);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_transaction_that_a_reorganisation_moves_to_another_block_gets_another_receipt() {
    let (world, ledger, store, mut running, old, raw) = final_receipt().await;
    world.mine().await;
    world.mine().await;
    // Three new blocks, and it is in the second.
    world.chain.execute("anvil_reorg", vec![json!(3), json!([[raw, 1]])]).await.unwrap();
    let new = superseded(&ledger, &store, &mut running, &old).await;
    assert_eq!(new.anchor.transaction, old.anchor.transaction);
    assert_eq!(new.anchor.block_number, old.anchor.block_number + 1);
    running.stop().await;
}

/// A node that was off has blocks from before the contracts, until it has caught up; one that was reset never has them.
#[tokio::test]
async fn a_node_that_lacks_the_contracts_block_is_waited_for() {
    let world = World::new(Kind::Anvil).await;
    let before = world.snapshot().await;
    let deployed = world.ledger().await.addresses().deployed_block;
    world.revert(before).await;
    let error = world.connect(world.key.clone()).await.err().unwrap();
    assert!(matches!(error, LedgerError::Behind { deployed: block, .. } if block == deployed), "{error}");
    assert!(error.is_retryable() && error.to_string().contains("it catches up, or the chain was reset"));
    for _ in 0..deployed {
        world.mine().await;
    }
    let error = world.connect(world.key.clone()).await.err().unwrap();
    assert!(matches!(error, LedgerError::NoCode { .. }) && !error.is_retryable(), "{error}");
}

/// An embedded chain that was lost gets no blocks from anybody.
#[tokio::test]
async fn an_embedded_chain_without_the_contracts_is_not_waited_for() {
    let world = World::new(Kind::Embedded).await;
    drop(world.ledger().await);
    let other = EmbeddedChain::open(&world.path("other"), world.key.address(), SystemTime::now).unwrap();
    let chain = Connection::Embedded(other);
    let error = Ledger::connect(chain, world.key.clone(), world.dir.path(), options()).await.err().unwrap();
    assert!(matches!(error, LedgerError::NoCode { .. }) && !error.is_retryable(), "{error}");
}

/// The node was off while it happened, and the chain has begun anew.
#[tokio::test]
async fn a_chain_that_was_reset_gets_all_evidence_again() {
    let world = World::new(Kind::Anvil).await;
    let ledger = Arc::new(world.ledger().await);
    let store = store(world.dir.path());
    let before = world.snapshot().await;
    let mut running = start(&store, &ledger);
    append(&store, 0..6).await;
    let old = running.receive(6).await;
    running.stop().await;
    world.revert(before).await;
    assert!(!ledger.verify(&old[5]).await.unwrap_err().is_retryable());

    let mut running = start(&store, &ledger);
    append(&store, 6..7).await;
    let new = tokio::time::timeout(PATIENCE, running.receive(7)).await.expect("receipts");
    are_true(&ledger, &new).await;
    assert!(new[..6].iter().all(|receipt| receipt.anchor.revision == 1));
    running.stop().await;
}

/// `contracts.json` was lost, and an operator asked for new contracts: the log is anchored as a whole in the new one.
#[tokio::test]
async fn new_contracts_get_all_evidence_again() {
    let world = World::new(Kind::Anvil).await;
    let store = store(world.dir.path());
    let ledger = Arc::new(world.ledger().await);
    let mut running = start(&store, &ledger);
    append(&store, 0..6).await;
    let old = running.receive(6).await;
    running.stop().await;
    fs::remove_file(world.path("contracts.json")).unwrap();

    let again = || Ledger::connect(world.chain.clone(), world.key.clone(), world.dir.path(), options());
    let error = again().await.err().unwrap();
    assert!(matches!(error, LedgerError::LostContracts { .. }) && !error.is_retryable(), "{error}");
    assert!(
        error
            .to_string()
            .contains("contracts.json' is missing, though this is not the first start: restore it"),
        "{error}"
    );
    assert!(!world.path("contracts.json").exists());
    fs::write(world.path("contracts.json"), "{}\n").unwrap();
    let ledger = Arc::new(again().await.unwrap());
    let mut running = start(&store, &ledger);
    let new = tokio::time::timeout(PATIENCE, running.receive(6)).await.expect("receipts");
    for (old, new) in old.iter().zip(&new) {
        assert_eq!((new.evidence.index, new.anchor.revision), (old.evidence.index, 1));
        assert_ne!(new.anchor.contract, old.anchor.contract);
        ledger.verify(new).await.unwrap();
    }
    running.stop().await;
}

/// What is on chain in place of ours is not ours.
#[tokio::test]
async fn somebody_elses_entries_after_a_reorganisation_end_the_anchorer() {
    let world = World::new(Kind::Anvil).await;
    let ledger = Arc::new(world.ledger().await);
    let store = store(world.dir.path());
    let before = world.snapshot().await;
    let mut running = start(&store, &ledger);
    append(&store, 0..1).await;
    running.receive(1).await;
    running.stop().await;
    world.revert(before).await;
    anchor(&ledger, 0, vec![[9; 32]]).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, start(&store, &ledger).task).await.expect("an end");
    let error = ended.unwrap().unwrap_err().to_string();
    assert!(error.contains("its root is not that of the evidence log"), "{error}");
}

/// Two nodes with one key and, by mistake, the same contracts. What they gave receipts for stays true.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_logs_in_one_contract_one_ends_and_says_why() {
    let world = World::new(Kind::Anvil).await;
    let verifier = world.ledger().await;
    let other = world.path("other");
    fs::create_dir(&other).unwrap();
    for file in ["ledger.key", "contracts.json"] {
        fs::copy(world.path(file), other.join(file)).unwrap();
    }
    let mut logs = Vec::new();
    for (directory, first) in [(world.dir.path().to_owned(), 0), (other, 1_000)] {
        let ledger = Ledger::connect(world.chain.clone(), world.key.clone(), &directory, options()).await;
        let store = store(&directory);
        append(&store, first..first + 40).await;
        logs.push((store, Arc::new(ledger.unwrap())));
    }
    let (give, mut given) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    for (store, ledger) in logs {
        let give = give.clone();
        tasks.spawn(async move {
            let Running { mut receipts, task, stop: _stop, .. } = start(&store, &ledger);
            while let Some(receipt) = receipts.recv().await {
                give.send(receipt).unwrap();
            }
            task.await.unwrap().unwrap_err().to_string()
        });
    }
    let ended = tokio::time::timeout(PATIENCE, tasks.join_next()).await.expect("an end");
    let reason = ended.unwrap().unwrap();
    assert!(reason.contains("its root is not that of the evidence log"), "{reason}");
    // Somebody had anchored what was in the way, and gets or got receipts for it.
    let first = tokio::time::timeout(PATIENCE, given.recv()).await.expect("a receipt").unwrap();
    verifier.verify(&first).await.unwrap();
    while let Ok(receipt) = given.try_recv() {
        verifier.verify(&receipt).await.unwrap();
    }
}
