// SPDX-License-Identifier: Apache-2.0
//! Receipts that verify by the hash of a block alone.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use chain::{Connection, Ledger, LedgerError, verify_by_hash, verify_in_block, verify_on};
use evidence::{BlockProof, EmbeddedBlock, Receipt};
use jsonrpc_core::Value;
use serde_json::json;
use testbed::{output_of, project};
use web3::Transport;

use super::{
    append,
    fixture::{Kind, World, on_both_chains},
    liar::Liar,
    start, store,
};

on_both_chains!(a_receipt_verifies_by_the_hash_of_its_block_and_no_other_does);

/// The receipts of `count` entries, which the anchorer puts on chain.
async fn receipts(world: &World, ledger: &Arc<Ledger>, count: u64) -> Vec<Receipt> {
    let store = store(world.dir.path());
    append(&store, 0..count).await;
    let mut running = start(&store, ledger);
    let receipts = running.receive(usize::try_from(count).unwrap()).await;
    running.stop().await;
    receipts
}

fn refusal(receipt: &Receipt, proof: &BlockProof) -> Option<String> {
    verify_in_block(receipt, proof).err().map(|error| error.to_string())
}

async fn a_receipt_verifies_by_the_hash_of_its_block_and_no_other_does(world: World) {
    let ledger = Arc::new(world.ledger().await);
    let receipts = receipts(&world, &ledger, 3).await;
    let receipt = &receipts[0];
    let proof = ledger.block_proof(receipt).await.unwrap();
    let (hash, contract) = (receipt.anchor.block_hash, receipt.anchor.contract);
    verify_by_hash(hash, contract, receipt, &proof).unwrap();
    assert!(verify_by_hash([1; 32], contract, receipt, &proof).is_err());
    assert!(verify_by_hash(hash, [1; 20], receipt, &proof).is_err());

    // Whatever is changed in it, it proves nothing.
    for at in 0..proof.header.len() {
        let mut other = proof.clone();
        other.header[at] ^= 1;
        assert!(refusal(receipt, &other).unwrap().contains("the hash of the header"), "byte {at}");
    }
    type Nodes = fn(&mut BlockProof) -> &mut Vec<Vec<u8>>;
    let parts: [Nodes; 2] = [|proof| &mut proof.transaction_proof, |proof| &mut proof.receipt_proof];
    for part in parts {
        for node in 0..part(&mut proof.clone()).len() {
            for at in 0..part(&mut proof.clone())[node].len() {
                let mut other = proof.clone();
                part(&mut other)[node][at] ^= 1;
                assert!(refusal(receipt, &other).is_some(), "node {node}, byte {at}");
            }
        }
        let mut other = proof.clone();
        part(&mut other).clear();
        assert!(refusal(receipt, &other).unwrap().contains("nodes from the header"));
    }
    let swapped = BlockProof {
        transaction_proof: proof.receipt_proof.clone(),
        receipt_proof: proof.transaction_proof.clone(),
        ..proof.clone()
    };
    assert!(refusal(receipt, &swapped).is_some());
    assert!(refusal(receipt, &BlockProof { transaction_index: 1, ..proof.clone() }).is_some());
    let mut elsewhere = receipt.clone();
    elsewhere.anchor.block_number += 1;
    assert!(refusal(&elsewhere, &proof).unwrap().contains("the block number"));
    let mut elsewhere = receipt.clone();
    elsewhere.anchor.contract[0] ^= 1;
    assert!(refusal(&elsewhere, &proof).unwrap().contains("the anchor"));
}

/// Sends transactions of all types that wallets sign from anvil's own account, without mining them; they pay more than the
/// anchor, which comes behind them.
async fn others(chain: &Connection, count: usize) {
    let account = chain.execute("eth_accounts", vec![]).await.unwrap()[0].clone();
    for number in 0..count {
        let mut transaction = json!({ "from": account, "to": account, "value": "0x1", "gas": "0x186a0" });
        let fields = match number % 3 {
            0 => json!({ "gasPrice": "0x2540be400" }),
            1 => json!({ "gasPrice": "0x2540be400", "type": "0x1",
                "accessList": [{ "address": account, "storageKeys": [format!("0x{}", "11".repeat(32))] }] }),
            _ => json!({ "maxFeePerGas": "0x2540be400", "maxPriorityFeePerGas": "0x1dcd65000" }),
        };
        transaction.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        chain.execute("eth_sendTransaction", vec![transaction]).await.unwrap();
    }
}

