// SPDX-License-Identifier: Apache-2.0
//! A revocation holds from the request on, whatever becomes of the chain and of the process.

use std::{sync::Arc, time::Duration};

use authenticator::{
    address::AddressKey,
    health,
    registry::{Pauses, Registrar, Registry},
    revocations::Revocations,
};
use chain::{Connection, Http, Ledger, LedgerKey, LedgerOptions};
use mail::{EmailAddress, Registration, Role};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::fixture::{CuttingProxy, Kind, World, fund, options};

const REVOKED: (Registration, Role) = (Registration::Revoked, Role::None);
const OPERATOR: (Registration, Role) = (Registration::Active, Role::Operator);

const PAUSES: Pauses = Pauses { again: Duration::from_millis(300), lag: Duration::from_millis(500) };

fn dana() -> EmailAddress {
    EmailAddress::parse("dana@dispatch.example").unwrap()
}

/// The registry of an authenticator whose state is in the world's directory, and its task.
struct Running {
    registry: Registry,
    health: watch::Receiver<health::Ledger>,
    registrar: JoinHandle<()>,
}

impl Running {
    fn start(world: &World, ledger: Option<Arc<Ledger>>) -> Self {
        let revocations = Revocations::open(&world.path("revocations"), PAUSES.lag).unwrap();
        let (_, ledger) = watch::channel(ledger);
        let (sender, health) = watch::channel(health::Ledger::default());
        let key = AddressKey::from_bytes([7; 32]);
        let (registry, registrar): (_, Registrar) = Registry::new(ledger, key, revocations, sender, PAUSES);
        Self { registry, health, registrar: tokio::spawn(registrar.run()) }
    }

    async fn dana(&self) -> (Registration, Role) {
        self.registry.sender(&dana()).await
    }

    async fn revoke(&self) -> Result<String, String> {
        self.registry.revoke(&dana()).await.done().await
    }

    /// Waits until so many revocations are not on the chain.
    async fn waiting(&mut self, count: usize) -> health::Ledger {
        let wait = self.health.wait_for(|health| health.revocations == count);
        timeout(testbed::PATIENCE, wait).await.expect("in time").unwrap().clone()
    }

    /// As a crash would.
    fn kill(self) {
        self.registrar.abort();
    }
}

/// The ledger through a proxy that may go away.
async fn through(world: &World, proxy: &CuttingProxy) -> Arc<Ledger> {
    let chain = Connection::Http(Http::new(&format!("http://{}", proxy.address)).unwrap());
    Arc::new(Ledger::connect(chain, world.key.clone(), world.dir.path(), options()).await.unwrap())
}

#[tokio::test]
async fn it_holds_without_a_chain_and_after_a_crash_and_reaches_the_chain_when_it_is_back() {
    let world = World::new(Kind::Anvil).await;
    let proxy = CuttingProxy::start(world.port()).await;
    let ledger = through(&world, &proxy).await;
    let mut running = Running::start(&world, Some(Arc::clone(&ledger)));
    running.registry.register(&dana(), Role::Operator).await.done().await.unwrap();
    assert_eq!(running.dana().await, OPERATOR);

    proxy.cut_all_after("POST");
    let error = running.revoke().await.unwrap_err();
    assert!(error.starts_with("revoked here, also after a restart"), "{error}");
    assert_eq!(running.dana().await, REVOKED);
    let waiting = running.waiting(1).await;
    assert!(waiting.revocation_error.unwrap().contains("cannot be reached"));
    running.kill();

    // Another process, before it has a chain at all.
    let unconnected = Running::start(&world, None);
    assert_eq!(unconnected.dana().await, REVOKED);
    let error = unconnected.revoke().await.unwrap_err();
    assert!(error.contains("the chain is not connected yet"), "{error}");
    unconnected.kill();

    proxy.pass_all();
    let mut running = Running::start(&world, Some(ledger));
    assert_eq!(running.dana().await, REVOKED);
    running.waiting(1).await;
    let done = running.waiting(0).await;
    assert_eq!(done.revocation_error, None);
    // It is the chain that says so now.
    assert_eq!(std::fs::read_to_string(world.path("revocations")).unwrap(), "0 revocations\n");
    assert_eq!(running.dana().await, REVOKED);
}

