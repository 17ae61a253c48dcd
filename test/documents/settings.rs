// SPDX-License-Identifier: Apache-2.0
//! Checks that parameter files and launch files set only what belongs to a site and repeat no default.

use std::{collections::BTreeMap, time::Duration};

use ros::{runtime::NodeFacts, topics};
use roxmltree::{Document, Node};
use settings::{DRAIN_TIMEOUT, Rule, Spec, Value, resolve, resolve_groups};

use super::{NODES, read};

/// The parameters that a file sets. Values must be written as JSON, which is also YAML, so that this can parse them.
fn configured(node: NodeFacts) -> BTreeMap<String, Value> {
    let path = format!("config/{}.yaml", node.name);
    let text = read(&path);
    let mut lines =
        text.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty());
    assert_eq!(lines.next(), Some("/**:"), "{path}");
    // Braces: ROS refuses a file with nothing below ros__parameters, and so uncommenting a line is enough.
    assert_eq!(lines.next(), Some("  ros__parameters: {"), "{path}");
    assert_eq!(lines.next_back(), Some("    }"), "{path}");
    let parameters: Vec<_> =
        lines.map(|line| setting(line).unwrap_or_else(|| panic!("{path}: {line:?}"))).collect();
    let count = parameters.len();
    let parameters: BTreeMap<_, _> = parameters.into_iter().collect();
    assert_eq!(parameters.len(), count, "{path} sets a parameter twice");
    parameters
}

/// Settings that a file shows in comments as examples.
fn shown(node: NodeFacts) -> BTreeMap<String, Value> {
    let text = read(&format!("config/{}.yaml", node.name));
    text.lines().filter_map(|line| setting(line.trim_start().strip_prefix("# ")?)).collect()
}

fn setting(line: &str) -> Option<(String, Value)> {
    let (name, value) = line.trim().strip_suffix(',')?.split_once(": ")?;
    Some((name.to_owned(), from_json(serde_json::from_str(value).ok()?)))
}

fn from_json(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::String(value) => Value::Text(value),
        serde_json::Value::Array(values) => Value::Texts(
            values.into_iter().map(|value| value.as_str().expect("a string").to_owned()).collect(),
        ),
        serde_json::Value::Number(value) => {
            value.as_i64().map_or_else(|| Value::Double(value.as_f64().expect("a number")), Value::Int)
        }
        other => panic!("{other} is no parameter value"),
    }
}

#[test]
fn parameter_files_are_valid_and_repeat_no_default() {
    let mut all = 0;
    for node in NODES {
        let configured = configured(node);
        all += configured.len();
        let with = |overrides| {
            resolve_groups(node.specs, node.groups, overrides)
                .unwrap_or_else(|error| panic!("{}: {error}", node.name))
        };
        let values = with(configured.clone());
        let defaults = resolve_groups(node.specs, node.groups, BTreeMap::new()).expect("defaults");
        for (name, _, default) in defaults.iter() {
            assert!(
                configured.get(&name) != Some(default),
                "config/{}.yaml repeats the default of {name}",
                node.name
            );
        }
        let shown = shown(node);
        all += shown.len();
        for values in [values, with(shown)] {
            assert_eq!(values.foreign().next(), None, "config/{}.yaml", node.name);
        }
    }
    assert!(all > 10, "no file sets anything: read wrongly?");
}

/// Arguments of every launch file, except that the one for all nodes takes a folder instead of a file.
const ARGUMENTS: [&str; 6] =
    ["namespace", "params_file", "log_level", "use_sim_time", "use_respawn", "enclave"];

fn elements<'a>(file: &'a Document<'_>, tag: &'static str) -> Vec<Node<'a, 'a>> {
    children(file.root_element(), tag)
}

fn children<'a>(parent: Node<'a, 'a>, tag: &'static str) -> Vec<Node<'a, 'a>> {
    parent.children().filter(|node| node.has_tag_name(tag)).collect()
}

fn attribute<'a>(node: &Node<'a, '_>, name: &str) -> &'a str {
    node.attribute(name).unwrap_or_else(|| panic!("{node:?} has no {name}"))
}

/// The argument that only this node's launch file has, which is also a parameter, and that parameter's default.
fn own_argument(node: &str) -> Option<(&'static str, String)> {
    let specs = fleet_simulator::params::SPECS;
    let values = resolve(specs, BTreeMap::new()).expect("defaults");
    (node == "fleet_simulator").then(|| ("order_key", values.text("order_key").expect("declared")))
}

fn assert_arguments(path: &str, file: &Document<'_>, names: &[&str]) {
    let arguments = elements(file, "arg");
    assert_eq!(arguments.iter().map(|arg| attribute(arg, "name")).collect::<Vec<_>>(), names, "{path}");
    for argument in arguments {
        assert!(attribute(&argument, "description").len() > 5, "{path}: {argument:?}");
        assert!(argument.has_attribute("default"), "{path}: {argument:?}");
    }
}

