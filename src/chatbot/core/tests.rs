// SPDX-License-Identifier: Apache-2.0
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::Path,
    time::{Duration, SystemTime},
};

use mail::{AuthResult, Content, Envelope, Mail, Mailbox, Origin, Registration, Role, Verdict};
use proptest::prelude::*;
use settings::resolve;
use vehicle::{AcknowledgementStatus, Command, VehicleState};

use super::*;
use crate::params::SPECS;

const CAPACITY: usize = 2;

fn params() -> Params {
    let params = Params::load(&resolve(SPECS, BTreeMap::new()).unwrap(), Path::new("/state")).unwrap();
    Params { capacity: CAPACITY, ..params }
}

/// A core with a clock and a disk that can fail, in a fleet of one vehicle.
struct World {
    core: Core,
    began: Instant,
    second: u64,
    disk_works: bool,
}

impl World {
    fn new() -> Self {
        Self::after(Book::default())
    }

    fn after(book: Book) -> Self {
        let began = Instant::now();
        Self { core: Core::new(params(), book, began), began, second: 0, disk_works: true }
    }

    /// Applies an input, and writes what is to be written.
    fn step(&mut self, input: Input) -> Vec<Effect> {
        let passed = Duration::from_secs(self.second);
        let now = Now { clock: at(0) + passed, steady: self.began + passed };
        let mut done = Vec::new();
        for effect in self.core.step(input, now) {
            let is_write = matches!(effect, Effect::Write(_));
            done.push(effect);
            if is_write {
                done.extend(self.step(Input::Written(self.disk_works)));
            }
        }
        done
    }

    fn tick(&mut self, seconds: u64) -> Vec<Effect> {
        self.second += seconds;
        self.step(Input::Tick { listeners: 1 })
    }

    /// Does a job.
    fn run(&mut self, id: MailId, job: &Job) -> Vec<Effect> {
        let outcome = match job {
            Job::Interpret(delivered) => {
                Outcome::Interpreted(Box::new(Interpretation::of(&delivered.mail, &delivered.verdict)))
            }
            Job::AskStates { .. } => Outcome::States(Ok(fleet())),
        };
        self.step(Input::Done(id, outcome))
    }

    /// Delivers a mail and does its jobs, until there are none.
    fn finish(&mut self, mail: &Arc<Delivered>) -> Vec<Effect> {
        let mut effects = self.step(Input::Delivered(Arc::clone(mail)));
        while let [Effect::Start(id, job)] = &effects[..] {
            effects = self.run(*id, &job.clone());
        }
        effects
    }

    fn figure(&self, status: usize, name: &str) -> Option<u64> {
        self.core.health()[status].figure(name)
    }
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
}

fn fleet() -> Fleet {
    Fleet { states: vec![VehicleState::unheard("truck_1")], vehicles: vec!["truck_1".into()] }
}

/// An operator's mail, of which `number` makes many different ones.
fn delivered(number: u8, subject: &str) -> Arc<Delivered> {
    let envelope = Envelope {
        peer: Ipv4Addr::LOCALHOST.into(),
        helo: "client.example.org".into(),
        mail_from: "anna@example.org".into(),
        rcpt_to: vec!["posthorn@localhost".into()],
    };
    let content = Content {
        message_id: format!("{number}@example.org"),
        date: Some(at(0)),
        subject: subject.into(),
        from: vec![Mailbox { name: String::new(), address: "anna@example.org".into() }],
        text_only: true,
        ..Content::default()
    };
    let mail = Mail {
        id: MailId::from_bytes([number; 32]),
        received_at: at(0),
        origin: Origin::Smtp(envelope),
        consumers: vec![CONSUMER.into()],
        content,
        size: 0,
    };
    let verdict = Verdict {
        dmarc: AuthResult::Pass,
        registry: Registration::Active,
        role: Role::Operator,
        authenticated: true,
        order_covered: true,
        ..Verdict::default()
    };
    Arc::new(Delivered { mail, verdict })
}

fn accepted(command_id: [u8; 32]) -> Input {
    let (vehicle, status) = ("truck_1".to_owned(), AcknowledgementStatus::Accepted);
    Input::Acknowledged(Acknowledgement { command_id, vehicle, status, reason: String::new() })
}

