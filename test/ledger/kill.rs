// SPDX-License-Identifier: Apache-2.0
//! `kill -9` at any moment, on a chain that loses transactions, answers and blocks, with two nodes that share a key: every
//! entry is on the chain once, in order, and has a true receipt. `make test-faults` makes many rounds, `make test` a few.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use authenticator::store::EvidenceStore;
use chain::{Connection, Http, Ledger, LedgerError, LedgerKey, LedgerOptions, anchors_on};
use evidence::audit::{Batch, audit};
use tokio::time::{Instant, sleep, timeout};

use super::{
    append, entry,
    faults::FaultyChain,
    fixture::{World, options},
    start_with, store,
};

const DIRECTORY: &str = "POSTHORN_TEST_KILLED_ANCHORER";
const ENDPOINT: &str = "POSTHORN_TEST_KILLED_ANCHORER_ENDPOINT";
/// Number of confirmations; not a number: until the chain calls a block finalized.
const CONFIRMATIONS: &str = "POSTHORN_TEST_KILLED_ANCHORER_CONFIRMATIONS";
/// Number of rounds, and the seed of what happens in them.
const ROUNDS: &str = "POSTHORN_FAULTS";
const SEED: &str = "POSTHORN_FAULTS_SEED";
/// After so many rounds everything must be on the chain, before the next ones begin.
const ROUNDS_BETWEEN_CHECKS: u64 = 8;
/// How long the chain may take to have everything once nothing goes wrong any more.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long a chain that goes back may contradict the log.
const PATIENCE: Duration = Duration::from_secs(600);

/// Not a test itself: this is the process that the test below kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by every_entry_is_on_the_chain_once_and_in_order"]
async fn killed_anchorer() {
    let (Ok(directory), Ok(endpoint)) = (std::env::var(DIRECTORY), std::env::var(ENDPOINT)) else { return };
    let confirmations = std::env::var(CONFIRMATIONS).ok().and_then(|number| number.parse().ok());
    let directory = Path::new(&directory);
    let ledger = connect(directory, &endpoint, confirmations).await;
    let (store, ledger) = (store(directory), Arc::new(ledger));
    let mut running = start_with(&store, &ledger, PATIENCE);
    let feed = async {
        loop {
            let (next, _) = store.counts();
            append(&store, next..next + 1 + next % 5).await;
            sleep(Duration::from_millis(next % 67)).await;
        }
    };
    let receive = async {
        loop {
            running.receive(1).await;
        }
    };
    tokio::join!(feed, receive);
}

async fn connect(directory: &Path, endpoint: &str, confirmations: Option<u64>) -> Ledger {
    let key = LedgerKey::load_or_create(&directory.join("ledger.key")).unwrap();
    let chain = Connection::Http(Http::new(endpoint).unwrap());
    let options = LedgerOptions { confirmations, ..options() };
    Ledger::connect_patiently(chain, key, directory, options, |_| ()).await.unwrap()
}

/// Draws when a block counts as final.
fn confirmations(chain: &mut FaultyChain) -> Option<u64> {
    let (confirmations, what) = [
        (Some(1), "a node with 1 confirmation"),
        (Some(2), "a node with 2 confirmations"),
        (Some(12), "a node with 12 confirmations"),
        (None, "a node that waits for finalized blocks"),
    ][chain.random.below(4) as usize];
    chain.count(what);
    confirmations
}

/// A node that shares its account with the others; its log and its contracts are its own.
struct Node {
    directory: PathBuf,
    contract: [u8; 20],
}

/// A node's process; killed on drop.
struct Process {
    child: Child,
    /// What it writes to stderr.
    output: PathBuf,
}

/// What a node has on the chain.
struct Whole {
    entries: u64,
    batches: usize,
    /// Entries without a receipt when it started.
    waited: u64,
    /// Entries whose first receipt was taken back.
    superseded: u64,
    took: Duration,
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, batches, waited, superseded, took } = self;
        write!(
            f,
            "{entries} entries in {batches} batches, {superseded} with another receipt, the last {waited} in {took:.1?}"
        )
    }
}

impl Node {
    async fn new(world: &World, directory: PathBuf) -> Self {
        if directory != world.dir.path() {
            fs::create_dir(&directory).unwrap();
            fs::copy(world.path("ledger.key"), directory.join("ledger.key")).unwrap();
            chain::want_new_contracts(&directory).unwrap();
        }
        let ledger = Ledger::connect(world.chain.clone(), world.key.clone(), &directory, options()).await;
        let contract = ledger.unwrap().addresses().evidence_ledger.0;
        Self { directory, contract }
    }

    fn spawn(&self, endpoint: &str, confirmations: Option<u64>) -> Process {
        let output = self.directory.join("output");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::kill::killed_anchorer", "--ignored", "--nocapture"])
            .env(DIRECTORY, &self.directory)
            .env(ENDPOINT, endpoint)
            .env(CONFIRMATIONS, confirmations.map_or("finalized".to_owned(), |count| count.to_string()))
            .stdout(Stdio::null())
            .stderr(fs::File::create(&output).unwrap())
            .spawn()
            .unwrap();
        Process { child, output }
    }

