// SPDX-License-Identifier: Apache-2.0
//! Contracts of the first version are replaced by new ones that take over their senders, and the evidence is anchored anew.

use std::{fs, sync::Arc};

use chain::{Ledger, LedgerError, LedgerKey, LedgerOptions, Terms};
use evidence::log::EvidenceLog;
use mail::{Registration, Role};
use serde_json::{Value, json};
use web3::{
    Web3,
    ethabi::Token,
    types::{Address, H256},
};

use crate::ledger::{
    append,
    fixture::{Kind, World, call_as, deploy_as, fund, on_both_chains, options},
    start, store,
};

on_both_chains!(
    old_contracts_are_named_and_left_alone_until_the_operator_says_so,
    an_upgrade_keeps_senders_and_evidence,
    only_the_contract_that_is_old_is_replaced,
    a_first_deployment_that_was_cut_short_goes_on_with_the_ledger,
    who_is_revoked_in_the_old_registry_during_an_upgrade_is_revoked_in_the_new_one,
);

/// Deploys the contracts of the first version and names them in `contracts.json`.
async fn old_contracts(world: &World) -> (Address, Address) {
    let deploy = async |name: &str| {
        let path = testbed::project(&format!("contracts/artifacts/v1/{name}.json"));
        let artifact: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let code = hex::decode(artifact["bytecode"].as_str().unwrap().trim_start_matches("0x")).unwrap();
        deploy_as(&world.chain, &world.path("ledger.key"), code).await
    };
    let (registry, ledger) = (deploy("SenderRegistry").await, deploy("EvidenceLedger").await);
    write(world, registry, ledger, false).await;
    (registry, ledger)
}

async fn write(world: &World, registry: Address, ledger: Address, replace: bool) {
    let chain_id = Web3::new(world.chain.clone()).eth().chain_id().await.unwrap().as_u64();
    let mut addresses = json!({
        "chain_id": chain_id, "sender_registry": registry, "evidence_ledger": ledger, "deployed_block": 1,
    });
    if replace {
        addresses["replace"] = json!(true);
    }
    fs::write(world.path("contracts.json"), addresses.to_string()).unwrap();
}

async fn old_contracts_are_named_and_left_alone_until_the_operator_says_so(world: World) {
    old_contracts(&world).await;
    let before = fs::read(world.path("contracts.json")).unwrap();
    let error = world.connect(world.key.clone()).await.err().unwrap();
    assert!(
        !error.is_retryable() && matches!(error, LedgerError::OtherVersion { version: 1, .. }),
        "{error}"
    );
    let words = error.to_string();
    assert!(words.contains("version 1 at 0x") && words.contains("docs/operations.md"), "{words}");
    assert_eq!(fs::read(world.path("contracts.json")).unwrap(), before);
}

/// As in the second authenticator of a registry that the first has replaced already.
async fn only_the_contract_that_is_old_is_replaced(world: World) {
    let new = world.ledger().await;
    new.register([1; 32], Terms::of(Role::Operator)).await.unwrap();
    let registry = new.addresses().sender_registry;
    drop(new);
    let (_, old_ledger) = old_contracts(&world).await;
    write(&world, registry, old_ledger, true).await;
    let mixed = world.ledger().await;
    assert_eq!(mixed.addresses().sender_registry, registry);
    assert_ne!(mixed.addresses().evidence_ledger, old_ledger);
    assert_eq!(mixed.sender([1; 32]).await.unwrap().terms, Terms::of(Role::Operator));
}

async fn a_first_deployment_that_was_cut_short_goes_on_with_the_ledger(world: World) {
    let registry = world.ledger().await.addresses().sender_registry;
    fs::write(world.path("contracts.json"), json!({ "new_registry": registry }).to_string()).unwrap();
    let ledger = world.ledger().await;
    assert_eq!(ledger.addresses().sender_registry, registry);
    ledger.register([1; 32], Terms::of(Role::Observer)).await.unwrap();
    assert_eq!(ledger.next_index().await.unwrap(), 0);
    let kept: Value = serde_json::from_slice(&fs::read(world.path("contracts.json")).unwrap()).unwrap();
    assert_eq!(kept["sender_registry"], json!(registry));
}

