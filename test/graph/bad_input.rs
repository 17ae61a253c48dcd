// SPDX-License-Identifier: Apache-2.0
//! Bad input produces a clear error that names the thing, the value and the rule; nothing is lost.

use std::{net::TcpListener, process::Command};

use testbed::{domain::Domain, executable, node::Node};

/// Starts `name`, which must end by itself with `code`, and returns the last line of its log.
fn last_words(name: &str, parameters: &[(&str, &str)], code: i32) -> String {
    let domain = Domain::take();
    let mut node = Node::start(name, &domain, parameters);
    let status = node.wait();
    assert_eq!(status.code(), Some(code), "{}", node.log());
    node.log().trim_end().lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_misspelt_parameter_ends_every_node() {
    for name in ["mail_bridge", "authenticator", "chatbot", "vehicle_router", "fleet_simulator"] {
        let words = last_words(name, &[("drain_timeout", "7")], 2);
        let expected = "parameter 'drain_timeout' = 7: unknown; did you mean 'drain_timeout_s'?";
        assert!(words.contains(expected), "{words}");
    }
}

#[test]
fn an_invalid_parameter_is_named_with_value_and_rule() {
    let cases = [
        (
            "mail_bridge",
            "max_message_bytes",
            "12",
            "parameter 'max_message_bytes' = 12: must be 1024 to 134217728",
        ),
        (
            "mail_bridge",
            "max_recipients",
            "many",
            "parameter 'max_recipients' = \"many\": is of type string, must be int",
        ),
        ("authenticator", "confirmations", "-1", "parameter 'confirmations' = -1: must be 0 to 1000"),
        ("chatbot", "human_mailbox", "nobody", "parameter 'human_mailbox' = \"nobody\": must be an address"),
        (
            "vehicle_router",
            "battery_recovered",
            "0.1",
            "parameter 'battery_recovered' = 0.1: must be above battery_low",
        ),
        ("fleet_simulator", "vehicle_count", "0", "parameter 'vehicle_count' = 0: must be 1 to 100"),
    ];
    for (node, parameter, value, expected) in cases {
        let words = last_words(node, &[(parameter, value)], 2);
        assert!(words.contains(expected), "{words}");
    }
}

#[test]
fn a_port_in_use_and_a_journal_that_cannot_be_written_are_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let scratch = tempfile::tempdir().unwrap();
    let journal = scratch.path().join("journal").display().to_string();
    let quoted = format!("\"{address}\"");
    let words = last_words("mail_bridge", &[("smtp_listen", &quoted), ("journal_directory", &journal)], 1);
    assert!(words.contains(&address) && words.contains("smtp_listen"), "{words}");

    // A file where the directory should be: that stops root too.
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("journal").display().to_string();
    let words =
        last_words("mail_bridge", &[("smtp_listen", "\"127.0.0.1:0\""), ("journal_directory", &below)], 1);
    assert!(words.contains(&below), "{words}");
}

#[test]
fn what_the_authenticator_cannot_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    std::fs::write(path("zone"), "$ORIGIN dispatch.example.\n").unwrap();
    let (zone, state) = (path("zone"), path("state"));
    let with = |name: &str, value: &str| {
        let parameters = [("dns_zone_file", zone.as_str()), ("state_directory", &state), (name, value)];
        last_words("authenticator", &parameters, 1)
    };
    let words = with("embedded_rpc_listen", &address);
    assert!(words.contains(&address) && words.contains("embedded_rpc_listen"), "{words}");
    let words = with("ethereum_endpoint", "http://192.0.2.1:8545/secret");
    assert!(
        words.contains("ledger endpoint: must be https, or http to this host, unless ethereum_plain_http"),
        "{words}"
    );
    assert!(!words.contains("secret"), "{words}");
    let words = with("public_suffix_list", &zone);
    assert!(words.contains(&zone) && words.contains("must be the list of publicsuffix.org"), "{words}");
    // Once it has run, a new key would mean that nobody is registered.
    let domain = Domain::take();
    let parameters = [("dns_zone_file", zone.as_str()), ("state_directory", &state)];
    let mut node = Node::start("authenticator", &domain, &parameters);
    node.wait_for_log("connected to the chain");
    assert!(node.terminate().success());
    std::fs::remove_file(path("state/address.key")).unwrap();
    let words = with("embedded_rpc_listen", "127.0.0.1:0");
    assert!(
        words.contains("address.key' is missing, though this is not the first start: restore it"),
        "{words}"
    );
    assert!(!std::path::Path::new(&path("state/address.key")).exists());
}

#[test]
fn two_bridges_do_not_share_a_journal() {
    let (domain, scratch) = (Domain::take(), tempfile::tempdir().unwrap());
    let journal = scratch.path().display().to_string();
    let parameters = [
        ("smtp_listen", "\"127.0.0.1:0\""),
        ("lmtp_listen", "\"\""),
        ("journal_directory", journal.as_str()),
    ];
    let mut first = Node::start("mail_bridge", &domain, &parameters);
    first.wait_for_log("listening address=");
    let words = last_words("mail_bridge", &parameters, 1);
    assert!(words.contains(&journal), "{words}");
}

#[test]
fn a_parameter_file_that_cannot_be_read_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let missing = scratch.path().join("missing.yaml");
    let broken = scratch.path().join("broken.yaml");
    std::fs::write(&broken, "/**:\n  ros__parameters:\n   - [\n").unwrap();
    for file in [missing, broken] {
        let output = Command::new(executable("chatbot"))
            .args(["--ros-args", "--params-file"])
            .arg(&file)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(words.contains("chatbot: the ROS arguments are refused: "), "{words}");
        assert!(words.contains(file.to_str().unwrap()), "{words}");
        assert!(!words.contains("panicked") && !words.contains(".c:"), "{words}");
    }
}

/// `config_directory:=~/fleet` reaches the node unexpanded: neither the shell nor launch nor rcl expands it.
#[test]
fn a_tilde_in_the_name_of_a_parameter_file_is_refused_with_what_to_write() {
    let output = Command::new(executable("chatbot"))
        .args(["--ros-args", "--params-file", "~/fleet/chatbot.yaml"])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    let expected =
        "parameter file \"~/fleet/chatbot.yaml\": ~ is expanded by nobody here; write the whole path";
    assert!(words.contains(expected), "{words}");
}

#[test]
fn an_argument_that_is_not_ros_s_is_refused() {
    let output = Command::new(executable("chatbot")).arg("--verbose").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("--verbose"), "{words}");
}

#[test]
fn a_zone_file_that_cannot_be_read_is_named_with_line_and_rule() {
    let scratch = tempfile::tempdir().unwrap();
    let zone = scratch.path().join("zone");
    std::fs::write(&zone, "$ORIGIN example.org.\n@ TXT \"open\n").unwrap();
    let path = zone.display().to_string();
    let state = scratch.path().join("state").display().to_string();
    let words = last_words("authenticator", &[("dns_zone_file", &path), ("state_directory", &state)], 1);
    assert!(words.contains(&format!("{path}:2")), "{words}");
}
