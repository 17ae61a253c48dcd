// SPDX-License-Identifier: Apache-2.0
//! Stores evidence and anchors on disk. Blocking.
//!
//! `evidence.log` holds one record per piece of evidence, in order, and `anchors.log` one per batch on chain.
//! Receipts are computed from both, so a batch has all its receipts or none. Whatever a call returned is on disk.
//! Anchors that a reorganisation took back go to `superseded.log`.
//!
//! All records of a log have the same length, so a record is located by its number. `evidence.index` locates an entry
//! by its [`Identity`] (see [`super::index`]). Neither log is kept in memory, and everything read back is checked.
//! Opening reads the evidence that the index does not cover yet, the newest anchors, and a sample of all evidence.
//!
//! Submitting batches to the chain is left to the anchorer.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use record_log::{HEAD_BYTES, HEADER_BYTES, RecordLog, RecordLogError, create_directory};

use crate::{
    ANCHOR_BYTES, Anchor, EVIDENCE_BYTES, Entry, Evidence, Identity, Receipt,
    index::EntryIndex,
    merkle::{Hash, Tree},
};

/// Maximum amount of evidence that the index lacks on disk; after a crash this much is read again.
const CHECKPOINT: u64 = 262_144;
/// On opening, at least this much evidence, evenly spaced, is looked up in the index; if the log holds less, all of
/// it.
const SAMPLES: u64 = 64;
/// Number of anchors read on opening.
const NEWEST_ANCHORS: u64 = 1024;
/// Maximum length of a record in either log, in bytes; both kinds are shorter.
pub(crate) const MAX_RECORD_BYTES: usize = 1024;

/// Evidence that cannot be stored or returned.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A log file failed.
    #[error(transparent)]
    Log(#[from] RecordLogError),
    /// The index file failed.
    #[error("evidence index (evidence.index beside the log): {0}")]
    Index(#[from] io::Error),
    /// The directory cannot be created.
    #[error("evidence directory '{path}': cannot be made", path = path.display())]
    Directory {
        /// Path of the directory.
        path: PathBuf,
        /// Cause of the failure.
        source: std::io::Error,
    },
    /// A complete record does not hold what it must.
    #[error("evidence log '{path}': record {record} is not {rule}", path = path.display())]
    Corrupt {
        /// Path of the log.
        path: PathBuf,
        /// Number of the record, counted from 0.
        record: u64,
        /// What the record must be.
        rule: &'static str,
    },
    /// The anchor does not continue the anchors, or covers leaves that are not in the log.
    #[error(
        "anchor of leaves {first} to {end} (excluded): must begin at {anchored} and end at most at {evidenced}"
    )]
    OutOfOrder {
        /// Index of its first leaf.
        first: u64,
        /// Index after its last leaf.
        end: u64,
        /// Number of leaves anchored.
        anchored: u64,
        /// Number of leaves in the log.
        evidenced: u64,
    },
    /// The root on chain differs from that of the leaves in the log: one of the two was changed.
    #[error("anchor of leaves {first} to {end} (excluded): its root is not that of the evidence log")]
    Root {
        /// Index of the batch's first leaf.
        first: u64,
        /// Index after the batch's last leaf.
        end: u64,
    },
}

/// A log whose records all have the same length.
#[derive(Debug)]
struct FixedLog {
    log: RecordLog,
    record_bytes: u64,
}

/// Byte offset of record `number`.
fn place(record_bytes: u64, number: u64) -> u64 {
    number.saturating_mul(HEAD_BYTES.saturating_add(record_bytes)).saturating_add(HEADER_BYTES)
}

/// Number of complete records in a file of this length.
fn number(record_bytes: u64, bytes: u64) -> u64 {
    bytes.saturating_sub(HEADER_BYTES) / HEAD_BYTES.saturating_add(record_bytes)
}

impl FixedLog {
    fn count(&self) -> u64 {
        number(self.record_bytes, self.log.len_bytes())
    }

