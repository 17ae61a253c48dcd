//! The order of steps from a delivered mail to its verdict, and when to stop waiting for DNS or the registry. Pure: the
//! caller does what [`Step`] says and injects the time.
//!
//! Guarantees: a mail is given up only after it was tried [`ATTEMPTS`] times, spread over the whole patience, by this
//! process. The time that it waited while this host was off, or behind others, does not count: a backlog is judged
//! slowly rather than refused. What is given up goes on with the verdict that DNS or the registry did not answer.
//! What is left is delivered again by mail_bridge, which this module relies on.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::core::{Checked, needs_registry};
use crate::mail::{AuthResult, MailId, Registration};

/// Attempts before a mail is given up, evenly over the patience.
pub const ATTEMPTS: u32 = 3;
/// Mails of which the attempts are remembered; beyond, the one whose last attempt is longest ago starts anew.
const REMEMBERED: usize = 4096;

/// What to do with a mail next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it will be delivered again. Leaves no evidence.
    Leave,
    /// Ask the registry about the From mailbox, then [`Judge::asked`].
    AskRegistry,
    /// Decide, record and publish the verdict.
    Decide,
}

/// What has been tried so far for mails that have no verdict yet.
#[derive(Debug)]
pub struct Judge {
    dns: Patience,
    registry: Patience,
}

impl Judge {
    /// How long mails are left for want of DNS, and for want of the registry.
    pub fn new(dns: Duration, registry: Duration) -> Self {
        Self { dns: Patience::new(dns), registry: Patience::new(registry) }
    }

    /// After SPF, DKIM and DMARC.
    pub fn checked(&mut self, id: MailId, checked: &Checked, now: Instant) -> Step {
        if checked.dmarc == AuthResult::TempError && !self.dns.is_over(id, now) {
            Step::Leave
        } else if needs_registry(checked) {
            Step::AskRegistry
        } else {
            Step::Decide
        }
    }

    /// After the registry was asked.
    pub fn asked(&mut self, id: MailId, registration: Registration, now: Instant) -> Step {
        if registration == Registration::Unavailable && !self.registry.is_over(id, now) {
            Step::Leave
        } else {
            Step::Decide
        }
    }

    /// The verdict is recorded: from now on it stands.
    pub fn judged(&mut self, id: MailId) {
        self.dns.attempts.remove(&id);
        self.registry.attempts.remove(&id);
    }
}

/// Attempts that failed, by mail.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    attempts: HashMap<MailId, Attempts>,
}

