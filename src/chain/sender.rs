// SPDX-License-Identifier: Apache-2.0
//! The task that sends the transactions of one account. Each look at the chain is a look at all of them;
//! [`super::submission`] decides what it means for each.
//!
//! Whoever asks for transactions does so through [`super::lane`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use web3::types::{Address, U256};

use crate::{
    LedgerError, Mined, WaitsFor,
    account::{Account, Call, FIRST_POLL, LAST_POLL, action},
    flight::{Flight, Waiter, waits_for},
    lane::{Ended, Request},
    progress::Progress,
    submission::{Fees, Head, Next, Submission, View},
    transactions::{Kept, TransactionsFile},
};

/// Most transactions that are signed and sent together.
const BURST: usize = 64;
/// How long the node's quote of its fees is used for new transactions.
const QUOTED: Duration = Duration::from_secs(1);
/// How long to wait for more transactions to send together with one.
const GATHERING: Duration = Duration::from_millis(2);
/// How long a transaction is believed to be in the pool after a node took it.
const POOLED: Duration = Duration::from_millis(500);
/// No node is so many blocks ahead of another.
const FAR: u64 = 64;
/// With more transactions in flight, a call of the sequence keeps its slot until it is final, so that there are not
/// many more.
const MANY: usize = 1024;

/// Why a transaction is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It is new, or has a new nonce.
    First,
    /// The pool has dropped it.
    Dropped,
    /// It pays more than the attempt before.
    Raised,
    /// It cannot pay more.
    AtTheLimit,
}

/// The task, and what it knows.
pub(super) struct Sender {
    account: Account,
    /// `None` on the embedded chain, which has no pool.
    file: Option<Arc<TransactionsFile>>,
    /// Whether the file must be written before anything is sent.
    is_dirty: bool,
    progress: Arc<Progress>,
    broken: watch::Sender<bool>,
    /// In the order of their nonces.
    flights: Vec<Flight>,
    resting: Vec<Waiter<Result<(), LedgerError>>>,
    /// Gas limit of the newest call of the sequence.
    gas: Option<U256>,
    quote: Option<(Fees, Instant)>,
    /// The newest block at the last look.
    head: Option<Head>,
    /// The account's next nonce at the last look.
    next_nonce: U256,
    /// The highest block that had a transaction of ours, or that confirmed one, and when it was seen.
    progressed: (u64, Instant),
    /// Pause before the next look.
    pause: Duration,
    due: Instant,
}

impl Sender {
    /// A sender that takes up what was kept.
    pub fn new(
        account: Account,
        file: Option<TransactionsFile>,
        kept: Vec<Kept>,
        progress: Arc<Progress>,
        broken: watch::Sender<bool>,
    ) -> Self {
        let resume = |(call, gas, submission): (Call, U256, Submission)| {
            tracing::info!(action = call.action, transaction = ?submission.newest().map(|newest| newest.hash),
                "an earlier process has sent this transaction");
            Flight::new(call, gas, submission)
        };
        let now = Instant::now();
        Self {
            account,
            file: file.map(Arc::new),
            is_dirty: false,
            progress,
            broken,
            flights: kept.into_iter().filter_map(Kept::resume).map(resume).collect(),
            resting: Vec::new(),
            gas: None,
            quote: None,
            head: None,
            next_nonce: U256::zero(),
            progressed: (0, now),
            pause: FIRST_POLL,
            // Whoever asks for one of those that were kept gets it.
            due: now + FIRST_POLL,
        }
    }

