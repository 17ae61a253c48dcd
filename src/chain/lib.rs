// SPDX-License-Identifier: Apache-2.0
//! Gives access to the ledger: two contracts on an Ethereum chain, behind one client.
//!
//! - [`Connection`]: reaches the chain, over HTTP ([`Http`]) or in this process ([`EmbeddedChain`]).
//! - [`Ledger`]: queries the registry, registers and revokes senders, anchors roots, verifies receipts.
//! - [`LedgerKey`]: key of an account that pays for transactions.
//! - [`LedgerError`]: tells whether to retry, reject or stop.
//!
//! What to anchor, and when, is left to the authenticator.

mod account;
mod client;
mod contracts;
mod deploy;
#[cfg(feature = "embedded")]
mod embedded;
mod error;
mod flight;
mod http;
mod inclusion;
mod key;
mod keystore;
mod lane;
mod progress;
mod queries;
mod registry;
mod sender;
mod state_proof;
mod status;
mod submission;
mod transactions;
mod trie;
mod verify;

use std::{pin::Pin, time::Duration};

use jsonrpc_core::{Call, Value};
use settings::BackOff;
use web3::{BatchTransport, RequestId, Transport, error::Result};

pub use account::Presence;
pub use client::{Ledger, LedgerOptions, want_new_contracts};
pub use contracts::{Addresses, Contracts, Revert};
#[cfg(feature = "embedded")]
pub use embedded::{ChainError, EMBEDDED_CHAIN_ID, EmbeddedChain};
pub use error::LedgerError;
pub use http::Http;
pub use inclusion::verify_in_block;
pub use key::LedgerKey;
pub use lane::Slot;
pub use progress::{InFlight, WaitsFor};
pub use queries::OnChain;
pub use registry::{Sender, Terms};
pub use state_proof::ProvenBy;
pub use status::ChainStatus;
pub use submission::{Finality, Mined};
pub use verify::{anchors_on, verify_by_hash, verify_on};
pub use web3::types::{Address, U256};

/// Pauses between attempts to reach a chain.
pub const RECONNECT: BackOff = BackOff { min: Duration::from_millis(200), max: Duration::from_secs(5) };

/// A transport's response: a future that owns everything it needs.
pub type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Connection to a chain; clones share it.
#[derive(Clone, Debug)]
pub enum Connection {
    /// An Ethereum node reached over HTTP.
    Http(Http),
    /// A chain in this process.
    #[cfg(feature = "embedded")]
    Embedded(EmbeddedChain),
}

impl Transport for Connection {
    type Out = Answer<Result<Value>>;

    fn prepare(&self, method: &str, params: Vec<Value>) -> (RequestId, Call) {
        match self {
            Self::Http(http) => http.prepare(method, params),
            #[cfg(feature = "embedded")]
            Self::Embedded(chain) => chain.prepare(method, params),
        }
    }

    fn send(&self, id: RequestId, request: Call) -> Self::Out {
        match self {
            Self::Http(http) => http.send(id, request),
            #[cfg(feature = "embedded")]
            Self::Embedded(chain) => chain.send(id, request),
        }
    }
}

impl BatchTransport for Connection {
    type Batch = Answer<Result<Vec<Result<Value>>>>;

    fn send_batch<T: IntoIterator<Item = (RequestId, Call)>>(&self, requests: T) -> Self::Batch {
        match self {
            Self::Http(http) => http.send_batch(requests),
            #[cfg(feature = "embedded")]
            Self::Embedded(chain) => chain.send_batch(requests),
        }
    }
}
