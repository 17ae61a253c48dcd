//! Keyed digests of addresses: what of a sender goes on chain.
//!
//! A plain hash of an address can be tried out by anybody with a list of addresses; an HMAC needs the key.
//! Whoever loses the key can no longer recognise the senders on chain, and registers them anew.

use std::path::Path;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::secret::{self, SecretError};

/// Comes first under the HMAC, so that the key can serve another purpose one day without clash.
const DOMAIN: &[u8] = b"posthorn address v1\0";

/// The form of an address (RFC 5322 addr-spec) that is compared and digested: trimmed, ASCII letters in lower case.
///
/// RFC 5321 lets a host tell `Bob@` from `bob@`; no host in use does, and people do not, so they are one sender.
pub fn normalise(address: &str) -> String {
    address.trim().to_ascii_lowercase()
}

/// The secret under which addresses are digested. Has no `Debug`, so that it is never logged.
#[derive(Clone)]
pub struct AddressKey([u8; 32]);

impl AddressKey {
    /// A key from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the key from a file of 64 hex digits; makes it, mode 0600, if there is none.
    ///
    /// # Errors
    /// If the file cannot be read or made, others may read it, or it holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretError> {
        secret::load_or_create(path).map(Self)
    }

    /// HMAC-SHA256 of the normalised address.
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
