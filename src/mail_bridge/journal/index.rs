//! The journal's index in memory: where each mail is on disk, and which state it is in. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::SystemTime,
};

use mail::{MailId, OutboundKind};
use record_log::HEAD_BYTES;

use super::record::{Attempt, OutboundKey, Record, SendState};
use crate::core::Arrival;

/// Location of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the segment.
    pub segment: u64,
    /// Offset of the record in it, bytes.
    pub offset: u64,
    /// Length of the record, bytes.
    pub bytes: usize,
}

/// The record from which a mail is known.
#[derive(Clone, Copy, Debug)]
enum Home {
    /// Its own record.
    Record(Place),
    /// A `Remembered` record in this segment.
    Remembered(u64),
}

impl Home {
    fn segment(self) -> u64 {
        match self {
            Self::Record(place) => place.segment,
            Self::Remembered(segment) => segment,
        }
    }

    fn place(self) -> Option<Place> {
        match self {
            Self::Record(place) => Some(place),
            Self::Remembered(_) => None,
        }
    }

    /// Bytes of its segment that this mail still needs.
    fn live(self, needed: bool, identity: usize) -> Live {
        let bytes = match self {
            Self::Record(place) if needed => HEAD_BYTES.saturating_add(place.bytes as u64),
            Self::Record(_) => 0,
            Self::Remembered(_) => identity as u64,
        };
        (self.segment(), bytes)
    }
}

/// A segment, and a number of bytes in it.
type Live = (u64, u64);

#[derive(Clone, Copy, Debug)]
struct Mail {
    home: Home,
    settled: bool,
    /// An unfinished forward will attach this mail, so its bytes are needed even if it is settled.
    passed_on: bool,
}

impl Mail {
    fn live(&self) -> Live {
        self.home.live(!self.settled || self.passed_on, size_of::<MailId>())
    }
}

#[derive(Clone, Debug)]
struct Outbound {
    home: Home,
    queued_at: SystemTime,
    /// Last attempt; `None` if it was never tried.
    attempt: Option<Attempt>,
}

impl Outbound {
    fn finished(&self) -> bool {
        self.attempt
            .as_ref()
            .is_some_and(|last| matches!(last.state, SendState::Delivered | SendState::Failed))
    }

    fn live(&self) -> Live {
        self.home.live(!self.finished(), size_of::<OutboundKey>())
    }
}

/// The part of a record that the index keeps.
#[derive(Clone, Debug)]
pub enum Note {
    /// Of a mail: when it was received, and what the window needs.
    Accepted(SystemTime, Arrival),
    /// Of a settlement.
    Settled(MailId),
    /// Of an outbound mail: when it was queued, and its key.
    Queued(SystemTime, OutboundKey),
    /// Of an attempt to send.
    Attempted(Attempt),
    /// Of remembered identities.
    Remembered(Vec<MailId>, Vec<OutboundKey>),
}

impl From<&Record> for Note {
    fn from(record: &Record) -> Self {
        match record {
            Record::Accepted(mail) => Self::Accepted(mail.received_at, Arrival::of(mail)),
            Record::Settled(disposition) => Self::Settled(disposition.mail_id),
            Record::Queued(at, mail) => Self::Queued(*at, OutboundKey::of(mail)),
            Record::Attempted(attempt) => Self::Attempted(attempt.clone()),
            Record::Remembered(mails, keys) => Self::Remembered(mails.clone(), keys.clone()),
        }
    }
}

/// The mails and outbound mails that have, or had, records in a segment.
#[derive(Debug, Default)]
struct Contents {
    mails: Vec<MailId>,
    keys: Vec<OutboundKey>,
    /// Bytes still needed.
    live: u64,
}

/// Step that saves one record of a segment before the file is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Append the mail again.
    Mail(Place),
    /// Append the mail again, followed by its settlement.
    PassedOn(MailId, Place),
    /// Append the outbound mail again, followed by its last attempt.
    Outbound(Place, Option<Attempt>),
    /// Keep only the mail's id.
    RememberMail(MailId),
    /// Keep only the outbound mail's key.
    RememberKey(OutboundKey),
}

/// An outbound mail that is neither delivered nor failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Identity of the outbound mail.
    pub key: OutboundKey,
    /// When it was queued.
    pub queued_at: SystemTime,
    /// The last attempt; `None` if it was never tried.
    pub attempt: Option<Attempt>,
}

/// All mails and outbound mails in the journal, with the bytes that each segment still needs.
#[derive(Debug, Default)]
pub struct Index {
    max_remembered: usize,
    mails: HashMap<MailId, Mail>,
    outbound: HashMap<OutboundKey, Outbound>,
    unsettled: BTreeSet<(SystemTime, MailId)>,
    pending: BTreeSet<(SystemTime, OutboundKey)>,
    arrivals: HashMap<MailId, (SystemTime, Arrival)>,
    segments: BTreeMap<u64, Contents>,
    remembered_mails: VecDeque<MailId>,
    remembered_keys: VecDeque<OutboundKey>,
}

