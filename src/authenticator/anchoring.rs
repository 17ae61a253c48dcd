// SPDX-License-Identifier: Apache-2.0
//! Has one log anchored on one chain: waits for the chain, anchors what the log has and gets, and reports how both are.
//!
//! An unreachable chain stops nothing: evidence waits on disk, and anchoring resumes when the chain is back.
//!
//! [`super::anchor`] decides what to anchor and when; [`Ledger`] talks to the contracts.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use chain::{
    Address, ChainStatus, Connection, Ledger, LedgerError, LedgerKey, LedgerOptions, U256, WaitsFor,
};
use evidence::{Receipt, eip55::to_eip55};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{
    anchor::{AnchorError, AnchorPolicy, AnchorState, Anchorer},
    health,
    params::{GWEI, Params},
    store::EvidenceStore,
};

/// How long to wait for confirmations before asking the chain again where it stands.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(300);
/// How long the chain may contradict the evidence log before the node ends.
const CONTRADICTION_PATIENCE: Duration = Duration::from_secs(600);
/// How often to look whether the chain still has what was final.
const WATCH: Duration = Duration::from_secs(4);
/// How far one of several nodes behind an endpoint may lag.
pub(crate) const LAG: Duration = Duration::from_secs(15);
/// How often to ask the chain how it stands, for people.
const CHAIN_STATUS: Duration = Duration::from_secs(10);
/// Maximum number of receipts queued for whoever takes them.
const RECEIPTS: usize = 1024;

/// A chain cannot be used, and waiting will not help.
#[derive(Debug, thiserror::Error)]
pub enum AnchoringError {
    /// The key or the contracts cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The evidence log and the chain do not belong together.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
}

/// A log and the chain that it is anchored on.
pub struct Anchoring {
    /// Its status on `/diagnostics`, by which log lines tell it from others.
    pub name: &'static str,
    /// The chain.
    pub chain: Connection,
    /// Key of the account that anchors.
    pub key: LedgerKey,
    /// Directory of `contracts.json` and of the transactions in flight.
    pub directory: PathBuf,
    /// How the chain is used.
    pub options: LedgerOptions,
    /// Most leaves of a batch.
    pub max_batch: u32,
    /// Longest time a leaf waits for others to join its batch.
    pub max_age: Duration,
    /// The log.
    pub store: EvidenceStore,
}

/// What follows an [`Anchoring`].
pub struct Followed {
    /// The chain, once it is connected.
    pub ledger: watch::Receiver<Option<Arc<Ledger>>>,
    /// The receipts, in order. If they are not taken, nothing is anchored any more.
    pub receipts: mpsc::Receiver<Receipt>,
    /// How the chain is, for diagnostics.
    pub health: watch::Receiver<health::Ledger>,
}

/// The ends of [`Followed`] that an [`Anchoring`] reports to.
pub struct Reports {
    connected: watch::Sender<Option<Arc<Ledger>>>,
    receipts: mpsc::Sender<Receipt>,
    health: watch::Sender<health::Ledger>,
}

impl Reports {
    /// Both ends, of a chain that is not connected yet.
    pub fn new() -> (Self, Followed) {
        let (connected, ledger) = watch::channel(None);
        let (receipts, receipts_out) = mpsc::channel(RECEIPTS);
        let (health, health_out) = watch::channel(health::Ledger::default());
        (
            Self { connected, receipts, health },
            Followed { ledger, receipts: receipts_out, health: health_out },
        )
    }

    /// Where the chain's health is reported, for others that know something of it.
    pub fn health(&self) -> watch::Sender<health::Ledger> {
        self.health.clone()
    }
}

/// How `params` want a chain to be used; without contracts and registrar of their own.
pub fn options(params: &Params) -> LedgerOptions {
    LedgerOptions {
        confirmations: params.confirmations,
        timeout: CONFIRMATION_TIMEOUT,
        in_flight: params.transactions_in_flight,
        max_fee: params.max_fee.into(),
        contracts: None,
        registrar: None,
        refused_chain_id: None,
    }
}

