// SPDX-License-Identifier: Apache-2.0
//! The task that sends outbound mails, in parallel as far as the host's state allows, over connections that stay open
//! while mails go out.
//!
//! While the host is away no mail is tried. A probe connects at intervals; once it is greeted, the waiting mails go
//! out, one mail first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mail::{Delivery, DeliveryState, OutboundMail};
use smtp::client::{ClientError, Outcome, one_line};
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    attempt::{Attempted, Connection, Contact, attempt, connect, invalid},
    compose::check,
    host::Host,
    schedule::Schedule,
};
use crate::{
    health,
    journal::{Attempt, Journal, JournalError, OutboundKey, SendState},
    params::Params,
    server::stopped,
};

/// The outbox's task before it runs, with all that it needs.
pub struct Sender {
    /// Address of the smart host and identity of the sender.
    pub params: Arc<Params>,
    /// Source of the mails, and where attempts are recorded.
    pub journal: Journal,
    /// When each mail is due.
    pub schedule: Schedule,
    /// Zero of the schedule's time.
    pub start: Instant,
    /// Outbound mails new on disk, without their text; unbounded because the schedule keeps each one anyway.
    pub queued: mpsc::UnboundedReceiver<(OutboundKey, OutboundMail)>,
    /// Receives every change of a delivery.
    pub deliver: mpsc::Sender<Delivery>,
    /// The figures to update for `/diagnostics`.
    pub figures: Arc<Mutex<health::Outbox>>,
}

/// Attempts and probes under way, and idle connections.
struct Work {
    host: Host,
    running: JoinSet<Done>,
    /// Mails being tried, by the task that tries them.
    keys: HashMap<Id, OutboundKey>,
    probing: bool,
    idle: Vec<Connection>,
    /// Idle connections that are saying QUIT, which nobody waits for.
    parting: JoinSet<()>,
}

impl Work {
    /// Closes the idle connections.
    fn part(&mut self) {
        for connection in self.idle.drain(..) {
            self.parting.spawn(connection.quit());
        }
        while self.parting.try_join_next().is_some() {}
    }
}

enum Done {
    Attempted(Box<Attempted>),
    Probed(Result<Box<Connection>, ClientError>),
}

