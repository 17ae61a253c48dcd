// SPDX-License-Identifier: Apache-2.0
//! A revocation holds from the request on, whatever becomes of the chain and of the process.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use authenticator::{
    address::AddressKey,
    health,
    names::Names,
    registrar::{Changed, Pauses, Pending, Registrar},
    registry::Registry,
    revocations::Revocations,
    sender::SenderName,
    verdict::RegistryAnswer,
};
use chain::{Connection, Http, Ledger, LedgerKey, LedgerOptions, ProvenBy, Terms};
use mail::{EmailAddress, Registration, Role};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use web3::ethabi::Token;

use super::{
    fixture::{CuttingProxy, Kind, World, call_as, fund, options},
    liar::Liar,
};

const REVOKED: RegistryAnswer = RegistryAnswer::inactive(Registration::Revoked);
const UNREGISTERED: RegistryAnswer = RegistryAnswer::inactive(Registration::Unregistered);
const OBSERVER: RegistryAnswer = RegistryAnswer::active(Role::Observer);
const OPERATOR: RegistryAnswer = RegistryAnswer::active(Role::Operator);

const PAUSES: Pauses = Pauses { again: Duration::from_millis(300), lag: Duration::from_millis(500) };

const DANA: &str = "dana@dispatch.example";

fn dana() -> EmailAddress {
    EmailAddress::parse(DANA).unwrap()
}

fn name(text: &str) -> SenderName {
    SenderName::parse(text).unwrap()
}

/// The time by which registrations count [s since 1970].
const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

/// The registry of an authenticator whose state is in the world's directory, and its task.
struct Running {
    registry: Registry,
    health: watch::Receiver<health::Ledger>,
    registrar: JoinHandle<()>,
}

impl Running {
    fn start(world: &World, ledger: Option<Arc<Ledger>>) -> Self {
        Self::start_with(world, ledger, None, now)
    }

    fn start_at(world: &World, ledger: Option<Arc<Ledger>>, now: fn() -> SystemTime) -> Self {
        Self::start_with(world, ledger, None, now)
    }

    fn start_with(
        world: &World,
        ledger: Option<Arc<Ledger>>,
        proof: Option<ProvenBy>,
        now: fn() -> SystemTime,
    ) -> Self {
        let revocations = Revocations::open(&world.path("revocations"), PAUSES.lag).unwrap();
        let (_, ledger) = watch::channel(ledger);
        let (sender, health) = watch::channel(health::Ledger::default());
        let key = AddressKey::from_bytes([7; 32]);
        let files = (revocations, Names::open(&world.path("senders")));
        let (registry, registrar): (_, Registrar) =
            Registry::new(ledger, key, files, sender, PAUSES, (proof, now));
        Self { registry, health, registrar: tokio::spawn(registrar.run()) }
    }

    async fn dana(&self) -> RegistryAnswer {
        self.registry.sender(&dana()).await
    }

    async fn sender(&self, address: &str) -> RegistryAnswer {
        self.registry.sender(&EmailAddress::parse(address).unwrap()).await
    }

    /// Asks for a registration.
    async fn register(&self, text: &str, terms: Terms) -> Pending {
        self.registry.register(name(text), terms).await
    }

    async fn register_dana(&self, role: Role) -> Pending {
        self.register(DANA, Terms::of(role)).await
    }

