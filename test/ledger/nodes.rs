// SPDX-License-Identifier: Apache-2.0
//! Several nodes of a chain, some of which are silent, lag or lie.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use chain::{Connection, Http, Ledger, LedgerError, ProvenBy, Sender, Terms};
use mail::Role;
use serde_json::json;
use web3::{Transport, Web3};

use super::{
    fixture::{CuttingProxy, Kind, World},
    json_rpc::served,
    liar::Liar,
    options,
};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A ledger that asks the first of these nodes, and the others if it cannot.
async fn ledger(world: &World, nodes: &[String]) -> Ledger {
    let mut nodes = nodes.iter().map(|url| Http::new(url).unwrap());
    let first = nodes.next().unwrap();
    let http = nodes.fold(first, |http, other| http.with(&other));
    Ledger::connect(Connection::Http(http), world.key.clone(), world.dir.path(), options()).await.unwrap()
}

async fn honest(world: &World) -> Liar {
    Liar::start(world.chain.clone(), |_, _, result| Ok(result)).await
}

fn rule(refused: Result<Sender, LedgerError>) -> String {
    refused.unwrap_err().to_string()
}

/// Also that the slots of the contract's storage are read as the contract writes them.
#[tokio::test]
async fn what_is_proven_is_what_the_contract_has() {
    let world = World::new(Kind::Anvil).await;
    let (one, other) = (honest(&world).await, honest(&world).await);
    let ledger = ledger(&world, &[one.endpoint(), other.endpoint()]).await;
    let plain = Terms::of(Role::Observer);
    let all = Terms {
        role: Role::Operator,
        valid_from: Some(1_700_000_000),
        valid_until: Some((1 << 48) - 1),
        dkim_key: Some([0xab; 32]),
    };
    ledger.register([1; 32], plain).await.unwrap();
    ledger.register([2; 32], all).await.unwrap();
    ledger.register([3; 32], all).await.unwrap();
    ledger.revoke([3; 32]).await.unwrap();
    ledger.revoke([4; 32]).await.unwrap();
    for digest in 1..=5 {
        let said = ledger.sender([digest; 32]).await.unwrap();
        let proven = ledger.proven_sender([digest; 32], ProvenBy::Witness, now()).await.unwrap();
        assert_eq!(proven, said, "{digest}");
        assert_eq!(proven == Sender::default(), digest == 5);
    }
    // An old block has who was revoked since.
    let old = ledger.proven_sender([2; 32], ProvenBy::Witness, now() + 3 * 3600).await;
    assert!(rule(old).contains("of the last 3600 s"));
}

#[tokio::test]
async fn the_finalized_block_proves_what_was_final_and_an_only_node_is_enough_for_it() {
    let world = World::new(Kind::Anvil).await;
    let one = honest(&world).await;
    let ledger = ledger(&world, &[one.endpoint()]).await;
    ledger.register([1; 32], Terms::of(Role::Operator)).await.unwrap();
    let proven = async || ledger.proven_sender([1; 32], ProvenBy::Finalized, now()).await;
    let early = proven().await;
    assert!(early.is_err() || early.is_ok_and(|sender| sender == Sender::default()), "not final yet");
    world.chain.execute("anvil_mine", vec![json!("0x80"), json!("0x0")]).await.unwrap();
    assert_eq!(proven().await.unwrap(), ledger.sender([1; 32]).await.unwrap());
    // Nobody else has seen the newest block.
    let newest = ledger.proven_sender([1; 32], ProvenBy::Witness, now()).await;
    assert!(rule(newest).contains("that another node has, too"));
}

#[tokio::test]
async fn a_proof_of_something_else_is_none() {
    type Lie = fn(&str, &serde_json::Value, serde_json::Value) -> Result<serde_json::Value, i64>;
    let lies: [(&str, Lie); 6] = [
        ("another state", |method, _, mut result| {
            if method == "eth_getBlockByNumber" {
                result["stateRoot"] = json!(format!("0x{}", "11".repeat(32)));
            }
            Ok(result)
        }),
        ("another account", |method, _, mut result| {
            if method == "eth_getProof" {
                let nodes = result["accountProof"].as_array_mut().unwrap();
                nodes.pop();
            }
            Ok(result)
        }),
        ("another value", |method, _, mut result| {
            if method == "eth_getProof" {
                let node = &mut result["storageProof"][0]["proof"][0];
                let text = node.as_str().unwrap().to_owned();
                let digit = if text.ends_with('0') { "1" } else { "0" };
                *node = json!(format!("{}{digit}", &text[..text.len() - 1]));
            }
            Ok(result)
        }),
        ("no storage", |method, _, mut result| {
            if method == "eth_getProof" {
                result["storageProof"][0]["proof"] = json!([]);
            }
            Ok(result)
        }),
        ("one slot for both", |method, _, mut result| {
            if method == "eth_getProof" {
                result["storageProof"][1] = result["storageProof"][0].clone();
            }
            Ok(result)
        }),
        (
            "no such method",
            |method, _, result| if method == "eth_getProof" { Err(-32601) } else { Ok(result) },
        ),
    ];
    let world = World::new(Kind::Anvil).await;
    let registrar = Arc::new(world.ledger().await);
    let terms = Terms { dkim_key: Some([0xab; 32]), ..Terms::of(Role::Operator) };
    registrar.register([1; 32], terms).await.unwrap();
    drop(registrar);
    let other = honest(&world).await;
    for (what, lie) in lies {
        let liar = Liar::start(world.chain.clone(), lie).await;
        let ledger = ledger(&world, &[liar.endpoint(), other.endpoint()]).await;
        let refused = ledger.proven_sender([1; 32], ProvenBy::Witness, now()).await;
        assert!(refused.is_err(), "{what}: {refused:?}");
    }
}

