// SPDX-License-Identifier: Apache-2.0
//! Asks the contracts and the chain, without an account: calls, events, receipts.
//!
//! Who asks, and what follows, is left to the others.

use evidence::merkle::Hash;
use web3::{
    Web3,
    ethabi::Token,
    types::{Address, BlockId, BlockNumber, Bytes, CallRequest, FilterBuilder, H256, Log, U256},
};

use crate::{Connection, LedgerError, account::in_block, contracts::Artifact};

/// Blocks per `eth_getLogs` request; public nodes allow this many.
pub(super) const LOG_RANGE: u64 = 5_000;

/// An `Anchored` event on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnChain {
    /// Index of the first leaf.
    pub first: u64,
    /// Number of leaves.
    pub count: u32,
    /// Merkle root of the leaves.
    pub root: Hash,
    /// Hash of the transaction.
    pub transaction: H256,
}

/// Calls a function of a contract, without a transaction.
pub(super) async fn call(
    web3: &Web3<Connection>,
    to: Address,
    contract: &Artifact,
    function: &'static str,
    arguments: &[Token],
) -> Result<Vec<Token>, LedgerError> {
    let data = Some(Bytes(contract.encode(function, arguments)?));
    let request = CallRequest { to: Some(to), data, ..CallRequest::default() };
    let latest = Some(BlockId::Number(BlockNumber::Latest));
    let answer = web3.eth().call(request, latest).await;
    contract.decode(function, &answer.map_err(|error| LedgerError::from_web3(function, error))?.0)
}

/// Index of the first leaf that the contract has not anchored.
pub(super) async fn next_index(
    web3: &Web3<Connection>,
    contract: Address,
    ledger: &Artifact,
) -> Result<u64, LedgerError> {
    match call(web3, contract, ledger, "next", &[]).await?.as_slice() {
        [Token::Uint(next)] if next.bits() <= 64 => Ok(next.as_u64()),
        _ => Err(LedgerError::Answer { action: "next", rule: "an index".to_owned() }),
    }
}

/// Number of the newest block.
pub(super) async fn newest_block(web3: &Web3<Connection>, action: &'static str) -> Result<u64, LedgerError> {
    let number = web3.eth().block_number().await;
    Ok(number.map_err(|error| LedgerError::from_web3(action, error))?.as_u64())
}

/// The events of a contract with this topic in these blocks, at most [`LOG_RANGE`] of them, in order; with a second topic,
/// only those that have it.
pub(super) async fn logs(
    web3: &Web3<Connection>,
    action: &'static str,
    contract: Address,
    (event, first): (H256, Option<H256>),
    (from, to): (u64, u64),
) -> Result<Vec<Log>, LedgerError> {
    let filter = FilterBuilder::default()
        .address(vec![contract])
        .topics(Some(vec![event]), first.map(|first| vec![first]), None, None)
        .from_block(BlockNumber::Number(from.into()))
        .to_block(BlockNumber::Number(to.into()));
    web3.eth().logs(filter.build()).await.map_err(|error| LedgerError::from_web3(action, error))
}

/// The batches anchored by `contract` in these blocks, at most [`LOG_RANGE`] of them, in order; with `first`, only the
/// one that starts at this leaf.
pub(super) async fn anchored(
    web3: &Web3<Connection>,
    ledger: &Artifact,
    contract: Address,
    first: Option<H256>,
    (from, to): (u64, u64),
) -> Result<Vec<OnChain>, LedgerError> {
    let topics = (ledger.topic("Anchored")?, first);
    let logs = logs(web3, "read anchors", contract, topics, (from, to)).await?;
    Ok(logs.iter().filter_map(parse_anchored).collect())
}

/// Looks up the receipt of a transaction, with number and hash of its block; `None` unless it is mined.
pub(super) async fn receipt_of(
    web3: &Web3<Connection>,
    action: &'static str,
    transaction: H256,
) -> Result<Option<(web3::types::TransactionReceipt, u64, H256)>, LedgerError> {
    let receipt = web3.eth().transaction_receipt(transaction).await;
    Ok(receipt.map_err(|error| LedgerError::from_web3(action, error))?.and_then(in_block))
}

/// Parses an `Anchored` event; `None` if the log is a different event.
pub(super) fn parse_anchored(log: &Log) -> Option<OnChain> {
    let [_, first, root] = log.topics.as_slice() else { return None };
    let count = U256::from_big_endian(log.data.0.get(..32)?);
    Some(OnChain {
        first: u64::try_from(U256::from_big_endian(first.as_bytes())).ok()?,
        count: u32::try_from(count).ok()?,
        root: root.0,
        transaction: log.transaction_hash?,
    })
}
