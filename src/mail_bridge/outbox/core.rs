// SPDX-License-Identifier: Apache-2.0
//! Decides what the outbox does next: which mail it tries, when it probes the smart host, and what the end of either
//! means. Pure.
//!
//! # Invariants
//! - A mail is tried by one attempt at a time, and no more attempts run than [`Host::places`] allows.
//! - While the host is away no mail is tried. If mails wait, it is probed, by one probe at a time; once it is greeted,
//!   the waiting mails go out, one mail first.
//! - Each attempt and each mail that cannot be sent is concluded once; a mail that is delivered or failed is not tried
//!   again.
//!
//! [`Host`] knows whether the smart host is reachable, [`Schedule`] when a mail is due. Time is an argument: the time
//! since the node started. Connections, journal and reports are left to the sender.

use std::{collections::HashSet, time::Duration};

use smtp::client::Outcome;

use super::{host::Host, schedule::Schedule};
use crate::{
    health,
    journal::{Attempt, OutboundKey, SendState},
};

/// What an attempt reveals about the smart host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// The dialogue ran to its end.
    Worked,
    /// No connection, or it was lost before the whole mail was written.
    Away,
    /// The connection was lost after the whole mail was written.
    LostAfterData,
    /// The smart host was not contacted.
    None,
}

/// An event that changes what is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A mail is new on disk.
    Queued {
        /// Identity of the mail.
        key: OutboundKey,
        /// Its number of recipients.
        recipients: usize,
        /// Why it can never be sent; `None` if it can.
        invalid: Option<String>,
    },
    /// An attempt has ended.
    Tried {
        /// The mail that was tried.
        key: OutboundKey,
        /// Its number of recipients.
        recipients: usize,
        /// What became of each recipient.
        outcome: Outcome,
        /// What the attempt says about the host.
        contact: Contact,
    },
    /// An attempt has ended without a try: the mail cannot be read, or the attempt panicked.
    NotTried(OutboundKey),
    /// The probe was greeted.
    Greeted,
    /// The probe failed, for this reason.
    Unanswered(String),
    /// Time passed.
    Tick,
    /// The node is about to end: start nothing more.
    Stop,
}

/// An action for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Try to send this mail, then report [`Input::Tried`] or [`Input::NotTried`].
    Try {
        /// Identity of the mail.
        key: OutboundKey,
        /// Recipients still to try.
        open: u128,
    },
    /// Connect to the host, then report [`Input::Greeted`] or [`Input::Unanswered`].
    Probe,
    /// Write this to the journal, then report it.
    Conclude(Attempt),
    /// Close the connections that are kept open: nothing needs them now.
    CloseIdle,
}

/// Every outbound mail that is neither delivered nor failed, and the host that is to take them.
#[derive(Debug)]
pub struct Core {
    host: Host,
    schedule: Schedule,
    trying: HashSet<OutboundKey>,
    probing: bool,
    stopped: bool,
    figures: health::Outbox,
}

impl Core {
    /// A core that has started nothing yet.
    pub fn new(host: Host, schedule: Schedule) -> Self {
        Self {
            host,
            schedule,
            trying: HashSet::new(),
            probing: false,
            stopped: false,
            figures: health::Outbox::default(),
        }
    }

    /// Applies an input and returns what to do now, in this order.
    pub fn step(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        let was_busy = self.under_way() > 0;
        match input {
            Input::Queued { key, recipients, invalid } => {
                self.schedule.add(key, Duration::ZERO, None, now);
                // Report at once what can never be sent, even while the host is away.
                if let Some(reply) = invalid {
                    let outcome = Outcome { delivered: 0, refused: u128::MAX, reply };
                    let attempt = self.schedule.tried(key, recipients, outcome, false, now);
                    self.conclude(attempt, &mut effects);
                }
            }
            Input::Tried { key, recipients, outcome, contact } => {
                if self.trying.remove(&key) {
                    self.heard(contact, now);
                    let away = contact == Contact::Away;
                    let attempt = self.schedule.tried(key, recipients, outcome, away, now);
                    self.conclude(attempt, &mut effects);
                }
            }
            Input::NotTried(key) => {
                if self.trying.remove(&key) {
                    self.schedule.put_off(key, now);
                }
            }
            Input::Greeted => {
                self.probing = false;
                self.host.greeted();
                self.schedule.flush(now);
            }
            Input::Unanswered(reply) => {
                self.probing = false;
                self.host.failed(now);
                self.figures.failures_in_a_row = self.figures.failures_in_a_row.saturating_add(1);
                if self.host.lost() {
                    let expired = self.schedule.expire(&reply, now);
                    self.conclude(expired, &mut effects);
                }
            }
            Input::Tick => {}
            Input::Stop => self.stopped = true,
        }
        if !self.stopped {
            self.start(now, &mut effects);
        }
        if was_busy && self.under_way() == 0 {
            effects.push(Effect::CloseIdle);
        }
        effects
    }

    /// When the next `Tick` is needed; `None` if only another input can make something possible.
    pub fn next_wakeup(&self) -> Option<Duration> {
        if self.stopped {
            return None;
        }
        match self.host.probe_due() {
            Some(probe) => Some(probe).filter(|_| self.wants_probe()),
            None => self.schedule.next_wakeup().filter(|_| self.has_place()),
        }
    }

    /// The figures to report.
    pub fn figures(&self) -> health::Outbox {
        health::Outbox { pending: self.schedule.pending(), ..self.figures.clone() }
    }

    fn heard(&mut self, contact: Contact, now: Duration) {
        match contact {
            Contact::Worked => self.host.worked(),
            Contact::Away | Contact::LostAfterData => self.host.failed(now),
            Contact::None => {}
        }
    }

    fn conclude(&mut self, attempts: impl IntoIterator<Item = Attempt>, effects: &mut Vec<Effect>) {
        let figures = &mut self.figures;
        for attempt in attempts {
            if attempt.state == SendState::Delivered {
                figures.delivered = figures.delivered.saturating_add(1);
                figures.failures_in_a_row = 0;
            } else {
                let has_failed = attempt.state == SendState::Failed;
                figures.failed = figures.failed.saturating_add(u64::from(has_failed));
                figures.failures_in_a_row = figures.failures_in_a_row.saturating_add(1);
            }
            effects.push(Effect::Conclude(attempt));
        }
    }

    /// Starts the attempts that are due, as far as the host has free places, and a probe if one is due.
    fn start(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        while self.has_place()
            && let Some((key, open)) = self.schedule.next(now)
        {
            self.schedule.start(key);
            self.trying.insert(key);
            effects.push(Effect::Try { key, open });
        }
        if self.wants_probe() && self.host.probe_due().is_some_and(|probe| probe <= now) {
            self.probing = true;
            effects.push(Effect::Probe);
        }
    }

    /// Attempts and probes under way.
    fn under_way(&self) -> usize {
        self.trying.len().saturating_add(usize::from(self.probing))
    }

    fn has_place(&self) -> bool {
        self.under_way() < self.host.places()
    }

    fn wants_probe(&self) -> bool {
        !self.probing && self.schedule.pending() > 0
    }
}

#[cfg(test)]
mod tests;
