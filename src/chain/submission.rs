// SPDX-License-Identifier: Apache-2.0
//! Decides how one transaction gets into a final block. Pure.
//!
//! A submission holds one nonce. It has made one or more attempts at it: the same call, signed with rising fees, of
//! which the chain takes one. `Submitted -> Mined -> Final`; each look at the chain may take a step back, as a
//! reorganisation does:
//!
//! | the chain shows | next |
//! |---|---|
//! | an attempt in a block | wait for its confirmations |
//! | the newest attempt in the pool | wait |
//! | the newest attempt nowhere | the pool has dropped it: send it again |
//! | a base fee above what the newest attempt pays | pay more |
//! | no attempt in a block after [`PATIENCE_BLOCKS`] | pay more, if it is the account's next one |
//! | the nonce used, by none of the attempts | re-sign with a new nonce |
//! | a nonce before all of theirs free for [`PATIENCE_BLOCKS`], as after a reorganisation | re-sign all from there on |
//!
//! An account has many submissions at a time, which the chain takes in the order of their nonces. The next one is that
//! with the lowest nonce of those in no block.
//!
//! Sending, signing and time are left to [`super::sender`].

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use web3::types::{Address, Bytes, H256, U256};

/// Blocks after which an attempt that is not mined is replaced by one that pays more.
pub const PATIENCE_BLOCKS: u64 = 3;
/// How long a nonce must look used before that is believed: of several nodes behind an endpoint, the one that shows
/// receipts may lag behind the one that counts.
const LAG: Duration = Duration::from_secs(2);
/// The same as [`PATIENCE_BLOCKS`] for a free nonce, on a chain that makes blocks only when it has something to put
/// there.
const GAP_PATIENCE: Duration = Duration::from_secs(36);

/// What a transaction pays per gas, at most [wei] (EIP-1559).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fees {
    /// Base fee and tip together.
    pub max_fee: U256,
    /// Tip.
    pub tip: U256,
}

impl Fees {
    /// What to pay on a chain that asks for `price`, of which `tip` is the tip: the base fee may double before the
    /// transaction is mined. Never more than `cap`.
    pub fn of(price: U256, tip: U256, cap: U256) -> Self {
        Self { max_fee: price.saturating_mul(2.into()).saturating_add(tip), tip }.at_most(cap)
    }

    fn at_most(self, cap: U256) -> Self {
        Self { max_fee: self.max_fee.min(cap), tip: self.tip.min(cap) }
    }

    /// What a replacement must pay, at least: nodes want a tenth more of both (go-ethereum's `txpool.pricebump`), this
    /// is an eighth.
    fn raised(self) -> Self {
        let raise = |fee: U256| fee.saturating_add(fee / 8).saturating_add(1.into());
        Self { max_fee: raise(self.max_fee), tip: raise(self.tip) }
    }

    /// What to pay instead if `quote` is today's price; `None` if that exceeds `cap`.
    pub fn replaced(self, quote: Self, cap: U256) -> Option<Self> {
        let least = self.raised();
        let wanted = Self { max_fee: least.max_fee.max(quote.max_fee), tip: least.tip.max(quote.tip) };
        let fees = wanted.at_most(cap);
        (fees.max_fee >= least.max_fee && fees.tip >= least.tip).then_some(fees)
    }
}

/// One signed transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its hash.
    pub hash: H256,
    /// Its bytes, as they are sent.
    pub raw: Bytes,
    /// What it pays.
    pub fees: Fees,
}

/// A transaction that has its confirmations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mined {
    /// Hash of the transaction.
    pub transaction: H256,
    /// Number of its block.
    pub block_number: u64,
    /// Hash of its block.
    pub block_hash: H256,
    /// Gas that it used.
    pub gas_used: u64,
    /// What was paid for it [wei]; 0 if the node does not say.
    pub fee: U256,
    /// Address of the contract that it created, if any.
    pub created: Option<Address>,
}

/// When a block counts as final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// With so many confirmations, of which it is the first.
    Confirmations(u64),
    /// Once the chain says so (the tag `finalized` of Ethereum's execution API).
    Finalized,
}

impl fmt::Display for Finality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmations(1) => write!(f, "once it is in a block"),
            Self::Confirmations(count) => write!(f, "with {count} confirmations"),
            Self::Finalized => write!(f, "once its block is finalized"),
        }
    }
}

