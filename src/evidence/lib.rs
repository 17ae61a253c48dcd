// SPDX-License-Identifier: Apache-2.0
//! Defines the evidence of a mail and the receipt that proves it. Pure.
//!
//! A [`Finding`] becomes [`Evidence`] when it gets its index in the sequence. A [`Receipt`] proves it once an
//! [`Anchor`] covers that index: `Evidenced -> Anchored`, both on disk. Evidence survives a crash between the two
//! states, and the anchorer resumes from there.
//!
//! [`log`] stores evidence and anchors on disk, and [`audit`] compares it with what is on chain; checking a receipt
//! against the chain is left to `chain::Ledger::verify`.

pub mod audit;
mod index;
pub mod log;
pub mod merkle;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mail::MailId;

use merkle::Hash;

/// Prefix of the bytes hashed into a leaf, so that no other hash in posthorn can be mistaken for one.
const EVIDENCE_DOMAIN: &[u8; 22] = b"posthorn evidence v1\0\0";
/// Prefix of an anchor's record on disk.
const ANCHOR_DOMAIN: &[u8; 20] = b"posthorn anchor v1\0\0";

/// Length of encoded evidence in bytes.
const EVIDENCE_BYTES: u64 = 112;
/// Length of an encoded anchor in bytes.
const ANCHOR_BYTES: u64 = 176;

/// What the authenticator found out about one mail, as far as it is kept as evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Id of the mail.
    pub mail_id: MailId,
    /// When the mail was journaled. Times before 1970 count as 1970.
    pub received_at: SystemTime,
    /// Keyed digest of the From address.
    pub sender_digest: [u8; 32],
    /// The codes of authenticated, spf, dkim, dmarc, registry and role, numbered as in `Verdict.msg`.
    pub verdict: [u8; 6],
}

/// A finding with its index in the ledger's sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Index in the sequence, counted from 0 without gaps.
    pub index: u64,
    /// The finding.
    pub finding: Finding,
}

impl Evidence {
    /// Returns the canonical encoding, 112 bytes with big-endian integers:
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 22 | `posthorn evidence v1` and two zeros |
    /// | 8 | index |
    /// | 32 | mail id |
    /// | 8 + 4 | received at: seconds since 1970 (UTC, no leap seconds), nanoseconds |
    /// | 32 | sender digest |
    /// | 6 | verdict |
    pub fn encode(&self) -> Vec<u8> {
        let received = self.finding.received_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        [
            &EVIDENCE_DOMAIN[..],
            &self.index.to_be_bytes(),
            self.finding.mail_id.as_bytes(),
            &received.as_secs().to_be_bytes(),
            &received.subsec_nanos().to_be_bytes(),
            &self.finding.sender_digest,
            &self.finding.verdict,
        ]
        .concat()
    }

    /// Decodes what [`encode`](Self::encode) returns; `None` for any other bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(EVIDENCE_DOMAIN)?;
        let index = u64::from_be_bytes(take(&mut rest)?);
        let mail_id = MailId::from_bytes(take(&mut rest)?);
        let received_at = take_time(&mut rest)?;
        let finding =
            Finding { mail_id, received_at, sender_digest: take(&mut rest)?, verdict: take(&mut rest)? };
        rest.is_empty().then_some(Self { index, finding })
    }

    /// Returns the RFC 6962 leaf hash of the encoding.
    pub fn leaf(&self) -> Hash {
        merkle::leaf_hash(&self.encode())
    }
}

/// A batch of leaves whose root is on chain with the configured number of confirmations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Index of the first leaf.
    pub first: u64,
    /// Number of leaves, at least 1.
    pub count: u32,
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
    /// When the batch had its confirmations.
    pub anchored_at: SystemTime,
}

