// SPDX-License-Identifier: Apache-2.0
//! What the authenticator decides about the mails between their delivery and their verdict. Pure.
//!
//! A delivered mail waits, is checked (SPF, DKIM, DMARC), is looked up in the registry if its sender may be proven, has
//! its verdict recorded, and then published. A mail whose check or lookup got no answer is left: it is forgotten
//! without evidence, and mail_bridge delivers it again.
//!
//! # Invariants
//! - A mail is here at most once, in one [`Stage`], and one [`Job`] at most is under way for it. Delivering it again
//!   meanwhile changes nothing.
//! - A verdict is published only after [`Outcome::Evidenced`], and never says more than the evidence.
//! - A mail is forgotten once it is published, left, or a job on it failed; if it comes again, it starts over.
//! - Checks have the slots of [`Intake`]. None starts while checked mails that are not published yet number
//!   `max_in_flight` or hold [`LANE_BYTES`], so at most twice `max_in_flight` mails are past the queue.
//! - No check starts before the chain has connected or the registry's patience is over, so that a backlog is not
//!   refused because the chain starts a little later; and none after [`Input::Drain`].
//!
//! [`Intake`] sets the order of the checks, [`Judge`] the patience, and [`super::verdict`] the verdict. Time is an
//! argument: the time since the node started. DNS, registry, disk and topics are left to the caller.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fair_queue::{Class, Load, author_domain};
use mail::{AcceptedMail, EmailAddress, MailId, Verdict};

use super::{
    health::Mails,
    intake::{Intake, LANE_BYTES},
    judge::{Judge, Step},
    verdict::{Checked, RegistryAnswer, as_evidenced, decide, evidence_code},
};

/// An event that changes what is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A mail came in, for the first time or again.
    Delivered {
        /// The mail.
        mail: Arc<AcceptedMail>,
        /// Whose share of the check slots it takes.
        class: Class,
    },
    /// A message came in that violates the specification of its topic.
    Malformed,
    /// A [`Job`] on this mail has ended.
    Done(MailId, Outcome),
    /// The chain has connected for the first time.
    ChainConnected,
    /// Time passed.
    Tick,
    /// The node is about to end: finish the mails past the queue and start no other.
    Drain,
}

impl Input {
    /// A delivered mail, in the class of its peer and its one author's domain.
    pub fn delivered(mail: AcceptedMail) -> Self {
        let class = Class::new(&mail.origin, &author_domain(&mail.data).unwrap_or_default());
        Self::Delivered { mail: Arc::new(mail), class }
    }
}

/// How a [`Job`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// [`Job::Check`] has these results.
    Checked(Box<Checked>),
    /// [`Job::AskRegistry`] got this answer.
    Registered(RegistryAnswer),
    /// [`Job::Record`] is done: evidence with these codes is on disk. If the mail was judged before, they are those of
    /// the first time.
    Evidenced([u8; 7]),
    /// [`Job::Publish`] is done. If the middleware rejected the verdict, the mail comes again.
    Published,
    /// The job failed or panicked.
    Failed,
}

/// An action for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Do a job on this mail, then report [`Input::Done`], whatever happens.
    Start(MailId, Job),
    /// Log that this mail is left to be delivered again.
    Left {
        /// The mail.
        id: MailId,
        /// What got no answer.
        reason: String,
    },
    /// Keep this domain among the known ones on disk.
    Remember(String),
}

/// Work on one mail that takes time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Verify SPF, DKIM and DMARC.
    Check(Arc<AcceptedMail>),
    /// Look up the From mailbox in the registry.
    AskRegistry(EmailAddress),
    /// Write the evidence to disk.
    Record {
        /// The mail.
        mail: Arc<AcceptedMail>,
        /// Its one From mailbox.
        from: Option<EmailAddress>,
        /// The verdict's codes.
        codes: [u8; 7],
    },
    /// Publish mail and verdict.
    Publish(Arc<AcceptedMail>, Verdict),
}

