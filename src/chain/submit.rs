// SPDX-License-Identifier: Apache-2.0
//! Signs transactions, sends them, and looks at the chain until they are final, as [`super::submission`] decides.
//!
//! If an earlier process left a transaction in the pool, the next one waits some blocks for it, then takes its nonce
//! and pays double. That is safe because the contracts reject whatever must not happen twice.
//!
//! Running only one transaction at a time is left to the caller.

use std::time::Duration;

use jsonrpc_core::Value;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use settings::BackOff;
use tokio::time::{Instant, sleep};
use web3::{
    BatchTransport, Transport, Web3,
    types::{
        Address, BlockNumber, Bytes, CallRequest, H256, TransactionParameters, TransactionReceipt, U64, U256,
    },
};

use crate::{
    Connection, LedgerError, LedgerKey, LedgerOptions,
    progress::{Progress, WaitsFor},
    submission::{Attempt, Fees, Head, Mined, Next, Submission, View},
};

/// First pause between two looks at the chain; each pause doubles.
const FIRST_POLL: Duration = Duration::from_millis(50);
/// Longest pause between two looks: a fraction of the time between blocks.
const LAST_POLL: Duration = Duration::from_secs(1);
/// Smallest tip to pay, also if the node suggests none [wei].
const MIN_TIP: u64 = 1;
/// Blocks that an earlier process's transaction is waited for.
const STRANGERS_BLOCKS: u64 = 3;

/// What a transaction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// For messages.
    pub action: &'static str,
    /// The contract; `None` to create one.
    pub to: Option<Address>,
    pub data: Vec<u8>,
}

/// A transaction that is not final yet. It outlives an error and whoever waited for it, so that whoever sends the next
/// one first brings this to its end.
pub(super) struct Open {
    pub call: Call,
    submission: Submission,
    /// When its first attempt was made.
    began: Instant,
}

impl Open {
    /// Whether `transaction` is one of its attempts.
    pub fn has(&self, transaction: H256) -> bool {
        self.submission.hashes().any(|hash| hash == transaction)
    }
}

/// What it takes to submit a transaction.
pub(super) struct Submitter<'a> {
    pub web3: &'a Web3<Connection>,
    pub key: &'a LedgerKey,
    pub chain_id: u64,
    pub options: &'a LedgerOptions,
    pub progress: &'a Progress,
}

