// SPDX-License-Identifier: Apache-2.0
//! Decides which waiting mail is checked next, and how many may wait. Pure.
//!
//! # Invariants
//! - Checks wait for DNS, so no From domain and no peer takes more than its share of the check slots ([`Lane`]).
//!   Known domains, where a sender was authenticated before, have slots of their own: they are not held up by strange
//!   domains whose DNS does not answer, however many there are.
//! - Waiting mails are bounded in count and bytes, and in count per class.
//!
//! A mail holds its slot only while it is checked. [`super::core`] holds the mails, and bounds what follows.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

use fair_queue::{Class, Lane, Load, Room};
use mail::MailId;

/// Byte limit of each lane; applied separately to the mails being checked and the mails waiting.
pub const LANE_BYTES: u64 = 64 << 20;
/// Maximum number of mails waiting in each lane.
const WAITING: usize = 512;
/// Maximum number of mails of one class waiting.
const CLASS_WAITING: usize = 128;
/// Maximum number of known domains to remember.
pub const KNOWN: usize = 1024;

/// The queue of mails to check and the slots of those being checked.
#[derive(Debug)]
pub struct Intake {
    strangers: Side,
    known: Side,
    /// Lane, class and size of each mail that is waiting or being checked.
    places: HashMap<MailId, Place>,
    deliveries: u64,
    known_domains: VecDeque<u64>,
}

#[derive(Debug)]
struct Side {
    lane: Lane,
    waiting_bytes: u64,
    by_class: HashMap<Class, usize>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    is_known: bool,
    class: Class,
    bytes: u64,
}

impl Intake {
    /// Creates an intake with this many check slots; a quarter of them is reserved for known domains.
    pub fn new(max_in_flight: usize) -> Self {
        let known = (max_in_flight / 4).max(1);
        Self {
            // A class may hold an eighth of the slots for strangers, or half of those for known domains.
            strangers: Side::new(max_in_flight.saturating_sub(known).max(1), 125_000),
            known: Side::new(known, 500_000),
            places: HashMap::new(),
            deliveries: 0,
            known_domains: VecDeque::new(),
        }
    }

    /// Queues a mail that is neither waiting nor being checked. Returns false if there is no room; the mail will be
    /// delivered again.
    #[must_use]
    pub fn admit(&mut self, id: MailId, class: Class, bytes: u64) -> bool {
        let is_known = self.known_domains.contains(&class.domain);
        let side = self.side(is_known);
        let of_class = side.by_class.get(&class).copied().unwrap_or_default();
        let is_full = side.lane.waiting() >= WAITING
            || of_class >= CLASS_WAITING
            || side.waiting_bytes > 0 && side.waiting_bytes.saturating_add(bytes) > LANE_BYTES;
        if is_full {
            return false;
        }
        self.deliveries = self.deliveries.saturating_add(1);
        let position = (Duration::ZERO, self.deliveries);
        let side = self.side(is_known);
        side.by_class.insert(class, of_class.saturating_add(1));
        side.waiting_bytes = side.waiting_bytes.saturating_add(bytes);
        side.lane.push(class, position, id, bytes);
        self.places.insert(id, Place { is_known, class, bytes });
        true
    }

    /// Takes the next mail to check, if a slot is free. It holds the slot until [`Intake::checked`].
    pub fn take(&mut self) -> Option<MailId> {
        let id = self.known.lane.take().or_else(|| self.strangers.lane.take())?;
        let Place { is_known, class, bytes } = *self.places.get(&id)?;
        let side = self.side(is_known);
        side.waiting_bytes = side.waiting_bytes.saturating_sub(bytes);
        if let Entry::Occupied(mut count) = side.by_class.entry(class) {
            match count.get().saturating_sub(1) {
                0 => drop(count.remove()),
                rest => drop(count.insert(rest)),
            }
        }
        Some(id)
    }

    /// Frees the slot of a mail whose check has ended.
    pub fn checked(&mut self, id: MailId) {
        if let Some(Place { is_known, class, bytes }) = self.places.remove(&id) {
            self.side(is_known).lane.give_back(class, bytes);
        }
    }

