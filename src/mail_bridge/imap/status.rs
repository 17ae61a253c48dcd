// SPDX-License-Identifier: Apache-2.0
//! What the graph is told of each folder. Pure.

use std::time::{Duration, SystemTime};

use health::{Level, Status};

/// This many failures in a row are no passing trouble.
const FAILURES: u32 = 3;

/// What a folder's task does. Numbers are those of `ImapFolder.msg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// It waits for a connection that another folder of this server has.
    #[default]
    Queued = 1,
    /// It connects and logs in.
    Connecting = 2,
    /// It fetches what is new.
    Syncing = 3,
    /// It waits until mails are settled.
    Held = 4,
    /// Everything is fetched; the server tells of new messages (IDLE).
    Watching = 5,
    /// Everything is fetched; it looks again at `next_try`.
    Polling = 6,
    /// It failed, and tries again at `next_try`.
    Failed = 7,
}

/// A folder and how its mails are doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FolderStatus {
    /// Name of the account.
    pub account: String,
    /// Name of the folder.
    pub folder: String,
    /// What is being done.
    pub phase: Phase,
    /// Messages in the folder, when it was last opened.
    pub messages: u32,
    /// Messages fetched since the node started.
    pub fetched: u64,
    /// Messages that this sync is to fetch, and how many of them it has.
    pub wanted: u32,
    /// How many of them are done.
    pub done: u32,
    /// When this sync began.
    pub sync_began: Option<SystemTime>,
    /// Messages passed over since the node started: too large, not to be had, or known for other consumers.
    pub skipped: u64,
    /// Why the last attempt failed, or what could not be done to messages; empty after a success.
    pub last_error: String,
    /// Failed attempts since the last success.
    pub failures: u32,
    /// When it looks or tries again; `None` while it is connected.
    pub next_try: Option<SystemTime>,
}

impl FolderStatus {
    /// Messages a second of the sync that is under way; 0 before there is a second of it.
    pub fn rate(&self, now: SystemTime) -> f64 {
        let seconds = self.sync_began.and_then(|began| now.duration_since(began).ok()).unwrap_or_default();
        if self.phase == Phase::Syncing && seconds >= Duration::from_secs(1) {
            f64::from(self.done) / seconds.as_secs_f64()
        } else {
            0.0
        }
    }

    /// When the sync that is under way will have ended at this rate; `None` if none is, or that cannot be told.
    pub fn estimated_end(&self, now: SystemTime) -> Option<SystemTime> {
        let rate = self.rate(now);
        let left = f64::from(self.wanted.saturating_sub(self.done));
        (rate > 0.0)
            .then(|| Duration::try_from_secs_f64(left / rate).ok())
            .flatten()
            .and_then(|left| now.checked_add(left))
    }
}

/// One status for each account, from those of its folders.
pub fn statuses(folders: &[FolderStatus]) -> Vec<Status> {
    folders.chunk_by(|one, next| one.account == next.account).filter_map(status).collect()
}

fn status(folders: &[FolderStatus]) -> Option<Status> {
    let account = &folders.first()?.account;
    let worst = folders.iter().max_by_key(|folder| folder.failures)?;
    let held = folders.iter().find(|folder| folder.phase == Phase::Held);
    let (level, message) = if worst.failures > 0 {
        let level = if worst.failures >= FAILURES { Level::Error } else { Level::Warn };
        (level, format!("folder {}: {}", worst.folder, worst.last_error))
    } else if let Some(held) = held {
        (Level::Warn, format!("folder {}: waits until mails are settled (imap_max_unsettled)", held.folder))
    } else if let Some(folder) = folders.iter().find(|folder| !folder.last_error.is_empty()) {
        (Level::Warn, format!("folder {}: {}", folder.folder, folder.last_error))
    } else if folders.iter().any(|folder| folder.phase == Phase::Syncing) {
        (Level::Ok, "fetching".to_owned())
    } else if folders.iter().any(|folder| matches!(folder.phase, Phase::Queued | Phase::Connecting)) {
        (Level::Ok, "connecting".to_owned())
    } else {
        (Level::Ok, "up to date".to_owned())
    };
    let sum = |figure: fn(&FolderStatus) -> u64| folders.iter().map(figure).sum::<u64>();
    Some(
        Status::new(format!("imap {account}"), level, message)
            .gauge("folders", folders.len())
            .gauge("messages", sum(|folder| u64::from(folder.messages)))
            .gauge("to_fetch", sum(|folder| u64::from(folder.wanted.saturating_sub(folder.done))))
            .counter("fetched", sum(|folder| folder.fetched))
            .counter("skipped", sum(|folder| folder.skipped)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(account: &str, change: impl Fn(&mut FolderStatus)) -> FolderStatus {
        let mut status =
            FolderStatus { account: account.into(), folder: "INBOX".into(), ..FolderStatus::default() };
        change(&mut status);
        status
    }

    #[test]
    fn an_account_is_as_well_as_its_worst_folder() {
        let level = |folder| statuses(&[folder]).first().unwrap().level;
        assert_eq!(level(folder("a", |_| {})), Level::Ok);
        assert_eq!(level(folder("a", |one| one.failures = 1)), Level::Warn);
        assert_eq!(level(folder("a", |one| one.failures = 3)), Level::Error);
        assert_eq!(level(folder("a", |one| one.phase = Phase::Held)), Level::Warn);
        assert_eq!(level(folder("a", |one| one.last_error = "cannot be moved".into())), Level::Warn);
        let all = statuses(&[folder("a", |_| {}), folder("a", |one| one.failures = 3), folder("b", |_| {})]);
        assert_eq!(all.iter().map(|status| status.level).collect::<Vec<_>>(), [Level::Error, Level::Ok]);
    }

    #[test]
    fn tells_rate_and_end_of_a_sync() {
        let began = SystemTime::UNIX_EPOCH;
        let now = began + Duration::from_secs(10);
        let mut one = folder("a", |one| (one.wanted, one.done, one.sync_began) = (1000, 250, Some(began)));
        assert_eq!((one.rate(now), one.estimated_end(now)), (0.0, None));
        one.phase = Phase::Syncing;
        assert_eq!((one.rate(now), one.estimated_end(now)), (25.0, Some(began + Duration::from_secs(40))));
        assert_eq!(one.rate(began), 0.0);
    }
}
