// SPDX-License-Identifier: Apache-2.0
//! Runs the node: feeds mails, acknowledgements and time to [`Core`], and carries out its effects.
//!
//! At shutdown it finishes the mails in progress. What happens to a mail is left to [`Core`].

use std::{
    fmt::Display,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use evidence::Source;
use futures::FutureExt;
use mail::MailId;
use ros::{
    RosError,
    convert::{
        acknowledgement_from_ros, authenticated_from_ros, command_to_ros, disposition_to_ros, entry_to_ros,
        fleet_from_ros, outbound_to_ros, time_to_ros,
    },
    diagnostics,
    graph::{Client, Graph, Publisher},
    lock, msg,
    runtime::{self, NodeError, NodeFacts, Shutdown},
    srv, topics,
};
use tokio::{task::JoinSet, time::MissedTickBehavior};
use vehicle::{OrderKey, VehicleCommand};

use super::{
    Core, Params,
    core::{Input, Outcome},
    effect::{Conclusion, Delivered, Effect, Job},
    fleet::{Fleet, Unavailable},
    interpretation::Interpretation,
    orders::{Entry, Now, ledger::statement, store::Store},
    params::SPECS,
};

/// Name, purpose and parameters for the runtime.
pub const FACTS: NodeFacts = NodeFacts {
    name: "chatbot",
    about: "Answers mails of authenticated senders from live vehicle data, and passes on their orders",
    specs: SPECS,
    groups: &[],
};

const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a request to record orders may take; part of it is waiting for an authenticator that is not there.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);

/// Entry point of the executable.
pub fn main() -> ExitCode {
    runtime::run(FACTS, Params::load, run)
}

async fn run(mut graph: Graph, params: Params, mut shutdown: Shutdown) -> Result<(), NodeError> {
    let (store, book) = Store::open(&params.state_directory)?;
    let key = OrderKey::load_or_create(&params.order_key_path)?;
    let public_key = key.public();
    let mut desk = Desk {
        outbound: graph.publisher(&topics::MAIL_OUTBOUND)?,
        dispositions: graph.publisher(&topics::MAIL_DISPOSITIONS)?,
        commands: graph.publisher(&topics::VEHICLES_COMMANDS)?,
        key,
        store,
        worker: Arc::new(Worker {
            router: graph.client(&topics::GET_STATE)?,
            state_timeout: params.state_timeout,
        }),
        recorder: Arc::new(Recorder {
            authenticator: graph.client(&topics::RECORD)?,
            source: graph.fully_qualified_name().parse()?,
        }),
        jobs: JoinSet::new(),
        recording: JoinSet::new(),
        core: Core::new(params.clone(), book, Instant::now()),
    };
    let mut mails = graph.subscribe(&topics::MAIL_AUTHENTICATED)?;
    let mut acknowledgements = graph.subscribe(&topics::VEHICLES_ACKNOWLEDGEMENTS)?;
    let keys = graph.publisher(&topics::CHATBOT_ORDER_KEY)?;
    let heartbeats = graph.publisher(&topics::CHATBOT_WORKERS)?;
    let id = format!("{}/{}", graph.name(), std::process::id());
    let health = Arc::new(Mutex::new(desk.core.health()));
    let last_health = Arc::clone(&health);
    diagnostics::publish(&mut graph, move || lock(&last_health).clone())?;
    let mut running = graph.spin()?;
    keys.publish(&msg::OrderKey {
        stamp: time_to_ros(SystemTime::now()),
        public_key: public_key.to_string(),
    })?;
    tracing::info!(order_key = %public_key, "taking mails");

    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let wakeup = desk.core.next_wakeup();
        let input = tokio::select! {
            // Jobs that have ended make room for mails, so these come last.
            biased;
            () = shutdown.requested() => break,
            error = running.ended() => return Err(error.into()),
            _ = ticks.tick() => {
                *lock(&health) = desk.core.health();
                heartbeat(&heartbeats, &id, &params, desk.core.in_flight());
                None
            }
            Some(done) = desk.jobs.join_next(), if !desk.jobs.is_empty() => done.ok().map(finished),
            Some(recorded) = desk.recording.join_next(), if !desk.recording.is_empty() => {
                Some(Input::Recorded(recorded.unwrap_or(false)))
            }
            Some(message) = acknowledgements.recv() => acknowledged(&message),
            () = until(wakeup) => Some(Input::Tick { listeners: desk.commands.subscribers() }),
            Some(message) = mails.recv() => delivered(&message),
        };
        if let Some(input) = input {
            desk.step(input);
        }
    }
    // Finish the mails in progress; the runtime bounds how long that may take. A mail whose order waits for a vehicle
    // comes again.
    while let Some(done) = desk.jobs.join_next().await {
        if let Ok(done) = done {
            desk.step(finished(done));
        }
    }
    Ok(running.shutdown().await?)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn delivered(message: &msg::AuthenticatedMail) -> Option<Input> {
    let (mail, verdict) = valid("mail/authenticated", authenticated_from_ros(message))?;
    Some(Input::Delivered(Arc::new(Delivered { mail, verdict })))
}

