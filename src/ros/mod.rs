//! The ROS layer: the only importer of r2r and rclrs, so that moving to another client library is moving this folder.
//!
//! - [`topics`]: every topic and service as one constant; [`qos`]: the named QoS profiles.
//! - [`graph`]: publishers, subscriptions, services and clients of one node.
//! - [`runtime`]: `main` of a node: arguments, parameters, logs, drain, the exit code; `signals`: what begins the drain.
//! - [`diagnostics`], [`logging`], [`params`]: `/diagnostics`, `/rosout` and parameter services.
//! - [`dynamic`]: subscriptions to any installed message type by name, through rclrs.
//! - [`convert`]: domain types to messages and back; [`msg`] and [`srv`] are the messages.

pub mod convert;
pub mod diagnostics;
pub mod dynamic;
pub mod graph;
pub mod logging;
pub mod params;
pub mod qos;
pub mod runtime;
mod signals;
pub mod topics;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use r2r::{builtin_interfaces, nav_msgs, sensor_msgs};

/// posthorn's messages; their comments in `msg/` are the specification.
pub mod msg {
    pub use r2r::posthorn::msg::*;
}

/// posthorn's services; their comments in `srv/` are the specification.
pub mod srv {
    pub use r2r::posthorn::srv::*;
}

/// Locks a node's state, which is whole after any panic: each call of a core changes it in one step.
pub(crate) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the middleware refuses.
#[derive(Debug, thiserror::Error)]
pub enum RosError {
    /// A node could not be made.
    #[error("node '{name}' could not be made: {source}")]
    Node {
        /// The node.
        name: &'static str,
        /// r2r's word.
        source: r2r::Error,
    },
    /// A publisher, subscription, service or client could not be made.
    #[error("{what} '{name}' could not be made: {source}")]
    Create {
        /// What it is.
        what: &'static str,
        /// Its topic or service.
        name: String,
        /// r2r's word.
        source: r2r::Error,
    },
    /// A message could not be handed to the middleware.
    #[error("publishing on '{topic}' failed: {source}")]
    Publish {
        /// The topic.
        topic: &'static str,
        /// r2r's word.
        source: r2r::Error,
    },
    /// The thread that takes messages from the middleware is gone.
    #[error("the spinning thread ended: the node hears nothing more")]
    SpinEnded,
    /// A service did not answer.
    #[error("service '{service}' did not answer: {reason}")]
    Service {
        /// The service.
        service: &'static str,
        /// What happened.
        reason: String,
    },
    /// A dynamic subscription could not be made.
    #[error("dynamic subscription to '{topic}' as {type_name} failed: {reason}")]
    Dynamic {
        /// The topic.
        topic: String,
        /// The message type.
        type_name: String,
        /// rclrs's word.
        reason: String,
    },
}
