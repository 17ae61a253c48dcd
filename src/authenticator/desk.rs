// SPDX-License-Identifier: Apache-2.0
//! Runs the work on delivered mails in the order that [`Intake`] sets: first a check, which queries DNS, then the
//! rest.
//!
//! A check that waits for DNS does not hold up mails of other domains. Work that panics ends that mail's turn and
//! frees its slot.
//!
//! What a check does, and what follows it, is up to the caller's [`Work`].

use std::{collections::HashMap, future::Future, sync::Arc};

use mail::{AcceptedMail, MailId};
use tokio::{
    sync::mpsc,
    task::{Id, JoinSet},
};

use super::intake::{Admission, Intake};

/// The work to do on one mail.
pub trait Work: Send + Sync + 'static {
    /// Result of a check.
    type Checked: Send + 'static;

    /// Returns the domain of the mail's one author; empty if there is not exactly one.
    fn domain(&self, mail: &AcceptedMail) -> String;

    /// Checks the sender, querying DNS.
    fn check(&self, mail: &AcceptedMail) -> impl Future<Output = Self::Checked> + Send;

    /// Does everything after the check; returns the author's domain if the sender was authenticated.
    fn finish(
        &self,
        mail: &AcceptedMail,
        checked: Self::Checked,
    ) -> impl Future<Output = Option<String>> + Send;
}

/// The mails being worked on and the queue behind them.
pub struct Desk<W: Work> {
    work: Arc<W>,
    intake: Intake,
    max_finishing: usize,
    /// One task per mail, with what [`Work::finish`] returns. A task per step would cost two more wake-ups per mail.
    tasks: JoinSet<Option<String>>,
    mails: HashMap<Id, MailId>,
    /// Each task sends its mail's id here when the check ends.
    checked: mpsc::UnboundedReceiver<MailId>,
    check_over: mpsc::UnboundedSender<MailId>,
}

impl<W: Work> Desk<W> {
    /// Allows `max_in_flight` checks at once, and as many checked mails being finished.
    pub fn new(work: Arc<W>, max_in_flight: usize) -> Self {
        let (check_over, checked) = mpsc::unbounded_channel();
        Self {
            work,
            intake: Intake::new(max_in_flight),
            max_finishing: max_in_flight,
            tasks: JoinSet::new(),
            mails: HashMap::new(),
            checked,
            check_over,
        }
    }

    /// Marks a domain as known because a sender of it was authenticated before.
    pub fn know(&mut self, domain: &str) {
        self.intake.know(domain);
    }

    /// Admits a delivered mail and starts whatever work has room.
    pub fn take(&mut self, mail: AcceptedMail) -> Admission {
        let domain = self.work.domain(&mail);
        let admission = self.intake.admit(mail, &domain);
        self.start();
        admission
    }

    /// Waits until a check or a task ends, then starts the next mails. Cancel-safe.
    pub async fn turn(&mut self) {
        tokio::select! {
            Some(id) = self.checked.recv() => self.intake.checked(id),
            Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                // Every task reports its check before it ends. Read those reports now, so that none is taken for a
                // later delivery.
                while let Ok(id) = self.checked.try_recv() {
                    self.intake.checked(id);
                }
                let task = ended.as_ref().map_or_else(|panicked| panicked.id(), |(task, _)| *task);
                if let Some(id) = self.mails.remove(&task) {
                    self.intake.checked(id);
                    self.intake.done(id);
                }
                // A panic has already been reported.
                if let Ok((_, Some(domain))) = ended {
                    self.intake.know(&domain);
                }
            }
        }
        self.start();
    }

    /// Waits for the work in progress to end; waiting mails are dropped and will be delivered again.
    pub async fn drain(mut self) {
        while !self.tasks.is_empty() {
            self.max_finishing = 0;
            self.turn().await;
        }
    }

    /// Number of mails being worked on, and number waiting.
    pub fn load(&self) -> (usize, usize) {
        (self.tasks.len(), self.intake.waiting())
    }

    fn start(&mut self) {
        while self.intake.finishing() < self.max_finishing
            && let Some(mail) = self.intake.take()
        {
            let (work, check_over, id) = (Arc::clone(&self.work), self.check_over.clone(), mail.id);
            let task = self.tasks.spawn(async move {
                let checked = work.check(&mail).await;
                // Sending fails only after the desk is dropped, and then nothing new is started.
                let _ = check_over.send(mail.id);
                work.finish(&mail, checked).await
            });
            self.mails.insert(task.id(), id);
        }
    }
}
