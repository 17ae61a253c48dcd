// SPDX-License-Identifier: Apache-2.0
//! The durable store: accepted mails and their settlement, outbound mails and their delivery.
//!
//! # What survives `kill -9` and power loss
//! - Mail: `Accepted -> Disposed* -> Settled`, disposed of by each consumer that it is for. `250` promises the client
//!   that a mail is accepted, so it is synced before the reply.
//! - Outbound mail: `Queued -> Deferred* -> Delivered | Failed`. Each state is synced before anybody is told.
//!
//! A mail is identified by its id, an outbound mail by its [`OutboundKey`]. Repetitions of either are recognized,
//! also after a restart, and also after its file was deleted while it is among the last `remembered`.
//!
//! # Files
//! One directory with one owner: `lock`, and segments `0000000001.log`, … of [`crate::record_log::RecordLog`].
//! Records are appended to the last segment. The oldest is retired once more than `keep_segments` precede the last
//! and little of it is still needed (see `docs/decisions/0025`): records still needed are appended again, a few at a
//! time between requests, the identities of the rest are remembered, and another thread deletes the file. Memory
//! holds an index; mails are read from disk, and their checksums verified, when they are published.
//!
//! A torn tail of the last segment was promised to nobody, so it is cut. Damage to synced records, in any segment, is
//! different: the journal does not open, and nothing is changed.
//!
//! # A full disk, a failed write
//! The journal takes no mail that would leave the disk less than `reserve_bytes`, which is kept for settlements,
//! outbound mails and attempts. If a write fails anyway, everything that was not synced is cut and forgotten, the
//! callers get an error, and the next request finds the journal usable again (see [`crate::record_log`]); settlements
//! and attempts are retried. A journal that cannot recover ends its thread, and the node ends with it.

pub mod index;
pub mod record;
#[cfg(feature = "net")]
mod segments;
#[cfg(feature = "net")]
mod store;
#[cfg(feature = "net")]
mod writer;

#[cfg(feature = "net")]
pub use index::Pending;
pub use record::{Attempt, OutboundKey, QueuedMail, Record, Remembered, SendState};
#[cfg(feature = "net")]
pub use store::{Accepted, Event, Journal, JournalError, NoRoom, Queued, Restored, Settings};
