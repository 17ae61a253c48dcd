//! The task that sends: as many mails at once as the host takes, over connections kept open while mails are due.
//!
//! While the host is away no mail is tried: a probe connects every so often, and when it is greeted everything that waits goes
//! out, one mail first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    Delivery, DeliveryState,
    attempt::{Attempted, Connection, Contact, attempt, connect, invalid},
    client::{ClientError, one_line},
    compose::check,
    host::Host,
    schedule::{Outcome, Schedule},
};
use crate::{
    mail::OutboundMail,
    mail_bridge::{
        health,
        journal::{Attempt, Journal, JournalError, OutboundKey, SendState},
        params::Params,
        server::stopped,
    },
};

/// What the outbox is given.
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

/// What is under way.
struct Work {
    host: Host,
    running: JoinSet<Done>,
    /// Mails that are tried now, by their task.
    keys: HashMap<Id, OutboundKey>,
    probing: bool,
    idle: Vec<Connection>,
}

enum Done {
    Attempted(Box<Attempted>),
    Probed(Result<Box<Connection>, ClientError>),
}

impl Sender {
    /// Runs until `shutdown` is true or the journal fails. Mails under way are finished first.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut work = Work {
            host: Host::new(self.params.smarthost_probe, self.params.smarthost_connections),
            running: JoinSet::new(),
            keys: HashMap::new(),
            probing: false,
            idle: Vec::new(),
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
        quit(&mut work.idle).await;
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
                quit(&mut work.idle).await;
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

    /// Starts what is due, as far as the host has places.
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

    /// When something is to be started next, unless it waits for what is under way.
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

    /// Writes an attempt down, then tells of it.
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
        // What can never be sent is told at once, also while the host is away.
        if let Err(error) = check(&mail, &self.params.sender_address) {
            let outcome: Outcome = invalid(&error, u128::MAX);
            if let Some(attempt) = self.schedule.tried(key, mail.to.len(), outcome, false, now) {
                self.conclude(attempt, Some(mail)).await?;
            }
        }
        Ok(())
    }

    async fn report(&self, mail: &OutboundMail, state: DeliveryState, attempts: u32, reply: String) {
        // If nobody listens, the state is on disk all the same.
        let _ = self.deliver.send(Delivery::of(mail, state, attempts, reply)).await;
    }

    fn note(&self, change: impl FnOnce(&mut health::Outbox)) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.pending = self.schedule.pending();
        change(&mut figures);
    }
}

async fn quit(idle: &mut Vec<Connection>) {
    for connection in idle.drain(..) {
        connection.quit().await;
    }
}
