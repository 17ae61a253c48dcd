#![expect(unsafe_code, reason = "an allocator that counts")]
// SPDX-License-Identifier: Apache-2.0

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use mail::{AcceptedMail, Action, Envelope, Origin};

use super::*;

/// Counts the bytes that each thread holds, so that tests in parallel do not disturb each other.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: usize, sign: isize) {
    let _ = HELD.try_with(|held| held.set(held.get() + sign * bytes as isize));
}

// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller keeps the contract of `dealloc`, and `pointer` is of `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An index after `ids` were accepted, answered and settled, each with four records of 200 bytes, and so many in a
/// segment.
fn answered(ids: impl Iterator<Item = MailId>, in_one: usize) -> Index {
    let mut index = Index::new(2);
    let mail = AcceptedMail {
        id: MailId::of(b""),
        received_at: SystemTime::UNIX_EPOCH,
        origin: Origin::Smtp(Envelope {
            peer: [127, 0, 0, 1].into(),
            helo: String::new(),
            mail_from: String::new(),
            rcpt_to: Vec::new(),
        }),
        consumers: vec!["chatbot".to_owned()],
        data: Vec::new(),
    };
    let arrival = Arrival::of(&mail);
    for (n, id) in ids.enumerate() {
        let key = OutboundKey::answering(id, OutboundKind::Answer);
        let attempt = Attempt {
            key,
            state: SendState::Delivered,
            attempts: 1,
            open: 0,
            failed: 0,
            reply: "250 2.0.0 Ok: queued as 4bXYZ12345z6789 by the relay".to_owned(),
        };
        let notes = [
            Note::Accepted(SystemTime::UNIX_EPOCH, Arrival { id, ..arrival.clone() }),
            Note::Queued(SystemTime::UNIX_EPOCH, key),
            Note::Settled(id),
            Note::Attempted(attempt),
        ];
        for (note, offset) in notes.into_iter().zip([32, 232, 432, 632]) {
            let segment = u32::try_from(n / in_one).unwrap();
            index.apply(note, Place::new(segment, (n % in_one * 800) as u64 + offset, 180));
        }
    }
    index
}

#[test]
fn an_answered_mail_takes_less_than_200_bytes() {
    // Just after a hash table would have doubled.
    let mails = 29_000_u64;
    let before = HELD.get();
    let index = answered((0..mails).map(|n| MailId::of(&n.to_le_bytes())), 5_000);
    let bytes = (HELD.get() - before) / mails as isize;
    assert!(bytes < 200, "{bytes} bytes a mail");
    assert_eq!((index.unsettled_count(), index.pending().count()), (0, 0));
}

/// Three identities that the index cannot tell apart by their prefixes.
fn alike() -> [MailId; 3] {
    [0, 1, 2].map(|last| {
        let mut id = [7; 32];
        id[31] = last;
        MailId::from_bytes(id)
    })
}

#[test]
fn a_segment_is_retired_whole_and_in_order_although_identities_begin_alike() {
    let ids = [MailId::of(b"first"), alike()[0], alike()[1], MailId::of(b"last")];
    let mut index = answered(ids.into_iter(), 3);
    let key = OutboundKey::answering(alike()[1], OutboundKind::Forward);
    index.apply(Note::Queued(SystemTime::UNIX_EPOCH, key), Place::new(1, 900, 180));
    let moves = |segment, from, count| index.moves(segment, from, count);
    let (first, next) = moves(0, 0, 1);
    assert_eq!((first, next), (vec![(0, Move::RememberMail(ids[0]))], Some(1)));
    let (all, next) = moves(0, 1, 9);
    assert_eq!(next, None);
    for what in [
        Move::RememberMail(ids[1]),
        Move::PassedOn(ids[2], Place::new(0, 1632, 180)),
        Move::RememberKey(OutboundKey::answering(ids[0], OutboundKind::Answer)),
        Move::RememberKey(OutboundKey::answering(ids[1], OutboundKind::Answer)),
        Move::RememberKey(OutboundKey::answering(ids[2], OutboundKind::Answer)),
    ] {
        assert!(all.iter().any(|(_, found)| *found == what), "{what:?} in {all:?}");
    }
    assert!(!all.iter().any(|(_, found)| *found == Move::RememberMail(ids[3])), "{all:?}");
    assert_eq!(moves(1, 0, 9).0.last().unwrap().1, Move::Outbound(Place::new(1, 900, 180), None));
}

