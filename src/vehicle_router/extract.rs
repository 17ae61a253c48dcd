// SPDX-License-Identifier: Apache-2.0
//! Extracts facts from messages: lists the numeric fields to read of each message type, and checks their values.
//!
//! No fact holds a value out of its range. The fields may have any numeric ROS type that an `f64` holds exactly:
//! floats, and integers of at most 32 bits. Reading them from a message, in the order listed, is left to the node.

use std::time::SystemTime;

use vehicle::{Battery, Motion, Position};

/// The part of a vehicle's state that one message type reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Latitude, longitude and altitude.
    Position,
    /// Charge and voltage.
    Battery,
    /// Speed over ground.
    Motion,
}

impl Group {
    /// All groups, in the order of the diagnostics.
    pub const ALL: [Self; 3] = [Self::Position, Self::Battery, Self::Motion];

    /// Name of the group in diagnostics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Position => "position",
            Self::Battery => "battery",
            Self::Motion => "odometry",
        }
    }
}

/// How to read one message type.
#[derive(Debug, PartialEq, Eq)]
pub struct Extractor {
    /// Name of the message type, `package/msg/Type`.
    pub type_name: &'static str,
    /// Paths of the fields to read, all numeric.
    pub fields: &'static [&'static str],
    /// The part of the state that the fields report.
    pub group: Group,
}

/// Every message type that can be routed.
pub const EXTRACTORS: &[Extractor] = &[
    Extractor {
        type_name: "sensor_msgs/msg/NavSatFix",
        fields: &["status.status", "latitude", "longitude", "altitude"],
        group: Group::Position,
    },
    Extractor {
        type_name: "sensor_msgs/msg/BatteryState",
        fields: &["percentage", "voltage"],
        group: Group::Battery,
    },
    Extractor {
        type_name: "nav_msgs/msg/Odometry",
        fields: &["twist.twist.linear.x", "twist.twist.linear.y"],
        group: Group::Motion,
    },
];

/// The extractor for a message type, if there is one.
pub fn extractor(type_name: &str) -> Option<&'static Extractor> {
    EXTRACTORS.iter().find(|extractor| extractor.type_name == type_name)
}

/// Paths of the fields to read of a message type, in the order in which [`super::Core::update`] takes their values.
pub fn fields(type_name: &str) -> Option<&'static [&'static str]> {
    extractor(type_name).map(|extractor| extractor.fields)
}

/// Values that do not enter a state. Except for `Route`, the vehicle counts as heard all the same.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum Reject {
    /// No route has this number, which is a defect of the node.
    #[error("route {0} does not exist")]
    Route(usize),
    /// The number of values differs from the number of fields, which is a defect of the node.
    #[error("{type_name}: {got} values, there are {fields} fields")]
    Count {
        /// Name of the message type.
        type_name: &'static str,
        /// Number of values given.
        got: usize,
        /// Number of fields of the extractor.
        fields: usize,
    },
    /// The receiver reports that it has no position.
    #[error("status.status is {0}: the receiver has no fix")]
    NoFix(f64),
    /// A value is impossible.
    #[error("{field} is {value:?}, must be {rule}")]
    Range {
        /// Path of the field.
        field: &'static str,
        /// Value as received.
        value: f64,
        /// Rule that the value breaks.
        rule: &'static str,
    },
}

/// The content of one message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fact {
    /// Position from a satellite receiver.
    Position(Position),
    /// State of a battery.
    Battery(Battery),
    /// Speed from odometry.
    Motion(Motion),
}

/// Plausible voltages and altitudes: no vehicle battery exceeds a kilovolt, and no vehicle drives deeper than the
/// Challenger Deep or higher than an airliner flies.
const VOLTAGE_V: (f64, f64) = (0.0, 1000.0);
const ALTITUDE_M: (f64, f64) = (-11_000.0, 20_000.0);
/// Fastest plausible speed: above 720 km/h, odometry is broken.
const MAX_SPEED_MPS: f64 = 200.0;

impl Extractor {
    /// Extracts the fact from the `values` of one message that was received at `at`.
    ///
    /// # Errors
    /// The first value that breaks its rule, or a wrong number of values.
    pub fn extract(&self, values: &[f64], at: SystemTime) -> Result<Fact, Reject> {
        let count =
            || Reject::Count { type_name: self.type_name, got: values.len(), fields: self.fields.len() };
        if values.len() != self.fields.len() {
            return Err(count());
        }
        match (self.group, values) {
            (Group::Position, &[status, latitude, longitude, altitude]) => {
                position(status, latitude, longitude, altitude, at)
            }
            (Group::Battery, &[percentage, voltage]) => battery(percentage, voltage, at),
            (Group::Motion, &[x, y]) => motion(x, y, at),
            _ => Err(count()),
        }
    }
}

