// SPDX-License-Identifier: Apache-2.0
//! Proves what the registry has of a sender, so that a node that lies cannot make an operator of somebody: by the nodes
//! of the state's tries (`eth_getProof`, EIP-1186) and a header that the chain calls finalized or that another node has,
//! too.
//!
//! The header must be recent: an old one is true as well, and has who was revoked since.

use alloy_consensus::Header;
use jsonrpc_core::Value;
use rlp::Rlp;
use serde::Deserialize;
use serde_json::json;
use web3::{
    Transport, Web3,
    signing::keccak256,
    types::{Address, Bytes, H256, U64, U256},
};

use crate::{Connection, Http, Ledger, LedgerError, Sender, account::read, registry::Digest, trie};

const ACTION: &str = "prove what the registry has of a sender";
/// Slot of the mapping `senders` in the contract's storage.
const SENDERS_SLOT: u64 = 3;
/// How old a block may be [s]: several times what Ethereum takes to finalize one.
const MAX_AGE: u64 = 3600;
/// Blocks below the newest at which nodes must agree: the newest ones may still be replaced.
const UNSETTLED: u64 = 2;

/// By which block the registry's answer is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvenBy {
    /// By that which the chain calls finalized, which another node has, too, if there is one.
    Finalized,
    /// By the newest that another node has, too.
    Witness,
}

impl Ledger {
    /// What the registry has of a sender as of a block that is at most an hour older than `now` [s since 1970], with
    /// proof. In this process nobody lies: there it is what [`sender`](Self::sender) says.
    ///
    /// # Errors
    /// If there is no proof: a node cannot be reached, does not give one, or gives one of something else; or no other
    /// node has the block.
    pub async fn proven_sender(&self, digest: Digest, by: ProvenBy, now: u64) -> Result<Sender, LedgerError> {
        let (node, others) = match self.web3.transport() {
            #[cfg(feature = "embedded")]
            Connection::Embedded(_) => return self.sender(digest).await,
            Connection::Http(http) => http.split(),
        };
        let header = match by {
            ProvenBy::Finalized => finalized(&node, &others).await?,
            ProvenBy::Witness => witnessed(&node, &others).await?,
        };
        if header.timestamp < now.saturating_sub(MAX_AGE) {
            let age = now.saturating_sub(header.timestamp);
            return Err(unlike(&format!(
                "as of a block of the last {MAX_AGE} s, not one that is {age} s old"
            )));
        }
        let registry = self.addresses.sender_registry;
        let slots = slots(digest);
        let params = vec![json!(registry), json!(slots), json!(U64::from(header.number))];
        let proof: AccountProof = ask(&node, "eth_getProof", params, "a proof of storage").await?;
        let [first, second] = proof
            .values(registry, slots, header.state_root.0)
            .ok_or_else(|| unlike("a proof that leads from the block's state to the registry's storage"))?;
        Sender::of_storage(first, second).ok_or_else(|| unlike("a sender as the registry stores it"))
    }

    /// What another node has otherwise than the one that answers, in words; `None` if all of them agree.
    ///
    /// # Errors
    /// If the node that answers cannot be reached now.
    pub async fn dissent(&self) -> Result<Option<String>, LedgerError> {
        let (node, others) = match self.web3.transport() {
            #[cfg(feature = "embedded")]
            Connection::Embedded(_) => return Ok(None),
            Connection::Http(http) => http.split(),
        };
        for (number, other) in (1..).zip(&others) {
            let newest = match newest(other).await {
                Ok(number) => number,
                Err(error) => return Ok(Some(format!("another node ({number}) does not answer: {error}"))),
            };
            let height = newest.min(self::newest(&node).await?).saturating_sub(UNSETTLED);
            let ours = header(&node, json!(U64::from(height))).await?;
            match has(other, &ours).await {
                Ok(true) => {}
                Ok(false) => return Ok(Some(format!("another node ({number}) has another block {height}"))),
                Err(error) => return Ok(Some(format!("another node ({number}) does not answer: {error}"))),
            }
        }
        Ok(None)
    }
}

