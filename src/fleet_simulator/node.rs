// SPDX-License-Identifier: Apache-2.0
//! Runs the node: publishes the simulated fleet on the topics that real vehicles would have, and passes orders to it.
//!
//! It stops at a shutdown request, or with an error if one of its tasks ends. Which orders are carried out is left to [`Core`].

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Instant, SystemTime},
};

use ros::{
    RosError,
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
    Core, Params,
    messages::{battery_state, fix, odometry},
    params::SPECS,
};

/// Name, purpose and parameters for the runtime.
pub const FACTS: NodeFacts = NodeFacts {
    name: "fleet_simulator",
    about: "A few vehicles with plausible motion and batteries, for demos and tests",
    specs: SPECS,
};

/// Entry point of the executable.
pub fn main() -> ExitCode {
    runtime::run(FACTS, |values, _| Params::load(values), run)
}

async fn run(mut graph: Graph, params: Params, mut shutdown: Shutdown) -> Result<(), NodeError> {
    let core = Core::new(&params);
    let names: Vec<_> = core.vehicles().map(str::to_owned).collect();
    let vehicles =
        names.iter().map(|name| Vehicle::new(&mut graph, name)).collect::<Result<Vec<_>, RosError>>()?;
    let mut commands = graph.subscribe(&topics::VEHICLES_COMMANDS)?;
    let mut keys = graph.subscribe(&topics::CHATBOT_ORDER_KEY)?;
    let acknowledgements = graph.publisher(&topics::VEHICLES_ACKNOWLEDGEMENTS)?;
    let core = Arc::new(Mutex::new(core));
    let health_core = Arc::clone(&core);
    diagnostics::publish(&mut graph, move || lock(&health_core).health())?;
    let mut running = graph.spin()?;
    tracing::info!(vehicles = names.len(), "driving");

    let mut ticks = tokio::time::interval(params.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Instant::now();
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            error = running.ended() => return Err(error.into()),
            Some(key) = keys.recv() => hear_key(&mut lock(&core), &key),
            Some(command) = commands.recv() => {
                acknowledge(&acknowledgements, run_command(&mut lock(&core), &command));
            }
            _ = ticks.tick() => {
                let now = Instant::now();
                let (samples, done): (Vec<_>, _) = {
                    let mut core = lock(&core);
                    core.step(now.duration_since(before));
                    (core.samples().collect(), core.done())
                };
                acknowledge(&acknowledgements, done);
                before = now;
                let stamp = time_to_ros(SystemTime::now());
                for (vehicle, sample) in vehicles.iter().zip(&samples) {
                    let published = vehicle
                        .fix
                        .publish(&fix(sample, &stamp))
                        .and_then(|()| vehicle.battery_state.publish(&battery_state(sample, &stamp)))
                        .and_then(|()| vehicle.odometry.publish(&odometry(sample, &stamp)));
                    if let Err(error) = published {
                        tracing::warn!(%error, vehicle = %sample.vehicle, "readings are lost");
                    }
                }
            }
        }
    }
    Ok(running.shutdown().await?)
}

fn hear_key(core: &mut Core, message: &msg::OrderKey) {
    match message.public_key.parse() {
        Ok(key) if core.hear_key(key) => tracing::info!(%key, "orders by this key are taken"),
        Ok(key) => {
            tracing::warn!(%key, "another order key than the one that is trusted: its orders are refused")
        }
        Err(error) => tracing::warn!("a message on chatbot/order_key: must hold {error}"),
    }
}

fn run_command(core: &mut Core, message: &msg::VehicleCommand) -> Option<Acknowledgement> {
    let command = match command_from_ros(message) {
        Ok(command) => command,
        Err(error) => {
            tracing::warn!(%error, "a message on vehicles/commands breaks its specification");
            return None;
        }
    };
    let acknowledgement = core.command(&command, SystemTime::now())?;
    let Acknowledgement { vehicle, status, reason, .. } = &acknowledgement;
    tracing::info!(%vehicle, command = command.command.word(), ?status, %reason, "order");
    Some(acknowledgement)
}

fn acknowledge(
    publisher: &Publisher<msg::VehicleAcknowledgement>,
    acknowledgements: impl IntoIterator<Item = Acknowledgement>,
) {
    for acknowledgement in acknowledgements {
        if let Err(error) = publisher.publish(&acknowledgement_to_ros(&acknowledgement, SystemTime::now())) {
            tracing::warn!(%error, vehicle = %acknowledgement.vehicle, "an acknowledgement is lost");
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
}
