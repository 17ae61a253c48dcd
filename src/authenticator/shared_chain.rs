// SPDX-License-Identifier: Apache-2.0
//! Anchors the embedded chain into a shared one, so that a host which keeps its own chain can be believed by others.
//!
//! Each block of the embedded chain becomes an entry of a log of its own, at the index that is its number, and that log
//! is anchored on the shared chain as any evidence is. From then on the host cannot change the block or any before it
//! without being found out: the receipt of the block on the shared chain and the receipt of an entry in the block prove
//! together that the ledger had the entry when the shared chain got the block.
//!
//! [`super::anchoring`] does the anchoring, and [`super::on_chain`] runs it beside that of the evidence.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use chain::{Connection, EmbeddedChain, Http, Ledger, LedgerError, LedgerKey, want_new_contracts};
use evidence::{
    EmbeddedBlock, Source,
    log::{EvidenceError, EvidenceLog},
};
use record_log::create_directory;
use tokio::{sync::watch, time::sleep};

use crate::{
    anchoring::{Anchoring, AnchoringError, Followed, Reports, options},
    health,
    params::{EVIDENCE_DIRECTORY, Params},
    store::EvidenceStore,
};

/// Directory of the shared chain's files in the state directory.
const DIRECTORY: &str = "shared";
/// Name of its status on `/diagnostics`.
pub const STATUS: &str = "shared_ledger";
/// How often to look for new blocks of the embedded chain.
const LOOK: Duration = Duration::from_secs(1);
/// Most blocks that are recorded at once.
const PORTION: usize = 1024;
/// Most blocks of a batch.
const MAX_BATCH: u32 = 4096;

/// The embedded chain cannot be anchored, and waiting will not help.
#[derive(Debug, thiserror::Error)]
pub enum SharedChainError {
    /// The log of blocks failed.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// Its directory cannot be made.
    #[error("directory '{path}': cannot be made", path = path.display())]
    Directory {
        /// Path of the directory.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The endpoint or `contracts.json` cannot be used, or the embedded chain did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The embedded chain is not the one whose blocks were recorded.
    #[error(
        "block {number} of the embedded chain is not the one that was recorded: the chain was lost or rewritten; restore the folder chain beside '{path}', or move that away, and a new ledger is begun on the shared chain",
        path = path.display()
    )]
    Rewritten {
        /// Number of the newest block that was recorded.
        number: u64,
        /// Directory of the log.
        path: PathBuf,
    },
    /// It cannot be anchored.
    #[error(transparent)]
    Anchoring(#[from] AnchoringError),
}

/// The task that records the blocks and has them anchored.
pub struct SharedChain {
    embedded: EmbeddedChain,
    source: Source,
    directory: PathBuf,
    anchoring: Anchoring,
    reports: Reports,
    followed: Followed,
}

/// What the node shows of a [`SharedChain`].
#[derive(Clone)]
pub struct SharedHandles {
    /// The shared chain, once it is connected.
    pub ledger: watch::Receiver<Option<Arc<Ledger>>>,
    /// The log of blocks, each at the index that is its number.
    pub store: EvidenceStore,
    /// How the shared chain is, for diagnostics.
    pub health: watch::Receiver<health::Ledger>,
}

impl SharedChain {
    /// Opens the log of blocks; `source` is the node that states them. Does not connect yet. Blocking.
    ///
    /// # Errors
    /// If the endpoint or the files cannot be used.
    pub fn open(
        params: &Params,
        endpoint: &str,
        (embedded, key): (EmbeddedChain, LedgerKey),
        source: Source,
    ) -> Result<(Self, SharedHandles), SharedChainError> {
        let node = Http::new(endpoint)?;
        node.check_protected(params.ethereum_plain_http)?;
        let directory = params.state_directory.join(DIRECTORY);
        let store = open_log(&directory)?;
        let (reports, followed) = Reports::new();
        let handles = SharedHandles {
            ledger: followed.ledger.clone(),
            store: store.clone(),
            health: followed.health.clone(),
        };
        let anchoring = Anchoring {
            name: STATUS,
            chain: Connection::Http(node),
            key,
            directory: directory.clone(),
            options: options(params),
            max_batch: MAX_BATCH,
            max_age: params.anchor_embedded_age,
            store,
        };
        Ok((Self { embedded, source, directory, anchoring, reports, followed }, handles))
    }

    /// Records and anchors blocks until dropped. Safe to drop at any time.
    ///
    /// # Errors
    /// The first error that waiting will not cure.
    pub async fn run(self) -> Result<(), SharedChainError> {
        let Self { embedded, source, directory, anchoring, reports, followed } = self;
        let (store, mut receipts) = (anchoring.store.clone(), followed.receipts);
        // Whoever wants one asks for it.
        let drain = async { while receipts.recv().await.is_some() {} };
        tokio::select! {
            result = record(&embedded, &store, &source, directory) => result,
            result = anchoring.run(reports) => Ok(result?),
            () = drain => Ok(()),
        }
    }
}

/// Opens the log of blocks.
fn open_log(directory: &Path) -> Result<EvidenceStore, SharedChainError> {
    let (log, contracts) = (directory.join(EVIDENCE_DIRECTORY), directory.join("contracts.json"));
    let there = |path: &Path| path.try_exists().unwrap_or(true);
    let is_first_start = !there(&log) && !there(&contracts);
    create_directory(directory)
        .map_err(|source| SharedChainError::Directory { path: directory.to_owned(), source })?;
    if is_first_start {
        want_new_contracts(directory)?;
    }
    let (log, torn_bytes) = EvidenceLog::open(&log)?;
    if torn_bytes > 0 {
        tracing::warn!(torn_bytes, "log of embedded blocks: cut a torn tail");
    }
    Ok(EvidenceStore::new(log))
}

/// Puts each block of the embedded chain into the log.
async fn record(
    embedded: &EmbeddedChain,
    store: &EvidenceStore,
    source: &Source,
    path: PathBuf,
) -> Result<(), SharedChainError> {
    let (mut recorded, _) = store.counts();
    if let Some(number) = recorded.checked_sub(1) {
        let newest = store.blocking(move |log| log.evidence_at(number)).await?;
        let was = newest.and_then(|evidence| EmbeddedBlock::of(&evidence.entry));
        let is = embedded.hashes(number, 1).await?.pop().map(|hash| EmbeddedBlock { number, hash });
        if was != is {
            return Err(SharedChainError::Rewritten { number, path });
        }
    }
    loop {
        let hashes = embedded.hashes(recorded, PORTION).await?;
        if hashes.is_empty() {
            sleep(LOOK).await;
            continue;
        }
        let blocks = (recorded..).zip(hashes).map(|(number, hash)| EmbeddedBlock { number, hash });
        let entries: Vec<_> = blocks.map(|block| block.entry(source)).collect();
        recorded = recorded.saturating_add(entries.len() as u64);
        store.append(entries, SystemTime::now()).await?;
    }
}
