// SPDX-License-Identifier: Apache-2.0
//! A node in Python, with another client library, sees the graph as documented.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use mail::MailId;
use ros::{qos::Qos, topics::TOPICS};
use serde_json::{Value, json};
use testbed::{
    posthorn::{POSTHORN, Posthorn, SENDER},
    project,
};

#[test]
fn a_python_node_sees_every_topic_with_its_type_and_qos_and_reads_a_mail() {
    let posthorn = Posthorn::start(&[], &[]);
    let mut look = Command::new("python3")
        .arg(project("test/graph/look.py"))
        .args(TOPICS.iter().map(|topic| topic.name_of("truck_1")))
        .envs(posthorn.domain.environment())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut lines = BufReader::new(look.stdout.take().expect("piped")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("look.py says why on standard error").expect("line");
        serde_json::from_str(&line).expect("JSON")
    };
    assert_eq!(next()["ready"], true);
    // It misses mails published before its subscription is matched, so send more until it has seen one.
    let (done, mut data) = (std::thread::spawn(move || look.wait().expect("wait")), Vec::new());
    while !done.is_finished() {
        let tag = format!("seen-by-python-{}", data.len());
        let mail = posthorn.question(&tag, "status", "Grüße");
        posthorn.accept(SENDER, &mail);
        data.push(mail);
        posthorn.sink.next();
    }
    assert!(done.join().expect("thread").success());
    let seen = next();

    for topic in TOPICS {
        let (reliability, durability) = match topic.qos {
            Qos::Event | Qos::Mail => ("RELIABLE", "VOLATILE"),
            Qos::State => ("RELIABLE", "TRANSIENT_LOCAL"),
            Qos::Sensor => ("BEST_EFFORT", "VOLATILE"),
        };
        let publishers = seen["topics"][topic.name_of("truck_1")].as_array().expect("publishers");
        assert_eq!(publishers.len(), 1, "{}: {publishers:?}", topic.name);
        assert_eq!(publishers[0]["type"], topic.type_name, "{}", topic.name);
        let from = topic.from.split(',').next().unwrap();
        let from = if from == "vehicles" { "fleet_simulator" } else { from };
        assert_eq!(publishers[0]["node"], from, "{}", topic.name);
        assert_eq!(publishers[0]["reliability"], reliability, "{}", topic.name);
        assert_eq!(publishers[0]["durability"], durability, "{}", topic.name);
    }
    let mail = &seen["mail"];
    assert!(data.iter().any(|data| mail["id"] == MailId::of(data).to_string()), "{mail}");
    assert_eq!(mail["from"][0], SENDER);
    assert_eq!(mail["rcpt_to"], json!([[POSTHORN]]));
    assert_eq!(mail["subject"], "status");
    assert_eq!(mail["text"].as_str().map(str::trim_end), Some("Grüße"));
    assert_eq!((&mail["is_smtp"], &mail["imap"]), (&json!(true), &json!(0)));
    assert_eq!(mail["consumers"], json!(["chatbot"]));
}
