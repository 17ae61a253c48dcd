// SPDX-License-Identifier: Apache-2.0
//! What becomes of a node when one of its tasks ends before it does.

use std::{path::Path, process::Command};

use ros::topics;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use testbed::{
    domain::Domain,
    executable,
    node::Node,
    observer::Observer,
    posthorn::{POSTHORN, SENDER, id_of, is_receipt_of, message},
    smtp::Client,
};

/// The last line on standard error, without time and level.
fn last_words(node: &Node) -> String {
    let log = node.log();
    let last = log.lines().last().unwrap_or_default();
    last.split_once(": ").map_or(last, |(_, words)| words).to_owned()
}

#[test]
fn a_node_with_a_task_that_ends_fails_or_panics_ends_and_says_which_last() {
    let domain = Domain::take();
    for (end, words) in [
        ("ends", "task 'frail' ended before its node"),
        ("fails", "task 'frail' ended: the disk is full"),
        ("panics", "task 'frail' panicked: on purpose"),
        ("executor panics", "task 'rclrs spin' panicked: on purpose"),
    ] {
        let mut command = Command::new(executable("frail"));
        command.args(["--ros-args", "-p", &format!("end:={end}")]);
        let mut node = Node::run("frail", &domain, command);
        assert_eq!(node.wait().code(), Some(1), "{end}: {}", node.log());
        assert_eq!(last_words(&node), words, "{end}: {}", node.log());
        assert!(node.log().contains("running on") && !node.drained(), "{end}: {}", node.log());
    }
    let mut node = Node::run("frail", &domain, Command::new(executable("frail")));
    node.wait_for_log("running");
    assert_eq!(node.terminate().code(), Some(0), "a node whose tasks live drains: {}", node.log());
    assert!(node.drained(), "{}", node.log());
}

/// Starts an authenticator in which a write beyond a file size limit is an error instead of a signal. It does without
/// shared memory, whose files the limit would spoil for every node of this machine.
fn start_authenticator(domain: &Domain, state: &Path) -> Node {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(executable("authenticator"));
    command.args([
        "--ros-args",
        "-p",
        "batch_max_age_s:=0.1",
        "-p",
        &format!("state_directory:={}", state.display()),
    ]);
    command.env("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4");
    let mut node = Node::run("authenticator", domain, command);
    node.wait_for_log("connected to the");
    node
}

/// A file size limit on the running process stands in for a full disk, as in `mail_bridge::full_disk`.
#[test]
fn an_authenticator_that_cannot_keep_evidence_ends_and_publishes_the_verdict_after_the_restart() {
    let (domain, scratch) = (Domain::take(), tempfile::tempdir().unwrap());
    let journal = scratch.path().join("mail_bridge").display().to_string();
    let state = scratch.path().join("authenticator");
    let bridge =
        [("smtp_listen", "\"127.0.0.1:0\""), ("lmtp_listen", "\"\""), ("journal_directory", &journal)];
    let mut bridge = Node::start("mail_bridge", &domain, &bridge);
    let smtp = bridge.wait_for_log("listening address=").parse().unwrap();
    let mut observer =
        Observer::start(&domain, &[topics::MAIL_AUTHENTICATED.facts, topics::MAIL_RECEIPTS.facts]);
    let mut authenticator = start_authenticator(&domain, &state);
    observer.wait_until_matched();
    let authenticated = |observer: &mut Observer, mail: &str| {
        let id = mail::MailId::of(mail.as_bytes());
        observer.message(topics::MAIL_AUTHENTICATED.facts, |message| id_of(&message["mail"]["id"]) == id);
    };
    // Once this has come through, the nodes have found each other, and nothing is left to be written.
    let first = message("evidenced", "help", "");
    let reply = Client::connect(smtp).send(SENDER, POSTHORN, first.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    authenticated(&mut observer, &first);
    observer.message(topics::MAIL_RECEIPTS.facts, is_receipt_of(mail::MailId::of(first.as_bytes())));
    let pid = Pid::from_raw(i32::try_from(authenticator.pid()).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: Some(0), maximum: None }).unwrap();

    let mail = message("unevidenced", "help", "");
    let reply = Client::connect(smtp).send(SENDER, POSTHORN, mail.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(authenticator.wait().code(), Some(1), "{}", authenticator.log());
    let words = last_words(&authenticator);
    assert!(words.starts_with("task 'evidence' ended: "), "{words}");
    assert!(words.contains(state.to_str().unwrap()), "it names the file: {words}");
    let id = mail::MailId::of(mail.as_bytes());
    let told = observer.received(topics::MAIL_AUTHENTICATED.facts);
    assert!(!told.iter().any(|message| id_of(&message["mail"]["id"]) == id), "{told:?}");

    let _authenticator = start_authenticator(&domain, &state);
    authenticated(&mut observer, &mail);
}
