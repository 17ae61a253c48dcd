// SPDX-License-Identifier: Apache-2.0
//! `kill -9` at any moment, on a chain that loses transactions, answers and blocks: every entry is on the chain once, in
//! order, and has a true receipt. `make test-faults` makes many rounds, `make test` a few.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use chain::{Connection, Http, Ledger, LedgerKey, anchors_on};
use evidence::audit::{Batch, audit};
use serde_json::json;
use tokio::time::{sleep, timeout};
use web3::Transport;

use super::{
    append, entry,
    fixture::{CuttingProxy, Kind, World, base_fee, options},
    pool, start_with, store,
};

const DIRECTORY: &str = "POSTHORN_TEST_KILLED_ANCHORER";
const ENDPOINT: &str = "POSTHORN_TEST_KILLED_ANCHORER_ENDPOINT";
/// Number of rounds, and the seed of what happens in them.
const ROUNDS: &str = "POSTHORN_FAULTS";
const SEED: &str = "POSTHORN_FAULTS_SEED";
/// How long the chain may take to have everything once nothing goes wrong any more.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long a chain that goes back may contradict the log.
const PATIENCE: Duration = Duration::from_secs(600);

/// Not a test itself: this is the process that the test below kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by every_entry_is_on_the_chain_once_and_in_order"]
async fn killed_anchorer() {
    let (Ok(directory), Ok(endpoint)) = (std::env::var(DIRECTORY), std::env::var(ENDPOINT)) else { return };
    let directory = Path::new(&directory);
    let (store, ledger) = (store(directory), Arc::new(connect(directory, &endpoint).await));
    let mut running = start_with(&store, &ledger, PATIENCE);
    let feed = async {
        loop {
            let (next, _) = store.counts();
            append(&store, next..next + 1 + next % 5).await;
            sleep(Duration::from_millis(next % 7)).await;
        }
    };
    let receive = async {
        loop {
            running.receive(1).await;
        }
    };
    tokio::join!(feed, receive);
}

async fn connect(directory: &Path, endpoint: &str) -> Ledger {
    let key = LedgerKey::load_or_create(&directory.join("ledger.key")).unwrap();
    let chain = Connection::Http(Http::new(endpoint).unwrap());
    Ledger::connect_patiently(chain, key, directory, options(), |_| ()).await.unwrap()
}

fn spawn(directory: &Path, endpoint: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ledger::kill::killed_anchorer", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ENDPOINT, endpoint)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Numbers that look random and are the same for the same seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// One thing that a chain may do to those who use it.
async fn misbehave(world: &World, proxy: &CuttingProxy, random: &mut Random) {
    let execute = async |method: &str, params| world.chain.execute(method, params).await;
    match random.below(8) {
        0 => world.automine(false).await,
        1 => world.automine(true).await,
        2 => world.mine().await,
        3 => {
            for transaction in pool(world).await {
                // It may have been mined meanwhile.
                let _ = execute("anvil_dropTransaction", vec![json!(transaction)]).await;
            }
        }
        4 => {
            let head = web3::Web3::new(world.chain.clone()).eth().block_number().await.unwrap().as_u64();
            let depth = 1 + random.below(3);
            if head > 8 {
                let _ = execute("anvil_reorg", vec![json!(depth), json!([])]).await;
            }
        }
        5 => proxy.cut_after("eth_sendRawTransaction"),
        6 => proxy.cut_after("eth_getTransactionReceipt"),
        _ => base_fee(&world.chain, 1_000_000_000 * (1 + random.below(300))).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_is_on_the_chain_once_and_in_order() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (rounds, seed) = (number(ROUNDS).unwrap_or(8), number(SEED).unwrap_or(20_261_122));
    eprintln!("{SEED}={seed}");
    let mut random = Random(seed | 1);
    let world = World::new(Kind::Anvil).await;
    let contract = world.ledger().await.addresses().evidence_ledger.0;
    let proxy = CuttingProxy::start(world.port()).await;
    let endpoint = format!("http://{}", proxy.address);
    for round in 0..rounds {
        let mut child = spawn(world.dir.path(), &endpoint);
        for _ in 0..1 + random.below(6) {
            sleep(Duration::from_millis(10 + random.below(90))).await;
            misbehave(&world, &proxy, &mut random).await;
        }
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ended, None, "round {round}: it ended by itself");
    }
    proxy.pass_all();
    base_fee(&world.chain, 1_000_000_000).await;
    world.automine(true).await;
    // A real chain goes on. One that has gone back and makes no block might be a node that lags, for minutes.
    for _ in 0..16 {
        world.mine().await;
    }

    let (store, ledger) = (store(world.dir.path()), Arc::new(connect(world.dir.path(), &endpoint).await));
    let running = start_with(&store, &ledger, PATIENCE);
    let (next, _) = store.counts();
    append(&store, next..next + 1).await;
    let mut state = running.state.clone();
    let mut receipts = running.receipts;
    let drain = tokio::spawn(async move { while receipts.recv().await.is_some() {} });
    let all = timeout(RECOVERY, state.wait_for(|state| state.anchored == next + 1)).await;
    let is_whole = all.is_ok_and(|all| all.is_ok());
    assert!(is_whole, "{} entries: {:?}", next + 1, *running.state.borrow());
    running.stop.send(()).unwrap();
    running.task.await.unwrap().unwrap();
    drain.await.unwrap();

    let (on_chain, anchors) = anchors_on(world.chain.clone(), contract, 0).await.unwrap();
    let batch = |one: chain::OnChain| Batch { first: one.first, count: one.count, root: one.root };
    let batches: Vec<_> = anchors.into_iter().map(batch).collect();
    let agreement = audit(&world.path("evidence"), on_chain, &batches).unwrap();
    assert_eq!((agreement.leaves, agreement.anchored), (next + 1, next + 1));
    for index in (0..=next).step_by(11) {
        let receipt = store.receipt(entry(index).identity()).await.unwrap().expect("a receipt");
        ledger.verify(&receipt).await.unwrap();
    }
    eprintln!(
        "{rounds} rounds, {} entries in {} batches, {} answers cut",
        next + 1,
        batches.len(),
        proxy.cuts()
    );
}
