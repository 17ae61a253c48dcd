//! The mail bridge: SMTP and LMTP in, the journal, the window of unsettled mails, the outbox.
//!
//! # What is promised
//! - `250` to DATA MUST mean that the mail is on disk and synced (contract 2); see [`journal`].
//! - A mail is published, again and again with back-off, until a disposition settles it (contract 3); see [`core`].
//! - One outbound mail per (mail answered, kind), across restarts (contract 4); see [`journal`].
//! - Hostile input costs bounded memory and time and yields a clear refusal (contract 7); see [`session`].
//!
//! # Layout, in reading order
//! - [`params`]: every parameter, its default and its rules. Pure.
//! - [`session`]: one SMTP or LMTP session, bytes in, replies and mails out. Pure.
//! - `server`: sockets, timers and limits around sessions.
//! - [`journal`]: durable states of mails and outbound mails; segmented files, group commit.
//! - [`core`]: which mail is published when, and what settles it. Pure.
//! - [`outbox`]: composing, the retry schedule (pure), the SMTP client.
//! - [`health`]: what `/diagnostics` says. Pure.
//! - `bridge`: all of it put together, without ROS.
//!
//! What it does not do: TLS and AUTH (the gateway in front does), relaying (every recipient is taken, for the graph
//! and nobody else), IMAP.

#[cfg(feature = "net")]
pub mod bridge;
pub mod core;
#[cfg(feature = "net")]
mod guests;
pub mod health;
pub mod journal;
#[cfg(feature = "ros")]
pub mod node;
pub mod outbox;
pub mod params;
#[cfg(feature = "net")]
pub mod server;
pub mod session;
