// SPDX-License-Identifier: Apache-2.0
//! Runs the chains for the node: opens and serves the embedded one, and has evidence anchored.
//!
//! While the chain cannot be reached, the registry counts as unavailable.
//!
//! [`super::anchoring`] connects and anchors, [`super::shared_chain`] does so for the embedded chain's own blocks, and
//! [`super::registry`] asks and changes the registry.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use chain::{
    ChainError, Connection, Contracts, EmbeddedChain, Http, LedgerError, LedgerKey, LedgerOptions, ProvenBy,
};
use evidence::Source;
use tokio::net::TcpListener;

use crate::{
    address::AddressKey,
    anchoring::{Anchoring, AnchoringError, Followed, LAG, Reports, options},
    names::Names,
    params::{CHAIN_DIRECTORY, Params, RegistryProof},
    registrar::{Pauses, Registrar},
    registry::Registry,
    revocations::{Revocations, RevocationsError},
    shared_chain::{SharedChain, SharedChainError, SharedHandles},
    store::EvidenceStore,
};

/// Name of the ledger's status on `/diagnostics`.
pub const STATUS: &str = "ledger";
/// How long until a revocation that the chain did not take is sent again.
const REVOKE_AGAIN: Duration = Duration::from_secs(5);

/// The chain cannot be used, and waiting will not help.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The embedded chain's files cannot be used.
    #[error("embedded chain: {0}")]
    Embedded(#[from] ChainError),
    /// The embedded chain cannot be served where it should be.
    #[error("cannot listen on {address} (parameter 'embedded_rpc_listen'): {source}")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
    /// The endpoint or a key cannot be used.
    #[error("ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// The revocations that wait for the chain cannot be read.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
    /// The evidence cannot be anchored.
    #[error("ledger: {0}")]
    Anchoring(#[from] AnchoringError),
    /// The embedded chain cannot be anchored into the shared one.
    #[error("shared chain (parameter 'anchor_embedded_into'): {0}")]
    Shared(#[from] SharedChainError),
}

/// Task that has evidence anchored.
pub struct ChainKeeper {
    anchoring: Anchoring,
    reports: Reports,
    shared: Option<SharedChain>,
    /// Where the embedded chain is served.
    listen: Option<SocketAddr>,
}

/// Handles that connect the node to the keeper.
pub struct KeeperHandles {
    /// Registry queries and changes.
    pub registry: Registry,
    /// Makes the changes.
    pub registrar: Registrar,
    /// The chain, the receipts to publish, and how it is.
    pub chain: Followed,
    /// The shared chain that the embedded one is anchored into, if it is.
    pub shared: Option<SharedHandles>,
}

impl ChainKeeper {
    /// Loads the ledger key and opens the embedded chain, if that is used; does not connect yet. `source` states the
    /// blocks of the embedded chain. Blocking.
    ///
    /// # Errors
    /// If a key, an endpoint, the embedded chain or the waiting revocations cannot be used.
    pub fn open(
        params: Params,
        store: EvidenceStore,
        address_key: AddressKey,
        source: Source,
    ) -> Result<(Self, KeeperHandles), KeeperError> {
        let load = |path: &Path, password: &Option<PathBuf>| match password {
            Some(password) => LedgerKey::decrypt(path, password),
            None => LedgerKey::load_or_create(path),
        };
        let key = load(&params.ledger_key_path, &params.ledger_key_password_path)?;
        let registrar = params.registrar_key_path.as_deref();
        let registrar = registrar.map(|path| load(path, &params.registrar_key_password_path)).transpose()?;
        let chain = match &params.ethereum_endpoint {
            Some(url) => Connection::Http(open_nodes(url, &params)?),
            None => {
                let directory = params.state_directory.join(CHAIN_DIRECTORY);
                Connection::Embedded(EmbeddedChain::open(&directory, key.address(), SystemTime::now)?)
            }
        };
        let shared = match (&chain, &params.anchor_embedded_into) {
            (Connection::Embedded(embedded), Some(endpoint)) => {
                let key = load(&params.anchor_embedded_key_path, &params.anchor_embedded_key_password_path)?;
                Some(SharedChain::open(&params, endpoint, (embedded.clone(), key), source)?)
            }
            _ => None,
        };
        let (shared, shared_handles) = shared.unzip();
        let (reports, followed) = Reports::new();
        let revocations = Revocations::open(&params.state_directory.join("revocations"), LAG)?;
        let files = (revocations, Names::open(&params.state_directory.join("senders")));
        let proof = params.registry_proof.map(|proof| match proof {
            RegistryProof::Finalized => ProvenBy::Finalized,
            RegistryProof::Witness => ProvenBy::Witness,
        });
        let pauses = Pauses { again: REVOKE_AGAIN, lag: LAG };
        let (registry, changes) = Registry::new(
            followed.ledger.clone(),
            address_key,
            files,
            reports.health(),
            pauses,
            (proof, SystemTime::now),
        );
        let listen = params.embedded_rpc_listen;
        let contracts = params.contracts.map(|(registry, ledger)| Contracts { registry, ledger });
        let options = LedgerOptions { contracts, registrar, ..options(&params) };
        let anchoring = Anchoring {
            name: STATUS,
            chain,
            key,
            max_batch: params.batch_max_mails,
            max_age: params.batch_max_age,
            directory: params.state_directory,
            options,
            store,
        };
        let handles = KeeperHandles { registry, registrar: changes, chain: followed, shared: shared_handles };
        Ok((Self { anchoring, reports, shared, listen }, handles))
    }

    /// Connects, however long it takes, then anchors until dropped; meanwhile serves the embedded chain. Safe to drop at
    /// any time.
    ///
    /// # Errors
    /// The first error that waiting will not cure.
    pub async fn run(self) -> Result<(), KeeperError> {
        let Self { anchoring, reports, shared, listen } = self;
        let served = match (&anchoring.chain, listen) {
            (Connection::Embedded(chain), Some(address)) => Some((chain.clone(), listen_on(address).await?)),
            _ => None,
        };
        let serve = async {
            match served {
                Some((chain, listener)) => chain.serve(listener).await,
                None => std::future::pending().await,
            }
        };
        let share = async {
            match shared {
                Some(shared) => shared.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = anchoring.run(reports) => Ok(result?),
            result = share => Ok(result?),
            () = serve => Ok(()),
        }
    }
}

/// The node at `url` and those that stand in for it; does not connect yet.
fn open_nodes(url: &str, params: &Params) -> Result<Http, LedgerError> {
    let node = params
        .ethereum_witnesses
        .iter()
        .try_fold(Http::new(url)?, |node, witness| Ok::<_, LedgerError>(node.with(&Http::new(witness)?)))?;
    if params.ethereum_witnesses.is_empty() {
        tracing::warn!("no ethereum_witnesses: the one Ethereum node is believed about who is an operator");
    }
    node.check_protected(params.ethereum_plain_http)?;
    Ok(node)
}

/// Listens on `address`, and says where.
async fn listen_on(address: SocketAddr) -> Result<TcpListener, KeeperError> {
    let failed = |source| KeeperError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "the embedded chain serves JSON-RPC");
    Ok(listener)
}
