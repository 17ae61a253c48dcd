// SPDX-License-Identifier: Apache-2.0
//! The journal's index in memory: where each mail is on disk, and which state it is in. Pure.
//!
//! Most of what it holds is finished, so that is kept small: each identity once and its places, in B-trees, which
//! grow a few entries at a time where a hash table doubles. A mail that was received, answered and settled takes less
//! than 200 bytes. What only unfinished mails need is in maps of its own; the rest is read from disk.

mod entry;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::SystemTime,
};

use mail::{Disposition, MailId, OutboundKind};

pub use self::entry::Place;
use self::entry::{Contents, Home, Live, Mail, Open, Outbound, Prefix};
use super::record::{Attempt, OutboundKey, Record, Remembered, SendState};
use crate::window::{Arrival, Unsettled};

/// The part of a record that the index keeps.
#[derive(Clone, Debug)]
pub enum Note {
    /// Of a mail: when it was received, and what the window needs.
    Accepted(SystemTime, Arrival),
    /// Of a disposition.
    Disposed(Disposition),
    /// Of a settlement.
    Settled(MailId),
    /// Of an outbound mail: when it was queued, and its key.
    Queued(SystemTime, OutboundKey),
    /// Of an attempt to send.
    Attempted(Attempt),
    /// Of remembered identities.
    Remembered(Remembered),
}

impl From<&Record> for Note {
    fn from(record: &Record) -> Self {
        match record {
            Record::Accepted(mail) => Self::Accepted(mail.received_at, Arrival::of(mail)),
            Record::Disposed(disposition) => Self::Disposed(disposition.clone()),
            Record::Settled(id) => Self::Settled(*id),
            Record::Queued(queued) => Self::Queued(queued.at, OutboundKey::of(&queued.mail)),
            Record::Attempted(attempt) => Self::Attempted(attempt.clone()),
            Record::Remembered(remembered) => Self::Remembered(remembered.clone()),
        }
    }
}

