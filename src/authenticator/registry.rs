// SPDX-License-Identifier: Apache-2.0
//! Answers who is registered, and changes the registry, one change after another in the order of the requests.
//!
//! A revocation MUST hold from the moment that it is asked for, whatever becomes of the chain and of this process:
//! [`Registry::deny`] writes it to [`Revocations`], which is asked before the chain, and [`Registrar`] sends it until the
//! chain has it.
//!
//! [`super::services`] decides who may ask for a change, [`Ledger`] makes the transactions.

use std::{sync::Arc, time::Duration};

use chain::{Ledger, LedgerError, Revert};
use mail::{EmailAddress, Registration, Role};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::{
    address::AddressKey,
    health,
    revocations::{Revocation, Revocations},
};

/// Key hash of a registration that pins no DKIM key.
const ANY_KEY: [u8; 32] = [0; 32];
/// How long a mail waits for the registry to answer.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before a revocation that the chain did not take is sent again.
const AGAIN: Duration = Duration::from_secs(5);
/// Maximum number of changes that wait for those before them.
const CHANGES: usize = 256;

/// Handle for queries and changes; clones use the same chain.
#[derive(Clone)]
pub struct Registry {
    ledger: watch::Receiver<Option<Arc<Ledger>>>,
    key: Arc<AddressKey>,
    revocations: Arc<Revocations>,
    changes: mpsc::Sender<Change>,
}

/// A sender that counts as revoked from now on.
#[derive(Debug)]
pub struct Denied {
    revocation: Revocation,
    /// Why it is not on disk.
    unwritten: Option<String>,
}

struct Change {
    what: What,
    /// The transaction's hash, or why there is none.
    answer: oneshot::Sender<Result<String, String>>,
}

enum What {
    /// Register a sender, and end its revocation.
    Register {
        digest: [u8; 32],
        role: Role,
        ends: Option<Revocation>,
    },
    Revoke(Revocation),
}

impl Registry {
    /// Returns the registry and the task that changes it. `ledger` is `None` until the chain has connected.
    pub fn new(
        ledger: watch::Receiver<Option<Arc<Ledger>>>,
        key: AddressKey,
        revocations: Revocations,
        health: watch::Sender<health::Ledger>,
    ) -> (Self, Registrar) {
        let (sender, changes) = mpsc::channel(CHANGES);
        let revocations = Arc::new(revocations);
        let registrar =
            Registrar { ledger: ledger.clone(), revocations: Arc::clone(&revocations), changes, health };
        (Self { ledger, key: Arc::new(key), revocations, changes: sender }, registrar)
    }

    /// Returns the keyed digest of an address, or of `None` for a mail without an author.
    pub fn digest(&self, address: Option<&EmailAddress>) -> [u8; 32] {
        self.key.digest(address)
    }

    /// Waits until the chain has connected once.
    pub async fn connected_once(mut self) {
        // An error means that the node is shutting down.
        let _ = self.ledger.wait_for(Option::is_some).await;
    }

    /// Looks up `address`; unavailable if the chain does not answer in time. Who was revoked here is revoked, whatever
    /// the chain says.
    pub async fn sender(&self, address: &EmailAddress) -> (Registration, Role) {
        let digest = self.digest(Some(address));
        let answer = match self.revocations.of(&digest) {
            Some(_) => None,
            None => Some(self.on_chain(digest).await),
        };
        // It may have been revoked while the chain was asked.
        match answer {
            Some(answer) if self.revocations.of(&digest).is_none() => answer,
            _ => (Registration::Revoked, Role::None),
        }
    }

    async fn on_chain(&self, digest: [u8; 32]) -> (Registration, Role) {
        let unavailable = (Registration::Unavailable, Role::None);
        let Some(ledger) = self.ledger.borrow().clone() else { return unavailable };
        match timeout(REGISTRY_TIMEOUT, ledger.sender(digest)).await {
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

    /// Registers `address` or changes its role; returns the hash of the final transaction. Until then a revocation of
    /// the sender holds.
    ///
    /// # Errors
    /// If the chain is not connected, cannot be reached, or rejects the request.
    pub async fn register(&self, address: &EmailAddress, role: Role) -> Result<String, String> {
        let digest = self.digest(Some(address));
        self.change(What::Register { digest, role, ends: self.revocations.of(&digest) }).await
    }

    /// Makes `address` count as revoked, from now on and after a crash.
    pub async fn deny(&self, address: &EmailAddress) -> Denied {
        let (digest, revocations) = (self.digest(Some(address)), Arc::clone(&self.revocations));
        #[expect(
            clippy::expect_used,
            reason = "`add` has no panic, and the runtime is not ending while it is awaited"
        )]
        let (revocation, written) =
            spawn_blocking(move || revocations.add(digest)).await.expect("add returns");
        if let Err(error) = &written {
            tracing::error!(%error, "a revocation is not on disk: it holds until this node ends");
        }
        Denied { revocation, unwritten: written.err().map(|error| error.to_string()) }
    }

