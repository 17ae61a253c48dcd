// SPDX-License-Identifier: Apache-2.0
//! How nodes start, idle, crash and end.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Child, Command},
    time::Duration,
};

use ros::topics::{self, TopicFacts};
use serde_json::Value;
use testbed::{
    domain::Domain,
    executable,
    node::Node,
    observer::Observer,
    posthorn::{Posthorn, SENDER, id_of},
    smtp::{Client, Delivered},
    wait_for,
};

pub const NODES: [&str; 5] = ["mail_bridge", "authenticator", "chatbot", "vehicle_router", "fleet_simulator"];

/// The ROS topics that every node publishes, which are not posthorn's own.
pub const DIAGNOSTICS: TopicFacts = TopicFacts {
    name: "/diagnostics",
    type_name: "diagnostic_msgs/msg/DiagnosticArray",
    ..topics::MAIL_RAW.facts
};
pub const ROSOUT: TopicFacts =
    TopicFacts { name: "/rosout", type_name: "rcl_interfaces/msg/Log", ..topics::CHATBOT_WORKERS.facts };

/// The bridge has answered `250` but published nothing, because nobody subscribes; then the power fails.
#[test]
fn a_mail_bridge_killed_between_250_and_publication_publishes_after_the_restart() {
    let (domain, journal) = (Domain::take(), tempfile::tempdir().unwrap());
    let directory = journal.path().display().to_string();
    let parameters = [
        ("smtp_listen", "\"127.0.0.1:0\""),
        ("lmtp_listen", "\"\""),
        ("journal_directory", directory.as_str()),
    ];
    let mut bridge = Node::start("mail_bridge", &domain, &parameters);
    let smtp = bridge.wait_for_log("listening address=").parse().unwrap();
    let mails: Vec<_> = (0..20).map(|n| format!("Subject: {n}\r\n\r\nbody {n}\r\n").into_bytes()).collect();
    let mut client = Client::connect(smtp);
    for mail in &mails {
        let reply = client.send("a@example.org", "b@example.org", mail);
        assert!(reply.starts_with("250"), "{reply}");
    }
    bridge.kill();
    assert!(!bridge.log().contains("published"), "{}", bridge.log());

    let mut observer = Observer::start(&domain, &[topics::MAIL_RAW.facts]);
    let _bridge = Node::start("mail_bridge", &domain, &parameters);
    for mail in &mails {
        let raw = observer.message(topics::MAIL_RAW.facts, |raw| raw["data"] == serde_json::json!(mail));
        assert_eq!(id_of(&raw["id"]), mail::MailId::of(mail));
    }
}

#[test]
fn a_graph_whose_mail_bridge_is_killed_answers_every_mail_once() {
    let mut posthorn = Posthorn::start(&[DIAGNOSTICS], &[]);
    let mut asked = BTreeSet::new();
    for round in 0..3 {
        let tags: Vec<_> = (0..5).map(|n| format!("kill-{round}-{n}")).collect();
        for tag in &tags {
            let data = posthorn.question(tag, "help", "");
            posthorn.accept(SENDER, &data);
        }
        posthorn.mail_bridge.kill();
        posthorn.restart_mail_bridge();
        asked.extend(tags.into_iter().map(|tag| format!("<{tag}@dispatch.example>")));
    }
    let mut answered: Vec<Delivered> = Vec::new();
    let answers = |mails: &[Delivered]| -> BTreeSet<String> {
        mails.iter().map(|mail| mail.header("In-Reply-To").unwrap().to_owned()).collect()
    };
    while answers(&answered).len() < asked.len() {
        answered.push(posthorn.sink.next());
    }
    assert_eq!(answers(&answered), asked);
    // Wait until nothing is left that could be answered or sent again.
    posthorn.observer.message(DIAGNOSTICS, |message| {
        let is_zero = |name: &str, key: &str| {
            let statuses = message["status"].as_array().into_iter().flatten();
            statuses.filter(|status| status["name"] == name).any(|status| {
                let values = status["values"].as_array().into_iter().flatten();
                values.into_iter().any(|value| value["key"] == key && value["value"] == "0")
            })
        };
        is_zero("mail_bridge: journal", "unsettled") && is_zero("mail_bridge: outbox", "pending")
    });
    answered.extend(posthorn.sink.rest());
    // The receiving server may get a mail again if its 250 was not yet on disk when the bridge died: at most one per
    // kill, with the same Message-ID. The outbox itself takes one answer per mail.
    assert!(answered.len() <= asked.len() + 3, "{answered:?}");
    let ids: BTreeSet<_> = answered.iter().map(|mail| mail.header("Message-ID").unwrap()).collect();
    assert_eq!(ids.len(), asked.len());
}

