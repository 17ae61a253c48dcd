// SPDX-License-Identifier: Apache-2.0
//! Remembers the orders given to each vehicle, as far as they matter. Pure.
//!
//! It keeps the newest order of a vehicle, against which older ones are judged, and some before it, so that a mail that
//! comes again is told the same. Writing it to disk is left to [`super::store`].

use std::collections::BTreeMap;

use super::Entry;

/// Most orders remembered for a vehicle. If an order before them comes again, its sender hears that a newer one was
/// given.
const MAX_ORDERS: usize = 16;
/// Most vehicles remembered, as many as vehicle_router can know (`VehicleStates.states`).
const MAX_VEHICLES: usize = 10_000;

/// The remembered orders of all vehicles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// Orders of each vehicle by precedence, the newest last. No list is empty.
    vehicles: BTreeMap<String, Vec<Entry>>,
}

impl Book {
    /// The order that holds for a vehicle.
    pub fn newest(&self, vehicle: &str) -> Option<&Entry> {
        self.vehicles.get(vehicle)?.last()
    }

    /// The order to a vehicle with this `command_id`.
    pub fn find(&self, vehicle: &str, command_id: &[u8; 32]) -> Option<&Entry> {
        self.vehicles.get(vehicle)?.iter().find(|entry| entry.command_id == *command_id)
    }

    /// Adds an order, or replaces what was known of it. Beyond the bounds, forgets the oldest.
    pub fn put(&mut self, entry: Entry) {
        let entries = self.vehicles.entry(entry.vehicle.clone()).or_default();
        entries.retain(|known| known.command_id != entry.command_id);
        let place = entries.partition_point(|known| known.precedence() <= entry.precedence());
        entries.insert(place, entry);
        if entries.len() > MAX_ORDERS {
            entries.remove(0);
        }
        if self.vehicles.len() > MAX_VEHICLES {
            let age = |entries: &[Entry]| entries.last().map(Entry::precedence);
            let oldest = self.vehicles.iter().min_by_key(|(_, entries)| age(entries));
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.vehicles.remove(&name);
            }
        }
    }

    /// All remembered orders; putting them into an empty book in this sequence gives an equal book.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.vehicles.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{super::State, *};
    use mail::MailId;
    use vehicle::Command;

    fn entry(vehicle: &str, number: u8, command: Command, second: u64) -> Entry {
        Entry {
            state: State::Sent,
            command,
            ordered_at: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            command_id: [number; 32],
            mail_id: MailId::from_bytes([number; 32]),
            vehicle: vehicle.into(),
            ordered_by: String::new(),
            message_id: String::new(),
            reason: String::new(),
            on_ledger: false,
        }
    }

    #[test]
    fn the_newest_is_the_latest_given_and_a_stop_at_the_same_moment() {
        let mut book = Book::default();
        for (number, command, second) in
            [(1, Command::Stop, 5), (2, Command::Resume, 5), (3, Command::Resume, 4)]
        {
            book.put(entry("a", number, command, second));
        }
        assert_eq!(book.newest("a").map(|entry| entry.command_id), Some([1; 32]));
        book.put(Entry { state: State::Accepted, ..entry("a", 3, Command::Resume, 4) });
        assert_eq!(book.find("a", &[3; 32]).map(|entry| entry.state), Some(State::Accepted));
        assert_eq!((book.entries().count(), book.find("b", &[3; 32])), (3, None));
    }

    #[test]
    fn forgets_the_oldest_beyond_its_bounds_and_never_the_newest_of_a_vehicle() {
        let mut book = Book::default();
        book.put(entry("a", 0, Command::Stop, 100));
        for number in 1..=40 {
            book.put(entry("a", number, Command::Resume, number.into()));
        }
        assert_eq!(book.entries().count(), MAX_ORDERS);
        assert_eq!(book.newest("a").map(|entry| entry.command), Some(Command::Stop));
        for vehicle in 0..MAX_VEHICLES {
            book.put(entry(&format!("b{vehicle}"), 1, Command::Stop, 101));
        }
        assert_eq!((book.vehicles.len(), book.newest("a")), (MAX_VEHICLES, None));
    }
}
