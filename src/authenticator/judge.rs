// SPDX-License-Identifier: Apache-2.0
//! Decides what follows a check or an answer of the registry, and when to stop waiting for either. Pure.
//!
//! Unless the patience is zero, a mail is given up only after this process has tried it [`ATTEMPTS`] times, spread
//! over the whole patience. Time spent waiting while this host was off, or behind other mails, does not count, so a
//! backlog is judged slowly rather than rejected. A mail that is given up gets a verdict saying that DNS or the
//! registry did not answer.
//!
//! It relies on mail_bridge to deliver again any mail that is left.

use std::{collections::HashMap, time::Duration};

use mail::{MailId, Registration};

use super::verdict::{Checked, needs_registry};

/// Attempts before a mail is given up, spaced evenly over the patience.
pub const ATTEMPTS: u32 = 3;
/// Number of mails whose attempts are remembered. When it is full, the mail with the oldest last attempt is forgotten
/// and starts over.
const REMEMBERED: usize = 4096;

/// What to do with a mail next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Do nothing and keep no evidence; the mail will be delivered again.
    Leave,
    /// Ask the registry about the From mailbox, then call [`Judge::asked`].
    AskRegistry,
    /// Decide on the verdict, record it and publish it.
    Decide,
}

/// Failed attempts of mails that have no verdict yet.
#[derive(Debug)]
pub struct Judge {
    dns: Patience,
    registry: Patience,
}

impl Judge {
    /// Sets how long to leave mails when DNS does not answer and when the registry does not.
    pub fn new(dns: Duration, registry: Duration) -> Self {
        Self { dns: Patience::new(dns), registry: Patience::new(registry) }
    }

    /// Returns the next step once SPF, DKIM and DMARC have been checked.
    pub fn checked(&mut self, id: MailId, checked: &Checked, now: Duration) -> Step {
        if checked.is_open() && !self.dns.is_over(id, now) {
            Step::Leave
        } else if needs_registry(checked) {
            Step::AskRegistry
        } else {
            Step::Decide
        }
    }

    /// Returns the next step once the registry has been asked.
    pub fn asked(&mut self, id: MailId, registration: Registration, now: Duration) -> Step {
        if registration == Registration::Unavailable && !self.registry.is_over(id, now) {
            Step::Leave
        } else {
            Step::Decide
        }
    }

    /// Forgets the attempts of a mail whose verdict is recorded and therefore stands.
    pub fn judged(&mut self, id: MailId) {
        self.dns.attempts.remove(&id);
        self.registry.attempts.remove(&id);
    }
}

/// Failed attempts, by mail.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    attempts: HashMap<MailId, Attempts>,
}

#[derive(Clone, Copy, Debug)]
struct Attempts {
    first: Duration,
    /// Time of the last attempt that increased `count`.
    counted: Duration,
    last: Duration,
    count: u32,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, attempts: HashMap::new() }
    }

    /// Notes a failed attempt at `now`; returns whether to give up.
    fn is_over(&mut self, id: MailId, now: Duration) -> bool {
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
        if now.saturating_sub(attempts.counted) >= spacing {
            (attempts.counted, attempts.count) = (now, attempts.count.saturating_add(1));
        }
        attempts.count >= ATTEMPTS && now.saturating_sub(attempts.first) >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use mail::EmailAddress;

    use mail::AuthResult;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(900);
    const REGISTRY: Duration = Duration::from_secs(60);

    fn judge() -> Judge {
        Judge::new(PATIENCE, REGISTRY)
    }

    fn checked(dmarc: AuthResult) -> Checked {
        Checked { dmarc, from: EmailAddress::parse("dana@dispatch.example").ok(), ..Checked::default() }
    }

    fn id(number: u32) -> MailId {
        MailId::of(&number.to_be_bytes())
    }

    /// Returns the first delivery, in seconds after the first attempt, at which the mail is given up.
    fn given_up(
        mut deliveries: impl Iterator<Item = u64>,
        mut attempt: impl FnMut(Duration) -> Step,
    ) -> Option<u64> {
        deliveries.find(|&at| attempt(Duration::from_secs(at)) != Step::Leave)
    }

    #[test]
    fn a_mail_is_tried_for_the_whole_patience_of_this_process_however_old_it_is() {
        let mut judge = judge();
        let temporary = checked(AuthResult::TempError);
        let often = || (0..).step_by(10);
        assert_eq!(given_up(often(), |now| judge.checked(id(1), &temporary, now)), Some(900));
        assert_eq!(given_up(often(), |now| judge.asked(id(1), Registration::Unavailable, now)), Some(60));
        // The default schedule of mail_bridge: pauses of 10 s, 20 s, 40 s and so on, at most 600 s.
        let doubling = || [0, 10, 30, 70, 150, 310, 630, 1230].into_iter();
        assert_eq!(given_up(doubling(), |now| judge.checked(id(2), &temporary, now)), Some(1230));
        assert_eq!(given_up(doubling(), |now| judge.asked(id(2), Registration::Unavailable, now)), Some(70));
    }

    #[test]
    fn attempts_in_a_burst_count_as_one_and_two_far_apart_are_too_few() {
        let mut judge = judge();
        let (temporary, start) = (checked(AuthResult::TempError), Duration::from_secs(7));
        for attempt in 0..100 {
            let now = start + Duration::from_millis(attempt);
            assert_eq!(judge.checked(id(1), &temporary, now), Step::Leave);
        }
        // mail_bridge was away for a day; a single new failure is as weak a sign as the first one was.
        let later = start + Duration::from_secs(86400);
        assert_eq!(judge.checked(id(1), &temporary, later), Step::Leave);
        assert_eq!(judge.checked(id(1), &temporary, later + PATIENCE / 9), Step::Leave);
        assert_eq!(judge.checked(id(1), &temporary, later + PATIENCE / 3), Step::AskRegistry);
    }

    #[test]
    fn what_is_given_up_is_asked_of_the_registry_with_a_patience_of_its_own() {
        let mut judge = Judge::new(Duration::ZERO, REGISTRY);
        let (temporary, start) = (checked(AuthResult::TempError), Duration::from_secs(7));
        assert_eq!(judge.checked(id(1), &temporary, start), Step::AskRegistry);
        assert_eq!(judge.asked(id(1), Registration::Unavailable, start), Step::Leave);
        assert_eq!(judge.asked(id(1), Registration::Active, start), Step::Decide);
        let nobody = Checked { from: None, ..temporary };
        assert_eq!(judge.checked(id(2), &nobody, start), Step::Decide);
    }

    #[test]
    fn what_can_be_judged_waits_for_nothing() {
        let (mut judge, now) = (judge(), Duration::ZERO);
        assert_eq!(judge.checked(id(1), &checked(AuthResult::Pass), now), Step::AskRegistry);
        assert_eq!(judge.checked(id(1), &checked(AuthResult::Fail), now), Step::Decide);
        for registration in [Registration::Active, Registration::Unregistered, Registration::Revoked] {
            assert_eq!(judge.asked(id(1), registration, now), Step::Decide);
        }
    }

    #[test]
    fn a_flood_takes_bounded_memory_and_forgets_no_mail_that_keeps_coming() {
        let mut judge = judge();
        let (temporary, start) = (checked(AuthResult::TempError), Duration::from_secs(7));
        let mut stranger = 1;
        // Ten strangers per second; the mail is redelivered every ten seconds.
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
