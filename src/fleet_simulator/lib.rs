// SPDX-License-Identifier: Apache-2.0
//! Simulates a few vehicles with plausible motion and batteries, for demos and tests.
//!
//! Deterministic: the same seed, steps and orders give the same states, bit for bit, on one machine. Positions are
//! exact to centimetres within a few kilometres of the origin.
//!
//! It is not a physics engine: no traffic, no slip, no sensor noise.

pub mod core;
mod geodesy;
#[cfg(feature = "ros")]
mod messages;
#[cfg(feature = "ros")]
pub mod node;
pub mod params;
mod random;
mod route;
mod truck;

pub use self::{core::Core, params::Params, truck::Sample};
