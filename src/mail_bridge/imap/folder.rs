// SPDX-License-Identifier: Apache-2.0
//! The task of one folder: connects, fetches what is new, waits for more, and tries again after a failure.
//!
//! A folder is opened anew before each wait: what came while its messages were fetched is then known, and IDLE tells what comes
//! afterwards, so that nothing falls in between.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use imap::{Access, Body, Extension, Fetched, ImapError, Memory, Opened, Room, Server, Session};
use mail::{AcceptedMail, ImapMessage, MailId, Origin};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep},
};

use super::{
    Shared,
    accounts::{Account, Day, FirstSync, WhenSettled},
    batches::{Batch, batches, done_through},
    progress::{Cursor, Numbering, Progress, ProgressError},
    secret::{NoCredentials, credentials},
    status::{FolderStatus, Phase},
};
use crate::{
    journal::{Accepted, JournalError},
    server::stopped,
};

/// Messages that are marked with one command.
const MARKED: usize = 500;
/// Bounds on what of a folder waits for the journal: mails, and bytes of those that need no room in [`Memory`].
const WAITING: usize = 256;
const WAITING_BYTES: usize = 4 * 1024 * 1024;
/// Interval between looks whether enough mails are settled.
const HELD: Duration = Duration::from_secs(1);
/// Mails that are settled within this time are marked on the server together.
const GATHER: Duration = Duration::from_millis(500);
/// Attempts to get a message that the server does not give, and one over which the connection breaks, before it is skipped. The
/// second to last are for it alone.
const REFUSALS: u32 = 3;
const BREAKS: u32 = 10;
/// Least time between two looks at a folder that brought nothing, whatever the server says of news.
const PACE: Duration = Duration::from_secs(1);
/// An IDLE that fails sooner is no success of the connection.
const BRIEF: Duration = Duration::from_secs(5);

/// Bounds of a folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Largest message, bytes.
    pub(super) largest: usize,
    /// Unsettled mails in the journal at which no more are fetched.
    pub(super) unsettled: usize,
}

/// Why a folder cannot be read for now.
#[derive(Debug, thiserror::Error)]
enum FolderError {
    #[error(transparent)]
    Credentials(#[from] NoCredentials),
    #[error(transparent)]
    Imap(#[from] ImapError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Progress(#[from] ProgressError),
    #[error("the server lists the message with UID {0} and does not give it")]
    Withheld(u32),
    #[error("the message with UID {0} is larger than max_message_bytes")]
    TooLarge(u32),
}

impl FolderError {
    fn needs_a_person(&self) -> bool {
        match self {
            Self::Credentials(_) => true,
            Self::Imap(error) => error.needs_a_person(),
            Self::Journal(_) | Self::Progress(_) | Self::Withheld(_) | Self::TooLarge(_) => false,
        }
    }

    /// After how many times in a row the message at which it happens is skipped; `None` if it is not the message's fault.
    fn attempts(&self) -> Option<u32> {
        match self {
            Self::Credentials(_) | Self::Journal(_) | Self::Progress(_) | Self::TooLarge(_) => None,
            Self::Withheld(_)
            | Self::Imap(ImapError::No(_) | ImapError::Protocol(_) | ImapError::TooMuch(_)) => Some(REFUSALS),
            Self::Imap(_) => Some(BREAKS),
        }
    }
}

pub(super) struct FolderTask {
    pub(super) account: Arc<Account>,
    pub(super) server: Server,
    pub(super) folder: String,
    /// Place of its status on the board.
    pub(super) place: usize,
    pub(super) progress: Arc<Mutex<Progress>>,
    pub(super) shared: Arc<Shared>,
    /// Connections to its server.
    pub(super) connections: Arc<Semaphore>,
    /// Whether there are enough of them for all folders, so that it may keep one.
    pub(super) may_idle: bool,
    pub(super) memory: Memory,
    pub(super) limits: Limits,
    /// Messages to be marked once their mails are settled.
    pub(super) open: BTreeMap<u32, MailId>,
    /// Whether `open` has what was fetched before the node started.
    pub(super) is_reconciled: bool,
    pub(super) trouble: Trouble,
}

/// What this server made difficult, of the UIDs as they are now.
#[derive(Default)]
pub(super) struct Trouble {
    /// Messages that are passed over.
    skipped: BTreeSet<u32>,
    /// The message at which the last attempt failed, and how often in a row.
    at: Option<(u32, u32)>,
    /// Whether it has messages that are too large, so that it is asked for them beforehand.
    has_large: bool,
    /// UIDNEXT for which the server listed nothing new.
    looked: Option<u32>,
    /// It offers IDLE and refuses it.
    refuses_idle: bool,
    /// Failed attempts since the last success.
    failures: u32,
}

impl FolderTask {
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = stopped(&mut stop) => {}
            never = self.follow() => match never {},
        }
    }

