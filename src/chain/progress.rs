// SPDX-License-Identifier: Apache-2.0
//! What the transaction in flight waits for, for those who watch.
//!
//! [`super::submit`] reports after each look at the chain.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use web3::types::{H256, U256};

/// Time between two blocks until it has been seen: a slot of Ethereum. No chain is believed to be slower, because a
/// test chain may mine only when there is something to mine.
const SLOT: Duration = Duration::from_secs(12);
/// No chain is believed to be faster, because the chain is looked at only this often.
const SHORTEST_SLOT: Duration = Duration::from_secs(1);
/// A transaction is late once so many blocks, or the time of so many, brought nothing.
const LATE_BLOCKS: u32 = 3;

/// A transaction that is not final yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// What it does.
    pub action: &'static str,
    /// Hash of its newest attempt.
    pub transaction: H256,
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
    /// For blocks on top of its own.
    Confirmations {
        /// Number that it has, its own block included.
        have: u64,
        /// Number that it needs.
        of: u64,
    },
    /// For the chain to ask for no more than this [wei per gas].
    LowerFees {
        /// The most that may be paid.
        cap: U256,
    },
    /// For the node to take it; why it does not, in its words.
    Node(String),
}

impl fmt::Display for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, transaction, blocks, waits_for, .. } = self;
        write!(f, "{action}: transaction {transaction:?} ")?;
        match waits_for {
            WaitsFor::Block => write!(f, "is in no block after {blocks} blocks"),
            WaitsFor::Confirmations { have, of } => write!(f, "has {have} of {of} confirmations"),
            WaitsFor::LowerFees { cap } => write!(f, "waits for fees of at most {cap} wei"),
            WaitsFor::Node(reason) => write!(f, "is not taken by the node: {reason}"),
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

    /// Reports what the transaction waits for, as of block `head`. It is late if three blocks did not take it, if the
    /// chain has made no block in the time of three, or if the node or our own limit holds it back.
    pub fn report(
        &self,
        action: &'static str,
        transaction: H256,
        blocks: u64,
        waits_for: WaitsFor,
        head: u64,
    ) {
        let stands = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).observe(head, Instant::now());
        let is_late = stands
            || match waits_for {
                WaitsFor::Block => blocks >= LATE_BLOCKS.into(),
                WaitsFor::Confirmations { .. } => false,
                WaitsFor::LowerFees { .. } | WaitsFor::Node(_) => true,
            };
        let now = Some(InFlight { action, transaction, blocks, waits_for, is_late });
        self.current.send_if_modified(|current| std::mem::replace(current, now.clone()) != now);
    }

    /// Reports that there is no transaction in flight.
    pub fn clear(&self) {
        self.current.send_if_modified(|current| current.take().is_some());
    }
}

/// Learns how long the chain takes for a block.
#[derive(Debug)]
struct BlockClock {
    /// The newest block, and when it was first seen.
    newest: Option<(u64, Instant)>,
    slot: Duration,
}

impl Default for BlockClock {
    fn default() -> Self {
        Self { newest: None, slot: SLOT }
    }
}

impl BlockClock {
    /// Notes that the newest block is `head`; returns whether it should have had three successors by now.
    fn observe(&mut self, head: u64, now: Instant) -> bool {
        match self.newest {
            Some((newest, seen)) if newest == head => {
                return now.saturating_duration_since(seen) >= self.slot * LATE_BLOCKS;
            }
            Some((newest, seen)) => {
                let blocks = u32::try_from(head.saturating_sub(newest)).unwrap_or(u32::MAX);
                if let Some(slot) = now.saturating_duration_since(seen).checked_div(blocks) {
                    self.slot = slot.clamp(SHORTEST_SLOT, SLOT);
                }
            }
            None => {}
        }
        self.newest = Some((head, now));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_makes_no_block_in_the_time_of_three_stands() {
        let (start, mut clock) = (Instant::now(), BlockClock::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!clock.observe(7, at(0)) && !clock.observe(7, at(35)) && clock.observe(7, at(36)));
        // Four blocks in eight seconds: it makes one every two.
        assert!(!clock.observe(8, at(40)) && !clock.observe(12, at(48)));
        assert!(!clock.observe(12, at(53)) && clock.observe(12, at(54)));
        // It was reset: nothing is learnt of a head that goes back.
        assert!(!clock.observe(1, at(55)) && !clock.observe(1, at(60)) && clock.observe(1, at(61)));
    }

    #[test]
    fn a_transaction_is_late_after_three_blocks_or_if_something_holds_it_back() {
        let progress = Progress::default();
        let current = progress.watch();
        let is_late = |blocks, waits_for| {
            progress.report("anchor evidence", H256::zero(), blocks, waits_for, 9);
            current.borrow().as_ref().is_some_and(|current| current.is_late)
        };
        assert!(!is_late(2, WaitsFor::Block) && is_late(3, WaitsFor::Block));
        assert!(!is_late(12, WaitsFor::Confirmations { have: 3, of: 12 }));
        assert!(
            is_late(0, WaitsFor::LowerFees { cap: 1.into() }) && is_late(0, WaitsFor::Node("full".into()))
        );
        let text = current.borrow().as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!(
            text,
            format!("anchor evidence: transaction {:?} is not taken by the node: full", H256::zero())
        );
        progress.clear();
        assert_eq!(*current.borrow(), None);
    }
}
