// SPDX-License-Identifier: Apache-2.0
//! The task that carries out what [`Core`] decides: sends outbound mails in parallel, over connections that stay open
//! while mails go out, and writes down and reports what becomes of them.
//!
//! An attempt is on disk before it is reported. When to try which mail is left to the core.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use mail::{Delivery, DeliveryState, OutboundMail};
use smtp::client::one_line;
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    attempt::{Attempted, Tried, attempt, why_invalid},
    compose::check,
    core::{Core, Effect, Input},
    host::Host,
    hosts::Hosts,
    relay::{ConnectError, Connection, Relay, RelayError},
    schedule::Schedule,
};
use crate::{
    health,
    journal::{Attempt, Journal, JournalError, OutboundKey, Pending},
    params::Params,
    server::stopped,
};

/// The outbox's task.
pub struct Sender {
    relay: Arc<Relay>,
    journal: Journal,
    core: Core,
    start: Instant,
    deliver: mpsc::Sender<Delivery>,
    figures: Arc<Mutex<health::Outbox>>,
}

/// Attempts and probes under way, and idle connections.
#[derive(Default)]
struct Work {
    running: JoinSet<Done>,
    jobs: HashMap<Id, Job>,
    /// Connections that no mail uses now, with their host.
    idle: Vec<(usize, Connection)>,
    /// Idle connections that are saying QUIT, which nobody waits for.
    parting: JoinSet<()>,
}

/// What a task is about.
#[derive(Clone, Copy)]
enum Job {
    Try { key: OutboundKey, host: usize },
    Probe { host: usize },
}

enum Done {
    Attempted(Box<Attempted>),
    Probed(Result<Box<Connection>, ConnectError>),
}

/// An input, with the mail that it is about if that has been read.
type Event = (Input, Option<OutboundMail>);

impl Work {
    /// Closes the idle connections.
    fn part(&mut self) {
        for (_, connection) in self.idle.drain(..) {
            self.parting.spawn(connection.quit());
        }
        while self.parting.try_join_next().is_some() {}
    }

    /// The connection to this host that was used last.
    fn take_idle(&mut self, host: usize) -> Option<Connection> {
        let place = self.idle.iter().rposition(|(of, _)| *of == host)?;
        Some(self.idle.swap_remove(place).1)
    }

    /// Keeps the connection of what has ended, and tells the core how it ended.
    fn ended(&mut self, ended: Result<(Id, Done), JoinError>) -> Event {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(job) = self.jobs.remove(&id) else { return (Input::Tick, None) };
        let (Job::Try { host, .. } | Job::Probe { host }) = job;
        match ended {
            Ok((_, Done::Attempted(attempted))) => {
                let Attempted { key, tried, connection } = *attempted;
                self.idle.extend(connection.map(|connection| (host, connection)));
                match tried {
                    Ok(Tried { mail, outcome, contact }) => {
                        let recipients = mail.to.len();
                        (Input::Tried { key, recipients, outcome, contact }, Some(mail))
                    }
                    Err(error) => {
                        tracing::error!(error, "outbound mail cannot be read, put off");
                        (Input::NotTried(key), None)
                    }
                }
            }
            Ok((_, Done::Probed(Ok(connection)))) => {
                tracing::info!(host, "outbox: the smart host is back");
                self.idle.push((host, *connection));
                (Input::Greeted(host), None)
            }
            Ok((_, Done::Probed(Err(error)))) => {
                let login_refused = error.is_login_refused();
                (Input::Unanswered { host, reply: one_line(&error.to_string()), login_refused }, None)
            }
            Err(error) => {
                tracing::error!(%error, "outbox: an attempt panicked");
                let reply = "the probe panicked".to_owned();
                let input = match job {
                    Job::Try { key, .. } => Input::NotTried(key),
                    Job::Probe { host } => Input::Unanswered { host, reply, login_refused: false },
                };
                (input, None)
            }
        }
    }
}

impl Sender {
    /// A task that sends the `pending` mails first. It writes attempts to `journal`, reports changes to `deliver`, and keeps
    /// `figures` for `/diagnostics`. `start` is the zero of its time.
    ///
    /// # Errors
    /// If a file that a parameter names cannot be used.
    pub fn new(
        params: Arc<Params>,
        journal: Journal,
        pending: Vec<Pending>,
        start: Instant,
        deliver: mpsc::Sender<Delivery>,
        figures: Arc<Mutex<health::Outbox>>,
    ) -> Result<Self, RelayError> {
        let mut schedule = Schedule::new(params.retry, params.retry_give_up);
        let now = SystemTime::now();
        for pending in pending {
            let age = now.duration_since(pending.queued_at).unwrap_or_default();
            schedule.add(pending.key, age, pending.attempt.as_ref(), Duration::ZERO);
        }
        let host = Host::new(params.smarthost_probe, params.smarthost_connections);
        let core = Core::new(Hosts::new(host, params.sending.smarthosts.len()), schedule);
        Ok(Self { relay: Arc::new(Relay::new(params)?), journal, core, start, deliver, figures })
    }

