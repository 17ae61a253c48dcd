//! The anchorer: brings evidence onto the chain, in order, once, and gives a receipt for each.
//!
//! A leaf goes `Evidenced` (in the log) `-> Submitted -> Anchored` (in the contract) `-> Receipted` (confirmed, and in
//! the anchor log). `Submitted` is kept nowhere: after a crash the contract tells how far it is, and its events tell
//! which transaction that was. A receipt MUST NOT be given before `Receipted`; the contract refuses a second anchor
//! of the same leaf, so sending again is harmless.
//!
//! [`wait`] and [`act`] decide and are pure; [`Anchorer::run`] does what they say. Receipts go to the channel once
//! they are on disk; what is lost on the way from there (the process dies) is in [`EvidenceStore::receipt`].

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    evidence::{Anchor, Receipt, log::EvidenceError, store::EvidenceStore},
    ledger::{Backoff, Ledger, LedgerError, Mined},
    merkle::{Hash, Tree},
};

/// When a batch is anchored: whichever comes first.
#[derive(Clone, Debug)]
pub struct AnchorPolicy {
    /// Leaves in a batch, at least 1.
    pub max_batch: u32,
    /// How long a leaf waits for others.
    pub max_age: Duration,
    /// How long the chain may contradict the evidence log before that is final: one of several nodes behind an
    /// endpoint may be behind the others, and a block may be replaced.
    pub patience: Duration,
}

/// How far the anchorer is, for diagnostics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnchorState {
    /// The chain answered last time it was asked.
    pub reachable: bool,
    /// Leaves with a receipt.
    pub anchored: u64,
    /// Leaves without a receipt.
    pub pending: u64,
    /// Why the last attempt failed; none after a success.
    pub last_error: Option<String>,
}

/// The anchorer cannot go on: somebody has to change something.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The evidence log was lost or is another one.
    #[error(
        "the chain has {next} leaves, the evidence log {evidenced}: the log was lost; restore it, or deploy new contracts"
    )]
    LogLost {
        /// Leaves on chain.
        next: u64,
        /// Leaves in the log.
        evidenced: u64,
    },
    /// The chain lost what was confirmed: it was reset, or reorganised deeper than the configured confirmations.
    #[error(
        "the chain has {next} leaves, {anchored} have receipts: the chain was reset, or needs more confirmations"
    )]
    ChainWentBack {
        /// Leaves on chain.
        next: u64,
        /// Leaves with receipts.
        anchored: u64,
    },
    /// The contract has a batch whose event the chain does not show.
    #[error("the chain has {next} leaves, but no event of the batch that begins at {first}")]
    NoEvent {
        /// Leaves on chain.
        next: u64,
        /// First leaf of the batch.
        first: u64,
    },
    /// The evidence log failed.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The ledger refuses.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// How long to wait before the chain is asked, while nothing new comes: `None` for ever, zero not at all.
/// `age` is how long the oldest leaf without a receipt has waited.
pub fn wait(pending: u64, age: Duration, policy: &AnchorPolicy) -> Option<Duration> {
    match pending {
        0 => None,
        _ if pending >= policy.max_batch.into() => Some(Duration::ZERO),
        _ => Some(policy.max_age.saturating_sub(age)),
    }
}

/// What to do about the chain.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing to do.
    Rest,
    /// The batch from `first` on is on chain but has no receipts: find it.
    Restore {
        /// Its first leaf.
        first: u64,
    },
    /// Anchor the next batch.
    Anchor {
        /// Its first leaf.
        first: u64,
        /// Its leaves, at least 1.
        count: u32,
    },
}

/// Decides by how many leaves are in the log, have receipts, and are in the contract.
///
/// # Errors
/// If they cannot belong together.
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

/// Everything the anchorer works with.
pub struct Anchorer {
    /// Where evidence comes from and receipts are kept.
    pub store: EvidenceStore,
    /// Where it goes.
    pub ledger: Arc<Ledger>,
    /// When.
    pub policy: AnchorPolicy,
    /// Where receipts go, in order. When the other end is dropped, the anchorer ends.
    pub receipts: mpsc::Sender<Receipt>,
    /// How far it is.
    pub state: watch::Sender<AnchorState>,
    /// The clock of the receipts.
    pub now: fn() -> SystemTime,
}

