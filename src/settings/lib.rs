// SPDX-License-Identifier: Apache-2.0
//! Describes, defaults and validates a node's parameters. Pure.
//!
//! Each node has one table of [`Spec`]s. It is the only home of its defaults; the README's tables and the ROS parameter
//! descriptors are generated from it. [`resolve`] turns overrides into a complete [`Values`], or returns an error that
//! names the parameter, the value and the rule. A name close to one in the table is an error; any other unknown name is
//! assumed to belong to another node. Reading overrides from ROS and declaring the values is left to `ros::params`.

mod back_off;
mod group;

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

pub use back_off::BackOff;
pub use group::Group;

/// A parameter value, in one of the ROS types that posthorn uses.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// ROS `bool`.
    Bool(bool),
    /// ROS `int`.
    Int(i64),
    /// ROS `double`.
    Double(f64),
    /// ROS `string`.
    Text(String),
    /// ROS `string[]`.
    Texts(Vec<String>),
    /// A value of a type that no posthorn parameter has, kept as text for error messages.
    Other(String),
}

impl Value {
    /// The ROS name of the value's type; `another` for [`Value::Other`].
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

/// The default of a parameter, which also fixes its type.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// Default of a `bool` parameter.
    Bool(bool),
    /// Default of an `int` parameter.
    Int(i64),
    /// Default of a `double` parameter.
    Double(f64),
    /// Default of a `string` parameter.
    Text(&'static str),
    /// Default of a `string[]` parameter.
    Texts(&'static [&'static str]),
}

impl Default {
    /// Converts the default to a [`Value`].
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

/// What a value must satisfy besides having the right type.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Any value of the parameter's type is valid.
    Any,
    /// An `int` between these bounds, inclusive.
    IntRange(i64, i64),
    /// A finite `double` between these bounds, inclusive.
    DoubleRange(f64, f64),
    /// A `string` that is not empty, or a `string[]` without empty elements.
    NotEmpty,
    /// A `string` that is one of these.
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

/// Describes one parameter. Parameters are read once at startup and never change while the node runs.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Name in snake_case, ending in the unit if there is one.
    pub name: &'static str,
    /// Default, which also fixes the type.
    pub default: Default,
    /// Rule that every value must satisfy.
    pub rule: Rule,
    /// Unit shown to people; empty if there is none.
    pub unit: &'static str,
    /// One sentence on what the parameter does.
    pub description: &'static str,
}

/// A row of a table: name, default, rule, unit, description.
pub const fn spec(
    name: &'static str,
    default: Default,
    rule: Rule,
    unit: &'static str,
    description: &'static str,
) -> Spec {
    Spec { name, default, rule, unit, description }
}

/// Name of the parameter that limits how long a node may drain. Every node has it; the run loop reads it.
pub const DRAIN_TIMEOUT: &str = "drain_timeout_s";

/// The spec of [`DRAIN_TIMEOUT`] with the node's own default, in seconds.
pub const fn drain_timeout(default_s: f64) -> Spec {
    Spec {
        name: DRAIN_TIMEOUT,
        default: Default::Double(default_s),
        rule: Rule::DoubleRange(0.0, 600.0),
        unit: "s",
        description: "Time to finish what is under way when the node is to end; over it, the node ends with an error.",
    }
}

