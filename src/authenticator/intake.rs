// SPDX-License-Identifier: Apache-2.0
//! Decides which delivered mails are checked now, which wait, and which are left to be delivered again. Pure.
//!
//! # Invariants
//! - A mail is held at most once, however often it is redelivered meanwhile.
//! - Checks wait for DNS, so no From domain and no peer takes more than its share of the check slots ([`Lane`]).
//!   Known domains, where a sender was authenticated before, have slots of their own: they are not held up by strange
//!   domains whose DNS does not answer, however many there are.
//! - Waiting mails are bounded in count and bytes, and in count per class.
//!
//! A mail holds its slot only while it is checked. The caller bounds what follows (registry, evidence, publishing).

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use fair_queue::{Class, Lane, Load, Room};
use mail::{AcceptedMail, MailId};

/// Byte limit of each lane; applied separately to the mails being checked and the mails waiting.
const LANE_BYTES: u64 = 64 << 20;
/// Maximum number of mails waiting in each lane.
const WAITING: usize = 512;
/// Maximum number of mails of one class waiting.
const CLASS_WAITING: usize = 128;
/// Maximum number of known domains to remember.
pub const KNOWN: usize = 1024;

/// Outcome of admitting a delivered mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The mail is queued and will be checked.
    Waits,
    /// The mail is already queued, being checked or being finished.
    Duplicate,
    /// The queue is full; the mail will be delivered again.
    Full,
}

/// Mails between delivery and the end of their processing.
#[derive(Debug)]
pub struct Intake {
    strangers: Side,
    known: Side,
    /// Lane and class of each mail that is waiting or being checked.
    places: HashMap<MailId, Place>,
    /// Mails that have been checked but not finished.
    finishing: HashSet<MailId>,
    deliveries: u64,
    known_domains: VecDeque<u64>,
}

#[derive(Debug)]
struct Side {
    lane: Lane,
    waiting: HashMap<MailId, (Class, AcceptedMail)>,
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
            finishing: HashSet::new(),
            deliveries: 0,
            known_domains: VecDeque::new(),
        }
    }

    /// Admits a delivered mail. `domain` is its author's domain, empty if the mail does not have exactly one author.
    pub fn admit(&mut self, mail: AcceptedMail, domain: &str) -> Admission {
        if self.places.contains_key(&mail.id) || self.finishing.contains(&mail.id) {
            return Admission::Duplicate;
        }
        let class = Class::new(mail.envelope.peer, domain);
        let is_known = self.known_domains.contains(&class.domain);
        let place = Place { is_known, class, bytes: mail.data.len() as u64 };
        let side = if is_known { &mut self.known } else { &mut self.strangers };
        let of_class = side.by_class.get(&class).copied().unwrap_or_default();
        let is_full = side.waiting.len() >= WAITING
            || of_class >= CLASS_WAITING
            || side.waiting_bytes > 0 && side.waiting_bytes.saturating_add(place.bytes) > LANE_BYTES;
        if is_full {
            return Admission::Full;
        }
        side.by_class.insert(class, of_class.saturating_add(1));
        self.deliveries = self.deliveries.saturating_add(1);
        self.places.insert(mail.id, place);
        side.lane.push(class, (Duration::ZERO, self.deliveries), mail.id, place.bytes);
        side.waiting_bytes = side.waiting_bytes.saturating_add(place.bytes);
        side.waiting.insert(mail.id, (class, mail));
        Admission::Waits
    }

    /// Takes the next mail to check, if a slot is free. Call [`Intake::checked`] when the check ends.
    pub fn take(&mut self) -> Option<AcceptedMail> {
        self.known.take().or_else(|| self.strangers.take())
    }

    /// Frees the slot of a mail whose check has ended.
    pub fn checked(&mut self, id: MailId) {
        if let Some(Place { is_known, class, bytes }) = self.places.remove(&id) {
            let side = if is_known { &mut self.known } else { &mut self.strangers };
            side.lane.give_back(class, bytes);
            self.finishing.insert(id);
        }
    }

    /// Forgets a finished mail; if it is delivered again, it is checked again.
    pub fn done(&mut self, id: MailId) {
        self.finishing.remove(&id);
    }

    /// Marks a domain as known because a sender of it was authenticated.
    pub fn know(&mut self, domain: &str) {
        let Class { domain, .. } = Class::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), domain);
        if !self.known_domains.contains(&domain) {
            self.known_domains.truncate(KNOWN - 1);
            self.known_domains.push_front(domain);
        }
    }

    /// Number of mails being checked.
    pub fn in_flight(&self) -> usize {
        let Load { mails: strangers, .. } = self.strangers.lane.held();
        strangers.saturating_add(self.known.lane.held().mails)
    }

    /// Number of mails that have been checked but not finished.
    pub fn finishing(&self) -> usize {
        self.finishing.len()
    }

    /// Number of mails waiting to be checked.
    pub fn waiting(&self) -> usize {
        self.strangers.waiting.len().saturating_add(self.known.waiting.len())
    }
}

