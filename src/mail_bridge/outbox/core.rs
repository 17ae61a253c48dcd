// SPDX-License-Identifier: Apache-2.0
//! Decides what the outbox does next: which mail it tries with which smart host, when it probes one, and what the end of
//! either means. Pure.
//!
//! # Invariants
//! - A mail is tried by one attempt at a time, with the first host that is not away, and no more attempts run with a host
//!   than it has places.
//! - A mail that finds a host away goes on to the next; that is one attempt, whose outcome is the last host's.
//! - While all hosts are away no mail is tried. While mails wait, a host before the one in use is probed, by one probe at a
//!   time; once it is greeted, the waiting mails go out, one mail first. A mail whose dialogue broke keeps its back-off.
//! - Each attempt and each mail that cannot be sent is concluded once; a mail that is delivered or failed is not tried
//!   again.
//!
//! [`Hosts`] knows which smart host is reachable, [`Schedule`] when a mail is due. Time is an argument: the time
//! since the node started. Connections, journal and reports are left to the sender.

use std::{collections::HashMap, time::Duration};

use smtp::client::Outcome;

use super::{
    hosts::{Contact, Hosts},
    schedule::Schedule,
};
use crate::{
    health,
    journal::{Attempt, OutboundKey, SendState},
};

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
    /// The probe of this host was greeted.
    Greeted(usize),
    /// A probe failed.
    Unanswered {
        /// The host that was probed.
        host: usize,
        /// Why it failed.
        reply: String,
        /// Whether the host refused name and password.
        login_refused: bool,
    },
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
        /// The host to send it to, by its place in the order.
        host: usize,
    },
    /// Connect to this host, then report [`Input::Greeted`] or [`Input::Unanswered`].
    Probe(usize),
    /// Write this to the journal, then report it.
    Conclude(Attempt),
    /// Close the connections that are kept open: nothing needs them now.
    CloseIdle,
}

/// Every outbound mail that is neither delivered nor failed, and the hosts that are to take them.
#[derive(Debug)]
pub struct Core {
    hosts: Hosts,
    schedule: Schedule,
    /// Mails being tried, with the host.
    trying: HashMap<OutboundKey, usize>,
    stopped: bool,
    figures: health::Outbox,
}

impl Core {
    /// A core that has started nothing yet.
    pub fn new(hosts: Hosts, schedule: Schedule) -> Self {
        Self { hosts, schedule, trying: HashMap::new(), stopped: false, figures: health::Outbox::default() }
    }

    /// Applies an input and returns what to do now, in this order.
    pub fn step(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        let was_busy = self.hosts.under_way() > 0;
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
                if let Some(host) = self.trying.remove(&key) {
                    self.hosts.ended(host, contact, &outcome.reply, now);
                    self.tried(key, recipients, outcome, (host, contact), now, &mut effects);
                }
            }
            Input::NotTried(key) => {
                if let Some(host) = self.trying.remove(&key) {
                    self.hosts.ended(host, Contact::None, "", now);
                    self.schedule.put_off(key, now);
                }
            }
            Input::Greeted(host) => {
                self.hosts.greeted(host);
                self.schedule.flush(now);
            }
            Input::Unanswered { host, reply, login_refused } => {
                self.hosts.unanswered(host, &reply, login_refused, now);
                if self.hosts.chosen().is_none() {
                    self.figures.failures_in_a_row = self.figures.failures_in_a_row.saturating_add(1);
                }
                if self.hosts.are_lost() {
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
        if was_busy && self.hosts.under_way() == 0 {
            effects.push(Effect::CloseIdle);
        }
        effects
    }

    /// When the next `Tick` is needed; `None` if only another input can make something possible.
    pub fn next_wakeup(&self) -> Option<Duration> {
        if self.stopped {
            return None;
        }
        let probe = self.hosts.next_probe().filter(|_| self.schedule.pending() > 0);
        let mail = self.schedule.next_wakeup().filter(|_| self.hosts.free().is_some());
        probe.into_iter().chain(mail).min()
    }

    /// The figures to report.
    pub fn figures(&self) -> health::Outbox {
        health::Outbox {
            pending: self.schedule.pending(),
            away: self.hosts.why_away(),
            falls_back: self.hosts.chosen().is_some_and(|chosen| chosen > 0),
            ..self.figures.clone()
        }
    }

    /// Applies the end of an attempt. Only a host further down is tried within the same attempt, so that it ends.
    fn tried(
        &mut self,
        key: OutboundKey,
        recipients: usize,
        outcome: Outcome,
        (host, contact): (usize, Contact),
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let next = self.hosts.chosen().filter(|_| contact.is_away());
        if next.is_some_and(|next| next > host) {
            self.schedule.again(key, contact.has_broken(), now);
            return;
        }
        let attempt = self.schedule.tried(key, recipients, outcome, contact.is_unreached(), now);
        self.conclude(attempt, effects);
        if next.is_some() {
            self.schedule.flush(now);
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

    /// Starts the attempts that are due, as far as the host in use has free places, and the probes that are due.
    fn start(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        while let Some(host) = self.hosts.free()
            && let Some((key, open)) = self.schedule.next(now)
        {
            self.schedule.start(key);
            self.hosts.start(host);
            self.trying.insert(key, host);
            effects.push(Effect::Try { key, open, host });
        }
        while self.schedule.pending() > 0
            && let Some(host) = self.hosts.start_probe(now)
        {
            effects.push(Effect::Probe(host));
        }
    }
}

#[cfg(test)]
mod tests;
