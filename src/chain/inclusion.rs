// SPDX-License-Identifier: Apache-2.0
//! Proves from a block's header that an anchor's transaction is in the block and did what a receipt says, so that it can
//! be verified with the header's hash alone, also when no node has the block's transactions any more (EIP-4444).
//!
//! [`verify_in_block`] is pure and takes any header that has Ethereum's first fifteen fields. Whether the block is in the
//! chain is left to whoever knows its hash.

use std::fmt::Debug;

use alloy_consensus::{EthereumTxEnvelope, Header, ReceiptEnvelope, TxEip4844};
use alloy_eips::{Decodable2718, Encodable2718};
use alloy_primitives::Log;
use evidence::{BlockProof, Receipt};
use jsonrpc_core::Value;
use rlp::Rlp;
use serde_json::json;
use web3::{signing::keccak256, types::H256};

use crate::{
    Ledger, LedgerError,
    account::{Account, read},
    contracts::{Artifact, word},
    trie,
};

const ACTION: &str = "prove that a transaction is in its block";
/// Fields of a header, by their places (yellow paper, section 4.3).
const TRANSACTIONS_ROOT: usize = 4;
const RECEIPTS_ROOT: usize = 5;
const NUMBER: usize = 8;
/// Fields of the first headers; later ones have more.
const HEADER_FIELDS: usize = 15;

type Transaction = EthereumTxEnvelope<TxEip4844>;
type Outcome = ReceiptEnvelope<Log>;

impl Ledger {
    /// Makes the proof that a receipt's transaction is in its block; it verifies ([`verify_in_block`]).
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached, or has dropped the block's transactions, or one of them is of a type that
    /// Ethereum does not have.
    pub async fn block_proof(&self, receipt: &Receipt) -> Result<BlockProof, LedgerError> {
        let hash = H256(receipt.anchor.block_hash);
        let block = self.account.ask(ACTION, vec![("eth_getBlockByHash", vec![json!(hash), json!(true)])]);
        let mut block = block.await?.pop().unwrap_or_default();
        let transactions = block.get_mut("transactions").map(Value::take);
        let transactions: Vec<Transaction> =
            read(ACTION, transactions, "a block with transactions of Ethereum's types")?;
        let header: Header = read(ACTION, Some(block), "a block with a header of Ethereum")?;
        let place = transactions.iter().position(|one| one.hash().0 == receipt.anchor.transaction);
        let place = place.ok_or_else(|| unlike("the block that has the transaction"))?;
        let outcomes = outcomes(&self.account, &header, &transactions).await?;
        let (transactions_root, transaction_proof) = trie::proof_at(&encoded(&transactions), place);
        let (receipts_root, receipt_proof) = trie::proof_at(&encoded(&outcomes), place);
        if transactions_root != header.transactions_root.0 || receipts_root != header.receipts_root.0 {
            return Err(unlike("the transactions and receipts of the block's header"));
        }
        let (header, transaction_index) = (alloy_rlp::encode(&header), place as u64);
        let proof = BlockProof { header, transaction_index, transaction_proof, receipt_proof };
        verify_in_block(receipt, &proof)?;
        Ok(proof)
    }
}

/// The receipts of all transactions of a block.
async fn outcomes(
    account: &Account,
    header: &Header,
    transactions: &[Transaction],
) -> Result<Vec<Outcome>, LedgerError> {
    let number = json!(format!("{:#x}", header.number));
    let rule = "receipts of Ethereum's types";
    match account.ask(ACTION, vec![("eth_getBlockReceipts", vec![number])]).await {
        Ok(mut answer) => return read(ACTION, answer.pop(), rule),
        // Not every node knows the method. A status of HTTP says nothing about it.
        Err(LedgerError::Refused { code, .. }) if code < 0 => {}
        Err(error) => return Err(error),
    }
    let each = transactions.iter().map(|one| ("eth_getTransactionReceipt", vec![json!(one.hash())]));
    let answers = account.ask(ACTION, each.collect()).await?;
    answers.into_iter().map(|answer| read(ACTION, Some(answer), rule)).collect()
}

