// SPDX-License-Identifier: Apache-2.0
//! The command `posthorn`: what an operator does with a running fleet from a terminal.
//!
//! - [`arguments`]: the command line, read into a [`arguments::Task`]. Pure.
//! - [`show`]: a mail as text that is safe on a terminal. Pure.
//! - [`receipt`]: a receipt as a JSON file, and what it proves by itself.
//! - [`chain_status`]: how a ledger and its chain stand, as lines. Pure.
//! - [`doctor`]: what is looked at to tell whether a posthorn is well.
//! - [`mailbox`]: what trying a mailbox has found, as a table. Pure.
//! - [`senders`]: the senders of a registry as a table. Pure.
//! - [`token`]: the registry's token, from its file.
//! - `ask`: asks a service of the graph once.
//! - `proofs`: asks for receipts, verifies them, and compares a log with its chain.
//! - `run`: does what the command line says, and prints.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done, or printed `--help` or `--version` |
//! | 1 | refused, not found, not proven, or no answer; stderr says why |
//! | 2 | invalid arguments; stderr names the argument, its value and the rule |

pub mod arguments;
#[cfg(feature = "ros")]
pub mod ask;
pub mod chain_status;
pub mod doctor;
pub mod mailbox;
#[cfg(feature = "ros")]
mod proofs;
pub mod receipt;
#[cfg(feature = "ros")]
pub mod run;
pub mod senders;
pub mod show;
pub mod token;
