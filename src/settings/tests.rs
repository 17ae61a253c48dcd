// SPDX-License-Identifier: Apache-2.0
use super::*;

const SPECS: &[Spec] = &[
    Spec {
        name: "port",
        default: Default::Int(25),
        rule: Rule::IntRange(0, 65535),
        unit: "",
        description: "",
    },
    Spec {
        name: "rate",
        default: Default::Double(1.0),
        rule: Rule::DoubleRange(0.1, 10.0),
        unit: "Hz",
        description: "",
    },
    Spec {
        name: "policy",
        default: Default::Text("refuse"),
        rule: Rule::OneOf(&["refuse", "answer"]),
        unit: "",
        description: "",
    },
];

fn with(name: &str, value: Value) -> Result<Values, ParamError> {
    resolve(SPECS, BTreeMap::from([(name.to_owned(), value)]))
}

#[test]
fn fills_in_defaults_and_takes_overrides() {
    let values = with("port", Value::Int(0)).unwrap();
    assert_eq!(values.count::<u16>("port"), Ok(0));
    assert_eq!(values.double("rate"), Ok(1.0));
    assert_eq!(values.text("policy").as_deref(), Ok("refuse"));
}

#[test]
fn names_parameter_value_and_rule() {
    let error = |name, value| with(name, value).unwrap_err().to_string();
    assert_eq!(error("port", Value::Int(70000)), "parameter 'port' = 70000: must be 0 to 65535");
    assert_eq!(
        error("policy", Value::Text("maybe".into())),
        "parameter 'policy' = \"maybe\": must be one of refuse, answer"
    );
    assert_eq!(
        error("port", Value::Text("25".into())),
        "parameter 'port' = \"25\": is of type string, must be int"
    );
    assert_eq!(
        error("policy", Value::Other("[1, 2]".into())),
        "parameter 'policy' = [1, 2]: is of type another, must be string"
    );
    assert_eq!(error("prot", Value::Int(1)), "parameter 'prot' = 1: unknown; did you mean 'port'?");
    assert_eq!(
        error("policy", Value::Text("~/refuse".into())),
        "parameter 'policy' = \"~/refuse\": must be written out: ~ is expanded by nobody here"
    );
    assert_eq!(error("rate", Value::Double(f64::NAN)), "parameter 'rate' = NaN: must be 0.1 to 10.0");
}

#[test]
fn tells_a_misspelt_parameter_from_another_node_s() {
    for (given, name) in [
        ("max_recipient", "max_recipients"),
        ("max_recpients", "max_recipients"),
        ("Max-Recipients", "max_recipients"),
        ("drain_timeout", "drain_timeout_s"),
        ("rate_hz_s", "rate_hz"),
        ("vehicle", "vehicles"),
        ("sede", "seed"),
    ] {
        assert!(looks_like(given, name), "{given} {name}");
    }
    for (given, name) in [
        ("robot_description", "routes"),
        ("frame_id", "seed"),
        ("need", "seed2"),
        ("controller.rate", "rate_hz"),
        ("battery_topic", "battery_low"),
    ] {
        assert!(!looks_like(given, name), "{given} {name}");
    }
    let values = with("robot_description", Value::Other("[1]".into())).unwrap();
    let foreign: Vec<_> = values.foreign().map(|(name, value)| format!("{name} {value}")).collect();
    assert_eq!(foreign, ["robot_description [1]"]);
    assert_eq!(values.iter().count(), 3);
}

#[test]
fn takes_an_int_for_a_double() {
    assert_eq!(with("rate", Value::Int(5)).unwrap().double("rate"), Ok(5.0));
}

#[test]
fn tells_a_defect_of_the_node_from_a_mistake_of_the_user() {
    let values = with("port", Value::Int(0)).unwrap();
    assert_eq!(values.text("port"), Err(ParamError::Undeclared("port")));
}
