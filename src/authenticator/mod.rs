//! To come.

pub mod address;
pub mod merkle;
mod secret;
