// SPDX-License-Identifier: Apache-2.0
//! The policies in `config/security/` allow exactly what the nodes do in the graph.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use roxmltree::Document;
use testbed::{domain::Domain, project};

use super::{fleets::start, life::NODES};

/// The second node in vehicle_router's process, which holds its dynamic subscriptions.
const SUBSCRIBER: &str = "_vehicle_router_subscriptions";

/// What a policy allows or a node has: full names, grouped by publish, subscribe, reply and request.
type Rules = BTreeMap<String, BTreeSet<String>>;

fn allowed(node: &str) -> Rules {
    let path = project(&format!("config/security/{node}.policy.xml"));
    let text = fs::read_to_string(path).unwrap();
    let file = Document::parse(&text).unwrap();
    let profile = file.descendants().find(|element| element.has_tag_name("profile")).unwrap();
    assert_eq!((profile.attribute("ns"), profile.attribute("node")), (Some("/fleet"), Some(node)));
    let mut rules = Rules::new();
    for list in profile.children().filter(|child| child.is_element()) {
        let [how] = list.attributes().collect::<Vec<_>>()[..] else { panic!("{list:?}") };
        assert_eq!(how.value(), "ALLOW");
        let names = list.children().filter_map(|child| child.text().filter(|_| child.is_element()));
        // Expand names the way sros2's permissions.xsl does.
        let full = names.map(|name| match name.strip_prefix('~') {
            Some(own) => format!("/fleet/{node}{own}"),
            None if name.starts_with('/') => name.to_owned(),
            None => format!("/fleet/{name}"),
        });
        rules.insert(how.name().to_owned(), full.collect());
    }
    rules
}

fn any_vehicle(part: &str) -> &str {
    if ["truck_1", "truck_2", "truck_3"].contains(&part) { "*" } else { part }
}

#[test]
fn the_security_policies_allow_what_the_nodes_do_and_nothing_else() {
    let (domain, home) = (Domain::take(), tempfile::tempdir().unwrap());
    let _running = NODES.map(|node| start(node, "fleet", home.path(), &domain));
    let look = Command::new("python3")
        .arg(project("test/graph/nodes.py"))
        .args(NODES.iter().chain([&SUBSCRIBER]).map(|node| format!("/fleet/{node}")))
        .envs(domain.environment())
        .output()
        .expect("python3");
    assert!(look.status.success(), "{}", String::from_utf8_lossy(&look.stderr));
    let mut seen: BTreeMap<String, Rules> = serde_json::from_slice(&look.stdout).expect("JSON");
    let subscriber = seen.remove(&format!("/fleet/{SUBSCRIBER}")).unwrap();
    for node in NODES {
        let mut has = seen.remove(&format!("/fleet/{node}")).unwrap();
        if node == "vehicle_router" {
            for (how, names) in subscriber.clone() {
                has.entry(how).or_default().extend(names);
            }
        }
        has.retain(|_, names| !names.is_empty());
        for names in has.values_mut() {
            let any = |name: &String| name.split('/').map(any_vehicle).collect::<Vec<_>>().join("/");
            *names = names.iter().map(any).collect();
        }
        assert_eq!(has, allowed(node), "{node}");
    }
}
