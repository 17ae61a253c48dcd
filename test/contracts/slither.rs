// SPDX-License-Identifier: Apache-2.0
//! slither, which knows common weaknesses of contracts, finds none in ours.

use std::{env, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::{Value, json};
use testbed::project;

/// What the contracts are compiled from, as the compiler takes it.
fn standard_json() -> Value {
    let output = Command::new("node").arg(project("contracts/compile.mjs")).arg("--input").output();
    let mut input: Value = serde_json::from_slice(&output.expect("node is installed").stdout).expect("JSON");
    // What slither reads of the compiler's output.
    input["settings"]["outputSelection"] =
        json!({ "*": { "": ["ast"], "*": ["abi", "evm", "userdoc", "devdoc"] } });
    input
}

/// Has slither look at contracts; returns whether it finds nothing, and what it says. What OpenZeppelin wrote is theirs.
fn look_at(folder: &Path, input: &Value) -> (bool, String) {
    let solc = folder.join("solc");
    let script = format!("#!/bin/sh\nexec node '{}' \"$@\"\n", project("contracts/solc.mjs").display());
    fs::write(&solc, script).unwrap();
    fs::set_permissions(&solc, PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(folder.join("input.json"), input.to_string()).unwrap();
    // slither reads the sources once more, to name lines.
    for (name, source) in input["sources"].as_object().unwrap() {
        fs::write(folder.join(name), source["content"].as_str().unwrap()).unwrap();
    }
    let library = folder.join("@openzeppelin");
    if !library.exists() {
        std::os::unix::fs::symlink(project("contracts/node_modules/@openzeppelin"), library).unwrap();
    }
    let path = format!("{}:{}", folder.display(), env::var("PATH").unwrap_or_default());
    let output = Command::new(project("target/venv/slither/bin/slither"))
        .args(["input.json", "--compile-force-framework", "solc-json", "--filter-paths", "@openzeppelin"])
        .current_dir(folder)
        .env("PATH", path)
        .output()
        .expect("`scripts/venv slither` has made the environment");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn slither_finds_nothing_in_the_contracts_and_something_in_a_weak_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut input = standard_json();
    let (is_clean, words) = look_at(folder.path(), &input);
    assert!(is_clean, "{words}");
    assert!(words.contains("0 result(s) found") && words.contains("6 contracts"), "{words}");

    // Whoever has the anchorer call another contract could anchor.
    let source = input["sources"]["EvidenceLedger.sol"]["content"].as_str().unwrap();
    let weak = source.replace("if (msg.sender != anchorer)", "if (tx.origin != anchorer)");
    assert_ne!(weak, source);
    input["sources"]["EvidenceLedger.sol"]["content"] = json!(weak);
    let (is_clean, words) = look_at(folder.path(), &input);
    assert!(!is_clean && words.contains("tx-origin"), "{words}");
}
