// SPDX-License-Identifier: Apache-2.0
//! Answers `battery <vehicle>` with the charge and voltage of one vehicle.

use vehicle::VehicleState;

use super::{
    describe::{self, Clock},
    intent::Request,
};

pub(super) fn parse(words: &[&str]) -> Option<Request> {
    match *words {
        ["battery", vehicle] => Some(Request::Battery(vehicle.to_owned())),
        _ => None,
    }
}

pub(super) fn answer(state: &VehicleState, clock: &Clock) -> String {
    format!("{}\n\n{}", state.vehicle, describe::battery(state.battery.as_ref(), clock))
}
