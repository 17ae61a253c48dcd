// SPDX-License-Identifier: Apache-2.0
//! Runs the node: feeds messages of any routed type to [`Core`], publishes its effects, and serves its states.
//!
//! It stops at a shutdown request, or with an error if one of its tasks ends. All decisions are left to [`Core`].

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use ros::{
    RosError,
    convert::{alert_to_ros, state_to_ros, states_to_ros},
    diagnostics,
    dynamic::{self, NumberSubscription},
    graph::{Graph, Publisher},
    lock, msg,
    runtime::{self, NodeError, NodeFacts, Shutdown},
    srv, topics,
};
use tokio::time::MissedTickBehavior;

use super::{
    Core, Params,
    core::{Effect, Input},
    params::SPECS,
};

/// Name, purpose and parameters for the runtime.
pub const FACTS: NodeFacts = NodeFacts {
    name: "vehicle_router",
    about: "Reads the topics of vehicles and keeps the latest state of each",
    specs: SPECS,
    groups: &[],
};

/// Entry point of the executable.
pub fn main() -> ExitCode {
    runtime::run(FACTS, |values, _| Params::load(values), run)
}

async fn run(mut graph: Graph, params: Params, mut shutdown: Shutdown) -> Result<(), NodeError> {
    let core = Arc::new(Mutex::new(Core::new(&params, SystemTime::now())));
    let names = lock(&core).vehicles();
    let outputs = Arc::new(Outputs {
        state: names
            .iter()
            .map(|vehicle| graph.vehicle_publisher(vehicle, &topics::VEHICLE_STATE))
            .collect::<Result<_, _>>()?,
        states: graph.publisher(&topics::VEHICLES_STATES)?,
        alerts: graph.publisher(&topics::VEHICLES_ALERTS)?,
    });
    serve_states(&mut graph, Arc::clone(&core))?;
    let health_core = Arc::clone(&core);
    diagnostics::publish(&mut graph, move || lock(&health_core).health(SystemTime::now()))?;

    let subscriptions: Vec<_> = lock(&core)
        .routes()
        .iter()
        .map(|route| NumberSubscription {
            topic: route.topic().to_owned(),
            type_name: route.extractor().type_name.to_owned(),
            fields: route.extractor().fields,
        })
        .collect();
    let (of_updates, on_update) = (Arc::clone(&core), Arc::clone(&outputs));
    let _subscribed = dynamic::subscribe(&mut graph, &subscriptions, move |route, values| {
        let effects = lock(&of_updates).step(Input::Message { route, values }, SystemTime::now());
        on_update.carry_out(effects);
    })?;
    let mut running = graph.spin()?;
    tracing::info!(topics = subscriptions.len(), "listening");

    let mut ticks = tokio::time::interval(params.publish_period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            error = running.ended() => return Err(error.into()),
            _ = ticks.tick() => {
                let effects = lock(&core).step(Input::Tick, SystemTime::now());
                outputs.carry_out(effects);
            }
        }
    }
    Ok(running.shutdown().await?)
}

struct Outputs {
    /// One publisher for each vehicle, in the order of [`Core::vehicles`].
    state: Vec<Publisher<msg::VehicleState>>,
    states: Publisher<msg::VehicleStates>,
    alerts: Publisher<msg::VehicleAlert>,
}

impl Outputs {
    fn carry_out(&self, effects: Vec<Effect>) {
        for effect in effects {
            let result = match effect {
                Effect::Publish(place, state) => {
                    self.state.get(place).map_or(Ok(()), |topic| topic.publish(&state_to_ros(&state)))
                }
                Effect::PublishAll(states) => self.states.publish(&states_to_ros(&states, SystemTime::now())),
                Effect::Alert(alert) => self.alerts.publish(&alert_to_ros(&alert)),
                // Diagnostics show it; a vehicle may send thousands.
                Effect::Reject(reject) => {
                    tracing::debug!(%reject, "message rejected");
                    Ok(())
                }
            };
            if let Err(error) = result {
                tracing::warn!(%error, "lost");
            }
        }
    }
}

fn serve_states(graph: &mut Graph, core: Arc<Mutex<Core>>) -> Result<(), RosError> {
    let mut requests = graph.serve(&topics::GET_STATE)?;
    graph.watch("get_state", async move {
        while let Some(request) = requests.recv().await {
            let response = {
                let core = lock(&core);
                let states = core.states(&request.message.vehicle).iter().map(state_to_ros).collect();
                srv::GetState::Response { states, vehicles: core.vehicles() }
            };
            if let Err(error) = request.respond(response) {
                tracing::warn!(%error, "an answer of get_state is lost");
            }
        }
    });
    Ok(())
}
