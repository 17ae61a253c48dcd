// SPDX-License-Identifier: Apache-2.0
//! Destroys what belongs to the middleware when the node ends, and bounds the time that this may take.
//!
//! Destroying a DDS participant may never return: Fast DDS 2.14 spins for ever, holding a lock, if a remote endpoint
//! disappears at that moment ([eProsima/Fast-DDS #6513](https://github.com/eProsima/Fast-DDS/issues/6513)). That is
//! likely when a whole graph ends at once. So the owners of such handles do not destroy them: they leave them to
//! [`Closing`], and the process ends without the middleware if it does not close in time.

use std::{
    any::Any,
    mem,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{ends_within, lock};

/// What is destroyed when the node ends. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Closing(Arc<Mutex<Vec<Box<dyn Any + Send>>>>);

impl Closing {
    /// Wraps a handle so that it is kept until [`Closing::close`] when its owner drops it.
    pub(super) fn defer<T: Send + 'static>(&self, handle: T) -> Deferred<T> {
        Deferred { handle: Some(handle), closing: self.clone() }
    }

    /// Destroys the handles whose owners have dropped them, in that order. Returns whether that took less than
    /// `patience`; if not, it goes on in the background.
    pub(super) fn close(&self, patience: Duration) -> bool {
        let handles = mem::take(&mut *lock(&self.0));
        ends_within(patience, move || drop(handles))
    }
}

/// A handle that is not destroyed where it is dropped, but by [`Closing::close`].
pub(super) struct Deferred<T: Send + 'static> {
    /// None only while it is being dropped.
    handle: Option<T>,
    closing: Closing,
}

impl<T: Send + 'static> Drop for Deferred<T> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            lock(&self.closing.0).push(Box::new(handle));
        }
    }
}

impl<T: Send + 'static> Deref for Deferred<T> {
    type Target = T;

    #[expect(clippy::expect_used, reason = "only drop takes the handle")]
    fn deref(&self) -> &T {
        self.handle.as_ref().expect("a handle until it is dropped")
    }
}

impl<T: Send + 'static> DerefMut for Deferred<T> {
    #[expect(clippy::expect_used, reason = "only drop takes the handle")]
    fn deref_mut(&mut self) -> &mut T {
        self.handle.as_mut().expect("a handle until it is dropped")
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Takes so long to destroy, as a participant may, and tells its name then.
    struct Slow(Duration, &'static str, Arc<Mutex<Vec<&'static str>>>);

    impl Drop for Slow {
        fn drop(&mut self) {
            thread::sleep(self.0);
            lock(&self.2).push(self.1);
        }
    }

    #[test]
    fn destroys_at_the_end_in_the_order_in_which_owners_let_go() {
        let (closing, destroyed) = (Closing::default(), Arc::default());
        let handle = |name| closing.defer(Slow(Duration::ZERO, name, Arc::clone(&destroyed)));
        let (node, subscription) = (handle("node"), handle("subscription"));
        drop(subscription);
        drop(node);
        assert!(lock(&destroyed).is_empty());
        assert!(closing.close(Duration::from_secs(10)));
        assert_eq!(*lock(&destroyed), ["subscription", "node"]);
    }

    #[test]
    fn waits_no_longer_than_it_is_told() {
        let closing = Closing::default();
        drop(closing.defer(Slow(Duration::from_secs(3600), "node", Arc::default())));
        assert!(!closing.close(Duration::from_millis(20)));
    }
}
