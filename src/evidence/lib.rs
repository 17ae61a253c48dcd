// SPDX-License-Identifier: Apache-2.0
//! Defines the evidence of what nodes state, and the receipt that proves it. Pure.
//!
//! An [`Entry`] says which node states which facts about what; the facts about a mail are a [`Finding`]. It becomes
//! [`Evidence`] when it gets its index in the sequence. A [`Receipt`] proves it once an [`Anchor`] covers that index:
//! `Evidenced -> Anchored`, both on disk. Evidence survives a crash between the two states, and the anchorer resumes
//! from there.
//!
//! [`log`] stores evidence and anchors on disk, and [`audit`] compares it with what is on chain; checking a receipt
//! against the chain is left to `chain::Ledger::verify`.

pub mod audit;
mod block_proof;
pub mod eip55;
mod entry;
mod index;
pub mod log;
pub mod merkle;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use block_proof::BlockProof;
pub use entry::{
    EmbeddedBlock, Entry, EntryError, Finding, Identity, Kind, MAX_FACTS_BYTES, MAX_KIND_BYTES,
    MAX_SOURCE_BYTES, NameError, Source, digest_of,
};

use entry::unpadded;
use merkle::Hash;

/// Prefix of the bytes hashed into a leaf, so that no other hash in posthorn can be mistaken for one.
const EVIDENCE_DOMAIN: &[u8; 22] = b"posthorn evidence v2\0\0";
/// Prefix of an anchor's record on disk.
const ANCHOR_DOMAIN: &[u8; 20] = b"posthorn anchor v2\0\0";

/// Length of the record of evidence on disk [bytes].
const EVIDENCE_BYTES: u64 = 266;
/// Length of an encoded anchor in bytes.
const ANCHOR_BYTES: u64 = 180;

/// An entry with its place in the ledger's sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Index in the sequence, counted from 0 without gaps.
    pub index: u64,
    /// When it got its place. Times before 1970 count as 1970.
    pub recorded_at: SystemTime,
    /// The entry.
    pub entry: Entry,
}

impl Evidence {
    /// Returns the canonical encoding, 202 bytes with big-endian integers:
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 22 | `posthorn evidence v2` and two zeros |
    /// | 8 | `index` |
    /// | 8 + 4 | `recorded_at`: seconds since 1970 (UTC, no leap seconds), nanoseconds |
    /// | 32 | `entry.kind`, ASCII, with zeros behind it |
    /// | 64 | `entry.source`, ASCII, with zeros behind it |
    /// | 32 | `entry.subject` |
    /// | 32 | `entry.digest` |
    pub fn encode(&self) -> Vec<u8> {
        [
            &EVIDENCE_DOMAIN[..],
            &self.index.to_be_bytes(),
            &put_time(self.recorded_at),
            &self.entry.kind().padded(),
            &self.entry.source().padded(),
            self.entry.subject(),
            self.entry.digest(),
        ]
        .concat()
    }

    /// Returns the record on disk: the canonical encoding, the length of the facts in one byte, and the facts with
    /// zeros behind them.
    pub(crate) fn to_record(&self) -> Vec<u8> {
        let facts = self.entry.facts();
        let mut record = self.encode();
        record.push(u8::try_from(facts.len()).unwrap_or(u8::MAX));
        record.extend_from_slice(facts);
        record.resize(EVIDENCE_BYTES as usize, 0);
        record
    }

    /// Decodes what [`to_record`](Self::to_record) returns; `None` for any other bytes.
    pub(crate) fn from_record(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(EVIDENCE_DOMAIN)?;
        let index = u64::from_be_bytes(take(&mut rest)?);
        let recorded_at = take_time(&mut rest)?;
        let kind = unpadded(&take::<MAX_KIND_BYTES>(&mut rest)?)?;
        let source = unpadded(&take::<MAX_SOURCE_BYTES>(&mut rest)?)?;
        let (subject, digest) = (take(&mut rest)?, take(&mut rest)?);
        let [length] = take(&mut rest)?;
        let (facts, zeros) = take::<MAX_FACTS_BYTES>(&mut rest)?
            .split_at_checked(length.into())
            .map(|(facts, zeros)| (facts.to_vec(), zeros.iter().all(|byte| *byte == 0)))?;
        let entry = Entry::with_facts(kind, source, subject, digest, facts).ok()?;
        (zeros && rest.is_empty()).then_some(Self { index, recorded_at, entry })
    }

    /// Returns the RFC 6962 leaf hash of the encoding.
    pub fn leaf(&self) -> Hash {
        merkle::leaf_hash(&self.encode())
    }
}