/// An invalid parameter; it ends the process at startup.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ParamError {
    /// No parameter has this name, but one has a similar name.
    #[error("parameter '{name}' = {value}: unknown; did you mean '{meant}'?")]
    Misspelt {
        /// Name as given.
        name: String,
        /// Value as given.
        value: String,
        /// The parameter of this node with the similar name.
        meant: String,
    },
    /// No parameter of this node has this name, and no other node can be meant.
    #[error("parameter '{name}' = {value}: unknown; {why}")]
    Unknown {
        /// Name as given.
        name: String,
        /// Value as given.
        value: String,
        /// What is missing.
        why: String,
    },
    /// The value has the wrong type.
    #[error("parameter '{name}' = {value}: is of type {is}, must be {must}")]
    Type {
        /// Name of the parameter.
        name: String,
        /// Value as given.
        value: String,
        /// Type of the value as given.
        is: String,
        /// Type that the parameter requires.
        must: &'static str,
    },
    /// The value breaks the parameter's own rule or a rule that involves other parameters.
    #[error("parameter '{name}' = {value}: must be {rule}")]
    Rule {
        /// Name of the parameter.
        name: String,
        /// Value as given.
        value: String,
        /// The rule, worded to follow "must be".
        rule: String,
    },
    /// The node asked for a parameter that its table lacks or has with another type. This is a bug in the node.
    #[error("parameter '{0}' is not in the node's table with this type")]
    Undeclared(&'static str),
}

impl ParamError {
    /// Makes a [`ParamError::Rule`] for what a [`Rule`] cannot express: rules across parameters or that need parsing.
    pub fn rule(name: impl Into<String>, value: impl fmt::Display, rule: impl Into<String>) -> Self {
        Self::Rule { name: name.into(), value: value.to_string(), rule: rule.into() }
    }

    /// The same error of a parameter whose name has `prefix` in front.
    #[must_use]
    pub fn within(self, prefix: &str) -> Self {
        let full = |name: String| format!("{prefix}{name}");
        match self {
            Self::Misspelt { name, value, meant } => {
                Self::Misspelt { name: full(name), value, meant: full(meant) }
            }
            Self::Unknown { name, value, why } => Self::Unknown { name: full(name), value, why },
            Self::Type { name, value, is, must } => Self::Type { name: full(name), value, is, must },
            Self::Rule { name, value, rule } => Self::Rule { name: full(name), value, rule },
            undeclared @ Self::Undeclared(_) => undeclared,
        }
    }
}

/// A value for every parameter of a table, each valid on its own.
#[derive(Clone, Debug)]
pub struct Values {
    own: BTreeMap<&'static str, (Spec, Value)>,
    foreign: BTreeMap<String, Value>,
    members: Vec<(Group, Vec<(String, Values)>)>,
}

/// Overlays `overrides` on the defaults of `specs`. An `int` is accepted for a `double`: people write `5` for `5.0`.
/// Setting parameters for all nodes (`/**` in a file, `set_parameter` in a launch file) also sets other nodes' here.
/// Those are kept apart as [`Values::foreign`], unless their name is close to one in the table.
///
/// # Errors
/// The first override, in name order, that is misspelt, has the wrong type or breaks its rule.
pub fn resolve(specs: &[Spec], overrides: BTreeMap<String, Value>) -> Result<Values, ParamError> {
    own_values(specs, overrides, "")
}

/// The same with parameters that repeat for each name in a list.
///
/// # Errors
/// Those of [`resolve`], a name that cannot be part of a parameter's, and a parameter of a name that is not in the list.
pub fn resolve_groups(
    specs: &[Spec],
    groups: &[Group],
    mut overrides: BTreeMap<String, Value>,
) -> Result<Values, ParamError> {
    let mut members = Vec::new();
    for group in groups {
        let list = overrides.iter().filter(|(name, _)| *name == group.names);
        let list = list.map(|(name, value)| (name.clone(), value.clone())).collect();
        let names = resolve(specs, list)?.texts(group.names)?;
        members.push((*group, group.resolve(&names, &mut overrides)?));
    }
    Ok(Values { members, ..resolve(specs, overrides)? })
}

/// The values of one table; an error's name has `prefix` in front.
fn own_values(
    specs: &[Spec],
    overrides: BTreeMap<String, Value>,
    prefix: &str,
) -> Result<Values, ParamError> {
    let default = |spec: &Spec| (spec.name, (*spec, spec.default.value()));
    let mut own: BTreeMap<_, _> = specs.iter().map(default).collect();
    let mut foreign = BTreeMap::new();
    for (name, value) in overrides {
        if let Some(spec) = specs.iter().find(|spec| spec.name == name) {
            let value = spec.check(value).map_err(|error| error.within(prefix))?;
            own.insert(spec.name, (*spec, value));
        } else if let Some(spec) = specs.iter().find(|spec| looks_like(&name, spec.name)) {
            let (value, meant) = (value.to_string(), spec.name.to_owned());
            return Err(ParamError::Misspelt { name, value, meant }.within(prefix));
        } else {
            foreign.insert(name, value);
        }
    }
    Ok(Values { own, foreign, members: Vec::new() })
}

