// SPDX-License-Identifier: Apache-2.0
//! Keeps the latest state of each vehicle, and decides which alerts to raise or clear.
//!
//! Bounded by the configuration: it stores nothing for a vehicle or topic that is not routed. When two routes report
//! the same value of a vehicle, the last message wins.
//!
//! State does not survive the process: after a restart, conditions that hold are raised again, and conditions that
//! ended in between are not cleared.

mod health;

use std::time::{Duration, SystemTime};

use vehicle::{Alert, Condition, VehicleState};

pub use super::extract::Reject;
use super::{
    extract::{Extractor, Fact},
    params::Params,
};

/// An event that changes what is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A message came in on a topic.
    Message {
        /// Index in [`Core::routes`].
        route: usize,
        /// Its numbers, in the order of the extractor's fields.
        values: Vec<f64>,
    },
    /// Time to publish what changed.
    Tick,
}

/// An action for the node to take.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Publish the changed state of one vehicle, given by its index in [`Core::vehicles`].
    Publish(usize, VehicleState),
    /// Publish the states of all vehicles.
    PublishAll(Vec<VehicleState>),
    /// Publish an alert that was raised or cleared.
    Alert(Alert),
    /// Say why a message was rejected. The state stays as it was, but the vehicle counts as heard, unless no such route
    /// exists.
    Reject(Reject),
}

/// One topic to subscribe to.
#[derive(Clone, Debug)]
pub struct Route {
    topic: String,
    extractor: &'static Extractor,
    vehicle: usize,
    received: u64,
    rejected: u64,
    heard: Option<SystemTime>,
    /// Why the last message was rejected; `None` if it was accepted.
    last_reject: Option<Reject>,
}

impl Route {
    /// Name of the topic, as configured for the vehicle.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Message type of the topic, and the fields to read from it.
    pub fn extractor(&self) -> &'static Extractor {
        self.extractor
    }
}

#[derive(Debug)]
struct Vehicle {
    state: VehicleState,
    /// When the last message arrived; until then, when the node began to listen.
    heard: SystemTime,
    changed: bool,
    battery_low: bool,
    silent: bool,
}

/// The latest states of all vehicles, and the routes that feed them.
#[derive(Debug)]
pub struct Core {
    vehicles: Vec<Vehicle>,
    routes: Vec<Route>,
    battery_low: f64,
    battery_recovered: f64,
    silent_after: Duration,
}

impl Core {
    /// Starts with empty states, listening from `now` on.
    pub fn new(params: &Params, now: SystemTime) -> Self {
        let route = |(vehicle, name): (usize, &String)| {
            let name = name.clone();
            params.routes.iter().map(move |template| Route {
                topic: template.topic_of(&name),
                extractor: template.extractor(),
                vehicle,
                received: 0,
                rejected: 0,
                heard: None,
                last_reject: None,
            })
        };
        let vehicle = |name: &String| Vehicle {
            state: VehicleState::unheard(name.as_str()),
            heard: now,
            // Publish the empty state too, so that subscribers learn that nothing is known.
            changed: true,
            battery_low: false,
            silent: false,
        };
        Self {
            vehicles: params.vehicles.iter().map(vehicle).collect(),
            routes: params.vehicles.iter().enumerate().flat_map(route).collect(),
            battery_low: params.battery_low,
            battery_recovered: params.battery_recovered,
            silent_after: params.silent_after,
        }
    }

    /// The topics to subscribe to, one for each vehicle and configured route.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Applies an input and returns what to do now. Alerts are published at once, states at the next [`Input::Tick`]
    /// (all of them at the first).
    pub fn step(&mut self, input: Input, now: SystemTime) -> Vec<Effect> {
        match input {
            Input::Message { route, values } => match self.update(route, &values, now) {
                Ok(alert) => alert.into_iter().collect(),
                Err(reject) => vec![Effect::Reject(reject)],
            },
            Input::Tick => self.tick(now),
        }
    }

