//! What a mail asks for, and the answer from live vehicle data.
//!
//! [`Core::interpret`] reads a mail and either settles it or says which vehicles it must know of; [`Core::answer`]
//! does the rest. Invariants: whoever is not authenticated gets no mail and moves no vehicle; what is not understood
//! exactly is not interpreted but passed on to a person; an answer goes to the authenticated address only.
//! It keeps nothing between mails, so replicas need not agree on anything. One file an intent.

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
pub mod params;
mod position;
mod reading;
mod status;

pub use self::{core::Core, params::Params};
