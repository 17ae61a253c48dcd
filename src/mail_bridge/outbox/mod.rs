//! Outbound mails: composed, handed to the smart host, tried again, reported.
//!
//! # What is promised
//! `Queued -> Deferred* -> Delivered | Failed`, each on disk before it is reported. After a crash between the smart
//! host's 250 and the record of it, the mail is sent again with the same Message-ID: the smart host may get it twice,
//! the outbox never sends two different answers. `Refused` is told of a mail that is not taken; it is on no disk.
//!
//! Mails go out side by side, so that their order is not kept, and a host that is away is probed rather than tried with
//! each mail.
//!
//! Envelope sender: an answer goes out with the null reverse-path, which RFC 3834 section 3.3 allows so that nothing
//! answers it and no bounce comes back as a mail; a forward with the From address.

#[cfg(feature = "net")]
mod attempt;
#[cfg(feature = "net")]
pub mod client;
#[cfg(feature = "net")]
mod compose;
#[cfg(feature = "net")]
mod forward;
pub mod host;
pub mod schedule;
#[cfg(feature = "net")]
mod sender;

#[cfg(feature = "net")]
pub use compose::{Accepts, Composed, Invalid, Post, check, compose, message_id};
#[cfg(feature = "net")]
pub use forward::Original;
#[cfg(feature = "net")]
pub use sender::Sender;

use super::journal::SendState;
use crate::mail::{MailId, OutboundKind, OutboundMail};

/// State of an outbound mail. Numbers are those of `DeliveryStatus.msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeliveryState {
    /// Not tried yet.
    Queued = 1,
    /// The receiving server has it, for every recipient.
    Delivered = 2,
    /// To be tried again.
    Deferred = 3,
    /// Failed for good, at least for one recipient.
    Failed = 4,
    /// Not taken.
    Refused = 5,
}

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

/// How an outbound mail fares, for `DeliveryStatus`. On disk before it is told, unless it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The mail that it answers, if it does.
    pub answers: Option<MailId>,
    /// Why it is sent.
    pub kind: OutboundKind,
    /// The Message-ID that it is sent with.
    pub message_id: String,
    /// Its state.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: u32,
    /// Last reply or error, one line.
    pub reply: String,
}

impl Delivery {
    /// How this mail fares.
    pub fn of(mail: &OutboundMail, state: DeliveryState, attempts: u32, reply: String) -> Self {
        let OutboundMail { answers, kind, message_id, .. } = mail;
        Self { answers: *answers, kind: *kind, message_id: message_id.clone(), state, attempts, reply }
    }
}
