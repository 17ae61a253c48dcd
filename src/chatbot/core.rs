// SPDX-License-Identifier: Apache-2.0
//! Decides what happens to each mail.
//!
//! [`Core`] keeps no state: the same mail, verdict, vehicle states, quota and time give the same effects. A mail that
//! is delivered twice is answered by mails of the same identity, and the outbox takes only one of them.
//!
//! What an order needs beyond its mail is left to [`super::orders`].

mod unsure;

use std::time::{Duration, SystemTime};

use mail::{Action, Disposition, Mail, MailId, OutboundMail, Verdict};
use unsure::Bound;
use vehicle::{Command, VehicleCommand, VehicleState};

use super::{
    authority::{self, Standing},
    battery,
    compose::{self, Copy, ReceivedMail},
    describe::{Clock, span},
    help,
    intent::{self, Request, Seeming, Unclear},
    order,
    orders::{Entry, Ordered},
    params::Params,
    position,
    quota::Quota,
    status,
};

/// Name of all replicas together, as in the parameter `consumers` of mail_bridge.
pub(super) const CONSUMER: &str = "chatbot";
/// Most vehicle names listed in an answer.
const MAX_NAMES: usize = 50;

/// An action for the node to take, in the order given. Each MUST be complete before the next begins: a crash in between
/// then repeats an action, which its identity makes harmless, and loses none.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Pass the order to [`super::orders::Orders::consider`]. Always the only effect.
    Order(Box<Ordered>),
    /// Write the state of an order to disk.
    Record(Entry),
    /// Sign and publish the order.
    Command(VehicleCommand),
    /// Publish the mail for sending.
    Send(OutboundMail),
    /// Publish the disposition, so that the mail is not delivered again.
    Settle(Disposition),
    /// Do nothing: the mail stays unsettled, so mail_bridge delivers it again. Always the only effect.
    Retry,
}

/// The next step for a mail.
#[derive(Clone, Debug)]
pub enum Step {
    /// Take these actions; the mail needs nothing else.
    Done(Vec<Effect>),
    /// After [`Pending::pause`], ask vehicle_router for [`Pending::query`], and then call [`Core::answer`].
    NeedsStates(Box<Pending>),
}

/// A permitted request that waits for the states of vehicles. Only [`Core::interpret`] makes one.
#[derive(Clone, Debug)]
pub struct Pending {
    pause: Duration,
    request: Request,
    received: ReceivedMail,
    /// Identity of an order; `None` for a question.
    identity: Option<order::Identity>,
    /// When the mail was received; for an order, its Date if that is earlier.
    since: SystemTime,
}

impl Pending {
    /// `GetState.vehicle` of the request to vehicle_router; empty for all vehicles.
    pub fn query(&self) -> &str {
        self.request.vehicle().unwrap_or_default()
    }

    /// How long to wait before asking vehicle_router.
    pub fn pause(&self) -> Duration {
        self.pause
    }
}

/// vehicle_router's answer (`GetState.srv`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// States of the requested vehicles.
    pub states: Vec<VehicleState>,
    /// Names of all vehicles.
    pub vehicles: Vec<String>,
}

impl Fleet {
    /// vehicle_router's spelling of the only vehicle whose name matches `name`, ignoring case.
    fn vehicle(&self, name: &str) -> Option<&str> {
        let mut matching = self.vehicles.iter().filter(|vehicle| vehicle.eq_ignore_ascii_case(name));
        matching.next().filter(|_| matching.next().is_none()).map(String::as_str)
    }

    fn state(&self, vehicle: &str) -> Option<&VehicleState> {
        self.states.iter().find(|state| state.vehicle == vehicle)
    }
}

/// vehicle_router did not answer, or not in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("vehicle_router does not answer")]
pub struct Unavailable;

/// Decides what happens to mails, by the node's parameters.
#[derive(Clone, Debug)]
pub struct Core {
    params: Params,
}

impl Core {
    /// Creates a core that decides by `params`.
    pub fn new(params: Params) -> Self {
        Self { params }
    }

