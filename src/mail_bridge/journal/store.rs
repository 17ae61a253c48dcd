// SPDX-License-Identifier: Apache-2.0
//! The journal's handle: sends requests to the journal's thread, and reads records back.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime},
};

use mail::{AcceptedMail, Disposition, MailId, OutboundMail};
use record_log::RecordLogError;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    index::{Index, Pending, Place},
    record::{Attempt, EncodeError, OutboundKey, Record, RecordError},
    segments::{Segments, read, room},
    writer::Writer,
};
use crate::{
    health,
    window::{Arrival, Unsettled},
};

/// Interval between attempts to write a disposition or an attempt.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Requests that may wait for the thread; callers wait beyond that.
const QUEUE: usize = 1024;

/// The journal cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory cannot be created or used.
    #[error("journal directory '{path}' (parameter 'journal_directory') cannot be used: {source}", path = path.display())]
    Directory {
        /// Path of the directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("journal directory '{path}': in use by another process; set another one (journal_directory)", path = path.display())]
    Locked {
        /// Path of the directory.
        path: PathBuf,
    },
    /// A segment cannot be opened or written.
    #[error("journal: {0}")]
    Log(#[from] RecordLogError),
    /// A segment cannot be read or deleted.
    #[error("journal segment '{path}': cannot {action}: {source}", path = path.display())]
    Segment {
        /// Path of the segment.
        path: PathBuf,
        /// The operation that failed, as a verb phrase.
        action: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// A record is malformed or of another version.
    #[error("journal segment '{path}': {source}", path = path.display())]
    Record {
        /// Path of its segment.
        path: PathBuf,
        /// What is wrong with it.
        source: RecordError,
    },
    /// A record cannot be encoded.
    #[error("journal: a record cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// A write failed: the request is not on disk. The journal recovers once the disk allows it.
    #[error("journal cannot write: {0}")]
    Failed(Arc<str>),
    /// The same bytes were accepted before, for other consumers than they are for now.
    #[error("journal: the same bytes came before for other consumers")]
    ForOthers,
    /// No mails are taken, so that there is room to settle those on disk.
    #[error("journal: {0}")]
    NoRoom(#[from] NoRoom),
    /// The journal was closed.
    #[error("journal is closed")]
    Closed,
}

/// The disk has less free space than the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{free} bytes free on its disk, must keep {reserve} for settlements (journal_reserve_bytes); make room"
)]
pub struct NoRoom {
    /// Free space, bytes.
    pub free: u64,
    /// Space reserved for everything but mails, bytes.
    pub reserve: u64,
}

/// Where the journal keeps its files, and how much of them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of the journal.
    pub directory: PathBuf,
    /// Size at which a segment is closed, bytes.
    pub segment_bytes: u64,
    /// Segments kept besides the last, even if everything in them is settled.
    pub keep_segments: usize,
    /// Mails, and as many outbound mails, remembered after their segment is deleted.
    pub remembered: usize,
    /// Free disk space reserved for settlements, outbound mails and attempts, bytes.
    pub reserve_bytes: u64,
}

/// What the journal held when it was opened.
#[derive(Debug)]
pub struct Restored {
    /// Unsettled mails, oldest first.
    pub unsettled: Vec<Unsettled>,
    /// Outbound mails that are neither delivered nor failed, oldest first.
    pub pending: Vec<Pending>,
    /// Bytes of torn tails that were cut. They are kept beside the segments as `.torn`, unless the disk was full.
    pub torn_bytes: u64,
}

/// Something reached the disk. Sent after the sync, even if the caller no longer waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A mail was accepted.
    Accepted(Arrival),
    /// An outbound mail was queued, now (`new`) or earlier.
    Queued {
        /// Whether it is the first with its key.
        new: bool,
        /// Identity of the outbound mail.
        key: OutboundKey,
        /// The mail, without its text.
        mail: OutboundMail,
    },
}

/// How the journal took a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The mail is on disk now.
    New,
    /// The mail was on disk already.
    Known,
}

/// How the journal took an outbound mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// The mail is on disk now and will be sent.
    New,
    /// A mail with the same key was queued before; this one is dropped.
    Known,
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

pub(super) enum Command {
    Accept(AcceptedMail, Reply<Accepted>),
    Dispose(Disposition, bool, Reply<bool>),
    Settle(MailId, Reply<bool>),
    Queue(SystemTime, OutboundMail, Reply<Queued>),
    Attempted(Attempt, Reply<()>),
    Close(oneshot::Sender<()>),
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) index: Mutex<Index>,
    pub(super) figures: Mutex<health::Journal>,
}

/// A handle of the journal; clones share it. The thread ends when the last handle is dropped, or on
/// [`close`](Self::close).
#[derive(Clone)]
pub struct Journal {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    directory: PathBuf,
    reserve_bytes: u64,
    /// Once true, failed writes are not retried.
    giving_up: Arc<watch::Sender<bool>>,
}

pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while holding this lock; if some did, the value would still be intact.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Opens the journal and starts its thread. Blocking. `events` receives everything new on disk; it is unbounded
    /// because the receiver keeps every mail in an index anyway.
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
            unsettled: index.unsettled().collect(),
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

    /// Checks that the disk has room for mails.
    ///
    /// # Errors
    /// If it has none: [`accept`](Self::accept) would fail.
    pub fn room(&self) -> Result<(), NoRoom> {
        room(&self.directory, self.reserve_bytes, 0)
    }

    /// Accepts a mail. When this returns `Ok`, the mail is on disk and synced.
    ///
    /// # Errors
    /// If there is no room for the mail, it cannot be written, or the journal is closed.
    pub async fn accept(&self, mail: AcceptedMail) -> Result<Accepted, JournalError> {
        self.ask(|reply| Command::Accept(mail, reply)).await
    }

    /// Records that a consumer has disposed of a mail, and, if that `settles` it, that it is settled; false if it was
    /// not unsettled. Retries a failed write until [`give_up`](Self::give_up).
    ///
    /// # Errors
    /// If it could not be written, or the journal is closed.
    pub async fn dispose(&self, disposition: Disposition, settles: bool) -> Result<bool, JournalError> {
        self.insist(|reply| Command::Dispose(disposition.clone(), settles, reply)).await
    }

    /// Settles a mail that no consumer is left for; false if it was not unsettled. Retries like
    /// [`dispose`](Self::dispose).
    ///
    /// # Errors
    /// If it could not be written, or the journal is closed.
    pub async fn settle(&self, id: MailId) -> Result<bool, JournalError> {
        self.insist(|reply| Command::Settle(id, reply)).await
    }

    /// Queues an outbound mail at time `at`, unless one with its key is known.
    ///
    /// # Errors
    /// If it cannot be written, or the journal is closed.
    pub async fn queue(&self, at: SystemTime, mail: OutboundMail) -> Result<Queued, JournalError> {
        self.ask(|reply| Command::Queue(at, mail, reply)).await
    }

    /// Records an attempt to send. Retries like [`dispose`](Self::dispose).
    ///
    /// # Errors
    /// If it could not be written, or the journal is closed.
    pub async fn attempted(&self, attempt: Attempt) -> Result<(), JournalError> {
        self.insist(|reply| Command::Attempted(attempt.clone(), reply)).await
    }

    /// Whether this mail is in the journal and not settled.
    pub fn is_unsettled(&self, id: &MailId) -> bool {
        lock(&self.shared.index).is_unsettled(id)
    }

    /// From now on failed writes are errors and not retried, because the node shuts down.
    pub fn give_up(&self) {
        self.giving_up.send_replace(true);
    }

    /// Ends the thread after all earlier requests. The directory is unlocked when this returns.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    /// Returns when the thread has ended, after [`close`](Self::close) or a failure.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    /// Reads a mail; `None` if it is unknown or its segment was deleted. Blocking.
    ///
    /// # Errors
    /// If the segment cannot be read.
    pub fn read_mail(&self, id: &MailId) -> Result<Option<AcceptedMail>, JournalError> {
        match self.read(|index| index.mail(id))? {
            Some(Record::Accepted(mail)) => Ok(Some(mail)),
            _ => Ok(None),
        }
    }

    /// Reads an outbound mail; `None` if it is unknown or its segment was deleted. Blocking.
    ///
    /// # Errors
    /// If the segment cannot be read.
    pub fn read_outbound(&self, key: &OutboundKey) -> Result<Option<OutboundMail>, JournalError> {
        match self.read(|index| index.outbound(key))? {
            Some(Record::Queued(queued)) => Ok(Some(queued.mail)),
            _ => Ok(None),
        }
    }

    /// Last attempt to send an outbound mail; `None` if there was none, or the mail's segment was deleted. Blocking.
    ///
    /// # Errors
    /// If the segment cannot be read.
    pub fn read_attempt(&self, key: &OutboundKey) -> Result<Option<Attempt>, JournalError> {
        let open = lock(&self.shared.index).attempt(key).cloned();
        if open.is_some() {
            return Ok(open);
        }
        match self.read(|index| index.last_attempt(key))? {
            Some(Record::Attempted(attempt)) => Ok(Some(attempt)),
            _ => Ok(None),
        }
    }

    /// The journal's state for `/diagnostics`.
    pub fn figures(&self) -> health::Journal {
        let full = self.room().err().map(|no_room| no_room.to_string());
        health::Journal { full, ..lock(&self.shared.figures).clone() }
    }

    fn read(&self, place: impl Fn(&Index) -> Option<Place>) -> Result<Option<Record>, JournalError> {
        // Try twice: the record may move to another segment between look-up and read.
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
