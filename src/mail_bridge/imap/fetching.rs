// SPDX-License-Identifier: Apache-2.0
//! Fetches what is new in a folder into the journal, and records how far it got.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use imap::{Body, Fetched, Opened, Session};
use mail::{ImapMessage, MailId, Origin};
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    accounts::{Day, FirstSync},
    batches::{Batch, batches, done_through},
    error::FolderError,
    folder::FolderTask,
    intake::{Accepting, Intake},
    progress::{Cursor, Numbering, Progress, ProgressError},
    status::Phase,
};
use crate::journal::JournalError;

/// Interval between looks whether enough mails are settled.
const HELD: Duration = Duration::from_secs(1);

impl FolderTask {
    /// Fetches what is new; false if nothing was.
    pub(super) async fn catch_up(
        &mut self,
        session: &mut Session,
        opened: Opened,
    ) -> Result<bool, FolderError> {
        let numbering = Numbering {
            mailbox: format!("{}@{}:{}", self.account.user, self.account.host, self.account.port),
            folder: self.folder.clone(),
            uid_validity: opened.uid_validity,
        };
        let cursor = match self.cursor() {
            Some(cursor) if cursor.numbering == numbering => self.not_beyond(cursor, opened).await?,
            before => self.begin(session, opened, numbering, before).await?,
        };
        let from = cursor.through.saturating_add(1);
        if opened.uid_next.is_some_and(|next| next <= from) {
            return Ok(false);
        }
        let mut new = session.uids_from(from).await?;
        // What came since the folder was opened is for the next look; a UID of the server's fancy is for none.
        new.retain(|uid| opened.uid_next.is_none_or(|next| *uid < next));
        if new.is_empty() && self.trouble.looked == opened.uid_next {
            return Ok(false);
        }
        self.trouble.looked = opened.uid_next;
        self.trouble.skipped = self.trouble.skipped.split_off(&from);
        if self.trouble.has_large {
            let large = session.uids_larger(from, self.limits.largest).await?;
            large.iter().filter(|uid| new.binary_search(uid).is_ok()).for_each(|uid| self.skip_large(*uid));
        }
        let highest = new.last().copied();
        new.retain(|uid| !self.trouble.skipped.contains(uid));
        self.status(|status| {
            status.phase = Phase::Syncing;
            (status.wanted, status.done) = (u32::try_from(new.len()).unwrap_or(u32::MAX), 0);
            status.sync_began = Some(SystemTime::now());
        });
        let known = if cursor.through < cursor.again_through {
            self.on_disk(|progress| progress.known()).await?
        } else {
            HashSet::new()
        };
        let last = opened.uid_next.map_or(highest.unwrap_or(from), |next| next.saturating_sub(1));
        let suspect = self.trouble.suspect.filter(|uid| new.len() > 1 && new.binary_search(uid).is_ok());
        let mut passed_over = self.trouble.skipped.clone();
        passed_over.extend(suspect);
        let alone = self.trouble.alone();
        let mut todo = batches(from..=last, &new, &passed_over, alone);
        // Where nothing is listed, nothing is fetched, unless nothing is listed at all.
        todo.retain(|batch| !batch.listed.is_empty() || new.is_empty());
        if let Some(uid) = suspect {
            return self.hear_suspect(session, uid, todo, &known).await;
        }
        for batch in todo {
            if self.has_waited_for_room().await {
                return Err(FolderError::Held);
            }
            self.fetch(session, batch, &known, None).await?;
        }
        if let Some(highest) = highest
            && self.trouble.skipped.contains(&highest)
        {
            // Nothing of it is fetched, so nothing else says that it is done with.
            self.on_disk(move |progress| progress.fetched(highest, &[])).await?;
        }
        Ok(!new.is_empty())
    }

    /// Some others are fetched first, which tells whether the server is well, and then the suspect once more. Only if that
    /// fails again is it skipped.
    async fn hear_suspect(
        &mut self,
        session: &mut Session,
        uid: u32,
        others: Vec<Batch>,
        known: &HashSet<MailId>,
    ) -> Result<bool, FolderError> {
        let some = others.into_iter().find(|batch| batch.listed.iter().any(|other| *other > uid));
        let mut have_come = 0;
        if let Some(some) = some {
            have_come = self.fetch(session, some, known, Some(uid)).await?;
        }
        let alone = Batch { range: uid..=uid, listed: vec![uid] };
        let heard = self.fetch(session, alone, known, None).await;
        match &heard {
            Ok(_) => self.trouble.suspect = None,
            Err(error) if have_come > 0 && error.attempts().is_some() => {
                self.trouble.suspect = None;
                self.trouble.skipped.insert(uid);
                self.skip(uid, &format!("it fails again and again, and others do not: {error}"));
            }
            Err(_) => {}
        }
        heard.map(|_| true)
    }

