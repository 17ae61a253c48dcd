// SPDX-License-Identifier: Apache-2.0
//! Commits evidence in groups: entries that arrive while the disk syncs share the next sync.
//!
//! An entry is on disk before [`Evidencer::evidence`] or [`Evidencer::record`] returns.
//!
//! [`EvidenceStore`] does the writing; the caller runs the [`EvidenceWriter`].

use std::time::SystemTime;

use evidence::{Entry, Evidence, Finding, Source, log::EvidenceError};
use tokio::sync::{mpsc, oneshot};

use crate::store::EvidenceStore;

/// Maximum number of requests that share a sync. That of a mail has one entry, that of another node as many as it asked
/// for.
const MAX_BATCH: usize = 1024;

type Request = (Vec<Entry>, oneshot::Sender<Vec<Evidence>>);

/// Sends entries to the evidence log; clones send to the same log.
#[derive(Clone, Debug)]
pub struct Evidencer {
    requests: mpsc::Sender<Request>,
    /// The node that states what is found out about mails: this one.
    source: Source,
}

/// The log failed. The [`EvidenceWriter`] reports why and ends the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the evidence log takes no more entries")]
pub struct Closed;

impl Evidencer {
    /// Creates an evidencer for the node with this name, and the writer that must be run for it.
    pub fn new(store: EvidenceStore, source: Source) -> (Self, EvidenceWriter) {
        let (sender, requests) = mpsc::channel(MAX_BATCH);
        (Self { requests: sender, source }, EvidenceWriter { store, requests })
    }

    /// Waits until the finding is on disk; returns what was found when the mail first came.
    ///
    /// # Errors
    /// If the log failed; the mail must then not be published.
    pub async fn evidence(&self, finding: &Finding) -> Result<Finding, Closed> {
        let evidence = self.record(vec![finding.entry(&self.source)]).await?;
        // What has the identity of a finding is one.
        evidence.first().and_then(|evidence| Finding::of(&evidence.entry)).ok_or(Closed)
    }

    /// Waits until all entries are on disk; returns the evidence in their order.
    ///
    /// # Errors
    /// If the log failed; then some of them may be in it.
    pub async fn record(&self, entries: Vec<Entry>) -> Result<Vec<Evidence>, Closed> {
        let (done, evidenced) = oneshot::channel();
        self.requests.send((entries, done)).await.map_err(|_| Closed)?;
        evidenced.await.map_err(|_| Closed)
    }
}

/// Receives the entries of all [`Evidencer`] clones and appends them to the log.
#[derive(Debug)]
pub struct EvidenceWriter {
    store: EvidenceStore,
    requests: mpsc::Receiver<Request>,
}

impl EvidenceWriter {
    /// Appends entries until every [`Evidencer`] is dropped.
    ///
    /// # Errors
    /// If the log failed; callers waiting for it get [`Closed`].
    pub async fn run(mut self) -> Result<(), EvidenceError> {
        let mut requests = Vec::new();
        while self.requests.recv_many(&mut requests, MAX_BATCH).await > 0 {
            let (mut entries, mut waiting) = (Vec::new(), Vec::new());
            for (requested, done) in requests.drain(..) {
                waiting.push((requested.len(), done));
                entries.extend(requested);
            }
            let mut evidenced = self.store.append(entries, SystemTime::now()).await?.into_iter();
            for (count, done) in waiting {
                // The caller may have gone away; the evidence stays.
                let _ = done.send(evidenced.by_ref().take(count).collect());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use evidence::{Kind, log::EvidenceLog};
    use mail::MailId;

    use super::*;

    fn order(number: u8) -> Entry {
        Entry::new(Kind::ORDER, "/chatbot".parse().unwrap(), [number; 32], [0; 32]).unwrap()
    }

    #[tokio::test]
    async fn each_request_gets_its_own_entries_and_a_mail_what_was_found_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = EvidenceStore::new(EvidenceLog::open(dir.path()).unwrap().0);
        let (evidencer, writer) = Evidencer::new(store.clone(), "/authenticator".parse().unwrap());
        let first = Finding {
            mail_id: MailId::of(b"mail"),
            received_at: UNIX_EPOCH,
            sender_digest: [0; 32],
            verdict: [1, 2, 2, 2, 2, 2, 0],
        };
        let again = Finding { verdict: [0; 7], ..first.clone() };
        let requests = async {
            let indices = async |entries: Vec<Entry>| {
                let evidence = evidencer.record(entries).await.unwrap();
                evidence.iter().map(|evidence| evidence.index).collect::<Vec<_>>()
            };
            // All of them wait for the same sync.
            let all = tokio::join!(
                indices(vec![order(1), order(2)]),
                evidencer.evidence(&first),
                indices(vec![]),
                indices(vec![order(2), order(3), order(1)]),
                evidencer.evidence(&again),
            );
            all
        };
        let answers = tokio::select! {
            ended = writer.run() => panic!("{ended:?}"),
            answers = requests => answers,
        };
        assert_eq!(answers, (vec![0, 1], Ok(first.clone()), vec![], vec![1, 3, 0], Ok(first)));
        assert_eq!(store.counts(), (4, 0));
    }
}
