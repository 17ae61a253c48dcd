//! posthorn: email as one more sensor stream of a ROS 2 fleet.
//!
//! # Layout, in reading order
//! - [`mail`]: what a mail, a verdict and an answer are; the types that two nodes share. Pure.
//! - [`vehicle`]: what a vehicle's state, an order and an alert are; the types that three nodes share. Pure.
//! - [`params`]: how a node's parameters are described, defaulted and validated. Pure.
//! - [`health`]: what a node says of itself on `/diagnostics`. Pure.
//! - [`fair_queue`]: which mail goes next, so that no domain or peer holds up another. Pure.
//! - [`secret`]: a key in a file that only its owner can read.
//! - [`record_log`]: an append-only file that survives `kill -9`; the journal and the evidence log are made of it.
//! - [`mail_bridge`]: SMTP and LMTP in, the journal, the window of unsettled mails, the outbox.
//! - [`authenticator`]: SPF, DKIM, DMARC, the registry contract, the evidence ledger.
//! - [`vehicle_router`]: any vehicle topic in, the latest state of each vehicle out.
//! - [`chatbot`]: what a mail asks for, and the answer from live vehicle data.
//! - [`fleet_simulator`]: a few vehicles with plausible motion and batteries.
//! - `ros` (feature `ros`): the only importer of r2r and rclrs; topics, QoS, parameters, diagnostics, the run loop.
//!
//! In every node `core.rs` decides and does no IO; `node.rs` does IO and decides nothing. Feature `net` adds the
//! parts that talk to the network, feature `ros` (default) the nodes; without both, the pure core is left.

pub mod authenticator;
pub mod chatbot;
pub mod fair_queue;
pub mod fleet_simulator;
pub mod health;
pub mod mail;
pub mod mail_bridge;
pub mod params;
pub mod record_log;
#[cfg(feature = "ros")]
pub mod ros;
pub mod secret;
pub mod vehicle;
pub mod vehicle_router;
