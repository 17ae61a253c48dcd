// SPDX-License-Identifier: Apache-2.0
//! Finds receipts, and has the chain prove that their transactions are in their blocks.
//!
//! A receipt is on disk; the proof is asked of the chain each time, as few ever want it.

use std::{sync::Arc, time::Duration};

use chain::Ledger;
use evidence::{BlockProof, Identity, Receipt, log::EvidenceError};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::store::EvidenceStore;

/// How long to wait for the chain.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most receipts of a range.
const RANGE: usize = 512;

/// Who finds which receipts.
pub struct Provers {
    /// Those of entries on the evidence ledger.
    pub entries: Prover,
    /// Those of the embedded chain's blocks on a shared chain, by their numbers, if it is anchored into one.
    pub blocks: Option<Prover>,
}

/// Finds receipts; clones share the log and the chain.
#[derive(Clone)]
pub struct Prover {
    store: EvidenceStore,
    ledger: watch::Receiver<Option<Arc<Ledger>>>,
    /// A block with its receipts may have tens of megabytes, so one is asked for at a time.
    asking: Arc<Semaphore>,
}

impl Prover {
    /// Finds receipts in this log, and proofs on this chain once it is connected.
    pub fn new(store: EvidenceStore, ledger: watch::Receiver<Option<Arc<Ledger>>>) -> Self {
        Self { store, ledger, asking: Arc::new(Semaphore::new(1)) }
    }

    /// The receipt of an entry, if it is anchored.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn receipt(&self, identity: Identity) -> Result<Option<Receipt>, EvidenceError> {
        self.store.receipt(identity).await
    }

    /// The receipt of the entry with this index, if it is anchored.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn receipt_at(&self, index: u64) -> Result<Option<Receipt>, EvidenceError> {
        Ok(self.store.blocking(move |log| log.receipts(index, 1)).await?.pop())
    }

    /// The receipts of entries from index `first` on, at most 512, and how many entries are anchored.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn range(&self, first: u64) -> Result<(Vec<Receipt>, u64), EvidenceError> {
        self.store.blocking(move |log| Ok((log.receipts(first, RANGE)?, log.anchored()))).await
    }

    /// The proof that a receipt's transaction is in its block.
    ///
    /// # Errors
    /// Why there is none, for a person.
    pub async fn block_proof(&self, receipt: &Receipt) -> Result<BlockProof, String> {
        let ledger = self.ledger.borrow().clone().ok_or("the chain is not connected")?;
        let proof = async {
            let _asking = self.asking.acquire().await;
            ledger.block_proof(receipt).await
        };
        match timeout(PATIENCE, proof).await {
            Ok(proof) => proof.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the chain does not answer within {} s", PATIENCE.as_secs())),
        }
    }
}
