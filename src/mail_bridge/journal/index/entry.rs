// SPDX-License-Identifier: Apache-2.0
//! What the index keeps of a mail, an outbound mail and a segment, and how it names them in little memory.

use std::{num::NonZeroU32, ops::RangeInclusive, time::SystemTime};

use mail::MailId;
use record_log::HEAD_BYTES;

use crate::journal::record::{Attempt, OutboundKey};

/// Location of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    segment: u32,
    /// Not zero, because a segment begins with a header.
    offset: NonZeroU32,
    bytes: u32,
}

impl Place {
    /// The place of a record of so many bytes, at this offset of the segment with this number.
    ///
    /// A segment ends soon after 1 GiB (`journal_segment_bytes`). If an offset did not fit, it would saturate, and
    /// reading there would find damage.
    pub fn new(segment: u32, offset: u64, bytes: usize) -> Self {
        let offset = u32::try_from(offset).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
        Self { segment, offset, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) }
    }

    /// Number of the segment.
    pub fn segment(self) -> u32 {
        self.segment
    }

    /// Offset of the record in its segment, bytes.
    pub fn offset(self) -> u64 {
        self.offset.get().into()
    }

    /// Length of the record, bytes.
    pub fn bytes(self) -> u64 {
        self.bytes.into()
    }
}

/// The record from which a mail is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Home {
    /// Its own record.
    Record(Place),
    /// A `Remembered` record in this segment.
    Remembered(u32),
}

impl Home {
    pub(super) fn segment(self) -> u32 {
        match self {
            Self::Record(place) => place.segment,
            Self::Remembered(segment) => segment,
        }
    }

    pub(super) fn place(self) -> Option<Place> {
        match self {
            Self::Record(place) => Some(place),
            Self::Remembered(_) => None,
        }
    }

    /// Bytes of its segment that this mail still needs.
    pub(super) fn live(self, needed: bool, identity: usize) -> Live {
        let bytes = match self {
            Self::Record(place) if needed => HEAD_BYTES.saturating_add(place.bytes()),
            Self::Record(_) => 0,
            Self::Remembered(_) => identity as u64,
        };
        (self.segment(), bytes)
    }
}

/// A segment, and a number of bytes in it.
pub(super) type Live = (u32, u64);

#[derive(Clone, Copy, Debug)]
pub(super) struct Mail {
    pub(super) home: Home,
    pub(super) settled: bool,
    /// An unfinished forward will attach this mail, so its bytes are needed even if it is settled.
    pub(super) passed_on: bool,
}

impl Mail {
    pub(super) fn live(&self) -> Live {
        self.home.live(!self.settled || self.passed_on, size_of::<MailId>())
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Outbound {
    pub(super) home: Home,
    /// The attempt that delivered it or failed for good; `None` until then.
    pub(super) last: Option<Place>,
}

impl Outbound {
    pub(super) fn finished(&self) -> bool {
        self.last.is_some()
    }

    pub(super) fn live(&self) -> Live {
        self.home.live(!self.finished(), size_of::<OutboundKey>())
    }
}

/// What is known of an outbound mail until it is finished.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) queued_at: SystemTime,
    /// Last attempt; `None` if it was never tried.
    pub(super) attempt: Option<Attempt>,
}

/// The first bytes of an identity, a quarter of its size: enough for a list whose entries are looked up in the index.
/// Few identities begin alike, since they are digests; those that do are found together, so whoever looks one up MUST
/// cope with the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix([u8; 8]);

impl Prefix {
    pub(super) fn of([a, b, c, d, e, f, g, h, ..]: &[u8; 32]) -> Self {
        Self([*a, *b, *c, *d, *e, *f, *g, *h])
    }

    /// The lowest and the highest digest that begin like this.
    pub(super) fn bounds(self) -> [[u8; 32]; 2] {
        [u8::MIN, u8::MAX].map(|rest| {
            let mut digest = [rest; 32];
            digest.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
            digest
        })
    }

    pub(super) fn mails(self) -> RangeInclusive<MailId> {
        let [lowest, highest] = self.bounds().map(MailId::from_bytes);
        lowest..=highest
    }

    pub(super) fn keys(self) -> RangeInclusive<OutboundKey> {
        let [lowest, highest] = self.bounds();
        OutboundKey::between(lowest, highest)
    }
}

/// The mails and outbound mails that have, or had, records in a segment, in the order of their records.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) mails: Vec<Prefix>,
    pub(super) keys: Vec<Prefix>,
    /// Bytes still needed.
    pub(super) live: u64,
}

impl Contents {
    /// Gives back spare room: hardly anything is added to a segment that is not the last.
    pub(super) fn no_longer_last(&mut self) {
        self.mails.shrink_to_fit();
        self.keys.shrink_to_fit();
    }
}
