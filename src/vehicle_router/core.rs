//! The latest state of each vehicle and the conditions that hold on it.
//!
//! Bounded by the configuration: nothing is kept for a vehicle or a topic that is not routed. When two routes tell the
//! same thing of a vehicle, the last message wins. What was known does not outlive the process: after a restart,
//! conditions that hold are raised again, and conditions that ended in between are not cleared.

mod health;

use std::time::{Duration, SystemTime};

use crate::vehicle::{Alert, Condition, VehicleState};

pub use super::extract::Reject;
use super::{
    extract::{Extractor, Fact},
    params::Params,
};

/// What the node must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Publish a state that changed on the topic of its vehicle, by its place in [`Core::vehicles`].
    Publish(usize, VehicleState),
    /// Publish the states of all vehicles.
    PublishAll(Vec<VehicleState>),
    /// Publish an alert, raised or cleared.
    Alert(Alert),
}

/// One topic to subscribe to; its place in [`Core::routes`] is its number in [`Core::update`].
#[derive(Clone, Debug)]
pub struct Route {
    topic: String,
    extractor: &'static Extractor,
    vehicle: usize,
    received: u64,
    rejected: u64,
    heard: Option<SystemTime>,
    /// Why the last message was rejected, if it was.
    last_reject: Option<Reject>,
}

impl Route {
    /// Name of the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Type of its messages, and the fields to read of them.
    pub fn extractor(&self) -> &'static Extractor {
        self.extractor
    }
}

#[derive(Debug)]
struct Vehicle {
    state: VehicleState,
    /// When anything was last received; at first, when the node began to listen.
    heard: SystemTime,
    changed: bool,
    battery_low: bool,
    silent: bool,
}

/// What vehicle_router knows.
#[derive(Debug)]
pub struct Core {
    vehicles: Vec<Vehicle>,
    routes: Vec<Route>,
    battery_low: f64,
    battery_recovered: f64,
    silent_after: Duration,
}

impl Core {
    /// Knows nothing of any vehicle yet; listens since `now`.
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
            // Whoever subscribes learns also that nothing is known.
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

    /// The topics to subscribe to.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Takes over the values of one message, in the order of its extractor's fields, received at `now`.
    /// The state is published at the next [`Core::tick`], an alert at once.
    ///
    /// # Errors
    /// Why the values are not taken over; the state is as before, but the vehicle was heard.
    pub fn update(&mut self, route: usize, values: &[f64], now: SystemTime) -> Result<Vec<Effect>, Reject> {
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
        Ok(vehicle.judge_battery(self.battery_low, self.battery_recovered, now).into_iter().collect())
    }

    /// Publishes what changed since the last time, at first everything, and tells which vehicles fell silent or are heard again.
    pub fn tick(&mut self, now: SystemTime) -> Vec<Effect> {
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

    /// The states of the vehicle of this name, without regard to case, or of all if it is empty; sorted by name.
    /// A vehicle that never said anything has an entry without values.
    pub fn states(&self, vehicle: &str) -> Vec<VehicleState> {
        let states = self.vehicles.iter().map(|known| &known.state);
        let asked = |state: &&VehicleState| vehicle.is_empty() || state.vehicle.eq_ignore_ascii_case(vehicle);
        states.filter(asked).cloned().collect()
    }

    /// Names of all vehicles that are routed, sorted.
    pub fn vehicles(&self) -> Vec<String> {
        self.vehicles.iter().map(|vehicle| vehicle.state.vehicle.clone()).collect()
    }
}

impl Vehicle {
    fn alert(&self, condition: Condition, raised: bool, at: SystemTime, text: String) -> Effect {
        Effect::Alert(Alert { vehicle: self.state.vehicle.clone(), condition, raised, at, text })
    }

    /// Between the two thresholds, what held before holds on.
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
        // A clock that went back makes nobody silent.
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
