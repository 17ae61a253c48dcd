// SPDX-License-Identifier: Apache-2.0
//! Mails on their way from a server into the journal, many at a time so that they share its syncs.

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use imap::Room;
use mail::{AcceptedMail, MailId, Origin};
use tokio::task::JoinSet;

use super::Shared;
use crate::journal::{Accepted, JournalError};

/// Bounds on what of a folder waits for the journal: mails, and bytes of those that need no room in memory.
const WAITING: usize = 256;
const WAITING_BYTES: usize = 4 * 1024 * 1024;

/// A mail on its way into the journal.
pub(super) struct Accepting {
    pub(super) shared: Arc<Shared>,
    pub(super) origin: Origin,
    pub(super) data: Vec<u8>,
    /// Its room in [`Memory`].
    pub(super) room: Option<Room>,
}

/// Mails on their way into the journal, and those that are there.
#[derive(Default)]
pub(super) struct Intake {
    tasks: JoinSet<(u32, usize, MailId, Result<(), JournalError>)>,
    bytes: usize,
    pub(super) messages: Vec<(u32, MailId)>,
    pub(super) for_others: Vec<u32>,
}

impl Intake {
    /// Waits until another mail of so many bytes may wait.
    pub(super) async fn make_room(&mut self, bytes: usize) -> Result<(), JournalError> {
        while self.tasks.len() >= WAITING
            || self.bytes > 0 && self.bytes.saturating_add(bytes) > WAITING_BYTES
        {
            self.one().await?;
        }
        Ok(())
    }

    pub(super) fn take(&mut self, uid: u32, bytes: usize, mail: Accepting, known: &HashSet<MailId>) {
        self.bytes = self.bytes.saturating_add(bytes);
        let id = MailId::of(&mail.data);
        if known.contains(&id) {
            self.bytes = self.bytes.saturating_sub(bytes);
            self.messages.push((uid, id));
            return;
        }
        self.tasks.spawn(async move {
            let Accepting { shared, origin, data, room: _held } = mail;
            let consumers = shared.consumers.of(&origin);
            let mail = AcceptedMail { id, received_at: SystemTime::now(), origin, consumers, data };
            let accepted = shared.journal.accept(mail).await;
            if let Ok(accepted) = accepted {
                tracing::info!(mail_id = %id, known = accepted == Accepted::Known, "mail fetched and journaled");
            }
            (uid, bytes, id, accepted.map(drop))
        });
    }

    /// Waits for one of the mails.
    async fn one(&mut self) -> Result<(), JournalError> {
        let Some(ended) = self.tasks.join_next().await else { return Ok(()) };
        let (uid, bytes, id, accepted) = ended.map_err(|_| JournalError::Closed)?;
        self.bytes = self.bytes.saturating_sub(bytes);
        match accepted {
            Ok(()) => self.messages.push((uid, id)),
            Err(JournalError::ForOthers) => self.for_others.push(uid),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) async fn finish(&mut self) -> Result<(), JournalError> {
        while !self.tasks.is_empty() {
            self.one().await?;
        }
        Ok(())
    }
}
