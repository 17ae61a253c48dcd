//! How a node's parameters are described, defaulted and validated. Pure.
//!
//! A node has one table of [`Spec`]s, the only home of its defaults; the README's tables and the ROS parameter
//! descriptors are made from it. [`resolve`] turns overrides into a complete [`Values`], or says which parameter,
//! which value and which rule. A name that is nearly one of the table is an error; others are another node's.

use std::{collections::BTreeMap, fmt, time::Duration};

/// A parameter value, of the ROS types that posthorn uses.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `double`
    Double(f64),
    /// `string`
    Text(String),
    /// `string[]`
    Texts(Vec<String>),
    /// Of a type that no parameter of posthorn has; as text.
    Other(String),
}

impl Value {
    /// The ROS name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Texts(_) => "string[]",
            Self::Other(_) => "another",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Double(value) => write!(f, "{value:?}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Texts(value) => write!(f, "{value:?}"),
            Self::Other(value) => write!(f, "{value}"),
        }
    }
}

/// The default of a parameter, and so its type.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `double`
    Double(f64),
    /// `string`
    Text(&'static str),
    /// `string[]`
    Texts(&'static [&'static str]),
}

impl Default {
    /// The default as a value.
    pub fn value(&self) -> Value {
        match *self {
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Double(value) => Value::Double(value),
            Self::Text(value) => Value::Text(value.to_owned()),
            Self::Texts(value) => Value::Texts(value.iter().map(|&text| text.to_owned()).collect()),
        }
    }
}

/// What a value must satisfy beside its type.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Any value of the type.
    Any,
    /// An `int` from first to last, both included.
    IntRange(i64, i64),
    /// A finite `double` from first to last, both included.
    DoubleRange(f64, f64),
    /// A `string`, or every one of a `string[]`, that is not empty.
    NotEmpty,
    /// One of these `string`s.
    OneOf(&'static [&'static str]),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => write!(f, "any"),
            Self::IntRange(first, last) => write!(f, "{first} to {last}"),
            Self::DoubleRange(first, last) => write!(f, "{first:?} to {last:?}"),
            Self::NotEmpty => write!(f, "not empty"),
            Self::OneOf(names) => write!(f, "one of {}", names.join(", ")),
        }
    }
}

impl Rule {
    fn holds(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Any, _) => true,
            (Self::IntRange(first, last), Value::Int(value)) => (first..=last).contains(&value),
            (Self::DoubleRange(first, last), Value::Double(value)) => (first..=last).contains(&value),
            (Self::NotEmpty, Value::Text(value)) => !value.is_empty(),
            (Self::NotEmpty, Value::Texts(values)) => values.iter().all(|value| !value.is_empty()),
            (Self::OneOf(names), Value::Text(value)) => names.contains(&value.as_str()),
            _ => false,
        }
    }
}

/// One parameter. All are read once at start; none changes while the node runs.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Name, snake_case, the unit at its end if it has one.
    pub name: &'static str,
    /// Default, and so the type.
    pub default: Default,
    /// What a value must satisfy.
    pub rule: Rule,
    /// Unit, for people; empty if none.
    pub unit: &'static str,
    /// What it does, one sentence.
    pub description: &'static str,
}

/// Name of the parameter, of every node, that bounds its end; the run loop reads it.
pub const DRAIN_TIMEOUT: &str = "drain_timeout_s";

/// The parameter [`DRAIN_TIMEOUT`].
pub const fn drain_timeout(default_s: f64) -> Spec {
    Spec {
        name: DRAIN_TIMEOUT,
        default: Default::Double(default_s),
        rule: Rule::DoubleRange(0.0, 600.0),
        unit: "s",
        description: "Time to finish what is under way when the node is to end; over it, the node ends with an error.",
    }
}

/// A parameter that ends the process at start.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ParamError {
    /// No parameter has this name, but one has nearly.
    #[error("parameter '{name}' = {value}: unknown; did you mean '{meant}'?")]
    Misspelt {
        /// As given.
        name: String,
        /// As given.
        value: String,
        /// The parameter of the node that is named nearly so.
        meant: &'static str,
    },
    /// The value has another type.
    #[error("parameter '{name}' = {value}: is of type {is}, must be {must}")]
    Type {
        /// The parameter.
        name: &'static str,
        /// As given.
        value: String,
        /// Type as given.
        is: String,
        /// Type of the parameter.
        must: &'static str,
    },
    /// The value breaks the parameter's rule, or one between parameters.
    #[error("parameter '{name}' = {value}: must be {rule}")]
    Rule {
        /// The parameter.
        name: &'static str,
        /// As given.
        value: String,
        /// What it must be.
        rule: String,
    },
    /// The node asks for a parameter that its table lacks, or with another type: a defect of the node.
    #[error("parameter '{0}' is not in the node's table with this type")]
    Undeclared(&'static str),
}