#[test]
fn a_question_is_interpreted_answered_from_states_and_concluded() {
    let mut world = World::new();
    let mail = delivered(1, "status");
    let effects = world.step(Input::Delivered(Arc::clone(&mail)));
    assert_eq!(effects, [Effect::Start(mail.mail.id, Job::Interpret(Arc::clone(&mail)))]);
    let effects = world.run(mail.mail.id, &Job::Interpret(Arc::clone(&mail)));
    let ask = Job::AskStates { vehicle: String::new(), after: Duration::ZERO };
    assert_eq!((effects, world.core.in_flight()), (vec![Effect::Start(mail.mail.id, ask.clone())], 1));
    let effects = world.run(mail.mail.id, &ask);
    let [Effect::Conclude(conclusion)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((conclusion.mails.len(), conclusion.disposition.mail_id), (1, mail.mail.id));
    assert_eq!((world.core.in_flight(), world.figure(0, "answered")), (0, Some(1)));
}

/// Otherwise two programs could answer each other for ever.
#[test]
fn an_automatic_mail_is_recognised_and_gets_no_answer() {
    let mut bounce = (*delivered(1, "status")).clone();
    if let Origin::Smtp(envelope) = &mut bounce.mail.origin {
        envelope.mail_from.clear();
    }
    let effects = World::new().finish(&Arc::new(bounce));
    let [Effect::Conclude(end)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((&end.mails[..], end.disposition.action), (&[][..], mail::Action::Ignored));
}

#[test]
fn a_mail_of_other_consumers_is_not_touched() {
    let mut theirs = (*delivered(1, "status")).clone();
    theirs.mail.consumers = vec!["archive".into()];
    assert_eq!(World::new().step(Input::Delivered(Arc::new(theirs))), []);
}

#[test]
fn a_mail_is_taken_once_at_a_time_and_no_more_than_there_is_room_for() {
    let mut world = World::new();
    let mails: Vec<_> = (1..=3).map(|number| delivered(number, "status")).collect();
    let started = |effects: Vec<Effect>| effects.len();
    let mut deliver = |mail: &Arc<Delivered>| started(world.step(Input::Delivered(Arc::clone(mail))));
    assert_eq!(mails.iter().map(&mut deliver).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!(deliver(&mails[0]), 0);
    // A job that panics costs its mail this delivery and leaves room for another.
    world.step(Input::Done(mails[0].mail.id, Outcome::Failed));
    assert_eq!(world.step(Input::Delivered(Arc::clone(&mails[0]))).len(), 1);
    // A report about a job that the mail does not have changes nothing.
    let stale = Input::Done(mails[0].mail.id, Outcome::States(Ok(fleet())));
    assert_eq!((world.step(stale), world.core.in_flight()), (vec![], CAPACITY));
}

#[test]
fn an_order_is_written_then_published_then_recorded_and_its_mail_ends_with_the_acknowledgement() {
    let mut world = World::new();
    let mail = delivered(1, "stop truck_1");
    let effects = world.finish(&mail);
    let [Effect::Write(_), Effect::Command(order), Effect::Record(recorded)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((order.command, recorded.len()), (Command::Stop, 1));
    let id = order.command_id;
    assert_eq!(world.step(Input::Delivered(Arc::clone(&mail))), [], "it waits for its vehicle");
    assert_eq!(world.core.in_flight(), 0, "and takes no room");
    let effects = world.step(accepted(id));
    assert!(matches!(&effects[..], [Effect::Write(_), Effect::Conclude(_)]), "{effects:?}");
    let effects = world.step(Input::Recorded(true));
    assert!(matches!(&effects[..], [Effect::Write(entries)] if entries[0].on_ledger), "{effects:?}");
    assert_eq!(world.figure(0, "ordered"), Some(1));
}

#[test]
fn what_is_on_disk_and_not_on_the_ledger_is_recorded_after_a_restart_without_another_event() {
    let mut before = World::new();
    before.finish(&delivered(1, "stop truck_1"));
    let mut world = World::after(before.core.book().clone());
    assert_eq!(world.core.next_wakeup(), Some(world.began));
    let effects = world.tick(0);
    assert!(matches!(&effects[..], [Effect::Record(orders)] if orders.len() == 1), "{effects:?}");
    assert_eq!(world.step(Input::Recorded(false)), []);
    assert_eq!(world.core.next_wakeup(), Some(world.began + Duration::from_secs(1)));
    assert_eq!(world.tick(1), effects);
    world.step(Input::Recorded(true));
    assert_eq!(world.core.next_wakeup(), None);
}

#[test]
fn with_a_dead_disk_a_resume_is_answered_and_a_stop_is_published() {
    let mut world = World { disk_works: false, ..World::new() };
    let effects = world.finish(&delivered(1, "resume truck_1"));
    assert!(matches!(&effects[..], [Effect::Write(_), Effect::Conclude(_)]), "{effects:?}");
    let effects = world.finish(&delivered(2, "stop truck_1"));
    assert!(matches!(&effects[..], [Effect::Write(_), Effect::Command(_), Effect::Record(_)]), "{effects:?}");
    assert!(world.core.health()[2].message.contains("cannot be written"));
}

#[test]
fn without_vehicle_router_a_question_is_left_and_an_order_asks_until_its_sender_must_hear() {
    let mut world = World::new();
    let (question, order) = (delivered(1, "status"), delivered(2, "stop truck_1"));
    let asks = |effects: &[Effect]| matches!(effects, [Effect::Start(_, Job::AskStates { .. })]);
    for mail in [&question, &order] {
        let effects = world.step(Input::Delivered(Arc::clone(mail)));
        let [Effect::Start(id, job)] = &effects[..] else { panic!("{effects:?}") };
        assert!(asks(&world.run(*id, &job.clone())));
    }
    let unanswered = |mail: &Arc<Delivered>| Input::Done(mail.mail.id, Outcome::States(Err(Unavailable)));
    assert_eq!((world.step(unanswered(&question)), world.figure(0, "retried")), (vec![], Some(1)));
    let timeout = params().acknowledgement_timeout.as_secs();
    world.second += timeout - 1;
    assert!(asks(&world.step(unanswered(&order))), "for {timeout} s");
    world.second += 1;
    let effects = world.step(unanswered(&order));
    assert!(matches!(&effects[..], [Effect::Conclude(told)] if told.mails.len() == 2), "{effects:?}");
    assert_eq!(world.core.health()[1].level, health::Level::Error);
}

/// An event of a random run; the number says which of the mails or of the jobs under way it is about.
#[derive(Clone, Debug)]
enum Event {
    Deliver(u8),
    Finish(usize),
    Fail(usize),
    Unanswered(usize),
    Acknowledge,
    Recorded(bool),
    Wait(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..5u8).prop_map(Event::Deliver),
        4 => (0..4usize).prop_map(Event::Finish),
        1 => (0..4usize).prop_map(Event::Fail),
        1 => (0..4usize).prop_map(Event::Unanswered),
        1 => Just(Event::Acknowledge),
        1 => any::<bool>().prop_map(Event::Recorded),
        1 => (1..30u64).prop_map(Event::Wait),
    ]
}

proptest! {
    /// In any order of events: one job a mail, no more jobs than there is room for, and no mail that was taken is lost:
    /// it has a job or waits for its vehicle until it ends or is left.
    #[test]
    fn the_invariants_hold(events in prop::collection::vec(any_event(), 1..60), disk_works in any::<bool>()) {
        const SUBJECTS: [&str; 5] = ["status", "stop truck_1", "resume truck_1", "gibberish", "where is truck_1?"];
        let mut world = World { disk_works, ..World::new() };
        let mut jobs: Vec<(MailId, Job)> = Vec::new();
        let (mut taken, mut left, mut ordered, mut recording) = (BTreeSet::new(), 0, Vec::new(), false);
        for event in events {
            let nth = |nth: usize| (nth % jobs.len().max(1)).min(jobs.len().saturating_sub(1));
            let effects = match event {
                Event::Deliver(number) => {
                    let mail = delivered(number, SUBJECTS[usize::from(number)]);
                    world.step(Input::Delivered(mail))
                }
                Event::Wait(seconds) => world.tick(seconds),
                Event::Acknowledge => match ordered.last() {
                    Some(id) => world.step(accepted(*id)),
                    None => continue,
                },
                Event::Recorded(on_ledger) if recording => {
                    recording = false;
                    world.step(Input::Recorded(on_ledger))
                }
                Event::Recorded(_) => continue,
                Event::Finish(_) | Event::Fail(_) | Event::Unanswered(_) if jobs.is_empty() => continue,
                Event::Finish(place) => {
                    let (id, job) = jobs.remove(nth(place));
                    world.run(id, &job)
                }
                Event::Fail(place) => {
                    let (id, _) = jobs.remove(nth(place));
                    world.step(Input::Done(id, Outcome::Failed))
                }
                Event::Unanswered(place) => match jobs[nth(place)] {
                    (id, Job::AskStates { .. }) => {
                        jobs.retain(|(other, _)| *other != id);
                        world.step(Input::Done(id, Outcome::States(Err(Unavailable))))
                    }
                    (_, Job::Interpret(_)) => continue,
                },
            };
            for effect in effects {
                match effect {
                    Effect::Start(id, job) => {
                        prop_assert!(jobs.iter().all(|(other, _)| *other != id), "two jobs for one mail");
                        taken.insert(id);
                        jobs.push((id, job));
                    }
                    Effect::Conclude(end) => {
                        prop_assert!(taken.remove(&end.disposition.mail_id), "ended without being taken");
                    }
                    Effect::Command(order) => ordered.push(order.command_id),
                    Effect::Record(_) => prop_assert!(!std::mem::replace(&mut recording, true), "two at once"),
                    Effect::Write(_) | Effect::Notify(_) => {}
                }
            }
            prop_assert_eq!(jobs.len(), world.core.in_flight());
            prop_assert!(jobs.len() <= CAPACITY);
            let is_here = |id: &MailId| {
                jobs.iter().any(|(other, _)| other == id) || world.core.orders.is_waiting(*id)
            };
            let gone = taken.extract_if(.., |id| !is_here(id)).count();
            let now_left = world.figure(0, "retried").unwrap();
            prop_assert_eq!(gone as u64, now_left - left, "a mail is lost, or counted as left and is not");
            left = now_left;
        }
    }
}

#[test]
fn a_job_that_panics_has_failed() {
    let job = std::panic::catch_unwind(|| panic!("on purpose"));
    assert!(matches!(Outcome::of(MailId::of(b"mail"), job), Outcome::Failed));
}