/// Step that saves one record of a segment before the file is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Append the mail again, followed by its dispositions so far.
    Mail(Place, Vec<Disposition>),
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
    mails: BTreeMap<MailId, Mail>,
    outbound: BTreeMap<OutboundKey, Outbound>,
    unsettled: BTreeSet<(SystemTime, MailId)>,
    arrivals: BTreeMap<MailId, (SystemTime, Arrival)>,
    /// Dispositions of unsettled mails.
    disposed: BTreeMap<MailId, Vec<Disposition>>,
    pending: BTreeSet<(SystemTime, OutboundKey)>,
    /// Of each pending outbound mail.
    open: BTreeMap<OutboundKey, Open>,
    segments: BTreeMap<u32, Contents>,
    /// What to forget first, oldest first.
    remembered_mails: VecDeque<Prefix>,
    remembered_keys: VecDeque<Prefix>,
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
                let passed_on = self.open.contains_key(&OutboundKey::answering(id, OutboundKind::Forward));
                self.set_mail(id, Some(Mail { home: Home::Record(place), settled, passed_on }));
                if !settled && !self.arrivals.contains_key(&id) {
                    self.arrivals.insert(id, (at, arrival));
                    self.unsettled.insert((at, id));
                }
            }
            Note::Disposed(disposition) => {
                if let Some((_, arrival)) = self.arrivals.get_mut(&disposition.mail_id)
                    && arrival.consumers.contains(&disposition.consumer)
                {
                    arrival.consumers.retain(|consumer| *consumer != disposition.consumer);
                    self.disposed.entry(disposition.mail_id).or_default().push(disposition);
                }
            }
            Note::Settled(id) => {
                if let Some(mail) = self.mails.get(&id).copied() {
                    self.set_mail(id, Some(Mail { settled: true, ..mail }));
                }
                self.no_longer_unsettled(&id);
            }
            Note::Queued(at, key) => {
                let last = self.outbound.get(&key).and_then(|known| known.last);
                if last.is_none() {
                    let open = self.open.entry(key).or_insert(Open { queued_at: at, attempt: None });
                    self.pending.insert((open.queued_at, key));
                }
                self.set_outbound(key, Some(Outbound { home: Home::Record(place), last }));
                self.set_passed_on(key, last.is_none());
            }
            Note::Attempted(attempt) => {
                let key = attempt.key;
                if !matches!(attempt.state, SendState::Delivered | SendState::Failed) {
                    self.open.entry(key).and_modify(|open| open.attempt = Some(attempt));
                } else if let Some(known) = self.outbound.get(&key).copied() {
                    self.no_longer_pending(&key);
                    self.set_outbound(key, Some(Outbound { last: Some(place), ..known }));
                    self.set_passed_on(key, false);
                }
            }
            Note::Remembered(Remembered { mails, keys }) => {
                mails.into_iter().for_each(|id| self.remember_mail(id, place.segment()));
                keys.into_iter().for_each(|key| self.remember_key(key, place.segment()));
            }
        }
    }

    fn no_longer_unsettled(&mut self, id: &MailId) {
        if let Some((at, _)) = self.arrivals.remove(id) {
            self.unsettled.remove(&(at, *id));
            self.disposed.remove(id);
        }
    }

    fn no_longer_pending(&mut self, key: &OutboundKey) {
        if let Some(open) = self.open.remove(key) {
            self.pending.remove(&(open.queued_at, *key));
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
            contents.mails.push(Prefix::of(id.as_bytes()));
        }
    }

    fn set_outbound(&mut self, key: OutboundKey, outbound: Option<Outbound>) {
        let new = outbound.as_ref().map(Outbound::live);
        let old = match outbound {
            Some(outbound) => self.outbound.insert(key, outbound),
            None => self.outbound.remove(&key),
        };
        if let Some(contents) = self.count(old.map(|old| old.live()), new) {
            contents.keys.push(Prefix::of(key.digest()));
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
        if !self.segments.contains_key(&segment) {
            self.segments.values_mut().next_back().into_iter().for_each(Contents::no_longer_last);
        }
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
    pub fn arrival(&self, id: &MailId) -> Option<&Arrival> {
        self.arrivals.get(id).map(|(_, arrival)| arrival)
    }

    /// Last attempt to send an outbound mail that is not finished; `None` if there was none.
    pub fn attempt(&self, key: &OutboundKey) -> Option<&Attempt> {
        self.open.get(key)?.attempt.as_ref()
    }

    /// Location of the attempt that finished an outbound mail; `None` if it is not finished or only remembered.
    pub fn last_attempt(&self, key: &OutboundKey) -> Option<Place> {
        self.outbound.get(key).filter(|outbound| outbound.home.place().is_some())?.last
    }

    /// Location of the mail; `None` once its file is deleted.
    pub fn mail(&self, id: &MailId) -> Option<Place> {
        self.mails.get(id)?.home.place()
    }

    /// Location of the outbound mail; `None` once its file is deleted.
    pub fn outbound(&self, key: &OutboundKey) -> Option<Place> {
        self.outbound.get(key)?.home.place()
    }

    /// Unsettled mails, oldest first.
    pub fn unsettled(&self) -> impl Iterator<Item = Unsettled> {
        self.unsettled.iter().filter_map(|&(_, id)| {
            let kinds = [OutboundKind::Answer, OutboundKind::Forward].into_iter();
            let is_stored = |kind: &OutboundKind| self.knows_outbound(&OutboundKey::answering(id, *kind));
            Some(Unsettled {
                arrival: self.arrival(&id)?.clone(),
                stored: kinds.filter(is_stored).collect(),
                disposed: self.disposed.contains_key(&id),
            })
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
    pub fn live_bytes(&self, segment: u32) -> u64 {
        self.segments.get(&segment).map_or(0, |contents| contents.live)
    }

    /// Steps for at most `count` records of a segment, beginning at record number `from`; each step comes with its
    /// record's number. Also returns the number to continue at, `None` at the end.
    pub fn moves(&self, segment: u32, from: usize, count: usize) -> (Vec<(usize, Move)>, Option<usize>) {
        let Some(Contents { mails, keys, .. }) = self.segments.get(&segment) else {
            return (Vec::new(), None);
        };
        let there = |home: &Home| home.segment() == segment;
        let of_mail = |(id, mail): (&MailId, &Mail)| match mail.home.place() {
            Some(place) if !mail.settled => {
                Move::Mail(place, self.disposed.get(id).cloned().unwrap_or_default())
            }
            Some(place) if mail.passed_on => Move::PassedOn(*id, place),
            _ => Move::RememberMail(*id),
        };
        let of_key = |(key, outbound): (&OutboundKey, &Outbound)| match outbound.home.place() {
            Some(place) if !outbound.finished() => Move::Outbound(place, self.attempt(key).cloned()),
            _ => Move::RememberKey(*key),
        };
        let listed = mails.iter().map(|mail| (Some(mail), None));
        let listed = listed.chain(keys.iter().map(|key| (None, Some(key))));
        let mut moves = Vec::new();
        for (number, (mail, key)) in listed.enumerate().skip(from).take(count) {
            let alike = mail.into_iter().flat_map(|mail| self.mails.range(mail.mails()));
            let here = alike.filter(|(_, mail)| there(&mail.home));
            moves.extend(here.map(|entry| (number, of_mail(entry))));
            let alike = key.into_iter().flat_map(|key| self.outbound.range(key.keys()));
            let here = alike.filter(|(_, outbound)| there(&outbound.home));
            moves.extend(here.map(|entry| (number, of_key(entry))));
        }
        let next = from.saturating_add(count);
        (moves, (next < mails.len().saturating_add(keys.len())).then_some(next))
    }

    /// Drops a segment whose file is deleted.
    pub fn forget_segment(&mut self, segment: u32) {
        self.segments.remove(&segment);
    }

    /// Keeps only the id of a settled mail whose file is deleted, as a record in `segment`; beyond the bound, the
    /// oldest id is forgotten.
    fn remember_mail(&mut self, id: MailId, segment: u32) {
        let known = self.mails.get(&id).is_some_and(|mail| mail.home.place().is_none());
        self.set_mail(id, Some(Mail { home: Home::Remembered(segment), settled: true, passed_on: false }));
        self.no_longer_unsettled(&id);
        if !known {
            self.remembered_mails.push_back(Prefix::of(id.as_bytes()));
        }
        while self.remembered_mails.len() > self.max_remembered
            && let Some(oldest) = self.remembered_mails.pop_front()
        {
            let mut alike = self.mails.range(oldest.mails());
            if let Some((&id, _)) = alike.find(|(_, mail)| mail.home.place().is_none()) {
                self.set_mail(id, None);
            }
        }
    }

    /// Keeps only the key of a finished outbound mail, in the same way.
    fn remember_key(&mut self, key: OutboundKey, segment: u32) {
        let known = self.outbound.get(&key).is_some_and(|outbound| outbound.home.place().is_none());
        self.no_longer_pending(&key);
        self.set_outbound(key, Some(Outbound { home: Home::Remembered(segment), last: None }));
        if !known {
            self.remembered_keys.push_back(Prefix::of(key.digest()));
        }
        while self.remembered_keys.len() > self.max_remembered
            && let Some(oldest) = self.remembered_keys.pop_front()
        {
            let mut alike = self.outbound.range(oldest.keys());
            if let Some((&key, _)) = alike.find(|(_, outbound)| outbound.home.place().is_none()) {
                self.set_outbound(key, None);
            }
        }
    }
}

#[cfg(test)]
mod tests;
