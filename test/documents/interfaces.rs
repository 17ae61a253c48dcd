// SPDX-License-Identifier: Apache-2.0
//! Generates `docs/interfaces.md` from the topic constants, the QoS profiles and the `.msg` and `.srv` files.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use evidence::{Evidence, Finding, merkle::Tree};
use mail::MailId;
use ros::{
    qos::Qos,
    topics::{SERVICES, TOPICS},
};
use serde_json::json;

use super::{NODES, code, is_current, list, read, table};

/// The section on receipts: the only hand-written part.
const RECEIPT: &str = include_str!("receipt.md");
/// Placeholder in [`RECEIPT`] for the leaf's layout, which comes from the doc comment of `Evidence::encode`.
const LAYOUT: &str = "<!-- layout -->\n";
/// Placeholder in [`RECEIPT`] for the event, which comes from the contract.
const EVENT: &str = "<!-- event -->\n";

#[test]
fn interfaces_are_current() {
    is_current("docs/interfaces.md", &interfaces());
}

fn interfaces() -> String {
    let mut text = String::from(
        "<!-- Made by `make docs` of src/ros/topics.rs, src/ros/qos.rs, msg/ and srv/. -->\n\n# Interfaces\n\n\
         Names are relative to the namespace that launch gives, services begin with the name of the node that serves them, also a changed one, and\n\
         `/diagnostics` (`diagnostic_msgs/msg/DiagnosticArray`, every node, at 1 Hz) is absolute as everywhere in ROS.\n\
         A message is specified by the comments in its file.\n\n## Topics\n\n",
    );
    text += &topics(link);
    text += "\n## QoS profiles\n\n";
    text += &table(
        &["profile", "reliability", "durability", "history", "meaning"],
        PROFILES.map(|(qos, meaning)| {
            let profile = qos.profile();
            let depth = format!("{:?} {}", profile.history, profile.depth);
            let [reliability, durability, history] =
                [format!("{:?}", profile.reliability), format!("{:?}", profile.durability), depth]
                    .map(|word| spaced(&word));
            vec![code(qos.name()), reliability, durability, history, meaning.to_owned()]
        }),
    );
    text += "\n## Services\n\n";
    text += &services(link);
    for (title, folder, suffix) in [("Messages", "msg", ".msg"), ("Services' types", "srv", ".srv")] {
        text += &format!("\n## {title}\n");
        for file in list(folder) {
            let name = file.strip_suffix(suffix).unwrap_or_else(|| panic!("{folder}/{file}: not {suffix}"));
            text += &format!("\n### {name}\n\n```\n{}\n```\n", read(&format!("{folder}/{file}")).trim_end());
        }
    }
    text += "\n";
    text + &receipt()
}

/// Each profile and what it means for publishers and subscribers.
const PROFILES: [(Qos, &str); 4] = [
    (Qos::Event, "Something happened. Messages published before a subscriber joins are not delivered to it."),
    (Qos::Mail, "Mails with their bytes, of which a reader keeps fewer. One that was missed comes again."),
    (Qos::State, "Something holds. A late subscriber gets the latest message, and only that one."),
    (Qos::Sensor, "A stream of readings. An old one is worth less than the next."),
];

/// Turns `KeepLast 5` into `keep last 5`.
fn spaced(word: &str) -> String {
    let mut text = String::new();
    for c in word.chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push(if text.ends_with(' ') { ' ' } else { '-' });
        }
        text.extend(c.to_lowercase());
    }
    text
}

/// The type's name without its package, as a link to its section.
fn link(type_name: &str) -> String {
    let name = short(type_name);
    format!("[{name}](#{})", name.to_lowercase())
}

pub(super) fn short(type_name: &str) -> &str {
    type_name.rsplit('/').next().expect("a name")
}

/// The table of topics; `type_cell` formats the type column.
pub(super) fn topics(type_cell: impl Fn(&str) -> String) -> String {
    let row = |topic: ros::topics::TopicFacts| {
        vec![
            code(topic.name),
            type_cell(topic.type_name),
            topic.qos.name().to_owned(),
            topic.from.to_owned(),
            topic.to.to_owned(),
        ]
    };
    table(&["topic", "type", "QoS", "from", "to"], TOPICS.map(row))
}

/// The table of services; `type_cell` formats the type column.
pub(super) fn services(type_cell: impl Fn(&str) -> String) -> String {
    let row = |service: ros::topics::ServiceFacts| {
        vec![code(service.name), type_cell(service.type_name), service.purpose.to_owned()]
    };
    table(&["service", "type", "what for"], SERVICES.map(row))
}

