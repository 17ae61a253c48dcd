// SPDX-License-Identifier: Apache-2.0
//! Bounds the memory of mails that are being received, over all connections of both servers.
//!
//! Half of it is divided among the connections, so that a mail that fits into such a share is never refused because
//! others send large ones. What a mail takes beyond comes from the other half, first come, first served.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The memory that both servers share.
#[derive(Debug)]
pub(super) struct Budget {
    /// Part of each connection, bytes.
    share: usize,
    /// What all connections may hold beyond their shares, bytes.
    common: usize,
    /// What they hold beyond their shares now, bytes.
    taken: AtomicUsize,
}

/// What one connection holds; dropping it gives that back.
#[derive(Debug)]
pub(super) struct Lease {
    budget: Arc<Budget>,
    taken: usize,
}

impl Budget {
    /// A budget of so many bytes for at most `connections` connections.
    pub(super) fn new(bytes: usize, connections: usize) -> Arc<Self> {
        let common = bytes / 2;
        Arc::new(Self { share: common / connections.max(1), common, taken: AtomicUsize::new(0) })
    }

    /// A connection's part, which holds nothing yet.
    pub(super) fn lease(self: &Arc<Self>) -> Lease {
        Lease { budget: Arc::clone(self), taken: 0 }
    }
}

impl Lease {
    /// Notes that the connection holds so many bytes. If there is no room for them, returns false and notes nothing;
    /// the connection MUST then drop them.
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(self.budget.share);
        if wanted <= self.taken {
            self.budget.taken.fetch_sub(self.taken.saturating_sub(wanted), Ordering::Relaxed);
        } else {
            let more = wanted.saturating_sub(self.taken);
            let take = |taken: usize| taken.checked_add(more).filter(|taken| *taken <= self.budget.common);
            let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
            if self.budget.taken.fetch_update(set, fetch, take).is_err() {
                return false;
            }
        }
        self.taken = wanted;
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.hold(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_mails_share_one_half_and_a_small_one_always_has_room() {
        let budget = Budget::new(1000, 10);
        let (mut one, mut two, mut three) = (budget.lease(), budget.lease(), budget.lease());
        assert!(one.hold(400) && two.hold(200));
        assert!(!three.hold(51), "350 and 150 of 500 are taken");
        assert!(three.hold(50));
        assert!(one.hold(399) && three.hold(51));
        assert!(!two.hold(201) && two.hold(200), "a refusal changes nothing");
        drop(one);
        assert!(two.hold(549));
        assert!(!two.hold(550));
        assert!(two.hold(0));
        drop((two, three));
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
