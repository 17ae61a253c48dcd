// SPDX-License-Identifier: Apache-2.0
//! An anvil that does, at random, what a chain may do to those who use it.
//!
//! The same seed begins with the same faults. What they find depends on timing, so later draws may differ.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

use chain::Connection;
use serde_json::{Value, json};
use tokio::{sync::Mutex, task::JoinSet, time::sleep};
use web3::{Transport, Web3};

use super::{
    fixture::{CuttingProxy, Kind, World, base_fee, fund},
    plain_transfer, pool,
};

const GWEI: u64 = 1_000_000_000;
/// Pause between two blocks.
const SLOT: Duration = Duration::from_millis(20);
/// Most blocks that a reorganisation replaces.
const DEEPEST: u64 = 64;

/// Numbers that look random and are the same for the same seed (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// An anvil, and what has been done to it.
pub struct FaultyChain {
    /// Mines in anvil's place, which would go on mining what it has queued during a reorganisation.
    _miner: JoinSet<()>,
    /// Whether there are new blocks by themselves; locked while one is made.
    makes_blocks: Arc<Mutex<bool>>,
    pub world: World,
    pub proxy: CuttingProxy,
    pub random: Random,
    /// Reorganisations leave this block and those before it.
    floor: u64,
    /// How often each thing was drawn.
    drawn: BTreeMap<&'static str, u32>,
    deepest: u64,
}

impl FaultyChain {
    /// Until it is [`settled`](Self::settle), each transaction is mined at once.
    pub async fn new(seed: u64) -> Self {
        let world = World::new(Kind::Anvil).await;
        let proxy = CuttingProxy::start(world.port()).await;
        let makes_blocks = Arc::<Mutex<bool>>::default();
        let mut miner = JoinSet::new();
        miner.spawn(mine_while(Arc::clone(&makes_blocks), world.chain.clone()));
        let (random, drawn) = (Random::new(seed), BTreeMap::new());
        Self { _miner: miner, makes_blocks, world, proxy, random, floor: u64::MAX, drawn, deepest: 0 }
    }

