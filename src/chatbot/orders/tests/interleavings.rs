// SPDX-License-Identifier: Apache-2.0
//! Tests what holds under delays, duplicates, losses and crashes in any order.

use std::collections::BTreeSet;

use proptest::prelude::*;
use vehicle::{OrderGate, OrderKey, Ruling, signed_bytes};

use super::*;

/// One step of a test run.
#[derive(Clone, Debug)]
enum Event {
    /// A mail arrives, for the first time or again.
    Mail(usize),
    /// This many seconds pass.
    Wait(u64),
    /// The vehicle hears the last order published, or misses it; its reply arrives, or is lost.
    Vehicle { hears: bool, is_heard: bool },
    /// The chatbot is killed after this many more effects.
    Crash(usize),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..5usize).prop_map(Event::Mail),
        2 => (1..15u64).prop_map(Event::Wait),
        4 => any::<[bool; 2]>().prop_map(|[hears, is_heard]| Event::Vehicle { hears, is_heard }),
        1 => (0..4usize).prop_map(Event::Crash),
    ]
}

/// The world around the orders: disk, vehicle, outbox, and which mails are disposed of.
struct World {
    desk: Desk,
    second: u64,
    disk: Book,
    crash_after: Option<usize>,
    published: Vec<VehicleCommand>,
    gate: OrderGate,
    holds: Option<Command>,
    taken: BTreeSet<u8>,
    /// The outbox takes only one answer for each mail.
    answers: BTreeMap<MailId, String>,
    notices: BTreeSet<String>,
    disposed: BTreeSet<MailId>,
    /// The facts of the orders that the authenticator has on disk.
    ledger: BTreeSet<Vec<u8>>,
}

impl World {
    fn new() -> Self {
        Self {
            desk: Desk::new(Book::default()),
            second: 100,
            disk: Book::default(),
            crash_after: None,
            published: Vec::new(),
            gate: OrderGate::new(Some(key().public()), Duration::from_secs(900)),
            holds: None,
            taken: BTreeSet::new(),
            answers: BTreeMap::new(),
            notices: BTreeSet::new(),
            disposed: BTreeSet::new(),
            ledger: BTreeSet::new(),
        }
    }

    fn mail(&mut self, ordered: Ordered) {
        let now = self.desk.now(self.second);
        if self.disposed.contains(&ordered.received.id) {
            return;
        }
        let effects = match self.desk.orders.consider(&ordered, now) {
            Consideration::Conclude(conclusion) => vec![Effect::Conclude(conclusion)],
            Consideration::Leave => Vec::new(),
            Consideration::Write(entry) => {
                if self.crashes() {
                    return;
                }
                self.disk.put(entry);
                self.desk.orders.begin(ordered, true, now)
            }
        };
        self.carry_out(effects);
    }