    async fn follow(&mut self) -> Infallible {
        loop {
            let (delay, phase) = match self.visit().await {
                Ok(()) => (self.account.poll, Phase::Polling),
                // The rest of it would only be read to be dropped.
                Err(FolderError::TooLarge(_)) => (PACE, Phase::Queued),
                Err(error) => (self.failed(&error), Phase::Failed),
            };
            self.status(|status| {
                status.phase = phase;
                status.next_try = SystemTime::now().checked_add(delay);
            });
            sleep(delay).await;
        }
    }

    /// Reports a failure; returns how long to wait.
    fn failed(&mut self, error: &FolderError) -> Duration {
        let retry = self.account.retry;
        let failures = self.trouble.failures.saturating_add(1);
        self.trouble.failures = failures;
        self.status(|status| (status.failures, status.last_error) = (failures, error.to_string()));
        let delay = if error.needs_a_person() { retry.max } else { retry.delay(failures) };
        let delay = with_jitter(delay, SystemTime::now(), self.place);
        tracing::warn!(account = self.account.name, folder = self.folder, %error, failures, ?delay, "mailbox cannot be read");
        delay
    }

    fn status(&self, change: impl FnOnce(&mut FolderStatus)) {
        self.shared.board.update(self.place, change);
    }

    /// Connects, fetches what is new and, where there are connections enough, stays.
    async fn visit(&mut self) -> Result<(), FolderError> {
        self.status(|status| (status.phase, status.next_try) = (Phase::Queued, None));
        // Nobody closes the semaphore.
        let _connection = Arc::clone(&self.connections).acquire_owned().await.ok();
        self.status(|status| status.phase = Phase::Connecting);
        let credentials = credentials(&self.account.secret).await?;
        let mut session = Session::open(&self.server, &self.account.user, &credentials).await?;
        let stays = self.may_idle && session.has(Extension::Idle) && !self.trouble.refuses_idle;
        let access = match self.account.when_settled {
            WhenSettled::Leave => Access::Read,
            WhenSettled::Flag(_) | WhenSettled::Move(_) => Access::Write,
        };
        let (mut looked_at, mut numbering) = (None::<Instant>, None);
        loop {
            if let Some(early) = looked_at.and_then(|looked_at| PACE.checked_sub(looked_at.elapsed())) {
                sleep(early).await;
            }
            looked_at = Some(Instant::now());
            let opened = session.open_folder(&self.folder, access).await?;
            if numbering.is_some_and(|before| before != opened.uid_validity) {
                let what = "UIDVALIDITY changes while the folder is read".to_owned();
                return Err(ImapError::Protocol(what).into());
            }
            numbering = Some(opened.uid_validity);
            self.status(|status| status.messages = opened.messages);
            let mut settled = self.shared.settled.clone();
            // What is settled from here on is marked in the next round.
            settled.mark_unchanged();
            if self.catch_up(&mut session, opened).await? {
                looked_at = None;
                continue;
            }
            let before = std::mem::take(&mut self.trouble.failures);
            self.status(|status| (status.failures, status.last_error) = (0, String::new()));
            if self.mark_settled(&mut session).await? {
                // What the server says of new messages meanwhile is lost on io-imap.
                looked_at = None;
                continue;
            }
            if !stays {
                session.close().await;
                return Ok(());
            }
            self.status(|status| status.phase = Phase::Watching);
            let has_open = !self.open.is_empty();
            let marking = async {
                if !has_open || settled.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                sleep(GATHER).await;
            };
            let idle_since = Instant::now();
            if let Err(error) = session.idle(self.account.idle, marking).await {
                self.trouble.refuses_idle = matches!(error, ImapError::No(_));
                if idle_since.elapsed() < BRIEF {
                    self.trouble.failures = before;
                }
                return Err(error.into());
            }
        }
    }

