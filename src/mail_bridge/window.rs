// SPDX-License-Identifier: Apache-2.0
//! The window of unsettled mails: decides when each mail is published, for whom, and what settles it. Pure.
//!
//! # Invariants
//! - A mail is waiting or published from its acceptance to its settlement; nothing else removes it.
//! - A publication is in flight from the moment it is handed to the publisher until the mail is settled, but no
//!   longer than the shortest back-off after it was published. First publications and repeated ones each have their
//!   own [`Room`], in mails and in bytes, so mails that nobody settles hold up neither new mails nor each other.
//!   Nothing is published while there are no subscribers.
//! - Within its room each [`Class`] (From domain and peer) gets no more once it holds its share, and the class that
//!   holds least goes first: a mail whose class has nothing in flight does not wait behind the backlog of another
//!   class (see `docs/decisions/0026`).
//! - At most twice `Room::mails` publications wait for the publisher at once.
//! - A published mail is published again with back-off, and also when a subscriber joins, as soon as there is room:
//!   the new subscriber may be the one that matters, while another (a recorder) was there all along. New and repeated
//!   publications take turns.
//! - A mail is settled once, when each consumer that it is for has disposed of it. Until then it is published for those
//!   that have not. A disposition that promises an answer, an order's answer or a forward counts only once the outbox
//!   has that outbound mail on disk. If the disposition comes first it is kept until then; meanwhile the mail is
//!   published again, so that an answer that got lost is made again.
//!
//! Time is an argument everywhere: the time since the node started. Disk, topics and timers are left to `bridge`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use fair_queue::Lane;
pub use fair_queue::{Class, Load, Room};
use mail::{AcceptedMail, Action, Disposition, MailId, OutboundKind};
use settings::BackOff;

/// What the window needs to know of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Identity of the mail.
    pub id: MailId,
    /// From domain and peer.
    pub class: Class,
    /// Size of the mail, bytes.
    pub bytes: u64,
    /// Consumers that have not disposed of the mail, at least one.
    pub consumers: Vec<String>,
}

impl Arrival {
    /// Extracts what the window needs from a mail.
    pub fn of(mail: &AcceptedMail) -> Self {
        Self {
            id: mail.id,
            class: Class::of(mail),
            bytes: mail.data.len() as u64,
            consumers: mail.consumers.clone(),
        }
    }
}

/// An event that changes the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A mail reached the disk.
    Accepted(Arrival),
    /// The publisher is done with a mail that it was told to publish, whether or not it succeeded.
    Published(MailId),
    /// An outbound mail is on disk, now or already before.
    Stored {
        /// The mail that it answers.
        answers: MailId,
        /// The kind of outbound mail.
        kind: OutboundKind,
    },
    /// A consumer reports what became of a mail.
    Disposition(Disposition),
    /// The current number of subscribers.
    Subscribers(usize),
    /// Time passed.
    Tick,
}

/// An action for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Publish this mail for these consumers, then report [`Input::Published`].
    Publish(MailId, Vec<String>),
    /// Journal that a consumer has disposed of a mail.
    Dispose {
        /// What the consumer reported.
        disposition: Disposition,
        /// Whether it was the last, so that the mail is settled.
        settles: bool,
    },
}

/// An unsettled mail that was in the journal at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// The mail as it arrived.
    pub arrival: Arrival,
    /// Kinds of outbound mail on disk for it.
    pub stored: Vec<OutboundKind>,
    /// Whether a consumer has disposed of it.
    pub disposed: bool,
}

/// Where a mail is in its cycle of publications.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// In the lane for first publications.
    Waiting,
    /// With the publisher. `stale`: a subscriber that joined since may miss it.
    Handed { again: bool, stale: bool },
    /// Published recently: holds room until `until`, and is due at `due`, which is not earlier.
    Flying { again: bool, until: Duration, due: Duration },
    /// Published, holds no room, not due yet.
    Resting { due: Duration },
    /// In the lane for repeated publications.
    Due { due: Duration },
}

#[derive(Debug)]
struct Entry {
    /// Position by time of acceptance.
    order: u64,
    class: Class,
    bytes: u64,
    /// Consumers that have not disposed of it.
    consumers: Vec<String>,
    /// Number of publications so far.
    attempts: u32,
    stage: Stage,
    stored: Vec<OutboundKind>,
    /// Dispositions whose outbound mail is not on disk yet, at most one for each consumer.
    promises: Vec<Disposition>,
}

/// The window: every unsettled mail, and when each is published next.
#[derive(Debug)]
pub struct Window {
    back_off: BackOff,
    /// Bound on the publications waiting for the publisher.
    max_handed: usize,
    /// Publications waiting for the publisher now.
    handed: usize,
    subscribers: usize,
    next_order: u64,
    entries: HashMap<MailId, Entry>,
    /// Number of mails that wait for each consumer.
    waiting: BTreeMap<String, usize>,
    /// When flying and resting mails move on.
    timers: BTreeSet<(Duration, u64, MailId)>,
    first: Lane,
    again: Lane,
    /// Whether it is the turn of a repeated publication.
    turn_of_again: bool,
}

