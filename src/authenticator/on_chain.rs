// SPDX-License-Identifier: Apache-2.0
//! Runs the chain for the node: opens it, waits for it, anchors evidence and reports its health.
//!
//! An unreachable chain stops nothing: evidence waits on disk, the registry counts as unavailable, and both resume
//! when the chain is back.
//!
//! [`super::anchor`] decides what to anchor and when, [`super::registry`] asks and changes the registry; [`Ledger`] talks
//! to the contracts.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use chain::{
    Address, ChainError, ChainStatus, Connection, Contracts, EmbeddedChain, Http, Ledger, LedgerError,
    LedgerKey, LedgerOptions, ProvenBy, U256, WaitsFor,
};
use evidence::{Receipt, eip55::to_eip55};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{
    address::AddressKey,
    anchor::{AnchorError, AnchorPolicy, AnchorState, Anchorer},
    health,
    names::Names,
    params::{GWEI, Params, RegistryProof},
    registrar::{Pauses, Registrar},
    registry::Registry,
    revocations::{Revocations, RevocationsError},
    store::EvidenceStore,
};

/// How long to wait for confirmations before asking the chain again where it stands.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(300);
/// How long the chain may contradict the evidence log before the node ends.
const CONTRADICTION_PATIENCE: Duration = Duration::from_secs(600);
/// How often to look whether the chain still has what was final.
const WATCH: Duration = Duration::from_secs(4);
/// How far one of several nodes behind an endpoint may lag.
const LAG: Duration = Duration::from_secs(15);
/// How long until a revocation that the chain did not take is sent again.
const REVOKE_AGAIN: Duration = Duration::from_secs(5);
/// How often to ask the chain how it stands, for people.
const CHAIN_STATUS: Duration = Duration::from_secs(10);
/// Maximum number of receipts queued for publishing.
const RECEIPTS: usize = 1024;

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
    /// The endpoint, the key or the contracts cannot be used.
    #[error("ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// The revocations that wait for the chain cannot be read.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
    /// The evidence log and the chain do not belong together.
    #[error("ledger: {0}")]
    Anchor(#[from] AnchorError),
}

/// Task that connects to the chain and anchors evidence.
pub struct ChainKeeper {
    chain: Connection,
    key: LedgerKey,
    registrar: Option<LedgerKey>,
    params: Params,
    store: EvidenceStore,
    connected: watch::Sender<Option<Arc<Ledger>>>,
    receipts: mpsc::Sender<Receipt>,
    health: watch::Sender<health::Ledger>,
}

/// Handles that connect the node to the keeper.
pub struct KeeperHandles {
    /// Registry queries and changes.
    pub registry: Registry,
    /// Makes the changes.
    pub registrar: Registrar,
    /// The chain, once it is connected.
    pub ledger: watch::Receiver<Option<Arc<Ledger>>>,
    /// Receipts to publish, in order.
    pub receipts: mpsc::Receiver<Receipt>,
    /// Health of the chain, for diagnostics.
    pub health: watch::Receiver<health::Ledger>,
}