impl ParamError {
    /// A rule between parameters, or one that needs parsing, is broken.
    pub fn rule(name: &'static str, value: impl fmt::Display, rule: impl Into<String>) -> Self {
        Self::Rule { name, value: value.to_string(), rule: rule.into() }
    }
}

/// A value for every parameter of a table, each valid by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    own: BTreeMap<&'static str, Value>,
    foreign: BTreeMap<String, Value>,
}

/// Fills `specs` with `overrides`. An `int` given for a `double` is taken as such, as a person writes `5` for `5.0`.
/// Whoever sets parameters for all nodes (`/**` in a file, `set_parameter` in a launch file) sets those of other nodes here
/// too: they are kept apart, unless they look like one of the table.
///
/// # Errors
/// The first override, by name, that is misspelt, of the wrong type or outside its rule.
pub fn resolve(specs: &[Spec], overrides: BTreeMap<String, Value>) -> Result<Values, ParamError> {
    let mut own: BTreeMap<_, _> = specs.iter().map(|spec| (spec.name, spec.default.value())).collect();
    let mut foreign = BTreeMap::new();
    for (name, value) in overrides {
        if let Some(spec) = specs.iter().find(|spec| spec.name == name) {
            own.insert(spec.name, spec.check(value)?);
        } else if let Some(spec) = specs.iter().find(|spec| looks_like(&name, spec.name)) {
            return Err(ParamError::Misspelt { name, value: value.to_string(), meant: spec.name });
        } else {
            foreign.insert(name, value);
        }
    }
    Ok(Values { own, foreign })
}

/// Whether somebody who wrote `given` meant `name`: two letters are wrong, in a short name one, or the last words are
/// missing or too many, such as a unit.
fn looks_like(given: &str, name: &str) -> bool {
    let given = given.to_ascii_lowercase().replace('-', "_");
    let longer = |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'));
    let allowed = if given.len().min(name.len()) > 5 { 2 } else { 1 };
    longer(&given, name) || longer(name, &given) || strsim::osa_distance(&given, name) <= allowed
}

impl Spec {
    fn check(&self, value: Value) -> Result<Value, ParamError> {
        let must = self.default.value();
        let value = match (&must, value) {
            #[expect(clippy::cast_precision_loss, reason = "a person writes small integers")]
            (Value::Double(_), Value::Int(value)) => Value::Double(value as f64),
            // An empty YAML list has no type of its own.
            (Value::Texts(_), Value::Text(value)) if value.is_empty() => Value::Texts(Vec::new()),
            (_, value) => value,
        };
        if std::mem::discriminant(&must) != std::mem::discriminant(&value) {
            return Err(ParamError::Type {
                name: self.name,
                value: value.to_string(),
                is: value.type_name().to_owned(),
                must: must.type_name(),
            });
        }
        // Shells expand it, ROS does not: the path would begin with a folder of this name.
        if matches!(&value, Value::Text(text) if text == "~" || text.starts_with("~/")) {
            return Err(ParamError::rule(self.name, &value, "written out: ~ is expanded by nobody here"));
        }
        if !self.rule.holds(&value) {
            return Err(ParamError::rule(self.name, &value, self.rule.to_string()));
        }
        Ok(value)
    }
}

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $type:ty) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ParamError::Undeclared`], a defect of the node.
        pub fn $name(&self, name: &'static str) -> Result<$type, ParamError> {
            match self.own.get(name) {
                Some(Value::$variant(value)) => Ok(value.clone()),
                _ => Err(ParamError::Undeclared(name)),
            }
        }
    };
}

impl Values {
    getter!(/// A `bool`.
        bool, Bool, bool);
    getter!(/// An `int`.
        int, Int, i64);
    getter!(/// A `double`.
        double, Double, f64);
    getter!(/// A `string`.
        text, Text, String);
    getter!(/// A `string[]`.
        texts, Texts, Vec<String>);

    /// An `int` that counts or measures something, such as bytes.
    ///
    /// # Errors
    /// If it does not fit, or is not in the table.
    pub fn count<T: TryFrom<i64>>(&self, name: &'static str) -> Result<T, ParamError> {
        let value = self.int(name)?;
        T::try_from(value).map_err(|_| ParamError::rule(name, value, "a number that fits"))
    }

    /// A `double` of seconds.
    ///
    /// # Errors
    /// If it is negative, not finite, or not in the table.
    pub fn seconds(&self, name: &'static str) -> Result<Duration, ParamError> {
        let value = self.double(name)?;
        Duration::try_from_secs_f64(value)
            .map_err(|_| ParamError::rule(name, value, "a duration in seconds, not negative"))
    }

    /// All values by name, to be declared to ROS.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.own.iter().map(|(&name, value)| (name, value))
    }

    /// What was set and is not in the table: for other nodes, it seems.
    pub fn foreign(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.foreign.iter().map(|(name, value)| (name.as_str(), value))
    }
}

#[cfg(test)]
mod tests {
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
}
