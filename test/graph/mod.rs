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
mod publisher;
mod python;
mod registry;
mod security;
mod tasks;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Held by the graphs that run: one for each of the harness's threads, or one alone. Each has five processes, which
/// mostly wait.
static GRAPHS: RwLock<()> = RwLock::new(());

/// For a test that waits for conditions, so that a graph beside it does no harm.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    GRAPHS.read().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that measures: time and processor time mean nothing beside another graph.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    GRAPHS.write().unwrap_or_else(PoisonError::into_inner)
}
