// SPDX-License-Identifier: Apache-2.0
//! The journal's thread: appends, syncs once for all waiting requests, then replies (group commit). Between requests
//! it retires old segments in small steps.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    thread,
};

use mail::{AcceptedMail, Disposition, MailId, OutboundMail};
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};

use super::{
    index::{Move, Note, Place},
    record::{OutboundKey, QueuedMail, Record, Remembered},
    segments::Segments,
    store::{Accepted, Command, Event, JournalError, Queued, Reply, Shared, lock},
};
use crate::{health, window::Arrival};

/// Bounds on one step of retiring a segment, in records examined and in bytes copied: a request may have to wait for
/// it.
const STEP_RECORDS: usize = 2_000;
const STEP_BYTES: u64 = 1024 * 1024;

/// Sends one reply, after the sync.
type Done = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// Appended but not yet synced.
#[derive(Default)]
struct Batch {
    /// Applied to the index after the sync, so that the index never holds what a failed sync lost.
    notes: Vec<(Note, Place)>,
    /// With the consumers that each is for.
    accepted: HashMap<MailId, Vec<String>>,
    settled: HashSet<MailId>,
    queued: HashSet<OutboundKey>,
    events: Vec<Event>,
    done: Vec<Done>,
    /// Total size of the mails in the batch.
    mail_bytes: u64,
    /// Progress of retiring a segment, valid once the batch is synced.
    retired: Option<Step>,
}

#[derive(Clone, Copy)]
struct Step {
    segment: u32,
    /// Next record to examine; `None` if nothing of the segment is needed any more.
    next: Option<usize>,
}

pub(super) struct Writer {
    segments: Segments,
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<Event>,
    batch: Batch,
    retiring: Option<Step>,
    /// Why no more segments are retired.
    stuck: Option<String>,
    /// Why a write failed; cleared by recovery.
    failed: Option<Arc<str>>,
    /// Recovery failed: the thread ends.
    dead: bool,
}

impl Writer {
    pub(super) fn new(segments: Segments, shared: Arc<Shared>, events: mpsc::UnboundedSender<Event>) -> Self {
        let batch = Batch::default();
        let mut writer =
            Self { segments, shared, events, batch, retiring: None, stuck: None, failed: None, dead: false };
        writer.note_figures();
        writer
    }

