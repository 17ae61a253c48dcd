// SPDX-License-Identifier: Apache-2.0
use std::{collections::BTreeMap, path::Path};

use ::health::Level;
use mail::{Content, Mailbox, OutboundKind, OutboundMail, Verdict};
use settings::resolve;

use super::*;
use crate::params::SPECS;

mod interleavings;
mod ledger;

fn params() -> Params {
    Params::load(&resolve(SPECS, BTreeMap::new()).unwrap(), Path::new("/state")).unwrap()
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
}

/// An order to truck_2 by mail `number`, dated at `second`.
fn ordered(number: u8, command: Command, second: u64) -> Ordered {
    let from = Mailbox { name: String::new(), address: "dana@example.org".into() };
    let content = Content {
        message_id: format!("{number}@example.org"),
        subject: command.word().into(),
        from: vec![from],
        ..Content::default()
    };
    let mail_id = MailId::from_bytes([number; 32]);
    let order = VehicleCommand {
        command_id: [number; 32],
        mail_id,
        vehicle: "truck_2".into(),
        command,
        ordered_by: "dana@example.org".into(),
        ordered_at: at(second),
        signature: [0; 64],
    };
    let received = ReceivedMail::of(mail_id, &content, &Verdict::default()).unwrap();
    Ordered { received, order, since: at(second), state: "truck_2\n\nSpeed: 5 m/s\n".into() }
}

fn said(number: u8, status: AcknowledgementStatus) -> Acknowledgement {
    let reason = if status == AcknowledgementStatus::Refused { "brakes are hot" } else { "" };
    Acknowledgement { command_id: [number; 32], vehicle: "truck_2".into(), status, reason: reason.into() }
}

/// Orders with a clock and a disk that can fail.
struct Desk {
    orders: Orders,
    began: Instant,
    disk: bool,
}

impl Desk {
    fn new(book: Book) -> Self {
        let began = Instant::now();
        Self { orders: Orders::new(params(), book, began), began, disk: true }
    }

    fn now(&self, second: u64) -> Now {
        Now { clock: at(second), steady: self.began + Duration::from_secs(second) }
    }

    fn order(&mut self, ordered: Ordered, second: u64) -> Vec<Effect> {
        let now = self.now(second);
        match self.orders.consider(&ordered, now) {
            Consideration::Conclude(conclusion) => vec![Effect::Conclude(conclusion)],
            Consideration::Leave => Vec::new(),
            Consideration::Write(_) => self.orders.begin(ordered, self.disk, now),
        }
    }

    fn due(&mut self, second: u64, listeners: usize) -> Vec<Effect> {
        self.orders.due(self.now(second), listeners)
    }
}

fn commands(effects: &[Effect]) -> Vec<u8> {
    let number = |effect: &Effect| match effect {
        Effect::Command(order) => Some(order.command_id[0]),
        _ => None,
    };
    effects.iter().filter_map(number).collect()
}

fn mails(effects: &[Effect]) -> Vec<&OutboundMail> {
    let conclusions = effects
        .iter()
        .filter_map(|effect| if let Effect::Conclude(conclusion) = effect { Some(conclusion) } else { None });
    conclusions.flat_map(|conclusion| &conclusion.mails).collect()
}

/// Takes apart the effects of an outcome: what is written, and the end of the one mail.
fn written_and_concluded(effects: &[Effect]) -> (&Entry, &Conclusion) {
    let [Effect::Write(entries), Effect::Conclude(conclusion)] = effects else { panic!("{effects:?}") };
    (&entries[0], conclusion)
}

/// Takes apart the effects of an outcome that corrects an earlier one.
fn written_and_notified(effects: &[Effect]) -> (&Entry, &OutboundMail) {
    let [Effect::Write(entries), Effect::Notify(notice)] = effects else { panic!("{effects:?}") };
    (&entries[0], notice)
}

/// Takes apart the effects of an order that is not carried out, and returns the text of the answer.
fn not_carried_out(effects: &[Effect]) -> &str {
    let mails = mails(effects);
    let [answer, forward] = mails.as_slice() else { panic!("{effects:?}") };
    assert_eq!((answer.kind, answer.to.as_slice()), (OutboundKind::Answer, &["dana@example.org".into()][..]));
    assert_eq!((forward.kind, forward.urgent), (OutboundKind::Forward, true));
    let last = effects.last().unwrap();
    assert!(matches!(last, Effect::Conclude(end) if end.disposition.action == Action::Forwarded), "{last:?}");
    assert!(answer.text.starts_with("NOT carried out"), "{}", answer.text);
    &answer.text
}

