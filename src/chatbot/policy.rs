// SPDX-License-Identifier: Apache-2.0
//! Decides what happens to a mail, by what it says, its verdict and the states of vehicles.
//!
//! [`Policy`] keeps no state: the same arguments give the same result. A mail that is delivered twice is answered by
//! mails of the same identity, and the outbox takes only one of them.
//!
//! What an order needs beyond its mail is left to [`super::orders`].

mod unsure;

use std::time::{Duration, SystemTime};

use mail::{Action, Mail, OutboundMail, Verdict};
use unsure::Bound;
use vehicle::{Command, VehicleCommand, VehicleState};

use super::{
    authority::{self, Standing},
    battery,
    compose::{Copy, ReceivedMail},
    describe::{Clock, span},
    effect::Conclusion,
    fleet::{Fleet, Unavailable},
    help,
    intent::{NotTaken, Request, Seeming, Unclear},
    interpretation::Interpretation,
    order,
    orders::Ordered,
    params::Params,
    position,
    quota::Quota,
    status,
};

/// Most vehicle names listed in an answer.
const MAX_NAMES: usize = 50;

/// What to do with a mail.
#[derive(Clone, Debug)]
pub enum Step {
    /// End it.
    Conclude(Conclusion),
    /// After [`Pending::pause`], ask vehicle_router for [`Pending::query`], and then call [`Policy::answer`].
    AskStates(Box<Pending>),
    /// Pass the order to [`super::orders::Orders::consider`].
    Order(Box<Ordered>),
    /// Do nothing, so that mail_bridge delivers it again.
    Leave,
}

/// A permitted request that waits for the states of vehicles. Only [`Policy::judge`] makes one.
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

/// Decides what happens to mails, by the node's parameters.
#[derive(Clone, Debug)]
pub struct Policy {
    params: Params,
}

impl Policy {
    /// Creates a policy with these parameters.
    pub fn new(params: Params) -> Self {
        Self { params }
    }

    /// Takes the first step for a mail. `quota` bounds what is sent on account of senders whose registration is not
    /// known.
    pub fn judge(
        &self,
        mail: &Mail,
        verdict: &Verdict,
        interpretation: Interpretation,
        quota: &mut Quota,
        now: SystemTime,
    ) -> Step {
        let Interpretation { received, automatic, request, order } = interpretation;
        let silent = |action, reason: &str| Step::Conclude(Conclusion::silent(mail.id, action, reason));
        let standing = authority::standing(verdict, self.params.answers_without_registry);
        let bound = Bound { quota, now };
        if let Some(why) = automatic {
            return match received {
                Some(received) => self.automatic(&received, &request, standing, why, bound),
                None => silent(Action::Ignored, why),
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
            return silent(Action::Rejected, &why(reason));
        }
        let Some(received) = received else {
            return silent(Action::Rejected, "From must have exactly one address");
        };
        if self.is_own(&received) {
            return silent(Action::Ignored, "sent by posthorn itself");
        }
        let is_question = request.as_ref().is_ok_and(|request| !request.is_order());
        let (request, identity, since) = match request {
            _ if standing == Standing::Unjudged => {
                let why = why("it could not be found out who sent it");
                return self.unjudged(&received, &why, bound);
            }
            request if standing == Standing::Unchecked || standing == Standing::Unproven && !is_question => {
                return self.unchecked(&received, &request, bound);
            }
            Err(NotTaken { why, looks_like: Some(seeming) }) if standing == Standing::Operator => {
                return self.not_taken(&received, &why, &seeming);
            }
            Err(not_taken) => {
                return self.forward(&received, &not_taken.to_string(), Copy::Plain);
            }
            Ok(Request::Help) => {
                let text = help::answer(standing == Standing::Operator);
                return self.answer_with(&received, &text, "help");
            }
            Ok(Request::Order(command, vehicle)) if standing != Standing::Operator => {
                let text = order::refuse(command, &vehicle);
                let reason = "an order from an observer, answered that it is not allowed";
                return self.answer_with(&received, &text, reason);
            }
            Ok(Request::Order(command, vehicle)) => match order {
                Ok(identity) => {
                    let since = mail.received_at.min(identity.date);
                    (Request::Order(command, vehicle), Some(identity), since)
                }
                Err(why) => {
                    let seeming = Seeming { command, vehicle: Some(vehicle) };
                    return self.not_taken(&received, &why, &seeming);
                }
            },
            Ok(question) => (question, None, mail.received_at),
        };
        Step::AskStates(Box::new(Pending { pause: Duration::ZERO, request, received, identity, since }))
    }

    fn is_own(&self, received: &ReceivedMail) -> bool {
        received.from.is_same(&self.params.from_address)
    }

    /// Goes on with a request that [`Policy::judge`] began, with vehicle_router's answer. A question is asked once and
    /// can wait for its next delivery. The sender of an order must hear soon, so vehicle_router is asked again until
    /// the request has been `asked_for` this long.
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
                Step::AskStates(Box::new(Pending { pause: self.params.order_retry, ..*pending }))
            }
            fleet => self.complete(&pending, fleet, now),
        }
    }

    fn complete(&self, pending: &Pending, fleet: Result<&Fleet, Unavailable>, now: SystemTime) -> Step {
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
            (Err(Unavailable), _) => return Step::Leave,
        };
        let Some(name) = request.vehicle() else {
            let text = status::answer_fleet(&fleet.states, &clock);
            return self.answer_with(received, &text, "status of all vehicles");
        };
        let Some(vehicle) = fleet.vehicle(name) else {
            let known = known(name, &fleet.vehicles);
            return match request {
                Request::Order(command, name) => self.not_ordered(received, *command, name, &known),
                _ => self.answer_with(received, &format!("{known}.\n"), "a vehicle that is not known"),
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
                return Step::Order(Box::new(ordered));
            }
            _ => (status::answer(known, &clock), "status"),
        };
        self.answer_with(received, &text, &format!("{what} of {vehicle}"))
    }

    /// Handles an operator's mail that reads like an order but cannot be taken as one.
    fn not_taken(&self, received: &ReceivedMail, why: &Unclear, seeming: &Seeming) -> Step {
        self.tell(received, &order::not_taken(why, seeming), &why.to_string())
    }

    /// Handles an operator's order that cannot be sent now.
    fn not_ordered(&self, received: &ReceivedMail, command: Command, vehicle: &str, why: &str) -> Step {
        let reason = format!("it orders \"{} {vehicle}\", and {why}", command.word());
        self.tell(received, &order::not_ordered(command, vehicle, why), &reason)
    }

    /// Tells the sender at once that an order is not carried out, and forwards it to a person as urgent.
    fn tell(&self, received: &ReceivedMail, text: &str, reason: &str) -> Step {
        let answer = received.answer(&self.params, text);
        let forward = received.forward(&self.params, reason, Copy::Urgent);
        conclude(vec![answer, forward], received, Action::Forwarded, reason)
    }

    fn answer_with(&self, received: &ReceivedMail, text: &str, reason: &str) -> Step {
        conclude(vec![received.answer(&self.params, text)], received, Action::Answered, reason)
    }

    fn forward(&self, received: &ReceivedMail, reason: &str, copy: Copy) -> Step {
        let forward = received.forward(&self.params, reason, copy);
        conclude(vec![forward], received, Action::Forwarded, reason)
    }
}

fn conclude(mails: Vec<OutboundMail>, received: &ReceivedMail, action: Action, reason: &str) -> Step {
    Step::Conclude(Conclusion::new(mails, received.id, action, reason))
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
