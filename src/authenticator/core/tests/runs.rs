// SPDX-License-Identifier: Apache-2.0
//! Whatever comes in, in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::Index};

use super::*;

/// One event of a run.
#[derive(Clone, Debug)]
enum Event {
    /// One of a few mails is delivered; some have the same author's domain.
    Deliver(u32),
    /// One of the jobs under way ends, in one of the ways it can.
    End(Index, Index),
    /// An outcome that nobody is waiting for.
    Stray(u32, Index),
    Input(Input),
}

fn events() -> impl Strategy<Value = Vec<(Event, u64)>> {
    let event = prop_oneof![
        6 => (0u32..24).prop_map(Event::Deliver),
        12 => any::<(Index, Index)>().prop_map(|(job, outcome)| Event::End(job, outcome)),
        1 => (0u32..24, any::<Index>()).prop_map(|(mail, outcome)| Event::Stray(mail, outcome)),
        1 => prop::sample::select(vec![Input::Malformed, Input::ChainConnected, Input::Tick]).prop_map(Event::Input),
    ];
    prop::collection::vec((event, 0u64..30), 0..200)
}

fn outcomes(job: &Job) -> Vec<Outcome> {
    let mut outcomes = match job {
        Job::Check(mail) => {
            let author = format!("a@{}", author_domain(&mail.data).unwrap());
            let checked = |dmarc| Outcome::Checked(Box::new(checked(dmarc, &author)));
            vec![checked(AuthResult::Pass), checked(AuthResult::TempError), checked(AuthResult::Fail)]
        }
        Job::AskRegistry(_) => {
            vec![
                ACTIVE,
                UNAVAILABLE,
                Outcome::Registered(RegistryAnswer::inactive(Registration::Unregistered)),
            ]
        }
        Job::Record { codes, .. } => {
            vec![Outcome::Evidenced(*codes), Outcome::Evidenced([0, 0, 6, 6, 4, 0, 0])]
        }
        Job::Publish(..) => vec![Outcome::Published],
    };
    outcomes.push(Outcome::Failed);
    outcomes
}

fn is_awaited(job: &Job, outcome: &Outcome) -> bool {
    matches!(
        (job, outcome),
        (_, Outcome::Failed)
            | (Job::Check(_), Outcome::Checked(_))
            | (Job::AskRegistry(_), Outcome::Registered(..))
            | (Job::Record { .. }, Outcome::Evidenced(_))
            | (Job::Publish(..), Outcome::Published)
    )
}

/// The jobs under way, and what has been seen of each mail since its delivery.
#[derive(Default)]
struct Shell {
    jobs: BTreeMap<MailId, Job>,
    evidenced: BTreeSet<MailId>,
    left: BTreeSet<MailId>,
    published: u64,
    checks: usize,
}

impl Shell {
    /// Carries out the effects and checks what must hold of them.
    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), TestCaseError> {
        for effect in effects {
            match effect {
                Effect::Start(id, job) => {
                    match &job {
                        Job::Check(mail) => {
                            self.checks += 1;
                            prop_assert_eq!(mail.id, id);
                            self.evidenced.remove(&id);
                        }
                        Job::AskRegistry(_) => {}
                        Job::Record { mail, .. } => prop_assert_eq!(mail.id, id),
                        Job::Publish(mail, _) => {
                            prop_assert_eq!(mail.id, id);
                            prop_assert!(self.evidenced.remove(&id), "published without evidence");
                            self.published += 1;
                        }
                    }
                    prop_assert!(self.jobs.insert(id, job).is_none(), "two jobs on one mail");
                }
                Effect::Left { id, .. } => {
                    prop_assert!(!self.jobs.contains_key(&id));
                    self.left.insert(id);
                }
                Effect::Remember(_) => {}
            }
        }
        Ok(())
    }

    /// Ends one of the jobs.
    fn end(
        &mut self,
        core: &mut Core,
        job: Index,
        outcome: Index,
        now: Duration,
    ) -> Result<(), TestCaseError> {
        let id = *job.get(&self.jobs.keys().copied().collect::<Vec<_>>());
        let outcome = outcome.get(&outcomes(&self.jobs.remove(&id).unwrap())).clone();
        if let Outcome::Evidenced(_) = outcome {
            self.evidenced.insert(id);
        }
        self.carry_out(core.step(Input::Done(id, outcome), now))
    }
}

fn numbered(number: u32) -> Arc<AcceptedMail> {
    mail(&format!("a@d{}.example", number % 5), number)
}

proptest! {
    #[test]
    fn whatever_happens_in_whatever_order_nothing_is_published_unproven_kept_for_ever_or_worked_on_twice(
        events in events(),
        rest in prop::collection::vec(any::<(Index, Index)>(), 400),
        drains in any::<bool>(),
    ) {
        let mut core = Core::new(LIMITS, &["d0.example".to_owned()]);
        let (mut shell, mut now) = (Shell::default(), START);
        for (event, pause) in events {
            now += Duration::from_secs(pause);
            match event {
                Event::Deliver(number) => {
                    let mail = numbered(number);
                    let (before, known) = (core.counts(), core.mails.contains_key(&mail.id));
                    shell.carry_out(core.step(delivered(&mail), now))?;
                    let after = core.counts();
                    let come = after.in_flight + after.waiting - before.in_flight - before.waiting;
                    let overflowed = after.overflowed - before.overflowed;
                    prop_assert_eq!(come as u64 + overflowed, u64::from(!known));
                }
                Event::End(job, outcome) if !shell.jobs.is_empty() => shell.end(&mut core, job, outcome, now)?,
                Event::End(..) => {}
                Event::Stray(number, outcome) => {
                    let id = numbered(number).id;
                    let all = [passed(), ACTIVE, Outcome::Evidenced([1; 7]), Outcome::Published, Outcome::Failed];
                    let stray = outcome.get(&all);
                    if !shell.jobs.get(&id).is_some_and(|job| is_awaited(job, stray)) {
                        prop_assert_eq!(core.step(Input::Done(id, stray.clone()), now), []);
                    }
                }
                Event::Input(input) => shell.carry_out(core.step(input, now))?,
            }
            let counts = core.counts();
            prop_assert_eq!(counts.in_flight, shell.jobs.len(), "a job for each mail past the queue");
            prop_assert_eq!(counts.authenticated + counts.refused, shell.published);
            prop_assert!(core.intake.in_flight().mails <= LIMITS.max_in_flight);
            prop_assert!(shell.jobs.len() <= 2 * LIMITS.max_in_flight);
        }
        if drains {
            shell.carry_out(core.step(Input::Drain, now))?;
        } else {
            shell.carry_out(core.step(Input::ChainConnected, now))?;
        }
        let checks = shell.checks;
        for (job, outcome) in rest {
            if !shell.jobs.is_empty() {
                shell.end(&mut core, job, outcome, now)?;
            }
        }
        // Four jobs a mail, and nothing comes in any more.
        prop_assert_eq!((shell.jobs.len(), core.counts().in_flight), (0, 0));
        prop_assert_eq!(core.intake.in_flight(), Load::default());
        if drains {
            prop_assert_eq!(shell.checks, checks);
            return Ok(());
        }
        prop_assert_eq!((core.intake.waiting(), core.mails.len()), (Load::default(), 0));
        // Whatever was left before is a mail like any other when it comes again.
        for number in 0..24 {
            let mail = numbered(number);
            let effects = core.step(delivered(&mail), now);
            prop_assert_eq!(job(effects), Job::Check(Arc::clone(&mail)), "left: {}", shell.left.contains(&mail.id));
            core.step(done(&mail, Outcome::Failed), now);
        }
    }
}
