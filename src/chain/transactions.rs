// SPDX-License-Identifier: Apache-2.0
//! Keeps the transactions in flight on disk, so that a new process knows what an earlier one has sent. Blocking.
//!
//! `transactions-<chain id>-<account>.json` holds every attempt before a node gets it, and is replaced as a whole each
//! time. What has ended since it was written may still be in it; the chain tells.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use record_log::replace_file;
use serde::{Deserialize, Serialize};
use web3::types::{Address, Bytes, U256};

use crate::{
    LedgerError,
    account::{Call, action},
    submission::{Attempt, Submission},
};

/// What an earlier process did with a transaction, if this one does not know the words any more.
const UNKNOWN_ACTION: &str = "send an earlier transaction";

/// A transaction as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    action: String,
    to: Option<Address>,
    data: Bytes,
    gas: U256,
    nonce: U256,
    attempts: Vec<Attempt>,
}

impl Kept {
    pub fn new(call: &Call, gas: U256, submission: &Submission) -> Self {
        Self {
            action: call.action.to_owned(),
            to: call.to,
            data: Bytes(call.data.clone()),
            gas,
            nonce: submission.nonce(),
            attempts: submission.attempts().to_vec(),
        }
    }

    /// The call, its gas limit and its submission; `None` if it has no attempt.
    pub fn resume(self) -> Option<(Call, U256, Submission)> {
        let action = action::ALL.into_iter().find(|action| *action == self.action).unwrap_or(UNKNOWN_ACTION);
        let call = Call { action, to: self.to, data: self.data.0 };
        Some((call, self.gas, Submission::resumed(self.nonce, self.attempts)?))
    }
}

/// The file, for one account on one chain.
pub struct TransactionsFile {
    path: PathBuf,
}

impl TransactionsFile {
    /// The file in this directory; it need not exist.
    pub fn new(directory: &Path, chain_id: u64, account: Address) -> Self {
        Self { path: directory.join(format!("transactions-{chain_id}-{account:?}.json")) }
    }

    /// Reads the transactions; none if there is no file.
    ///
    /// # Errors
    /// If the file cannot be read or holds something else.
    pub fn load(&self) -> Result<Vec<Kept>, LedgerError> {
        let bytes = match fs::read(&self.path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(|why| self.failed(format!("cannot be read: {why}")))?,
        };
        serde_json::from_slice(&bytes).map_err(|why| self.failed(format!("must be JSON: {why}")))
    }

    /// Replaces the file; without transactions, removes it.
    ///
    /// # Errors
    /// [`LedgerError::Disk`] if it cannot be written.
    pub fn store(&self, transactions: &[Kept]) -> Result<(), LedgerError> {
        let store = || {
            if !transactions.is_empty() {
                return replace_file(&self.path, &serde_json::to_vec(&transactions)?);
            }
            match fs::remove_file(&self.path) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        };
        let failed = |why: io::Error| LedgerError::Disk {
            action: "keep transactions",
            path: self.path.clone(),
            reason: why.to_string(),
        };
        store().map_err(failed)
    }

    fn failed(&self, reason: String) -> LedgerError {
        LedgerError::State { path: self.path.clone(), reason }
    }
}
