//! The task that sends: one mail after the other over one connection, kept open while mails are due.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    client::{Client, SendError, one_line},
    compose::compose,
    schedule::{Outcome, Schedule},
};
use crate::{
    mail::{MailId, OutboundKind, OutboundMail},
    mail_bridge::{
        health,
        journal::{Journal, JournalError, OutboundKey, SendState},
        params::Params,
        server::stopped,
    },
};

/// How an outbound mail fares, for `DeliveryStatus`. On disk before it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The mail that it answers.
    pub answers: MailId,
    /// Why it is sent.
    pub kind: OutboundKind,
    /// Its Message-ID as submitted.
    pub message_id: String,
    /// Its state.
    pub state: SendState,
    /// Attempts so far.
    pub attempts: u32,
    /// Last reply or error, one line.
    pub reply: String,
}

/// Sends what the schedule says.
pub struct Sender {
    /// Where to, and as whom.
    pub params: Arc<Params>,
    /// Where mails are and states go.
    pub journal: Journal,
    /// What to send when.
    pub schedule: Schedule,
    /// Start of the schedule's time.
    pub start: Instant,
    /// Outbound mails that are new on disk, their text left out; unbounded as the schedule keeps each anyway.
    pub queued: mpsc::UnboundedReceiver<(OutboundKey, OutboundMail)>,
    /// Gets every change of a delivery.
    pub deliver: mpsc::Sender<Delivery>,
    /// For `/diagnostics`.
    pub figures: Arc<Mutex<health::Outbox>>,
}

impl Sender {
    /// Runs until `shutdown` is true or the journal fails. A mail under way is finished first.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut client = None;
        loop {
            self.note(|_| {});
            if *shutdown.borrow() {
                break;
            }
            let now = self.start.elapsed();
            if let Some((key, open)) = self.schedule.next(now) {
                if let Err(error) = self.attempt(key, open, &mut client).await {
                    tracing::error!(%error, "outbox stops");
                    break;
                }
                // What came meanwhile counts as well.
                while let Ok(queued) = self.queued.try_recv() {
                    self.add(queued).await;
                }
                continue;
            }
            if let Some(client) = client.take() {
                Client::quit(client).await;
            }
            let due = self.schedule.next_wakeup().and_then(|due| self.start.checked_add(due));
            tokio::select! {
                biased;
                () = stopped(&mut shutdown) => break,
                queued = self.queued.recv() => match queued {
                    Some(queued) => self.add(queued).await,
                    None => break,
                },
                () = sleep_until(due.unwrap_or(self.start)), if due.is_some() => {}
            }
        }
    }

    /// One attempt, from the disk to the disk.
    async fn attempt(
        &mut self,
        key: OutboundKey,
        open: u128,
        client: &mut Option<Client<TcpStream>>,
    ) -> Result<(), JournalError> {
        let journal = self.journal.clone();
        let mail = tokio::task::spawn_blocking(move || journal.read_outbound(&key)).await;
        let mail = match mail.unwrap_or(Err(JournalError::Closed)) {
            Ok(Some(mail)) => mail,
            // Not on disk although the index says so: somebody removed the file. Later, perhaps.
            Ok(None) => {
                self.unreadable(key, "not in the journal");
                return Ok(());
            }
            Err(error) => {
                self.unreadable(key, &error.to_string());
                return Ok(());
            }
        };
        let outcome = self.send(&mail, open, client).await;
        let Some(attempt) = self.schedule.tried(key, mail.to.len(), outcome, self.start.elapsed()) else {
            return Ok(());
        };
        self.journal.attempted(attempt.clone()).await?;
        self.note(|figures| match attempt.state {
            SendState::Delivered => {
                figures.delivered = figures.delivered.saturating_add(1);
                figures.failures_in_a_row = 0;
            }
            state => {
                figures.failed = figures.failed.saturating_add(u64::from(state == SendState::Failed));
                figures.failures_in_a_row = figures.failures_in_a_row.saturating_add(1);
            }
        });
        tracing::info!(mail_id = %mail.answers, state = ?attempt.state, attempts = attempt.attempts, "outbound mail");
        self.report(mail, attempt.state, attempt.attempts, attempt.reply).await;
        Ok(())
    }

    fn unreadable(&mut self, key: OutboundKey, error: &str) {
        tracing::error!(error, "outbound mail cannot be read, put off");
        self.schedule.put_off(key, self.start.elapsed());
    }

    async fn add(&mut self, (key, mail): (OutboundKey, OutboundMail)) {
        self.schedule.add(key, Duration::ZERO, None, self.start.elapsed());
        self.report(mail, SendState::Queued, 0, String::new()).await;
    }

    async fn report(&self, mail: OutboundMail, state: SendState, attempts: u32, reply: String) {
        let OutboundMail { answers, kind, message_id, .. } = mail;
        // If nobody listens, the state is on disk all the same.
        let _ = self.deliver.send(Delivery { answers, kind, message_id, state, attempts, reply }).await;
    }

    async fn send(&self, mail: &OutboundMail, open: u128, client: &mut Option<Client<TcpStream>>) -> Outcome {
        let params = &self.params;
        let composed = match compose(mail, &params.sender_address, &params.hostname, SystemTime::now()) {
            Ok(composed) => composed,
            Err(error) => {
                return Outcome {
                    delivered: 0,
                    refused: open,
                    reply: one_line(&format!("invalid: {error}")),
                };
            }
        };
        let lost =
            |error: SendError| Outcome { delivered: 0, refused: 0, reply: one_line(&error.to_string()) };
        if let Some(mut kept) = client.take() {
            match kept.send(&composed, open).await {
                Ok(outcome) => {
                    *client = Some(kept);
                    return outcome;
                }
                // The server may have taken it: at once would be twice.
                Err(error) if error.data_sent => return lost(error),
                // It may have been closed by the server meanwhile: that is no attempt.
                Err(_) => {}
            }
        }
        let fresh = async {
            let mut fresh =
                Client::connect(&params.smarthost, &params.hostname, params.smarthost_timeout).await?;
            let outcome = fresh.send(&composed, open).await?;
            Ok::<_, SendError>((fresh, outcome))
        };
        match fresh.await {
            Ok((fresh, outcome)) => {
                *client = Some(fresh);
                outcome
            }
            Err(error) => lost(error),
        }
    }

    fn note(&self, change: impl FnOnce(&mut health::Outbox)) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.pending = self.schedule.pending();
        change(&mut figures);
    }
}