impl Anchor {
    /// Returns the index after the last leaf.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.count.into())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let at = self.anchored_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        [
            &ANCHOR_DOMAIN[..],
            &self.first.to_be_bytes(),
            &self.count.to_be_bytes(),
            &self.root,
            &self.chain_id.to_be_bytes(),
            &self.contract,
            &self.transaction,
            &self.block_number.to_be_bytes(),
            &self.block_hash,
            &at.as_secs().to_be_bytes(),
            &at.subsec_nanos().to_be_bytes(),
        ]
        .concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(ANCHOR_DOMAIN)?;
        let anchor = Self {
            first: u64::from_be_bytes(take(&mut rest)?),
            count: u32::from_be_bytes(take(&mut rest)?),
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

/// Proof that a mail and its verdict are on the ledger, published as `LedgerReceipt.msg`.
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
    /// The leaf is not the hash of mail id, time, sender and verdict.
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

fn take_time(rest: &mut &[u8]) -> Option<SystemTime> {
    let (seconds, nanos) = (u64::from_be_bytes(take(rest)?), u32::from_be_bytes(take(rest)?));
    let canonical = nanos < 1_000_000_000;
    canonical.then(|| UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn finding(number: u64) -> Finding {
        Finding {
            mail_id: MailId::of(&number.to_be_bytes()),
            received_at: UNIX_EPOCH + Duration::new(1_790_000_000 + number, 5),
            sender_digest: [9; 32],
            verdict: [1, 2, 2, 2, 2, 2],
        }
    }

    fn receipt() -> Receipt {
        let batch: Vec<_> = (10..15).map(|index| Evidence { index, finding: finding(index) }).collect();
        let tree = merkle::Tree::new(batch.iter().map(Evidence::leaf).collect());
        let anchor = Anchor {
            first: 10,
            count: 5,
            root: tree.root(),
            chain_id: 1,
            contract: [1; 20],
            transaction: [2; 32],
            block_number: 3,
            block_hash: [4; 32],
            anchored_at: UNIX_EPOCH,
        };
        let evidence = batch[2].clone();
        Receipt { leaf: evidence.leaf(), evidence, anchor, inclusion_proof: tree.proof(2).unwrap() }
    }

    #[test]
    fn the_leaf_stays_what_it_was() {
        let evidence = Evidence { index: 1, finding: finding(1) };
        assert_eq!(evidence.encode().len(), 112);
        // Computed with Python's struct and hashlib. Published receipts depend on it: any change needs a new version
        // in the prefix.
        assert_eq!(
            MailId::from_bytes(evidence.leaf()).to_string(),
            "2bc6cac06f067db0ce4f21f3a3a6140b5560b0f7e4ab04bcfe6f0bb008c308c3"
        );
    }

    #[test]
    fn a_receipt_proves_its_evidence_and_nothing_else() {
        assert_eq!(receipt().verify_offline(), Ok(()));
        let tampered = |change: fn(&mut Receipt)| {
            let mut receipt = receipt();
            change(&mut receipt);
            receipt.verify_offline()
        };
        let leaf = |index| Err(ReceiptError::Leaf { index });
        let proof = |index| Err(ReceiptError::Proof { index, first: 10, last: 14 });
        assert_eq!(tampered(|receipt| receipt.evidence.finding.verdict[0] = 0), leaf(12));
        assert_eq!(
            tampered(|receipt| receipt.evidence.finding.received_at += Duration::from_nanos(1)),
            leaf(12)
        );
        assert_eq!(tampered(|receipt| receipt.evidence.index = 13), leaf(13));
        assert_eq!(
            tampered(|receipt| {
                receipt.evidence.index = 9;
                receipt.leaf = receipt.evidence.leaf();
            }),
            proof(9)
        );
        assert_eq!(tampered(|receipt| receipt.anchor.root[0] ^= 1), proof(12));
        assert_eq!(tampered(|receipt| receipt.inclusion_proof.truncate(1)), proof(12));
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(
            index: u64, id: [u8; 32], seconds in 0..u64::from(u32::MAX), nanos in 0..1_000_000_000_u32,
            sender_digest: [u8; 32], verdict: [u8; 6],
        ) {
            let received_at = UNIX_EPOCH + Duration::new(seconds, nanos);
            let finding = Finding { mail_id: MailId::from_bytes(id), received_at, sender_digest, verdict };
            let evidence = Evidence { index, finding };
            prop_assert_eq!(Evidence::decode(&evidence.encode()), Some(evidence));
        }

        #[test]
        fn takes_only_the_canonical_encoding(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let bytes = [&EVIDENCE_DOMAIN[..], &bytes].concat();
            if let Some(evidence) = Evidence::decode(&bytes) {
                prop_assert_eq!(evidence.encode(), bytes);
            }
        }
    }

    #[test]
    fn an_anchor_reads_back() {
        let anchor = receipt().anchor;
        assert_eq!(Anchor::decode(&anchor.encode()), Some(anchor));
        assert_eq!(Anchor::decode(&[0; 10]), None);
    }
}
