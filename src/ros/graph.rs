// SPDX-License-Identifier: Apache-2.0
//! A node's publishers, subscriptions, services and clients.
//!
//! Everything is created before [`Graph::spin`] moves the r2r node to its own OS thread; in a tokio worker, its
//! executor would block the worker. r2r keeps ten received messages per subscription and service and silently drops the
//! rest. One spin takes one message of each, so the same thread moves it on before the next spin. The queues it moves
//! them to are as deep as the topic's QoS, bounded in bytes ([`super::inbox`]), and log a warning when they overflow.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use r2r::{QosProfile, WrappedServiceTypeSupport, WrappedTypesupport};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{
    RosError,
    closing::{Closing, Deferred},
    inbox::{Inbox, inbox},
    supervisor::{Outcome, Supervisor, TaskError, watched_thread},
    topics::{Service, Topic, TopicFacts},
};

/// How long one spin waits for work, and so how long an idle node takes at most to stop spinning.
const SPIN_TIMEOUT: Duration = Duration::from_millis(200);

/// A node under construction: add publishers, subscriptions, services, clients and tasks, then [`Graph::spin`].
pub struct Graph {
    node: Deferred<r2r::Node>,
    closing: Closing,
    /// One per subscription and service: each moves what r2r received to its queue.
    pumps: Vec<Box<dyn FnMut() + Send>>,
    tasks: Supervisor,
}

impl Graph {
    pub(super) fn new(node: r2r::Node, closing: &Closing) -> Self {
        let (node, closing) = (closing.defer(node), closing.clone());
        Self { node, closing, pumps: Vec::new(), tasks: Supervisor::default() }
    }

    pub(super) fn node(&mut self) -> &mut r2r::Node {
        &mut self.node
    }

    /// Takes what must be destroyed with the node.
    pub(super) fn closing(&self) -> &Closing {
        &self.closing
    }

    /// The node's name, after remapping by launch.
    pub fn name(&self) -> String {
        self.node.name().unwrap_or_default()
    }

    /// The node's fully qualified name, such as `/fleet/mail_bridge`.
    pub fn fully_qualified_name(&self) -> String {
        format!("/{}", self.path())
    }

