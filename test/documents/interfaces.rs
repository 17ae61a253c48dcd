// SPDX-License-Identifier: Apache-2.0
//! Generates `docs/interfaces.md` from the topic constants, the QoS profiles and the `.msg` and `.srv` files.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use evidence::{Entry, Evidence, Finding, Kind, Source, digest_of, merkle::Tree};
use mail::MailId;
use ros::{
    qos::Qos,
    topics::{SERVICES, TOPICS},
};
use serde_json::json;
use testbed::project;

use super::{NODES, code, is_current, list, read, table};

/// The section on receipts: the only hand-written part.
const RECEIPT: &str = include_str!("receipt.md");
/// Placeholder in [`RECEIPT`] for the leaf's layout, which comes from the doc comment of `Evidence::encode`.
const LAYOUT: &str = "<!-- layout -->\n";
/// Placeholder in [`RECEIPT`] for the layout of a mail's facts, which comes from the doc comment of `Finding::facts`.
const FACTS: &str = "<!-- facts -->\n";
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
    let table_below = |path: &str, words: &str| {
        let source = read(path);
        let documented = source.split(words).nth(1).expect("the layout's documentation");
        let rows = documented.lines().skip(2).map_while(|line| line.trim().strip_prefix("/// |"));
        rows.map(|row| format!("|{row}\n")).collect::<String>()
    };
    let layout = table_below("src/evidence/lib.rs", "the canonical encoding, 202 bytes");
    let facts = table_below("src/evidence/entry/finding.rs", "the facts, 51 bytes");
    let contract = read("contracts/EvidenceLedger.sol");
    let event = contract.lines().find(|line| line.trim().starts_with("event Anchored(")).expect("the event");
    assert!([LAYOUT, FACTS, EVENT].iter().all(|place| RECEIPT.contains(place)));
    assert!(layout.lines().count() == 9 && facts.lines().count() == 5, "{layout}{facts}");
    RECEIPT
        .replace(LAYOUT, &layout)
        .replace(FACTS, &facts)
        .replace(EVENT, &format!("```solidity\n{}\n```\n", event.trim()))
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

/// Runs `docs/verify_receipt.py` on receipts of every leaf in batches of 1 to 17, genuine and tampered with.
#[test]
fn the_documented_program_verifies_receipts_and_nothing_else() {
    let program = format!(
        "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, {:?})\n\
         import json, verify_receipt\n\
         for receipt in json.load(sys.stdin):\n    expected = receipt.pop('expected')\n    try:\n        \
         verify_receipt.verify(receipt); verdict = True\n    except (verify_receipt.Refused, TypeError, ValueError):\n        \
         verdict = False\n    assert verdict == expected, receipt\n",
        project("docs")
    );
    let receipts: Vec<_> = (1..=17).flat_map(receipts_of).collect();
    assert_eq!(receipts.len(), 17 * 18 / 2 * 9);
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

/// The receipts of a batch of `size` leaves as JSON in the form of `LedgerReceipt.msg`: each genuine, with a change to
/// what it proves, and with an extra hash in its proof. Every other one is of an order, whose facts the ledger does not
/// hold.
fn receipts_of(size: u8) -> Vec<serde_json::Value> {
    let first = 1000;
    let verdict = |n| Finding {
        mail_id: MailId::of(&[n]),
        received_at: UNIX_EPOCH + Duration::new(1_600_000_000 + u64::from(n), 6),
        sender_digest: [n; 32],
        verdict: [1, 2, 2, 2, 2, n, 0],
    };
    let chatbot: Source = "/fleet/chatbot".parse().expect("a name");
    let authenticator: Source = "/fleet/authenticator".parse().expect("a name");
    let order = |n| Entry::new(Kind::ORDER, chatbot.clone(), [n; 32], digest_of(&[n])).expect("an order");
    let evidence: Vec<_> = (0..size)
        .map(|n| Evidence {
            index: first + u64::from(n),
            recorded_at: UNIX_EPOCH + Duration::new(1_700_000_000 + u64::from(n), 5),
            entry: if n % 2 == 0 { verdict(n).entry(&authenticator) } else { order(n) },
        })
        .collect();
    let tree = Tree::new(evidence.iter().map(Evidence::leaf).collect());
    let receipt = |(place, evidence): (usize, &Evidence)| {
        let Evidence { index, recorded_at, entry } = evidence;
        let since = recorded_at.duration_since(UNIX_EPOCH).expect("after 1970");
        let true_one = json!({
            "index": index, "recorded_at": { "sec": since.as_secs(), "nanosec": since.subsec_nanos() },
            "entry": {
                "kind": entry.kind().as_str(), "source": entry.source().as_str(),
                "subject": hex::encode(entry.subject()), "digest": entry.digest(),
            },
            "facts": entry.facts(), "leaf": evidence.leaf(),
            "batch_size": size, "batch_first": first, "root": tree.root(),
            "inclusion_proof": tree.proof(place).expect("in the tree").concat(), "expected": true,
        });
        let changed = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut receipt = true_one.clone();
            change(&mut receipt);
            receipt["expected"] = json!(false);
            receipt
        };
        let other_facts = changed(&|receipt| match place % 2 {
            0 => receipt["facts"][44] = json!(0),
            _ => receipt["facts"] = json!([1, 2]),
        });
        let other_kind = changed(&|receipt| receipt["entry"]["kind"] = json!("orders"));
        let other_source = changed(&|receipt| receipt["entry"]["source"] = json!("/thief"));
        let longer = changed(&|receipt| {
            receipt["inclusion_proof"]
                .as_array_mut()
                .expect("bytes")
                .extend([0; 32].map(|zero: u8| json!(zero)));
        });
        // The same bytes, cut elsewhere.
        let shifted = changed(&|receipt| {
            let first = receipt["entry"]["digest"].as_array_mut().expect("bytes").remove(0);
            receipt["entry"]["subject"] =
                format!("{}{:02x}", hex::encode(entry.subject()), first.as_u64().expect("a byte")).into();
        });
        // A number stands for that many zeros in Python's `bytes`.
        let number = changed(&|receipt| receipt["leaf"] = json!(32));
        let other_place = changed(&|receipt| receipt["index"] = json!(index + u64::from(size)));
        let other_root = changed(&|receipt| receipt["root"][31] = json!(u64::from(tree.root()[31]) ^ 1));
        [true_one, other_facts, other_kind, other_source, longer, shifted, number, other_place, other_root]
    };
    evidence.iter().enumerate().flat_map(receipt).collect()
}