    /// Does what it is asked for until nobody can ask any more.
    pub async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut received = Vec::new();
        loop {
            let has_work = self.is_dirty || !self.flights.is_empty();
            tokio::select! {
                count = requests.recv_many(&mut received, BURST) => if count == 0 { return },
                () = sleep_until(self.due), if has_work => {}
            }
            if !received.is_empty() && !self.flights.is_empty() {
                sleep(GATHERING).await;
                while received.len() < BURST
                    && let Ok(request) = requests.try_recv()
                {
                    received.push(request);
                }
            }
            self.admit(received.drain(..)).await;
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "transactions stay in flight");
                if let Some(flight) = self.reported() {
                    self.progress.silent(flight.in_flight(self.flights.len(), self.head.as_ref()), &error);
                }
            }
            self.end_waits();
            self.due = Instant::now() + self.pause;
            self.pause = (self.pause * 2).clamp(FIRST_POLL, LAST_POLL);
        }
    }

    /// Signs and sends what is asked for.
    async fn admit(&mut self, requests: impl Iterator<Item = Request>) {
        let mut calls = Vec::new();
        for request in requests {
            match request {
                Request::Rest(reply) => self.resting.push(Waiter::new(reply)),
                // Whoever wanted it may have gone.
                Request::Send { reply, .. } if reply.is_closed() => {}
                Request::Send { call, slot, reply } => calls.push((call, slot, reply)),
            }
        }
        let first = self.flights.len();
        let mut silence = None;
        for (call, slot, reply) in calls {
            let (action, to, in_sequence) = (call.action, call.to, slot.is_some());
            if let Some(flight) = self.the_same(&call) {
                (flight.in_sequence, flight.slot, flight.waiter) =
                    (in_sequence, slot, Some(Waiter::new(reply)));
                continue;
            }
            let prepared = match &silence {
                Some(reason) => Err(LedgerError::Unreachable { action, reason: String::clone(reason) }),
                None => self.prepare(call, in_sequence).await,
            };
            match prepared {
                Ok(mut flight) => {
                    (flight.waiter, flight.slot) = (Some(Waiter::new(reply)), slot);
                    self.flights.push(flight);
                    self.is_dirty = true;
                }
                Err(LedgerError::Reverted { .. }) if !in_sequence && self.has_another(to) => {
                    // What it lacks may be what the other one brings.
                    let reason = "an earlier one is in no block yet".to_owned();
                    Waiter::new(reply).tell(Err(LedgerError::Conflict { action, reason }));
                }
                Err(error) => {
                    if let LedgerError::Unreachable { reason, .. } = &error {
                        silence = Some(reason.clone());
                    }
                    self.break_sequence(in_sequence);
                    Waiter::new(reply).tell(Err(error));
                }
            }
        }
        if self.flights.len() == first {
            return;
        }
        self.pause = Duration::ZERO;
        let new = (first..self.flights.len()).map(|place| (place, Why::First)).collect();
        let mut refused = match self.send(new).await {
            Ok(refused) => refused,
            Err(LedgerError::Disk { path, reason, .. }) => {
                for mut flight in self.flights.drain(first..) {
                    let (action, path, reason) = (flight.call.action, path.clone(), reason.clone());
                    flight.tell(Err(LedgerError::Disk { action, path, reason }));
                }
                return self.break_sequence(true);
            }
            // The node may have them; the next look tells.
            Err(_) => return,
        };
        // What the node has refused is in no pool. What was accepted behind it waits for it, so it must be sent again.
        while let Some((place, refusal)) = refused.pop()
            && place + 1 == self.flights.len()
            && (is_refusal(&refusal) || !refusal.is_retryable())
        {
            if let Some(mut flight) = self.flights.pop() {
                self.is_dirty = true;
                self.break_sequence(flight.in_sequence);
                flight.tell(Err(refusal));
            }
        }
        if let Err(error) = self.keep().await {
            tracing::warn!(%error, "transactions that were refused are still in the file");
        }
    }

    /// A transaction in flight that does the same, that nobody waits for, that has not failed, and that nothing undoes.
    fn the_same(&mut self, call: &Call) -> Option<&mut Flight> {
        let is_about_it =
            |flight: &&mut Flight| flight.call == *call || call.to.is_some() && flight.call.to == call.to;
        let last = self.flights.iter_mut().rev().find(is_about_it)?;
        (!last.has_waiter() && !last.has_failed() && last.call == *call).then_some(last)
    }

    /// Whether another call of this contract is in no block.
    fn has_another(&self, to: Option<Address>) -> bool {
        self.flights.iter().any(|flight| to.is_some() && flight.call.to == to && flight.mined.is_none())
    }

    /// Notes that a call of the sequence has failed, so that none can come after it.
    fn break_sequence(&mut self, is_broken: bool) {
        if is_broken {
            // It may have run out of gas.
            self.gas = None;
            self.broken.send_replace(true);
        }
    }

    async fn prepare(&mut self, call: Call, in_sequence: bool) -> Result<Flight, LedgerError> {
        let action = call.action;
        if in_sequence && *self.broken.borrow() {
            return Err(LedgerError::out_of_sequence(action));
        }
        let is_next = self.flights.iter().all(|flight| flight.mined.is_some());
        let (nonce, another) = match self.flights.last() {
            Some(last) => (self.next_nonce.max(last.submission.nonce() + 1), false),
            None => self.account.free_nonce(action, &self.progress).await?,
        };
        if self.flights.is_empty() {
            self.next_nonce = nonce;
        }
        let quote = self.quote(action).await?;
        let fees = if another { self.account.doubled(quote) } else { quote };
        let gas = match self.gas {
            // What it needs is in no block yet.
            Some(gas) if in_sequence && !is_next => gas,
            _ => self.account.estimate(&call).await?,
        };
        if in_sequence {
            self.gas = Some(gas);
        }
        let attempt = self.account.sign(&call, nonce, gas, fees).await?;
        Ok(Flight { in_sequence, ..Flight::new(call, gas, Submission::new(nonce, attempt)) })
    }

    async fn quote(&mut self, action: &'static str) -> Result<Fees, LedgerError> {
        match self.quote {
            Some((quote, at)) if at.elapsed() < QUOTED => Ok(quote),
            _ => {
                let quote = self.account.quote(action).await?;
                self.quote = Some((quote, Instant::now()));
                Ok(quote)
            }
        }
    }

    /// Looks at the chain, and does what that asks for.
    async fn look(&mut self) -> Result<(), LedgerError> {
        if self.flights.is_empty() {
            self.progress.clear();
            return self.keep().await;
        }
        let (head, views) = self.views().await?;
        let (finality, now) = (self.account.finality, Instant::now());
        if self.progressed.0 > head.number.saturating_add(FAR) {
            // That block was a mistake.
            self.progressed.0 = head.number;
        }
        let (mut ended, mut actions) = (BTreeMap::new(), Vec::new());
        let (mut is_next, mut is_broken) = (true, false);
        for (place, (flight, view)) in self.flights.iter_mut().zip(views).enumerate() {
            let had_failed = flight.has_failed();
            flight.mined = match &view {
                View::Mined(mined, has_effect) => Some((mined.clone(), *has_effect)),
                View::Pool { .. } => None,
            };
            flight.waits_for = waits_for(flight.mined.as_ref(), &head, finality);
            let progress = flight.mined.as_ref().map_or(0, |(mined, _)| mined.block_number.max(head.number));
            if progress > self.progressed.0 {
                (self.progressed, self.pause) = ((progress, now), Duration::ZERO);
            }
            let is_pooled = flight.mined.is_none();
            let elapsed = now.saturating_duration_since(flight.began);
            match flight.submission.next(view, is_pooled && is_next, head, finality, elapsed) {
                Next::Final(mined) => drop(ended.insert(place, Ok(mined))),
                Next::Failed { transaction, is_final } => {
                    let failed = LedgerError::Failed { action: flight.call.action, transaction };
                    is_broken |= flight.in_sequence && !had_failed;
                    match is_final {
                        true => drop(ended.insert(place, Err(failed))),
                        false => flight.tell(Err(failed)),
                    }
                }
                Next::Wait => {}
                next => actions.push((place, next)),
            }
            is_next &= !is_pooled;
        }
        self.break_sequence(is_broken);
        self.head = Some(head);
        let acted = self.act(actions, &mut ended).await;
        self.end(ended);
        match self.reported() {
            Some(flight) => self.progress.report(flight.in_flight(self.flights.len(), Some(&head)), &head),
            None => self.progress.clear(),
        }
        if self.flights.is_empty() {
            self.keep().await?;
        }
        acted
    }

    /// Where each of the transactions is.
    async fn views(&mut self) -> Result<(Head, Vec<View>), LedgerError> {
        let action = self.reported().map_or(action::ANCHOR, |flight| flight.call.action);
        // What was in a block is there still, unless there is another head.
        let (placed, unplaced): (Vec<_>, Vec<_>) =
            self.flights.iter().partition(|flight| flight.mined.is_some());
        let hashes = |flights: &[&Flight]| flights.iter().map(|flight| flight.hashes()).collect::<Vec<_>>();
        let (head, nonce, found) = self.account.look(action, &hashes(&unplaced)).await?;
        let is_other_head = self.head.is_none_or(|last| last.hash != head.hash);
        let still = match is_other_head && !placed.is_empty() {
            true => self.account.look(action, &hashes(&placed)).await?.2,
            false => placed.iter().map(|flight| flight.mined.clone()).collect(),
        };
        let (mut found, mut still) = (found.into_iter(), still.into_iter());
        let mined: Vec<_> = self
            .flights
            .iter()
            .map(|flight| if flight.mined.is_some() { still.next() } else { found.next() }.flatten())
            .collect();
        // What a node has just taken is in its pool.
        let is_asked_for = |(flight, mined): (&Flight, &Option<_>)| {
            let is_pooled = flight.taken.is_some_and(|taken| taken.elapsed() < POOLED);
            mined.is_none() && (flight.mined.is_some() || !is_pooled)
        };
        let asked: Vec<_> = self.flights.iter().zip(&mined).map(is_asked_for).collect();
        let unknown = self.flights.iter().zip(&asked).filter(|(_, is_asked)| **is_asked);
        // Each has an attempt.
        let unknown: Vec<_> = unknown.map(|(flight, _)| flight.newest().unwrap_or_default()).collect();
        let known = match unknown.is_empty() {
            true => Vec::new(),
            false => self.account.known(action, &unknown).await?,
        };
        self.next_nonce = nonce;
        let mut known = known.into_iter();
        let view = |(mined, is_asked): (Option<(Mined, bool)>, bool)| match mined {
            Some((mined, succeeded)) => View::Mined(mined, succeeded),
            None => View::Pool { nonce, known: !is_asked || known.next().unwrap_or_default() },
        };
        Ok((head, mined.into_iter().zip(asked).map(view).collect()))
    }

    /// Sends what is to be sent again, and gives up what is not.
    async fn act(
        &mut self,
        actions: Vec<(usize, Next)>,
        ended: &mut BTreeMap<usize, Ended>,
    ) -> Result<(), LedgerError> {
        if actions.is_empty() {
            return Ok(());
        }
        // What was quoted before this block may be too little by now.
        self.quote = None;
        let (mut to_send, mut failed) = (Vec::new(), Ok(()));
        for (place, next) in actions {
            let Some(flight) = self.flights.get(place) else { continue };
            let is_cheap = flight.is_cheap;
            let done = match next {
                Next::Resend if !is_cheap => {
                    to_send.push((place, Why::Dropped));
                    Ok(())
                }
                Next::Resend | Next::Raise => self.raise(place).await.map(|is_raised| {
                    to_send.push((place, if is_raised { Why::Raised } else { Why::AtTheLimit }));
                }),
                _ => self.renew(place, &mut to_send, ended).await,
            };
            failed = failed.and(done);
        }
        to_send.retain(|(place, _)| !ended.contains_key(place));
        for (place, error) in self.send(to_send).await? {
            let Some(flight) = self.flights.get_mut(place) else { continue };
            if !error.is_retryable() {
                ended.insert(place, Err(error));
            } else if !matches!(error, LedgerError::Conflict { .. }) {
                // The pool's opinion changes: what it refuses now, it may take at the next block. A nonce that the node
                // calls used or too high is what the next look shows.
                flight.waits_for = WaitsFor::Node(error.to_string());
            }
        }
        failed
    }

    /// Makes an attempt that pays more; returns false if that is above the limit.
    async fn raise(&mut self, place: usize) -> Result<bool, LedgerError> {
        let quote = self.quote("ask for fees").await?;
        let Some(flight) = self.flights.get_mut(place) else { return Ok(false) };
        let Some(fees) = flight.submission.raised(quote, self.account.max_fee) else { return Ok(false) };
        let attempt = self.account.sign(&flight.call, flight.submission.nonce(), flight.gas, fees).await?;
        flight.submission.attempt(attempt);
        self.is_dirty = true;
        Ok(true)
    }

    /// Begins again with other nonces: if one before all of those in no block is free, all of these, in their order; if
    /// the nonce of this one is taken, this one, behind all others.
    async fn renew(
        &mut self,
        place: usize,
        to_send: &mut Vec<(usize, Why)>,
        ended: &mut BTreeMap<usize, Ended>,
    ) -> Result<(), LedgerError> {
        let quote = self.quote("ask for fees").await?;
        let Some(flight) = self.flights.get(place) else { return Ok(()) };
        let is_gap = self.next_nonce < flight.submission.nonce();
        let after = self.flights.iter().map(|flight| flight.submission.nonce() + 1).max().unwrap_or_default();
        let mut nonce = if is_gap { self.next_nonce } else { self.next_nonce.max(after) };
        let count = if is_gap { self.flights.len() } else { place + 1 };
        for place in place..count {
            let Some(flight) = self.flights.get_mut(place) else { continue };
            let action = flight.call.action;
            if flight.mined.is_some() {
                continue;
            }
            if !flight.has_waiter() {
                tracing::warn!(nonce = %flight.submission.nonce(), action,
                    "its nonce is another transaction's, or one before it is free; nobody waits for it, given up");
                let reason = "its nonce is another transaction's".to_owned();
                ended.insert(place, Err(LedgerError::Conflict { action, reason }));
                continue;
            }
            let attempt = self.account.sign(&flight.call, nonce, flight.gas, quote).await?;
            tracing::warn!(old = %flight.submission.nonce(), new = %nonce, action,
                "the nonce is another transaction's, or one before it is free; signed again with a new one");
            flight.submission.renew(nonce, attempt);
            (flight.is_cheap, flight.taken) = (false, None);
            self.is_dirty = true;
            to_send.retain(|(other, _)| *other != place);
            to_send.push((place, Why::First));
            nonce = nonce + 1;
        }
        Ok(())
    }

    /// Sends the newest attempts of these transactions, once they are on disk; returns those that the node does not
    /// take, and not because of their fees.
    async fn send(&mut self, places: Vec<(usize, Why)>) -> Result<Vec<(usize, LedgerError)>, LedgerError> {
        self.keep().await?;
        let raw = |(place, why): (usize, Why)| {
            let flight = self.flights.get(place)?;
            Some(((place, why), (flight.call.action, flight.raw())))
        };
        let (places, transactions): (Vec<_>, Vec<_>) = places.into_iter().filter_map(raw).unzip();
        let results = self.account.send(&transactions).await?;
        let cap = self.account.max_fee;
        let mut refused = Vec::new();
        for ((place, why), result) in places.into_iter().zip(results) {
            let Some(flight) = self.flights.get_mut(place) else { continue };
            let (action, transaction) = (flight.call.action, flight.newest());
            flight.taken = result.is_ok().then(Instant::now);
            flight.is_cheap = matches!(result, Err(LedgerError::Underpriced { .. }));
            let is_new = matches!(why, Why::First | Why::Raised);
            let pays_all = flight.submission.newest().is_some_and(|newest| newest.fees.max_fee == cap);
            match (why, result) {
                (Why::AtTheLimit, Ok(_) | Err(LedgerError::Underpriced { .. })) => {
                    flight.waits_for = WaitsFor::LowerFees { cap };
                }
                (Why::Raised, Err(LedgerError::Underpriced { .. })) if pays_all => {
                    flight.submission.refused(false);
                    flight.waits_for = WaitsFor::LowerFees { cap };
                }
                (_, Err(LedgerError::Underpriced { reason, .. })) => {
                    if is_new {
                        flight.submission.refused(true);
                    }
                    flight.waits_for = WaitsFor::Node(reason);
                }
                (_, Ok(was_unknown)) => {
                    if why == Why::Raised {
                        flight.submission.accepted();
                    }
                    if is_new {
                        self.pause = self.pause.min(FIRST_POLL);
                    }
                    if why != Why::First && was_unknown {
                        tracing::warn!(?transaction, action, ?why, "sent again");
                    }
                }
                (_, Err(error)) => {
                    if is_new && is_refusal(&error) {
                        flight.submission.refused(false);
                    }
                    refused.push((place, error));
                }
            }
        }
        Ok(refused)
    }

    /// Tells those who wait for these transactions, and forgets them.
    fn end(&mut self, mut ended: BTreeMap<usize, Ended>) {
        let are_many = self.flights.len() > MANY;
        let (mut places, mut is_broken) = (0.., false);
        self.flights.retain_mut(|flight| {
            if flight.mined.is_some() && !are_many {
                flight.slot = None;
            }
            let result = places.next().and_then(|place| ended.remove(&place));
            let Some(result) = result else { return true };
            is_broken |= flight.in_sequence && result.is_err() && !flight.has_failed();
            flight.tell(result);
            false
        });
        self.break_sequence(is_broken);
        self.flights.sort_by_key(|flight| flight.submission.nonce());
        self.is_dirty |= self.flights.is_empty();
    }

    /// The transaction that the others wait for: the next one of those in no block, or the oldest.
    fn reported(&self) -> Option<&Flight> {
        self.flights.iter().find(|flight| flight.mined.is_none()).or(self.flights.first())
    }

    /// Ends the waits that are over, and those that have lasted for too long; the transactions stay in flight.
    fn end_waits(&mut self) {
        let (timeout, (_, progressed)) = (self.account.timeout, self.progressed);
        let is_over = |since: Instant| since.max(progressed).elapsed() > timeout;
        let seconds = timeout.as_secs();
        for flight in &mut self.flights {
            if flight.waiter.as_ref().is_some_and(|waiter| is_over(waiter.since)) {
                let (action, transaction) = (flight.call.action, flight.newest());
                flight.tell(Err(LedgerError::Timeout { action, seconds, transaction }));
            }
        }
        let waited_for = self.flights.iter().find(|flight| flight.mined.is_none());
        let Some(flight) = waited_for else {
            if !self.resting.is_empty() {
                self.broken.send_replace(false);
            }
            return self.resting.drain(..).for_each(|waiter| waiter.tell(Ok(())));
        };
        let (action, transaction) = (flight.call.action, flight.newest());
        for waiter in self.resting.extract_if(.., |waiter| is_over(waiter.since)) {
            waiter.tell(Err(LedgerError::Timeout { action, seconds, transaction }));
        }
    }

    /// Writes the transactions in flight to disk, if that is not done yet.
    async fn keep(&mut self) -> Result<(), LedgerError> {
        let Some(file) = self.file.clone().filter(|_| self.is_dirty) else {
            self.is_dirty = false;
            return Ok(());
        };
        let kept = |flight: &Flight| Kept::new(&flight.call, flight.gas, &flight.submission);
        let kept: Vec<_> = self.flights.iter().map(kept).collect();
        let stored = tokio::task::spawn_blocking(move || file.store(&kept)).await;
        stored.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        self.is_dirty = false;
        Ok(())
    }
}

/// Whether the node has said that it does not take a transaction. An error of the transport says nothing of the kind,
/// nor does a status of HTTP.
fn is_refusal(error: &LedgerError) -> bool {
    match error {
        LedgerError::Conflict { .. } | LedgerError::Underpriced { .. } => true,
        LedgerError::Refused { code, .. } => *code < 0,
        _ => false,
    }
}
