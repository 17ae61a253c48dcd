// SPDX-License-Identifier: Apache-2.0
//! Compares each executable's `--help` with the committed golden text.

use std::process::Command;

use testbed::executable;

use super::{NODES, is_current, list};

#[test]
fn help_of_each_node_is_as_committed() {
    for node in NODES {
        let output = Command::new(executable(node.name)).arg("--help").output().expect(node.name);
        assert!(output.status.success(), "{}: {output:?}", node.name);
        let help = String::from_utf8(output.stdout).expect("UTF-8");
        is_current(&format!("test/data/help/{}.txt", node.name), &help);
    }
    assert_eq!(list("test/data/help").len(), NODES.len());
}

#[test]
fn version_is_the_packages() {
    for node in NODES {
        let output = Command::new(executable(node.name)).arg("--version").output().expect(node.name);
        let version = format!("{} {}\n", node.name, env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(output.stdout).expect("UTF-8"), version);
    }
}