    /// Namespace and name without the leading slash, such as `fleet/mail_bridge`.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.namespace(), self.name()).trim_start_matches('/').to_owned()
    }

    /// The node's namespace, after remapping by launch.
    pub fn namespace(&self) -> String {
        self.node.namespace().unwrap_or_default()
    }

    /// Creates a publisher on `topic`.
    ///
    /// # Errors
    /// If the middleware rejects it.
    pub fn publisher<T: WrappedTypesupport>(&mut self, topic: &Topic<T>) -> Result<Publisher<T>, RosError> {
        let TopicFacts { name, qos, .. } = topic.facts;
        self.publisher_named(name, name.to_owned(), qos.profile())
    }

    /// Creates a publisher on the topic of one vehicle.
    pub fn vehicle_publisher<T: WrappedTypesupport>(
        &mut self,
        vehicle: &str,
        topic: &Topic<T>,
    ) -> Result<Publisher<T>, RosError> {
        let facts = topic.facts;
        self.publisher_named(facts.name, facts.name_of(vehicle), facts.qos.profile())
    }

    pub(super) fn publisher_named<T: WrappedTypesupport>(
        &mut self,
        topic: &'static str,
        name: String,
        qos: QosProfile,
    ) -> Result<Publisher<T>, RosError> {
        let publisher = self.node.create_publisher(&name, qos).map_err(|source| RosError::Create {
            what: "publisher",
            name,
            source,
        })?;
        Ok(Publisher { topic, inner: Arc::new(Mutex::new(publisher)) })
    }

    /// Subscribes to `topic`; received messages arrive in the returned queue.
    ///
    /// # Errors
    /// If the middleware rejects it.
    pub fn subscribe<T: WrappedTypesupport + Send + 'static>(
        &mut self,
        topic: &Topic<T>,
    ) -> Result<Inbox<T>, RosError> {
        let TopicFacts { name, qos, .. } = topic.facts;
        let mut stream = self.node.subscribe(name, qos.profile()).map_err(|source| RosError::Create {
            what: "subscription",
            name: name.to_owned(),
            source,
        })?;
        let (slot, inbox) = inbox(qos.depth(), topic.weigh);
        self.pumps.push(Box::new(move || {
            while let Some(Some(message)) = stream.next().now_or_never() {
                if let Err(reason) = slot.put(message) {
                    tracing::warn!(name, reason, "a received message is lost");
                }
            }
        }));
        Ok(inbox)
    }

    /// Serves `service`; requests arrive on the returned channel. Answer each with `respond`.
    ///
    /// # Errors
    /// If the middleware rejects it.
    pub fn serve<T: WrappedServiceTypeSupport + Send + 'static>(
        &mut self,
        service: &Service<T>,
    ) -> Result<mpsc::Receiver<Request<T>>, RosError>
    where
        T::Request: Send,
    {
        self.serve_named(service.facts.name, &service.facts.own_name(), service.depth)
    }

    /// Serves `name` and keeps `depth` requests; log lines call it `service`.
    pub(super) fn serve_named<T: WrappedServiceTypeSupport + Send + 'static>(
        &mut self,
        service: &'static str,
        name: &str,
        depth: usize,
    ) -> Result<mpsc::Receiver<Request<T>>, RosError>
    where
        T::Request: Send,
    {
        let mut stream = self
            .node
            .create_service(name, service_qos(depth))
            .map_err(|source| RosError::Create { what: "service", name: name.to_owned(), source })?;
        let (sender, receiver) = mpsc::channel(depth);
        self.pumps.push(Box::new(move || {
            while let Some(Some(request)) = stream.next().now_or_never() {
                if let Err(TrySendError::Full(_)) = sender.try_send(request) {
                    tracing::warn!(service, depth, "a request is lost: so many wait already");
                }
            }
        }));
        Ok(receiver)
    }

    /// Creates a client of `service`.
    ///
    /// # Errors
    /// If the middleware rejects it.
    pub fn client<T: WrappedServiceTypeSupport + 'static>(
        &mut self,
        service: &Service<T>,
    ) -> Result<Client<T>, RosError> {
        let name = service.facts.name;
        let inner = self
            .node
            .create_client(name, service_qos(service.depth))
            .map_err(|source| RosError::Create { what: "client", name: name.to_owned(), source })?;
        Ok(Client { service: name, inner })
    }

    /// Starts a task that must run as long as the node: [`Running::ended`] tells when it does not. Call it inside a
    /// tokio runtime, and start a task before those that need it: at shutdown, the last one started ends first.
    pub fn watch(&mut self, name: &'static str, task: impl Future<Output: Outcome> + Send + 'static) {
        self.tasks.watch(name, task);
    }

    /// Spins the node on its own thread until the returned handle is dropped. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// If the operating system cannot start the thread.
    pub fn spin(self) -> std::io::Result<Running> {
        let Self { mut node, mut pumps, mut tasks, .. } = self;
        let run = Arc::new(AtomicBool::new(true));
        let spins = Arc::clone(&run);
        let (thread, ended) = watched_thread("ros spin", move || {
            while spins.load(Ordering::Relaxed) {
                node.spin_once(SPIN_TIMEOUT);
                pumps.iter_mut().for_each(|pump| pump());
            }
            Ok(())
        })?;
        tasks.watch("ros spin", ended);
        Ok(Running { run, thread: Some(thread), tasks })
    }
}

/// The bound that a service type satisfies.
pub use r2r::WrappedServiceTypeSupport as ServiceType;

/// A request waiting for its `respond`.
pub type Request<T> = r2r::ServiceRequest<T>;

