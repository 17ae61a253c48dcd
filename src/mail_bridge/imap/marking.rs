// SPDX-License-Identifier: Apache-2.0
//! Marks messages on the server once their mails are settled.

use imap::{ImapError, Session};
use mail::MailId;

use super::{accounts::WhenSettled, error::FolderError, folder::FolderTask};

/// Messages that are marked with one command.
const MARKED: usize = 500;

impl FolderTask {
    /// Marks the messages whose mails are settled, as the account wishes. True if the server has been asked something and has
    /// done it.
    pub(super) async fn mark_settled(&mut self, session: &mut Session) -> Result<bool, FolderError> {
        let through = self.cursor().map_or(0, |cursor| cursor.through);
        if self.account.when_settled == WhenSettled::Leave {
            self.open.clear();
            return Ok(false);
        }
        let mut has_asked = false;
        if !self.is_reconciled && through > 0 {
            let unmarked = match &self.account.when_settled {
                WhenSettled::Flag(flag) => session.uids_without(flag, through).await?,
                WhenSettled::Leave | WhenSettled::Move(_) => session.uids_from(1).await?,
            };
            let unmarked = unmarked.into_iter().collect();
            self.open.extend(self.on_disk(move |progress| progress.ids_of(&unmarked)).await?);
            self.is_reconciled = true;
            has_asked = true;
        }
        let is_settled = |id: &MailId| !self.shared.journal.is_unsettled(id);
        let settled: Vec<_> =
            self.open.iter().filter(|(_, id)| is_settled(id)).map(|(uid, _)| *uid).collect();
        for some in settled.chunks(MARKED) {
            let marked = match &self.account.when_settled {
                WhenSettled::Flag(flag) => session.flag(some, flag).await,
                WhenSettled::Move(folder) => session.move_to(some, folder).await,
                WhenSettled::Leave => Ok(()),
            };
            match marked {
                Ok(()) => {
                    some.iter().for_each(|uid| _ = self.open.remove(uid));
                    has_asked = true;
                }
                // Reading goes on; it is tried again at the next occasion.
                Err(ImapError::No(why)) => {
                    let error = format!("settled messages cannot be marked: {why}");
                    tracing::warn!(account = self.account.name, folder = self.folder, error);
                    self.status(|status| status.last_error = error);
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(has_asked)
    }
}