impl Sender {
    /// Runs until `shutdown` is true, the journal fails, or nobody can queue mails any more. Finishes the mails under
    /// way first.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut work = Work {
            host: Host::new(self.params.smarthost_probe, self.params.smarthost_connections),
            running: JoinSet::new(),
            keys: HashMap::new(),
            probing: false,
            idle: Vec::new(),
            parting: JoinSet::new(),
        };
        let ended = self.work(&mut work, &mut shutdown).await;
        if let Err(error) = ended {
            tracing::error!(%error, "outbox stops");
        }
        while let Some(done) = work.running.join_next_with_id().await {
            if let Err(error) = self.finish(done, &mut work).await {
                tracing::error!(%error, "outbox: an attempt is not written down");
            }
        }
        work.part();
        while work.parting.join_next().await.is_some() {}
    }

    async fn work(
        &mut self,
        work: &mut Work,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<(), JournalError> {
        loop {
            self.note(|_| {});
            if *shutdown.borrow() {
                return Ok(());
            }
            self.begin(work);
            if work.running.is_empty() {
                work.part();
            }
            let due = self.due(work).and_then(|due| self.start.checked_add(due));
            tokio::select! {
                biased;
                () = stopped(shutdown) => return Ok(()),
                Some(done) = work.running.join_next_with_id(), if !work.running.is_empty() => {
                    self.finish(done, work).await?;
                }
                queued = self.queued.recv() => match queued {
                    Some(queued) => self.add(queued).await?,
                    None => return Ok(()),
                },
                () = sleep_until(due.unwrap_or(self.start)), if due.is_some() => {}
            }
        }
    }

    /// Starts the attempts that are due, as far as the host has free places, and a probe if one is due.
    fn begin(&mut self, work: &mut Work) {
        let now = self.start.elapsed();
        while work.running.len() < work.host.places()
            && let Some((key, open)) = self.schedule.next(now)
        {
            self.schedule.start(key);
            let (params, journal, connection) =
                (Arc::clone(&self.params), self.journal.clone(), work.idle.pop());
            let task = work.running.spawn(async move {
                Done::Attempted(Box::new(attempt(params, journal, key, open, connection).await))
            });
            work.keys.insert(task.id(), key);
        }
        if !work.probing
            && self.schedule.pending() > 0
            && work.host.probe_due().is_some_and(|probe| probe <= now)
        {
            work.probing = true;
            let params = Arc::clone(&self.params);
            work.running.spawn(async move { Done::Probed(connect(&params).await.map(Box::new)) });
        }
    }

    /// When to start something next; `None` if only an event can make that possible.
    fn due(&self, work: &Work) -> Option<Duration> {
        match work.host.probe_due() {
            Some(probe) => Some(probe).filter(|_| !work.probing && self.schedule.pending() > 0),
            None => self.schedule.next_wakeup().filter(|_| work.running.len() < work.host.places()),
        }
    }

    async fn finish(
        &mut self,
        done: Result<(Id, Done), JoinError>,
        work: &mut Work,
    ) -> Result<(), JournalError> {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let key = work.keys.remove(&id);
        match done {
            Ok((_, Done::Attempted(attempted))) => self.attempted(*attempted, work).await,
            Ok((_, Done::Probed(probed))) => {
                work.probing = false;
                match probed {
                    Ok(connection) => {
                        work.host.greeted();
                        self.schedule.flush(self.start.elapsed());
                        work.idle.push(*connection);
                        tracing::info!("outbox: the smart host is back");
                        Ok(())
                    }
                    Err(error) => self.still_away(&one_line(&error.to_string()), work).await,
                }
            }
            Err(error) => {
                tracing::error!(%error, "outbox: an attempt panicked");
                work.probing &= key.is_some();
                if let Some(key) = key {
                    self.schedule.put_off(key, self.start.elapsed());
                }
                Ok(())
            }
        }
    }

    async fn still_away(&mut self, reply: &str, work: &mut Work) -> Result<(), JournalError> {
        let now = self.start.elapsed();
        work.host.failed(now);
        self.note(|figures| figures.failures_in_a_row = figures.failures_in_a_row.saturating_add(1));
        if !work.host.lost() {
            return Ok(());
        }
        for attempt in self.schedule.expire(reply, now) {
            let (journal, key) = (self.journal.clone(), attempt.key);
            let mail = tokio::task::spawn_blocking(move || journal.read_outbound(&key)).await;
            let mail = mail.unwrap_or(Err(JournalError::Closed));
            self.conclude(attempt, mail.ok().flatten()).await?;
        }
        Ok(())
    }

    async fn attempted(&mut self, attempted: Attempted, work: &mut Work) -> Result<(), JournalError> {
        let Attempted { key, tried, connection } = attempted;
        work.idle.extend(connection);
        let now = self.start.elapsed();
        let tried = match tried {
            Ok(tried) => tried,
            Err(error) => {
                tracing::error!(error, "outbound mail cannot be read, put off");
                self.schedule.put_off(key, now);
                return Ok(());
            }
        };
        match tried.contact {
            Contact::Worked => work.host.worked(),
            Contact::Away | Contact::LostAfterData => work.host.failed(now),
            Contact::None => {}
        }
        let away = tried.contact == Contact::Away;
        match self.schedule.tried(key, tried.mail.to.len(), tried.outcome, away, now) {
            Some(attempt) => self.conclude(attempt, Some(tried.mail)).await,
            None => Ok(()),
        }
    }

    /// Records an attempt, then reports it.
    async fn conclude(&self, attempt: Attempt, mail: Option<OutboundMail>) -> Result<(), JournalError> {
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
        if let Some(mail) = mail {
            tracing::info!(mail_id = mail.answers.map(tracing::field::display), state = ?attempt.state, attempts = attempt.attempts, "outbound mail");
            self.report(&mail, attempt.state.into(), attempt.attempts, attempt.reply).await;
        }
        Ok(())
    }

    async fn add(&mut self, (key, mail): (OutboundKey, OutboundMail)) -> Result<(), JournalError> {
        let now = self.start.elapsed();
        self.schedule.add(key, Duration::ZERO, None, now);
        self.report(&mail, DeliveryState::Queued, 0, String::new()).await;
        // Report at once what can never be sent, even while the host is away.
        if let Err(error) = check(&mail, &self.params.sender_address) {
            let outcome: Outcome = invalid(&error, u128::MAX);
            if let Some(attempt) = self.schedule.tried(key, mail.to.len(), outcome, false, now) {
                self.conclude(attempt, Some(mail)).await?;
            }
        }
        Ok(())
    }

    async fn report(&self, mail: &OutboundMail, state: DeliveryState, attempts: u32, reply: String) {
        // If nobody reads deliveries, the state is on disk anyway.
        let _ = self.deliver.send(Delivery::of(mail, state, attempts, reply)).await;
    }

    fn note(&self, change: impl FnOnce(&mut health::Outbox)) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.pending = self.schedule.pending();
        change(&mut figures);
    }
}
