// SPDX-License-Identifier: Apache-2.0
//! The actions that the decisions lead to. Pure.

use std::{sync::Arc, time::Duration};

use mail::{Action, Disposition, Mail, MailId, OutboundMail, Verdict};
use vehicle::VehicleCommand;

use super::{compose, orders::Entry};

/// Name of all replicas together, as in the parameter `consumers` of mail_bridge.
pub(super) const CONSUMER: &str = "chatbot";

/// A mail and what the authenticator says about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// The mail.
    pub mail: Mail,
    /// Its verdict.
    pub verdict: Verdict,
}

/// An action for the node to take, in the order given. None depends on the success of another; what follows from that
/// of a `Write` is decided when it is reported.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Do a job on this mail, then report how it ended, whatever happens.
    Start(MailId, Job),
    /// Write these states of orders to disk and report whether that worked, before the next effect.
    Write(Vec<Entry>),
    /// Sign and publish the order.
    Command(VehicleCommand),
    /// End the mail.
    Conclude(Conclusion),
    /// Publish a mail that answers none.
    Notify(OutboundMail),
    /// Have these orders recorded on the evidence ledger, then report whether they are on its disk.
    Record(Vec<Entry>),
}

/// Work on one mail that takes time.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Read what it asks for.
    Interpret(Arc<Delivered>),
    /// Ask vehicle_router for states.
    AskStates {
        /// `GetState.vehicle` of the request; empty for all vehicles.
        vehicle: String,
        /// How long to wait before asking.
        after: Duration,
    },
}

/// The end of a mail: what is sent on its account, and its disposition.
///
/// The disposition MUST be published only after all of the mails were. A failure or a crash in between then repeats
/// mails, of which the outbox takes only the first, and loses none.
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    /// Answer and forward, as far as there are any.
    pub mails: Vec<OutboundMail>,
    /// Tells mail_bridge not to deliver the mail again.
    pub disposition: Disposition,
}

impl Conclusion {
    /// Sends `mails`, and disposes of the mail with this id.
    pub(super) fn new(mails: Vec<OutboundMail>, mail_id: MailId, action: Action, reason: &str) -> Self {
        let consumer = CONSUMER.to_owned();
        let disposition = Disposition { mail_id, consumer, action, reason: compose::reason(reason) };
        Self { mails, disposition }
    }

    /// Disposes of the mail with this id, and sends nothing.
    pub(super) fn silent(mail_id: MailId, action: Action, reason: &str) -> Self {
        Self::new(Vec::new(), mail_id, action, reason)
    }
}