impl Submitter<'_> {
    /// Signs and sends a transaction.
    pub async fn begin(&self, call: Call) -> Result<Open, LedgerError> {
        let (nonce, stuck) = self.free_nonce(call.action).await?;
        let quote = self.quote(call.action).await?;
        let raised =
            if stuck { quote.replaced(self.fees(quote.max_fee, quote.tip), self.cap()) } else { None };
        let attempt = self.sign(&call, nonce, raised.unwrap_or(quote)).await?;
        match self.send(call.action, &attempt).await {
            // The node may have it, or wants more for it: the next look tells.
            Ok(()) | Err(LedgerError::Unreachable { .. } | LedgerError::Underpriced { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(Open { call, submission: Submission::new(nonce, attempt), began: Instant::now() })
    }

    /// Looks at the chain until the transaction is final. After a retryable error it may be called again.
    ///
    /// # Errors
    /// [`LedgerError::Failed`] if the transaction was mined without effect; [`LedgerError::Reverted`] if the contract
    /// refuses it by now.
    pub async fn finish(&self, open: &mut Open) -> Result<Mined, LedgerError> {
        let action = open.call.action;
        let mut poll = Poll::new(self.options.timeout);
        loop {
            let (view, head) = self.look(action, &open.submission).await?;
            let confirmed = match &view {
                View::Mined(mined, _) => {
                    Some(head.number.saturating_add(1).saturating_sub(mined.block_number))
                }
                View::Pool { .. } => None,
            };
            let next = open.submission.next(view, head, self.confirmations(), open.began.elapsed());
            let done = match next {
                Next::Final(mined) => return Ok(mined),
                Next::Failed(transaction) => return Err(LedgerError::Failed { action, transaction }),
                Next::Wait => Ok(None),
                Next::Resend => self.resend(open).await,
                Next::Raise => self.raise(open).await,
                Next::Renew => self.renew(open).await.map(|()| None),
            };
            let waits_for = match done {
                Ok(None) => confirmed.map_or(WaitsFor::Block, |have| WaitsFor::Confirmations {
                    have,
                    of: self.confirmations(),
                }),
                Ok(Some(capped)) => capped,
                // The pool's opinion changes: what it refuses now, it may take at the next block.
                Err(
                    error @ (LedgerError::Conflict { .. }
                    | LedgerError::Underpriced { .. }
                    | LedgerError::Refused { .. }),
                ) => WaitsFor::Node(error.to_string()),
                Err(error) => return Err(error),
            };
            let transaction = open.submission.hashes().next().unwrap_or_default();
            let blocks = open.submission.blocks(head.number);
            self.progress.report(action, transaction, blocks, waits_for, head.number);
            if !poll.pause().await {
                let seconds = self.options.timeout.as_secs();
                return Err(LedgerError::Timeout { action, seconds, transaction: Some(transaction) });
            }
        }
    }

    /// Waits until `transaction`, sent earlier by whomever, has its confirmations.
    pub async fn confirm(&self, action: &'static str, transaction: H256) -> Result<Mined, LedgerError> {
        let mut poll = Poll::new(self.options.timeout);
        // Neither its bytes nor its nonce matter, because a transaction of another process is only looked at.
        let attempt = Attempt {
            hash: transaction,
            raw: Bytes::default(),
            fees: Fees { max_fee: U256::MAX, tip: U256::MAX },
        };
        let mut submission = Submission::new(U256::MAX, attempt);
        let began = Instant::now();
        loop {
            let (view, head) = self.look(action, &submission).await?;
            match submission.next(view, head, self.confirmations(), began.elapsed()) {
                Next::Final(mined) => return Ok(mined),
                Next::Failed(transaction) => return Err(LedgerError::Failed { action, transaction }),
                Next::Wait | Next::Resend | Next::Raise | Next::Renew => {}
            }
            if !poll.pause().await {
                let seconds = self.options.timeout.as_secs();
                return Err(LedgerError::Timeout { action, seconds, transaction: Some(transaction) });
            }
        }
    }

    /// The pool has lost the newest attempt. If it does not want it back, because fees have risen, another is made.
    async fn resend(&self, open: &mut Open) -> Result<Option<WaitsFor>, LedgerError> {
        let Some(newest) = open.submission.newest() else { return Ok(None) };
        match self.send(open.call.action, newest).await {
            Err(LedgerError::Underpriced { .. }) => self.raise(open).await,
            sent => {
                tracing::warn!(transaction = ?newest.hash, action = open.call.action,
                    "the node no longer had the transaction; sent again");
                sent.map(|()| None)
            }
        }
    }

    /// Makes an attempt that pays more, unless that is above the cap; then it says so.
    async fn raise(&self, open: &mut Open) -> Result<Option<WaitsFor>, LedgerError> {
        let (action, nonce) = (open.call.action, open.submission.nonce());
        let quote = self.quote(action).await?;
        let Some(fees) = open.submission.raise(quote, self.cap()) else {
            return Ok(Some(WaitsFor::LowerFees { cap: self.cap() }));
        };
        let attempt = self.sign(&open.call, nonce, fees).await?;
        match self.send(action, &attempt).await {
            Err(LedgerError::Underpriced { .. }) if fees.max_fee == self.cap() => {
                return Ok(Some(WaitsFor::LowerFees { cap: self.cap() }));
            }
            sent => sent?,
        }
        tracing::warn!(transaction = ?attempt.hash, action, max_fee_wei = %fees.max_fee,
            "the transaction was not mined; sent again with higher fees");
        open.submission.attempted(attempt);
        Ok(None)
    }

    /// Begins again, because another transaction of this account took the nonce.
    async fn renew(&self, open: &mut Open) -> Result<(), LedgerError> {
        let again = self.begin(open.call.clone()).await?;
        tracing::warn!(nonce = %open.submission.nonce(), action = open.call.action,
            "another transaction of this account took the nonce; signed anew");
        *open = again;
        Ok(())
    }

    async fn sign(&self, call: &Call, nonce: U256, fees: Fees) -> Result<Attempt, LedgerError> {
        let failed = |error| LedgerError::from_web3(call.action, error);
        let data = Bytes(call.data.clone());
        // Estimating also reveals, before anything is paid, whether the contract would revert.
        let request = CallRequest {
            from: Some(self.key.address()),
            to: call.to,
            data: Some(data.clone()),
            ..CallRequest::default()
        };
        // Estimate on mined state, because what is in the pool is about to be replaced.
        let latest = Some(BlockNumber::Latest);
        let gas = self.web3.eth().estimate_gas(request, latest).await.map_err(failed)?;
        let transaction = TransactionParameters {
            nonce: Some(nonce),
            to: call.to,
            // Headroom for changes between estimating and mining.
            gas: gas.saturating_add(gas / 4),
            value: U256::zero(),
            data,
            chain_id: Some(self.chain_id),
            transaction_type: Some(U64::from(2)),
            max_fee_per_gas: Some(fees.max_fee),
            max_priority_fee_per_gas: Some(fees.tip),
            ..TransactionParameters::default()
        };
        let signed =
            self.web3.accounts().sign_transaction(transaction, self.key.secret()).await.map_err(failed)?;
        Ok(Attempt { hash: signed.transaction_hash, raw: signed.raw_transaction, fees })
    }

    async fn send(&self, action: &'static str, attempt: &Attempt) -> Result<(), LedgerError> {
        let sent = self.web3.eth().send_raw_transaction(attempt.raw.clone()).await;
        match sent.map_err(|error| LedgerError::from_web3(action, error)) {
            // The same transaction is already in the pool, which is as good as sending it.
            Err(LedgerError::Conflict { reason, .. }) if reason.to_ascii_lowercase().contains("already") => {
                Ok(())
            }
            result => result.map(|_| ()),
        }
    }

    /// Looks at the chain: first for a block that has one of the attempts, and only if there is none, at the pool.
    async fn look(&self, action: &'static str, submission: &Submission) -> Result<(View, Head), LedgerError> {
        let newest_block = ("eth_getBlockByNumber", vec![json!("latest"), json!(false)]);
        let receipts = submission.hashes().map(|hash| ("eth_getTransactionReceipt", vec![json!(hash)]));
        let mut answers = self.ask(action, std::iter::once(newest_block).chain(receipts)).await?.into_iter();
        let head: Block = read(action, answers.next(), "a block")?;
        let head = Head { number: head.number.as_u64(), base_fee: head.base_fee.unwrap_or_default() };
        for answer in answers {
            let receipt: Option<TransactionReceipt> = read(action, Some(answer), "a receipt")?;
            let Some((receipt, block_number, block_hash)) = receipt.and_then(in_block) else { continue };
            let mined = Mined {
                transaction: receipt.transaction_hash,
                block_number,
                block_hash,
                gas_used: u64::try_from(receipt.gas_used.unwrap_or_default()).unwrap_or(u64::MAX),
                created: receipt.contract_address,
            };
            return Ok((View::Mined(mined, receipt.status == Some(U64::one())), head));
        }
        let count = ("eth_getTransactionCount", vec![json!(self.key.address()), json!("latest")]);
        let newest = submission.hashes().next();
        let newest = ("eth_getTransactionByHash", vec![json!(newest)]);
        let mut answers = self.ask(action, [count, newest].into_iter()).await?.into_iter();
        let nonce = read(action, answers.next(), "a nonce")?;
        let known = answers.next().is_some_and(|transaction| !transaction.is_null());
        Ok((View::Pool { nonce, known }, head))
    }

    /// Asks several things in one round trip.
    async fn ask(
        &self,
        action: &'static str,
        requests: impl Iterator<Item = (&'static str, Vec<Value>)>,
    ) -> Result<Vec<Value>, LedgerError> {
        let failed = |error| LedgerError::from_web3(action, error);
        let chain = self.web3.transport();
        let requests: Vec<_> = requests.map(|(method, params)| chain.prepare(method, params)).collect();
        let answers = chain.send_batch(requests).await.map_err(failed)?;
        answers.into_iter().map(|answer| answer.map_err(failed)).collect()
    }

    /// The embedded chain mines only what is sent and never reorganises, so one confirmation is enough.
    fn confirmations(&self) -> u64 {
        match self.web3.transport() {
            #[cfg(feature = "embedded")]
            Connection::Embedded(_) => 1,
            Connection::Http(_) => self.options.confirmations.max(1),
        }
    }

    fn cap(&self) -> U256 {
        self.options.max_fee
    }

    fn fees(&self, price: U256, tip: U256) -> Fees {
        Fees::of(price, tip, self.cap())
    }

    /// Returns the next nonce, and whether a transaction of an earlier process has been in the pool with it for too
    /// long.
    async fn free_nonce(&self, action: &'static str) -> Result<(U256, bool), LedgerError> {
        let mut poll = Poll::new(self.options.timeout);
        let mut began = None;
        loop {
            let account = json!(self.key.address());
            let count = |tag: &str| ("eth_getTransactionCount", vec![account.clone(), json!(tag)]);
            let block = ("eth_blockNumber", Vec::new());
            let mut answers =
                self.ask(action, [count("latest"), count("pending"), block].into_iter()).await?.into_iter();
            let latest: U256 = read(action, answers.next(), "a nonce")?;
            let pending: U256 = read(action, answers.next(), "a nonce")?;
            let head = read::<U64>(action, answers.next(), "a block number")?.as_u64();
            if pending <= latest {
                return Ok((latest, false));
            }
            if head.saturating_sub(*began.get_or_insert(head)) >= STRANGERS_BLOCKS || !poll.pause().await {
                return Ok((latest, true));
            }
        }
    }

    /// What the node asks for now.
    async fn quote(&self, action: &'static str) -> Result<Fees, LedgerError> {
        let failed = |error| LedgerError::from_web3(action, error);
        let chain = self.web3.transport();
        let requests =
            ["eth_gasPrice", "eth_maxPriorityFeePerGas"].map(|method| chain.prepare(method, Vec::new()));
        let mut answers = chain.send_batch(requests).await.map_err(failed)?.into_iter();
        let price = read(action, answers.next().transpose().map_err(failed)?, "a gas price in hex")?;
        // Not every node suggests a tip.
        let tip: U256 = read(action, answers.next().and_then(Result::ok), "a tip in hex").unwrap_or_default();
        Ok(self.fees(price, tip.max(MIN_TIP.into())))
    }
}

/// What is read of a block.
#[derive(Deserialize)]
struct Block {
    number: U64,
    #[serde(rename = "baseFeePerGas")]
    base_fee: Option<U256>,
}

fn read<T: DeserializeOwned>(
    action: &'static str,
    answer: Option<Value>,
    rule: &'static str,
) -> Result<T, LedgerError> {
    serde_json::from_value(answer.unwrap_or_default())
        .map_err(|_| LedgerError::Answer { action, rule: rule.to_owned() })
}

/// Returns the receipt of a transaction that is in a block, with the block's number and hash.
pub(super) fn in_block(receipt: TransactionReceipt) -> Option<(TransactionReceipt, u64, H256)> {
    let (number, hash) = (receipt.block_number?.as_u64(), receipt.block_hash?);
    Some((receipt, number, hash))
}

struct Poll {
    until: Instant,
    pause: Duration,
}

impl Poll {
    fn new(timeout: Duration) -> Self {
        Self { until: Instant::now() + timeout, pause: FIRST_POLL }
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

/// Pauses between attempts to reach a chain.
pub const RECONNECT: BackOff = BackOff { min: Duration::from_millis(200), max: Duration::from_secs(5) };
