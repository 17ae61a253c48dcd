// SPDX-License-Identifier: Apache-2.0
//! Takes one transaction from nonce to confirmation.
//!
//! If an earlier process left a transaction in the pool, this waits for it. If it does not move, the next transaction
//! takes its nonce and pays double. That is safe because the contracts reject whatever must not happen twice.
//!
//! Running only one transaction at a time is left to the caller.

use std::time::Duration;

use jsonrpc_core::Value;
use settings::BackOff;
use tokio::time::{Instant, sleep};
use web3::{
    BatchTransport, Transport, Web3,
    types::{
        Address, BlockNumber, Bytes, CallRequest, H256, TransactionParameters, TransactionReceipt, U64, U256,
    },
};

use crate::{Connection, LedgerError, LedgerKey, LedgerOptions};

/// First pause between two checks for a receipt; each pause doubles.
const FIRST_POLL: Duration = Duration::from_millis(50);
/// Longest pause between two checks for a receipt.
const LAST_POLL: Duration = Duration::from_secs(1);
/// Smallest tip to pay, also if the node suggests none [wei].
const MIN_TIP: u64 = 1;

/// A transaction that has its confirmations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mined {
    /// Hash of the transaction.
    pub transaction: H256,
    /// Number of its block.
    pub block_number: u64,
    /// Hash of its block.
    pub block_hash: H256,
    /// Gas that it used.
    pub gas_used: u64,
    /// Address of the contract that it created, if any.
    pub created: Option<Address>,
}

/// Whether a block is confirmed, counting itself, when the newest block is `head`.
fn is_confirmed(head: u64, block: u64, confirmations: u64) -> bool {
    head.saturating_add(1) >= block.saturating_add(confirmations)
}

/// What it takes to submit a transaction.
pub(super) struct Submitter<'a> {
    pub web3: &'a Web3<Connection>,
    pub key: &'a LedgerKey,
    pub chain_id: u64,
    pub options: &'a LedgerOptions,
}

impl Submitter<'_> {
    /// Signs and sends a transaction, without waiting for it to be mined.
    pub async fn send(
        &self,
        action: &'static str,
        to: Option<Address>,
        data: Vec<u8>,
    ) -> Result<H256, LedgerError> {
        let failed = |error| LedgerError::from_web3(action, error);
        let from = self.key.address();
        let (nonce, stuck) = self.nonce(action, from).await?;
        // Estimating also reveals, before anything is paid, whether the contract would revert.
        let call =
            CallRequest { from: Some(from), to, data: Some(Bytes(data.clone())), ..CallRequest::default() };
        // Estimate on mined state, because what is in the pool is about to be replaced.
        let latest = Some(BlockNumber::Latest);
        let gas = self.web3.eth().estimate_gas(call, latest).await.map_err(failed)?;
        let (price, tip) = self.fees(action).await?;
        let (price, tip) = if stuck { (price * 2, tip * 2) } else { (price, tip) };
        let transaction = TransactionParameters {
            nonce: Some(nonce),
            to,
            // Headroom for changes between estimating and mining.
            gas: gas + gas / 4,
            value: U256::zero(),
            data: Bytes(data),
            chain_id: Some(self.chain_id),
            transaction_type: Some(U64::from(2)),
            // The base fee may double before the transaction is mined.
            max_fee_per_gas: Some(price * 2 + tip),
            max_priority_fee_per_gas: Some(tip),
            ..TransactionParameters::default()
        };
        let signed =
            self.web3.accounts().sign_transaction(transaction, self.key.secret()).await.map_err(failed)?;
        match self.web3.eth().send_raw_transaction(signed.raw_transaction).await.map_err(failed) {
            // The same transaction is already in the pool, which is as good as sending it.
            Err(LedgerError::Conflict { reason, .. }) if reason.to_ascii_lowercase().contains("already") => {
                Ok(signed.transaction_hash)
            }
            result => result,
        }
    }

    /// Waits until `transaction` has its confirmations; it is an error if the transaction failed.
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
                // The receipt is fetched anew on each iteration, so a reorganisation shows.
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

    /// The embedded chain mines only what is sent and never reorganises, so one confirmation is enough.
    fn confirmations(&self) -> u64 {
        match self.web3.transport() {
            #[cfg(feature = "embedded")]
            Connection::Embedded(_) => 1,
            Connection::Http(_) => self.options.confirmations.max(1),
        }
    }

    /// Returns the next nonce, and whether a transaction with it has been in the pool for too long.
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

    /// Returns gas price and tip [wei], fetched in one round trip.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_counts_as_its_own_first_confirmation() {
        assert!(is_confirmed(7, 7, 1));
        assert!(!is_confirmed(7, 7, 2) && is_confirmed(8, 7, 2));
        assert!(!is_confirmed(8, 7, 3) && is_confirmed(9, 7, 3));
        // This node lags behind the one that returned the receipt.
        assert!(!is_confirmed(6, 7, 1));
    }
}
