// SPDX-License-Identifier: Apache-2.0
//! The whole bridge without ROS: journal, window, servers and outbox, each as a task.
//!
//! [`Bridge::start`] returns the bridge and two streams: mails to publish and deliveries to report. A slow reader
//! slows publishing, not accepting. Dropping a bridge without [`Bridge::drain`] stops it like `kill -9`: nothing
//! promised is lost. Translating messages is left to the node.

mod listen;
mod submit;
mod window_task;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use ::health::Status;
use mail::{AcceptedMail, Delivery, Disposition, MailId};
use tls::server::CertificateError;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    consumers::Consumers,
    health, imap,
    journal::{Journal, JournalError, Settings},
    outbox::{RelayError, Sender},
    params::Params,
    server::{Counters, ListenError},
    users::{Users, UsersError},
    window::{Unsettled, Window},
};
pub use submit::Submitted;
use window_task::{WindowTask, publisher};

/// Dispositions and deliveries that may wait to be read; their senders wait beyond that.
const QUEUE: usize = 256;

/// The bridge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A server cannot listen on its address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate or its key cannot be used.
    #[error("parameters 'tls_certificate_path' and 'tls_key_path': {0}")]
    Certificate(#[from] CertificateError),
    /// The accounts cannot be used.
    #[error("parameter 'auth_users_path': {0}")]
    Users(#[from] UsersError),
    /// A mailbox cannot be read.
    #[error(transparent)]
    Imap(#[from] imap::ImapStartError),
    /// A file that outbound mails need cannot be used.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// A listening socket does not tell its address.
    #[error("cannot read the address of a listening socket: {0}")]
    Address(#[source] std::io::Error),
}

/// A task of the bridge, or its journal's thread, has ended before the bridge was drained.
#[derive(Clone, Debug, thiserror::Error)]
#[error("task '{task}' {end}")]
pub struct TaskEnded {
    task: &'static str,
    /// How it ended, with its panic if there was one.
    end: String,
}

/// What the bridge sends to the graph. Read both until [`Bridge::drain`] has returned, or drop them: deliveries that
/// nobody reads stop the outbox.
#[derive(Debug)]
pub struct Streams {
    /// Mails to publish; each is repeated until it is settled.
    pub mails: mpsc::Receiver<AcceptedMail>,
    /// Changes in the delivery of outbound mails.
    pub deliveries: mpsc::Receiver<Delivery>,
}

/// What the graph sends to the bridge; clones share one bridge. The journal stays locked while any handle lives,
/// unless the bridge was drained.
#[derive(Clone)]
pub struct Handle {
    journal: Journal,
    consumers: Arc<Consumers>,
    dispositions: mpsc::Sender<Disposition>,
    subscribers: Arc<watch::Sender<usize>>,
    counters: Arc<Counters>,
    tls: Option<Arc<tls::server::Server>>,
    users: Option<Arc<Users>>,
    max_connections: usize,
    window: Arc<Mutex<health::Intake>>,
    outbox: Arc<Mutex<health::Outbox>>,
    deliver: mpsc::Sender<Delivery>,
    /// Sender identity of outbound mails.
    identity: Arc<submit::SenderIdentity>,
    board: imap::Board,
    mailboxes: imap::Mailboxes,
}

impl Handle {
    /// Passes on a disposition. The window decides on it later, and ignores those for mails that do not wait for the
    /// consumer.
    ///
    /// # Errors
    /// If the bridge has ended.
    pub async fn disposition(&self, disposition: Disposition) -> Result<(), JournalError> {
        if !self.consumers.contains(&disposition.consumer) {
            tracing::warn!(
                mail_id = %disposition.mail_id,
                consumer = disposition.consumer,
                "a disposition is of no use: its consumer is not one of the parameter consumers"
            );
            return Ok(());
        }
        self.dispositions.send(disposition).await.map_err(|_| JournalError::Closed)
    }

    /// Sets the number of subscribers to the mails; none are published while it is 0. When it rises, everything
    /// published and not settled is published again, because the new subscriber may not have it.
    pub fn set_subscribers(&self, count: usize) {
        self.subscribers.send_if_modified(|known| std::mem::replace(known, count) != count);
    }

    /// The mail with this id, as received; `None` if it is unknown, or was deleted after it was settled.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn get_raw(&self, id: MailId) -> Result<Option<AcceptedMail>, JournalError> {
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || journal.read_mail(&id)).await.unwrap_or(Err(JournalError::Closed))
    }

    /// How reading the mailboxes goes, for each folder.
    pub fn board(&self) -> &imap::Board {
        &self.board
    }

    /// Tries the mailbox of this name: connects and counts, and changes nothing.
    pub async fn try_mailbox(&self, name: &str) -> imap::Trial {
        imap::trial(&self.mailboxes, name).await
    }

    /// One status for each part that can fail.
    pub fn status(&self) -> Vec<Status> {
        let mut statuses = health::status(&self.state());
        statuses.extend(imap::status::statuses(&self.board.read()));
        statuses
    }

    /// The figures behind [`status`](Self::status).
    pub fn state(&self) -> health::State {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner).clone();
        health::State {
            journal: self.journal.figures(),
            intake: health::Intake {
                smtp_connections: self.counters.smtp_connections.load(Ordering::Relaxed),
                lmtp_connections: self.counters.lmtp_connections.load(Ordering::Relaxed),
                max_connections: self.max_connections,
                accepted: self.counters.accepted.load(Ordering::Relaxed),
                deferred: self.counters.deferred.load(Ordering::Relaxed),
                refused_connections: self.counters.refused_connections.load(Ordering::Relaxed),
                refused_clients: self.counters.refused_clients.load(Ordering::Relaxed),
                ..window
            },
            outbox: self.outbox.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            tls: self.tls.as_ref().map(|tls| health::Tls {
                failure: tls.failure(),
                failed_handshakes: self.counters.failed_handshakes.load(Ordering::Relaxed),
            }),
            users: self
                .users
                .as_ref()
                .map(|users| health::Users { failure: users.failure(), rejected: users.rejected() }),
        }
    }
}

