//! What a vehicle's state, an order to it and an alert on it are: the domain types that vehicle_router, chatbot and
//! fleet_simulator share. Pure.
//!
//! [`OrderKey`] proves orders, [`OrderGate`] is what a vehicle must do with those it hears.
//!
//! The ROS messages in `msg/` are the same facts on the wire; `ros::convert` translates.

mod gate;
mod signature;

pub use gate::{OrderGate, Refusal, Ruling};
pub use signature::{NotAKey, OrderKey, OrderPublicKey, signed_bytes};

use std::time::SystemTime;

use crate::mail::MailId;

/// Longest name of a vehicle, bytes (`VehicleState.vehicle`).
pub const MAX_NAME_BYTES: usize = 128;

/// Where a vehicle is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// WGS 84 latitude, positive north, -90 to 90.
    pub latitude_deg: f64,
    /// WGS 84 longitude, positive east, -180 to 180.
    pub longitude_deg: f64,
    /// Height above the WGS 84 ellipsoid; NaN if the receiver has none.
    pub altitude_m: f64,
    /// When it was received.
    pub at: SystemTime,
}

/// How much energy a vehicle has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Battery {
    /// Charge, 0 to 1.
    pub charge: f64,
    /// Voltage; NaN if it is not measured.
    pub voltage_v: f64,
    /// When it was received.
    pub at: SystemTime,
}

/// How fast a vehicle is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Motion {
    /// Speed over ground, not negative.
    pub speed_mps: f64,
    /// When it was received.
    pub at: SystemTime,
}

/// Latest known state of one vehicle (`VehicleState.msg`).
#[derive(Clone, Debug, PartialEq)]
pub struct VehicleState {
    /// Name of the vehicle.
    pub vehicle: String,
    /// When the newest of the values was received; the Unix epoch if none ever was.
    pub stamp: SystemTime,
    /// `None`: never received.
    pub position: Option<Position>,
    /// `None`: never received.
    pub battery: Option<Battery>,
    /// `None`: never received.
    pub motion: Option<Motion>,
}

impl VehicleState {
    /// A vehicle that never said anything.
    pub fn unheard(vehicle: impl Into<String>) -> Self {
        let vehicle = vehicle.into();
        Self { vehicle, stamp: SystemTime::UNIX_EPOCH, position: None, battery: None, motion: None }
    }
}

/// What a vehicle can be ordered to do. Numbers are those of `VehicleCommand.msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// Come to a halt and stay.
    Stop = 1,
    /// Drive on.
    Resume = 2,
}

impl Command {
    /// The word for it, in mails and logs.
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
    /// Identity of the order, the same for every copy of the mail. A vehicle carries out a `command_id` once.
    pub command_id: [u8; 32],
    /// Id of the mail that ordered it.
    pub mail_id: MailId,
    /// Name of the vehicle.
    pub vehicle: String,
    /// What it must do.
    pub command: Command,
    /// The From address that was authenticated.
    pub ordered_by: String,
    /// The Date of the mail, which its signature covers.
    pub ordered_at: SystemTime,
    /// Ed25519, over what `VehicleCommand.msg` says.
    pub signature: [u8; 64],
}

impl VehicleCommand {
    /// Which of two orders to a vehicle holds.
    pub fn precedence(&self) -> Precedence {
        Precedence { ordered_at: self.ordered_at, stop: self.command == Command::Stop }
    }
}

/// The greater holds: the order that was given later, and a stop where both were given at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// When it was ordered.
    pub ordered_at: SystemTime,
    /// It is a stop.
    pub stop: bool,
}

/// What a vehicle says of an order. Numbers are those of `VehicleAcknowledgement.msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AcknowledgementStatus {
    /// It will be carried out.
    Accepted = 1,
    /// It was carried out.
    Done = 2,
    /// It will not be carried out.
    Refused = 3,
}

/// A vehicle's answer to a [`VehicleCommand`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The order.
    pub command_id: [u8; 32],
    /// Name of the vehicle.
    pub vehicle: String,
    /// What becomes of the order.
    pub status: AcknowledgementStatus,
    /// Why it is refused, for a person.
    pub reason: String,
}

/// What a person should know of a vehicle. Numbers are those of `VehicleAlert.msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Condition {
    /// The charge is low.
    BatteryLow = 1,
    /// Nothing was received from the vehicle for too long.
    Silent = 2,
}

/// A [`Condition`] that began or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Name of the vehicle.
    pub vehicle: String,
    /// Which condition.
    pub condition: Condition,
    /// It holds now; else it has ended.
    pub raised: bool,
    /// When it began or ended.
    pub at: SystemTime,
    /// For a person, with the figure.
    pub text: String,
}

/// Whether `name` can be a vehicle's: one token of a ROS name, because it is a namespace.
pub fn is_name(name: &str) -> bool {
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let consists = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    begins && consists && !name.contains("__") && name.len() <= MAX_NAME_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of a constant in the text of a message definition.
    fn constant(definition: &str, name: &str) -> Option<u8> {
        let prefix = format!("uint8 {name} = ");
        let line = definition.lines().find_map(|line| line.strip_prefix(&prefix))?;
        line.split_whitespace().next()?.parse().ok()
    }

    #[test]
    fn numbers_are_those_of_the_messages() {
        let command = include_str!("../msg/VehicleCommand.msg");
        assert_eq!(constant(command, "STOP"), Some(Command::Stop as u8));
        assert_eq!(constant(command, "RESUME"), Some(Command::Resume as u8));
        let alert = include_str!("../msg/VehicleAlert.msg");
        assert_eq!(constant(alert, "BATTERY_LOW"), Some(Condition::BatteryLow as u8));
        assert_eq!(constant(alert, "SILENT"), Some(Condition::Silent as u8));
        let bound = format!("string<={MAX_NAME_BYTES} vehicle");
        assert!(include_str!("../msg/VehicleState.msg").contains(&bound));
    }

    #[test]
    fn a_name_is_one_token_of_a_ros_name() {
        assert!(["truck_1", "Truck", "_x9"].into_iter().all(is_name));
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        let bad = ["", "1truck", "truck-1", "a/b", "a b", "trück", "a__b", "{vehicle}", &long];
        assert!(!bad.into_iter().any(is_name));
    }
}
