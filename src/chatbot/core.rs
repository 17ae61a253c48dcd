//! What becomes of each mail.
//!
//! Stateless: the same mail, verdict and states give the same effects, so that a mail delivered twice, or to two
//! replicas, is answered by mails of the same identity, of which the outbox takes one.

use std::time::SystemTime;

use crate::{
    mail::{Action, Disposition, Mail, OutboundMail, Verdict},
    vehicle::{VehicleCommand, VehicleState},
};

use super::{
    authority::{self, Standing},
    battery,
    compose::{self, Origin},
    describe::{Clock, span},
    help,
    intent::{self, Request},
    order,
    params::Params,
    position, status,
};

/// Most names that an answer lists.
const MAX_NAMES: usize = 50;

/// What the node must do, in this order: command, send, settle. Each MUST be done before the next, so that a crash in
/// between repeats a thing that is done once by its identity rather than losing it.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Publish the order.
    Command(VehicleCommand),
    /// Publish the mail to be sent.
    Send(OutboundMail),
    /// Publish the disposition: the mail comes no more.
    Settle(Disposition),
    /// Do nothing: the mail stays unsettled, and mail_bridge delivers it again. Always the only effect.
    Retry,
}

/// What becomes of a mail.
#[derive(Clone, Debug)]
pub enum Step {
    /// This.
    Done(Vec<Effect>),
    /// Ask vehicle_router for [`Pending::query`], then call [`Core::answer`].
    NeedsStates(Box<Pending>),
}

/// A request that its sender may make, waiting for the states of vehicles. Only [`Core::interpret`] makes one.
#[derive(Clone, Debug)]
pub struct Pending {
    request: Request,
    origin: Origin,
    /// Of an order; a question needs none.
    identity: Option<order::Identity>,
    /// When it was received, or written if that is longer ago and it is an order.
    since: SystemTime,
}

impl Pending {
    /// `GetState.vehicle` of the request to vehicle_router; empty for all.
    pub fn query(&self) -> &str {
        self.request.vehicle().unwrap_or_default()
    }
}

/// What vehicle_router answered (`GetState.srv`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// The states asked for.
    pub states: Vec<VehicleState>,
    /// Names of all vehicles.
    pub vehicles: Vec<String>,
}

impl Fleet {
    /// The name, as vehicle_router spells it, of the only vehicle called `name` without regard to case.
    fn vehicle(&self, name: &str) -> Option<&str> {
        let mut matching = self.vehicles.iter().filter(|vehicle| vehicle.eq_ignore_ascii_case(name));
        matching.next().filter(|_| matching.next().is_none()).map(String::as_str)
    }

    fn state(&self, vehicle: &str) -> Option<&VehicleState> {
        self.states.iter().find(|state| state.vehicle == vehicle)
    }
}

/// vehicle_router did not answer in time, or at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("vehicle_router does not answer")]
pub struct Unavailable;

/// The decisions of chatbot.
#[derive(Clone, Debug)]
pub struct Core {
    params: Params,
}

impl Core {
    /// Decides by `params`.
    pub fn new(params: Params) -> Self {
        Self { params }
    }

    /// What becomes of a mail. `automatic` is why it counts as an automatic mail, if it does (RFC 3834).
    pub fn interpret(&self, mail: &Mail, verdict: &Verdict, automatic: Option<&str>) -> Step {
        let settle = |action, reason: &str| Step::Done(vec![settle(mail, action, reason)]);
        if let Some(why) = automatic {
            return settle(Action::Ignored, why);
        }
        let standing = authority::standing(verdict, self.params.answers_without_registry);
        if let Standing::Rejected(why) = standing {
            // The authenticator's reason says why somebody is not authenticated, not why that does not suffice.
            let why = if verdict.authenticated || verdict.reason.is_empty() { why } else { &verdict.reason };
            return settle(Action::Rejected, why);
        }
        let Some(origin) = Origin::of(mail.id, &mail.content) else {
            return settle(Action::Rejected, "From must have exactly one address");
        };
        if origin.from.eq_ignore_ascii_case(&self.params.from_address) {
            return settle(Action::Ignored, "sent by posthorn itself");
        }
        match intent::read(&mail.content) {
            Err(_) if standing == Standing::Unproven => {
                settle(Action::Rejected, "not understood, and the registry cannot be asked who the sender is")
            }
            Err(unclear) => Step::Done(self.forward(&origin, &unclear.to_string())),
            Ok(Request::Help) => {
                let text = help::answer(standing == Standing::Operator);
                Step::Done(self.send(&origin, &text, Action::Answered, "help"))
            }
            Ok(Request::Order(command, vehicle)) if standing == Standing::Unproven => {
                let text = order::refuse_for_now(command, &vehicle);
                let reason = "an order while the registry cannot be asked";
                Step::Done(self.send(&origin, &text, Action::Rejected, reason))
            }
            Ok(Request::Order(command, vehicle)) if standing != Standing::Operator => {
                let text = order::refuse(command, &vehicle);
                let reason = "an order from an observer, answered that it is not allowed";
                Step::Done(self.send(&origin, &text, Action::Answered, reason))
            }
            Ok(request) if request.is_order() => match order::Identity::of(&origin.from, &mail.content) {
                Some(identity) => {
                    let since = mail.received_at.min(identity.date);
                    Step::NeedsStates(Box::new(Pending { request, origin, identity: Some(identity), since }))
                }
                None => Step::Done(self.forward(
                    &origin,
                    "it holds an order, but not the Message-ID and Date by which a repetition is told",
                )),
            },
            Ok(request) => Step::NeedsStates(Box::new(Pending {
                request,
                origin,
                identity: None,
                since: mail.received_at,
            })),
        }
    }

