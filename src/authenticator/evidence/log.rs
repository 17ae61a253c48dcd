//! The evidence and its anchors on disk. Blocking.
//!
//! `evidence.log` holds one record for each evidence, in order; `anchors.log` one for each batch on chain. Receipts
//! are made of the two, so a batch has all its receipts or none. What a call returned is on disk.
//! Evidence stays in memory too: about 250 bytes a mail.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{Anchor, Evidence, Finding, Receipt};
use crate::{
    authenticator::merkle::{Hash, Tree},
    mail::MailId,
    record_log::{RecordLog, RecordLogError, create_directory},
};

/// Bound of a record in either log; both kinds are smaller.
const MAX_RECORD_BYTES: usize = 1024;

/// Evidence that cannot be kept or given.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file failed.
    #[error(transparent)]
    Log(#[from] RecordLogError),
    /// The directory cannot be made.
    #[error("evidence directory '{path}': cannot be made", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A whole record that is not what must be there.
    #[error("evidence log '{path}': record {record} is not {rule}", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Number of the record, from 0.
        record: u64,
        /// What it must be.
        rule: &'static str,
    },
    /// An anchor that does not continue the anchors, or covers what is not in the log.
    #[error(
        "anchor of leaves {first} to {end} (excluded): must begin at {anchored} and end at most at {evidenced}"
    )]
    OutOfOrder {
        /// Its first leaf.
        first: u64,
        /// After its last leaf.
        end: u64,
        /// Leaves anchored.
        anchored: u64,
        /// Leaves in the log.
        evidenced: u64,
    },
    /// The root on chain is not that of the leaves in the log: one of the two was changed.
    #[error("anchor of leaves {first} to {end} (excluded): its root is not that of the evidence log")]
    Root {
        /// Its first leaf.
        first: u64,
        /// After its last leaf.
        end: u64,
    },
}

/// The open logs of one directory, which belongs to one process.
#[derive(Debug)]
pub struct EvidenceLog {
    evidence_log: RecordLog,
    anchor_log: RecordLog,
    entries: Vec<Evidence>,
    leaves: Vec<Hash>,
    by_mail: HashMap<MailId, u64>,
    /// In order, without gaps, from leaf 0 on.
    anchors: Vec<Anchor>,
}

impl EvidenceLog {
    /// Opens the logs in `dir`, makes them if they are missing. Returns also how many bytes of torn tails were cut:
    /// evidence or anchors whose append had not returned.
    ///
    /// # Errors
    /// If a file cannot be used, is in use, or holds what cannot be.
    pub fn open(dir: &Path) -> Result<(Self, u64), EvidenceError> {
        create_directory(dir).map_err(|source| EvidenceError::Directory { path: dir.to_owned(), source })?;
        let (evidence_log, evidence) = RecordLog::open(&dir.join("evidence.log"), MAX_RECORD_BYTES)?;
        let (anchor_log, anchors) = RecordLog::open(&dir.join("anchors.log"), MAX_RECORD_BYTES)?;
        let mut log = Self {
            evidence_log,
            anchor_log,
            entries: Vec::new(),
            leaves: Vec::new(),
            by_mail: HashMap::new(),
            anchors: Vec::new(),
        };
        let corrupt = |log: &RecordLog, record, rule| EvidenceError::Corrupt {
            path: log.path().to_owned(),
            record,
            rule,
        };
        for (record, bytes) in (0..).zip(&evidence.records) {
            let entry = Evidence::decode(bytes).filter(|entry| entry.index == record);
            let entry =
                entry.ok_or_else(|| corrupt(&log.evidence_log, record, "the evidence of that index"))?;
            log.insert(entry);
        }
        for (record, bytes) in (0..).zip(&anchors.records) {
            let anchor = Anchor::decode(bytes).filter(|anchor| log.check_order(anchor).is_ok());
            let rule = "an anchor that continues the one before and covers evidence in the log";
            log.anchors.push(anchor.ok_or_else(|| corrupt(&log.anchor_log, record, rule))?);
        }
        Ok((log, evidence.torn_bytes.saturating_add(anchors.torn_bytes)))
    }