    /// URL of its JSON-RPC, by way of the proxy.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.proxy.address)
    }

    /// From now on there are blocks all the time, and reorganisations leave those that there are already.
    pub async fn settle(&mut self) {
        self.world.automine(false).await;
        self.floor = self.head().await;
        self.make_blocks(true).await;
    }

    async fn head(&self) -> u64 {
        Web3::new(self.world.chain.clone()).eth().block_number().await.unwrap().as_u64()
    }

    async fn execute(&self, method: &str, params: Vec<Value>) -> Value {
        self.world.chain.execute(method, params).await.unwrap()
    }

    async fn make_blocks(&self, on: bool) {
        *self.makes_blocks.lock().await = on;
    }

    /// One fault, or the end of one.
    pub async fn misbehave(&mut self) {
        let drawn = match self.random.below(24) {
            0 => {
                self.make_blocks(false).await;
                "no blocks any more"
            }
            1..=4 => {
                self.make_blocks(true).await;
                "blocks again"
            }
            5 => {
                self.world.mine().await;
                "a block"
            }
            6 => {
                let blocks = 1 + self.random.below(96);
                self.execute("anvil_mine", vec![json!(format!("{blocks:#x}"))]).await;
                "many blocks"
            }
            7 => self.drop_pool().await,
            8..=11 => self.reorganise().await,
            12 => {
                self.proxy.cut_after("eth_sendRawTransaction");
                "a cut answer to a transaction"
            }
            13 => {
                self.proxy.cut_after("eth_getTransactionReceipt");
                "a cut answer with receipts"
            }
            14 => {
                base_fee(&self.world.chain, GWEI * (1 + self.random.below(300))).await;
                "another base fee"
            }
            15 => {
                let account = json!(self.world.key.address());
                self.execute("anvil_setBalance", vec![account, json!("0x0")]).await;
                "no funds"
            }
            16..=19 => {
                fund(&self.world.chain, self.world.key.address()).await;
                "funds"
            }
            20 => self.take_nonce().await,
            _ => "nothing",
        };
        self.count(drawn);
    }

    /// Notes that something was drawn.
    pub fn count(&mut self, what: &'static str) {
        *self.drawn.entry(what).or_default() += 1;
    }

    async fn drop_pool(&mut self) -> &'static str {
        for transaction in pool(&self.world).await {
            // It may have been mined meanwhile.
            let _ = self.world.chain.execute("anvil_dropTransaction", vec![json!(transaction)]).await;
        }
        "an empty pool"
    }

    /// Somebody else with the key sends a transaction, with the account's next nonce or one of the three after it.
    async fn take_nonce(&mut self) -> &'static str {
        let web3 = Web3::new(self.world.chain.clone());
        let next = web3.eth().transaction_count(self.world.key.address(), None).await.unwrap();
        let nonce = next + self.random.below(4);
        let transfer = plain_transfer(&self.world, nonce, 2_000 * GWEI).await;
        match web3.eth().send_raw_transaction(transfer.raw_transaction).await {
            Ok(_) => "a nonce taken",
            // Ours pays more, or the account has nothing.
            Err(_) => "a nonce not taken",
        }
    }

    /// Replaces up to 64 of the newest blocks. The first of their transactions, or all, or none, are in the new blocks,
    /// spread over them at random; the others are in the pool again, or lost.
    async fn reorganise(&mut self) -> &'static str {
        let makes_blocks = Arc::clone(&self.makes_blocks);
        let _stopped = makes_blocks.lock().await;
        let head = self.head().await;
        let depth = match self.random.below(4) {
            0 => 1 + self.random.below(3),
            1 => 1 + self.random.below(16),
            2 => 1 + self.random.below(DEEPEST),
            _ => self.idle_blocks(head).await + 1 + self.random.below(8),
        };
        let depth = depth.min(DEEPEST).min(head - self.floor);
        if depth == 0 { "nothing to reorganise" } else { self.replace(head, depth).await }
    }

    async fn replace(&mut self, head: u64, depth: u64) -> &'static str {
        let mut transactions = self.transactions(head - depth + 1..=head).await;
        self.deepest = self.deepest.max(depth);
        self.count(match depth {
            1..=3 => "blocks replaced: 1 to 3",
            4..=16 => "blocks replaced: 4 to 16",
            _ => "blocks replaced: 17 to 64",
        });
        let all = transactions.len() as u64;
        let count = [0, all, self.random.below(all + 1)][self.random.below(3) as usize];
        let (others, is_lost) = (transactions.split_off(count as usize), self.random.below(2) == 0);
        // Between two branches, the chain is shorter than before for a while.
        let is_seen_short = count == 0 && self.random.below(2) == 0;
        // anvil shows its state while it is being rebuilt; a real node changes branches at once.
        let held = self.proxy.hold().await;
        if is_seen_short {
            self.execute("anvil_rollback", vec![json!(depth)]).await;
        } else {
            let mut places: Vec<_> = transactions.iter().map(|_| self.random.below(depth)).collect();
            places.sort_unstable();
            let moved: Vec<_> = transactions.into_iter().zip(places).collect();
            self.execute("anvil_reorg", vec![json!(depth), json!(moved)]).await;
        }
        drop(held);
        for transaction in others.iter().filter(|_| !is_lost) {
            // Its place may be another one's by now.
            let _ = self.world.chain.execute("eth_sendRawTransaction", vec![transaction.clone()]).await;
        }
        if is_seen_short {
            self.count("a shorter chain for a while");
            sleep(Duration::from_millis(self.random.below(100))).await;
            self.execute("anvil_mine", vec![json!(format!("{depth:#x}"))]).await;
        }
        match (count, others.is_empty(), is_lost) {
            _ if all == 0 => "a reorganisation of empty blocks",
            (_, true, _) => "a reorganisation, all in other blocks",
            (0, _, true) => "a reorganisation, all lost",
            (0, _, false) => "a reorganisation, all in the pool",
            (_, _, true) => "a reorganisation, some lost",
            (_, _, false) => "a reorganisation, some in the pool",
        }
    }

    /// Number of blocks after the newest one that has transactions.
    async fn idle_blocks(&self, head: u64) -> u64 {
        let mut idle = 0;
        while idle < DEEPEST && self.hashes(head.saturating_sub(idle)).await.is_empty() {
            idle += 1;
        }
        idle
    }

    /// The transactions of these blocks, as they were sent.
    async fn transactions(&self, blocks: RangeInclusive<u64>) -> Vec<Value> {
        let mut transactions = Vec::new();
        for number in blocks {
            for hash in self.hashes(number).await {
                transactions.push(self.execute("eth_getRawTransactionByHash", vec![hash]).await);
            }
        }
        transactions
    }

    /// Hashes of the transactions of a block.
    async fn hashes(&self, number: u64) -> Vec<Value> {
        let number = json!(format!("{number:#x}"));
        let mut block = self.execute("eth_getBlockByNumber", vec![number, json!(false)]).await;
        serde_json::from_value(block["transactions"].take()).unwrap()
    }

    /// Ends all faults.
    pub async fn behave(&mut self) {
        self.proxy.pass_all();
        base_fee(&self.world.chain, GWEI).await;
        fund(&self.world.chain, self.world.key.address()).await;
        self.make_blocks(true).await;
    }

    /// What was drawn, and how often.
    pub fn report(&self) {
        eprintln!("deepest reorganisation: {} blocks; {} answers cut", self.deepest, self.proxy.cuts());
        for (what, times) in &self.drawn {
            eprintln!("{times:5} {what}");
        }
    }
}

/// Mines a block in each slot while `makes_blocks`, until anvil ends.
async fn mine_while(makes_blocks: Arc<Mutex<bool>>, chain: Connection) {
    loop {
        let on = makes_blocks.lock().await;
        if *on && let Err(error) = chain.execute("evm_mine", vec![]).await {
            // anvil has ended, with the test; or the test fails, and this says why.
            eprintln!("no more blocks: {error}");
            return;
        }
        drop(on);
        sleep(SLOT).await;
    }
}
