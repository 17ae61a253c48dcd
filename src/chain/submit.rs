// SPDX-License-Identifier: Apache-2.0
//! Signs transactions, sends them, and looks at the chain until they are final, as [`super::submission`] decides.
//!
//! If an earlier process left a transaction in the pool, the next one waits some blocks for it, then takes its nonce
//! and pays at least double. That is safe because the contracts reject whatever must not happen twice.
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
    submission::{Attempt, Fees, Head, Mined, Next, PATIENCE_BLOCKS, Submission, View},
};

/// First pause between two looks at the chain; each pause doubles.
const FIRST_POLL: Duration = Duration::from_millis(50);
/// Longest pause between two looks: a fraction of the time between blocks.
const LAST_POLL: Duration = Duration::from_secs(1);
/// Tip if the node suggests none, unless the whole price is lower [wei].
const DEFAULT_TIP: u64 = 1_000_000_000;
/// How many of the newest attempts are looked for: more are too many for the batch limits of some nodes.
const LOOKED_AT: usize = 16;
/// How long a transaction that was in a block may be in none, and in no pool, before it is given up.
const GONE: Duration = Duration::from_secs(3);

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
    /// Gas limit of each attempt.
    gas: U256,
    /// Whether the node may have an attempt.
    is_sent: bool,
    /// When its first attempt was made.
    began: Instant,
}

impl Open {
    /// Whether `transaction` is one of its attempts.
    pub fn has(&self, transaction: H256) -> bool {
        self.submission.hashes().any(|hash| hash == transaction)
    }

