// SPDX-License-Identifier: Apache-2.0
//! Reads what a mail asks for, and answers it from live vehicle data.
//!
//! - An answer goes only to the From address, and only if DMARC passed for it.
//! - Only an authenticated operator's mail moves a vehicle.
//! - A mail that is not understood exactly is passed on to a person, not interpreted.
//!
//! [`Core`] takes each mail through its steps. [`Interpretation`](interpretation::Interpretation) is what the mail
//! says, [`policy`] decides what happens to it, and [`orders`] carries an order to its outcome. Each intent has its own
//! file.

mod authority;
mod battery;
mod compose;
pub mod core;
mod describe;
pub mod effect;
pub mod fleet;
pub mod health;
mod help;
pub mod intent;
pub mod interpretation;
#[cfg(feature = "ros")]
pub mod node;
mod order;
pub mod orders;
pub mod params;
pub mod policy;
mod position;
mod quota;
mod reading;
mod status;

pub use self::{core::Core, params::Params};
