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
//! Records are appended to the last one. The oldest is retired as soon as more than `keep_segments` precede the last and
//! little of it is still needed (see `docs/decisions/0025`): what is needed is appended anew, a little at a time between
//! requests, the identities of the rest are remembered, and another thread deletes the file.
//! Memory holds an index; the bytes of mails are read from disk, and checked, when they are published.
//!
//! A torn tail of the last segment was promised to nobody: it is cut. Damage to what was synced, in any segment, is told
//! apart from it: the journal is not opened, and nothing is changed.
//!
//! # A full disk, a failed write
//! No mail is taken that would leave the disk less than `reserve_bytes`, which settlements, outbound mails and attempts may
//! use. When a write fails all the same, what was not synced is cut and forgotten, whoever asked for it is told, and the
//! next request finds the journal usable again (see [`crate::record_log`]); settlements and attempts are tried again. A
//! journal that cannot recover ends its thread, and the node ends with it.

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
pub use store::{Accepted, Event, Journal, JournalError, NoRoom, Queued, Restored, Settings};
