//! The journal's thread: appends, syncs once for all that wait, then replies (group commit).

use std::{sync::Arc, thread};

use tokio::sync::mpsc;

use super::{
    record::{OutboundKey, Record},
    segments::Segments,
    store::{Accepted, Command, Event, JournalError, Queued, Reply, Shared, lock},
};
use crate::{mail::OutboundMail, mail_bridge::health};

/// What is told after the sync.
type Done = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

pub(super) struct Writer {
    pub(super) segments: Segments,
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) failed: Option<Arc<str>>,
}

impl Writer {
    /// Until all handles are gone or one closes.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
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
            // Events and figures before replies: whoever has a reply may rely on them.
            self.note_figures();
            if self.failed.is_none() {
                events.into_iter().for_each(|event| drop(self.events.send(event)));
            }
            for done in done {
                done(self.check());
            }
            if self.failed.is_none() && self.segments.is_full() {
                self.tidy();
                self.note_figures();
            }
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
                let known = lock(&self.shared.index).knows(&id);
                if !known {
                    self.write(&Record::Accepted(mail));
                    events.extend(lock(&self.shared.index).arrival(&id).map(Event::Accepted));
                }
                let result = if known { Accepted::Known } else { Accepted::New };
                Some(after(reply, result))
            }
            Command::Settle(disposition, reply) => {
                let unsettled = lock(&self.shared.index).is_unsettled(&disposition.mail_id);
                if unsettled {
                    self.write(&Record::Settled(disposition));
                }
                Some(after(reply, unsettled))
            }
            Command::Queue(at, mail, reply) => {
                let key = OutboundKey::of(&mail);
                let new = !lock(&self.shared.index).knows_outbound(&key);
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
            Ok(place) => lock(&self.shared.index).apply(record, place),
            Err(error) => self.fail(&error),
        }
    }

    /// Starts a new segment, and retires the oldest as far as it is time.
    fn tidy(&mut self) {
        if let Err(error) = self.segments.rotate() {
            return self.fail(&error);
        }
        loop {
            let number = self.segments.retirable(&lock(&self.shared.index));
            let Some(number) = number else { return };
            if let Err(error) = self.segments.retire(number, &self.shared.index) {
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

    pub(super) fn note_figures(&mut self) {
        let unsettled = lock(&self.shared.index).unsettled_count();
        let mut figures = lock(&self.shared.figures);
        *figures = health::Journal {
            segments: self.segments.count(),
            bytes: self.segments.bytes(),
            unsettled,
            torn_bytes: figures.torn_bytes,
            failed: self.failed.as_deref().map(str::to_owned),
        };
    }
}

impl Drop for Writer {
    /// After a panic nobody else tells that nothing is written any more.
    fn drop(&mut self) {
        if thread::panicking() {
            lock(&self.shared.figures).failed = Some("its thread panicked".to_owned());
        }
    }
}

fn after<T: Send + 'static>(reply: Reply<T>, value: T) -> Done {
    // The caller may have gone; the record stays.
    Box::new(move |result| drop(reply.send(result.map(|()| value))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail_bridge::journal::{Settings, index::Index};

    #[test]
    fn a_thread_that_panics_is_a_journal_that_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            directory: dir.path().to_owned(),
            segment_bytes: 4096,
            keep_segments: 1,
            remembered: 1,
        };
        let (segments, _) = Segments::open(settings, &mut Index::new(1)).unwrap();
        let shared = Arc::new(Shared::default());
        let (events, _events) = mpsc::unbounded_channel();
        let writer = Writer { segments, shared: Arc::clone(&shared), events, failed: None };
        let thread = thread::spawn(move || {
            let _writer = writer;
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert_eq!(lock(&shared.figures).failed.as_deref(), Some("its thread panicked"));
    }
}