    /// Anchors one more entry and waits until all entries have true receipts; then log and chain must agree.
    async fn becomes_whole(&self, world: &World, endpoint: &str, confirmations: Option<u64>) -> Whole {
        let began = Instant::now();
        let ledger = Arc::new(connect(&self.directory, endpoint, confirmations).await);
        let store = store(&self.directory);
        let running = start_with(&store, &ledger, PATIENCE);
        let (evidenced, anchored) = store.counts();
        let (entries, waited) = (evidenced + 1, evidenced - anchored);
        append(&store, entries - 1..entries).await;
        let (mut receipts, mut state) = (running.receipts, running.state.clone());
        let drain = tokio::spawn(async move { while receipts.recv().await.is_some() {} });
        let all = timeout(RECOVERY, state.wait_for(|state| state.anchored == entries)).await;
        let (are_anchored, anchored) = (all.is_ok_and(|all| all.is_ok()), Instant::now());
        assert!(are_anchored, "{entries} entries, {confirmations:?}: {:?}", *running.state.borrow());
        // Batches that a reorganisation moved to other blocks get their other receipts a moment later.
        let mut verified = 0;
        while let Err(error) = are_true(&store, &ledger, &mut verified, entries).await {
            let state = running.state.borrow().clone();
            assert!(
                anchored.elapsed() < RECOVERY,
                "{entries} entries, {confirmations:?}: {error}: {state:?}"
            );
            sleep(Duration::from_millis(50)).await;
        }
        running.stop.send(()).unwrap();
        running.task.await.unwrap().unwrap();
        drain.await.unwrap();
        let superseded = are_true(&store, &ledger, &mut 0, entries).await.unwrap();

        let (on_chain, anchors) = anchors_on(world.chain.clone(), self.contract, 0).await.unwrap();
        let batch = |one: chain::OnChain| Batch { first: one.first, count: one.count, root: one.root };
        let batches: Vec<_> = anchors.into_iter().map(batch).collect();
        let agreement = audit(&self.directory.join("evidence"), on_chain, &batches).unwrap();
        assert_eq!((agreement.leaves, agreement.anchored), (entries, entries));
        Whole { entries, batches: batches.len(), waited, superseded, took: began.elapsed() }
    }
}

impl Process {
    /// Kills it; it must be alive.
    fn kill(mut self, round: u64) {
        let ended = self.child.try_wait().unwrap();
        let output = || fs::read_to_string(&self.output).unwrap_or_default();
        assert_eq!(ended, None, "round {round}: it ended by itself: {}", output());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Verifies the receipts of the entries from `next` on, on the chain as it is now; `next` is then the first one that is
/// not true. Returns how many of them supersede another.
async fn are_true(
    store: &EvidenceStore,
    ledger: &Ledger,
    next: &mut u64,
    entries: u64,
) -> Result<u64, LedgerError> {
    let (mut verified, mut superseded) = (None, 0);
    while *next < entries {
        let reason = format!("entry {next} has none");
        let missing = LedgerError::Unreachable { action: "look for a receipt", reason };
        let receipt = store.receipt(entry(*next).identity()).await.unwrap().ok_or(missing)?;
        assert_eq!(receipt.evidence.index, *next);
        // Receipts of a batch have the same anchor.
        if verified.as_ref() == Some(&receipt.anchor) {
            receipt.verify_offline()?;
        } else {
            ledger.verify(&receipt).await?;
        }
        superseded += u64::from(receipt.anchor.revision > 0);
        (verified, *next) = (Some(receipt.anchor), *next + 1);
    }
    Ok(superseded)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_is_on_the_chain_once_and_in_order() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let (rounds, seed) = (number(ROUNDS).unwrap_or(8), number(SEED).unwrap_or(20_261_122));
    assert!(rounds > 0, "{ROUNDS}=0: must be at least 1");
    eprintln!("{SEED}={seed}");
    let mut chain = FaultyChain::new(seed).await;
    let endpoint = chain.endpoint();
    let first = Node::new(&chain.world, chain.world.dir.path().to_owned()).await;
    let second = Node::new(&chain.world, chain.world.path("second")).await;
    chain.settle().await;
    for round in 1..=rounds {
        let nodes = match chain.random.below(4) {
            0 => vec![&first],
            1 => vec![&second],
            2 => vec![&first, &second],
            _ => vec![&second, &first],
        };
        let mut processes = Vec::new();
        for node in nodes {
            processes.push(node.spawn(&endpoint, confirmations(&mut chain)));
        }
        chain.count(if processes.len() == 1 { "one node" } else { "two nodes at once" });
        for process in processes {
            // Some live longer than the two seconds after which a nonce that somebody else took is given up.
            let most = [4, 8, 24][chain.random.below(3) as usize];
            for _ in 0..1 + chain.random.below(most) {
                sleep(Duration::from_millis(10 + chain.random.below(290))).await;
                chain.misbehave().await;
            }
            process.kill(round);
        }
        if round % ROUNDS_BETWEEN_CHECKS == 0 || round == rounds {
            chain.behave().await;
            let settings = [confirmations(&mut chain), confirmations(&mut chain)];
            let (one, other) = tokio::join!(
                first.becomes_whole(&chain.world, &endpoint, settings[0]),
                second.becomes_whole(&chain.world, &endpoint, settings[1]),
            );
            eprintln!("round {round}: {one}; {other}");
        }
    }
    chain.report();
}
