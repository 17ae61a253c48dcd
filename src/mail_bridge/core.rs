//! The window of unsettled mails: which mail is published when, and what settles it. Pure.
//!
//! # Invariants
//! - A mail is waiting or published from its acceptance to its settlement; nothing else removes it.
//! - A publication is in flight from the moment it is handed to the publisher until the mail is settled, at most for the
//!   shortest back-off after it was published. First publications and further ones each have the [`Room`] given, in
//!   mails and in bytes; so mails that nobody settles hold up neither new mails nor each other. Nothing is published
//!   while nobody listens.
//! - Within its room each [`Class`] (From domain and peer) holds no more than its share, and who holds least goes first:
//!   a mail of a class of which nothing is in flight waits for no backlog of another (see `docs/decisions/0026`).
//! - No more than twice `Room::mails` publications wait for the publisher at once.
//! - A published mail is published again, with back-off, and as soon as there is room when a listener has come: it may
//!   be the one that was missed, while another (a recorder) listened all the time. New mails and those that come again
//!   take turns.
//! - A mail is settled at most once. A disposition that promises an answer, an order's answer or a forward settles it
//!   only when the outbox has that outbound mail on disk. If the disposition comes first it is kept for that moment;
//!   meanwhile the mail is published again, which makes a lost answer come again.
//!
//! Time is the time since the node started, an argument everywhere.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::params::BackOff;
pub use crate::fair_queue::{Class, Load, Room};
use crate::{
    fair_queue::Lane,
    mail::{AcceptedMail, Action, Disposition, MailId, OutboundKind},
};

/// What the window must know of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The mail.
    pub id: MailId,
    /// Whose it is.
    pub class: Class,
    /// Its size, bytes.
    pub bytes: u64,
}

impl Arrival {
    /// What the window must know of this mail.
    pub fn of(mail: &AcceptedMail) -> Self {
        Self { id: mail.id, class: Class::of(mail), bytes: mail.data.len() as u64 }
    }
}

/// What happens to the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A mail is on disk.
    Accepted(Arrival),
    /// The publisher is done with a mail that it was told to publish, whether or not it could.
    Published(MailId),
    /// An outbound mail is on disk, or was already.
    Stored {
        /// The mail that it answers.
        answers: MailId,
        /// Why it is sent.
        kind: OutboundKind,
    },
    /// Somebody says what became of a mail.
    Disposition(Disposition),
    /// How many listen to the mails published.
    Subscribers(usize),
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Publish this mail, and say [`Input::Published`].
    Publish(MailId),
    /// Write to the journal that this mail is settled.
    Settle(Disposition),
}

/// An unsettled mail that the journal had at start, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// The mail.
    pub arrival: Arrival,
    /// Outbound mails for it that are on disk.
    pub stored: Vec<OutboundKind>,
}

/// Where a mail is between its publications.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// In the lane of first publications.
    Waiting,
    /// With the publisher. `stale`: a listener has come since, which may have missed it.
    Handed { again: bool, stale: bool },
    /// Published not long ago: it holds room until `until` and is due at `due`, which is no earlier.
    Flying { again: bool, until: Duration, due: Duration },
    /// Published and not due.
    Resting { due: Duration },
    /// In the lane of further publications.
    Due { due: Duration },
}

#[derive(Debug)]
struct Entry {
    /// Position in the order of acceptance.
    order: u64,
    class: Class,
    bytes: u64,
    /// Publications so far.
    attempts: u32,
    stage: Stage,
    stored: Vec<OutboundKind>,
    promise: Option<Disposition>,
}

/// The window.
#[derive(Debug)]
pub struct Core {
    back_off: BackOff,
    /// Publications that may wait for the publisher.
    max_handed: usize,
    /// Those that do.
    handed: usize,
    subscribers: usize,
    next_order: u64,
    entries: HashMap<MailId, Entry>,
    /// When mails that fly or rest go on.
    timers: BTreeSet<(Duration, u64, MailId)>,
    first: Lane,
    again: Lane,
    /// Whether it is the turn of a mail that comes again.
    turn_of_again: bool,
}

impl Core {
    /// A window over `restored`, with nobody listening yet. First publications have `room`, further ones as much again.
    pub fn new(room: Room, back_off: BackOff, restored: Vec<Unsettled>) -> Self {
        let mut core = Self {
            back_off,
            max_handed: room.mails.saturating_mul(2),
            handed: 0,
            subscribers: 0,
            next_order: 0,
            entries: HashMap::new(),
            timers: BTreeSet::new(),
            first: Lane::new(room),
            again: Lane::new(room),
            turn_of_again: false,
        };
        for unsettled in restored {
            core.add(unsettled.arrival, unsettled.stored);
        }
        core
    }

