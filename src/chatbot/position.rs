// SPDX-License-Identifier: Apache-2.0
//! Answers `where is <vehicle>` with the position and speed of one vehicle.

use vehicle::VehicleState;

use super::{
    describe::{self, Clock},
    intent::Request,
};

pub(super) fn parse(words: &[&str]) -> Option<Request> {
    match *words {
        ["where", "is", vehicle] => Some(Request::Position(vehicle.to_owned())),
        _ => None,
    }
}

pub(super) fn answer(state: &VehicleState, clock: &Clock) -> String {
    let position = describe::position(state.position.as_ref(), clock);
    let motion = describe::motion(state.motion.as_ref(), clock);
    format!("{}\n\n{position}{motion}", state.vehicle)
}