impl Window {
    /// A window over `restored` (oldest first), without subscribers. First publications have `room`, repeated ones as
    /// much again.
    pub fn new(room: Room, back_off: BackOff, restored: Vec<Unsettled>) -> Self {
        let mut window = Self {
            back_off,
            max_handed: room.mails.saturating_mul(2),
            handed: 0,
            subscribers: 0,
            next_order: 0,
            entries: HashMap::new(),
            waiting: BTreeMap::new(),
            timers: BTreeSet::new(),
            first: Lane::new(room),
            again: Lane::new(room),
            turn_of_again: false,
        };
        for unsettled in restored {
            window.add(unsettled.arrival, unsettled.stored);
        }
        window
    }

    /// Applies an input and returns what to do now.
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
                    let kept = |promise: &mut Disposition| promised(promise.action) == Some(kind);
                    let kept: Vec<_> = entry.promises.extract_if(.., kept).collect();
                    kept.into_iter().for_each(|promise| self.dispose(promise, &mut effects));
                }
            }
            Input::Disposition(disposition) => {
                if let Some(entry) = self.entries.get_mut(&disposition.mail_id)
                    && entry.consumers.contains(&disposition.consumer)
                {
                    entry.promises.retain(|promise| promise.consumer != disposition.consumer);
                    match promised(disposition.action) {
                        Some(kind) if !entry.stored.contains(&kind) => entry.promises.push(disposition),
                        _ => self.dispose(disposition, &mut effects),
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
            self.hand_over(&mut effects);
        }
        effects
    }

    /// When the next `Tick` is needed; `None` if not before another input.
    pub fn next_wakeup(&self) -> Option<Duration> {
        // A mail waits for room until one in flight frees it, which happens by a timer or by the publisher.
        self.timers.first().filter(|_| self.has_subscribers()).map(|&(at, ..)| at)
    }

    /// Number of unsettled mails, in flight or not.
    pub fn unsettled(&self) -> usize {
        self.entries.len()
    }

    /// Number of mails that wait for each consumer.
    pub fn waiting(&self) -> &BTreeMap<String, usize> {
        &self.waiting
    }

    /// Publications in flight: at most twice the room, unless a mail larger than the room goes alone.
    pub fn in_flight(&self) -> Load {
        let (first, again) = (self.first.held(), self.again.held());
        Load {
            mails: first.mails.saturating_add(again.mails),
            bytes: first.bytes.saturating_add(again.bytes),
        }
    }

    /// Whether there are any subscribers.
    pub fn has_subscribers(&self) -> bool {
        self.subscribers > 0
    }

    fn lane(&mut self, again: bool) -> &mut Lane {
        if again { &mut self.again } else { &mut self.first }
    }

    fn add(&mut self, arrival: Arrival, stored: Vec<OutboundKind>) {
        let Arrival { id, class, bytes, consumers } = arrival;
        if self.entries.contains_key(&id) {
            return;
        }
        let order = self.next_order;
        self.next_order = order.saturating_add(1);
        for consumer in &consumers {
            let waiting = self.waiting.entry(consumer.clone()).or_default();
            *waiting = waiting.saturating_add(1);
        }
        let (stage, promises) = (Stage::Waiting, Vec::new());
        let entry = Entry { order, class, bytes, consumers, attempts: 0, stage, stored, promises };
        self.entries.insert(id, entry);
        self.first.push(class, (Duration::ZERO, order), id, bytes);
    }

    /// Ends a mail's time with the publisher. A mail that was settled meanwhile was published for nothing.
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

    fn dispose(&mut self, disposition: Disposition, effects: &mut Vec<Effect>) {
        let Some(entry) = self.entries.get_mut(&disposition.mail_id) else { return };
        entry.consumers.retain(|consumer| *consumer != disposition.consumer);
        if let Some(waiting) = self.waiting.get_mut(&disposition.consumer) {
            *waiting = waiting.saturating_sub(1);
        }
        let settles = entry.consumers.is_empty();
        if settles {
            self.remove(disposition.mail_id);
        }
        effects.push(Effect::Dispose { disposition, settles });
    }

    fn remove(&mut self, id: MailId) {
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
        }
    }

    /// A new subscriber missed everything in flight, so republish it now and free its room.
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

    /// Frees the room of mails that have flown long enough, and queues those that are due.
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

    /// Hands due and waiting mails to the publisher in turn, while their lane has room.
    fn hand_over(&mut self, effects: &mut Vec<Effect>) {
        while self.handed < self.max_handed {
            let turns = [self.turn_of_again, !self.turn_of_again];
            let next = turns.into_iter().find_map(|again| Some((again, self.lane(again).take()?)));
            let Some((again, id)) = next else { return };
            self.turn_of_again = !again;
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.attempts = entry.attempts.saturating_add(1);
                entry.stage = Stage::Handed { again, stale: false };
                self.handed = self.handed.saturating_add(1);
                effects.push(Effect::Publish(id, entry.consumers.clone()));
            }
        }
    }
}

/// The outbound mail that a disposition promises.
fn promised(action: Action) -> Option<OutboundKind> {
    match action {
        Action::Answered | Action::Ordered => Some(OutboundKind::Answer),
        Action::Forwarded => Some(OutboundKind::Forward),
        Action::Ignored | Action::Rejected | Action::Kept => None,
    }
}

#[cfg(test)]
mod tests;
