// SPDX-License-Identifier: Apache-2.0
//! Anchors evidence on the chain, in order and exactly once, and produces a receipt for every leaf.
//!
//! A leaf goes `Evidenced` (in the log) `-> Sent` (its batch is on the way to the contract) `-> Receipted` (the batch
//! is final, and in the anchor log). Many batches are on their way at a time. `Sent` is not stored: after a crash or an
//! error, once no transaction of ours is in a pool any more, the contract tells how far it got, and its events tell in
//! which transactions. A receipt MUST NOT be given before `Receipted`. The contract rejects a second anchor of the same
//! leaf, so sending again is harmless.
//!
//! A reorganisation may be deeper than the confirmations. So anchors are watched ([`super::watch`]); those that are gone
//! are taken back ([`EvidenceLog::supersede`](evidence::log::EvidenceLog::supersede)), and comparing gives their leaves
//! new receipts: for the block that has them now, or for a new batch.
//!
//! [`Pace`] decides when, and [`compare`] whether log and chain agree; both are pure, and [`Anchorer::run`] carries out
//! their decisions. Receipts are sent to the channel once they are on disk. If the process dies before they are
//! published, [`EvidenceStore::receipt`] still has them.

pub(crate) mod error;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use chain::{Ledger, LedgerError, Mined, OnChain, RECONNECT, Slot};
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
    health::LastAnchor,
    pace::{Next, Pace},
    params::GWEI,
    store::EvidenceStore,
    watch::{Sight, Watch},
};
pub use error::AnchorError;

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
    /// The newest batch that is final, since the node started.
    pub last_anchor: Option<LastAnchor>,
}

/// Returns how many leaves are on chain and have no receipt, from the number of leaves in the log, with receipts, and
/// in the contract (`next`).
///
/// # Errors
/// If these numbers contradict each other.
pub fn compare(evidenced: u64, anchored: u64, next: u64) -> Result<u64, AnchorError> {
    if next > evidenced {
        return Err(AnchorError::LogLost { next, evidenced });
    }
    next.checked_sub(anchored).ok_or(AnchorError::ChainWentBack { next, anchored })
}

/// A batch on its way to the chain.
struct Sent {
    first: u64,
    count: u32,
    root: Hash,
    mined: Pin<Box<dyn Future<Output = Result<Mined, LedgerError>> + Send>>,
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

/// Most batches whose receipts are made at once, while the log takes no evidence.
const KEPT: usize = 16;

/// The receiver of receipts was dropped.
struct Ended;

type Step = Result<Result<(), Ended>, AnchorError>;

impl Anchorer {
    /// Anchors until `shutdown`. Batches sent but not final by then get their receipts after the next start. An
    /// unreachable chain, or one that rejects requests for now, is not an error: anchoring resumes when it recovers.
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
        // Batches on their way, and the index after the last of them.
        let (mut sent, mut sent_to) = (VecDeque::new(), 0);
        let mut watch = Watch::new();
        loop {
            let step = match pace.next(self.waiting(sent_to), start.elapsed()) {
                _ if watch.is_due_now() => self.watch(&mut watch).await.map(Ok),
                Next::Compare => match self.compare(&mut sent, &mut sent_to).await {
                    Ok(Ok(())) => {
                        self.report(None);
                        pace.compared(start.elapsed());
                        Ok(Ok(()))
                    }
                    step => step,
                },
                Next::Anchor => tokio::select! {
                    biased;
                    mined = self.front(&mut sent) => self.keep(mined, &mut sent, &mut pace, &mut watch).await,
                    slot = self.ledger.slot() => {
                        let step = self.send(slot, &mut sent, &mut sent_to).await;
                        pace.sent();
                        step
                    }
                    () = watch.is_due() => Ok(Ok(())),
                },
                Next::Wait(until) => {
                    let grown = self.store.grown.notified();
                    let grown = async {
                        match until.and_then(|until| start.checked_add(until)) {
                            // Either more evidence arrived or time is up; the next iteration finds out which.
                            Some(until) => drop(timeout_at(until, grown).await),
                            None => grown.await,
                        }
                    };
                    tokio::select! {
                        biased;
                        mined = self.front(&mut sent) => self.keep(mined, &mut sent, &mut pace, &mut watch).await,
                        () = grown => Ok(Ok(())),
                        () = watch.is_due() => Ok(Ok(())),
                    }
                }
            };
            match step {
                Ok(Ok(())) => {}
                Ok(Err(Ended)) => return Ok(()),
                Err(error) => {
                    // What is on its way goes on without being waited for; comparing finds it.
                    sent.clear();
                    self.report(Some(&error));
                    if let AnchorError::ChainWentBack { .. } = error {
                        watch.wake(self.policy.watch);
                    }
                    if !pace.failed(error.failure(), start.elapsed()) {
                        return Err(error);
                    }
                    tracing::warn!(%error, "evidence waits");
                }
            }
        }
    }