fn position(
    status: f64,
    latitude: f64,
    longitude: f64,
    altitude: f64,
    at: SystemTime,
) -> Result<Fact, Reject> {
    // STATUS_NO_FIX is -1 and STATUS_UNKNOWN is -2 (NavSatStatus); many receivers then send 0, 0 as the position.
    if status.is_nan() || status < 0.0 {
        return Err(Reject::NoFix(status));
    }
    let latitude_deg = within("latitude", latitude, (-90.0, 90.0), "-90 to 90 degrees")?;
    let longitude_deg = within("longitude", longitude, (-180.0, 180.0), "-180 to 180 degrees")?;
    let altitude_m = within_or_nan("altitude", altitude, ALTITUDE_M, "-11000 to 20000 m, or NaN for none")?;
    Ok(Fact::Position(Position { latitude_deg, longitude_deg, altitude_m, at }))
}

fn battery(percentage: f64, voltage: f64, at: SystemTime) -> Result<Fact, Reject> {
    // Some drivers send 0 to 100. Dividing what is above 1 would not help: their 0.9 % would be read as 90 %.
    let rule = "0 to 1; a driver that sends 0 to 100 must be corrected";
    let charge = within("percentage", percentage, (0.0, 1.0), rule)?;
    let voltage_v = within_or_nan("voltage", voltage, VOLTAGE_V, "0 to 1000 V, or NaN for not measured")?;
    Ok(Fact::Battery(Battery { charge, voltage_v, at }))
}

fn motion(x: f64, y: f64, at: SystemTime) -> Result<Fact, Reject> {
    let bounds = (-MAX_SPEED_MPS, MAX_SPEED_MPS);
    let x = within("twist.twist.linear.x", x, bounds, "-200 to 200 m/s")?;
    let y = within("twist.twist.linear.y", y, bounds, "-200 to 200 m/s")?;
    Ok(Fact::Motion(Motion { speed_mps: x.hypot(y), at }))
}

fn within(
    field: &'static str,
    value: f64,
    (first, last): (f64, f64),
    rule: &'static str,
) -> Result<f64, Reject> {
    if (first..=last).contains(&value) { Ok(value) } else { Err(Reject::Range { field, value, rule }) }
}

fn within_or_nan(
    field: &'static str,
    value: f64,
    bounds: (f64, f64),
    rule: &'static str,
) -> Result<f64, Reject> {
    if value.is_nan() { Ok(value) } else { within(field, value, bounds, rule) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: SystemTime = SystemTime::UNIX_EPOCH;

    fn extract(type_name: &str, values: &[f64]) -> Result<Fact, Reject> {
        extractor(type_name).unwrap().extract(values, AT)
    }

    #[test]
    fn takes_positions_on_earth_only() {
        let fix = |values: &[f64]| extract("sensor_msgs/msg/NavSatFix", values);
        assert!(fix(&[0.0, 90.0, -180.0, 520.0]).is_ok());
        assert!(fix(&[2.0, 0.0, 0.0, f64::NAN]).is_ok());
        for bad in
            [[0.0, 90.1, 0.0, 0.0], [0.0, f64::NAN, 0.0, 0.0], [0.0, 0.0, 181.0, 0.0], [0.0, 0.0, 0.0, 1e9]]
        {
            assert!(matches!(fix(&bad), Err(Reject::Range { .. })), "{bad:?}");
        }
        assert_eq!(fix(&[-1.0, 0.0, 0.0, 0.0]), Err(Reject::NoFix(-1.0)));
    }

    #[test]
    fn rejects_a_percentage_of_a_hundred_and_says_why() {
        let battery = |values: &[f64]| extract("sensor_msgs/msg/BatteryState", values);
        assert!(battery(&[0.0, 24.0]).is_ok() && battery(&[1.0, f64::NAN]).is_ok());
        let error = battery(&[83.0, 24.0]).unwrap_err().to_string();
        assert_eq!(
            error,
            "percentage is 83.0, must be 0 to 1; a driver that sends 0 to 100 must be corrected"
        );
        assert!(battery(&[f64::NAN, 24.0]).is_err());
    }

    #[test]
    fn speed_is_the_length_of_the_velocity() {
        let odometry = extract("nav_msgs/msg/Odometry", &[-3.0, 4.0]);
        assert_eq!(odometry, Ok(Fact::Motion(Motion { speed_mps: 5.0, at: AT })));
        assert!(extract("nav_msgs/msg/Odometry", &[f64::INFINITY, 0.0]).is_err());
    }

    #[test]
    fn every_extractor_takes_as_many_values_as_it_has_fields() {
        for extractor in EXTRACTORS {
            assert!(
                extractor.extract(&vec![0.5; extractor.fields.len()], AT).is_ok(),
                "{}",
                extractor.type_name
            );
            assert!(matches!(extractor.extract(&[], AT), Err(Reject::Count { .. })));
            assert_eq!(fields(extractor.type_name), Some(extractor.fields));
        }
        assert_eq!(fields("std_msgs/msg/String"), None);
    }
}