/// A running bridge and its tasks.
pub struct Bridge {
    handle: Handle,
    smtp_addr: Option<SocketAddr>,
    smtps_addr: Option<SocketAddr>,
    lmtp_addr: Option<SocketAddr>,
    drain_timeout: Duration,
    stop: watch::Sender<bool>,
    stop_window: watch::Sender<bool>,
    servers: JoinSet<bool>,
    mailboxes: JoinSet<()>,
    outbox: JoinSet<()>,
    window: JoinSet<()>,
    publisher: JoinSet<()>,
    /// The task that has ended; then [`Bridge::ended`] returns at once.
    ended: Option<TaskEnded>,
}

impl Bridge {
    /// Opens the journal, starts to listen, and starts the tasks. Nothing is published before
    /// [`Handle::set_subscribers`].
    ///
    /// # Errors
    /// If the journal, the certificate or the accounts cannot be used, or an address cannot be listened on.
    pub async fn start(params: Params) -> Result<(Self, Streams), BridgeError> {
        let params = Arc::new(params);
        let (tls, users) = listen::secrets(&params.access)?;
        let mailboxes = imap::mailboxes(&params.imap_accounts)?;
        let consumers = Arc::new(params.consumers.clone());
        let (events_in, events) = mpsc::unbounded_channel();
        let settings = Settings {
            directory: params.journal_directory.clone(),
            segment_bytes: params.journal_segment_bytes,
            keep_segments: params.journal_keep_segments,
            remembered: params.journal_remembered,
            reserve_bytes: params.journal_reserve_bytes,
        };
        let opened = tokio::task::spawn_blocking(move || Journal::open(settings, events_in)).await;
        let (journal, restored) = opened.unwrap_or(Err(JournalError::Closed))?;
        if restored.torn_bytes > 0 {
            tracing::warn!(
                bytes = restored.torn_bytes,
                "journal: cut a torn tail; it is beside the segment as .torn, unless the disk was full"
            );
        }
        let unsettled = without_removed(restored.unsettled, &consumers, &journal).await?;
        tracing::info!(unsettled = unsettled.len(), pending = restored.pending.len(), "journal opened");

        let (stop, stop_out) = watch::channel(false);
        let (stop_window, window_stopped) = watch::channel(false);
        let (dispositions, dispositions_out) = mpsc::channel(QUEUE);
        let (subscribers, subscribers_out) = watch::channel(0);
        let (publish, publish_out) = mpsc::unbounded_channel();
        let (published, published_out) = mpsc::unbounded_channel();
        let (mails_in, mails) = mpsc::channel(1);
        let (deliver, deliveries) = mpsc::channel(QUEUE);
        let (queued, queued_out) = mpsc::unbounded_channel();
        let (settled, settled_out) = watch::channel(0);
        let start = Instant::now();
        let handle = Handle {
            journal: journal.clone(),
            consumers: Arc::clone(&consumers),
            dispositions,
            subscribers: Arc::new(subscribers),
            counters: Arc::default(),
            tls,
            users,
            max_connections: params.max_connections,
            window: Arc::default(),
            outbox: Arc::default(),
            deliver: deliver.clone(),
            identity: Arc::new(submit::SenderIdentity::new(&params)),
            board: imap::Board::default(),
            mailboxes: Arc::clone(&mailboxes),
        };

        let sender = Sender::new(
            Arc::clone(&params),
            journal.clone(),
            restored.pending,
            start,
            deliver,
            Arc::clone(&handle.outbox),
        )?;
        let mut bridge = Self {
            handle: handle.clone(),
            smtp_addr: None,
            smtps_addr: None,
            lmtp_addr: None,
            drain_timeout: params.drain_timeout,
            stop,
            stop_window,
            servers: JoinSet::new(),
            mailboxes: JoinSet::new(),
            outbox: JoinSet::new(),
            window: JoinSet::new(),
            publisher: JoinSet::new(),
            ended: None,
        };
        bridge.listen(&params, &journal, &stop_out).await?;
        let shared = imap::Shared {
            journal: journal.clone(),
            consumers,
            settled: settled_out,
            board: handle.board.clone(),
        };
        imap::start(&mut bridge.mailboxes, &mailboxes, &params, shared, &stop_out)?;
        bridge.outbox.spawn(sender.run(queued_out, stop_out));
        bridge.publisher.spawn(publisher(journal.clone(), publish_out, mails_in, published));
        let window = WindowTask {
            window: Window::new(params.room, params.redelivery, unsettled),
            journal,
            start,
            publish,
            queued,
            figures: handle.window,
            settled,
            settling: JoinSet::new(),
        };
        bridge.window.spawn(window.run(
            events,
            dispositions_out,
            subscribers_out,
            published_out,
            window_stopped,
        ));
        Ok((bridge, Streams { mails, deliveries }))
    }

