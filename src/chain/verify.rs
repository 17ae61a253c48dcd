// SPDX-License-Identifier: Apache-2.0
//! Verifies a receipt against the chain, and reads for an audit what the chain has.
//!
//! A receipt is accepted only if chain id, contract, block, transaction and anchor all match.
//!
//! The proof itself is checked by [`Receipt::verify_offline`].

use evidence::{BlockProof, Receipt};
use web3::{
    Web3,
    types::{Address, BlockId, BlockNumber, H256, U64},
};

use crate::{
    Addresses, Connection, Ledger, LedgerError,
    contracts::Artifact,
    inclusion::{Same, verify_in_block},
    queries::{LOG_RANGE, OnChain, anchored, newest_block, next_index, parse_anchored, receipt_of},
};

const ACTION: &str = "verify a receipt";

impl Ledger {
    /// Verifies that a receipt is true: it proves its evidence ([`Receipt::verify_offline`]), and this ledger's chain
    /// has its root, in its transaction, in its block, anchored by this ledger's contract.
    ///
    /// # Errors
    /// The first mismatch; or that the chain cannot be reached, which is retryable and says nothing about the
    /// receipt.
    pub async fn verify(&self, receipt: &Receipt) -> Result<(), LedgerError> {
        let Addresses { chain_id, evidence_ledger, .. } = self.addresses;
        verify(&self.web3, (chain_id, evidence_ledger), &self.evidence, receipt, None).await
    }
}

/// Verifies a receipt as [`Ledger::verify`] does, without an account and without a state directory: against `chain`,
/// and against the evidence ledger at address `contract`. Whoever deploys a contract can anchor anything in it, so the
/// address must come from somebody to be trusted, not from the receipt. If the chain's node has the transaction no more, it
/// is enough that it has the block, and `proof` proves that the transaction is in it.
///
/// # Errors
/// As [`Ledger::verify`].
pub async fn verify_on(
    chain: Connection,
    contract: [u8; 20],
    receipt: &Receipt,
    proof: Option<&BlockProof>,
) -> Result<(), LedgerError> {
    let web3 = Web3::new(chain);
    let chain_id = web3.eth().chain_id().await.map_err(|error| LedgerError::from_web3(ACTION, error))?;
    // A chain id beyond 64 bits is no receipt's.
    let chain_id = u64::try_from(chain_id).unwrap_or(u64::MAX);
    verify(&web3, (chain_id, contract.into()), &Artifact::evidence_ledger()?, receipt, proof).await
}

/// Verifies a receipt without a chain, for who knows that it has the block of this hash: against the evidence ledger at
/// address `contract`. Neither must come from the receipt.
///
/// # Errors
/// The first mismatch.
pub fn verify_by_hash(
    block: [u8; 32],
    contract: [u8; 20],
    receipt: &Receipt,
    proof: &BlockProof,
) -> Result<(), LedgerError> {
    let same = Same { index: receipt.evidence.index };
    same.check("the contract", Address::from(receipt.anchor.contract), contract.into())?;
    same.check("the block hash", H256(receipt.anchor.block_hash), H256(block))?;
    verify_in_block(receipt, proof)
}

/// All batches that the evidence ledger at address `contract` of `chain` has anchored from `from_block` on, in order,
/// and the number of leaves that it had anchored before they were read. The events may be incomplete (`from_block` is
/// too late, or the node has pruned its logs); the number is not.
///
/// # Errors
/// If there is no evidence ledger at this address, or the chain cannot be reached, which is retryable.
pub async fn anchors_on(
    chain: Connection,
    contract: [u8; 20],
    from_block: u64,
) -> Result<(u64, Vec<OnChain>), LedgerError> {
    let (web3, contract, ledger) = (Web3::new(chain), contract.into(), Artifact::evidence_ledger()?);
    let failed = |error| LedgerError::from_web3("read anchors", error);
    if web3.eth().code(contract, None).await.map_err(failed)?.0.is_empty() {
        let chain_id = web3.eth().chain_id().await.map_err(failed)?.low_u64();
        let place = "the address given".to_owned();
        return Err(LedgerError::NoCode { place, contract: "EvidenceLedger", address: contract, chain_id });
    }
    let next = next_index(&web3, contract, &ledger).await?;
    let newest = newest_block(&web3, "read anchors").await?;
    let (mut from, mut found) = (from_block, Vec::new());
    while from <= newest {
        let to = from.saturating_add(LOG_RANGE - 1).min(newest);
        found.extend(anchored(&web3, &ledger, contract, None, (from, to)).await?);
        from = to.saturating_add(1);
    }
    Ok((next, found))
}

async fn verify(
    web3: &Web3<Connection>,
    (chain_id, contract): (u64, Address),
    ledger: &Artifact,
    receipt: &Receipt,
    proof: Option<&BlockProof>,
) -> Result<(), LedgerError> {
    receipt.verify_offline()?;
    let anchor = &receipt.anchor;
    let same = Same { index: receipt.evidence.index };
    same.check("the chain id", anchor.chain_id, chain_id)?;
    same.check("the contract", Address::from(anchor.contract), contract)?;
    let transaction = H256(anchor.transaction);
    let Some((mined, number, hash)) = receipt_of(web3, ACTION, transaction).await? else {
        let Some(proof) = proof else {
            return Err(same.differs("the transaction", &transaction, &"not mined"));
        };
        let block = BlockId::Number(BlockNumber::Number(anchor.block_number.into()));
        let block = web3.eth().block(block).await.map_err(|error| LedgerError::from_web3(ACTION, error))?;
        let hash = block.and_then(|block| block.hash);
        same.check("the block hash", Some(H256(anchor.block_hash)), hash)?;
        return verify_in_block(receipt, proof);
    };
    same.check("the block number", anchor.block_number, number)?;
    same.check("the block hash", H256(anchor.block_hash), hash)?;
    same.check("the transaction's status", Some(U64::one()), mined.status)?;
    let topic = ledger.topic("Anchored")?;
    let ours = mined.logs.iter().filter(|log| log.address == contract && log.topics.first() == Some(&topic));
    let anchored: Vec<_> =
        ours.filter_map(parse_anchored).map(|event| (event.first, event.count, H256(event.root))).collect();
    let expected = (anchor.first, anchor.count, H256(anchor.root));
    if !anchored.contains(&expected) {
        return Err(same.differs("the anchor", &expected, &anchored));
    }
    proof.map_or(Ok(()), |proof| verify_in_block(receipt, proof))
}