    /// Whether nothing is left to be done after this result of [`Submitter::finish`].
    pub fn is_over(&self, result: &Result<Mined, LedgerError>) -> bool {
        match result {
            Ok(_) | Err(LedgerError::Failed { .. } | LedgerError::Reverted { .. }) => true,
            Err(error) => !self.is_sent || !error.is_retryable(),
        }
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
    /// Signs a transaction, which [`finish`](Self::finish) sends.
    pub async fn prepare(&self, call: Call) -> Result<Open, LedgerError> {
        let (nonce, another) = self.free_nonce(call.action).await?;
        let quote = self.quote(call.action).await?;
        let doubled =
            || quote.replaced(self.fees(quote.max_fee, quote.tip.saturating_mul(2.into())), self.cap());
        let fees = if another { doubled().unwrap_or(quote) } else { quote };
        // Estimating also reveals, before anything is paid, whether the contract would revert.
        let request = CallRequest {
            from: Some(self.key.address()),
            to: call.to,
            data: Some(Bytes(call.data.clone())),
            ..CallRequest::default()
        };
        // Estimate on mined state, because what is in the pool is about to be replaced.
        let gas = self.web3.eth().estimate_gas(request, Some(BlockNumber::Latest)).await;
        let gas = gas.map_err(|error| LedgerError::from_web3(call.action, error))?;
        // Headroom for changes between estimating and mining.
        let gas = gas.saturating_add(gas / 4);
        let attempt = self.sign(&call, nonce, gas, fees).await?;
        let submission = Submission::new(nonce, attempt);
        Ok(Open { call, submission, gas, is_sent: false, began: Instant::now() })
    }

    /// Sends the transaction, if it is not sent yet, and looks at the chain until it is final. After a retryable error
    /// it may be called again, and it may be cancelled at any time.
    ///
    /// # Errors
    /// [`LedgerError::Failed`] if the transaction was mined without effect; [`LedgerError::Reverted`] if it had to be
    /// re-signed and the contract refuses it by now; [`LedgerError::Timeout`] if nothing has become of it for as long
    /// as the options say.
    pub async fn finish(&self, open: &mut Open) -> Result<Mined, LedgerError> {
        let action = open.call.action;
        let mut poll = Poll::new(self.options.timeout);
        loop {
            if !open.is_sent {
                self.send_first(open).await?;
            }
            let hashes: Vec<_> = open.submission.hashes().collect();
            let (view, head) = self.look(action, &hashes).await?;
            let confirmed = match &view {
                View::Mined(mined, _) => Some(head.confirmations(mined.block_number)),
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
            let waits_for = match (done, confirmed) {
                (Ok(Some(held_back)), _) => held_back,
                (Ok(None), Some(have)) => WaitsFor::Confirmations { have, of: self.confirmations() },
                // A nonce that the node calls used or too high is what the next look shows.
                (Ok(None) | Err(LedgerError::Conflict { .. }), None) => WaitsFor::Block,
                // The pool's opinion changes: what it refuses now, it may take at the next block.
                (Err(error), _) if is_refusal(&error) => WaitsFor::Node(error.to_string()),
                (Err(error), _) => return Err(error),
            };
            if confirmed.is_some() {
                poll.progressed(&head);
            }
            let transaction = open.submission.hashes().next();
            let blocks = open.submission.blocks(head.number);
            self.progress.report(action, transaction, blocks, waits_for, &head);
            if !poll.pause().await {
                return Err(self.timeout(action, transaction));
            }
        }
    }

    /// Waits until `transaction`, sent earlier by anyone, has its confirmations.
    pub async fn confirm(&self, action: &'static str, transaction: H256) -> Result<Mined, LedgerError> {
        let mut poll = Poll::new(self.options.timeout);
        let mut last_seen = Instant::now();
        loop {
            match self.look(action, &[transaction]).await? {
                (View::Mined(mined, false), _) => {
                    return Err(LedgerError::Failed { action, transaction: mined.transaction });
                }
                (View::Mined(mined, true), head) => {
                    if head.confirmations(mined.block_number) >= self.confirmations() {
                        return Ok(mined);
                    }
                    last_seen = Instant::now();
                    poll.progressed(&head);
                }
                (View::Pool { known: true, .. }, _) => last_seen = Instant::now(),
                (View::Pool { known: false, .. }, _) if last_seen.elapsed() > GONE => {
                    let reason = "a reorganisation has removed the transaction".to_owned();
                    return Err(LedgerError::Conflict { action, reason });
                }
                (View::Pool { known: false, .. }, _) => {}
            }
            if !poll.pause().await {
                return Err(self.timeout(action, Some(transaction)));
            }
        }
    }

    fn timeout(&self, action: &'static str, transaction: Option<H256>) -> LedgerError {
        LedgerError::Timeout { action, seconds: self.options.timeout.as_secs(), transaction }
    }

    async fn send_first(&self, open: &mut Open) -> Result<(), LedgerError> {
        // Before the node has it, so that it is not forgotten if this is cancelled.
        open.is_sent = true;
        let sent = self.send_newest(open).await;
        match sent {
            Err(LedgerError::Underpriced { .. }) => {
                open.submission.refused(true);
                Ok(())
            }
            Err(error) if is_refusal(&error) => {
                open.is_sent = false;
                Err(error)
            }
            // If the answer was lost, the next look tells.
            _ => Ok(()),
        }
    }

    /// Sends the newest attempt again, which the pool does not have; if it wants more for it, makes one that pays more.
    async fn resend(&self, open: &mut Open) -> Result<Option<WaitsFor>, LedgerError> {
        let sent = self.send_newest(open).await;
        if sent.is_ok() {
            tracing::warn!(transaction = ?open.submission.hashes().next(), action = open.call.action,
                "the node did not have the transaction; sent again");
        }
        match sent {
            // Fees have risen since.
            Err(LedgerError::Underpriced { .. }) => self.raise(open).await,
            sent => sent.map(|()| None),
        }
    }

    /// Makes an attempt that pays more; if that is above the limit, says so.
    async fn raise(&self, open: &mut Open) -> Result<Option<WaitsFor>, LedgerError> {
        let (action, cap) = (open.call.action, self.cap());
        let quote = self.quote(action).await?;
        let Some(fees) = open.submission.raised(quote, cap) else {
            // The pool may have dropped it.
            let sent = self.send_newest(open).await;
            let too_dear = sent.is_ok() || matches!(sent, Err(LedgerError::Underpriced { .. }));
            return if too_dear { Ok(Some(WaitsFor::LowerFees { cap })) } else { sent.map(|()| None) };
        };
        let attempt = self.sign(&open.call, open.submission.nonce(), open.gas, fees).await?;
        let transaction = attempt.hash;
        open.submission.attempt(attempt);
        match self.send_newest(open).await {
            Ok(()) => {
                open.submission.accepted();
                tracing::warn!(?transaction, action, max_fee_wei = %fees.max_fee, "sent again with higher fees");
                Ok(None)
            }
            Err(LedgerError::Underpriced { .. }) if fees.max_fee == cap => {
                open.submission.refused(false);
                Ok(Some(WaitsFor::LowerFees { cap }))
            }
            Err(error) if is_refusal(&error) => {
                open.submission.refused(matches!(error, LedgerError::Underpriced { .. }));
                Err(error)
            }
            // The node may have it.
            Err(error) => Err(error),
        }
    }

    /// Begins again with another nonce.
    async fn renew(&self, open: &mut Open) -> Result<(), LedgerError> {
        let again = self.prepare(open.call.clone()).await?;
        tracing::warn!(nonce = %open.submission.nonce(), action = open.call.action,
            "the nonce is another transaction's, or one before it is free; re-signed with a new one");
        *open = again;
        Ok(())
    }

    async fn sign(&self, call: &Call, nonce: U256, gas: U256, fees: Fees) -> Result<Attempt, LedgerError> {
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

    /// Sends the newest attempt. That the node has it already is as good as sending it.
    async fn send_newest(&self, open: &Open) -> Result<(), LedgerError> {
        let action = open.call.action;
        let raw = open.submission.newest().map(|newest| newest.raw.clone()).unwrap_or_default();
        let sent = self.web3.eth().send_raw_transaction(raw).await;
        match sent.map_err(|error| LedgerError::from_web3(action, error)) {
            Err(LedgerError::Known { .. }) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Looks at the chain for the attempts with these hashes, the newest first: for a block that has one of them, and
    /// only if there is none, at the pool.
    async fn look(&self, action: &'static str, hashes: &[H256]) -> Result<(View, Head), LedgerError> {
        let newest_block = ("eth_getBlockByNumber", vec![json!("latest"), json!(false)]);
        let receipts =
            hashes.iter().take(LOOKED_AT).map(|hash| ("eth_getTransactionReceipt", vec![json!(hash)]));
        let mut answers = self.ask(action, std::iter::once(newest_block).chain(receipts)).await?.into_iter();
        let head = head(action, answers.next())?;
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
        let newest = ("eth_getTransactionByHash", vec![json!(hashes.first())]);
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
            let block = ("eth_getBlockByNumber", vec![json!("latest"), json!(false)]);
            let mut answers =
                self.ask(action, [count("latest"), count("pending"), block].into_iter()).await?.into_iter();
            let latest: U256 = read(action, answers.next(), "a nonce")?;
            let pending: U256 = read(action, answers.next(), "a nonce")?;
            let head = head(action, answers.next())?;
            if pending <= latest {
                return Ok((latest, false));
            }
            let blocks = head.number.saturating_sub(*began.get_or_insert(head.number));
            if blocks >= PATIENCE_BLOCKS {
                return Ok((latest, true));
            }
            self.progress.report(action, None, blocks, WaitsFor::Another, &head);
            if !poll.pause().await {
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
        let price: U256 = read(action, answers.next().transpose().map_err(failed)?, "a gas price in hex")?;
        // Not every node suggests a tip.
        let tip = read(action, answers.next().and_then(Result::ok), "a tip in hex");
        let tip = tip.unwrap_or_else(|_| price.min(DEFAULT_TIP.into()));
        Ok(self.fees(price, tip.max(U256::one())))
    }
}

fn head(action: &'static str, block: Option<Value>) -> Result<Head, LedgerError> {
    let block: Block = read(action, block, "a block")?;
    Ok(Head {
        number: block.number.as_u64(),
        timestamp: u64::try_from(block.timestamp).unwrap_or(u64::MAX),
        base_fee: block.base_fee.unwrap_or_default(),
    })
}

/// Whether the node has said that it does not take a transaction. An error of the transport says nothing of the kind,
/// nor does a status of HTTP.
fn is_refusal(error: &LedgerError) -> bool {
    match error {
        LedgerError::Conflict { .. } | LedgerError::Underpriced { .. } => true,
        LedgerError::Refused { code, .. } => *code < 0,
        _ => false,
    }
}

/// What is read of a block.
#[derive(Deserialize)]
struct Block {
    number: U64,
    timestamp: U256,
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

/// Pauses between attempts to reach a chain.
pub const RECONNECT: BackOff = BackOff { min: Duration::from_millis(200), max: Duration::from_secs(5) };
