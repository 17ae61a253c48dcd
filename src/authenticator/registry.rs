// SPDX-License-Identifier: Apache-2.0
//! Answers who is registered, and changes the registry, one change after another in the order of the requests.
//!
//! A revocation MUST hold from the moment that it is asked for, whatever becomes of the chain and of this process:
//! [`Registry::revoke`] writes it to [`Revocations`], which is asked before the chain, and [`Registrar`] sends it until the
//! chain has it.
//!
//! [`super::services`] decides who may ask for a change, [`Ledger`] makes the transactions.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chain::{Ledger, LedgerError};
use mail::{EmailAddress, Registration, Role};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
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

/// Handle for queries and changes; clones use the same chain.
#[derive(Clone)]
pub struct Registry {
    ledger: watch::Receiver<Option<Arc<Ledger>>>,
    key: Arc<AddressKey>,
    revocations: Arc<Revocations>,
    changes: mpsc::UnboundedSender<Change>,
    /// Held while a request takes its place among the others.
    order: Arc<Mutex<()>>,
}

/// What will become of a change that has its place among the others.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<String, String>>);

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// Until a revocation that the chain did not take is sent again.
    pub again: Duration,
    /// For which one of several nodes behind an endpoint may lag.
    pub lag: Duration,
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
        pauses: Pauses,
    ) -> (Self, Registrar) {
        let (sender, changes) = mpsc::unbounded_channel();
        let revocations = Arc::new(revocations);
        let registrar = Registrar {
            ledger: ledger.clone(),
            revocations: Arc::clone(&revocations),
            changes,
            health,
            pauses,
            last_sent: None,
            doubtful: HashMap::new(),
        };
        (Self { ledger, key: Arc::new(key), revocations, changes: sender, order: Arc::default() }, registrar)
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
        if self.revocations.hold(&digest) {
            return (Registration::Revoked, Role::None);
        }
        let answer = self.on_chain(digest).await;
        // It may have been revoked while the chain was asked.
        if self.revocations.hold(&digest) { (Registration::Revoked, Role::None) } else { answer }
    }

    /// Whether `address` was revoked here, which also counts for a mail whose verdict is not published yet.
    pub fn has_revoked(&self, address: &EmailAddress) -> bool {
        self.revocations.hold(&self.digest(Some(address)))
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

    /// Has `address` registered, or its role changed, once all changes before are made. Until it is final a revocation of
    /// the sender holds.
    pub async fn register(&self, address: &EmailAddress, role: Role) -> Pending {
        let _placing = self.order.lock().await;
        let digest = self.digest(Some(address));
        self.place(What::Register { digest, role, ends: self.revocations.of(&digest) })
    }

    /// Makes `address` count as revoked, from now on and after a crash, and has it revoked on the chain, once all changes
    /// before are made.
    pub async fn revoke(&self, address: &EmailAddress) -> Pending {
        let _placing = self.order.lock().await;
        let (digest, revocations) = (self.digest(Some(address)), Arc::clone(&self.revocations));
        match spawn_blocking(move || revocations.add(digest)).await {
            Ok(revocation) => self.place(What::Revoke(revocation)),
            // It panicked; nobody will answer.
            Err(_) => Pending(oneshot::channel().1),
        }
    }

    fn place(&self, what: What) -> Pending {
        let (answer, answered) = oneshot::channel();
        // If the registrar has ended, the answer is dropped as well.
        let _ = self.changes.send(Change { what, answer });
        Pending(answered)
    }
}

impl Pending {
    /// A change that is not made, because the request breaks a rule.
    pub fn refused(rule: String) -> Self {
        let (answer, answered) = oneshot::channel();
        // The other end is here.
        let _ = answer.send(Err(rule));
        Self(answered)
    }

    /// Waits for the change; returns the hash of the final transaction.
    ///
    /// # Errors
    /// If the chain is not connected, cannot be reached, or rejects the request. What revoked a sender says whether the
    /// revocation holds here.
    pub async fn done(self) -> Result<String, String> {
        self.0.await.unwrap_or_else(|_| Err("the node is ending".to_owned()))
    }
}

/// Task that changes the registry on the chain.
pub struct Registrar {
    ledger: watch::Receiver<Option<Arc<Ledger>>>,
    revocations: Arc<Revocations>,
    changes: mpsc::UnboundedReceiver<Change>,
    health: watch::Sender<health::Ledger>,
    pauses: Pauses,
    /// The revocation that was sent again last.
    last_sent: Option<Revocation>,
    /// Since when the chain says that there is nothing to revoke.
    doubtful: HashMap<Revocation, Instant>,
}

