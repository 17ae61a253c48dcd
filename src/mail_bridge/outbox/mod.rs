// SPDX-License-Identifier: Apache-2.0
//! The outbox: composes outbound mails, hands them to the smart host, retries, and reports what became of them.
//!
//! # What it guarantees
//! `Queued -> Deferred* -> Delivered | Failed`, each on disk before it is reported. After a crash between the smart
//! host's 250 and its record, or a connection lost before that 250, the mail is sent again with the same Message-ID,
//! perhaps to another smart host: recipients may get it twice, but the outbox never sends two different answers. `Refused` is reported for a mail that was not taken; it is never on
//! disk.
//!
//! Mails are sent in parallel, so their order is not kept. They go to the first smart host that is not away; one that is
//! away is probed instead of being tried with each mail. Final delivery is left to the smart host.
//!
//! Envelope sender: answers and notices go out with the null reverse-path, which RFC 3834 section 3.3 allows, so that
//! nothing answers them and no bounce comes back as a mail. Forwards go out with their From address.

#[cfg(feature = "net")]
mod attempt;
#[cfg(feature = "net")]
mod compose;
pub mod core;
#[cfg(feature = "net")]
mod dkim;
#[cfg(feature = "net")]
mod forward;
pub mod host;
pub mod hosts;
#[cfg(feature = "net")]
mod relay;
pub mod schedule;
#[cfg(feature = "net")]
mod sender;

#[cfg(feature = "net")]
pub use compose::{ComposeContext, Composed, Invalid, check, compose, message_id};
#[cfg(feature = "net")]
pub use dkim::KeyError;
#[cfg(feature = "net")]
pub use forward::Original;
#[cfg(feature = "net")]
pub use relay::{NoPassword, RelayError};
#[cfg(feature = "net")]
pub use sender::Sender;

use mail::DeliveryState;

use super::journal::SendState;

impl From<SendState> for DeliveryState {
    fn from(state: SendState) -> Self {
        match state {
            SendState::Queued => Self::Queued,
            SendState::Delivered => Self::Delivered,
            SendState::Deferred => Self::Deferred,
            SendState::Failed => Self::Failed,
        }
    }
}
