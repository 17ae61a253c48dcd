// SPDX-License-Identifier: Apache-2.0
//! Changes the registry on the chain, one change after another in the order of the requests, and sends revocations until
//! the chain has them.
//!
//! Requests come from [`super::registry`].

use std::{collections::HashMap, sync::Arc, time::Duration};

use chain::{Ledger, LedgerError, Revert, Sender, Terms};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    health,
    revocations::{Revocation, Revocations},
};

/// Why nothing can be asked of the chain.
const NOT_CONNECTED: &str = "the chain is not connected yet; see /diagnostics";
/// How long to wait for the registry to answer.
pub(super) const REGISTRY_TIMEOUT: Duration = Duration::from_secs(5);

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// Until a revocation that the chain did not take is sent again.
    pub again: Duration,
    /// For which one of several nodes behind an endpoint may lag.
    pub lag: Duration,
}

/// A change that the chain has for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Hash of the transaction, 0x-prefixed hex.
    pub transaction: String,
    /// Whether the registry had the sender, or its domain, before it was revoked; true if that is not known.
    pub was_registered: bool,
}

/// What will become of a change that has its place among the others.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Changed, String>>);

/// A change that is asked for.
pub(super) struct Change {
    pub what: What,
    /// What became of it, or why nothing did.
    pub answer: oneshot::Sender<Result<Changed, String>>,
}

/// What is to be changed.
pub(super) enum What {
    /// Register a sender, and end its revocation.
    Register {
        digest: [u8; 32],
        terms: Terms,
        /// The revocation that waited here when this was asked for.
        ends: Option<Revocation>,
        /// When the chain had the sender as revoked then.
        known: JoinHandle<Result<Option<u64>, String>>,
    },
    Revoke {
        revocation: Revocation,
        /// Digest of its domain, or its own if it is one.
        domain: [u8; 32],
    },
}

impl Pending {
    /// A change whose end is told by this.
    pub(super) fn new(answered: oneshot::Receiver<Result<Changed, String>>) -> Self {
        Self(answered)
    }

    /// A change that is not made, because the request breaks a rule.
    pub fn refused(rule: String) -> Self {
        let (answer, answered) = oneshot::channel();
        // The other end is here.
        let _ = answer.send(Err(rule));
        Self(answered)
    }

    /// Waits for the change, until it is final.
    ///
    /// # Errors
    /// If the chain is not connected, cannot be reached, or rejects the request. What revoked a sender says whether the
    /// revocation holds here.
    pub async fn done(self) -> Result<Changed, String> {
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
    /// Of those that the chain does not take from us, when it had the sender as revoked at first, and since when it has
    /// another time: somebody else has made it since.
    made_by_others: HashMap<Revocation, (Option<u64>, Option<Instant>)>,
}

impl Registrar {
    /// The task, which takes changes from this channel. `ledger` is `None` until the chain has connected.
    pub(super) fn new(
        ledger: watch::Receiver<Option<Arc<Ledger>>>,
        revocations: Arc<Revocations>,
        changes: mpsc::UnboundedReceiver<Change>,
        health: watch::Sender<health::Ledger>,
        pauses: Pauses,
    ) -> Self {
        Self { ledger, revocations, changes, health, pauses, last_sent: None, made_by_others: HashMap::new() }
    }

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

