// SPDX-License-Identifier: Apache-2.0
//! Runs the [`Core`]: carries out its effects and reports back how each [`Job`] ended.
//!
//! A job that panics counts as failed: it ends that mail's turn and nothing else. [`Desk::drain`] waits for the jobs
//! under way; without it they end with the runtime.
//!
//! What a job does is up to the caller's [`Work`], what to do and when to the core.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
};

use futures::FutureExt;
use mail::MailId;
use tokio::{sync::mpsc, time::Instant};

use super::{
    core::{Core, Effect, Input, Job, Outcome},
    health::Mails,
};

/// Carries out what the core decides.
pub trait Work: Send + Sync + 'static {
    /// Does a job and tells how it ended.
    fn run(&self, job: Job) -> impl Future<Output = Outcome> + Send;

    /// Keeps a domain among the known ones on disk, without waiting for the disk.
    fn remember(&self, domain: String);
}

/// The core and its tasks.
pub struct Desk<W: Work> {
    runner: Runner<W>,
    /// Closed when the desk and every task have dropped their [`Runner`].
    finished: mpsc::Receiver<Infallible>,
}

/// What each task needs.
struct Runner<W: Work> {
    work: Arc<W>,
    core: Arc<Mutex<Core>>,
    /// The time that the core counts from.
    start: Instant,
    finished: mpsc::Sender<Infallible>,
}

impl<W: Work> Desk<W> {
    /// Starts nothing before the first input. Call it inside a tokio runtime.
    pub fn new(core: Core, work: W) -> Self {
        let (sender, finished) = mpsc::channel(1);
        let core = Arc::new(Mutex::new(core));
        Self {
            runner: Runner { work: Arc::new(work), core, start: Instant::now(), finished: sender },
            finished,
        }
    }

    /// Applies an input and starts the jobs that follow from it.
    pub fn step(&self, input: Input) {
        for (id, job) in self.runner.step(input) {
            self.runner.start(id, job);
        }
    }

    /// When the core needs [`Input::Tick`].
    pub fn next_wakeup(&self) -> Option<Instant> {
        let wakeup = lock(&self.runner.core).next_wakeup();
        wakeup.and_then(|wakeup| self.runner.start.checked_add(wakeup))
    }

    /// Returns a reader of the core's counts.
    pub fn counts(&self) -> impl Fn() -> Mails + Send + 'static {
        let core = Arc::clone(&self.runner.core);
        move || lock(&core).counts()
    }

    /// Finishes the mails past the queue; those in the queue will be delivered again.
    pub async fn drain(mut self) {
        self.step(Input::Drain);
        drop(self.runner);
        // No task sends anything, so this returns when the last one has ended.
        while self.finished.recv().await.is_some() {}
    }
}

impl<W: Work> Runner<W> {
    /// Applies an input, does what takes no time and returns the jobs.
    fn step(&self, input: Input) -> Vec<(MailId, Job)> {
        let effects = lock(&self.core).step(input, self.start.elapsed());
        let mut jobs = Vec::new();
        for effect in effects {
            match effect {
                Effect::Start(id, job) => jobs.push((id, job)),
                Effect::Left { id, reason } => {
                    tracing::warn!(mail_id = %id, reason, "left to be delivered again");
                }
                Effect::Remember(domain) => self.work.remember(domain),
            }
        }
        jobs
    }

    fn start(&self, id: MailId, job: Job) {
        tokio::spawn(self.clone().pursue(id, job));
    }

    /// Does a job and the first that follows from it, and so on; the others get tasks of their own. Most mails are thus
    /// finished by one task. A task for each job would cost two more wake-ups per mail.
    async fn pursue(self, id: MailId, job: Job) {
        let mut next = Some((id, job));
        while let Some((id, job)) = next {
            // A panic has already been reported.
            let outcome = AssertUnwindSafe(self.work.run(job)).catch_unwind().await;
            let mut jobs = self.step(Input::Done(id, outcome.unwrap_or(Outcome::Failed))).into_iter();
            next = jobs.next();
            jobs.for_each(|(id, job)| self.start(id, job));
        }
    }
}

impl<W: Work> Clone for Runner<W> {
    fn clone(&self) -> Self {
        let Self { work, core, start, finished } = self;
        Self { work: Arc::clone(work), core: Arc::clone(core), start: *start, finished: finished.clone() }
    }
}

/// A poisoned lock is fine: each step changes the core as a whole.
fn lock(core: &Mutex<Core>) -> std::sync::MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fair_queue::Class;
    use tokio::{sync::Semaphore, time::timeout};

    use super::*;
    use crate::core::{Limits, tests::accepted};

    /// Panics on the first check, and publishes only with a permit.
    struct Worker {
        checks: Mutex<usize>,
        permits: Semaphore,
        published: Mutex<Vec<MailId>>,
    }

    impl Work for Arc<Worker> {
        async fn run(&self, job: Job) -> Outcome {
            match job {
                Job::Check(_) => {
                    let check = {
                        let mut checks = self.checks.lock().unwrap();
                        *checks += 1;
                        *checks
                    };
                    assert_ne!(check, 1, "on purpose");
                    Outcome::Checked(Box::default())
                }
                Job::AskRegistry(_) => Outcome::Failed,
                Job::Record { codes, .. } => Outcome::Evidenced(codes),
                Job::Publish(mail, _) => {
                    self.permits.acquire().await.unwrap().forget();
                    self.published.lock().unwrap().push(mail.id);
                    Outcome::Published
                }
            }
        }

        fn remember(&self, _: String) {}
    }

    fn delivered(number: u8) -> Input {
        let mail = accepted(vec![number]);
        Input::Delivered { mail: Arc::new(mail), class: Class::default() }
    }

    async fn until(mut holds: impl FnMut() -> bool) {
        let wait = async {
            while !holds() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), wait).await.expect("it never holds");
    }

    #[tokio::test]
    async fn a_check_that_panics_frees_its_slot_and_the_drain_waits_for_what_was_checked() {
        let limits =
            Limits { max_in_flight: 1, dns_patience: Duration::ZERO, registry_patience: Duration::ZERO };
        let worker = Arc::new(Worker {
            checks: Mutex::default(),
            permits: Semaphore::new(0),
            published: Mutex::default(),
        });
        let desk = Desk::new(Core::new(limits, &[]), Arc::clone(&worker));
        desk.step(Input::ChainConnected);
        let counts = desk.counts();
        desk.step(delivered(1));
        until(|| counts().in_flight == 0).await;
        desk.step(delivered(2));
        desk.step(delivered(3));
        until(|| counts().refused == 1).await;
        assert_eq!((counts().in_flight, counts().waiting), (1, 1));
        let drained = desk.drain();
        tokio::pin!(drained);
        let early = timeout(Duration::from_millis(20), &mut drained).await;
        assert!(early.is_err(), "a verdict is not published yet");
        worker.permits.add_permits(9);
        timeout(Duration::from_secs(10), drained).await.unwrap();
        assert_eq!(*worker.published.lock().unwrap(), [MailId::of(&[2])]);
    }
}
