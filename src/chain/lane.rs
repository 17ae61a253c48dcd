// SPDX-License-Identifier: Apache-2.0
//! Sends the transactions of one account, many at a time, and looks at the chain until they are final.
//!
//! Transactions get their nonces in the order in which they are asked for, so the chain takes them in that order. Each
//! look at the chain is a look at all of them, and [`super::submission`] decides what it means for each.
//!
//! # What survives a crash
//! `Asked -> Signed -> Submitted -> Mined -> Final`. What is only asked for is lost. A signed transaction is in
//! `transactions.json` before a node gets it, and the next process brings it to its end; nobody is told of that, so
//! whoever asked must look at what it did. If the file is lost, what is in the pool is waited for some blocks, then its
//! nonce is taken and at least double is paid. That is safe because the contracts reject whatever must not happen twice.
//!
//! Through errors of the chain a transaction stays in flight. What has nobody waiting for it is not signed again with
//! another nonce: much later, it may not be what anybody wants.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use web3::types::{Bytes, H256, U256};

use crate::{
    InFlight, LedgerError, Mined, WaitsFor,
    account::{Account, Call, FIRST_POLL, LAST_POLL},
    progress::Progress,
    submission::{Fees, Head, Next, Submission, View},
    transactions::{Kept, TransactionsFile},
};

/// Most transactions that are signed and sent together.
const BURST: usize = 64;
/// How many of the newest attempts at a transaction are looked for.
const LOOKED_AT: usize = 16;
/// How long the node's quote of its fees is used for new transactions.
const QUOTED: Duration = Duration::from_secs(1);
/// How long to wait for more transactions to send together with one.
const GATHERING: Duration = Duration::from_millis(2);
/// How long a transaction is believed to be in the pool after a node took it.
const POOLED: Duration = Duration::from_millis(500);
/// Most transactions that wait for their end; with more, those in a block count as if they were in none.
const MAX_OPEN: usize = 1024;

type Ended = Result<Mined, LedgerError>;

/// A place in a sequence of calls, each of which needs what the one before it did and as much gas as that. Only so many of
/// them are in no block at a time.
pub struct Slot(#[expect(dead_code, reason = "its drop gives the right back")] OwnedSemaphorePermit);

/// Handle to the task that sends the transactions of an account.
pub struct Lane {
    requests: mpsc::UnboundedSender<Request>,
    slots: Arc<Semaphore>,
    progress: Arc<Progress>,
    /// Ends with this handle.
    _task: JoinSet<()>,
}

enum Request {
    Send { call: Call, slot: Option<Slot>, reply: oneshot::Sender<Ended> },
    Rest(oneshot::Sender<Result<(), LedgerError>>),
}

impl Lane {
    /// Takes up what is in the file, if any, and waits for more. At most `slots` transactions have a [`Slot`].
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn start(account: Account, file: Option<PathBuf>, slots: usize) -> Result<Self, LedgerError> {
        let file = file.map(|path| TransactionsFile::new(path, account.chain_id, account.key.address()));
        let now = Instant::now();
        let mut flights = Vec::new();
        for kept in file.as_ref().map_or_else(|| Ok(Vec::new()), TransactionsFile::load)? {
            let Some((call, gas, submission)) = kept.resume() else { continue };
            tracing::info!(action = call.action, transaction = ?submission.newest().map(|newest| newest.hash),
                "an earlier process has sent this transaction");
            flights.push(Flight::new(call, gas, submission, None));
        }
        let (requests, received) = mpsc::unbounded_channel();
        let (slots, progress) = (Arc::new(Semaphore::new(slots)), Arc::<Progress>::default());
        let sender = Sender {
            account,
            file: file.map(Arc::new),
            progress: Arc::clone(&progress),
            flights,
            resting: Vec::new(),
            gas: None,
            quote: None,
            head: None,
            next_nonce: U256::zero(),
            progressed: now,
            pause: Duration::ZERO,
            due: now,
        };
        let mut task = JoinSet::new();
        task.spawn(sender.run(received));
        Ok(Self { requests, slots, progress, _task: task })
    }

    /// Follows the transactions in flight; `None` while there is none.
    pub fn in_flight(&self) -> watch::Receiver<Option<InFlight>> {
        self.progress.watch()
    }

    /// Waits until a transaction more may be in no block.
    pub async fn slot(&self) -> Result<Slot, LedgerError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        slot.map(Slot).map_err(|_| LedgerError::Ended { action: "wait for the chain" })
    }

    /// Has a transaction sent; the future returns once it is final. If the future is dropped, it may or may not be sent.
    pub fn send(&self, call: Call, slot: Option<Slot>) -> impl Future<Output = Ended> + Send + use<> {
        let action = call.action;
        let (reply, ended) = oneshot::channel();
        // If there is nobody to send to, the reply is dropped as well.
        let _ = self.requests.send(Request::Send { call, slot, reply });
        async move { ended.await.unwrap_or(Err(LedgerError::Ended { action })) }
    }

    /// Waits until every transaction asked for before is in a block, or has ended.
    pub async fn rest(&self) -> Result<(), LedgerError> {
        let (reply, rested) = oneshot::channel();
        let _ = self.requests.send(Request::Rest(reply));
        rested.await.unwrap_or(Err(LedgerError::Ended { action: "wait for transactions" }))
    }
}

