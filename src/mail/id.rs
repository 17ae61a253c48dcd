// SPDX-License-Identifier: Apache-2.0
//! Identifies a mail by the digest of its bytes.
//!
//! Two mails have the same id only if they are the same bytes; a copy with one more header field is another mail.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 of a mail as received, before any header is added. Displayed as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MailId(#[serde(with = "serde_bytes")] [u8; 32]);

impl MailId {
    /// Computes the id of a mail from its bytes.
    pub fn of(data: &[u8]) -> Self {
        Self(Sha256::digest(data).into())
    }

    /// Wraps a digest that was computed earlier.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a mail id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("mail id {0:?} is not 64 hex digits")]
pub struct MailIdError(String);

impl FromStr for MailId {
    type Err = MailIdError;

    fn from_str(text: &str) -> Result<Self, MailIdError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| MailIdError(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_sha256_of_the_bytes_and_reads_back_from_its_text() {
        let id = MailId::of(b"abc");
        // FIPS 180-2, appendix B.1.
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse(), Ok(id));
    }

    #[test]
    fn rejects_what_is_not_a_digest() {
        let short = "0".repeat(62);
        assert_eq!(short.parse::<MailId>(), Err(MailIdError(short)));
        assert!("zz".repeat(32).parse::<MailId>().is_err());
        assert!("+a".repeat(32).parse::<MailId>().is_err());
    }
}