    async fn revoke(&self) -> Result<Changed, String> {
        self.registry.revoke(name(DANA)).await.done().await
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
    running.register_dana(Role::Operator).await.done().await.unwrap();
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
    let registering = running.register_dana(Role::Operator).await;
    in_the_pool(&world).await;
    let (revoking, registering_again) =
        (running.registry.revoke(name(DANA)).await, running.register_dana(Role::Observer).await);
    let revoking_again = running.registry.revoke(name(DANA)).await;
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

    running.register_dana(Role::Observer).await.done().await.unwrap();
    running.waiting(0).await;
    assert_eq!(running.dana().await, OBSERVER);
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
    let error = running.register_dana(Role::Operator).await.done().await.unwrap_err();
    assert!(error.contains("not confirmed after"), "{error}");
    in_the_pool(&world).await;

    let error = running.revoke().await.unwrap_err();
    assert!(error.starts_with("revoked here") && error.contains("not confirmed after"), "{error}");
    running.waiting(1).await;
    world.automine(true).await;
    world.mine().await;
    assert_eq!(running.dana().await, REVOKED);
    running.waiting(0).await;
    let chain = world.ledger().await;
    let key = AddressKey::from_bytes([7; 32]);
    assert_eq!(chain.sender(key.digest(Some(&dana()))).await.unwrap().registration(0), Registration::Revoked);
}

/// Once, a revocation of last month ended one that the chain did not take.
#[tokio::test]
async fn an_earlier_revocation_on_the_chain_does_not_end_one_that_waits() {
    let world = World::new(Kind::Anvil).await;
    let proxy = CuttingProxy::start(world.port()).await;
    let mut running = Running::start(&world, Some(through(&world, &proxy).await));
    running.revoke().await.unwrap();
    // The chain answers whatever it is asked, and takes nothing.
    proxy.cut_all_after("eth_estimateGas");
    let error = running.revoke().await.unwrap_err();
    assert!(error.starts_with("revoked here, also after a restart"), "{error}");
    tokio::time::sleep(3 * PAUSES.lag + 2 * PAUSES.again).await;
    assert_eq!(running.health.borrow().revocations, 1);
    proxy.pass_all();
    running.waiting(0).await;
}

/// A registry may belong to somebody else: once its registrar has revoked the sender, nothing is left to do.
#[tokio::test]
async fn it_ends_when_the_registrys_own_registrar_has_made_it() {
    let world = World::new(Kind::Anvil).await;
    let owner = world.ledger().await;
    let digest = AddressKey::from_bytes([7; 32]).digest(Some(&dana()));
    owner.register(digest, Terms::of(Role::Operator)).await.unwrap();
    let stranger = LedgerKey::load_or_create(&world.path("stranger.key")).unwrap();
    fund(&world.chain, stranger.address()).await;
    let options = LedgerOptions { registrar: Some(stranger), ..options() };
    let ledger = Ledger::connect(world.chain.clone(), world.key.clone(), world.dir.path(), options).await;
    let mut running = Running::start(&world, Some(Arc::new(ledger.unwrap())));
    let error = running.revoke().await.unwrap_err();
    assert!(error.starts_with("revoked here") && error.contains("may not register"), "{error}");
    assert_eq!(running.dana().await, REVOKED);
    owner.revoke(digest).await.unwrap();
    running.waiting(0).await;
    assert_eq!(running.dana().await, REVOKED);
}

/// Whoever asks for a registration and then for a revocation, without waiting, wants the sender revoked.
#[tokio::test]
async fn a_revocation_right_after_a_registration_comes_after_it() {
    let world = World::new(Kind::Anvil).await;
    let mut running = Running::start(&world, Some(Arc::new(world.ledger().await)));
    for _ in 0..5 {
        let (registering, revoking) =
            tokio::join!(running.register_dana(Role::Operator), running.registry.revoke(name(DANA)));
        let (registered, revoked) = tokio::join!(registering.done(), revoking.done());
        registered.unwrap();
        revoked.unwrap();
        running.waiting(0).await;
        assert_eq!(running.dana().await, REVOKED);
        tokio::time::sleep(PAUSES.lag).await;
        assert_eq!(running.dana().await, REVOKED, "the chain says so");
    }
}

/// Once, whatever revocation the chain had ended it.
#[tokio::test]
async fn an_earlier_revocation_by_somebody_else_does_not_end_it() {
    let world = World::new(Kind::Anvil).await;
    let owner = world.ledger().await;
    let digest = AddressKey::from_bytes([7; 32]).digest(Some(&dana()));
    owner.revoke(digest).await.unwrap();
    let stranger = LedgerKey::load_or_create(&world.path("stranger.key")).unwrap();
    fund(&world.chain, stranger.address()).await;
    let options = LedgerOptions { registrar: Some(stranger), ..options() };
    let ledger = Ledger::connect(world.chain.clone(), world.key.clone(), world.dir.path(), options).await;
    let mut running = Running::start(&world, Some(Arc::new(ledger.unwrap())));
    running.revoke().await.unwrap_err();
    tokio::time::sleep(3 * PAUSES.lag + 2 * PAUSES.again).await;
    assert_eq!(running.health.borrow().revocations, 1);
    // Blocks have seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    owner.revoke(digest).await.unwrap();
    running.waiting(0).await;
}

/// While a registration waits for its turn, another registrar revokes the sender.
#[tokio::test]
async fn a_registration_does_not_end_what_was_revoked_after_it_was_asked_for() {
    let world = World::new(Kind::Anvil).await;
    let ledger = Arc::new(world.ledger().await);
    let other = world.path("other.key");
    let other_key = LedgerKey::load_or_create(&other).unwrap();
    fund(&world.chain, other_key.address()).await;
    let (registry, owner) = (ledger.addresses().sender_registry, world.path("ledger.key"));
    let arguments = [Token::Address(other_key.address()), Token::Bool(true)];
    call_as(&world.chain, &owner, registry, "setRegistrar(address,bool)", &arguments).await.unwrap();
    let running = Running::start(&world, Some(ledger));
    world.automine(false).await;
    let first = running.register("first@dispatch.example", Terms::of(Role::Observer)).await;
    in_the_pool(&world).await;
    let registering = running.register_dana(Role::Operator).await;
    let digest = AddressKey::from_bytes([7; 32]).digest(Some(&dana()));
    let chain = world.chain.clone();
    let revoking = tokio::spawn(async move {
        call_as(&chain, &other, registry, "revoke(bytes32)", &[Token::FixedBytes(digest.to_vec())]).await
    });
    let both = async {
        while super::pool(&world).await.len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(testbed::PATIENCE, both).await.expect("both are sent");
    world.automine(true).await;
    world.mine().await;
    first.done().await.unwrap();
    revoking.await.unwrap().unwrap();
    let refused = registering.done().await.unwrap_err();
    assert!(refused.contains("revoked or registered by somebody else meanwhile"), "{refused}");
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
async fn a_sender_is_revoked_whether_or_not_it_was_registered_and_however_often() {
    let world = World::new(Kind::Embedded).await;
    let mut running = Running::start(&world, Some(Arc::new(world.ledger().await)));
    assert!(!running.revoke().await.unwrap().was_registered);
    assert_eq!(running.dana().await, REVOKED);
    assert!(running.revoke().await.unwrap().was_registered, "it is known as revoked");
    running.waiting(0).await;
    tokio::time::sleep(PAUSES.lag).await;
    assert_eq!(running.dana().await, REVOKED, "the chain says so");
    running.register_dana(Role::Observer).await.done().await.unwrap();
    assert_eq!(running.dana().await, OBSERVER);
}

#[tokio::test]
async fn a_domain_stands_for_its_addresses_that_have_no_entry_of_their_own() {
    let world = World::new(Kind::Embedded).await;
    let running = Running::start(&world, Some(Arc::new(world.ledger().await)));
    let domain = "@dispatch.example";
    running.register(domain, Terms::of(Role::Observer)).await.done().await.unwrap();
    assert_eq!(running.sender("Ada@Dispatch.Example").await, OBSERVER);
    assert_eq!(running.sender("ada@sub.dispatch.example").await, UNREGISTERED);
    running.register_dana(Role::Operator).await.done().await.unwrap();
    assert_eq!(running.dana().await, OPERATOR);
    // One of them is taken out, who has no entry yet.
    assert!(running.registry.revoke(name("ada@dispatch.example")).await.done().await.unwrap().was_registered);
    assert_eq!(
        (running.sender("ada@dispatch.example").await, running.sender("bob@dispatch.example").await),
        (REVOKED, OBSERVER)
    );

    let bob = EmailAddress::parse("bob@dispatch.example").unwrap();
    assert!(!running.registry.has_revoked(&bob).await);
    running.registry.revoke(name(domain)).await.done().await.unwrap();
    assert!(running.registry.has_revoked(&bob).await, "a verdict that is not published yet is weakened");
    assert!(!running.registry.has_revoked(&dana()).await);
    assert_eq!((running.sender("bob@dispatch.example").await, running.dana().await), (REVOKED, OPERATOR));

    let listed: Vec<_> =
        running.registry.list(0, 2).await.unwrap().0.into_iter().map(|one| one.name).collect();
    assert_eq!(listed, [Some(name(domain)), Some(name(DANA))]);
    let (rest, count) = running.registry.list(2, 256).await.unwrap();
    assert_eq!((rest.len(), rest[0].registration, count), (1, Registration::Revoked, 3));
    // Who lost the file of names sees digests.
    std::fs::remove_file(world.path("senders")).unwrap();
    let again = Running::start(&world, Some(Arc::new(world.ledger().await)));
    let (all, _) = again.registry.list(0, 256).await.unwrap();
    let digest = AddressKey::from_bytes([7; 32]).digest(Some(&dana()));
    assert!(all.iter().all(|one| one.name.is_none()) && all[1].digest == digest, "{all:?}");
}

/// Whoever writes to the contract without posthorn is not asked about its rules.
#[tokio::test]
async fn a_domain_that_the_chain_calls_operator_may_only_ask() {
    let world = World::new(Kind::Embedded).await;
    let ledger = Arc::new(world.ledger().await);
    let digest = AddressKey::from_bytes([7; 32]).name_digest(&name("@dispatch.example"));
    ledger.register(digest, Terms::of(Role::Operator)).await.unwrap();
    assert_eq!(Running::start(&world, Some(ledger)).dana().await, OBSERVER);
}

#[tokio::test]
async fn a_registration_counts_within_its_validity_and_names_its_key() {
    let world = World::new(Kind::Embedded).await;
    let running = Running::start(&world, Some(Arc::new(world.ledger().await)));
    let not_now = RegistryAnswer::inactive(Registration::NotValidNow);
    let at = |from: Option<u64>, until: Option<u64>| Terms {
        valid_from: from,
        valid_until: until,
        dkim_key: Some([3; 32]),
        ..Terms::of(Role::Operator)
    };
    for (terms, answer) in [
        (at(Some(NOW + 1), None), not_now),
        (at(Some(NOW), Some(NOW + 1)), RegistryAnswer { dkim_key: Some([3; 32]), ..OPERATOR }),
        (at(None, Some(NOW)), not_now),
    ] {
        running.register(DANA, terms).await.done().await.unwrap();
        assert_eq!(running.dana().await, answer, "{terms:?}");
        let (listed, _) = running.registry.list(0, 9).await.unwrap();
        assert_eq!((listed[0].sender.terms, listed[0].registration), (terms, answer.registration));
    }
    // A host whose clock has lost the time goes by that of the chain.
    running.register(DANA, at(None, Some(1_700_000_000))).await.done().await.unwrap();
    let lost = Running::start_at(&world, Some(Arc::new(world.ledger().await)), || SystemTime::UNIX_EPOCH);
    assert_eq!(lost.dana().await, not_now);
    let refused = running.register(DANA, at(Some(5), Some(5))).await.done().await.unwrap_err();
    assert!(refused.contains("the validity ends at 5 s"), "{refused}");
}

/// A node that answers about everybody what it last answered about somebody else.
#[tokio::test]
async fn a_node_that_lies_makes_nobody_an_operator() {
    let world = World::new(Kind::Anvil).await;
    let honest = Arc::new(world.ledger().await);
    Running::start(&world, Some(honest)).register_dana(Role::Operator).await.done().await.unwrap();
    let mut last = serde_json::Value::Null;
    let liar = Liar::start(world.chain.clone(), move |method, params, result| {
        // The first call of `find` is about Dana.
        let is_find = params[0]["data"].as_str().is_some_and(|data| data.len() > 2 * (4 + 3 * 32));
        if method == "eth_call" && is_find {
            if last.is_null() {
                last = result;
            }
            return Ok(last.clone());
        }
        Ok(result)
    })
    .await;
    let honest = Liar::start(world.chain.clone(), |_, _, result| Ok(result)).await;
    let nodes = Http::new(&liar.endpoint()).unwrap().with(&Http::new(&honest.endpoint()).unwrap());
    let connect = Ledger::connect(Connection::Http(nodes), world.key.clone(), world.dir.path(), options());
    let ledger = Arc::new(connect.await.unwrap());
    let running =
        Running::start_with(&world, Some(Arc::clone(&ledger)), Some(ProvenBy::Witness), SystemTime::now);
    assert_eq!(running.dana().await, OPERATOR);
    let mallory = running.sender("mallory@evil.example").await;
    assert_eq!(mallory, RegistryAnswer { is_proven: false, ..OPERATOR });
    drop(running);
    let trusting = Running::start_with(&world, Some(ledger), None, SystemTime::now);
    assert_eq!(trusting.sender("mallory@evil.example").await, OPERATOR);
}
