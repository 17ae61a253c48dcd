//! Computes keyed digests of addresses, the only form in which a sender appears on chain.
//!
//! Anybody with a list of addresses can try them all against a plain hash; against an HMAC they need the key. If the
//! key is lost, the senders on chain can no longer be recognised and must be registered again.
//!
//! [`crate::secret`] reads and creates the key file.

use std::path::Path;

use hmac::{Hmac, Mac};
use record_log::secret::{self, SecretError};
use sha2::Sha256;

/// Prefix of every HMAC input, so that the key can later serve another purpose without collisions.
const DOMAIN: &[u8] = b"posthorn address v1\0";

/// Normalises an address (RFC 5322 addr-spec) for comparison and digests: trimmed, ASCII letters in lower case.
///
/// RFC 5321 lets a host distinguish `Bob@` from `bob@`; no host in use does, nor do people, so both are one sender.
pub fn normalise(address: &str) -> String {
    address.trim().to_ascii_lowercase()
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

    /// Returns the HMAC-SHA256 of the normalised address.
    pub fn digest(&self, address: &str) -> [u8; 32] {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        mac.update(DOMAIN);
        mac.update(normalise(address).as_bytes());
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sender_has_one_digest_under_one_key() {
        let key = AddressKey::from_bytes([7; 32]);
        assert_eq!(key.digest(" Ada@Example.ORG\r\n"), key.digest("ada@example.org"));
        assert_ne!(key.digest("ada@example.org"), key.digest("bob@example.org"));
        assert_ne!(key.digest("ada@example.org"), AddressKey::from_bytes([8; 32]).digest("ada@example.org"));
    }

    #[test]
    fn normalises_ascii_only() {
        assert_eq!(normalise("  Ä.B@C.example "), "Ä.b@c.example");
        assert_eq!(normalise(""), "");
    }
}
