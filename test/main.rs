// SPDX-License-Identifier: Apache-2.0
//! The integration tests, all in one binary so that the crate is linked only once.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod addresses;
mod authentication;
mod contracts;
mod documents;
mod graph;
mod ledger;
mod mail_bridge;
