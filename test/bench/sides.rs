// SPDX-License-Identifier: Apache-2.0
//! The two sides of the comparison: the whole posthorn, and the peer. Each listens for SMTP and answers to its own
//! sink.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::SocketAddr,
    process::Command,
    time::Duration,
};

use mail::{MailId, Role};
use ros::topics;
use serde_json::json;
use tempfile::TempDir;
use testbed::{
    domain::Domain,
    node::Node,
    posthorn::{Posthorn, SENDER_DOMAIN},
    project,
    sign::SignedDomain,
    smtp::Sink,
    wait_for,
};

use super::load::{Case, Measured, Question, questions, run};

/// Registered senders, all in [`SENDER_DOMAIN`].
pub const SENDERS: [&str; 4] =
    ["dana@dispatch.example", "eli@dispatch.example", "finn@dispatch.example", "gus@dispatch.example"];

pub const WHOLE_HAS: &str = "on:  5 processes over DDS; journal with fsync before the 250; SPF, DKIM, DMARC; sender registry on the \
     embedded chain;\n                evidence of every mail anchored every 0.1 s; live vehicle states; outbox with fsync; logs\n          \
     off: TLS, real DNS (zone file)";
pub const PEER_HAS: &str = "on:  1 process (aiosmtpd, dkimpy, aiosmtplib); DKIM; senders and fixed vehicle states in dicts\n          \
     off: journal, fsync, SPF, DMARC, ledger, ROS, logs, TLS, real DNS (zone file)";
pub const BOTH_HAVE: &str =
    "127.0.0.1; mails signed with Ed25519; senders and sink in the benchmark's process on the same cores";

/// How many of a case's last mails are checked for a receipt.
const ASKED_FOR: usize = 4;

/// The five nodes.
pub struct Whole(Posthorn);

impl Whole {
    /// Starts fresh nodes with registered senders.
    pub fn start(senders: &[&str]) -> Self {
        let mut posthorn = Posthorn::start(&[], &[]);
        for sender in senders {
            posthorn.register(sender, Role::Operator);
        }
        Self(posthorn)
    }

    /// Runs one case and checks that the evidence of its last mails is anchored. Anchors are in order, so that is
    /// enough, and a call through the observer takes too long to ask for every mail.
    pub fn run(&mut self, tag: &str, case: &Case) -> Measured {
        let questions = questions(case.mails, tag, &SENDERS, &self.0.sender);
        let measured = run(case.load, &questions, self.0.smtp, &self.0.sink);
        self.tell_redelivered(&questions);
        for question in questions[..measured.mails()].iter().rev().take(ASKED_FOR) {
            self.see_anchored(question);
        }
        measured
    }

    /// Prints how many mails mail_bridge published again because a message about them was lost in the graph, and what
    /// the nodes logged about the first of them.
    fn tell_redelivered(&mut self, questions: &[Question]) {
        let ids: HashSet<_> = questions.iter().map(|it| MailId::of(&it.data).to_string()).collect();
        let mut published: HashMap<String, u32> = HashMap::new();
        for line in self.0.mail_bridge.log().lines().filter(|line| line.contains("published")) {
            if let Some(id) = line.split(|c: char| !c.is_ascii_hexdigit()).find(|word| ids.contains(*word)) {
                *published.entry(id.to_owned()).or_default() += 1;
            }
        }
        assert!(!published.is_empty(), "mail_bridge writes what it publishes");
        let again: Vec<_> = published.into_iter().filter(|&(_, times)| times > 1).map(|(id, _)| id).collect();
        let Some(first) = again.first() else { return };
        println!("    {} mails were published again by mail_bridge; one of them:", again.len());
        for node in self.0.nodes() {
            for line in node.log().lines().filter(|line| line.contains(first.as_str())) {
                println!("    {}", line.replace(first.as_str(), "…"));
            }
        }
    }

    fn see_anchored(&mut self, question: &Question) {
        let request = json!({ "mail_id": MailId::of(&question.data).to_string() });
        let observer = &mut self.0.observer;
        wait_for("every mail has a receipt of the ledger", || {
            let response = observer.call(topics::PROVE.facts, &request);
            (response["found"] == true).then_some(())
        });
    }

    /// Ends the nodes as an operator would, and returns what went wrong with that; the figures remain valid.
    pub fn end(mut self) -> Vec<String> {
        let names = ["mail_bridge", "authenticator", "chatbot", "vehicle_router", "fleet_simulator"];
        let mut failures = Vec::new();
        for (name, node) in names.into_iter().zip(self.0.nodes()) {
            let status = node.terminate();
            if !status.success() {
                let log = node.log();
                let panic: Vec<_> =
                    log.lines().skip_while(|line| !line.contains("panicked")).take(2).collect();
                failures.push(format!("{name} after SIGTERM: {status} {}", panic.join(" ")));
            }
        }
        see_quiet(&self.0.sink);
        failures
    }
}

/// The Python pipeline.
pub struct Peer {
    process: Node,
    smtp: SocketAddr,
    sink: Sink,
    domain: SignedDomain,
    _zone: TempDir,
}

impl Peer {
    /// Starts a fresh one.
    pub fn start(senders: &[&str]) -> Self {
        let (sink, domain) = (Sink::start(), SignedDomain::new(SENDER_DOMAIN, "s1"));
        let directory = tempfile::tempdir().expect("scratch");
        let zone = directory.path().join("zone");
        fs::write(&zone, domain.zone()).expect("zone");
        let mut command = Command::new(project("target/venv/bench/bin/python"));
        command
            .arg(project("test/bench/peer.py"))
            .arg(zone)
            .arg(sink.address.port().to_string())
            .args(senders);
        let mut process = Node::run("peer", &Domain::take(), command);
        let smtp = process.wait_for_log("listening address=").parse().expect("address");
        Self { process, smtp, sink, domain, _zone: directory }
    }

    pub fn run(&mut self, tag: &str, case: &Case) -> Measured {
        let questions = questions(case.mails, tag, &SENDERS, &self.domain);
        run(case.load, &questions, self.smtp, &self.sink)
    }

    pub fn end(mut self) {
        let status = self.process.terminate();
        assert!(status.success(), "{status}:\n{}", self.process.log());
        see_quiet(&self.sink);
    }
}

/// Checks that nothing unexpected was delivered until the end.
fn see_quiet(sink: &Sink) {
    let unexpected = sink.wait(Duration::ZERO);
    assert!(unexpected.is_none(), "{unexpected:?}");
}
