// SPDX-License-Identifier: Apache-2.0
//! Anchors evidence on the chain, in order and exactly once, and produces a receipt for every leaf.
//!
//! A leaf goes `Evidenced` (in the log) `-> Submitted -> Anchored` (in the contract) `-> Receipted` (confirmed, and
//! in the anchor log). `Submitted` is not stored: after a crash the contract tells how far it got, and its events
//! tell in which transaction. A receipt MUST NOT be given before `Receipted`. The contract rejects a second anchor of
//! the same leaf, so sending again is harmless.
//!
//! [`Pace`] decides when, [`act`] decides what; both are pure, and [`Anchorer::run`] carries out their decisions.
//! Receipts are sent to the channel once they are on disk. If the process dies before they are published,
//! [`EvidenceStore::receipt`] still has them.

use std::{sync::Arc, time::SystemTime};

use chain::{Ledger, LedgerError, Mined, RECONNECT};
use evidence::{
    Anchor, Receipt,
    log::EvidenceError,
    merkle::{Hash, Tree},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

pub use crate::pace::AnchorPolicy;
use crate::{
    pace::{Failure, Next, Pace, Turn},
    store::EvidenceStore,
};

/// Progress of the anchorer, for diagnostics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnchorState {
    /// Whether the chain answered the last request.
    pub reachable: bool,
    /// Number of leaves with a receipt.
    pub anchored: u64,
    /// Number of leaves without a receipt.
    pub pending: u64,
    /// Why the last attempt failed; `None` after a success.
    pub last_error: Option<String>,
}

/// The anchorer cannot go on until somebody changes something.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The evidence log was lost, or this is a different one.
    #[error(
        "the chain has {next} leaves, the evidence log {evidenced}: the log was lost; restore it, or deploy new contracts"
    )]
    LogLost {
        /// Number of leaves on chain.
        next: u64,
        /// Number of leaves in the log.
        evidenced: u64,
    },
    /// The chain lost confirmed leaves: it was reset, or reorganised more deeply than the configured confirmations.
    #[error(
        "the chain has {next} leaves, {anchored} have receipts: the chain was reset, or needs more confirmations"
    )]
    ChainWentBack {
        /// Number of leaves on chain.
        next: u64,
        /// Number of leaves with receipts.
        anchored: u64,
    },
    /// The contract has a batch, but the chain shows no event for it.
    #[error("the chain has {next} leaves, but no event of the batch that begins at {first}")]
    NoEvent {
        /// Number of leaves on chain.
        next: u64,
        /// Index of the batch's first leaf.
        first: u64,
    },
    /// The evidence log failed.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The ledger rejected a request, and waiting will not help.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl AnchorError {
    fn failure(&self) -> Failure {
        match self {
            // This includes losing a race to another submitter, perhaps an earlier run of this process.
            Self::Ledger(error) if error.is_retryable() => Failure::Temporary,
            Self::ChainWentBack { .. } | Self::NoEvent { .. } => Failure::Contradiction,
            Self::LogLost { .. } | Self::Evidence(_) | Self::Ledger(_) => Failure::Final,
        }
    }
}

/// What to do next about the chain.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing to do.
    Rest,
    /// The batch that starts at `first` is on chain but has no receipts: look it up.
    Restore {
        /// Index of the batch's first leaf.
        first: u64,
    },
    /// Anchor the next batch.
    Anchor {
        /// Index of the batch's first leaf.
        first: u64,
        /// Number of leaves, at least 1.
        count: u32,
    },
}

/// Decides what to do from the number of leaves in the log, with receipts, and in the contract (`next`).
///
/// # Errors
/// If these numbers contradict each other.
pub fn act(evidenced: u64, anchored: u64, next: u64, policy: &AnchorPolicy) -> Result<Act, AnchorError> {
    if next > evidenced {
        return Err(AnchorError::LogLost { next, evidenced });
    }
    if next < anchored {
        return Err(AnchorError::ChainWentBack { next, anchored });
    }
    if next > anchored {
        return Ok(Act::Restore { first: anchored });
    }
    let pending = u32::try_from(evidenced - next).unwrap_or(u32::MAX);
    match pending.min(policy.max_batch.max(1)) {
        0 => Ok(Act::Rest),
        count => Ok(Act::Anchor { first: next, count }),
    }
}

impl From<Act> for Turn {
    fn from(act: Act) -> Self {
        match act {
            Act::Rest => Self::Rested,
            Act::Restore { .. } => Self::Restored,
            Act::Anchor { .. } => Self::Anchored,
        }
    }
}

/// Everything the anchorer works with.
pub struct Anchorer {
    /// Source of the evidence and home of the receipts.
    pub store: EvidenceStore,
    /// Ledger to anchor on.
    pub ledger: Arc<Ledger>,
    /// When to anchor.
    pub policy: AnchorPolicy,
    /// Channel for receipts, in order. The anchorer ends when the receiver is dropped.
    pub receipts: mpsc::Sender<Receipt>,
    /// Progress, for diagnostics.
    pub state: watch::Sender<AnchorState>,
    /// Clock for the time in each receipt.
    pub now: fn() -> SystemTime,
}

