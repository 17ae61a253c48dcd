// SPDX-License-Identifier: Apache-2.0
//! Runs an Ethereum chain inside the process, for development and for hosts without another one.
//!
//! It answers the same JSON-RPC through the same [`Transport`] as a real node, runs the same EVM with the same gas,
//! mines one block per transaction at once, and syncs each block to disk before anybody sees it. The genesis gives
//! all funds to one account. Block times never go back and may be equal. [`EmbeddedChain::serve`] opens it to other
//! programs on this host.
//!
//! It lacks what makes a chain a witness: **whoever owns the disk can rewrite it.** It proves nothing against its
//! operator.

mod block;
mod chain;
mod evm;
mod rpc;
mod server;
mod transaction;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use jsonrpc_core::{Call, MethodCall, Params, Value};
use tokio::net::TcpListener;
use web3::{BatchTransport, RequestId, Transport, error, helpers::build_request, types::Address};

pub use chain::ChainError;

use crate::{Answer, LedgerError};

/// Chain id of every embedded chain (EIP-155): "post" in ASCII. No public chain has it, so a transaction meant for
/// one is invalid on the other.
pub const EMBEDDED_CHAIN_ID: u64 = 0x706f_7374;

/// The embedded chain; clones share it.
#[derive(Clone)]
pub struct EmbeddedChain {
    chain: Arc<Mutex<chain::Chain>>,
    now: fn() -> SystemTime,
    requests: Arc<AtomicUsize>,
}

impl fmt::Debug for EmbeddedChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmbeddedChain")
    }
}

impl EmbeddedChain {
    /// Opens the chain in `dir`, or creates one that gives `funded` all funds. `now` is the clock for its blocks.
    /// Blocking.
    ///
    /// # Errors
    /// If the files cannot be used, are in use, do not hold a chain, or hold that of another account.
    pub fn open(dir: &Path, funded: Address, now: fn() -> SystemTime) -> Result<Self, ChainError> {
        let genesis = block::Genesis { chain_id: EMBEDDED_CHAIN_ID, funded };
        Ok(Self::new(chain::Chain::open(dir, &genesis)?, now))
    }

    /// Serves JSON-RPC over HTTP on `listener`, which must be on a loopback address, until dropped.
    pub async fn serve(self, listener: TcpListener) {
        server::run(self, listener).await;
    }

    /// Hashes of at most `most` blocks, from the one with this number on; 0 is the genesis.
    ///
    /// # Errors
    /// None is expected: only that the process failed.
    pub async fn hashes(&self, from: u64, most: usize) -> Result<Vec<[u8; 32]>, LedgerError> {
        let hashes = self.blocking(move |this| {
            let chain = this.chain();
            (from..).map_while(|number| chain.hash_of(number)).map(|hash| hash.0).take(most).collect()
        });
        hashes.await.map_err(|error| LedgerError::from_web3("read the embedded chain", error))
    }

    fn new(chain: chain::Chain, now: fn() -> SystemTime) -> Self {
        Self { chain: Arc::new(Mutex::new(chain)), now, requests: Arc::default() }
    }

    /// Answers one request. Blocking, because a transaction is synced to disk.
    fn answer(&self, call: &MethodCall) -> Result<Value, jsonrpc_core::Error> {
        let params = match &call.params {
            Params::Array(params) => params.as_slice(),
            Params::None => &[],
            Params::Map(_) => return Err(rpc::error(-32602, "parameters must be an array")),
        };
        rpc::answer(&mut self.chain(), &call.method, params, (self.now)())
    }

    fn chain(&self) -> MutexGuard<'_, chain::Chain> {
        // It changes in memory only after its file, so a panic leaves it consistent.
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request that this process made.
    fn answer_own(&self, call: &Call) -> error::Result<Value> {
        let answer = match call {
            Call::MethodCall(call) => self.answer(call),
            _ => Err(rpc::error(-32600, "not a method call")),
        };
        answer.map_err(error::Error::Rpc)
    }

    /// Runs `work` outside the runtime's workers, which must not wait for a disk.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Answer<error::Result<T>> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this));
        Box::pin(async move { done.await.map_err(|_| error::Error::Internal) })
    }
}

impl Transport for EmbeddedChain {
    type Out = Answer<error::Result<Value>>;

    fn prepare(&self, method: &str, params: Vec<Value>) -> (RequestId, Call) {
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        (id, build_request(id, method, params))
    }

    fn send(&self, _id: RequestId, request: Call) -> Self::Out {
        let answer = self.blocking(move |chain| chain.answer_own(&request));
        Box::pin(async move { answer.await? })
    }
}

impl BatchTransport for EmbeddedChain {
    type Batch = Answer<error::Result<Vec<error::Result<Value>>>>;

    fn send_batch<T: IntoIterator<Item = (RequestId, Call)>>(&self, requests: T) -> Self::Batch {
        let requests: Vec<_> = requests.into_iter().map(|(_, request)| request).collect();
        self.blocking(move |chain| requests.iter().map(|request| chain.answer_own(request)).collect())
    }
}
