//! The whole bridge without ROS: journal, window, servers and outbox, each a task; the node only translates.
//!
//! [`Bridge::start`] gives the bridge and two streams: mails to publish and deliveries to report. Whoever reads them
//! slowly slows publishing, not accepting. A bridge that is dropped without [`Bridge::drain`] stops as `kill -9`
//! would stop it: nothing promised is lost.

mod window;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    core::Core,
    health,
    journal::{Journal, JournalError, Queued, Settings},
    outbox::{Delivery, Sender, schedule::Schedule},
    params::Params,
    server::{self, Counters, ListenError},
};
use window::{Window, publisher};

use crate::{
    health::Status,
    mail::{AcceptedMail, Disposition, MailId, OutboundMail, Source},
};

/// Dispositions and deliveries that wait to be read; more wait for room.
const QUEUE: usize = 256;

/// A bridge that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A listening socket does not tell its address.
    #[error("cannot read the address of a listening socket: {0}")]
    Address(#[source] std::io::Error),
}

/// What the bridge gives to the graph. Both are to be read until [`Bridge::drain`] has returned, or dropped: deliveries
/// that nobody reads stop the outbox.
#[derive(Debug)]
pub struct Streams {
    /// Mails to publish; a mail comes again until it is settled.
    pub mails: mpsc::Receiver<AcceptedMail>,
    /// Changes of deliveries.
    pub deliveries: mpsc::Receiver<Delivery>,
}

/// What the graph says to the bridge; clones speak to the same one. The journal stays locked while one lives, unless the
/// bridge was drained.
#[derive(Clone)]
pub struct Handle {
    journal: Journal,
    dispositions: mpsc::Sender<Disposition>,
    subscribers: Arc<watch::Sender<bool>>,
    counters: Arc<Counters>,
    max_connections: usize,
    window: Arc<Mutex<health::Intake>>,
    outbox: Arc<Mutex<health::Outbox>>,
}

impl Handle {
    /// Takes a disposition; it is decided upon later, and unknown mails are ignored.
    ///
    /// # Errors
    /// If the bridge has ended.
    pub async fn disposition(&self, disposition: Disposition) -> Result<(), JournalError> {
        self.dispositions.send(disposition).await.map_err(|_| JournalError::Closed)
    }

    /// Takes an outbound mail; when this returns `Ok` it is on disk, or was.
    ///
    /// # Errors
    /// If the journal has failed or the bridge has ended: submit it again.
    pub async fn outbound(&self, mail: OutboundMail) -> Result<Queued, JournalError> {
        self.journal.queue(SystemTime::now(), mail).await
    }

    /// Says whether anybody subscribes to the mails; nothing is published before.
    pub fn set_subscribers(&self, present: bool) {
        self.subscribers.send_if_modified(|known| std::mem::replace(known, present) != present);
    }