    /// Runs until all handles are dropped, one closes the journal, or it cannot recover from a failed write.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.tidy();
        loop {
            let first = if self.retiring.is_some() && self.failed.is_none() {
                match commands.try_recv() {
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return,
                    Ok(command) => Some(command),
                }
            } else {
                let Some(command) = commands.blocking_recv() else { return };
                Some(command)
            };
            let closing = self.turn(first, &mut commands);
            if closing.is_some() || self.dead {
                // Unlock the directory before replying.
                drop(self);
                closing.map(|closing| closing.send(()));
                return;
            }
        }
    }

    /// Processes one batch: appends, syncs, replies. If the journal is to close, returns the channel to confirm it
    /// on.
    fn turn(
        &mut self,
        first: Option<Command>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Option<oneshot::Sender<()>> {
        self.recover();
        // Before the commands, because their changes are not in the index yet.
        self.retire_step();
        let (mut next, mut closing) = (first, None);
        while let Some(command) = next {
            if let Command::Close(reply) = command {
                closing = Some(reply);
                break;
            }
            let done = self.append(command);
            self.batch.done.extend(done);
            // The remaining commands wait for the next segment.
            next = if self.segments.is_full() { None } else { commands.try_recv().ok() };
        }
        if self.failed.is_none()
            && let Err(error) = self.segments.sync()
        {
            self.fail(&error);
        }
        let batch = std::mem::take(&mut self.batch);
        if self.failed.is_none() {
            self.keep(batch.notes, batch.retired);
        }
        // Events and figures go before replies, so that a caller with a reply can rely on them.
        self.note_figures();
        if self.failed.is_none() {
            batch.events.into_iter().for_each(|event| drop(self.events.send(event)));
        }
        for done in batch.done {
            done(self.check());
        }
        self.tidy();
        closing
    }

    /// After a failed write: cuts everything that was not synced and carries on, even if the disk is still full.
    fn recover(&mut self) {
        let Some(reason) = self.failed.clone() else { return };
        match self.segments.recover() {
            Ok(()) => {
                tracing::info!(%reason, "journal recovered");
                self.failed = None;
            }
            Err(error) => {
                tracing::error!(%error, "journal cannot recover and ends");
                self.failed = Some(error.to_string().into());
                self.dead = true;
            }
        }
    }

    /// Appends the records of a command. Its reply is sent after the sync.
    fn append(&mut self, command: Command) -> Option<Done> {
        match command {
            Command::Accept(mail, reply) => self.accept(mail, reply),
            Command::Dispose(disposition, settles, reply) => Some(self.dispose(disposition, settles, reply)),
            Command::Settle(id, reply) => Some(self.settle(id, reply)),
            Command::Queue(at, mail, reply) => {
                let key = OutboundKey::of(&mail);
                let new = !self.batch.queued.contains(&key) && !lock(&self.shared.index).knows_outbound(&key);
                let record = Record::Queued(QueuedMail { at, mail });
                if new && self.write(&record) {
                    self.batch.queued.insert(key);
                }
                if let Record::Queued(QueuedMail { mail, .. }) = record {
                    let mail = OutboundMail { text: String::new(), ..mail };
                    self.batch.events.push(Event::Queued { new, key, mail });
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

    fn accept(&mut self, mail: AcceptedMail, reply: Reply<Accepted>) -> Option<Done> {
        let id = mail.id;
        // A repetition within the batch waits for the same sync.
        let known = self.batch.accepted.contains_key(&id) || lock(&self.shared.index).knows(&id);
        if known {
            if !self.covers(&mail) {
                let _ = reply.send(Err(JournalError::ForOthers));
                return None;
            }
        } else {
            let bytes = self.batch.mail_bytes.saturating_add(mail.data.len() as u64);
            if let Err(no_room) = self.segments.room(bytes) {
                // The caller may be gone.
                let _ = reply.send(Err(no_room.into()));
                return None;
            }
            self.batch.mail_bytes = bytes;
            let arrival = Arrival::of(&mail);
            let consumers = mail.consumers.clone();
            if self.write(&Record::Accepted(mail)) {
                self.batch.accepted.insert(id, consumers);
                self.batch.events.push(Event::Accepted(arrival));
            }
        }
        Some(after(reply, if known { Accepted::Known } else { Accepted::New }))
    }

    /// Whether the known mail with these bytes is for all consumers that this one is for. Nobody can tell if its record
    /// is gone or cannot be read.
    fn covers(&self, mail: &AcceptedMail) -> bool {
        let all_in = |known: &[String]| mail.consumers.iter().all(|consumer| known.contains(consumer));
        if let Some(known) = self.batch.accepted.get(&mail.id) {
            return all_in(known);
        }
        let place = lock(&self.shared.index).mail(&mail.id);
        match place.map(|place| self.segments.read(place)) {
            Some(Ok(Some(Record::Accepted(known)))) => all_in(&known.consumers),
            _ => true,
        }
    }

    fn is_unsettled(&self, id: &MailId) -> bool {
        let open = self.batch.accepted.contains_key(id) || lock(&self.shared.index).is_unsettled(id);
        open && !self.batch.settled.contains(id)
    }

    fn dispose(&mut self, disposition: Disposition, settles: bool, reply: Reply<bool>) -> Done {
        let id = disposition.mail_id;
        if !self.is_unsettled(&id) {
            return after(reply, false);
        }
        self.write(&Record::Disposed(disposition));
        if settles { self.settle(id, reply) } else { after(reply, true) }
    }

    fn settle(&mut self, id: MailId, reply: Reply<bool>) -> Done {
        let unsettled = self.is_unsettled(&id);
        if unsettled && self.write(&Record::Settled(id)) {
            self.batch.settled.insert(id);
        }
        after(reply, unsettled)
    }

    /// Appends a record; false if the journal has failed.
    fn write(&mut self, record: &Record) -> bool {
        if self.failed.is_some() {
            return false;
        }
        match self.segments.append(record) {
            Ok(place) => self.batch.notes.push((Note::from(record), place)),
            Err(error) => self.fail(&error),
        }
        self.failed.is_none()
    }

    /// Applies a synced batch to the index.
    fn keep(&mut self, notes: Vec<(Note, Place)>, retired: Option<Step>) {
        let mut index = lock(&self.shared.index);
        notes.into_iter().for_each(|(note, place)| index.apply(note, place));
        match retired {
            Some(Step { segment, next: None }) => {
                index.forget_segment(segment);
                self.segments.delete(segment);
                self.retiring = None;
            }
            Some(step) => self.retiring = Some(step),
            None => {}
        }
    }

    /// Starts a new segment if the current one is full, and picks the oldest for retiring if it is worth it.
    fn tidy(&mut self) {
        if self.failed.is_some() {
            return;
        }
        if self.segments.is_full()
            && let Err(error) = self.segments.rotate()
        {
            return self.fail(&error);
        }
        if self.retiring.is_none() && self.stuck.is_none() {
            let segment = self.segments.retirable(&lock(&self.shared.index));
            self.retiring = segment.map(|segment| Step { segment, next: Some(0) });
        }
        self.note_figures();
    }

    /// Appends some of the records that are still needed from the segment being retired. A crash before the segment
    /// is deleted leaves both copies, which `Index::apply` tolerates.
    fn retire_step(&mut self) {
        let (Some(Step { segment, next: Some(from) }), None) = (self.retiring, &self.failed) else { return };
        if let Err(error) = self.retire_some(segment, from) {
            if self.failed.is_none() {
                tracing::error!(%error, "journal: cannot retire a segment, keeping all until restart");
                self.stuck = Some(error.to_string());
                self.retiring = None;
            }
            self.batch.retired = None;
        }
    }

    fn retire_some(&mut self, segment: u32, from: usize) -> Result<(), JournalError> {
        let count = STEP_RECORDS.min(self.segments.remembered_in_one());
        let (moves, mut next) = lock(&self.shared.index).moves(segment, from, count);
        let (mut remembered, mut bytes) = (Remembered::default(), 0_u64);
        for (number, what) in moves {
            match what {
                Move::RememberMail(id) => remembered.mails.push(id),
                Move::RememberKey(key) => remembered.keys.push(key),
                Move::Mail(..) | Move::PassedOn(..) | Move::Outbound(..) if bytes > STEP_BYTES => {
                    next = Some(number);
                    break;
                }
                Move::Mail(place, dispositions) => {
                    bytes = bytes.saturating_add(place.bytes());
                    self.move_to_end(place)?;
                    for disposition in dispositions {
                        self.write(&Record::Disposed(disposition));
                    }
                }
                Move::PassedOn(id, place) => {
                    // The forward is still unsent. Settle the copy too, or it would be published after a restart.
                    bytes = bytes.saturating_add(place.bytes());
                    self.move_to_end(place)?;
                    self.write(&Record::Settled(id));
                }
                Move::Outbound(place, attempt) => {
                    bytes = bytes.saturating_add(place.bytes());
                    self.move_to_end(place)?;
                    if let Some(attempt) = attempt {
                        self.write(&Record::Attempted(attempt));
                    }
                }
            }
        }
        if remembered != Remembered::default() {
            self.write(&Record::Remembered(remembered));
        }
        self.batch.retired = Some(Step { segment, next });
        Ok(())
    }

    fn move_to_end(&mut self, place: Place) -> Result<(), JournalError> {
        if let Some(record) = self.segments.read(place)? {
            self.write(&record);
        }
        Ok(())
    }

    fn fail(&mut self, error: &JournalError) {
        tracing::error!(%error, "journal: a write failed");
        // Retiring restarts when there is room; records moved so far are found at their new place.
        self.retiring = None;
        self.failed = Some(error.to_string().into());
    }

    fn check(&self) -> Result<(), JournalError> {
        self.failed.as_ref().map_or(Ok(()), |reason| Err(JournalError::Failed(Arc::clone(reason))))
    }

    fn note_figures(&mut self) {
        let unsettled = lock(&self.shared.index).unsettled_count();
        let mut figures = lock(&self.shared.figures);
        *figures = health::Journal {
            segments: self.segments.count(),
            bytes: self.segments.bytes(),
            unsettled,
            failed: self.failed.as_deref().map(str::to_owned),
            stuck: self.stuck.clone(),
            ..figures.clone()
        };
    }
}

impl Drop for Writer {
    /// Reports that nothing is written any more; after a panic nobody else would.
    fn drop(&mut self) {
        if thread::panicking() {
            lock(&self.shared.figures).failed = Some("its thread panicked".to_owned());
        }
    }
}

fn after<T: Send + 'static>(reply: Reply<T>, value: T) -> Done {
    // The caller may be gone; the record stays.
    Box::new(move |result| drop(reply.send(result.map(|()| value))))
}

#[cfg(test)]
mod tests;
