// SPDX-License-Identifier: Apache-2.0
//! Reads mailboxes: a task for each folder fetches what is new into the journal, for ever.
//!
//! # What it guarantees
//! - A message that was there or came is journaled, or counted as skipped and named in the log; see [`progress`].
//! - No task waits for another account's server, and none has more than its share of memory and connections.
//! - Without a wish to the contrary nothing on the server changes: folders are opened read-only.
//!
//! The protocol is left to the crate `imap`; which mails are published when, to the window.

pub mod accounts;
#[cfg(feature = "net")]
mod batches;
#[cfg(feature = "net")]
mod error;
#[cfg(feature = "net")]
mod fetching;
#[cfg(feature = "net")]
mod folder;
#[cfg(feature = "net")]
mod intake;
#[cfg(feature = "net")]
mod mailboxes;
#[cfg(feature = "net")]
mod marking;
#[cfg(feature = "net")]
mod progress;
#[cfg(feature = "net")]
mod secret;
pub mod status;
#[cfg(feature = "net")]
mod trial;
#[cfg(feature = "net")]
mod trouble;

#[cfg(feature = "net")]
pub use mailboxes::{Board, ImapStartError};
#[cfg(feature = "net")]
pub(crate) use mailboxes::{Mailboxes, Shared, mailboxes, start};
#[cfg(feature = "net")]
pub use progress::ProgressError;
#[cfg(feature = "net")]
pub(crate) use trial::trial;
#[cfg(feature = "net")]
pub use trial::{Trial, TriedFolder};