    /// Runs until `shutdown` is true, the journal fails, or nobody can queue mails any more. Finishes the mails under
    /// way first. `queued` has the mails new on disk, without their text; it is unbounded because the core keeps each
    /// one anyway.
    pub async fn run(
        mut self,
        mut queued: mpsc::UnboundedReceiver<(OutboundKey, OutboundMail)>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let mut work = Work::default();
        if let Err(error) = self.work(&mut work, &mut queued, &mut shutdown).await {
            tracing::error!(%error, "outbox stops");
        }
        let mut event = (Input::Stop, None);
        loop {
            if let Err(error) = self.step(event, &mut work).await {
                tracing::error!(%error, "outbox: an attempt is not written down");
            }
            let Some(ended) = work.running.join_next_with_id().await else { break };
            event = work.ended(ended);
        }
        work.part();
        while work.parting.join_next().await.is_some() {}
    }

    async fn work(
        &mut self,
        work: &mut Work,
        queued: &mut mpsc::UnboundedReceiver<(OutboundKey, OutboundMail)>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<(), JournalError> {
        let mut event = (Input::Tick, None);
        loop {
            self.step(event, work).await?;
            let due = self.core.next_wakeup().and_then(|due| self.start.checked_add(due));
            event = tokio::select! {
                biased;
                () = stopped(shutdown) => return Ok(()),
                Some(ended) = work.running.join_next_with_id(), if !work.running.is_empty() => work.ended(ended),
                queued = queued.recv() => match queued {
                    Some((key, mail)) => self.queued(key, mail).await,
                    None => return Ok(()),
                },
                () = sleep_until(due.unwrap_or(self.start)), if due.is_some() => (Input::Tick, None),
            }
        }
    }

    async fn queued(&self, key: OutboundKey, mail: OutboundMail) -> Event {
        self.report(&mail, DeliveryState::Queued, 0, String::new()).await;
        let invalid = check(&mail, &self.relay.params.sender_address).err().map(|error| why_invalid(&error));
        (Input::Queued { key, recipients: mail.to.len(), invalid }, Some(mail))
    }

    async fn step(&mut self, (input, mut mail): Event, work: &mut Work) -> Result<(), JournalError> {
        for effect in self.core.step(input, self.start.elapsed()) {
            match effect {
                Effect::Try { key, open, host } => self.try_to_send(key, open, host, work),
                Effect::Probe(host) => {
                    let relay = Arc::clone(&self.relay);
                    let probe = async move { Done::Probed(relay.connect(host).await.map(Box::new)) };
                    let task = work.running.spawn(probe);
                    work.jobs.insert(task.id(), Job::Probe { host });
                }
                Effect::Conclude(attempt) => {
                    let mail = match mail.take() {
                        Some(mail) => Some(mail),
                        None => self.read(attempt.key).await,
                    };
                    self.conclude(attempt, mail).await?;
                }
                Effect::CloseIdle => work.part(),
            }
        }
        self.note();
        Ok(())
    }

    fn try_to_send(&self, key: OutboundKey, open: u128, host: usize, work: &mut Work) {
        let (relay, journal) = (Arc::clone(&self.relay), self.journal.clone());
        let connection = work.take_idle(host);
        let task = work.running.spawn(async move {
            Done::Attempted(Box::new(attempt(relay, host, journal, key, open, connection).await))
        });
        work.jobs.insert(task.id(), Job::Try { key, host });
    }

    async fn read(&self, key: OutboundKey) -> Option<OutboundMail> {
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || journal.read_outbound(&key)).await.ok()?.ok()?
    }

    /// Records an attempt, then reports it.
    async fn conclude(&self, attempt: Attempt, mail: Option<OutboundMail>) -> Result<(), JournalError> {
        self.journal.attempted(attempt.clone()).await?;
        self.note();
        if let Some(mail) = mail {
            tracing::info!(mail_id = mail.answers.map(tracing::field::display), state = ?attempt.state, attempts = attempt.attempts, "outbound mail");
            self.report(&mail, attempt.state.into(), attempt.attempts, attempt.reply).await;
        }
        Ok(())
    }

    async fn report(&self, mail: &OutboundMail, state: DeliveryState, attempts: u32, reply: String) {
        // If nobody reads deliveries, the state is on disk anyway.
        let _ = self.deliver.send(Delivery::of(mail, state, attempts, reply)).await;
    }

    fn note(&self) {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = self.core.figures();
    }
}
