//! The chain in the life of the node: opened, waited for, anchored to, asked; and how it is, for diagnostics.
//!
//! An unreachable chain stops nothing: evidence waits on disk, the registry is unavailable, and both go on when the
//! chain is back.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc, watch};

use super::{
    address::AddressKey,
    anchor::{AnchorError, AnchorPolicy, AnchorState, Anchorer},
    evidence::{Receipt, store::EvidenceStore},
    health,
    ledger::{Chain, ChainError, EmbeddedChain, Http, Ledger, LedgerError, LedgerKey, LedgerOptions},
    params::Params,
};
use crate::mail::{Registration, Role};

/// The key of a registration that pins none.
const ANY_KEY: [u8; 32] = [0; 32];
/// How long confirmations are waited for before the chain is asked again how far it is.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a mail waits for the registry.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the chain may contradict the evidence log before the node ends.
const CONTRADICTION_PATIENCE: Duration = Duration::from_secs(600);
/// Receipts that wait to be published.
const RECEIPTS: usize = 1024;

/// The chain cannot be used, and waiting does not cure it.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The embedded chain's files.
    #[error("embedded chain: {0}")]
    Embedded(#[from] ChainError),
    /// The endpoint, the key or the contracts.
    #[error("ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// Log and chain do not belong together.
    #[error("ledger: {0}")]
    Anchor(#[from] AnchorError),
}

/// Asks the chain; clones ask the same one.
#[derive(Clone)]
pub struct Registry {
    ledger: watch::Receiver<Option<Arc<Ledger>>>,
    key: Arc<AddressKey>,
}

impl Registry {
    /// Keyed digest of an address.
    pub fn digest(&self, address: &str) -> [u8; 32] {
        self.key.digest(address)
    }

    /// Returns when the chain was connected for the first time.
    pub async fn connected_once(mut self) {
        // An error means that the node ends.
        let _ = self.ledger.wait_for(Option::is_some).await;
    }

    /// What the registry says of `address`; unavailable if the chain does not answer in time.
    pub async fn sender(&self, address: &str) -> (Registration, Role) {
        let unavailable = (Registration::Unavailable, Role::None);
        let Some(ledger) = self.ledger.borrow().clone() else { return unavailable };
        match tokio::time::timeout(REGISTRY_TIMEOUT, ledger.sender(self.digest(address))).await {
            Ok(Ok((registration, role, pinned_key))) if pinned_key == ANY_KEY => (registration, role),
            Ok(Ok(_)) => {
                tracing::warn!("the registry pins a DKIM key to the sender, which this version cannot check");
                unavailable
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "registry unavailable");
                unavailable
            }
            Err(_) => {
                tracing::warn!(timeout = ?REGISTRY_TIMEOUT, "registry unavailable");
                unavailable
            }
        }
    }

    /// Registers `address`, or changes its role; the transaction's hash when it is confirmed.
    ///
    /// # Errors
    /// If the chain is not connected, cannot be reached, or refuses.
    pub async fn register(&self, address: &str, role: Role) -> Result<String, String> {
        let ledger = self.connected()?;
        let mined = ledger.register(self.digest(address), role, ANY_KEY).await;
        mined.map(|mined| format!("{:#x}", mined.transaction)).map_err(|error| error.to_string())
    }

    /// Revokes `address`; the transaction's hash when it is confirmed.
    ///
    /// # Errors
    /// If the chain is not connected, cannot be reached, or refuses.
    pub async fn revoke(&self, address: &str) -> Result<String, String> {
        let mined = self.connected()?.revoke(self.digest(address)).await;
        mined.map(|mined| format!("{:#x}", mined.transaction)).map_err(|error| error.to_string())
    }

    fn connected(&self) -> Result<Arc<Ledger>, String> {
        self.ledger
            .borrow()
            .clone()
            .ok_or_else(|| "the chain is not connected yet; see /diagnostics".to_owned())
    }
}

/// Connects and anchors.
pub struct Keeper {
    chain: Chain,
    key: LedgerKey,
    params: Params,
    store: EvidenceStore,
    connected: watch::Sender<Option<Arc<Ledger>>>,
    receipts: mpsc::Sender<Receipt>,
    health: watch::Sender<health::Ledger>,
}

/// What the node has of the chain.
pub struct Ends {
    /// To ask it.
    pub registry: Registry,
    /// Receipts to publish, in order.
    pub receipts: mpsc::Receiver<Receipt>,
    /// How it is.
    pub health: watch::Receiver<health::Ledger>,
}

impl Keeper {
    /// Opens what is on this host; does not connect yet. Blocking.
    ///
    /// # Errors
    /// If a key, the endpoint or the embedded chain cannot be used.
    pub fn open(
        params: Params,
        store: EvidenceStore,
        address_key: AddressKey,
    ) -> Result<(Self, Ends), KeeperError> {
        let key = LedgerKey::load_or_create(&params.ledger_key_path)?;
        let chain = match &params.ethereum_endpoint {
            Some(url) => Chain::Http(Http::new(url)?),
            None => {
                let directory = params.state_directory.join("chain");
                Chain::Embedded(EmbeddedChain::open(&directory, key.address(), SystemTime::now)?)
            }
        };
        let (connected, ledger) = watch::channel(None);
        let (receipts, receipts_out) = mpsc::channel(RECEIPTS);
        let (health, health_out) = watch::channel(health::Ledger::default());
        let keeper = Self { chain, key, params, store, connected, receipts, health };
        let registry = Registry { ledger, key: Arc::new(address_key) };
        Ok((keeper, Ends { registry, receipts: receipts_out, health: health_out }))
    }

    /// Connects, however long it takes, then anchors until it is dropped, which is safe at any time.
    ///
    /// # Errors
    /// What waiting does not cure.
    pub async fn run(self) -> Result<(), KeeperError> {
        let Self { chain, key, params, store, connected, receipts, health } = self;
        let options = LedgerOptions {
            confirmations: params.confirmations,
            timeout: CONFIRMATION_TIMEOUT,
            contracts: params.contracts,
        };
        let report = |error: &LedgerError| {
            let text = error.to_string();
            // Once for each kind of failure, not for each attempt.
            if health.borrow().last_error.as_ref() != Some(&text) {
                tracing::warn!(%error, "waiting for the chain");
                health.send_modify(|health| health.last_error = Some(text));
            }
        };
        let ledger = Ledger::connect_patiently(chain, key, &params.state_directory, options, report).await?;
        let ledger = Arc::new(ledger);
        let addresses = ledger.addresses();
        tracing::info!(chain_id = addresses.chain_id, registry = ?addresses.sender_registry,
            ledger = ?addresses.evidence_ledger, "connected to the chain");
        health.send_modify(|health| (health.connected, health.last_error) = (true, None));
        connected.send_replace(Some(Arc::clone(&ledger)));

        let (state, mut states) = watch::channel(AnchorState::default());
        let anchorer = Anchorer {
            store,
            ledger,
            policy: AnchorPolicy {
                max_batch: params.batch_max_mails,
                max_age: params.batch_max_age,
                patience: CONTRADICTION_PATIENCE,
            },
            receipts,
            state,
            now: SystemTime::now,
        };
        let follow = async {
            while states.changed().await.is_ok() {
                let AnchorState { reachable, anchored, last_error, .. } = states.borrow_and_update().clone();
                health.send_replace(health::Ledger { connected: true, reachable, anchored, last_error });
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = anchorer.run(std::future::pending()) => Ok(result?),
            () = follow => Ok(()),
        }
    }
}
