// SPDX-License-Identifier: Apache-2.0
//! Connects a node's parameter table to ROS: reads overrides, declares values and descriptors, rejects every change.
//!
//! posthorn serves the parameter services itself because r2r's descriptors have neither read-only nor ranges.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use r2r::{
    ParameterValue,
    rcl_interfaces::{
        msg::{
            FloatingPointRange, IntegerRange, ListParametersResult, ParameterDescriptor, ParameterType,
            ParameterValue as Answer, SetParametersResult,
        },
        srv::{
            DescribeParameters, GetParameterTypes, GetParameters, ListParameters, SetParameters,
            SetParametersAtomically,
        },
    },
};
use settings::{Default, Rule, Spec, Value, Values};

use super::{
    RosError,
    graph::{Graph, ServiceType},
    topics::SERVICE_DEPTH,
};

/// Every ROS node has this parameter, and a simulation sets it for all of them. It has no effect here: mails arrive in
/// system time and must be compared with system time.
const USE_SIM_TIME: Spec = Spec {
    name: "use_sim_time",
    default: Default::Bool(false),
    rule: Rule::Any,
    unit: "",
    description: "Without effect: the node stamps with the time of the system, in which mails come.",
};

/// Whether `name` is a parameter that client libraries give every node. Those are not validated here.
fn belongs_to_every_node(name: &str) -> bool {
    name == USE_SIM_TIME.name
        || name == "start_type_description_service"
        || name.starts_with("qos_overrides.")
}

/// The values set by launch files and on the command line, as input for [`crate::params::resolve`].
pub fn overrides(graph: &mut Graph) -> BTreeMap<String, Value> {
    let params = graph.node().params.lock().unwrap_or_else(PoisonError::into_inner);
    let others = params.iter().filter(|(name, _)| !belongs_to_every_node(name));
    others.map(|(name, parameter)| (name.clone(), from_ros(&parameter.value))).collect()
}

fn from_ros(value: &ParameterValue) -> Value {
    match value {
        ParameterValue::Bool(value) => Value::Bool(*value),
        ParameterValue::Integer(value) => Value::Int(*value),
        ParameterValue::Double(value) => Value::Double(*value),
        ParameterValue::String(value) => Value::Text(value.clone()),
        ParameterValue::StringArray(value) => Value::Texts(value.clone()),
        other => Value::Other(format!("{other:?}")),
    }
}

/// Declares `values` and serves the parameter services. Call it inside a tokio runtime.
///
/// # Errors
/// If the middleware rejects a service.
pub fn declare(graph: &mut Graph, values: &Values) -> Result<(), RosError> {
    let sim_time = {
        let params = graph.node().params.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(params.get(USE_SIM_TIME.name).map(|set| &set.value), Some(ParameterValue::Bool(true)))
    };
    if sim_time {
        tracing::warn!(
            "parameter 'use_sim_time' = true: without effect, the node stamps with the time of the system"
        );
    }
    let sim_time = (USE_SIM_TIME.name.to_owned(), USE_SIM_TIME, &Value::Bool(sim_time));
    let entries = values.iter().chain([sim_time]);
    let table =
        Table(entries.map(|(name, spec, value)| (name, Entry { spec, value: to_ros(value) })).collect());
    let table = Arc::new(table);
    serve::<DescribeParameters::Service>(graph, &table, "~/describe_parameters", |table, request| {
        DescribeParameters::Response {
            descriptors: request.names.iter().map(|name| table.descriptor(name)).collect(),
        }
    })?;
    serve::<GetParameters::Service>(graph, &table, "~/get_parameters", |table, request| {
        let values = request.names.iter().map(|name| table.value(name));
        GetParameters::Response { values: values.collect() }
    })?;
    serve::<GetParameterTypes::Service>(graph, &table, "~/get_parameter_types", |table, request| {
        let types = request.names.iter().map(|name| table.value(name).type_);
        GetParameterTypes::Response { types: types.collect() }
    })?;
    serve::<ListParameters::Service>(graph, &table, "~/list_parameters", |table, request| {
        ListParameters::Response { result: table.list(&request.prefixes, request.depth) }
    })?;
    serve::<SetParameters::Service>(graph, &table, "~/set_parameters", |table, request| {
        let results = request.parameters.iter().map(|parameter| table.refuse(&parameter.name));
        SetParameters::Response { results: results.collect() }
    })?;
    serve::<SetParametersAtomically::Service>(
        graph,
        &table,
        "~/set_parameters_atomically",
        |table, request| {
            // Every change is refused, so the first refusal stands for all; an empty request succeeds.
            let first = request.parameters.first().map(|parameter| table.refuse(&parameter.name));
            let result = first.unwrap_or(SetParametersResult { successful: true, reason: String::new() });
            SetParametersAtomically::Response { result }
        },
    )
}

