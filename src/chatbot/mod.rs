//! What a mail asks for, and the answer from live vehicle data.
//!
//! [`Core::interpret`] reads a mail and either settles it or says which vehicles it must know of; [`Core::answer`]
//! does the rest. Invariants: whoever is not authenticated gets no mail and moves no vehicle; what is not understood
//! exactly is not interpreted but passed on to a person; an answer goes to the authenticated address only.
//! One file an intent. What is ordered goes through [`orders`], the only thing that is remembered between mails.

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
