// SPDX-License-Identifier: Apache-2.0
//! Runs the node: feeds authenticated mails to [`Core`], asks vehicle_router for states, and carries out the effects.
//!
//! At shutdown it finishes the mails in progress. What happens to a mail is left to [`Core`] and
//! [`Orders`](super::orders::Orders).

use std::{
    future::Future,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use evidence::Source;
use mail::is_automatic;
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
use tokio::{
    task::{JoinError, JoinSet},
    time::MissedTickBehavior,
};
use vehicle::OrderKey;

use super::{
    Core, Params, Quota,
    core::{Effect, Fleet, Step, Unavailable},
    health::{Slot, Work},
    orders::{Consideration, Entry, Now, Ordered, Orders, ledger::statement, store::Store},
    params::SPECS,
};

/// Name, purpose and parameters for the runtime.
pub const FACTS: NodeFacts = NodeFacts {
    name: "chatbot",
    about: "Answers mails of authenticated senders from live vehicle data, and passes on their orders",
    specs: SPECS,
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
    let work = Arc::new(Mutex::new(Work::new(params.capacity)));
    let mut desk = Desk {
        outbound: graph.publisher(&topics::MAIL_OUTBOUND)?,
        dispositions: graph.publisher(&topics::MAIL_DISPOSITIONS)?,
        commands: graph.publisher(&topics::VEHICLES_COMMANDS)?,
        key,
        orders: Orders::new(params.clone(), book),
        store,
        written: true,
        work: Arc::clone(&work),
    };
    let worker = Arc::new(Worker {
        router: graph.client(&topics::GET_STATE)?,
        params: params.clone(),
        work: Arc::clone(&work),
        quota: Mutex::default(),
        core: Core::new(params),
    });
    let recorder = Arc::new(Recorder {
        authenticator: graph.client(&topics::RECORD)?,
        source: graph.fully_qualified_name().parse()?,
    });
    let mut mails = graph.subscribe(&topics::MAIL_AUTHENTICATED)?;
    let mut acknowledgements = graph.subscribe(&topics::VEHICLES_ACKNOWLEDGEMENTS)?;
    let keys = graph.publisher(&topics::CHATBOT_ORDER_KEY)?;
    let heartbeats = graph.publisher(&topics::CHATBOT_WORKERS)?;
    let id = format!("{}/{}", graph.name(), std::process::id());
    let health_work = Arc::clone(&work);
    diagnostics::publish(&mut graph, move || lock(&health_work).health())?;
    let mut running = graph.spin()?;
    keys.publish(&msg::OrderKey {
        stamp: time_to_ros(SystemTime::now()),
        public_key: public_key.to_string(),
    })?;
    tracing::info!(order_key = %public_key, "taking mails");

    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tasks = JoinSet::new();
    let mut recording = JoinSet::new();
    loop {
        // Beside everything else, so that no order waits for the ledger.
        let orders = desk.orders.begin_recording(Instant::now());
        if !orders.is_empty() {
            let recorder = Arc::clone(&recorder);
            recording.spawn(async move { recorder.record(&orders).await });
        }
        let due = desk.orders.next_due();
        tokio::select! {
            () = shutdown.requested() => break,
            error = running.ended() => return Err(error.into()),
            _ = ticks.tick() => desk.heartbeat(&id, &heartbeats),
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => desk.carry_out(effects_of(ended)),
            Some(ended) = recording.join_next(), if !recording.is_empty() => desk.recorded(ended),
            Some(acknowledgement) = acknowledgements.recv() => desk.hear(&acknowledgement),
            () = until(due) => desk.keep_on(),
            Some(mail) = mails.recv() => {
                // Without room, the mail stays unsettled, so mail_bridge delivers it again.
                if !desk.is_waiting(&mail) && let Some(slot) = lock(&work).begin() {
                    let worker = Arc::clone(&worker);
                    tasks.spawn(holding(slot, async move { worker.handle(&mail).await }));
                }
            }
        }
    }
    // Finish the mails in progress; the runtime bounds how long that may take. A mail whose order waits for a vehicle
    // stays unsettled and comes again.
    while let Some(ended) = tasks.join_next().await {
        desk.carry_out(effects_of(ended));
    }
    Ok(running.shutdown().await?)
}

/// Does the work on a mail while holding its slot, which is free again when the work ends or panics.
async fn holding<T>(_slot: Slot, work: impl Future<Output = T>) -> T {
    work.await
}

/// A mail whose work panicked has no effects, so it stays unsettled.
fn effects_of(ended: Result<Vec<Effect>, JoinError>) -> Vec<Effect> {
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "the work on a mail panicked; the mail comes again");
        Vec::new()
    })
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn now() -> Now {
    Now { clock: SystemTime::now(), steady: Instant::now() }
}