impl Registrar {
    /// Makes the changes in the order of the requests, and sends again the revocations that the chain did not take, until
    /// dropped. Safe to drop at any time.
    pub async fn run(mut self) {
        self.tell(None);
        let mut again = Instant::now() + self.pauses.again;
        loop {
            tokio::select! {
                () = sleep_until(again), if self.has_work() => {
                    self.send_again().await;
                    again = Instant::now() + self.pauses.again;
                }
                change = self.changes.recv() => {
                    let Some(Change { what, answer }) = change else { return };
                    // Who asked may be gone.
                    let _ = answer.send(self.carry_out(what).await);
                }
            }
        }
    }

    async fn carry_out(&mut self, what: What) -> Result<String, String> {
        match what {
            What::Register { digest, role, ends } => {
                let mined = self.connected()?.register(digest, role, ANY_KEY).await;
                let transaction = mined.map(|mined| format!("{:#x}", mined.transaction));
                let transaction = transaction.map_err(|error| error.to_string())?;
                self.revocations.forget(&digest);
                if let Some(revocation) = ends {
                    self.doubtful.remove(&revocation);
                    self.write(move |revocations| revocations.lift(revocation)).await;
                    self.tell(None);
                    if let Some(error) = self.revocations.unwritten() {
                        return Err(format!(
                            "registered by transaction {transaction}, but the revocation before it cannot be removed from \
                             the disk, and would hold again if the node ended now: {error}"
                        ));
                    }
                }
                Ok(transaction)
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

    fn has_work(&self) -> bool {
        self.revocations.count() > 0 || self.revocations.unwritten().is_some()
    }

    async fn send_again(&mut self) {
        self.write(Revocations::write_again).await;
        // One at a time, so that changes that were asked for do not wait behind all; each in its turn.
        let all = self.revocations.all();
        let after = |one: &&Revocation| self.last_sent.is_none_or(|last| one.digest > last.digest);
        let Some(revocation) = all.iter().find(after).or(all.first()).copied() else {
            return self.tell(None);
        };
        self.last_sent = Some(revocation);
        match self.revoke(revocation).await {
            Ok(transaction) => {
                tracing::info!(%transaction, "a revocation that waited is on the chain");
                self.tell(None);
            }
            Err(error) => self.tell(Some(error)),
        }
    }

    /// Sends a revocation, and ends it if nothing is left to do.
    async fn revoke(&mut self, revocation: Revocation) -> Result<String, String> {
        let revocations = Arc::clone(&self.revocations);
        let waits = |error: String| {
            let kept = match revocations.unwritten() {
                None => "also after a restart".to_owned(),
                Some(unwritten) => {
                    format!("but not after a restart, as the disk does not take it ({unwritten})")
                }
            };
            format!("revoked here, {kept}, and sent again until the chain has it: {error}")
        };
        let ledger = self.connected().map_err(waits)?;
        let error = match ledger.revoke(revocation.digest).await {
            Ok(mined) => {
                self.doubtful.remove(&revocation);
                self.write(move |revocations| revocations.end(revocation)).await;
                return Ok(format!("{:#x}", mined.transaction));
            }
            Err(error) => error,
        };
        // Nothing of ours is under way that could register the sender: that is a conflict, and no revert.
        let has_reverted = matches!(error, LedgerError::Reverted { .. });
        if !has_reverted || !has_no_rights(&ledger, revocation.digest).await {
            self.doubtful.remove(&revocation);
            return Err(waits(error.to_string()));
        }
        // Another of the nodes may know more.
        let since = self.doubtful.entry(revocation).or_insert_with(Instant::now);
        if since.elapsed() >= self.pauses.lag {
            self.doubtful.remove(&revocation);
            self.write(move |revocations| revocations.end(revocation)).await;
        }
        Err(error.to_string())
    }

    /// Changes what is on disk.
    async fn write(&self, change: impl FnOnce(&Revocations) + Send + 'static) {
        let revocations = Arc::clone(&self.revocations);
        // A panic has already been reported.
        let _ = spawn_blocking(move || change(&revocations)).await;
    }

    fn connected(&self) -> Result<Arc<Ledger>, String> {
        let ledger = self.ledger.borrow().clone();
        ledger.ok_or_else(|| "the chain is not connected yet; see /diagnostics".to_owned())
    }

    fn tell(&self, error: Option<String>) {
        let waiting = self.revocations.count();
        let unwritten =
            self.revocations.unwritten().map(|error| format!("the file cannot be written: {error}"));
        let error = unwritten.or(error.filter(|_| waiting > 0));
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

/// Whether the chain says that a sender is not registered or is revoked.
async fn has_no_rights(ledger: &Ledger, digest: [u8; 32]) -> bool {
    matches!(ledger.sender(digest).await, Ok((Registration::Unregistered | Registration::Revoked, ..)))
}
