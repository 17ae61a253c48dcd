// SPDX-License-Identifier: Apache-2.0
//! Computes keyed digests of addresses, the only form in which a sender appears on chain.
//!
//! Anybody with a list of addresses can try them all against a plain hash; against an HMAC they need the key. If the
//! key is lost, the senders on chain can no longer be recognised and must be registered again.
//!
//! [`record_log::secret`] reads and creates the key file.

use std::{
    io,
    path::{Path, PathBuf},
};

use hmac::{Hmac, Mac};
use mail::EmailAddress;
use record_log::secret::{self, SecretError};
use sha2::Sha256;

use crate::sender::SenderName;

/// Prefix of every HMAC input, so that the key can later serve another purpose without collisions.
const DOMAIN: &[u8] = b"posthorn address v1\0";

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressKeyError {
    /// There must be one already.
    #[error(
        "address key '{path}' is missing, though this is not the first start: restore it; without it no registered sender is \
         recognised, and another key means to register all of them again",
        path = path.display()
    )]
    Lost {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Secret key for address digests. Has no `Debug`, so that it is never logged.
#[derive(Clone)]
pub struct AddressKey([u8; 32]);

impl AddressKey {
    /// Wraps the bytes of a key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the key from a file of 64 hex digits, or creates the file with mode 0600 if it is missing.
    ///
    /// # Errors
    /// If the file cannot be read or created, is readable by others, or does not hold a key.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretError> {
        secret::load_or_create(path).map(|secret| Self(*secret.expose()))
    }

    /// Reads the key from a file that must exist, because senders are registered under it.
    ///
    /// # Errors
    /// If the file is missing, cannot be read, is readable by others, or does not hold a key.
    pub fn load(path: &Path) -> Result<Self, AddressKeyError> {
        match secret::load(path) {
            Err(SecretError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(AddressKeyError::Lost { path: path.to_owned() })
            }
            loaded => Ok(Self(*loaded?.expose())),
        }
    }

    /// Returns the HMAC-SHA256 of the normalised address; `None`, a mail without an author, counts as the empty text.
    pub fn digest(&self, address: Option<&EmailAddress>) -> [u8; 32] {
        self.digest_of(&address.map(EmailAddress::normalised).unwrap_or_default())
    }

    /// Returns the HMAC-SHA256 of an address, as [`digest`](Self::digest) does, or of a domain.
    pub fn name_digest(&self, name: &SenderName) -> [u8; 32] {
        self.digest_of(&name.to_string())
    }

    fn digest_of(&self, normalised: &str) -> [u8; 32] {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        mac.update(DOMAIN);
        mac.update(normalised.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sender_has_one_digest_under_one_key() {
        let digest_with = |key: u8, text: &str| {
            AddressKey::from_bytes([key; 32]).digest(EmailAddress::parse(text).ok().as_ref())
        };
        let digest = |text| digest_with(7, text);
        assert_eq!(digest("Ada@Example.ORG"), digest("ada@example.org"));
        assert_ne!(digest("ada@example.org"), digest("bob@example.org"));
        assert_ne!(digest("ada@example.org"), digest_with(8, "ada@example.org"));
        assert_ne!(digest("ada@example.org"), digest(""));
        assert_eq!(digest("ada@b\u{fc}cher.example"), digest("ada@xn--bcher-kva.example"));
        let name_digest =
            |text| AddressKey::from_bytes([7; 32]).name_digest(&SenderName::parse(text).unwrap());
        assert_eq!(name_digest("Ada@Example.ORG"), digest("ada@example.org"));
        assert_ne!(name_digest("@example.org"), digest("ada@example.org"));
        assert_ne!(name_digest("@example.org"), digest(""));
    }

    #[test]
    fn digests_on_chain_stay_what_they_were() {
        let key = AddressKey::from_bytes([7; 32]);
        for text in ["", "ada@example.org", "j\u{fc}rgen.b@xn--bcher-kva.example"] {
            let mut mac = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
            mac.update(b"posthorn address v1\0");
            mac.update(text.as_bytes());
            let expected: [u8; 32] = mac.finalize().into_bytes().into();
            let address = EmailAddress::parse(&text.replace(".b@x", ".B@X")).ok();
            assert_eq!(key.digest(address.as_ref()), expected, "{text:?}");
        }
    }
}
