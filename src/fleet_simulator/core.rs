// SPDX-License-Identifier: Apache-2.0
//! Simulates the fleet: moves the trucks by the time it is given, and carries out the orders that their gates admit.
//!
//! It never reads a clock, and a long pause is not made up beyond a minute. Publishing is left to the node.

use std::time::{Duration, SystemTime};

use health::{Level, Status};
use vehicle::{Acknowledgement, AcknowledgementStatus, OrderGate, OrderPublicKey, Ruling, VehicleCommand};

use super::{
    geodesy::Origin,
    params::Params,
    random::SplitMix64,
    truck::{Sample, Truck},
};

/// Longest integration step, seconds; a longer interval is divided.
const STEP_S: f64 = 0.05;
/// Longest interval simulated at once. After a longer pause, the fleet does not catch up.
const MAX_ELAPSED: Duration = Duration::from_secs(60);
/// Height of the plane on which all trucks drive.
const ALTITUDE_M: f64 = 520.0;

/// An event that moves the fleet or changes what it obeys.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// So much time passed since the last time; at most a minute counts.
    Elapsed(Duration),
    /// A public key of orders was published.
    Key(OrderPublicKey),
    /// An order was published.
    Order(VehicleCommand),
}

/// An action for the node to take.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Publish the readings of all vehicles, in the order of [`Core::vehicles`].
    Publish(Vec<Sample>),
    /// Publish an acknowledgement.
    Acknowledge(Acknowledgement),
    /// Say whether every vehicle now trusts this key.
    Trusts(OrderPublicKey, bool),
}

#[derive(Debug)]
struct Member {
    truck: Truck,
    gate: OrderGate,
    /// `command_id` of the last order taken, and whether its completion was acknowledged.
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

/// A simulated fleet.
#[derive(Debug)]
pub struct Core {
    origin: Origin,
    members: Vec<Member>,
}

impl Core {
    /// Creates the fleet at its starting positions, standing still.
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

    /// Applies an input at the time `now`, and returns what to do.
    pub fn step(&mut self, input: Input, now: SystemTime) -> Vec<Effect> {
        match input {
            Input::Elapsed(elapsed) => {
                self.drive(elapsed);
                let done = self.done().into_iter().map(Effect::Acknowledge);
                done.chain([Effect::Publish(self.samples().collect())]).collect()
            }
            Input::Key(key) => vec![Effect::Trusts(key, self.hear_key(key))],
            Input::Order(order) => self.command(&order, now).into_iter().map(Effect::Acknowledge).collect(),
        }
    }

    fn drive(&mut self, elapsed: Duration) {
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

    fn samples(&self) -> impl Iterator<Item = Sample> {
        self.members.iter().map(|member| member.truck.sample(&self.origin, ALTITUDE_M))
    }

    /// Passes a published order key to every gate, which adopts it if it trusts none yet. Returns whether every vehicle
    /// now trusts `key`.
    fn hear_key(&mut self, key: OrderPublicKey) -> bool {
        // Not `all`, which would stop at the first refusal: every vehicle must hear the key.
        self.members.iter_mut().filter_map(|member| (!member.gate.hear_key(key)).then_some(())).count() == 0
    }

    /// Gives `order` to the vehicle it names, and returns the acknowledgement. `None` if no vehicle has that name, or
    /// the vehicle knows no key yet.
    fn command(&mut self, order: &VehicleCommand, now: SystemTime) -> Option<Acknowledgement> {
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

    /// Acknowledges the orders that were completed since the last call.
    fn done(&mut self) -> Vec<Acknowledgement> {
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
            .gauge("vehicles", samples.len())
            .gauge("moving", count(|sample| sample.speed_mps > 0.0))
            .gauge("charging", count(|sample| sample.charging))
            .gauge("stopped", count(|sample| sample.stopped));
        vec![status]
    }
}

#[cfg(test)]
mod tests;
