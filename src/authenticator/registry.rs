// SPDX-License-Identifier: Apache-2.0
//! Answers who is registered, and changes the registry, one change after another in the order of the requests.
//!
//! A revocation MUST hold from the moment that it is asked for, whatever becomes of the chain and of this process:
//! [`Registry::revoke`] writes it to [`Revocations`], which is asked before the chain, and [`Registrar`] sends it until the
//! chain has it.
//!
//! [`super::services`] decides who may ask for a change, [`Ledger`] makes the transactions.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chain::{Ledger, LedgerError, Revert, Sender, Terms};
use mail::{EmailAddress, Registration, Role};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    address::AddressKey,
    health,
    names::Names,
    revocations::{Revocation, Revocations},
    sender::SenderName,
    verdict::RegistryAnswer,
};

/// Why nothing can be asked of the chain.
const NOT_CONNECTED: &str = "the chain is not connected yet; see /diagnostics";
/// How long a mail waits for the registry to answer.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Handle for queries and changes; clones use the same chain.
#[derive(Clone)]
pub struct Registry {
    ledger: watch::Receiver<Option<Arc<Ledger>>>,
    key: Arc<AddressKey>,
    revocations: Arc<Revocations>,
    names: Arc<Names>,
    now: fn() -> SystemTime,
    changes: mpsc::UnboundedSender<Change>,
    /// Held while a request takes its place among the others.
    order: Arc<Mutex<()>>,
}

/// What will become of a change that has its place among the others.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Changed, String>>);

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

/// A sender as the registry lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name, if it was registered or revoked here.
    pub name: Option<SenderName>,
    /// Its keyed digest.
    pub digest: [u8; 32],
    /// What it counts as now.
    pub registration: Registration,
    /// What the chain has of it.
    pub sender: Sender,
}

struct Change {
    what: What,
    /// What became of it, or why nothing did.
    answer: oneshot::Sender<Result<Changed, String>>,
}

enum What {
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

impl Registry {
    /// Returns the registry and the task that changes it. `ledger` is `None` until the chain has connected; `now` is the
    /// clock by which a registration counts.
    pub fn new(
        ledger: watch::Receiver<Option<Arc<Ledger>>>,
        key: AddressKey,
        (revocations, names): (Revocations, Names),
        health: watch::Sender<health::Ledger>,
        pauses: Pauses,
        now: fn() -> SystemTime,
    ) -> (Self, Registrar) {
        let (sender, changes) = mpsc::unbounded_channel();
        let (revocations, names) = (Arc::new(revocations), Arc::new(names));
        let registrar = Registrar {
            ledger: ledger.clone(),
            revocations: Arc::clone(&revocations),
            changes,
            health,
            pauses,
            last_sent: None,
            made_by_others: HashMap::new(),
        };
        let (key, order) = (Arc::new(key), Arc::default());
        (Self { ledger, key, revocations, names, now, changes: sender, order }, registrar)
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

    /// Looks up `address`, and its domain if the registry does not know the address; unavailable if the chain does not
    /// answer in time. Who was revoked here is revoked, whatever the chain says.
    pub async fn sender(&self, address: &EmailAddress) -> RegistryAnswer {
        let digests = self.digests(&SenderName::Mailbox(address.clone()));
        let revoked = RegistryAnswer::inactive(Registration::Revoked);
        if self.revocations.hold(&digests[0]) {
            return revoked;
        }
        let (by, answer) = self.on_chain(digests).await;
        // It may have been revoked while the chain was asked.
        let is_revoked =
            self.revocations.hold(&digests[0]) || by.is_some_and(|by| self.revocations.hold(&by));
        if is_revoked { revoked } else { answer }
    }

    /// Whether `address`, which the registry had as active a moment ago, was revoked here since, alone or with its domain.
    pub async fn has_revoked(&self, address: &EmailAddress) -> bool {
        let [own, domain] = self.digests(&SenderName::Mailbox(address.clone()));
        // With its domain, unless it has an entry of its own.
        self.revocations.hold(&own)
            || self.revocations.hold(&domain)
                && self.sender(address).await.registration != Registration::Active
    }

    /// Digests of a sender and of its domain.
    fn digests(&self, name: &SenderName) -> [[u8; 32]; 2] {
        let own = self.key.name_digest(name);
        let domain = match name {
            SenderName::Mailbox(address) => self.key.name_digest(&SenderName::domain_of(address)),
            SenderName::Domain(_) => own,
        };
        [own, domain]
    }

    /// What the chain says of a sender, and by which of the two digests it knows it.
    async fn on_chain(&self, [own, domain]: [[u8; 32]; 2]) -> (Option<[u8; 32]>, RegistryAnswer) {
        let unavailable = (None, RegistryAnswer::inactive(Registration::Unavailable));
        let Some(ledger) = self.ledger.borrow().clone() else { return unavailable };
        let (by, time, sender) = match timeout(REGISTRY_TIMEOUT, ledger.senders([own, domain])).await {
            Ok(Ok((time, [sender, _]))) if sender != Sender::default() => (own, time, sender),
            // Whoever has an address of the domain may ask; an order comes from somebody who is known.
            Ok(Ok((time, [_, mut sender]))) => {
                sender.terms.role = sender.terms.role.min(Role::Observer);
                (domain, time, sender)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "registry unavailable");
                return unavailable;
            }
            Err(_) => {
                tracing::warn!(timeout = ?REGISTRY_TIMEOUT, "registry unavailable");
                return unavailable;
            }
        };
        // The clock of this host may have lost the time; the chain's does not.
        let answer = match sender.registration(self.seconds().max(time)) {
            Registration::Active => RegistryAnswer {
                dkim_key: sender.terms.dkim_key,
                ..RegistryAnswer::active(sender.terms.role)
            },
            registration => RegistryAnswer::inactive(registration),
        };
        (Some(by), answer)
    }