/// A batch of leaves whose root is on chain, in a block that was final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Index of the first leaf.
    pub first: u64,
    /// Number of leaves, at least 1.
    pub count: u32,
    /// 0, and one more than that of every anchor that it supersedes, because a reorganisation took those back.
    pub revision: u32,
    /// Merkle root of the leaves.
    pub root: Hash,
    /// Chain id (EIP-155).
    pub chain_id: u64,
    /// Address of the ledger contract.
    pub contract: [u8; 20],
    /// Hash of the transaction.
    pub transaction: [u8; 32],
    /// Number of the transaction's block.
    pub block_number: u64,
    /// Hash of the transaction's block.
    pub block_hash: [u8; 32],
    /// When its block was final.
    pub anchored_at: SystemTime,
}

impl Anchor {
    /// Returns the index after the last leaf.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.count.into())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        [
            &ANCHOR_DOMAIN[..],
            &self.first.to_be_bytes(),
            &self.count.to_be_bytes(),
            &self.revision.to_be_bytes(),
            &self.root,
            &self.chain_id.to_be_bytes(),
            &self.contract,
            &self.transaction,
            &self.block_number.to_be_bytes(),
            &self.block_hash,
            &put_time(self.anchored_at),
        ]
        .concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(ANCHOR_DOMAIN)?;
        let anchor = Self {
            first: u64::from_be_bytes(take(&mut rest)?),
            count: u32::from_be_bytes(take(&mut rest)?),
            revision: u32::from_be_bytes(take(&mut rest)?),
            root: take(&mut rest)?,
            chain_id: u64::from_be_bytes(take(&mut rest)?),
            contract: take(&mut rest)?,
            transaction: take(&mut rest)?,
            block_number: u64::from_be_bytes(take(&mut rest)?),
            block_hash: take(&mut rest)?,
            anchored_at: take_time(&mut rest)?,
        };
        rest.is_empty().then_some(anchor)
    }
}

/// Proof that an entry is on the ledger, published as `LedgerReceipt.msg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The evidence being proven.
    pub evidence: Evidence,
    /// Leaf hash of the evidence.
    pub leaf: Hash,
    /// Anchor of the batch that contains it.
    pub anchor: Anchor,
    /// Sibling hashes from the leaf to the root, at most 32.
    pub inclusion_proof: Vec<Hash>,
}

/// The receipt contradicts itself.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReceiptError {
    /// The block of an embedded chain is not at the index that is its number, or there could be two of a number.
    #[error("receipt of leaf {index}: embedded block {number} must be at the index that is its number")]
    Block {
        /// Index of the leaf.
        index: u64,
        /// Number of the block.
        number: u64,
    },
    /// The leaf is not the hash of index, time and entry.
    #[error("receipt of leaf {index}: the leaf is not the hash of what it is said to prove")]
    Leaf {
        /// Index of the leaf.
        index: u64,
    },
    /// The index is outside the batch, or the proof does not lead from the leaf to the root.
    #[error("receipt of leaf {index}: the proof does not lead to the root of leaves {first} to {last}")]
    Proof {
        /// Index of the leaf.
        index: u64,
        /// Index of the batch's first leaf.
        first: u64,
        /// Index of the batch's last leaf.
        last: u64,
    },
}

impl Receipt {
    /// Checks everything that can be checked without the chain: recomputes the leaf and follows the proof to the
    /// root. `Ledger::verify` also checks that the root is on chain.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify_offline(&self) -> Result<(), ReceiptError> {
        let index = self.evidence.index;
        if self.evidence.leaf() != self.leaf {
            return Err(ReceiptError::Leaf { index });
        }
        if let Some(EmbeddedBlock { number, .. }) = EmbeddedBlock::of(&self.evidence.entry)
            && number != index
        {
            return Err(ReceiptError::Block { index, number });
        }
        let Anchor { first, count, root, .. } = &self.anchor;
        let place = index.checked_sub(*first);
        let proven = place.is_some_and(|place| {
            merkle::verify(&self.leaf, place, (*count).into(), &self.inclusion_proof, root)
        });
        let last = self.anchor.end().saturating_sub(1);
        if proven { Ok(()) } else { Err(ReceiptError::Proof { index, first: *first, last }) }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

/// Seconds since 1970 in 8 bytes, nanoseconds in 4.
fn put_time(time: SystemTime) -> Vec<u8> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    [&since.as_secs().to_be_bytes()[..], &since.subsec_nanos().to_be_bytes()].concat()
}

fn take_time(rest: &mut &[u8]) -> Option<SystemTime> {
    let (seconds, nanos) = (u64::from_be_bytes(take(rest)?), u32::from_be_bytes(take(rest)?));
    let canonical = nanos < 1_000_000_000;
    canonical.then(|| UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))).flatten()
}

#[cfg(test)]
mod tests;
