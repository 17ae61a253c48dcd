// SPDX-License-Identifier: Apache-2.0
//! Defines and validates the parameters of fleet_simulator.
//!
//! [`Params`] holds valid values only; reading them from ROS is left to the runtime.

use std::time::Duration;

use settings::{Default, ParamError, Rule, Spec, Values, drain_timeout};
use vehicle::{NotAKey, OrderPublicKey};

/// Stands for "no key". Not the empty text, which launch cannot pass on.
const FIRST_HEARD: &str = "first";

/// All parameters, and the only place where their defaults are written.
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
        default: Default::Text(FIRST_HEARD),
        rule: Rule::NotEmpty,
        unit: "",
        description: "Public key of the chatbot whose orders are taken, 64 hex digits; first: the first heard on chatbot/order_key.",
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

/// The parameters of a running node.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Seed of the vehicles' courses, speeds and charges.
    pub seed: u64,
    /// Number of vehicles.
    pub vehicle_count: u32,
    /// Interval at which each vehicle publishes.
    pub period: Duration,
    /// WGS 84 latitude around which the vehicles drive, away from the poles.
    pub origin_latitude_deg: f64,
    /// WGS 84 longitude around which the vehicles drive.
    pub origin_longitude_deg: f64,
    /// Public key of the chatbot whose orders are carried out; `None` means the first key heard.
    pub order_key: Option<OrderPublicKey>,
    /// Oldest order that is carried out, and how far ahead of the clock one may be dated.
    pub max_order_age: Duration,
}

impl Params {
    /// Builds the parameters from values that are each valid on their own.
    ///
    /// # Errors
    /// If `order_key` is not a public key.
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
    if text == FIRST_HEARD {
        return Ok(None);
    }
    let rule = |rule: NotAKey| {
        ParamError::rule("order_key", format!("{text:?}"), format!("{rule}, or {FIRST_HEARD}"))
    };
    text.parse().map(Some).map_err(rule)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use settings::{Value, resolve};

    #[test]
    fn an_order_key_is_one_or_the_first_heard() {
        let load = |key: &str| {
            let overrides = BTreeMap::from([("order_key".to_owned(), Value::Text(key.to_owned()))]);
            Params::load(&resolve(SPECS, overrides).unwrap()).map(|params| params.order_key)
        };
        let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(load("first"), Ok(None));
        assert_eq!(load(key), Ok(Some(key.parse().unwrap())));
        let error = load("d75a").unwrap_err().to_string();
        let rule = "must be an Ed25519 public key, 64 hex digits, or first";
        assert_eq!(error, format!("parameter 'order_key' = \"d75a\": {rule}"));
    }
}
