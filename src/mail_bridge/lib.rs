// SPDX-License-Identifier: Apache-2.0
//! The mail bridge: SMTP, LMTP and IMAP in, the journal, the window of unsettled mails, the outbox.
//!
//! # What it guarantees
//! - `250` to DATA MUST mean that the mail is on disk and synced; see [`journal`].
//! - A mail is published, again and again with back-off, until each of its consumers has disposed of it; see
//!   [`window`].
//! - There is one outbound mail per (mail answered, kind), across restarts; see [`journal`].
//! - Hostile input costs bounded memory and time and gets a clear refusal; see [`smtp::session`].
//!
//! # Layout, in reading order
//! - [`params`]: every parameter, its default and its rules. Pure.
//! - `server`: sockets, timers and limits around the sessions of [`smtp`].
//! - [`networks`]: which clients are meant. Pure.
//! - `users`: checks the passwords of own devices.
//! - [`imap`]: mailboxes on other servers, a task for each folder.
//! - [`consumers`]: decides whose a mail is. Pure.
//! - [`journal`]: durable states of mails and outbound mails; segmented files, group commit.
//! - [`window`]: which mail is published when, and what settles it. Pure.
//! - [`outbox`]: composing, the retry schedule (pure), the task that sends.
//! - [`health`]: the bridge's statuses on `/diagnostics`. Pure.
//! - `bridge`: everything put together, without ROS.
//!
//! It does not relay: what it accepts is only for the graph.

#[cfg(feature = "net")]
pub mod bridge;
#[cfg(feature = "net")]
mod budget;
pub mod consumers;
#[cfg(feature = "net")]
mod guests;
pub mod health;
pub mod imap;
pub mod journal;
pub mod networks;
#[cfg(feature = "ros")]
pub mod node;
pub mod outbox;
pub mod params;
#[cfg(feature = "net")]
pub mod server;
#[cfg(feature = "net")]
pub mod users;
pub mod window;