impl Side {
    fn new(mails: usize, share: u64) -> Self {
        Self {
            lane: Lane::new(Room { mails, bytes: LANE_BYTES, share }),
            waiting: HashMap::new(),
            waiting_bytes: 0,
            by_class: HashMap::new(),
        }
    }

    fn take(&mut self) -> Option<AcceptedMail> {
        let id = self.lane.take()?;
        let (class, mail) = self.waiting.remove(&id)?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(mail.data.len() as u64);
        if let Entry::Occupied(mut count) = self.by_class.entry(class) {
            match count.get().saturating_sub(1) {
                0 => drop(count.remove()),
                rest => drop(count.insert(rest)),
            }
        }
        Some(mail)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use mail::{Envelope, Source};

    /// A mail of this size, passed on by a gateway.
    fn mail(number: u32, bytes: usize) -> AcceptedMail {
        let mut data = number.to_be_bytes().to_vec();
        let id = MailId::of(&data);
        data.resize(bytes.max(4), b' ');
        let envelope = Envelope {
            source: Source::Smtp,
            peer: [127, 0, 0, 1].into(),
            helo: String::new(),
            mail_from: String::new(),
            rcpt_to: Vec::new(),
        };
        AcceptedMail { id, received_at: UNIX_EPOCH, envelope, data }
    }

    fn started(intake: &mut Intake) -> Vec<AcceptedMail> {
        std::iter::from_fn(|| intake.take()).collect()
    }

    #[test]
    fn a_domain_whose_checks_do_not_end_holds_up_no_other() {
        let mut intake = Intake::new(64);
        for number in 0..400 {
            let admission = intake.admit(mail(number, 4), "silent.example");
            assert_eq!(admission, if number < 128 { Admission::Waits } else { Admission::Full });
        }
        assert_eq!(started(&mut intake).len(), 6);
        intake.admit(mail(1000, 4), "dispatch.example");
        let [dispatch] = started(&mut intake).try_into().unwrap();
        assert_eq!(dispatch.id, mail(1000, 4).id);
        assert_eq!((intake.in_flight(), intake.waiting()), (7, 122));
    }

    #[test]
    fn any_number_of_silent_domains_holds_up_no_known_one() {
        let mut intake = Intake::new(64);
        intake.know("dispatch.example");
        for number in 0..400 {
            intake.admit(mail(number, 4), &format!("silent{number}.example"));
        }
        assert!(started(&mut intake).len() <= 48);
        intake.admit(mail(1000, 4), "mail.dispatch.example");
        assert_eq!(started(&mut intake).len(), 1);
    }

    #[test]
    fn a_mail_is_here_once_until_it_is_done_with() {
        let mut intake = Intake::new(4);
        assert_eq!(intake.admit(mail(1, 4), "a.example"), Admission::Waits);
        assert_eq!(intake.admit(mail(1, 4), "a.example"), Admission::Duplicate);
        let [one] = started(&mut intake).try_into().unwrap();
        assert_eq!(intake.admit(mail(1, 4), "a.example"), Admission::Duplicate);
        intake.checked(one.id);
        assert_eq!(intake.admit(mail(1, 4), "a.example"), Admission::Duplicate);
        intake.done(one.id);
        assert_eq!(intake.admit(mail(1, 4), "a.example"), Admission::Waits);
    }

    #[test]
    fn every_mail_gets_its_turn_and_nothing_is_left_behind() {
        let mut intake = Intake::new(8);
        for number in 0..300 {
            intake.admit(mail(number, 4), &format!("d{}.example", number % 7));
        }
        let mut done = 0;
        while let Some(mail) = intake.take() {
            intake.checked(mail.id);
            intake.done(mail.id);
            done += 1;
        }
        assert_eq!((done, intake.in_flight(), intake.waiting()), (300, 0, 0));
        let Intake { strangers, places, finishing, .. } = intake;
        assert!(strangers.by_class.is_empty() && places.is_empty() && finishing.is_empty());
        assert_eq!(strangers.waiting_bytes, 0);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_one_large_mail_fits() {
        let mut intake = Intake::new(8);
        let large = (LANE_BYTES + 1) as usize;
        assert_eq!(intake.admit(mail(1, large), "a.example"), Admission::Waits);
        assert_eq!(intake.admit(mail(2, 4), "b.example"), Admission::Full);
        assert_eq!(started(&mut intake).len(), 1);
        assert_eq!(intake.admit(mail(2, 4), "b.example"), Admission::Waits);
    }
}
