// SPDX-License-Identifier: Apache-2.0
//! Owns the long-lived tasks of a node, so that none ends unnoticed.
//!
//! Each has a name. A task that ends, fails or panics before the node does is an error that names it, and the node ends
//! with that error. At shutdown tasks end as locals are dropped: the last one started first, each before the next.
//!
//! Short-lived tasks, such as the work on one mail, stay with their owner.

use std::{
    any::Any,
    future::{Future, pending},
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread::{self, JoinHandle},
};

use tokio::{
    sync::oneshot,
    task::{AbortHandle, JoinSet},
};

use super::runtime::NodeError;

/// A task ended that should run as long as its node.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// It ended by itself, for example because a channel was closed.
    #[error("task '{0}' ended before its node")]
    Ended(&'static str),
    /// It ended with an error.
    #[error("task '{name}' ended: {source}")]
    Failed {
        /// Name of the task.
        name: &'static str,
        /// The task's error.
        source: NodeError,
    },
    /// It panicked.
    #[error("task '{name}' panicked: {message}")]
    Panicked {
        /// Name of the task.
        name: &'static str,
        /// Message of the panic.
        message: String,
    },
}

/// What a supervised task returns: nothing, or a result whose error becomes the reason for the node's end.
pub trait Outcome {
    /// The outcome as a result.
    fn into_result(self) -> Result<(), NodeError>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), NodeError> {
        Ok(())
    }
}

impl<E: Into<NodeError>> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), NodeError> {
        self.map_err(Into::into)
    }
}

/// The tasks of one node. Dropping it ends them all, in no particular order.
#[derive(Default)]
pub(super) struct Supervisor {
    tasks: JoinSet<Result<(), NodeError>>,
    /// The tasks in `tasks`, in the order of their start.
    running: Vec<(&'static str, AbortHandle)>,
}

impl Supervisor {
    /// Starts a task. Call it inside a tokio runtime.
    pub(super) fn watch(&mut self, name: &'static str, task: impl Future<Output: Outcome> + Send + 'static) {
        let task = self.tasks.spawn(async { task.await.into_result() });
        self.running.push((name, task));
    }

    /// Waits until a task has ended and returns why. Cancel-safe.
    pub(super) async fn ended(&mut self) -> TaskError {
        let Some(ended) = self.tasks.join_next_with_id().await else { return pending().await };
        let (id, result) = match ended {
            Ok((id, result)) => (id, Ok(result)),
            Err(error) => (error.id(), Err(error)),
        };
        let place = self.running.iter().position(|(_, task)| task.id() == id);
        let name = place.map_or("", |place| self.running.remove(place).0);
        match result {
            Ok(Err(source)) => TaskError::Failed { name, source },
            Err(error) if error.is_panic() => {
                TaskError::Panicked { name, message: message(error.into_panic().as_ref()) }
            }
            Ok(Ok(())) | Err(_) => TaskError::Ended(name),
        }
    }

