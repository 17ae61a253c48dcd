//! To come.

pub mod core;
#[cfg(feature = "net")]
pub mod dns;
pub mod params;
#[cfg(feature = "net")]
pub mod verify;
pub mod zone;
