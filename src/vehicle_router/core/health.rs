// SPDX-License-Identifier: Apache-2.0
//! Builds vehicle_router's diagnostics: one status for the vehicles, and one for each group of routes.
//!
//! The level is a pure function of the state; publishing is left to the node.

use std::time::SystemTime;

use health::{Level, Status};

use super::{Core, Route};
use crate::extract::Group;

impl Core {
    /// The statuses for `/diagnostics`. A group without routes has none.
    pub fn health(&self, now: SystemTime) -> Vec<Status> {
        let groups = Group::ALL.into_iter().filter_map(|group| self.group(group, now));
        std::iter::once(self.fleet()).chain(groups).collect()
    }

    fn fleet(&self) -> Status {
        let silent = self.vehicles.iter().filter(|vehicle| vehicle.silent).count();
        let low = self.vehicles.iter().filter(|vehicle| vehicle.battery_low).count();
        let (level, message) = match (silent, low) {
            (0, 0) => (Level::Ok, "all vehicles are heard".to_owned()),
            (0, _) => (Level::Warn, format!("{low} with a low battery")),
            _ if silent == self.vehicles.len() => (Level::Error, "no vehicle is heard".to_owned()),
            _ => (Level::Warn, format!("{silent} silent")),
        };
        Status::new("vehicles", level, message)
            .gauge("vehicles", self.vehicles.len())
            .gauge("silent", silent)
            .gauge("battery_low", low)
    }

    fn group(&self, group: Group, now: SystemTime) -> Option<Status> {
        let routes: Vec<&Route> = self.routes.iter().filter(|route| route.extractor.group == group).collect();
        if routes.is_empty() {
            return None;
        }
        let is_fresh = |heard: SystemTime| now.duration_since(heard).unwrap_or_default() < self.silent_after;
        let fresh = routes.iter().filter(|route| route.heard.is_some_and(is_fresh)).count();
        let rejected: u64 = routes.iter().map(|route| route.rejected).sum();
        let received: u64 = routes.iter().map(|route| route.received).sum();
        let rejecting = routes.iter().find(|route| route.last_reject.is_some());
        let (level, message) = match (fresh, rejecting) {
            (0, _) => (Level::Error, "no topic is heard".to_owned()),
            (_, Some(Route { topic, last_reject: Some(reject), .. })) => {
                (Level::Warn, format!("{rejected} messages rejected; {topic}: {reject}"))
            }
            _ if fresh < routes.len() => {
                (Level::Warn, format!("{} topics are not heard", routes.len() - fresh))
            }
            _ => (Level::Ok, "all topics are heard".to_owned()),
        };
        let status = Status::new(group.word(), level, message);
        Some(
            status
                .gauge("topics", routes.len())
                .gauge("heard", fresh)
                .counter("received", received)
                .counter("rejected", rejected),
        )
    }
}
