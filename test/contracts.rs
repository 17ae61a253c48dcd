// SPDX-License-Identifier: Apache-2.0
//! Checks that the committed contract artifacts are current, and what the contracts accept and reject on both chains.

use std::{path::Path, process::Command};

use chain::{LedgerError, LedgerKey, Revert};
use mail::{Registration, Role};

use crate::ledger::fixture::{Kind, World, anchor, on_both_chains};

#[test]
fn the_committed_artifacts_are_what_the_sources_compile_to() {
    let contracts = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts"));
    assert!(
        contracts.join("node_modules/solc").exists(),
        "contracts/node_modules is missing: run `make test`, or `npm ci --prefix contracts`"
    );
    let check = Command::new("node").arg(contracts.join("compile.mjs")).arg("--check").output();
    let check = check.expect("node is installed");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

on_both_chains!(
    registers_changes_and_revokes_senders,
    takes_orders_from_its_owner_only,
    anchors_every_leaf_once_and_in_order,
);

const SENDER: [u8; 32] = [7; 32];

fn revert<T: std::fmt::Debug>(result: Result<T, LedgerError>) -> Revert {
    match result {
        Err(LedgerError::Reverted { revert, .. }) => revert,
        other => panic!("expected a revert, got {other:?}"),
    }
}

async fn registers_changes_and_revokes_senders(world: World) {
    let ledger = world.ledger().await;
    let sender = async || ledger.sender(SENDER).await.unwrap();
    assert_eq!(sender().await, (Registration::Unregistered, Role::None, [0; 32]));
    assert_eq!(revert(ledger.revoke(SENDER).await), Revert::NotRegistered);
    assert_eq!(revert(ledger.register(SENDER, Role::None, [0; 32]).await), Revert::BadRole(0));

    ledger.register(SENDER, Role::Observer, [0; 32]).await.unwrap();
    assert_eq!(sender().await, (Registration::Active, Role::Observer, [0; 32]));
    ledger.register(SENDER, Role::Operator, [5; 32]).await.unwrap();
    assert_eq!(sender().await, (Registration::Active, Role::Operator, [5; 32]));
    assert_eq!(ledger.sender([8; 32]).await.unwrap().0, Registration::Unregistered);

    ledger.revoke(SENDER).await.unwrap();
    assert_eq!(sender().await, (Registration::Revoked, Role::None, [5; 32]));
    assert_eq!(revert(ledger.revoke(SENDER).await), Revert::NotRegistered);
    ledger.register(SENDER, Role::Observer, [0; 32]).await.unwrap();
    assert_eq!(sender().await, (Registration::Active, Role::Observer, [0; 32]));
}

async fn takes_orders_from_its_owner_only(world: World) {
    let ledger = world.ledger().await;
    ledger.register(SENDER, Role::Operator, [0; 32]).await.unwrap();
    let thief = LedgerKey::load_or_create(&world.path("thief.key")).unwrap();
    let thief = world.connect(thief).await.unwrap();
    assert_eq!(thief.addresses(), ledger.addresses());
    assert_eq!(revert(thief.register([9; 32], Role::Operator, [0; 32]).await), Revert::NotOwner);
    assert_eq!(revert(thief.revoke(SENDER).await), Revert::NotOwner);
    assert_eq!(revert(anchor(&thief, 0, vec![[1; 32]]).await), Revert::NotOwner);
    assert_eq!(thief.sender(SENDER).await.unwrap().0, Registration::Active);
}

async fn anchors_every_leaf_once_and_in_order(world: World) {
    let ledger = world.ledger().await;
    assert_eq!(ledger.next_index().await.unwrap(), 0);
    anchor(&ledger, 0, vec![[1; 32], [2; 32], [3; 32]]).await.unwrap();
    assert_eq!(ledger.next_index().await.unwrap(), 3);
    let out_of_order = |first| Revert::OutOfOrder { next: 3, first };
    assert_eq!(revert(anchor(&ledger, 0, vec![[1; 32], [2; 32], [3; 32]]).await), out_of_order(0));
    assert_eq!(revert(anchor(&ledger, 2, vec![[3; 32], [4; 32]]).await), out_of_order(2));
    assert_eq!(revert(anchor(&ledger, 4, vec![[5; 32]]).await), out_of_order(4));
    assert_eq!(revert(anchor(&ledger, 3, vec![]).await), Revert::EmptyBatch);
    let mined = anchor(&ledger, 3, vec![[4; 32]]).await.unwrap();

    let found = ledger.find_anchor(3).await.unwrap().unwrap();
    // In a batch of one, the root is the leaf.
    assert_eq!((found.first, found.count, found.root), (3, 1, [4; 32]));
    assert_eq!(found.transaction, mined.transaction);
    assert_eq!(ledger.find_anchor(1).await.unwrap(), None);
}

#[tokio::test]
async fn both_chains_give_the_same_addresses_and_charge_the_same_gas() {
    let mut seen = Vec::new();
    let key_dir = tempfile::tempdir().unwrap();
    let key = LedgerKey::load_or_create(&key_dir.path().join("ledger.key")).unwrap();
    for kind in [Kind::Embedded, Kind::Anvil] {
        let world = World::with_key(kind, tempfile::tempdir().unwrap(), key.clone()).await;
        let ledger = world.ledger().await;
        let addresses = (ledger.addresses().sender_registry, ledger.addresses().evidence_ledger);
        let gas = [
            ("register", ledger.register(SENDER, Role::Observer, [5; 32]).await.unwrap().gas_used),
            ("change of role", ledger.register(SENDER, Role::Operator, [5; 32]).await.unwrap().gas_used),
            ("revoke", ledger.revoke(SENDER).await.unwrap().gas_used),
            ("first anchor", anchor(&ledger, 0, vec![[1; 32]]).await.unwrap().gas_used),
            ("anchor of 1", anchor(&ledger, 1, vec![[2; 32]]).await.unwrap().gas_used),
            ("anchor of 65536", anchor(&ledger, 2, vec![[3; 32]; 65536]).await.unwrap().gas_used),
        ];
        eprintln!("{kind:?}: gas {gas:?}");
        seen.push((addresses, gas));
    }
    assert_eq!(seen[0], seen[1]);
}