    /// Takes the first step for a mail; none for one that is other consumers' alone. `automatic` says why it counts as automatic mail, if it does (RFC 3834);
    /// `quota` bounds what is sent on account of senders whose registration is not known.
    pub fn interpret(
        &self,
        mail: &Mail,
        verdict: &Verdict,
        automatic: Option<&str>,
        quota: &mut Quota,
        now: SystemTime,
    ) -> Step {
        if !mail.consumers.iter().any(|consumer| consumer == CONSUMER) {
            return Step::Done(Vec::new());
        }
        let done = |action, reason: &str| Step::Done(vec![settle(mail.id, action, reason)]);
        let standing = authority::standing(verdict, self.params.answers_without_registry);
        let received = ReceivedMail::of(mail.id, &mail.content);
        let reading = intent::read(&mail.content);
        let bound = Bound { quota, now };
        if let Some(why) = automatic {
            return match received {
                Some(received) => Step::Done(self.automatic(&received, &reading, standing, why, bound)),
                None => done(Action::Ignored, why),
            };
        }
        // The verdict's reason explains why a sender is not authenticated, but not why an authenticated one may not do
        // this.
        let why = |why: &'static str| match verdict.reason.as_str() {
            "" => why.to_owned(),
            _ if verdict.authenticated => why.to_owned(),
            reason => reason.to_owned(),
        };
        if let Standing::Rejected(reason) = standing {
            return done(Action::Rejected, &why(reason));
        }
        let Some(received) = received else {
            return done(Action::Rejected, "From must have exactly one address");
        };
        if self.is_own(&received) {
            return done(Action::Ignored, "sent by posthorn itself");
        }
        let is_question = reading.as_ref().is_ok_and(|request| !request.is_order());
        match reading {
            _ if standing == Standing::Unjudged => {
                let why = why("it could not be found out who sent it");
                Step::Done(self.unjudged(&received, &why, bound))
            }
            reading if standing == Standing::Unchecked || standing == Standing::Unproven && !is_question => {
                Step::Done(self.unchecked(&received, &reading, bound))
            }
            Err(intent::NotTaken { why, looks_like: Some(seeming) }) if standing == Standing::Operator => {
                Step::Done(self.not_taken(&received, &why, &seeming))
            }
            Err(not_taken) => Step::Done(self.forward(&received, &not_taken.to_string(), Copy::Plain)),
            Ok(Request::Help) => {
                let text = help::answer(standing == Standing::Operator);
                Step::Done(self.send(&received, &text, Action::Answered, "help"))
            }
            Ok(Request::Order(command, vehicle)) if standing != Standing::Operator => {
                let text = order::refuse(command, &vehicle);
                let reason = "an order from an observer, answered that it is not allowed";
                Step::Done(self.send(&received, &text, Action::Answered, reason))
            }
            Ok(Request::Order(command, vehicle)) => {
                let seeming = Seeming { command, vehicle: Some(vehicle.clone()) };
                if let Err(why) = intent::may_order(&mail.content, verdict) {
                    return Step::Done(self.not_taken(&received, &why, &seeming));
                }
                let Some(identity) = order::Identity::of(&received.from, &mail.content) else {
                    let why = Unclear::NotCovered("it has no Message-ID or no Date".to_owned());
                    return Step::Done(self.not_taken(&received, &why, &seeming));
                };
                let since = mail.received_at.min(identity.date);
                Step::NeedsStates(Box::new(Pending {
                    pause: Duration::ZERO,
                    request: Request::Order(command, vehicle),
                    received,
                    identity: Some(identity),
                    since,
                }))
            }
            Ok(request) => Step::NeedsStates(Box::new(Pending {
                pause: Duration::ZERO,
                request,
                received,
                identity: None,
                since: mail.received_at,
            })),
        }
    }

    fn is_own(&self, received: &ReceivedMail) -> bool {
        received.from.is_same(&self.params.from_address)
    }

    /// Goes on with a request that [`Core::interpret`] began, with vehicle_router's answer. A question is asked once and
    /// can wait for its next delivery. The sender of an order must hear soon, so vehicle_router is asked again until the
    /// request has been `asked_for` this long.
    pub fn answer(
        &self,
        pending: Box<Pending>,
        fleet: Result<&Fleet, Unavailable>,
        asked_for: Duration,
        now: SystemTime,
    ) -> Step {
        let is_urgent = pending.request.is_order() && asked_for < self.params.acknowledgement_timeout;
        match fleet {
            Err(Unavailable) if is_urgent => {
                Step::NeedsStates(Box::new(Pending { pause: self.params.order_retry, ..*pending }))
            }
            fleet => Step::Done(self.complete(&pending, fleet, now)),
        }
    }

    fn complete(
        &self,
        pending: &Pending,
        fleet: Result<&Fleet, Unavailable>,
        now: SystemTime,
    ) -> Vec<Effect> {
        let Pending { request, received, identity, since, .. } = pending;
        let clock = Clock { now, stale_after: self.params.stale_after };
        let fleet = match (fleet, request) {
            (Ok(fleet), _) => fleet,
            (Err(unavailable), Request::Order(command, name)) => {
                let why = format!("{unavailable}, which knows the vehicles");
                return self.not_ordered(received, *command, name, &why);
            }
            (Err(unavailable), _) if clock.age(*since) > self.params.give_up_after => {
                let reason = format!("{unavailable}, for {} now", span(clock.age(*since)));
                return self.forward(received, &reason, Copy::Plain);
            }
            (Err(Unavailable), _) => return vec![Effect::Retry],
        };
        let Some(name) = request.vehicle() else {
            let text = status::answer_fleet(&fleet.states, &clock);
            return self.send(received, &text, Action::Answered, "status of all vehicles");
        };
        let Some(vehicle) = fleet.vehicle(name) else {
            let known = known(name, &fleet.vehicles);
            return match request {
                Request::Order(command, name) => self.not_ordered(received, *command, name, &known),
                _ => self.send(
                    received,
                    &format!("{known}.\n"),
                    Action::Answered,
                    "a vehicle that is not known",
                ),
            };
        };
        let unheard = VehicleState::unheard(vehicle);
        let state = fleet.state(vehicle);
        let known = state.unwrap_or(&unheard);
        let (text, what) = match (request, identity) {
            (Request::Position(_), _) => (position::answer(known, &clock), "position"),
            (Request::Battery(_), _) => (battery::answer(known, &clock), "battery"),
            (Request::Order(command, _), Some(identity)) => {
                let order = VehicleCommand {
                    command_id: identity.command_id,
                    mail_id: received.id,
                    vehicle: vehicle.to_owned(),
                    command: *command,
                    ordered_by: received.from.to_string(),
                    ordered_at: identity.date,
                    signature: [0; 64],
                };
                let state = state.map(|state| status::answer(state, &clock)).unwrap_or_default();
                let ordered = Ordered { received: received.clone(), order, since: *since, state };
                return vec![Effect::Order(Box::new(ordered))];
            }
            _ => (status::answer(known, &clock), "status"),
        };
        self.send(received, &text, Action::Answered, &format!("{what} of {vehicle}"))
    }

    /// Handles an operator's mail that reads like an order but cannot be taken as one.
    fn not_taken(&self, received: &ReceivedMail, why: &Unclear, seeming: &Seeming) -> Vec<Effect> {
        self.tell(received, &order::not_taken(why, seeming), &why.to_string())
    }

    /// Handles an operator's order that cannot be sent now.
    fn not_ordered(
        &self,
        received: &ReceivedMail,
        command: Command,
        vehicle: &str,
        why: &str,
    ) -> Vec<Effect> {
        let reason = format!("it orders \"{} {vehicle}\", and {why}", command.word());
        self.tell(received, &order::not_ordered(command, vehicle, why), &reason)
    }

    /// Tells the sender at once that an order is not carried out, and forwards it to a person as urgent.
    fn tell(&self, received: &ReceivedMail, text: &str, reason: &str) -> Vec<Effect> {
        let mut effects = vec![Effect::Send(received.answer(&self.params, text))];
        effects.extend(self.forward(received, reason, Copy::Urgent));
        effects
    }

    fn send(&self, received: &ReceivedMail, text: &str, action: Action, reason: &str) -> Vec<Effect> {
        vec![Effect::Send(received.answer(&self.params, text)), settle(received.id, action, reason)]
    }

    fn forward(&self, received: &ReceivedMail, reason: &str, copy: Copy) -> Vec<Effect> {
        let forward = received.forward(&self.params, reason, copy);
        vec![Effect::Send(forward), settle(received.id, Action::Forwarded, reason)]
    }
}

pub(super) fn settle(mail_id: MailId, action: Action, reason: &str) -> Effect {
    let consumer = CONSUMER.to_owned();
    Effect::Settle(Disposition { mail_id, consumer, action, reason: compose::reason(reason) })
}

/// Says that there is no vehicle `name`, and lists those that exist.
fn known(name: &str, vehicles: &[String]) -> String {
    let names: Vec<_> = vehicles.iter().take(MAX_NAMES).map(String::as_str).collect();
    let more = match vehicles.len().saturating_sub(MAX_NAMES) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!("there is no vehicle \"{name}\". Vehicles: {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests;