    /// A handle for the graph's side.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Address of the SMTP server, with the actual port if the parameter says 0; `None` if it is off.
    pub fn smtp_addr(&self) -> Option<SocketAddr> {
        self.smtp_addr
    }

    /// Address of the SMTP server with TLS from the first byte, with the actual port; `None` if it is off.
    pub fn smtps_addr(&self) -> Option<SocketAddr> {
        self.smtps_addr
    }

    /// Address of the LMTP server, with the actual port; `None` if it is off.
    pub fn lmtp_addr(&self) -> Option<SocketAddr> {
        self.lmtp_addr
    }

    /// Returns when one of the bridge's tasks or the journal's thread has ended. Before [`drain`](Self::drain) that
    /// means it failed, and the bridge should be drained. Cancel safe.
    pub async fn ended(&mut self) -> TaskEnded {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        let (task, panic) = tokio::select! {
            Some(ended) = self.servers.join_next() => ("server", ended.err()),
            Some(ended) = self.mailboxes.join_next() => ("mailbox", ended.err()),
            Some(ended) = self.outbox.join_next() => ("outbox", ended.err()),
            Some(ended) = self.window.join_next() => ("window", ended.err()),
            Some(ended) = self.publisher.join_next() => ("publisher", ended.err()),
            () = self.handle.journal.ended() => ("journal", None),
        };
        let end = panic.map_or("ended before the bridge".to_owned(), |panic| format!("ended: {panic}"));
        self.ended.insert(TaskEnded { task, end }).clone()
    }

    /// Stops intake, lets mails under way finish, and closes the journal. Intake and outbox each get half of
    /// `drain_timeout_s`. Returns true if nothing was cut short and no task had ended before.
    pub async fn drain(mut self) -> bool {
        self.stop.send_replace(true);
        self.handle.journal.give_up();
        let mut drained = self.ended.is_none();
        while let Some(server) = self.servers.join_next().await {
            drained &= server.unwrap_or(false);
        }
        drained &= all_ended(&mut self.mailboxes).await;
        // An attempt with an unresponsive smart host is cut off: its mail is sent again after the restart.
        let outbox = timeout(self.drain_timeout, all_ended(&mut self.outbox)).await;
        drained &= outbox.unwrap_or(false);
        self.outbox.shutdown().await;
        self.stop_window.send_replace(true);
        // The publisher may wait for a reader that is gone; what it did not publish is published after the restart.
        drained &= all_ended(&mut self.window).await;
        self.publisher.shutdown().await;
        self.handle.journal.close().await;
        drained && self.handle.journal.figures().failed.is_none()
    }
}

/// Mails do not wait for a consumer that is configured no more. If a mail waited for nobody else, it is settled if some
/// consumer has disposed of it; if none has, it is for whose it would be if it came now.
async fn without_removed(
    restored: Vec<Unsettled>,
    consumers: &Consumers,
    journal: &Journal,
) -> Result<Vec<Unsettled>, JournalError> {
    let (mut unsettled, mut released) = (Vec::new(), 0_u64);
    for mut mail in restored {
        let (id, before) = (mail.arrival.id, mail.arrival.consumers.len());
        mail.arrival.consumers.retain(|name| consumers.contains(name));
        released = released.saturating_add(u64::from(mail.arrival.consumers.len() < before));
        if mail.arrival.consumers.is_empty() && mail.disposed {
            journal.settle(id).await?;
            continue;
        }
        if mail.arrival.consumers.is_empty() {
            let reader = journal.clone();
            let read = tokio::task::spawn_blocking(move || reader.read_mail(&id)).await;
            let Some(known) = read.unwrap_or(Err(JournalError::Closed))? else { continue };
            mail.arrival.consumers = consumers.of(&known.origin);
        }
        unsettled.push(mail);
    }
    if released > 0 {
        tracing::warn!(
            mails = released,
            "mails waited for consumers that the parameter consumers does not name any more"
        );
    }
    Ok(unsettled)
}

/// Waits for all tasks; false if one panicked.
async fn all_ended(tasks: &mut JoinSet<()>) -> bool {
    let mut well = true;
    while let Some(ended) = tasks.join_next().await {
        well &= ended.is_ok();
    }
    well
}

#[cfg(test)]
mod tests;
