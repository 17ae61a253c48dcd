// SPDX-License-Identifier: Apache-2.0
//! Classifies what can go wrong with a chain.
//!
//! Every error tells whether a retry may succeed, and no error shows the endpoint's URL.
//!
//! Retrying is left to the caller.

use std::path::PathBuf;

use evidence::{ReceiptError, eip55::to_eip55};
use record_log::secret::SecretError;
use web3::{
    error::{Error, TransportError},
    types::{Address, H256},
};

use crate::contracts::Revert;

/// JSON-RPC error code, from the range left to servers, by which the embedded chain reports that its disk failed.
pub(super) const STORAGE_FAILED: i64 = -32050;

/// A ledger request that failed. [`is_retryable`](Self::is_retryable) tells whether time may help.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The node's URL cannot be used. The error does not show it, because it may contain a provider's key.
    #[error("ledger endpoint: must be {rule}")]
    Endpoint {
        /// What the URL must be.
        rule: String,
    },
    /// The chain does not answer or is overloaded. Retry.
    #[error("{action}: the chain cannot be reached: {reason}")]
    Unreachable {
        /// What was being done.
        action: &'static str,
        /// Why the chain could not be reached.
        reason: String,
    },
    /// The chain answers, but the transaction was not confirmed in time. Before retrying, check whether it was mined
    /// after all.
    #[error("{action}: not confirmed after {seconds} s (transaction {transaction:?})")]
    Timeout {
        /// What was being done.
        action: &'static str,
        /// How long it was waited for, in seconds.
        seconds: u64,
        /// The transaction, if one was sent.
        transaction: Option<H256>,
    },
    /// Another transaction of this account got in first. Before retrying, check whether the work is done.
    #[error("{action}: another transaction of this account is in the way: {reason}")]
    Conflict {
        /// What was being done.
        action: &'static str,
        /// Reason, usually in the node's words.
        reason: String,
    },
    /// The node has this transaction already.
    #[error("{action}: the node has the transaction already")]
    Known {
        /// What was being done.
        action: &'static str,
    },
    /// The transaction was mined and had no effect: it reverted, or ran out of gas. Before retrying, check whether the
    /// work is done.
    #[error("{action}: transaction {transaction:?} failed when it was mined")]
    Failed {
        /// What was being done.
        action: &'static str,
        /// The transaction.
        transaction: H256,
    },
    /// The node wants higher fees for the transaction.
    #[error("{action}: the node wants higher fees: {reason}")]
    Underpriced {
        /// What was being done.
        action: &'static str,
        /// Reason in the node's words.
        reason: String,
    },
    /// The contract reverted; nothing was changed.
    #[error("{action}: the contract refuses: {revert}")]
    Reverted {
        /// What was being done.
        action: &'static str,
        /// The contract's reason.
        revert: Revert,
    },
    /// The node rejected the request, for example for lack of funds.
    #[error("{action}: the node refuses: {message} (code {code})")]
    Refused {
        /// What was being done.
        action: &'static str,
        /// JSON-RPC error code, or HTTP status.
        code: i64,
        /// The node's message.
        message: String,
    },
    /// The response does not follow the execution API.
    #[error("{action}: the chain's answer is not {rule}")]
    Answer {
        /// What was being done.
        action: &'static str,
        /// What the response must be.
        rule: String,
    },
    /// The contracts in the state directory are on another chain.
    #[error(
        "contracts in '{path}' are on chain {expected}, the node is on chain {found}; use that chain, or another state directory",
        path = path.display()
    )]
    WrongChain {
        /// Path of `contracts.json`.
        path: PathBuf,
        /// Chain id in the file.
        expected: u64,
        /// Chain id of the node.
        found: u64,
    },
    /// `contracts.json` is gone, so that nobody knows where the registered senders and the evidence are.
    #[error(
        "'{path}' is missing, though this is not the first start: restore it, or write into it where the contracts are (docs/operations.md); for new \
         contracts, in which no sender is registered, write {{}} into it",
        path = path.display()
    )]
    LostContracts {
        /// Path of `contracts.json`.
        path: PathBuf,
    },
    /// The node does not have the contracts' block yet: it catches up, or the chain was reset.
    #[error(
        "{action}: the node does not have their block {deployed} yet: it catches up, or the chain was reset"
    )]
    Behind {
        /// What was being done.
        action: &'static str,
        /// Number of the block that the ledger was deployed in.
        deployed: u64,
    },
    /// There is no contract at the expected address, for example because the chain was reset.
    #[error(
        "contract {contract} of {place}: no code at {address} on chain {chain_id}; the chain was reset or is another one",
        address = to_eip55(&address.0)
    )]
    NoCode {
        /// Where the address is from: `contracts.json` with its path, or the parameter.
        place: String,
        /// Name of the contract.
        contract: &'static str,
        /// Address where it must be.
        address: Address,
        /// Chain id of the node.
        chain_id: u64,
    },
    /// The contract at the expected address is of another version.
    #[error(
        "contract {contract} of {place}: version {version} at {address}, must be {wanted}{hint}",
        address = to_eip55(&address.0),
        hint = match version {
            1 => "; how to replace it is in docs/operations.md, \"Contracts of an earlier version\"",
            _ => ", or it is no such contract",
        }
    )]
    OtherVersion {
        /// Where the address is from: `contracts.json` with its path, or the parameter.
        place: String,
        /// Name of the contract.
        contract: &'static str,
        /// Its address.
        address: Address,
        /// Its version.
        version: u64,
        /// The version that it must have.
        wanted: u64,
    },
    /// The registry that is to be replaced shows no sender. Nodes that have pruned their logs do not say so.
    #[error(
        "no registration since block {from_block} in the registry {registry}, whose senders the new one is to have: use a node that keeps \
         logs, or a lower deployed_block (0 is safe) in contracts.json; if there is none, write {{}} into that file"
    )]
    NoSenders {
        /// Address of the registry.
        registry: String,
        /// First block that was read.
        from_block: u64,
    },
    /// A file in the state directory cannot be used.
    #[error("file '{path}': {reason}", path = path.display())]
    State {
        /// Path of the file.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// The file of transactions in flight cannot be written, so nothing is sent.
    #[error("{action}: file '{path}': cannot be written, so nothing is sent: {reason}", path = path.display())]
    Disk {
        /// What was being done.
        action: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Why it cannot be written.
        reason: String,
    },
    /// Nobody sends transactions any more: the task that did has ended, as a defect.
    #[error("{action}: the task that sends transactions has ended")]
    Ended {
        /// What was being done.
        action: &'static str,
    },
    /// The embedded chain could not write to its disk, so the block was not mined.
    #[error("{action}: the embedded chain's disk failed: {reason}")]
    Storage {
        /// What was being done.
        action: &'static str,
        /// Why writing failed.
        reason: String,
    },
    /// The account's key cannot be loaded.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// A committed artifact does not fit this program, which is a defect.
    #[error("contract artifact: {0}")]
    Artifact(String),
    /// The receipt contradicts itself.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The receipt contradicts the chain.
    #[error("receipt of leaf {index}: {what} is {expected} in the receipt and {found} on chain")]
    NotOnChain {
        /// Index of the leaf.
        index: u64,
        /// Name of the value that differs.
        what: &'static str,
        /// Value in the receipt.
        expected: String,
        /// Value on chain.
        found: String,
    },
}

