// SPDX-License-Identifier: Apache-2.0
//! Stores the embedded chain on disk. Blocking.
//!
//! `chain.log` is the source of truth: the genesis, then one record per block with the result of its transaction,
//! synced before anybody sees the block. `snapshot.log` copies the state at some block, so that opening need not run
//! every transaction again. If it is missing, damaged or of another chain, all of them are run, and they must lead to
//! the same blocks.
//!
//! Running transactions is left to `evm`.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use record_log::{RecordLog, RecordLogError, create_directory, sync_directory};
use revm::context::result::InvalidTransaction;
use web3::types::H256;

use crate::embedded::{
    block::{BASE_FEE, Block, Genesis},
    evm::{Outcome, State},
    transaction::Transaction,
};

/// Maximum size of a block's record in bytes, which includes the transaction's data and logs.
const MAX_BLOCK_BYTES: usize = 4 * 1024 * 1024;
/// Maximum size of a snapshot in bytes.
const MAX_SNAPSHOT_BYTES: usize = 1024 * 1024 * 1024;
/// Blocks between snapshots; opening runs less than twice as many transactions.
const SNAPSHOT_BLOCKS: u64 = 512;

/// The chain cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// A log file failed.
    #[error(transparent)]
    Log(#[from] RecordLogError),
    /// The directory cannot be created.
    #[error("chain directory '{path}': cannot be made", path = path.display())]
    Directory {
        /// Path of the directory.
        path: PathBuf,
        /// Cause of the failure.
        source: io::Error,
    },
    /// A record does not continue the chain, or is not what its transaction leads to.
    #[error("chain '{path}': block {number} is not {rule}", path = path.display())]
    Corrupt {
        /// Path of the log.
        path: PathBuf,
        /// Number of the block; 0 is the genesis.
        number: u64,
        /// What the record must be.
        rule: &'static str,
    },
    /// The chain was created for another account.
    #[error("chain '{path}': was made for account {found:?}, is opened for {expected:?}; use that account's key, or another directory", path = path.display())]
    Account {
        /// Path of the log.
        path: PathBuf,
        /// Account that the chain funds.
        found: web3::types::Address,
        /// Account that it was expected to fund.
        expected: web3::types::Address,
    },
}