    /// Takes an input and says what is to be done now.
    pub fn step(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Accepted(arrival) => self.add(arrival, Vec::new()),
            Input::Published(id) => self.published(id, now),
            Input::Stored { answers, kind } => {
                if let Some(entry) = self.entries.get_mut(&answers) {
                    if !entry.stored.contains(&kind) {
                        entry.stored.push(kind);
                    }
                    if entry.promise.as_ref().is_some_and(|promise| promised(promise.action) == Some(kind))
                        && let Some(promise) = entry.promise.take()
                    {
                        self.settle(promise, &mut effects);
                    }
                }
            }
            Input::Disposition(disposition) => {
                if let Some(entry) = self.entries.get_mut(&disposition.mail_id) {
                    match promised(disposition.action) {
                        Some(kind) if !entry.stored.contains(&kind) => entry.promise = Some(disposition),
                        _ => self.settle(disposition, &mut effects),
                    }
                }
            }
            Input::Subscribers(count) => {
                if count > self.subscribers {
                    self.make_all_due(now);
                }
                self.subscribers = count;
            }
            Input::Tick => {}
        }
        if self.has_subscribers() {
            self.ripen(now);
            self.publish(&mut effects);
        }
        effects
    }

    /// When the next `Tick` is needed; `None`: not before another input.
    pub fn next_wakeup(&self) -> Option<Duration> {
        // What waits for room waits until something in flight makes it, which is a timer or the publisher.
        self.timers.first().filter(|_| self.has_subscribers()).map(|&(at, ..)| at)
    }

    /// Unsettled mails, in flight or not.
    pub fn unsettled(&self) -> usize {
        self.entries.len()
    }

    /// Publications in flight, at most twice the room.
    pub fn in_flight(&self) -> Load {
        let (first, again) = (self.first.held(), self.again.held());
        Load {
            mails: first.mails.saturating_add(again.mails),
            bytes: first.bytes.saturating_add(again.bytes),
        }
    }

    /// Whether anybody listens.
    pub fn has_subscribers(&self) -> bool {
        self.subscribers > 0
    }

    fn lane(&mut self, again: bool) -> &mut Lane {
        if again { &mut self.again } else { &mut self.first }
    }

    fn add(&mut self, arrival: Arrival, stored: Vec<OutboundKind>) {
        let Arrival { id, class, bytes } = arrival;
        if self.entries.contains_key(&id) {
            return;
        }
        let order = self.next_order;
        self.next_order = order.saturating_add(1);
        let entry = Entry { order, class, bytes, attempts: 0, stage: Stage::Waiting, stored, promise: None };
        self.entries.insert(id, entry);
        self.first.push(class, (Duration::ZERO, order), id, bytes);
    }

    /// A mail that was settled meanwhile is published for nothing.
    fn published(&mut self, id: MailId, now: Duration) {
        self.handed = self.handed.saturating_sub(1);
        if let Some(entry) = self.entries.get_mut(&id)
            && let Stage::Handed { again, stale } = entry.stage
        {
            let delay = |attempts| if stale { Duration::ZERO } else { self.back_off.delay(attempts) };
            let until = now.saturating_add(delay(1));
            entry.stage = Stage::Flying { again, until, due: now.saturating_add(delay(entry.attempts)) };
            self.timers.insert((until, entry.order, id));
        }
    }

    fn settle(&mut self, disposition: Disposition, effects: &mut Vec<Effect>) {
        let id = disposition.mail_id;
        if let Some(Entry { order, class, bytes, stage, .. }) = self.entries.remove(&id) {
            match stage {
                Stage::Waiting => self.first.remove(class, (Duration::ZERO, order)),
                Stage::Handed { again, .. } => self.lane(again).give_back(class, bytes),
                Stage::Flying { again, until, .. } => {
                    self.lane(again).give_back(class, bytes);
                    self.timers.remove(&(until, order, id));
                }
                Stage::Resting { due } => drop(self.timers.remove(&(due, order, id))),
                Stage::Due { due } => self.again.remove(class, (due, order)),
            }
            effects.push(Effect::Settle(disposition));
        }
    }

    /// Whatever is in flight did not reach the listener that has come: it holds no room.
    fn make_all_due(&mut self, now: Duration) {
        self.timers.clear();
        for (&id, entry) in &mut self.entries {
            match &mut entry.stage {
                Stage::Waiting | Stage::Due { .. } => continue,
                Stage::Handed { stale, .. } => {
                    *stale = true;
                    continue;
                }
                Stage::Flying { again, .. } => {
                    let lane = if *again { &mut self.again } else { &mut self.first };
                    lane.give_back(entry.class, entry.bytes);
                }
                Stage::Resting { .. } => {}
            }
            entry.stage = Stage::Due { due: now };
            self.again.push(entry.class, (now, entry.order), id, entry.bytes);
        }
    }

    /// Frees the room of what flew long enough, and queues what is due.
    fn ripen(&mut self, now: Duration) {
        while let Some(&(at, order, id)) = self.timers.first().filter(|(at, ..)| *at <= now) {
            self.timers.remove(&(at, order, id));
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let due = match entry.stage {
                Stage::Flying { again, due, .. } => {
                    let lane = if again { &mut self.again } else { &mut self.first };
                    lane.give_back(entry.class, entry.bytes);
                    due
                }
                Stage::Resting { due } => due,
                Stage::Waiting | Stage::Handed { .. } | Stage::Due { .. } => continue,
            };
            if due <= now {
                entry.stage = Stage::Due { due };
                self.again.push(entry.class, (due, order), id, entry.bytes);
            } else {
                entry.stage = Stage::Resting { due };
                self.timers.insert((due, order, id));
            }
        }
    }

    /// Publishes what is due and what waits, in turn, while there is room for its kind.
    fn publish(&mut self, effects: &mut Vec<Effect>) {
        while self.handed < self.max_handed {
            let turns = [self.turn_of_again, !self.turn_of_again];
            let next = turns.into_iter().find_map(|again| Some((again, self.lane(again).take()?)));
            let Some((again, id)) = next else { return };
            self.turn_of_again = !again;
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.attempts = entry.attempts.saturating_add(1);
                entry.stage = Stage::Handed { again, stale: false };
                self.handed = self.handed.saturating_add(1);
                effects.push(Effect::Publish(id));
            }
        }
    }
}

/// The outbound mail that a disposition says is on its way.
fn promised(action: Action) -> Option<OutboundKind> {
    match action {
        Action::Answered | Action::Ordered => Some(OutboundKind::Answer),
        Action::Forwarded => Some(OutboundKind::Forward),
        Action::Ignored | Action::Rejected => None,
    }
}

#[cfg(test)]
mod tests;