impl LedgerError {
    /// Whether a later retry may succeed without any change here. Rejections by the node count, since fees fall,
    /// accounts get funded and gateways get fixed. Everything else is about this node's own key, files or contracts.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Conflict { .. }
            | Self::Known { .. }
            | Self::Failed { .. }
            | Self::Underpriced { .. }
            | Self::Refused { .. }
            | Self::Disk { .. }
            | Self::Behind { .. }
            | Self::Answer { .. } => true,
            // A revert without a reason occurs when another copy of the transaction was mined in between.
            // The owner may be about to name the account.
            Self::Reverted { revert, .. } => {
                matches!(revert, Revert::OutOfOrder { .. } | Revert::NotAnchorer(_) | Revert::Other(_))
            }
            _ => false,
        }
    }

    /// The error of a call whose sequence is broken.
    pub(super) fn out_of_sequence(action: &'static str) -> Self {
        Self::Conflict { action, reason: "one of those before it has failed".to_owned() }
    }

    /// Classifies a failed request.
    pub(super) fn from_web3(action: &'static str, error: Error) -> Self {
        let unreachable = |reason: String| Self::Unreachable { action, reason };
        match error {
            Error::Rpc(error) => Self::from_rpc(action, error),
            Error::Transport(TransportError::Code(code)) if code != 429 && code < 500 => {
                Self::Refused { action, code: code.into(), message: format!("HTTP status {code}") }
            }
            Error::Transport(TransportError::Code(code)) => unreachable(format!("HTTP status {code}")),
            Error::Transport(TransportError::Message(reason)) => unreachable(reason),
            Error::Unreachable | Error::Internal => unreachable(error.to_string()),
            Error::Io(why) => unreachable(why.to_string()),
            Error::InvalidResponse(reason) | Error::Decoder(reason) => {
                Self::Answer { action, rule: format!("understood: {reason}") }
            }
            Error::Recovery(why) => Self::Answer { action, rule: format!("signed: {why}") },
        }
    }

    fn from_rpc(action: &'static str, error: jsonrpc_core::Error) -> Self {
        let (code, message) = (error.code.code(), error.message);
        let says = message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| says.contains(word));
        if code == STORAGE_FAILED {
            return Self::Storage { action, reason: message };
        }
        if code == 3 || says(&["revert"]) {
            return Self::Reverted { action, revert: Revert::from_rpc(&message, error.data.as_ref()) };
        }
        // The words of go-ethereum, which many nodes copy, then those of Nethermind and Erigon.
        if says(&[
            "underpriced",
            "less than block base fee",
            "feetoolow",
            "replacementnotallowed",
            "could not replace",
        ]) {
            return Self::Underpriced { action, reason: message };
        }
        if says(&["already known", "already imported", "alreadyknown"]) {
            return Self::Known { action };
        }
        if says(&["nonce too low", "nonce too high", "oldnonce", "noncegap"]) {
            return Self::Conflict { action, reason: message };
        }
        // A provider's limits, trouble inside the node, or one of several nodes lagging behind the others.
        let transient =
            ["rate limit", "too many requests", "timeout", "header not found", "unknown block", "outofrange"];
        if matches!(code, -32005 | -32603) || says(&transient) {
            return Self::Unreachable { action, reason: message };
        }
        Self::Refused { action, code, message }
    }
}

