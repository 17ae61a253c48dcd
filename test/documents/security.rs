// SPDX-License-Identifier: Apache-2.0
//! Generates `config/security/*.policy.xml` in sros2's format: what each node may do in a graph with DDS security.

use command::ask::NODE as COMMAND;
use ros::topics::{READINGS, SERVICES, ServiceFacts, TOPICS, TopicFacts, VEHICLE};

use super::{NODES, is_current, list, read};

/// The parameter services that every node has.
const PARAMETER_SERVICES: [&str; 6] = [
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
];

#[test]
fn policies_are_current() {
    for node in NODES {
        is_current(&format!("config/security/{}.policy.xml", node.name), &policy(node.name));
    }
    is_current(&format!("config/security/{}.policy.xml", COMMAND), &policy_of_the_command());
    assert_eq!(list("config/security").len(), NODES.len() + 1);
}

/// The command asks and listens, and publishes nothing.
fn policy_of_the_command() -> String {
    let request = asked_by_people().map(|service| service.name.to_owned()).collect();
    let subscribe = vec!["/diagnostics".to_owned()];
    file(COMMAND, Rules { subscribe, request, ..Rules::default() })
}

/// The services that no node asks: the command does.
fn asked_by_people() -> impl Iterator<Item = &'static ServiceFacts> {
    SERVICES.iter().filter(|service| service.asked_by.is_empty())
}

/// What the command asks is in its sources.
#[test]
fn the_command_may_ask_what_it_asks() {
    let sources: String = list("src/posthorn")
        .into_iter()
        .filter(|name| name.ends_with(".rs"))
        .map(|name| read(&format!("src/posthorn/{name}")))
        .collect();
    let asked = [
        "REGISTER_SENDER",
        "REVOKE_SENDER",
        "LIST_SENDERS",
        "GET_RAW",
        "TEST_MAIL_ACCOUNT",
        "PROVE",
        "PROVE_RANGE",
        "PROVE_BLOCK",
    ];
    for name in asked {
        assert!(
            sources.contains(&format!("topics::{name},")) || sources.contains(&format!("topics::{name})")),
            "{name}"
        );
    }
    assert_eq!(sources.matches("&topics::").count(), asked.len());
    let allowed: Vec<_> = asked_by_people().map(|service| service.name.rsplit('/').next()).collect();
    assert!(asked.iter().all(|name| allowed.contains(&Some(name.to_lowercase().as_str()))), "{allowed:?}");
}

/// What a node may do: names of topics and services.
#[derive(Default)]
struct Rules {
    publish: Vec<String>,
    subscribe: Vec<String>,
    reply: Vec<String>,
    request: Vec<String>,
}

/// Whether `nodes`, such as "chatbot, others", includes `node`. The simulator counts as "vehicles".
fn names(nodes: &str, node: &str) -> bool {
    nodes.split(", ").any(|name| name == node || (name == "vehicles" && node == "fleet_simulator"))
}

fn policy(node: &str) -> String {
    let topics: Vec<_> = TOPICS.into_iter().chain(READINGS).collect();
    let topic = |topic: &TopicFacts| topic.name.replace(VEHICLE, "*");
    let mut publish: Vec<_> = topics.iter().filter(|topic| names(topic.from, node)).map(topic).collect();
    publish.extend(["/diagnostics".to_owned(), "/rosout".to_owned()]);
    let subscribe = topics.iter().filter(|topic| names(topic.to, node)).map(topic).collect();
    let mut reply: Vec<_> = PARAMETER_SERVICES.map(|service| format!("~/{service}")).into();
    let own = |name: &str| name.strip_prefix(node)?.strip_prefix('/').map(|service| format!("~/{service}"));
    reply.extend(SERVICES.iter().filter_map(|service| own(service.name)));
    let asked = SERVICES.iter().filter(|service| names(service.asked_by, node));
    let request = asked.map(|service| service.name.to_owned()).collect();
    file(node, Rules { publish, subscribe, reply, request })
}

fn file(node: &str, allowed: Rules) -> String {
    let mut rules = String::new();
    for (list, item, how, mut names) in [
        ("topics", "topic", "publish", allowed.publish),
        ("topics", "topic", "subscribe", allowed.subscribe),
        ("services", "service", "reply", allowed.reply),
        ("services", "service", "request", allowed.request),
    ] {
        names.sort();
        if !names.is_empty() {
            rules += &format!("          <{list} {how}=\"ALLOW\">\n");
            rules.extend(names.iter().map(|name| format!("            <{item}>{name}</{item}>\n")));
            rules += &format!("          </{list}>\n");
        }
    }
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- Made by `make docs` of src/ros/topics.rs: what {node} may do in the graph. How it is used: docs/security.md. -->
<policy version="0.2.0">
  <enclaves>
    <enclave path="/fleet/{node}">
      <profiles>
        <profile ns="/fleet" node="{node}">
{rules}        </profile>
      </profiles>
    </enclave>
  </enclaves>
</policy>
"#
    )
}
