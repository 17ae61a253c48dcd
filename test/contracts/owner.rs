// SPDX-License-Identifier: Apache-2.0
//! Whose orders the contracts take, and how an owner changes that with other tools than posthorn.

use chain::{Connection, Ledger, LedgerError, LedgerKey, LedgerOptions, Revert, Terms, WaitsFor};
use mail::{Registration, Role};
use serde_json::json;
use web3::{Transport, ethabi::Token};

use crate::{
    contracts::{SENDER, revert},
    ledger::fixture::{Kind, World, anchor, call_as, fund, options},
};

/// An account with funds, and the file of its key.
async fn account(world: &World, name: &str) -> (LedgerKey, std::path::PathBuf) {
    let path = world.path(name);
    let key = LedgerKey::load_or_create(&path).unwrap();
    fund(&world.chain, key.address()).await;
    (key, path)
}

async fn connect(
    world: &World,
    key: &LedgerKey,
    registrar: Option<&LedgerKey>,
) -> Result<Ledger, LedgerError> {
    let options = LedgerOptions { registrar: registrar.cloned(), ..options() };
    Ledger::connect(world.chain.clone(), key.clone(), world.dir.path(), options).await
}

#[tokio::test]
async fn only_the_accounts_that_the_owner_names_anchor_and_register() {
    let world = World::new(Kind::Anvil).await;
    let ledger = world.ledger().await;
    let (thief, path) = account(&world, "thief.key").await;
    let not_anchorer = Revert::NotAnchorer(thief.address());
    let refused = anchor(&connect(&world, &thief, None).await.unwrap(), 0, vec![[1; 32]]).await.unwrap_err();
    assert!(refused.to_string().contains("setAnchorer"), "{refused}");
    assert_eq!(revert::<()>(Err(refused)), not_anchorer);

    let own = connect(&world, &world.key, Some(&thief)).await.unwrap();
    let not_registrar = Revert::NotRegistrar(thief.address());
    assert_eq!(revert(own.register([9; 32], Terms::of(Role::Operator)).await), not_registrar);
    assert_eq!(revert(own.revoke(SENDER).await), not_registrar);

    // The thief cannot make itself one of them.
    let (registry, evidence) = (ledger.addresses().sender_registry, ledger.addresses().evidence_ledger);
    let myself = Token::Address(thief.address());
    for (contract, function, arguments) in [
        (evidence, "setAnchorer(address)", vec![myself.clone()]),
        (evidence, "transferOwnership(address)", vec![myself.clone()]),
        (evidence, "acceptOwnership()", vec![]),
        (registry, "setRegistrar(address,bool)", vec![myself.clone(), Token::Bool(true)]),
        (registry, "transferOwnership(address)", vec![myself]),
        (registry, "acceptOwnership()", vec![]),
    ] {
        call_as(&world.chain, &path, contract, function, &arguments).await.expect_err(function);
    }
    assert_eq!(ledger.sender([9; 32]).await.unwrap(), chain::Sender::default());
    assert_eq!(ledger.next_index().await.unwrap(), 0);
    // Nor can the owner leave the contracts to nobody.
    for contract in [registry, evidence] {
        let left =
            call_as(&world.chain, &world.path("ledger.key"), contract, "renounceOwnership()", &[]).await;
        left.expect_err("renounceOwnership");
    }
}

#[tokio::test]
async fn the_keys_that_anchor_and_register_are_exchanged_and_the_contracts_stay() {
    let world = World::new(Kind::Anvil).await;
    let old = world.ledger().await;
    anchor(&old, 0, vec![[1; 32]; 3]).await.unwrap();
    old.register(SENDER, Terms::of(Role::Observer)).await.unwrap();
    let (anchorer, _) = account(&world, "anchorer.key").await;
    let (registrar, _) = account(&world, "registrar.key").await;
    let owner = world.path("ledger.key");
    let (registry, evidence) = (old.addresses().sender_registry, old.addresses().evidence_ledger);

    let address = |key: &LedgerKey| Token::Address(key.address());
    let order = async |contract, function, arguments: Vec<Token>| {
        call_as(&world.chain, &owner, contract, function, &arguments).await.unwrap();
    };
    order(evidence, "setAnchorer(address)", vec![address(&anchorer)]).await;
    order(registry, "setRegistrar(address,bool)", vec![address(&registrar), Token::Bool(true)]).await;
    order(registry, "setRegistrar(address,bool)", vec![address(&world.key), Token::Bool(false)]).await;

    let not_anchorer = Revert::NotAnchorer(world.key.address());
    let refused = anchor(&old, 3, vec![[2; 32]]).await.unwrap_err();
    assert!(refused.is_retryable(), "the owner may change it back: {refused}");
    assert_eq!(revert::<()>(Err(refused)), not_anchorer);
    assert_eq!(revert(old.revoke(SENDER).await), Revert::NotRegistrar(world.key.address()));

    let new = connect(&world, &anchorer, Some(&registrar)).await.unwrap();
    assert_eq!(new.addresses(), old.addresses());
    anchor(&new, 3, vec![[2; 32]]).await.unwrap();
    new.revoke(SENDER).await.unwrap();
    assert_eq!(new.next_index().await.unwrap(), 4);
    assert!(new.registrar_in_flight().is_some() && old.registrar_in_flight().is_none());
}