    /// Marks a domain as known because a sender of it was authenticated; returns whether that is new.
    pub fn know(&mut self, domain: &str) -> bool {
        let domain = Class::domain(domain);
        let is_new = !self.known_domains.contains(&domain);
        if is_new {
            self.known_domains.truncate(KNOWN - 1);
            self.known_domains.push_front(domain);
        }
        is_new
    }

    /// Number and bytes of the mails being checked.
    pub fn in_flight(&self) -> Load {
        let (strangers, known) = (self.strangers.lane.held(), self.known.lane.held());
        Load {
            mails: strangers.mails.saturating_add(known.mails),
            bytes: strangers.bytes.saturating_add(known.bytes),
        }
    }

    /// Number and bytes of the mails waiting to be checked.
    pub fn waiting(&self) -> Load {
        let (strangers, known) = (&self.strangers, &self.known);
        Load {
            mails: strangers.lane.waiting().saturating_add(known.lane.waiting()),
            bytes: strangers.waiting_bytes.saturating_add(known.waiting_bytes),
        }
    }

    fn side(&mut self, is_known: bool) -> &mut Side {
        if is_known { &mut self.known } else { &mut self.strangers }
    }
}

impl Side {
    fn new(mails: usize, share: u64) -> Self {
        Self {
            lane: Lane::new(Room { mails, bytes: LANE_BYTES, share }),
            waiting_bytes: 0,
            by_class: HashMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::{ImapMessage, Origin};

    fn id(number: u32) -> MailId {
        MailId::of(&number.to_be_bytes())
    }

    /// Admits a mail of this size, fetched from one account.
    fn admit(intake: &mut Intake, number: u32, bytes: u64, domain: &str) -> bool {
        let (account, folder) = ("fleet@example.org".to_owned(), "INBOX".to_owned());
        let origin = Origin::Imap(ImapMessage { account, folder, uid_validity: 1, uid: number });
        intake.admit(id(number), Class::new(&origin, domain), bytes)
    }

    fn started(intake: &mut Intake) -> Vec<MailId> {
        std::iter::from_fn(|| intake.take()).collect()
    }

    #[test]
    fn a_domain_whose_checks_do_not_end_holds_up_no_other() {
        let mut intake = Intake::new(64);
        for number in 0..400 {
            assert_eq!(admit(&mut intake, number, 4, "silent.example"), number < 128);
        }
        assert_eq!(started(&mut intake).len(), 6);
        assert!(admit(&mut intake, 1000, 4, "dispatch.example"));
        assert_eq!(started(&mut intake), [id(1000)]);
        assert_eq!((intake.in_flight().mails, intake.waiting().mails), (7, 122));
    }

    #[test]
    fn any_number_of_silent_domains_holds_up_no_known_one() {
        let mut intake = Intake::new(64);
        assert!(intake.know("dispatch.example"));
        assert!(!intake.know("dispatch.example"), "not new");
        for number in 0..400 {
            assert!(admit(&mut intake, number, 4, &format!("silent{number}.example")));
        }
        assert!(started(&mut intake).len() <= 48);
        assert!(admit(&mut intake, 1000, 4, "mail.dispatch.example"));
        assert_eq!(started(&mut intake).len(), 1);
    }

    #[test]
    fn every_mail_gets_its_turn_and_nothing_is_left_behind() {
        let mut intake = Intake::new(8);
        for number in 0..300 {
            assert!(admit(&mut intake, number, 4, &format!("d{}.example", number % 7)));
        }
        let mut done = 0;
        while let Some(id) = intake.take() {
            intake.checked(id);
            done += 1;
        }
        let nothing = Load::default();
        assert_eq!((done, intake.in_flight(), intake.waiting()), (300, nothing, nothing));
        let Intake { strangers, places, .. } = intake;
        assert!(strangers.by_class.is_empty() && places.is_empty());
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_one_large_mail_fits() {
        let mut intake = Intake::new(8);
        assert!(admit(&mut intake, 1, LANE_BYTES + 1, "a.example"));
        assert!(!admit(&mut intake, 2, 4, "b.example"));
        assert_eq!(started(&mut intake).len(), 1);
        assert!(admit(&mut intake, 2, 4, "b.example"));
    }
}
