//! The evidence log shared by the tasks of one node: who evidences, who anchors, who asks for receipts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{
    Evidence, Finding, Receipt,
    log::{EvidenceError, EvidenceLog},
};
use crate::mail::MailId;

/// A handle to the one evidence log; clones share it.
#[derive(Clone, Debug)]
pub struct EvidenceStore {
    log: Arc<Mutex<EvidenceLog>>,
    /// Wakes the anchorer when there is new evidence.
    pub(crate) grown: Arc<Notify>,
}

impl EvidenceStore {
    /// Shares a log.
    pub fn new(log: EvidenceLog) -> Self {
        Self { log: Arc::new(Mutex::new(log)), grown: Arc::new(Notify::new()) }
    }

    /// [`EvidenceLog::append`], on a thread that may block; then the anchorer knows of it.
    ///
    /// # Errors
    /// As there: none of the new ones is in the log.
    pub async fn append(&self, findings: Vec<Finding>) -> Result<Vec<Evidence>, EvidenceError> {
        let evidenced = self.blocking(move |log| log.append(&findings)).await?;
        self.grown.notify_one();
        Ok(evidenced)
    }

    /// [`EvidenceLog::receipt`], on a thread that may block: it builds the tree of a batch.
    ///
    /// # Errors
    /// As there.
    pub async fn receipt(&self, mail_id: MailId) -> Result<Option<Receipt>, EvidenceError> {
        self.blocking(move |log| log.receipt(&mail_id)).await
    }

    /// Leaves in the log and leaves that have a receipt.
    pub fn counts(&self) -> (u64, u64) {
        let log = self.lock();
        (log.evidenced(), log.anchored())
    }

    /// Runs `work` on the log without blocking the tasks of the runtime.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut EvidenceLog) -> T + Send + 'static,
    ) -> T {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut store.lock())).await;
        // The runtime cancels no task that runs; only a panic in `work` comes here, and it goes on.
        done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn lock(&self) -> MutexGuard<'_, EvidenceLog> {
        // The log is changed only after its file is: a panic leaves it as it was.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
