//! One transaction from nonce to confirmation.
//!
//! One is in flight at a time. A transaction that an earlier process left in the pool is waited for; if it does not
//! move, the next one takes its nonce and pays double: the contracts refuse what must not happen twice.

use std::time::Duration;

use jsonrpc_core::Value;
use tokio::time::{Instant, sleep};
use web3::{
    BatchTransport, Transport, Web3,
    types::{
        Address, BlockNumber, Bytes, CallRequest, H256, TransactionParameters, TransactionReceipt, U64, U256,
    },
};

use super::{Chain, LedgerError, LedgerKey, LedgerOptions};

/// First pause between two looks for a receipt; doubles.
const FIRST_POLL: Duration = Duration::from_millis(50);
/// Longest pause between two looks for a receipt.
const LAST_POLL: Duration = Duration::from_secs(1);
/// Tip where the node suggests none or too little [wei].
const MIN_TIP: u64 = 1;

/// A transaction with its confirmations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mined {
    /// Its hash.
    pub transaction: H256,
    /// Number of its block.
    pub block_number: u64,
    /// Hash of its block.
    pub block_hash: H256,
    /// Gas it used.
    pub gas_used: u64,
    /// The contract it created.
    pub created: Option<Address>,
}

/// Whether a block has its confirmations, itself included, when the chain's newest block is `head`.
fn is_confirmed(head: u64, block: u64, confirmations: u64) -> bool {
    head.saturating_add(1) >= block.saturating_add(confirmations)
}

/// What one submission needs.
pub(super) struct Submitter<'a> {
    pub web3: &'a Web3<Chain>,
    pub key: &'a LedgerKey,
    pub chain_id: u64,
    pub options: &'a LedgerOptions,
}

impl Submitter<'_> {
    /// Signs and sends; the transaction may be mined or not.
    pub async fn send(
        &self,
        action: &'static str,
        to: Option<Address>,
        data: Vec<u8>,
    ) -> Result<H256, LedgerError> {
        let failed = |error| LedgerError::from_web3(action, error);
        let from = self.key.address();
        let (nonce, stuck) = self.nonce(action, from).await?;
        // Also finds out whether the contract would refuse, before anything is paid.
        let call =
            CallRequest { from: Some(from), to, data: Some(Bytes(data.clone())), ..CallRequest::default() };
        // On what is mined: what is in the pool is about to be replaced.
        let latest = Some(BlockNumber::Latest);
        let gas = self.web3.eth().estimate_gas(call, latest).await.map_err(failed)?;
        let (price, tip) = self.fees(action).await?;
        let (price, tip) = if stuck { (price * 2, tip * 2) } else { (price, tip) };
        let transaction = TransactionParameters {
            nonce: Some(nonce),
            to,
            // Room for what changes between estimate and mining.
            gas: gas + gas / 4,
            value: U256::zero(),
            data: Bytes(data),
            chain_id: Some(self.chain_id),
            transaction_type: Some(U64::from(2)),
            // The base fee may double before it is mined.
            max_fee_per_gas: Some(price * 2 + tip),
            max_priority_fee_per_gas: Some(tip),
            ..TransactionParameters::default()
        };
        let signed =
            self.web3.accounts().sign_transaction(transaction, self.key.secret()).await.map_err(failed)?;
        match self.web3.eth().send_raw_transaction(signed.raw_transaction).await.map_err(failed) {
            // The same bytes are in the pool already: as good as sent.
            Err(LedgerError::Conflict { reason, .. }) if reason.to_ascii_lowercase().contains("already") => {
                Ok(signed.transaction_hash)
            }
            result => result,
        }
    }

    /// Waits until `transaction` has its confirmations; a failed one is an error.
    pub async fn confirm(&self, action: &'static str, transaction: H256) -> Result<Mined, LedgerError> {
        let failed = |error| LedgerError::from_web3(action, error);
        let mut poll = Poll::new(self.options.timeout);
        loop {
            let receipt = self.web3.eth().transaction_receipt(transaction).await.map_err(failed)?;
            if let Some((receipt, block_number, block_hash)) = receipt.and_then(in_block) {
                if receipt.status != Some(U64::one()) {
                    let reason = format!("transaction {transaction:?} failed when it was mined");
                    return Err(LedgerError::Conflict { action, reason });
                }
                let head = self.web3.eth().block_number().await.map_err(failed)?.as_u64();
                // Looked for again at each turn, so a reorganisation shows.
                if is_confirmed(head, block_number, self.confirmations()) {
                    return Ok(Mined {
                        transaction,
                        block_number,
                        block_hash,
                        gas_used: receipt.gas_used.unwrap_or_default().as_u64(),
                        created: receipt.contract_address,
                    });
                }
            }
            if !poll.pause().await {
                let seconds = self.options.timeout.as_secs();
                return Err(LedgerError::Timeout { action, seconds, transaction: Some(transaction) });
            }
        }
    }

    /// The embedded chain mines only what is sent and never goes back: it has one confirmation.
    fn confirmations(&self) -> u64 {
        match self.web3.transport() {
            Chain::Embedded(_) => 1,
            Chain::Http(_) => self.options.confirmations.max(1),
        }
    }

    /// The next nonce, and whether a transaction with it has been in the pool for too long.
    async fn nonce(&self, action: &'static str, from: Address) -> Result<(U256, bool), LedgerError> {
        let failed = |error| LedgerError::from_web3(action, error);
        let mut poll = Poll::new(self.options.timeout);
        loop {
            let eth = self.web3.eth();
            let latest = eth.transaction_count(from, Some(BlockNumber::Latest)).await.map_err(failed)?;
            let pending = eth.transaction_count(from, Some(BlockNumber::Pending)).await.map_err(failed)?;
            if pending <= latest {
                return Ok((latest, false));
            }
            if !poll.pause().await {
                return Ok((latest, true));
            }
        }
    }

    /// Price of gas and tip [wei], in one round trip.
    async fn fees(&self, action: &'static str) -> Result<(U256, U256), LedgerError> {
        let failed = |error| LedgerError::from_web3(action, error);
        let chain = self.web3.transport();
        let requests =
            ["eth_gasPrice", "eth_maxPriorityFeePerGas"].map(|method| chain.prepare(method, Vec::new()));
        let mut answers = chain.send_batch(requests).await.map_err(failed)?.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(Value::Null));
        let number = |value| serde_json::from_value::<U256>(value).ok();
        let price = next().map_err(failed)?;
        let price = number(price)
            .ok_or_else(|| LedgerError::Answer { action, rule: "a gas price in hex".to_owned() })?;
        // Not every node suggests a tip.
        let tip = next().ok().and_then(number).unwrap_or_default();
        Ok((price, tip.max(MIN_TIP.into())))
    }
}

/// The receipt of a transaction that is in a block, with the block's number and hash.
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

    /// Waits a little longer each time; false if the time is up.
    async fn pause(&mut self) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LAST_POLL);
        true
    }
}

/// Pauses between attempts to reach a chain: 0.2 s, doubling, at most 5 s.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(200))
    }
}

impl Backoff {
    /// How long to wait this time.
    pub fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Duration::from_secs(5));
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_counts_as_its_own_first_confirmation() {
        assert!(is_confirmed(7, 7, 1));
        assert!(!is_confirmed(7, 7, 2) && is_confirmed(8, 7, 2));
        assert!(!is_confirmed(8, 7, 3) && is_confirmed(9, 7, 3));
        // A node that is behind the one that gave the receipt.
        assert!(!is_confirmed(6, 7, 1));
    }
}
