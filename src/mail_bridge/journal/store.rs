//! The handle of the journal: requests to its thread, and reading back.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::SystemTime,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    index::{Index, Pending, Place},
    record::{Attempt, OutboundKey, Record, RecordError},
    segments::{Segments, read},
    writer::Writer,
};
use crate::{
    mail::{AcceptedMail, Disposition, MailId, OutboundMail},
    mail_bridge::{
        core::{Arrival, Unsettled},
        health,
    },
    record_log::RecordLogError,
};

/// Requests that wait for the thread; more wait for room.
const QUEUE: usize = 1024;

/// A journal that cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory cannot be made or used.
    #[error("journal directory '{path}' (parameter 'journal_directory') cannot be used: {source}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error("journal directory '{path}': in use by another process; set another one (journal_directory)", path = path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A segment cannot be opened or written.
    #[error("journal: {0}")]
    Log(#[from] RecordLogError),
    /// A segment cannot be read or deleted.
    #[error("journal segment '{path}': cannot {action}: {source}", path = path.display())]
    Segment {
        /// The segment.
        path: PathBuf,
        /// What failed.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A record is not of this version.
    #[error("journal segment '{path}': {source}", path = path.display())]
    Record {
        /// The segment.
        path: PathBuf,
        /// Which.
        source: RecordError,
    },
    /// A write failed; nothing is taken any more until the node is restarted.
    #[error("journal refuses until restart: {0}")]
    Failed(Arc<str>),
    /// The journal was closed.
    #[error("journal is closed")]
    Closed,
}

/// How the journal is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its directory.
    pub directory: PathBuf,
    /// Size at which a segment is closed, bytes.
    pub segment_bytes: u64,
    /// Segments kept before the last although all in them is settled.
    pub keep_segments: usize,
    /// Mails, and outbound mails, remembered without a segment.
    pub remembered: usize,
}

/// What was in the journal.
#[derive(Debug)]
pub struct Restored {
    /// Unsettled mails, the oldest first.
    pub unsettled: Vec<Unsettled>,
    /// Outbound mails that are not finished, the oldest first.
    pub pending: Vec<Pending>,
    /// Bytes of torn tails that were cut; kept beside the segments as `.torn`.
    pub torn_bytes: u64,
}

/// Something is on disk. Sent after the sync, whether or not the caller still waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A mail.
    Accepted(Arrival),
    /// An outbound mail, now (`new`) or before. Without its text.
    Queued {
        /// Whether it is the first of its key.
        new: bool,
        /// Its key.
        key: OutboundKey,
        /// The mail, its text left out.
        mail: OutboundMail,
    },
}

/// Reply to a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is on disk now.
    New,
    /// It was before.
    Known,
}

/// Reply to an outbound mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It is on disk now and will be sent.
    New,
    /// There was one with the same key; this one is dropped.
    Known,
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

pub(super) enum Command {
    Accept(AcceptedMail, Reply<Accepted>),
    Settle(Disposition, Reply<bool>),
    Queue(SystemTime, OutboundMail, Reply<Queued>),
    Attempted(Attempt, Reply<()>),
    Close(oneshot::Sender<()>),
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) index: Mutex<Index>,
    pub(super) figures: Mutex<health::Journal>,
}

/// A handle of the journal; clones share it. The thread ends with the last handle or with [`close`](Self::close).
#[derive(Clone)]
pub struct Journal {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    directory: PathBuf,
}

pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nobody panics while holding one; if somebody did, the value is still whole.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Opens the journal and starts its thread. Blocking. `events` gets everything that is new on disk; it is
    /// unbounded because each event stands for a record that its receiver keeps in an index anyway.
    ///
    /// # Errors
    /// If the directory or a segment cannot be used.
    pub fn open(
        settings: Settings,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<(Self, Restored), JournalError> {
        let mut index = Index::new(settings.remembered);
        let directory = settings.directory.clone();
        let (segments, torn_bytes) = Segments::open(settings, &mut index)?;
        let restored = Restored {
            unsettled: index.unsettled().map(|(arrival, stored)| Unsettled { arrival, stored }).collect(),
            pending: index.pending().collect(),
            torn_bytes,
        };
        let figures = health::Journal { torn_bytes, ..health::Journal::default() };
        let shared = Arc::new(Shared { index: Mutex::new(index), figures: Mutex::new(figures) });
        let (commands, receiver) = mpsc::channel(QUEUE);
        let mut writer = Writer { segments, shared: Arc::clone(&shared), events, failed: None };
        writer.note_figures();
        thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|source| JournalError::Directory { path: directory.clone(), source })?;
        Ok((Self { commands, shared, directory }, restored))
    }

    /// Takes a mail. When this returns `Ok`, it is on disk and synced.
    ///
    /// # Errors
    /// If the journal has failed or is closed.
    pub async fn accept(&self, mail: AcceptedMail) -> Result<Accepted, JournalError> {
        self.ask(|reply| Command::Accept(mail, reply)).await
    }

    /// Settles a mail; false if it was not unsettled.
    ///
    /// # Errors
    /// If the journal has failed or is closed.
    pub async fn settle(&self, disposition: Disposition) -> Result<bool, JournalError> {
        self.ask(|reply| Command::Settle(disposition, reply)).await
    }

    /// Takes an outbound mail, unique by its key, queued at `at`.
    ///
    /// # Errors
    /// If the journal has failed or is closed.
    pub async fn queue(&self, at: SystemTime, mail: OutboundMail) -> Result<Queued, JournalError> {
        self.ask(|reply| Command::Queue(at, mail, reply)).await
    }

    /// Writes down an attempt to send.
    ///
    /// # Errors
    /// If the journal has failed or is closed.
    pub async fn attempted(&self, attempt: Attempt) -> Result<(), JournalError> {
        self.ask(|reply| Command::Attempted(attempt, reply)).await
    }

    /// Ends the thread after what was asked before; the directory is free when this returns.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    /// Returns when the thread has ended, after [`close`](Self::close) or a panic.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    /// A mail, unless it is unknown or its segment was deleted. Blocking.
    ///
    /// # Errors
    /// If the segment cannot be read.
    pub fn read_mail(&self, id: &MailId) -> Result<Option<AcceptedMail>, JournalError> {
        match self.read(|index| index.mail(id))? {
            Some(Record::Accepted(mail)) => Ok(Some(mail)),
            _ => Ok(None),
        }
    }

    /// An outbound mail, unless it is unknown or its segment was deleted. Blocking.
    ///
    /// # Errors
    /// If the segment cannot be read.
    pub fn read_outbound(&self, key: &OutboundKey) -> Result<Option<OutboundMail>, JournalError> {
        match self.read(|index| index.outbound(key))? {
            Some(Record::Queued(_, mail)) => Ok(Some(mail)),
            _ => Ok(None),
        }
    }

    /// Last attempt to send an outbound mail, if there was one.
    pub fn attempt(&self, key: &OutboundKey) -> Option<Attempt> {
        lock(&self.shared.index).attempt(key).cloned()
    }

    /// Its state, for `/diagnostics`.
    pub fn figures(&self) -> health::Journal {
        lock(&self.shared.figures).clone()
    }

    fn read(&self, place: impl Fn(&Index) -> Option<Place>) -> Result<Option<Record>, JournalError> {
        // Twice, as the record may move to another segment between the look-up and the reading.
        for _ in 0..2 {
            let place = place(&lock(&self.shared.index));
            if let Some(place) = place
                && let Some(record) = read(&self.directory, place)?
            {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, JournalError> {
        let (reply, result) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| JournalError::Closed)?;
        result.await.map_err(|_| JournalError::Closed)?
    }
}
