// SPDX-License-Identifier: Apache-2.0
//! Decides when the anchorer turns to the chain, and whether waiting may cure a failure. Pure.
//!
//! - At the start and after a failure nobody knows what is on its way, so the anchorer first compares the evidence log
//!   with the chain. What was left over then is anchored at once; from then on, a batch is once it is full or old
//!   enough.
//! - After a failure the chain is left alone for a back-off, however much evidence comes in.
//! - A chain that contradicts itself is asked again until it has done so for the whole patience.
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
    /// How often to look whether the chain still has what was final, until no reorganisation can take that back.
    pub watch: Duration,
    /// How long the chain must lack what was final before that is believed.
    pub lag: Duration,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Compare with the chain, then report [`Pace::compared`] or [`Pace::failed`].
    Compare,
    /// Anchor a batch, then report [`Pace::sent`] or [`Pace::failed`].
    Anchor,
    /// Wait for more evidence, at most until this time.
    Wait(Option<Duration>),
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
    /// The log must be compared with the chain, at this time.
    Unknown(Duration),
    /// What is on its way is known. `due`: when evidence that waits is to be anchored.
    Known { due: Option<Duration> },
}

impl Pace {
    /// A pace that compares at once.
    pub fn new(policy: AnchorPolicy, back_off: BackOff) -> Self {
        Self { policy, back_off, state: State::Unknown(Duration::ZERO), failures: 0, contradicted: None }
    }

    /// Decides what to do now; `waiting` is the number of leaves that are not on their way to the chain. Call it again
    /// when there are more.
    pub fn next(&mut self, waiting: u64, now: Duration) -> Next {
        match &mut self.state {
            State::Unknown(due) if *due <= now => Next::Compare,
            State::Unknown(due) => Next::Wait(Some(*due)),
            State::Known { due } if waiting == 0 => {
                *due = None;
                Next::Wait(None)
            }
            State::Known { due } => {
                let due = *due.get_or_insert(now.saturating_add(self.policy.max_age));
                let is_full = waiting >= self.policy.max_batch.into();
                if is_full || due <= now { Next::Anchor } else { Next::Wait(Some(due)) }
            }
        }
    }

    /// Reports that log and chain agree; what waits has waited since before.
    pub fn compared(&mut self, now: Duration) {
        (self.contradicted, self.state) = (None, State::Known { due: Some(now) });
    }

    /// Reports that a batch is on its way.
    pub fn sent(&mut self) {
        self.state = State::Known { due: None };
    }

