// SPDX-License-Identifier: Apache-2.0
//! Tests how orders get on the evidence ledger.

use super::{super::ledger::statement, *};

fn numbers(entries: &[Entry]) -> Vec<u8> {
    entries.iter().map(|entry| entry.command_id[0]).collect()
}

impl Desk {
    fn begin_recording(&mut self, second: u64) -> Vec<u8> {
        numbers(&self.orders.begin_recording(self.now(second).steady))
    }

    fn recorded(&mut self, on_ledger: bool, second: u64) -> Vec<Entry> {
        self.orders.recorded(on_ledger, self.now(second).steady)
    }

    fn figure(&self, name: &str) -> Option<u64> {
        self.orders.health(true).figure(name)
    }
}

#[test]
fn an_order_is_published_at_once_and_recorded_until_it_is_on_the_ledger() {
    let mut desk = Desk::new(Book::default());
    assert!(desk.begin_recording(0).is_empty());
    // Nothing about the ledger is between the order and its publication.
    assert_eq!(commands(&desk.order(ordered(1, Command::Stop, 0), 0)), [1]);
    assert_eq!(desk.begin_recording(0), [1]);
    // Those that come meanwhile wait for the next request.
    desk.order(ordered(2, Command::Stop, 1), 1);
    assert_eq!((desk.begin_recording(1), desk.figure("wait_for_ledger")), (Vec::new(), Some(2)));
    // The outcome of an order and its place on the ledger do not get in each other's way.
    desk.orders.acknowledged(&said(1, AcknowledgementStatus::Accepted));
    let written = desk.recorded(true, 2);
    assert_eq!((numbers(&written), written[0].on_ledger, written[0].state), (vec![1], true, State::Accepted));
    assert_eq!(desk.begin_recording(2), [2]);
    desk.recorded(true, 2);
    let effects = desk.orders.acknowledged(&said(2, AcknowledgementStatus::Accepted));
    assert!(matches!(&effects[0], Effect::Write(entries) if entries[0].on_ledger), "{effects:?}");
    assert_eq!((desk.begin_recording(3), desk.figure("wait_for_ledger")), (vec![], Some(0)));
}

#[test]
fn a_request_that_fails_is_repeated_with_growing_pauses_and_the_status_says_so() {
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(1, Command::Stop, 0), 0);
    desk.orders.acknowledged(&said(1, AcknowledgementStatus::Accepted));
    let mut second = 0;
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(desk.begin_recording(second), [1]);
        assert_eq!(desk.recorded(false, second), []);
        assert!(desk.begin_recording(second + pause - 1).is_empty());
        assert_eq!(desk.orders.next_due(), Some(desk.now(second + pause).steady));
        second += pause;
    }
    let status = desk.orders.health(true);
    assert_eq!((status.level, status.figure("wait_for_ledger")), (Level::Warn, Some(1)));
    assert!(status.message.contains("the authenticator does not record orders"), "{}", status.message);
    assert_eq!(desk.begin_recording(second), [1]);
    desk.recorded(true, second);
    assert_eq!((desk.orders.health(true).level, desk.orders.next_due()), (Level::Ok, None));
}

#[test]
fn what_is_on_disk_and_not_on_the_ledger_is_recorded_after_a_restart() {
    let mut desk = Desk::new(Book::default());
    for number in 1..=3 {
        desk.order(ordered(number, Command::Stop, number.into()), number.into());
    }
    desk.begin_recording(4);
    // Killed before the answer.
    let mut desk = Desk::new(desk.orders.book().clone());
    assert_eq!(desk.begin_recording(5), [1, 2, 3]);
    desk.recorded(true, 5);
    assert!(Desk::new(desk.orders.book().clone()).begin_recording(6).is_empty());
}

#[test]
fn another_copy_of_the_mail_is_another_proof_and_the_same_mail_is_not() {
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(1, Command::Stop, 0), 0);
    // The mail comes again, while its order is open and on the ledger.
    let mut book = Book::default();
    let open =
        Entry { state: State::Sent, on_ledger: true, ..desk.orders.book().entries().next().unwrap().clone() };
    book.put(open);
    let mut desk = Desk::new(book);
    assert_eq!(commands(&desk.order(ordered(1, Command::Stop, 0), 31)), [1]);
    assert!(desk.begin_recording(31).is_empty());
    // A copy with another unsigned field: published with the id of that mail, so signed anew.
    let mut copy = ordered(1, Command::Stop, 0);
    copy.order.mail_id = MailId::from_bytes([9; 32]);
    copy.received.id = copy.order.mail_id;
    assert_eq!(commands(&desk.order(copy.clone(), 32)), [1]);
    assert_eq!(desk.begin_recording(32), [1]);
    // Both wait, if the copy comes before the first is on the ledger; neither waits twice.
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(1, Command::Stop, 0), 0);
    desk.order(copy, 1);
    assert_eq!(
        desk.orders.begin_recording(desk.now(1).steady).iter().map(|entry| entry.mail_id).collect::<Vec<_>>(),
        [MailId::from_bytes([1; 32]), MailId::from_bytes([9; 32]),]
    );
    let written = desk.recorded(true, 1);
    assert_eq!(written.iter().map(|entry| entry.mail_id).collect::<Vec<_>>(), [MailId::from_bytes([9; 32])]);
}

#[test]
fn an_authenticator_that_is_away_for_long_takes_bounded_memory() {
    let mut book = Book::default();
    let mut desk = Desk::new(Book::default());
    desk.order(ordered(1, Command::Stop, 0), 0);
    let entry = desk.orders.book().entries().next().unwrap().clone();
    for number in 0..5000_u32 {
        let mut command_id = [0; 32];
        command_id[..4].copy_from_slice(&number.to_be_bytes());
        book.put(Entry { command_id, vehicle: format!("truck_{number}"), ..entry.clone() });
    }
    let desk = Desk::new(book);
    assert_eq!((desk.figure("wait_for_ledger"), desk.figure("too_many_for_ledger")), (Some(4096), Some(904)));
}

/// Whoever has the message can compute the digest, as `VehicleCommand.msg` says.
#[test]
fn the_facts_of_an_order_are_the_bytes_under_its_signature() {
    let order = ordered(1, Command::Stop, 0).order;
    let source = "/fleet/chatbot".parse().unwrap();
    let entry = statement(&Entry::new(&order, "1@example.org"), &source).unwrap();
    assert_eq!((entry.kind().as_str(), entry.source(), entry.subject()), ("order", &source, &[1; 32]));
    // Computed with Python's struct and hashlib.
    assert_eq!(
        hex::encode(entry.digest()),
        "f4ca911b27b5ce0af75f46ea72b86795689e50611891cd452feb940ee0c41255"
    );
}
