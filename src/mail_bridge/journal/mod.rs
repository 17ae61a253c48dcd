//! The durable store: accepted mails and their settlement, outbound mails and their delivery.
//!
//! # What survives `kill -9` and power loss
//! - Mail: `Accepted -> Settled`. Accepted is promised to the client by `250`, so it is synced before.
//! - Outbound mail: `Queued -> Deferred* -> Delivered | Failed`. Each is synced before it is told to anybody.
//!
//! A mail is known by its id and an outbound mail by its [`OutboundKey`]; a second one of either is told apart also
//! after a restart, and after its file was deleted as long as it is among the last `remembered`.
//!
//! # Files
//! One directory with one owner: `lock`, and segments `0000000001.log`, … of [`crate::record_log::RecordLog`].
//! Records are appended to the last one. The oldest is retired when more than `keep_segments` precede the last and at
//! most half of it is still needed: what is needed is appended anew, the identities of the rest are remembered, and
//! the file is deleted. Memory holds an index; the bytes of mails are read from disk when they are published.
//!
//! A torn tail of the last segment was promised to nobody: it is cut. Damage to what was synced, in any segment, is told
//! apart from it: the journal is not opened, and nothing is changed.
//!
//! # After a failed write
//! The journal refuses everything until the node is restarted; clients get 451.

pub mod index;
pub mod record;
#[cfg(feature = "net")]
mod segments;
#[cfg(feature = "net")]
mod store;
#[cfg(feature = "net")]
mod writer;

pub use record::{Attempt, OutboundKey, Record, SendState};
#[cfg(feature = "net")]
pub use store::{Accepted, Event, Journal, JournalError, Queued, Restored, Settings};
