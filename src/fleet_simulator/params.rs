//! Parameters of fleet_simulator.

use std::time::Duration;

use crate::{
    params::{Default, ParamError, Rule, Spec, Values, drain_timeout},
    vehicle::{NotAKey, OrderPublicKey},
};

/// All parameters; the only home of their defaults.
pub const SPECS: &[Spec] = &[
    Spec {
        name: "seed",
        default: Default::Int(1),
        rule: Rule::IntRange(0, i64::MAX),
        unit: "",
        description: "Decides courses, speeds and charges; the same seed gives the same fleet.",
    },
    Spec {
        name: "vehicle_count",
        default: Default::Int(3),
        rule: Rule::IntRange(1, 100),
        unit: "vehicles",
        description: "How many vehicles there are, truck_1 and so on.",
    },
    Spec {
        name: "rate_hz",
        default: Default::Double(2.0),
        rule: Rule::DoubleRange(0.1, 100.0),
        unit: "Hz",
        description: "How often each vehicle publishes.",
    },
    Spec {
        name: "origin_latitude_deg",
        default: Default::Double(48.137_154),
        rule: Rule::DoubleRange(-85.0, 85.0),
        unit: "deg",
        description: "WGS 84 latitude around which the vehicles drive.",
    },
    Spec {
        name: "origin_longitude_deg",
        default: Default::Double(11.576_124),
        rule: Rule::DoubleRange(-180.0, 180.0),
        unit: "deg",
        description: "WGS 84 longitude around which the vehicles drive.",
    },
    Spec {
        name: "order_key",
        default: Default::Text(""),
        rule: Rule::Any,
        unit: "",
        description: "Public key of the chatbot whose orders are taken, 64 hex digits; empty: the first heard on chatbot/order_key.",
    },
    Spec {
        name: "max_order_age_s",
        default: Default::Double(900.0),
        rule: Rule::DoubleRange(1.0, 604_800.0),
        unit: "s",
        description: "An order dated longer ago, or as far ahead, is refused.",
    },
    drain_timeout(5.0),
];

/// The parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Decides courses, speeds and charges.
    pub seed: u64,
    /// How many vehicles there are.
    pub vehicle_count: u32,
    /// How often each vehicle publishes.
    pub period: Duration,
    /// WGS 84, away from the poles.
    pub origin_latitude_deg: f64,
    /// WGS 84.
    pub origin_longitude_deg: f64,
    /// Whose orders are taken; `None`: whose key is heard first.
    pub order_key: Option<OrderPublicKey>,
    /// An order dated longer ago, or as far ahead, is refused.
    pub max_order_age: Duration,
}

impl Params {
    /// The parameters from values that are each valid by themselves.
    ///
    /// # Errors
    /// A key that is none.
    pub fn load(values: &Values) -> Result<Self, ParamError> {
        Ok(Self {
            seed: values.count("seed")?,
            vehicle_count: values.count("vehicle_count")?,
            period: Duration::from_secs_f64(values.double("rate_hz")?.recip()),
            origin_latitude_deg: values.double("origin_latitude_deg")?,
            origin_longitude_deg: values.double("origin_longitude_deg")?,
            order_key: order_key(&values.text("order_key")?)?,
            max_order_age: values.seconds("max_order_age_s")?,
        })
    }
}

fn order_key(text: &str) -> Result<Option<OrderPublicKey>, ParamError> {
    if text.is_empty() {
        return Ok(None);
    }
    let rule = |rule: NotAKey| ParamError::rule("order_key", format!("{text:?}"), rule.to_string());
    text.parse().map(Some).map_err(rule)
}
