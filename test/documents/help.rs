// SPDX-License-Identifier: Apache-2.0
//! Compares each executable's `--help` with the committed golden text.

use std::process::Command;

use testbed::executable;

use super::{COMMAND, NODES, is_current, list};

fn executables() -> impl Iterator<Item = &'static str> {
    NODES.iter().map(|node| node.name).chain([COMMAND])
}

#[test]
fn help_of_each_executable_is_as_committed() {
    for name in executables() {
        let output = Command::new(executable(name)).arg("--help").output().expect(name);
        assert!(output.status.success(), "{name}: {output:?}");
        let help = String::from_utf8(output.stdout).expect("UTF-8");
        is_current(&format!("test/data/help/{name}.txt"), &help);
    }
    assert_eq!(list("test/data/help").len(), executables().count());
}

#[test]
fn version_is_the_packages() {
    for name in executables() {
        let output = Command::new(executable(name)).arg("--version").output().expect(name);
        let version = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(output.stdout).expect("UTF-8"), version);
    }
}