    /// Revokes on the chain who is denied; returns the hash of the final transaction.
    ///
    /// # Errors
    /// If the chain does not take it now. If it may later, the revocation holds here and is sent again.
    pub async fn revoke(&self, denied: Denied) -> Result<String, String> {
        let result = self.change(What::Revoke(denied.revocation)).await;
        match denied.unwritten {
            Some(unwritten) if self.revocations.of(&denied.revocation.digest).is_some() => {
                result.map_err(|error| {
                    format!("{error}; it is not on disk, and lost if the node ends now: {unwritten}")
                })
            }
            _ => result,
        }
    }

    async fn change(&self, what: What) -> Result<String, String> {
        let ended = || "the node is ending".to_owned();
        let (answer, answered) = oneshot::channel();
        self.changes.send(Change { what, answer }).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

/// Task that changes the registry on the chain.
pub struct Registrar {
    ledger: watch::Receiver<Option<Arc<Ledger>>>,
    revocations: Arc<Revocations>,
    changes: mpsc::Receiver<Change>,
    health: watch::Sender<health::Ledger>,
}

impl Registrar {
    /// Makes the changes in the order of the requests, and sends again the revocations that the chain did not take, until
    /// dropped. Safe to drop at any time.
    pub async fn run(mut self) {
        self.tell(None);
        loop {
            tokio::select! {
                biased;
                change = self.changes.recv() => {
                    let Some(Change { what, answer }) = change else { return };
                    // Who asked may be gone.
                    let _ = answer.send(self.carry_out(what).await);
                }
                () = sleep(AGAIN), if self.revocations.count() > 0 => self.send_again().await,
            }
        }
    }

    async fn carry_out(&self, what: What) -> Result<String, String> {
        match what {
            What::Register { digest, role, ends } => {
                let mined = self.connected()?.register(digest, role, ANY_KEY).await;
                let mined = mined.map_err(|error| error.to_string())?;
                if let Some(revocation) = ends {
                    self.end(revocation).await;
                    self.tell(None);
                }
                Ok(format!("{:#x}", mined.transaction))
            }
            What::Revoke(revocation) => {
                // It is also counted while it is under way.
                self.tell(None);
                let result = self.revoke(revocation).await;
                self.tell(result.as_ref().err().cloned());
                result
            }
        }
    }

    async fn send_again(&self) {
        // One at a time, so that changes that were asked for do not wait behind all.
        let Some(revocation) = self.revocations.all().into_iter().next() else { return };
        match self.revoke(revocation).await {
            Ok(transaction) => {
                tracing::info!(%transaction, "a revocation that waited is on the chain");
                self.tell(None);
            }
            Err(error) => self.tell(Some(error)),
        }
    }

    /// Sends a revocation, and ends it if nothing is left to do.
    async fn revoke(&self, revocation: Revocation) -> Result<String, String> {
        let waits = |error: String| {
            format!("revoked here, also after a restart, and sent again until the chain has it: {error}")
        };
        match self.connected().map_err(waits)?.revoke(revocation.digest).await {
            Ok(mined) => {
                self.end(revocation).await;
                Ok(format!("{:#x}", mined.transaction))
            }
            Err(error @ LedgerError::Reverted { revert: Revert::NotRegistered, .. }) => {
                self.end(revocation).await;
                Err(error.to_string())
            }
            Err(error) => Err(waits(error.to_string())),
        }
    }

    async fn end(&self, revocation: Revocation) {
        let revocations = Arc::clone(&self.revocations);
        if let Ok(Err(error)) = spawn_blocking(move || revocations.remove(revocation)).await {
            tracing::warn!(%error, "a revocation that the chain has stays in the file, and is sent again after a restart");
        }
    }

    fn connected(&self) -> Result<Arc<Ledger>, String> {
        let ledger = self.ledger.borrow().clone();
        ledger.ok_or_else(|| "the chain is not connected yet; see /diagnostics".to_owned())
    }

    fn tell(&self, error: Option<String>) {
        let waiting = self.revocations.count();
        let error = error.filter(|_| waiting > 0);
        if let Some(error) = &error
            && self.health.borrow().revocation_error.as_ref() != Some(error)
        {
            tracing::warn!(error, waiting, "revocations wait for the chain");
        }
        self.health.send_modify(|health| {
            (health.revocations, health.revocation_error) = (waiting, error);
        });
    }
}
