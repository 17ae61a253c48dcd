//! A fair queue: which mail goes next while classes and their peers hold no more than their part of the room. Pure.
//!
//! # Invariants
//! - The class that holds the least of the room goes first, of equals the one that has waited longest for its turn; so
//!   a class that holds nothing waits for no backlog of others.
//! - A class takes no more while it holds its share, or as much as its peer has left; a peer takes no more while it
//!   holds as much as all have left. So some room is left for whoever has none, however many have.
//! - Room is counted in mails and in bytes; what is nearer to its bound counts. A mail larger than all of the room goes
//!   when it is alone.

mod class;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(crate) use class::registered;
pub use class::{Class, author_domain, network};

use crate::mail::MailId;

/// All of the room, as a share.
const ALL: u64 = 1_000_000;

/// When a mail's turn comes within its class.
pub type Position = (std::time::Duration, u64);

/// Room for mails in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Mails, at most.
    pub mails: usize,
    /// Bytes of mails, at most; a larger mail goes alone.
    pub bytes: u64,
    /// The part that a class may hold, in millionths; a peer may hold twice as much.
    pub share: u64,
}

/// Mails in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Mails.
    pub mails: usize,
    /// Their size, bytes.
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

/// What a peer or a class holds and has waiting.
#[derive(Debug, Default)]
struct Member<T> {
    held: Load,
    /// Its place among the ready; `None`: it has nothing waiting, or, of a peer, no class that may take more.
    ready: Option<(u64, u64)>,
    queue: T,
}

type Mails = BTreeMap<Position, (MailId, u64)>;

/// Members of one peer by (share held, turn).
#[derive(Debug, Default)]
struct Classes {
    members: HashMap<u64, Member<Mails>>,
    ready: BTreeSet<(u64, u64, u64)>,
}

/// Mails that wait, and what is held by those taken.
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
    /// An empty queue for this room.
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

    /// What is held by mails taken and not returned.
    pub fn held(&self) -> Load {
        self.held
    }

    /// Mails that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a mail that waits.
    pub fn push(&mut self, class: Class, position: Position, id: MailId, bytes: u64) {
        let peer = self.peers.entry(class.peer).or_default();
        let member = peer.queue.members.entry(class.domain).or_default();
        if member.queue.insert(position, (id, bytes)).is_none() {
            self.waiting = self.waiting.saturating_add(1);
        }
        self.refresh(class, false);
    }

    /// Removes a mail that waits.
    pub fn remove(&mut self, class: Class, position: Position) {
        let Some(peer) = self.peers.get_mut(&class.peer) else { return };
        let Some(member) = peer.queue.members.get_mut(&class.domain) else { return };
        if member.queue.remove(&position).is_some() {
            self.waiting = self.waiting.saturating_sub(1);
        }
        self.refresh(class, false);
    }

    /// The mail that goes next, if there is room for it; it holds room until it is returned.
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

    /// The room that a mail held is free again.
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

    /// Puts a class and its peer where they now belong among the ready, behind their equals if they had their turn.
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
        // A peer none of whose classes may take more is not ready: it must not stand before those that may.
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
    /// What all peers together may hold if each leaves as much as it holds; more than all if a class may hold more than
    /// a quarter.
    fn widest(self) -> u64 {
        ALL.max(self.share.saturating_mul(4))
    }

    /// The part of the room that a load is, in millionths; of mails or of bytes, whichever is more.
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

    /// A lane with mails of each class waiting, and what it gives until there is no more room.
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
        // A stranger's class holds its quarter; behind the gateway ten domains hold more than that together.
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
        // A quarter of 64 MiB is 16 MiB: a second mail of 10 MiB is taken as the class is below its share, no third.
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
