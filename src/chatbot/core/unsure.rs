//! Mails of which it is not known who may be behind them, and automatic ones: what is sent because of them is bounded by
//! a [`Quota`], and never goes to an address that is not proven.

use std::time::SystemTime;

use super::{
    super::{
        authority::Standing,
        compose::{Copy, Origin},
        intent::{NotTaken, Request, Seeming},
        order,
        quota::Quota,
    },
    Core, Effect, settle,
};
use crate::mail::Action;

type Reading = Result<Request, NotTaken>;

/// Who may send how much now.
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
    /// An automatic mail is never answered, but an operator's order in it is not passed over in silence either.
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
        let from_person = origin.from.eq_ignore_ascii_case(&self.params.human_mailbox);
        if orders && !from_person && !self.is_own(origin) && bound.allows(origin) {
            let reason = format!("it reads like an order, which is NOT carried out, as {why}");
            self.forward(origin, &reason, Copy::Automatic)
        } else {
            vec![settle(origin.id, Action::Ignored, why)]
        }
    }

    /// DMARC could not be evaluated. Anybody can claim the address, so it is not answered; a person can judge.
    pub(super) fn unjudged(&self, origin: &Origin, why: &str, mut bound: Bound<'_>) -> Vec<Effect> {
        if bound.allows(origin) {
            self.forward(origin, &format!("it could not be judged: {why}"), Copy::Unproven)
        } else {
            let why = format!("over the hour's bound of mails that cannot be judged: {why}");
            vec![settle(origin.id, Action::Rejected, &why)]
        }
    }

    /// The sender is proven, but the registry cannot be asked what he may do.
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
