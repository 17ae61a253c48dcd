//! The node: authenticated mails to [`Core`], its effects to topics, vehicle_router's states in between.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tokio::{task::JoinSet, time::MissedTickBehavior};

use super::{
    Core, Params,
    core::{Effect, Fleet, Step, Unavailable},
    health::Work,
    params::SPECS,
};
use crate::{
    mail::is_automatic,
    record_log::create_directory,
    ros::{
        RosError,
        convert::{
            authenticated_from_ros, command_to_ros, disposition_to_ros, outbound_to_ros, state_from_ros,
            time_to_ros,
        },
        diagnostics,
        graph::{Client, Graph, Publisher},
        lock, msg,
        runtime::{self, NodeError, NodeFacts, Shutdown},
        srv, topics,
    },
    vehicle::OrderKey,
};

/// Name, purpose and parameters of the node.
pub const FACTS: NodeFacts = NodeFacts {
    name: "chatbot",
    about: "Answers mails of authenticated senders from live vehicle data, and passes on their orders",
    specs: SPECS,
};

const HEARTBEAT: Duration = Duration::from_secs(1);

/// `main` of the executable.
pub fn main() -> ExitCode {
    runtime::run(FACTS, Params::load, run)
}

async fn run(mut graph: Graph, params: Params, mut shutdown: Shutdown) -> Result<(), NodeError> {
    create_directory(&params.state_directory)
        .map_err(|error| format!("state_directory {}: {error}", params.state_directory.display()))?;
    let key = OrderKey::load_or_create(&params.order_key_path)?;
    let public_key = key.public();
    let work = Arc::new(Mutex::new(Work::new(params.capacity)));
    let worker = Arc::new(Worker {
        router: graph.client(&topics::GET_STATE)?,
        state_timeout: params.state_timeout,
        outbound: graph.publisher(&topics::MAIL_OUTBOUND)?,
        dispositions: graph.publisher(&topics::MAIL_DISPOSITIONS)?,
        commands: graph.publisher(&topics::VEHICLES_COMMANDS)?,
        key,
        work: Arc::clone(&work),
        core: Core::new(params),
    });
    let mut mails = graph.subscribe(&topics::MAIL_AUTHENTICATED)?;
    let keys = graph.publisher(&topics::CHATBOT_ORDER_KEY)?;
    let heartbeats = graph.publisher(&topics::CHATBOT_WORKERS)?;
    let id = format!("{}/{}", graph.name(), std::process::id());
    diagnostics::publish(&mut graph, move || lock(&work).health())?;
    let mut spinning = graph.spin()?;
    keys.publish(&msg::OrderKey {
        stamp: time_to_ros(SystemTime::now()),
        public_key: public_key.to_string(),
    })?;
    tracing::info!(order_key = %public_key, "taking mails");

    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            error = spinning.ended() => return Err(error.into()),
            _ = ticks.tick() => worker.heartbeat(&id, &heartbeats),
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            Some(mail) = mails.recv() => {
                // No room: the mail is not settled, so mail_bridge delivers it again.
                if lock(&worker.work).begin() {
                    let worker = Arc::clone(&worker);
                    tasks.spawn(async move { worker.handle(&mail).await });
                }
            }
        }
    }
    // What is in flight is finished; the runtime bounds how long that may take.
    while tasks.join_next().await.is_some() {}
    Ok(())
}

struct Worker {
    core: Core,
    work: Arc<Mutex<Work>>,
    router: Client<srv::GetState::Service>,
    state_timeout: Duration,
    outbound: Publisher<msg::OutboundMail>,
    dispositions: Publisher<msg::Disposition>,
    commands: Publisher<msg::VehicleCommand>,
    key: OrderKey,
}

impl Worker {
    async fn handle(&self, message: &msg::AuthenticatedMail) {
        let effects = match authenticated_from_ros(message) {
            Ok((mail, verdict)) => {
                let automatic = is_automatic(&mail.content, &mail.envelope);
                match self.core.interpret(&mail, &verdict, automatic) {
                    Step::Done(effects) => effects,
                    Step::NeedsStates(pending) => {
                        let fleet = self.fleet(pending.query()).await;
                        self.core.answer(&pending, fleet.as_ref().map_err(|&e| e), SystemTime::now())
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a message on mail/authenticated breaks its specification");
                Vec::new()
            }
        };
        if let Err(error) = self.carry_out(&effects) {
            tracing::warn!(%error, "effects are lost; the mail comes again");
        }
        lock(&self.work).end(&effects);
    }

    async fn fleet(&self, query: &str) -> Result<Fleet, Unavailable> {
        let request = srv::GetState::Request { vehicle: query.to_owned() };
        let answer = self.router.ask(&request, self.state_timeout).await.map_err(|error| {
            tracing::warn!(%error, "no states");
            Unavailable
        });
        lock(&self.work).asked(&answer);
        let answer = answer?;
        Ok(Fleet { states: answer.states.iter().map(state_from_ros).collect(), vehicles: answer.vehicles })
    }

    /// In the order given, and none after one that failed.
    fn carry_out(&self, effects: &[Effect]) -> Result<(), RosError> {
        let now = SystemTime::now();
        for effect in effects {
            match effect {
                Effect::Command(command) => {
                    tracing::info!(mail_id = %command.mail_id, vehicle = %command.vehicle, "order");
                    let mut command = command.clone();
                    self.key.sign(&mut command);
                    self.commands.publish(&command_to_ros(&command, now))?;
                }
                Effect::Send(mail) => self.outbound.publish(&outbound_to_ros(mail, now))?,
                Effect::Settle(disposition) => {
                    tracing::info!(mail_id = %disposition.mail_id, action = ?disposition.action,
                        reason = %disposition.reason, "settled");
                    self.dispositions.publish(&disposition_to_ros(disposition, now))?;
                }
                Effect::Retry => {}
            }
        }
        Ok(())
    }

    fn heartbeat(&self, id: &str, heartbeats: &Publisher<msg::WorkerStatus>) {
        let (in_flight, capacity) = {
            let work = lock(&self.work);
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