/// What a mail is waiting for.
#[derive(Debug)]
enum Stage {
    /// A check slot.
    Queued,
    /// The check, which holds a slot.
    Checking,
    /// The registry.
    Asking(Checked),
    /// The disk.
    Recording { verdict: Verdict, from: Option<EmailAddress> },
    /// The topic.
    Publishing,
}

#[derive(Debug)]
struct Entry {
    mail: Arc<AcceptedMail>,
    stage: Stage,
}

/// Whether checks may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not until the chain has connected, or until this time.
    Holding {
        until: Duration,
    },
    Working,
    Draining,
}

/// Limits of [`Core`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of checks at once, and of checked mails with which another check may not start.
    pub max_in_flight: usize,
    /// How long to leave a mail whose sender's DNS does not answer.
    pub dns_patience: Duration,
    /// How long to leave a mail while the registry cannot be asked, and to hold all mails back for the chain at the
    /// start.
    pub registry_patience: Duration,
}

/// Every mail that was delivered and has no published verdict yet.
#[derive(Debug)]
pub struct Core {
    max_in_flight: usize,
    phase: Phase,
    intake: Intake,
    judge: Judge,
    mails: HashMap<MailId, Entry>,
    /// Size of all mails here, bytes.
    bytes: u64,
    counts: Mails,
}

impl Core {
    /// A core without mails that knows these domains (oldest first) and waits for the chain.
    pub fn new(limits: Limits, known_domains: &[String]) -> Self {
        let Limits { max_in_flight, dns_patience, registry_patience } = limits;
        let mut intake = Intake::new(max_in_flight);
        for domain in known_domains {
            intake.know(domain);
        }
        Self {
            max_in_flight,
            phase: Phase::Holding { until: registry_patience },
            intake,
            judge: Judge::new(dns_patience, registry_patience),
            mails: HashMap::new(),
            bytes: 0,
            counts: Mails::default(),
        }
    }

