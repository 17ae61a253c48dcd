// SPDX-License-Identifier: Apache-2.0
//! Answers who is registered, and takes requests to change that.
//!
//! A revocation MUST hold from the moment that it is asked for, whatever becomes of the chain and of this process:
//! [`Registry::revoke`] writes it to [`Revocations`], which is asked before the chain, and [`Registrar`] sends it until the
//! chain has it.
//!
//! [`super::services`] decides who may ask for a change, [`super::registrar`] makes it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chain::{Ledger, ProvenBy, Sender, Terms};
use mail::{EmailAddress, Registration, Role};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::{
    address::AddressKey,
    health,
    names::Names,
    registrar::{Change, Pauses, Pending, REGISTRY_TIMEOUT, Registrar, What, connected, silence},
    revocations::Revocations,
    sender::SenderName,
    verdict::RegistryAnswer,
};

/// Pause before a proof is asked for once more.
const PROVE_AGAIN: Duration = Duration::from_millis(500);

/// Handle for queries and changes; clones use the same chain.
#[derive(Clone)]
pub struct Registry {
    ledger: watch::Receiver<Option<Arc<Ledger>>>,
    key: Arc<AddressKey>,
    revocations: Arc<Revocations>,
    names: Arc<Names>,
    proof: Option<ProvenBy>,
    now: fn() -> SystemTime,
    changes: mpsc::UnboundedSender<Change>,
    /// Held while a request takes its place among the others.
    order: Arc<Mutex<()>>,
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

impl Registry {
    /// Returns the registry and the task that changes it. `ledger` is `None` until the chain has connected; `proof` says how
    /// it must be proven who is an operator, and `now` is the clock by which a registration counts.
    pub fn new(
        ledger: watch::Receiver<Option<Arc<Ledger>>>,
        key: AddressKey,
        (revocations, names): (Revocations, Names),
        health: watch::Sender<health::Ledger>,
        pauses: Pauses,
        (proof, now): (Option<ProvenBy>, fn() -> SystemTime),
    ) -> (Self, Registrar) {
        let (sender, changes) = mpsc::unbounded_channel();
        let (revocations, names) = (Arc::new(revocations), Arc::new(names));
        let registrar = Registrar::new(ledger.clone(), Arc::clone(&revocations), changes, health, pauses);
        let (key, order) = (Arc::new(key), Arc::default());
        (Self { ledger, key, revocations, names, proof, now, changes: sender, order }, registrar)
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
        let digests = self.digests_of(address);
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
        let [own, domain] = self.digests_of(address);
        // With its domain, unless it has an entry of its own.
        self.revocations.hold(&own)
            || self.revocations.hold(&domain)
                && self.sender(address).await.registration != Registration::Active
    }

    /// Digests of an address and of its domain.
    fn digests_of(&self, address: &EmailAddress) -> [[u8; 32]; 2] {
        [self.digest(Some(address)), self.key.name_digest(&SenderName::domain_of(address))]
    }

    /// Digests of a sender and of its domain, which it may be.
    fn digests(&self, name: &SenderName) -> [[u8; 32]; 2] {
        match name {
            SenderName::Mailbox(address) => self.digests_of(address),
            SenderName::Domain(_) => [self.key.name_digest(name); 2],
        }
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
            Registration::Active => {
                let is_operator = sender.terms.role == Role::Operator;
                RegistryAnswer {
                    dkim_key: sender.terms.dkim_key,
                    is_proven: !is_operator || self.is_proven(&ledger, by, &sender).await,
                    ..RegistryAnswer::active(sender.terms.role)
                }
            }
            registration => RegistryAnswer::inactive(registration),
        };
        (Some(by), answer)
    }

    /// Whether the chain proves, as far as it must, that a sender is the operator that it is said to be.
    async fn is_proven(&self, ledger: &Ledger, digest: [u8; 32], said: &Sender) -> bool {
        let Some(by) = self.proof else { return true };
        let now = self.seconds();
        let ask = || timeout(REGISTRY_TIMEOUT, ledger.proven_sender(digest, by, now));
        let proven = match ask().await {
            // An order should not be lost to one answer that did not come.
            Ok(Err(_)) | Err(_) => {
                sleep(PROVE_AGAIN).await;
                ask().await
            }
            proven => proven,
        };
        let doubt = match proven {
            Ok(Ok(sender)) if sender.registration(now) != Registration::Active => {
                "the sender is not active in the state that is proven".to_owned()
            }
            Ok(Ok(sender)) if sender.terms != said.terms => {
                "the sender has other terms in the state that is proven".to_owned()
            }
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => silence(),
        };
        tracing::warn!(
            doubt,
            "no proof that an operator is one (parameter 'registry_proof'): no order is taken"
        );
        false
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
                Err(_) => Pending::new(oneshot::channel().1),
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
        Pending::new(answered)
    }
}
