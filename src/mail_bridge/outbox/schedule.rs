// SPDX-License-Identifier: Apache-2.0
//! Decides when each outbound mail is sent, and what the outcome of an attempt means. Pure.
//!
//! Time is an argument everywhere: the time since the node started. A mail's age is given once, when it is added, so
//! a clock that jumps later does not make it old. Whether the host takes mails now is left to the core.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use settings::BackOff;
use smtp::client::Outcome;

use crate::journal::{Attempt, OutboundKey, SendState};

/// Largest number of recipients of an outbound mail; each has a bit in the masks.
pub const RECIPIENTS: usize = 100;
/// Attempts before a mail may fail for its age, because the clock at start may be wrong (no battery).
const MIN_ATTEMPTS: u32 = 3;

#[derive(Debug)]
struct Entry {
    attempts: u32,
    /// When the mail was added, and how old it was then.
    added: Duration,
    age: Duration,
    due: Duration,
    /// Failed because no host was reached, so it is due as soon as one is back.
    waits: bool,
    /// The dialogue about it broke with a host in this attempt, before another host was tried.
    broke: bool,
    open: u128,
    failed: u128,
}

impl Entry {
    fn age_at(&self, now: Duration) -> Duration {
        self.age.saturating_add(now.saturating_sub(self.added))
    }
}

/// Every outbound mail that is neither delivered nor failed, and when it is due.
#[derive(Debug)]
pub struct Schedule {
    back_off: BackOff,
    give_up: Duration,
    entries: HashMap<OutboundKey, Entry>,
    due: BTreeSet<(Duration, OutboundKey)>,
}

impl Schedule {
    /// An empty schedule. Mails older than `give_up` fail at their next failed attempt, but not before the third.
    pub fn new(back_off: BackOff, give_up: Duration) -> Self {
        Self { back_off, give_up, entries: HashMap::new(), due: BTreeSet::new() }
    }

    /// Adds a mail that is on disk, due at once. `age` is its age now, `last` its last attempt before a restart.
    pub fn add(&mut self, key: OutboundKey, age: Duration, last: Option<&Attempt>, now: Duration) {
        let entry = Entry {
            attempts: last.map_or(0, |last| last.attempts),
            added: now,
            age,
            due: now,
            waits: false,
            broke: false,
            open: last.map_or(u128::MAX, |last| last.open),
            failed: last.map_or(0, |last| last.failed),
        };
        if let Some(old) = self.entries.insert(key, entry) {
            self.due.remove(&(old.due, key));
        }
        self.due.insert((now, key));
    }

    /// The mail that has been due longest, with the recipients still to try.
    pub fn next(&self, now: Duration) -> Option<(OutboundKey, u128)> {
        let (_, key) = self.due.first().filter(|(due, _)| *due <= now)?;
        self.entries.get(key).map(|entry| (*key, entry.open))
    }

    /// Reports that an attempt begins; the mail is not due until the attempt has ended.
    pub fn start(&mut self, key: OutboundKey) {
        if let Some(entry) = self.entries.get(&key) {
            self.due.remove(&(entry.due, key));
        }
    }

    /// Reports that a host is back: mails that failed because none was reached are due at once. A mail whose dialogue broke
    /// keeps its back-off: if the mail is the reason, it would take down each host as soon as that is back.
    pub fn flush(&mut self, now: Duration) {
        for (&key, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.waits) {
            entry.waits = false;
            // A mail that is being tried is not in `due`.
            if self.due.remove(&(entry.due, key)) {
                entry.due = now;
                self.due.insert((now, key));
            }
        }
    }

    /// Fails all mails that are too old, without another attempt, because the host has been away for long.
    pub fn expire(&mut self, reply: &str, now: Duration) -> Vec<Attempt> {
        let old: Vec<_> = self
            .entries
            .iter()
            .filter(|(key, entry)| {
                entry.age_at(now) >= self.give_up && self.due.contains(&(entry.due, **key))
            })
            .map(|(key, _)| *key)
            .collect();
        old.into_iter()
            .filter_map(|key| {
                let entry = self.entries.remove(&key)?;
                self.due.remove(&(entry.due, key));
                Some(Attempt {
                    key,
                    state: SendState::Failed,
                    attempts: entry.attempts,
                    open: 0,
                    failed: entry.failed | entry.open,
                    reply: self.given_up(reply),
                })
            })
            .collect()
    }

