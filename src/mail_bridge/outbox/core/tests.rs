// SPDX-License-Identifier: Apache-2.0
use std::collections::{BTreeMap, BTreeSet};

use mail::{MailId, OutboundKind};
use proptest::{prelude::*, sample::Index};
use settings::BackOff;

use super::{super::host::Host, *};

const BACK_OFF: BackOff = BackOff { min: Duration::from_secs(1), max: Duration::from_secs(4) };
const PROBE: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 3;

fn key(n: u8) -> OutboundKey {
    OutboundKey::answering(MailId::from_bytes([n; 32]), OutboundKind::Answer)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn hosts(count: usize) -> Hosts {
    Hosts::new(Host::new(PROBE, CONNECTIONS), count)
}

/// A core with one host that gives mails up after 100 s.
fn core() -> Core {
    Core::new(hosts(1), Schedule::new(BACK_OFF, at(100)))
}

fn queued(n: u8) -> Input {
    Input::Queued { key: key(n), recipients: 1, invalid: None }
}

fn tried(n: u8, delivered: u128, contact: Contact) -> Input {
    let outcome = Outcome { delivered, refused: 0, reply: "reply".to_owned() };
    Input::Tried { key: key(n), recipients: 1, outcome, contact }
}

fn tries(n: u8) -> Effect {
    tries_by(n, 0)
}

fn tries_by(n: u8, host: usize) -> Effect {
    Effect::Try { key: key(n), open: u128::MAX, host }
}

fn unanswered(host: usize) -> Input {
    Input::Unanswered { host, reply: "away".to_owned(), login_refused: false }
}

fn concluded(effects: &[Effect]) -> Vec<(OutboundKey, SendState)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Conclude(attempt) => Some((attempt.key, attempt.state)),
            _ => None,
        })
        .collect()
}

#[test]
fn one_mail_goes_first_and_once_the_host_has_taken_it_the_others_go_side_by_side() {
    let mut core = core();
    assert_eq!(core.step(queued(1), at(0)), [tries(1)]);
    for n in 2..=5 {
        assert_eq!(core.step(queued(n), at(0)), []);
    }
    assert_eq!(core.next_wakeup(), None, "only the end of the attempt makes a place");
    let effects = core.step(tried(1, 1, Contact::Worked), at(1));
    assert_eq!(concluded(&effects), [(key(1), SendState::Delivered)]);
    assert_eq!(effects[1..], [tries(2), tries(3), tries(4)]);
    assert_eq!((core.figures().pending, core.figures().delivered), (4, 1));
}

#[test]
fn while_the_host_is_away_only_probes_go_out_and_all_mails_when_it_is_back() {
    let back_off = BackOff { min: at(5000), max: at(5000) };
    let mut core = Core::new(hosts(1), Schedule::new(back_off, at(9999)));
    core.step(queued(1), at(0));
    core.step(queued(2), at(0));
    let effects = core.step(tried(1, 0, Contact::Unreached), at(0));
    assert_eq!(concluded(&effects), [(key(1), SendState::Deferred)]);
    assert_eq!(core.step(queued(3), at(5)), []);
    assert_eq!((core.step(Input::Tick, at(9)), core.next_wakeup()), (vec![], Some(at(10))));
    assert_eq!(core.step(Input::Tick, at(10)), [Effect::Probe(0)]);
    assert_eq!((core.step(Input::Tick, at(99)), core.next_wakeup()), (vec![], None), "one probe at a time");
    assert_eq!(core.step(unanswered(0), at(99)), [Effect::CloseIdle]);
    assert_eq!(core.step(Input::Tick, at(109)), [Effect::Probe(0)]);
    assert_eq!(core.step(Input::Greeted(0), at(110)), [tries(2)], "one first; it has waited longest");
    let effects = core.step(tried(2, 1, Contact::Worked), at(110));
    assert_eq!(
        effects[1..],
        [tries(3), Effect::Try { key: key(1), open: 1, host: 0 }],
        "no back-off keeps the first"
    );
    assert_eq!(core.figures().failures_in_a_row, 0);
}

#[test]
fn nobody_probes_for_nothing() {
    let mut core = core();
    core.step(queued(1), at(0));
    core.step(tried(1, 1, Contact::LostAfterData), at(0));
    assert_eq!((core.step(Input::Tick, at(99)), core.next_wakeup()), (vec![], None));
    assert_eq!(core.step(queued(2), at(100)), [Effect::Probe(0)], "now a mail waits");
}