/// The header that the chain calls finalized; if there are other nodes, one of them has it, too.
async fn finalized(node: &Http, others: &[Http]) -> Result<Header, LedgerError> {
    let header = header(node, json!("finalized")).await?;
    if others.is_empty() || confirmed(others, &header).await? {
        return Ok(header);
    }
    Err(unlike("a finalized block that another node has, too"))
}

/// The newest header that another node has, too.
async fn witnessed(node: &Http, others: &[Http]) -> Result<Header, LedgerError> {
    let ours = newest(node).await?;
    let mut failure = unlike("a block that another node has, too");
    for other in others {
        let theirs = match newest(other).await {
            Ok(number) => number,
            Err(error) => {
                failure = error;
                continue;
            }
        };
        let header = header(node, json!(U64::from(ours.min(theirs)))).await?;
        match has(other, &header).await {
            Ok(true) => return Ok(header),
            Ok(false) => {}
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Whether one of these has the block. Those that do not answer say nothing, unless none does.
async fn confirmed(others: &[Http], header: &Header) -> Result<bool, LedgerError> {
    let mut outcome = Ok(false);
    for other in others {
        match has(other, header).await {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

async fn has(node: &Http, header: &Header) -> Result<bool, LedgerError> {
    let block = block(node, json!(U64::from(header.number))).await?;
    Ok(block.get("hash") == Some(&json!(header.hash_slow())))
}

async fn newest(node: &Http) -> Result<u64, LedgerError> {
    let number: U64 = ask(node, "eth_blockNumber", Vec::new(), "the number of a block").await?;
    Ok(number.as_u64())
}

/// A header, the hash of which is made from its fields.
async fn header(node: &Http, which: Value) -> Result<Header, LedgerError> {
    read(ACTION, Some(block(node, which).await?), "a block with a header of Ethereum")
}

async fn block(node: &Http, which: Value) -> Result<Value, LedgerError> {
    ask(node, "eth_getBlockByNumber", vec![which, json!(false)], "a block").await
}

async fn ask<T: serde::de::DeserializeOwned>(
    node: &Http,
    method: &str,
    params: Vec<Value>,
    rule: &'static str,
) -> Result<T, LedgerError> {
    let answer = Web3::new(node.clone()).transport().execute(method, params).await;
    read(ACTION, Some(answer.map_err(|error| LedgerError::from_web3(ACTION, error))?), rule)
}

fn unlike(rule: &str) -> LedgerError {
    LedgerError::Answer { action: ACTION, rule: rule.to_owned() }
}

/// Where the contract stores a sender: two slots behind each other (Solidity, "Layout of State Variables in Storage").
fn slots(digest: Digest) -> [H256; 2] {
    let mut mapping = [0; 32];
    U256::from(SENDERS_SLOT).to_big_endian(&mut mapping);
    let first = U256::from_big_endian(&keccak256(&[digest, mapping].concat()));
    [first, first.overflowing_add(U256::one()).0].map(|slot| {
        let mut bytes = [0; 32];
        slot.to_big_endian(&mut bytes);
        H256(bytes)
    })
}

/// What is read of the answer to `eth_getProof`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountProof {
    account_proof: Vec<Bytes>,
    storage_proof: Vec<StorageProof>,
}

#[derive(Deserialize)]
struct StorageProof {
    proof: Vec<Bytes>,
}

impl AccountProof {
    /// The values of these slots of a contract in the state of this root, if that is what the proof proves.
    fn values(&self, contract: Address, slots: [H256; 2], state_root: [u8; 32]) -> Option<[U256; 2]> {
        let nodes = |proof: &[Bytes]| proof.iter().map(|node| node.0.clone()).collect::<Vec<_>>();
        let account =
            trie::look_up(state_root, &keccak256(contract.as_bytes()), &nodes(&self.account_proof))??;
        let storage_root: H256 = Rlp::new(&account).val_at(2).ok()?;
        let value = |slot: H256, proof: &StorageProof| match trie::look_up(
            storage_root.0,
            &keccak256(slot.as_bytes()),
            &nodes(&proof.proof),
        )? {
            Some(value) => Rlp::new(&value).as_val().ok(),
            None => Some(U256::zero()),
        };
        let [first, second] = self.storage_proof.as_slice() else { return None };
        Some([value(slots[0], first)?, value(slots[1], second)?])
    }
}