#[test]
fn every_node_speaks_on_diagnostics_and_rosout_and_drains_on_either_signal() {
    let mut posthorn = Posthorn::start(&[DIAGNOSTICS, ROSOUT], &[]);
    let speaks = |name: &'static str| {
        move |message: &Value| {
            let statuses = message["status"].as_array().into_iter().flatten();
            let well =
                |status: &Value| status["name"].as_str().unwrap().starts_with(name) && status["level"] == 0;
            statuses.clone().count() > 0 && statuses.into_iter().all(well)
        }
    };
    for name in NODES {
        // At 1 Hz, three in a row span two seconds, give or take a loaded machine.
        let mut stamp = || {
            let stamp = &posthorn.observer.message(DIAGNOSTICS, speaks(name))["header"]["stamp"];
            stamp["sec"].as_f64().unwrap() + stamp["nanosec"].as_f64().unwrap() / 1e9
        };
        let (first, _, third) = (stamp(), stamp(), stamp());
        assert!((1.5..3.5).contains(&(third - first)), "{name}: {} s for two periods", third - first);
    }
    for (node, signal) in posthorn.nodes().into_iter().zip(["INT", "TERM", "INT", "TERM", "INT"]) {
        let status = node.end_by(signal);
        assert_eq!(status.code(), Some(0), "SIG{signal}:\n{}", node.log());
        assert!(node.log().contains(&format!("SIG{signal}: draining")), "{}", node.log());
        assert!(node.drained(), "{}", node.log());
    }
    for name in NODES {
        let drains =
            |log: &Value| log["name"] == name && log["msg"].as_str().unwrap().ends_with(": draining");
        posthorn.observer.message(ROSOUT, drains);
    }
}

/// What each node logs once it is running, in the order of [`NODES`].
const READY: [&str; 5] =
    ["listening address=", "verifying", "taking mails", "listening topics=", "driving vehicles="];

/// Sends `first` to all nodes, and `second` to all of them `apart_s` seconds later.
fn signal_twice(nodes: &[Node], first: &str, apart_s: &str, second: &str) {
    let pids = nodes.iter().map(|node| node.pid().to_string()).collect::<Vec<_>>().join(" ");
    let script = format!("kill -{first} {pids}; sleep {apart_s}; kill -{second} {pids}");
    assert!(Command::new("sh").arg("-c").arg(script).status().unwrap().success());
}

/// `ros2 launch` forwards a Ctrl-C that the terminal has already sent to the process group, some milliseconds later.
/// C++ destructors once ran while threads still used their objects: 39 of 40 processes died from a signal.
#[test]
fn a_signal_that_comes_twice_at_once_drains_every_node() {
    const ROUNDS: usize = 20;
    let (domain, state) = (Domain::take(), tempfile::tempdir().unwrap());
    let directory = |name: &str| state.path().join(name).display().to_string();
    let (journal, evidence, orders) = (directory("journal"), directory("evidence"), directory("orders"));
    let bridge = [
        ("smtp_listen", "\"127.0.0.1:0\""),
        ("lmtp_listen", "\"\""),
        ("journal_directory", journal.as_str()),
    ];
    let authenticator = [("state_directory", evidence.as_str())];
    let chatbot = [("state_directory", orders.as_str())];
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let parameters: [&[(&str, &str)]; 5] = [&bridge, &authenticator, &chatbot, &[], &[]];
        let starts = NODES.iter().zip(parameters);
        let mut nodes: Vec<_> =
            starts.map(|(name, parameters)| Node::start(name, &domain, parameters)).collect();
        for (node, ready) in nodes.iter_mut().zip(READY) {
            node.wait_for_log(ready);
        }
        signal_twice(&nodes, "INT", "0.004", "INT");
        for (node, name) in nodes.iter_mut().zip(NODES) {
            let status = node.wait();
            *ends.entry(format!("{name}: {status}")).or_default() += 1;
            assert!(status.code() != Some(0) || node.drained(), "{}", node.log());
        }
    }
    let drained = NODES.map(|name| (format!("{name}: exit status: 0"), ROUNDS));
    assert_eq!(ends, BTreeMap::from(drained));
}

/// The receiving server has the mail but has not replied yet when Ctrl-C arrives, both from the terminal and from
/// launch.
#[test]
fn a_mail_that_is_being_handed_over_at_ctrl_c_is_delivered_once() {
    let mut posthorn = Posthorn::start(&[], &[]);
    posthorn.sink.hold(true);
    let question = posthorn.question("held", "help", "");
    posthorn.accept(SENDER, &question);
    posthorn.sink.next();
    signal_twice(std::slice::from_ref(&posthorn.mail_bridge), "INT", "0.004", "INT");
    posthorn.mail_bridge.wait_for_log("SIGINT: ");
    posthorn.sink.hold(false);
    let status = posthorn.mail_bridge.wait();
    assert_eq!(status.code(), Some(0), "{}", posthorn.mail_bridge.log());

    posthorn.restart_mail_bridge();
    let question = posthorn.question("after", "help", "");
    posthorn.accept(SENDER, &question);
    assert_eq!(posthorn.sink.next().header("In-Reply-To"), Some("<after@dispatch.example>"));
    assert_eq!(posthorn.sink.rest().len(), 0);
}

