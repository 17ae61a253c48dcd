// SPDX-License-Identifier: Apache-2.0
//! Carries an order from permission to outcome: publishes it until the vehicle acknowledges it or time runs out, then
//! tells its sender the outcome, once. Pure except for [`store`].
//!
//! # Guarantees
//! - An order older than the newest one published for its vehicle is not published, and an overtaken order is not
//!   published again: a resume never overrides a later stop. At the same moment, a stop wins.
//! - While the disk works, an order is on disk before it is published, and its outcome before its sender is answered.
//!   If the disk fails, stops are published all the same (see [`Orders::begin`]). A mail that comes again, even after a
//!   crash, is the same order: it is published again while the outcome is open, and answered in the same way once it is
//!   known.
//! - Every order that is published is recorded on the evidence ledger, and waits for that in nothing (see [`ledger`]).
//! - A mail is disposed of only with the outcome of its order. A person gets an urgent copy of every order that is not
//!   carried out.

mod book;
mod entry;
mod health;
pub mod ledger;
pub mod store;
mod wording;

pub use book::Book;
pub use entry::{Entry, State};

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Params,
    compose::{self, Copy, ReceivedMail},
    describe::span,
    effect::{Conclusion, Effect},
};
use ledger::Ledger;
use mail::{Action, MailId};
use vehicle::{Acknowledgement, AcknowledgementStatus, Command, VehicleCommand};
use wording::Outcome;

/// Most mails whose orders wait for vehicles at once. Further ones are left, and come again.
const MAX_WAITING: usize = 1000;
/// How far ahead a resume may be dated. This allows for a wrong clock, not for scheduled orders. A stop may be dated as
/// far ahead as it may be old.
const MAX_AHEAD: Duration = Duration::from_secs(120);

/// The time on two clocks: one that can be set, and one that cannot.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Wall clock, to compare with the dates of mails.
    pub clock: SystemTime,
    /// Monotonic clock, for timeouts.
    pub steady: Instant,
}

/// An order that its sender may give, to a known vehicle.
#[derive(Clone, Debug, PartialEq)]
pub struct Ordered {
    pub(super) received: ReceivedMail,
    /// The order, not signed yet.
    pub(super) order: VehicleCommand,
    /// When the mail was received; its Date if that is earlier.
    pub(super) since: SystemTime,
    /// Last known state of the vehicle, as text for the answer; may be empty.
    pub(super) state: String,
}

/// The decision of [`Orders::consider`].
#[derive(Clone, Debug, PartialEq)]
pub enum Consideration {
    /// Do not begin the order; end the mail.
    Conclude(Conclusion),
    /// Write this to disk, then call [`Orders::begin`].
    Write(Entry),
    /// Do nothing: the mail waits already, or too many do.
    Leave,
}

/// An order that is being published until its vehicle acknowledges it.
#[derive(Clone, Debug)]
struct Flight {
    order: VehicleCommand,
    /// When to publish the order again.
    next: Instant,
    /// A subscriber to orders was seen since this order, or one that it replaced, was first published.
    heard: bool,
    /// Mails that wait for the outcome: that of this order, and earlier ones with the same command. Never empty.
    waiting: Vec<Waiting>,
}

#[derive(Clone, Debug)]
struct Waiting {
    ordered: Ordered,
    until: Instant,
}

/// The orders in progress, and what is remembered of earlier ones.
#[derive(Clone, Debug)]
pub struct Orders {
    params: Params,
    book: Book,
    /// The order in progress for each vehicle.
    flights: BTreeMap<String, Flight>,
    accepted: u64,
    refused: u64,
    unheard: u64,
    last_was_heard: bool,
    ledger: Ledger,
}

impl Orders {
    /// Continues from the orders that were read from disk.
    pub fn new(params: Params, book: Book, now: Instant) -> Self {
        Self {
            params,
            ledger: Ledger::of(&book, now),
            book,
            flights: BTreeMap::new(),
            accepted: 0,
            refused: 0,
            unheard: 0,
            last_was_heard: true,
        }
    }

    /// The orders that must be kept on disk.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Whether this mail waits for a vehicle, so that there is nothing to do when it comes again.
    pub fn is_waiting(&self, mail: MailId) -> bool {
        self.waiting().any(|waiting| waiting.ordered.received.id == mail)
    }

    fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.flights.values().flat_map(|flight| &flight.waiting)
    }

    /// When to call [`Orders::due`] and [`Orders::begin_recording`] next; `None` if no order is in progress or waits
    /// for the ledger.
    pub fn next_due(&self) -> Option<Instant> {
        let of_flight = |flight: &Flight| {
            let until = flight.waiting.iter().map(|waiting| waiting.until);
            until.chain([flight.next]).min()
        };
        self.flights.values().filter_map(of_flight).chain(self.ledger.next()).min()
    }

    /// Decides whether to begin an order, or with which outcome to answer it.
    pub fn consider(&mut self, ordered: &Ordered, now: Now) -> Consideration {
        let Ordered { received, order, .. } = ordered;
        if self.is_waiting(received.id) {
            return Consideration::Leave;
        }
        let known = self.book.find(&order.vehicle, &order.command_id).cloned();
        let outcome = match known {
            Some(known) if known.precedence() != order.precedence() => Some(Outcome::Reused),
            Some(known) => match known.state {
                State::Accepted => Some(Outcome::Accepted),
                State::Refused => Some(Outcome::Refused(known.reason)),
                State::Unheard => Some(Outcome::Unheard { heard: true }),
                State::Overtaken => Some(Outcome::Overtaken),
                State::Sent if self.overtaker(order).is_some() => Some(Outcome::Overtaken),
                State::Sent if self.untimely(ordered, now.clock).is_some() => Some(Outcome::Interrupted),
                State::Sent => None,
            },
            None => self.untimely(ordered, now.clock).or_else(|| self.overtaker(order)),
        };
        match outcome {
            Some(outcome) => Consideration::Conclude(self.tell(ordered, &outcome)),
            None if self.waiting().count() >= MAX_WAITING => Consideration::Leave,
            None => Consideration::Write(self.entry_of(ordered)),
        }
    }

    /// What is remembered of an order that is about to be published.
    fn entry_of(&self, Ordered { received, order, .. }: &Ordered) -> Entry {
        let known = self.book.find(&order.vehicle, &order.command_id);
        let on_ledger = known.is_some_and(|known| known.on_ledger && known.mail_id == order.mail_id);
        Entry { on_ledger, ..Entry::new(order, received.message_id()) }
    }

    /// The outcome if the order is too old to send, or dated too far ahead.
    fn untimely(&self, ordered: &Ordered, now: SystemTime) -> Option<Outcome> {
        let age = now.duration_since(ordered.since).unwrap_or_default();
        let ahead = ordered.order.ordered_at.duration_since(now).unwrap_or_default();
        let bound = self.params.give_up_after;
        let may_be_ahead = match ordered.order.command {
            Command::Stop => bound,
            Command::Resume => MAX_AHEAD.min(bound),
        };
        match () {
            () if age > bound => Some(Outcome::Late { age, bound }),
            () if ahead > may_be_ahead => Some(Outcome::Ahead(ahead)),
            () => None,
        }
    }

    /// The outcome if a newer order was given to the vehicle.
    fn overtaker(&self, order: &VehicleCommand) -> Option<Outcome> {
        let newest = self.book.newest(&order.vehicle)?;
        (newest.precedence() > order.precedence()).then(|| {
            let by = newest.ordered_at.duration_since(order.ordered_at).unwrap_or_default();
            Outcome::Older { newest: newest.command, by }
        })
    }

    /// Publishes an order that [`Orders::consider`] admitted. A stop is published even if it could not be `written`;
    /// then only the vehicle itself keeps an older resume from overriding it after a restart.
    pub fn begin(&mut self, ordered: Ordered, written: bool, now: Now) -> Vec<Effect> {
        let order = ordered.order.clone();
        if !written && order.command == Command::Resume {
            return vec![Effect::Conclude(self.tell(&ordered, &Outcome::Unwritten))];
        }
        let entry = self.entry_of(&ordered);
        self.ledger.put(&entry);
        self.book.put(entry);
        let mut effects = vec![Effect::Command(order.clone())];
        let next = now.steady + self.params.order_retry;
        let before = self.flights.remove(&order.vehicle);
        let heard = before.as_ref().is_some_and(|before| before.heard);
        let mut flight = Flight { order, next, heard, waiting: Vec::new() };
        for waiting in before.into_iter().flat_map(|before| before.waiting) {
            // Mails that ordered the same thing now wait for the newer order.
            if waiting.ordered.order.command == flight.order.command {
                flight.waiting.push(waiting);
            } else {
                effects.extend(self.conclude(&waiting.ordered, State::Overtaken, &Outcome::Overtaken));
            }
        }
        flight.waiting.push(Waiting { ordered, until: now.steady + self.params.acknowledgement_timeout });
        self.flights.insert(flight.order.vehicle.clone(), flight);
        effects
    }

    /// Handles a vehicle's acknowledgement.
    pub fn acknowledged(&mut self, acknowledgement: &Acknowledgement) -> Vec<Effect> {
        let Acknowledgement { command_id, vehicle, status, reason } = acknowledgement;
        let Some(entry) = self.book.find(vehicle, command_id).cloned() else { return Vec::new() };
        let refused = *status == AcknowledgementStatus::Refused;
        let (state, outcome) = if refused {
            (State::Refused, Outcome::Refused(compose::reason(reason)))
        } else {
            (State::Accepted, Outcome::Accepted)
        };
        let mut effects = Vec::new();
        match (entry.state, refused) {
            (State::Sent, _) => {
                if refused {
                    self.refused += 1;
                } else {
                    self.accepted += 1;
                }
                self.last_was_heard = true;
                let waiting = self.land(vehicle, command_id);
                effects.push(self.note(entry, state, &outcome));
                for waiting in &waiting {
                    effects.extend(self.conclude(&waiting.ordered, state, &outcome));
                }
            }
            // Its sender was told something else, so correct that.
            (State::Unheard, false) | (State::Accepted, true) => {
                let notice = wording::notice(&self.params, &entry, &outcome);
                effects.push(self.note(entry, state, &outcome));
                effects.push(Effect::Notify(notice));
            }
            _ => {}
        }
        effects
    }

    /// Takes out the mails that wait for this order. If it is the one being published, publishing ends; otherwise
    /// publishing goes on while other mails wait.
    fn land(&mut self, vehicle: &str, command_id: &[u8; 32]) -> Vec<Waiting> {
        let Some(mut flight) = self.flights.remove(vehicle) else { return Vec::new() };
        if flight.order.command_id == *command_id {
            return flight.waiting;
        }
        let is_it = |waiting: &mut Waiting| waiting.ordered.order.command_id == *command_id;
        let landed = flight.waiting.extract_if(.., is_it).collect();
        if !flight.waiting.is_empty() {
            self.flights.insert(vehicle.to_owned(), flight);
        }
        landed
    }

    /// Publishes orders again and gives up on those whose time is over. `listeners` is the number of subscribers to
    /// orders.
    pub fn due(&mut self, now: Now, listeners: usize) -> Vec<Effect> {
        let (mut effects, mut expired) = (Vec::new(), Vec::new());
        let (retry, bound) = (self.params.order_retry, self.params.give_up_after);
        self.flights.retain(|_, flight| {
            flight.heard |= listeners > 0;
            let heard = flight.heard;
            let over = flight.waiting.extract_if(.., |waiting| waiting.until <= now.steady);
            expired.extend(over.map(|waiting| (waiting, heard)));
            if flight.waiting.is_empty() {
                return false;
            }
            if flight.next <= now.steady {
                flight.next = now.steady + retry;
                let age = now.clock.duration_since(flight.order.ordered_at).unwrap_or_default();
                effects.extend((age <= bound).then(|| Effect::Command(flight.order.clone())));
            }
            true
        });
        for (waiting, heard) in expired {
            self.unheard += 1;
            self.last_was_heard = false;
            effects.extend(self.conclude(&waiting.ordered, State::Unheard, &Outcome::Unheard { heard }));
        }
        effects
    }

    /// Remembers the outcome of an order, and has it written to disk.
    fn note(&mut self, entry: Entry, state: State, outcome: &Outcome) -> Effect {
        let reason = if let Outcome::Refused(reason) = outcome { reason.clone() } else { String::new() };
        let noted = Entry { state, reason, ..entry };
        self.book.put(noted.clone());
        Effect::Write(vec![noted])
    }

    /// Remembers the outcome of an order unless it already has one, and tells the sender.
    fn conclude(&mut self, ordered: &Ordered, state: State, outcome: &Outcome) -> Vec<Effect> {
        let known = self.book.find(&ordered.order.vehicle, &ordered.order.command_id);
        let open = known.filter(|entry| entry.state == State::Sent).cloned();
        let mut effects: Vec<_> = open.map(|entry| self.note(entry, state, outcome)).into_iter().collect();
        effects.push(Effect::Conclude(self.tell(ordered, outcome)));
        effects
    }

    /// Answers the sender, and sends the person a copy unless the order was accepted.
    fn tell(&self, ordered: &Ordered, outcome: &Outcome) -> Conclusion {
        let Ordered { received, order, state, .. } = ordered;
        let name = format!("{} {}", order.command.word(), order.vehicle);
        let answer = received.answer(&self.params, &wording::answer(order, outcome, state, &self.params));
        if *outcome == Outcome::Accepted {
            return Conclusion::new(vec![answer], received.id, Action::Ordered, &name);
        }
        let why = wording::why(order, outcome, &self.params);
        let forward =
            received.forward(&self.params, &format!("it orders \"{name}\", and {why}"), Copy::Urgent);
        Conclusion::new(vec![answer, forward], received.id, Action::Forwarded, &format!("{name}: {why}"))
    }
}

/// A configured duration for a person: like [`span`], but with fractions of a second below 1 s.
fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) { format!("{} s", duration.as_secs_f64()) } else { span(duration) }
}

#[cfg(test)]
mod tests;
