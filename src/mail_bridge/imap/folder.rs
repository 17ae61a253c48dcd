// SPDX-License-Identifier: Apache-2.0
//! The task of one folder: connects, fetches what is new, waits for more, and tries again after a failure.
//!
//! A folder is opened anew before each wait: what came while its messages were fetched is then known, and IDLE tells what comes
//! afterwards, so that nothing falls in between.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use imap::{Access, Body, Extension, Fetched, ImapError, Memory, Opened, Server, Session};
use mail::{AcceptedMail, ImapMessage, MailId, Origin};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinSet, spawn_blocking},
    time::sleep,
};

use super::{
    Shared,
    accounts::{Account, Day, FirstSync, WhenSettled},
    progress::{Cursor, Numbering, Progress, ProgressError},
    secret::{NoCredentials, credentials},
    status::{FolderStatus, Phase},
};
use crate::{
    journal::{Accepted, JournalError},
    server::stopped,
};

/// Messages that are fetched with one command, and recorded with one sync.
const CHUNK: usize = 500;
/// Bounds on what of a folder waits for the journal: mails, and bytes of those that need no room in [`Memory`].
const WAITING: usize = 256;
const WAITING_BYTES: usize = 4 * 1024 * 1024;
/// Interval between looks whether enough mails are settled.
const HELD: Duration = Duration::from_secs(1);
/// Mails that are settled within this time are marked on the server together.
const GATHER: Duration = Duration::from_millis(500);
/// Attempts to get a message that the server lists and does not give.
const ATTEMPTS: u32 = 3;

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
}