    /// Applies an input and returns what to do now.
    pub fn step(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Delivered { mail, class } => self.deliver(mail, class),
            Input::Malformed => self.counts.malformed += 1,
            Input::Done(id, outcome) => self.done(id, outcome, now, &mut effects),
            Input::ChainConnected => self.phase = self.phase.connected(),
            Input::Tick => self.phase = self.phase.at(now),
            Input::Drain => self.phase = Phase::Draining,
        }
        self.start_checks(&mut effects);
        effects
    }

    /// When the next `Tick` is needed; `None` if not before another input.
    pub fn next_wakeup(&self) -> Option<Duration> {
        match self.phase {
            Phase::Holding { until } => Some(until),
            Phase::Working | Phase::Draining => None,
        }
    }

    /// The counts to report.
    pub fn counts(&self) -> Mails {
        let waiting = self.intake.waiting().mails;
        Mails { waiting, in_flight: self.mails.len().saturating_sub(waiting), ..self.counts.clone() }
    }

    fn deliver(&mut self, mail: Arc<AcceptedMail>, class: Class) {
        let id = mail.id;
        if self.mails.contains_key(&id) {
            return;
        }
        let bytes = mail.data.len() as u64;
        if self.intake.admit(id, class, bytes) {
            self.bytes = self.bytes.saturating_add(bytes);
            self.mails.insert(id, Entry { mail, stage: Stage::Queued });
        } else {
            self.counts.overflowed += 1;
        }
    }

    /// Moves a mail to its next stage, or forgets it. An outcome of anything but its job changes nothing.
    fn done(&mut self, id: MailId, outcome: Outcome, now: Duration, effects: &mut Vec<Effect>) {
        let Some(Entry { mail, stage }) = self.mails.remove(&id) else { return };
        let next = match (stage, outcome) {
            (Stage::Checking, Outcome::Checked(checked)) => {
                self.intake.checked(id);
                self.checked(&mail, *checked, now, effects)
            }
            (Stage::Asking(checked), Outcome::Registered(answer)) => {
                match self.judge.asked(id, answer.registration, now) {
                    Step::Leave => self.leave(id, "the registry cannot be asked".to_owned(), effects),
                    Step::AskRegistry | Step::Decide => Some(record(&mail, checked, Some(answer), effects)),
                }
            }
            (Stage::Recording { verdict, from }, Outcome::Evidenced(codes)) => {
                Some(self.evidenced(&mail, as_evidenced(verdict, &codes), from, effects))
            }
            (Stage::Publishing, Outcome::Published) => None,
            (Stage::Checking, Outcome::Failed) => {
                self.intake.checked(id);
                None
            }
            (Stage::Asking(_) | Stage::Recording { .. } | Stage::Publishing, Outcome::Failed) => None,
            (stage, _) => Some(stage),
        };
        match next {
            Some(stage) => drop(self.mails.insert(id, Entry { mail, stage })),
            None => self.bytes = self.bytes.saturating_sub(mail.data.len() as u64),
        }
    }

    fn checked(
        &mut self,
        mail: &Arc<AcceptedMail>,
        checked: Checked,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) -> Option<Stage> {
        match (self.judge.checked(mail.id, &checked, now), checked.from.clone()) {
            (Step::Leave, _) => self.leave(mail.id, checked.reason, effects),
            (Step::AskRegistry, Some(from)) => {
                effects.push(Effect::Start(mail.id, Job::AskRegistry(from)));
                Some(Stage::Asking(checked))
            }
            (Step::AskRegistry | Step::Decide, _) => Some(record(mail, checked, None, effects)),
        }
    }

    /// Publishes a verdict whose evidence is on disk.
    fn evidenced(
        &mut self,
        mail: &Arc<AcceptedMail>,
        verdict: Verdict,
        from: Option<EmailAddress>,
        effects: &mut Vec<Effect>,
    ) -> Stage {
        self.judge.judged(mail.id);
        self.counts.judged(&verdict);
        let domain = from.filter(|_| verdict.authenticated).map(|from| from.domain().to_lowercase());
        effects.push(Effect::Start(mail.id, Job::Publish(Arc::clone(mail), verdict)));
        effects.extend(domain.filter(|domain| self.intake.know(domain)).map(Effect::Remember));
        Stage::Publishing
    }

    fn leave(&mut self, id: MailId, reason: String, effects: &mut Vec<Effect>) -> Option<Stage> {
        self.counts.left();
        effects.push(Effect::Left { id, reason });
        None
    }

    fn start_checks(&mut self, effects: &mut Vec<Effect>) {
        while self.phase == Phase::Working
            && self.has_room()
            && let Some(id) = self.intake.take()
        {
            if let Some(entry) = self.mails.get_mut(&id) {
                entry.stage = Stage::Checking;
                effects.push(Effect::Start(id, Job::Check(Arc::clone(&entry.mail))));
            }
        }
    }

    /// The mails that were checked and are not published.
    fn finishing(&self) -> Load {
        let (waiting, checking) = (self.intake.waiting(), self.intake.in_flight());
        Load {
            mails: self.mails.len().saturating_sub(waiting.mails).saturating_sub(checking.mails),
            bytes: self.bytes.saturating_sub(waiting.bytes).saturating_sub(checking.bytes),
        }
    }

    /// Whether those leave room for another.
    fn has_room(&self) -> bool {
        let Load { mails, bytes } = self.finishing();
        mails < self.max_in_flight && bytes < LANE_BYTES
    }
}

impl Phase {
    fn connected(self) -> Self {
        if let Self::Holding { .. } = self { Self::Working } else { self }
    }

    fn at(self, now: Duration) -> Self {
        match self {
            Self::Holding { until } if until <= now => Self::Working,
            phase => phase,
        }
    }
}

/// Decides on the verdict and has it recorded.
fn record(
    mail: &Arc<AcceptedMail>,
    checked: Checked,
    registered: Option<RegistryAnswer>,
    effects: &mut Vec<Effect>,
) -> Stage {
    let from = checked.from.clone();
    let verdict = decide(checked, registered);
    let (mail, codes) = (Arc::clone(mail), evidence_code(&verdict));
    effects.push(Effect::Start(mail.id, Job::Record { mail, from: from.clone(), codes }));
    Stage::Recording { verdict, from }
}

#[cfg(test)]
pub(crate) mod tests;