    /// Reads the records from `first` up to, but not including, `end`; one that `decode` rejects is an error.
    fn read<T>(
        &self,
        (first, end): (u64, u64),
        rule: &'static str,
        decode: impl Fn(u64, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, EvidenceError> {
        let (mut read, mut bad) = (Vec::new(), None);
        let place = |number| place(self.record_bytes, number);
        self.log.read_range(place(first), place(end.max(first)), &mut |offset, bytes| {
            let record = number(self.record_bytes, offset);
            match decode(record, bytes) {
                Some(value) => read.push(value),
                None => bad = bad.or(Some(record)),
            }
        })?;
        bad.map_or(Ok(read), |record| Err(corrupt(self.log.path(), record, rule)))
    }
}

pub(crate) fn corrupt(path: &Path, record: u64, rule: &'static str) -> EvidenceError {
    EvidenceError::Corrupt { path: path.to_owned(), record, rule }
}

/// Name of the log of evidence in its directory.
pub(crate) const EVIDENCE_LOG: &str = "evidence.log";
pub(crate) const EVIDENCE_RULE: &str = "the evidence of that index";
const ANCHOR_RULE: &str = "an anchor that continues the one before and covers evidence in the log";

/// The open logs of one directory, which belongs to one process.
#[derive(Debug)]
pub struct EvidenceLog {
    evidence_log: FixedLog,
    anchor_log: FixedLog,
    index: EntryIndex,
    last_anchor: Option<Anchor>,
    superseded_log: RecordLog,
    /// Anchors that were taken back and whose leaves are not all anchored again.
    superseded: Vec<Anchor>,
}

impl EvidenceLog {
    /// Opens the logs in `dir`, creating them if they are missing. Also returns how many bytes of torn tails were
    /// cut: evidence or anchors whose append had not returned.
    ///
    /// # Errors
    /// If a file cannot be used, is in use, or is damaged.
    pub fn open(dir: &Path) -> Result<(Self, u64), EvidenceError> {
        create_directory(dir).map_err(|source| EvidenceError::Directory { path: dir.to_owned(), source })?;
        let (evidence_log, index, torn_evidence) = open_evidence(dir)?;
        let (anchor_log, last_anchor, torn_anchors) = open_anchors(dir)?;
        let anchored = last_anchor.as_ref().map_or(0, Anchor::end);
        let (superseded_log, superseded) = open_superseded(dir, anchored)?;
        let log = Self { evidence_log, anchor_log, index, last_anchor, superseded_log, superseded };
        if log.anchored() > log.evidenced() {
            let record = log.anchor_log.count().saturating_sub(1);
            return Err(corrupt(log.anchor_log.log.path(), record, ANCHOR_RULE));
        }
        Ok((log, torn_evidence.saturating_add(torn_anchors)))
    }

    /// Gives each entry its index, at `now`, and returns the evidence in the order of `entries`, once all of it is on
    /// disk: one sync for all. What the log has already, by its [`Identity`], keeps index, time and facts, and nothing
    /// is written for it.
    ///
    /// # Errors
    /// If the logs cannot be read or written. If the log itself cannot be written, none of the new entries is in it,
    /// and it rejects further appends. If only the index fails, the new entries are in the log.
    pub fn append(&mut self, entries: &[Entry], now: SystemTime) -> Result<Vec<Evidence>, EvidenceError> {
        let mut fresh: Vec<Evidence> = Vec::new();
        let mut fresh_by_identity = HashMap::new();
        let mut evidenced = Vec::with_capacity(entries.len());
        for entry in entries {
            let identity = entry.identity();
            if let Some(place) = fresh_by_identity.get(&identity).copied() {
                evidenced.extend(fresh.get::<usize>(place).cloned());
            } else if let Some(index) = self.index_of(&identity)? {
                evidenced.extend(self.evidence_at(index)?);
            } else {
                let index = self.evidenced().saturating_add(fresh.len() as u64);
                let evidence = Evidence { index, recorded_at: now, entry: entry.clone() };
                fresh_by_identity.insert(identity, fresh.len());
                fresh.push(evidence.clone());
                evidenced.push(evidence);
            }
        }
        for evidence in &fresh {
            self.evidence_log.log.append(&evidence.to_record())?;
        }
        self.evidence_log.log.sync()?;
        for evidence in fresh {
            self.index.insert(&evidence.entry.identity(), evidence.index)?;
        }
        if self.index.uncovered() >= CHECKPOINT {
            self.index.checkpoint()?;
        }
        Ok(evidenced)
    }

    /// Stores anchors, in order, each with the revision that it has here; once this returns, all of them are on disk,
    /// and it returns the receipts of their leaves.
    ///
    /// # Errors
    /// If an anchor does not continue the anchors, its root is not that of the leaves, or it cannot be written. If any
    /// of them is wrong, none is stored.
    pub fn append_anchors(&mut self, mut anchors: Vec<Anchor>) -> Result<Vec<Receipt>, EvidenceError> {
        let (mut anchored, evidenced) = (self.anchored(), self.evidenced());
        let mut receipts = Vec::new();
        for anchor in &mut anchors {
            anchor.revision = self.revision(anchor);
            let (first, end) = (anchor.first, anchor.end());
            if first != anchored || anchor.count == 0 || end > evidenced {
                return Err(EvidenceError::OutOfOrder { first, end, anchored, evidenced });
            }
            let (batch, tree) = self.batch(anchor)?;
            receipts.extend(batch.into_iter().filter_map(|evidence| prove(evidence, anchor, &tree)));
            anchored = end;
        }
        for anchor in &anchors {
            self.anchor_log.log.append(&anchor.encode())?;
        }
        self.anchor_log.log.sync()?;
        self.last_anchor = anchors.pop().or(self.last_anchor.take());
        self.superseded.retain(|superseded| superseded.end() > anchored);
        Ok(receipts)
    }

    /// Takes back the anchors from number `from` on, because they are not on chain any more; returns how many. Their
    /// leaves have no receipts until they are anchored again. Afterwards `superseded.log` still has them.
    ///
    /// # Errors
    /// If a log cannot be read or written.
    pub fn supersede(&mut self, from: u64) -> Result<u64, EvidenceError> {
        let taken_back = self.anchors_from(from)?;
        for anchor in &taken_back {
            self.superseded_log.append(&anchor.encode())?;
        }
        self.superseded_log.sync()?;
        let last = from.min(self.anchors()).checked_sub(1).map(|last| self.anchor(last)).transpose()?;
        self.anchor_log.log.cut(place(ANCHOR_BYTES, from))?;
        self.last_anchor = last;
        let superseded = taken_back.len() as u64;
        self.superseded.extend(taken_back);
        Ok(superseded)
    }

    /// Number of anchors.
    pub fn anchors(&self) -> u64 {
        self.anchor_log.count()
    }

    /// Reads the anchors from number `from` on, all of them.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn anchors_from(&self, from: u64) -> Result<Vec<Anchor>, EvidenceError> {
        self.anchor_log.read((from, self.anchors()), ANCHOR_RULE, |_, bytes| Anchor::decode(bytes))
    }

    /// Reads anchor `number`, which must be below [`anchors`](Self::anchors).
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn anchor(&self, number: u64) -> Result<Anchor, EvidenceError> {
        let decode = |_, bytes: &[u8]| Anchor::decode(bytes);
        let anchors = self.anchor_log.read((number, number.saturating_add(1)), ANCHOR_RULE, decode)?;
        anchors.into_iter().next().ok_or_else(|| corrupt(self.anchor_log.log.path(), number, ANCHOR_RULE))
    }

    /// The revision of an anchor; one that comes back as it was has the revision that it had.
    fn revision(&self, anchor: &Anchor) -> u32 {
        let place = |anchor: &Anchor| (anchor.first, anchor.count, anchor.transaction, anchor.block_hash);
        let is_covered = |old: &&Anchor| old.first < anchor.end() && anchor.first < old.end();
        let after = |old: &Anchor| old.revision.saturating_add(u32::from(place(old) != place(anchor)));
        self.superseded.iter().filter(is_covered).map(after).max().unwrap_or_default()
    }

    /// Number of leaves in the log, which is also the index of the next one.
    pub fn evidenced(&self) -> u64 {
        self.evidence_log.count()
    }

    /// Number of leaves that have a receipt.
    pub fn anchored(&self) -> u64 {
        self.last_anchor.as_ref().map_or(0, Anchor::end)
    }

    /// Returns the index of an entry, if the log has it.
    ///
    /// # Errors
    /// If the index or the log cannot be read or is damaged there.
    pub fn index_of(&self, identity: &Identity) -> Result<Option<u64>, EvidenceError> {
        self.index.find(identity, |index| {
            // A stale slot: the evidence was lost with a torn tail, or its index was then given to another entry.
            let evidence = self.evidence_at(index)?;
            Ok(evidence.is_some_and(|evidence| evidence.entry.identity() == *identity))
        })
    }

    /// Returns `count` leaves starting at `first`, or as many as there are.
    ///
    /// # Errors
    /// If the log cannot be read or is damaged there.
    pub fn leaves(&self, first: u64, count: u32) -> Result<Vec<Hash>, EvidenceError> {
        let end = first.saturating_add(count.into()).min(self.evidenced());
        Ok(self.evidence(first, end)?.iter().map(Evidence::leaf).collect())
    }

    /// Returns the evidence with this index, if the log has it.
    ///
    /// # Errors
    /// If the log cannot be read or is damaged there.
    pub fn evidence_at(&self, index: u64) -> Result<Option<Evidence>, EvidenceError> {
        let end = index.saturating_add(1).min(self.evidenced());
        Ok(self.evidence(index, end)?.pop())
    }

    /// Returns the receipt of an entry; `None` if the entry is unknown or not anchored yet.
    ///
    /// # Errors
    /// [`EvidenceError::Root`] if the log was changed; also if index or logs cannot be read.
    pub fn receipt(&self, identity: &Identity) -> Result<Option<Receipt>, EvidenceError> {
        let Some(index) = self.index_of(identity)? else { return Ok(None) };
        let Some(anchor) = self.first_anchor(|anchor| anchor.end() <= index)? else { return Ok(None) };
        let (batch, tree) = self.batch(&anchor)?;
        let evidence = batch.into_iter().find(|evidence| evidence.index == index);
        Ok(evidence.and_then(|evidence| prove(evidence, &anchor, &tree)))
    }

    /// Returns the receipts of the leaves from index `first` on, in order, at most `limit`.
    ///
    /// # Errors
    /// As for [`receipt`](Self::receipt).
    pub fn receipts(&self, first: u64, limit: usize) -> Result<Vec<Receipt>, EvidenceError> {
        let mut receipts = Vec::new();
        let mut next = first;
        while receipts.len() < limit
            && let Some(anchor) = self.first_anchor(|anchor| anchor.end() <= next)?
        {
            let (batch, tree) = self.batch(&anchor)?;
            let wanted = batch.into_iter().filter(|evidence| evidence.index >= next);
            let room = limit.saturating_sub(receipts.len());
            receipts.extend(wanted.take(room).filter_map(|evidence| prove(evidence, &anchor, &tree)));
            next = anchor.end();
        }
        Ok(receipts)
    }

    fn evidence(&self, first: u64, end: u64) -> Result<Vec<Evidence>, EvidenceError> {
        self.evidence_log.read((first, end), EVIDENCE_RULE, decode_evidence)
    }

    /// Returns the first anchor for which `before` is false, by binary search.
    fn first_anchor(&self, before: impl Fn(&Anchor) -> bool) -> Result<Option<Anchor>, EvidenceError> {
        let (mut low, mut high) = (0, self.anchors());
        while low < high {
            let middle = low.midpoint(high);
            if before(&self.anchor(middle)?) { low = middle.saturating_add(1) } else { high = middle }
        }
        (low < self.anchors()).then(|| self.anchor(low)).transpose()
    }

    /// Returns the evidence of a batch and its Merkle tree, whose root must be that of the anchor.
    fn batch(&self, anchor: &Anchor) -> Result<(Vec<Evidence>, Tree), EvidenceError> {
        let (first, end) = (anchor.first, anchor.end());
        let batch = self.evidence(first, end.min(self.evidenced()))?;
        let tree = Tree::new(batch.iter().map(Evidence::leaf).collect());
        if tree.root() == anchor.root { Ok((batch, tree)) } else { Err(EvidenceError::Root { first, end }) }
    }
}

impl Drop for EvidenceLog {
    /// Completes the index on disk for the next start.
    fn drop(&mut self) {
        if self.index.uncovered() > 0
            && let Err(error) = self.index.checkpoint()
        {
            // Nobody needs to do anything; the reason why the disk failed has been told.
            tracing::debug!(%error, "evidence index not synced, is completed at the next start");
        }
    }
}

fn prove(evidence: Evidence, anchor: &Anchor, tree: &Tree) -> Option<Receipt> {
    let inclusion_proof = tree.proof(usize::try_from(evidence.index.checked_sub(anchor.first)?).ok()?)?;
    Some(Receipt { leaf: evidence.leaf(), evidence, anchor: anchor.clone(), inclusion_proof })
}

pub(crate) fn decode_evidence(index: u64, bytes: &[u8]) -> Option<Evidence> {
    Evidence::from_record(bytes).filter(|evidence| evidence.index == index)
}

/// Opens the log and the index, and inserts the evidence that the index does not cover.
fn open_evidence(dir: &Path) -> Result<(FixedLog, EntryIndex, u64), EvidenceError> {
    let (path, index_path) = (dir.join(EVIDENCE_LOG), dir.join("evidence.index"));
    let mut index = match RecordLog::peek(&path)? {
        Some((nonce, length)) => EntryIndex::open(&index_path, nonce, number(EVIDENCE_BYTES, length))?,
        // The log is missing, or was torn while it was created; its nonce is known only once it exists.
        None => EntryIndex::open(&index_path, RecordLog::open(&path, MAX_RECORD_BYTES)?.0.nonce(), 0)?,
    };
    let from = place(EVIDENCE_BYTES, index.covered());
    let mut failed = None;
    let (log, torn) = RecordLog::open_after(&path, MAX_RECORD_BYTES, from, &mut |offset, bytes| {
        let record = number(EVIDENCE_BYTES, offset);
        let inserted = match decode_evidence(record, bytes) {
            Some(evidence) => index.insert(&evidence.entry.identity(), record).map_err(EvidenceError::Index),
            None => Err(corrupt(&path, record, EVIDENCE_RULE)),
        };
        failed = failed.take().or(inserted.err());
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let log = FixedLog { log, record_bytes: EVIDENCE_BYTES };
    let count = log.count();
    if index.uncovered() >= CHECKPOINT {
        index.checkpoint()?;
    }
    // Evenly spaced, including the newest. If the index lacks any of these, nothing in it can be trusted.
    let step = (count / SAMPLES).max(1);
    for at in (0..count).rev().step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let read = log.read((at, at.saturating_add(1)), EVIDENCE_RULE, decode_evidence)?;
        let Some(evidence) = read.first() else { continue };
        if index.find::<EvidenceError>(&evidence.entry.identity(), |index| Ok(index == at))?.is_none() {
            tracing::warn!(index = at, "evidence index lacks an entry, is made anew");
            drop(log);
            // Without a file, the index is rebuilt from all evidence, so this happens only once.
            std::fs::remove_file(&index_path)?;
            return open_evidence(dir);
        }
    }
    Ok((log, index, torn))
}

/// Opens the anchor log and reads the newest anchors.
fn open_anchors(dir: &Path) -> Result<(FixedLog, Option<Anchor>, u64), EvidenceError> {
    let path = dir.join("anchors.log");
    let count = RecordLog::peek(&path)?.map_or(0, |(_, length)| number(ANCHOR_BYTES, length));
    let from = count.saturating_sub(NEWEST_ANCHORS);
    let (mut last, mut bad): (Option<Anchor>, _) = (None, None);
    let (log, torn) =
        RecordLog::open_after(&path, MAX_RECORD_BYTES, place(ANCHOR_BYTES, from), &mut |offset, bytes| {
            let record = number(ANCHOR_BYTES, offset);
            let begins = last.as_ref().map(Anchor::end).or((record == 0).then_some(0));
            let anchor = Anchor::decode(bytes)
                .filter(|anchor| anchor.count > 0 && begins.is_none_or(|begins| anchor.first == begins));
            bad = bad.or(anchor.is_none().then_some(record));
            last = anchor;
        })?;
    match bad {
        Some(record) => Err(corrupt(&path, record, ANCHOR_RULE)),
        None => Ok((FixedLog { log, record_bytes: ANCHOR_BYTES }, last, torn)),
    }
}

/// Opens the log of anchors that were taken back, and reads those whose leaves are not all among the first `anchored`.
fn open_superseded(dir: &Path, anchored: u64) -> Result<(RecordLog, Vec<Anchor>), EvidenceError> {
    let path = dir.join("superseded.log");
    let (mut superseded, mut bad) = (Vec::new(), None);
    let (log, _) =
        RecordLog::open_each(&path, MAX_RECORD_BYTES, &mut |offset, bytes| match Anchor::decode(bytes) {
            Some(anchor) => superseded.extend((anchor.end() > anchored).then_some(anchor)),
            None => bad = bad.or(Some(number(ANCHOR_BYTES, offset))),
        })?;
    bad.map_or(Ok((log, superseded)), |record| Err(corrupt(&path, record, "an anchor")))
}

#[cfg(test)]
mod tests;
