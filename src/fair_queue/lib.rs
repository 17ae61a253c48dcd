// SPDX-License-Identifier: Apache-2.0
//! A fair queue: picks the next mail, and shares the room for mails in flight among classes and peers. Pure.
//! Which mails wait, and when one gives its room back, is up to the caller.
//!
//! # Invariants
//! - The class that holds the least goes first; among equals, the one that has waited longest for its turn. So a
//!   class that holds nothing does not wait behind the backlog of others.
//! - A class gets no more once it holds its share, or as much as its peer has left; a peer gets no more once it holds
//!   as much as is left for all. So with a share of at most a quarter, a few busy peers leave room for a newcomer;
//!   only many of them fill the room.
//! - Room is counted in mails and in bytes; whichever is nearer to its bound decides. A mail larger than the whole
//!   room goes when nothing else is in flight.

mod class;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use class::registered;
pub use class::{Class, author_domain, network};

use mail::MailId;

/// The whole room, in millionths.
const ALL: u64 = 1_000_000;

/// Position of a mail in the queue of its class; the lowest goes first.
pub type Position = (std::time::Duration, u64);

/// Bounds on the mails in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Largest number of mails.
    pub mails: usize,
    /// Largest total size of the mails, bytes; a larger mail goes alone.
    pub bytes: u64,
    /// Part of the room that one class may hold, in millionths. One peer may hold twice that, or half the room if
    /// that is more.
    pub share: u64,
}

/// Room taken by mails in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Number of mails.
    pub mails: usize,
    /// Total size of the mails, bytes.
    pub bytes: u64,
}

impl Load {
    fn plus(self, bytes: u64) -> Self {
        Self { mails: self.mails.saturating_add(1), bytes: self.bytes.saturating_add(bytes) }
    }

    fn minus(self, bytes: u64) -> Self {
        Self { mails: self.mails.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) }
    }
}

/// A peer or a class: the room it holds and the mails it has waiting.
#[derive(Debug, Default)]
struct Member<T> {
    held: Load,
    /// Its key in the set of those that may go; `None` for a class with nothing waiting and for a peer without a
    /// class that may take more.
    ready: Option<(u64, u64)>,
    queue: T,
}

type Mails = BTreeMap<Position, (MailId, u64)>;

/// The classes of one peer; those that may go are ordered by (share held, turn).
#[derive(Debug, Default)]
struct Classes {
    members: HashMap<u64, Member<Mails>>,
    ready: BTreeSet<(u64, u64, u64)>,
}

/// Waiting mails, and the room held by those taken.
#[derive(Debug)]
pub struct Lane {
    room: Room,
    held: Load,
    waiting: usize,
    peers: HashMap<u64, Member<Classes>>,
    ready: BTreeSet<(u64, u64, u64)>,
    next_turn: u64,
}

impl Lane {
    /// An empty queue with these bounds.
    pub fn new(room: Room) -> Self {
        Self {
            room,
            held: Load::default(),
            waiting: 0,
            peers: HashMap::new(),
            ready: BTreeSet::new(),
            next_turn: 0,
        }
    }

    /// Room held by mails that were taken and not given back.
    pub fn held(&self) -> Load {
        self.held
    }

    /// Number of waiting mails.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a mail to the queue of its class.
    pub fn push(&mut self, class: Class, position: Position, id: MailId, bytes: u64) {
        let peer = self.peers.entry(class.peer).or_default();
        let member = peer.queue.members.entry(class.domain).or_default();
        if member.queue.insert(position, (id, bytes)).is_none() {
            self.waiting = self.waiting.saturating_add(1);
        }
        self.refresh(class, false);
    }

    /// Removes a waiting mail.
    pub fn remove(&mut self, class: Class, position: Position) {
        let Some(peer) = self.peers.get_mut(&class.peer) else { return };
        let Some(member) = peer.queue.members.get_mut(&class.domain) else { return };
        if member.queue.remove(&position).is_some() {
            self.waiting = self.waiting.saturating_sub(1);
        }
        self.refresh(class, false);
    }

    /// Takes the next mail if there is room for it. It holds that room until [`give_back`](Self::give_back).
    pub fn take(&mut self) -> Option<MailId> {
        let (share, .., peer_key) = *self.ready.first()?;
        if share >= self.room.widest().saturating_sub(self.room.share_of(self.held)) {
            return None;
        }
        let peer = self.peers.get_mut(&peer_key)?;
        let (.., domain) = *peer.queue.ready.first()?;
        let member = peer.queue.members.get_mut(&domain)?;
        let next = member.queue.first_entry()?;
        let bytes = next.get().1;
        if self.held.mails > 0 && self.room.share_of(self.held.plus(bytes)) > ALL {
            return None;
        }
        let (id, _) = next.remove();
        member.held = member.held.plus(bytes);
        peer.held = peer.held.plus(bytes);
        self.held = self.held.plus(bytes);
        self.waiting = self.waiting.saturating_sub(1);
        self.refresh(Class { peer: peer_key, domain }, true);
        Some(id)
    }

