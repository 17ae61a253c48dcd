// SPDX-License-Identifier: Apache-2.0
//! Takes each mail from its delivery to its disposition. Pure.
//!
//! A delivered mail is interpreted, judged and, if that needs vehicles, answered from their states. An order waits in
//! [`Orders`] for its vehicle.
//!
//! # Invariants
//! - A mail is here at most once, and one [`Job`] at most is under way for it. Delivering it again meanwhile changes
//!   nothing.
//! - At most `capacity` mails have a job. A mail beyond these, or whose job fails, is left: mail_bridge delivers it
//!   again.
//! - A mail is concluded at most once for each time that it is taken.
//!
//! [`Policy`] decides what happens to a mail, [`Orders`] what happens to an order. Topics, services and the disk are
//! left to the caller.

use std::{collections::HashMap, sync::Arc, thread, time::Instant};

use health::Status;
use mail::MailId;
use vehicle::Acknowledgement;

use super::{
    Params,
    effect::{CONSUMER, Delivered, Effect, Job},
    fleet::{Fleet, Unavailable},
    health::Work,
    interpretation::Interpretation,
    orders::{Book, Consideration, Entry, Now, Ordered, Orders},
    policy::{Pending, Policy, Step},
    quota::Quota,
};

/// An event that changes what is to be done.
#[derive(Clone, Debug)]
pub enum Input {
    /// A mail came in, for the first time or again.
    Delivered(Arc<Delivered>),
    /// A [`Job`] on this mail has ended.
    Done(MailId, Outcome),
    /// A vehicle acknowledged an order.
    Acknowledged(Acknowledgement),
    /// [`Effect::Write`] has ended; whether everything is on disk.
    Written(bool),
    /// [`Effect::Record`] has ended; whether the authenticator has everything on its disk.
    Recorded(bool),
    /// Time passed.
    Tick {
        /// Number of subscribers to orders.
        listeners: usize,
    },
}

/// How a [`Job`] ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// [`Job::Interpret`] is done.
    Interpreted(Box<Interpretation>),
    /// [`Job::AskStates`] got this answer, or none.
    States(Result<Fleet, Unavailable>),
    /// The job panicked.
    Failed,
}

impl Outcome {
    /// What a job has returned. One that panicked costs its mail this delivery, and the node nothing.
    pub fn of(mail_id: MailId, job: thread::Result<Self>) -> Self {
        job.unwrap_or_else(|_| {
            tracing::error!(%mail_id, "the work on a mail panicked; the mail comes again");
            Self::Failed
        })
    }
}

/// What a mail is waiting for.
#[derive(Debug)]
enum Stage {
    /// [`Job::Interpret`].
    Interpreting(Arc<Delivered>),
    /// [`Job::AskStates`]; vehicle_router has been asked since then.
    Asking(Box<Pending>, Instant),
}

/// The mails that are being answered, and the orders.
#[derive(Debug)]
pub struct Core {
    policy: Policy,
    quota: Quota,
    orders: Orders,
    /// The order that begins with [`Input::Written`].
    admitted: Option<Box<Ordered>>,
    /// The last [`Effect::Write`] worked.
    written: bool,
    mails: HashMap<MailId, Stage>,
    work: Work,
}

impl Core {
    /// A core without mails that continues from the orders that were read from disk.
    pub fn new(params: Params, book: Book, now: Instant) -> Self {
        Self {
            work: Work::new(params.capacity),
            policy: Policy::new(params.clone()),
            quota: Quota::default(),
            orders: Orders::new(params, book, now),
            admitted: None,
            written: true,
            mails: HashMap::new(),
        }
    }

