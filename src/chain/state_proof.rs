// SPDX-License-Identifier: Apache-2.0
//! Proves what the registry has of a sender by the nodes of the state's tries (`eth_getProof`, EIP-1186) and a header that
//! another node has, too, so that no node alone can make an operator of somebody. Where there is no other node, the one
//! that there is is believed about the header that it calls finalized: it could invent one.
//!
//! The header must be recent: an old one is true as well, and has who was revoked since.

use std::time::Duration;

use alloy_consensus::Header;
use jsonrpc_core::Value;
use rlp::Rlp;
use serde::Deserialize;
use serde_json::json;
use tokio::{task::JoinSet, time::timeout};
use web3::{
    Transport, Web3,
    signing::keccak256,
    types::{Address, Bytes, H256, U64, U256},
};

use crate::{
    Connection, Http, Ledger, LedgerError, Sender, account::read, contracts::word, registry::Digest, trie,
};

const ACTION: &str = "prove what the registry has of a sender";
/// Kinds of blocks.
const LATEST: &str = "latest";
const FINALIZED: &str = "finalized";
/// Slot of the mapping `senders` in the contract's storage.
const SENDERS_SLOT: u64 = 3;
/// How old a block may be [s]: several times what Ethereum takes to finalize one.
const MAX_AGE: u64 = 3600;
/// How far a block's time may be ahead of this host's clock [s].
const MAX_AHEAD: u64 = 900;
/// How long another node may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Blocks below the newest at which nodes must agree: the newest ones may still be replaced.
const UNSETTLED: u64 = 2;

/// By which block the registry's answer is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvenBy {
    /// By the newest that is finalized, to another node, too, if there is one.
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
            ProvenBy::Finalized if others.is_empty() => header(&node, json!(FINALIZED)).await?,
            ProvenBy::Finalized => witnessed(&node, others, FINALIZED).await?,
            ProvenBy::Witness => witnessed(&node, others, LATEST).await?,
        };
        if header.timestamp < now.saturating_sub(MAX_AGE) || header.timestamp > now.saturating_add(MAX_AHEAD)
        {
            let time = header.timestamp;
            return Err(unlike(&format!(
                "as of a block of the last {MAX_AGE} s before {now}, not of {time}"
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

    /// What another node has otherwise than the one that answers, or else which one does not answer, in words; `None` if all
    /// of them agree. The others are counted in the order of the parameters, without the one that answers.
    ///
    /// # Errors
    /// If the node that answers cannot be reached now.
    pub async fn dissent(&self) -> Result<Option<String>, LedgerError> {
        let (node, others) = match self.web3.transport() {
            #[cfg(feature = "embedded")]
            Connection::Embedded(_) => return Ok(None),
            Connection::Http(http) => http.split(),
        };
        let newest = number(&node, LATEST).await?;
        let mut silent = None;
        for (place, other) in (1..).zip(&others) {
            let compared = async {
                let height = number(other, LATEST).await?.min(newest).saturating_sub(UNSETTLED);
                let ours = header(&node, json!(U64::from(height))).await?;
                Ok::<_, LedgerError>((has(other, &ours).await?, height))
            };
            match timeout(PATIENCE, compared).await {
                Ok(Ok((true, _))) => {}
                Ok(Ok((false, height))) => {
                    return Ok(Some(format!("another node ({place}) has another block {height}")));
                }
                Ok(Err(error)) => {
                    silent.get_or_insert(format!("another node ({place}) does not answer: {error}"));
                }
                Err(_) => {
                    let limit = PATIENCE.as_secs();
                    silent.get_or_insert(format!("another node ({place}) does not answer within {limit} s"));
                }
            }
        }
        Ok(silent)
    }
}

/// The newest header of this kind that another node has, too, as the same kind. All are asked at once, so that one that is
/// silent delays nothing.
async fn witnessed(node: &Http, others: Vec<Http>, kind: &'static str) -> Result<Header, LedgerError> {
    let ours = number(node, kind).await?;
    let mut asking = JoinSet::new();
    for other in others {
        let node = node.clone();
        asking.spawn(timeout(PATIENCE, async move {
            let height = number(&other, kind).await?.min(ours);
            let header = header(&node, json!(U64::from(height))).await?;
            Ok::<_, LedgerError>(if has(&other, &header).await? { Some(header) } else { None })
        }));
    }
    let mut failure = unlike("as of a block that another node has, too");
    while let Some(asked) = asking.join_next().await {
        match asked {
            Ok(Ok(Ok(Some(header)))) => return Ok(header),
            Ok(Ok(Err(error))) => failure = error,
            Ok(Ok(Ok(None)) | Err(_)) | Err(_) => {}
        }
    }
    Err(failure)
}

async fn has(node: &Http, header: &Header) -> Result<bool, LedgerError> {
    let block = block(node, json!(U64::from(header.number))).await?;
    Ok(block.get("hash") == Some(&json!(header.hash_slow())))
}

/// Number of the newest block of a kind.
async fn number(node: &Http, kind: &str) -> Result<u64, LedgerError> {
    Ok(header(node, json!(kind)).await?.number)
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
    let first = U256::from_big_endian(&keccak256(&[digest, word(SENDERS_SLOT)].concat()));
    [first, first.overflowing_add(U256::one()).0].map(|slot| H256(word(slot)))
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
