// SPDX-License-Identifier: Apache-2.0
//! Checks that the committed contract artifacts are current, and what the contracts accept and reject on both chains.

mod owner;
mod sequences;
mod slither;
mod upgrade;

use std::{fmt::Write, path::Path, process::Command};

use chain::{LedgerError, LedgerKey, Revert, Sender, Terms};
use mail::{Registration, Role};

use crate::{
    documents::is_current,
    ledger::fixture::{Kind, World, anchor, on_both_chains},
};

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

on_both_chains!(registers_changes_and_revokes_senders, anchors_every_leaf_once_and_in_order,);

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
    assert_eq!(sender().await, Sender::default());
    assert_eq!(revert(ledger.register(SENDER, Terms::default()).await), Revert::BadRole(0));
    let backwards = Terms { valid_from: Some(9), valid_until: Some(9), ..Terms::of(Role::Observer) };
    let refused = revert(ledger.register(SENDER, backwards).await);
    assert_eq!(refused, Revert::BadValidity { from: 9, until: 9 });
    assert_eq!(ledger.list_senders(0, 9).await.unwrap(), (vec![], 0));

    ledger.register(SENDER, Terms::of(Role::Observer)).await.unwrap();
    let first = sender().await;
    assert_eq!((first.terms, first.revoked_at), (Terms::of(Role::Observer), None));
    assert!(first.registered_at.is_some_and(|time| time > 1_700_000_000), "{first:?}");
    let limited = Terms {
        valid_from: Some(5),
        valid_until: Some(u64::from(u32::MAX) << 8),
        dkim_key: Some([5; 32]),
        ..Terms::of(Role::Operator)
    };
    ledger.register(SENDER, limited).await.unwrap();
    assert_eq!(sender().await.terms, limited);

    // Twice, and of who was never registered: it is the state that counts.
    for digest in [SENDER, SENDER, [8; 32]] {
        ledger.revoke(digest).await.unwrap();
        let revoked = ledger.sender(digest).await.unwrap();
        assert_eq!(revoked.registration(5), Registration::Revoked);
    }
    let (time, [one, other, unknown]) = ledger.senders([SENDER, [8; 32], [9; 32]]).await.unwrap();
    assert!(time >= one.revoked_at.unwrap(), "{time}");
    assert_eq!((one.terms, other.terms, unknown), (limited, Terms::default(), Sender::default()));
    ledger.register(SENDER, Terms::of(Role::Observer)).await.unwrap();
    assert_eq!(sender().await.registration(5), Registration::Active);

    let all = vec![(SENDER, sender().await), ([8; 32], other)];
    assert_eq!(ledger.list_senders(0, 9).await.unwrap(), (all.clone(), 2));
    assert_eq!(ledger.list_senders(1, 9).await.unwrap(), (all[1..].to_vec(), 2));
    assert_eq!(ledger.list_senders(0, 1).await.unwrap(), (all[..1].to_vec(), 2));
    assert_eq!(ledger.list_senders(2, 9).await.unwrap(), (vec![], 2));
    assert_eq!(ledger.list_senders(u64::MAX, u64::MAX).await.unwrap(), (vec![], 2));
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

/// What each call costs is in `contracts/gas.txt`, so that a change of it is seen.
#[tokio::test]
async fn both_chains_give_the_same_addresses_and_charge_the_gas_that_is_known() {
    let mut seen = Vec::new();
    let key_dir = tempfile::tempdir().unwrap();
    let key = LedgerKey::load_or_create(&key_dir.path().join("ledger.key")).unwrap();
    for kind in [Kind::Embedded, Kind::Anvil] {
        let world = World::with_key(kind, tempfile::tempdir().unwrap(), key.clone()).await;
        let ledger = world.ledger().await;
        let addresses = (ledger.addresses().sender_registry, ledger.addresses().evidence_ledger);
        let whole = Terms {
            valid_from: Some(1_800_000_000),
            valid_until: Some(1_900_000_000),
            dkim_key: Some([5; 32]),
            ..Terms::of(Role::Operator)
        };
        let gas = [
            ("register", ledger.register(SENDER, Terms::of(Role::Observer)).await.unwrap().gas_used),
            ("change the role", ledger.register(SENDER, Terms::of(Role::Operator)).await.unwrap().gas_used),
            ("register with validity and key", ledger.register([8; 32], whole).await.unwrap().gas_used),
            ("revoke", ledger.revoke(SENDER).await.unwrap().gas_used),
            ("revoke who is not registered", ledger.revoke([9; 32]).await.unwrap().gas_used),
            ("first anchor", anchor(&ledger, 0, vec![[1; 32]]).await.unwrap().gas_used),
            ("anchor of 1", anchor(&ledger, 1, vec![[2; 32]]).await.unwrap().gas_used),
            ("anchor of 1000", anchor(&ledger, 2, vec![[2; 32]; 1000]).await.unwrap().gas_used),
            ("anchor of 65536", anchor(&ledger, 1002, vec![[3; 32]; 65536]).await.unwrap().gas_used),
        ];
        seen.push((addresses, gas));
    }
    assert_eq!(seen[0], seen[1]);
    let mut text = String::from(
        "Gas of each call, by the test `contracts::both_chains`; `POSTHORN_REGENERATE=1 make test ONLY=contracts` writes it anew.\n",
    );
    for (call, gas) in seen[0].1 {
        writeln!(text, "{gas:>7}  {call}").unwrap();
    }
    is_current("contracts/gas.txt", &text);
}