#[test]
fn forgets_as_many_as_are_too_many_although_identities_begin_alike() {
    let ids = alike();
    let mut index = answered(ids.into_iter(), 3);
    for (n, id) in ids.into_iter().enumerate() {
        let keys = vec![OutboundKey::answering(id, OutboundKind::Answer)];
        index.apply(
            Note::Remembered(Remembered { mails: vec![id], keys }),
            Place::new(1, 32 + n as u64 * 100, 80),
        );
    }
    assert_eq!(ids.iter().filter(|id| index.knows(id)).count(), 2);
    let answers = ids.map(|id| OutboundKey::answering(id, OutboundKind::Answer));
    assert_eq!(answers.iter().filter(|key| index.knows_outbound(key)).count(), 2);
}

#[test]
fn the_last_attempt_is_in_memory_until_the_mail_is_finished_and_then_on_disk_as_long_as_the_mail_is() {
    let mut index = Index::new(2);
    let key = OutboundKey::answering(alike()[0], OutboundKind::Answer);
    let attempt = |state| Attempt { key, state, attempts: 1, open: 1, failed: 0, reply: "no".to_owned() };
    index.apply(Note::Queued(SystemTime::UNIX_EPOCH, key), Place::new(1, 32, 180));
    index.apply(Note::Attempted(attempt(SendState::Deferred)), Place::new(1, 300, 80));
    assert_eq!((index.attempt(&key), index.last_attempt(&key)), (Some(&attempt(SendState::Deferred)), None));
    let last = Place::new(1, 400, 80);
    index.apply(Note::Attempted(attempt(SendState::Failed)), last);
    assert_eq!((index.attempt(&key), index.last_attempt(&key)), (None, Some(last)));
    index.apply(Note::Remembered(Remembered { mails: Vec::new(), keys: vec![key] }), Place::new(2, 32, 80));
    assert_eq!((index.attempt(&key), index.last_attempt(&key)), (None, None));
    assert!(index.knows_outbound(&key));
}

#[test]
fn a_mail_waits_for_those_who_have_not_disposed_of_it_and_moves_with_what_the_others_said() {
    let mut index = Index::new(2);
    let (id, consumers) = (alike()[0], vec!["chatbot".to_owned(), "archive".to_owned()]);
    let arrival = Arrival { id, class: Default::default(), bytes: 9, consumers };
    let place = Place::new(1, 32, 180);
    index.apply(Note::Accepted(SystemTime::UNIX_EPOCH, arrival.clone()), place);
    let kept = Disposition {
        mail_id: id,
        consumer: "archive".to_owned(),
        action: Action::Kept,
        reason: String::new(),
    };
    // Twice, as after a segment that was moved and not deleted.
    index.apply(Note::Disposed(kept.clone()), Place::new(1, 300, 80));
    index.apply(Note::Accepted(SystemTime::UNIX_EPOCH, arrival), Place::new(2, 32, 180));
    index.apply(Note::Disposed(kept.clone()), Place::new(2, 300, 80));
    assert_eq!(index.arrival(&id).unwrap().consumers, ["chatbot"]);
    assert_eq!(index.moves(2, 0, 9).0, [(0, Move::Mail(Place::new(2, 32, 180), vec![kept]))]);
    index.apply(Note::Settled(id), Place::new(2, 400, 80));
    assert_eq!((index.unsettled_count(), index.moves(2, 0, 9).0), (0, vec![(0, Move::RememberMail(id))]));
}
