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
    let mut config = of(".yaml");
    config.push("security".to_owned());
    config.sort();
    assert_eq!(list("config"), config);
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
        text.split("set(nodes ").nth(1).and_then(|rest| rest.split(')').next()).expect("the list");
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

#[test]
fn only_the_ros_layer_knows_the_client_libraries() {
    let mut folders = vec!["src".to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for name in list(&folder) {
            let path = format!("{folder}/{name}");
            if std::path::Path::new(&crate::testbed::project(&path)).is_dir() {
                folders.extend((path != "src/ros").then_some(path));
                continue;
            }
            files += 1;
            let text = read(&path);
            let uses = |line: &str| ["r2r::", "rclrs::"].iter().any(|name| line.contains(name));
            let line = text.lines().find(|line| !line.trim_start().starts_with("//") && uses(line));
            assert_eq!(line, None, "{path}");
        }
    }
    assert!(files > 60, "{files} files");
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
