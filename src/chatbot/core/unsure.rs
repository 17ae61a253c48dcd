// SPDX-License-Identifier: Apache-2.0
//! Decides what happens to automatic mails and to mails whose sender could not be checked.
//!
//! A [`Quota`] bounds what is sent on account of such mails, and only the person or a sender whom DMARC proved gets any
//! of it.

use std::time::SystemTime;

use mail::Action;

use super::super::authority::Standing;
use super::super::compose::Copy;
use super::super::compose::Origin;
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
    fn allows(&mut self, origin: &Origin) -> bool {
        self.quota.take(&origin.from, self.now)
    }
}

impl Core {
    /// Never answers an automatic mail, but forwards an operator's order in it instead of dropping it silently.
    pub(super) fn automatic(
        &self,
        origin: &Origin,
        reading: &Reading,
        standing: Standing,
        why: &str,
        mut bound: Bound<'_>,
    ) -> Vec<Effect> {
        let orders = standing == Standing::Operator && ordered(reading).is_some();
        // The person's own absence note about a forward would become another forward.
        let from_person = origin.from.is_same(&self.params.human_mailbox);
        if orders && !from_person && !self.is_own(origin) && bound.allows(origin) {
            let reason = format!("it reads like an order, which is NOT carried out, as {why}");
            self.forward(origin, &reason, Copy::Automatic)
        } else {
            vec![settle(origin.id, Action::Ignored, why)]
        }
    }

    /// Handles a mail whose DMARC could not be evaluated. Anybody can claim the address, so it gets no answer; a person
    /// can judge it.
    pub(super) fn unjudged(&self, origin: &Origin, why: &str, mut bound: Bound<'_>) -> Vec<Effect> {
        if bound.allows(origin) {
            self.forward(origin, &format!("it could not be judged: {why}"), Copy::Unproven)
        } else {
            let why = format!("over the hour's bound of mails that cannot be judged: {why}");
            vec![settle(origin.id, Action::Rejected, &why)]
        }
    }

    /// Answers a proven sender whose role is unknown because the registry cannot be asked.
    pub(super) fn unchecked(&self, origin: &Origin, reading: &Reading, mut bound: Bound<'_>) -> Vec<Effect> {
        let reason = "the registry cannot be asked who may ask and order";
        if bound.allows(origin) {
            self.send(origin, &order::unchecked(ordered(reading).as_ref()), Action::Answered, reason)
        } else {
            let why = format!("over the hour's bound of answers: {reason}");
            vec![settle(origin.id, Action::Rejected, &why)]
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