#[tokio::test]
async fn ownership_passes_only_to_who_takes_it() {
    let world = World::new(Kind::Anvil).await;
    let addresses = world.ledger().await.addresses().clone();
    let old = world.path("ledger.key");
    let (key, new) = account(&world, "owner.key").await;
    let set = |contract| {
        if contract == addresses.evidence_ledger {
            "setAnchorer(address)"
        } else {
            "setRegistrar(address,bool)"
        }
    };
    let chain: &Connection = &world.chain;
    for contract in [addresses.sender_registry, addresses.evidence_ledger] {
        let mut arguments = vec![Token::Address(key.address())];
        call_as(chain, &old, contract, "transferOwnership(address)", &arguments).await.unwrap();
        if contract == addresses.sender_registry {
            arguments.push(Token::Bool(true));
        }
        // Until it is taken, the old owner is the owner: a wrong address costs nothing.
        call_as(chain, &new, contract, set(contract), &arguments).await.expect_err("not yet");
        call_as(chain, &old, contract, set(contract), &arguments).await.unwrap();
        call_as(chain, &new, contract, "acceptOwnership()", &[]).await.unwrap();
        call_as(chain, &old, contract, set(contract), &arguments).await.expect_err("not any more");
        call_as(chain, &new, contract, set(contract), &arguments).await.unwrap();
    }
}

/// A registration that is on its way when another registrar revokes the sender does not end that revocation.
#[tokio::test]
async fn a_registration_ends_no_revocation_that_its_registrar_did_not_know() {
    let world = World::new(Kind::Anvil).await;
    let ledger = world.ledger().await;
    let (_, other) = account(&world, "other.key").await;
    let (owner, registry) = (world.path("ledger.key"), ledger.addresses().sender_registry);
    let arguments = [Token::Address(address_of(&other)), Token::Bool(true)];
    call_as(&world.chain, &owner, registry, "setRegistrar(address,bool)", &arguments).await.unwrap();

    world.automine(false).await;
    let (registering, mut in_flight) =
        (ledger.register(SENDER, Terms::of(Role::Operator)), ledger.in_flight());
    let meanwhile = async {
        let sent = in_flight.wait_for(|now| {
            now.as_ref().is_some_and(|now| now.transaction.is_some() && now.waits_for == WaitsFor::Block)
        });
        let sent = sent.await.unwrap().as_ref().and_then(|now| now.transaction);
        world.chain.execute("anvil_dropTransaction", vec![json!(sent)]).await.unwrap();
        world.automine(true).await;
        let digest = Token::FixedBytes(SENDER.to_vec());
        call_as(&world.chain, &other, registry, "revoke(bytes32)", &[digest]).await.unwrap();
        std::future::pending::<()>().await;
    };
    let registered = tokio::select! {
        registered = registering => registered,
        () = meanwhile => unreachable!("it waits for ever"),
    };
    let failed = registered.unwrap_err();
    let is_undone =
        matches!(failed, LedgerError::Failed { .. } | LedgerError::Reverted { revert: Revert::Outdated, .. });
    assert!(is_undone, "{failed}");
    assert_eq!(ledger.sender(SENDER).await.unwrap().registration(0), Registration::Revoked);
    // Who looks again may register.
    ledger.register(SENDER, Terms::of(Role::Operator)).await.unwrap();
    assert_eq!(ledger.sender(SENDER).await.unwrap().registration(0), Registration::Active);
}

fn address_of(key: &std::path::Path) -> chain::Address {
    LedgerKey::load_or_create(key).unwrap().address()
}
