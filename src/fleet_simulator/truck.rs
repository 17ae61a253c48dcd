//! One vehicle: it follows its course at a varying speed, halts when ordered or to charge, and drives on.

use std::f64::consts::TAU;

use crate::vehicle::Command;

use super::{
    geodesy::Origin,
    random::SplitMix64,
    route::{Course, Point},
};

/// Most that a truck accelerates and brakes.
pub(super) const ACCELERATION_MPS2: f64 = 0.8;
pub(super) const DECELERATION_MPS2: f64 = 1.5;
/// It begins to charge at the first charge, and drives on at the second.
const CHARGE_AT: f64 = 0.15;
const CHARGED_AT: f64 = 0.9;
/// Change of charge per second: charging (about 8 min for all), standing, and per metre driven (24 km a charge).
const CHARGING_PER_S: f64 = 1.0 / 480.0;
const STANDING_PER_S: f64 = 1.0 / 86_400.0;
const DRIVING_PER_M: f64 = 1.0 / 24_000.0;
/// A 24 V battery of 200 Ah, and its inner resistance.
const CAPACITY_AS: f64 = 200.0 * 3600.0;
const RESISTANCE_OHM: f64 = 0.002;

/// What a vehicle's sensors say at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the vehicle.
    pub vehicle: String,
    /// WGS 84.
    pub latitude_deg: f64,
    /// WGS 84.
    pub longitude_deg: f64,
    /// Above the ellipsoid.
    pub altitude_m: f64,
    /// Position east of the origin (`x` of an ENU odometry frame, REP-103).
    pub east_m: f64,
    /// Position north of the origin (`y`).
    pub north_m: f64,
    /// Heading from east, counter-clockwise, -π to π.
    pub yaw_rad: f64,
    /// Forward speed (`twist.linear.x` in the vehicle's frame; the lateral speed is zero).
    pub speed_mps: f64,
    /// Turn rate, counter-clockwise (`twist.angular.z`).
    pub yaw_rate_radps: f64,
    /// 0 to 1.
    pub charge: f64,
    /// At the terminals.
    pub voltage_v: f64,
    /// Negative when discharging, as in `sensor_msgs/BatteryState`.
    pub current_a: f64,
    /// It stands at a charger.
    pub charging: bool,
    /// It was ordered to stop.
    pub stopped: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Truck {
    name: String,
    course: Course,
    phase: f64,
    speed_mps: f64,
    cruise_mps: f64,
    /// Where on the course it drives faster.
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

    /// It does what it was ordered to.
    pub fn obeys(&self) -> bool {
        self.stopped == (self.speed_mps <= 0.0)
    }

    /// Moves on by `dt_s`, which must be small.
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
