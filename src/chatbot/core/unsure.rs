// SPDX-License-Identifier: Apache-2.0
//! Decides what happens to automatic mails and to mails whose sender could not be checked.
//!
//! A [`Quota`] bounds what is sent on account of such mails, and only the person or a sender whom DMARC proved gets any
//! of it.

use std::time::SystemTime;

use mail::Action;

use super::super::authority::Standing;
use super::super::compose::Copy;
use super::super::compose::ReceivedMail;
use super::super::intent::NotTaken;
use super::super::intent::Request;
use super::super::intent::Seeming;
use super::super::order;
use super::super::quota::Quota;
use super::Core;
use super::Effect;
use super::settle;

type Reading = Result<Request, NotTaken>;

pub(super) struct Bound<'a> {
    pub quota: &'a mut Quota,
    pub now: SystemTime,
}

impl Bound<'_> {
    fn allows(&mut self, received: &ReceivedMail) -> bool {
        self.quota.take(&received.from, self.now)
    }
}

impl Core {
    /// Never answers an automatic mail, but forwards an operator's order in it instead of dropping it silently.
    pub(super) fn automatic(
        &self,
        received: &ReceivedMail,
        reading: &Reading,
        standing: Standing,
        why: &str,
        mut bound: Bound<'_>,
    ) -> Vec<Effect> {
        let orders = standing == Standing::Operator && ordered(reading).is_some();
        // The person's own absence note about a forward would become another forward.
        let from_person = received.from.is_same(&self.params.human_mailbox);
        if orders && !from_person && !self.is_own(received) && bound.allows(received) {
            let reason = format!("it reads like an order, which is NOT carried out, as {why}");
            self.forward(received, &reason, Copy::Automatic)
        } else {
            vec![settle(received.id, Action::Ignored, why)]
        }
    }

    /// Handles a mail whose DMARC could not be evaluated. Anybody can claim the address, so it gets no answer; a person
    /// can judge it.
    pub(super) fn unjudged(&self, received: &ReceivedMail, why: &str, mut bound: Bound<'_>) -> Vec<Effect> {
        if bound.allows(received) {
            self.forward(received, &format!("it could not be judged: {why}"), Copy::Unproven)
        } else {
            let why = format!("over the hour's bound of mails that cannot be judged: {why}");
            vec![settle(received.id, Action::Rejected, &why)]
        }
    }

    /// Answers a proven sender whose role is unknown because the registry cannot be asked.
    pub(super) fn unchecked(
        &self,
        received: &ReceivedMail,
        reading: &Reading,
        mut bound: Bound<'_>,
    ) -> Vec<Effect> {
        let reason = "the registry cannot be asked who may ask and order";
        if bound.allows(received) {
            self.send(received, &order::unchecked(ordered(reading).as_ref()), Action::Answered, reason)
        } else {
            let why = format!("over the hour's bound of answers: {reason}");
            vec![settle(received.id, Action::Rejected, &why)]
        }
    }
}

/// The order that a mail gives or seems to give.
fn ordered(reading: &Reading) -> Option<Seeming> {
    match reading {
        Ok(Request::Order(command, vehicle)) => {
            Some(Seeming { command: *command, vehicle: Some(vehicle.clone()) })
        }
        Ok(_) => None,
        Err(not_taken) => not_taken.looks_like.clone(),
    }
}