    /// Looks whether the chain still has what was final.
    ///
    /// # Errors
    /// [`AnchorError::Superseded`] once what the chain has lost is taken back.
    async fn watch(&self, watch: &mut Watch) -> Result<(), AnchorError> {
        match watch.look(&self.store, &self.ledger, &self.policy).await {
            Ok(Sight::Whole) => Ok(()),
            Ok(Sight::Again) => {
                self.report(None);
                Ok(())
            }
            Ok(Sight::Doubtful(block)) => {
                self.report(Some(&AnchorError::Lost { block }));
                Ok(())
            }
            Ok(Sight::Gone { from, block }) => {
                let count = self.store.blocking(move |log| log.supersede(from)).await?;
                Err(AnchorError::Superseded { count, block })
            }
            // It is looked for again, and nothing that is on its way depends on it.
            Err(AnchorError::Ledger(error)) if error.is_retryable() => {
                tracing::debug!(%error, "anchors not looked for");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The number of leaves that are not on their way; also reports how many have no receipt.
    fn waiting(&self, sent_to: u64) -> u64 {
        let (evidenced, anchored) = self.store.counts();
        let counts = (anchored, evidenced.saturating_sub(anchored));
        self.state.send_if_modified(|state| {
            let is_new = (state.anchored, state.pending) != counts;
            (state.anchored, state.pending) = counts;
            is_new
        });
        evidenced.saturating_sub(sent_to)
    }

    /// Compares the log with the chain once nothing is in a pool. Batches that are on chain and have no receipts are on
    /// their way from then on.
    async fn compare(&self, sent: &mut VecDeque<Sent>, sent_to: &mut u64) -> Step {
        self.ledger.rest().await?;
        let next = self.ledger.next_index().await?;
        let (evidenced, mut first) = self.store.counts();
        compare(evidenced, first, next)?;
        sent.clear();
        while first < next {
            let batch = self.ledger.find_anchor(first).await?;
            let OnChain { count, root, transaction, .. } =
                batch.ok_or(AnchorError::NoEvent { next, first })?;
            let leaves = self.store.blocking(move |log| log.leaves(first, count)).await?;
            let end = first.saturating_add(count.into());
            if Tree::new(leaves).root() != root {
                return Err(EvidenceError::Root { first, end }.into());
            }
            let mined = Box::pin(self.ledger.confirm(transaction));
            sent.push_back(Sent { first, count, root, mined });
            first = end;
        }
        *sent_to = next;
        Ok(Ok(()))
    }

    /// Sends the next batch on its way.
    async fn send(
        &self,
        slot: Result<Slot, LedgerError>,
        sent: &mut VecDeque<Sent>,
        sent_to: &mut u64,
    ) -> Step {
        let (slot, first, count) = (slot?, *sent_to, self.policy.max_batch.max(1));
        let leaves = self.store.blocking(move |log| log.leaves(first, count)).await?;
        // The log holds no more than fit in `count`.
        let count = u32::try_from(leaves.len()).unwrap_or(count);
        let root = Tree::new(leaves).root();
        let mined = Box::pin(self.ledger.anchor(slot, (first, count, root)));
        sent.push_back(Sent { first, count, root, mined });
        *sent_to = first.saturating_add(count.into());
        Ok(Ok(()))
    }

    /// Waits for the end of the first batch, or until one behind it has failed; for ever if there is none.
    async fn front(&self, sent: &mut VecDeque<Sent>) -> Result<Mined, LedgerError> {
        let Some(batch) = sent.front_mut() else { return std::future::pending().await };
        tokio::select! {
            biased;
            mined = batch.mined.as_mut() => mined,
            error = self.ledger.broken() => Err(error),
        }
    }

    /// Gives receipts to the batch at the front, whose transaction ended like this, and to those behind it that are
    /// final already.
    async fn keep(
        &self,
        mined: Result<Mined, LedgerError>,
        sent: &mut VecDeque<Sent>,
        pace: &mut Pace,
        watch: &mut Watch,
    ) -> Step {
        let (mut next, mut anchors, mut failed) = (Some(mined), Vec::new(), None);
        while let Some(mined) = next.take() {
            let Some(batch) = sent.pop_front() else { break };
            match mined {
                Ok(mined) => {
                    let (block, entries) = (mined.block_number, batch.count);
                    let fee_gwei = u64::try_from(mined.fee / GWEI).unwrap_or(u64::MAX);
                    self.state.send_modify(|state| {
                        state.last_anchor = Some(LastAnchor { block, entries, fee_gwei });
                    });
                    anchors.push(self.anchor_of((batch.first, batch.count, batch.root), &mined));
                    next = if anchors.len() < KEPT { ended(sent) } else { None };
                }
                Err(error) => failed = Some(error),
            }
        }
        if !anchors.is_empty() {
            if self.store_anchors(anchors).await?.is_err() {
                return Ok(Err(Ended));
            }
            self.report(None);
            pace.anchored();
            watch.wake(self.policy.watch);
        }
        failed.map_or(Ok(Ok(())), |error| Err(error.into()))
    }

    /// Stores anchors, which are on disk when this returns, and sends their receipts.
    async fn store_anchors(&self, anchors: Vec<Anchor>) -> Step {
        let receipts = self.store.blocking(move |log| log.append_anchors(anchors)).await?;
        for receipt in receipts {
            if self.receipts.send(receipt).await.is_err() {
                return Ok(Err(Ended));
            }
        }
        Ok(Ok(()))
    }

    fn anchor_of(&self, (first, count, root): (u64, u32, Hash), mined: &Mined) -> Anchor {
        let addresses = self.ledger.addresses();
        Anchor {
            first,
            count,
            // The log knows it.
            revision: 0,
            root,
            chain_id: addresses.chain_id,
            contract: addresses.evidence_ledger.0,
            transaction: mined.transaction.0,
            block_number: mined.block_number,
            block_hash: mined.block_hash.0,
            anchored_at: (self.now)(),
        }
    }

    fn report(&self, error: Option<&AnchorError>) {
        let (evidenced, anchored) = self.store.counts();
        self.state.send_modify(|state| {
            state.reachable = !matches!(error, Some(AnchorError::Ledger(LedgerError::Unreachable { .. })));
            (state.anchored, state.pending) = (anchored, evidenced.saturating_sub(anchored));
            state.last_error = error.map(ToString::to_string);
        });
    }
}

/// The end of the first batch, if it has come already.
fn ended(sent: &mut VecDeque<Sent>) -> Option<Result<Mined, LedgerError>> {
    match sent.front_mut()?.mined.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(mined) => Some(mined),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_and_chain_agree_or_one_of_them_has_lost_something() {
        assert!(compare(0, 0, 0).is_ok() && compare(9, 4, 4).is_ok() && compare(9, 4, 6).is_ok());
        assert!(matches!(compare(5, 4, 6), Err(AnchorError::LogLost { next: 6, evidenced: 5 })));
        assert!(matches!(compare(9, 6, 4), Err(AnchorError::ChainWentBack { next: 4, anchored: 6 })));
    }
}
