// SPDX-License-Identifier: Apache-2.0
//! A block of the embedded chain, as the ledger of a shared chain has it: the facts of a [`Kind::EMBEDDED_BLOCK`]. Pure.

use super::{Entry, Kind, Source, digest_of};
use crate::merkle::Hash;

/// A block of a node's embedded chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedBlock {
    /// Its number; 0 is the genesis.
    pub number: u64,
    /// Hash of its header.
    pub hash: Hash,
}

impl EmbeddedBlock {
    /// The block as an entry of the ledger, which `source` states. The subject is the hash, and the facts are the number,
    /// 8 bytes big-endian.
    pub fn entry(&self, source: &Source) -> Entry {
        let facts = self.number.to_be_bytes().to_vec();
        let (kind, digest) = (Kind::EMBEDDED_BLOCK, digest_of(&facts));
        Entry { kind, source: source.clone(), subject: self.hash, digest, facts }
    }

    /// Returns the block of an entry; `None` if the entry is of another kind.
    pub fn of(entry: &Entry) -> Option<Self> {
        let facts = (*entry.kind() == Kind::EMBEDDED_BLOCK).then_some(entry.facts())?;
        Some(Self { number: u64::from_be_bytes(facts.try_into().ok()?), hash: *entry.subject() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{order, source};
    use super::*;

    #[test]
    fn a_block_reads_back_from_its_entry() {
        let block = EmbeddedBlock { number: 1 << 40, hash: [7; 32] };
        let entry = block.entry(&source());
        assert_eq!(EmbeddedBlock::of(&entry), Some(block));
        let Entry { kind, source, subject, digest, facts } = entry;
        assert_eq!((facts.len(), subject), (8, [7; 32]));
        assert!(Entry::with_facts(kind.clone(), source.clone(), subject, digest, facts).is_ok());
        // Nobody records one without its number.
        assert!(Entry::new(kind, source, subject, digest).is_err());
        assert_eq!(EmbeddedBlock::of(&order(1)), None);
    }
}