    /// Ends the tasks one after the other, the last one started first.
    ///
    /// # Errors
    /// The first failure or panic of a task that had not been reported yet.
    pub(super) async fn shutdown(&mut self) -> Result<(), TaskError> {
        let mut result = Ok(());
        while let Some((_, last)) = self.running.last() {
            last.abort();
            // This may be the end of another task; then the loop comes back to the last one.
            match self.ended().await {
                TaskError::Ended(_) => {}
                failure => result = result.and(Err(failure)),
            }
        }
        result
    }
}

/// Starts a thread and returns a task that ends as the thread does, for [`Supervisor::watch`]. What `work` owns is
/// dropped only after the thread's end was reported, so that tasks which end in consequence do not come first.
pub(super) fn watched_thread(
    name: &'static str,
    mut work: impl FnMut() -> Result<(), NodeError> + Send + 'static,
) -> io::Result<(JoinHandle<()>, impl Future<Output = Result<(), NodeError>> + Send + 'static)> {
    let (report, reported) = oneshot::channel();
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nobody listens at shutdown.
        let _ = report.send(catch_unwind(AssertUnwindSafe(&mut work)));
    })?;
    let task = async {
        match reported.await {
            Ok(result) => result.unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => Ok(()),
        }
    };
    Ok((thread, task))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;
    use crate::{lock, runtime::with_sources};

    /// The reason with which a node would end.
    async fn reason(supervisor: &mut Supervisor) -> String {
        let ended = timeout(Duration::from_secs(10), supervisor.ended()).await;
        with_sources(&ended.expect("no task has ended"))
    }

    #[tokio::test]
    async fn names_a_task_that_ends() {
        let mut supervisor = Supervisor::default();
        supervisor.watch("diagnostics", pending::<()>());
        supervisor.watch("dispositions", async {});
        assert_eq!(reason(&mut supervisor).await, "task 'dispositions' ended before its node");
        let more = timeout(Duration::from_millis(20), supervisor.ended()).await;
        assert!(more.is_err(), "{more:?}");
    }

    #[tokio::test]
    async fn names_a_task_that_fails_and_its_error() {
        let mut supervisor = Supervisor::default();
        supervisor.watch("evidence", async { Err(io::Error::other("disk is full")) });
        assert_eq!(reason(&mut supervisor).await, "task 'evidence' ended: disk is full");
    }

    async fn panics() {
        panic!("index {}", 7);
    }

    #[tokio::test]
    async fn names_a_task_that_panics_and_its_words() {
        let mut supervisor = Supervisor::default();
        supervisor.watch("prove", async { assert!(pending::<bool>().await, "never") });
        supervisor.watch("outbound", panics());
        assert_eq!(reason(&mut supervisor).await, "task 'outbound' panicked: index 7");
    }

    #[tokio::test]
    async fn names_a_thread_that_ends_or_panics() {
        let mut supervisor = Supervisor::default();
        let (_, task) = watched_thread("ros spin", || Ok(())).unwrap();
        supervisor.watch("ros spin", task);
        assert_eq!(reason(&mut supervisor).await, "task 'ros spin' ended before its node");
        let (_, task) = watched_thread("ros spin", || panic!("on purpose")).unwrap();
        supervisor.watch("ros spin", task);
        assert_eq!(reason(&mut supervisor).await, "task 'ros spin' panicked: on purpose");
    }

    #[tokio::test]
    async fn waits_as_long_as_nothing_ends() {
        let mut supervisor = Supervisor::default();
        let none = timeout(Duration::from_millis(20), supervisor.ended()).await;
        assert!(none.is_err(), "{none:?}");
    }

    /// Writes down its name when it is dropped.
    struct Tells(&'static str, Arc<Mutex<Vec<&'static str>>>);

    impl Drop for Tells {
        fn drop(&mut self) {
            lock(&self.1).push(self.0);
        }
    }

    #[tokio::test]
    async fn ends_the_last_one_started_first() {
        let names = ["evidence", "chain", "receipts", "services"];
        let (mut supervisor, order) = (Supervisor::default(), Arc::new(Mutex::new(Vec::new())));
        for name in names {
            let tells = Tells(name, Arc::clone(&order));
            supervisor.watch(name, async move {
                let _tells = tells;
                pending::<()>().await;
            });
        }
        tokio::task::yield_now().await;
        supervisor.shutdown().await.unwrap();
        assert!(lock(&order).iter().eq(names.iter().rev()), "{order:?}");
    }

    #[tokio::test]
    async fn tells_at_shutdown_of_a_failure_that_nobody_saw() {
        let mut supervisor = Supervisor::default();
        supervisor.watch("evidence", async { Err("disk is full") });
        supervisor.watch("dispositions", async {});
        supervisor.watch("diagnostics", pending::<()>());
        // Both have ended before the shutdown begins.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        let failure = supervisor.shutdown().await.unwrap_err();
        assert_eq!(failure.to_string(), "task 'evidence' ended: disk is full");
    }
}
