// SPDX-License-Identifier: Apache-2.0
//! Holds the key of an account that pays for transactions.
//!
//! The key is never logged or shown.
//!
//! [`record_log::secret`] reads and creates the file.

use std::path::Path;

use record_log::secret::{self, SecretError};
use web3::{
    signing::{Key, SecretKey, SecretKeyRef},
    types::Address,
};

use crate::LedgerError;

/// A secp256k1 key. Has no `Debug`, so that it is never logged.
#[derive(Clone)]
pub struct LedgerKey(SecretKey);

impl LedgerKey {
    /// Reads the key from a file of 64 hex digits, or creates the file with mode 0600 if it is missing.
    ///
    /// # Errors
    /// If the file cannot be read or created, is readable by others, or does not hold a key.
    pub fn load_or_create(path: &Path) -> Result<Self, LedgerError> {
        let secret = secret::load_or_create(path)?;
        let key = SecretKey::from_slice(secret.expose()).map_err(|_| SecretError::Content {
            path: path.to_owned(),
            rule: "a secp256k1 key: 64 hex digits, above 0 and below the curve's order",
        })?;
        Ok(Self(key))
    }

    /// Returns the account's address.
    pub fn address(&self) -> Address {
        SecretKeyRef::new(&self.0).address()
    }

    pub(super) fn secret(&self) -> SecretKeyRef<'_> {
        SecretKeyRef::new(&self.0)
    }
}
