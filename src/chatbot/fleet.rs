// SPDX-License-Identifier: Apache-2.0
//! What vehicle_router says about vehicles. Pure.

use vehicle::VehicleState;

/// vehicle_router's answer (`GetState.srv`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// States of the requested vehicles.
    pub states: Vec<VehicleState>,
    /// Names of all vehicles.
    pub vehicles: Vec<String>,
}

impl Fleet {
    /// vehicle_router's spelling of the only vehicle whose name matches `name`, ignoring case.
    pub(super) fn vehicle(&self, name: &str) -> Option<&str> {
        let mut matching = self.vehicles.iter().filter(|vehicle| vehicle.eq_ignore_ascii_case(name));
        matching.next().filter(|_| matching.next().is_none()).map(String::as_str)
    }

    pub(super) fn state(&self, vehicle: &str) -> Option<&VehicleState> {
        self.states.iter().find(|state| state.vehicle == vehicle)
    }
}

/// vehicle_router did not answer, or not in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("vehicle_router does not answer")]
pub struct Unavailable;
