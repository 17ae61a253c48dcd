//! The window of unsettled mails: which mail is published when, and what settles it. Pure.
//!
//! # Invariants
//! - A mail is waiting or in flight from its acceptance to its settlement; nothing else removes it.
//! - At most `max_in_flight` are in flight, the oldest first; nothing is published while nobody listens.
//! - A mail in flight is published again, with back-off, and at once when listeners come back.
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
    /// Whether anybody listens to the mails published.
    Subscribers(bool),
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
    /// Publications, and when the next is due; `None`: waiting.
    flight: Option<(u32, Duration)>,
    stored: Vec<OutboundKind>,
    promise: Option<Disposition>,
}

/// The window.
#[derive(Debug)]
pub struct Core {
    max_in_flight: usize,
    back_off: BackOff,
    subscribers: bool,
    next_order: u64,
    entries: HashMap<MailId, Entry>,
    waiting: BTreeMap<u64, MailId>,
    due: BTreeSet<(Duration, u64, MailId)>,
}

impl Core {
    /// A window over `restored`, with nobody listening yet.
    pub fn new(max_in_flight: usize, back_off: BackOff, restored: Vec<Unsettled>) -> Self {
        let mut core = Self {
            max_in_flight,
            back_off,
            subscribers: false,
            next_order: 0,
            entries: HashMap::new(),
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
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
            Input::Subscribers(present) => {
                if present && !self.subscribers {
                    self.make_all_due(now);
                }
                self.subscribers = present;
            }
            Input::Tick => {}
        }
        if self.subscribers {
            self.publish(now, &mut effects);
        }
        effects
    }

    /// When the next `Tick` is needed; `None`: not before another input.
    pub fn next_wakeup(&self) -> Option<Duration> {
        self.due.first().map(|&(due, ..)| due).filter(|_| self.subscribers)
    }

    /// Unsettled mails, in flight or not.
    pub fn unsettled(&self) -> usize {
        self.entries.len()
    }

    /// Mails in flight.
    pub fn in_flight(&self) -> usize {
        self.due.len()
    }

    /// Whether anybody listens.
    pub fn has_subscribers(&self) -> bool {
        self.subscribers
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
            match entry.flight {
                Some((_, due)) => drop(self.due.remove(&(due, entry.order, disposition.mail_id))),
                None => drop(self.waiting.remove(&entry.order)),
            }
            effects.push(Effect::Settle(disposition));
        }
    }

    fn make_all_due(&mut self, now: Duration) {
        for (_, order, id) in std::mem::take(&mut self.due) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.flight = Some((0, now));
                self.due.insert((now, order, id));
            }
        }
    }

    /// Publishes what is due, and the oldest that wait while there is room.
    fn publish(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let mut mails = Vec::new();
        while let Some(&(due, order, id)) = self.due.first().filter(|(due, ..)| *due <= now) {
            self.due.remove(&(due, order, id));
            mails.push((order, id));
        }
        mails.sort_unstable();
        while self.due.len().saturating_add(mails.len()) < self.max_in_flight
            && let Some((order, id)) = self.waiting.pop_first()
        {
            mails.push((order, id));
        }
        for (order, id) in mails {
            if let Some(entry) = self.entries.get_mut(&id) {
                let attempts = entry.flight.map_or(0, |(attempts, _)| attempts).saturating_add(1);
                let due = now.saturating_add(self.back_off.delay(attempts));
                entry.flight = Some((attempts, due));
                self.due.insert((due, order, id));
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
        assert_eq!(published(&core.step(Input::Subscribers(true), at(1))), [0, 1]);
        assert_eq!(core.next_wakeup(), Some(at(2)));
    }

    #[test]
    fn publishes_again_with_back_off_and_the_next_when_one_is_settled() {
        let mut core = window(3);
        core.step(Input::Subscribers(true), at(0));
        assert_eq!(published(&core.step(Input::Tick, at(1))), [0, 1]);
        assert_eq!(core.next_wakeup(), Some(at(3)));
        assert_eq!(published(&core.step(Input::Tick, at(2))), [0u8; 0]);
        let effects = core.step(says(0, Action::Ignored), at(2));
        assert!(matches!(effects[0], Effect::Settle(_)));
        assert_eq!(published(&effects), [2]);
        assert_eq!(core.step(says(0, Action::Ignored), at(2)), []);
        assert_eq!(core.step(says(77, Action::Ignored), at(2)), []);
    }

    #[test]
    fn listeners_that_come_back_get_everything_in_flight() {
        let mut core = window(2);
        core.step(Input::Subscribers(true), at(0));
        core.step(Input::Subscribers(false), at(0));
        assert_eq!(core.step(Input::Tick, at(100)), []);
        assert_eq!(published(&core.step(Input::Subscribers(true), at(100))), [0, 1]);
        assert_eq!(core.next_wakeup(), Some(at(101)));
    }

    #[test]
    fn a_promise_settles_only_when_the_outbox_keeps_it() {
        let mut core = window(1);
        core.step(Input::Subscribers(true), at(0));
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
            any::<bool>().prop_map(Input::Subscribers),
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
                prop_assert!(core.in_flight() <= 3);
                prop_assert_eq!(core.unsettled(), open.len());
            }
            // Whatever happened before: with listeners and time, each open mail is published and can be settled.
            core.step(Input::Subscribers(true), at(now));
            while let Some(id) = open.pop_first() {
                let reject = Disposition { mail_id: id, action: Action::Rejected, reason: String::new() };
                let effects = core.step(Input::Disposition(reject), at(now));
                prop_assert!(matches!(effects[0], Effect::Settle(_)));
            }
            prop_assert_eq!((core.unsettled(), core.in_flight(), core.next_wakeup()), (0, 0, None));
        }
    }
}