    /// Fetches what is new; false if nothing was.
    async fn catch_up(&mut self, session: &mut Session, opened: Opened) -> Result<bool, FolderError> {
        let numbering = Numbering {
            mailbox: format!("{}@{}:{}", self.account.user, self.account.host, self.account.port),
            folder: self.folder.clone(),
            uid_validity: opened.uid_validity,
        };
        // UIDs that go back mean other messages as well: a mailbox from a backup keeps its UIDVALIDITY.
        let is_current = |cursor: &Cursor| {
            cursor.numbering == numbering && opened.uid_next.is_none_or(|next| next > cursor.through)
        };
        let cursor = match self.cursor() {
            Some(cursor) if is_current(&cursor) => cursor,
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
        if self.trouble.has_large {
            for uid in session.uids_larger(from, self.limits.largest).await? {
                self.skip_large(uid);
            }
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
        let alone = self.trouble.at.filter(|(_, times)| *times > 1).map(|(uid, _)| uid);
        for batch in batches(from..=last, &new, &self.trouble.skipped, alone) {
            self.wait_for_room().await;
            self.fetch(session, batch, &known).await?;
        }
        if let Some(highest) = highest
            && self.trouble.skipped.contains(&highest)
        {
            // Nothing of it is fetched, so nothing else says that it is done with.
            self.on_disk(move |progress| progress.fetched(highest, &[])).await?;
        }
        Ok(!new.is_empty())
    }

    fn cursor(&self) -> Option<Cursor> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).cursor().cloned()
    }

    /// Reads or writes the progress on a thread that may wait for the disk.
    async fn on_disk<T: Send + 'static>(
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
        self.trouble = Trouble { failures: self.trouble.failures, ..Trouble::default() };
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

    async fn wait_for_room(&self) {
        while self.shared.journal.figures().unsettled >= self.limits.unsettled {
            self.status(|status| status.phase = Phase::Held);
            sleep(HELD).await;
        }
        self.status(|status| status.phase = Phase::Syncing);
    }