    fn crashes(&mut self) -> bool {
        let crash = self.crash_after == Some(0);
        if crash {
            let began = self.desk.began;
            self.desk = Desk { began, ..Desk::new(self.disk.clone()) };
        }
        self.crash_after = if crash { None } else { self.crash_after.map(|left| left - 1) };
        crash
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if self.crashes() {
                return;
            }
            match effect {
                Effect::Command(mut order) => {
                    let newest = self.published.iter().map(VehicleCommand::precedence).max();
                    assert!(newest <= Some(order.precedence()), "an older order was published: {order:?}");
                    key().sign(&mut order);
                    self.published.push(order);
                }
                Effect::Write(entries) => entries.into_iter().for_each(|entry| self.disk.put(entry)),
                Effect::Conclude(Conclusion { mails, disposition }) => {
                    for mail in mails {
                        self.send(mail);
                        if self.crashes() {
                            return;
                        }
                    }
                    assert!(self.answers.contains_key(&disposition.mail_id), "disposed of without an answer");
                    assert!(self.disposed.insert(disposition.mail_id), "disposed of twice");
                }
                Effect::Notify(mail) => self.send(mail),
                effect => panic!("{effect:?}"),
            }
        }
    }

    fn send(&mut self, mail: OutboundMail) {
        if mail.kind == OutboundKind::Answer {
            self.answers.entry(mail.answers.unwrap()).or_insert(mail.text);
        } else {
            self.notices.insert(mail.message_id);
        }
    }

    fn vehicle(&mut self, hears: bool, is_heard: bool) {
        let Some(order) = self.published.last().filter(|_| hears) else { return };
        let status = match self.gate.rule(order, at(self.second)) {
            Ruling::Take => {
                self.holds = Some(order.command);
                self.taken.insert(order.command_id[0]);
                AcknowledgementStatus::Accepted
            }
            Ruling::Repeat => AcknowledgementStatus::Accepted,
            Ruling::Refuse(_) => AcknowledgementStatus::Refused,
            Ruling::Wait => panic!("it has a key"),
        };
        let said = said(order.command_id[0], status);
        if is_heard {
            let effects = self.desk.orders.acknowledged(&said);
            self.carry_out(effects);
        }
    }

    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second += 1;
            let effects = self.desk.due(self.second, 1);
            self.carry_out(effects);
            self.record();
        }
    }

    /// Some requests to the authenticator are lost. Of others the answer is, so that they are on its disk all the same.
    fn record(&mut self) {
        let now = self.desk.now(self.second).steady;
        let asked = self.desk.orders.begin_recording(now);
        if asked.is_empty() {
            return;
        }
        let [is_lost, is_unanswered] = [5, 3].map(|period| self.second.is_multiple_of(period));
        if !is_lost {
            self.ledger.extend(asked.iter().map(|entry| signed_bytes(&entry.order())));
        }
        let changed = self.desk.orders.recorded(!is_lost && !is_unanswered, now);
        if !self.crashes() {
            changed.into_iter().for_each(|entry| self.disk.put(entry));
        }
    }
}

fn key() -> OrderKey {
    OrderKey::from_bytes([9; 32])
}

proptest! {
    // Signing is slow without optimisation.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_newest_order_holds_and_every_sender_is_told_once_what_is_true(
        given in prop::collection::vec((any::<bool>(), 90u64..100), 5),
        events in prop::collection::vec(any_event(), 1..40),
    ) {
        let mails: Vec<_> = (1..)
            .zip(&given)
            .map(|(number, (stop, second))| {
                ordered(number, if *stop { Command::Stop } else { Command::Resume }, *second)
            })
            .collect();
        let mut world = World::new();
        let mut came = BTreeSet::new();
        for event in events {
            match event {
                Event::Mail(mail) => {
                    came.insert(mail);
                    world.mail(mails[mail].clone());
                }
                Event::Wait(seconds) => world.wait(seconds),
                Event::Vehicle { hears, is_heard } => world.vehicle(hears, is_heard),
                Event::Crash(after) => world.crash_after = Some(after),
            }
        }
        // mail_bridge delivers a mail again until it is disposed of.
        world.crash_after = None;
        for mail in came.iter().chain(&came) {
            world.mail(mails[*mail].clone());
            world.vehicle(true, true);
            world.wait(21);
        }
        world.wait(200);
        prop_assert_eq!(world.desk.orders.ledger.waiting(), 0);
        prop_assert!(world.published.iter().all(|order| world.ledger.contains(&signed_bytes(order))));
        let newest = came.iter().map(|mail| &mails[*mail].order).max_by_key(|order| order.precedence());
        // The vehicle does what was ordered last, among all orders that came while they were fresh.
        prop_assert_eq!(world.holds, newest.map(|order| order.command));
        for mail in came {
            let (id, number) = (mails[mail].received.id, mails[mail].order.command_id[0]);
            let answer = &world.answers[&id];
            prop_assert!(world.disposed.contains(&id), "not disposed of: {}", answer);
            prop_assert!(!world.desk.orders.is_waiting(id));
            if answer.contains("has accepted the order") {
                let same = mails.iter().filter(|other| other.order.command == mails[mail].order.command);
                let held = same.map(|other| other.order.command_id[0]).any(|id| world.taken.contains(&id));
                prop_assert!(held, "accepted, but the vehicle never took it");
            } else {
                prop_assert!(answer.starts_with("NOT carried out"), "{}", answer);
                // The reverse need not hold: a crash may come between writing and publishing.
                let sent = world.published.iter().any(|order| order.command_id[0] == number);
                prop_assert!(!sent || !answer.contains("was not sent"), "{}", answer);
            }
        }
    }
}