/// True, and of somebody else.
#[tokio::test]
async fn the_proof_of_another_sender_is_none() {
    let world = World::new(Kind::Anvil).await;
    let mut first = serde_json::Value::Null;
    let liar = Liar::start(world.chain.clone(), move |method, _, result| {
        if method == "eth_getProof" {
            if first.is_null() {
                first = result;
            }
            return Ok(first.clone());
        }
        Ok(result)
    })
    .await;
    let other = honest(&world).await;
    let ledger = ledger(&world, &[liar.endpoint(), other.endpoint()]).await;
    ledger.register([1; 32], Terms::of(Role::Operator)).await.unwrap();
    let prove = async |digest| ledger.proven_sender([digest; 32], ProvenBy::Witness, now()).await;
    assert_eq!(prove(1).await.unwrap(), ledger.sender([1; 32]).await.unwrap());
    for digest in [2, 3] {
        // If the block is still the same, everything fits but the slot.
        let refused = prove(digest).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    assert!(prove(1).await.is_ok());
}

#[tokio::test]
async fn another_node_stands_in_and_none_of_another_chain_does() {
    let world = World::new(Kind::Anvil).await;
    let proxy = CuttingProxy::start(world.port()).await;
    let embedded = World::new(Kind::Embedded).await;
    embedded.ledger().await;
    let foreign = format!("http://{}", served(&embedded).await);
    let standby = honest(&world).await;
    let urls = [format!("http://{}", proxy.address), foreign.clone(), standby.endpoint()];
    let ledger = ledger(&world, &urls).await;
    ledger.register([1; 32], Terms::of(Role::Observer)).await.unwrap();
    proxy.cut_all_after("POST");
    assert_eq!(ledger.sender([1; 32]).await.unwrap().terms, Terms::of(Role::Observer));
    ledger.revoke([1; 32]).await.unwrap();
    assert!(ledger.sender([1; 32]).await.unwrap().revoked_at.is_some());
    // The one that stands in is not its own witness.
    assert!(ledger.proven_sender([1; 32], ProvenBy::Witness, now()).await.is_err());
    proxy.pass_all();
    assert!(ledger.proven_sender([1; 32], ProvenBy::Witness, now()).await.is_ok());

    let alone = Http::new(&format!("http://{}", proxy.address)).unwrap().with(&Http::new(&foreign).unwrap());
    let chain = Web3::new(alone);
    let id = chain.eth().chain_id().await.unwrap();
    proxy.cut_all_after("POST");
    assert!(chain.eth().block_number().await.is_err());
    proxy.pass_all();
    assert_eq!(chain.eth().chain_id().await.unwrap(), id);
}

#[tokio::test]
async fn nodes_that_differ_are_told() {
    let world = World::new(Kind::Anvil).await;
    let proxy = CuttingProxy::start(world.port()).await;
    let liar = Liar::start(world.chain.clone(), |method, _, mut result| {
        if method == "eth_getBlockByNumber" {
            result["hash"] = json!(format!("0x{}", "22".repeat(32)));
        }
        Ok(result)
    })
    .await;
    let first = honest(&world).await;
    let proxied = format!("http://{}", proxy.address);
    let agreeing = ledger(&world, &[first.endpoint(), proxied]).await;
    assert_eq!(agreeing.dissent().await.unwrap(), None);
    proxy.cut_all_after("POST");
    let words = agreeing.dissent().await.unwrap().unwrap();
    assert!(words.starts_with("another node (1) does not answer: "), "{words}");
    drop(agreeing);
    let lied_to = ledger(&world, &[first.endpoint(), liar.endpoint()]).await;
    let words = lied_to.dissent().await.unwrap().unwrap();
    assert!(words.starts_with("another node (1) has another block "), "{words}");
    let unwitnessed = lied_to.proven_sender([1; 32], ProvenBy::Witness, now()).await;
    assert!(rule(unwitnessed).contains("that another node has, too"));
}
