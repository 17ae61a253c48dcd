//! The fleet: trucks that move with the time given to them and carry out the orders that their gates let through.

use std::time::{Duration, SystemTime};

use crate::{
    health::{Level, Status},
    vehicle::{Acknowledgement, AcknowledgementStatus, OrderGate, OrderPublicKey, Ruling, VehicleCommand},
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
/// Height of the plane on which all drive.
const ALTITUDE_M: f64 = 520.0;

#[derive(Debug)]
struct Member {
    truck: Truck,
    gate: OrderGate,
    /// The order that it carries out, and whether it has said that it is done.
    order: Option<([u8; 32], bool)>,
}

impl Member {
    fn acknowledge(
        &self,
        command_id: [u8; 32],
        status: AcknowledgementStatus,
        reason: String,
    ) -> Acknowledgement {
        Acknowledgement { command_id, vehicle: self.truck.name().to_owned(), status, reason }
    }
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
            gate: OrderGate::new(params.order_key, params.max_order_age),
            order: None,
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

    /// Takes the order key that was published, where none was given. Whether every vehicle trusts it now.
    pub fn hear_key(&mut self, key: OrderPublicKey) -> bool {
        // Each must hear it, so it is not asked whether all do.
        self.members.iter_mut().filter_map(|member| (!member.gate.hear_key(key)).then_some(())).count() == 0
    }

    /// What the vehicle that `order` names says of it. Nothing if it is none of these, or knows no key yet.
    pub fn command(&mut self, order: &VehicleCommand, now: SystemTime) -> Option<Acknowledgement> {
        use AcknowledgementStatus::{Accepted, Done, Refused};
        let member = self.members.iter_mut().find(|member| member.truck.name() == order.vehicle)?;
        let (status, reason) = match member.gate.rule(order, now) {
            Ruling::Wait => return None,
            Ruling::Refuse(refusal) => (Refused, refusal.to_string()),
            Ruling::Repeat if member.order == Some((order.command_id, true)) => (Done, String::new()),
            Ruling::Repeat => (Accepted, String::new()),
            Ruling::Take => {
                member.truck.order(order.command);
                member.order = Some((order.command_id, false));
                (Accepted, String::new())
            }
        };
        Some(member.acknowledge(order.command_id, status, reason))
    }

    /// The orders that were carried out since the last call.
    pub fn done(&mut self) -> Vec<Acknowledgement> {
        let mut done = Vec::new();
        for member in self.members.iter_mut().filter(|member| member.truck.obeys()) {
            if let Some((command_id, said)) = &mut member.order
                && !*said
            {
                *said = true;
                let command_id = *command_id;
                done.push(member.acknowledge(command_id, AcknowledgementStatus::Done, String::new()));
            }
        }
        done
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
