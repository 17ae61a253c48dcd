// SPDX-License-Identifier: Apache-2.0
//! Watches whether the chain still has the blocks of anchors that were final, until no reorganisation can take them back.
//!
//! A block that another one has replaced is believed to be gone after a while, because one of several nodes behind an
//! endpoint may lag; a block that the node does not have at all, only after much longer, because the node may be catching
//! up. Headers are looked at, not receipts, which nodes may prune.
//!
//! What to do about an anchor that is gone is left to [`super::anchor`].

use std::time::Duration;

use chain::{Ledger, Presence};
use evidence::Anchor;
use tokio::time::{Instant, sleep_until};

use crate::{anchor::error::AnchorError, pace::AnchorPolicy, store::EvidenceStore};

/// Most of the newest anchors that are looked at. If the first of these is gone, those before it are looked at as well.
const NEWEST: u64 = 1024;

/// What is known of the anchors.
#[derive(Debug)]
pub struct Watch {
    /// When to look again; `None` while no reorganisation can take any anchor back.
    due: Option<Instant>,
    /// So many anchors are settled: no reorganisation can take them back.
    settled: u64,
    /// Since when some are gone.
    gone_since: Option<Instant>,
}

/// What a look shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// All anchors are there.
    Whole,
    /// All anchors are there again.
    Again,
    /// The chain lacks this block, perhaps because the node lags.
    Doubtful(u64),
    /// The anchors from this one on are gone; the block is the first one's.
    Gone {
        /// Number of the first anchor that is gone.
        from: u64,
        /// Number of its block.
        block: u64,
    },
}

impl Watch {
    /// A watch that looks at once.
    pub fn new() -> Self {
        Self { due: Some(Instant::now()), settled: 0, gone_since: None }
    }

    /// Waits until it is time for a look; for ever while there is nothing to look for.
    pub async fn is_due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Whether it is time for a look.
    pub fn is_due_now(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Notes that there are more anchors, or that the chain seems to have lost some.
    pub fn wake(&mut self, pause: Duration) {
        self.due = self.due.or(Instant::now().checked_add(pause));
    }

    /// Looks at the chain.
    ///
    /// # Errors
    /// If the chain does not answer, or the log cannot be read.
    pub async fn look(
        &mut self,
        store: &EvidenceStore,
        ledger: &Ledger,
        policy: &AnchorPolicy,
    ) -> Result<Sight, AnchorError> {
        let looked = self.look_now(store, ledger, policy).await;
        let is_settled = matches!(looked, Ok((_, true)));
        self.due = Instant::now().checked_add(policy.watch).filter(|_| !is_settled);
        looked.map(|(sight, _)| sight)
    }

    /// Looks at the chain; also returns whether there is nothing left to look for.
    async fn look_now(
        &mut self,
        store: &EvidenceStore,
        ledger: &Ledger,
        policy: &AnchorPolicy,
    ) -> Result<(Sight, bool), AnchorError> {
        let settled = self.settled;
        let (from, anchors) = store
            .blocking(move |log| {
                let from = settled.min(log.anchors()).max(log.anchors().saturating_sub(NEWEST));
                log.anchors_from(from).map(|anchors| (from, anchors))
            })
            .await?;
        let sight = |since: Option<Instant>| if since.is_some() { Sight::Again } else { Sight::Whole };
        let Some((place, presence)) = first_gone(ledger, &anchors).await? else {
            let settled_block = match anchors.is_empty() {
                true => u64::MAX,
                false => ledger.settled().await?,
            };
            let settled = anchors.iter().take_while(|anchor| anchor.block_number <= settled_block).count();
            self.settled = from.saturating_add(settled as u64);
            return Ok((sight(self.gone_since.take()), settled == anchors.len()));
        };
        let block = anchors.get(place).map_or(0, |anchor| anchor.block_number);
        let since = *self.gone_since.get_or_insert_with(Instant::now);
        let patience = if presence == Presence::Missing { policy.patience } else { policy.lag };
        if since.elapsed() < patience {
            return Ok((Sight::Doubtful(block), false));
        }
        let mut first = from.saturating_add(place as u64);
        if place == 0 {
            // Those before them are on one branch: some are there, the rest are gone.
            let mut there = 0;
            while there < first {
                let middle = there.midpoint(first);
                let anchor = store.blocking(move |log| log.anchor(middle)).await?;
                match first_gone(ledger, &[anchor]).await? {
                    Some(_) => first = middle,
                    None => there = middle.saturating_add(1),
                }
            }
        }
        (self.gone_since, self.settled) = (None, first);
        Ok((Sight::Gone { from: first, block }, false))
    }
}

/// The first anchor whose block the chain does not have, or which is of other contracts, and what is in its place.
async fn first_gone(ledger: &Ledger, anchors: &[Anchor]) -> Result<Option<(usize, Presence)>, AnchorError> {
    let addresses = ledger.addresses();
    let is_of_others = |anchor: &Anchor| {
        (anchor.chain_id, anchor.contract) != (addresses.chain_id, addresses.evidence_ledger.0)
    };
    if let Some(place) = anchors.iter().position(is_of_others) {
        return Ok(Some((place, Presence::Replaced)));
    }
    let mut blocks: Vec<_> = anchors.iter().map(|anchor| (anchor.block_number, anchor.block_hash)).collect();
    blocks.dedup();
    let presence = ledger.blocks(&blocks).await?;
    let gone = blocks.iter().zip(presence).find(|(_, presence)| *presence != Presence::There);
    Ok(gone.and_then(|(block, presence)| {
        let place = anchors.iter().position(|anchor| (anchor.block_number, anchor.block_hash) == *block)?;
        Some((place, presence))
    }))
}