/// The receiver of receipts was dropped.
struct Ended;

impl Anchorer {
    /// Anchors until `shutdown`. Batches submitted but not confirmed by then get their receipts after the next start.
    /// An unreachable chain, or one that rejects requests for now, is not an error: anchoring resumes when it
    /// recovers.
    ///
    /// # Errors
    /// The first error that waiting will not cure.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AnchorError> {
        tokio::select! {
            biased;
            () = shutdown => Ok(()),
            result = self.work() => result,
        }
    }

    async fn work(self) -> Result<(), AnchorError> {
        let (mut pace, start) = (Pace::new(self.policy.clone(), RECONNECT), Instant::now());
        loop {
            match pace.next(self.pending(), start.elapsed()) {
                Next::Ask => match self.turn().await {
                    Ok(Ok(act)) => {
                        self.report(None);
                        pace.turned(act.into(), start.elapsed());
                    }
                    Ok(Err(Ended)) => return Ok(()),
                    Err(error) => {
                        self.report(Some(&error));
                        if !pace.failed(error.failure(), start.elapsed()) {
                            return Err(error);
                        }
                        tracing::warn!(%error, "evidence waits");
                    }
                },
                Next::Wait(until) => {
                    let grown = self.store.grown.notified();
                    match until.and_then(|until| start.checked_add(until)) {
                        // Either more evidence arrived or time is up; the next iteration finds out which.
                        Some(until) => drop(timeout_at(until, grown).await),
                        None => grown.await,
                    }
                }
            }
        }
    }

    /// The number of leaves without a receipt, which is also reported.
    fn pending(&self) -> u64 {
        let (evidenced, anchored) = self.store.counts();
        let pending = evidenced.saturating_sub(anchored);
        self.state.send_if_modified(|state| std::mem::replace(&mut state.pending, pending) != pending);
        pending
    }

    /// Asks the chain once and takes one step.
    async fn turn(&self) -> Result<Result<Act, Ended>, AnchorError> {
        let next = self.ledger.next_index().await?;
        let (evidenced, anchored) = self.store.counts();
        let act = act(evidenced, anchored, next, &self.policy)?;
        let receipts = match act {
            Act::Rest => Vec::new(),
            Act::Restore { first } => {
                let batch = self.ledger.find_anchor(first).await?;
                let batch = batch.ok_or(AnchorError::NoEvent { next, first })?;
                let mined = self.ledger.confirm(batch.transaction).await?;
                self.keep(first, batch.count, batch.root, &mined).await?
            }
            Act::Anchor { first, count } => {
                let leaves = self.store.blocking(move |log| log.leaves(first, count)).await?;
                let root = Tree::new(leaves.clone()).root();
                let mined = self.ledger.anchor(first, leaves).await?;
                self.keep(first, count, root, &mined).await?
            }
        };
        for receipt in receipts {
            if self.receipts.send(receipt).await.is_err() {
                return Ok(Err(Ended));
            }
        }
        Ok(Ok(act))
    }

    /// Stores an anchor and returns its receipts; the anchor is on disk by then.
    async fn keep(
        &self,
        first: u64,
        count: u32,
        root: Hash,
        mined: &Mined,
    ) -> Result<Vec<Receipt>, EvidenceError> {
        let addresses = self.ledger.addresses();
        let anchor = Anchor {
            first,
            count,
            root,
            chain_id: addresses.chain_id,
            contract: addresses.evidence_ledger.0,
            transaction: mined.transaction.0,
            block_number: mined.block_number,
            block_hash: mined.block_hash.0,
            anchored_at: (self.now)(),
        };
        self.store.blocking(move |log| log.append_anchor(anchor).and_then(|()| log.receipts(first))).await
    }

    fn report(&self, error: Option<&AnchorError>) {
        let (evidenced, anchored) = self.store.counts();
        self.state.send_replace(AnchorState {
            reachable: !matches!(error, Some(AnchorError::Ledger(LedgerError::Unreachable { .. }))),
            anchored,
            pending: evidenced.saturating_sub(anchored),
            last_error: error.map(ToString::to_string),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const POLICY: AnchorPolicy =
        AnchorPolicy { max_batch: 3, max_age: Duration::from_secs(10), patience: Duration::ZERO };

    #[test]
    fn anchors_in_order_restores_first_and_stops_at_contradictions() {
        let act = |evidenced, anchored, next| act(evidenced, anchored, next, &POLICY);
        assert_eq!(act(0, 0, 0).unwrap(), Act::Rest);
        assert_eq!(act(2, 0, 0).unwrap(), Act::Anchor { first: 0, count: 2 });
        assert_eq!(act(9, 4, 4).unwrap(), Act::Anchor { first: 4, count: 3 });
        assert_eq!(act(9, 4, 6).unwrap(), Act::Restore { first: 4 });
        assert!(matches!(act(5, 4, 6), Err(AnchorError::LogLost { next: 6, evidenced: 5 })));
        assert!(matches!(act(9, 6, 4), Err(AnchorError::ChainWentBack { next: 4, anchored: 6 })));
    }
}
