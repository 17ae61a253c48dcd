// SPDX-License-Identifier: Apache-2.0
//! All accounts with their servers, and the tasks of their folders.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use imap::{Memory, Server};
use tls::client::{Client, TrustError};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{
    accounts::{Account, Security},
    folder::{FolderTask, Limits},
    progress::{Progress, ProgressError},
    status::FolderStatus,
    trouble::Trouble,
};
use crate::{consumers::Consumers, journal::Journal, params::Params};

/// Memory for large messages that are being fetched, at least; each share must have room for one.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;

/// Part of it that one server may have: one over this, or one message. So many servers less one may dribble at once.
const SHARES: usize = 4;

/// A mailbox cannot be read, whatever its server does.
#[derive(Debug, thiserror::Error)]
pub enum ImapStartError {
    /// Nobody is trusted for its server.
    #[error("imap.{account}.ca_path: {source}")]
    Trust {
        /// Name of the account.
        account: String,
        /// What is wrong.
        source: TrustError,
    },
    /// What was read of a folder before cannot be told.
    #[error("mailbox {account}, folder {folder}: {source}")]
    Progress {
        /// Name of the account.
        account: String,
        /// Name of the folder.
        folder: String,
        /// What is wrong.
        source: ProgressError,
    },
}

/// The statuses of all folders, in the order of the parameters; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Board {
    folders: Arc<Mutex<Vec<FolderStatus>>>,
    changes: Arc<watch::Sender<u64>>,
}

impl Board {
    /// The statuses as they are now.
    pub fn read(&self) -> Vec<FolderStatus> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes with the statuses.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn update(&self, place: usize, change: impl FnOnce(&mut FolderStatus)) {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folders.get_mut(place) {
            change(folder);
        }
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

/// What the tasks share with the bridge.
pub(crate) struct Shared {
    pub(crate) journal: Journal,
    pub(crate) consumers: Arc<Consumers>,
    /// Rises whenever mails are settled.
    pub(crate) settled: watch::Receiver<u64>,
    pub(crate) board: Board,
}

/// The accounts with their servers, to try them.
pub(crate) type Mailboxes = Arc<Vec<(Arc<Account>, Server)>>;

/// Makes what is needed to connect to each account's server.
///
/// # Errors
/// If its certificate authorities cannot be used.
pub(crate) fn mailboxes(accounts: &[Account]) -> Result<Mailboxes, ImapStartError> {
    let mut clients: HashMap<Option<PathBuf>, Client> = HashMap::new();
    let mut mailboxes = Vec::new();
    for account in accounts {
        let tls = match clients.get(&account.ca_path) {
            Some(known) => known.clone(),
            None => {
                let client = Client::new(account.ca_path.as_deref())
                    .map_err(|source| ImapStartError::Trust { account: account.name.clone(), source })?;
                clients.entry(account.ca_path.clone()).or_insert(client).clone()
            }
        };
        let security = match account.security {
            Security::Tls => imap::Security::Tls,
            Security::StartTls => imap::Security::StartTls,
            Security::Plaintext => imap::Security::Plaintext,
        };
        let (host, port, patience) = (account.host.clone(), account.port, account.timeout);
        mailboxes.push((Arc::new(account.clone()), Server { host, port, security, tls, patience }));
    }
    Ok(Arc::new(mailboxes))
}

/// Starts a task for each folder; they end when `stop` is true.
///
/// # Errors
/// If what was read before cannot be told.
pub(crate) fn start(
    tasks: &mut JoinSet<()>,
    mailboxes: &Mailboxes,
    params: &Params,
    shared: Shared,
    stop: &watch::Receiver<bool>,
) -> Result<(), ImapStartError> {
    let shared = Arc::new(shared);
    let memory = Memory::new(MEMORY_BYTES.max(params.limits.message_bytes.saturating_mul(SHARES)));
    let places = |server: &Server| (server.host.to_ascii_lowercase(), server.port);
    let mut wanted: HashMap<_, usize> = HashMap::new();
    for (account, server) in mailboxes.iter() {
        let folders = wanted.entry(places(server)).or_default();
        *folders = folders.saturating_add(account.folders.len());
    }
    let limits = Limits { largest: params.limits.message_bytes, unsettled: params.imap_max_unsettled };
    let mut servers = HashMap::new();
    let mut all = Vec::new();
    for (account, server) in mailboxes.iter() {
        for folder in &account.folders {
            let status = FolderStatus {
                account: account.name.clone(),
                folder: folder.clone(),
                ..FolderStatus::default()
            };
            let place = shared.board.folders.lock().map_or(0, |mut folders| {
                folders.push(status);
                folders.len().saturating_sub(1)
            });
            let progress =
                Progress::open(&params.journal_directory, &account.name, folder).map_err(|source| {
                    ImapStartError::Progress { account: account.name.clone(), folder: folder.clone(), source }
                })?;
            let allowed = params.imap_connections_per_server;
            let (connections, memory) = servers.entry(places(server)).or_insert_with(|| {
                let share = params.limits.message_bytes.max(MEMORY_BYTES / SHARES);
                (Arc::new(Semaphore::new(allowed)), memory.share(share))
            });
            all.push(FolderTask {
                account: Arc::clone(account),
                server: server.clone(),
                folder: folder.clone(),
                place,
                progress: Arc::new(Mutex::new(progress)),
                shared: Arc::clone(&shared),
                connections: Arc::clone(connections),
                may_idle: wanted.get(&places(server)).is_some_and(|folders| *folders <= allowed),
                memory: memory.clone(),
                limits,
                open: BTreeMap::new(),
                is_reconciled: false,
                trouble: Trouble::default(),
            });
        }
    }
    for task in all {
        tasks.spawn(task.run(stop.clone()));
    }
    Ok(())
}
