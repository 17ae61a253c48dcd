// SPDX-License-Identifier: Apache-2.0
//! Defines and validates the parameters of vehicle_router.
//!
//! [`Params`] holds only values that are valid together; reading them from ROS is left to the runtime.

use std::{collections::BTreeSet, time::Duration};

use settings::{Default, ParamError, Rule, Spec, Values, drain_timeout};
use vehicle::is_name;

use super::route::{Template, is_topic};

/// Most entries of `routes`. It bounds the subscriptions, one for each entry and vehicle.
const MAX_ROUTES: usize = 64;

/// All parameters, and the only place where their defaults are written.
pub const SPECS: &[Spec] = &[
    Spec {
        name: "vehicles",
        default: Default::Texts(&["truck_1", "truck_2", "truck_3"]),
        rule: Rule::NotEmpty,
        unit: "",
        description: "Names of the vehicles, each its namespace below the fleet's; unique also without regard to case.",
    },
    Spec {
        name: "routes",
        default: Default::Texts(&[
            "{vehicle}/fix sensor_msgs/msg/NavSatFix",
            "{vehicle}/battery_state sensor_msgs/msg/BatteryState",
            "{vehicle}/odometry nav_msgs/msg/Odometry",
        ]),
        rule: Rule::NotEmpty,
        unit: "",
        description: "What is read of each vehicle: \"<topic template with {vehicle}> <type>\", one topic an entry.",
    },
    Spec {
        name: "publish_rate_hz",
        default: Default::Double(2.0),
        rule: Rule::DoubleRange(0.1, 100.0),
        unit: "Hz",
        description: "How often changed states are published and silence is looked for.",
    },
    Spec {
        name: "silent_after_s",
        default: Default::Double(10.0),
        rule: Rule::DoubleRange(0.5, 86_400.0),
        unit: "s",
        description: "A vehicle from which nothing was received for so long is silent.",
    },
    Spec {
        name: "battery_low",
        default: Default::Double(0.2),
        rule: Rule::DoubleRange(0.0, 1.0),
        unit: "",
        description: "Charge, 0 to 1, at or below which a battery is low.",
    },
    Spec {
        name: "battery_recovered",
        default: Default::Double(0.25),
        rule: Rule::DoubleRange(0.0, 1.0),
        unit: "",
        description: "Charge, 0 to 1, at or above which a low battery is low no more; above battery_low.",
    },
    Spec {
        name: "max_vehicles",
        default: Default::Int(1000),
        rule: Rule::IntRange(1, 10_000),
        unit: "",
        description: "Most vehicles that may be configured.",
    },
    drain_timeout(5.0),
];

/// The parameters of a running node, valid together.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Names of the vehicles, sorted.
    pub vehicles: Vec<String>,
    /// Topics to read of each vehicle.
    pub routes: Vec<Template>,
    /// Interval between publications of changed states and checks for silence.
    pub publish_period: Duration,
    /// A vehicle is silent when nothing has been received from it for this long.
    pub silent_after: Duration,
    /// Charge at or below which a battery is low.
    pub battery_low: f64,
    /// Charge at or above which a low battery is no longer low.
    pub battery_recovered: f64,
}

impl Params {
    /// Builds the parameters from values that are each valid on their own.
    ///
    /// # Errors
    /// Names the first value or pair of values that breaks a rule.
    pub fn load(values: &Values) -> Result<Self, ParamError> {
        let params = Self {
            vehicles: vehicles(values)?,
            routes: routes(values)?,
            publish_period: Duration::from_secs_f64(values.double("publish_rate_hz")?.recip()),
            silent_after: values.seconds("silent_after_s")?,
            battery_low: values.double("battery_low")?,
            battery_recovered: values.double("battery_recovered")?,
        };
        params.validate()?;
        Ok(params)
    }

