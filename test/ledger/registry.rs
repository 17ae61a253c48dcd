// SPDX-License-Identifier: Apache-2.0
//! A revocation holds from the request on, whatever becomes of the chain and of the process.

use std::sync::Arc;

use authenticator::{
    address::AddressKey,
    health,
    registry::{Registrar, Registry},
    revocations::Revocations,
};
use chain::{Connection, Http, Ledger};
use mail::{EmailAddress, Registration, Role};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::fixture::{CuttingProxy, Kind, World, options};

const REVOKED: (Registration, Role) = (Registration::Revoked, Role::None);
const OPERATOR: (Registration, Role) = (Registration::Active, Role::Operator);

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
        let revocations = Revocations::open(&world.path("revocations")).unwrap();
        let (_, ledger) = watch::channel(ledger);
        let (sender, health) = watch::channel(health::Ledger::default());
        let key = AddressKey::from_bytes([7; 32]);
        let (registry, registrar): (_, Registrar) = Registry::new(ledger, key, revocations, sender);
        Self { registry, health, registrar: tokio::spawn(registrar.run()) }
    }

    async fn dana(&self) -> (Registration, Role) {
        self.registry.sender(&dana()).await
    }

    async fn revoke(&self) -> Result<String, String> {
        let denied = self.registry.deny(&dana()).await;
        self.registry.revoke(denied).await
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
    running.registry.register(&dana(), Role::Operator).await.unwrap();
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
    assert_eq!(std::fs::read_to_string(world.path("revocations")).unwrap(), "");
    assert_eq!(running.dana().await, REVOKED);
}

#[tokio::test]
async fn a_registration_that_was_asked_for_before_does_not_end_it_and_one_after_does() {
    let world = World::new(Kind::Anvil).await;
    let mut running = Running::start(&world, Some(Arc::new(world.ledger().await)));
    world.automine(false).await;
    let registry = running.registry.clone();
    let registering = tokio::spawn(async move { registry.register(&dana(), Role::Operator).await });
    timeout(testbed::PATIENCE, async {
        while super::pool(&world).await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the registration is sent");
    let denied = running.registry.deny(&dana()).await;
    world.automine(true).await;
    world.mine().await;
    registering.await.unwrap().unwrap();
    assert_eq!(running.dana().await, REVOKED, "the chain has the registration, and not yet the revocation");
    running.registry.revoke(denied).await.unwrap();
    running.waiting(0).await;
    assert_eq!(running.dana().await, REVOKED);

    running.registry.deny(&dana()).await;
    running.registry.register(&dana(), Role::Observer).await.unwrap();
    running.waiting(0).await;
    assert_eq!(running.dana().await, (Registration::Active, Role::Observer));
}

#[tokio::test]
async fn nothing_is_left_of_a_revocation_of_who_was_never_registered() {
    let world = World::new(Kind::Embedded).await;
    let mut running = Running::start(&world, Some(Arc::new(world.ledger().await)));
    let error = running.revoke().await.unwrap_err();
    assert!(error.contains("the sender is not registered") && !error.contains("revoked here"), "{error}");
    running.waiting(0).await;
    assert_eq!(running.dana().await, (Registration::Unregistered, Role::None));
}
