//! The window of unsettled mails: which mail is published when, and what settles it. Pure.
//!
//! # Invariants
//! - A mail is waiting or published from its acceptance to its settlement; nothing else removes it.
//! - A publication is in flight until the mail is settled, at most for the shortest back-off. At most `max_in_flight`
//!   first publications and as many further ones are in flight, the oldest due first; so mails that nobody settles hold
//!   up neither new mails nor each other. Nothing is published while nobody listens.
//! - A published mail is published again, with back-off, and as soon as there is room when a listener has come: it may
//!   be the one that was missed, while another (a recorder) listened all the time. New mails and those that come again
//!   take turns.
//! - A mail is settled at most once. A disposition that promises an answer, an order's answer or a forward settles it
//!   only when the outbox has that outbound mail on disk. If the disposition comes first it is kept for that moment;
//!   meanwhile the mail is published again, which makes a lost answer come again.
//!
//! Time is the time since the node started, an argument everywhere.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::params::BackOff;
use crate::mail::{Action, Disposition, MailId, OutboundKind};

/// What happens to the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A mail is on disk.
    Accepted(MailId),
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
    /// Publish this mail.
    Publish(MailId),
    /// Write to the journal that this mail is settled.
    Settle(Disposition),
}

/// An unsettled mail that the journal had at start, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// The mail.
    pub id: MailId,
    /// Outbound mails for it that are on disk.
    pub stored: Vec<OutboundKind>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Position in the order of acceptance.
    order: u64,
    /// `None`: waiting.
    flight: Option<Flight>,
    stored: Vec<OutboundKind>,
    promise: Option<Disposition>,
}

/// What is known of a mail that was published.
#[derive(Clone, Copy, Debug)]
struct Flight {
    /// Publications so far.
    attempts: u32,
    /// When the next one is due.
    due: Duration,
    /// Until when the last one counts as in flight.
    until: Duration,
}

/// The window.
#[derive(Debug)]
pub struct Core {
    max_in_flight: usize,
    back_off: BackOff,
    subscribers: usize,
    next_order: u64,
    entries: HashMap<MailId, Entry>,
    waiting: BTreeMap<u64, MailId>,
    /// Published mails by the time of their next publication.
    due: BTreeSet<(Duration, u64, MailId)>,
    /// First publications in flight, and until when.
    first: BTreeSet<(Duration, MailId)>,
    /// Further publications in flight, and until when.
    again: BTreeSet<(Duration, MailId)>,
    /// Whether it is the turn of a mail that comes again.
    turn_of_again: bool,
}

impl Core {
    /// A window over `restored`, with nobody listening yet.
    pub fn new(max_in_flight: usize, back_off: BackOff, restored: Vec<Unsettled>) -> Self {
        let mut core = Self {
            max_in_flight,
            back_off,
            subscribers: 0,
            next_order: 0,
            entries: HashMap::new(),
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
            first: BTreeSet::new(),
            again: BTreeSet::new(),
            turn_of_again: false,
        };
        for unsettled in restored {
            core.add(unsettled.id, unsettled.stored);
        }
        core
    }