#[tokio::test]
async fn a_transaction_is_proven_among_hundreds_of_every_type() {
    let world = World::new(Kind::Anvil).await;
    let ledger = Arc::new(world.ledger().await);
    world.automine(false).await;
    others(&world.chain, 140).await;
    let store = store(world.dir.path());
    append(&store, 0..3).await;
    let mut running = start(&store, &ledger);
    let mut in_flight = ledger.in_flight();
    in_flight.wait_for(|open| open.as_ref().is_some_and(|open| open.count > 0)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    others(&world.chain, 60).await;
    world.mine().await;
    let receipts = running.receive(3).await;
    running.stop().await;
    let proof = ledger.block_proof(&receipts[1]).await.unwrap();
    assert!(proof.transaction_proof.len() > 1 && proof.receipt_proof.len() > 1, "{proof:?}");
    assert!(proof.transaction_index > 127, "{}", proof.transaction_index);
    verify_in_block(&receipts[1], &proof).unwrap();
    assert!(verify_in_block(&receipts[1], &BlockProof { transaction_index: 0, ..proof }).is_err());
}

#[tokio::test]
async fn a_node_without_the_method_or_with_other_receipts_is_asked_for_each_or_refused() {
    let world = World::new(Kind::Anvil).await;
    let ledger = Arc::new(world.ledger().await);
    let receipt = receipts(&world, &ledger, 1).await.remove(0);
    let expected = ledger.block_proof(&receipt).await.unwrap();
    // Another gas in the receipt would be another receipt, with another root.
    let liar = Liar::start(world.chain.clone(), |method, _, mut result| {
        if method == "eth_getBlockReceipts" {
            result[0]["cumulativeGasUsed"] = json!("0x1");
        }
        Ok(result)
    })
    .await;
    let connect = async |chain: Connection| {
        Ledger::connect(chain, world.key.clone(), world.dir.path(), super::options()).await.unwrap()
    };
    drop(ledger);
    let lied_to = connect(liar.chain()).await;
    let error = lied_to.block_proof(&receipt).await.unwrap_err();
    assert!(matches!(error, LedgerError::Answer { .. }) && error.is_retryable(), "{error}");
    drop(lied_to);
    let ignorant = Liar::start(world.chain.clone(), |method, _, result| match method {
        "eth_getBlockReceipts" => Err(-32601),
        _ => Ok(result),
    })
    .await;
    let asked = connect(ignorant.chain()).await;
    assert_eq!(asked.block_proof(&receipt).await.unwrap(), expected);
}

#[tokio::test]
async fn a_node_that_has_dropped_its_history_still_confirms_the_block() {
    let world = World::new(Kind::Anvil).await;
    let ledger = Arc::new(world.ledger().await);
    let receipt = receipts(&world, &ledger, 1).await.remove(0);
    let proof = ledger.block_proof(&receipt).await.unwrap();
    let contract = receipt.anchor.contract;
    let forgetful = Liar::start(world.chain.clone(), |method, _, result| match method {
        "eth_getTransactionReceipt" | "eth_getTransactionByHash" => Ok(Value::Null),
        _ => Ok(result),
    })
    .await;
    let error = verify_on(forgetful.chain(), contract, &receipt, None).await.unwrap_err();
    assert!(error.to_string().contains("not mined"), "{error}");
    verify_on(forgetful.chain(), contract, &receipt, Some(&proof)).await.unwrap();
    let mut other = proof.clone();
    other.receipt_proof.pop();
    assert!(verify_on(forgetful.chain(), contract, &receipt, Some(&other)).await.is_err());
    // Nor is a proof taken of a block that the chain does not have.
    let elsewhere = Liar::start(world.chain.clone(), |method, _, mut result| {
        match method {
            "eth_getTransactionReceipt" => return Ok(Value::Null),
            "eth_getBlockByNumber" => result["hash"] = json!(format!("0x{}", "22".repeat(32))),
            _ => {}
        }
        Ok(result)
    })
    .await;
    let error = verify_on(elsewhere.chain(), contract, &receipt, Some(&proof)).await.unwrap_err();
    assert!(error.to_string().contains("the block hash"), "{error}");
}

/// Runs a verifier on receipts, and returns what it says of each.
fn verified(verifier: &mut Command, cases: &[Value]) -> Vec<Value> {
    serde_json::from_str(&output_of(verifier, json!(cases).to_string())).unwrap()
}

/// Receipts of a real chain, of a mail and of a block, and each field, byte of the header and node of them changed.
#[tokio::test]
async fn program_page_and_schema_know_a_receipt_from_everything_else() {
    let world = World::new(Kind::Anvil).await;
    let ledger = Arc::new(world.ledger().await);
    let store = store(world.dir.path());
    append(&store, 0..1).await;
    let block = |number| EmbeddedBlock { number, hash: [5; 32] }.entry(&"/authenticator".parse().unwrap());
    store.append(vec![block(1), block(9)], SystemTime::UNIX_EPOCH).await.unwrap();
    let mut running = start(&store, &ledger);
    let receipts = running.receive(3).await;
    running.stop().await;
    let proof = ledger.block_proof(&receipts[1]).await.unwrap();
    let genuine = |receipt| -> Value {
        serde_json::from_str(&command::receipt::write(receipt, Some(&proof)).unwrap()).unwrap()
    };
    // One transaction anchored all of them, and one is of a block that is not at the index that is its number.
    assert_eq!(receipts[2].anchor, receipts[0].anchor);
    let misplaced = case_of(&genuine(&receipts[2]), &genuine(&receipts[2]));
    for receipt in &receipts[..2] {
        let mut cases = changed(&genuine(receipt));
        cases.push(misplaced.clone());
        only_the_first_is_proven(&cases);
    }
}

/// A text, with the contract and the block hash of the genuine receipt.
fn case_of(changed: &Value, genuine: &Value) -> Value {
    json!({ "text": changed.to_string(), "contract": genuine["contract"], "hash": genuine["block_hash"] })
}

/// A receipt with the contract and the block hash that it is to be verified against, and whatever is not to be proven.
fn changed(genuine: &Value) -> Vec<Value> {
    let contract = genuine["contract"].clone();
    let case = |changed: &Value| case_of(changed, genuine);
    // Those are not what a hash can prove.
    let unproven = ["chain_id", "revision", "stamp"];
    let mut cases = vec![case(genuine)];
    for (field, value) in genuine.as_object().unwrap() {
        let mut without = genuine.clone();
        without.as_object_mut().unwrap().remove(field);
        // A receipt without a version is a `LedgerReceipt`, which has no block.
        cases.push(case(&without));
        if unproven.contains(&field.as_str()) {
            continue;
        }
        let mut other = genuine.clone();
        other[field] = match value {
            Value::Number(number) => json!(number.as_u64().unwrap() + 1),
            Value::String(text) => json!(flipped(text, text.len() - 1)),
            Value::Array(bytes) if bytes.is_empty() => json!([1]),
            Value::Array(bytes) => {
                let mut bytes = bytes.clone();
                bytes[0] = json!(bytes[0].as_u64().unwrap() ^ 1);
                json!(bytes)
            }
            _ => json!({}),
        };
        cases.push(case(&other));
    }
    let block = &genuine["block"];
    let header = block["header"].as_str().unwrap();
    for at in (2..header.len()).step_by(7) {
        let mut other = genuine.clone();
        other["block"]["header"] = json!(flipped(header, at));
        cases.push(case(&other));
    }
    for proof in ["transaction_proof", "receipt_proof"] {
        for (place, node) in block[proof].as_array().unwrap().iter().enumerate() {
            let node = node.as_str().unwrap();
            for at in (2..node.len()).step_by(7) {
                let mut other = genuine.clone();
                other["block"][proof][place] = json!(flipped(node, at));
                cases.push(case(&other));
            }
        }
    }
    for (contract, hash) in [
        (json!(format!("0x{}", "11".repeat(20))), genuine["block_hash"].clone()),
        (contract.clone(), json!(format!("0x{}", "22".repeat(32)))),
    ] {
        cases.push(json!({ "text": genuine.to_string(), "contract": contract, "hash": hash }));
    }
    cases
}

/// Has the program, the page and the command verify the cases.
fn only_the_first_is_proven(cases: &[Value]) {
    assert!(cases.len() > 200, "{}", cases.len());
    let by_program = verified(
        Command::new(project("target/venv/web3/bin/python"))
            .args([project("test/ledger/program.py"), project("docs")]),
        cases,
    );
    let by_page = verified(
        Command::new("node").args([project("test/ledger/page.mjs"), project("docs/verify_receipt.html")]),
        cases,
    );
    assert_eq!((by_program.len(), by_page.len()), (cases.len(), cases.len()));
    assert_eq!((&by_program[0], &by_page[0]), (&json!([true, true]), &json!(true)));
    for ((case, program), page) in cases.iter().zip(&by_program).zip(&by_page).skip(1) {
        assert_eq!((&program[0], page), (&json!(false), &json!(false)), "{case}");
    }
    // Nor is any of them a receipt to the command.
    let by_command = |case: &Value| -> Option<()> {
        let bytes = |field: &str| hex::decode(case[field].as_str()?.strip_prefix("0x")?).ok();
        let (receipt, proof) = command::receipt::read(case["text"].as_str()?).ok()?;
        let (hash, contract) = (bytes("hash")?.try_into().ok()?, bytes("contract")?.try_into().ok()?);
        verify_by_hash(hash, contract, &receipt, &proof?).ok()
    };
    assert_eq!(by_command(&cases[0]), Some(()));
    for case in &cases[1..] {
        assert_eq!(by_command(case), None, "{case}");
    }
    // The schema says of which form a receipt is, not whether it is true.
    assert!(by_program.iter().filter(|said| said[1] == json!(false)).count() >= 16);
}

/// The text with the hex digit at this place changed.
fn flipped(text: &str, at: usize) -> String {
    let digit = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
    format!("{}{digit}{}", &text[..at], &text[at + 1..])
}