    /// Ends what [`Core::interpret`] began.
    pub fn answer(
        &self,
        pending: &Pending,
        fleet: Result<&Fleet, Unavailable>,
        now: SystemTime,
    ) -> Vec<Effect> {
        let Pending { request, origin, identity, since } = pending;
        let clock = Clock { now, stale_after: self.params.stale_after };
        let waited = clock.age(*since);
        let late = waited > self.params.give_up_after;
        let fleet = match fleet {
            Ok(_) if late && request.is_order() => {
                let reason = format!(
                    "it holds an order that is {} old; whether it still holds is for a person to say. It may \
                     have been carried out already",
                    span(waited)
                );
                return self.forward(origin, &reason);
            }
            Ok(_) if identity.as_ref().is_some_and(|order| order.date > now + self.params.give_up_after) => {
                // It would stay fresh until then, and so would every copy.
                return self.forward(origin, "it holds an order whose Date is still to come");
            }
            Ok(fleet) => fleet,
            Err(unavailable) if late => {
                return self.forward(origin, &format!("{unavailable}, for {} now", span(waited)));
            }
            Err(Unavailable) => return vec![Effect::Retry],
        };
        let Some(name) = request.vehicle() else {
            let text = status::answer_fleet(&fleet.states, &clock);
            return self.send(origin, &text, Action::Answered, "status of all vehicles");
        };
        let Some(vehicle) = fleet.vehicle(name) else {
            let text = unknown(name, request, &fleet.vehicles);
            return self.send(origin, &text, Action::Answered, "a vehicle that is not known");
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
                    mail_id: origin.id,
                    vehicle: vehicle.to_owned(),
                    command: *command,
                    ordered_by: origin.from.clone(),
                    ordered_at: identity.date,
                    signature: [0; 64],
                };
                let text = order::answer(*command, vehicle, state, &clock);
                let mut effects = vec![Effect::Command(order)];
                effects.extend(self.send(
                    origin,
                    &text,
                    Action::Ordered,
                    &format!("{} {vehicle}", command.word()),
                ));
                return effects;
            }
            _ => (status::answer(known, &clock), "status"),
        };
        self.send(origin, &text, Action::Answered, &format!("{what} of {vehicle}"))
    }

    fn send(&self, origin: &Origin, text: &str, action: Action, reason: &str) -> Vec<Effect> {
        let disposition = Disposition { mail_id: origin.id, action, reason: compose::reason(reason) };
        vec![Effect::Send(origin.answer(&self.params, text)), Effect::Settle(disposition)]
    }

    fn forward(&self, origin: &Origin, reason: &str) -> Vec<Effect> {
        let disposition =
            Disposition { mail_id: origin.id, action: Action::Forwarded, reason: compose::reason(reason) };
        vec![Effect::Send(origin.forward(&self.params, reason)), Effect::Settle(disposition)]
    }
}

fn settle(mail: &Mail, action: Action, reason: &str) -> Effect {
    Effect::Settle(Disposition { mail_id: mail.id, action, reason: compose::reason(reason) })
}

fn unknown(name: &str, request: &Request, vehicles: &[String]) -> String {
    let ordered = if request.is_order() { " Nothing was ordered." } else { "" };
    let names: Vec<_> = vehicles.iter().take(MAX_NAMES).map(String::as_str).collect();
    let more = match vehicles.len().saturating_sub(MAX_NAMES) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!("There is no vehicle \"{name}\".{ordered}\n\nVehicles: {}{more}\n", names.join(", "))
}

#[cfg(test)]
mod tests;