/// Decides what happens to mails, many at once.
struct Worker {
    core: Core,
    params: Params,
    quota: Mutex<Quota>,
    work: Arc<Mutex<Work>>,
    router: Client<srv::GetState::Service>,
}

/// Puts orders on the evidence ledger.
struct Recorder {
    authenticator: Client<srv::Record::Service>,
    /// This node's name, in whose name the orders are.
    source: Source,
}

impl Recorder {
    /// Waits until the authenticator has the orders on disk.
    async fn record(&self, orders: &[Entry]) -> Result<(), NodeError> {
        let entries =
            orders.iter().map(|order| statement(order, &self.source).map(|entry| entry_to_ros(&entry)));
        let request = srv::Record::Request { entries: entries.collect::<Result<_, _>>()? };
        let answer = self.authenticator.find_and_ask(&request, RECORD_TIMEOUT).await?;
        if !answer.success {
            return Err(answer.message.into());
        }
        tracing::info!(count = orders.len(), "orders are on the evidence ledger");
        Ok(())
    }
}

/// Carries out the decisions, one at a time.
struct Desk {
    orders: Orders,
    store: Store,
    /// The last attempt to write an order to disk succeeded.
    written: bool,
    outbound: Publisher<msg::OutboundMail>,
    dispositions: Publisher<msg::Disposition>,
    commands: Publisher<msg::VehicleCommand>,
    key: OrderKey,
    work: Arc<Mutex<Work>>,
}

