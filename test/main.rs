//! Every test that needs more than one module: one binary, for the sake of linking.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

#[cfg(feature = "net")]
mod authentication;
#[cfg(feature = "net")]
mod contracts;
#[cfg(feature = "ros")]
mod documents;
#[cfg(feature = "ros")]
mod graph;
#[cfg(feature = "net")]
mod ledger;
#[cfg(feature = "net")]
mod mail_bridge;
mod parsing;
#[cfg(feature = "net")]
mod testbed;
