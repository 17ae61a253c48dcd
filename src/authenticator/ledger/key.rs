//! The account that pays and owns the contracts.

use std::path::Path;

use web3::{
    signing::{Key, SecretKey, SecretKeyRef},
    types::Address,
};

use super::LedgerError;
use crate::secret::{self, SecretError};

/// A secp256k1 key. Has no `Debug`, so that it is never logged.
#[derive(Clone)]
pub struct LedgerKey(SecretKey);

impl LedgerKey {
    /// Reads the key from a file of 64 hex digits; makes it, mode 0600, if there is none.
    ///
    /// # Errors
    /// If the file cannot be read or made, others may read it, or it holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, LedgerError> {
        let bytes = secret::load_or_create(path)?;
        let key = SecretKey::from_slice(&bytes).map_err(|_| SecretError::Content {
            path: path.to_owned(),
            rule: "a secp256k1 key: 64 hex digits, above 0 and below the curve's order",
        })?;
        Ok(Self(key))
    }

    /// The account's address.
    pub fn address(&self) -> Address {
        SecretKeyRef::new(&self.0).address()
    }

    pub(super) fn secret(&self) -> SecretKeyRef<'_> {
        SecretKeyRef::new(&self.0)
    }
}
