//! Runs the work on delivered mails as [`Intake`] says: a check of each, for which the DNS is asked, then what follows
//! from it. A check that waits for DNS holds up none of another domain; work that panics is over.

use std::{collections::HashMap, future::Future, sync::Arc};

use tokio::task::{Id, JoinError, JoinSet};

use super::intake::{Admission, Intake};
use crate::mail::{AcceptedMail, MailId};

/// What is done with a mail.
pub trait Work: Send + Sync + 'static {
    /// What a check finds out.
    type Checked: Send + 'static;

    /// Domain of the one author of a mail; empty if there is none.
    fn domain(&self, mail: &AcceptedMail) -> String;

    /// Asks the DNS about the sender.
    fn check(&self, mail: &AcceptedMail) -> impl Future<Output = Self::Checked> + Send;

    /// Goes on from there to the end; whether the sender was authenticated.
    fn finish(&self, mail: &AcceptedMail, checked: Self::Checked) -> impl Future<Output = bool> + Send;
}

/// Mails under work.
pub struct Desk<W: Work> {
    work: Arc<W>,
    intake: Intake,
    max_finishing: usize,
    /// Mails by the task that works on them.
    tasks: HashMap<Id, MailId>,
    checks: JoinSet<(AcceptedMail, W::Checked)>,
    finishes: JoinSet<(AcceptedMail, bool)>,
}

impl<W: Work> Desk<W> {
    /// With so many checks at once, and as many mails beyond them.
    pub fn new(work: Arc<W>, max_in_flight: usize) -> Self {
        Self {
            work,
            intake: Intake::new(max_in_flight),
            max_finishing: max_in_flight,
            tasks: HashMap::new(),
            checks: JoinSet::new(),
            finishes: JoinSet::new(),
        }
    }

    /// A sender of this domain was authenticated before.
    pub fn know(&mut self, domain: &str) {
        self.intake.know(domain);
    }

    /// Takes a mail that was delivered.
    pub fn take(&mut self, mail: AcceptedMail) -> Admission {
        let domain = self.work.domain(&mail);
        let admission = self.intake.admit(mail, &domain);
        self.start();
        admission
    }

    /// Goes on when some work is over; returns only then. Safe to drop at any time.
    pub async fn turn(&mut self) {
        tokio::select! {
            Some(checked) = self.checks.join_next_with_id(), if !self.checks.is_empty() => {
                let (id, checked) = self.ended(checked);
                id.inspect(|&id| self.intake.checked(id));
                match (checked, id) {
                    (Some((mail, checked)), Some(id)) => {
                        let work = Arc::clone(&self.work);
                        let task = self.finishes.spawn(async move {
                            let authenticated = work.finish(&mail, checked).await;
                            (mail, authenticated)
                        });
                        self.tasks.insert(task.id(), id);
                    }
                    (_, id) => drop(id.inspect(|&id| self.intake.done(id))),
                }
            }
            Some(finished) = self.finishes.join_next_with_id(), if !self.finishes.is_empty() => {
                let (id, finished) = self.ended(finished);
                id.inspect(|&id| self.intake.done(id));
                if let Some((mail, true)) = finished {
                    self.intake.know(&self.work.domain(&mail));
                }
            }
            else => std::future::pending().await,
        }
        self.start();
    }

    /// Returns when the work that is under way is over; what waits will be delivered again.
    pub async fn drain(mut self) {
        while !self.tasks.is_empty() {
            self.max_finishing = 0;
            self.turn().await;
        }
    }

    /// Mails that are worked on, and mails that wait.
    pub fn load(&self) -> (usize, usize) {
        (self.tasks.len(), self.intake.waiting())
    }

    fn start(&mut self) {
        while self.finishes.len() < self.max_finishing
            && let Some(mail) = self.intake.take()
        {
            let (work, id) = (Arc::clone(&self.work), mail.id);
            let task = self.checks.spawn(async move {
                let checked = work.check(&mail).await;
                (mail, checked)
            });
            self.tasks.insert(task.id(), id);
        }
    }

    fn ended<T>(&mut self, ended: Result<(Id, T), JoinError>) -> (Option<MailId>, Option<T>) {
        match ended {
            Ok((task, outcome)) => (self.tasks.remove(&task), Some(outcome)),
            // It panicked, and has said so.
            Err(error) => (self.tasks.remove(&error.id()), None),
        }
    }
}
