//! The journal's owner: one OS thread that appends, syncs once for all that wait, then replies (group commit).

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::SystemTime,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    index::{Index, Pending},
    record::{Attempt, OutboundKey, Record, RecordError},
    segments::{Segments, read},
};
use crate::{
    mail::{AcceptedMail, Disposition, MailId, OutboundMail},
    mail_bridge::{core::Unsettled, health},
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
    #[error("journal directory '{path}' (parameter 'journal_directory') is in use by another process, must have one owner", path = path.display())]
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
    Accepted(MailId),
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

type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

enum Command {
    Accept(AcceptedMail, Reply<Accepted>),
    Settle(Disposition, Reply<bool>),
    Queue(SystemTime, OutboundMail, Reply<Queued>),
    Attempted(Attempt, Reply<()>),
    Close(oneshot::Sender<()>),
}

struct Shared {
    index: Index,
    figures: health::Journal,
}

/// A handle of the journal; clones share it. The thread ends with the last handle or with [`close`](Self::close).
#[derive(Clone)]
pub struct Journal {
    commands: mpsc::Sender<Command>,
    shared: Arc<Mutex<Shared>>,
    directory: PathBuf,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Nobody panics while holding it; if somebody did, the index is still whole.
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
            unsettled: index.unsettled().map(|(id, stored)| Unsettled { id, stored }).collect(),
            pending: index.pending().collect(),
            torn_bytes,
        };
        let figures = health::Journal { torn_bytes, ..health::Journal::default() };
        let shared = Arc::new(Mutex::new(Shared { index, figures }));
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

    /// Its state, for `/diagnostics`.
    pub fn figures(&self) -> health::Journal {
        lock(&self.shared).figures.clone()
    }

    fn read(
        &self,
        place: impl Fn(&Index) -> Option<super::index::Place>,
    ) -> Result<Option<Record>, JournalError> {
        // Twice, as the record may move to another segment between the look-up and the reading.
        for _ in 0..2 {
            let place = place(&lock(&self.shared).index);
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

/// What is told after the sync.
type Done = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

struct Writer {
    segments: Segments,
    shared: Arc<Mutex<Shared>>,
    events: mpsc::UnboundedSender<Event>,
    failed: Option<Arc<str>>,
}

impl Writer {
    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let (mut done, mut events, mut closing) = (Vec::new(), Vec::new(), None);
            let mut next = Some(first);
            while let Some(command) = next {
                if let Command::Close(reply) = command {
                    closing = Some(reply);
                    break;
                }
                done.extend(self.append(command, &mut events));
                next = commands.try_recv().ok();
            }
            if self.failed.is_none()
                && let Err(error) = self.segments.sync()
            {
                self.fail(&error);
            }
            for done in done {
                done(self.check());
            }
            if self.failed.is_none() {
                events.into_iter().for_each(|event| drop(self.events.send(event)));
                self.tidy();
            }
            self.note_figures();
            if let Some(closing) = closing {
                // The directory is free before the reply.
                drop(self);
                let _ = closing.send(());
                return;
            }
        }
    }

    /// Appends what a command needs; its reply comes after the sync.
    fn append(&mut self, command: Command, events: &mut Vec<Event>) -> Option<Done> {
        match command {
            Command::Accept(mail, reply) => {
                let id = mail.id;
                let known = lock(&self.shared).index.knows(&id);
                if !known {
                    self.write(&Record::Accepted(mail));
                    events.push(Event::Accepted(id));
                }
                let result = if known { Accepted::Known } else { Accepted::New };
                Some(after(reply, result))
            }
            Command::Settle(disposition, reply) => {
                let unsettled = lock(&self.shared).index.is_unsettled(&disposition.mail_id);
                if unsettled {
                    self.write(&Record::Settled(disposition));
                }
                Some(after(reply, unsettled))
            }
            Command::Queue(at, mail, reply) => {
                let key = OutboundKey::of(&mail);
                let new = !lock(&self.shared).index.knows_outbound(&key);
                let record = Record::Queued(at, mail);
                if new {
                    self.write(&record);
                }
                if let Record::Queued(_, mail) = record {
                    events.push(Event::Queued {
                        new,
                        key,
                        mail: OutboundMail { text: String::new(), ..mail },
                    });
                }
                Some(after(reply, if new { Queued::New } else { Queued::Known }))
            }
            Command::Attempted(attempt, reply) => {
                self.write(&Record::Attempted(attempt));
                Some(after(reply, ()))
            }
            Command::Close(_) => None,
        }
    }

    fn write(&mut self, record: &Record) {
        if self.failed.is_some() {
            return;
        }
        match self.segments.append(record) {
            // Known from now on: a repetition in this batch waits for the same sync, and after a failed sync nothing
            // is taken any more.
            Ok(place) => lock(&self.shared).index.apply(record, place),
            Err(error) => self.fail(&error),
        }
    }

    /// Starts a new segment and retires the oldest, when it is time.
    fn tidy(&mut self) {
        if !self.segments.is_full() {
            return;
        }
        if let Err(error) = self.segments.rotate() {
            return self.fail(&error);
        }
        loop {
            let mut shared = lock(&self.shared);
            let Some(number) = self.segments.retirable(&shared.index) else { return };
            let retired = self.segments.retire(number, &mut shared.index);
            drop(shared);
            if let Err(error) = retired {
                return self.fail(&error);
            }
        }
    }

    fn fail(&mut self, error: &JournalError) {
        tracing::error!(%error, "journal failed; refusing everything until restart");
        self.failed = Some(error.to_string().into());
    }

    fn check(&self) -> Result<(), JournalError> {
        self.failed.as_ref().map_or(Ok(()), |reason| Err(JournalError::Failed(Arc::clone(reason))))
    }

    fn note_figures(&mut self) {
        let mut shared = lock(&self.shared);
        shared.figures = health::Journal {
            segments: self.segments.count(),
            bytes: self.segments.bytes(),
            unsettled: shared.index.unsettled_count(),
            torn_bytes: shared.figures.torn_bytes,
            failed: self.failed.as_deref().map(str::to_owned),
        };
    }
}

fn after<T: Send + 'static>(reply: Reply<T>, value: T) -> Done {
    // The caller may have gone; the record stays.
    Box::new(move |result| drop(reply.send(result.map(|()| value))))
}