#[test]
fn a_mail_that_can_never_be_sent_fails_at_once_even_while_the_host_is_away() {
    let mut core = core();
    core.step(queued(1), at(0));
    core.step(tried(1, 0, Contact::Away), at(0));
    let invalid = Some("invalid: no recipient".to_owned());
    let effects = core.step(Input::Queued { key: key(2), recipients: 0, invalid }, at(1));
    let [Effect::Conclude(attempt)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((attempt.key, attempt.state), (key(2), SendState::Failed));
    assert_eq!(attempt.reply, "invalid: no recipient");
    assert_eq!((core.figures().pending, core.figures().failed), (1, 1));
}

#[test]
fn mails_too_old_fail_without_another_attempt_once_the_host_is_lost() {
    let mut core = core();
    core.step(queued(1), at(0));
    core.step(queued(2), at(0));
    core.step(tried(1, 0, Contact::Away), at(0));
    for probe in 1..=3 {
        assert_eq!(core.step(Input::Tick, at(100 * probe)), [Effect::Probe(0)]);
        let effects = core.step(unanswered(0), at(100 * probe));
        let mut failed = concluded(&effects);
        failed.sort_by_key(|(key, _)| *key);
        let all = [(key(1), SendState::Failed), (key(2), SendState::Failed)];
        assert_eq!(failed, if probe < 3 { &[][..] } else { &all });
    }
    assert_eq!((core.figures().pending, core.figures().failed), (0, 2));
}

#[test]
fn a_mail_that_was_not_tried_is_put_off_without_counting() {
    let mut core = core();
    core.step(queued(1), at(0));
    assert_eq!(core.step(Input::NotTried(key(1)), at(0)), [Effect::CloseIdle]);
    assert_eq!(core.next_wakeup(), Some(BACK_OFF.max));
    assert_eq!(core.step(Input::Tick, BACK_OFF.max), [tries(1)]);
    let effects = core.step(tried(1, 1, Contact::Worked), at(5));
    let [Effect::Conclude(attempt), Effect::CloseIdle] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(attempt.attempts, 1);
}

#[test]
fn after_the_stop_what_is_under_way_is_concluded_and_nothing_starts() {
    let mut core = core();
    core.step(queued(1), at(0));
    core.step(queued(2), at(0));
    assert_eq!((core.step(Input::Stop, at(0)), core.next_wakeup()), (vec![], None));
    let effects = core.step(tried(1, 1, Contact::Worked), at(1));
    assert_eq!((concluded(&effects).len(), effects.last()), (1, Some(&Effect::CloseIdle)));
    for input in [queued(3), Input::Tick, Input::Greeted(0)] {
        assert_eq!(core.step(input, at(999)), []);
    }
}

#[test]
fn a_mail_goes_on_to_the_next_host_and_that_is_one_attempt() {
    let mut core = Core::new(hosts(3), Schedule::new(BACK_OFF, at(0)));
    assert_eq!(core.step(queued(1), at(0)), [tries_by(1, 0)]);
    assert_eq!(core.step(tried(1, 0, Contact::Unreached), at(0)), [tries_by(1, 1)]);
    assert_eq!(core.step(tried(1, 0, Contact::LoginRefused), at(0)), [tries_by(1, 2)]);
    let effects = core.step(tried(1, 0, Contact::Away), at(0));
    let [Effect::Conclude(attempt), Effect::CloseIdle] = &effects[..] else { panic!("{effects:?}") };
    // It is older than it may be, but three hosts are not three attempts.
    assert_eq!((attempt.state, attempt.attempts), (SendState::Deferred, 1));
    assert_eq!(core.figures().failures_in_a_row, 1);
    // The second refused the password, so it is left alone for longer.
    assert_eq!(core.step(Input::Tick, at(10)), [Effect::Probe(0), Effect::Probe(2)]);
    assert_eq!(core.step(unanswered(0), at(10)), []);
    assert_eq!(core.step(Input::Greeted(2), at(11)), [Effect::Try { key: key(1), open: 1, host: 2 }]);
    assert_eq!((core.figures().falls_back, core.figures().away.as_deref()), (true, Some("away")));
}

#[test]
fn what_may_have_been_taken_goes_to_another_host_only_after_its_back_off() {
    let mut core = Core::new(hosts(2), Schedule::new(BACK_OFF, at(1000)));
    core.step(queued(1), at(0));
    let effects = core.step(tried(1, 0, Contact::LostAfterData), at(0));
    assert_eq!((concluded(&effects), effects.len()), (vec![(key(1), SendState::Deferred)], 2), "{effects:?}");
    assert_eq!(core.step(Input::Tick, at(1))[..], [Effect::Try { key: key(1), open: 1, host: 1 }]);
}

#[test]
fn what_a_host_refuses_goes_to_no_other_host() {
    let mut core = Core::new(hosts(2), Schedule::new(BACK_OFF, at(1000)));
    core.step(queued(1), at(0));
    core.step(tried(1, 0, Contact::Worked), at(0));
    assert_eq!(core.step(Input::Tick, at(1)), [Effect::Try { key: key(1), open: 1, host: 0 }]);
}

#[test]
fn the_first_host_is_used_again_once_it_is_back() {
    let mut core = Core::new(hosts(2), Schedule::new(BACK_OFF, at(1000)));
    core.step(queued(1), at(0));
    assert_eq!(core.step(tried(1, 0, Contact::Unreached), at(0)), [tries_by(1, 1)]);
    core.step(tried(1, 1, Contact::Worked), at(0));
    assert_eq!(core.next_wakeup(), None, "nobody probes for nothing");
    // A mail does not wait for the probe that it causes.
    assert_eq!(core.step(queued(2), at(60)), [tries_by(2, 1), Effect::Probe(0)]);
    assert_eq!(core.step(queued(3), at(60)), [tries_by(3, 1)]);
    assert_eq!(core.step(Input::Greeted(0), at(61)), []);
    assert_eq!(core.step(queued(4), at(62)), [tries_by(4, 0)]);
    assert!(!core.figures().falls_back);
    // The second is lost while the first works: the mail goes back, as a new attempt.
    let effects = core.step(tried(2, 0, Contact::Unreached), at(62));
    assert_eq!(concluded(&effects), [(key(2), SendState::Deferred)]);
    let effects = core.step(tried(4, 1, Contact::Worked), at(62));
    assert_eq!(effects[1..], [Effect::Try { key: key(2), open: 1, host: 0 }]);
}

#[test]
fn a_mail_that_breaks_its_dialogue_keeps_its_back_off_and_lets_the_others_pass() {
    let back_off = BackOff { min: at(5000), max: at(5000) };
    for last in [Contact::Away, Contact::Unwilling, Contact::Unreached] {
        let mut core = Core::new(hosts(2), Schedule::new(back_off, at(99_999)));
        core.step(queued(1), at(0));
        assert_eq!(core.step(tried(1, 0, Contact::Away), at(0)), [tries_by(1, 1)]);
        assert_eq!(concluded(&core.step(tried(1, 0, last), at(0))), [(key(1), SendState::Deferred)]);
        assert_eq!(core.step(queued(2), at(1)), []);
        assert_eq!(core.step(Input::Tick, at(10)), [Effect::Probe(0), Effect::Probe(1)]);
        assert_eq!(core.step(Input::Greeted(0), at(10)), [tries_by(2, 0)]);
        let effects = core.step(tried(2, 1, Contact::Worked), at(10));
        assert_eq!((concluded(&effects).len(), effects.len()), (1, 1), "{effects:?}");
        core.step(Input::Greeted(1), at(10));
        assert_eq!(core.step(Input::Tick, at(5000)), [Effect::Try { key: key(1), open: 1, host: 0 }]);
    }
}

/// One event of a run.
#[derive(Clone, Debug)]
enum Event {
    Queue {
        n: u8,
        invalid: bool,
    },
    /// An attempt under way ends, in one of these ways.
    End(Index, Option<(bool, Contact)>),
    Probe(Index, Option<bool>),
    Stray(u8),
    Tick,
}

fn events() -> impl Strategy<Value = Vec<(Event, u64)>> {
    let contacts = vec![
        Contact::Worked,
        Contact::Away,
        Contact::Unwilling,
        Contact::Unreached,
        Contact::LoginRefused,
        Contact::LostAfterData,
        Contact::None,
    ];
    let end = prop::option::weighted(0.9, (any::<bool>(), prop::sample::select(contacts)));
    let event = prop_oneof![
        4 => (0u8..20, prop::bool::weighted(0.1)).prop_map(|(n, invalid)| Event::Queue { n, invalid }),
        6 => (any::<Index>(), end).prop_map(|(attempt, end)| Event::End(attempt, end)),
        2 => (any::<Index>(), any::<Option<bool>>()).prop_map(|(probe, refused)| Event::Probe(probe, refused)),
        1 => (0u8..20).prop_map(Event::Stray),
        2 => Just(Event::Tick),
    ];
    prop::collection::vec((event, 0u64..20), 0..200)
}

/// What is under way, and what has become of each mail.
#[derive(Default)]
struct Shell {
    /// Mails, with the host.
    trying: BTreeMap<u8, usize>,
    probing: BTreeSet<usize>,
    open: BTreeSet<u8>,
}

impl Shell {
    fn number(key: OutboundKey) -> u8 {
        (0..20).find(|&n| self::key(n) == key).unwrap()
    }

    fn carry_out(&mut self, core: &Core, effects: Vec<Effect>) -> Result<(), TestCaseError> {
        for effect in effects {
            match effect {
                Effect::Try { key, open, host } => {
                    let n = Self::number(key);
                    prop_assert!(open != 0 && self.open.contains(&n), "tried though it was concluded");
                    prop_assert!(self.trying.insert(n, host).is_none(), "tried twice at once");
                    prop_assert_eq!(core.hosts.chosen(), Some(host), "tried with another host");
                }
                Effect::Probe(host) => {
                    prop_assert!(
                        core.hosts.chosen().is_none_or(|chosen| host < chosen) && !self.open.is_empty()
                    );
                    prop_assert!(self.probing.insert(host), "probed twice at once");
                }
                Effect::Conclude(attempt) => {
                    let n = Self::number(attempt.key);
                    prop_assert!(!self.trying.contains_key(&n), "concluded while it is tried");
                    prop_assert!(self.open.contains(&n), "concluded twice");
                    if attempt.state != SendState::Deferred {
                        self.open.remove(&n);
                    }
                }
                Effect::CloseIdle => prop_assert!(self.trying.is_empty() && self.probing.is_empty()),
            }
        }
        Ok(())
    }

    fn input(&mut self, event: Event) -> Option<Input> {
        Some(match event {
            // The journal queues no mail twice.
            Event::Queue { n, invalid } if self.open.insert(n) => {
                Input::Queued { key: key(n), recipients: 1, invalid: invalid.then(|| "invalid".to_owned()) }
            }
            Event::End(attempt, end) if !self.trying.is_empty() => {
                let n = *attempt.get(&self.trying.keys().copied().collect::<Vec<_>>());
                self.trying.remove(&n);
                match end {
                    Some((delivered, contact)) => tried(n, u128::from(delivered), contact),
                    None => Input::NotTried(key(n)),
                }
            }
            Event::Probe(probe, refused) if !self.probing.is_empty() => {
                let host = *probe.get(&self.probing.iter().copied().collect::<Vec<_>>());
                self.probing.remove(&host);
                match refused {
                    None => Input::Greeted(host),
                    Some(login_refused) => {
                        Input::Unanswered { host, reply: "away".to_owned(), login_refused }
                    }
                }
            }
            Event::Stray(n) if !self.trying.contains_key(&n) => tried(n, 1, Contact::Worked),
            Event::Tick => Input::Tick,
            Event::Queue { .. } | Event::End(..) | Event::Probe(..) | Event::Stray(_) => return None,
        })
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_mail_is_lost_sent_at_once_twice_or_after_its_end_and_the_core_never_spins(
        events in events(),
        count in 1..4_usize,
        stops in any::<bool>(),
    ) {
        let mut core = Core::new(hosts(count), Schedule::new(BACK_OFF, at(100)));
        let (mut shell, mut now) = (Shell::default(), at(0));
        for (event, pause) in events {
            now += at(pause);
            let is_stray = matches!(event, Event::Stray(_));
            let Some(input) = shell.input(event) else { continue };
            let effects = core.step(input, now);
            prop_assert!(!is_stray || concluded(&effects).is_empty(), "concluded without an attempt");
            shell.carry_out(&core, effects)?;
            let on = |host| shell.trying.values().filter(|of| **of == host).count();
            prop_assert!((0..count).all(|host| on(host) <= CONNECTIONS));
            prop_assert!(core.next_wakeup().is_none_or(|wakeup| wakeup > now), "spins");
            prop_assert_eq!(core.figures().pending, shell.open.len());
        }
        if stops {
            let effects = core.step(Input::Stop, now);
            shell.carry_out(&core, effects)?;
        }
        // From now on the hosts take everything; time passes only when nothing is under way.
        for _ in 0..200 {
            let event = if let Some(&n) = shell.trying.keys().next() {
                shell.trying.remove(&n);
                tried(n, u128::MAX, Contact::Worked)
            } else if let Some(host) = shell.probing.pop_first() {
                Input::Greeted(host)
            } else if let Some(wakeup) = core.next_wakeup() {
                now = wakeup;
                Input::Tick
            } else {
                break;
            };
            let effects = core.step(event, now);
            let starts = |effect: &Effect| matches!(effect, Effect::Try { .. } | Effect::Probe(_));
            prop_assert!(!stops || !effects.iter().any(starts), "starts something after the stop");
            shell.carry_out(&core, effects)?;
        }
        prop_assert!(shell.trying.is_empty() && shell.probing.is_empty());
        prop_assert!(stops || shell.open.is_empty(), "{:?} were not sent", shell.open);
    }
}