    /// Stores the values of one message; returns the alert that follows.
    fn update(&mut self, route: usize, values: &[f64], now: SystemTime) -> Result<Option<Effect>, Reject> {
        let number = route;
        let route = self.routes.get_mut(number).ok_or(Reject::Route(number))?;
        let vehicle = self.vehicles.get_mut(route.vehicle).ok_or(Reject::Route(number))?;
        vehicle.heard = now;
        route.heard = Some(now);
        route.received += 1;
        let fact = route.extractor.extract(values, now).inspect_err(|reject| {
            route.rejected += 1;
            route.last_reject = Some(reject.clone());
        })?;
        route.last_reject = None;
        vehicle.state.stamp = now;
        vehicle.changed = true;
        match fact {
            Fact::Position(position) => vehicle.state.position = Some(position),
            Fact::Motion(motion) => vehicle.state.motion = Some(motion),
            Fact::Battery(battery) => vehicle.state.battery = Some(battery),
        }
        Ok(vehicle.judge_battery(self.battery_low, self.battery_recovered, now))
    }

    /// Publishes every state that changed since the last tick, and alerts when a vehicle falls silent or is heard
    /// again.
    fn tick(&mut self, now: SystemTime) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut some_changed = false;
        for (place, vehicle) in self.vehicles.iter_mut().enumerate() {
            if std::mem::take(&mut vehicle.changed) {
                some_changed = true;
                effects.push(Effect::Publish(place, vehicle.state.clone()));
            }
            effects.extend(vehicle.judge_silence(self.silent_after, now));
        }
        if some_changed {
            effects.push(Effect::PublishAll(self.states("")));
        }
        effects
    }

    /// The states of the vehicle with this name, ignoring case, or of all vehicles if `vehicle` is empty; sorted by
    /// name. A vehicle that was never heard is listed without values.
    pub fn states(&self, vehicle: &str) -> Vec<VehicleState> {
        let states = self.vehicles.iter().map(|known| &known.state);
        let asked = |state: &&VehicleState| vehicle.is_empty() || state.vehicle.eq_ignore_ascii_case(vehicle);
        states.filter(asked).cloned().collect()
    }

    /// Names of the configured vehicles, sorted.
    pub fn vehicles(&self) -> Vec<String> {
        self.vehicles.iter().map(|vehicle| vehicle.state.vehicle.clone()).collect()
    }
}

impl Vehicle {
    fn alert(&self, condition: Condition, raised: bool, at: SystemTime, text: String) -> Effect {
        Effect::Alert(Alert { vehicle: self.state.vehicle.clone(), condition, raised, at, text })
    }

    /// Between the two thresholds, the previous condition persists.
    fn judge_battery(&mut self, low: f64, recovered: f64, now: SystemTime) -> Option<Effect> {
        let charge = self.state.battery?.charge;
        let is_low = if self.battery_low { charge < recovered } else { charge <= low };
        if is_low == self.battery_low {
            return None;
        }
        self.battery_low = is_low;
        let percent = charge * 100.0;
        let text = if is_low {
            format!("battery at {percent:.1} %, low at {:.1} %", low * 100.0)
        } else {
            format!("battery at {percent:.1} %, no longer low")
        };
        Some(self.alert(Condition::BatteryLow, is_low, now, text))
    }

    fn judge_silence(&mut self, after: Duration, now: SystemTime) -> Option<Effect> {
        // If the clock went back, the age is zero and nobody falls silent.
        let age = now.duration_since(self.heard).unwrap_or_default();
        let is_silent = age >= after;
        if is_silent == self.silent {
            return None;
        }
        self.silent = is_silent;
        let text = if is_silent {
            format!("nothing received for {:.1} s", age.as_secs_f64())
        } else {
            "heard again".to_owned()
        };
        Some(self.alert(Condition::Silent, is_silent, now, text))
    }
}

#[cfg(test)]
mod tests;
