// SPDX-License-Identifier: Apache-2.0
//! Anchors the embedded chain into a shared one, so that a host which keeps its own chain is held to it.
//!
//! Each block of the embedded chain becomes an entry of a log of its own, at the index that is its number, and that log
//! is anchored on the shared chain as any evidence is. The receipt of a block there and the receipt of an entry in the
//! block prove together that the host had committed itself to the entry by then. That the blocks are a chain, and that
//! their transactions lead where they say, only somebody with `chain.log` can check.
//!
//! What is wrong with the shared chain stops only this: the status says so, and mails are verified as before.
//!
//! [`super::anchoring`] does the anchoring, and [`super::on_chain`] runs it beside that of the evidence.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use chain::{
    Connection, EMBEDDED_CHAIN_ID, EmbeddedChain, Http, Ledger, LedgerError, LedgerKey, LedgerOptions,
    want_new_contracts,
};
use evidence::{
    EmbeddedBlock, Receipt, Source,
    log::{EvidenceError, EvidenceLog},
    merkle::Hash,
};
use record_log::{create_directory, replace_file};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{
    anchoring::{Anchoring, Followed, Reports, options},
    health,
    params::{CHAIN_DIRECTORY, EVIDENCE_DIRECTORY, Params},
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
const MAX_BATCH: u32 = 1024;
/// File beside the embedded chain that says that it was anchored, so that a lost log of blocks is noticed.
const MARKER: &str = "is_anchored";

/// The blocks of the embedded chain cannot be recorded, and waiting will not help.
#[derive(Debug, thiserror::Error)]
pub enum SharedChainError {
    /// The log of blocks failed.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// A file or directory cannot be made.
    #[error("'{path}': cannot be made", path = path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The log of blocks is gone.
    #[error(
        "'{path}' is missing, though this is not the first start: restore it, or begin anew, see docs/operations.md",
        path = path.display()
    )]
    Lost {
        /// Path of the log's directory.
        path: PathBuf,
    },
    /// The endpoint, the key or `contracts.json` cannot be used, or the embedded chain did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The embedded chain is not the one whose blocks were recorded.
    #[error(
        "block {number} of the embedded chain is {found}, and not the one that was recorded in '{path}', {recorded}: the chain was lost or rewritten; see docs/operations.md",
        path = path.display()
    )]
    Rewritten {
        /// Number of the newest block that was recorded.
        number: u64,
        /// What was recorded.
        recorded: String,
        /// What the chain has.
        found: String,
        /// Directory of the log.
        path: PathBuf,
    },
}

/// The task that records the blocks and has them anchored.
pub struct SharedChain {
    embedded: EmbeddedChain,
    source: Source,
    directory: PathBuf,
    anchoring: Anchoring,
    reports: Reports,
    receipts: mpsc::Receiver<Receipt>,
}

/// What the node shows of a [`SharedChain`].
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
        let store = open_log(&directory, &params.state_directory.join(CHAIN_DIRECTORY).join(MARKER))?;
        let (reports, Followed { ledger, receipts, health }) = Reports::new();
        let handles = SharedHandles { ledger, store: store.clone(), health };
        let anchoring = Anchoring {
            name: STATUS,
            chain: Connection::Http(node),
            key,
            directory: directory.clone(),
            // An embedded chain is no witness of another.
            options: LedgerOptions { refused_chain_id: Some(EMBEDDED_CHAIN_ID), ..options(params) },
            max_batch: MAX_BATCH,
            max_age: params.anchor_embedded_age,
            store,
        };
        Ok((Self { embedded, source, directory, anchoring, reports, receipts }, handles))
    }

    /// Records and anchors blocks until dropped. Safe to drop at any time.
    ///
    /// # Errors
    /// If the blocks cannot be recorded, or are not those that were.
    pub async fn run(self) -> Result<(), SharedChainError> {
        let Self { embedded, source, directory, anchoring, reports, mut receipts } = self;
        let (store, health) = (anchoring.store.clone(), reports.health());
        let anchor = async {
            let error = match anchoring.run(reports).await {
                Ok(()) => "the anchorer ended".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::error!(name = STATUS, error, "blocks are not anchored any more, until the next start");
            health.send_modify(|health| health.ended = Some(error));
            std::future::pending::<Infallible>().await
        };
        // Whoever wants a receipt asks for it.
        let drain = async {
            while receipts.recv().await.is_some() {}
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            result = record(&embedded, &store, &source, directory) => result,
            never = anchor => match never {},
            never = drain => match never {},
        }
    }
}

/// Opens the log of blocks. It is new only if there is nothing of an earlier start; one that was cut short is begun again.
fn open_log(directory: &Path, marker: &Path) -> Result<EvidenceStore, SharedChainError> {
    let failed = |path: &Path, source| SharedChainError::File { path: path.to_owned(), source };
    let is_there = |path: &Path| path.try_exists().map_err(|source| failed(path, source));
    let (log, contracts) = (directory.join(EVIDENCE_DIRECTORY), directory.join("contracts.json"));
    let (has_contracts, was_anchored) = (is_there(&contracts)?, is_there(marker)?);
    if (has_contracts || was_anchored) && !is_there(&log)? {
        return Err(SharedChainError::Lost { path: log });
    }
    create_directory(directory).map_err(|source| failed(directory, source))?;
    let (log, torn_bytes) = EvidenceLog::open(&log)?;
    if !has_contracts && !was_anchored && log.evidenced() == 0 {
        want_new_contracts(directory)?;
    }
    if !was_anchored {
        replace_file(marker, b"").map_err(|source| failed(marker, source))?;
    }
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
        let recorded = newest.and_then(|evidence| EmbeddedBlock::of(&evidence.entry)).map(|block| block.hash);
        let found = embedded.hashes(number, 1).await?.pop();
        if recorded.is_none() || recorded != found {
            let shown = |hash: Option<Hash>| {
                hash.map_or("none".to_owned(), |hash| format!("0x{}", hex::encode(hash)))
            };
            let (recorded, found) = (shown(recorded), shown(found));
            return Err(SharedChainError::Rewritten { number, recorded, found, path });
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