/// Why a transaction was not mined.
#[derive(Debug, thiserror::Error)]
pub(super) enum MineError {
    #[error("{0}")]
    Invalid(#[from] InvalidTransaction),
    #[error("already known")]
    Known,
    #[error("the block cannot be kept: {0}")]
    Log(#[from] RecordLogError),
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Snapshot {
    number: u64,
    hash: H256,
    state: State,
}

/// The chain in memory and its files.
#[derive(Debug)]
pub(super) struct Chain {
    dir: PathBuf,
    log: RecordLog,
    pub genesis: Genesis,
    pub genesis_hash: H256,
    /// Block `n` is at index `n - 1`.
    pub blocks: Vec<Block>,
    pub hashes: Vec<H256>,
    /// Block number by transaction hash.
    pub by_transaction: HashMap<H256, u64>,
    pub state: State,
    snapshot_at: u64,
}

impl Chain {
    /// Opens the chain in `dir`, or creates one with all funds at `genesis.funded`.
    pub fn open(dir: &Path, genesis: &Genesis) -> Result<Self, ChainError> {
        create_directory(dir).map_err(|source| ChainError::Directory { path: dir.to_owned(), source })?;
        let (mut log, recovered) = RecordLog::open(&dir.join("chain.log"), MAX_BLOCK_BYTES)?;
        if recovered.torn_bytes > 0 {
            let bytes = recovered.torn_bytes;
            tracing::warn!(bytes, path = %log.path().display(), "embedded chain: cut a torn tail, kept beside it as .torn");
        }
        let mut records = recovered.records;
        if records.is_empty() {
            log.append(&genesis.encode())?;
            log.sync()?;
            records.push(genesis.encode());
        }
        let snapshot = read_snapshot(dir);
        let chain = Self::replay(dir, log, &records, snapshot)?;
        if chain.genesis.funded != genesis.funded {
            let (found, expected) = (chain.genesis.funded, genesis.funded);
            return Err(ChainError::Account { path: dir.join("chain.log"), found, expected });
        }
        Ok(chain)
    }

    fn replay(
        dir: &Path,
        log: RecordLog,
        records: &[Vec<u8>],
        snapshot: Option<Snapshot>,
    ) -> Result<Self, ChainError> {
        let corrupt = |number, rule| ChainError::Corrupt { path: dir.join("chain.log"), number, rule };
        let (first, rest) = records.split_first().ok_or_else(|| corrupt(0, "a genesis"))?;
        let genesis = Genesis::decode(first).map_err(|_| corrupt(0, "a genesis"))?;
        let mut chain = Self {
            dir: dir.to_owned(),
            log,
            genesis_hash: genesis.header().hash_slow().0.into(),
            blocks: Vec::new(),
            hashes: Vec::new(),
            by_transaction: HashMap::new(),
            state: State::new(genesis.chain_id, genesis.funded),
            genesis,
            snapshot_at: 0,
        };
        for (number, bytes) in (1..).zip(rest) {
            let block = Block::decode(bytes).map_err(|_| corrupt(number, "a block"))?;
            if block.number != number || block.parent != chain.head_hash() {
                return Err(corrupt(number, "the child of the block before"));
            }
            chain.insert(block);
        }
        if let Some(snapshot) = snapshot.filter(|at| chain.hash_of(at.number) == Some(at.hash)) {
            (chain.state, chain.snapshot_at) = (snapshot.state, snapshot.number);
        }
        let start = usize::try_from(chain.snapshot_at).unwrap_or(usize::MAX);
        let Self { blocks, state, .. } = &mut chain;
        for block in blocks.iter().skip(start) {
            let rule = "what its transaction leads to";
            let transaction = Transaction::decode(&block.raw).map_err(|_| corrupt(block.number, rule))?;
            let outcome = state.run(&transaction, block.number, block.timestamp);
            let outcome = outcome.map_err(|_| corrupt(block.number, rule))?;
            if build(&transaction, &block.raw, block.number, block.parent, block.timestamp, &outcome)
                != *block
            {
                return Err(corrupt(block.number, rule));
            }
            state.commit(outcome);
        }
        Ok(chain)
    }

    /// Mines a block with this transaction; it is on disk when this returns. After an error nothing has changed.
    pub fn mine(&mut self, transaction: &Transaction, raw: &[u8], now: SystemTime) -> Result<(), MineError> {
        if self.by_transaction.contains_key(&transaction.hash) {
            return Err(MineError::Known);
        }
        let number = self.blocks.len() as u64 + 1;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let timestamp = now.max(self.blocks.last().map_or(0, |parent| parent.timestamp));
        let parent = self.hashes.last().copied().unwrap_or(self.genesis_hash);
        let outcome = self.state.run(transaction, number, timestamp)?;
        let block = build(transaction, raw, number, parent, timestamp, &outcome);
        let bytes = block.encode();
        // After the disk was full, the chain continues as soon as there is room.
        self.log.recover()?;
        self.log.append(&bytes)?;
        self.log.sync()?;
        self.state.commit(outcome);
        self.insert(block);
        if number.saturating_sub(self.snapshot_at) >= SNAPSHOT_BLOCKS {
            if let Err(error) = self.write_snapshot() {
                // Costs only time on the next opening.
                tracing::warn!(%error, "no snapshot of the embedded chain");
            }
            self.snapshot_at = number;
        }
        Ok(())
    }

    pub fn head_number(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub fn head_hash(&self) -> H256 {
        self.hashes.last().copied().unwrap_or(self.genesis_hash)
    }

    pub fn head_timestamp(&self) -> u64 {
        self.blocks.last().map_or(0, |block| block.timestamp)
    }

    pub fn block(&self, number: u64) -> Option<&Block> {
        self.blocks.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    pub fn hash_of(&self, number: u64) -> Option<H256> {
        match number.checked_sub(1) {
            None => Some(self.genesis_hash),
            Some(at) => self.hashes.get(usize::try_from(at).ok()?).copied(),
        }
    }

    /// Number of the block with this hash.
    pub fn number_of(&self, hash: H256) -> Option<u64> {
        (0..=self.head_number()).rev().find(|&number| self.hash_of(number) == Some(hash))
    }

    fn insert(&mut self, block: Block) {
        self.by_transaction.insert(block.transaction_hash(), block.number);
        self.hashes.push(block.header().hash_slow().0.into());
        self.blocks.push(block);
    }

    fn write_snapshot(&self) -> io::Result<()> {
        let snapshot =
            Snapshot { number: self.head_number(), hash: self.head_hash(), state: self.state.clone() };
        let bytes = serde_json::to_vec(&snapshot)?;
        let (draft, path) = (self.dir.join("snapshot.tmp"), self.dir.join("snapshot.log"));
        if draft.exists() {
            fs::remove_file(&draft)?;
        }
        let (mut log, _) = RecordLog::open(&draft, MAX_SNAPSHOT_BYTES).map_err(io::Error::other)?;
        log.append(&bytes).and_then(|_| log.sync()).map_err(io::Error::other)?;
        drop(log);
        fs::rename(draft, &path)?;
        sync_directory(&path)
    }
}

fn build(
    transaction: &Transaction,
    raw: &[u8],
    number: u64,
    parent: H256,
    timestamp: u64,
    outcome: &Outcome,
) -> Block {
    Block {
        number,
        parent,
        timestamp,
        raw: raw.to_vec(),
        from: transaction.from,
        to: transaction.to,
        success: outcome.success,
        gas_used: outcome.gas_used,
        price: transaction.price(BASE_FEE),
        created: outcome.created,
        logs: outcome.logs.clone(),
    }
}

fn read_snapshot(dir: &Path) -> Option<Snapshot> {
    let recovered = RecordLog::read(&dir.join("snapshot.log"), MAX_SNAPSHOT_BYTES).ok()?;
    serde_json::from_slice(recovered.records.first()?).ok()
}

#[cfg(test)]
mod tests {
    use web3::types::Address;

    use super::*;

    #[test]
    fn a_damaged_chain_is_neither_cut_nor_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let genesis = Genesis { chain_id: 1, funded: Address::repeat_byte(1) };
        let number = Chain::open(dir.path(), &genesis).unwrap().head_number();
        assert_eq!(number, 0);
        let path = dir.path().join("chain.log");
        let mut bytes = fs::read(&path).unwrap();
        bytes[60] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = Chain::open(dir.path(), &genesis).unwrap_err();
        assert!(error.to_string().contains("damaged at byte 32,"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}
