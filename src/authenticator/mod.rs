//! To come.

pub mod address;
pub mod evidence;
pub mod merkle;
mod secret;