    /// Frees the room that a mail of this class held.
    pub fn give_back(&mut self, class: Class, bytes: u64) {
        self.held = self.held.minus(bytes);
        if let Some(peer) = self.peers.get_mut(&class.peer) {
            peer.held = peer.held.minus(bytes);
            if let Some(member) = peer.queue.members.get_mut(&class.domain) {
                member.held = member.held.minus(bytes);
            }
        }
        self.refresh(class, false);
    }

    /// Updates the place of a class and its peer among those that may go; after a turn they go behind their equals.
    fn refresh(&mut self, class: Class, had_turn: bool) {
        self.next_turn = self.next_turn.saturating_add(1);
        let turn = self.next_turn;
        let place = |old: Option<(u64, u64)>, share| {
            (share, old.filter(|_| !had_turn).map_or(turn, |(_, turn)| turn))
        };
        let Some(peer) = self.peers.get_mut(&class.peer) else { return };
        let Classes { members, ready } = &mut peer.queue;
        if let Some(member) = members.get_mut(&class.domain) {
            let new =
                (!member.queue.is_empty()).then(|| place(member.ready, self.room.share_of(member.held)));
            move_to(ready, &mut member.ready, new, class.domain);
            if member.queue.is_empty() && member.held.mails == 0 {
                members.remove(&class.domain);
            }
        }
        // A peer with no class that may take more must not block the peers behind it.
        let held = self.room.share_of(peer.held);
        let bound = self.room.share.min((self.room.widest() / 2).saturating_sub(held));
        let new = ready.first().filter(|(share, ..)| *share < bound).map(|_| place(peer.ready, held));
        let gone = members.is_empty();
        move_to(&mut self.ready, &mut peer.ready, new, class.peer);
        if gone {
            self.peers.remove(&class.peer);
        }
    }
}

fn move_to(
    ready: &mut BTreeSet<(u64, u64, u64)>,
    known: &mut Option<(u64, u64)>,
    new: Option<(u64, u64)>,
    key: u64,
) {
    if *known != new {
        if let Some((share, turn)) = known.take() {
            ready.remove(&(share, turn, key));
        }
        if let Some((share, turn)) = new {
            ready.insert((share, turn, key));
        }
        *known = new;
    }
}

impl Room {
    /// Bound on what all peers hold together if each leaves as much free as it holds. More than the whole room if a
    /// class may hold more than a quarter.
    fn widest(self) -> u64 {
        ALL.max(self.share.saturating_mul(4))
    }