impl Index {
    /// An empty index that remembers at most this many mails, and as many outbound mails, whose files are gone.
    pub fn new(max_remembered: usize) -> Self {
        Self { max_remembered, ..Self::default() }
    }

    /// Applies a record found or written at `place`. Records come in journal order. A record that comes twice,
    /// because it was appended again and its old file was not deleted, changes only its place.
    pub fn apply(&mut self, note: Note, place: Place) {
        match note {
            Note::Accepted(at, arrival) => {
                let id = arrival.id;
                let settled = self.mails.get(&id).is_some_and(|known| known.settled);
                let passed_on = self.is_pending(&OutboundKey::answering(id, OutboundKind::Forward));
                self.set_mail(id, Some(Mail { home: Home::Record(place), settled, passed_on }));
                if !settled && !self.arrivals.contains_key(&id) {
                    self.arrivals.insert(id, (at, arrival));
                    self.unsettled.insert((at, id));
                }
            }
            Note::Settled(id) => {
                if let Some(mail) = self.mails.get(&id).copied() {
                    self.set_mail(id, Some(Mail { settled: true, ..mail }));
                }
                self.no_longer_unsettled(&id);
            }
            Note::Queued(at, key) => {
                let known = self.outbound.get(&key).cloned();
                let known =
                    known.unwrap_or(Outbound { home: Home::Record(place), queued_at: at, attempt: None });
                let open = !known.finished();
                if open {
                    self.pending.insert((known.queued_at, key));
                }
                self.set_outbound(key, Some(Outbound { home: Home::Record(place), ..known }));
                self.set_passed_on(key, open);
            }
            Note::Attempted(attempt) => {
                let key = attempt.key;
                if let Some(known) = self.outbound.get(&key).cloned() {
                    let tried = Outbound { attempt: Some(attempt), ..known };
                    let open = !tried.finished();
                    if !open {
                        self.pending.remove(&(tried.queued_at, key));
                    }
                    self.set_outbound(key, Some(tried));
                    self.set_passed_on(key, open);
                }
            }
            Note::Remembered(mails, keys) => {
                mails.into_iter().for_each(|id| self.remember_mail(id, place.segment));
                keys.into_iter().for_each(|key| self.remember_key(key, place.segment));
            }
        }
    }

    fn no_longer_unsettled(&mut self, id: &MailId) {
        if let Some((at, _)) = self.arrivals.remove(id) {
            self.unsettled.remove(&(at, *id));
        }
    }

    /// Marks the mail of a forward as needed while the forward is open.
    fn set_passed_on(&mut self, key: OutboundKey, open: bool) {
        if let Some(id) = key.forwarded()
            && let Some(mail) = self.mails.get(&id).copied()
        {
            self.set_mail(id, Some(Mail { passed_on: open, ..mail }));
        }
    }

    fn set_mail(&mut self, id: MailId, mail: Option<Mail>) {
        let new = mail.map(|mail| mail.live());
        let old = match mail {
            Some(mail) => self.mails.insert(id, mail),
            None => self.mails.remove(&id),
        };
        if let Some(contents) = self.count(old.map(|old| old.live()), new) {
            contents.mails.push(id);
        }
    }

    fn set_outbound(&mut self, key: OutboundKey, outbound: Option<Outbound>) {
        let new = outbound.as_ref().map(Outbound::live);
        let old = match outbound {
            Some(outbound) => self.outbound.insert(key, outbound),
            None => self.outbound.remove(&key),
        };
        if let Some(contents) = self.count(old.map(|old| old.live()), new) {
            contents.keys.push(key);
        }
    }

    /// Moves needed bytes from one segment to another. Returns the contents of the new segment if the mail is new to
    /// it.
    fn count(&mut self, old: Option<Live>, new: Option<Live>) -> Option<&mut Contents> {
        if let Some((segment, bytes)) = old
            && let Some(contents) = self.segments.get_mut(&segment)
        {
            contents.live = contents.live.saturating_sub(bytes);
        }
        let (segment, bytes) = new?;
        let contents = self.segments.entry(segment).or_default();
        contents.live = contents.live.saturating_add(bytes);
        (old.map(|(segment, _)| segment) != Some(segment)).then_some(contents)
    }

    /// Whether the mail was accepted before.
    pub fn knows(&self, id: &MailId) -> bool {
        self.mails.contains_key(id)
    }

    /// Whether the outbound mail was queued before.
    pub fn knows_outbound(&self, key: &OutboundKey) -> bool {
        self.outbound.contains_key(key)
    }

    /// Whether the mail is accepted and not settled.
    pub fn is_unsettled(&self, id: &MailId) -> bool {
        self.arrivals.contains_key(id)
    }

    /// What the window needs to know of an unsettled mail.
    pub fn arrival(&self, id: &MailId) -> Option<Arrival> {
        self.arrivals.get(id).map(|(_, arrival)| *arrival)
    }

    /// Whether the outbound mail is known with its text, and is neither delivered nor failed.
    fn is_pending(&self, key: &OutboundKey) -> bool {
        self.outbound.get(key).is_some_and(|outbound| outbound.home.place().is_some() && !outbound.finished())
    }