impl FolderError {
    fn needs_a_person(&self) -> bool {
        match self {
            Self::Credentials(_) => true,
            Self::Imap(error) => error.needs_a_person(),
            Self::Journal(_) | Self::Progress(_) | Self::Withheld(_) => false,
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
    /// How often the server has not given a message that it lists.
    pub(super) withheld: HashMap<u32, u32>,
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
        let mut failures = 0;
        self.status(|status| {
            status.failures = status.failures.saturating_add(1);
            status.last_error = error.to_string();
            failures = status.failures;
        });
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
        let stays = self.may_idle && session.has(Extension::Idle);
        loop {
            let access = match self.account.when_settled {
                WhenSettled::Leave => Access::Read,
                WhenSettled::Flag(_) | WhenSettled::Move(_) => Access::Write,
            };
            let opened = session.open_folder(&self.folder, access).await?;
            self.status(|status| status.messages = opened.messages);
            if self.catch_up(&mut session, opened).await? {
                continue;
            }
            self.status(|status| (status.failures, status.last_error) = (0, String::new()));
            let mut settled = self.shared.settled.clone();
            // What is settled from here on is marked in the next round.
            settled.mark_unchanged();
            self.mark_settled(&mut session).await?;
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
            session.idle(self.account.idle, marking).await?;
        }
    }

    /// Fetches what is new; false if nothing was.
    async fn catch_up(&mut self, session: &mut Session, opened: Opened) -> Result<bool, FolderError> {
        let numbering = Numbering {
            mailbox: format!("{}@{}:{}", self.account.user, self.account.host, self.account.port),
            folder: self.folder.clone(),
            uid_validity: opened.uid_validity,
        };
        let cursor = match self.cursor() {
            Some(cursor) if cursor.numbering == numbering => cursor,
            before => self.begin(session, opened, numbering, before).await?,
        };
        let through = cursor.through;
        if opened.uid_next.is_some_and(|next| next <= through.saturating_add(1)) {
            return Ok(false);
        }
        let new = session.uids_from(through.saturating_add(1)).await?;
        let last = new
            .last()
            .copied()
            .unwrap_or(through)
            .max(opened.uid_next.map_or(0, |next| next.saturating_sub(1)));
        if last <= through {
            return Ok(false);
        }
        self.status(|status| {
            status.phase = Phase::Syncing;
            (status.wanted, status.done) = (u32::try_from(new.len()).unwrap_or(u32::MAX), 0);
            status.sync_began = Some(SystemTime::now());
        });
        let known = if through < cursor.again_through {
            self.on_disk(|progress| progress.known()).await?
        } else {
            HashSet::new()
        };
        let mut first = through.saturating_add(1);
        let mut chunks = new.chunks(CHUNK).peekable();
        while first <= last {
            let chunk = chunks.next().unwrap_or_default();
            // Ranges without gaps: a message that the list does not have is fetched, too.
            let end = if chunks.peek().is_some() { chunk.last().copied().unwrap_or(last) } else { last };
            self.wait_for_room().await;
            self.fetch(session, first, end, chunk, &known).await?;
            first = match end.checked_add(1) {
                Some(next) => next,
                None => break,
            };
        }
        Ok(true)
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
            (FirstSync::Since(day), _) => {
                before_first(&session.uids_since(day.year, day.month, day.day).await?, opened)
            }
            (FirstSync::New, None) => match opened.uid_next {
                Some(next) => next.saturating_sub(1),
                None => session.uids_from(1).await?.last().copied().unwrap_or(0),
            },
            // What came before the first reading is not wanted now, either.
            (FirstSync::New, Some(_)) => {
                let day: Day = since.parse().unwrap_or(today);
                before_first(&session.uids_since(day.year, day.month, day.day).await?, opened)
            }
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
        self.withheld.clear();
        self.is_reconciled = before.is_none();
        Ok(cursor)
    }

    async fn wait_for_room(&self) {
        while self.shared.journal.figures().unsettled >= self.limits.unsettled {
            self.status(|status| status.phase = Phase::Held);
            sleep(HELD).await;
        }
        self.status(|status| status.phase = Phase::Syncing);
    }

    /// Fetches the messages from `first` to `end`, among them `listed`, and records them once all are on disk.
    async fn fetch(
        &mut self,
        session: &mut Session,
        first: u32,
        end: u32,
        listed: &[u32],
        known: &HashSet<MailId>,
    ) -> Result<(), FolderError> {
        let mut intake = Intake::default();
        let mut missing: HashSet<u32> = listed.iter().copied().collect();
        let memory = self.memory.clone();
        let mut fetch = session.fetch(first..=end, self.limits.largest, &memory)?;
        while let Some(Fetched { uid, body, room }) = fetch.next().await? {
            if uid < first || uid > end {
                continue;
            }
            missing.remove(&uid);
            match body {
                Body::Whole(data) => {
                    let origin = self.origin(uid);
                    let bytes = if room.is_some() { 0 } else { data.len() };
                    intake.make_room(bytes).await?;
                    intake.take(
                        uid,
                        bytes,
                        Accepting { shared: Arc::clone(&self.shared), origin, data, _room: room },
                        known,
                    );
                }
                Body::TooLarge(bytes) => {
                    let limit = self.limits.largest;
                    self.skip(uid, &format!("{bytes} bytes are more than max_message_bytes = {limit}"));
                }
            }
            self.status(|status| {
                status.fetched = status.fetched.saturating_add(1);
                status.done = status.done.saturating_add(1);
            });
        }
        intake.finish().await?;
        for uid in std::mem::take(&mut intake.for_others) {
            self.skip(uid, "the same bytes came before for other consumers");
        }
        if !missing.is_empty() {
            self.check_missing(session, missing, first).await?;
        }
        self.open.extend(intake.messages.iter().copied());
        intake.messages.sort_unstable();
        let messages = intake.messages;
        self.on_disk(move |progress| progress.fetched(end, &messages)).await
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

    /// Messages that were listed and did not come: deleted in between, or withheld, which is tried some times.
    async fn check_missing(
        &mut self,
        session: &mut Session,
        missing: HashSet<u32>,
        first: u32,
    ) -> Result<(), FolderError> {
        let still: HashSet<_> = session.uids_from(first).await?.into_iter().collect();
        let mut again = None;
        for uid in missing.intersection(&still) {
            let attempts = self.withheld.entry(*uid).or_default();
            *attempts = attempts.saturating_add(1);
            if *attempts >= ATTEMPTS {
                self.skip(*uid, "the server lists the message and does not give it");
            } else {
                again = Some(*uid);
            }
        }
        again.map_or(Ok(()), |uid| Err(FolderError::Withheld(uid)))
    }

    /// Marks the messages whose mails are settled, as the account wishes.
    async fn mark_settled(&mut self, session: &mut Session) -> Result<(), FolderError> {
        let through = self.cursor().map_or(0, |cursor| cursor.through);
        if self.account.when_settled == WhenSettled::Leave {
            self.open.clear();
            return Ok(());
        }
        if !self.is_reconciled && through > 0 {
            let unmarked = match &self.account.when_settled {
                WhenSettled::Flag(flag) => session.uids_without(flag, through).await?,
                WhenSettled::Leave | WhenSettled::Move(_) => session.uids_from(1).await?,
            };
            let unmarked = unmarked.into_iter().collect();
            self.open.extend(self.on_disk(move |progress| progress.ids_of(&unmarked)).await?);
            self.is_reconciled = true;
        }
        let is_settled = |id: &MailId| !self.shared.journal.is_unsettled(id);
        let settled: Vec<_> =
            self.open.iter().filter(|(_, id)| is_settled(id)).map(|(uid, _)| *uid).collect();
        for some in settled.chunks(CHUNK) {
            let marked = match &self.account.when_settled {
                WhenSettled::Flag(flag) => session.flag(some, flag).await,
                WhenSettled::Move(folder) => session.move_to(some, folder).await,
                WhenSettled::Leave => Ok(()),
            };
            match marked {
                Ok(()) => self.open.retain(|uid, _| !some.contains(uid)),
                // Reading goes on; it is tried again at the next occasion.
                Err(ImapError::No(why)) => {
                    let error = format!("settled messages cannot be marked: {why}");
                    tracing::warn!(account = self.account.name, folder = self.folder, error);
                    self.status(|status| status.last_error = error);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A mail on its way into the journal.
struct Accepting {
    shared: Arc<Shared>,
    origin: Origin,
    data: Vec<u8>,
    /// Its room in [`Memory`].
    _room: Option<tokio::sync::OwnedSemaphorePermit>,
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

/// The UID before the first of those wanted; if none is, the last that there is.
fn before_first(wanted: &[u32], opened: Opened) -> u32 {
    wanted.first().copied().or(opened.uid_next).unwrap_or(1).saturating_sub(1)
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

    #[test]
    fn begins_before_the_first_wanted_message() {
        let opened = |uid_next| Opened { uid_next, ..Opened::default() };
        assert_eq!(before_first(&[7, 9], opened(Some(20))), 6);
        assert_eq!(before_first(&[], opened(Some(20))), 19);
        assert_eq!(before_first(&[], opened(None)), 0);
    }
}
