// SPDX-License-Identifier: Apache-2.0
//! Counts chatbot's work, and builds its diagnostics: mails in progress and vehicle_router's answers. Pure.

use health::{Level, Status};
use mail::Action;

use super::{effect::Effect, fleet::Unavailable};

/// The work of one replica since it started.
#[derive(Debug)]
pub struct Work {
    capacity: usize,
    disposed: [u64; ACTIONS.len()],
    /// Mails left to be delivered again, `retried` in the diagnostics.
    left: u64,
    /// Failures of vehicle_router in a row; `None` if it was never asked.
    unavailable: Option<u64>,
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
    pub fn new(capacity: usize) -> Self {
        Self { capacity, disposed: [0; ACTIONS.len()], left: 0, unavailable: None }
    }

    /// Most mails in progress at once.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Counts an effect that the node is about to carry out.
    pub fn count(&mut self, effect: &Effect) {
        let Effect::Conclude(conclusion) = effect else { return };
        let counts = self.disposed.iter_mut().zip(ACTIONS);
        let same = counts.filter(|(_, (action, _))| *action == conclusion.disposition.action);
        same.for_each(|(count, _)| *count += 1);
    }

    /// Counts a mail that is left to be delivered again.
    pub fn left(&mut self) {
        self.left += 1;
    }

    /// Counts a request to vehicle_router.
    pub fn asked(&mut self, answered: bool) {
        let before = self.unavailable.unwrap_or_default();
        self.unavailable = Some(if answered { 0 } else { before + 1 });
    }

    /// The statuses for `/diagnostics`, with this many mails in progress.
    pub fn health(&self, in_flight: usize) -> Vec<Status> {
        let (level, message) = if in_flight < self.capacity {
            (Level::Ok, "takes mails")
        } else {
            (Level::Warn, "at capacity: mails wait for their next delivery")
        };
        let mails = Status::new("mails", level, message)
            .gauge("in_flight", in_flight)
            .gauge("capacity", self.capacity)
            .counter("retried", self.left);
        let counts = self.disposed.iter().zip(ACTIONS);
        let mails = counts.fold(mails, |status, (count, (_, name))| status.counter(name, *count));
        let vehicles = match self.unavailable {
            None => Status::new("vehicle_router", Level::Ok, "not asked yet"),
            Some(0) => Status::new("vehicle_router", Level::Ok, "answers"),
            Some(times) => {
                Status::new("vehicle_router", Level::Error, Unavailable.to_string()).gauge("times", times)
            }
        };
        vec![mails, vehicles]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Conclusion;
    use mail::MailId;

    #[test]
    fn at_capacity_it_says_so() {
        let level = |in_flight| Work::new(1).health(in_flight)[0].level;
        assert_eq!((level(0), level(1)), (Level::Ok, Level::Warn));
    }

    #[test]
    fn counts_dispositions_by_action() {
        let mut work = Work::new(1);
        work.count(&Effect::Conclude(Conclusion::silent(MailId::of(b""), Action::Forwarded, "")));
        assert_eq!(work.health(0)[0].figure("forwarded"), Some(1));
    }

    #[test]
    fn an_error_while_vehicle_router_does_not_answer() {
        let mut work = Work::new(1);
        for (answered, level) in [(false, Level::Error), (true, Level::Ok)] {
            work.asked(answered);
            assert_eq!(work.health(0)[1].level, level);
        }
    }
}