/// Somebody who does not wait for the drain, such as launch when it escalates to SIGTERM, ends the node at once and
/// without a crash.
#[test]
fn a_later_signal_ends_a_node_that_is_draining() {
    let (domain, state) = (Domain::take(), tempfile::tempdir().unwrap());
    for _ in 0..4 {
        let mut clients = Vec::new();
        let mut nodes = Vec::new();
        for n in 0..5 {
            let journal = state.path().join(format!("journal_{n}")).display().to_string();
            let parameters = [
                ("smtp_listen", "\"127.0.0.1:0\""),
                ("lmtp_listen", "\"\""),
                ("journal_directory", journal.as_str()),
            ];
            let mut node = Node::start("mail_bridge", &domain, &parameters);
            let mut client = Client::connect(node.wait_for_log("listening address=").parse().unwrap());
            client.begin("a@example.org", "b@example.org");
            clients.push(client);
            nodes.push(node);
        }
        signal_twice(&nodes, "INT", "0.7", "TERM");
        for node in &mut nodes {
            let status = node.wait();
            assert_eq!(status.code(), Some(1), "{status}:\n{}", node.log());
            assert!(node.log().contains("SIGINT: draining"), "{}", node.log());
            assert!(node.log().trim_end().ends_with("second signal: not drained"), "{}", node.log());
        }
    }
}

/// Nobody reads the node's log and the pipe is full, because launch was stopped or a terminal holds its output.
#[test]
fn a_node_whose_log_hangs_ends_at_the_second_signal() {
    /// Default capacity of a pipe on Linux [bytes] (pipe(7)).
    const CAPACITY: usize = 65_536;
    let (domain, state) = (Domain::take(), tempfile::tempdir().unwrap());
    let (_unread, mut log) = std::io::pipe().unwrap();
    log.write_all(&[b'.'; CAPACITY]).unwrap();
    let mut command = Command::new(executable("chatbot"));
    command.envs(domain.environment()).env("XDG_STATE_HOME", state.path()).stderr(log);
    let mut node = Killed(command.spawn().unwrap());
    drop(command);
    let pid = node.0.id();
    wait_for("a thread of the node hangs in a write", || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let mut waits = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("wchan")).ok());
        waits.any(|wait| wait.ends_with("pipe_write")).then_some(())
    });
    let script = format!("kill -INT {pid}; sleep 0.8; kill -TERM {pid}");
    assert!(Command::new("sh").arg("-c").arg(script).status().unwrap().success());
    let status = wait_for("the node ends", || node.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(1), "{status}");
}

/// A process that is killed on drop.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An idle node costs less than 2 % of a core, including the vehicles' traffic.
#[test]
fn idle_nodes_cost_little() {
    const WINDOW: Duration = Duration::from_secs(10);
    let mut posthorn = Posthorn::start(&[], &[]);
    let before = posthorn.nodes().map(|node| node.cpu_ticks());
    // This sleep is the measurement period, not synchronisation.
    std::thread::sleep(WINDOW);
    let after = posthorn.nodes().map(|node| node.cpu_ticks());
    for ((name, before), after) in NODES.iter().zip(before).zip(after) {
        // A tick is 10 ms, so ticks per second are percent.
        let percent = (after - before) as f64 / WINDOW.as_secs_f64();
        println!("idle: {name} {percent:.1} % of a core");
        assert!(percent < 2.0, "{name}: {percent} % of a core");
    }
}

/// Anchoring is of use only if the receipt still arrives when the authenticator was down in between.
#[test]
fn evidence_survives_a_kill_of_the_authenticator() {
    let mut posthorn = Posthorn::start(&[topics::MAIL_AUTHENTICATED.facts], &[("batch_max_age_s", "3600.0")]);
    let data = posthorn.question("before", "help", "");
    let id = posthorn.accept(SENDER, &data);
    posthorn
        .observer
        .message(topics::MAIL_AUTHENTICATED.facts, |message| id_of(&message["mail"]["id"]) == id);
    posthorn.authenticator.kill();
    posthorn.restart_authenticator(&[]);
    let request = serde_json::json!({ "mail_id": id.to_string() });
    wait_for("the receipt", || {
        let answer = posthorn.observer.call(topics::PROVE.facts, &request);
        (answer["found"] == true).then_some(())
    });
}
