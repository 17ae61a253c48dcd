//! A node's parameter table to ROS: overrides in, values and descriptions out, and every change refused.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt;
use r2r::{Parameter, ParameterValue, RosParams, indexmap::IndexMap};

use super::{RosError, graph::Graph};
use crate::params::{ParamError, Spec, Value, Values};

/// Every node has it. True is refused: mails come in the system's time, and so must what they are compared with.
const USE_SIM_TIME: &str = "use_sim_time";

/// Parameters that rcl gives every node; not ours to judge.
fn belongs_to_rcl(name: &str) -> bool {
    name == USE_SIM_TIME || name.starts_with("qos_overrides.")
}

/// What launch and the command line set, for [`crate::params::resolve`].
///
/// # Errors
/// A parameter of a type that no parameter of posthorn has, or simulated time.
pub fn overrides(graph: &mut Graph) -> Result<BTreeMap<String, Value>, ParamError> {
    let params = graph.node().params.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(ParameterValue::Bool(true)) = params.get(USE_SIM_TIME).map(|parameter| &parameter.value) {
        return Err(ParamError::rule(USE_SIM_TIME, true, "false: nodes stamp with the time of the system"));
    }
    params
        .iter()
        .filter(|(name, _)| !belongs_to_rcl(name))
        .map(|(name, parameter)| {
            let value = match &parameter.value {
                ParameterValue::Bool(value) => Value::Bool(*value),
                ParameterValue::Integer(value) => Value::Int(*value),
                ParameterValue::Double(value) => Value::Double(*value),
                ParameterValue::String(value) => Value::Text(value.clone()),
                ParameterValue::StringArray(value) => Value::Texts(value.clone()),
                other => {
                    return Err(ParamError::Unknown {
                        name: name.clone(),
                        value: format!("{other:?}"),
                        known: "no parameter of this type".to_owned(),
                    });
                }
            };
            Ok((name.clone(), value))
        })
        .collect()
}

/// Declares `values` and serves the parameter services; needs a tokio runtime.
///
/// # Errors
/// If the middleware refuses a service.
pub fn declare(graph: &mut Graph, specs: &'static [Spec], values: &Values) -> Result<(), RosError> {
    let table = Table { specs, values: values.iter().map(|(name, value)| (name, to_ros(value))).collect() };
    let created = graph.node().make_derived_parameter_handler(Arc::new(Mutex::new(table)));
    let (handler, events) = created.map_err(|source| RosError::Create {
        what: "parameter services of",
        name: graph.name(),
        source,
    })?;
    tokio::spawn(handler);
    // Nothing changes, so nothing is ever told; the stream must be drained all the same.
    tokio::spawn(events.for_each(|_| std::future::ready(())));
    Ok(())
}

fn to_ros(value: &Value) -> ParameterValue {
    match value {
        Value::Bool(value) => ParameterValue::Bool(*value),
        Value::Int(value) => ParameterValue::Integer(*value),
        Value::Double(value) => ParameterValue::Double(*value),
        Value::Text(value) => ParameterValue::String(value.clone()),
        Value::Texts(value) => ParameterValue::StringArray(value.clone()),
    }
}

/// The table as r2r's parameter services ask for it.
struct Table {
    specs: &'static [Spec],
    values: BTreeMap<&'static str, ParameterValue>,
}

impl RosParams for Table {
    fn register_parameters(
        &mut self,
        _prefix: &str,
        _param: Option<Parameter>,
        params: &mut IndexMap<String, Parameter>,
    ) -> r2r::Result<()> {
        for spec in self.specs {
            if let Some(value) = self.values.get(spec.name) {
                let mut parameter = Parameter::new(value.clone());
                parameter.description = spec.description;
                params.insert(spec.name.to_owned(), parameter);
            }
        }
        Ok(())
    }

    fn get_parameter(&mut self, name: &str) -> r2r::Result<ParameterValue> {
        self.values.get(name).cloned().ok_or_else(|| not_declared(name))
    }

    fn set_parameter(&mut self, name: &str, _value: &ParameterValue) -> r2r::Result<()> {
        Err(if self.values.contains_key(name) { read_only(name) } else { not_declared(name) })
    }

    fn check_parameter(&self, name: &str, _value: &ParameterValue) -> r2r::Result<()> {
        Err(if self.values.contains_key(name) { read_only(name) } else { not_declared(name) })
    }
}

fn not_declared(name: &str) -> r2r::Error {
    r2r::Error::InvalidParameterName { name: name.to_owned() }
}

fn read_only(name: &str) -> r2r::Error {
    r2r::Error::ParameterValueConv {
        name: name.to_owned(),
        msg: "is read-only: restart the node to change it".to_owned(),
    }
}
