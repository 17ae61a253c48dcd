// SPDX-License-Identifier: Apache-2.0
//! Reads what a mail asks for, and answers it from live vehicle data.
//!
//! - An answer goes only to the From address, and only if DMARC passed for it.
//! - Only an authenticated operator's mail moves a vehicle.
//! - A mail that is not understood exactly is passed on to a person, not interpreted.
//!
//! [`Core::interpret`] reads a mail and either settles it or names the vehicles whose states it needs; [`Core::answer`]
//! does the rest. Each intent has its own file. Orders go through [`orders`], the only memory between mails beside
//! [`Quota`].

mod authority;
mod battery;
mod compose;
pub mod core;
mod describe;
pub mod health;
mod help;
pub mod intent;
#[cfg(feature = "ros")]
pub mod node;
mod order;
pub mod orders;
pub mod params;
mod position;
mod quota;
mod reading;
mod status;

pub use self::{core::Core, params::Params, quota::Quota};