    /// Part of the room that a load takes, in millionths: of the mails or of the bytes, whichever is more.
    fn share_of(&self, load: Load) -> u64 {
        let part = |held: u64, all: u64| held.saturating_mul(ALL) / all.max(1);
        part(load.mails as u64, self.mails as u64).max(part(load.bytes, self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn room(mails: usize, bytes: u64) -> Room {
        Room { mails, bytes, share: ALL / 4 }
    }

    fn class(peer: u64, domain: u64) -> Class {
        Class { peer, domain }
    }

    /// Fills a lane with waiting mails of each class and takes mails until there is no room; returns the count for
    /// each.
    fn taken(room: Room, waiting: &[(Class, u32, u64)]) -> Vec<usize> {
        let mut lane = Lane::new(room);
        let mut order = 0;
        for (index, &(class, count, bytes)) in waiting.iter().enumerate() {
            for _ in 0..count {
                order += 1;
                lane.push(class, (Duration::ZERO, order), MailId::from_bytes([index as u8; 32]), bytes);
            }
        }
        let mut taken = vec![0; waiting.len()];
        while let Some(id) = lane.take() {
            taken[usize::from(id.as_bytes()[0])] += 1;
        }
        assert_eq!(lane.waiting() + taken.iter().sum::<usize>(), order as usize);
        taken
    }

    #[test]
    fn a_class_alone_gets_its_share_and_many_leave_room_for_one_more() {
        assert_eq!(taken(room(128, 1 << 30), &[(class(1, 1), 999, 1)]), [32]);
        assert_eq!(
            taken(room(128, 1 << 30), &[(class(1, 1), 999, 1), (class(1, 2), 999, 1), (class(1, 3), 1, 1)]),
            [22, 21, 1],
            "behind one gateway"
        );
        assert_eq!(
            taken(room(128, 1 << 30), &[(class(1, 1), 999, 1), (class(2, 1), 999, 1), (class(3, 1), 999, 1)]),
            [32, 32, 32]
        );
        let strangers: Vec<_> = (0..200).map(|n| (class(7, n), 9, 1)).chain([(class(8, 1), 9, 1)]).collect();
        let taken = taken(room(128, 1 << 30), &strangers);
        assert_eq!(taken.last(), Some(&9), "another peer");
        assert!(taken[..200].iter().all(|&n| n <= 1), "{taken:?}");
    }

    #[test]
    fn a_peer_whose_only_class_is_full_stands_before_nobody() {
        let mut lane = Lane::new(room(128, 1 << 30));
        let mut order = 0;
        let mut push = |lane: &mut Lane, class| {
            order += 1;
            lane.push(class, (Duration::ZERO, order), MailId::from_bytes([class.domain as u8; 32]), 1);
        };
        // A stranger's class holds its quarter; ten domains behind the gateway together hold more than that.
        for _ in 0..99 {
            push(&mut lane, class(1, 99));
        }
        for domain in 0..10 {
            for _ in 0..4 {
                push(&mut lane, class(2, domain));
            }
        }
        let taken = std::iter::from_fn(|| lane.take()).count();
        assert_eq!((taken, lane.held().mails), (72, 72));
        push(&mut lane, class(2, 50));
        assert_eq!(lane.take(), Some(MailId::from_bytes([50; 32])), "before: waited for the stranger's");
    }

    #[test]
    fn bytes_count_like_mails_and_one_too_large_goes_alone() {
        // A quarter of 64 MiB is 16 MiB: a second mail of 10 MiB goes because the class is below its share, a third
        // does not.
        const MIB: u64 = 1 << 20;
        assert_eq!(taken(room(128, 64 * MIB), &[(class(1, 1), 9, 10 * MIB)]), [2]);
        assert_eq!(taken(room(128, 64 * MIB), &[(class(1, 1), 9, 100 * MIB)]), [1]);
        let many: Vec<_> = (0..9).map(|n| (class(n, n), 9, 10 * MIB)).collect();
        assert!(taken(room(128, 64 * MIB), &many).iter().sum::<usize>() <= 6);
    }

    #[test]
    fn a_mail_returned_or_removed_leaves_nothing_behind() {
        let mut lane = Lane::new(room(1, 100));
        lane.push(class(1, 1), (Duration::ZERO, 1), MailId::from_bytes([1; 32]), 10);
        lane.push(class(2, 1), (Duration::ZERO, 2), MailId::from_bytes([2; 32]), 10);
        assert_eq!(lane.take(), Some(MailId::from_bytes([1; 32])));
        assert_eq!(lane.take(), None);
        lane.remove(class(2, 1), (Duration::ZERO, 2));
        lane.give_back(class(1, 1), 10);
        assert_eq!(
            (lane.held(), lane.waiting(), lane.peers.len(), lane.ready.len()),
            (Load::default(), 0, 0, 0)
        );
    }

    proptest! {
        #[test]
        fn takes_while_any_class_may_and_never_beyond_a_bound(
            ops in prop::collection::vec((0u8..3, 0u64..4, 0u64..5), 0..200),
            share in prop::sample::select(vec![ALL / 20, ALL / 4, ALL]),
        ) {
            let room = Room { mails: 12, bytes: 1 << 30, share };
            let mut lane = Lane::new(room);
            let (mut order, mut taken) = (0u64, Vec::new());
            let mut classes: HashMap<MailId, Class> = HashMap::new();
            let mut waiting: HashMap<Class, usize> = HashMap::new();
            for (op, peer, domain) in ops {
                match op {
                    0 | 1 => {
                        order += 1;
                        let id = MailId::of(&order.to_le_bytes());
                        classes.insert(id, class(peer, domain));
                        *waiting.entry(class(peer, domain)).or_default() += 1;
                        lane.push(class(peer, domain), (Duration::ZERO, order), id, 1);
                    }
                    _ if taken.is_empty() => {}
                    _ => {
                        let id: MailId = taken.swap_remove(usize::try_from(peer * 5 + domain).unwrap() % taken.len());
                        lane.give_back(classes[&id], 1);
                    }
                }
                while let Some(id) = lane.take() {
                    *waiting.get_mut(&classes[&id]).unwrap() -= 1;
                    taken.push(id);
                }
                let held = |of: &dyn Fn(Class) -> bool| {
                    let mails = taken.iter().filter(|id| of(classes[*id])).count();
                    room.share_of(Load { mails, bytes: 0 })
                };
                prop_assert!(taken.len() <= 12);
                for (&class, _) in waiting.iter().filter(|(_, mails)| **mails > 0) {
                    let of_peer = held(&|other| other.peer == class.peer);
                    let left = (room.widest() / 2).saturating_sub(of_peer);
                    let class_full = held(&|other| other == class) >= share.min(left);
                    let peer_full = of_peer >= room.widest().saturating_sub(held(&|_| true));
                    prop_assert!(class_full || peer_full || taken.len() == 12, "{class:?} might go");
                }
            }
            prop_assert_eq!(lane.held().mails, taken.len());
        }
    }
}