/// A transaction on its way.
struct Flight {
    call: Call,
    /// Gas limit of each attempt.
    gas: U256,
    submission: Submission,
    began: Instant,
    /// When a node last took it; `None` if it was not taken, or if that is not known.
    taken: Option<Instant>,
    /// Whoever waits for its end.
    reply: Option<oneshot::Sender<Ended>>,
    /// Until it is in a block.
    slot: Option<Slot>,
    /// Where the last look found it.
    mined: Option<Mined>,
    /// Whether the node wants more for the newest attempt.
    is_cheap: bool,
    waits_for: WaitsFor,
}

impl Flight {
    fn new(call: Call, gas: U256, submission: Submission, reply: Option<oneshot::Sender<Ended>>) -> Self {
        Self {
            call,
            gas,
            submission,
            began: Instant::now(),
            taken: None,
            reply,
            slot: None,
            mined: None,
            is_cheap: false,
            waits_for: WaitsFor::Block,
        }
    }

    fn newest(&self) -> Option<H256> {
        self.submission.newest().map(|newest| newest.hash)
    }

    fn raw(&self) -> Bytes {
        self.submission.newest().map(|newest| newest.raw.clone()).unwrap_or_default()
    }

    fn has_waiter(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    fn tell(&mut self, ended: Ended) {
        if let Some(reply) = self.reply.take() {
            // Whoever waited may have gone.
            let _ = reply.send(ended);
        }
    }
}

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

struct Sender {
    account: Account,
    /// `None` on the embedded chain, which has no pool.
    file: Option<Arc<TransactionsFile>>,
    progress: Arc<Progress>,
    /// In the order of their nonces.
    flights: Vec<Flight>,
    resting: Vec<oneshot::Sender<Result<(), LedgerError>>>,
    /// Gas limit of the newest call in sequence.
    gas: Option<U256>,
    quote: Option<(Fees, Instant)>,
    /// The newest block at the last look.
    head: Option<Head>,
    /// The account's next nonce at the last look.
    next_nonce: U256,
    /// When a look last showed that something had come of any of the transactions.
    progressed: Instant,
    /// Pause before the next look.
    pause: Duration,
    due: Instant,
}

impl Sender {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut received = Vec::new();
        loop {
            tokio::select! {
                count = requests.recv_many(&mut received, BURST) => if count == 0 { return },
                () = sleep_until(self.due), if !self.flights.is_empty() => {}
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
                self.progress.silent(&error);
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
                Request::Rest(reply) => self.resting.push(reply),
                Request::Send { call, slot, reply } => match self.the_same(&call) {
                    Some(flight) => flight.reply = Some(reply),
                    // Whoever wanted it may have gone.
                    None if reply.is_closed() => {}
                    None => calls.push((call, slot, reply)),
                },
            }
        }
        let first = self.flights.len();
        let mut refused: Option<LedgerError> = None;
        for (call, slot, reply) in calls {
            let action = call.action;
            let in_sequence = slot.is_some();
            let prepared = match &refused {
                Some(error) if in_sequence || is_silence(error) => Err(error.behind(action)),
                _ => self.prepare(call, in_sequence).await,
            };
            match prepared {
                Ok(mut flight) => {
                    (flight.reply, flight.slot) = (Some(reply), slot);
                    self.flights.push(flight);
                }
                Err(error) => {
                    if refused.is_none() && (in_sequence || is_silence(&error)) {
                        refused = Some(error.behind(action));
                    }
                    let _ = reply.send(Err(error));
                }
            }
        }
        if self.flights.len() == first {
            return;
        }
        self.pause = Duration::ZERO;
        if let Err(error) = self.keep().await {
            for mut flight in self.flights.drain(first..) {
                flight.tell(Err(error.behind(flight.call.action)));
            }
            return;
        }
        let new = (first..self.flights.len()).map(|place| (place, Why::First)).collect();
        let Ok(refusals) = self.send(new).await else {
            // The node may have them; the next look tells.
            return;
        };
        // What the node has refused is in no pool. What was accepted behind it waits for it, so it must be sent again.
        let sent = self.flights.len();
        for (place, refusal) in refusals.into_iter().rev() {
            if place + 1 != self.flights.len() {
                break;
            }
            if let Some(mut flight) = self.flights.pop() {
                flight.tell(Err(refusal));
            }
        }
        if self.flights.len() < sent {
            self.forget().await;
        }
    }