fn service_qos(depth: usize) -> QosProfile {
    QosProfile::services_default().keep_last(depth)
}

/// A node's spinning thread and its tasks. Dropping it stops the thread, waits for it and ends the tasks; the runtime
/// then destroys the node.
pub struct Running {
    run: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    tasks: Supervisor,
}

impl Running {
    /// Waits until a task or the spinning thread has ended. Before the shutdown that is a failure, and the error says
    /// which and why. Cancel-safe.
    pub async fn ended(&mut self) -> TaskError {
        self.tasks.ended().await
    }

    /// Ends the tasks one after the other, the last one started first, and then the node.
    ///
    /// # Errors
    /// The first failure or panic of a task since the node stopped watching.
    pub async fn shutdown(mut self) -> Result<(), TaskError> {
        self.tasks.shutdown().await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.run.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread catches its panics.
            let _ = thread.join();
        }
    }
}

/// Publishes messages of type `T`; clones share one publisher.
pub struct Publisher<T: WrappedTypesupport> {
    topic: &'static str,
    inner: Arc<Mutex<r2r::Publisher<T>>>,
}

impl<T: WrappedTypesupport> Clone for Publisher<T> {
    fn clone(&self) -> Self {
        Self { topic: self.topic, inner: Arc::clone(&self.inner) }
    }
}

impl<T: WrappedTypesupport + 'static> Publisher<T> {
    /// Hands `message` to the middleware.
    ///
    /// # Errors
    /// If the middleware rejects it.
    pub fn publish(&self, message: &T) -> Result<(), RosError> {
        let publisher = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        publisher.publish(message).map_err(|source| RosError::Publish { topic: self.topic, source })
    }

    /// Whether somebody subscribes, or the middleware cannot say.
    pub fn is_heard(&self) -> bool {
        let publisher = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(publisher.get_inter_process_subscription_count(), Ok(0))
    }

    /// Number of currently matched subscriptions; 0 if the middleware cannot say.
    pub fn subscribers(&self) -> usize {
        let publisher = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        publisher.get_inter_process_subscription_count().unwrap_or(0)
    }
}

/// Calls a service.
pub struct Client<T: WrappedServiceTypeSupport> {
    service: &'static str,
    inner: r2r::Client<T>,
}

impl<T: WrappedServiceTypeSupport + 'static> Client<T> {
    /// Sends a request and waits up to `timeout` for the answer. Without a server the call fails, at the latest then.
    ///
    /// # Errors
    /// [`RosError::Service`]; the caller can retry.
    pub async fn ask(&self, request: &T::Request, timeout: Duration) -> Result<T::Response, RosError> {
        let error = |reason: String| RosError::Service { service: self.service, reason };
        let answer = self.inner.request(request).map_err(|source| error(source.to_string()))?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => answer.map_err(|source| error(source.to_string())),
            Err(_) => Err(error(format!("nothing within {timeout:?}"))),
        }
    }

    /// Waits for a server, then asks it once; both together within `timeout`. For a client that has just joined the
    /// graph: a request sent before the server is discovered is lost.
    ///
    /// # Errors
    /// [`RosError::Service`]; says whether there was a server.
    pub async fn find_and_ask(
        &self,
        request: &T::Request,
        timeout: Duration,
    ) -> Result<T::Response, RosError> {
        let error = |reason: String| RosError::Service { service: self.service, reason };
        let deadline = tokio::time::Instant::now() + timeout;
        let found = r2r::Node::is_available(&self.inner).map_err(|source| error(source.to_string()))?;
        match tokio::time::timeout_at(deadline, found).await {
            Ok(found) => found.map_err(|source| error(source.to_string()))?,
            Err(_) => return Err(error(format!("nobody serves it within {timeout:?}"))),
        }
        self.ask(request, deadline.saturating_duration_since(tokio::time::Instant::now())).await
    }
}
