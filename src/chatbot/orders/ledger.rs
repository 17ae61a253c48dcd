// SPDX-License-Identifier: Apache-2.0
//! Decides when orders are recorded on the evidence ledger (`authenticator/record`). Pure.
//!
//! An order is published first and recorded then. It is recorded again, with longer and longer pauses and also after a
//! restart, until the authenticator answers that it is on its disk. To record an order twice is harmless: the ledger
//! takes it once.
//!
//! Asking the authenticator, and writing to disk what it answered, is left to the node.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use evidence::{EntryError, Kind, Source, digest_of};
use settings::BackOff;
use vehicle::signed_bytes;

use super::{Book, Entry, Orders};

/// Most orders recorded in one request.
const MAX_ASKED: usize = 256;
/// Most orders that wait for the ledger. Further ones wait on disk, until the next start.
const MAX_WAITING: usize = 4096;
/// Pauses after a request that failed.
const BACK_OFF: BackOff = BackOff { min: Duration::from_secs(1), max: Duration::from_secs(60) };

/// The orders that wait for the ledger.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    waiting: VecDeque<Entry>,
    /// How many of these, from the first on, are in the request under way; 0 if there is none.
    asked: usize,
    /// Requests that failed in a row.
    failures: u32,
    /// When to ask, at the start and after a failure.
    next: Option<Instant>,
    overflowed: u64,
}

impl Ledger {
    /// The orders on disk that are not on the ledger; they are due at once.
    pub(super) fn of(book: &Book, now: Instant) -> Self {
        let mut ledger = Self::default();
        book.entries().for_each(|entry| ledger.put(entry));
        ledger.next = (!ledger.waiting.is_empty()).then_some(now);
        ledger
    }

    /// Has an order wait, unless it is on the ledger or waits already.
    pub(super) fn put(&mut self, entry: &Entry) {
        if entry.on_ledger || self.waiting.iter().any(|waiting| is_same(waiting, entry)) {
            return;
        }
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(entry.clone());
        } else {
            self.overflowed += 1;
        }
    }

    /// When to ask, if that is not at the next chance.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Whether the last request was answered.
    pub(super) fn is_answered(&self) -> bool {
        self.failures == 0
    }
}

impl Orders {
    /// The orders to record now, oldest first; empty if there are none, a request is under way, or it is too early.
    /// Then call [`Orders::recorded`] with the answer.
    pub fn begin_recording(&mut self, now: Instant) -> Vec<Entry> {
        let ledger = &mut self.ledger;
        if ledger.asked > 0 || ledger.next.is_some_and(|next| now < next) {
            return Vec::new();
        }
        ledger.next = None;
        let orders: Vec<_> = ledger.waiting.iter().take(MAX_ASKED).cloned().collect();
        ledger.asked = orders.len();
        orders
    }

    /// Handles the answer to the request under way: whether its orders are on the ledger's disk. Returns what must be
    /// written to ours.
    pub fn recorded(&mut self, on_ledger: bool, now: Instant) -> Vec<Entry> {
        let asked = std::mem::take(&mut self.ledger.asked);
        if !on_ledger {
            self.ledger.failures = self.ledger.failures.saturating_add(1);
            self.ledger.next = now.checked_add(BACK_OFF.delay(self.ledger.failures));
            return Vec::new();
        }
        self.ledger.failures = 0;
        let mut changed = Vec::new();
        for order in self.ledger.waiting.drain(..asked.min(self.ledger.waiting.len())) {
            // The book may have forgotten it, or have another copy of it by now.
            let known = self.book.find(&order.vehicle, &order.command_id);
            if let Some(known) = known.filter(|known| is_same(known, &order)) {
                let known = Entry { on_ledger: true, ..known.clone() };
                self.book.put(known.clone());
                changed.push(known);
            }
        }
        changed
    }
}

/// Whether two entries are of the same `VehicleCommand`. A copy of a mail with other unsigned fields is the same order,
/// but another proof of it.
fn is_same(one: &Entry, other: &Entry) -> bool {
    one.command_id == other.command_id && one.mail_id == other.mail_id
}

/// The order as an entry of the ledger: its facts are the bytes that its signature covers.
///
/// # Errors
/// None is expected: the one kind that is refused is the authenticator's.
pub fn statement(entry: &Entry, source: &Source) -> Result<evidence::Entry, EntryError> {
    let digest = digest_of(&signed_bytes(&entry.order()));
    evidence::Entry::new(Kind::ORDER, source.clone(), entry.command_id, digest)
}
