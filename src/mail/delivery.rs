// SPDX-License-Identifier: Apache-2.0
//! How an outbound mail is doing, as `mail/deliveries` reports it.

use super::{MailId, OutboundKind, OutboundMail};

/// State of an outbound mail, numbered as in `DeliveryStatus.msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeliveryState {
    /// Not tried yet.
    Queued = 1,
    /// The receiving server took it, for every recipient.
    Delivered = 2,
    /// Failed for now, to be tried again.
    Deferred = 3,
    /// Failed for good for at least one recipient.
    Failed = 4,
    /// Not taken, so never on disk.
    Refused = 5,
}

/// Progress of an outbound mail, for `DeliveryStatus`. On disk before it is reported, unless the mail was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The mail that it answers; `None` if it answers none.
    pub answers: Option<MailId>,
    /// Kind of outbound mail.
    pub kind: OutboundKind,
    /// Message-ID that it is sent with.
    pub message_id: String,
    /// State that is reported.
    pub state: DeliveryState,
    /// Number of attempts so far.
    pub attempts: u32,
    /// Last reply or error, one line.
    pub reply: String,
}

impl Delivery {
    /// A report on this mail.
    pub fn of(mail: &OutboundMail, state: DeliveryState, attempts: u32, reply: String) -> Self {
        let OutboundMail { answers, kind, message_id, .. } = mail;
        Self { answers: *answers, kind: *kind, message_id: message_id.clone(), state, attempts, reply }
    }
}
