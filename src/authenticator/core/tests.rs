// SPDX-License-Identifier: Apache-2.0
use std::{
    collections::{BTreeMap, BTreeSet},
    time::UNIX_EPOCH,
};

use fair_queue::Load;
use mail::{AuthResult, Envelope, Origin};
use proptest::{prelude::*, sample::Index};

use super::*;

const LIMITS: Limits = Limits {
    max_in_flight: 4,
    dns_patience: Duration::from_secs(900),
    registry_patience: Duration::from_secs(60),
};
const START: Duration = Duration::ZERO;

/// A mail with this text from the author, passed on by a gateway.
fn mail(author: &str, text: u32) -> Arc<AcceptedMail> {
    let data = format!("From: {author}\r\n\r\n{text}").into_bytes();
    let envelope = Envelope {
        peer: [127, 0, 0, 1].into(),
        helo: String::new(),
        mail_from: String::new(),
        rcpt_to: Vec::new(),
    };
    let origin = Origin::Smtp(envelope);
    Arc::new(AcceptedMail {
        id: MailId::of(&data),
        received_at: UNIX_EPOCH,
        origin,
        consumers: Vec::new(),
        data,
    })
}

fn delivered(mail: &Arc<AcceptedMail>) -> Input {
    Input::delivered(AcceptedMail::clone(mail))
}

/// A core without mails whose chain has connected.
fn core(limits: Limits) -> Core {
    let mut core = Core::new(limits, &[]);
    core.step(Input::ChainConnected, START);
    core
}

fn checked(dmarc: AuthResult, author: &str) -> Checked {
    let reason = "The DNS of the sender's domain does not answer.".to_owned();
    Checked { dkim: dmarc, dmarc, from: EmailAddress::parse(author).ok(), reason, ..Checked::default() }
}

fn done(mail: &Arc<AcceptedMail>, outcome: Outcome) -> Input {
    Input::Done(mail.id, outcome)
}

/// The one job that the effects start.
fn job(effects: Vec<Effect>) -> Job {
    match <[Effect; 1]>::try_from(effects) {
        Ok([Effect::Start(_, job)]) => job,
        other => panic!("{other:?}"),
    }
}

const DANA: &str = "dana@dispatch.example";
const ACTIVE: Outcome = Outcome::Registered(Registration::Active, Role::Operator);
const UNAVAILABLE: Outcome = Outcome::Registered(Registration::Unavailable, Role::None);

fn passed() -> Outcome {
    Outcome::Checked(checked(AuthResult::Pass, DANA))
}