/// The consumer of receipts is gone.
struct Ended;

impl Anchorer {
    /// Anchors until `shutdown`. What is submitted then and not confirmed gets its receipts at the next start.
    /// An unreachable chain is no error, nor one that refuses for now: it goes on when the chain is back.
    ///
    /// # Errors
    /// What waiting does not cure.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AnchorError> {
        tokio::select! {
            biased;
            () = shutdown => Ok(()),
            result = self.work() => result,
        }
    }

    async fn work(self) -> Result<(), AnchorError> {
        let mut backoff = Backoff::default();
        // True once the chain had nothing more to do. The first time, and after a failure, it asks at once: there may
        // be something to restore.
        let mut rested = false;
        let mut contradicted = None;
        loop {
            if rested {
                self.wait().await;
            }
            match self.turn().await {
                Ok(Ok(act)) => {
                    (backoff, contradicted) = (Backoff::default(), None);
                    rested = match act {
                        Act::Rest => true,
                        Act::Anchor { .. } => rested,
                        Act::Restore { .. } => false,
                    };
                    self.report(None);
                }
                Ok(Err(Ended)) => return Ok(()),
                // Also where somebody, perhaps an earlier life of this process, was faster.
                Err(AnchorError::Ledger(error)) if error.is_retryable() => {
                    tracing::warn!(%error, "evidence waits");
                    self.report(Some(&error));
                    rested = false;
                    sleep(backoff.next()).await;
                }
                Err(error @ (AnchorError::ChainWentBack { .. } | AnchorError::NoEvent { .. }))
                    if contradicted.get_or_insert_with(Instant::now).elapsed() < self.policy.patience =>
                {
                    tracing::warn!(%error, "evidence waits");
                    self.state.send_modify(|state| state.last_error = Some(error.to_string()));
                    rested = false;
                    sleep(backoff.next()).await;
                }
                Err(error) => {
                    self.report(None);
                    self.state.send_modify(|state| state.last_error = Some(error.to_string()));
                    return Err(error);
                }
            }
        }
    }

    /// Until a batch is full or old enough.
    async fn wait(&self) {
        let mut oldest: Option<Instant> = None;
        loop {
            let (evidenced, anchored) = self.store.counts();
            let pending = evidenced.saturating_sub(anchored);
            self.state.send_if_modified(|state| std::mem::replace(&mut state.pending, pending) != pending);
            let age = oldest.filter(|_| pending > 0).map_or(Duration::ZERO, |since| since.elapsed());
            match wait(pending, age, &self.policy) {
                None => self.store.grown.notified().await,
                Some(Duration::ZERO) => return,
                Some(rest) => {
                    oldest.get_or_insert_with(Instant::now);
                    // Either there is more, or it is time: the next turn tells.
                    let _ = timeout(rest, self.store.grown.notified()).await;
                }
            }
        }
    }

    /// Asks the chain once and does one thing about it.
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

    /// Keeps an anchor and returns its receipts, which are on disk then.
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

    fn report(&self, error: Option<&LedgerError>) {
        let (evidenced, anchored) = self.store.counts();
        self.state.send_replace(AnchorState {
            reachable: !matches!(error, Some(LedgerError::Unreachable { .. })),
            anchored,
            pending: evidenced.saturating_sub(anchored),
            last_error: error.map(ToString::to_string),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: AnchorPolicy =
        AnchorPolicy { max_batch: 3, max_age: Duration::from_secs(10), patience: Duration::ZERO };

    #[test]
    fn waits_until_a_batch_is_full_or_old_and_for_ever_if_there_is_nothing() {
        let age = Duration::from_secs(4);
        assert_eq!(wait(0, age, &POLICY), None);
        assert_eq!(wait(2, age, &POLICY), Some(Duration::from_secs(6)));
        assert_eq!(wait(2, Duration::from_secs(11), &POLICY), Some(Duration::ZERO));
        assert_eq!(wait(3, Duration::ZERO, &POLICY), Some(Duration::ZERO));
    }

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
