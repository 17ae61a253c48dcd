// SPDX-License-Identifier: Apache-2.0
//! Divides new messages into what is fetched with one command each. Pure.

use std::{collections::BTreeSet, ops::RangeInclusive};

/// Messages that are fetched with one command, and recorded with one sync.
const CHUNK: usize = 500;

/// What one command fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// UIDs to ask for.
    pub(super) range: RangeInclusive<u32>,
    /// Those of them that the server has listed.
    pub(super) listed: Vec<u32>,
}

/// Divides `range` so that each batch has a bounded number of messages of `listed` (ascending). Ranges leave no gap but
/// for `skipped`, so that a message which is not listed is fetched, too; `alone` is fetched alone.
pub(super) fn batches(
    range: RangeInclusive<u32>,
    listed: &[u32],
    skipped: &BTreeSet<u32>,
    alone: Option<u32>,
) -> Vec<Batch> {
    let (mut first, last) = range.into_inner();
    let (mut batches, mut batch) = (Vec::new(), Vec::new());
    let mut close = |first: u32, end: u32, batch: &mut Vec<u32>| {
        if first <= end {
            batches.push(Batch { range: first..=end, listed: std::mem::take(batch) });
        }
    };
    let all: BTreeSet<u32> =
        listed.iter().chain(skipped).copied().filter(|uid| (first..=last).contains(uid)).collect();
    for uid in all {
        if skipped.contains(&uid) || alone == Some(uid) {
            close(first, uid.saturating_sub(1), &mut batch);
            if !skipped.contains(&uid) {
                close(uid, uid, &mut vec![uid]);
            }
        } else {
            batch.push(uid);
            if batch.len() < CHUNK {
                continue;
            }
            close(first, uid, &mut batch);
        }
        match uid.checked_add(1) {
            Some(next) => first = next,
            None => return batches,
        }
    }
    close(first, last, &mut batch);
    batches
}

/// How far a batch that ended early got: the last message before which none of `listed` is missing, and the first that is.
pub(super) fn done_through(listed: &[u32], is_done: impl Fn(&u32) -> bool) -> (Option<u32>, Option<u32>) {
    let missing = listed.iter().position(|uid| !is_done(uid));
    let through =
        missing.map_or(listed.len(), |missing| missing).checked_sub(1).and_then(|last| listed.get(last));
    (through.copied(), missing.and_then(|missing| listed.get(missing)).copied())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn leaves_out_what_is_skipped_and_fetches_trouble_alone() {
        let divided = |skipped: &[u32], alone| -> Vec<_> {
            let batches = batches(5..=20, &[6, 9, 12], &skipped.iter().copied().collect(), alone);
            batches.into_iter().map(|batch| (batch.range, batch.listed)).collect()
        };
        assert_eq!(divided(&[], None), [(5..=20, vec![6, 9, 12])]);
        assert_eq!(divided(&[9], None), [(5..=8, vec![6]), (10..=20, vec![12])]);
        assert_eq!(divided(&[], Some(9)), [(5..=8, vec![6]), (9..=9, vec![9]), (10..=20, vec![12])]);
        assert_eq!(divided(&[5, 6, 20, 99], Some(6)), [(7..=19, vec![9, 12])]);
    }

    #[test]
    fn tells_how_far_a_batch_got() {
        let done = |done: &[u32]| done_through(&[6, 9, 12], |uid| done.contains(uid));
        assert_eq!(done(&[]), (None, Some(6)));
        assert_eq!(done(&[6, 12]), (Some(6), Some(9)));
        assert_eq!(done(&[6, 9, 12]), (Some(12), None));
    }

    proptest! {
        #[test]
        fn every_uid_is_in_one_batch_or_skipped(
            listed in prop::collection::btree_set(1u32..2000, 0..1200),
            skipped in prop::collection::btree_set(1u32..2000, 0..9),
            alone in prop::option::of(1u32..2000),
            first in 1u32..900,
        ) {
            let listed: Vec<_> = listed.into_iter().filter(|uid| *uid >= first).collect();
            let mut next = first;
            for batch in batches(first..=1999, &listed, &skipped, alone) {
                let (begin, end) = batch.range.into_inner();
                prop_assert!(begin >= next && (next..begin).all(|uid| skipped.contains(&uid)));
                let inside: Vec<_> = listed.iter().copied().filter(|uid| (begin..=end).contains(uid)).collect();
                prop_assert!(!inside.iter().any(|uid| skipped.contains(uid)));
                prop_assert_eq!(&inside, &batch.listed);
                prop_assert!(batch.listed.len() <= CHUNK);
                let is_trouble = alone.is_some_and(|uid| batch.listed.contains(&uid));
                prop_assert!(!is_trouble || begin == end);
                next = end + 1;
            }
            prop_assert!((next..2000).all(|uid| skipped.contains(&uid)));
        }
    }
}