#[test]
fn each_node_s_launch_file_starts_it_and_holds_no_parameter_values() {
    for node in NODES {
        let path = format!("launch/{}.launch.xml", node.name);
        let text = read(&path);
        let file = Document::parse(&text).expect(&path);
        let own = own_argument(node.name);
        let names: Vec<_> = ARGUMENTS.into_iter().chain(own.iter().map(|(name, _)| *name)).collect();
        assert_arguments(&path, &file, &names);
        let params_file = format!("$(find-pkg-share posthorn)/config/{}.yaml", node.name);
        assert!(
            elements(&file, "arg").iter().any(|arg| arg.attribute("default") == Some(&params_file)),
            "{path}"
        );
        let [started] = elements(&file, "node")[..] else { panic!("{path} starts other than one node") };
        assert_eq!((attribute(&started, "pkg"), attribute(&started, "exec")), ("posthorn", node.name));
        assert_eq!(attribute(&started, "name"), node.name, "{path}");
        let parameters = started.children().filter(Node::is_element).map(|child| {
            let given = |name| child.attribute(name).unwrap_or_default().to_owned();
            (child.tag_name().name().to_owned(), given("from"), given("name"), given("value"))
        });
        let expected = [("", "use_sim_time", "$(var use_sim_time)")];
        let expected = expected.map(|(from, name, value)| {
            ("param".to_owned(), from.to_owned(), name.to_owned(), value.to_owned())
        });
        assert_eq!(parameters.collect::<Vec<_>>(), expected, "{path}");
        // Not by <param from>: if that file is missing, launch only warns and starts the node without it.
        let mut ros_args = String::from("--log-level $(var log_level)");
        if let Some((name, default)) = own {
            // Before the file, so that the file overrides it.
            ros_args += &format!(" -p {name}:=$(var {name})");
            let argument = elements(&file, "arg").into_iter().find(|arg| attribute(arg, "name") == name);
            assert_eq!(argument.map(|arg| attribute(&arg, "default").to_owned()), Some(default), "{path}");
        }
        ros_args += " --params-file $(var params_file) --enclave $(var enclave)";
        assert_eq!(attribute(&started, "ros_args"), ros_args, "{path}");
        // launch escalates to SIGTERM, which cuts the drain short, and then to SIGKILL.
        let drain = resolve_groups(node.specs, node.groups, BTreeMap::new())
            .expect("defaults")
            .seconds(DRAIN_TIMEOUT);
        let seconds = |name| Duration::from_secs_f64(attribute(&started, name).parse().expect(name));
        assert!(seconds("sigterm_timeout") >= drain.expect("seconds") + Duration::from_secs(5), "{path}");
        assert!(seconds("sigkill_timeout") >= Duration::from_secs(5), "{path}");
    }
}

#[test]
fn the_launch_file_of_all_includes_what_carries_mail_and_passes_every_argument_on() {
    let path = "launch/posthorn.launch.xml";
    let text = read(path);
    let file = Document::parse(&text).expect(path);
    assert_arguments(
        path,
        &file,
        &["namespace", "config_directory", "log_level", "use_sim_time", "use_respawn", "enclaves"],
    );
    // Without a group, launch keeps the arguments of one include for everything after it.
    assert!(elements(&file, "node").is_empty() && elements(&file, "include").is_empty(), "{path}");
    let [group] = elements(&file, "group")[..] else { panic!("{path}: includes are in one group") };
    assert_eq!(group.attributes().len(), 0, "{path}: a group is scoped unless it says otherwise");
    let mut included = Vec::new();
    for include in children(group, "include") {
        let target = attribute(&include, "file");
        let node = NODES
            .iter()
            .find(|node| target == format!("$(find-pkg-share posthorn)/launch/{}.launch.xml", node.name));
        let node = node.unwrap_or_else(|| panic!("{path} includes {target}"));
        let params_file = format!("$(var config_directory)/{}.yaml", node.name);
        let passed: Vec<_> = include
            .children()
            .filter(Node::is_element)
            .map(|arg| (attribute(&arg, "name"), attribute(&arg, "value").to_owned()))
            .collect();
        let expected = ARGUMENTS.map(|name| {
            let value = match name {
                "params_file" => params_file.clone(),
                "enclave" => format!("$(var enclaves)/{}", node.name),
                _ => format!("$(var {name})"),
            };
            (name, value)
        });
        assert_eq!(passed, expected, "{path}: {target}");
        included.push(node.name);
    }
    assert_eq!(included, ["mail_bridge", "authenticator", "chatbot", "vehicle_router"]);
}

/// The topics keep as much as the nodes publish at once.
#[test]
fn a_slow_reader_misses_neither_mails_nor_receipts() {
    let spec = |specs: &'static [Spec], name: &str| {
        specs.iter().find(|spec| spec.name == name).expect("a parameter")
    };
    let in_flight = spec(mail_bridge::node::FACTS.specs, "max_in_flight").default.value();
    let Value::Int(in_flight) = in_flight else { panic!("{in_flight:?}") };
    // First publications and further ones.
    assert_eq!(usize::try_from(2 * in_flight), Ok(topics::MAIL_RAW.facts.qos.depth()));
    let Rule::IntRange(_, batch) = spec(authenticator::node::FACTS.specs, "batch_max_mails").rule else {
        panic!("batch_max_mails has no range");
    };
    assert_eq!(usize::try_from(batch), Ok(topics::MAIL_RECEIPTS.facts.qos.depth()));
}
