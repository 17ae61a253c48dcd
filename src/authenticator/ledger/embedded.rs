//! The embedded chain: an Ethereum node in the process, for development and for a host that has no other.
//!
//! It answers the same JSON-RPC through the same [`Transport`] as a real node, runs the same EVM with the same gas,
//! mines one block a transaction at once, and keeps everything on disk before anybody sees it. What it lacks is
//! what makes a chain a witness: **whoever owns the disk can write it anew.** It proves nothing against its operator.
//!
//! The genesis gives all its money to one account. Block times never go back and may be equal.

mod block;
mod chain;
mod evm;
mod rpc;
mod transaction;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use jsonrpc_core::{Call, Params, Value};
use web3::{
    BatchTransport, RequestId, Transport, error,
    helpers::build_request,
    types::{Address, H256},
};

pub use chain::ChainError;

use super::Answer;

/// Chain id of every embedded chain (EIP-155): "post" in ASCII. No public chain has it, so a transaction meant for
/// one is no transaction on the other.
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
    /// Opens the chain in `dir`, or makes one that gives `funded` all the money. `now` is the clock of its blocks.
    /// Blocking.
    ///
    /// # Errors
    /// If the files cannot be used, are in use, do not hold a chain, or hold that of another account.
    pub fn open(dir: &Path, funded: Address, now: fn() -> SystemTime) -> Result<Self, ChainError> {
        let genesis = block::Genesis { chain_id: EMBEDDED_CHAIN_ID, funded };
        Ok(Self::new(chain::Chain::open(dir, &genesis)?, now))
    }

    /// Reads the chain in `dir` as it is now, also while another process extends it: for a verifier. Takes no
    /// transactions, sees no later blocks. Blocking.
    ///
    /// # Errors
    /// If the files cannot be read or do not hold a chain.
    pub fn open_read_only(dir: &Path) -> Result<Self, ChainError> {
        Ok(Self::new(chain::Chain::read(dir)?, || SystemTime::UNIX_EPOCH))
    }

    /// Number and hash of the newest block.
    pub fn head(&self) -> (u64, H256) {
        let chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        (chain.head_number(), chain.head_hash())
    }

    fn new(chain: chain::Chain, now: fn() -> SystemTime) -> Self {
        Self { chain: Arc::new(Mutex::new(chain)), now, requests: Arc::default() }
    }

    /// Blocking: a transaction is synced to disk.
    fn answer(&self, call: &Call) -> error::Result<Value> {
        let Call::MethodCall(call) = call else {
            return Err(error::Error::Rpc(rpc::error(-32600, "not a method call")));
        };
        let params = match &call.params {
            Params::Array(params) => params.as_slice(),
            Params::None => &[],
            Params::Map(_) => {
                return Err(error::Error::Rpc(rpc::error(-32602, "parameters must be an array")));
            }
        };
        // The chain changes only after its file: a panic leaves it as it was.
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        rpc::answer(&mut chain, &call.method, params, (self.now)()).map_err(error::Error::Rpc)
    }

    /// Runs off the runtime's workers, which must not wait for a disk.
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
        let answer = self.blocking(move |chain| chain.answer(&request));
        Box::pin(async move { answer.await? })
    }
}

impl BatchTransport for EmbeddedChain {
    type Batch = Answer<error::Result<Vec<error::Result<Value>>>>;

    fn send_batch<T: IntoIterator<Item = (RequestId, Call)>>(&self, requests: T) -> Self::Batch {
        let requests: Vec<_> = requests.into_iter().map(|(_, request)| request).collect();
        self.blocking(move |chain| requests.iter().map(|request| chain.answer(request)).collect())
    }
}
