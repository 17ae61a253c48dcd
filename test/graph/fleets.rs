// SPDX-License-Identifier: Apache-2.0
//! Two fleets on one host, each in its own namespace and otherwise with defaults.

use std::{path::Path, process::Command};

use serde_json::Value;
use testbed::{domain::Domain, executable, node::Node, observer::Observer};

use super::life::{DIAGNOSTICS, ROSOUT};

/// The nodes that keep state on disk, and what each logs once it is running.
const KEEPERS: [(&str, &str); 3] =
    [("mail_bridge", "listening address="), ("authenticator", "verifying"), ("chatbot", "taking mails")];

/// Starts a node as launch does, in `namespace`, with `home` as the user's home directory.
pub fn start(name: &str, namespace: &str, home: &Path, domain: &Domain) -> Node {
    let mut command = Command::new(executable(name));
    command.args(["--ros-args", "-r", &format!("__ns:=/{namespace}")]);
    if name == "mail_bridge" {
        command.args(["-p", "smtp_listen:=\"127.0.0.1:0\"", "-p", "lmtp_listen:=\"\""]);
    }
    command.env("HOME", home).env_remove("XDG_STATE_HOME");
    Node::run(name, domain, command)
}

#[test]
fn two_fleets_on_one_host_keep_their_state_and_their_names_apart() {
    let (domain, home) = (Domain::take(), tempfile::tempdir().unwrap());
    let mut observer = Observer::start(&domain, &[DIAGNOSTICS, ROSOUT]);
    let mut nodes = Vec::new();
    for (name, ready) in KEEPERS {
        for namespace in ["a", "b"] {
            let mut node = start(name, namespace, home.path(), &domain);
            node.wait_for_log(ready);
            let state = home.path().join(".local/state/posthorn").join(namespace).join(name);
            assert!(state.is_dir(), "{}", state.display());
            nodes.push(node);
        }
    }
    for namespace in ["a", "b"] {
        let name = format!("{namespace}/mail_bridge: intake");
        observer.message(DIAGNOSTICS, |message| {
            let mut statuses = message["status"].as_array().into_iter().flatten();
            statuses.any(|status| status["name"] == name.as_str() && status["hardware_id"] != "")
        });
    }

    for (name, parameter) in [("mail_bridge", "journal_directory"), ("authenticator", "state_directory")] {
        let mut second = start(name, "a", home.path(), &domain);
        let status = second.wait();
        assert_eq!(status.code(), Some(1), "{}", second.log());
        let log = second.log();
        let words = log.trim_end().lines().last().unwrap();
        let state = format!("posthorn/a/{name}");
        assert!(
            words.contains(&state) && words.contains("in use by another process; set another"),
            "{words}"
        );
        assert!(words.contains(parameter), "{words}");
    }

    // What was logged before the observer found a node may be gone; by now it has found them all.
    for (node, namespace) in nodes.iter_mut().zip(["a", "b"]) {
        node.terminate();
        let logger = format!("{namespace}.mail_bridge");
        observer.message(ROSOUT, |log: &Value| {
            log["name"] == logger.as_str() && log["msg"] == "SIGTERM: draining"
        });
    }
}
