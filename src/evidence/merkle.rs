// SPDX-License-Identifier: Apache-2.0
//! Builds and verifies the Merkle tree of RFC 6962 section 2.1 (RFC 9162 section 2.1) over SHA-256. Pure.
//!
//! Leaves and inner nodes are hashed with different prefixes, so neither can be passed off as the other. A node
//! without a sibling is its own parent, so a proof has at most ⌈log₂ n⌉ hashes.
//!
//! What a leaf contains is left to [`super::evidence`].

use sha2::{Digest, Sha256};

/// SHA-256 digest of a leaf, an inner node or a root.
pub type Hash = [u8; 32];

/// Hashes the content of a leaf: SHA-256(0x00 ‖ content).
pub fn leaf_hash(content: &[u8]) -> Hash {
    Sha256::new_with_prefix([0]).chain_update(content).finalize().into()
}

/// Hashes an inner node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Tree over leaf hashes that keeps all levels: about 64 bytes per leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// From the leaves up; every level except the last has at least two hashes.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// Builds the tree over these leaf hashes.
    pub fn new(leaves: Vec<Hash>) -> Self {
        let mut levels = Vec::new();
        let mut level = leaves;
        while level.len() > 1 {
            let parents = level.chunks(2).filter_map(|pair| match pair {
                [left, right] => Some(node_hash(left, right)),
                [alone] => Some(*alone),
                _ => None,
            });
            let parents = parents.collect();
            levels.push(std::mem::replace(&mut level, parents));
        }
        levels.push(level);
        Self { levels }
    }

    /// Returns the root; without leaves, the hash of the empty string (RFC 6962).
    pub fn root(&self) -> Hash {
        let top = self.levels.last().and_then(|level| level.first());
        top.copied().unwrap_or_else(|| Sha256::digest([]).into())
    }

    /// Returns the inclusion proof of the leaf at `index`: sibling hashes from the leaf to the root. `None` if there
    /// is no such leaf.
    pub fn proof(&self, index: usize) -> Option<Vec<Hash>> {
        self.levels.first()?.get(index)?;
        let siblings = self.levels.iter().enumerate().map(|(depth, level)| level.get((index >> depth) ^ 1));
        Some(siblings.flatten().copied().collect())
    }
}

/// Computes the root from a leaf at `index` of `size` leaves and its proof (RFC 9162 section 2.1.3.2). `None` if the
/// proof's length does not match index and size.
pub fn root_by_proof(leaf: &Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            // Skip the levels where the node has no sibling; the proof does not contain them.
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// Whether the leaf is at `index` of the `size` leaves under `root`.
pub fn verify(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    root_by_proof(leaf, index, size, proof).as_ref() == Some(root)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(hex: &str) -> Hash {
        hex.parse::<mail::MailId>().map(|digest| *digest.as_bytes()).unwrap()
    }

    /// Inputs and roots of the Certificate Transparency reference implementation (`merkle_tree_test`).
    const INPUTS: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn tree(size: usize) -> Tree {
        Tree::new(INPUTS[..size].iter().map(|input| leaf_hash(input)).collect())
    }

    #[test]
    fn gives_the_roots_of_certificate_transparency() {
        assert_eq!(tree(0).root(), hash("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
        for (index, root) in ROOTS.iter().enumerate() {
            assert_eq!(tree(index + 1).root(), hash(root), "{} leaves", index + 1);
        }
    }

    #[test]
    fn gives_the_proofs_of_certificate_transparency() {
        let proof = |index, size: usize| tree(size).proof(index).unwrap();
        assert!(proof(0, 1).is_empty());
        assert_eq!(
            proof(0, 8),
            [
                hash("96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"),
                hash("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"),
                hash("6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
            ]
        );
        assert_eq!(
            proof(5, 8),
            [
                hash("bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
                hash("ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"),
                hash("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
            ]
        );
        assert_eq!(proof(2, 3), [hash("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125")]);
        assert_eq!(tree(3).proof(3), None);
    }

    /// The recursive definition of RFC 6962 section 2.1.
    fn root_by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node_hash(&root_by_definition(left), &root_by_definition(right))
            }
        }
    }

    proptest! {
        #[test]
        fn every_proof_verifies_and_no_flipped_bit_does(
            leaves in prop::collection::vec(any::<Hash>(), 1..200),
            pick in any::<prop::sample::Index>(),
            bit in any::<prop::sample::Index>(),
        ) {
            let tree = Tree::new(leaves.clone());
            let root = tree.root();
            prop_assert_eq!(root, root_by_definition(&leaves));
            let (index, size) = (pick.index(leaves.len()), leaves.len() as u64);
            let (leaf, proof) = (leaves[index], tree.proof(index).unwrap());
            prop_assert!(verify(&leaf, index as u64, size, &proof, &root));

            // Flip one bit of the leaf, the root or the proof.
            let mut hashes = [vec![leaf, root], proof.clone()].concat();
            let bit = bit.index(hashes.len() * 256);
            hashes[bit / 256][bit % 256 / 8] ^= 1 << (bit % 8);
            prop_assert!(!verify(&hashes[0], index as u64, size, &hashes[2..], &hashes[1]));
            // Try another index, unless it holds the same leaf; then a proof that is too long or too short.
            let other = (index + 1) % leaves.len();
            if leaves[other] != leaf {
                prop_assert!(!verify(&leaf, other as u64, size, &proof, &root));
            }
            prop_assert!(!verify(&leaf, index as u64, size, &[proof.clone(), vec![leaf]].concat(), &root));
            if !proof.is_empty() {
                prop_assert!(!verify(&leaf, index as u64, size, &proof[1..], &root));
            }
        }

        #[test]
        fn hostile_proofs_are_only_wrong(index: u64, size: u64, proof in prop::collection::vec(any::<Hash>(), 0..70)) {
            let is_itself = (index, size, proof.len()) == (0, 1, 0);
            prop_assert_eq!(verify(&[0; 32], index, size, &proof, &[0; 32]), is_itself);
        }
    }
}
