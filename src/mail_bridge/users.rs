// SPDX-License-Identifier: Apache-2.0
//! Checks the passwords of own devices, and bounds what strangers can make that cost.
//!
//! One password is looked at at a time, on a thread of its own; the others wait, at most one for each connection. An
//! address that guesses gets no more attempts for a while, and each wrong answer comes late. The file is read again
//! when it changes.

mod accounts;
mod attempts;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use record_log::{
    reload::Reloading,
    secret::{SecretError, read_text},
};
use smtp::session::{AuthOutcome, Credentials};
use tokio::{sync::Semaphore, time::sleep};

pub use accounts::{Accounts, InvalidAccounts};
use attempts::Attempts;

/// Delay of the reply to wrong credentials.
const PENALTY: Duration = Duration::from_secs(1);

/// The file of accounts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read, or others can read it.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It does not hold accounts.
    #[error("account file '{path}': {source}", path = path.display())]
    Accounts {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: InvalidAccounts,
    },
}

/// The accounts of a file.
pub struct Users {
    accounts: Reloading<Accounts, UsersError>,
    attempts: Mutex<Attempts>,
    one: Arc<Semaphore>,
    rejected: AtomicU64,
}

impl Users {
    /// Reads the file, to which others MUST NOT have access.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn new(path: &Path) -> Result<Self, UsersError> {
        let file = path.to_owned();
        let load = move || {
            Accounts::parse(&read_text(&file)?)
                .map_err(|source| UsersError::Accounts { path: file.clone(), source })
        };
        Ok(Self {
            accounts: Reloading::new(vec![path.to_owned()], load, Instant::now())?,
            attempts: Mutex::default(),
            one: Arc::new(Semaphore::new(1)),
            rejected: AtomicU64::new(0),
        })
    }

    /// Whether the credentials, from a client at this address, are right.
    pub(super) async fn check(&self, given: Credentials, address: IpAddr) -> AuthOutcome {
        if !self.attempts().take(address, Instant::now()) {
            tracing::info!(%address, "AUTH not looked at: too many attempts");
            return AuthOutcome::TryAgain;
        }
        let Ok(permit) = Arc::clone(&self.one).acquire_owned().await else { return AuthOutcome::TryAgain };
        let accounts = self.accounts.current(Instant::now());
        let checked = tokio::task::spawn_blocking(move || {
            // Held to the end, also if the client is gone by then.
            let _permit = permit;
            let right = accounts.verify(&given.name, &given.password);
            right.then_some(given.name)
        });
        match checked.await {
            Ok(Some(name)) => {
                self.attempts().give_back(address);
                tracing::info!(user = %name, %address, "authenticated");
                AuthOutcome::Accepted
            }
            Ok(None) => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                // Without the name: people type passwords there.
                tracing::info!(%address, "AUTH rejected");
                sleep(PENALTY).await;
                AuthOutcome::Rejected
            }
            Err(_) => AuthOutcome::TryAgain,
        }
    }

    /// Credentials since start that were wrong.
    pub(super) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Why the file cannot be used since it was changed; `None` if it can.
    pub(super) fn failure(&self) -> Option<String> {
        self.accounts.current(Instant::now());
        self.accounts.failure()
    }

    fn attempts(&self) -> std::sync::MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) use accounts::tests::cheap;