async fn who_is_revoked_in_the_old_registry_during_an_upgrade_is_revoked_in_the_new_one(world: World) {
    let new = world.ledger().await;
    let addresses = new.addresses().clone();
    for number in [1, 2] {
        new.register([number; 32], Terms::of(Role::Operator)).await.unwrap();
    }
    drop(new);
    let (old, _) = old_contracts(&world).await;
    let owner = world.path("ledger.key");
    // Blocks have seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    for number in [1_u8, 2] {
        let digest = Token::FixedBytes(vec![number; 32]);
        let arguments = [digest, Token::Uint(2.into()), Token::FixedBytes(vec![0; 32])];
        call_as(&world.chain, &owner, old, "register(bytes32,uint8,bytes32)", &arguments).await.unwrap();
    }
    let digest = Token::FixedBytes(vec![1; 32]);
    call_as(&world.chain, &owner, old, "revoke(bytes32)", &[digest]).await.unwrap();
    // As an upgrade leaves it that was cut short after it had both.
    let mut cut_short = serde_json::to_value(&addresses).unwrap();
    cut_short["senders_of"] = json!({ "address": old, "from_block": 0 });
    fs::write(world.path("contracts.json"), cut_short.to_string()).unwrap();
    let (_, [first, second]) = world.ledger().await.senders([[1; 32], [2; 32]]).await.unwrap();
    assert_eq!(
        (first.registration(5), second.registration(5)),
        (Registration::Revoked, Registration::Active)
    );
}

/// The registrar has no funds at first, so that the upgrade is cut short.
#[tokio::test]
async fn an_upgrade_that_is_cut_short_goes_on_with_the_same_contracts() {
    let world = World::new(Kind::Anvil).await;
    let (registry, ledger) = old_contracts(&world).await;
    let owner = world.path("ledger.key");
    let nobody = world.connect_to_replace(registry, ledger, None).await.unwrap_err();
    assert!(nobody.contains("use a node that keeps logs"), "{nobody}");
    for number in 1..=3_u8 {
        let digest = Token::FixedBytes(vec![number; 32]);
        let arguments = [digest, Token::Uint(1.into()), Token::FixedBytes(vec![0; 32])];
        call_as(&world.chain, &owner, registry, "register(bytes32,uint8,bytes32)", &arguments).await.unwrap();
    }
    let registrar = LedgerKey::load_or_create(&world.path("registrar.key")).unwrap();
    let refused = world.connect_to_replace(registry, ledger, Some(&registrar)).await.unwrap_err();
    assert!(refused.contains("nsufficient funds"), "{refused}");
    let between: Value = serde_json::from_slice(&fs::read(world.path("contracts.json")).unwrap()).unwrap();
    assert_eq!(between["senders_of"]["address"], json!(registry), "{between}");

    fund(&world.chain, registrar.address()).await;
    let options = LedgerOptions { registrar: Some(registrar), ..options() };
    let done =
        Ledger::connect(world.chain.clone(), world.key.clone(), world.dir.path(), options).await.unwrap();
    assert_eq!(
        json!(done.addresses().sender_registry),
        between["sender_registry"],
        "nothing was deployed again"
    );
    assert_eq!(done.list_senders(0, 9).await.unwrap().1, 3);
    let after: Value = serde_json::from_slice(&fs::read(world.path("contracts.json")).unwrap()).unwrap();
    assert!(after.get("senders_of").is_none() && after.get("replace").is_none(), "{after}");
}

impl World {
    /// What is said if these contracts are to be replaced.
    async fn connect_to_replace(
        &self,
        registry: Address,
        ledger: Address,
        registrar: Option<&LedgerKey>,
    ) -> Result<(), String> {
        write(self, registry, ledger, true).await;
        let options = LedgerOptions { registrar: registrar.cloned(), ..options() };
        let connected = Ledger::connect(self.chain.clone(), self.key.clone(), self.dir.path(), options).await;
        connected.map(drop).map_err(|error| error.to_string())
    }
}

