// SPDX-License-Identifier: Apache-2.0
//! Shares the evidence log among the tasks of a node: those that add evidence, anchor it and request receipts.
//!
//! Files are read and written on threads that may block, and only those take the lock.
//!
//! The log itself is [`evidence::log`].

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use evidence::{
    Entry, Evidence, Identity, Receipt,
    log::{EvidenceError, EvidenceLog},
};
use tokio::sync::Notify;

/// Handle to the evidence log; clones share it.
#[derive(Clone, Debug)]
pub struct EvidenceStore {
    log: Arc<Mutex<EvidenceLog>>,
    counts: Arc<Counts>,
    /// Wakes the anchorer when there is new evidence.
    pub(crate) grown: Arc<Notify>,
}

/// Copies of the log's counts, to be read while the log is locked for a sync.
#[derive(Debug, Default)]
struct Counts {
    evidenced: AtomicU64,
    anchored: AtomicU64,
}

impl Counts {
    /// Copies the counts; `evidenced` first, so that a reader never sees more anchored than evidenced.
    fn copy(&self, log: &EvidenceLog) {
        self.evidenced.store(log.evidenced(), Ordering::Release);
        self.anchored.store(log.anchored(), Ordering::Release);
    }
}

impl EvidenceStore {
    /// Wraps a log for sharing.
    pub fn new(log: EvidenceLog) -> Self {
        let counts = Counts::default();
        counts.copy(&log);
        Self { log: Arc::new(Mutex::new(log)), counts: Arc::new(counts), grown: Arc::new(Notify::new()) }
    }

    /// Calls [`EvidenceLog::append`] on a thread that may block, then wakes the anchorer.
    ///
    /// # Errors
    /// As for [`EvidenceLog::append`].
    pub async fn append(&self, entries: Vec<Entry>, now: SystemTime) -> Result<Vec<Evidence>, EvidenceError> {
        let evidenced = self.blocking(move |log| log.append(&entries, now)).await?;
        self.grown.notify_one();
        Ok(evidenced)
    }

    /// Calls [`EvidenceLog::receipt`] on a thread that may block, since it builds the tree of a batch.
    ///
    /// # Errors
    /// As for [`EvidenceLog::receipt`].
    pub async fn receipt(&self, identity: Identity) -> Result<Option<Receipt>, EvidenceError> {
        self.blocking(move |log| log.receipt(&identity)).await
    }

    /// Returns the number of leaves in the log and the number with a receipt, without waiting for the log.
    pub fn counts(&self) -> (u64, u64) {
        let anchored = self.counts.anchored.load(Ordering::Acquire);
        (self.counts.evidenced.load(Ordering::Acquire), anchored)
    }

    /// Runs `work` on the log without blocking the runtime's tasks.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut EvidenceLog) -> T + Send + 'static,
    ) -> T {
        let store = self.clone();
        let work = move || {
            let mut log = store.lock();
            let done = work(&mut log);
            store.counts.copy(&log);
            done
        };
        let done = tokio::task::spawn_blocking(work).await;
        // The runtime never cancels a running blocking task, so this can only be a panic in `work`; pass it on.
        done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn lock(&self) -> MutexGuard<'_, EvidenceLog> {
        // The log changes in memory only after its file, so a panic leaves it consistent.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, thread, time::Duration};

    use evidence::Kind;

    use super::*;

    /// A log on a slow disk is locked for as long as its sync takes.
    #[tokio::test]
    async fn the_counts_do_not_wait_for_the_disk_and_are_those_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Entry::new(Kind::ORDER, "/chatbot".parse().unwrap(), [0; 32], [0; 32]).unwrap();
        let store = EvidenceStore::new(EvidenceLog::open(dir.path()).unwrap().0);
        store.append(vec![entry], std::time::UNIX_EPOCH).await.unwrap();
        let (tell, told) = channel();
        let busy = store.lock();
        let asking = store.clone();
        let asked = thread::spawn(move || tell.send(asking.counts()));
        assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok((1, 0)));
        drop(busy);
        // The last handle but one, without which the log stays locked.
        asked.join().unwrap().unwrap();
        drop(store);
        let opened = EvidenceStore::new(EvidenceLog::open(dir.path()).unwrap().0);
        assert_eq!(opened.counts(), (1, 0));
    }
}