/// Takes a mail that was delivered and checked with DMARC `Pass` to the job of recording it; returns the codes.
fn recorded(core: &mut Core, mail: &Arc<AcceptedMail>) -> [u8; 6] {
    core.step(delivered(mail), START);
    core.step(done(mail, passed()), START);
    match job(core.step(done(mail, ACTIVE), START)) {
        Job::Record { codes, .. } => codes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mail_is_checked_looked_up_recorded_and_then_published() {
    let (mut core, mail) = (core(LIMITS), mail(DANA, 1));
    assert_eq!(job(core.step(delivered(&mail), START)), Job::Check(Arc::clone(&mail)));
    let from = EmailAddress::parse(DANA).unwrap();
    assert_eq!(job(core.step(done(&mail, passed()), START)), Job::AskRegistry(from.clone()));
    let verdict = decide(checked(AuthResult::Pass, DANA), Some((Registration::Active, Role::Operator)));
    let codes = evidence_code(&verdict);
    let record = Job::Record { mail: Arc::clone(&mail), from: Some(from), codes };
    assert_eq!(job(core.step(done(&mail, ACTIVE), START)), record);
    assert_eq!(core.counts().authenticated, 0, "not before it is on disk");
    let publish = Effect::Start(mail.id, Job::Publish(Arc::clone(&mail), verdict));
    let remember = Effect::Remember("dispatch.example".to_owned());
    assert_eq!(core.step(done(&mail, Outcome::Evidenced(codes)), START), [publish, remember]);
    assert_eq!((core.counts().authenticated, core.counts().in_flight), (1, 1));
    assert_eq!(core.step(done(&mail, Outcome::Published), START), []);
    assert_eq!((core.counts().in_flight, core.finishing()), (0, Load::default()));
}

#[test]
fn a_mail_that_comes_again_while_it_is_here_is_the_same_mail() {
    let (mut core, mail) = (core(LIMITS), mail(DANA, 1));
    core.step(delivered(&mail), START);
    for outcome in [passed(), ACTIVE, Outcome::Evidenced([1, 0, 2, 2, 2, 2])] {
        assert_eq!(core.step(delivered(&mail), START), []);
        assert!(matches!(core.step(done(&mail, outcome), START)[0], Effect::Start(..)));
    }
    assert_eq!(core.step(delivered(&mail), START), []);
    core.step(done(&mail, Outcome::Published), START);
    assert_eq!(job(core.step(delivered(&mail), START)), Job::Check(mail), "now it is done with");
}

#[test]
fn a_sender_who_is_not_proven_is_not_looked_up() {
    let (mut core, mail) = (core(LIMITS), mail(DANA, 1));
    core.step(delivered(&mail), START);
    let checked = Outcome::Checked(checked(AuthResult::Fail, DANA));
    let Job::Record { codes, .. } = job(core.step(done(&mail, checked), START)) else { panic!() };
    let Job::Publish(_, verdict) = job(core.step(done(&mail, Outcome::Evidenced(codes)), START)) else {
        panic!("nobody is remembered")
    };
    assert_eq!((verdict.registry, verdict.authenticated), (Registration::Unknown, false));
    assert_eq!(core.counts().refused, 1);
}

#[test]
fn a_mail_judged_before_is_published_with_the_authority_of_the_first_time() {
    let (mut core, mail) = (core(LIMITS), mail(DANA, 1));
    recorded(&mut core, &mail);
    let refused = [0, 0, 6, 6, 2, 0];
    let Job::Publish(_, verdict) = job(core.step(done(&mail, Outcome::Evidenced(refused)), START)) else {
        panic!("nobody is remembered")
    };
    assert_eq!(evidence_code(&verdict), refused);
    assert_eq!((core.counts().authenticated, core.counts().refused), (0, 1));
}

#[test]
fn mails_are_held_back_until_the_chain_connects_or_the_patience_is_over() {
    let (mail, end) = (mail(DANA, 1), LIMITS.registry_patience);
    let mut core = Core::new(LIMITS, &[]);
    assert_eq!((core.step(delivered(&mail), START), core.next_wakeup()), (vec![], Some(end)));
    assert_eq!(core.step(Input::Tick, end - Duration::from_nanos(1)), []);
    assert_eq!(job(core.step(Input::Tick, end)), Job::Check(Arc::clone(&mail)));
    assert_eq!(core.next_wakeup(), None);

    let mut core = Core::new(LIMITS, &[]);
    core.step(delivered(&mail), START);
    assert_eq!(job(core.step(Input::ChainConnected, START)), Job::Check(mail));
    assert_eq!(core.next_wakeup(), None);
}

#[test]
fn a_mail_without_an_answer_is_left_and_checked_again_when_it_comes_again() {
    let (mut core, mail) = (core(LIMITS), mail(DANA, 1));
    for round in 1..=2 {
        assert_eq!(job(core.step(delivered(&mail), START)), Job::Check(Arc::clone(&mail)));
        let silent = checked(AuthResult::TempError, DANA);
        let left = Effect::Left { id: mail.id, reason: silent.reason.clone() };
        assert_eq!(core.step(done(&mail, Outcome::Checked(silent)), START), [left]);
        assert_eq!((core.counts().left, core.counts().in_flight), (round, 0));
    }
    core.step(delivered(&mail), START);
    core.step(done(&mail, passed()), START);
    let effects = core.step(done(&mail, UNAVAILABLE), START);
    assert!(
        matches!(&effects[..], [Effect::Left { reason, .. }] if reason.contains("registry")),
        "{effects:?}"
    );
    assert_eq!((core.counts().left, core.counts().in_flight), (3, 0));
}

#[test]
fn what_is_given_up_is_recorded_and_published_like_any_other() {
    let limits = Limits { dns_patience: Duration::ZERO, registry_patience: Duration::ZERO, ..LIMITS };
    let (mut core, mail) = (core(limits), mail(DANA, 1));
    core.step(delivered(&mail), START);
    let silent = Outcome::Checked(checked(AuthResult::TempError, DANA));
    assert!(matches!(job(core.step(done(&mail, silent), START)), Job::AskRegistry(_)));
    let Job::Record { codes, .. } = job(core.step(done(&mail, UNAVAILABLE), START)) else { panic!() };
    let published = job(core.step(done(&mail, Outcome::Evidenced(codes)), START));
    assert!(matches!(published, Job::Publish(_, verdict) if verdict.dmarc == AuthResult::TempError));
    assert_eq!((core.counts().refused, core.counts().left), (1, 0));
}

#[test]
fn a_failed_job_ends_the_turn_of_its_mail_and_publishes_nothing() {
    let mail = mail(DANA, 1);
    for answered in 0..4 {
        let mut core = core(LIMITS);
        let mut outcomes = vec![passed(), ACTIVE, Outcome::Evidenced([1, 0, 2, 2, 2, 2])];
        outcomes.truncate(answered);
        core.step(delivered(&mail), START);
        for outcome in outcomes {
            core.step(done(&mail, outcome), START);
        }
        assert_eq!(core.step(done(&mail, Outcome::Failed), START), [], "after {answered}");
        assert_eq!(core.intake.in_flight(), Load::default());
        assert_eq!(job(core.step(delivered(&mail), START)), Job::Check(Arc::clone(&mail)), "it comes again");
    }
}

#[test]
fn a_known_domain_is_remembered_once() {
    let mut core = Core::new(LIMITS, &["known.example".to_owned()]);
    core.step(Input::ChainConnected, START);
    for (text, author, remembered) in
        [(1, "a@known.example", 0), (2, DANA, 1), (3, DANA, 0), (4, "x@sub.dispatch.example", 0)]
    {
        let mail = mail(author, text);
        core.step(delivered(&mail), START);
        core.step(done(&mail, Outcome::Checked(checked(AuthResult::Pass, author))), START);
        core.step(done(&mail, ACTIVE), START);
        let effects = core.step(done(&mail, Outcome::Evidenced([1, 0, 2, 2, 2, 2])), START);
        let count = effects.iter().filter(|effect| matches!(effect, Effect::Remember(_))).count();
        assert_eq!(count, remembered, "{author}");
        core.step(done(&mail, Outcome::Published), START);
    }
}

#[test]
fn a_disk_that_does_not_answer_holds_up_further_checks() {
    let mut core = core(LIMITS);
    let mut started = 0;
    for number in 0..20 {
        // Each is another domain's, so the slots are free.
        let mail = mail(&format!("a@d{number}.example"), number);
        let effects = core.step(delivered(&mail), START);
        started += effects.len();
        core.step(done(&mail, Outcome::Checked(checked(AuthResult::Fail, "a@b.example"))), START);
    }
    assert_eq!((started, core.finishing().mails, core.counts().waiting), (4, 4, 16));
}

#[test]
fn large_mails_that_are_not_published_hold_up_further_checks() {
    let mut core = core(LIMITS);
    let large = |number: u32| {
        let mut mail = AcceptedMail::clone(&mail(&format!("a@d{number}.example"), number));
        mail.data.resize(LANE_BYTES as usize / 2, b' ');
        Arc::new(mail)
    };
    for number in 0..3 {
        let mail = large(number);
        let started = core.step(delivered(&mail), START).len();
        assert_eq!(started, usize::from(number < 2));
        core.step(done(&mail, Outcome::Checked(checked(AuthResult::Fail, "a@b.example"))), START);
    }
    assert_eq!(core.finishing(), Load { mails: 2, bytes: LANE_BYTES });
    core.step(done(&large(0), Outcome::Evidenced([0; 6])), START);
    let effects = core.step(done(&large(0), Outcome::Published), START);
    assert!(matches!(effects[..], [Effect::Start(_, Job::Check(_))]), "{} effects", effects.len());
}

#[test]
fn nothing_starts_after_the_drain_has_begun_but_what_has_is_finished() {
    let (mut core, one, other) = (core(Limits { max_in_flight: 1, ..LIMITS }), mail(DANA, 1), mail(DANA, 2));
    core.step(delivered(&one), START);
    assert_eq!(core.step(delivered(&other), START), []);
    assert_eq!((core.step(Input::Drain, START), core.next_wakeup()), (vec![], None));
    assert!(matches!(job(core.step(done(&one, passed()), START)), Job::AskRegistry(_)));
    assert!(matches!(job(core.step(done(&one, ACTIVE), START)), Job::Record { .. }));
    let effects = core.step(done(&one, Outcome::Evidenced([1, 0, 2, 2, 2, 2])), START);
    assert!(matches!(effects[0], Effect::Start(_, Job::Publish(..))));
    assert_eq!(core.step(done(&one, Outcome::Published), START), []);
    for input in [Input::ChainConnected, Input::Tick, delivered(&mail(DANA, 3))] {
        assert_eq!(core.step(input, Duration::MAX), []);
    }
    assert_eq!(core.counts().in_flight, 0);
}

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
            let checked = |dmarc| Outcome::Checked(checked(dmarc, &author));
            vec![checked(AuthResult::Pass), checked(AuthResult::TempError), checked(AuthResult::Fail)]
        }
        Job::AskRegistry(_) => {
            vec![ACTIVE, UNAVAILABLE, Outcome::Registered(Registration::Unregistered, Role::None)]
        }
        Job::Record { codes, .. } => vec![Outcome::Evidenced(*codes), Outcome::Evidenced([0, 0, 6, 6, 4, 0])],
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
                    let all = [passed(), ACTIVE, Outcome::Evidenced([1; 6]), Outcome::Published, Outcome::Failed];
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