    /// A transaction in flight that does the same and that nobody waits for.
    fn the_same(&mut self, call: &Call) -> Option<&mut Flight> {
        self.flights.iter_mut().find(|flight| !flight.has_waiter() && flight.call == *call)
    }

    async fn prepare(&mut self, call: Call, in_sequence: bool) -> Result<Flight, LedgerError> {
        let action = call.action;
        let is_next = self.flights.iter().all(|flight| flight.mined.is_some());
        let (nonce, another) = match self.flights.last() {
            Some(last) => (self.next_nonce.max(last.submission.nonce() + 1), false),
            None => self.account.free_nonce(action, &self.progress).await?,
        };
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
        Ok(Flight::new(call, gas, Submission::new(nonce, attempt), None))
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
            return Ok(());
        }
        let (head, views) = self.views().await?;
        let confirmations = self.account.confirmations;
        let mut ended = Vec::new();
        let mut actions = Vec::new();
        let mut is_next = true;
        for (place, (flight, view)) in self.flights.iter_mut().zip(views).enumerate() {
            let mined = match &view {
                View::Mined(mined, _) => Some(mined.clone()),
                View::Pool { .. } => None,
            };
            flight.waits_for = match &mined {
                Some(mined) => {
                    let have = head.confirmations(mined.block_number);
                    WaitsFor::Confirmations { have, of: confirmations }
                }
                None => WaitsFor::Block,
            };
            if flight.mined != mined {
                (self.progressed, self.pause) = (Instant::now(), Duration::ZERO);
                flight.mined = mined;
            }
            let is_pooled = flight.mined.is_none();
            let next = flight.submission.next(
                view,
                is_pooled && is_next,
                head,
                confirmations,
                flight.began.elapsed(),
            );
            is_next &= !is_pooled;
            match next {
                Next::Final(mined) => ended.push((place, Ok(mined))),
                Next::Failed(transaction) => {
                    let action = flight.call.action;
                    ended.push((place, Err(LedgerError::Failed { action, transaction })));
                }
                Next::Wait => {}
                next => actions.push((place, next)),
            }
        }
        if self.head.is_some_and(|last| last.number < head.number)
            && self.flights.iter().any(|flight| flight.mined.is_some())
        {
            self.progressed = Instant::now();
        }
        self.head = Some(head);
        let acted = self.act(actions, &mut ended).await;
        self.end(ended);
        self.report(&head);
        if self.flights.is_empty() {
            self.forget().await;
        }
        acted
    }

    /// Where each of the transactions is.
    async fn views(&mut self) -> Result<(Head, Vec<View>), LedgerError> {
        let action = self.flights.first().map_or("look at the chain", |flight| flight.call.action);
        let hashes = |flight: &Flight| {
            let hashes = flight.submission.hashes();
            hashes.take(LOOKED_AT).collect::<Vec<_>>()
        };
        // What was in a block is there still, unless there is another head.
        let is_looked_for = |flight: &Flight| flight.mined.is_none();
        let lists: Vec<_> = self.flights.iter().filter(|flight| is_looked_for(flight)).map(hashes).collect();
        let (head, nonce, found) = self.account.look(action, &lists).await?;
        self.next_nonce = nonce;
        let is_other_head = self.head.is_none_or(|last| last.hash != head.hash);
        let placed = if is_other_head {
            let lists: Vec<_> =
                self.flights.iter().filter(|flight| !is_looked_for(flight)).map(hashes).collect();
            if lists.is_empty() { Vec::new() } else { self.account.look(action, &lists).await?.2 }
        } else {
            let placed = self.flights.iter().filter_map(|flight| flight.mined.clone());
            placed.map(|mined| Some((mined, true))).collect()
        };
        let (mut found, mut placed) = (found.into_iter(), placed.into_iter());
        let mined: Vec<_> = self
            .flights
            .iter()
            .map(|flight| if is_looked_for(flight) { found.next() } else { placed.next() }.flatten())
            .collect();
        let is_asked_for = |flight: &Flight, mined: &Option<_>| {
            let is_pooled = flight.taken.is_some_and(|taken| taken.elapsed() < POOLED);
            mined.is_none() && (flight.mined.is_some() || !is_pooled)
        };
        let asked: Vec<_> =
            self.flights.iter().zip(&mined).map(|(flight, mined)| is_asked_for(flight, mined)).collect();
        let pooled: Vec<_> = self
            .flights
            .iter()
            .zip(&asked)
            .filter(|(_, is_asked)| **is_asked)
            .filter_map(|(flight, _)| flight.newest())
            .collect();
        let known = if pooled.is_empty() { Vec::new() } else { self.account.known(action, &pooled).await? };
        let mut known = known.into_iter();
        let view = |(mined, is_asked): (Option<(Mined, bool)>, bool)| match mined {
            Some((mined, succeeded)) => View::Mined(mined, succeeded),
            None => View::Pool { nonce, known: !is_asked || known.next().unwrap_or_default() },
        };
        Ok((head, mined.into_iter().zip(asked).map(view).collect()))
    }

    /// Sends what is to be sent again.
    async fn act(
        &mut self,
        actions: Vec<(usize, Next)>,
        ended: &mut Vec<(usize, Ended)>,
    ) -> Result<(), LedgerError> {
        if actions.is_empty() {
            return Ok(());
        }
        // What was quoted before this block may be too little by now.
        self.quote = None;
        let mut to_send = Vec::new();
        let mut is_changed = false;
        for (place, next) in actions {
            let Some(flight) = self.flights.get(place) else { continue };
            let (action, nonce) = (flight.call.action, flight.submission.nonce());
            let next = if flight.is_cheap && next == Next::Resend { Next::Raise } else { next };
            match next {
                Next::Resend => to_send.push((place, Why::Dropped)),
                Next::Raise => {
                    let quote = self.quote(action).await?;
                    let is_raised = self.raise(place, quote).await?;
                    is_changed |= is_raised;
                    to_send.push((place, if is_raised { Why::Raised } else { Why::AtTheLimit }));
                }
                _ if flight.has_waiter() => {
                    self.renew(place).await?;
                    is_changed = true;
                    to_send.push((place, Why::First));
                }
                _ => {
                    tracing::warn!(%nonce, action, "the nonce is another transaction's; nobody waits for this one, given up");
                    let reason = "its nonce is another transaction's".to_owned();
                    ended.push((place, Err(LedgerError::Conflict { action, reason })));
                }
            }
        }
        if is_changed {
            self.keep().await?;
            self.pause = Duration::ZERO;
        }
        for (place, refusal) in self.send(to_send).await? {
            if let Some(flight) = self.flights.get_mut(place)
                // A nonce that the node calls used or too high is what the next look shows.
                && !matches!(refusal, LedgerError::Conflict { .. })
            {
                // The pool's opinion changes: what it refuses now, it may take at the next block.
                flight.waits_for = WaitsFor::Node(refusal.to_string());
            }
        }
        Ok(())
    }

    /// Makes an attempt that pays more; returns false if that is above the limit.
    async fn raise(&mut self, place: usize, quote: Fees) -> Result<bool, LedgerError> {
        let Some(flight) = self.flights.get_mut(place) else { return Ok(false) };
        let Some(fees) = flight.submission.raised(quote, self.account.max_fee) else { return Ok(false) };
        let attempt = self.account.sign(&flight.call, flight.submission.nonce(), flight.gas, fees).await?;
        flight.submission.attempt(attempt);
        Ok(true)
    }

    /// Begins again with another nonce: a free one before all others, or the one after them.
    async fn renew(&mut self, place: usize) -> Result<(), LedgerError> {
        let lowest = self.flights.iter().map(|flight| flight.submission.nonce()).min();
        let after = self.flights.iter().map(|flight| flight.submission.nonce() + 1).max();
        let is_gap = lowest.is_some_and(|lowest| self.next_nonce < lowest);
        let nonce = if is_gap { self.next_nonce } else { self.next_nonce.max(after.unwrap_or_default()) };
        let Some(flight) = self.flights.get(place) else { return Ok(()) };
        let action = flight.call.action;
        let quote = self.quote(action).await?;
        let Some(flight) = self.flights.get_mut(place) else { return Ok(()) };
        let attempt = self.account.sign(&flight.call, nonce, flight.gas, quote).await?;
        tracing::warn!(old = %flight.submission.nonce(), new = %nonce, action,
            "the nonce is another transaction's, or one before it is free; signed again with a new one");
        flight.submission = Submission::new(nonce, attempt);
        flight.is_cheap = false;
        Ok(())
    }

    /// Sends the newest attempts of these transactions; returns those that the node has refused, other than for their
    /// fees.
    async fn send(&mut self, places: Vec<(usize, Why)>) -> Result<Vec<(usize, LedgerError)>, LedgerError> {
        let raw = |(place, _): &(usize, Why)| {
            let flight = self.flights.get(*place)?;
            Some((flight.call.action, flight.raw()))
        };
        let transactions: Vec<_> = places.iter().filter_map(raw).collect();
        let results = self.account.send(&transactions).await?;
        let cap = self.account.max_fee;
        let mut refused = Vec::new();
        for ((place, why), result) in places.into_iter().zip(results) {
            let Some(flight) = self.flights.get_mut(place) else { continue };
            let (action, transaction) = (flight.call.action, flight.newest());
            flight.taken = result.is_ok().then(Instant::now);
            let is_cheap = matches!(result, Err(LedgerError::Underpriced { .. }));
            let pays_all = flight.submission.newest().is_some_and(|newest| newest.fees.max_fee == cap);
            flight.is_cheap = is_cheap;
            match (why, result) {
                (Why::AtTheLimit, Ok(())) => flight.waits_for = WaitsFor::LowerFees { cap },
                (_, Ok(())) => {
                    if why == Why::Raised {
                        flight.submission.accepted();
                    }
                    if why != Why::First {
                        tracing::warn!(?transaction, action, ?why, "sent again");
                    }
                }
                (Why::AtTheLimit, Err(LedgerError::Underpriced { .. })) => {
                    flight.waits_for = WaitsFor::LowerFees { cap };
                }
                (Why::Raised, Err(LedgerError::Underpriced { .. })) if pays_all => {
                    flight.submission.refused(false);
                    flight.waits_for = WaitsFor::LowerFees { cap };
                }
                (_, Err(error)) if is_refusal(&error) => {
                    if matches!(why, Why::First | Why::Raised) {
                        flight.submission.refused(is_cheap);
                    }
                    if is_cheap {
                        flight.waits_for = WaitsFor::Node(error.to_string());
                    } else {
                        refused.push((place, error));
                    }
                }
                // The node may have it; the next look tells.
                (_, Err(error)) => tracing::debug!(%error, ?transaction, action, "sent, perhaps"),
            }
        }
        Ok(refused)
    }

    /// Tells those who wait for these transactions, and forgets them.
    fn end(&mut self, mut ended: Vec<(usize, Ended)>) {
        ended.sort_by_key(|(place, _)| *place);
        let are_many = self.flights.len() > MAX_OPEN;
        let mut ended = ended.into_iter().peekable();
        let mut place = 0;
        self.flights.retain_mut(|flight| {
            if flight.mined.is_some() && !are_many {
                flight.slot = None;
            }
            let result = ended.next_if(|(at, _)| *at == place);
            place += 1;
            let Some((_, result)) = result else { return true };
            if result.is_err() {
                // It may have run out of gas.
                self.gas = None;
            }
            flight.tell(result);
            false
        });
        self.flights.sort_by_key(|flight| flight.submission.nonce());
    }

    /// Reports the transaction that the others wait for: the next one of those in no block, or the oldest.
    fn report(&self, head: &Head) {
        let next = self.flights.iter().find(|flight| flight.mined.is_none());
        let Some(flight) = next.or(self.flights.first()) else { return self.progress.clear() };
        let now = InFlight {
            count: self.flights.len(),
            action: flight.call.action,
            transaction: flight.newest(),
            blocks: flight.submission.blocks(head.number),
            waits_for: flight.waits_for.clone(),
            is_late: false,
        };
        self.progress.report(now, head);
    }

    /// Ends the waits that are over, and those that have lasted for too long; the transactions stay in flight.
    fn end_waits(&mut self) {
        let (timeout, progressed) = (self.account.timeout, self.progressed);
        let is_late = |began: Instant| began.max(progressed).elapsed() > timeout;
        let late = |flight: &Flight| LedgerError::Timeout {
            action: flight.call.action,
            seconds: timeout.as_secs(),
            transaction: flight.newest(),
        };
        for flight in self.flights.iter_mut().filter(|flight| is_late(flight.began)) {
            let late = late(flight);
            flight.tell(Err(late));
        }
        match self.flights.iter().find(|flight| flight.mined.is_none()) {
            None => self.resting.drain(..).for_each(|reply| drop(reply.send(Ok(())))),
            Some(flight) if is_late(flight.began) => {
                self.resting.drain(..).for_each(|reply| drop(reply.send(Err(late(flight)))));
            }
            Some(_) => {}
        }
    }

    /// Writes the transactions in flight to disk.
    async fn keep(&self) -> Result<(), LedgerError> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        let kept = self.flights.iter().map(|flight| Kept::new(&flight.call, flight.gas, &flight.submission));
        let kept = kept.collect();
        let stored = tokio::task::spawn_blocking(move || file.store(kept)).await;
        stored.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Takes from the disk what is not in flight any more. If that fails, the next process looks at them once more.
    async fn forget(&self) {
        if let Err(error) = self.keep().await {
            tracing::warn!(%error, "transactions that have ended stay in the file");
        }
    }
}

/// Whether the chain did not answer, and would not answer what comes next either.
fn is_silence(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Unreachable { .. })
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
