//! The fleet: trucks that move with the time given to them and carry out each order once.

use std::{collections::VecDeque, time::Duration};

use crate::{
    health::{Level, Status},
    vehicle::VehicleCommand,
};

use super::{
    geodesy::Origin,
    params::Params,
    random::SplitMix64,
    truck::{Sample, Truck},
};

/// Longest step of the integration; a longer one is divided.
const STEP_S: f64 = 0.05;
/// A process that slept longer has slept so long only, and does not catch up.
const MAX_ELAPSED: Duration = Duration::from_secs(60);
/// How many orders a vehicle remembers, so as not to carry them out again. An older one would be.
const REMEMBERED_ORDERS: usize = 256;
/// Height of the plane on which all drive.
const ALTITUDE_M: f64 = 520.0;

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The vehicle acts on it.
    CarriedOut,
    /// It was carried out before.
    Repeated,
    /// No vehicle has this name.
    UnknownVehicle,
}

#[derive(Debug)]
struct Member {
    truck: Truck,
    carried_out: VecDeque<[u8; 32]>,
}

/// A fleet.
#[derive(Debug)]
pub struct Core {
    origin: Origin,
    members: Vec<Member>,
}

impl Core {
    /// A fleet at its first moment, standing.
    pub fn new(params: &Params) -> Self {
        let mut random = SplitMix64::new(params.seed);
        let mut member = |number| Member {
            truck: Truck::new(format!("truck_{number}"), &mut random),
            carried_out: VecDeque::new(),
        };
        Self {
            origin: Origin::new(params.origin_latitude_deg, params.origin_longitude_deg),
            members: (1..=params.vehicle_count).map(&mut member).collect(),
        }
    }

    /// Names of the vehicles.
    pub fn vehicles(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.truck.name())
    }

    /// Moves all on by `elapsed`, at most a minute.
    pub fn step(&mut self, elapsed: Duration) {
        let elapsed_s = elapsed.min(MAX_ELAPSED).as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most 60 / 0.05, not negative"
        )]
        let steps = (elapsed_s / STEP_S).ceil() as u32;
        for _ in 0..steps {
            let dt_s = elapsed_s / f64::from(steps);
            self.members.iter_mut().for_each(|member| member.truck.step(dt_s));
        }
    }

    /// What the sensors of all vehicles say now.
    pub fn samples(&self) -> impl Iterator<Item = Sample> {
        self.members.iter().map(|member| member.truck.sample(&self.origin, ALTITUDE_M))
    }

    /// Takes an order; the same `command_id` for the same vehicle once.
    pub fn command(&mut self, order: &VehicleCommand) -> Outcome {
        let Some(member) = self.members.iter_mut().find(|member| member.truck.name() == order.vehicle) else {
            return Outcome::UnknownVehicle;
        };
        if member.carried_out.contains(&order.command_id) {
            return Outcome::Repeated;
        }
        if member.carried_out.len() == REMEMBERED_ORDERS {
            member.carried_out.pop_front();
        }
        member.carried_out.push_back(order.command_id);
        member.truck.order(order.command);
        Outcome::CarriedOut
    }

    /// The statuses for `/diagnostics`.
    pub fn health(&self) -> Vec<Status> {
        let samples: Vec<_> = self.samples().collect();
        let count = |is: fn(&Sample) -> bool| samples.iter().filter(|sample| is(sample)).count();
        let status = Status::new("fleet", Level::Ok, "simulated")
            .with("vehicles", samples.len())
            .with("moving", count(|sample| sample.speed_mps > 0.0))
            .with("charging", count(|sample| sample.charging))
            .with("stopped", count(|sample| sample.stopped));
        vec![status]
    }
}

#[cfg(test)]
mod tests;