/// The section on receipts, with the layout and the event filled in from the code.
fn receipt() -> String {
    let evidence = read("src/evidence/lib.rs");
    let encode = evidence.split("the canonical encoding, ").nth(1).expect("the layout's documentation");
    let rows = encode.lines().filter_map(|line| line.trim().strip_prefix("/// |"));
    let layout: String = rows.map(|row| format!("|{row}\n")).collect();
    let contract = read("contracts/EvidenceLedger.sol");
    let event = contract.lines().find(|line| line.trim().starts_with("event Anchored(")).expect("the event");
    assert!(RECEIPT.contains(LAYOUT) && RECEIPT.contains(EVENT));
    RECEIPT.replace(LAYOUT, &layout).replace(EVENT, &format!("```solidity\n{}\n```\n", event.trim()))
}

#[test]
fn every_topic_and_service_is_of_a_committed_type_and_of_a_node() {
    let is_node = |name: &str| NODES.iter().any(|node| node.name == name);
    for topic in TOPICS {
        assert!(list("msg").contains(&format!("{}.msg", short(topic.type_name))), "{topic:?}");
        assert!(
            topic.from.split(", ").all(|from| is_node(from) || ["others", "vehicles"].contains(&from)),
            "{topic:?}"
        );
        let others = ["others", "anyone", "vehicles"];
        assert!(topic.to.split(", ").all(|to| is_node(to) || others.contains(&to)), "{topic:?}");
    }
    for service in SERVICES {
        assert!(list("srv").contains(&format!("{}.srv", short(service.type_name))), "{service:?}");
        let node = service.name.split('/').next().expect("a node");
        assert!(is_node(node), "{service:?}");
        assert!(
            read(&format!("srv/{}.srv", short(service.type_name))).contains(&format!("Served by {node}"))
        );
    }
}

/// Runs the document's own program on receipts of every leaf in batches of 1 to 17, genuine and tampered with.
#[test]
fn the_documented_program_verifies_receipts_and_nothing_else() {
    let program =
        RECEIPT.split("```python\n").nth(1).expect("a program").split("```").next().expect("its end");
    let program = format!(
        "{program}\nimport json, sys\nfor receipt in json.load(sys.stdin):\n    verdict = receipt.pop('expected')\n    \
         assert verify(receipt) == verdict, receipt\n"
    );
    let receipts: Vec<_> = (1..=17).flat_map(receipts_of).collect();
    assert_eq!(receipts.len(), 17 * 18 / 2 * 3);
    let mut python =
        Command::new("python3").arg("-c").arg(program).stdin(Stdio::piped()).spawn().expect("python3");
    python
        .stdin
        .take()
        .expect("piped")
        .write_all(json!(receipts).to_string().as_bytes())
        .expect("python3 reads");
    assert!(python.wait().expect("python3").success());
}

/// The receipts of a batch of `size` leaves as JSON in the form of `LedgerReceipt.msg`: each genuine, with a changed
/// verdict, and with an extra hash in its proof.
fn receipts_of(size: u8) -> Vec<serde_json::Value> {
    let first = 1000;
    let evidence: Vec<_> = (0..size)
        .map(|n| Evidence {
            index: first + u64::from(n),
            finding: Finding {
                mail_id: MailId::of(&[n]),
                received_at: UNIX_EPOCH + Duration::new(1_700_000_000 + u64::from(n), 5),
                sender_digest: [n; 32],
                verdict: [1, 2, 2, 2, 2, n],
            },
        })
        .collect();
    let tree = Tree::new(evidence.iter().map(Evidence::leaf).collect());
    let receipt = |(place, evidence): (usize, &Evidence)| {
        let Finding { mail_id, received_at, sender_digest, verdict } = &evidence.finding;
        let since = received_at.duration_since(UNIX_EPOCH).expect("after 1970");
        let true_one = json!({
            "mail_id": mail_id.to_string(), "index": evidence.index,
            "received_at": { "sec": since.as_secs(), "nanosec": since.subsec_nanos() },
            "sender_digest": sender_digest, "verdict": verdict, "leaf": evidence.leaf(),
            "batch_size": size, "batch_first": first, "root": tree.root(),
            "inclusion_proof": tree.proof(place).expect("in the tree").concat(), "expected": true,
        });
        let (mut other_verdict, mut longer) = (true_one.clone(), true_one.clone());
        other_verdict["verdict"][0] = json!(0);
        other_verdict["expected"] = json!(false);
        longer["inclusion_proof"].as_array_mut().expect("bytes").extend([0; 32].map(|zero: u8| json!(zero)));
        longer["expected"] = json!(false);
        [true_one, other_verdict, longer]
    };
    evidence.iter().enumerate().flat_map(receipt).collect()
}
