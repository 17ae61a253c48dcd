// SPDX-License-Identifier: Apache-2.0
//! Admits connections to a server: bounded in total and per address, and shared so that few addresses cannot shut out
//! others.
//!
//! An address or IPv6 network gets no further connection once it has as many as are free. So one address gets at most
//! half of the connections (rounded up), and a newcomer gets one as long as any is free. Addresses that each take all
//! they can leave a half, a quarter, an eighth; many of them still fill the server. The rule is off where one address
//! may have all connections, as behind a gateway.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use fair_queue::network;

/// Open connections of one server, by address.
#[derive(Debug)]
pub(super) struct Guests {
    max: usize,
    max_per_address: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// An admitted connection; dropping it frees its place.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) address: IpAddr,
    guests: Arc<Guests>,
}

impl Guests {
    pub(super) fn new(max: usize, max_per_address: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_address, open: Mutex::default() })
    }

    /// Admits a connection from `address`, or returns the reason for refusing it, as the client will see it.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Guest, &'static str> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.max.saturating_sub(open.values().sum());
        if free == 0 {
            return Err("too many connections");
        }
        let of_address = open.get(&network(address)).copied().unwrap_or_default();
        let left = if self.max_per_address < self.max { free } else { self.max };
        if of_address >= self.max_per_address.min(left) {
            return Err("too many connections from your address");
        }
        open.insert(network(address), of_address.saturating_add(1));
        Ok(Guest { address, guests: Arc::clone(self) })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut open = self.guests.open.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(self.address);
        if let Some(left) = open.get_mut(&address) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                open.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Admits as many connections from each address in turn as it can get.
    fn taken(guests: &Arc<Guests>, addresses: &[&str]) -> (Vec<usize>, Vec<Guest>) {
        let mut all = Vec::new();
        let counts = addresses.iter().map(|address| {
            let before = all.len();
            all.extend(std::iter::from_fn(|| guests.admit(address.parse().unwrap()).ok()));
            all.len() - before
        });
        (counts.collect(), all)
    }

    #[test]
    fn few_addresses_leave_room_for_another() {
        let guests = Guests::new(64, 32);
        let (counts, held) = taken(&guests, &["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]);
        assert_eq!(counts, [32, 16, 8, 4]);
        assert!(guests.admit("192.0.2.5".parse().unwrap()).is_ok());
        let refusal = guests.admit("192.0.2.1".parse().unwrap()).unwrap_err();
        assert_eq!(refusal, "too many connections from your address");
        drop(held);
        assert!(guests.open.lock().unwrap().is_empty());
    }

    #[test]
    fn one_address_may_have_all_if_told_so_and_an_ipv6_network_is_one_address() {
        assert_eq!(taken(&Guests::new(64, 64), &["127.0.0.1"]).0, [64]);
        assert_eq!(taken(&Guests::new(1, 32), &["127.0.0.1"]).0, [1]);
        let guests = Guests::new(64, 2);
        assert_eq!(taken(&guests, &["2001:db8::1"]).0, [2]);
        let _both =
            [guests.admit("2001:db8::1".parse().unwrap()), guests.admit("2001:db8::2".parse().unwrap())];
        assert!(guests.admit("2001:db8::3".parse().unwrap()).is_err());
        assert!(guests.admit("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }
}