    /// Last attempt to send; `None` if there was none.
    pub fn attempt(&self, key: &OutboundKey) -> Option<&Attempt> {
        self.outbound.get(key)?.attempt.as_ref()
    }

    /// Location of the mail; `None` once its file is deleted.
    pub fn mail(&self, id: &MailId) -> Option<Place> {
        self.mails.get(id)?.home.place()
    }

    /// Location of the outbound mail; `None` once its file is deleted.
    pub fn outbound(&self, key: &OutboundKey) -> Option<Place> {
        self.outbound.get(key)?.home.place()
    }

    /// Unsettled mails, oldest first, each with the kinds of outbound mail on disk for it.
    pub fn unsettled(&self) -> impl Iterator<Item = (Arrival, Vec<OutboundKind>)> {
        self.unsettled.iter().filter_map(|&(_, id)| {
            let kinds = [OutboundKind::Answer, OutboundKind::Forward];
            Some((
                self.arrival(&id)?,
                kinds
                    .into_iter()
                    .filter(|&kind| self.knows_outbound(&OutboundKey::answering(id, kind)))
                    .collect(),
            ))
        })
    }

    /// Number of unsettled mails.
    pub fn unsettled_count(&self) -> usize {
        self.unsettled.len()
    }

    /// Outbound mails that are neither delivered nor failed, oldest first.
    pub fn pending(&self) -> impl Iterator<Item = Pending> {
        self.pending.iter().map(|&(queued_at, key)| Pending {
            key,
            queued_at,
            attempt: self.attempt(&key).cloned(),
        })
    }

    /// Bytes of this segment that are still needed: unsettled mails, unfinished outbound mails, identities.
    pub fn live_bytes(&self, segment: u64) -> u64 {
        self.segments.get(&segment).map_or(0, |contents| contents.live)
    }

    /// Steps for at most `count` records of a segment, beginning at record number `from`; each step comes with its
    /// record's number. Also returns the number to continue at, `None` at the end.
    pub fn moves(&self, segment: u64, from: usize, count: usize) -> (Vec<(usize, Move)>, Option<usize>) {
        let Some(Contents { mails, keys, .. }) = self.segments.get(&segment) else {
            return (Vec::new(), None);
        };
        let there = |home: &Home| home.segment() == segment;
        let of_mails = mails.iter().enumerate().skip(from).map(|(number, id)| {
            let mail = self.mails.get(id).filter(|mail| there(&mail.home))?;
            Some(match mail.home.place() {
                Some(place) if !mail.settled => (number, Move::Mail(place)),
                Some(place) if mail.passed_on => (number, Move::PassedOn(*id, place)),
                _ => (number, Move::RememberMail(*id)),
            })
        });
        let skipped = from.saturating_sub(mails.len());
        let of_keys = keys.iter().enumerate().skip(skipped).map(|(number, key)| {
            let number = mails.len().saturating_add(number);
            let outbound = self.outbound.get(key).filter(|outbound| there(&outbound.home))?;
            Some(match outbound.home.place().filter(|_| !outbound.finished()) {
                Some(place) => (number, Move::Outbound(place, outbound.attempt.clone())),
                None => (number, Move::RememberKey(*key)),
            })
        });
        let moves = of_mails.chain(of_keys).take(count).flatten().collect();
        let next = from.saturating_add(count);
        (moves, (next < mails.len().saturating_add(keys.len())).then_some(next))
    }

    /// Drops a segment whose file is deleted.
    pub fn forget_segment(&mut self, segment: u64) {
        self.segments.remove(&segment);
    }

    /// Keeps only the id of a settled mail whose file is deleted, as a record in `segment`; beyond the bound, the
    /// oldest id is forgotten.
    fn remember_mail(&mut self, id: MailId, segment: u64) {
        let known = self.mails.get(&id).is_some_and(|mail| mail.home.place().is_none());
        self.set_mail(id, Some(Mail { home: Home::Remembered(segment), settled: true, passed_on: false }));
        self.no_longer_unsettled(&id);
        if !known {
            self.remembered_mails.push_back(id);
        }
        while self.remembered_mails.len() > self.max_remembered
            && let Some(id) = self.remembered_mails.pop_front()
        {
            self.set_mail(id, None);
        }
    }

    /// Keeps only the key of a finished outbound mail, in the same way.
    fn remember_key(&mut self, key: OutboundKey, segment: u64) {
        let known = self.outbound.get(&key).cloned();
        if known.as_ref().is_none_or(|outbound| outbound.home.place().is_some()) {
            self.remembered_keys.push_back(key);
        }
        let (queued_at, attempt) =
            known.map_or((SystemTime::UNIX_EPOCH, None), |outbound| (outbound.queued_at, outbound.attempt));
        self.pending.remove(&(queued_at, key));
        self.set_outbound(key, Some(Outbound { home: Home::Remembered(segment), queued_at, attempt }));
        while self.remembered_keys.len() > self.max_remembered
            && let Some(key) = self.remembered_keys.pop_front()
        {
            self.set_outbound(key, None);
        }
    }
}