impl Worker {
    async fn handle(&self, message: &msg::AuthenticatedMail) -> Vec<Effect> {
        match authenticated_from_ros(message) {
            Ok((mail, verdict)) => {
                let automatic = is_automatic(&mail.content, &mail.origin);
                let mut step = {
                    let mut quota = lock(&self.quota);
                    self.core.interpret(&mail, &verdict, automatic, &mut quota, SystemTime::now())
                };
                let began = Instant::now();
                loop {
                    match step {
                        Step::Done(effects) => return effects,
                        Step::NeedsStates(pending) => {
                            // A sleep of no time takes up to a millisecond: tokio's timers have no finer steps.
                            if !pending.pause().is_zero() {
                                tokio::time::sleep(pending.pause()).await;
                            }
                            let fleet = self.fleet(pending.query()).await;
                            let fleet = fleet.as_ref().map_err(|&error| error);
                            step = self.core.answer(pending, fleet, began.elapsed(), SystemTime::now());
                        }
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a message on mail/authenticated breaks its specification");
                Vec::new()
            }
        }
    }

    async fn fleet(&self, query: &str) -> Result<Fleet, Unavailable> {
        let request = srv::GetState::Request { vehicle: query.to_owned() };
        let answer = self.router.ask(&request, self.params.state_timeout).await.map_err(|error| {
            tracing::warn!(%error, "no states");
            Unavailable
        });
        let fleet = answer.and_then(|answer| {
            let (states, vehicles) = fleet_from_ros(&answer).map_err(|error| {
                tracing::warn!(%error, "an answer of get_state breaks its specification");
                Unavailable
            })?;
            Ok(Fleet { states, vehicles })
        });
        lock(&self.work).asked(&fleet);
        fleet
    }
}

impl Desk {
    fn is_waiting(&self, message: &msg::AuthenticatedMail) -> bool {
        message.mail.id.parse().is_ok_and(|id| self.orders.is_waiting(id))
    }

    fn hear(&mut self, message: &msg::VehicleAcknowledgement) {
        match acknowledgement_from_ros(message) {
            Ok(acknowledgement) => {
                let effects = self.orders.acknowledged(&acknowledgement);
                self.carry_out(effects);
            }
            Err(error) => {
                tracing::warn!(%error, "a message on vehicles/acknowledgements breaks its specification");
            }
        }
    }

    fn keep_on(&mut self) {
        let effects = self.orders.due(now(), self.commands.subscribers());
        self.carry_out(effects);
    }

    fn recorded(&mut self, ended: Result<Result<(), NodeError>, JoinError>) {
        let answer = ended.unwrap_or_else(|panicked| Err(panicked.into()));
        if let Err(error) = &answer {
            tracing::warn!(%error, "orders wait for the evidence ledger");
        }
        let changed = self.orders.recorded(answer.is_ok(), Instant::now());
        if !changed.is_empty() {
            self.write(&changed);
        }
    }

    fn order(&mut self, ordered: Ordered) {
        let effects = match self.orders.consider(&ordered, now()) {
            Consideration::Done(effects) => effects,
            Consideration::Write(entry) => {
                self.write(&[entry]);
                self.orders.begin(ordered, self.written, now())
            }
        };
        self.carry_out(effects);
    }

    fn write(&mut self, entries: &[Entry]) {
        let result = self.store.write(entries, self.orders.book());
        self.written = result.is_ok();
        if let Err(error) = result {
            tracing::error!(error = %runtime::with_sources(&error), "an order cannot be written to disk");
        }
    }

    /// Carries out effects in order, and stops at the first failure.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            lock(&self.work).count(&effect);
            if let Err(error) = self.do_one(effect) {
                tracing::warn!(%error, "effects are lost; the mail comes again");
                return;
            }
        }
    }

    fn do_one(&mut self, effect: Effect) -> Result<(), RosError> {
        let now = SystemTime::now();
        match effect {
            Effect::Order(ordered) => self.order(*ordered),
            Effect::Record(entry) => {
                tracing::info!(mail_id = %entry.mail_id, vehicle = %entry.vehicle, state = ?entry.state,
                    reason = %entry.reason, "order");
                self.write(&[entry]);
            }
            Effect::Command(mut command) => {
                tracing::info!(mail_id = %command.mail_id, vehicle = %command.vehicle,
                    command = command.command.word(), "order published");
                self.key.sign(&mut command);
                self.commands.publish(&command_to_ros(&command, now))?;
            }
            Effect::Send(mail) => self.outbound.publish(&outbound_to_ros(&mail, now))?,
            Effect::Settle(disposition) => {
                tracing::info!(mail_id = %disposition.mail_id, action = ?disposition.action,
                    reason = %disposition.reason, "settled");
                self.dispositions.publish(&disposition_to_ros(&disposition, now))?;
            }
            Effect::Retry => {}
        }
        Ok(())
    }

    fn heartbeat(&self, id: &str, heartbeats: &Publisher<msg::WorkerStatus>) {
        let (in_flight, capacity) = {
            let mut work = lock(&self.work);
            work.orders(self.orders.health(self.written));
            (work.in_flight(), work.capacity())
        };
        let status = msg::WorkerStatus {
            stamp: time_to_ros(SystemTime::now()),
            id: id.to_owned(),
            in_flight,
            capacity,
        };
        if let Err(error) = heartbeats.publish(&status) {
            tracing::warn!(%error, "a heartbeat is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mail_whose_work_panics_gives_its_slot_back() {
        let mut work = Work::new(1);
        let slot = work.begin().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(holding(slot, async { panic!("on purpose") }));
        assert!(work.begin().is_none());
        assert!(effects_of(tasks.join_next().await.unwrap()).is_empty());
        assert!(work.begin().is_some());
    }
}
