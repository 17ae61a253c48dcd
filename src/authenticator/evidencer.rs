// SPDX-License-Identifier: Apache-2.0
//! Commits evidence in groups: findings that arrive while the disk syncs share the next sync.
//!
//! A finding is on disk before [`Evidencer::evidence`] returns.
//!
//! [`EvidenceStore`] does the writing; the caller runs the [`EvidenceWriter`].

use evidence::{Evidence, Finding, log::EvidenceError};
use tokio::sync::{mpsc, oneshot};

use crate::store::EvidenceStore;

/// Maximum number of findings that share a sync.
const MAX_BATCH: usize = 1024;

type Entry = (Finding, oneshot::Sender<Evidence>);

/// Sends findings to the evidence log; clones send to the same log.
#[derive(Clone, Debug)]
pub struct Evidencer(mpsc::Sender<Entry>);

/// The log failed. The [`EvidenceWriter`] reports why and ends the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the evidence log takes no more findings")]
pub struct Closed;

impl Evidencer {
    /// Creates an evidencer and the writer that must be run for it.
    pub fn new(store: EvidenceStore) -> (Self, EvidenceWriter) {
        let (sender, entries) = mpsc::channel(MAX_BATCH);
        (Self(sender), EvidenceWriter { store, entries })
    }

    /// Waits until the finding is on disk; returns its index and what was found when the mail first came.
    ///
    /// # Errors
    /// If the log failed; the mail must then not be published.
    pub async fn evidence(&self, finding: Finding) -> Result<Evidence, Closed> {
        let (done, evidenced) = oneshot::channel();
        self.0.send((finding, done)).await.map_err(|_| Closed)?;
        evidenced.await.map_err(|_| Closed)
    }
}

/// Receives the findings of all [`Evidencer`] clones and appends them to the log.
#[derive(Debug)]
pub struct EvidenceWriter {
    store: EvidenceStore,
    entries: mpsc::Receiver<Entry>,
}

impl EvidenceWriter {
    /// Appends findings until every [`Evidencer`] is dropped.
    ///
    /// # Errors
    /// If the log failed; callers waiting for it get [`Closed`].
    pub async fn run(mut self) -> Result<(), EvidenceError> {
        let mut batch = Vec::new();
        while self.entries.recv_many(&mut batch, MAX_BATCH).await > 0 {
            let findings = batch.iter().map(|(finding, _)| finding.clone()).collect();
            let evidenced = self.store.append(findings).await?;
            for ((_, done), evidence) in batch.drain(..).zip(evidenced) {
                // The caller may have gone away; the evidence stays.
                let _ = done.send(evidence);
            }
        }
        Ok(())
    }
}