impl ChainKeeper {
    /// Loads the ledger key and opens the embedded chain, if that is used; does not connect yet. Blocking.
    ///
    /// # Errors
    /// If a key, the endpoint, the embedded chain or the waiting revocations cannot be used.
    pub fn open(
        params: Params,
        store: EvidenceStore,
        address_key: AddressKey,
    ) -> Result<(Self, KeeperHandles), KeeperError> {
        let load = |path: &Path, password: &Option<PathBuf>| match password {
            Some(password) => LedgerKey::decrypt(path, password),
            None => LedgerKey::load_or_create(path),
        };
        let key = load(&params.ledger_key_path, &params.ledger_key_password_path)?;
        let registrar = params.registrar_key_path.as_deref();
        let registrar = registrar.map(|path| load(path, &params.registrar_key_password_path)).transpose()?;
        let chain = match &params.ethereum_endpoint {
            Some(url) => {
                let node = params.ethereum_witnesses.iter().try_fold(Http::new(url)?, |node, witness| {
                    Ok::<_, LedgerError>(node.with(&Http::new(witness)?))
                })?;
                if params.ethereum_witnesses.is_empty() {
                    tracing::warn!(
                        "no ethereum_witnesses: the one Ethereum node is believed about who is an operator"
                    );
                }
                if !node.is_protected() && !params.ethereum_plain_http {
                    let rule = "https, or http to this host, unless ethereum_plain_http is true".to_owned();
                    return Err(LedgerError::Endpoint { rule }.into());
                }
                Connection::Http(node)
            }
            None => {
                let directory = params.state_directory.join("chain");
                Connection::Embedded(EmbeddedChain::open(&directory, key.address(), SystemTime::now)?)
            }
        };
        let (connected, ledger) = watch::channel(None);
        let (receipts, receipts_out) = mpsc::channel(RECEIPTS);
        let (health, health_out) = watch::channel(health::Ledger::default());
        let revocations = Revocations::open(&params.state_directory.join("revocations"), LAG)?;
        let files = (revocations, Names::open(&params.state_directory.join("senders")));
        let proof = params.registry_proof.map(|proof| match proof {
            RegistryProof::Finalized => ProvenBy::Finalized,
            RegistryProof::Witness => ProvenBy::Witness,
        });
        let pauses = Pauses { again: REVOKE_AGAIN, lag: LAG };
        let (registry, changes) = Registry::new(
            ledger.clone(),
            address_key,
            files,
            health.clone(),
            pauses,
            (proof, SystemTime::now),
        );
        let handles = KeeperHandles {
            registry,
            registrar: changes,
            ledger,
            receipts: receipts_out,
            health: health_out,
        };
        Ok((Self { chain, key, registrar, params, store, connected, receipts, health }, handles))
    }

    /// Connects, however long it takes, then anchors until dropped; meanwhile serves the embedded chain. Safe to drop at
    /// any time.
    ///
    /// # Errors
    /// The first error that waiting will not cure.
    pub async fn run(self) -> Result<(), KeeperError> {
        match (&self.chain, self.params.embedded_rpc_listen) {
            (Connection::Embedded(chain), Some(address)) => {
                let (chain, listener) = (chain.clone(), listen(address).await?);
                tokio::select! {
                    result = self.anchor() => result,
                    () = chain.serve(listener) => Ok(()),
                }
            }
            _ => self.anchor().await,
        }
    }

