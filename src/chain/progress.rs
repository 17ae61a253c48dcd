// SPDX-License-Identifier: Apache-2.0
//! What the transactions in flight wait for, for those who watch.
//!
//! [`super::sender`] reports after each look at the chain.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use web3::types::{H256, U256};

use crate::{LedgerError, submission::Head};

/// A gwei [wei].
const GWEI: u64 = 1_000_000_000;
/// Time between two blocks until it has been seen: a slot of Ethereum. No chain is believed to be slower, because a
/// test chain may mine only when there is something to mine.
const SLOT: Duration = Duration::from_secs(12);
/// No chain is believed to be faster, because timestamps are seconds and the chain is looked at only this often.
const SHORTEST_SLOT: Duration = Duration::from_secs(1);
/// Finality is late if the newest block that is finalized is so far behind: four epochs of Ethereum, which needs two.
const LATE_FINALITY: u64 = 128;
/// A transaction is late once so many blocks, or the time of so many, brought nothing.
const LATE_BLOCKS: u32 = 3;

/// The transaction of those not final yet that the others wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Number of transactions that are not final yet.
    pub count: usize,
    /// What it does.
    pub action: &'static str,
    /// Hash of its newest attempt; `None` before the first.
    pub transaction: Option<H256>,
    /// Blocks since it was first looked for.
    pub blocks: u64,
    /// What it waits for.
    pub waits_for: WaitsFor,
    /// Whether an operator should know: see [`Progress::report`].
    pub is_late: bool,
}

/// What a transaction waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// To be in a block.
    Block,
    /// For a transaction of an earlier process, or of somebody else with the key, which is in the pool.
    Another,
    /// For blocks on top of its own.
    Confirmations {
        /// Number that it has, its own block included.
        have: u64,
        /// Number that it needs.
        of: u64,
    },
    /// For the chain to finalize its block.
    Finality {
        /// Number of its block.
        block: u64,
        /// Number of the newest block that is finalized.
        finalized: u64,
    },
    /// For the chain to ask for no more than this [wei per gas].
    LowerFees {
        /// The most that may be paid.
        cap: U256,
    },
    /// For the node to take it; why it does not, in its words.
    Node(String),
    /// For the chain to answer; why it does not.
    Answer(String),
}

impl fmt::Display for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, transaction, blocks, waits_for, .. } = self;
        match (transaction, waits_for) {
            (_, WaitsFor::Answer(reason)) => return write!(f, "{reason}"),
            (Some(transaction), _) => write!(f, "{action}: transaction {transaction:?} ")?,
            (None, _) => write!(f, "{action}: the transaction ")?,
        }
        match waits_for {
            WaitsFor::Block if *blocks == 0 => write!(f, "waits for a block, and the chain makes none"),
            WaitsFor::Block => write!(f, "is in no block after {blocks} blocks"),
            WaitsFor::Another => write!(f, "waits for another one of the account, which is in the pool"),
            WaitsFor::Confirmations { have, of } => write!(f, "has {have} of {of} confirmations"),
            WaitsFor::Finality { block, finalized } => {
                write!(f, "is in block {block}, and blocks to {finalized} are finalized")
            }
            WaitsFor::LowerFees { cap } => write!(f, "waits for fees below max_fee_gwei = {}", cap / GWEI),
            WaitsFor::Node(reason) => write!(f, "is rejected by the node: {reason}"),
            WaitsFor::Answer(_) => Ok(()),
        }
    }
}

/// Follows the transaction in flight and the blocks that pass it.
#[derive(Debug)]
pub(super) struct Progress {
    current: watch::Sender<Option<InFlight>>,
    blocks: Mutex<BlockClock>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { current: watch::channel(None).0, blocks: Mutex::default() }
    }
}

impl Progress {
    pub fn watch(&self) -> watch::Receiver<Option<InFlight>> {
        self.current.subscribe()
    }

    /// Reports what a transaction waits for, and with it all of them. It is late if three blocks did not take it, if
    /// the chain has made no block in the time of three, or if the node or our own limit holds it back.
    pub fn report(&self, now: InFlight, head: &Head) {
        let has_stalled = lock(&self.blocks).observe(head, Instant::now());
        let is_late = has_stalled
            || match now.waits_for {
                WaitsFor::Block | WaitsFor::Another => now.blocks >= LATE_BLOCKS.into(),
                WaitsFor::Confirmations { .. } => false,
                WaitsFor::Finality { finalized, .. } => head.number.saturating_sub(finalized) > LATE_FINALITY,
                WaitsFor::LowerFees { .. } | WaitsFor::Node(_) | WaitsFor::Answer(_) => true,
            };
        self.current.send_replace(Some(InFlight { is_late, ..now }));
    }