/// The newest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: H256,
    /// Its time [s since 1970].
    pub timestamp: u64,
    /// Its base fee [wei]; zero before EIP-1559.
    pub base_fee: U256,
    /// Number of the newest block that is finalized, if that was asked.
    pub finalized: Option<u64>,
}

impl Head {
    /// Confirmations of block `number`, which counts as its own first; none if the node that showed this head lags
    /// behind the one that showed the block.
    pub fn confirmations(&self, number: u64) -> u64 {
        self.number.saturating_add(1).saturating_sub(number)
    }

    /// Whether block `number` is final.
    pub fn is_final(&self, number: u64, finality: Finality) -> bool {
        match finality {
            Finality::Confirmations(confirmations) => self.confirmations(number) >= confirmations,
            Finality::Finalized => self.finalized.is_some_and(|finalized| number <= finalized),
        }
    }
}

/// What one look at the chain shows of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// An attempt is in a block, and whether it succeeded there.
    Mined(Mined, bool),
    /// No attempt is in a block.
    Pool {
        /// The nonce of the account's next transaction, by the newest block.
        nonce: U256,
        /// Whether the node knows the newest attempt.
        known: bool,
    },
}

/// What to do next about a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look again later.
    Wait,
    /// Send the newest attempt again.
    Resend,
    /// Make an attempt that pays more.
    Raise,
    /// Begin again with another nonce.
    Renew,
    /// Nothing: it is final.
    Final(Mined),
    /// Nothing: it was mined and had no effect. Unless that is final, a reorganisation may still change it.
    Failed {
        /// The transaction.
        transaction: H256,
        /// Whether that is final.
        is_final: bool,
    },
}

/// One nonce, and the attempts at it.
#[derive(Clone, Debug)]
pub struct Submission {
    nonce: U256,
    /// Oldest first, at least one.
    attempts: Vec<Attempt>,
    /// The highest fees that were tried, accepted or not.
    tried: Fees,
    /// The newest block when the newest attempt was made.
    attempted: Option<u64>,
    /// The newest block when the newest attempt was made, or when this became the next one, whichever is later.
    since: Option<u64>,
    /// The newest block at the first look.
    began: Option<u64>,
    /// Since when the nonce looks used by none of the attempts.
    taken: Option<Duration>,
    /// The newest block, and the time, when a nonce before this one was first seen to be free.
    gap: Option<(u64, Duration)>,
}

impl Submission {
    /// A submission whose first attempt was just made.
    pub fn new(nonce: U256, first: Attempt) -> Self {
        Self {
            nonce,
            tried: first.fees,
            attempts: vec![first],
            attempted: None,
            since: None,
            began: None,
            taken: None,
            gap: None,
        }
    }

    /// A submission that an earlier process has begun; `None` without attempts.
    pub fn resumed(nonce: U256, attempts: Vec<Attempt>) -> Option<Self> {
        let mut submission = Self::new(nonce, attempts.first()?.clone());
        submission.attempts = attempts;
        submission.accepted();
        Some(submission)
    }

    /// Begins again with another nonce.
    pub fn renew(&mut self, nonce: U256, first: Attempt) {
        *self = Self { began: self.began, ..Self::new(nonce, first) };
    }

    /// Its attempts, oldest first.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Its nonce.
    pub fn nonce(&self) -> U256 {
        self.nonce
    }

    /// Hashes of its attempts, the newest first.
    pub fn hashes(&self) -> impl Iterator<Item = H256> {
        self.attempts.iter().rev().map(|attempt| attempt.hash)
    }