    /// Applies an input and returns what to do now.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut effects = match input {
            Input::Delivered(delivered) => self.deliver(delivered),
            Input::Done(id, outcome) => self.done(id, outcome, now),
            Input::Acknowledged(acknowledgement) => self.orders.acknowledged(&acknowledgement),
            Input::Written(written) => self.written(written, now),
            Input::Recorded(on_ledger) => write(self.orders.recorded(on_ledger, now.steady)),
            Input::Tick { listeners } => self.orders.due(now, listeners),
        };
        let to_record = self.orders.begin_recording(now.steady);
        effects.extend((!to_record.is_empty()).then_some(Effect::Record(to_record)));
        effects.iter().for_each(|effect| self.work.count(effect));
        effects
    }

    /// When the next `Tick` is needed; `None` if not before another input.
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.orders.next_due()
    }

    /// The orders that must be kept on disk beside those of [`Effect::Write`].
    pub fn book(&self) -> &Book {
        self.orders.book()
    }

    /// Number of mails that have a job.
    pub fn in_flight(&self) -> usize {
        self.mails.len()
    }

    /// The statuses for `/diagnostics`.
    pub fn health(&self) -> Vec<Status> {
        let mut statuses = self.work.health(self.mails.len());
        statuses.push(self.orders.health(self.written));
        statuses
    }

    fn deliver(&mut self, delivered: Arc<Delivered>) -> Vec<Effect> {
        let id = delivered.mail.id;
        let is_ours = delivered.mail.consumers.iter().any(|consumer| consumer == CONSUMER);
        let is_here = self.mails.contains_key(&id) || self.orders.is_waiting(id);
        if !is_ours || is_here || self.mails.len() >= self.work.capacity() {
            return Vec::new();
        }
        self.mails.insert(id, Stage::Interpreting(Arc::clone(&delivered)));
        vec![Effect::Start(id, Job::Interpret(delivered))]
    }

    /// Moves a mail to its next stage, or forgets it. An outcome of anything but its job changes nothing.
    fn done(&mut self, id: MailId, outcome: Outcome, now: Now) -> Vec<Effect> {
        let (step, since) = match (self.mails.remove(&id), outcome) {
            (Some(Stage::Interpreting(delivered)), Outcome::Interpreted(interpretation)) => {
                let Delivered { mail, verdict } = &*delivered;
                let step = self.policy.judge(mail, verdict, *interpretation, &mut self.quota, now.clock);
                (step, now.steady)
            }
            (Some(Stage::Asking(pending, since)), Outcome::States(fleet)) => {
                self.work.asked(fleet.is_ok());
                let asked_for = now.steady.duration_since(since);
                let fleet = fleet.as_ref().map_err(|&unavailable| unavailable);
                (self.policy.answer(pending, fleet, asked_for, now.clock), since)
            }
            (None, _) => return Vec::new(),
            (Some(_), Outcome::Failed) => return self.leave(),
            (Some(stage), _) => {
                self.mails.insert(id, stage);
                return Vec::new();
            }
        };
        match step {
            Step::Conclude(conclusion) => vec![Effect::Conclude(conclusion)],
            Step::AskStates(pending) => {
                let job = Job::AskStates { vehicle: pending.query().to_owned(), after: pending.pause() };
                self.mails.insert(id, Stage::Asking(pending, since));
                vec![Effect::Start(id, job)]
            }
            Step::Order(ordered) => self.order(ordered, now),
            Step::Leave => self.leave(),
        }
    }

    fn order(&mut self, ordered: Box<Ordered>, now: Now) -> Vec<Effect> {
        match self.orders.consider(&ordered, now) {
            Consideration::Conclude(conclusion) => vec![Effect::Conclude(conclusion)],
            Consideration::Write(entry) => {
                self.admitted = Some(ordered);
                write(vec![entry])
            }
            Consideration::Leave => self.leave(),
        }
    }

    fn written(&mut self, written: bool, now: Now) -> Vec<Effect> {
        self.written = written;
        let admitted = self.admitted.take();
        admitted.map_or_else(Vec::new, |ordered| self.orders.begin(*ordered, written, now))
    }

    fn leave(&mut self) -> Vec<Effect> {
        self.work.left();
        Vec::new()
    }
}

fn write(entries: Vec<Entry>) -> Vec<Effect> {
    if entries.is_empty() { Vec::new() } else { vec![Effect::Write(entries)] }
}

#[cfg(test)]
mod tests;