    fn given_up(&self, reply: &str) -> String {
        format!("given up after {} h: {reply}", self.give_up.as_secs() / 3600)
    }

    /// When the next mail is due.
    pub fn next_wakeup(&self) -> Option<Duration> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Applies the outcome of an attempt and returns what to write to the journal. `recipients` is the mail's number
    /// of recipients; `unreached` says that there was no dialogue about it with the last host.
    pub fn tried(
        &mut self,
        key: OutboundKey,
        recipients: usize,
        outcome: Outcome,
        unreached: bool,
        now: Duration,
    ) -> Option<Attempt> {
        let given_up = self.given_up(&outcome.reply);
        let entry = self.entries.get_mut(&key)?;
        // A mail without recipients counts as having one, which fails.
        let count = u32::try_from(recipients.max(1)).unwrap_or(u32::MAX);
        let all = 1u128.checked_shl(count).map_or(u128::MAX, |bit| bit - 1);
        entry.attempts = entry.attempts.saturating_add(1);
        entry.failed |= outcome.refused & all;
        entry.open &= all & !outcome.delivered & !outcome.refused;
        entry.waits = !std::mem::take(&mut entry.broke) && unreached;
        let old = entry.age_at(now) >= self.give_up && entry.attempts >= MIN_ATTEMPTS;
        let (state, reply) = if entry.open == 0 && entry.failed == 0 {
            (SendState::Delivered, outcome.reply)
        } else if entry.open == 0 {
            (SendState::Failed, outcome.reply)
        } else if old {
            entry.failed |= entry.open;
            entry.open = 0;
            (SendState::Failed, given_up)
        } else {
            (SendState::Deferred, outcome.reply)
        };
        let attempt =
            Attempt { key, state, attempts: entry.attempts, open: entry.open, failed: entry.failed, reply };
        self.due.remove(&(entry.due, key));
        if state == SendState::Deferred {
            entry.due = now.saturating_add(self.back_off.delay(entry.attempts));
            self.due.insert((entry.due, key));
        } else {
            self.entries.remove(&key);
        }
        Some(attempt)
    }

    /// Puts off a mail that cannot be read, without counting an attempt.
    pub fn put_off(&mut self, key: OutboundKey, now: Duration) {
        self.due_at(key, now.saturating_add(self.back_off.max));
    }

