// SPDX-License-Identifier: Apache-2.0
mod runs;

use std::time::UNIX_EPOCH;

use fair_queue::Load;
use mail::{AuthResult, Envelope, Origin, Registration, Role};

use super::*;

const LIMITS: Limits = Limits {
    max_in_flight: 4,
    dns_patience: Duration::from_secs(900),
    registry_patience: Duration::from_secs(60),
};
const START: Duration = Duration::ZERO;

/// A mail with this text from the author, passed on by a gateway.
fn mail(author: &str, text: u32) -> Arc<AcceptedMail> {
    Arc::new(accepted(format!("From: {author}\r\n\r\n{text}").into_bytes()))
}

/// A mail of these bytes, passed on by a gateway.
pub(crate) fn accepted(data: Vec<u8>) -> AcceptedMail {
    let envelope = Envelope {
        peer: [127, 0, 0, 1].into(),
        helo: String::new(),
        mail_from: String::new(),
        rcpt_to: Vec::new(),
    };
    let origin = Origin::Smtp(envelope);
    AcceptedMail { id: MailId::of(&data), received_at: UNIX_EPOCH, origin, consumers: Vec::new(), data }
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
const ACTIVE: Outcome = Outcome::Registered(RegistryAnswer::active(Role::Operator));
const UNAVAILABLE: Outcome = Outcome::Registered(RegistryAnswer::inactive(Registration::Unavailable));

fn passed() -> Outcome {
    Outcome::Checked(Box::new(checked(AuthResult::Pass, DANA)))
}

/// Takes a mail that was delivered and checked with DMARC `Pass` to the job of recording it; returns the codes.
fn recorded(core: &mut Core, mail: &Arc<AcceptedMail>) -> [u8; 7] {
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
    let verdict = decide(checked(AuthResult::Pass, DANA), Some(RegistryAnswer::active(Role::Operator)));
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
    for outcome in [passed(), ACTIVE, Outcome::Evidenced([1, 0, 2, 2, 2, 2, 0])] {
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
    let checked = Outcome::Checked(Box::new(checked(AuthResult::Fail, DANA)));
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
    let refused = [0, 0, 6, 6, 2, 0, 0];
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
        assert_eq!(core.step(done(&mail, Outcome::Checked(Box::new(silent))), START), [left]);
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
    let silent = Outcome::Checked(Box::new(checked(AuthResult::TempError, DANA)));
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
        let mut outcomes = vec![passed(), ACTIVE, Outcome::Evidenced([1, 0, 2, 2, 2, 2, 0])];
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
        core.step(done(&mail, Outcome::Checked(Box::new(checked(AuthResult::Pass, author)))), START);
        core.step(done(&mail, ACTIVE), START);
        let effects = core.step(done(&mail, Outcome::Evidenced([1, 0, 2, 2, 2, 2, 0])), START);
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
        core.step(done(&mail, Outcome::Checked(Box::new(checked(AuthResult::Fail, "a@b.example")))), START);
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
        core.step(done(&mail, Outcome::Checked(Box::new(checked(AuthResult::Fail, "a@b.example")))), START);
    }
    assert_eq!(core.finishing(), Load { mails: 2, bytes: LANE_BYTES });
    core.step(done(&large(0), Outcome::Evidenced([0; 7])), START);
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
    let effects = core.step(done(&one, Outcome::Evidenced([1, 0, 2, 2, 2, 2, 0])), START);
    assert!(matches!(effects[0], Effect::Start(_, Job::Publish(..))));
    assert_eq!(core.step(done(&one, Outcome::Published), START), []);
    for input in [Input::ChainConnected, Input::Tick, delivered(&mail(DANA, 3))] {
        assert_eq!(core.step(input, Duration::MAX), []);
    }
    assert_eq!(core.counts().in_flight, 0);
}