    /// Gives each finding its place and returns the evidence, in the order of `findings`, when all are on disk: one
    /// sync for all. A mail that is in the log already keeps its place and its first finding; nothing is written.
    ///
    /// # Errors
    /// If it cannot be written: then none of the new ones is in the log, and the log refuses to go on.
    pub fn append(&mut self, findings: &[Finding]) -> Result<Vec<Evidence>, EvidenceError> {
        let mut fresh: Vec<Evidence> = Vec::new();
        let mut fresh_by_mail = HashMap::new();
        let mut places = Vec::with_capacity(findings.len());
        for finding in findings {
            let id = &finding.mail_id;
            let known = self.by_mail.get(id).or_else(|| fresh_by_mail.get(id)).copied();
            places.push(known.unwrap_or_else(|| {
                let index = self.evidenced().saturating_add(fresh.len() as u64);
                fresh_by_mail.insert(*id, index);
                fresh.push(Evidence { index, finding: finding.clone() });
                index
            }));
        }
        for entry in &fresh {
            self.evidence_log.append(&entry.encode())?;
        }
        self.evidence_log.sync()?;
        fresh.into_iter().for_each(|entry| self.insert(entry));
        Ok(places.into_iter().filter_map(|place| self.entry(place)).cloned().collect())
    }

    /// Keeps an anchor; when it returns, the batch has receipts.
    ///
    /// # Errors
    /// If it does not continue the anchors, its root is not that of the leaves, or it cannot be written.
    pub fn append_anchor(&mut self, anchor: Anchor) -> Result<(), EvidenceError> {
        self.check_order(&anchor)?;
        self.tree(&anchor)?;
        self.anchor_log.append(&anchor.encode())?;
        self.anchor_log.sync()?;
        self.anchors.push(anchor);
        Ok(())
    }

    /// Number of leaves in the log; the next gets this index.
    pub fn evidenced(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Number of leaves that have a receipt.
    pub fn anchored(&self) -> u64 {
        self.anchors.last().map_or(0, Anchor::end)
    }

    /// The place of a mail.
    pub fn index_of(&self, mail_id: &MailId) -> Option<u64> {
        self.by_mail.get(mail_id).copied()
    }

    /// `count` leaves from `first` on, or as many as there are.
    pub fn leaves(&self, first: u64, count: u32) -> Vec<Hash> {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        self.leaves.iter().skip(first).take(count as usize).copied().collect()
    }

    /// The receipt of a mail; none if it is not known or not anchored yet.
    ///
    /// # Errors
    /// [`EvidenceError::Root`] if the log was changed.
    pub fn receipt(&self, mail_id: &MailId) -> Result<Option<Receipt>, EvidenceError> {
        let Some(index) = self.index_of(mail_id) else { return Ok(None) };
        let batch = self.anchors.partition_point(|anchor| anchor.end() <= index);
        let Some(anchor) = self.anchors.get(batch) else { return Ok(None) };
        let tree = self.tree(anchor)?;
        Ok(self.prove(index, anchor, &tree))
    }

    /// The receipts of the batch that begins at `first`, in order; none if there is no such batch.
    ///
    /// # Errors
    /// [`EvidenceError::Root`] if the log was changed.
    pub fn receipts(&self, first: u64) -> Result<Vec<Receipt>, EvidenceError> {
        let batch = self.anchors.binary_search_by_key(&first, |anchor| anchor.first);
        let Some(anchor) = batch.ok().and_then(|batch| self.anchors.get(batch)) else {
            return Ok(Vec::new());
        };
        let tree = self.tree(anchor)?;
        Ok((anchor.first..anchor.end()).filter_map(|index| self.prove(index, anchor, &tree)).collect())
    }

    fn entry(&self, index: u64) -> Option<&Evidence> {
        self.entries.get(usize::try_from(index).ok()?)
    }

    fn prove(&self, index: u64, anchor: &Anchor, tree: &Tree) -> Option<Receipt> {
        let evidence = self.entry(index)?.clone();
        let inclusion_proof = tree.proof(usize::try_from(index.checked_sub(anchor.first)?).ok()?)?;
        Some(Receipt { leaf: evidence.leaf(), evidence, anchor: anchor.clone(), inclusion_proof })
    }

    fn tree(&self, anchor: &Anchor) -> Result<Tree, EvidenceError> {
        let tree = Tree::new(self.leaves(anchor.first, anchor.count));
        let (first, end) = (anchor.first, anchor.end());
        if tree.root() == anchor.root { Ok(tree) } else { Err(EvidenceError::Root { first, end }) }
    }

    fn check_order(&self, anchor: &Anchor) -> Result<(), EvidenceError> {
        let (anchored, evidenced) = (self.anchored(), self.evidenced());
        let (first, end) = (anchor.first, anchor.end());
        let fits = first == anchored && anchor.count > 0 && end <= evidenced;
        if fits { Ok(()) } else { Err(EvidenceError::OutOfOrder { first, end, anchored, evidenced }) }
    }

    fn insert(&mut self, entry: Evidence) {
        self.by_mail.insert(entry.finding.mail_id, entry.index);
        self.leaves.push(entry.leaf());
        self.entries.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::{super::tests::finding, *};

    fn anchor(log: &EvidenceLog, first: u64, count: u32) -> Anchor {
        Anchor {
            first,
            count,
            root: Tree::new(log.leaves(first, count)).root(),
            chain_id: 1,
            contract: [1; 20],
            transaction: [2; 32],
            block_number: 3,
            block_hash: [4; 32],
            anchored_at: UNIX_EPOCH,
        }
    }

    #[test]
    fn a_mail_keeps_its_place_however_often_it_comes_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, torn) = EvidenceLog::open(dir.path()).unwrap();
        assert_eq!(torn, 0);
        let places = |evidence: Vec<Evidence>| evidence.iter().map(|entry| entry.index).collect::<Vec<_>>();
        assert_eq!(places(log.append(&[finding(1), finding(2), finding(1)]).unwrap()), [0, 1, 0]);
        let size = log.evidence_log.len_bytes();
        let other = Finding { verdict: [9; 6], ..finding(2) };
        assert_eq!(log.append(&[other]).unwrap(), [Evidence { index: 1, finding: finding(2) }]);
        assert_eq!(log.evidence_log.len_bytes(), size);
        drop(log);
        let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
        assert_eq!(places(log.append(&[finding(3), finding(2)]).unwrap()), [2, 1]);
        assert_eq!(log.evidenced(), 3);
    }

