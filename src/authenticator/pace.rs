// SPDX-License-Identifier: Apache-2.0
//! Decides when the anchorer turns to the chain, and whether waiting may cure a failure. Pure.
//!
//! - At the start and after a failure there may be receipts to restore, so the chain is asked until it has nothing left
//!   to do. From then on it is asked when a batch is full or old enough.
//! - After a failure the chain is left alone for a back-off, however much evidence comes in.
//! - A chain that contradicts the evidence log is asked again until it has done so for the whole patience.
//!
//! Time is an argument: the time since the anchorer started. What to ask is left to [`super::anchor`].

use std::time::Duration;

use settings::BackOff;

/// When to anchor a batch, and how long to tolerate a chain that contradicts the log.
#[derive(Clone, Debug)]
pub struct AnchorPolicy {
    /// Maximum number of leaves in a batch, at least 1; a batch with this many is anchored at once.
    pub max_batch: u32,
    /// Longest time a leaf waits for others to join its batch.
    pub max_age: Duration,
    /// How long the chain may contradict the evidence log before that is final. It can be temporary: one of several
    /// nodes behind an endpoint may lag, and a block may be replaced.
    pub patience: Duration,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask the chain, then report [`Pace::turned`] or [`Pace::failed`].
    Ask,
    /// Wait for more evidence, at most until this time.
    Wait(Option<Duration>),
}

/// What the anchorer did when it asked the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There was nothing to do.
    Rested,
    /// It anchored a batch.
    Anchored,
    /// It restored the receipts of a batch that was on chain already.
    Restored,
}

/// Why the anchorer could do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The chain did not answer, or rejected a request for now.
    Temporary,
    /// The chain contradicts the log, which may be temporary.
    Contradiction,
    /// Nothing that waiting will cure.
    Final,
}

/// When to turn to the chain.
#[derive(Debug)]
pub struct Pace {
    policy: AnchorPolicy,
    back_off: BackOff,
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Time of the first contradiction since the last success.
    contradicted: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The chain may have something to do; ask at this time.
    Due(Duration),
    /// It has nothing left to do. `oldest`: when evidence without a receipt was first seen.
    Rested { oldest: Option<Duration> },
}

impl Pace {
    /// A pace that asks at once.
    pub fn new(policy: AnchorPolicy, back_off: BackOff) -> Self {
        Self { policy, back_off, state: State::Due(Duration::ZERO), failures: 0, contradicted: None }
    }

    /// Decides what to do now; `pending` is the number of leaves without a receipt. Call it again when there are more.
    pub fn next(&mut self, pending: u64, now: Duration) -> Next {
        let due = match &mut self.state {
            State::Due(due) => *due,
            State::Rested { oldest } if pending == 0 => {
                *oldest = None;
                return Next::Wait(None);
            }
            State::Rested { .. } if pending >= self.policy.max_batch.into() => now,
            State::Rested { oldest } => oldest.get_or_insert(now).saturating_add(self.policy.max_age),
        };
        if due <= now { Next::Ask } else { Next::Wait(Some(due)) }
    }

    /// Reports that the chain answered.
    pub fn turned(&mut self, turn: Turn, now: Duration) {
        (self.failures, self.contradicted) = (0, None);
        self.state = match (turn, self.state) {
            (Turn::Rested, _) | (Turn::Anchored, State::Rested { .. }) => State::Rested { oldest: None },
            (Turn::Anchored, State::Due(_)) | (Turn::Restored, _) => State::Due(now),
        };
    }

