//! What the journal knows without reading a file: where each mail is and how far. Pure.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::SystemTime,
};

use super::record::{Attempt, OutboundKey, Record, SendState};
use crate::{
    mail::{MailId, OutboundKind},
    mail_bridge::core::Arrival,
};

/// Where the bytes of a record are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the segment.
    pub segment: u64,
    /// Offset of the record in it, bytes.
    pub offset: u64,
    /// Length of the record, bytes.
    pub bytes: usize,
}

#[derive(Clone, Debug)]
struct Mail {
    /// `None`: only remembered.
    place: Option<Place>,
    settled: bool,
}

#[derive(Clone, Debug)]
struct Outbound {
    place: Option<Place>,
    queued_at: SystemTime,
    /// Last attempt; `None`: not tried.
    attempt: Option<Attempt>,
}

impl Outbound {
    fn finished(&self) -> bool {
        self.attempt
            .as_ref()
            .is_some_and(|last| matches!(last.state, SendState::Delivered | SendState::Failed))
    }
}

/// An outbound mail that is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its key.
    pub key: OutboundKey,
    /// When it was queued.
    pub queued_at: SystemTime,
    /// The last attempt, if any.
    pub attempt: Option<Attempt>,
}

/// The index.
#[derive(Debug, Default)]
pub struct Index {
    max_remembered: usize,
    mails: HashMap<MailId, Mail>,
    outbound: HashMap<OutboundKey, Outbound>,
    unsettled: BTreeSet<(SystemTime, MailId)>,
    pending: BTreeSet<(SystemTime, OutboundKey)>,
    arrivals: HashMap<MailId, (SystemTime, Arrival)>,
    remembered_mails: VecDeque<MailId>,
    remembered_keys: VecDeque<OutboundKey>,
}

impl Index {
    /// An empty index that remembers at most so many mails, and as many outbound mails, without a file.
    pub fn new(max_remembered: usize) -> Self {
        Self { max_remembered, ..Self::default() }
    }

    /// Takes note of a record at this place. Records come in the order of the journal; one that comes again, because
    /// it was appended anew and its old file was not deleted, changes nothing but its place.
    pub fn apply(&mut self, record: &Record, place: Place) {
        match record {
            Record::Accepted(mail) => {
                let known = self.mails.entry(mail.id).or_insert(Mail { place: None, settled: false });
                known.place = Some(place);
                if !known.settled && !self.arrivals.contains_key(&mail.id) {
                    self.arrivals.insert(mail.id, (mail.received_at, Arrival::of(mail)));
                    self.unsettled.insert((mail.received_at, mail.id));
                }
            }
            Record::Settled(disposition) => {
                if let Some(mail) = self.mails.get_mut(&disposition.mail_id) {
                    mail.settled = true;
                }
                if let Some((at, _)) = self.arrivals.remove(&disposition.mail_id) {
                    self.unsettled.remove(&(at, disposition.mail_id));
                }
            }
            Record::Queued(at, mail) => {
                let key = OutboundKey::of(mail);
                let outbound = self.outbound.entry(key).or_insert(Outbound {
                    place: None,
                    queued_at: *at,
                    attempt: None,
                });
                outbound.place = Some(place);
                if !outbound.finished() {
                    self.pending.insert((outbound.queued_at, key));
                }
            }
            Record::Attempted(attempt) => {
                if let Some(outbound) = self.outbound.get_mut(&attempt.key) {
                    outbound.attempt = Some(attempt.clone());
                    if outbound.finished() {
                        self.pending.remove(&(outbound.queued_at, attempt.key));
                    }
                }
            }
            Record::Remembered(mails, keys) => {
                mails.iter().for_each(|id| self.remember_mail(*id));
                keys.iter().for_each(|key| self.remember_key(*key));
            }
        }
    }

    /// Whether the mail was accepted before.
    pub fn knows(&self, id: &MailId) -> bool {
        self.mails.contains_key(id)
    }

    /// Whether the outbound mail was queued before.
    pub fn knows_outbound(&self, key: &OutboundKey) -> bool {
        self.outbound.contains_key(key)
    }