#[test]
fn the_sender_is_told_of_the_acceptance_and_not_before() {
    let mut desk = Desk::new(Book::default());
    let effects = desk.order(ordered(1, Command::Stop, 0), 1);
    assert!(
        matches!(&effects[..], [Effect::Command(order)] if order.command == Command::Stop),
        "{effects:?}"
    );
    assert!(desk.orders.is_waiting(MailId::from_bytes([1; 32])));
    assert_eq!(desk.order(ordered(1, Command::Stop, 0), 2), []);
    let effects = desk.orders.acknowledged(&said(1, AcknowledgementStatus::Accepted));
    let (entry, end) = written_and_concluded(&effects);
    let [answer] = &end.mails[..] else { panic!("{end:?}") };
    assert_eq!((entry.state, end.disposition.action), (State::Accepted, Action::Ordered));
    assert!(answer.text.starts_with("truck_2 has accepted the order \"stop\".\n"), "{}", answer.text);
    assert!(answer.text.ends_with("Last known before the order:\n\ntruck_2\n\nSpeed: 5 m/s\n"));
    assert_eq!(desk.orders.acknowledged(&said(1, AcknowledgementStatus::Done)), []);
    assert_eq!(desk.orders.next_due(), None);
    // Another delivery of the mail, or a copy with another id, gets the same answer and orders nothing.
    let again = desk.order(ordered(1, Command::Stop, 0), 3);
    assert_eq!((mails(&again)[0], again.len()), (answer, 1));
}

/// Regression: a stop was published, and then a resume that had been ordered a minute earlier.
#[test]
fn an_order_that_was_given_earlier_is_not_sent_and_a_stop_of_the_same_second_wins() {
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(1, Command::Stop, 60), 61);
    let late = desk.order(ordered(2, Command::Resume, 0), 62);
    assert!(not_carried_out(&late).contains("has been ordered to stop, by a mail dated 60 s later"));
    let same = desk.order(ordered(3, Command::Resume, 60), 62);
    assert!(not_carried_out(&same).contains("at the same second, and a stop wins"));
    let effects = desk.order(ordered(4, Command::Resume, 61), 63);
    assert_eq!(commands(&effects), [4]);
}

#[test]
fn a_newer_order_goes_out_first_and_ends_the_older_one() {
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(1, Command::Resume, 0), 1);
    let effects = desk.order(ordered(2, Command::Stop, 1), 2);
    assert_eq!(
        (commands(&effects), &effects[0]),
        (vec![2], &Effect::Command(ordered(2, Command::Stop, 1).order))
    );
    assert!(not_carried_out(&effects[1..]).contains("another order to truck_2 was given before"));
    assert_eq!(commands(&desk.due(10, 1)), [2], "the resume is not published again");
    assert_eq!(mails(&desk.due(22, 1)).len(), 2);
}

#[test]
fn the_same_thing_ordered_twice_is_answered_twice_by_the_newer_acceptance() {
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(1, Command::Stop, 0), 1);
    assert_eq!(desk.order(ordered(2, Command::Stop, 1), 2).len(), 1);
    let effects = desk.orders.acknowledged(&said(2, AcknowledgementStatus::Accepted));
    let answers: Vec<_> = mails(&effects).iter().filter_map(|mail| mail.answers).collect();
    assert_eq!(answers, [MailId::from_bytes([1; 32]), MailId::from_bytes([2; 32])]);
}

/// Regression: an order was published once, with nobody listening, and its sender was told that it "was sent".
#[test]
fn what_nobody_acknowledges_is_published_again_and_then_its_sender_and_a_person_are_told() {
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(1, Command::Stop, 0), 0);
    for second in 1..20 {
        assert_eq!(desk.orders.next_due(), Some(desk.now(second).steady));
        assert_eq!(commands(&desk.due(second, 0)), [1]);
    }
    let effects = desk.due(20, 0);
    let text = not_carried_out(&effects[1..]);
    assert!(text.starts_with("NOT carried out as far as is known: \"stop truck_2\""), "{text}");
    assert!(text.contains("within 20 s; nothing listens for orders at the moment"), "{text}");
    assert_eq!(written_and_concluded(&effects).0.state, State::Unheard);
    assert_eq!(desk.orders.next_due(), None);
    // If the mail comes again because its disposition was lost, the answer is the same.
    assert!(commands(&desk.order(ordered(1, Command::Stop, 0), 30)).is_empty());

    // The vehicle heard the order after all, and says so twice.
    let notice = desk.orders.acknowledged(&said(1, AcknowledgementStatus::Accepted));
    let (entry, mail) = written_and_notified(&notice);
    assert_eq!(entry.state, State::Accepted);
    assert_eq!((mail.kind, mail.to.len()), (OutboundKind::Notice, 2));
    assert_eq!(mail.message_id, format!("{}.truck_2.accepted.notice@localhost", "01".repeat(32)));
    assert!(mail.text.contains("has accepted the order \"stop\" after all"), "{}", mail.text);
    assert_eq!(desk.orders.acknowledged(&said(1, AcknowledgementStatus::Done)), []);
}