fn encoded(items: &[impl Encodable2718]) -> Vec<Vec<u8>> {
    items.iter().map(Encodable2718::encoded_2718).collect()
}

fn unlike(rule: &str) -> LedgerError {
    LedgerError::Answer { action: ACTION, rule: rule.to_owned() }
}

/// Verifies that a receipt is true if the chain has its block: the block's header has the hash and the number that the
/// receipt names, and its transaction is in it, and succeeded, and anchored the receipt's root by the receipt's
/// contract. The receipt must prove its evidence, too ([`Receipt::verify_offline`]).
///
/// # Errors
/// The first mismatch.
pub fn verify_in_block(receipt: &Receipt, proof: &BlockProof) -> Result<(), LedgerError> {
    receipt.verify_offline()?;
    let anchor = &receipt.anchor;
    let same = Same { index: receipt.evidence.index };
    same.check("the hash of the header", H256(anchor.block_hash), H256(keccak256(&proof.header)))?;
    let broken = |what, rule: &str| same.differs(what, &rule, &"other bytes");
    let header = Rlp::new(&proof.header);
    let field = |place| -> Option<Vec<u8>> { header.val_at(place).ok() };
    let root = |place| field(place).and_then(|root| <[u8; 32]>::try_from(root).ok());
    let roots = root(TRANSACTIONS_ROOT).zip(root(RECEIPTS_ROOT));
    let (roots, number) = match (header.item_count(), roots, header.val_at(NUMBER)) {
        (Ok(HEADER_FIELDS..), Some(roots), Ok(number)) => (roots, number),
        _ => return Err(broken("the header", "that of a block")),
    };
    same.check("the block number", anchor.block_number, number)?;
    let transaction = trie::value_at(roots.0, proof.transaction_index, &proof.transaction_proof)
        .ok_or_else(|| broken("transaction_proof", "nodes from the header to the transaction"))?;
    same.check("the transaction", H256(anchor.transaction), H256(keccak256(&transaction)))?;
    let outcome = trie::value_at(roots.1, proof.transaction_index, &proof.receipt_proof)
        .ok_or_else(|| broken("receipt_proof", "nodes from the header to the receipt"))?;
    let mut bytes = outcome.as_slice();
    let outcome = Outcome::decode_2718(&mut bytes).ok().filter(|_| bytes.is_empty());
    let outcome = outcome.ok_or_else(|| broken("the transaction's receipt", "one of Ethereum's types"))?;
    same.check("the transaction's status", true, outcome.status())?;
    let event = Artifact::evidence_ledger()?.topic("Anchored")?;
    let (topics, data) = ([event.0, word(anchor.first), anchor.root], word(anchor.count));
    let is_ours = |log: &Log| {
        log.address.0 == anchor.contract
            && log.topics().iter().map(|topic| topic.0).eq(topics)
            && log.data.data.as_ref() == data
    };
    if outcome.logs().iter().any(is_ours) {
        Ok(())
    } else {
        let expected = (anchor.first, anchor.count, H256(anchor.root));
        Err(same.differs("the anchor", &expected, &"none of this contract in the transaction's receipt"))
    }
}

/// Compares what a receipt says with what is found.
pub(super) struct Same {
    pub index: u64,
}

impl Same {
    pub fn check<T: Debug + PartialEq>(
        &self,
        what: &'static str,
        expected: T,
        found: T,
    ) -> Result<(), LedgerError> {
        if expected == found { Ok(()) } else { Err(self.differs(what, &expected, &found)) }
    }

    pub fn differs(&self, what: &'static str, expected: &dyn Debug, found: &dyn Debug) -> LedgerError {
        let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
        LedgerError::NotOnChain { index: self.index, what, expected, found }
    }
}
