// SPDX-License-Identifier: Apache-2.0
//! Generates the tables of `README.md` and checks that what it mentions exists.

use ros::runtime::NodeFacts;
use settings::Rule;
use testbed::project;

use super::{NODES, code, interfaces, is_current, list, read, table};

const END: &str = "<!-- end -->";

#[test]
fn tables_are_current() {
    let readme = read("README.md");
    let mut made = readme.clone();
    for (name, text) in [
        ("nodes", nodes()),
        ("topics", interfaces::topics(|name| code(interfaces::short(name)))),
        ("services", interfaces::services(|name| code(interfaces::short(name)))),
        ("parameters", NODES.map(parameters).join("\n")),
    ] {
        let marker = format!("<!-- generated: {name} -->\n");
        let begin = made.find(&marker).unwrap_or_else(|| panic!("README.md has no {marker}")) + marker.len();
        let length = made[begin..].find(END).unwrap_or_else(|| panic!("README.md: {name} has no {END}"));
        made.replace_range(begin..begin + length, &text);
    }
    assert_eq!(readme.matches("<!-- generated:").count(), 5, "a marker that nothing is made for");
    is_current("README.md", &made);
}

fn nodes() -> String {
    table(&["node", "what it does"], NODES.map(|node| vec![code(node.name), format!("{}.", node.about)]))
}

/// A node's parameters as a collapsed table.
fn parameters(node: NodeFacts) -> String {
    let rows = node.parameters().map(|(name, spec)| {
        let default = spec.default.value();
        let rule = match spec.rule {
            Rule::Any => String::new(),
            rule => rule.to_string(),
        };
        let kind = default.type_name().to_owned();
        vec![code(name), kind, code(default), rule, spec.unit.to_owned(), spec.description.to_owned()]
    });
    let table = table(&["parameter", "type", "default", "rule", "unit", "description"], rows);
    let (name, count) = (node.name, node.parameters().count());
    format!("<details><summary><code>{name}</code>: {count} parameters</summary>\n\n{table}\n</details>\n")
}

/// Folders that a build or a run creates.
const MADE: [&str; 3] = ["build", "install", "log"];

#[test]
fn what_it_mentions_is_there() {
    let readme = read("README.md");
    let links = readme.split("](").skip(1).map(|rest| rest.split(')').next().expect("a link"));
    let links: Vec<_> = links.filter(|link| !link.contains("://") && !link.starts_with('#')).collect();
    for link in &links {
        assert!(project(link.split('#').next().expect("a path")).exists(), "README.md links to {link}");
    }
    let folders: Vec<_> = list("").into_iter().filter(|name| project(name).is_dir()).collect();
    let is_path = |text: &&str| {
        let mut parts = text.split('/');
        let folder = parts.next().is_some_and(|first| folders.iter().any(|name| name == first));
        folder && parts.next().is_some() && !text.contains(['<', '*', ' '])
    };
    let spans = readme.split('`').skip(1).step_by(2);
    let paths: Vec<_> =
        spans.filter(is_path).filter(|path| !MADE.iter().any(|made| path.starts_with(made))).collect();
    for path in &paths {
        assert!(project(path).exists(), "README.md mentions {path}");
    }
    assert!(links.len() > 3 && paths.len() > 3, "found only {links:?} and {paths:?}");
}

#[test]
fn every_make_target_it_mentions_is_one() {
    let (readme, makefile) = (read("README.md"), read("Makefile"));
    let targets: Vec<_> = readme
        .match_indices("make ")
        .filter(|(at, _)| *at == 0 || "`\n".contains(&readme[at - 1..*at]))
        .map(|(at, make)| {
            let rest = &readme[at + make.len()..];
            &rest[..rest.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(rest.len())]
        })
        .collect();
    for target in &targets {
        assert!(makefile.contains(&format!("\n{target}:")), "README.md mentions make {target}");
    }
    assert!(targets.contains(&"demo") && targets.contains(&"test"), "{targets:?}");
}