    /// Takes an input and says what is to be done now.
    pub fn step(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Accepted(id) => self.add(id, Vec::new()),
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
            self.publish(now, &mut effects);
        }
        effects
    }

    /// When the next `Tick` is needed; `None`: not before another input.
    pub fn next_wakeup(&self) -> Option<Duration> {
        if !self.has_subscribers() {
            return None;
        }
        // What waits for room waits until the oldest in flight makes it.
        let room = |flights: &BTreeSet<(Duration, MailId)>| {
            flights.first().filter(|_| flights.len() >= self.max_in_flight).map(|&(until, _)| until)
        };
        let again = self.due.first().map(|&(due, ..)| room(&self.again).map_or(due, |until| until.max(due)));
        let new = room(&self.first).filter(|_| !self.waiting.is_empty());
        again.into_iter().chain(new).min()
    }

    /// Unsettled mails, in flight or not.
    pub fn unsettled(&self) -> usize {
        self.entries.len()
    }

    /// Publications in flight, at most twice `max_in_flight`.
    pub fn in_flight(&self) -> usize {
        self.first.len().saturating_add(self.again.len())
    }

    /// Whether anybody listens.
    pub fn has_subscribers(&self) -> bool {
        self.subscribers > 0
    }

    fn add(&mut self, id: MailId, stored: Vec<OutboundKind>) {
        if self.entries.contains_key(&id) {
            return;
        }
        let order = self.next_order;
        self.next_order = order.saturating_add(1);
        self.entries.insert(id, Entry { order, stored, ..Entry::default() });
        self.waiting.insert(order, id);
    }

    fn settle(&mut self, disposition: Disposition, effects: &mut Vec<Effect>) {
        if let Some(entry) = self.entries.remove(&disposition.mail_id) {
            let id = disposition.mail_id;
            if let Some(flight) = entry.flight {
                self.due.remove(&(flight.due, entry.order, id));
                self.first.remove(&(flight.until, id));
                self.again.remove(&(flight.until, id));
            } else {
                self.waiting.remove(&entry.order);
            }
            effects.push(Effect::Settle(disposition));
        }
    }

    /// Whatever is in flight did not reach the listener that has come: it holds no room.
    fn make_all_due(&mut self, now: Duration) {
        self.first.clear();
        self.again.clear();
        for (_, order, id) in std::mem::take(&mut self.due) {
            if let Some(flight) = self.entries.get_mut(&id).and_then(|entry| entry.flight.as_mut()) {
                (flight.due, flight.until) = (now, now);
                self.due.insert((now, order, id));
            }
        }
    }

    /// Publishes what is due and what waits, in turn, the oldest first, while there is room for its kind.
    fn publish(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for flights in [&mut self.first, &mut self.again] {
            while flights.first().is_some_and(|(until, _)| *until <= now) {
                flights.pop_first();
            }
        }
        loop {
            let new = self.first.len() < self.max_in_flight && !self.waiting.is_empty();
            let again = self.again.len() < self.max_in_flight
                && self.due.first().is_some_and(|(due, ..)| *due <= now);
            let again = match (new, again) {
                (false, false) => return,
                (true, true) => self.turn_of_again,
                (_, again) => again,
            };
            self.turn_of_again = !again;
            let next = if again {
                self.due.pop_first().map(|(_, order, id)| (order, id))
            } else {
                self.waiting.pop_first()
            };
            let Some((order, id)) = next else { return };
            if let Some(entry) = self.entries.get_mut(&id) {
                let attempts = entry.flight.map_or(0, |flight| flight.attempts).saturating_add(1);
                let due = now.saturating_add(self.back_off.delay(attempts));
                let until = now.saturating_add(self.back_off.delay(1));
                entry.flight = Some(Flight { attempts, due, until });
                self.due.insert((due, order, id));
                let flights = if again { &mut self.again } else { &mut self.first };
                flights.insert((until, id));
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACK_OFF: BackOff = BackOff { min: Duration::from_secs(1), max: Duration::from_secs(4) };

    fn id(n: u8) -> MailId {
        MailId::from_bytes([n; 32])
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn says(n: u8, action: Action) -> Input {
        Input::Disposition(Disposition { mail_id: id(n), action, reason: String::new() })
    }

    fn published(effects: &[Effect]) -> Vec<u8> {
        effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Publish(id) => Some(id.as_bytes()[0]),
                Effect::Settle(_) => None,
            })
            .collect()
    }

    fn window(mails: u8) -> Core {
        let restored = (0..mails).map(|n| Unsettled { id: id(n), stored: Vec::new() }).collect();
        Core::new(2, BACK_OFF, restored)
    }

    #[test]
    fn publishes_nothing_while_nobody_listens() {
        let mut core = window(3);
        assert_eq!(core.step(Input::Accepted(id(9)), at(0)), []);
        assert_eq!(core.next_wakeup(), None);
        assert_eq!(published(&core.step(Input::Subscribers(1), at(1))), [0, 1]);
        assert_eq!(core.next_wakeup(), Some(at(2)));
    }

    #[test]
    fn publishes_again_with_back_off_and_the_next_when_one_is_settled() {
        let mut core = window(3);
        core.step(Input::Subscribers(1), at(0));
        assert_eq!(core.next_wakeup(), Some(at(1)));
        let half = Duration::from_millis(500);
        assert_eq!(published(&core.step(Input::Tick, half)), [0u8; 0]);
        let effects = core.step(says(0, Action::Ignored), half);
        assert!(matches!(effects[0], Effect::Settle(_)));
        assert_eq!(published(&effects), [2]);
        assert_eq!(core.step(says(0, Action::Ignored), half), []);
        assert_eq!(core.step(says(77, Action::Ignored), half), []);
        assert_eq!(published(&core.step(Input::Tick, at(1))), [1]);
        assert_eq!(published(&core.step(Input::Tick, at(2))), [2]);
        assert_eq!(core.next_wakeup(), Some(at(3)));
    }

    #[test]
    fn mails_that_nobody_settles_do_not_hold_up_new_ones() {
        let back_off = BackOff { min: at(10), max: at(600) };
        let restored = (0..32).map(|n| Unsettled { id: id(n), stored: Vec::new() }).collect();
        let mut core = Core::new(32, back_off, restored);
        assert_eq!(published(&core.step(Input::Subscribers(1), at(0))).len(), 32);
        assert_eq!(published(&core.step(Input::Accepted(id(100)), at(1))), [0u8; 0]);
        assert_eq!(core.next_wakeup(), Some(at(10)));
        assert!(published(&core.step(Input::Tick, at(10))).contains(&100));
        // From now on each is published when it comes, as long as fewer than 32 come in 10 s.
        let mut now = 10;
        for n in 101..250 {
            now += 1;
            let effects = core.step(Input::Accepted(id(n)), at(now));
            assert!(published(&effects).contains(&n), "mail {n} waits");
            assert!(core.in_flight() <= 64);
        }
        assert_eq!(core.unsettled(), 182);
    }

    #[test]
    fn new_mails_and_those_that_come_again_take_turns_and_have_a_bound_each() {
        let mut core = window(6);
        assert_eq!(published(&core.step(Input::Subscribers(1), at(0))), [0, 1]);
        assert_eq!(published(&core.step(Input::Tick, at(1))), [0, 2, 1, 3]);
        // Four are due, but for no more than two is there room.
        assert_eq!(published(&core.step(Input::Tick, at(3))).len(), 4);
        assert_eq!((core.first.len(), core.again.len()), (2, 2));
        assert_eq!(core.next_wakeup(), Some(at(4)));
        assert_eq!(published(&core.step(Input::Tick, at(4))).len(), 2);
    }

    #[test]
    fn listeners_that_come_back_get_everything_in_flight() {
        let mut core = window(2);
        core.step(Input::Subscribers(1), at(0));
        core.step(Input::Subscribers(0), at(0));
        assert_eq!(core.step(Input::Tick, at(100)), []);
        assert_eq!(published(&core.step(Input::Subscribers(1), at(100))), [0, 1]);
        assert_eq!(core.next_wakeup(), Some(at(102)), "attempts count on");
    }

    #[test]
    fn each_further_listener_gets_what_is_not_settled_and_one_that_leaves_changes_nothing() {
        let mut core = window(4);
        core.step(Input::Subscribers(1), at(0));
        for now in [1, 2, 3, 4, 5, 6, 7, 8] {
            core.step(Input::Tick, at(now));
        }
        assert_eq!(core.step(Input::Subscribers(1), at(8)), []);
        // All four are due now, and there is room for two; for the others as soon as those are settled.
        assert_eq!(published(&core.step(Input::Subscribers(2), at(8))), [0, 1]);
        assert_eq!(published(&core.step(says(1, Action::Ignored), at(8))), [2]);
        assert_eq!(published(&core.step(says(0, Action::Ignored), at(8))), [3]);
        assert_eq!(core.step(Input::Subscribers(1), at(8)), []);
    }

    #[test]
    fn a_promise_settles_only_when_the_outbox_keeps_it() {
        let mut core = window(1);
        core.step(Input::Subscribers(1), at(0));
        assert_eq!(core.step(says(0, Action::Answered), at(0)), []);
        assert_eq!(published(&core.step(Input::Tick, at(1))), [0]);
        let forward = Input::Stored { answers: id(0), kind: OutboundKind::Forward };
        assert_eq!(core.step(forward, at(1)), []);
        let answer = Input::Stored { answers: id(0), kind: OutboundKind::Answer };
        assert!(matches!(core.step(answer, at(1))[..], [Effect::Settle(_)]));
        assert_eq!((core.unsettled(), core.in_flight()), (0, 0));
    }

    #[test]
    fn an_answer_stored_before_the_restart_counts() {
        let restored = vec![Unsettled { id: id(0), stored: vec![OutboundKind::Answer] }];
        let mut core = Core::new(1, BACK_OFF, restored);
        assert!(matches!(core.step(says(0, Action::Ordered), at(0))[..], [Effect::Settle(_)]));
    }

    fn inputs() -> impl Strategy<Value = Vec<(Input, u64)>> {
        let input = prop_oneof![
            (0u8..9).prop_map(|n| Input::Accepted(id(n))),
            (0u8..9, any::<bool>()).prop_map(|(n, answer)| Input::Stored {
                answers: id(n),
                kind: if answer { OutboundKind::Answer } else { OutboundKind::Forward },
            }),
            (0u8..9, 0usize..5).prop_map(|(n, action)| {
                let actions =
                    [Action::Answered, Action::Ordered, Action::Forwarded, Action::Ignored, Action::Rejected];
                says(n, actions[action])
            }),
            (0usize..3).prop_map(Input::Subscribers),
            Just(Input::Tick),
        ];
        prop::collection::vec((input, 0u64..4), 0..80)
    }

    proptest! {
        #[test]
        fn loses_no_mail_settles_none_twice_and_keeps_the_bound(inputs in inputs()) {
            let mut core = Core::new(3, BACK_OFF, Vec::new());
            let (mut now, mut open, mut stored) = (0, BTreeSet::new(), BTreeSet::new());
            for (input, wait) in inputs {
                now += wait;
                match &input {
                    // The journal never accepts the same mail twice, settled or not.
                    Input::Accepted(id) => { open.insert(*id); }
                    Input::Stored { answers, kind } if open.contains(answers) => { stored.insert((*answers, *kind)); }
                    _ => {}
                }
                for effect in core.step(input, at(now)) {
                    match effect {
                        Effect::Publish(id) => prop_assert!(open.contains(&id) && core.has_subscribers()),
                        Effect::Settle(disposition) => {
                            prop_assert!(open.remove(&disposition.mail_id), "settled twice");
                            if let Some(kind) = promised(disposition.action) {
                                prop_assert!(stored.contains(&(disposition.mail_id, kind)));
                            }
                            stored.retain(|(id, _)| *id != disposition.mail_id);
                        }
                    }
                }
                prop_assert!(core.first.len() <= 3 && core.again.len() <= 3);
                prop_assert!(core.next_wakeup().is_none_or(|wakeup| wakeup > at(now)), "never rests");
                prop_assert_eq!(core.unsettled(), open.len());
            }
            // Whatever happened before: with listeners and time, each open mail is published though none is settled,
            // and can be settled.
            let end = at(now + 30);
            let mut effects = core.step(Input::Subscribers(3), at(now));
            while let Some(wakeup) = core.next_wakeup().filter(|wakeup| *wakeup < end) {
                effects.extend(core.step(Input::Tick, wakeup));
            }
            let seen: BTreeSet<_> = published(&effects).into_iter().map(id).collect();
            prop_assert_eq!(&seen, &open);
            while let Some(id) = open.pop_first() {
                let reject = Disposition { mail_id: id, action: Action::Rejected, reason: String::new() };
                let effects = core.step(Input::Disposition(reject), at(now));
                prop_assert!(matches!(effects[0], Effect::Settle(_)));
            }
            prop_assert_eq!((core.unsettled(), core.in_flight(), core.next_wakeup()), (0, 0, None));
        }
    }
}
