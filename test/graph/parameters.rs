// SPDX-License-Identifier: Apache-2.0
//! What the graph says about parameters; also that nothing depends on the name that a node was given.

use std::{collections::BTreeSet, process::Command};

use ros::{
    runtime::NodeFacts,
    topics::{GET_RAW, GET_STATE, PROVE, REGISTER_SENDER, REVOKE_SENDER, ServiceFacts, TEST_MAIL_ACCOUNT},
};
use serde_json::{Value, json};
use settings::{Rule, Spec};
use testbed::{domain::Domain, executable, node::Node, observer::Observer};

use super::life::DIAGNOSTICS;

const NODES: [(NodeFacts, &[ServiceFacts]); 5] = [
    (mail_bridge::node::FACTS, &[GET_RAW.facts, TEST_MAIL_ACCOUNT.facts]),
    (authenticator::node::FACTS, &[PROVE.facts, REGISTER_SENDER.facts, REVOKE_SENDER.facts]),
    (chatbot::node::FACTS, &[]),
    (vehicle_router::node::FACTS, &[GET_STATE.facts]),
    (fleet_simulator::node::FACTS, &[]),
];

/// A service of the node `renamed` in the namespace `node`.
fn of(node: &str, service: &str, type_name: &'static str) -> ServiceFacts {
    let service = service.rsplit('/').next().unwrap();
    ServiceFacts { name: format!("/{node}/renamed/{service}").leak(), type_name, asked_by: "", purpose: "" }
}

/// Starts a renamed node with parameters for all nodes, as from a launch file's `set_parameter` or a file's `/**`.
fn start_renamed(name: &str, state: &str, domain: &Domain) -> Node {
    let mut command = Command::new(executable(name));
    command.args(["--ros-args", "-r", "__node:=renamed", "-r", &format!("__ns:=/{name}")]);
    command.args(["-p", "use_sim_time:=true", "-p", "robot_description:=none", "-p", "gains:=[1.0, 2.0]"]);
    if name == "mail_bridge" {
        command.args(["-p", "smtp_listen:=\"127.0.0.1:0\"", "-p", "lmtp_listen:=\"\""]);
    }
    command.env("XDG_STATE_HOME", state);
    Node::run(name, domain, command)
}

#[test]
fn every_parameter_is_described_also_of_a_renamed_node() {
    let (domain, state) = (Domain::take(), tempfile::tempdir().unwrap());
    let state = state.path().to_str().unwrap();
    let mut observer = Observer::start(&domain, &[DIAGNOSTICS]);
    let nodes = NODES.map(|(facts, _)| start_renamed(facts.name, state, &domain));
    for (node, (facts, services)) in nodes.iter().zip(NODES) {
        let mut ask = |service: &str, request: Value| {
            let type_name = format!("rcl_interfaces/srv/{service}").leak();
            let words = service.chars().flat_map(|c| c.is_uppercase().then_some('_').into_iter().chain([c]));
            let name = words.collect::<String>().to_lowercase();
            observer.call(of(facts.name, name.trim_start_matches('_'), type_name), &request)
        };
        let listed = &ask("ListParameters", json!({ "prefixes": [], "depth": 0 }))["result"]["names"];
        let listed: Vec<_> = listed.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let mut names: BTreeSet<_> = facts.specs.iter().map(|spec| spec.name).collect();
        names.insert("use_sim_time");
        assert_eq!(listed, names.into_iter().collect::<Vec<_>>(), "{}", facts.name);

        let descriptors = ask("DescribeParameters", json!({ "names": listed }));
        let values = ask("GetParameters", json!({ "names": listed }));
        let types = ask("GetParameterTypes", json!({ "names": listed }));
        for (place, name) in listed.iter().enumerate() {
            let descriptor = &descriptors["descriptors"][place];
            assert_eq!(descriptor["name"], *name);
            assert_eq!(descriptor["read_only"], true, "{descriptor}");
            assert_ne!(descriptor["description"], "", "{descriptor}");
            assert_ne!(descriptor["type"], 0, "{descriptor}");
            assert_eq!(descriptor["type"], values["values"][place]["type"], "{descriptor}");
            assert_eq!(descriptor["type"], types["types"][place], "{descriptor}");
            if let Some(spec) = facts.specs.iter().find(|spec| spec.name == *name) {
                assert_range(spec, descriptor);
            }
        }
        let unknown = ask("DescribeParameters", json!({ "names": ["nothing"] }));
        assert_eq!(unknown["descriptors"][0]["type"], 0, "{unknown}");
        let set = json!({ "parameters": [{ "name": "drain_timeout_s", "value": { "type": 3 } }] });
        let refused = ask("SetParameters", set.clone());
        assert_eq!(refused["results"][0]["successful"], false, "{refused}");
        assert_eq!(ask("SetParametersAtomically", set)["result"]["successful"], false);

        for service in services {
            observer.call(of(facts.name, service.name, service.type_name), &json!({}));
        }
        let begin = format!("{}/renamed: ", facts.name);
        observer.message(DIAGNOSTICS, |message| {
            message["status"][0]["name"].as_str().is_some_and(|name| name.starts_with(&begin))
        });
        for warning in [
            "parameter 'use_sim_time' = true: without effect",
            "parameter 'robot_description' = \"none\": this node has none of this name",
            "parameter 'gains' = DoubleArray([1.0, 2.0]): this node has none of this name",
        ] {
            assert!(node.log().contains(warning), "{}", node.log());
        }
    }
}

fn assert_range(spec: &Spec, descriptor: &Value) {
    let range = |kind: &str, from: Value, to: Value| {
        let range = &descriptor[kind][0];
        assert_eq!((&range["from_value"], &range["to_value"]), (&from, &to), "{descriptor}");
    };
    match spec.rule {
        Rule::Any => {}
        Rule::IntRange(from, to) => range("integer_range", json!(from), json!(to)),
        Rule::DoubleRange(from, to) => range("floating_point_range", json!(from), json!(to)),
        Rule::NotEmpty | Rule::OneOf(_) => {
            assert_ne!(descriptor["additional_constraints"], "", "{descriptor}")
        }
    }
}