    async fn carry_out(&mut self, what: What) -> Result<Changed, String> {
        match what {
            What::Register { digest, terms, ends, known } => {
                let ledger = connected(&self.ledger)?;
                let mined = match ends {
                    // That one is on the chain since, at a time that nobody knew when this was asked for.
                    Some(_) => ledger.register(digest, terms).await,
                    None => {
                        let known = known.await.map_err(|error| error.to_string())??;
                        ledger.register_after(known, digest, terms).await
                    }
                };
                let transaction = mined.map(|mined| format!("{:#x}", mined.transaction));
                let transaction = transaction.map_err(|error| error.to_string())?;
                self.revocations.forget(&digest);
                if let Some(revocation) = ends {
                    self.made_by_others.remove(&revocation);
                    self.write(move |revocations| revocations.lift(revocation)).await;
                    self.tell(None);
                    if let Some(error) = self.revocations.unwritten() {
                        return Err(format!(
                            "registered by transaction {transaction}, but the revocation before it cannot be removed from \
                             the disk, and would hold again if the node ended now: {error}"
                        ));
                    }
                }
                Ok(Changed { transaction, was_registered: true })
            }
            What::Revoke { revocation, domain } => {
                // It is also counted while it is under way.
                self.tell(None);
                let was_registered = self.is_known([revocation.digest, domain]).await;
                let result = self.revoke(revocation).await;
                self.tell(result.as_ref().err().cloned());
                result.map(|transaction| Changed { transaction, was_registered })
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

    /// Whether the registry has one of these, or cannot be asked.
    async fn is_known(&self, digests: [[u8; 32]; 2]) -> bool {
        let Ok(ledger) = connected(&self.ledger) else { return true };
        let senders = timeout(REGISTRY_TIMEOUT, ledger.senders(digests)).await;
        !matches!(senders, Ok(Ok((_, senders))) if senders == [Sender::default(); 2])
    }

    /// Sends a revocation, and ends it once the chain has it for good.
    async fn revoke(&mut self, revocation: Revocation) -> Result<String, String> {
        let mined = match connected(&self.ledger) {
            Ok(ledger) => ledger.revoke(revocation.digest).await.map_err(Some),
            Err(_) => Err(None),
        };
        match mined {
            Ok(mined) => {
                self.made_by_others.remove(&revocation);
                self.write(move |revocations| revocations.end(revocation)).await;
                Ok(format!("{:#x}", mined.transaction))
            }
            Err(error) => {
                // After any other error it is sent again.
                let is_refused =
                    matches!(error, Some(LedgerError::Reverted { revert: Revert::NotRegistrar(_), .. }));
                if is_refused {
                    self.look_for_others(revocation).await;
                }
                let error = error.map_or_else(|| NOT_CONNECTED.to_owned(), |error| error.to_string());
                let kept = match self.revocations.unwritten() {
                    None => "also after a restart".to_owned(),
                    Some(unwritten) => {
                        format!("but not after a restart, as the disk does not take it ({unwritten})")
                    }
                };
                Err(format!("revoked here, {kept}, and sent again until the chain has it: {error}"))
            }
        }
    }

    /// Ends a revocation that the chain does not take from us once somebody else, whose registry it may be, has made it. One
    /// of several nodes may lag, and not know of it yet.
    async fn look_for_others(&mut self, revocation: Revocation) {
        let Ok(ledger) = connected(&self.ledger) else { return };
        let Ok(Sender { revoked_at, .. }) = ledger.sender(revocation.digest).await else { return };
        let (first, since) = self.made_by_others.entry(revocation).or_insert((revoked_at, None));
        *since = match *since {
            // An earlier one says nothing.
            _ if revoked_at.is_none() || revoked_at == *first => None,
            None => Some(Instant::now()),
            since => since,
        };
        if since.is_some_and(|since| since.elapsed() >= self.pauses.lag) {
            self.made_by_others.remove(&revocation);
            self.write(move |revocations| revocations.end(revocation)).await;
        }
    }

    /// Changes what is on disk.
    async fn write(&self, change: impl FnOnce(&Revocations) + Send + 'static) {
        let revocations = Arc::clone(&self.revocations);
        // A panic has already been reported.
        let _ = spawn_blocking(move || change(&revocations)).await;
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

pub(super) fn silence() -> String {
    format!("the chain does not answer within {REGISTRY_TIMEOUT:?}")
}

pub(super) fn connected(ledger: &watch::Receiver<Option<Arc<Ledger>>>) -> Result<Arc<Ledger>, String> {
    let ledger = ledger.borrow().clone();
    ledger.ok_or_else(|| NOT_CONNECTED.to_owned())
}
