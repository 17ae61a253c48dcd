// SPDX-License-Identifier: Apache-2.0
//! What one account asks of a node about its transactions: where they are, what the next one costs, to take them.
//!
//! Which transaction to make, and when, is left to [`super::sender`].

use std::time::Duration;

use jsonrpc_core::Value;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::{Instant, sleep};
use web3::{
    BatchTransport, Transport, Web3,
    types::{
        Address, BlockNumber, Bytes, CallRequest, H256, TransactionParameters, TransactionReceipt, U64, U256,
    },
};

use crate::{
    Connection, LedgerError, LedgerKey,
    progress::{InFlight, Progress, WaitsFor},
    submission::{Attempt, Fees, Finality, Head, Mined, PATIENCE_BLOCKS},
};

/// First pause between two looks at the chain; each pause doubles.
pub const FIRST_POLL: Duration = Duration::from_millis(50);
/// Longest pause between two looks: a fraction of the time between blocks.
pub const LAST_POLL: Duration = Duration::from_secs(1);
/// Tip if the node suggests none, unless the whole price is lower [wei].
const DEFAULT_TIP: u64 = 1_000_000_000;
/// How long a transaction that was in a block may be in none, and in no pool, before it is given up.
const GONE: Duration = Duration::from_secs(3);
/// Blocks on top of one that is believed to be final where the node does not say so: two epochs of Ethereum.
const SETTLED: u64 = 64;
/// Requests in a batch; public nodes allow this many.
const BATCH: usize = 100;

/// What transactions do, in words for messages and for the file of those in flight.
pub mod action {
    pub const DEPLOY_REGISTRY: &str = "deploy SenderRegistry";
    pub const DEPLOY_LEDGER: &str = "deploy EvidenceLedger";
    pub const REGISTER: &str = "register a sender";
    pub const REVOKE: &str = "revoke a sender";
    pub const ANCHOR: &str = "anchor evidence";
    pub const ALL: [&str; 5] = [DEPLOY_REGISTRY, DEPLOY_LEDGER, REGISTER, REVOKE, ANCHOR];
}

/// What a transaction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// One of [`action::ALL`].
    pub action: &'static str,
    /// The contract; `None` to create one.
    pub to: Option<Address>,
    pub data: Vec<u8>,
}

/// What a chain has in place of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The block itself.
    There,
    /// Another block.
    Replaced,
    /// Nothing: the node has not come so far.
    Missing,
}

/// An account on a chain, and what it may spend.
#[derive(Clone)]
pub struct Account {
    pub web3: Web3<Connection>,
    pub key: LedgerKey,
    pub chain_id: u64,
    /// When a transaction is final.
    pub finality: Finality,
    /// Most that a transaction may pay [wei per gas].
    pub max_fee: U256,
    /// How long to wait while nothing becomes of a transaction.
    pub timeout: Duration,
}

