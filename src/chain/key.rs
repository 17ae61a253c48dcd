// SPDX-License-Identifier: Apache-2.0
//! Holds the key of an account that pays for transactions.
//!
//! The key is never logged or shown.
//!
//! [`record_log::secret`] reads and creates the file, [`super::keystore`] decrypts it.

use std::path::Path;

use record_log::secret::{self, SecretError};
use web3::{
    signing::{Key, SecretKey, SecretKeyRef},
    types::Address,
};

use crate::{
    LedgerError,
    keystore::{self, KeystoreError},
};

/// A secp256k1 key. Has no `Debug`, so that it is never logged.
#[derive(Clone)]
pub struct LedgerKey(SecretKey);

impl LedgerKey {
    /// Reads the key from a file of 64 hex digits, or creates the file with mode 0600 if it is missing.
    ///
    /// # Errors
    /// If the file cannot be read or created, is readable by others, or does not hold a key.
    pub fn load_or_create(path: &Path) -> Result<Self, LedgerError> {
        Self::of(secret::load_or_create(path)?.expose(), path)
    }

    /// Reads the key from a file that is encrypted, a keystore of Web3 Secret Storage version 3, and its password from
    /// another, without the line end there. Decrypting takes about a second.
    ///
    /// # Errors
    /// If one of the files is missing, cannot be read, is readable by others, or does not hold what it must.
    pub fn decrypt(path: &Path, password: &Path) -> Result<Self, LedgerError> {
        let (text, secret) = (secret::read_text(path)?, secret::read_text(password)?);
        let secret = secret.strip_suffix('\n').unwrap_or(&secret);
        let refused = |path: &Path, rule| SecretError::Content { path: path.to_owned(), rule };
        let bytes = keystore::decrypt(&text, secret.as_bytes()).map_err(|error| match error {
            KeystoreError::Content(rule) => refused(path, rule),
            KeystoreError::Password => refused(password, "the password of the keystore"),
        })?;
        Self::of(&bytes, path)
    }

    fn of(bytes: &[u8; 32], path: &Path) -> Result<Self, LedgerError> {
        let key = SecretKey::from_slice(bytes).map_err(|_| SecretError::Content {
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::keystore;

    /// Writes a file for its owner only.
    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    #[test]
    fn an_encrypted_key_is_read_with_the_password_of_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, password) = (dir.path().join("ledger.key"), dir.path().join("password"));
        write(&path, keystore::tests::PBKDF2);
        let refused = || LedgerKey::decrypt(&path, &password).err().unwrap().to_string();
        assert!(refused().contains("password': cannot open"), "{}", refused());
        write(&password, "testpassword\n");
        let key = LedgerKey::decrypt(&path, &password).unwrap();
        // As in the format's test vectors.
        assert_eq!(format!("{:x}", key.address()), "008aeeda4d805471df9b2a5b0f38a0c3bcba786b");
        write(&password, "hunter2\n");
        assert!(refused().ends_with("password': must hold the password of the keystore"), "{}", refused());
        fs::set_permissions(&password, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(refused().contains("has mode 640"), "{}", refused());
        // Without a password, a keystore is no key; with one, a bare key is no keystore.
        let bare = LedgerKey::load_or_create(&path).err().unwrap().to_string();
        assert!(bare.contains("must hold 64 hex digits"), "{bare}");
        write(&path, &"11".repeat(32));
        write(&password, "testpassword");
        assert!(refused().contains("JSON as Web3 Secret Storage has it"), "{}", refused());
    }
}
