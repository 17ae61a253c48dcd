// SPDX-License-Identifier: Apache-2.0
//! Compares the evidence on disk with the batches that the chain has.
//!
//! It takes no lock and changes nothing, so it can run beside the authenticator, or on a copy of the log. The log is
//! compared with the chain itself, not with our own record of what was anchored.

use std::path::Path;

use record_log::RecordLog;

use crate::{
    Kind,
    log::{EVIDENCE_LOG, EVIDENCE_RULE, EvidenceError, MAX_RECORD_BYTES, corrupt, decode_evidence},
    merkle::{Hash, Tree},
};

/// A batch as the chain has it (event `Anchored`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Index of its first leaf.
    pub first: u64,
    /// Number of its leaves.
    pub count: u32,
    /// Merkle root of its leaves.
    pub root: Hash,
}

impl Batch {
    fn end(&self) -> u64 {
        self.first.saturating_add(self.count.into())
    }
}

/// Log and chain agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Number of leaves in the log.
    pub leaves: u64,
    /// How many of them are verdicts on mails; the others are orders and what other nodes recorded.
    pub mails: u64,
    /// How many of them are on chain; the others wait to be anchored.
    pub anchored: u64,
    /// Bytes at the end of the log that are no complete record: being written, or torn.
    pub torn_bytes: u64,
}

/// Log and chain do not agree, or one of them could not be read as a whole.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log cannot be read, is damaged, or holds other leaves than the chain ([`EvidenceError::Root`]).
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// A batch does not continue the one before it, the first does not begin at 0, or a batch is empty.
    #[error(
        "batch on chain: begins at leaf {first} and has {count} leaves, must begin at {expected} and have some; \
         not all of the chain was read"
    )]
    Gap {
        /// Index of its first leaf.
        first: u64,
        /// Number of its leaves.
        count: u32,
        /// Index after the last leaf of the batch before.
        expected: u64,
    },
    /// The contract has anchored more leaves than its batches have.
    #[error(
        "batches on chain: end at leaf {end}, the contract has anchored {next}; not all of the chain was read"
    )]
    Incomplete {
        /// Index after the last leaf of the last batch.
        end: u64,
        /// Number of leaves that the contract has anchored.
        next: u64,
    },
    /// The chain has leaves that the log lacks.
    #[error(
        "evidence log: holds {leaves} leaves, the chain has {anchored}; the log was cut, or is an older copy"
    )]
    Short {
        /// Number of leaves in the log.
        leaves: u64,
        /// Number of leaves on chain.
        anchored: u64,
    },
}

/// Compares the evidence in `dir` with all batches on chain, in order; they must have at least `next` leaves.
///
/// # Errors
/// The first difference, or that the log cannot be read.
pub fn audit(dir: &Path, next: u64, batches: &[Batch]) -> Result<Agreement, AuditError> {
    let mut anchored = 0;
    for batch in batches {
        if batch.first != anchored || batch.count == 0 {
            let Batch { first, count, .. } = *batch;
            return Err(AuditError::Gap { first, count, expected: anchored });
        }
        anchored = batch.end();
    }
    if anchored < next {
        return Err(AuditError::Incomplete { end: anchored, next });
    }
    let path = dir.join(EVIDENCE_LOG);
    let (mut batches, mut batch, mut leaves, mut mails) = (batches.iter(), Vec::new(), 0, 0);
    let mut expected = batches.next();
    let mut failed = None;
    let torn_bytes = RecordLog::read_each(&path, MAX_RECORD_BYTES, &mut |_, bytes| {
        if failed.is_some() {
            return;
        }
        let Some(evidence) = decode_evidence(leaves, bytes) else {
            failed = Some(corrupt(&path, leaves, EVIDENCE_RULE));
            return;
        };
        leaves += 1;
        mails += u64::from(*evidence.entry.kind() == Kind::MAIL_VERDICT);
        let Some(anchor) = expected else { return };
        batch.push(evidence.leaf());
        if leaves == anchor.end() {
            if Tree::new(std::mem::take(&mut batch)).root() != anchor.root {
                failed = Some(EvidenceError::Root { first: anchor.first, end: anchor.end() });
            }
            expected = batches.next();
        }
    })
    .map_err(EvidenceError::Log)?;
    match failed {
        Some(error) => Err(error.into()),
        None if expected.is_some() => Err(AuditError::Short { leaves, anchored }),
        None => Ok(Agreement { leaves, mails, anchored, torn_bytes }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        entry::tests::order,
        log::EvidenceLog,
        tests::{entries, now},
    };

    /// A log of `leaves` leaves, the last one an order, and a function that returns the batch of some of them as the
    /// chain would have it.
    fn log(leaves: u64) -> (tempfile::TempDir, impl Fn(u64, u32) -> Batch) {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
        log.append(&entries(1..leaves), now()).unwrap();
        log.append(&[order(1)], now()).unwrap();
        let batch = move |first, count| Batch {
            first,
            count,
            root: Tree::new(log.leaves(first, count).unwrap()).root(),
        };
        (dir, batch)
    }

    #[test]
    fn a_log_agrees_with_its_batches_and_what_waits_is_counted() {
        // The log is open and locked meanwhile, as it is while the authenticator runs.
        let (dir, batch) = log(10);
        let agreement = |batches: &[Batch]| audit(dir.path(), 0, batches).unwrap();
        let expected = |anchored| Agreement { leaves: 10, mails: 9, anchored, torn_bytes: 0 };
        assert_eq!(agreement(&[]), expected(0));
        assert_eq!(agreement(&[batch(0, 4), batch(4, 1)]), expected(5));
        assert_eq!(agreement(&[batch(0, 4), batch(4, 1), batch(5, 5)]), expected(10));
    }

    #[test]
    fn other_leaves_missing_leaves_and_gaps_are_told_apart() {
        let (dir, batch) = log(10);
        let words = |batches: &[Batch]| audit(dir.path(), 0, batches).unwrap_err().to_string();
        let other = Batch { root: [7; 32], ..batch(4, 2) };
        assert_eq!(
            words(&[batch(0, 4), other, batch(6, 2)]),
            "anchor of leaves 4 to 6 (excluded): its root is not that of the evidence log"
        );
        assert_eq!(
            words(&[batch(0, 4), Batch { count: 9, ..batch(4, 6) }]),
            "evidence log: holds 10 leaves, the chain has 13; the log was cut, or is an older copy"
        );
        assert_eq!(
            words(&[batch(4, 2)]),
            "batch on chain: begins at leaf 4 and has 2 leaves, must begin at 0 and have some; not all of the chain \
             was read"
        );
        let empty = Batch { count: 0, ..batch(0, 4) };
        assert!(words(&[empty]).contains("has 0 leaves"));
        let incomplete = audit(dir.path(), 5, &[batch(0, 4)]).unwrap_err().to_string();
        assert!(
            incomplete.starts_with("batches on chain: end at leaf 4, the contract has anchored 5"),
            "{incomplete}"
        );
    }

    #[test]
    fn a_changed_byte_is_found_and_the_log_is_not_touched() {
        let (dir, batch) = log(10);
        let path = dir.path().join(EVIDENCE_LOG);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(
            audit(dir.path(), 1, &[batch(0, 1)]),
            Err(AuditError::Evidence(EvidenceError::Log(_)))
        ));
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}
