// SPDX-License-Identifier: Apache-2.0
//! What a server made difficult, so that one message does not keep the others. Pure.

use std::collections::BTreeSet;

/// What this server made difficult, of the UIDs as they are now.
#[derive(Default)]
pub(super) struct Trouble {
    /// Messages that are passed over for good.
    pub(super) skipped: BTreeSet<u32>,
    /// The message at which attempts failed so often that it may be its fault, or the server's.
    pub(super) suspect: Option<u32>,
    /// The message at which the last attempt failed, and how often in a row.
    pub(super) at: Option<(u32, u32)>,
    /// Whether it has messages that are too large, so that it is asked for them beforehand.
    pub(super) has_large: bool,
    /// UIDNEXT for which the server listed nothing new.
    pub(super) looked: Option<u32>,
    /// It offers IDLE and refuses it.
    pub(super) refuses_idle: bool,
    /// Failed attempts since the last success.
    pub(super) failures: u32,
}

impl Trouble {
    /// Notes that an attempt has failed at this message; after so many in a row it is suspected. If there is a suspect already
    /// and this one fails just so, it is the server's fault: nothing is suspected.
    pub(super) fn blame(&mut self, uid: u32, attempts: u32) {
        if self.suspect == Some(uid) {
            return;
        }
        let times = self.at.filter(|(at, _)| *at == uid).map_or(1, |(_, times)| times.saturating_add(1));
        self.at = Some((uid, times));
        if times >= attempts {
            self.at = None;
            self.suspect = if self.suspect.is_some() { None } else { Some(uid) };
        }
    }

    /// The message that is to be fetched alone: it may be the one that makes others fail.
    pub(super) fn alone(&self) -> Option<u32> {
        self.at.filter(|(_, times)| *times > 1).map(|(uid, _)| uid)
    }

    /// Forgets what it knew of the UIDs, which mean other messages now.
    pub(super) fn renumbered(&mut self) {
        let Self { failures, has_large, refuses_idle, .. } = *self;
        *self = Self { failures, has_large, refuses_idle, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_suspected_after_so_many_failures_in_a_row_and_no_two_are() {
        let mut trouble = Trouble::default();
        let blame = |trouble: &mut Trouble, uid| {
            trouble.blame(uid, 3);
            (trouble.alone(), trouble.suspect)
        };
        assert_eq!(blame(&mut trouble, 7), (None, None));
        assert_eq!(blame(&mut trouble, 7), (Some(7), None));
        // Another one in between: it was not the message's fault.
        assert_eq!(blame(&mut trouble, 8), (None, None));
        assert_eq!([7, 7, 7].map(|uid| blame(&mut trouble, uid).1), [None, None, Some(7)]);
        assert_eq!([7, 8, 8, 8].map(|uid| blame(&mut trouble, uid).1), [Some(7), Some(7), Some(7), None]);
        trouble.skipped.insert(7);
        trouble.renumbered();
        assert!(trouble.skipped.is_empty());
    }
}
