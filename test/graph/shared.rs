// SPDX-License-Identifier: Apache-2.0
//! The embedded chain is anchored into a shared one.

use std::{fs, path::Path, process::Command};

use ros::topics;
use serde_json::Value;
use testbed::{
    deployed_ledger, free_port,
    posthorn::{Posthorn, SENDER, Unready, is_receipt_of},
    run_posthorn, verify_receipt, wait_for,
};

use super::chain::{fund_owner_of, status_of};
use crate::ledger::fixture::Anvil;

/// Runs the command, which must do what it is told.
fn done(posthorn: &Posthorn, arguments: &[&str]) -> String {
    let (code, output, error) = run_posthorn(&posthorn.domain, arguments);
    assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}: {output}");
    output
}

/// The receipt of an embedded block, once it is anchored.
fn block_receipt(posthorn: &Posthorn, number: &str) -> Value {
    let receipt = wait_for("the block is anchored", || {
        match run_posthorn(&posthorn.domain, &["chain", "prove", number]) {
            (0, receipt, _) => Some(receipt),
            (1, _, error) if error.contains("not anchored yet") => None,
            other => panic!("chain prove: {other:?}"),
        }
    });
    serde_json::from_str(&receipt).expect("JSON")
}

/// Whether the shared chain's status has this level, and a message with these words.
fn says(message: &Value, level: u64, words: &str) -> bool {
    status_of("shared_ledger", message, level, words)
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-aT").args([from, to]).status().expect("cp");
    assert!(copied.success());
}

#[test]
fn a_receipt_of_the_embedded_chain_is_proven_to_who_trusts_a_shared_one() {
    let port = free_port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let parameters = [
        ("anchor_embedded_into", endpoint.as_str()),
        ("anchor_embedded_age_s", "1.0"),
        ("confirmations", "1"),
    ];
    let observed = [topics::MAIL_RECEIPTS.facts, super::life::DIAGNOSTICS];
    let mut posthorn = Unready::start(&observed, &parameters).0;

    // While the shared chain cannot be reached, the embedded one goes on.
    let data = posthorn.question("before", "help", "");
    let id = posthorn.accept(SENDER, &data);
    let receipt = posthorn.observer.message(topics::MAIL_RECEIPTS.facts, is_receipt_of(id));
    let number = receipt["block_number"].to_string();
    posthorn.observer.message(super::life::DIAGNOSTICS, |m| says(m, 2, "waits for the chain"));
    let (code, _, error) = run_posthorn(&posthorn.domain, &["chain", "prove", &number]);
    assert!(code == 1 && error.contains("not anchored yet"), "{error}");

    let anvil = Anvil::start(port);
    fund_owner_of("shared.key", &posthorn, &anvil);
    let block = block_receipt(&posthorn, &number);
    assert_eq!((&block["entry"]["kind"], &block["chain_id"]), (&"embedded_block".into(), &31337.into()));
    let hash = receipt["block_hash"].as_str().expect("text");
    assert_eq!(format!("0x{}", block["entry"]["subject"].as_str().expect("text")), hash);
    posthorn.observer.forget(super::life::DIAGNOSTICS);
    posthorn.observer.message(super::life::DIAGNOSTICS, |m| says(m, 0, "anchors"));
    let status = done(&posthorn, &["chain", "status", "--shared"]);
    assert!(status.contains("chain       31337; "), "{status}");

    // A stranger trusts the shared chain and two addresses, and believes nothing else.
    let state = posthorn.authenticator_state();
    let (embedded, shared) = (deployed_ledger(&state), deployed_ledger(&state.join("shared")));
    let file = state.join("block.json");
    fs::write(&file, block.to_string()).unwrap();
    let python = verify_receipt(&file, &endpoint, &shared);
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let file = file.display().to_string();
    let proven = done(&posthorn, &["verify", &file, "--endpoint", &endpoint, "--contract", &shared]);
    let words = format!(
        "Proven: block {number} of the embedded chain of /authenticator, hash {hash}, is leaf {number} under"
    );
    assert!(proven.starts_with(&words), "{proven}");
    let file = state.join("mail.json");
    fs::write(&file, done(&posthorn, &["prove", &id.to_string()])).unwrap();
    let file = file.display().to_string();
    let proven = done(&posthorn, &["verify", &file, "--block-hash", hash, "--contract", &embedded]);
    assert!(proven.contains(&format!("mail {id}, its sender")), "{proven}");
    let audit = [
        "audit",
        &state.join("shared").display().to_string(),
        "--endpoint",
        &endpoint,
        "--contract",
        &shared,
    ];
    assert!(done(&posthorn, &audit).starts_with("Log and chain agree."));

    // The owner of the disk puts an older chain in place of one that was anchored.
    posthorn.authenticator.kill();
    copy(&state.join("chain"), &state.join("old"));
    posthorn.restart_authenticator(&parameters);
    let data = posthorn.question("after", "help", "");
    let id = posthorn.accept(SENDER, &data);
    let receipt = posthorn.observer.message(topics::MAIL_RECEIPTS.facts, is_receipt_of(id));
    block_receipt(&posthorn, &receipt["block_number"].to_string());
    posthorn.authenticator.kill();
    fs::remove_dir_all(state.join("chain")).unwrap();
    copy(&state.join("old"), &state.join("chain"));
    posthorn.restart_authenticator(&parameters);
    posthorn.authenticator.wait_for_log("the chain was lost or rewritten; see docs/operations.md");
    assert_eq!(posthorn.authenticator.wait().code(), Some(1));
}

#[test]
fn without_a_shared_chain_the_command_says_so() {
    let posthorn = Posthorn::start(&[], &[]);
    let (code, output, error) = run_posthorn(&posthorn.domain, &["chain", "prove", "1"]);
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.contains("anchor_embedded_into is not set"), "{error}");
}
