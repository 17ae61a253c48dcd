// SPDX-License-Identifier: Apache-2.0
//! Bounds what is sent on account of mails whose sender could not be checked. Pure.
//!
//! Without it, anybody who can send a mail could fill a mailbox while DNS or the registry is down. Which mails count is
//! left to the caller.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use fair_queue::registered;
use mail::EmailAddress;

/// Length of a counting period; then the counts start again from zero.
const WINDOW: Duration = Duration::from_secs(3600);
/// Mails allowed in a period for one registered domain with its subdomains, and for all domains together.
const PER_DOMAIN: u32 = 20;
const IN_ALL: u32 = 200;

/// Counts the mails of the current period.
#[derive(Clone, Debug)]
pub struct Quota {
    since: SystemTime,
    by_domain: BTreeMap<String, u32>,
    in_all: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self { since: SystemTime::UNIX_EPOCH, by_domain: BTreeMap::new(), in_all: 0 }
    }
}

impl Quota {
    /// Whether one more mail may be sent on account of `address`. If so, counts it.
    pub(super) fn take(&mut self, address: &EmailAddress, now: SystemTime) -> bool {
        if now.duration_since(self.since).is_ok_and(|age| age < WINDOW) {
            if self.in_all >= IN_ALL {
                return false;
            }
        } else {
            *self = Self { since: now, ..Self::default() };
        }
        // Anybody can make subdomains for nothing, so count the registered domain.
        let domain = address.domain().to_lowercase();
        let count = self.by_domain.entry(registered(&domain).to_owned()).or_default();
        let may = *count < PER_DOMAIN;
        if may {
            *count += 1;
            self.in_all += 1;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_domain_does_not_use_up_what_others_may_and_an_hour_later_all_may_again() {
        let now = SystemTime::UNIX_EPOCH + WINDOW * 2;
        let mut quota = Quota::default();
        let address = |text: &str| EmailAddress::parse(text).unwrap();
        let flood = (0..1000).filter(|n| quota.take(&address(&format!("{n}@{n}.Example.org")), now)).count();
        assert_eq!((flood, quota.take(&address("a@example.org"), now)), (20, false));
        let others = (0..1000).filter(|n| quota.take(&address(&format!("a@{n}.org")), now)).count();
        assert_eq!((others, quota.by_domain.len()), (180, 181));
        assert!(quota.take(&address("a@example.org"), now + WINDOW));
    }
}