    /// Makes a mail due at once, without counting an attempt: another host is to be tried. `broke` says that the dialogue
    /// about it broke.
    pub fn again(&mut self, key: OutboundKey, broke: bool, now: Duration) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.broke |= broke;
        }
        self.due_at(key, now);
    }

    fn due_at(&mut self, key: OutboundKey, due: Duration) {
        if let Some(entry) = self.entries.get_mut(&key) {
            self.due.remove(&(entry.due, key));
            entry.due = due;
            self.due.insert((due, key));
        }
    }

    /// Number of mails still to be sent.
    pub fn pending(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::{MailId, OutboundKind};

    const BACK_OFF: BackOff = BackOff { min: Duration::from_secs(1), max: Duration::from_secs(4) };

    fn key(n: u8) -> OutboundKey {
        OutboundKey::answering(MailId::from_bytes([n; 32]), OutboundKind::Answer)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn outcome(delivered: u128, refused: u128) -> Outcome {
        Outcome { delivered, refused, reply: "reply".to_owned() }
    }

    fn schedule() -> Schedule {
        let mut schedule = Schedule::new(BACK_OFF, at(10));
        schedule.add(key(1), at(0), None, at(0));
        schedule
    }

    #[test]
    fn tries_again_with_back_off_until_delivered() {
        let mut schedule = schedule();
        assert_eq!(schedule.next(at(0)), Some((key(1), u128::MAX)));
        assert_eq!(
            schedule.tried(key(1), 1, outcome(0, 0), false, at(0)).unwrap().state,
            SendState::Deferred
        );
        assert_eq!((schedule.next(at(0)), schedule.next_wakeup()), (None, Some(at(1))));
        let delivered = schedule.tried(key(1), 1, outcome(1, 0), false, at(1)).unwrap();
        assert_eq!((delivered.state, delivered.attempts), (SendState::Delivered, 2));
        assert_eq!((schedule.pending(), schedule.next_wakeup()), (0, None));
        assert_eq!(schedule.tried(key(1), 1, outcome(1, 0), false, at(1)), None);
    }

    #[test]
    fn tries_only_the_recipients_that_are_open_and_fails_if_one_did() {
        let mut schedule = schedule();
        let attempt = schedule.tried(key(1), 3, outcome(0b001, 0b010), false, at(0)).unwrap();
        assert_eq!((attempt.state, attempt.open, attempt.failed), (SendState::Deferred, 0b100, 0b010));
        assert_eq!(schedule.next(at(1)), Some((key(1), 0b100)));
        assert_eq!(
            schedule.tried(key(1), 3, outcome(0b100, 0), false, at(1)).unwrap().state,
            SendState::Failed
        );
    }

    #[test]
    fn gives_up_on_the_old_but_not_before_a_few_attempts() {
        let mut schedule = Schedule::new(BACK_OFF, at(10));
        schedule.add(key(1), at(1_000_000_000), None, at(0));
        let states: Vec<_> =
            (0..3).map(|n| schedule.tried(key(1), 1, outcome(0, 0), false, at(n)).unwrap().state).collect();
        assert_eq!(states, [SendState::Deferred, SendState::Deferred, SendState::Failed]);
    }

    #[test]
    fn goes_on_where_it_was_before_a_restart() {
        let last = Attempt {
            key: key(1),
            state: SendState::Deferred,
            attempts: 7,
            open: 0b10,
            failed: 0,
            reply: String::new(),
        };
        let mut schedule = Schedule::new(BACK_OFF, at(10));
        schedule.add(key(1), at(0), Some(&last), at(0));
        assert_eq!(schedule.next(at(0)), Some((key(1), 0b10)));
        let delivered = schedule.tried(key(1), 2, outcome(0b10, 0), false, at(0)).unwrap();
        assert_eq!((delivered.state, delivered.attempts), (SendState::Delivered, 8));
    }

    #[test]
    fn what_failed_because_no_host_was_reached_is_due_when_one_is_back() {
        let mut schedule = Schedule::new(BACK_OFF, at(1000));
        for n in [1, 2, 3] {
            schedule.add(key(n), at(0), None, at(0));
        }
        for (n, unreached) in [(1, true), (2, false)] {
            schedule.start(key(n));
            schedule.tried(key(n), 1, outcome(0, 0), unreached, at(0)).unwrap();
        }
        schedule.start(key(3));
        assert_eq!(schedule.next(at(0)), None, "the third is being tried");
        schedule.flush(at(0));
        assert_eq!(schedule.next(at(0)), Some((key(1), 1)));
        schedule.start(key(1));
        assert_eq!((schedule.next(at(0)), schedule.next_wakeup()), (None, Some(at(1))));
    }

    #[test]
    fn what_is_too_old_fails_while_the_host_is_away_and_nobody_invents_attempts() {
        let mut schedule = Schedule::new(BACK_OFF, at(10));
        schedule.add(key(1), at(0), None, at(0));
        schedule.add(key(2), at(5), None, at(0));
        schedule.add(key(3), at(99), None, at(0));
        schedule.start(key(3));
        assert_eq!(schedule.expire("away", at(4)), []);
        let failed = schedule.expire("away", at(5));
        assert_eq!((failed.len(), failed[0].key, failed[0].attempts), (1, key(2), 0));
        assert_eq!(
            (failed[0].state, failed[0].reply.as_str()),
            (SendState::Failed, "given up after 0 h: away")
        );
        assert_eq!(schedule.pending(), 2);
    }
}