    /// Reports a failure. Returns whether to go on, which [`next`](Self::next) then puts off.
    pub fn failed(&mut self, failure: Failure, now: Duration) -> bool {
        let goes_on = match failure {
            Failure::Temporary => true,
            Failure::Contradiction => {
                now.saturating_sub(*self.contradicted.get_or_insert(now)) < self.policy.patience
            }
            Failure::Final => false,
        };
        self.failures = self.failures.saturating_add(1);
        self.state = State::Due(now.saturating_add(self.back_off.delay(self.failures)));
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: AnchorPolicy = AnchorPolicy { max_batch: 3, max_age: at(10), patience: at(100) };
    const BACK_OFF: BackOff = BackOff { min: at(1), max: at(5) };

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn pace() -> Pace {
        Pace::new(POLICY, BACK_OFF)
    }

    /// A pace that found nothing to do at 0 s.
    fn rested() -> Pace {
        let mut pace = pace();
        pace.turned(Turn::Rested, at(0));
        pace
    }

    #[test]
    fn waits_until_a_batch_is_full_or_old_and_for_ever_if_there_is_nothing() {
        let mut pace = rested();
        assert_eq!(pace.next(0, at(99)), Next::Wait(None));
        assert_eq!(pace.next(1, at(100)), Next::Wait(Some(at(110))));
        assert_eq!(pace.next(2, at(104)), Next::Wait(Some(at(110))), "the second does not put off the first");
        assert_eq!(pace.next(2, at(110)), Next::Ask);
        pace.turned(Turn::Anchored, at(111));
        assert_eq!(pace.next(0, at(112)), Next::Wait(None));
        assert_eq!(pace.next(3, at(112)), Next::Ask, "a full batch does not wait");
    }

    #[test]
    fn asks_at_the_start_until_there_is_nothing_left_to_do() {
        let mut pace = pace();
        assert_eq!(pace.next(0, at(0)), Next::Ask);
        for turn in [Turn::Restored, Turn::Restored, Turn::Anchored] {
            pace.turned(turn, at(0));
            assert_eq!(pace.next(1, at(0)), Next::Ask, "after {turn:?}");
        }
        pace.turned(Turn::Rested, at(0));
        assert_eq!(pace.next(1, at(0)), Next::Wait(Some(at(10))));
        pace.turned(Turn::Restored, at(0));
        assert_eq!(pace.next(1, at(0)), Next::Ask, "somebody else anchored; there may be more of it");
    }

    #[test]
    fn a_chain_that_does_not_answer_is_left_alone_longer_each_time() {
        let mut pace = rested();
        for (failed, due) in [(0, 1), (1, 3), (3, 7), (7, 12), (12, 17)] {
            assert!(pace.failed(Failure::Temporary, at(failed)));
            assert_eq!(pace.next(999, at(failed)), Next::Wait(Some(at(due))), "whatever waits");
            assert_eq!(pace.next(0, at(due)), Next::Ask, "there may be receipts to restore");
        }
        pace.turned(Turn::Rested, at(17));
        pace.failed(Failure::Temporary, at(17));
        assert_eq!(pace.next(1, at(17)), Next::Wait(Some(at(18))), "counted anew");
    }

    #[test]
    fn a_contradiction_is_final_after_the_patience_unless_the_chain_recovers() {
        let mut pace = rested();
        assert!(pace.failed(Failure::Contradiction, at(0)));
        assert!(pace.failed(Failure::Contradiction, at(99)));
        pace.turned(Turn::Rested, at(99));
        assert!(pace.failed(Failure::Contradiction, at(100)));
        assert!(pace.failed(Failure::Temporary, at(150)), "which says nothing about the contradiction");
        assert!(!pace.failed(Failure::Contradiction, at(200)));
        assert!(!rested().failed(Failure::Final, at(0)));
        let mut impatient = Pace::new(AnchorPolicy { patience: at(0), ..POLICY }, BACK_OFF);
        assert!(!impatient.failed(Failure::Contradiction, at(0)));
    }

    proptest! {
        /// Evidence comes in, and the chain answers or does not.
        #[test]
        fn never_spins_never_hurries_a_silent_chain_and_anchors_everything_once_it_answers(
            events in prop::collection::vec((0u64..5, prop::bool::ANY, 0u64..15), 0..100),
        ) {
            let (mut pace, mut pending, mut now, mut failed) = (pace(), 0, at(0), None);
            for (more, answers, pause) in events {
                pending += more;
                now += at(pause);
                match pace.next(pending, now) {
                    Next::Ask => {
                        prop_assert!(failed.is_none_or(|failed| now >= failed + BACK_OFF.min));
                        if answers {
                            let turn = if pending == 0 { Turn::Rested } else { Turn::Anchored };
                            pending = pending.saturating_sub(POLICY.max_batch.into());
                            pace.turned(turn, now);
                        } else {
                            prop_assert!(pace.failed(Failure::Temporary, now));
                        }
                        failed = (!answers).then_some(now);
                    }
                    Next::Wait(Some(until)) => prop_assert!(until > now && until <= now + POLICY.max_age),
                    Next::Wait(None) => prop_assert_eq!(pending, 0),
                }
            }
            for _ in 0..1000 {
                match pace.next(pending, now) {
                    Next::Ask => {
                        pending = pending.saturating_sub(POLICY.max_batch.into());
                        pace.turned(Turn::Anchored, now);
                    }
                    Next::Wait(Some(until)) => now = until,
                    Next::Wait(None) => break,
                }
                if pending == 0 {
                    break;
                }
            }
            prop_assert_eq!(pending, 0);
        }
    }
}