    /// The newest attempt.
    pub fn newest(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    /// Blocks since the first look, by the newest block `head`.
    pub fn blocks(&self, head: u64) -> u64 {
        head.saturating_sub(self.began.unwrap_or(head))
    }

    /// What to pay instead if `quote` is today's price; `None` if that exceeds `cap`. What a node has refused is raised
    /// the next time, until that is above the cap; then this begins again with what the newest attempt pays.
    pub fn raised(&self, quote: Fees, cap: U256) -> Option<Fees> {
        let newest = || self.newest()?.fees.replaced(quote, cap);
        self.tried.replaced(quote, cap).or_else(newest)
    }

    /// Notes an attempt that is about to be sent in place of the others.
    pub fn attempt(&mut self, attempt: Attempt) {
        self.attempts.push(attempt);
        (self.attempted, self.since) = (None, None);
    }

    /// Notes that the node has accepted the newest attempt.
    pub fn accepted(&mut self) {
        self.tried = self.newest().map_or(self.tried, |newest| newest.fees);
    }

    /// Notes that the node has refused the newest attempt, which is not in its pool; `underpriced`: for its fees. The
    /// first one stays, so that there is always one to send.
    pub fn refused(&mut self, underpriced: bool) {
        if underpriced {
            self.accepted();
        }
        if self.attempts.len() > 1 {
            self.attempts.pop();
        }
    }

    /// Decides what to do after a look at the chain. `is_next`: it has the lowest nonce of the account's submissions
    /// that are in no block. `now` is the time on any clock that does not go back.
    pub fn next(&mut self, view: View, is_next: bool, head: Head, finality: Finality, now: Duration) -> Next {
        // A number that was too high, as of a node on another chain, must not keep this waiting.
        let not_above = |number: Option<u64>| Some(number.unwrap_or(head.number).min(head.number));
        self.began = not_above(self.began);
        (self.attempted, self.since) = (not_above(self.attempted), not_above(self.since));
        let (attempted, since) = (self.attempted.unwrap_or(head.number), self.since.unwrap_or(head.number));
        let (nonce, known) = match view {
            View::Mined(mined, false) => {
                let is_final = head.is_final(mined.block_number, finality);
                return Next::Failed { transaction: mined.transaction, is_final };
            }
            View::Mined(mined, true) => {
                (self.taken, self.gap) = (None, None);
                // If a reorganisation takes it back, it has time again.
                (self.attempted, self.since) = (Some(head.number), Some(head.number));
                let is_final = head.is_final(mined.block_number, finality);
                return if is_final { Next::Final(mined) } else { Next::Wait };
            }
            View::Pool { nonce, known } => (nonce, known),
        };
        if nonce > self.nonce {
            let taken = *self.taken.get_or_insert(now);
            return if now.saturating_sub(taken) < LAG { Next::Wait } else { Next::Renew };
        }
        self.taken = None;
        if is_next && nonce < self.nonce {
            let (block, time) = *self.gap.get_or_insert((head.number, now));
            let is_old = now.saturating_sub(time) >= GAP_PATIENCE;
            if is_old || head.number.saturating_sub(block) >= PATIENCE_BLOCKS {
                return Next::Renew;
            }
        } else {
            self.gap = None;
        }
        if !is_next {
            self.since = Some(head.number);
        }
        let is_outgrown = self.newest().is_some_and(|newest| newest.fees.max_fee < head.base_fee);
        let is_overdue = is_next && head.number.saturating_sub(since) >= PATIENCE_BLOCKS;
        if is_overdue || is_outgrown && head.number > attempted {
            Next::Raise
        } else if known {
            Next::Wait
        } else {
            Next::Resend
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Finality::Confirmations, *};

    const CAP: u64 = 1_000;

    fn attempt(number: u8, max_fee: u64) -> Attempt {
        let fees = Fees { max_fee: max_fee.into(), tip: U256::one() };
        Attempt { hash: H256::repeat_byte(number), raw: Bytes::default(), fees }
    }

    fn head(number: u64) -> Head {
        let hash = H256::from_low_u64_be(number);
        Head { number, hash, timestamp: 0, base_fee: 10.into(), finalized: number.checked_sub(9) }
    }

    fn pool(nonce: u64, known: bool) -> View {
        View::Pool { nonce: nonce.into(), known }
    }

    fn mined(block_number: u64) -> Mined {
        Mined {
            transaction: H256::repeat_byte(1),
            block_number,
            block_hash: H256::zero(),
            fee: U256::zero(),
            gas_used: 0,
            created: None,
        }
    }

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_block_counts_as_its_own_first_confirmation() {
        let is_confirmed =
            |number, block, confirmations| head(number).is_final(block, Confirmations(confirmations));
        assert!(is_confirmed(7, 7, 1));
        assert!(!is_confirmed(7, 7, 2) && is_confirmed(8, 7, 2));
        assert!(!is_confirmed(8, 7, 3) && is_confirmed(9, 7, 3));
        // This node lags behind the one that returned the receipt.
        assert!(!is_confirmed(6, 7, 1));
        let is_finalized = |number, block| head(number).is_final(block, Finality::Finalized);
        assert!(!is_finalized(8, 0) && is_finalized(9, 0) && !is_finalized(15, 7) && is_finalized(16, 7));
    }

    #[test]
    fn what_the_pool_dropped_is_sent_again_at_once_and_what_is_not_mined_pays_more() {
        let mut submission = Submission::new(4.into(), attempt(1, 100));
        assert_eq!(submission.next(pool(4, true), true, head(7), Confirmations(1), at(0)), Next::Wait);
        assert_eq!(submission.next(pool(4, false), true, head(7), Confirmations(1), at(1)), Next::Resend);
        assert_eq!(submission.next(pool(4, true), true, head(9), Confirmations(1), at(2)), Next::Wait);
        assert_eq!(submission.next(pool(4, true), true, head(10), Confirmations(1), at(3)), Next::Raise);
        submission.attempt(attempt(2, 200));
        assert_eq!(submission.hashes().collect::<Vec<_>>(), [2, 1].map(H256::repeat_byte));
        // The new attempt has its own three blocks.
        assert_eq!(submission.next(pool(4, true), true, head(10), Confirmations(1), at(4)), Next::Wait);
        assert_eq!(submission.next(pool(4, true), true, head(12), Confirmations(1), at(5)), Next::Wait);
        // Also if the node shows the pool's transactions to nobody, or has no room for ours.
        assert_eq!(submission.next(pool(4, false), true, head(13), Confirmations(1), at(6)), Next::Raise);
        assert_eq!(submission.blocks(13), 6);
    }

    #[test]
    fn a_base_fee_that_outgrew_an_attempt_is_not_waited_for() {
        let mut submission = Submission::new(4.into(), attempt(1, 100));
        let dear = |number| Head { base_fee: 101.into(), ..head(number) };
        assert_eq!(submission.next(pool(4, true), true, dear(7), Confirmations(1), at(0)), Next::Wait);
        assert_eq!(submission.next(pool(4, true), true, dear(8), Confirmations(1), at(1)), Next::Raise);
    }

    #[test]
    fn fees_that_a_node_refuses_are_raised_up_to_the_cap_and_offered_again() {
        let (mut submission, cap) = (Submission::new(4.into(), attempt(1, 70)), U256::from(100));
        let raised = |submission: &Submission, price: u64| {
            submission.raised(Fees::of(price.into(), 1.into(), cap), cap).map(|fees| fees.max_fee.as_u64())
        };
        assert_eq!(raised(&submission, 5), Some(79));
        submission.attempt(attempt(2, 79));
        submission.refused(true);
        assert_eq!(raised(&submission, 5), Some(89));
        // The node had another reason: this does not ask for more.
        submission.attempt(attempt(3, 89));
        submission.refused(false);
        assert_eq!(raised(&submission, 5), Some(89));
        submission.attempt(attempt(3, 89));
        submission.refused(true);
        // 101 would be too much.
        assert_eq!(raised(&submission, 5), Some(79));
        assert_eq!(raised(&submission, 1_000), Some(100));
        assert_eq!(submission.hashes().collect::<Vec<_>>(), [H256::repeat_byte(1)]);
        submission.attempt(attempt(4, 100));
        submission.accepted();
        assert_eq!(raised(&submission, 1_000), None);
    }

    #[test]
    fn a_nonce_that_a_reorganisation_freed_is_taken() {
        let mut submission = Submission::new(4.into(), attempt(1, 100));
        assert_eq!(submission.next(pool(3, true), true, head(7), Confirmations(1), at(0)), Next::Wait);
        // The node had lagged.
        assert_eq!(submission.next(pool(4, true), true, head(8), Confirmations(1), at(1)), Next::Wait);
        assert_eq!(submission.next(pool(3, true), true, head(9), Confirmations(1), at(2)), Next::Wait);
        submission.attempt(attempt(2, 200));
        assert_eq!(submission.next(pool(3, true), true, head(12), Confirmations(1), at(3)), Next::Renew);
    }

    #[test]
    fn a_free_nonce_is_taken_after_a_while_also_without_blocks() {
        let mut submission = Submission::new(4.into(), attempt(1, 100));
        let mut look =
            |number, ms| submission.next(pool(3, true), true, head(number), Confirmations(1), at(ms));
        assert_eq!((look(7, 0), look(7, 35_999), look(7, 36_000)), (Next::Wait, Next::Wait, Next::Renew));
    }

    #[test]
    fn a_head_that_was_too_high_delays_nothing() {
        let mut submission = Submission::new(4.into(), attempt(1, 100));
        let mut look = |number| submission.next(pool(4, true), true, head(number), Confirmations(1), at(0));
        assert_eq!([look(u64::MAX), look(7), look(9), look(10)].last(), Some(&Next::Raise));
    }

    #[test]
    fn one_that_waits_for_others_before_it_is_raised_only_if_its_fees_are_outgrown() {
        let mut submission = Submission::new(4.into(), attempt(1, 100));
        let mut look = |nonce: u64, is_next, head: Head| {
            submission.next(pool(nonce, true), is_next, head, Confirmations(1), at(0))
        };
        assert_eq!([look(3, false, head(7)), look(3, false, head(99))], [Next::Wait, Next::Wait]);
        assert_eq!([look(4, true, head(99)), look(4, true, head(101))], [Next::Wait, Next::Wait]);
        assert_eq!(look(4, true, head(102)), Next::Raise);
        assert_eq!(look(3, false, Head { base_fee: 101.into(), ..head(103) }), Next::Raise);
    }

    #[test]
    fn a_nonce_that_another_transaction_took_is_given_up_after_a_while() {
        let mut submission = Submission::new(4.into(), attempt(1, 100));
        assert_eq!(submission.next(pool(5, false), true, head(7), Confirmations(1), at(0)), Next::Wait);
        assert_eq!(submission.next(pool(5, false), true, head(8), Confirmations(1), at(1_999)), Next::Wait);
        // The node had lagged.
        assert_eq!(
            submission.next(View::Mined(mined(7), true), true, head(8), Confirmations(3), at(2_000)),
            Next::Wait
        );
        assert_eq!(submission.next(pool(5, false), true, head(8), Confirmations(3), at(2_001)), Next::Wait);
        assert_eq!(submission.next(pool(5, false), true, head(8), Confirmations(3), at(4_001)), Next::Renew);
    }

    #[test]
    fn a_block_that_is_replaced_takes_the_transaction_back() {
        let mut submission = Submission::new(4.into(), attempt(1, 100));
        assert_eq!(
            submission.next(View::Mined(mined(7), true), true, head(7), Confirmations(2), at(0)),
            Next::Wait
        );
        assert_eq!(submission.next(pool(4, false), true, head(7), Confirmations(2), at(1)), Next::Resend);
        assert_eq!(
            submission.next(View::Mined(mined(8), true), true, head(8), Confirmations(2), at(2)),
            Next::Wait
        );
        assert_eq!(
            submission.next(View::Mined(mined(8), true), true, head(9), Confirmations(2), at(3)),
            Next::Final(mined(8))
        );
        let failed = submission.next(View::Mined(mined(8), false), true, head(9), Confirmations(2), at(3));
        assert_eq!(failed, Next::Failed { transaction: H256::repeat_byte(1), is_final: true });
    }

    proptest! {
        #[test]
        fn a_replacement_pays_an_eighth_more_of_both_and_never_more_than_the_cap(
            max_fee in 0..2 * CAP, tip in 0..CAP, price in any::<u64>(), quoted_tip in any::<u64>(),
        ) {
            let (fees, cap) = (Fees { max_fee: max_fee.into(), tip: tip.min(max_fee).into() }, CAP.into());
            let quote = Fees::of(price.into(), quoted_tip.into(), cap);
            prop_assert!(quote.max_fee <= cap && quote.tip <= quote.max_fee);
            match fees.replaced(quote, cap) {
                Some(new) => {
                    prop_assert!(new.max_fee <= cap && new.tip <= new.max_fee);
                    prop_assert!(new.max_fee * 8 > fees.max_fee * 9 && new.tip * 8 > fees.tip * 9);
                }
                None => prop_assert!(fees.raised().max_fee > cap),
            }
        }

        #[test]
        fn no_price_that_an_endpoint_names_overflows(price in any::<[u8; 32]>(), tip in any::<[u8; 32]>()) {
            let (price, tip) = (U256::from(price), U256::from(tip));
            let fees = Fees::of(price, tip, U256::MAX);
            prop_assert!(fees.max_fee >= price.max(tip));
            prop_assert!(Fees::of(price, tip, CAP.into()).max_fee <= CAP.into());
        }
    }
}
