// SPDX-License-Identifier: Apache-2.0
//! The task that runs the window, and the task that reads from disk the mails to publish.

use std::sync::{Arc, Mutex, PoisonError};

use mail::{AcceptedMail, Disposition, MailId, OutboundMail};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    health,
    journal::{Event, Journal, JournalError, OutboundKey},
    server::stopped,
    window::{Effect, Input, Window},
};

/// Reads mails from disk and passes them on with the consumers that they are published for, one at a time, until either
/// end is gone; reports when it is done with each. Both queues are unbounded because the window has only a bounded
/// number of mails with the publisher at a time.
pub(super) async fn publisher(
    journal: Journal,
    mut due: mpsc::UnboundedReceiver<(MailId, Vec<String>)>,
    mails: mpsc::Sender<AcceptedMail>,
    done: mpsc::UnboundedSender<MailId>,
) {
    while let Some((id, consumers)) = due.recv().await {
        let reader = journal.clone();
        let mail = tokio::task::spawn_blocking(move || reader.read_mail(&id)).await;
        match mail.unwrap_or(Err(JournalError::Closed)) {
            Ok(Some(mail)) => {
                if mails.send(AcceptedMail { consumers, ..mail }).await.is_err() {
                    return;
                }
            }
            Ok(None) => tracing::debug!(mail_id = %id, "settled before it was published"),
            Err(error) => {
                tracing::error!(mail_id = %id, %error, "mail cannot be read, published again later")
            }
        }
        // If the window is gone, nobody needs to know.
        let _ = done.send(id);
    }
}

/// The task around [`Window`]; it waits only for inputs and time.
pub(super) struct WindowTask {
    pub(super) window: Window,
    pub(super) journal: Journal,
    pub(super) start: Instant,
    pub(super) publish: mpsc::UnboundedSender<(MailId, Vec<String>)>,
    pub(super) queued: mpsc::UnboundedSender<(OutboundKey, OutboundMail)>,
    pub(super) figures: Arc<Mutex<health::Intake>>,
    /// Rises whenever mails are settled.
    pub(super) settled: watch::Sender<u64>,
    pub(super) settling: JoinSet<()>,
}

impl WindowTask {
    pub(super) async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
        mut dispositions: mpsc::Receiver<Disposition>,
        mut subscribers: watch::Receiver<usize>,
        mut published: mpsc::UnboundedReceiver<MailId>,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            self.note();
            let wakeup = self.window.next_wakeup().and_then(|due| self.start.checked_add(due));
            let input = tokio::select! {
                () = stopped(&mut stop) => break,
                Some(()) = next_settled(&mut self.settling), if !self.settling.is_empty() => continue,
                Ok(()) = subscribers.changed() => Input::Subscribers(*subscribers.borrow_and_update()),
                Some(event) = events.recv() => self.event(event),
                Some(id) = published.recv() => Input::Published(id),
                Some(disposition) = dispositions.recv() => Input::Disposition(disposition),
                () = sleep_until(wakeup.unwrap_or(self.start)), if wakeup.is_some() => Input::Tick,
            };
            self.step(input);
        }
        // Inputs from before the stop still count.
        while let Ok(event) = events.try_recv() {
            let input = self.event(event);
            self.step(input);
        }
        while let Ok(disposition) = dispositions.try_recv() {
            self.step(Input::Disposition(disposition));
        }
        while self.settling.join_next().await.is_some() {}
        self.note();
    }

    fn event(&self, event: Event) -> Input {
        match event {
            Event::Accepted(arrival) => Input::Accepted(arrival),
            Event::Queued { new, key, mail } => {
                let kind = mail.kind;
                let input = mail.answers.map_or(Input::Tick, |answers| Input::Stored { answers, kind });
                if new {
                    // If the outbox has ended: the mail is on disk and is sent after the restart.
                    let _ = self.queued.send((key, mail));
                }
                input
            }
        }
    }

    fn step(&mut self, input: Input) {
        for effect in self.window.step(input, self.start.elapsed()) {
            match effect {
                // The publisher ends only with the bridge.
                Effect::Publish(id, consumers) => drop(self.publish.send((id, consumers))),
                Effect::Dispose { disposition, settles } => {
                    let (journal, settled) = (self.journal.clone(), self.settled.clone());
                    self.settling.spawn(async move {
                        let mail_id = disposition.mail_id;
                        match journal.dispose(disposition, settles).await {
                            Ok(_) if settles => settled.send_modify(|times| *times = times.wrapping_add(1)),
                            Ok(_) => {}
                            Err(error) => {
                                tracing::warn!(%mail_id, %error, "a disposition is not on disk, the mail is published again after the restart");
                            }
                        }
                    });
                }
            }
        }
    }

    fn note(&self) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let in_flight = self.window.in_flight();
        (figures.in_flight, figures.in_flight_bytes) = (in_flight.mails, in_flight.bytes);
        figures.subscribers = self.window.has_subscribers();
        figures.waiting.clone_from(self.window.waiting());
    }
}

async fn next_settled(settling: &mut JoinSet<()>) -> Option<()> {
    settling.join_next().await.map(|_| ())
}