    /// Reports that the chain does not answer, in place of what the transaction waits for.
    pub fn silent(&self, now: InFlight, error: &LedgerError) {
        let waits_for = WaitsFor::Answer(error.to_string());
        self.current.send_replace(Some(InFlight { waits_for, is_late: true, ..now }));
    }

    /// Reports that there is no transaction in flight.
    pub fn clear(&self) {
        lock(&self.blocks).newest = None;
        self.current.send_if_modified(|current| current.take().is_some());
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Learns how long the chain takes for a block.
#[derive(Debug)]
struct BlockClock {
    /// The newest block, its time, and when it was first seen.
    newest: Option<(Head, Instant)>,
    slot: Duration,
}

impl Default for BlockClock {
    fn default() -> Self {
        Self { newest: None, slot: SLOT }
    }
}

impl BlockClock {
    /// Notes the head that a look has shown; returns whether the newest block should have had three successors by now.
    /// Of several nodes behind an endpoint one may lag, so a head that is not newer is no news.
    fn observe(&mut self, head: &Head, now: Instant) -> bool {
        if let Some((newest, seen)) = self.newest {
            let Some(blocks) = head.number.checked_sub(newest.number).filter(|blocks| *blocks > 0) else {
                let has_stalled = now.saturating_duration_since(seen) >= self.slot * LATE_BLOCKS;
                if has_stalled && head.number < newest.number {
                    // Nobody else has that newest block.
                    self.newest = Some((*head, now));
                }
                return has_stalled;
            };
            let seconds = head.timestamp.saturating_sub(newest.timestamp);
            let time = Duration::from_secs(seconds.min(SLOT.as_secs().saturating_mul(blocks)));
            self.slot = time.div_f64(blocks as f64).clamp(SHORTEST_SLOT, SLOT);
        }
        self.newest = Some((*head, now));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(number: u64, timestamp: u64) -> Head {
        let (hash, base_fee) = (H256::zero(), U256::zero());
        Head { number, hash, timestamp, base_fee, finalized: None }
    }

    #[test]
    fn a_chain_that_makes_no_block_in_the_time_of_three_has_stalled() {
        let (start, mut clock) = (Instant::now(), BlockClock::default());
        let mut has_stalled =
            |seconds, head: &Head| clock.observe(head, start + Duration::from_secs(seconds));
        let seven = head(7, 1_000);
        assert!(!has_stalled(0, &seven) && !has_stalled(35, &seven) && has_stalled(36, &seven));
        // Four blocks in eight seconds by their own times, however late they are seen: one every two.
        let eleven = head(11, 1_008);
        assert!(!has_stalled(37, &eleven) && !has_stalled(42, &eleven) && has_stalled(43, &eleven));
        // A node that lags behind is believed only then.
        assert!(has_stalled(44, &seven) && !has_stalled(45, &eleven));
        // One that is seen at the end of its time does not make the chain look fast.
        assert!(!has_stalled(46, &head(12, 1_020)) && !has_stalled(47, &head(13, 1_032)));
        assert!(!has_stalled(82, &head(13, 1_032)) && has_stalled(83, &head(13, 1_032)));
    }

    #[test]
    fn a_transaction_is_late_after_three_blocks_or_if_something_holds_it_back() {
        let progress = Progress::default();
        let current = progress.watch();
        let is_late = |blocks, waits_for| {
            let action = "anchor evidence";
            let now = InFlight { count: 1, action, transaction: None, blocks, waits_for, is_late: false };
            progress.report(now, &head(9, 0));
            current.borrow().as_ref().is_some_and(|current| current.is_late)
        };
        let finality = |finalized| WaitsFor::Finality { block: 8, finalized };
        assert!(!is_late(0, finality(1)));
        let now = current.borrow().clone().unwrap();
        progress.report(now, &head(137, 0));
        assert!(current.borrow().as_ref().is_some_and(|current| current.is_late));
        progress.clear();
        assert!(!is_late(2, WaitsFor::Block) && is_late(3, WaitsFor::Block));
        assert!(!is_late(12, WaitsFor::Confirmations { have: 3, of: 12 }));
        assert!(
            is_late(0, WaitsFor::LowerFees { cap: 1.into() }) && is_late(0, WaitsFor::Node("full".into()))
        );
        let text = current.borrow().as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!(text, "anchor evidence: the transaction is rejected by the node: full");
        progress.clear();
        assert_eq!(*current.borrow(), None);
    }
}
