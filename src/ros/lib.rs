// SPDX-License-Identifier: Apache-2.0
//! The ROS layer, the only importer of r2r and rclrs: moving to another client library changes only this folder.
//!
//! - [`topics`]: every topic and service as one constant; [`qos`]: the named QoS profiles.
//! - [`graph`]: one node's publishers, subscriptions, services and clients.
//! - [`runtime`]: a node's `main`: arguments, parameters, logs, drain, exit code; `signals`: what starts the drain;
//!   `closing`: its bounded end.
//! - [`supervisor`]: a node's tasks, none of which ends unnoticed.
//! - [`diagnostics`], [`logging`], [`params`]: `/diagnostics`, `/rosout` and the parameter services.
//! - [`dynamic`]: subscriptions by name to any installed message type, through rclrs.
//! - [`convert`]: conversion between domain types and messages; [`msg`] and [`srv`] re-export the message types.

mod closing;
pub mod convert;
pub mod diagnostics;
pub mod dynamic;
pub mod graph;
pub mod inbox;
pub mod logging;
pub mod params;
pub mod qos;
pub mod runtime;
mod signals;
pub mod supervisor;
pub mod topics;

use std::{
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

pub use r2r::{builtin_interfaces, nav_msgs, sensor_msgs};

/// posthorn's message types; the comments in `msg/` are their specification.
pub mod msg {
    pub use r2r::posthorn::msg::*;
}

/// posthorn's service types; the comments in `srv/` are their specification.
pub mod srv {
    pub use r2r::posthorn::srv::*;
}

/// Locks a node's state. A poisoned lock is fine: each call of a core changes the state in one step, so a panic never
/// leaves it half changed.
pub fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does `work` on a thread of its own. Returns whether it ended within `patience`; if not, it goes on in the
/// background.
fn ends_within(patience: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    let (ended, wait) = mpsc::channel();
    thread::spawn(move || {
        work();
        // The caller may have given up waiting.
        let _ = ended.send(());
    });
    wait.recv_timeout(patience).is_ok()
}

/// The middleware rejected an operation, or a service did not answer.
#[derive(Debug, thiserror::Error)]
pub enum RosError {
    /// A node could not be created.
    #[error("node '{name}' could not be made: {source}")]
    Node {
        /// Name of the node.
        name: &'static str,
        /// r2r's error.
        source: r2r::Error,
    },
    /// A publisher, subscription, service or client could not be created.
    #[error("{what} '{name}' could not be made: {source}")]
    Create {
        /// The kind of thing, for example "publisher".
        what: &'static str,
        /// Name of the topic or service.
        name: String,
        /// r2r's error.
        source: r2r::Error,
    },
    /// A message could not be handed to the middleware.
    #[error("publishing on '{topic}' failed: {source}")]
    Publish {
        /// Name of the topic.
        topic: &'static str,
        /// r2r's error.
        source: r2r::Error,
    },
    /// A service did not answer in time, or the request failed.
    #[error("service '{service}' did not answer: {reason}")]
    Service {
        /// Name of the service.
        service: &'static str,
        /// r2r's error, or how long the client waited.
        reason: String,
    },
    /// A dynamic subscription could not be created.
    #[error("dynamic subscription to '{topic}' as {type_name} failed: {reason}")]
    Dynamic {
        /// Name of the topic; the node's name if the node itself could not be created.
        topic: String,
        /// Full name of the message type; "node" or "thread" if that could not be created.
        type_name: String,
        /// rclrs's error, or what is wrong with the message type.
        reason: String,
    },
}