    async fn anchor(self) -> Result<(), KeeperError> {
        let Self { chain, key, registrar, params, store, connected, receipts, health } = self;
        let options = LedgerOptions {
            confirmations: params.confirmations,
            timeout: CONFIRMATION_TIMEOUT,
            in_flight: params.transactions_in_flight,
            max_fee: params.max_fee.into(),
            contracts: params.contracts.map(|(registry, ledger)| Contracts { registry, ledger }),
            registrar: registrar.clone(),
        };
        let shown = |address: Address| to_eip55(&address.0);
        tracing::info!(account = shown(key.address()), "connecting to the chain; this account pays");
        if let Some(registrar) = &registrar {
            tracing::info!(account = shown(registrar.address()), "this account registers and revokes");
        }
        let report = |error: &LedgerError| {
            let text = error.to_string();
            // Log each kind of failure once, not each attempt.
            if health.borrow().last_error.as_ref() != Some(&text) {
                tracing::warn!(%error, "waiting for the chain");
                health.send_modify(|health| health.last_error = Some(text));
            }
        };
        let ledger = Ledger::connect_patiently(chain, key, &params.state_directory, options, report).await?;
        let ledger = Arc::new(ledger);
        let addresses = ledger.addresses();
        tracing::info!(chain_id = addresses.chain_id, registry = shown(addresses.sender_registry),
            ledger = shown(addresses.evidence_ledger), finality = ?ledger.finality(), "connected to the chain");
        health.send_modify(|health| {
            (health.connected, health.last_error) = (true, None);
            health.facts = Some(health::Facts {
                chain_id: addresses.chain_id,
                registry: shown(addresses.sender_registry),
                ledger: shown(addresses.evidence_ledger),
                finality: ledger.finality().to_string(),
                max_fee: params.max_fee,
            });
        });
        connected.send_replace(Some(Arc::clone(&ledger)));

        let (state, mut states) = watch::channel(AnchorState::default());
        let asked = Arc::clone(&ledger);
        let (mut in_flight, mut registering) = (ledger.in_flight(), ledger.registrar_in_flight());
        let anchorer = Anchorer {
            store,
            ledger,
            policy: AnchorPolicy {
                max_batch: params.batch_max_mails,
                max_age: params.batch_max_age,
                patience: CONTRADICTION_PATIENCE,
                watch: WATCH,
                lag: LAG,
            },
            receipts,
            state,
            now: SystemTime::now,
        };
        let follow_anchorer = async {
            while states.changed().await.is_ok() {
                let AnchorState { reachable, anchored, last_error, last_anchor, .. } =
                    states.borrow_and_update().clone();
                health.send_modify(|health| {
                    (health.reachable, health.anchored, health.last_error) =
                        (reachable, anchored, last_error);
                    health.last_anchor = last_anchor;
                });
            }
            std::future::pending::<()>().await;
        };
        let follow_chain = async {
            loop {
                if let Ok(status) = asked.status().await {
                    health.send_modify(|health| health.chain = Some(standing(&status)));
                }
                if let Ok(dissent) = asked.dissent().await {
                    if let Some(dissent) = dissent.as_ref().filter(|_| health.borrow().dissent != dissent) {
                        tracing::warn!(dissent, "the Ethereum nodes differ");
                    }
                    health.send_modify(|health| health.dissent = dissent);
                }
                sleep(CHAIN_STATUS).await;
            }
        };
        let follow_transactions = async {
            loop {
                let mut open: Vec<_> = in_flight.borrow_and_update().clone().into_iter().collect();
                open.extend(registering.as_mut().and_then(|changes| changes.borrow_and_update().clone()));
                let silence = open.iter().find_map(|open| match &open.waits_for {
                    WaitsFor::Answer(reason) => Some(reason.clone()),
                    _ => None,
                });
                health.send_modify(|health| {
                    (health.in_flight, health.silence) = (open.iter().map(|open| open.count).sum(), silence);
                    health.late = open.iter().find(|open| open.is_late).map(ToString::to_string);
                });
                let changed = async {
                    match &mut registering {
                        Some(registering) => registering.changed().await,
                        None => std::future::pending().await,
                    }
                };
                let changed = tokio::select! {
                    changed = in_flight.changed() => changed,
                    changed = changed => changed,
                };
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            result = anchorer.run(std::future::pending()) => Ok(result?),
            () = follow_anchorer => Ok(()),
            () = follow_transactions => Ok(()),
            () = follow_chain => Ok(()),
        }
    }
}

/// The chain's status in the units of diagnostics.
fn standing(status: &ChainStatus) -> health::Chain {
    let account = |(address, balance): (Address, U256)| health::Account {
        address: to_eip55(&address.0),
        balance_gwei: u64::try_from(balance / GWEI).unwrap_or(u64::MAX),
    };
    health::Chain {
        head: status.head,
        head_time: status.head_time,
        finalized: status.finalized,
        gas_price_wei: u64::try_from(status.gas_price).unwrap_or(u64::MAX),
        account: account(status.account),
        registrar: status.registrar.map(account),
    }
}

/// Listens on `address`, and says where.
async fn listen(address: SocketAddr) -> Result<TcpListener, KeeperError> {
    let failed = |source| KeeperError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "the embedded chain serves JSON-RPC");
    Ok(listener)
}