#[test]
fn a_listener_that_keeps_silent_is_not_said_to_be_absent() {
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(1, Command::Stop, 0), 0);
    desk.due(1, 1);
    let effects = desk.due(20, 0);
    assert!(!not_carried_out(&effects[1..]).contains("nothing listens"));
}

#[test]
fn a_refusal_is_told_with_its_reason_also_after_an_acceptance() {
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(1, Command::Resume, 0), 0);
    let effects = desk.orders.acknowledged(&said(1, AcknowledgementStatus::Refused));
    assert!(not_carried_out(&effects[1..]).contains("truck_2 has refused it: brakes are hot"));
    desk.order(ordered(2, Command::Resume, 1), 1);
    desk.orders.acknowledged(&said(2, AcknowledgementStatus::Accepted));
    let effects = desk.orders.acknowledged(&said(2, AcknowledgementStatus::Refused));
    let (entry, mail) = written_and_notified(&effects);
    assert_eq!(entry.state, State::Refused);
    assert!(mail.text.contains("has now refused it: brakes are hot"), "{}", mail.text);
}

#[test]
fn orders_are_sent_only_while_they_are_fresh() {
    let mut desk = Desk::new(Book::default());
    let late = desk.order(ordered(1, Command::Stop, 0), 901);
    assert!(not_carried_out(&late).contains("the mail is 15 min old"));
    assert!(not_carried_out(&late).contains("exactly `stop truck_2` as the only line"));
    // With a clock that is ahead: a stop is admitted, but a resume would override all stops until its date.
    let ahead = desk.order(ordered(2, Command::Resume, 1121), 1000);
    assert!(not_carried_out(&ahead).contains("the mail's Date is 2 min ahead of this clock"));
    assert_eq!(commands(&desk.order(ordered(3, Command::Stop, 1121), 1000)), [3]);
    assert!(!not_carried_out(&desk.order(ordered(4, Command::Stop, 3000), 1000)).is_empty());
    // An order that has become too old is not published again, though its sender still waits.
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(5, Command::Stop, 0), 895);
    assert_eq!((commands(&desk.due(900, 1)), commands(&desk.due(901, 1))), (vec![5], vec![]));
}

#[test]
fn after_a_crash_the_order_is_published_again_unless_it_was_overtaken_or_is_too_old() {
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(1, Command::Stop, 0), 0);
    let book = desk.orders.book().clone();
    assert_eq!(commands(&Desk::new(book.clone()).order(ordered(1, Command::Stop, 0), 30)), [1]);
    let too_old = Desk::new(book.clone()).order(ordered(1, Command::Stop, 0), 901);
    assert!(not_carried_out(&too_old).contains("posthorn was restarted before truck_2 acknowledged it"));
    let mut again = Desk::new(book);
    again.order(ordered(2, Command::Resume, 1), 30);
    assert!(not_carried_out(&again.order(ordered(1, Command::Stop, 0), 31)).contains("another order"));
    // An acknowledgement while no mail waits; the mail comes later.
    let mut heard = Desk::new(desk.orders.book().clone());
    heard.orders.acknowledged(&said(1, AcknowledgementStatus::Accepted));
    assert!(mails(&heard.order(ordered(1, Command::Stop, 0), 31))[0].text.contains("has accepted"));
}

#[test]
fn with_a_dead_disk_a_stop_is_sent_and_a_resume_is_not() {
    let mut desk = Desk::new(Book::default());
    desk.disk = false;
    let resume = desk.order(ordered(1, Command::Resume, 0), 0);
    assert!(not_carried_out(&resume).contains("cannot write to its disk"));
    assert_eq!(commands(&desk.order(ordered(2, Command::Stop, 1), 1)), [2]);
    assert_eq!(desk.orders.health(false).level, Level::Error);
}

#[test]
fn another_order_with_a_used_message_id_is_not_sent() {
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(1, Command::Stop, 0), 0);
    let mut reused = ordered(1, Command::Resume, 5);
    reused.received = ordered(2, Command::Resume, 5).received;
    assert!(not_carried_out(&desk.order(reused, 6)).contains("another order has the same Message-ID"));
}
