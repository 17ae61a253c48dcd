// SPDX-License-Identifier: Apache-2.0
//! Runs the node: publishes the simulated fleet on the topics that real vehicles would have, and passes orders to it.
//!
//! It stops at a shutdown request, or with an error if one of its tasks ends. Which orders are carried out is left to
//! [`Core`].

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Instant, SystemTime},
};

use ros::{
    RosError,
    builtin_interfaces::msg::Time,
    convert::{acknowledgement_to_ros, command_from_ros, time_to_ros},
    diagnostics,
    graph::{Graph, Publisher},
    lock, msg, nav_msgs,
    runtime::{self, NodeError, NodeFacts, Shutdown},
    sensor_msgs, topics,
};
use tokio::time::MissedTickBehavior;
use vehicle::Acknowledgement;

use super::{
    Core, Params, Sample,
    core::{Effect, Input},
    messages::{battery_state, fix, odometry},
    params::SPECS,
};

/// Name, purpose and parameters for the runtime.
pub const FACTS: NodeFacts = NodeFacts {
    name: "fleet_simulator",
    about: "A few vehicles with plausible motion and batteries, for demos and tests",
    specs: SPECS,
    groups: &[],
};

/// Entry point of the executable.
pub fn main() -> ExitCode {
    runtime::run(FACTS, |values, _| Params::load(values), run)
}

async fn run(mut graph: Graph, params: Params, mut shutdown: Shutdown) -> Result<(), NodeError> {
    let core = Core::new(&params);
    let names: Vec<_> = core.vehicles().map(str::to_owned).collect();
    let outputs = Outputs {
        vehicles: names
            .iter()
            .map(|name| Vehicle::new(&mut graph, name))
            .collect::<Result<Vec<_>, RosError>>()?,
        acknowledgements: graph.publisher(&topics::VEHICLES_ACKNOWLEDGEMENTS)?,
    };
    let mut commands = graph.subscribe(&topics::VEHICLES_COMMANDS)?;
    let mut keys = graph.subscribe(&topics::CHATBOT_ORDER_KEY)?;
    let core = Arc::new(Mutex::new(core));
    let health_core = Arc::clone(&core);
    diagnostics::publish(&mut graph, move || lock(&health_core).health())?;
    let mut running = graph.spin()?;
    tracing::info!(vehicles = names.len(), "driving");

    let mut ticks = tokio::time::interval(params.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Instant::now();
    loop {
        let input = tokio::select! {
            () = shutdown.requested() => break,
            error = running.ended() => return Err(error.into()),
            Some(message) = keys.recv() => key(&message),
            Some(message) = commands.recv() => order(&message),
            _ = ticks.tick() => {
                let now = Instant::now();
                Some(Input::Elapsed(now.duration_since(std::mem::replace(&mut before, now))))
            }
        };
        let Some(input) = input else { continue };
        let effects = lock(&core).step(input, SystemTime::now());
        effects.into_iter().for_each(|effect| outputs.carry_out(effect));
    }
    Ok(running.shutdown().await?)
}

fn key(message: &msg::OrderKey) -> Option<Input> {
    let key = message.public_key.parse();
    let key = key.inspect_err(|error| tracing::warn!("a message on chatbot/order_key: must hold {error}"));
    key.ok().map(Input::Key)
}

fn order(message: &msg::VehicleCommand) -> Option<Input> {
    let order = command_from_ros(message);
    let order = order.inspect_err(
        |error| tracing::warn!(%error, "a message on vehicles/commands breaks its specification"),
    );
    order.ok().map(Input::Order)
}

struct Outputs {
    /// In the order of [`Core::vehicles`].
    vehicles: Vec<Vehicle>,
    acknowledgements: Publisher<msg::VehicleAcknowledgement>,
}

impl Outputs {
    fn carry_out(&self, effect: Effect) {
        let now = SystemTime::now();
        match effect {
            Effect::Publish(samples) => {
                let stamp = time_to_ros(now);
                for (vehicle, sample) in self.vehicles.iter().zip(&samples) {
                    if let Err(error) = vehicle.publish(sample, &stamp) {
                        tracing::warn!(%error, vehicle = %sample.vehicle, "readings are lost");
                    }
                }
            }
            Effect::Acknowledge(acknowledgement) => {
                let Acknowledgement { vehicle, status, reason, .. } = &acknowledgement;
                tracing::info!(%vehicle, ?status, %reason, "order");
                if let Err(error) =
                    self.acknowledgements.publish(&acknowledgement_to_ros(&acknowledgement, now))
                {
                    tracing::warn!(%error, %vehicle, "an acknowledgement is lost");
                }
            }
            Effect::Trusts(key, true) => tracing::info!(%key, "orders by this key are taken"),
            Effect::Trusts(key, false) => {
                tracing::warn!(%key, "another order key than the one that is trusted: its orders are refused");
            }
        }
    }
}

/// The publishers of one vehicle.
struct Vehicle {
    fix: Publisher<sensor_msgs::msg::NavSatFix>,
    battery_state: Publisher<sensor_msgs::msg::BatteryState>,
    odometry: Publisher<nav_msgs::msg::Odometry>,
}

impl Vehicle {
    fn new(graph: &mut Graph, name: &str) -> Result<Self, RosError> {
        Ok(Self {
            fix: graph.vehicle_publisher(name, &topics::FIX)?,
            battery_state: graph.vehicle_publisher(name, &topics::BATTERY_STATE)?,
            odometry: graph.vehicle_publisher(name, &topics::ODOMETRY)?,
        })
    }

    fn publish(&self, sample: &Sample, stamp: &Time) -> Result<(), RosError> {
        self.fix.publish(&fix(sample, stamp))?;
        self.battery_state.publish(&battery_state(sample, stamp))?;
        self.odometry.publish(&odometry(sample, stamp))
    }
}
