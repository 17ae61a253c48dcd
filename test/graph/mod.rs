//! The whole graph: real processes, real DDS, in a ROS domain of each test's own.

mod bad_input;
mod chain;
mod conversation;
mod dns;
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

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Graphs are started one after the other: each has five processes, and a loaded machine proves nothing about time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}
