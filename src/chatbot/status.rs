// SPDX-License-Identifier: Apache-2.0
//! Answers `status` and `status <vehicle>` with everything known about all vehicles or one.

use vehicle::VehicleState;

use super::{
    describe::{self, Clock},
    intent::Request,
};

/// Most vehicles listed in an answer.
const MAX_LISTED: usize = 100;

pub(super) fn parse(words: &[&str]) -> Option<Request> {
    match *words {
        ["status"] => Some(Request::Fleet),
        ["status", vehicle] => Some(Request::Status(vehicle.to_owned())),
        _ => None,
    }
}

pub(super) fn answer(state: &VehicleState, clock: &Clock) -> String {
    let mut text = format!("{}\n\n", state.vehicle);
    text += &describe::position(state.position.as_ref(), clock);
    text += &describe::motion(state.motion.as_ref(), clock);
    text += &describe::battery(state.battery.as_ref(), clock);
    text
}

/// One line for each vehicle.
pub(super) fn answer_fleet(states: &[VehicleState], clock: &Clock) -> String {
    if states.is_empty() {
        return "No vehicle is known.\n".to_owned();
    }
    let mut text = String::new();
    for state in states.iter().take(MAX_LISTED) {
        text += &format!("{}: {}\n", state.vehicle, describe::line(state, clock));
    }
    if states.len() > MAX_LISTED {
        text += &format!("and {} more\n", states.len() - MAX_LISTED);
    }
    text
}