#[tokio::test]
async fn changes_are_made_in_the_order_of_the_requests() {
    let world = World::new(Kind::Anvil).await;
    let mut running = Running::start(&world, Some(Arc::new(world.ledger().await)));
    world.automine(false).await;
    let registering = running.registry.register(&dana(), Role::Operator).await;
    in_the_pool(&world).await;
    let (revoking, registering_again) =
        (running.registry.revoke(&dana()).await, running.registry.register(&dana(), Role::Observer).await);
    let revoking_again = running.registry.revoke(&dana()).await;
    assert_eq!(running.dana().await, REVOKED);
    world.automine(true).await;
    world.mine().await;
    registering.done().await.unwrap();
    assert_eq!(
        running.dana().await,
        REVOKED,
        "the chain has the registration, and the revocation came later"
    );
    revoking.done().await.unwrap();
    registering_again.done().await.unwrap();
    assert_eq!(running.dana().await, REVOKED, "the second revocation came later still");
    revoking_again.done().await.unwrap();
    running.waiting(0).await;
    assert_eq!(running.dana().await, REVOKED);

    running.registry.register(&dana(), Role::Observer).await.done().await.unwrap();
    running.waiting(0).await;
    assert_eq!(running.dana().await, (Registration::Active, Role::Observer));
}

/// Once, "not registered" ended the revocation, and then the registration was mined.
#[tokio::test]
async fn it_outlasts_a_registration_that_nobody_waits_for_any_more() {
    let world = World::new(Kind::Anvil).await;
    world.ledger().await;
    world.automine(false).await;
    let options = LedgerOptions { timeout: Duration::from_millis(500), ..options() };
    let ledger = Ledger::connect(world.chain.clone(), world.key.clone(), world.dir.path(), options).await;
    let mut running = Running::start(&world, Some(Arc::new(ledger.unwrap())));
    let error = running.registry.register(&dana(), Role::Operator).await.done().await.unwrap_err();
    assert!(error.contains("not confirmed after"), "{error}");
    in_the_pool(&world).await;

    let error = running.revoke().await.unwrap_err();
    assert!(
        error.starts_with("revoked here") && error.contains("an earlier one is in no block yet"),
        "{error}"
    );
    running.waiting(1).await;
    world.automine(true).await;
    world.mine().await;
    assert_eq!(running.dana().await, REVOKED);
    running.waiting(0).await;
    let chain = world.ledger().await;
    let key = AddressKey::from_bytes([7; 32]);
    assert_eq!(chain.sender(key.digest(Some(&dana()))).await.unwrap().0, Registration::Revoked);
}

/// A registry may belong to somebody else: once its owner has revoked the sender, nothing is left to do.
#[tokio::test]
async fn it_ends_when_the_registrys_owner_has_made_it() {
    let world = World::new(Kind::Anvil).await;
    let owner = world.ledger().await;
    let digest = AddressKey::from_bytes([7; 32]).digest(Some(&dana()));
    owner.register(digest, Role::Operator, [0; 32]).await.unwrap();
    let other = LedgerKey::load_or_create(&world.path("other.key")).unwrap();
    fund(&world.chain, other.address()).await;
    let mut running = Running::start(&world, Some(Arc::new(world.connect(other).await.unwrap())));
    let error = running.revoke().await.unwrap_err();
    assert!(error.starts_with("revoked here") && error.contains("not the contract's owner"), "{error}");
    assert_eq!(running.dana().await, REVOKED);
    owner.revoke(digest).await.unwrap();
    running.waiting(0).await;
    assert_eq!(running.dana().await, REVOKED);
}

/// Waits until a transaction is in anvil's pool.
async fn in_the_pool(world: &World) {
    let wait = async {
        while super::pool(world).await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(testbed::PATIENCE, wait).await.expect("the transaction is sent");
}

#[tokio::test]
async fn nothing_is_left_of_a_revocation_of_who_was_never_registered() {
    let world = World::new(Kind::Embedded).await;
    let mut running = Running::start(&world, Some(Arc::new(world.ledger().await)));
    let error = running.revoke().await.unwrap_err();
    assert!(error.contains("the sender is not registered") && !error.contains("revoked here"), "{error}");
    assert_eq!(running.health.borrow().revocations, 1, "another node of the chain may know more");
    running.waiting(0).await;
    let revocations = std::fs::read_to_string(world.path("revocations")).unwrap();
    assert_eq!(revocations, "0 revocations\n");
}