#[derive(Clone, Copy, Debug)]
struct Attempts {
    first: Instant,
    /// Of which `count` counts.
    counted: Instant,
    last: Instant,
    count: u32,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, attempts: HashMap::new() }
    }

    /// Notes an attempt that failed at `now`; whether it was the last one.
    fn is_over(&mut self, id: MailId, now: Instant) -> bool {
        if self.limit.is_zero() {
            return true;
        }
        if self.attempts.len() >= REMEMBERED && !self.attempts.contains_key(&id) {
            let oldest = self.attempts.iter().min_by_key(|(_, attempts)| attempts.last).map(|(&id, _)| id);
            oldest.and_then(|id| self.attempts.remove(&id));
        }
        let spacing = self.limit / ATTEMPTS;
        let attempts =
            self.attempts.entry(id).or_insert(Attempts { first: now, counted: now, last: now, count: 1 });
        attempts.last = now;
        if now.duration_since(attempts.counted) >= spacing {
            (attempts.counted, attempts.count) = (now, attempts.count.saturating_add(1));
        }
        attempts.count >= ATTEMPTS && now.duration_since(attempts.first) >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(900);
    const REGISTRY: Duration = Duration::from_secs(60);

    fn judge() -> Judge {
        Judge::new(PATIENCE, REGISTRY)
    }

    fn checked(dmarc: AuthResult) -> Checked {
        Checked { dmarc, from: Some("dana@dispatch.example".to_owned()), ..Checked::default() }
    }

    fn id(number: u32) -> MailId {
        MailId::of(&number.to_be_bytes())
    }

    /// Of these seconds after the first delivery, the one at which a mail is given up.
    fn given_up(
        mut deliveries: impl Iterator<Item = u64>,
        mut attempt: impl FnMut(Instant) -> Step,
    ) -> Option<u64> {
        let start = Instant::now();
        deliveries.find(|&at| attempt(start + Duration::from_secs(at)) != Step::Leave)
    }

    #[test]
    fn a_mail_is_tried_for_the_whole_patience_of_this_process_however_old_it_is() {
        let mut judge = judge();
        let temporary = checked(AuthResult::TempError);
        let often = || (0..).step_by(10);
        assert_eq!(given_up(often(), |now| judge.checked(id(1), &temporary, now)), Some(900));
        assert_eq!(given_up(often(), |now| judge.asked(id(1), Registration::Unavailable, now)), Some(60));
        // As mail_bridge does by default: after 10 s, 20 s, 40 s, at most 600 s.
        let doubling = || [0, 10, 30, 70, 150, 310, 630, 1230].into_iter();
        assert_eq!(given_up(doubling(), |now| judge.checked(id(2), &temporary, now)), Some(1230));
        assert_eq!(given_up(doubling(), |now| judge.asked(id(2), Registration::Unavailable, now)), Some(70));
    }

    #[test]
    fn attempts_in_a_burst_count_as_one_and_two_far_apart_are_too_few() {
        let mut judge = judge();
        let (temporary, start) = (checked(AuthResult::TempError), Instant::now());
        for attempt in 0..100 {
            let now = start + Duration::from_millis(attempt);
            assert_eq!(judge.checked(id(1), &temporary, now), Step::Leave);
        }
        // mail_bridge was away for a day; one more failure says no more about now than the first.
        let later = start + Duration::from_secs(86400);
        assert_eq!(judge.checked(id(1), &temporary, later), Step::Leave);
        assert_eq!(judge.checked(id(1), &temporary, later + PATIENCE / 9), Step::Leave);
        assert_eq!(judge.checked(id(1), &temporary, later + PATIENCE / 3), Step::AskRegistry);
    }

    #[test]
    fn what_is_given_up_is_asked_of_the_registry_with_a_patience_of_its_own() {
        let mut judge = Judge::new(Duration::ZERO, REGISTRY);
        let (temporary, start) = (checked(AuthResult::TempError), Instant::now());
        assert_eq!(judge.checked(id(1), &temporary, start), Step::AskRegistry);
        assert_eq!(judge.asked(id(1), Registration::Unavailable, start), Step::Leave);
        assert_eq!(judge.asked(id(1), Registration::Active, start), Step::Decide);
        let nobody = Checked { from: None, ..temporary };
        assert_eq!(judge.checked(id(2), &nobody, start), Step::Decide);
    }

    #[test]
    fn what_can_be_judged_waits_for_nothing() {
        let (mut judge, now) = (judge(), Instant::now());
        assert_eq!(judge.checked(id(1), &checked(AuthResult::Pass), now), Step::AskRegistry);
        assert_eq!(judge.checked(id(1), &checked(AuthResult::Fail), now), Step::Decide);
        for registration in [Registration::Active, Registration::Unregistered, Registration::Revoked] {
            assert_eq!(judge.asked(id(1), registration, now), Step::Decide);
        }
    }

    #[test]
    fn a_flood_takes_bounded_memory_and_forgets_no_mail_that_keeps_coming() {
        let mut judge = judge();
        let (temporary, start) = (checked(AuthResult::TempError), Instant::now());
        let mut stranger = 1;
        // Ten strangers a second; the mail comes again every ten seconds.
        let given_up = (0..).step_by(10).find(|&at| {
            let now = start + Duration::from_secs(at);
            for _ in 0..100 {
                stranger += 1;
                judge.checked(id(stranger), &temporary, now);
            }
            judge.checked(id(0), &temporary, now) != Step::Leave
        });
        assert_eq!(given_up, Some(900));
        assert_eq!(judge.dns.attempts.len(), REMEMBERED);
        judge.judged(id(0));
        assert_eq!(judge.dns.attempts.len(), REMEMBERED - 1);
    }
}
