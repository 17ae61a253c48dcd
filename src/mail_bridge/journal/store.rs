//! The handle of the journal: requests to its thread, and reading back.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    index::{Index, Pending, Place},
    record::{Attempt, OutboundKey, Record, RecordError},
    segments::{Segments, read, room},
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

/// Time after which what could not be written is written again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
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
    /// A write failed: what was asked for is not on disk. The journal goes on as soon as the disk lets it.
    #[error("journal cannot write: {0}")]
    Failed(Arc<str>),
    /// No mail is taken, so that those that are there can be settled.
    #[error("journal: {0}")]
    NoRoom(#[from] NoRoom),
    /// The journal was closed.
    #[error("journal is closed")]
    Closed,
}

/// The disk is nearly full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{free} bytes free on its disk, must keep {reserve} for settlements (journal_reserve_bytes); make room"
)]
pub struct NoRoom {
    /// Free, bytes.
    pub free: u64,
    /// Kept free of mails, bytes.
    pub reserve: u64,
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
    /// Free space of the disk that mails leave to settlements, outbound mails and attempts, bytes.
    pub reserve_bytes: u64,
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
    reserve_bytes: u64,
    /// True: what cannot be written is not tried again.
    giving_up: Arc<watch::Sender<bool>>,
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
        let (directory, reserve_bytes) = (settings.directory.clone(), settings.reserve_bytes);
        let (segments, torn_bytes) = Segments::open(settings, &mut index)?;
        let restored = Restored {
            unsettled: index.unsettled().map(|(arrival, stored)| Unsettled { arrival, stored }).collect(),
            pending: index.pending().collect(),
            torn_bytes,
        };
        let figures = health::Journal { torn_bytes, ..health::Journal::default() };
        let shared = Arc::new(Shared { index: Mutex::new(index), figures: Mutex::new(figures) });
        let (commands, receiver) = mpsc::channel(QUEUE);
        let writer = Writer::new(segments, Arc::clone(&shared), events);
        thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|source| JournalError::Directory { path: directory.clone(), source })?;
        let giving_up = Arc::new(watch::Sender::new(false));
        Ok((Self { commands, shared, directory, reserve_bytes, giving_up }, restored))
    }

    /// Whether the disk has room for mails.
    ///
    /// # Errors
    /// If it has not: [`accept`](Self::accept) would refuse.
    pub fn room(&self) -> Result<(), NoRoom> {
        room(&self.directory, self.reserve_bytes, 0)
    }

    /// Takes a mail. When this returns `Ok`, it is on disk and synced.
    ///
    /// # Errors
    /// If there is no room for it, it cannot be written, or the journal is closed.
    pub async fn accept(&self, mail: AcceptedMail) -> Result<Accepted, JournalError> {
        self.ask(|reply| Command::Accept(mail, reply)).await
    }

    /// Settles a mail; false if it was not unsettled. Tried again as long as it cannot be written, until
    /// [`give_up`](Self::give_up).
    ///
    /// # Errors
    /// If it could not be written, or the journal is closed.
    pub async fn settle(&self, disposition: Disposition) -> Result<bool, JournalError> {
        self.insist(|reply| Command::Settle(disposition.clone(), reply)).await
    }

    /// Takes an outbound mail, unique by its key, queued at `at`.
    ///
    /// # Errors
    /// If it cannot be written, or the journal is closed.
    pub async fn queue(&self, at: SystemTime, mail: OutboundMail) -> Result<Queued, JournalError> {
        self.ask(|reply| Command::Queue(at, mail, reply)).await
    }

    /// Writes down an attempt to send. Tried again like [`settle`](Self::settle).
    ///
    /// # Errors
    /// If it could not be written, or the journal is closed.
    pub async fn attempted(&self, attempt: Attempt) -> Result<(), JournalError> {
        self.insist(|reply| Command::Attempted(attempt.clone(), reply)).await
    }

    /// What cannot be written from now on is an error at once: the node shuts down.
    pub fn give_up(&self) {
        self.giving_up.send_replace(true);
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
        let full = self.room().err().map(|no_room| no_room.to_string());
        health::Journal { full, ..lock(&self.shared.figures).clone() }
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

    async fn insist<T>(&self, command: impl Fn(Reply<T>) -> Command) -> Result<T, JournalError> {
        let mut giving_up = self.giving_up.subscribe();
        loop {
            let result = self.ask(&command).await;
            if !matches!(result, Err(JournalError::Failed(_))) || *giving_up.borrow() {
                return result;
            }
            let _ = timeout(TRY_AGAIN, giving_up.changed()).await;
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, JournalError> {
        let (reply, result) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| JournalError::Closed)?;
        result.await.map_err(|_| JournalError::Closed)?
    }
}
