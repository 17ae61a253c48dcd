// SPDX-License-Identifier: Apache-2.0
//! Proof that an anchor's transaction is in its block, for when no node has the transaction any more. Pure.
//!
//! Checking it needs Ethereum's hashes and tries, and is left to `chain::verify_in_block`.

/// What a block's header, whose hash is known, says of one of its transactions: nodes of the two Merkle-Patricia tries
/// whose roots the header has (Ethereum yellow paper, section 4.3 and appendix D; EIP-2718).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockProof {
    /// The header in RLP, the Keccak-256 of which is the block's hash.
    pub header: Vec<u8>,
    /// Place of the transaction in the block.
    pub transaction_index: u64,
    /// Nodes from `transactionsRoot` to the leaf that holds the signed transaction.
    pub transaction_proof: Vec<Vec<u8>>,
    /// Nodes from `receiptsRoot` to the leaf that holds the transaction's receipt.
    pub receipt_proof: Vec<Vec<u8>>,
}
