// SPDX-License-Identifier: Apache-2.0
//! Simulates one vehicle: it follows its course at a varying speed, halts when ordered or to charge, and drives on.
//!
//! Speed changes stay within the acceleration limits, and the charge within 0 to 1. Which orders reach it is left to
//! the gate.

use std::f64::consts::TAU;

use vehicle::Command;

use super::{
    geodesy::Origin,
    random::SplitMix64,
    route::{Course, Point},
};

/// Strongest acceleration and braking of a truck.
pub(super) const ACCELERATION_MPS2: f64 = 0.8;
pub(super) const DECELERATION_MPS2: f64 = 1.5;
/// Charges at which a truck starts charging, and at which it drives on.
const CHARGE_AT: f64 = 0.15;
const CHARGED_AT: f64 = 0.9;
/// Gain per second while charging (8 min for a full charge); otherwise loss per second, and per metre (24 km a charge).
const CHARGING_PER_S: f64 = 1.0 / 480.0;
const STANDING_PER_S: f64 = 1.0 / 86_400.0;
const DRIVING_PER_M: f64 = 1.0 / 24_000.0;
/// Capacity of a 24 V, 200 Ah battery, and its internal resistance.
const CAPACITY_AS: f64 = 200.0 * 3600.0;
const RESISTANCE_OHM: f64 = 0.002;

/// Sensor readings of one vehicle at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the vehicle.
    pub vehicle: String,
    /// WGS 84 latitude, positive north.
    pub latitude_deg: f64,
    /// WGS 84 longitude, positive east.
    pub longitude_deg: f64,
    /// Height above the WGS 84 ellipsoid.
    pub altitude_m: f64,
    /// Position east of the origin (`x` of an ENU odometry frame, REP-103).
    pub east_m: f64,
    /// Position north of the origin (`y`).
    pub north_m: f64,
    /// Heading, counter-clockwise from east, -π to π.
    pub yaw_rad: f64,
    /// Forward speed (`twist.linear.x` in the vehicle's frame); the lateral speed is zero.
    pub speed_mps: f64,
    /// Turn rate, counter-clockwise (`twist.angular.z`).
    pub yaw_rate_radps: f64,
    /// Battery charge, 0 to 1.
    pub charge: f64,
    /// Voltage at the battery's terminals.
    pub voltage_v: f64,
    /// Battery current, negative when discharging, as in `sensor_msgs/BatteryState`.
    pub current_a: f64,
    /// The vehicle stands at a charger.
    pub charging: bool,
    /// The vehicle was ordered to stop, and has not been ordered to resume since.
    pub stopped: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Truck {
    name: String,
    course: Course,
    phase: f64,
    speed_mps: f64,
    cruise_mps: f64,
    /// Phase shift of the speed variation along the course [rad].
    rhythm: f64,
    charge: f64,
    charge_per_s: f64,
    charging: bool,
    stopped: bool,
}

impl Truck {
    pub fn new(name: String, random: &mut SplitMix64) -> Self {
        Self {
            name,
            course: Course::new(random),
            phase: random.between(0.0, TAU),
            speed_mps: 0.0,
            cruise_mps: random.between(6.0, 11.0),
            rhythm: random.between(0.0, TAU),
            charge: random.between(0.4, 1.0),
            charge_per_s: 0.0,
            charging: false,
            stopped: false,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn order(&mut self, command: Command) {
        self.stopped = command == Command::Stop;
    }

    /// Whether the truck already does what it was last ordered to do.
    pub fn obeys(&self) -> bool {
        self.stopped == (self.speed_mps <= 0.0)
    }

    /// Moves the truck on by `dt_s`, which must be small.
    pub fn step(&mut self, dt_s: f64) {
        let halts = self.stopped || self.charging;
        let desired =
            if halts { 0.0 } else { self.cruise_mps * (0.8 + 0.2 * (3.0 * self.phase + self.rhythm).sin()) };
        let change = (desired - self.speed_mps).clamp(-DECELERATION_MPS2 * dt_s, ACCELERATION_MPS2 * dt_s);
        let distance = (self.speed_mps + 0.5 * change) * dt_s;
        self.speed_mps += change;
        self.phase = self.course.advance(self.phase, distance);
        self.step_battery(distance, dt_s);
    }

    fn step_battery(&mut self, distance_m: f64, dt_s: f64) {
        let stands = self.speed_mps <= 0.0;
        let change = if self.charging && stands {
            CHARGING_PER_S * dt_s
        } else {
            -(STANDING_PER_S * dt_s + DRIVING_PER_M * distance_m)
        };
        let charge = (self.charge + change).clamp(0.0, 1.0);
        self.charge_per_s = (charge - self.charge) / dt_s;
        self.charge = charge;
        self.charging = if self.charging { charge < CHARGED_AT } else { charge <= CHARGE_AT };
    }

    pub fn sample(&self, origin: &Origin, altitude_m: f64) -> Sample {
        let Point { east_m, north_m, yaw_rad, curvature_per_m, .. } = self.course.at(self.phase);
        let (latitude_deg, longitude_deg) = origin.to_wgs84(east_m, north_m);
        let current_a = self.charge_per_s * CAPACITY_AS;
        Sample {
            vehicle: self.name.clone(),
            latitude_deg,
            longitude_deg,
            altitude_m,
            east_m,
            north_m,
            yaw_rad,
            speed_mps: self.speed_mps,
            yaw_rate_radps: self.speed_mps * curvature_per_m,
            charge: self.charge,
            voltage_v: 22.0 + 4.0 * self.charge + RESISTANCE_OHM * current_a,
            current_a,
            charging: self.charging && self.speed_mps <= 0.0,
            stopped: self.stopped,
        }
    }
}