impl Anchoring {
    /// Connects, however long it takes, then anchors until dropped. Safe to drop at any time.
    ///
    /// # Errors
    /// The first error that waiting will not cure.
    pub async fn run(self, reports: Reports) -> Result<(), AnchoringError> {
        let Self { name, chain, key, directory, options, max_batch, max_age, store } = self;
        let Reports { connected, receipts, health } = reports;
        let shown = |address: Address| to_eip55(&address.0);
        tracing::info!(name, account = shown(key.address()), "connecting to the chain; this account pays");
        if let Some(registrar) = &options.registrar {
            tracing::info!(name, account = shown(registrar.address()), "this account registers and revokes");
        }
        let report = |error: &LedgerError| {
            let text = error.to_string();
            // Log each kind of failure once, not each attempt.
            if health.borrow().last_error.as_ref() != Some(&text) {
                tracing::warn!(name, %error, "waiting for the chain");
                health.send_modify(|health| health.last_error = Some(text));
            }
        };
        let max_fee = u64::try_from(options.max_fee).unwrap_or(u64::MAX);
        let ledger = Arc::new(Ledger::connect_patiently(chain, key, &directory, options, report).await?);
        let addresses = ledger.addresses();
        tracing::info!(name, chain_id = addresses.chain_id, registry = shown(addresses.sender_registry),
            ledger = shown(addresses.evidence_ledger), finality = ?ledger.finality(), "connected to the chain");
        health.send_modify(|health| {
            (health.connected, health.last_error) = (true, None);
            health.facts = Some(health::Facts {
                chain_id: addresses.chain_id,
                registry: shown(addresses.sender_registry),
                ledger: shown(addresses.evidence_ledger),
                finality: ledger.finality().to_string(),
                max_fee,
            });
        });
        connected.send_replace(Some(Arc::clone(&ledger)));

        let (state, states) = watch::channel(AnchorState::default());
        let policy =
            AnchorPolicy { max_batch, max_age, patience: CONTRADICTION_PATIENCE, watch: WATCH, lag: LAG };
        let anchorer =
            Anchorer { store, ledger: Arc::clone(&ledger), policy, receipts, state, now: SystemTime::now };
        tokio::select! {
            result = anchorer.run(std::future::pending()) => Ok(result?),
            () = follow_anchorer(states, &health) => Ok(()),
            () = follow_transactions(&ledger, &health) => Ok(()),
            () = follow_chain(name, &ledger, &health) => Ok(()),
        }
    }
}

/// Reports how far the anchorer is.
async fn follow_anchorer(mut states: watch::Receiver<AnchorState>, health: &watch::Sender<health::Ledger>) {
    while states.changed().await.is_ok() {
        let AnchorState { reachable, anchored, last_error, last_anchor, .. } =
            states.borrow_and_update().clone();
        health.send_modify(|health| {
            (health.reachable, health.anchored, health.last_error) = (reachable, anchored, last_error);
            health.last_anchor = last_anchor;
        });
    }
    std::future::pending().await
}

/// Reports how the chain stands, and whether its nodes agree.
async fn follow_chain(name: &'static str, ledger: &Ledger, health: &watch::Sender<health::Ledger>) {
    loop {
        if let Ok(status) = ledger.status().await {
            health.send_modify(|health| health.chain = Some(standing(&status)));
        }
        if let Ok(dissent) = ledger.dissent().await {
            if let Some(dissent) = dissent.as_ref().filter(|_| health.borrow().dissent != dissent) {
                tracing::warn!(name, dissent, "the Ethereum nodes differ");
            }
            health.send_modify(|health| health.dissent = dissent);
        }
        sleep(CHAIN_STATUS).await;
    }
}

/// Reports the transactions in flight.
async fn follow_transactions(ledger: &Ledger, health: &watch::Sender<health::Ledger>) {
    let (mut in_flight, mut registering) = (ledger.in_flight(), ledger.registrar_in_flight());
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
