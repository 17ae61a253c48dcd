// SPDX-License-Identifier: Apache-2.0
//! The whole graph: real processes and real DDS, with a separate ROS domain for each test.

mod bad_input;
mod chain;
mod command;
mod conversation;
mod dns;
mod evidence;
mod fleets;
mod life;
mod many;
mod observing;
mod orders;
mod outbound;
mod parameters;
mod python;
mod registry;
mod security;
mod tasks;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Only one graph runs at a time: each has five processes, and timing means nothing on a loaded machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}
