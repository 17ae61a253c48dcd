//! Facts that several files must state, and decisions that must be found.

use roxmltree::Document;

use super::{NODES, list, read};

/// Names of all nodes, sorted.
fn names() -> Vec<String> {
    let mut names: Vec<_> = NODES.iter().map(|node| node.name.to_owned()).collect();
    names.sort();
    names
}

#[test]
fn package_and_crate_say_the_same() {
    let text = read("package.xml");
    let package = Document::parse(&text).expect("package.xml");
    let value =
        |tag: &str| package.descendants().find(|node| node.has_tag_name(tag)).and_then(|node| node.text());
    assert_eq!(value("name"), Some(env!("CARGO_PKG_NAME")));
    assert_eq!(value("version"), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(value("license"), Some(env!("CARGO_PKG_LICENSE")));
    assert_eq!(
        value("description").map(|text| text.trim_end_matches('.')),
        Some(env!("CARGO_PKG_DESCRIPTION"))
    );
    assert!(read("CHANGELOG.md").contains(concat!("## [", env!("CARGO_PKG_VERSION"), "]")));
}

#[test]
fn every_node_has_an_executable_a_configuration_and_a_launch_file() {
    let of = |suffix: &str| -> Vec<_> { names().iter().map(|name| format!("{name}{suffix}")).collect() };
    assert_eq!(list("src/bin"), of(".rs"));
    assert_eq!(list("config"), of(".yaml"));
    let mut launch = of(".launch.xml");
    launch.push("posthorn.launch.xml".to_owned());
    launch.sort();
    assert_eq!(list("launch"), launch);
    let manifest = read("Cargo.toml");
    let bins: Vec<_> =
        manifest.split("[[bin]]\nname = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(bins, names());
}

#[test]
fn every_node_is_installed() {
    let text = read("CMakeLists.txt");
    let installed =
        text.split("foreach(node ").nth(1).and_then(|rest| rest.split(')').next()).expect("the list");
    let mut installed: Vec<_> = installed.split_whitespace().collect();
    installed.sort_unstable();
    assert_eq!(installed, names());
}

#[test]
fn every_node_can_be_drained() {
    for node in NODES {
        assert!(node.specs.iter().any(|spec| spec.name == "drain_timeout_s"), "{}", node.name);
    }
}

#[test]
fn every_decision_is_in_the_index_by_its_title() {
    let index = read("docs/decisions/README.md");
    let records: Vec<_> = list("docs/decisions").into_iter().filter(|name| name != "README.md").collect();
    assert!(records.len() > 12, "{records:?}");
    for record in &records {
        let (number, _) = record.split_once('-').expect(record);
        let text = read(&format!("docs/decisions/{record}"));
        let title = text.lines().next().and_then(|line| line.strip_prefix(&format!("# {number}: ")));
        let entry =
            format!("[{number}]({record}) {}\n", title.unwrap_or_else(|| panic!("{record}: no title")));
        assert!(index.contains(&entry), "docs/decisions/README.md lacks: {entry}");
    }
    assert_eq!(index.matches("](0").count(), records.len(), "the index links to what is not there");
}