async fn an_upgrade_keeps_senders_and_evidence(world: World) {
    let (registry, ledger) = old_contracts(&world).await;
    let owner = world.path("ledger.key");
    let call = async |contract, function, arguments: Vec<Token>| {
        call_as(&world.chain, &owner, contract, function, &arguments).await.unwrap();
    };
    let bytes = |bytes: [u8; 32]| Token::FixedBytes(bytes.to_vec());
    let role = |role: Role| Token::Uint((role as u8).into());
    // More than are sent together.
    for number in 1..=20 {
        let key = if number == 2 { [5; 32] } else { [0; 32] };
        let arguments = vec![bytes([number; 32]), role(Role::Operator), bytes(key)];
        call(registry, "register(bytes32,uint8,bytes32)", arguments).await;
    }
    call(
        registry,
        "register(bytes32,uint8,bytes32)",
        vec![bytes([1; 32]), role(Role::Observer), bytes([0; 32])],
    )
    .await;
    call(registry, "revoke(bytes32)", vec![bytes([3; 32])]).await;
    // What is in the log was anchored in the old ledger.
    let log = store(world.dir.path());
    append(&log, 0..6).await;
    drop(log);
    let (mut log, _) = EvidenceLog::open(&world.path("evidence")).unwrap();
    let leaves = log.leaves(0, 6).unwrap();
    let root = evidence::merkle::Tree::new(leaves).root();
    call(
        ledger,
        "anchor(uint64,uint32,bytes32)",
        vec![Token::Uint(0.into()), Token::Uint(6.into()), bytes(root)],
    )
    .await;
    let block = Web3::new(world.chain.clone()).eth().block_number().await.unwrap().as_u64();
    let anchor = evidence::Anchor {
        first: 0,
        count: 6,
        revision: 0,
        root,
        chain_id: 1,
        contract: ledger.0,
        transaction: H256::repeat_byte(1).0,
        block_number: block,
        block_hash: [1; 32],
        anchored_at: std::time::SystemTime::UNIX_EPOCH,
    };
    log.append_anchors(vec![anchor]).unwrap();
    drop(log);

    write(&world, registry, ledger, true).await;
    let new = Arc::new(
        Ledger::connect(world.chain.clone(), world.key.clone(), world.dir.path(), options()).await.unwrap(),
    );
    assert!(new.addresses().sender_registry != registry && new.addresses().evidence_ledger != ledger);
    let kept = fs::read_to_string(world.path("contracts-v1.json")).unwrap();
    assert!(kept.contains(&format!("{ledger:?}")), "{kept}");
    let (_, [first, pinned, revoked, last]) =
        new.senders([[1; 32], [2; 32], [3; 32], [20; 32]]).await.unwrap();
    assert_eq!(first.terms, Terms::of(Role::Observer));
    assert_eq!(pinned.terms, Terms { dkim_key: Some([5; 32]), ..Terms::of(Role::Operator) });
    assert_eq!(revoked.registration(5), Registration::Revoked);
    assert_eq!((last.terms, last.registration(5)), (Terms::of(Role::Operator), Registration::Active));
    assert_eq!(new.list_senders(0, 99).await.unwrap().1, 20);

    // The leaves get new receipts, of the new ledger; what was true of the old one is kept as superseded.
    let mut running = start(&store(world.dir.path()), &new);
    let receipts = running.receive(6).await;
    for receipt in &receipts {
        assert_eq!(
            (receipt.anchor.contract, receipt.anchor.revision),
            (new.addresses().evidence_ledger.0, 1)
        );
        new.verify(receipt).await.unwrap();
    }
    running.stop().await;
    // The next start finds the new contracts.
    let again = world.ledger().await;
    assert_eq!(again.addresses(), new.addresses());
}