    /// Whether the mail waits for its settlement.
    pub fn is_unsettled(&self, id: &MailId) -> bool {
        self.arrivals.contains_key(id)
    }

    /// What the window must know of an unsettled mail.
    pub fn arrival(&self, id: &MailId) -> Option<Arrival> {
        self.arrivals.get(id).map(|(_, arrival)| *arrival)
    }

    /// Whether the outbound mail is neither delivered nor failed.
    pub fn is_pending(&self, key: &OutboundKey) -> bool {
        self.outbound.get(key).is_some_and(|outbound| outbound.place.is_some() && !outbound.finished())
    }

    /// Whether a forward that is not finished passes the mail on: its bytes are needed though it is settled.
    pub fn is_passed_on(&self, id: &MailId) -> bool {
        self.is_pending(&OutboundKey::answering(*id, OutboundKind::Forward))
    }

    /// Last attempt to send, if any.
    pub fn attempt(&self, key: &OutboundKey) -> Option<&Attempt> {
        self.outbound.get(key)?.attempt.as_ref()
    }

    /// Where the mail is, unless its file is gone.
    pub fn mail(&self, id: &MailId) -> Option<Place> {
        self.mails.get(id)?.place
    }

    /// Where the outbound mail is, unless its file is gone.
    pub fn outbound(&self, key: &OutboundKey) -> Option<Place> {
        self.outbound.get(key)?.place
    }

    /// Unsettled mails, the oldest first, with the kinds of outbound mails on disk for each.
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

    /// Outbound mails that are not finished, the oldest first.
    pub fn pending(&self) -> impl Iterator<Item = Pending> {
        self.pending.iter().map(|&(queued_at, key)| Pending {
            key,
            queued_at,
            attempt: self.attempt(&key).cloned(),
        })
    }

    /// Bytes in this segment that are still needed.
    pub fn live_bytes(&self, segment: u64) -> u64 {
        let mails = self.unsettled.iter().filter_map(|(_, id)| self.mail(id));
        let outbound = self.pending.iter().filter_map(|(_, key)| self.outbound(key));
        let passed_on = self
            .pending
            .iter()
            .filter_map(|(_, key)| key.forwarded().filter(|id| !self.is_unsettled(id)))
            .filter_map(|id| self.mail(&id));
        mails
            .chain(outbound)
            .chain(passed_on)
            .filter(|place| place.segment == segment)
            .map(|place| place.bytes as u64)
            .sum()
    }

    /// A settled mail whose file goes: only its id is kept, and the oldest such id is forgotten beyond the bound.
    pub fn remember_mail(&mut self, id: MailId) {
        let known = self.mails.insert(id, Mail { place: None, settled: true });
        if known.is_none_or(|mail| mail.place.is_some()) {
            self.remembered_mails.push_back(id);
        }
        while self.remembered_mails.len() > self.max_remembered
            && let Some(id) = self.remembered_mails.pop_front()
        {
            self.mails.remove(&id);
        }
    }

    /// The same for a finished outbound mail.
    pub fn remember_key(&mut self, key: OutboundKey) {
        let known = self.outbound.get_mut(&key).map(|outbound| outbound.place.take().is_some());
        if known.is_none() {
            let outbound = Outbound { place: None, queued_at: SystemTime::UNIX_EPOCH, attempt: None };
            self.outbound.insert(key, outbound);
        }
        if known != Some(false) {
            self.remembered_keys.push_back(key);
        }
        while self.remembered_keys.len() > self.max_remembered
            && let Some(key) = self.remembered_keys.pop_front()
        {
            self.outbound.remove(&key);
        }
    }

    /// Whether only the id of the mail is kept.
    pub fn is_remembered(&self, id: &MailId) -> bool {
        self.mails.get(id).is_some_and(|mail| mail.place.is_none())
    }

    /// Whether only the key of the outbound mail is kept.
    pub fn is_remembered_key(&self, key: &OutboundKey) -> bool {
        self.outbound.get(key).is_some_and(|outbound| outbound.place.is_none())
    }
}