    /// Fetches a batch and records what of it is on disk, also if it ends early.
    async fn fetch(
        &mut self,
        session: &mut Session,
        batch: Batch,
        known: &HashSet<MailId>,
    ) -> Result<(), FolderError> {
        let mut intake = Intake::default();
        let fetched = self.receive(session, &batch, known, &mut intake).await;
        let journaled = intake.finish().await;
        for uid in std::mem::take(&mut intake.for_others) {
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
        let through = through.unwrap_or(0);
        self.on_disk(move |progress| progress.fetched(through, &messages)).await?;
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                self.blame(next, &error);
                Err(error)
            }
        }
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
            let mail =
                Accepting { shared: Arc::clone(&self.shared), origin: self.origin(uid), data, _room: room };
            intake.take(uid, bytes, mail, known);
            self.status(|status| {
                status.fetched = status.fetched.saturating_add(1);
                status.done = status.done.saturating_add(1);
            });
        }
        Ok(())
    }

    /// Remembers at which message an attempt has failed, and skips it after some times.
    fn blame(&mut self, next: Option<u32>, error: &FolderError) {
        let (Some(uid), Some(attempts)) = (next, error.attempts()) else { return };
        let times =
            self.trouble.at.filter(|(at, _)| *at == uid).map_or(1, |(_, times)| times.saturating_add(1));
        self.trouble.at = Some((uid, times));
        if times >= attempts {
            self.trouble.at = None;
            self.trouble.skipped.insert(uid);
            self.skip(uid, &format!("{times} attempts failed: {error}"));
        }
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
        let missing: Vec<_> = batch.listed.iter().filter(|uid| !here.contains(uid)).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let still: HashSet<_> = session.uids_from(**first).await?.into_iter().collect();
        match missing.into_iter().find(|uid| still.contains(uid)) {
            Some(uid) => Err(FolderError::Withheld(*uid)),
            None => Ok(()),
        }
    }

    /// Marks the messages whose mails are settled, as the account wishes. True if the server has been asked something and has
    /// done it.
    async fn mark_settled(&mut self, session: &mut Session) -> Result<bool, FolderError> {
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

/// A mail on its way into the journal.
struct Accepting {
    shared: Arc<Shared>,
    origin: Origin,
    data: Vec<u8>,
    /// Its room in [`Memory`].
    _room: Option<Room>,
}

/// Mails on their way into the journal, and those that are there.
#[derive(Default)]
struct Intake {
    tasks: JoinSet<(u32, usize, MailId, Result<(), JournalError>)>,
    bytes: usize,
    messages: Vec<(u32, MailId)>,
    for_others: Vec<u32>,
}

impl Intake {
    /// Waits until another mail of so many bytes may wait.
    async fn make_room(&mut self, bytes: usize) -> Result<(), JournalError> {
        while self.tasks.len() >= WAITING
            || self.bytes > 0 && self.bytes.saturating_add(bytes) > WAITING_BYTES
        {
            self.one().await?;
        }
        Ok(())
    }

    fn take(&mut self, uid: u32, bytes: usize, mail: Accepting, known: &HashSet<MailId>) {
        self.bytes = self.bytes.saturating_add(bytes);
        let id = MailId::of(&mail.data);
        if known.contains(&id) {
            self.bytes = self.bytes.saturating_sub(bytes);
            self.messages.push((uid, id));
            return;
        }
        self.tasks.spawn(async move {
            let Accepting { shared, origin, data, _room } = mail;
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

    async fn finish(&mut self) -> Result<(), JournalError> {
        while !self.tasks.is_empty() {
            self.one().await?;
        }
        Ok(())
    }
}

/// UID of the last message of a folder; 0 if there is none.
async fn last_uid(session: &mut Session, opened: Opened) -> Result<u32, FolderError> {
    match opened.uid_next {
        Some(next) => Ok(next.saturating_sub(1)),
        None => Ok(session.uids_from(1).await?.last().copied().unwrap_or(0)),
    }
}

/// Varies a delay by up to a quarter, so that a hundred accounts do not come back to their server at once.
fn with_jitter(delay: Duration, now: SystemTime, place: usize) -> Duration {
    let nanos = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let place = u32::try_from(place).unwrap_or_default();
    // Fibonacci hashing: places that follow each other are spread over the whole range.
    let spread = f64::from(nanos.wrapping_add(place).wrapping_mul(2_654_435_769)) / f64::from(u32::MAX);
    delay.mul_f64(0.75 + spread / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_quarter_and_spreads_the_accounts() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(123_456_789);
        let delays: HashSet<_> =
            (0..100).map(|place| with_jitter(Duration::from_secs(8), now, place)).collect();
        assert!(delays.iter().all(|delay| (6.0..=10.0).contains(&delay.as_secs_f64())));
        assert!(delays.len() > 90, "{}", delays.len());
        let early = delays.iter().filter(|delay| delay.as_secs_f64() < 8.0).count();
        assert!((30..70).contains(&early), "{early} of {}", delays.len());
    }
}
