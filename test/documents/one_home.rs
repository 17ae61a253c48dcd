// SPDX-License-Identifier: Apache-2.0
//! Checks facts that several files have to repeat, and that every decision is in the index.

use roxmltree::Document;
use testbed::project;

use super::{COMMAND, NODES, list, read};

fn names() -> Vec<String> {
    let mut names: Vec<_> = NODES.iter().map(|node| node.name.to_owned()).collect();
    names.sort();
    names
}

/// The nodes and the command.
fn executables() -> Vec<String> {
    let mut names = names();
    names.push(COMMAND.to_owned());
    names.sort();
    names
}

#[test]
fn package_and_workspace_say_the_same() {
    let text = read("package.xml");
    let package = Document::parse(&text).expect("package.xml");
    let value =
        |tag: &str| package.descendants().find(|node| node.has_tag_name(tag)).and_then(|node| node.text());
    let manifest = read("Cargo.toml");
    let shared = |key: &str| {
        let line = manifest.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
        line.and_then(|rest| rest.strip_suffix('"')).unwrap_or_else(|| panic!("Cargo.toml has no {key}"))
    };
    assert_eq!(value("name"), Some("posthorn"));
    assert_eq!(value("version"), Some(shared("version")));
    assert_eq!(value("license"), Some(shared("license")));
    assert_eq!(value("description").map(|text| text.trim_end_matches('.')), Some(shared("description")));
    assert_eq!(shared("version"), env!("CARGO_PKG_VERSION"));
    // REP-132: "Forthcoming" until a release gives it version and date.
    let changelog = read("CHANGELOG.rst");
    let released = concat!("\n", env!("CARGO_PKG_VERSION"), " (");
    assert!(changelog.contains("\nForthcoming\n-----------\n") || changelog.contains(released));
}

#[test]
fn every_node_has_an_executable_a_configuration_and_a_launch_file() {
    let of = |suffix: &str| -> Vec<_> { names().iter().map(|name| format!("{name}{suffix}")).collect() };
    let with_main: Vec<_> =
        list("src").into_iter().filter(|name| project(&format!("src/{name}/main.rs")).exists()).collect();
    // The command is no node: it has neither a configuration nor a launch file.
    assert_eq!(with_main, executables());
    let mut config = of(".yaml");
    config.push("security".to_owned());
    config.sort();
    assert_eq!(list("config"), config);
    let mut launch = of(".launch.xml");
    launch.push("posthorn.launch.xml".to_owned());
    launch.sort();
    assert_eq!(list("launch"), launch);
}

#[test]
fn every_node_and_the_command_are_installed() {
    let text = read("CMakeLists.txt");
    let installed =
        text.split("set(executables ").nth(1).and_then(|rest| rest.split(')').next()).expect("the list");
    let mut installed: Vec<_> = installed.split_whitespace().collect();
    installed.sort_unstable();
    assert_eq!(installed, executables());
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

#[test]
fn every_interface_package_is_a_dependency() {
    let cmake = read("CMakeLists.txt");
    let packages = cmake.split_once("set(interface_packages").and_then(|(_, rest)| rest.split_once(')'));
    let packages: Vec<_> = packages.expect("interface_packages").0.split_whitespace().skip(1).collect();
    assert!(packages.len() > 5, "{packages:?}");
    let manifest = read("package.xml");
    for package in packages {
        assert!(manifest.contains(&format!("<depend>{package}</depend>")), "package.xml lacks {package}");
    }
}

#[test]
fn every_source_file_names_its_license() {
    let mut folders = vec!["src".to_owned(), "test".to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for name in list(&folder) {
            let path = format!("{folder}/{name}");
            if project(&path).is_dir() {
                folders.extend((path != "test/data").then_some(path));
            } else if [".rs", ".py", ".sh", "Cargo.toml"].iter().any(|end| name.ends_with(end)) {
                files += 1;
                let named = read(&path)
                    .lines()
                    .take(2)
                    .any(|line| line.ends_with("SPDX-License-Identifier: Apache-2.0"));
                assert!(named, "{path}: no SPDX-License-Identifier in the first two lines");
            }
        }
    }
    assert!(files > 200, "{files} files");
}
