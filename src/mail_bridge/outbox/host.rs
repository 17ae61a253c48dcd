// SPDX-License-Identifier: Apache-2.0
//! Tracks whether a smart host is reachable, and how many mails may be tried with it in parallel. Pure.
//!
//! - When the host is away, only the mail that found out loses an attempt: the others wait until a probe, a
//!   connection without a mail, reaches the host again.
//! - Until the host has completed a dialogue, at the start and after it was away, it gets one mail at a time.
//!
//! It leaves connecting to the attempt, and the retry times of mails to the schedule.

use std::time::Duration;

/// This many probes in a row must fail before mails may fail for their age, because the clock at start may be wrong.
const MIN_PROBES: u32 = 3;
/// A host that refused name and password is probed no sooner: servers lock accounts that try too often.
const LOGIN_PAUSE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A dialogue about a mail ran to its end.
    Proven,
    /// Not tried yet, or only greeted.
    Unproven,
    /// Away; the next probe is due at `probe`.
    Away { probe: Duration, failures: u32 },
}

/// What is known of a smart host.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    state: State,
    probe_every: Duration,
    connections: usize,
}

impl Host {
    /// A host not yet contacted. `connections` is the number of mails that it gets in parallel once it works.
    pub fn new(probe_every: Duration, connections: usize) -> Self {
        Self { state: State::Unproven, probe_every, connections }
    }

    /// Number of mails that may be tried in parallel.
    pub fn places(&self) -> usize {
        match self.state {
            State::Proven => self.connections,
            State::Unproven => 1,
            State::Away { .. } => 0,
        }
    }

    /// When the next probe is due; `None` if the host is not away.
    pub fn probe_due(&self) -> Option<Duration> {
        match self.state {
            State::Away { probe, .. } => Some(probe),
            State::Proven | State::Unproven => None,
        }
    }

    /// Reports that a connection could not be made, or was lost; `login_refused` says that the host refused name and
    /// password.
    pub fn failed(&mut self, now: Duration, login_refused: bool) {
        let failures = match self.state {
            // Several mails under way lose their connections to the same failure.
            State::Away { probe, .. } if now < probe => return,
            State::Away { failures, .. } => failures,
            State::Proven | State::Unproven => 0,
        };
        let pause = if login_refused { self.probe_every.max(LOGIN_PAUSE) } else { self.probe_every };
        let probe = now.saturating_add(pause);
        self.state = State::Away { probe, failures: failures.saturating_add(1) };
    }

    /// Reports that a probe was greeted.
    pub fn greeted(&mut self) {
        self.state = State::Unproven;
    }

    /// Reports that a dialogue about a mail ran to its end, whatever its outcome.
    pub fn worked(&mut self) {
        self.state = State::Proven;
    }

    /// Whether the host has been away for so many probes that mails may fail for their age.
    pub fn lost(&self) -> bool {
        matches!(self.state, State::Away { failures, .. } if failures > MIN_PROBES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_mail_finds_out_and_a_probe_finds_it_again() {
        let mut host = Host::new(at(10), 4);
        assert_eq!((host.places(), host.probe_due()), (1, None));
        host.failed(at(0), false);
        host.failed(at(5), false);
        assert_eq!((host.places(), host.probe_due()), (0, Some(at(10))), "the second is of the same failure");
        host.failed(at(10), false);
        assert_eq!(host.probe_due(), Some(at(20)), "always after the same time");
        host.greeted();
        assert_eq!((host.places(), host.probe_due()), (1, None), "a greeting is no delivery");
        host.worked();
        assert_eq!((host.places(), host.probe_due()), (4, None));
    }

    #[test]
    fn a_refused_login_is_not_repeated_soon() {
        for (every, due) in [(at(10), LOGIN_PAUSE), (at(1000), at(1000))] {
            let mut host = Host::new(every, 4);
            host.failed(at(0), true);
            assert_eq!(host.probe_due(), Some(due));
        }
    }

    #[test]
    fn is_lost_after_three_probes_beside_the_mail_that_found_out() {
        let mut host = Host::new(at(1), 4);
        let lost: Vec<_> = (0..5)
            .map(|n| {
                host.failed(at(n), false);
                host.lost()
            })
            .collect();
        assert_eq!(lost, [false, false, false, true, true]);
    }
}