fn acknowledged(message: &msg::VehicleAcknowledgement) -> Option<Input> {
    valid("vehicles/acknowledgements", acknowledgement_from_ros(message)).map(Input::Acknowledged)
}

/// The content of a message on `topic`, unless it breaks its specification, which is logged.
fn valid<T, E: Display>(topic: &str, converted: Result<T, E>) -> Option<T> {
    converted
        .inspect_err(|error| tracing::warn!(%error, "a message on {topic} breaks its specification"))
        .ok()
}

fn finished((id, outcome): (MailId, Outcome)) -> Input {
    Input::Done(id, outcome)
}

fn heartbeat(heartbeats: &Publisher<msg::WorkerStatus>, id: &str, params: &Params, in_flight: usize) {
    let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
    let status = msg::WorkerStatus {
        stamp: time_to_ros(SystemTime::now()),
        id: id.to_owned(),
        in_flight: count(in_flight),
        capacity: count(params.capacity),
    };
    if let Err(error) = heartbeats.publish(&status) {
        tracing::warn!(%error, "a heartbeat is lost");
    }
}

/// Carries out the decisions, one at a time.
struct Desk {
    core: Core,
    store: Store,
    worker: Arc<Worker>,
    jobs: JoinSet<(MailId, Outcome)>,
    recorder: Arc<Recorder>,
    recording: JoinSet<bool>,
    outbound: Publisher<msg::OutboundMail>,
    dispositions: Publisher<msg::Disposition>,
    commands: Publisher<msg::VehicleCommand>,
    key: OrderKey,
}

impl Desk {
    fn step(&mut self, input: Input) {
        let now = Now { clock: SystemTime::now(), steady: Instant::now() };
        let effects = self.core.step(input, now);
        effects.into_iter().for_each(|effect| self.carry_out(effect));
    }

