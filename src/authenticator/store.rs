//! Shares the evidence log among the tasks of a node: those that add evidence, anchor it and request receipts.
//!
//! Files are read and written on threads that may block. Only [`EvidenceStore::counts`] takes the lock on the
//! caller's thread.
//!
//! The log itself is [`super::log`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evidence::{
    Evidence, Finding, Receipt,
    log::{EvidenceError, EvidenceLog},
};
use mail::MailId;
use tokio::sync::Notify;

/// Handle to the evidence log; clones share it.
#[derive(Clone, Debug)]
pub struct EvidenceStore {
    log: Arc<Mutex<EvidenceLog>>,
    /// Wakes the anchorer when there is new evidence.
    pub(crate) grown: Arc<Notify>,
}

impl EvidenceStore {
    /// Wraps a log for sharing.
    pub fn new(log: EvidenceLog) -> Self {
        Self { log: Arc::new(Mutex::new(log)), grown: Arc::new(Notify::new()) }
    }

    /// Calls [`EvidenceLog::append`] on a thread that may block, then wakes the anchorer.
    ///
    /// # Errors
    /// As for [`EvidenceLog::append`].
    pub async fn append(&self, findings: Vec<Finding>) -> Result<Vec<Evidence>, EvidenceError> {
        let evidenced = self.blocking(move |log| log.append(&findings)).await?;
        self.grown.notify_one();
        Ok(evidenced)
    }

    /// Calls [`EvidenceLog::receipt`] on a thread that may block, since it builds the tree of a batch.
    ///
    /// # Errors
    /// As for [`EvidenceLog::receipt`].
    pub async fn receipt(&self, mail_id: MailId) -> Result<Option<Receipt>, EvidenceError> {
        self.blocking(move |log| log.receipt(&mail_id)).await
    }

    /// Returns the number of leaves in the log and the number with a receipt.
    pub fn counts(&self) -> (u64, u64) {
        let log = self.lock();
        (log.evidenced(), log.anchored())
    }

    /// Runs `work` on the log without blocking the runtime's tasks.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut EvidenceLog) -> T + Send + 'static,
    ) -> T {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut store.lock())).await;
        // The runtime never cancels a running blocking task, so this can only be a panic in `work`; pass it on.
        done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn lock(&self) -> MutexGuard<'_, EvidenceLog> {
        // The log changes in memory only after its file, so a panic leaves it consistent.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