    #[test]
    fn every_leaf_of_an_anchored_batch_has_a_receipt_that_verifies_after_a_restart_too() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
        log.append(&(0..7).map(finding).collect::<Vec<_>>()).unwrap();
        log.append_anchor(anchor(&log, 0, 5)).unwrap();
        log.append_anchor(anchor(&log, 5, 1)).unwrap();
        drop(log);
        let (log, _) = EvidenceLog::open(dir.path()).unwrap();
        assert_eq!((log.anchored(), log.evidenced()), (6, 7));
        for number in 0..6 {
            let receipt = log.receipt(&finding(number).mail_id).unwrap().unwrap();
            assert_eq!(receipt.verify_offline(), Ok(()));
            assert_eq!(receipt.evidence.index, number);
        }
        assert_eq!(log.receipt(&finding(6).mail_id).unwrap(), None);
        assert_eq!(log.receipts(0).unwrap().len(), 5);
        assert_eq!(log.receipts(5).unwrap().len(), 1);
        assert_eq!(log.receipts(6).unwrap(), []);
    }

    #[test]
    fn damage_in_either_log_is_an_error_and_cuts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
        log.append(&[finding(1), finding(2)]).unwrap();
        log.append_anchor(anchor(&log, 0, 2)).unwrap();
        drop(log);
        for name in ["evidence.log", "anchors.log"] {
            let path = dir.path().join(name);
            let whole = std::fs::read(&path).unwrap();
            for at in [60, whole.len() - 30] {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                std::fs::write(&path, &bytes).unwrap();
                let error = EvidenceLog::open(dir.path()).unwrap_err();
                assert!(error.to_string().contains("damaged at byte"), "{error}");
                assert_eq!(std::fs::read(&path).unwrap(), bytes);
            }
            std::fs::write(&path, whole).unwrap();
        }
        EvidenceLog::open(dir.path()).unwrap();
    }

    #[test]
    fn refuses_anchors_out_of_order_and_of_another_root() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
        log.append(&[finding(1), finding(2)]).unwrap();
        for (first, count) in [(1, 1), (0, 3), (0, 0)] {
            let error = log.append_anchor(anchor(&log, first, count)).unwrap_err();
            assert!(matches!(error, EvidenceError::OutOfOrder { .. }));
        }
        let other = Anchor { root: [0; 32], ..anchor(&log, 0, 2) };
        assert!(matches!(log.append_anchor(other).unwrap_err(), EvidenceError::Root { first: 0, end: 2 }));
        log.append_anchor(anchor(&log, 0, 2)).unwrap();
    }
}
