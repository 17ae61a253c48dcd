// SPDX-License-Identifier: Apache-2.0
//! docs/architecture.md against `cargo metadata`: the picture is made from it, and no arrow runs up.

use std::{collections::BTreeMap, process::Command};

use ros::logging::OUR_CRATES;
use serde_json::Value;
use testbed::project;

use super::{is_current, list, read};

/// The floors of the house, from the ground up, and what holds on each. A crate depends on lower floors only.
const FLOORS: [(&[&str], &str); 8] = [
    (&["health", "mail", "record_log", "settings"], "what things are; pure, or files only"),
    (
        &["evidence", "fair_queue", "smtp", "tls", "vehicle"],
        "protocols, stores and rules made of them; no ROS",
    ),
    (&["imap"], "protocols over TLS"),
    (&["chain"], "Ethereum; the only importer of web3 and revm"),
    (&["ros"], "ROS 2; the only importer of r2r and rclrs"),
    (
        &["authenticator", "chatbot", "fleet_simulator", "mail_bridge", "vehicle_router"],
        "the nodes; none knows another",
    ),
    (&["posthorn"], "the command"),
    (&["suites", "testbed"], "the tests, the demo and the benchmarks"),
];

/// The floor of the tests.
const TESTS: usize = FLOORS.len() - 1;

/// Crates that only one of ours imports, and who.
const IMPORTED_ONCE: [(&str, &str); 5] =
    [("r2r", "ros"), ("rclrs", "ros"), ("revm", "chain"), ("web3", "chain"), ("reqwest", "chain")];

/// Crates without IO on the network: no runtime, no client.
const WITHOUT_NETWORK: [&str; 7] =
    ["health", "mail", "record_log", "settings", "evidence", "fair_queue", "vehicle"];

/// Dependencies of every crate of the workspace, those of its tests left out.
fn crates() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--no-deps", "--locked"]).current_dir(project(""));
    let output = command.output().expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let name = text(&package["name"]);
            let needs_all = FLOORS[TESTS].0.contains(&name.as_str());
            let mut needs: Vec<_> = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .filter(|dependency| needs_all || dependency["kind"].is_null())
                .map(|dependency| text(&dependency["name"]))
                .collect();
            needs.sort();
            needs.dedup();
            (name, needs)
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn floor_of(name: &str) -> Option<usize> {
    FLOORS.iter().position(|(names, _)| names.contains(&name))
}

#[test]
fn every_crate_has_a_floor_and_depends_on_lower_floors_only() {
    let crates = crates();
    let mut placed: Vec<_> =
        FLOORS.iter().flat_map(|(names, _)| *names).map(|name| (*name).to_owned()).collect();
    placed.sort();
    assert_eq!(crates.keys().cloned().collect::<Vec<_>>(), placed);
    let mut arrows = 0;
    for (name, needs) in &crates {
        let floor = floor_of(name).expect("checked above");
        for (need, below) in needs.iter().filter_map(|need| Some((need, floor_of(need)?))) {
            let tests = (name.as_str(), need.as_str()) == ("suites", "testbed");
            assert!(below < floor || tests, "{name} (floor {floor}) depends on {need} (floor {below})");
            arrows += 1;
        }
    }
    assert!(arrows > 30, "{arrows} arrows");
}

#[test]
fn heavy_crates_have_one_importer_and_the_ground_floors_no_network() {
    let crates = crates();
    for (heavy, importer) in IMPORTED_ONCE {
        let importers = crates
            .iter()
            .filter(|(name, needs)| floor_of(name) != Some(TESTS) && needs.iter().any(|need| need == heavy));
        let found: Vec<_> = importers.map(|(name, _)| name.as_str()).collect();
        assert_eq!(found, [importer], "{heavy}");
    }
    for name in WITHOUT_NETWORK {
        for network in ["tokio", "reqwest", "mail-auth", "web3", "smtp-proto"] {
            assert!(!crates[name].iter().any(|need| need == network), "{name} depends on {network}");
        }
    }
}

#[test]
fn every_folder_of_src_is_a_crate_and_what_it_logs_is_shown() {
    let folders = list("src");
    let crates: Vec<_> = crates().into_keys().filter(|name| floor_of(name) != Some(TESTS)).collect();
    assert_eq!(folders, crates);
    assert_eq!(OUR_CRATES, crates);
}

#[test]
fn the_picture_is_current() {
    let document = read("docs/architecture.md");
    let (begin, end) = ("<!-- generated: floors -->\n", "<!-- end -->");
    let (before, rest) = document.split_once(begin).expect("the marker");
    let (_, after) = rest.split_once(end).expect("the end of it");
    is_current("docs/architecture.md", &format!("{before}{begin}{}{end}{after}", picture()));
}

/// The floors from the top down, as Markdown, and every arrow between crates of src/.
fn picture() -> String {
    let crates = crates();
    let mut made = String::from("| floor | crate | depends on |\n|---|---|---|\n");
    for (floor, (names, rule)) in FLOORS.iter().enumerate().rev() {
        let mut label = format!("**{floor}**: {rule}");
        for name in *names {
            let below: Vec<_> = crates[*name].iter().filter(|need| floor_of(need).is_some()).collect();
            let below: Vec<_> = below.into_iter().map(|need| format!("`{need}`")).collect();
            made += &format!("| {label} | `{name}` | {} |\n", below.join(" "));
            label.clear();
        }
    }
    made
}
