// SPDX-License-Identifier: Apache-2.0
//! Counts chatbot's work, and builds its diagnostics: mails in flight, vehicle_router's answers, and orders.
//!
//! It never admits more mails than its capacity. Publishing the statuses is left to the node.

use std::sync::Arc;

use health::{Level, Status};
use mail::Action;

use super::core::{Effect, Unavailable};

/// Room for one mail. Dropping it gives the room back, so that work which panics gives it back too.
#[derive(Debug)]
pub struct Slot {
    _held: Arc<()>,
}

/// The work of one replica since it started.
#[derive(Debug)]
pub struct Work {
    /// Each [`Slot`] holds one more reference.
    slots: Arc<()>,
    capacity: u32,
    settled: [u64; ACTIONS.len()],
    retried: u64,
    /// Failures of vehicle_router in a row; `None` if it was never asked.
    unavailable: Option<u64>,
    orders: Option<Status>,
}

const ACTIONS: [(Action, &str); 5] = [
    (Action::Answered, "answered"),
    (Action::Ordered, "ordered"),
    (Action::Forwarded, "forwarded"),
    (Action::Ignored, "ignored"),
    (Action::Rejected, "rejected"),
];

impl Work {
    /// Starts with no work done.
    pub fn new(capacity: u32) -> Self {
        Self {
            slots: Arc::default(),
            capacity,
            settled: [0; ACTIONS.len()],
            retried: 0,
            unavailable: None,
            orders: None,
        }
    }

    /// Admits a mail if there is room; hold the slot as long as the work on it lasts. Leave a mail without a slot: it
    /// will be delivered again.
    pub fn begin(&mut self) -> Option<Slot> {
        (self.in_flight() < self.capacity).then(|| Slot { _held: Arc::clone(&self.slots) })
    }

    /// Counts an effect that the node is about to carry out.
    pub fn count(&mut self, effect: &Effect) {
        match effect {
            Effect::Settle(disposition) => {
                let counts = self.settled.iter_mut().zip(ACTIONS);
                counts
                    .filter(|(_, (action, _))| *action == disposition.action)
                    .for_each(|(count, _)| *count += 1);
            }
            Effect::Retry => self.retried += 1,
            _ => {}
        }
    }

    /// Sets the status about orders.
    pub fn orders(&mut self, status: Status) {
        self.orders = Some(status);
    }

    /// Records whether vehicle_router answered a request.
    pub fn asked<T>(&mut self, answer: &Result<T, Unavailable>) {
        let before = self.unavailable.unwrap_or_default();
        self.unavailable = Some(if answer.is_ok() { 0 } else { before + 1 });
    }

    /// Mails in progress.
    pub fn in_flight(&self) -> u32 {
        u32::try_from(Arc::strong_count(&self.slots) - 1).unwrap_or(u32::MAX)
    }

    /// Most mails in progress at once.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The statuses for `/diagnostics`.
    pub fn health(&self) -> Vec<Status> {
        let in_flight = self.in_flight();
        let (level, message) = if in_flight < self.capacity {
            (Level::Ok, "takes mails")
        } else {
            (Level::Warn, "at capacity: mails wait for their next delivery")
        };
        let mails = Status::new("mails", level, message)
            .gauge("in_flight", in_flight)
            .gauge("capacity", self.capacity)
            .counter("retried", self.retried);
        let counts = self.settled.iter().zip(ACTIONS);
        let mails = counts.fold(mails, |status, (count, (_, name))| status.counter(name, *count));
        let vehicles = match self.unavailable {
            None => Status::new("vehicle_router", Level::Ok, "not asked yet"),
            Some(0) => Status::new("vehicle_router", Level::Ok, "answers"),
            Some(times) => {
                Status::new("vehicle_router", Level::Error, Unavailable.to_string()).gauge("times", times)
            }
        };
        [mails, vehicles].into_iter().chain(self.orders.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::{Disposition, MailId};

    #[test]
    fn takes_no_more_than_its_capacity_and_says_so() {
        let mut work = Work::new(1);
        let slot = work.begin();
        assert!(slot.is_some() && work.begin().is_none());
        assert_eq!((work.in_flight(), work.health()[0].level), (1, Level::Warn));
        drop(slot);
        assert_eq!((work.in_flight(), work.health()[0].level), (0, Level::Ok));
    }

    #[test]
    fn counts_dispositions_by_action() {
        let mut work = Work::new(1);
        let disposition = Disposition {
            mail_id: MailId::of(b""),
            consumer: "chatbot".into(),
            action: Action::Forwarded,
            reason: String::new(),
        };
        work.count(&Effect::Settle(disposition));
        assert_eq!(work.health()[0].figure("forwarded"), Some(1));
    }

    #[test]
    fn an_error_while_vehicle_router_does_not_answer() {
        let mut work = Work::new(1);
        work.asked::<()>(&Err(Unavailable));
        assert_eq!(work.health()[1].level, Level::Error);
        work.asked(&Ok(()));
        assert_eq!(work.health()[1].level, Level::Ok);
    }
}
