// SPDX-License-Identifier: Apache-2.0
//! Defines the domain types that vehicle_router, chatbot and fleet_simulator share: the state of a vehicle, orders to
//! it, its acknowledgements and alerts. Pure.
//!
//! [`OrderKey`] signs orders, and [`OrderGate`] implements what a vehicle must do with the orders it hears.
//!
//! The messages in `msg/` carry the same facts on the wire; converting is left to `ros::convert`.

mod gate;
mod signature;

pub use gate::{OrderGate, Refusal, Ruling};
pub use signature::{NotAKey, OrderKey, OrderPublicKey, signed_bytes};

use std::time::SystemTime;

use mail::MailId;

/// Longest vehicle name, bytes (`VehicleState.vehicle`).
pub const MAX_NAME_BYTES: usize = 128;

/// Position of a vehicle, as its satellite receiver reports it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// WGS 84 latitude, positive north, -90 to 90.
    pub latitude_deg: f64,
    /// WGS 84 longitude, positive east, -180 to 180.
    pub longitude_deg: f64,
    /// Height above the WGS 84 ellipsoid; NaN if the receiver does not know it.
    pub altitude_m: f64,
    /// When the position was received.
    pub at: SystemTime,
}

/// State of a vehicle's battery.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Battery {
    /// Charge, 0 to 1.
    pub charge: f64,
    /// Voltage; NaN if not measured.
    pub voltage_v: f64,
    /// When the battery state was received.
    pub at: SystemTime,
}

/// Motion of a vehicle, from its odometry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Motion {
    /// Speed over ground, never negative.
    pub speed_mps: f64,
    /// When the motion was received.
    pub at: SystemTime,
}

/// Latest known state of a vehicle (`VehicleState.msg`).
#[derive(Clone, Debug, PartialEq)]
pub struct VehicleState {
    /// Name of the vehicle.
    pub vehicle: String,
    /// When the newest of the values was received; the Unix epoch if nothing was ever received.
    pub stamp: SystemTime,
    /// Last position; `None` if never received.
    pub position: Option<Position>,
    /// Last battery state; `None` if never received.
    pub battery: Option<Battery>,
    /// Last motion; `None` if never received.
    pub motion: Option<Motion>,
}

impl VehicleState {
    /// The state of a vehicle from which nothing was ever received.
    pub fn unheard(vehicle: impl Into<String>) -> Self {
        let vehicle = vehicle.into();
        Self { vehicle, stamp: SystemTime::UNIX_EPOCH, position: None, battery: None, motion: None }
    }
}

/// An action that a vehicle can be ordered to take. Numbers are those of `VehicleCommand.msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// Come to a halt and stay.
    Stop = 1,
    /// Drive on.
    Resume = 2,
}

impl Command {
    /// The word for the command in mails and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Resume => "resume",
        }
    }
}

/// An order to a vehicle, with the mail that proves who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VehicleCommand {
    /// Identity of the order, the same for every copy of the mail. A vehicle carries out each `command_id` once.
    pub command_id: [u8; 32],
    /// Id of the mail that ordered it.
    pub mail_id: MailId,
    /// Name of the vehicle.
    pub vehicle: String,
    /// Action that the vehicle must take.
    pub command: Command,
    /// The From address that was authenticated.
    pub ordered_by: String,
    /// The Date of the mail, which its signature covers.
    pub ordered_at: SystemTime,
    /// Ed25519 signature over the bytes that `VehicleCommand.msg` lists.
    pub signature: [u8; 64],
}

impl VehicleCommand {
    /// Rank of this order among the orders to the same vehicle.
    pub fn precedence(&self) -> Precedence {
        Precedence { ordered_at: self.ordered_at, stop: self.command == Command::Stop }
    }
}

/// Ranks two orders to a vehicle: the greater one holds. A later order beats an earlier one; at the same time, a stop
/// wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// When the order was given.
    pub ordered_at: SystemTime,
    /// The order is a stop.
    pub stop: bool,
}

/// A vehicle's reply to an order. Numbers are those of `VehicleAcknowledgement.msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AcknowledgementStatus {
    /// The vehicle will carry out the order.
    Accepted = 1,
    /// The vehicle has carried out the order.
    Done = 2,
    /// The vehicle will not carry out the order.
    Refused = 3,
}

/// A vehicle's answer to a [`VehicleCommand`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// `command_id` of the order.
    pub command_id: [u8; 32],
    /// Name of the vehicle.
    pub vehicle: String,
    /// The vehicle's reply.
    pub status: AcknowledgementStatus,
    /// Why the order is refused, for a person.
    pub reason: String,
}

/// A condition of a vehicle that a person should know of. Numbers are those of `VehicleAlert.msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Condition {
    /// The battery charge is low.
    BatteryLow = 1,
    /// Nothing has been received from the vehicle for too long.
    Silent = 2,
}

/// The beginning or the end of a [`Condition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Name of the vehicle.
    pub vehicle: String,
    /// Condition that began or ended.
    pub condition: Condition,
    /// True if the condition began, false if it ended.
    pub raised: bool,
    /// When the condition began or ended.
    pub at: SystemTime,
    /// Explanation for a person, with the measured value.
    pub text: String,
}

/// Whether `name` can name a vehicle. It must be one token of a ROS name, because it becomes a namespace.
pub fn is_name(name: &str) -> bool {
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let consists = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    begins && consists && !name.contains("__") && name.len() <= MAX_NAME_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a constant in the text of a message definition.
    fn constant(definition: &str, name: &str) -> Option<u8> {
        let prefix = format!("uint8 {name} = ");
        let line = definition.lines().find_map(|line| line.strip_prefix(&prefix))?;
        line.split_whitespace().next()?.parse().ok()
    }

    #[test]
    fn numbers_are_those_of_the_messages() {
        let command = include_str!("../../msg/VehicleCommand.msg");
        assert_eq!(constant(command, "STOP"), Some(Command::Stop as u8));
        assert_eq!(constant(command, "RESUME"), Some(Command::Resume as u8));
        let alert = include_str!("../../msg/VehicleAlert.msg");
        assert_eq!(constant(alert, "BATTERY_LOW"), Some(Condition::BatteryLow as u8));
        assert_eq!(constant(alert, "SILENT"), Some(Condition::Silent as u8));
        let bound = format!("string<={MAX_NAME_BYTES} vehicle");
        assert!(include_str!("../../msg/VehicleState.msg").contains(&bound));
    }

    #[test]
    fn a_name_is_one_token_of_a_ros_name() {
        assert!(["truck_1", "Truck", "_x9"].into_iter().all(is_name));
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        let bad = ["", "1truck", "truck-1", "a/b", "a b", "trück", "a__b", "{vehicle}", &long];
        assert!(!bad.into_iter().any(is_name));
    }
}
