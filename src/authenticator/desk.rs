//! Runs the work on delivered mails as [`Intake`] says: a check of each, for which the DNS is asked, then what follows
//! from it. A check that waits for DNS holds up none of another domain; work that panics is over.

use std::{collections::HashMap, future::Future, sync::Arc};

use tokio::{
    sync::mpsc,
    task::{Id, JoinSet},
};

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
    /// One task a mail, and the mail it works on: each step on a task of its own would cost two wake-ups a mail.
    tasks: JoinSet<(AcceptedMail, bool)>,
    mails: HashMap<Id, MailId>,
    /// Each task sends its mail here when its check is over.
    checked: mpsc::UnboundedReceiver<MailId>,
    check_over: mpsc::UnboundedSender<MailId>,
}

impl<W: Work> Desk<W> {
    /// With so many checks at once, and as many mails beyond them.
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
            Some(id) = self.checked.recv() => self.intake.checked(id),
            Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                // A task says that its check is over before it ends: none is left to be said of a later delivery.
                while let Ok(id) = self.checked.try_recv() {
                    self.intake.checked(id);
                }
                let task = ended.as_ref().map_or_else(|panicked| panicked.id(), |(task, _)| *task);
                if let Some(id) = self.mails.remove(&task) {
                    self.intake.checked(id);
                    self.intake.done(id);
                }
                // One that panicked has said so.
                if let Ok((_, (mail, true))) = ended {
                    self.intake.know(&self.work.domain(&mail));
                }
            }
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
        while self.intake.finishing() < self.max_finishing
            && let Some(mail) = self.intake.take()
        {
            let (work, check_over, id) = (Arc::clone(&self.work), self.check_over.clone(), mail.id);
            let task = self.tasks.spawn(async move {
                let checked = work.check(&mail).await;
                // The desk is gone only when nothing is started any more.
                let _ = check_over.send(mail.id);
                let authenticated = work.finish(&mail, checked).await;
                (mail, authenticated)
            });
            self.mails.insert(task.id(), id);
        }
    }
}
