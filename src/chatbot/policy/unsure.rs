// SPDX-License-Identifier: Apache-2.0
//! Decides what happens to automatic mails and to mails whose sender could not be checked.
//!
//! A [`Quota`] bounds what is sent on account of such mails, and only the person or a sender whom DMARC proved gets any
//! of it.

use std::time::SystemTime;

use mail::Action;

use super::{
    super::{
        authority::Standing,
        compose::{Copy, ReceivedMail},
        intent::{NotTaken, Request, Seeming},
        order,
        quota::Quota,
    },
    Policy, Step, conclude,
};

type Asked = Result<Request, NotTaken>;

pub(super) struct Bound<'a> {
    pub quota: &'a mut Quota,
    pub now: SystemTime,
}

impl Bound<'_> {
    fn allows(&mut self, received: &ReceivedMail) -> bool {
        self.quota.take(&received.from, self.now)
    }
}

impl Policy {
    /// Never answers an automatic mail, but forwards an operator's order in it instead of dropping it silently.
    pub(super) fn automatic(
        &self,
        received: &ReceivedMail,
        asked: &Asked,
        standing: Standing,
        why: &str,
        mut bound: Bound<'_>,
    ) -> Step {
        let orders = standing == Standing::Operator && ordered(asked).is_some();
        // The person's own absence note about a forward would become another forward.
        let from_person = received.from.is_same(&self.params.human_mailbox);
        if orders && !from_person && !self.is_own(received) && bound.allows(received) {
            let reason = format!("it reads like an order, which is NOT carried out, as {why}");
            self.forward(received, &reason, Copy::Automatic)
        } else {
            conclude(Vec::new(), received, Action::Ignored, why)
        }
    }

    /// Handles a mail whose DMARC could not be evaluated. Anybody can claim the address, so it gets no answer; a person
    /// can judge it.
    pub(super) fn unjudged(&self, received: &ReceivedMail, why: &str, mut bound: Bound<'_>) -> Step {
        if bound.allows(received) {
            self.forward(received, &format!("it could not be judged: {why}"), Copy::Unproven)
        } else {
            let why = format!("over the hour's bound of mails that cannot be judged: {why}");
            conclude(Vec::new(), received, Action::Rejected, &why)
        }
    }

    /// Answers a proven sender whose role is unknown because the registry cannot be asked.
    pub(super) fn unchecked(&self, received: &ReceivedMail, asked: &Asked, mut bound: Bound<'_>) -> Step {
        let reason = "the registry cannot be asked who may ask and order";
        if bound.allows(received) {
            self.answer_with(received, &order::unchecked(ordered(asked).as_ref()), reason)
        } else {
            let why = format!("over the hour's bound of answers: {reason}");
            conclude(Vec::new(), received, Action::Rejected, &why)
        }
    }
}

/// The order that a mail gives or seems to give.
fn ordered(asked: &Asked) -> Option<Seeming> {
    match asked {
        Ok(Request::Order(command, vehicle)) => {
            Some(Seeming { command: *command, vehicle: Some(vehicle.clone()) })
        }
        Ok(_) => None,
        Err(not_taken) => not_taken.looks_like.clone(),
    }
}
