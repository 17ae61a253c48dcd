// SPDX-License-Identifier: Apache-2.0
//! Decides what a vehicle must do with the orders it hears, by the rules of `VehicleCommand.msg`. Pure.
//!
//! One gate serves one vehicle. It recognises copies, and never takes an order older than the newest it took.
//!
//! A new gate takes whatever is still fresh. A vehicle that goes on as before when it restarts keeps
//! [`OrderGate::newest`] on disk and gives it to [`OrderGate::after_restart`]. Saving it is left to the vehicle.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use super::{OrderPublicKey, Precedence, VehicleCommand};

/// Orders remembered in order to recognise their copies. Whatever may be a copy of an earlier one is refused.
const REMEMBERED: usize = 256;

/// The gate's decision on an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Carry out the order and acknowledge it.
    Take,
    /// Acknowledge the order again; it was taken before.
    Repeat,
    /// Acknowledge the order as refused.
    Refuse(Refusal),
    /// Stay silent: no key is known yet, and the order will come again.
    Wait,
}

/// Why an order is refused; its text becomes the reason of the acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The signature is missing, invalid, or by another key.
    #[error("its signature is not by the order key that this vehicle trusts")]
    Unproven,
    /// The order is too old, or dated too far ahead.
    #[error("it is dated {} s {}, more than the {} s that this vehicle allows", .by.as_secs(), if *.ahead { "ahead" } else { "ago" }, .bound.as_secs())]
    NotFresh {
        /// Distance of the order's date from now.
        by: Duration,
        /// The date is in the future.
        ahead: bool,
        /// Largest distance that the vehicle allows.
        bound: Duration,
    },
    /// The vehicle has taken a newer order, or a stop of the same moment.
    #[error("this vehicle has taken a {}, dated {} s later", if *.stop { "stop" } else { "resume" }, .by.as_secs())]
    Overtaken {
        /// The newer order is a stop.
        stop: bool,
        /// How much later the newer order is dated.
        by: Duration,
    },
    /// The `command_id` belongs to another order.
    #[error("its command_id is that of another order that this vehicle has taken")]
    Reused,
    /// The gate no longer remembers every order of the same precedence, so this may be a copy of one of them.
    #[error(
        "it may be a copy: this vehicle no longer remembers every order of that moment that it has taken"
    )]
    MaybeCopy,
}

/// Admits or refuses the orders to one vehicle.
#[derive(Clone, Debug)]
pub struct OrderGate {
    key: Option<OrderPublicKey>,
    max_age: Duration,
    newest: Option<Precedence>,
    taken: VecDeque<([u8; 32], Precedence)>,
    /// Precedence of the newest order taken that is no longer in `taken`.
    forgotten: Option<Precedence>,
}

impl OrderGate {
    /// Creates a gate that trusts `key`, or else the first key that it [hears](Self::hear_key).
    pub fn new(key: Option<OrderPublicKey>, max_age: Duration) -> Self {
        Self::after_restart(key, max_age, None)
    }

    /// Creates a gate that goes on after the order that [`newest`](Self::newest) returned before a restart: it refuses
    /// every order of the same or a lower precedence, copies included.
    pub fn after_restart(key: Option<OrderPublicKey>, max_age: Duration, newest: Option<Precedence>) -> Self {
        Self { key, max_age, newest, taken: VecDeque::new(), forgotten: newest }
    }

    /// Adopts a published key if none is trusted yet. Returns whether `key` is the trusted one.
    pub fn hear_key(&mut self, key: OrderPublicKey) -> bool {
        *self.key.get_or_insert(key) == key
    }

    /// Precedence of the newest order taken; `None` before the first.
    pub fn newest(&self) -> Option<Precedence> {
        self.newest
    }

    /// Decides on `order`, which the caller has checked to be addressed to this vehicle.
    pub fn rule(&mut self, order: &VehicleCommand, now: SystemTime) -> Ruling {
        let Some(key) = self.key else { return Ruling::Wait };
        if !key.proves(order) {
            return Ruling::Refuse(Refusal::Unproven);
        }
        let precedence = order.precedence();
        if let Some((_, known)) = self.taken.iter().find(|(id, _)| *id == order.command_id) {
            return if *known == precedence { Ruling::Repeat } else { Ruling::Refuse(Refusal::Reused) };
        }
        let (by, ahead) = match now.duration_since(order.ordered_at) {
            Ok(age) => (age, false),
            Err(error) => (error.duration(), true),
        };
        if by > self.max_age {
            return Ruling::Refuse(Refusal::NotFresh { by, ahead, bound: self.max_age });
        }
        if let Some(newest) = self.newest.filter(|newest| *newest > precedence) {
            let by = newest.ordered_at.duration_since(order.ordered_at).unwrap_or_default();
            return Ruling::Refuse(Refusal::Overtaken { stop: newest.stop, by });
        }
        if self.forgotten >= Some(precedence) {
            return Ruling::Refuse(Refusal::MaybeCopy);
        }
        self.newest = Some(precedence);
        if self.taken.len() >= REMEMBERED {
            self.forgotten = self.taken.pop_front().map(|(_, precedence)| precedence);
        }
        self.taken.push_back((order.command_id, precedence));
        Ruling::Take
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Command, OrderKey,
        signature::tests::{key, order},
    };

    fn gate() -> OrderGate {
        OrderGate::new(Some(key().public()), Duration::from_secs(900))
    }