    /// Reports that a batch is final.
    pub fn anchored(&mut self) {
        self.failures = 0;
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
        self.state = State::Unknown(now.saturating_add(self.back_off.delay(self.failures)));
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: AnchorPolicy =
        AnchorPolicy { max_batch: 3, max_age: at(10), patience: at(100), watch: at(0), lag: at(0) };
    const BACK_OFF: BackOff = BackOff { min: at(1), max: at(5) };

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn pace() -> Pace {
        Pace::new(POLICY, BACK_OFF)
    }

    /// A pace that found nothing to do at 0 s.
    fn known() -> Pace {
        let mut pace = pace();
        pace.compared(at(0));
        assert_eq!(pace.next(0, at(0)), Next::Wait(None));
        pace
    }

    #[test]
    fn waits_until_a_batch_is_full_or_old_and_for_ever_if_there_is_nothing() {
        let mut pace = known();
        assert_eq!(pace.next(0, at(99)), Next::Wait(None));
        assert_eq!(pace.next(1, at(100)), Next::Wait(Some(at(110))));
        assert_eq!(pace.next(2, at(104)), Next::Wait(Some(at(110))), "the second does not put off the first");
        assert_eq!(pace.next(2, at(110)), Next::Anchor);
        pace.sent();
        assert_eq!(pace.next(0, at(112)), Next::Wait(None));
        assert_eq!(pace.next(3, at(112)), Next::Anchor, "a full batch does not wait");
        pace.sent();
        assert_eq!(pace.next(2, at(113)), Next::Wait(Some(at(123))), "what came behind it is young");
    }

    #[test]
    fn compares_at_the_start_and_anchors_at_once_what_was_left_over() {
        let mut pace = pace();
        assert_eq!(pace.next(0, at(0)), Next::Compare);
        pace.compared(at(1));
        assert_eq!(pace.next(1, at(1)), Next::Anchor);
        pace.sent();
        assert_eq!(pace.next(1, at(2)), Next::Wait(Some(at(12))));
    }

    #[test]
    fn a_chain_that_does_not_answer_is_left_alone_longer_each_time() {
        let mut pace = known();
        for (failed, due) in [(0, 1), (1, 3), (3, 7), (7, 12), (12, 17)] {
            assert!(pace.failed(Failure::Temporary, at(failed)));
            assert_eq!(pace.next(999, at(failed)), Next::Wait(Some(at(due))), "whatever waits");
            assert_eq!(pace.next(0, at(due)), Next::Compare, "nobody knows what is on its way");
        }
        pace.compared(at(17));
        assert!(pace.failed(Failure::Temporary, at(17)));
        assert_eq!(pace.next(1, at(17)), Next::Wait(Some(at(22))), "it has answered, and anchored nothing");
        pace.compared(at(22));
        pace.anchored();
        assert!(pace.failed(Failure::Temporary, at(22)));
        assert_eq!(pace.next(1, at(22)), Next::Wait(Some(at(23))), "counted anew");
    }

    #[test]
    fn a_contradiction_is_final_after_the_patience_unless_the_chain_recovers() {
        let mut pace = known();
        assert!(pace.failed(Failure::Contradiction, at(0)));
        assert!(pace.failed(Failure::Contradiction, at(99)));
        pace.compared(at(99));
        assert!(pace.failed(Failure::Contradiction, at(100)));
        assert!(pace.failed(Failure::Temporary, at(150)), "which says nothing about the contradiction");
        assert!(!pace.failed(Failure::Contradiction, at(200)));
        assert!(!known().failed(Failure::Final, at(0)));
        let mut impatient = Pace::new(AnchorPolicy { patience: at(0), ..POLICY }, BACK_OFF);
        assert!(!impatient.failed(Failure::Contradiction, at(0)));
    }

    proptest! {
        /// Evidence comes in, and the chain answers or does not.
        #[test]
        fn never_spins_never_hurries_a_silent_chain_and_anchors_everything_once_it_answers(
            events in prop::collection::vec((0u64..5, prop::bool::ANY, 0u64..15), 0..100),
        ) {
            let (mut pace, mut waiting, mut now, mut failed) = (pace(), 0_u64, at(0), None);
            for (more, answers, pause) in events {
                waiting += more;
                now += at(pause);
                match pace.next(waiting, now) {
                    Next::Compare | Next::Anchor if !answers => {
                        prop_assert!(failed.is_none_or(|failed| now >= failed + BACK_OFF.min));
                        prop_assert!(pace.failed(Failure::Temporary, now));
                        failed = Some(now);
                    }
                    Next::Compare => {
                        prop_assert!(failed.is_none_or(|failed| now >= failed + BACK_OFF.min));
                        pace.compared(now);
                        failed = None;
                    }
                    Next::Anchor => {
                        prop_assert!(waiting > 0);
                        waiting = waiting.saturating_sub(POLICY.max_batch.into());
                        pace.sent();
                    }
                    Next::Wait(Some(until)) => prop_assert!(until > now && until <= now + POLICY.max_age),
                    Next::Wait(None) => prop_assert_eq!(waiting, 0),
                }
            }
            for _ in 0..1000 {
                match pace.next(waiting, now) {
                    Next::Compare => pace.compared(now),
                    Next::Anchor => {
                        waiting = waiting.saturating_sub(POLICY.max_batch.into());
                        pace.sent();
                    }
                    Next::Wait(Some(until)) => now = until,
                    Next::Wait(None) => break,
                }
            }
            prop_assert_eq!(waiting, 0);
        }
    }
}