    /// The mail with this id, as received. `None`: unknown, or deleted since it was settled.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn get_raw(&self, id: MailId) -> Result<Option<AcceptedMail>, JournalError> {
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || journal.read_mail(&id)).await.unwrap_or(Err(JournalError::Closed))
    }

    /// One status for each thing that can fail.
    pub fn status(&self) -> Vec<Status> {
        health::status(&self.state())
    }

    /// The figures behind [`status`](Self::status).
    pub fn state(&self) -> health::State {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner).clone();
        health::State {
            journal: self.journal.figures(),
            intake: health::Intake {
                connections: self.counters.connections.load(Ordering::Relaxed),
                max_connections: self.max_connections,
                accepted: self.counters.accepted.load(Ordering::Relaxed),
                deferred: self.counters.deferred.load(Ordering::Relaxed),
                refused_connections: self.counters.refused_connections.load(Ordering::Relaxed),
                ..window
            },
            outbox: self.outbox.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// A running bridge.
pub struct Bridge {
    handle: Handle,
    smtp_addr: Option<SocketAddr>,
    lmtp_addr: Option<SocketAddr>,
    drain_timeout: Duration,
    stop: watch::Sender<bool>,
    stop_window: watch::Sender<bool>,
    servers: JoinSet<bool>,
    outbox: JoinSet<()>,
    window: JoinSet<()>,
    publisher: JoinSet<()>,
}

impl Bridge {
    /// Opens the journal, listens, and starts. Nothing is published before [`Handle::set_subscribers`].
    ///
    /// # Errors
    /// If the journal cannot be used or an address cannot be listened on.
    pub async fn start(params: Params) -> Result<(Self, Streams), BridgeError> {
        let params = Arc::new(params);
        let (events_in, events) = mpsc::unbounded_channel();
        let settings = Settings {
            directory: params.journal_directory.clone(),
            segment_bytes: params.journal_segment_bytes,
            keep_segments: params.journal_keep_segments,
            remembered: params.journal_remembered,
        };
        let opened = tokio::task::spawn_blocking(move || Journal::open(settings, events_in)).await;
        let (journal, restored) = opened.unwrap_or(Err(JournalError::Closed))?;
        if restored.torn_bytes > 0 {
            tracing::warn!(bytes = restored.torn_bytes, "journal: cut a torn tail, kept beside it as .torn");
        }
        tracing::info!(
            unsettled = restored.unsettled.len(),
            pending = restored.pending.len(),
            "journal opened"
        );

        let (stop, stop_out) = watch::channel(false);
        let (stop_window, window_stopped) = watch::channel(false);
        let (dispositions, dispositions_out) = mpsc::channel(QUEUE);
        let (subscribers, subscribers_out) = watch::channel(false);
        let (publish, publish_out) = mpsc::channel(params.max_in_flight.saturating_mul(2));
        let (mails_in, mails) = mpsc::channel(1);
        let (deliver, deliveries) = mpsc::channel(QUEUE);
        let (queued, queued_out) = mpsc::unbounded_channel();
        let start = Instant::now();
        let handle = Handle {
            journal: journal.clone(),
            dispositions,
            subscribers: Arc::new(subscribers),
            counters: Arc::default(),
            max_connections: params.max_connections,
            window: Arc::default(),
            outbox: Arc::default(),
        };

        let mut schedule = Schedule::new(params.retry, params.retry_give_up);
        let now = SystemTime::now();
        for pending in restored.pending {
            let age = now.duration_since(pending.queued_at).unwrap_or_default();
            schedule.add(pending.key, age, pending.attempt.as_ref(), Duration::ZERO);
        }
        let mut bridge = Self {
            handle: handle.clone(),
            smtp_addr: None,
            lmtp_addr: None,
            drain_timeout: params.drain_timeout,
            stop,
            stop_window,
            servers: JoinSet::new(),
            outbox: JoinSet::new(),
            window: JoinSet::new(),
            publisher: JoinSet::new(),
        };
        bridge.listen(&params, &journal, &stop_out).await?;
        let sender = Sender {
            params: Arc::clone(&params),
            journal: journal.clone(),
            schedule,
            start,
            queued: queued_out,
            deliver,
            figures: handle.outbox,
        };
        bridge.outbox.spawn(sender.run(stop_out));
        bridge.publisher.spawn(publisher(journal.clone(), publish_out, mails_in));
        let window = Window {
            core: Core::new(params.max_in_flight, params.redelivery, restored.unsettled),
            journal,
            start,
            publish,
            queued,
            figures: handle.window,
            settling: JoinSet::new(),
        };
        bridge.window.spawn(window.run(events, dispositions_out, subscribers_out, window_stopped));
        Ok((bridge, Streams { mails, deliveries }))
    }

    async fn listen(
        &mut self,
        params: &Params,
        journal: &Journal,
        stopped: &watch::Receiver<bool>,
    ) -> Result<(), BridgeError> {
        let settings = Arc::new(server::Settings {
            hostname: params.hostname.as_str().into(),
            limits: params.limits,
            session_timeout: params.session_timeout,
            drain_timeout: params.drain_timeout,
            connections: Arc::new(Semaphore::new(params.max_connections)),
            counters: Arc::clone(&self.handle.counters),
        });
        for (protocol, address, parameter, taken) in [
            (Source::Smtp, params.smtp_listen, "smtp_listen", &mut self.smtp_addr),
            (Source::Lmtp, params.lmtp_listen, "lmtp_listen", &mut self.lmtp_addr),
        ] {
            let Some(address) = address else { continue };
            let listener = server::listen(address, parameter).await?;
            let address = listener.local_addr().map_err(BridgeError::Address)?;
            tracing::info!(%address, ?protocol, "listening");
            *taken = Some(address);
            let (settings, journal, stopped) = (Arc::clone(&settings), journal.clone(), stopped.clone());
            self.servers.spawn(server::run(listener, protocol, settings, journal, stopped));
        }
        Ok(())
    }

    /// What to speak to the bridge with.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where SMTP listens, if it does; the port taken if the parameter says 0.
    pub fn smtp_addr(&self) -> Option<SocketAddr> {
        self.smtp_addr
    }

    /// Where LMTP listens, if it does.
    pub fn lmtp_addr(&self) -> Option<SocketAddr> {
        self.lmtp_addr
    }

    /// Stops intake, lets mails under way finish, and closes the journal, within `drain_timeout_s` for each of intake
    /// and outbox. True: nothing was cut short.
    pub async fn drain(mut self) -> bool {
        self.stop.send_replace(true);
        let mut drained = true;
        while let Some(server) = self.servers.join_next().await {
            drained &= server.unwrap_or(false);
        }
        // A server that does not answer is cut off: its mail is sent again after the restart.
        let outbox =
            timeout(self.drain_timeout, async { while self.outbox.join_next().await.is_some() {} }).await;
        drained &= outbox.is_ok();
        self.outbox.shutdown().await;
        self.stop_window.send_replace(true);
        // The publisher may wait for a reader that has gone; a mail not published is published after the restart.
        while self.window.join_next().await.is_some() {}
        self.publisher.shutdown().await;
        self.handle.journal.close().await;
        drained && self.handle.journal.figures().failed.is_none()
    }
}