    fn at(second: u64) -> SystemTime {
        order(Command::Stop, second).ordered_at
    }

    #[test]
    fn an_older_order_does_not_overtake_and_a_copy_is_acknowledged_again() {
        let (mut gate, stop, resume) = (gate(), order(Command::Stop, 10), order(Command::Resume, 9));
        assert_eq!(gate.rule(&stop, at(11)), Ruling::Take);
        let refusal = Refusal::Overtaken { stop: true, by: Duration::from_secs(1) };
        assert_eq!(gate.rule(&resume, at(12)), Ruling::Refuse(refusal));
        assert_eq!(refusal.to_string(), "this vehicle has taken a stop, dated 1 s later");
        assert_eq!(gate.rule(&stop, at(5000)), Ruling::Repeat);
    }

    #[test]
    fn at_the_same_moment_a_stop_wins() {
        let (mut stop, mut resume) = (order(Command::Stop, 10), order(Command::Resume, 10));
        (stop.command_id, resume.command_id) = ([1; 32], [2; 32]);
        key().sign(&mut stop);
        key().sign(&mut resume);
        let mut first = gate();
        assert_eq!([first.rule(&resume, at(10)), first.rule(&stop, at(10))], [Ruling::Take; 2]);
        let mut second = gate();
        assert_eq!(second.rule(&stop, at(10)), Ruling::Take);
        assert!(matches!(second.rule(&resume, at(10)), Ruling::Refuse(Refusal::Overtaken { .. })));
    }

    #[test]
    fn a_copy_is_not_taken_again_however_many_orders_of_the_same_moment_follow() {
        let (mut gate, resume) = (gate(), order(Command::Resume, 10));
        assert_eq!(gate.rule(&resume, at(10)), Ruling::Take);
        // As if these had come too; verifying so many takes half a minute without optimisation.
        gate.taken.resize(REMEMBERED, ([0xff; 32], resume.precedence()));
        assert_eq!(gate.rule(&resume, at(10)), Ruling::Repeat);
        let mut another = resume.clone();
        another.command_id = [1; 32];
        key().sign(&mut another);
        assert_eq!(gate.rule(&another, at(10)), Ruling::Take);
        assert_eq!(gate.rule(&resume, at(10)), Ruling::Refuse(Refusal::MaybeCopy));
        assert_eq!(gate.rule(&order(Command::Stop, 10), at(10)), Ruling::Take);
    }

    #[test]
    fn after_a_restart_only_what_is_newer_than_the_newest_is_taken() {
        let (mut before, stop) = (gate(), order(Command::Stop, 10));
        assert_eq!(before.rule(&stop, at(10)), Ruling::Take);
        let mut gate =
            OrderGate::after_restart(Some(key().public()), Duration::from_secs(900), before.newest());
        assert_eq!(gate.newest(), before.newest());
        assert_eq!(gate.rule(&stop, at(11)), Ruling::Refuse(Refusal::MaybeCopy));
        let older = gate.rule(&order(Command::Resume, 10), at(11));
        assert!(matches!(older, Ruling::Refuse(Refusal::Overtaken { .. })), "{older:?}");
        assert_eq!(gate.rule(&order(Command::Resume, 11), at(11)), Ruling::Take);
    }

    #[test]
    fn what_is_not_fresh_not_proven_or_bears_a_used_id_is_refused() {
        let mut gate = gate();
        let mut stop = order(Command::Stop, 10);
        for now in [at(911), at(10) - Duration::from_secs(901)] {
            assert!(matches!(gate.rule(&stop, now), Ruling::Refuse(Refusal::NotFresh { .. })));
        }
        assert_eq!(gate.rule(&stop, at(11)), Ruling::Take);
        stop.command = Command::Resume;
        assert_eq!(gate.rule(&stop, at(11)), Ruling::Refuse(Refusal::Unproven));
        key().sign(&mut stop);
        assert_eq!(gate.rule(&stop, at(11)), Ruling::Refuse(Refusal::Reused));
    }

    #[test]
    fn without_a_key_of_its_own_it_keeps_the_first() {
        let (mut gate, stop) = (OrderGate::new(None, Duration::from_secs(900)), order(Command::Stop, 10));
        assert_eq!(gate.rule(&stop, at(10)), Ruling::Wait);
        assert!(gate.hear_key(key().public()) && !gate.hear_key(OrderKey::from_bytes([7; 32]).public()));
        assert_eq!(gate.rule(&stop, at(10)), Ruling::Take);
    }

    proptest! {
        // Signing is slow without optimisation.
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// However often and in whatever order the orders arrive, the one of highest precedence holds in the end.
        #[test]
        fn the_newest_holds(orders in prop::collection::vec((any::<bool>(), 0u64..20), 1..12)) {
            let mut gate = gate();
            let mut holds = None;
            for (number, (stop, second)) in (1u8..).zip(&orders) {
                let mut order = order(if *stop { Command::Stop } else { Command::Resume }, *second);
                order.command_id = [number; 32];
                key().sign(&mut order);
                if gate.rule(&order, at(20)) == Ruling::Take {
                    holds = Some(order.command);
                }
            }
            let newest = orders.iter().map(|(stop, second)| (second, stop)).max();
            prop_assert_eq!(holds == Some(Command::Stop), newest.is_some_and(|(_, stop)| *stop));
        }
    }
}