/// Whether `given` is probably a misspelling of `name`: up to two letters are wrong (one in a name of five letters or
/// fewer), or trailing words, such as a unit, are missing or extra.
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
            // An empty YAML list carries no element type.
            (Value::Texts(_), Value::Text(value)) if value.is_empty() => Value::Texts(Vec::new()),
            (_, value) => value,
        };
        if std::mem::discriminant(&must) != std::mem::discriminant(&value) {
            return Err(ParamError::Type {
                name: self.name.to_owned(),
                value: value.to_string(),
                is: value.type_name().to_owned(),
                must: must.type_name(),
            });
        }
        // Shells expand `~`, ROS does not, so the path would start with a directory literally named `~`.
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
        /// [`ParamError::Undeclared`], a bug in the node.
        pub fn $name(&self, name: &'static str) -> Result<$type, ParamError> {
            match self.own.get(name) {
                Some((_, Value::$variant(value))) => Ok(value.clone()),
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

    /// The value of an `int` parameter that is a count or a size, converted to `T`.
    ///
    /// # Errors
    /// If the value does not fit `T`, or the parameter is not in the table.
    pub fn count<T: TryFrom<i64>>(&self, name: &'static str) -> Result<T, ParamError> {
        let value = self.int(name)?;
        T::try_from(value).map_err(|_| ParamError::rule(name, value, "a number that fits"))
    }

    /// The value of a `double` parameter in seconds, as a [`Duration`].
    ///
    /// # Errors
    /// If the value is negative, not finite or too large, or the parameter is not in the table.
    pub fn seconds(&self, name: &'static str) -> Result<Duration, ParamError> {
        let value = self.double(name)?;
        Duration::try_from_secs_f64(value)
            .map_err(|_| ParamError::rule(name, value, "a duration in seconds, not negative"))
    }

    /// The value of a `string` parameter that is where a server listens; `None` if it is empty.
    ///
    /// # Errors
    /// If the value is no IP address with a port, or the parameter is not in the table.
    pub fn listen(&self, name: &'static str) -> Result<Option<SocketAddr>, ParamError> {
        let text = self.text(name)?;
        if text.is_empty() {
            return Ok(None);
        }
        let address = text.parse();
        address
            .map(Some)
            .map_err(|_| ParamError::rule(name, text, "an IP address and port like 127.0.0.1:2525"))
    }

    /// The names of a group in the order of their list, each with its values.
    pub fn members(&self, prefix: &str) -> impl Iterator<Item = (&str, &Self)> {
        let group = self.members.iter().find(|(group, _)| group.prefix == prefix);
        group.into_iter().flat_map(|(_, members)| members).map(|(name, values)| (name.as_str(), values))
    }

    /// All values with their full names, those of groups last, for declaring them to ROS.
    pub fn iter(&self) -> impl Iterator<Item = (String, Spec, &Value)> {
        let own = self.own.iter().map(|(&name, (spec, value))| (name.to_owned(), *spec, value));
        let grouped = self.members.iter().flat_map(|(group, members)| {
            members.iter().flat_map(|(member, values)| {
                let parameters = values.own.iter();
                parameters.map(|(name, (spec, value))| (group.full_name(member, name), *spec, value))
            })
        });
        own.chain(grouped)
    }

    /// Overrides that are not in this node's table, presumably meant for other nodes.
    pub fn foreign(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.foreign.iter().map(|(name, value)| (name.as_str(), value))
    }
}

#[cfg(test)]
mod tests;
