//! To come.

#[cfg(feature = "ros")]
pub mod node;
pub mod core;
#[cfg(feature = "net")]
pub mod dns;
pub mod params;
#[cfg(feature = "net")]
pub mod verify;
pub mod zone;
