// SPDX-License-Identifier: Apache-2.0
//! Asks a service of the graph once.

use std::error::Error;

use ros::{
    graph::ServiceType,
    runtime::{visit, with_sources},
    topics::Service,
};

use crate::arguments::Fleet;

/// Name of the command's node.
pub const NODE: &str = "posthorn_command";

/// Why the command could not do what it should, for a person.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Joins the graph, asks once and leaves it.
///
/// # Errors
/// If nobody answers in time.
pub fn ask<T: ServiceType + 'static>(
    fleet: &Fleet,
    service: &Service<T>,
    request: &T::Request,
) -> Result<T::Response, Failure> {
    visit(NODE, &fleet.namespace, async |mut graph| {
        let client = graph.client(service)?;
        let _running = graph.spin()?;
        let answer = client.find_and_ask(request, fleet.timeout).await;
        answer.map_err(|error| {
            let (words, seconds) = (with_sources(&error), fleet.timeout.as_secs_f64());
            format!("{words} (namespace {}, --timeout {seconds} s)", fleet.namespace).into()
        })
    })
}
