//! To come.

pub mod address;
#[cfg(feature = "net")]
pub mod anchor;
pub mod evidence;
#[cfg(feature = "net")]
pub mod ledger;
pub mod merkle;
mod secret;
