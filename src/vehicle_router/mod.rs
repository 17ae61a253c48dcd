//! Any vehicle topic in, the latest state of each vehicle out, with alerts.
//!
//! The configuration names vehicles and topics; which fields of which message type matter is data in [`extract`].
//! Invariants: a value out of its range never reaches a state; an alert is raised once and cleared once. It does not
//! keep history, and it does not know a message type beyond the paths of the fields it reads.

pub mod core;
pub mod extract;
#[cfg(feature = "ros")]
pub mod node;
pub mod params;
mod route;

pub use self::{core::Core, params::Params, route::Template};