type Query = (&'static str, Vec<Value>);

impl Account {
    /// The newest block and the nonce of the account's next transaction, by that block, and for each list of hashes the
    /// one that is in a block, if any, and whether it succeeded there.
    pub async fn look(
        &self,
        action: &'static str,
        lists: &[Vec<H256>],
    ) -> Result<(Head, U256, Vec<Option<(Mined, bool)>>), LedgerError> {
        let finalized = (self.finality == Finality::Finalized).then(|| block(&json!("finalized")));
        let receipts = lists.iter().flatten().map(|hash| ("eth_getTransactionReceipt", vec![json!(hash)]));
        let queries = [block(&json!("latest")), self.count("latest")].into_iter();
        let is_asked = finalized.is_some();
        let answers = self.ask_each(action, queries.chain(finalized).chain(receipts).collect()).await?;
        let mut answers = answers.into_iter();
        let mut head = head(action, answers.next().transpose()?)?;
        let nonce = nonce(action, answers.next().transpose()?)?;
        if is_asked {
            // A node that has just started may not know yet.
            let finalized = answers.next().and_then(Result::ok);
            head.finalized =
                read(action, finalized, "a block").ok().map(|finalized: Block| finalized.number.as_u64());
        }
        let mut found = Vec::with_capacity(lists.len());
        for list in lists {
            let mut mined = None;
            for (hash, answer) in list.iter().zip(answers.by_ref()) {
                let receipt: Option<TransactionReceipt> = read(action, Some(answer?), "a receipt")?;
                if receipt.as_ref().is_some_and(|receipt| receipt.transaction_hash != *hash) {
                    let rule = "the receipt of the transaction that was asked for".to_owned();
                    return Err(LedgerError::Answer { action, rule });
                }
                mined = mined.or_else(|| receipt.and_then(mined_by));
            }
            found.push(mined);
        }
        Ok((head, nonce, found))
    }

    /// Which of these transactions the node knows.
    pub async fn known(&self, action: &'static str, hashes: &[H256]) -> Result<Vec<bool>, LedgerError> {
        let queries = hashes.iter().map(|hash| ("eth_getTransactionByHash", vec![json!(hash)])).collect();
        Ok(self.ask(action, queries).await?.iter().map(|transaction| !transaction.is_null()).collect())
    }

    /// Sends signed transactions, in order; one result for each: whether the node did not have it yet.
    pub async fn send(
        &self,
        transactions: &[(&'static str, Bytes)],
    ) -> Result<Vec<Result<bool, LedgerError>>, LedgerError> {
        let Some((first, _)) = transactions.first() else { return Ok(Vec::new()) };
        let queries = transactions.iter().map(|(_, raw)| ("eth_sendRawTransaction", vec![json!(raw)]));
        let sent = self.batch(first, queries.collect()).await?;
        let was_unknown = |(sent, (action, _)): (web3::Result<Value>, &(&'static str, Bytes))| match sent
            .map_err(|error| LedgerError::from_web3(action, error))
        {
            Err(LedgerError::Known { .. }) => Ok(false),
            sent => sent.map(|_| true),
        };
        Ok(sent.into_iter().zip(transactions).map(was_unknown).collect())
    }

    /// Signs a call.
    pub async fn sign(
        &self,
        call: &Call,
        nonce: U256,
        gas: U256,
        fees: Fees,
    ) -> Result<Attempt, LedgerError> {
        let transaction = TransactionParameters {
            nonce: Some(nonce),
            to: call.to,
            gas,
            value: U256::zero(),
            data: Bytes(call.data.clone()),
            chain_id: Some(self.chain_id),
            transaction_type: Some(U64::from(2)),
            max_fee_per_gas: Some(fees.max_fee),
            max_priority_fee_per_gas: Some(fees.tip),
            ..TransactionParameters::default()
        };
        let signed = self.web3.accounts().sign_transaction(transaction, self.key.secret()).await;
        let signed = signed.map_err(|error| LedgerError::from_web3(call.action, error))?;
        Ok(Attempt { hash: signed.transaction_hash, raw: signed.raw_transaction, fees })
    }

    /// Gas limit for a call as things are in the newest block. This also reveals, before anything is paid, whether the
    /// contract would revert.
    pub async fn estimate(&self, call: &Call) -> Result<U256, LedgerError> {
        let request = CallRequest {
            from: Some(self.key.address()),
            to: call.to,
            data: Some(Bytes(call.data.clone())),
            ..CallRequest::default()
        };
        let gas = self.web3.eth().estimate_gas(request, Some(BlockNumber::Latest)).await;
        let gas = gas.map_err(|error| LedgerError::from_web3(call.action, error))?;
        // Headroom for changes between estimating and mining.
        Ok(gas.saturating_add(gas / 4))
    }

    /// Returns the next nonce, and whether a transaction that nobody here knows has been in the pool with it for too
    /// long: of an earlier process that lost its state, or of somebody else with the key.
    pub async fn free_nonce(
        &self,
        action: &'static str,
        progress: &Progress,
    ) -> Result<(U256, bool), LedgerError> {
        let mut poll = Poll::new(self.timeout);
        let mut began = None;
        loop {
            let newest = block(&json!("latest"));
            let queries = vec![self.count("latest"), self.count("pending"), newest];
            let mut answers = self.ask(action, queries).await?.into_iter();
            let (latest, pending) = (nonce(action, answers.next())?, nonce(action, answers.next())?);
            let head = head(action, answers.next())?;
            if pending <= latest {
                return Ok((latest, false));
            }
            let blocks = head.number.saturating_sub(*began.get_or_insert(head.number));
            if blocks >= PATIENCE_BLOCKS {
                return Ok((latest, true));
            }
            let waits_for = WaitsFor::Another;
            let waiting = InFlight { count: 0, action, transaction: None, blocks, waits_for, is_late: false };
            progress.report(waiting, &head);
            if !poll.pause().await {
                return Ok((latest, true));
            }
        }
    }

    /// What the node asks for now.
    pub async fn quote(&self, action: &'static str) -> Result<Fees, LedgerError> {
        let queries = ["eth_gasPrice", "eth_maxPriorityFeePerGas"].map(|method| (method, Vec::new()));
        let mut answers = self.ask_each(action, queries.into()).await?.into_iter();
        let price: U256 = read(action, answers.next().transpose()?, "a gas price in hex")?;
        // Not every node suggests a tip.
        let tip = read(action, answers.next().and_then(Result::ok), "a tip in hex");
        let tip = tip.unwrap_or_else(|_| price.min(DEFAULT_TIP.into()));
        Ok(Fees::of(price, tip.max(U256::one()), self.max_fee))
    }

    /// The newest block, also the newest finalized one if the node says, what it asks for a transaction [wei per gas], and
    /// the balances of these accounts [wei].
    pub async fn standing(&self, accounts: &[Address]) -> Result<(Head, U256, Vec<U256>), LedgerError> {
        let action = "ask how the chain stands";
        let balances =
            accounts.iter().map(|account| ("eth_getBalance", vec![json!(account), json!("latest")]));
        let queries = [block(&json!("latest")), block(&json!("finalized")), ("eth_gasPrice", Vec::new())];
        let queries = queries.into_iter().chain(balances).collect();
        let mut answers = self.ask_each(action, queries).await?.into_iter();
        let mut head = head(action, answers.next().transpose()?)?;
        // Not every node knows the word.
        let finalized = read(action, answers.next().and_then(Result::ok), "a block");
        head.finalized = finalized.ok().map(|finalized: Block| finalized.number.as_u64());
        let price = read(action, answers.next().transpose()?, "a gas price in hex")?;
        let balances = answers.map(|answer| read(action, Some(answer?), "a balance in hex"));
        Ok((head, price, balances.collect::<Result<_, _>>()?))
    }

    /// Twice the quote, to replace a transaction whose fees are not known.
    pub fn doubled(&self, quote: Fees) -> Fees {
        let twice = Fees::of(quote.max_fee, quote.tip.saturating_mul(2.into()), self.max_fee);
        quote.replaced(twice, self.max_fee).unwrap_or(quote)
    }

    /// Waits until `transaction`, sent earlier by anyone, has its confirmations.
    pub async fn confirm(&self, action: &'static str, transaction: H256) -> Result<Mined, LedgerError> {
        let (mut poll, mut last_seen) = (Poll::new(self.timeout), Instant::now());
        loop {
            let (head, _, mut found) = self.look(action, &[vec![transaction]]).await?;
            match found.pop().flatten() {
                Some((_, false)) => return Err(LedgerError::Failed { action, transaction }),
                Some((mined, true)) => {
                    if head.is_final(mined.block_number, self.finality) {
                        return Ok(mined);
                    }
                    last_seen = Instant::now();
                    poll.progressed(&head);
                }
                None if self.known(action, &[transaction]).await?.contains(&true) => {
                    last_seen = Instant::now()
                }
                None if last_seen.elapsed() > GONE => {
                    let reason = "a reorganisation has removed the transaction".to_owned();
                    return Err(LedgerError::Conflict { action, reason });
                }
                None => {}
            }
            if !poll.pause().await {
                let seconds = self.timeout.as_secs();
                return Err(LedgerError::Timeout { action, seconds, transaction: Some(transaction) });
            }
        }
    }

    /// What the chain has in place of each of these blocks.
    pub async fn blocks(&self, blocks: &[(u64, H256)]) -> Result<Vec<Presence>, LedgerError> {
        let action = "look for blocks";
        let queries = blocks.iter().map(|(number, _)| block(&json!(U64::from(*number)))).collect();
        let answers = self.ask(action, queries).await?;
        let presence = |(answer, (_, hash)): (Value, &(u64, H256))| {
            let found: Option<Block> = read(action, Some(answer), "a block")?;
            Ok(match found {
                None => Presence::Missing,
                Some(found) if found.hash == *hash => Presence::There,
                Some(_) => Presence::Replaced,
            })
        };
        answers.into_iter().zip(blocks).map(presence).collect()
    }

    /// Number of the newest block that no reorganisation takes back: which is finalized, or, if the node does not say,
    /// has [`SETTLED`] on top.
    pub async fn settled(&self) -> Result<u64, LedgerError> {
        let action = "ask what is final";
        if let Some(finalized) = self.finalized(action).await? {
            return Ok(finalized);
        }
        let newest = head(action, self.ask(action, vec![block(&json!("latest"))]).await?.pop())?;
        Ok(newest.number.saturating_sub(SETTLED))
    }

    /// Number of the newest block that is finalized; `None` if the node does not say.
    pub async fn finalized(&self, action: &'static str) -> Result<Option<u64>, LedgerError> {
        let block = match self.ask(action, vec![block(&json!("finalized"))]).await {
            Ok(mut answers) => read::<Option<Block>>(action, answers.pop(), "a block")?,
            // Not every node knows the word. A status of HTTP says nothing about it.
            Err(LedgerError::Refused { code, .. }) if code < 0 => None,
            Err(LedgerError::Answer { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(block.map(|block| block.number.as_u64()))
    }

    fn count(&self, tag: &str) -> Query {
        ("eth_getTransactionCount", vec![json!(self.key.address()), json!(tag)])
    }

    /// Asks several things, all of which must be answered.
    pub async fn ask(&self, action: &'static str, queries: Vec<Query>) -> Result<Vec<Value>, LedgerError> {
        self.ask_each(action, queries).await?.into_iter().collect()
    }

    /// Asks several things, each of which may fail.
    async fn ask_each(
        &self,
        action: &'static str,
        queries: Vec<Query>,
    ) -> Result<Vec<Result<Value, LedgerError>>, LedgerError> {
        let answers = self.batch(action, queries).await?.into_iter();
        Ok(answers.map(|answer| answer.map_err(|error| LedgerError::from_web3(action, error))).collect())
    }

    /// Sends requests in as few round trips as nodes allow.
    async fn batch(
        &self,
        action: &'static str,
        queries: Vec<Query>,
    ) -> Result<Vec<web3::Result<Value>>, LedgerError> {
        let chain = self.web3.transport();
        let requests = queries.into_iter().map(|(method, params)| chain.prepare(method, params));
        let requests: Vec<_> = requests.collect();
        let mut answers = Vec::with_capacity(requests.len());
        for requests in requests.chunks(BATCH) {
            let answered = chain.send_batch(requests.iter().cloned()).await;
            answers.extend(answered.map_err(|error| LedgerError::from_web3(action, error))?);
        }
        Ok(answers)
    }
}

/// Asks for a block, by number or tag, without its transactions.
fn block(which: &Value) -> Query {
    ("eth_getBlockByNumber", vec![which.clone(), json!(false)])
}

/// The transaction of a receipt, if it is in a block, and whether it had an effect there.
fn mined_by(receipt: TransactionReceipt) -> Option<(Mined, bool)> {
    let (receipt, block_number, block_hash) = in_block(receipt)?;
    let gas = receipt.gas_used.unwrap_or_default();
    let mined = Mined {
        transaction: receipt.transaction_hash,
        block_number,
        block_hash,
        gas_used: u64::try_from(gas).unwrap_or(u64::MAX),
        fee: gas.saturating_mul(receipt.effective_gas_price.unwrap_or_default()),
        created: receipt.contract_address,
    };
    // Each call of ours makes its contract emit an event. Where there is no contract any more, nothing reverts.
    let has_effect =
        mined.created.is_some() || receipt.logs.iter().any(|log| Some(log.address) == receipt.to);
    Some((mined, has_effect && receipt.status == Some(U64::one())))
}

/// Returns the receipt of a transaction that is in a block, with the block's number and hash.
pub fn in_block(receipt: TransactionReceipt) -> Option<(TransactionReceipt, u64, H256)> {
    let (number, hash) = (receipt.block_number?.as_u64(), receipt.block_hash?);
    Some((receipt, number, hash))
}

/// A nonce; there is one after it (EIP-2681).
fn nonce(action: &'static str, answer: Option<Value>) -> Result<U256, LedgerError> {
    let rule = "a nonce below 2^64 - 1";
    let nonce: U256 = read(action, answer, rule)?;
    if nonce < u64::MAX.into() {
        Ok(nonce)
    } else {
        Err(LedgerError::Answer { action, rule: rule.to_owned() })
    }
}

fn head(action: &'static str, block: Option<Value>) -> Result<Head, LedgerError> {
    let block: Block = read(action, block, "a block")?;
    Ok(Head {
        number: block.number.as_u64(),
        hash: block.hash,
        timestamp: u64::try_from(block.timestamp).unwrap_or(u64::MAX),
        base_fee: block.base_fee.unwrap_or_default(),
        finalized: None,
    })
}

/// What is read of a block.
#[derive(Deserialize)]
struct Block {
    number: U64,
    hash: H256,
    timestamp: U256,
    #[serde(rename = "baseFeePerGas")]
    base_fee: Option<U256>,
}

/// Reads an answer, which must be what `rule` says.
pub fn read<T: DeserializeOwned>(
    action: &'static str,
    answer: Option<Value>,
    rule: &'static str,
) -> Result<T, LedgerError> {
    serde_json::from_value(answer.unwrap_or_default())
        .map_err(|_| LedgerError::Answer { action, rule: rule.to_owned() })
}

struct Poll {
    timeout: Duration,
    until: Instant,
    pause: Duration,
    /// Number of the newest block at which there was progress.
    newest: u64,
}

impl Poll {
    fn new(timeout: Duration) -> Self {
        Self { timeout, until: Instant::now() + timeout, pause: FIRST_POLL, newest: 0 }
    }

    /// Begins the time anew if there is a block that was not there before.
    fn progressed(&mut self, head: &Head) {
        if head.number > self.newest {
            (self.newest, self.until) = (head.number, Instant::now() + self.timeout);
        }
    }

    /// Pauses, twice as long each time; returns false once time is up.
    async fn pause(&mut self) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LAST_POLL);
        true
    }
}
