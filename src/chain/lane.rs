// SPDX-License-Identifier: Apache-2.0
//! Has the transactions of one account sent, many at a time, by a task of its own.
//!
//! Transactions get their nonces in the order in which they are asked for, so the chain takes them in that order.
//!
//! # What survives a crash
//! `Asked -> Signed -> Submitted -> Mined -> Final`. What is only asked for is lost. A signed transaction is on disk
//! ([`super::transactions`]) before a node gets it, and the next process brings it to its end; nobody is told of that,
//! so whoever asked must look at what it did. If the file is lost, what is in the pool is waited for some blocks, then
//! its nonce is taken and at least double is paid. That is safe because the contracts reject whatever must not happen
//! twice.
//!
//! Through errors of the chain a transaction stays in flight. One that has nobody waiting for it is not signed again
//! with another nonce: much later, it may not be what anybody wants.
//!
//! [`super::sender`] does the work.

use std::{path::Path, sync::Arc};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    InFlight, LedgerError, Mined,
    account::{Account, Call, action},
    progress::Progress,
    sender::Sender,
    transactions::TransactionsFile,
};

/// How a transaction ended.
pub(super) type Ended = Result<Mined, LedgerError>;

/// A place in a sequence of calls, each of which needs what the one before it did and as much gas as that. Only so many
/// of them are in no block at a time.
pub struct Slot(#[expect(dead_code, reason = "its drop gives the place back")] OwnedSemaphorePermit);

/// Handle to the task that sends the transactions of an account.
pub(super) struct Lane {
    requests: mpsc::UnboundedSender<Request>,
    slots: Arc<Semaphore>,
    progress: Arc<Progress>,
    is_broken: watch::Receiver<bool>,
    /// Ends with this handle.
    _task: JoinSet<()>,
}

/// What the task is asked for.
pub(super) enum Request {
    /// To have this sent; with a slot, as the next call of the sequence.
    Send { call: Call, slot: Option<Slot>, reply: oneshot::Sender<Ended> },
    /// To tell when no transaction is in no block, and to begin the sequence anew.
    Rest(oneshot::Sender<Result<(), LedgerError>>),
}

impl Lane {
    /// Takes up what is in the file in this directory, if any, and waits for more. At most `slots` calls of the
    /// sequence are in no block at a time. Without a directory, nothing is kept.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn start(account: Account, directory: Option<&Path>, slots: usize) -> Result<Self, LedgerError> {
        let (chain_id, address) = (account.chain_id, account.key.address());
        let file = directory.map(|directory| TransactionsFile::new(directory, chain_id, address));
        let kept = file.as_ref().map_or_else(|| Ok(Vec::new()), TransactionsFile::load)?;
        let (requests, received) = mpsc::unbounded_channel();
        let (broken, is_broken) = watch::channel(false);
        let progress = Arc::<Progress>::default();
        let sender = Sender::new(account, file, kept, Arc::clone(&progress), broken);
        let mut task = JoinSet::new();
        task.spawn(sender.run(received));
        Ok(Self { requests, slots: Arc::new(Semaphore::new(slots)), progress, is_broken, _task: task })
    }

    /// Follows the transactions in flight; `None` while there is none.
    pub fn in_flight(&self) -> watch::Receiver<Option<InFlight>> {
        self.progress.watch()
    }

    /// Waits until there is a place in the sequence.
    ///
    /// # Errors
    /// That of [`broken`](Self::broken).
    pub async fn slot(&self) -> Result<Slot, LedgerError> {
        let action = action::ANCHOR;
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| LedgerError::Ended { action })?;
        if *self.is_broken.borrow() { Err(self.broken().await) } else { Ok(Slot(slot)) }
    }

    /// Waits until a call of the sequence has failed, so that those after it cannot succeed. Once all
    /// [`rest`](Self::rest), a new sequence begins.
    pub async fn broken(&self) -> LedgerError {
        let action = action::ANCHOR;
        match self.is_broken.clone().wait_for(|is_broken| *is_broken).await {
            Ok(_) => LedgerError::out_of_sequence(action),
            Err(_) => LedgerError::Ended { action },
        }
    }

    /// Has a transaction sent; the future returns once it is final. If the future is dropped, it may or may not be
    /// sent.
    pub fn send(&self, call: Call, slot: Option<Slot>) -> impl Future<Output = Ended> + Send + use<> {
        let action = call.action;
        let (reply, ended) = oneshot::channel();
        // If there is nobody to send to, the reply is dropped as well.
        let _ = self.requests.send(Request::Send { call, slot, reply });
        async move { ended.await.unwrap_or(Err(LedgerError::Ended { action })) }
    }

    /// Waits until every transaction is in a block, or has ended; then a new sequence may begin.
    ///
    /// # Errors
    /// [`LedgerError::Timeout`] if nothing becomes of them.
    pub async fn rest(&self) -> Result<(), LedgerError> {
        let (reply, rested) = oneshot::channel();
        let _ = self.requests.send(Request::Rest(reply));
        rested.await.unwrap_or(Err(LedgerError::Ended { action: action::ANCHOR }))
    }
}
