// SPDX-License-Identifier: Apache-2.0
//! Bounds how often passwords are tried from one address. Pure.
//!
//! An address or IPv6 network has [`BURST`] attempts, and gets one back every [`REFILL`] and for each that was right.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use fair_queue::network;

/// Attempts that an address has.
const BURST: u32 = 10;
/// Time after which it gets one back.
const REFILL: Duration = Duration::from_secs(30);
/// Addresses that are remembered; more are not bounded, except by how many passwords are looked at at once.
const REMEMBERED: usize = 4096;

/// Attempts by address: when it has all of them back.
#[derive(Debug, Default)]
pub(super) struct Attempts(HashMap<IpAddr, Instant>);

impl Attempts {
    /// Takes an attempt; false if the address has none.
    pub(super) fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, full_at| *full_at > now);
        }
        let address = network(address);
        let known = self.0.get(&address).copied();
        let Some(full_at) = known.unwrap_or(now).max(now).checked_add(REFILL) else { return false };
        if full_at.saturating_duration_since(now) > REFILL.saturating_mul(BURST) {
            return false;
        }
        if known.is_some() || self.0.len() < REMEMBERED {
            self.0.insert(address, full_at);
        }
        true
    }

    /// Gives an attempt back.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        if let Some(full_at) = self.0.get_mut(&network(address)) {
            *full_at = full_at.checked_sub(REFILL).unwrap_or(*full_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(attempts: &mut Attempts, address: &str, now: Instant) -> u32 {
        let take = || attempts.take(address.parse().unwrap(), now).then_some(());
        u32::try_from(std::iter::from_fn(take).take(100).count()).unwrap()
    }

    #[test]
    fn an_address_has_ten_attempts_and_two_more_a_minute_and_others_have_their_own() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        assert_eq!(taken(&mut attempts, "192.0.2.1", start), BURST);
        assert_eq!(taken(&mut attempts, "192.0.2.2", start), BURST);
        assert_eq!(taken(&mut attempts, "192.0.2.1", start + 2 * REFILL), 2);
        assert_eq!(taken(&mut attempts, "192.0.2.1", start + 100 * REFILL), BURST);
        assert_eq!(taken(&mut attempts, "2001:db8::1", start), BURST);
        assert_eq!(taken(&mut attempts, "2001:db8::2", start), 0, "one network");
    }

    #[test]
    fn who_is_right_may_go_on_and_who_is_forgotten_takes_no_memory() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        let address = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..100 {
            assert!(attempts.take(address, start));
            attempts.give_back(address);
        }
        for number in 0..10_000_u32 {
            attempts.take(IpAddr::from(number.to_be_bytes()), start);
        }
        assert_eq!(attempts.0.len(), REMEMBERED);
        attempts.take(address, start + REFILL * BURST);
        assert_eq!(attempts.0.len(), 1);
    }
}