fn serve<T: ServiceType + Send + 'static>(
    graph: &mut Graph,
    table: &Arc<Table>,
    name: &'static str,
    answer: impl Fn(&Table, &T::Request) -> T::Response + Send + 'static,
) -> Result<(), RosError>
where
    T::Request: Send,
    T::Response: Send,
{
    let mut requests = graph.serve_named::<T>(name, name, SERVICE_DEPTH)?;
    let table = Arc::clone(table);
    graph.watch(name, async move {
        while let Some(request) = requests.recv().await {
            let response = answer(&table, &request.message);
            if let Err(error) = request.respond(response) {
                tracing::warn!(%error, service = name, "an answer is lost");
            }
        }
    });
    Ok(())
}

/// A node's parameters by name.
struct Table(BTreeMap<String, Entry>);

struct Entry {
    spec: Spec,
    value: Answer,
}

/// The value as the parameter services carry it; "not set" for a type that posthorn does not use.
fn to_ros(value: &Value) -> Answer {
    let mut answer = Answer::default();
    let kind = match value {
        Value::Bool(value) => {
            answer.bool_value = *value;
            ParameterType::PARAMETER_BOOL as u8
        }
        Value::Int(value) => {
            answer.integer_value = *value;
            ParameterType::PARAMETER_INTEGER as u8
        }
        Value::Double(value) => {
            answer.double_value = *value;
            ParameterType::PARAMETER_DOUBLE as u8
        }
        Value::Text(value) => {
            answer.string_value.clone_from(value);
            ParameterType::PARAMETER_STRING as u8
        }
        Value::Texts(value) => {
            answer.string_array_value.clone_from(value);
            ParameterType::PARAMETER_STRING_ARRAY as u8
        }
        Value::Other(_) => ParameterType::PARAMETER_NOT_SET as u8,
    };
    answer.type_ = kind;
    answer
}

impl Table {
    /// The parameter's value; "not set" if there is no such parameter.
    fn value(&self, name: &str) -> Answer {
        self.0.get(name).map(|entry| entry.value.clone()).unwrap_or_default()
    }

    /// The parameter's descriptor. If there is no such parameter, it has only the name and the type "not set".
    fn descriptor(&self, name: &str) -> ParameterDescriptor {
        let mut descriptor = ParameterDescriptor { name: name.to_owned(), ..ParameterDescriptor::default() };
        let Some(Entry { spec, value }) = self.0.get(name) else { return descriptor };
        descriptor.type_ = value.type_;
        descriptor.read_only = true;
        descriptor.description = spec.description.to_owned();
        if !spec.unit.is_empty() {
            descriptor.description = format!("{} [{}]", spec.description, spec.unit);
        }
        match spec.rule {
            Rule::Any => {}
            Rule::IntRange(from_value, to_value) => {
                descriptor.integer_range = vec![IntegerRange { from_value, to_value, step: 1 }];
            }
            Rule::DoubleRange(from_value, to_value) => {
                descriptor.floating_point_range =
                    vec![FloatingPointRange { from_value, to_value, step: 0.0 }];
            }
            rule @ (Rule::NotEmpty | Rule::OneOf(_)) => descriptor.additional_constraints = rule.to_string(),
        }
        descriptor
    }

    /// Lists the parameters at or below `prefixes`, or all if it is empty, as deep as `depth` levels; 0 is any depth
    /// (`rcl_interfaces/srv/ListParameters`).
    fn list(&self, prefixes: &[String], depth: u64) -> ListParametersResult {
        let is_near = |rest: &str| depth == 0 || (rest.matches('.').count() as u64) < depth;
        let is_asked = |name: &str| {
            prefixes.is_empty() && is_near(name)
                || prefixes.iter().any(|prefix| {
                    let below = name.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix('.'));
                    name == prefix || below.is_some_and(is_near)
                })
        };
        let names: Vec<_> = self.0.keys().filter(|name| is_asked(name)).cloned().collect();
        let parents: BTreeSet<_> = names.iter().filter_map(|name| Some(name.rsplit_once('.')?.0)).collect();
        let prefixes = parents.into_iter().map(str::to_owned).collect();
        ListParametersResult { names, prefixes }
    }

    fn refuse(&self, name: &str) -> SetParametersResult {
        let reason = if self.0.contains_key(name) {
            format!("parameter '{name}' is read-only: set it in the parameter file and restart the node")
        } else {
            format!("parameter '{name}': this node has none of this name")
        };
        SetParametersResult { successful: false, reason }
    }
}
