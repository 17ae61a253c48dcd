// SPDX-License-Identifier: Apache-2.0
//! Makes and follows proofs of Ethereum's tries (yellow paper, appendix D). Pure.
//!
//! alloy builds the tries. It does not follow proofs here, because its path asserts that nodes lead no deeper than a key is
//! long, and hostile ones do.

use alloy_trie::{EMPTY_ROOT_HASH, HashBuilder, Nibbles, proof::ProofRetainer};
use rlp::Rlp;
use web3::signing::keccak256;

/// The root of the trie that has each value at the RLP of its place, and the nodes from there to the value at `place`.
pub fn proof_at(values: &[Vec<u8>], place: usize) -> ([u8; 32], Vec<Vec<u8>>) {
    let key = |place: u64| Nibbles::unpack(rlp::encode(&place));
    let mut leaves: Vec<_> = (0..).zip(values).map(|(place, value)| (key(place), value)).collect();
    // A trie is built in the order of its keys, and the RLP of 0 comes after that of 127.
    leaves.sort_unstable_by_key(|(key, _)| *key);
    let mut builder = HashBuilder::default().with_proof_retainer(ProofRetainer::new(vec![key(place as u64)]));
    for (key, value) in leaves {
        builder.add_leaf(key, value);
    }
    let root = builder.root();
    let nodes = builder.take_proof_nodes().into_nodes_sorted();
    (root.0, nodes.into_iter().map(|(_, node)| node.to_vec()).collect())
}

/// The value at the RLP of `place` in the trie of this root, if the nodes lead there and are no more than that takes.
pub fn value_at(root: [u8; 32], place: u64, nodes: &[Vec<u8>]) -> Option<Vec<u8>> {
    look_up(root, &rlp::encode(&place), nodes).flatten()
}

/// What the trie of this root has at `key`, perhaps nothing, if the nodes show it and are no more than that takes.
pub fn look_up(root: [u8; 32], key: &[u8], nodes: &[Vec<u8>]) -> Option<Option<Vec<u8>>> {
    if nodes.is_empty() {
        return (root == EMPTY_ROOT_HASH.0).then_some(None);
    }
    let nibbles = nibbles(key);
    let (mut path, mut nodes) = (nibbles.as_slice(), nodes.iter());
    let mut next = |hash: &[u8]| {
        let node = nodes.next()?;
        (keccak256(node) == hash).then(|| Rlp::new(node))
    };
    let mut node = next(&root)?;
    let found = loop {
        let child = match node.item_count().ok()? {
            17 => {
                let (first, rest) = path.split_first()?;
                path = rest;
                node.at((*first).into()).ok()?
            }
            2 => {
                let (is_leaf, prefix) = partial_path(node.at(0).ok()?.data().ok()?)?;
                let end = node.at(1).ok()?;
                match path.strip_prefix(prefix.as_slice()) {
                    Some([]) if is_leaf => break Some(end.data().ok()?.to_vec()),
                    // The one key below here is another.
                    _ if is_leaf => break None,
                    None => break None,
                    Some(rest) => path = rest,
                }
                end
            }
            _ => return None,
        };
        // A node of less than 32 bytes stands in its parent; of others their hash does.
        node = match child.data().ok()? {
            _ if child.is_list() => child,
            [] => break None,
            hash => next(hash)?,
        };
    };
    nodes.next().is_none().then_some(found)
}

fn nibbles(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect()
}

/// Whether the node with this part of a path is a leaf, and the part; `None` if it is encoded otherwise than appendix C
/// says.
fn partial_path(bytes: &[u8]) -> Option<(bool, Vec<u8>)> {
    let nibbles = nibbles(bytes);
    match nibbles.as_slice() {
        [flag @ (0 | 2), 0, path @ ..] | [flag @ (1 | 3), path @ ..] => Some((*flag >= 2, path.to_vec())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values as long as those of transactions, which no node holds inline.
    fn values(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|place| format!("{place:0>100}").into_bytes()).collect()
    }

    #[test]
    fn every_place_is_proven_by_its_nodes_and_by_no_others() {
        for count in [1, 2, 16, 17, 127, 128, 129, 300] {
            let values = values(count);
            for place in (0..count).step_by(1 + count / 9) {
                let (root, nodes) = proof_at(&values, place);
                assert_eq!(alloy_trie::root::ordered_trie_root_encoded(&values).0, root);
                let at = place as u64;
                assert_eq!(value_at(root, at, &nodes).as_ref(), Some(&values[place]), "{place} of {count}");
                assert_eq!(value_at(root, at + 1, &nodes), None);
                assert_eq!(value_at([0; 32], at, &nodes), None);
                assert_eq!(value_at(root, at, &nodes[1..]), None);
                assert_eq!(value_at(root, at, &[nodes.as_slice(), &nodes[nodes.len() - 1..]].concat()), None);
            }
        }
    }

    #[test]
    fn a_short_node_stands_in_its_parent() {
        let mut leaf = rlp::RlpStream::new_list(2);
        leaf.append(&[0x3b].as_slice()).append(&[7_u8].as_slice());
        let mut branch = rlp::RlpStream::new_list(17);
        for place in 0..17 {
            match place {
                10 => branch.append_raw(leaf.as_raw(), 1),
                _ => branch.append_empty_data(),
            };
        }
        let branch = branch.out().to_vec();
        let (root, nodes) = (keccak256(&branch), [branch]);
        assert_eq!(look_up(root, &[0xab], &nodes), Some(Some(vec![7])));
        assert_eq!(look_up(root, &[0xac], &nodes), Some(None));
        assert_eq!(look_up(root, &[0xbb], &nodes), Some(None));
        assert_eq!(look_up(root, &[0xab], &[]), None);
        assert_eq!(look_up(EMPTY_ROOT_HASH.0, &[0xab], &[]), Some(None));
    }

    /// alloy's own walk panics here.
    #[test]
    fn a_path_longer_than_any_key_proves_nothing() {
        let mut leaf = rlp::RlpStream::new_list(2);
        leaf.append(&[0x20, 0x11].as_slice()).append(&[1_u8; 40].as_slice());
        let leaf = leaf.out().to_vec();
        let mut extension = rlp::RlpStream::new_list(2);
        extension.append(&[&[0][..], &[0xab; 32]].concat()).append(&keccak256(&leaf).as_slice());
        let extension = extension.out().to_vec();
        // The path of the key ends before the leaf, so the trie has nothing there.
        assert_eq!(look_up(keccak256(&extension), &[0xab; 32], &[extension, leaf]), Some(None));
    }

    proptest! {
        #[test]
        fn changed_nodes_prove_nothing(place in 0..200_usize, node: prop::sample::Index, at: prop::sample::Index, bit in 0..8_u32) {
            let (root, mut nodes) = proof_at(&values(200), place);
            let node = node.index(nodes.len());
            let at = at.index(nodes[node].len());
            nodes[node][at] ^= 1_u8 << bit;
            prop_assert_eq!(value_at(root, place as u64, &nodes), None);
        }

        /// The root fits whatever comes first, as with a header that a liar made.
        #[test]
        fn hostile_nodes_are_only_refused(nodes: Vec<Vec<u8>>, key: Vec<u8>) {
            let root = nodes.first().map(|node| keccak256(node)).unwrap_or_default();
            let found = look_up(root, &key, &nodes).flatten();
            prop_assert!(found.is_none_or(|value| value.len() <= nodes[0].len()));
        }
    }
}
