// SPDX-License-Identifier: Apache-2.0
//! Turns any vehicle topics into the latest state of each vehicle, with alerts.
//!
//! A value out of its range never reaches a state, and an alert is raised once and cleared once. The configuration
//! names vehicles and topics; which fields of a message type matter is data in [`extract`].
//!
//! It keeps no history, and knows nothing of a message type beyond the paths of the fields it reads.

pub mod core;
pub mod extract;
#[cfg(feature = "ros")]
pub mod node;
pub mod params;
mod route;

pub use self::{core::Core, params::Params, route::Template};