    /// Now [s since 1970].
    fn seconds(&self) -> u64 {
        (self.now)().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// At most `limit` of the senders that the registry ever had, from place `first` on, and how many there are.
    ///
    /// # Errors
    /// If the chain is not connected or does not answer.
    pub async fn list(&self, first: u64, limit: u64) -> Result<(Vec<Listed>, u64), String> {
        let ledger = connected(&self.ledger)?;
        let listed = timeout(REGISTRY_TIMEOUT, ledger.list_senders(first, limit)).await;
        let (senders, count) = match listed {
            Ok(listed) => listed.map_err(|error| error.to_string())?,
            Err(_) => return Err(silence()),
        };
        let names: HashMap<_, _> =
            self.names.all().into_iter().map(|name| (self.key.name_digest(&name), name)).collect();
        let now = self.seconds();
        let listed = senders.into_iter().map(|(digest, sender)| Listed {
            name: names.get(&digest).cloned(),
            digest,
            registration: match self.revocations.hold(&digest) {
                true => Registration::Revoked,
                false => sender.registration(now),
            },
            sender,
        });
        Ok((listed.collect(), count))
    }

    /// Has a sender registered, or its terms changed, once all changes before are made. Until it is final a revocation of
    /// the sender holds.
    pub async fn register(&self, name: SenderName, terms: Terms) -> Pending {
        let [digest, _] = self.digests(&name);
        let pending = {
            let _placing = self.order.lock().await;
            let ends = self.revocations.of(&digest);
            // Asked now, because somebody else may revoke the sender while this waits for its turn; and not waited for,
            // because a revocation that comes now must find this in its place.
            let known = tokio::spawn(self.clone().revoked_at(digest));
            self.place(What::Register { digest, terms, ends, known })
        };
        self.remember(name).await;
        pending
    }

    /// Makes a sender count as revoked, from now on and after a crash, and has it revoked on the chain, once all changes
    /// before are made.
    pub async fn revoke(&self, name: SenderName) -> Pending {
        let ([digest, domain], revocations) = (self.digests(&name), Arc::clone(&self.revocations));
        let pending = {
            let _placing = self.order.lock().await;
            match spawn_blocking(move || revocations.add(digest)).await {
                Ok(revocation) => self.place(What::Revoke { revocation, domain }),
                // It panicked; nobody will answer.
                Err(_) => Pending(oneshot::channel().1),
            }
        };
        self.remember(name).await;
        pending
    }

    /// When the chain has a sender as revoked.
    async fn revoked_at(self, digest: [u8; 32]) -> Result<Option<u64>, String> {
        let ledger = connected(&self.ledger)?;
        match timeout(REGISTRY_TIMEOUT, ledger.sender(digest)).await {
            Ok(sender) => sender.map(|sender| sender.revoked_at).map_err(|error| error.to_string()),
            Err(_) => Err(silence()),
        }
    }

    /// Keeps the name, to be listed.
    async fn remember(&self, name: SenderName) {
        let names = Arc::clone(&self.names);
        // A panic has already been reported.
        let _ = spawn_blocking(move || names.add(&name)).await;
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

fn silence() -> String {
    format!("the chain does not answer within {REGISTRY_TIMEOUT:?}")
}

fn connected(ledger: &watch::Receiver<Option<Arc<Ledger>>>) -> Result<Arc<Ledger>, String> {
    let ledger = ledger.borrow().clone();
    ledger.ok_or_else(|| NOT_CONNECTED.to_owned())
}
