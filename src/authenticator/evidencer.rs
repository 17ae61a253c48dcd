//! Group commit of evidence: findings that come while the disk syncs share the next sync.

use tokio::sync::{mpsc, oneshot};

use super::evidence::{Evidence, Finding, log::EvidenceError, store::EvidenceStore};

/// Findings that share a sync, at most.
const MAX_BATCH: usize = 1024;

type Entry = (Finding, oneshot::Sender<Evidence>);

/// Takes findings into the evidence log; clones speak to the same one.
#[derive(Clone, Debug)]
pub struct Evidencer(mpsc::Sender<Entry>);

/// The log failed; its keeper says why and ends the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the evidence log takes no more findings")]
pub struct Closed;

impl Evidencer {
    /// An evidencer, and its keeper to be run.
    pub fn new(store: EvidenceStore) -> (Self, Keeper) {
        let (sender, entries) = mpsc::channel(MAX_BATCH);
        (Self(sender), Keeper { store, entries })
    }

    /// Returns when the finding is on disk: with its place, and with what was found when the mail first came.
    ///
    /// # Errors
    /// If the log failed: the mail must not be published.
    pub async fn evidence(&self, finding: Finding) -> Result<Evidence, Closed> {
        let (done, evidenced) = oneshot::channel();
        self.0.send((finding, done)).await.map_err(|_| Closed)?;
        evidenced.await.map_err(|_| Closed)
    }
}

/// The other end of [`Evidencer`].
#[derive(Debug)]
pub struct Keeper {
    store: EvidenceStore,
    entries: mpsc::Receiver<Entry>,
}

impl Keeper {
    /// Appends until every [`Evidencer`] is dropped.
    ///
    /// # Errors
    /// If the log failed; what waited for it is told so.
    pub async fn run(mut self) -> Result<(), EvidenceError> {
        let mut batch = Vec::new();
        while self.entries.recv_many(&mut batch, MAX_BATCH).await > 0 {
            let findings = batch.iter().map(|(finding, _)| finding.clone()).collect();
            let evidenced = self.store.append(findings).await?;
            for ((_, done), evidence) in batch.drain(..).zip(evidenced) {
                // Whoever asked may have gone; the evidence stays.
                let _ = done.send(evidence);
            }
        }
        Ok(())
    }
}