#[cfg(test)]
mod tests {
    use jsonrpc_core::{Error as RpcError, ErrorCode};
    use serde_json::json;

    use super::*;

    /// What `revert BadRole(7)` returns.
    const BAD_ROLE: &str = "0x8cf197f10000000000000000000000000000000000000000000000000000000000000007";

    fn rpc(code: i64, message: &str, data: Option<serde_json::Value>) -> LedgerError {
        let error = RpcError { code: ErrorCode::from(code), message: message.to_owned(), data };
        LedgerError::from_web3("anchor", Error::Rpc(error))
    }

    #[test]
    fn tells_what_time_may_cure_from_what_it_does_not() {
        for (code, message, retryable) in [
            (-32000, "nonce too low: next nonce 5, tx nonce 3", true),
            (-32000, "Nonce too high", true),
            (-32000, "already known", true),
            (-32000, "replacement transaction underpriced", true),
            (-32010, "FeeTooLow, MaxFeePerGas too low", true),
            (-32000, "AlreadyKnown", true),
            (-32005, "daily request count exceeded", true),
            (-32603, "Internal error", true),
            (-32000, "header not found", true),
            (-32003, "insufficient funds for gas * price + value", true),
            (-32000, "max fee per gas less than block base fee", true),
            (3, "execution reverted", true),
            (STORAGE_FAILED, "no space left on device", false),
        ] {
            assert_eq!(rpc(code, message, None).is_retryable(), retryable, "{message}");
        }
        let transport = |code| LedgerError::from_web3("call", Error::Transport(TransportError::Code(code)));
        assert!([401, 404, 429, 503].into_iter().all(|code| transport(code).is_retryable()));
        let role = rpc(3, "execution reverted", Some(json!(BAD_ROLE)));
        assert!(!role.is_retryable(), "{role}");
    }

    #[test]
    fn finds_the_reason_wherever_the_node_puts_it() {
        let reverted = json!(BAD_ROLE);
        for data in [reverted.clone(), json!({ "data": reverted, "message": "reverted" })] {
            let error = rpc(-32000, "VM Exception: revert", Some(data));
            assert!(matches!(error, LedgerError::Reverted { revert: Revert::BadRole(7), .. }), "{error}");
        }
        let error = rpc(3, "execution reverted: paused", Some(json!("0x")));
        assert!(error.to_string().ends_with("the contract refuses: execution reverted: paused"));
    }
}