    /// The cursor, no further than UIDNEXT: a mailbox from a backup keeps its UIDVALIDITY and has its messages up to some UID,
    /// and others get the UIDs after that. What came before is known by its digest.
    async fn not_beyond(&mut self, cursor: Cursor, opened: Opened) -> Result<Cursor, FolderError> {
        let Some(next) = opened.uid_next.filter(|next| *next <= cursor.through) else { return Ok(cursor) };
        tracing::warn!(
            account = self.account.name,
            folder = self.folder,
            uid_next = next,
            through = cursor.through,
            "UIDs go back: messages from there on are read again, and mails that came before are left out"
        );
        let again_through = cursor.through.max(cursor.again_through);
        let cursor = Cursor { through: next.saturating_sub(1), again_through, ..cursor };
        let begun = cursor.clone();
        self.on_disk(move |progress| progress.begin(begun)).await?;
        self.open.split_off(&next);
        self.trouble.renumbered();
        Ok(cursor)
    }

    pub(super) fn cursor(&self) -> Option<Cursor> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).cursor().cloned()
    }

    /// Reads or writes the progress on a thread that may wait for the disk.
    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Progress) -> Result<T, ProgressError> + Send + 'static,
    ) -> Result<T, FolderError> {
        let progress = Arc::clone(&self.progress);
        let done = spawn_blocking(move || work(&mut progress.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(done.await.map_err(|_| JournalError::Closed)??)
    }

    /// The UIDs are new: decides from where on messages are wanted.
    async fn begin(
        &mut self,
        session: &mut Session,
        opened: Opened,
        numbering: Numbering,
        before: Option<Cursor>,
    ) -> Result<Cursor, FolderError> {
        let today = Day::of(SystemTime::now());
        let since = before.as_ref().map_or_else(|| today.to_string(), |before| before.since.clone());
        let through = match (self.account.first_sync, &before) {
            (FirstSync::All, _) => 0,
            (FirstSync::Since(day), _) => self.before(session, day, opened).await?,
            (FirstSync::New, None) => last_uid(session, opened).await?,
            // What came before the first reading is not wanted now, either.
            (FirstSync::New, Some(_)) => self.before(session, since.parse().unwrap_or(today), opened).await?,
        };
        if before.is_some() {
            tracing::warn!(
                account = self.account.name,
                folder = self.folder,
                uid_validity = opened.uid_validity,
                "the folder's messages have new UIDs: they are read again, and mails that came before are left out"
            );
        }
        // Without UIDNEXT nobody can tell where the old ones end.
        let old = opened.uid_next.map_or(u32::MAX, |next| next.saturating_sub(1));
        let again_through = if before.is_some() { old } else { 0 };
        let cursor = Cursor { numbering, through, since, again_through };
        let begun = cursor.clone();
        self.on_disk(move |progress| progress.begin(begun)).await?;
        self.open.clear();
        self.trouble.renumbered();
        self.is_reconciled = before.is_none();
        Ok(cursor)
    }

    /// The UID before the first message of this day or later; if there is none, the last of all.
    async fn before(&self, session: &mut Session, day: Day, opened: Opened) -> Result<u32, FolderError> {
        match session.uids_since(day.year, day.month, day.day).await?.first() {
            Some(first) => Ok(first.saturating_sub(1)),
            None => last_uid(session, opened).await,
        }
    }

    /// Waits while there are too many mails that are not settled; whether it had to.
    async fn has_waited_for_room(&self) -> bool {
        let mut has_waited = false;
        while self.shared.journal.figures().unsettled >= self.limits.unsettled {
            self.status(|status| status.phase = Phase::Held);
            sleep(HELD).await;
            has_waited = true;
        }
        self.status(|status| status.phase = Phase::Syncing);
        has_waited
    }

    /// Fetches a batch and records what of it is on disk, also if it ends early, but no further than before `suspect`. Returns
    /// how many messages came.
    async fn fetch(
        &mut self,
        session: &mut Session,
        batch: Batch,
        known: &HashSet<MailId>,
        suspect: Option<u32>,
    ) -> Result<usize, FolderError> {
        let mut intake = Intake::default();
        let fetched = self.receive(session, &batch, known, &mut intake).await;
        let journaled = intake.finish().await;
        for uid in std::mem::take(&mut intake.for_others) {
            self.trouble.skipped.insert(uid);
            self.skip(uid, "the same bytes came before for other consumers");
        }
        let mut messages = intake.messages;
        messages.sort_unstable();
        let here: BTreeSet<u32> = messages.iter().map(|(uid, _)| *uid).collect();
        let result = match (journaled, fetched) {
            (Err(error), _) => Err(error.into()),
            (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(())) => self.check_missing(session, &batch, &here).await,
        };
        let done = |uid: &u32| here.contains(uid) || self.trouble.skipped.contains(uid);
        let (through, next) = match &result {
            // Those that are not there and not skipped were deleted.
            Ok(()) => (batch.listed.iter().chain(&here).max().copied(), None),
            Err(_) => done_through(&batch.listed, done),
        };
        self.open.extend(messages.iter().copied());
        let before_suspect = suspect.map_or(u32::MAX, |uid| uid.saturating_sub(1));
        let through = through.unwrap_or(0).min(before_suspect);
        self.on_disk(move |progress| progress.fetched(through, &messages)).await?;
        if !here.is_empty() {
            // The connection is good for something, so the next failure is the first.
            self.trouble.failures = 0;
        }
        if let (Err(error), Some(next)) = (&result, next)
            && let Some(attempts) = error.attempts()
        {
            self.trouble.blame(next, attempts);
        }
        result.map(|()| here.len())
    }

    /// Receives the messages of a batch, each on its way into the journal.
    async fn receive(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        known: &HashSet<MailId>,
        intake: &mut Intake,
    ) -> Result<(), FolderError> {
        let memory = self.memory.clone();
        let mut fetch = session.fetch(batch.range.clone(), self.limits.largest, &memory)?;
        while let Some(Fetched { uid, body, room }) = fetch.next().await? {
            let Body::Whole(data) = body else {
                self.trouble.has_large = true;
                self.skip_large(uid);
                return Err(FolderError::TooLarge(uid));
            };
            let bytes = if room.is_some() { 0 } else { data.len() };
            intake.make_room(bytes).await?;
            let mail = Accepting { shared: Arc::clone(&self.shared), origin: self.origin(uid), data, room };
            intake.take(uid, bytes, mail, known);
            self.status(|status| {
                status.fetched = status.fetched.saturating_add(1);
                status.done = status.done.saturating_add(1);
            });
        }
        Ok(())
    }

    fn skip_large(&mut self, uid: u32) {
        if self.trouble.skipped.insert(uid) {
            self.skip(uid, &format!("larger than max_message_bytes = {}", self.limits.largest));
        }
    }

    fn origin(&self, uid: u32) -> Origin {
        Origin::Imap(ImapMessage {
            account: self.account.address.clone(),
            folder: self.folder.clone(),
            uid_validity: self.cursor().map_or(0, |cursor| cursor.numbering.uid_validity),
            uid,
        })
    }

    fn skip(&self, uid: u32, why: &str) {
        tracing::warn!(account = self.account.name, folder = self.folder, uid, why, "a message is skipped");
        self.status(|status| status.skipped = status.skipped.saturating_add(1));
    }

    /// Messages that were listed and did not come must have been deleted in between.
    async fn check_missing(
        &self,
        session: &mut Session,
        batch: &Batch,
        here: &BTreeSet<u32>,
    ) -> Result<(), FolderError> {
        let is_missing = |uid: &&u32| !here.contains(uid) && !self.trouble.skipped.contains(uid);
        let missing: Vec<_> = batch.listed.iter().filter(is_missing).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let still: HashSet<_> = session.uids_from(**first).await?.into_iter().collect();
        match missing.into_iter().find(|uid| still.contains(uid)) {
            Some(uid) => Err(FolderError::Withheld(*uid)),
            None => Ok(()),
        }
    }
}

/// UID of the last message of a folder; 0 if there is none.
async fn last_uid(session: &mut Session, opened: Opened) -> Result<u32, FolderError> {
    match opened.uid_next {
        Some(next) => Ok(next.saturating_sub(1)),
        None => Ok(session.uids_from(1).await?.last().copied().unwrap_or(0)),
    }
}
