// SPDX-License-Identifier: Apache-2.0
//! Why nothing can be anchored, and whether waiting may cure it. Pure.

use chain::LedgerError;
use evidence::log::EvidenceError;

use crate::pace::Failure;

/// The anchorer cannot go on until somebody changes something.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The evidence log was lost, or this is a different one.
    #[error(
        "the chain has {next} leaves, the evidence log {evidenced}: the log was lost; restore it, or deploy new contracts"
    )]
    LogLost {
        /// Number of leaves on chain.
        next: u64,
        /// Number of leaves in the log.
        evidenced: u64,
    },
    /// The chain lacks leaves that have receipts. It may lag; if it does not, the receipts are taken back.
    #[error(
        "the chain has {next} leaves, {anchored} have receipts: it lags, or a reorganisation was deeper than the confirmations"
    )]
    ChainWentBack {
        /// Number of leaves on chain.
        next: u64,
        /// Number of leaves with receipts.
        anchored: u64,
    },
    /// The chain lacks a block that had its confirmations. It may lag.
    #[error(
        "block {block}, which was final, is not on the chain: the node lags, a reorganisation was deeper than the confirmations, or the contracts are others"
    )]
    Lost {
        /// Its number.
        block: u64,
    },
    /// The chain has lost blocks that had their confirmations; the receipts of the anchors in them were taken back.
    #[error(
        "block {block} and perhaps others are gone: {count} batches have lost their receipts and get new ones"
    )]
    Superseded {
        /// Number of anchors.
        count: u64,
        /// Number of the newest block that was lost.
        block: u64,
    },
    /// The contract has a batch, but the chain shows no event for it.
    #[error("the chain has {next} leaves, but no event of the batch that begins at {first}")]
    NoEvent {
        /// Number of leaves on chain.
        next: u64,
        /// Index of the batch's first leaf.
        first: u64,
    },
    /// The evidence log failed.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The ledger rejected a request, and waiting will not help.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl AnchorError {
    /// Whether waiting may cure it.
    pub(super) fn failure(&self) -> Failure {
        match self {
            // This includes losing a race to another submitter, perhaps an earlier run of this process.
            Self::Ledger(error) if error.is_retryable() => Failure::Temporary,
            // The watch decides whether the chain lags.
            Self::ChainWentBack { .. } | Self::Lost { .. } | Self::Superseded { .. } => Failure::Temporary,
            Self::NoEvent { .. } => Failure::Contradiction,
            Self::LogLost { .. } | Self::Evidence(_) | Self::Ledger(_) => Failure::Final,
        }
    }
}
