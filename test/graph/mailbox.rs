// SPDX-License-Identifier: Apache-2.0
//! A mailbox as the graph sees it: `mail/imap`, the parameters of an account, and `posthorn mail account test`.

use std::{fs, os::unix::fs::PermissionsExt};

use ros::{
    msg,
    topics::{self, ServiceFacts},
};
use serde_json::json;
use testbed::{
    domain::Domain,
    dovecot::{Dovecot, PASSWORD, Wish},
    node::Node,
    observer::Observer,
    run_posthorn,
};

const USER: &str = "dispatch@fleet.test";

fn start(domain: &Domain, state: &std::path::Path, server: &Dovecot, password: &str) -> Node {
    let file = state.join("password");
    fs::write(&file, password).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let (journal, file) = (state.join("journal").display().to_string(), file.display().to_string());
    let (port, authority) = (server.tls_port.to_string(), server.certificate().display().to_string());
    let parameters = [
        ("smtp_listen", "\"\""),
        ("lmtp_listen", "\"\""),
        ("journal_directory", journal.as_str()),
        ("imap.accounts", "[dispatch]"),
        ("imap.dispatch.host", "localhost"),
        ("imap.dispatch.port", &port),
        ("imap.dispatch.ca_path", &authority),
        ("imap.dispatch.user", USER),
        ("imap.dispatch.password_path", &file),
        ("imap.dispatch.first_sync", "all"),
        ("imap.dispatch.retry_max_s", "1.0"),
    ];
    Node::start("mail_bridge", domain, &parameters)
}

#[test]
fn the_graph_is_told_how_a_mailbox_is_doing_also_who_comes_late() {
    let (domain, state, server) =
        (Domain::take(), tempfile::tempdir().unwrap(), Dovecot::start(Wish::default()));
    server.deliver(USER, "INBOX", b"From: ada@x.test\r\nSubject: one\r\n\r\nhello\r\n");
    server.deliver(USER, "Archive", b"From: ada@x.test\r\nSubject: old\r\n\r\nhello\r\n");
    let mut bridge = start(&domain, state.path(), &server, PASSWORD);
    let published = bridge.wait_for_log("mail fetched and journaled mail_id=");
    assert_eq!(published.len(), 64);

    let mut observer = Observer::start(&domain, &[topics::MAIL_IMAP.facts]);
    let status = observer.message(topics::MAIL_IMAP.facts, |status| {
        status["folders"][0]["phase"] == json!(msg::ImapFolder::WATCHING as u8)
    });
    let folder = &status["folders"][0];
    assert_eq!((&folder["account"], &folder["folder"]), (&json!("dispatch"), &json!("INBOX")));
    assert_eq!(
        (&folder["messages"], &folder["fetched"], &folder["last_error"]),
        (&json!(1), &json!(1), &json!(""))
    );

    let (code, output, error) = run_posthorn(&domain, &["mail", "account", "test", "dispatch"]);
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    let lines: Vec<_> = output.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert!(lines.contains(&vec!["INBOX", "1", "1", "yes"]), "{output}");
    assert!(lines.contains(&vec!["Archive", "1", "1", "-"]), "{output}");
    let (code, _, error) = run_posthorn(&domain, &["mail", "account", "test", "claims"]);
    assert_eq!((code, error.as_str()), (1, "posthorn: no account \"claims\": imap.accounts has dispatch\n"));

    // What ros2 param does.
    let list = ServiceFacts {
        name: "mail_bridge/list_parameters",
        type_name: "rcl_interfaces/srv/ListParameters",
        asked_by: "",
        purpose: "",
    };
    let listed = observer.call(list, &json!({ "prefixes": ["imap.dispatch"], "depth": 0 }));
    let names: Vec<_> =
        listed["result"]["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(names.len() > 10 && names.iter().all(|name| name.starts_with("imap.dispatch.")), "{names:?}");
    assert_eq!(listed["result"]["prefixes"], json!(["imap.dispatch"]));
    let get = ServiceFacts {
        name: "mail_bridge/get_parameters",
        type_name: "rcl_interfaces/srv/GetParameters",
        ..list
    };
    let value = observer.call(get, &json!({ "names": ["imap.dispatch.user"] }));
    assert_eq!(value["values"][0]["string_value"], USER);
    assert!(bridge.terminate().success(), "{}", bridge.log());
    assert!(!bridge.log().contains(PASSWORD));
}

#[test]
fn a_wrong_password_is_said_on_the_topic_and_by_the_command() {
    let (domain, state, server) =
        (Domain::take(), tempfile::tempdir().unwrap(), Dovecot::start(Wish::default()));
    let mut bridge = start(&domain, state.path(), &server, "wrong");
    let mut observer = Observer::start(&domain, &[topics::MAIL_IMAP.facts]);
    let status = observer.message(topics::MAIL_IMAP.facts, |status| {
        status["folders"][0]["phase"] == json!(msg::ImapFolder::FAILED as u8)
    });
    let folder = &status["folders"][0];
    let says = "the server refuses the user or the password: ";
    assert!(folder["last_error"].as_str().unwrap().starts_with(says), "{folder}");
    assert_ne!(folder["next_try"]["sec"], 0);
    let (code, _, error) = run_posthorn(&domain, &["mail", "account", "test", "dispatch"]);
    assert!(code == 1 && error.starts_with(&format!("posthorn: {says}")), "{error}");
    assert!(bridge.terminate().success(), "{}", bridge.log());
}
