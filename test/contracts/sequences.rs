// SPDX-License-Identifier: Apache-2.0
//! Random sequences of calls: the contracts do what a model of a few lines does.

use std::collections::BTreeMap;

use chain::{Revert, Terms};
use mail::Role;
use proptest::{
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use crate::{
    contracts::revert,
    ledger::fixture::{Kind, World, anchor},
};

/// Sequences, and calls in each: a call of the embedded chain takes some milliseconds.
const SEQUENCES: u32 = 12;
const CALLS: usize = 40;

#[derive(Clone, Debug)]
enum Call {
    Register(u8, Terms),
    Revoke(u8),
    /// So many leaves, so far from where the sequence is.
    Anchor(i64, usize),
}

fn call() -> impl Strategy<Value = Call> {
    let times = || prop::option::of(1_u64..5);
    let terms = (select(&[Role::None, Role::Observer, Role::Operator]), times(), times(), any::<bool>());
    let terms = terms.prop_map(|(role, valid_from, valid_until, is_pinned)| Terms {
        role,
        valid_from,
        valid_until,
        dkim_key: is_pinned.then_some([6; 32]),
    });
    let gap = prop_oneof![6 => Just(0_i64), 1 => -3_i64..3];
    prop_oneof![
        (0..4_u8, terms).prop_map(|(sender, terms)| Call::Register(sender, terms)),
        (0..4_u8).prop_map(Call::Revoke),
        (gap, 0..4_usize).prop_map(|(gap, count)| Call::Anchor(gap, count)),
    ]
}

#[tokio::test]
async fn the_contracts_do_what_a_model_does() {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    for _ in 0..SEQUENCES {
        let calls = prop::collection::vec(call(), CALLS).new_tree(&mut runner).unwrap().current();
        follow(&calls).await;
    }
}

async fn follow(calls: &[Call]) {
    let world = World::new(Kind::Embedded).await;
    let ledger = world.ledger().await;
    // In the order of their coming: the terms, and whether they are revoked.
    let (mut order, mut senders, mut next) = (Vec::new(), BTreeMap::new(), 0_u64);
    for call in calls {
        match *call {
            Call::Register(sender, terms) => {
                let registered = ledger.register([sender; 32], terms).await;
                let (from, until) = (terms.valid_from.unwrap_or(0), terms.valid_until.unwrap_or(0));
                if terms.role == Role::None {
                    assert_eq!(revert(registered), Revert::BadRole(0), "{calls:?}");
                    continue;
                }
                if until != 0 && until <= from {
                    assert_eq!(revert(registered), Revert::BadValidity { from, until }, "{calls:?}");
                    continue;
                }
                registered.unwrap();
                if senders.insert(sender, (terms, false)).is_none() {
                    order.push(sender);
                }
            }
            Call::Revoke(sender) => {
                ledger.revoke([sender; 32]).await.unwrap();
                if !senders.contains_key(&sender) {
                    order.push(sender);
                }
                senders.entry(sender).or_insert((Terms::default(), true)).1 = true;
            }
            Call::Anchor(gap, count) => {
                let first = next.saturating_add_signed(gap);
                let anchored = anchor(&ledger, first, vec![[1; 32]; count]).await;
                if count == 0 {
                    assert_eq!(revert(anchored), Revert::EmptyBatch, "{calls:?}");
                } else if first != next {
                    assert_eq!(revert(anchored), Revert::OutOfOrder { next, first }, "{calls:?}");
                } else {
                    anchored.unwrap();
                    next += count as u64;
                }
            }
        }
    }
    assert_eq!(ledger.next_index().await.unwrap(), next, "{calls:?}");
    let (listed, count) = ledger.list_senders(0, 99).await.unwrap();
    assert_eq!(count, order.len() as u64);
    let listed: Vec<_> = listed
        .into_iter()
        .map(|(digest, sender)| (digest[0], (sender.terms, sender.revoked_at.is_some())))
        .collect();
    let expected: Vec<_> = order.iter().map(|sender| (*sender, senders[sender])).collect();
    assert_eq!(listed, expected, "{calls:?}");
}
