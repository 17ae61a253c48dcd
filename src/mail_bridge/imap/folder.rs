// SPDX-License-Identifier: Apache-2.0
//! The task of one folder: connects, fetches what is new, waits for more, and tries again after a failure.
//!
//! A folder is opened anew before each wait: what came while its messages were fetched is then known, and IDLE tells what comes
//! afterwards, so that nothing falls in between.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use imap::{Access, Extension, ImapError, Memory, Server, Session};
use mail::MailId;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep},
};

use super::{
    Shared,
    accounts::{Account, WhenSettled},
    error::FolderError,
    progress::Progress,
    secret::credentials,
    status::{FolderStatus, Phase},
    trouble::Trouble,
};
use crate::server::stopped;

/// Mails that are settled within this time are marked on the server together.
const GATHER: Duration = Duration::from_millis(500);
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
                // The session is of no more use: a message on its way is not wanted, or the server has waited for long.
                Err(FolderError::TooLarge(_) | FolderError::Held) => (PACE, Phase::Queued),
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

    pub(super) fn status(&self, change: impl FnOnce(&mut FolderStatus)) {
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
            self.status(|status| (status.failures, status.last_error) = (0, String::new()));
            let has_marked = self.mark_settled(&mut session).await?;
            let before = std::mem::take(&mut self.trouble.failures);
            if has_marked {
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
    use std::collections::HashSet;

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
