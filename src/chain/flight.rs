// SPDX-License-Identifier: Apache-2.0
//! A transaction on its way, with whoever waits for it.
//!
//! [`super::sender`] sends it and looks where it is.

use tokio::{sync::oneshot, time::Instant};
use web3::types::{Bytes, H256, U256};

use crate::{
    InFlight, Mined, WaitsFor,
    account::Call,
    lane::{Ended, Slot},
    submission::{Finality, Head, Submission},
};

/// How many attempts at a transaction are looked for: the newest ones and the oldest.
const LOOKED_AT: usize = 16;

/// Somebody who waits, and since when.
pub struct Waiter<T> {
    pub reply: oneshot::Sender<T>,
    pub since: Instant,
}

impl<T> Waiter<T> {
    pub fn new(reply: oneshot::Sender<T>) -> Self {
        Self { reply, since: Instant::now() }
    }

    pub fn tell(self, result: T) {
        // Whoever waited may have gone.
        let _ = self.reply.send(result);
    }
}

/// A transaction on its way.
pub struct Flight {
    pub call: Call,
    /// Gas limit of each attempt.
    pub gas: U256,
    pub submission: Submission,
    pub began: Instant,
    /// Whether it is one of the sequence.
    pub in_sequence: bool,
    pub waiter: Option<Waiter<Ended>>,
    /// Until it is in a block.
    pub slot: Option<Slot>,
    /// When a node last took it; `None` if it was not taken, or if that is not known.
    pub taken: Option<Instant>,
    /// Where the last look found it, and whether it had an effect there.
    pub mined: Option<(Mined, bool)>,
    /// Whether the node wants more for the newest attempt.
    pub is_cheap: bool,
    pub waits_for: WaitsFor,
}

impl Flight {
    pub fn new(call: Call, gas: U256, submission: Submission) -> Self {
        Self {
            call,
            gas,
            submission,
            began: Instant::now(),
            in_sequence: false,
            waiter: None,
            slot: None,
            taken: None,
            mined: None,
            is_cheap: false,
            waits_for: WaitsFor::Block,
        }
    }

    pub fn newest(&self) -> Option<H256> {
        self.submission.newest().map(|newest| newest.hash)
    }

    pub fn raw(&self) -> Bytes {
        self.submission.newest().map(|newest| newest.raw.clone()).unwrap_or_default()
    }

    /// The attempts to look for.
    pub fn hashes(&self) -> Vec<H256> {
        let mut hashes: Vec<_> = self.submission.hashes().collect();
        if hashes.len() > LOOKED_AT {
            hashes.drain(LOOKED_AT - 1..hashes.len() - 1);
        }
        hashes
    }

    pub fn has_failed(&self) -> bool {
        matches!(self.mined, Some((_, false)))
    }

    pub fn has_waiter(&self) -> bool {
        self.waiter.as_ref().is_some_and(|waiter| !waiter.reply.is_closed())
    }

    pub fn tell(&mut self, ended: Ended) {
        if let Some(waiter) = self.waiter.take() {
            waiter.tell(ended);
        }
    }

    pub fn in_flight(&self, count: usize, head: Option<&Head>) -> InFlight {
        InFlight {
            count,
            action: self.call.action,
            transaction: self.newest(),
            blocks: head.map_or(0, |head| self.submission.blocks(head.number)),
            waits_for: self.waits_for.clone(),
            is_late: false,
        }
    }
}

/// What a transaction waits for that no look has sent again.
pub fn waits_for(mined: Option<&(Mined, bool)>, head: &Head, finality: Finality) -> WaitsFor {
    let Some((Mined { block_number: block, .. }, _)) = mined else { return WaitsFor::Block };
    match finality {
        Finality::Confirmations(of) => WaitsFor::Confirmations { have: head.confirmations(*block), of },
        Finality::Finalized => {
            WaitsFor::Finality { block: *block, finalized: head.finalized.unwrap_or_default() }
        }
    }
}