    fn carry_out(&mut self, effect: Effect) {
        let result = match effect {
            Effect::Start(id, Job::Interpret(delivered)) => {
                // At once: even for the longest mail it takes a few milliseconds, and for most less than to start a
                // task.
                let interpreted = panic::catch_unwind(|| interpret(&delivered));
                self.step(Input::Done(id, Outcome::of(id, interpreted)));
                Ok(())
            }
            Effect::Start(id, Job::AskStates { vehicle, after }) => {
                let worker = Arc::clone(&self.worker);
                let ask = async move { Outcome::States(worker.states(vehicle, after).await) };
                self.jobs
                    .spawn(async move { (id, Outcome::of(id, AssertUnwindSafe(ask).catch_unwind().await)) });
                Ok(())
            }
            Effect::Write(entries) => {
                let written = self.write(&entries);
                self.step(Input::Written(written));
                Ok(())
            }
            Effect::Record(orders) => {
                // Beside everything else, so that no order waits for the ledger.
                let recorder = Arc::clone(&self.recorder);
                self.recording.spawn(async move { recorder.record(&orders).await });
                Ok(())
            }
            Effect::Command(command) => self.publish(command),
            Effect::Conclude(conclusion) => self.conclude(&conclusion),
            Effect::Notify(mail) => self.outbound.publish(&outbound_to_ros(&mail, SystemTime::now())),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "a message was not published; unless it was a notice, it is published again");
        }
    }

    fn write(&mut self, entries: &[Entry]) -> bool {
        for Entry { mail_id, vehicle, state, on_ledger, reason, .. } in entries {
            tracing::info!(%mail_id, %vehicle, ?state, on_ledger, %reason, "order");
        }
        let result = self.store.write(entries, self.core.book());
        if let Err(error) = &result {
            tracing::error!(error = %runtime::with_sources(error), "an order cannot be written to disk");
        }
        result.is_ok()
    }

    fn publish(&self, mut command: VehicleCommand) -> Result<(), RosError> {
        tracing::info!(mail_id = %command.mail_id, vehicle = %command.vehicle, command = command.command.word(),
            "order published");
        self.key.sign(&mut command);
        self.commands.publish(&command_to_ros(&command, SystemTime::now()))
    }

    fn conclude(&self, conclusion: &Conclusion) -> Result<(), RosError> {
        let Conclusion { mails, disposition } = conclusion;
        let now = SystemTime::now();
        mails.iter().try_for_each(|mail| self.outbound.publish(&outbound_to_ros(mail, now)))?;
        tracing::info!(mail_id = %disposition.mail_id, action = ?disposition.action, reason = %disposition.reason,
            "disposed of");
        self.dispositions.publish(&disposition_to_ros(disposition, now))
    }
}

fn interpret(Delivered { mail, verdict }: &Delivered) -> Outcome {
    Outcome::Interpreted(Box::new(Interpretation::of(mail, verdict)))
}

/// Asks vehicle_router.
struct Worker {
    router: Client<srv::GetState::Service>,
    state_timeout: Duration,
}

impl Worker {
    async fn states(&self, vehicle: String, after: Duration) -> Result<Fleet, Unavailable> {
        // tokio's timers have steps of a millisecond, and a sleep of no time takes one.
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        let request = srv::GetState::Request { vehicle };
        let answer = self.router.ask(&request, self.state_timeout).await.map_err(|error| {
            tracing::warn!(%error, "no states");
            Unavailable
        })?;
        let (states, vehicles) = fleet_from_ros(&answer).map_err(|error| {
            tracing::warn!(%error, "an answer of get_state breaks its specification");
            Unavailable
        })?;
        Ok(Fleet { states, vehicles })
    }
}

/// Puts orders on the evidence ledger.
struct Recorder {
    authenticator: Client<srv::Record::Service>,
    /// This node's name, in whose name the orders are.
    source: Source,
}

impl Recorder {
    /// Waits until the authenticator has the orders on disk, and returns whether it has.
    async fn record(&self, orders: &[Entry]) -> bool {
        let result = self.ask(orders).await;
        match &result {
            Ok(()) => tracing::info!(count = orders.len(), "orders are on the evidence ledger"),
            Err(error) => tracing::warn!(%error, "orders wait for the evidence ledger"),
        }
        result.is_ok()
    }

    async fn ask(&self, orders: &[Entry]) -> Result<(), NodeError> {
        let entries =
            orders.iter().map(|order| statement(order, &self.source).map(|entry| entry_to_ros(&entry)));
        let request = srv::Record::Request { entries: entries.collect::<Result<_, _>>()? };
        let answer = self.authenticator.find_and_ask(&request, RECORD_TIMEOUT).await?;
        if answer.success { Ok(()) } else { Err(answer.message.into()) }
    }
}
