// SPDX-License-Identifier: Apache-2.0
use std::collections::{BTreeMap, BTreeSet};

use mail::{MailId, OutboundKind};
use proptest::{prelude::*, sample::Index};
use settings::BackOff;

use super::*;

const BACK_OFF: BackOff = BackOff { min: Duration::from_secs(1), max: Duration::from_secs(4) };
const PROBE: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 3;

fn key(n: u8) -> OutboundKey {
    OutboundKey::answering(MailId::from_bytes([n; 32]), OutboundKind::Answer)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A core that gives mails up after 100 s.
fn core() -> Core {
    Core::new(Host::new(PROBE, CONNECTIONS), Schedule::new(BACK_OFF, at(100)))
}

fn queued(n: u8) -> Input {
    Input::Queued { key: key(n), recipients: 1, invalid: None }
}

fn tried(n: u8, delivered: u128, contact: Contact) -> Input {
    let outcome = Outcome { delivered, refused: 0, reply: "reply".to_owned() };
    Input::Tried { key: key(n), recipients: 1, outcome, contact }
}

fn tries(n: u8) -> Effect {
    Effect::Try { key: key(n), open: u128::MAX }
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
    let mut core = Core::new(Host::new(PROBE, CONNECTIONS), Schedule::new(back_off, at(9999)));
    core.step(queued(1), at(0));
    core.step(queued(2), at(0));
    let effects = core.step(tried(1, 0, Contact::Away), at(0));
    assert_eq!(concluded(&effects), [(key(1), SendState::Deferred)]);
    assert_eq!(core.step(queued(3), at(5)), []);
    assert_eq!((core.step(Input::Tick, at(9)), core.next_wakeup()), (vec![], Some(at(10))));
    assert_eq!(core.step(Input::Tick, at(10)), [Effect::Probe]);
    assert_eq!((core.step(Input::Tick, at(99)), core.next_wakeup()), (vec![], None), "one probe at a time");
    assert_eq!(core.step(Input::Unanswered("no".to_owned()), at(99)), [Effect::CloseIdle]);
    assert_eq!(core.step(Input::Tick, at(109)), [Effect::Probe]);
    assert_eq!(core.step(Input::Greeted, at(110)), [tries(2)], "one first; it has waited longest");
    let effects = core.step(tried(2, 1, Contact::Worked), at(110));
    assert_eq!(effects[1..], [tries(3), Effect::Try { key: key(1), open: 1 }], "no back-off keeps the first");
    assert_eq!(core.figures().failures_in_a_row, 0);
}

#[test]
fn nobody_probes_for_nothing() {
    let mut core = core();
    core.step(queued(1), at(0));
    core.step(tried(1, 1, Contact::LostAfterData), at(0));
    assert_eq!((core.step(Input::Tick, at(99)), core.next_wakeup()), (vec![], None));
    assert_eq!(core.step(queued(2), at(100)), [Effect::Probe], "now a mail waits");
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
        assert_eq!(core.step(Input::Tick, at(100 * probe)), [Effect::Probe]);
        let effects = core.step(Input::Unanswered("away".to_owned()), at(100 * probe));
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
    for input in [queued(3), Input::Tick, Input::Greeted] {
        assert_eq!(core.step(input, at(999)), []);
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
    Probe {
        greeted: bool,
    },
    Stray(u8),
    Tick,
}

fn events() -> impl Strategy<Value = Vec<(Event, u64)>> {
    let contacts = vec![Contact::Worked, Contact::Away, Contact::LostAfterData, Contact::None];
    let end = prop::option::weighted(0.9, (any::<bool>(), prop::sample::select(contacts)));
    let event = prop_oneof![
        4 => (0u8..20, prop::bool::weighted(0.1)).prop_map(|(n, invalid)| Event::Queue { n, invalid }),
        6 => (any::<Index>(), end).prop_map(|(attempt, end)| Event::End(attempt, end)),
        2 => any::<bool>().prop_map(|greeted| Event::Probe { greeted }),
        1 => (0u8..20).prop_map(Event::Stray),
        2 => Just(Event::Tick),
    ];
    prop::collection::vec((event, 0u64..20), 0..200)
}

/// What is under way, and what has become of each mail.
#[derive(Default)]
struct Shell {
    trying: BTreeMap<u8, OutboundKey>,
    probing: bool,
    open: BTreeSet<u8>,
}

impl Shell {
    fn number(key: OutboundKey) -> u8 {
        (0..20).find(|&n| self::key(n) == key).unwrap()
    }

    fn carry_out(&mut self, core: &Core, effects: Vec<Effect>) -> Result<(), TestCaseError> {
        for effect in effects {
            match effect {
                Effect::Try { key, open } => {
                    let n = Self::number(key);
                    prop_assert!(open != 0 && self.open.contains(&n), "tried though it was concluded");
                    prop_assert!(self.trying.insert(n, key).is_none(), "tried twice at once");
                    prop_assert!(core.host.probe_due().is_none(), "tried while the host is away");
                }
                Effect::Probe => {
                    prop_assert!(!self.probing && !self.open.is_empty() && core.host.probe_due().is_some());
                    self.probing = true;
                }
                Effect::Conclude(attempt) => {
                    let n = Self::number(attempt.key);
                    prop_assert!(!self.trying.contains_key(&n), "concluded while it is tried");
                    prop_assert!(self.open.contains(&n), "concluded twice");
                    if attempt.state != SendState::Deferred {
                        self.open.remove(&n);
                    }
                }
                Effect::CloseIdle => prop_assert!(self.trying.is_empty() && !self.probing),
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
            Event::Probe { greeted } if self.probing => {
                self.probing = false;
                if greeted { Input::Greeted } else { Input::Unanswered("away".to_owned()) }
            }
            Event::Stray(n) if !self.trying.contains_key(&n) => tried(n, 1, Contact::Worked),
            Event::Tick => Input::Tick,
            Event::Queue { .. } | Event::End(..) | Event::Probe { .. } | Event::Stray(_) => return None,
        })
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_mail_is_lost_sent_at_once_twice_or_after_its_end_and_the_core_never_spins(
        events in events(),
        stops in any::<bool>(),
    ) {
        let (mut core, mut shell, mut now) = (core(), Shell::default(), at(0));
        for (event, pause) in events {
            now += at(pause);
            let is_stray = matches!(event, Event::Stray(_));
            let Some(input) = shell.input(event) else { continue };
            let effects = core.step(input, now);
            prop_assert!(!is_stray || concluded(&effects).is_empty(), "concluded without an attempt");
            shell.carry_out(&core, effects)?;
            prop_assert!(shell.trying.len() <= CONNECTIONS);
            prop_assert!(core.next_wakeup().is_none_or(|wakeup| wakeup > now), "spins");
            prop_assert_eq!(core.figures().pending, shell.open.len());
        }
        if stops {
            let effects = core.step(Input::Stop, now);
            shell.carry_out(&core, effects)?;
        }
        // From now on the host takes everything; time passes only when nothing is under way.
        for _ in 0..200 {
            let event = if let Some(&n) = shell.trying.keys().next() {
                shell.trying.remove(&n);
                tried(n, u128::MAX, Contact::Worked)
            } else if shell.probing {
                shell.probing = false;
                Input::Greeted
            } else if let Some(wakeup) = core.next_wakeup() {
                now = wakeup;
                Input::Tick
            } else {
                break;
            };
            let effects = core.step(event, now);
            let starts = |effect: &Effect| matches!(effect, Effect::Try { .. } | Effect::Probe);
            prop_assert!(!stops || !effects.iter().any(starts), "starts something after the stop");
            shell.carry_out(&core, effects)?;
        }
        prop_assert!(shell.trying.is_empty() && !shell.probing);
        prop_assert!(stops || shell.open.is_empty(), "{:?} were not sent", shell.open);
    }
}