    fn validate(&self) -> Result<(), ParamError> {
        if self.battery_recovered <= self.battery_low {
            let rule = format!("above battery_low, {:?}", self.battery_low);
            return Err(ParamError::rule("battery_recovered", format!("{:?}", self.battery_recovered), rule));
        }
        let mut topics = BTreeSet::new();
        for vehicle in &self.vehicles {
            for topic in self.routes.iter().map(|route| route.topic_of(vehicle)) {
                if !is_topic(&topic) {
                    return Err(ParamError::rule(
                        "routes",
                        format!("{topic:?}"),
                        "a ROS topic name, also with the vehicle's name in it",
                    ));
                }
                if !topics.insert(topic.clone()) {
                    return Err(ParamError::rule("routes", format!("{topic:?}"), "one entry a topic"));
                }
            }
        }
        Ok(())
    }
}

fn vehicles(values: &Values) -> Result<Vec<String>, ParamError> {
    let mut vehicles = values.texts("vehicles")?;
    let max: usize = values.count("max_vehicles")?;
    if vehicles.is_empty() || vehicles.len() > max {
        let rule = format!("1 to {max} names (max_vehicles)");
        return Err(ParamError::rule("vehicles", format!("{} names", vehicles.len()), rule));
    }
    let mut seen = BTreeSet::new();
    for vehicle in &vehicles {
        if !is_name(vehicle) {
            let rule = "a name of letters, digits and single underscores that does not begin with a digit";
            return Err(ParamError::rule("vehicles", format!("{vehicle:?}"), rule));
        }
        if !seen.insert(vehicle.to_ascii_lowercase()) {
            return Err(ParamError::rule(
                "vehicles",
                format!("{vehicle:?}"),
                "named once, without regard to case",
            ));
        }
    }
    vehicles.sort();
    Ok(vehicles)
}

fn routes(values: &Values) -> Result<Vec<Template>, ParamError> {
    let entries = values.texts("routes")?;
    if entries.is_empty() || entries.len() > MAX_ROUTES {
        let rule = format!("1 to {MAX_ROUTES} entries");
        return Err(ParamError::rule("routes", format!("{} entries", entries.len()), rule));
    }
    let parse = |entry: &String| {
        Template::parse(entry).map_err(|rule| ParamError::rule("routes", format!("{entry:?}"), rule))
    };
    entries.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use settings::{Value, resolve};

    fn load(overrides: &[(&str, Value)]) -> Result<Params, ParamError> {
        let overrides = overrides.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Params::load(&resolve(SPECS, overrides)?)
    }

    fn texts(values: &[&str]) -> Value {
        Value::Texts(values.iter().map(|&value| value.to_owned()).collect())
    }

    fn error(name: &str, value: Value) -> String {
        load(&[(name, value)]).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_valid() {
        let params = load(&[]).unwrap();
        assert_eq!((params.vehicles.len(), params.routes.len()), (3, 3));
        assert_eq!(params.publish_period, Duration::from_millis(500));
    }

    #[test]
    fn names_the_entry_that_is_wrong() {
        let fix = "{vehicle}/fix sensor_msgs/msg/NavSatFix";
        assert_eq!(
            error("routes", texts(&[fix, fix])),
            "parameter 'routes' = \"truck_1/fix\": must be one entry a topic"
        );
        assert!(error("routes", texts(&["fix"])).starts_with("parameter 'routes' = \"fix\": must be "));
        assert!(error("vehicles", texts(&["truck-1"])).contains("\"truck-1\""));
        assert!(error("vehicles", texts(&["truck", "TRUCK"])).contains("named once"));
    }

    #[test]
    fn two_vehicles_never_share_a_topic() {
        let routes =
            texts(&["{vehicle}_b/fix sensor_msgs/msg/NavSatFix", "{vehicle}/fix sensor_msgs/msg/NavSatFix"]);
        let result = load(&[("routes", routes), ("vehicles", texts(&["a", "a_b"]))]);
        assert!(result.unwrap_err().to_string().contains("\"a_b/fix\""));
    }

    #[test]
    fn bounds_vehicles_and_orders_the_thresholds() {
        assert!(error("vehicles", texts(&[])).contains("1 to 1000 names"));
        assert!(error("max_vehicles", Value::Int(2)).contains("1 to 2 names"));
        assert!(error("battery_recovered", Value::Double(0.2)).contains("above battery_low"));
    }
}
