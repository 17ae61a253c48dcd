// SPDX-License-Identifier: Apache-2.0
//! Signs outbound mails by DKIM (RFC 6376), with RSA or Ed25519 (RFC 8463), relaxed/relaxed.
//!
//! From cannot be added a second time without breaking the signature, and a field of [`SIGNED`] that a mail lacks cannot
//! be added at all. The key is read once, at start.

use std::path::PathBuf;

use mail_auth::{
    common::{
        crypto::{DkimKey, Ed25519Key, RsaKey, Sha256},
        headers::HeaderWriter,
    },
    dkim::{DkimSigner, Done},
};
use record_log::secret::{SecretError, read_text};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};

use crate::params::Dkim;

/// Longest signature field, bytes: RSA of 4096 bits and two names of 253 bytes fit.
pub(super) const FIELD_BYTES: usize = 2048;

/// What is signed. From is there twice, so that the signature says that there is one.
const SIGNED: [&str; 14] = [
    "From",
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Auto-Submitted",
];

/// The key cannot be used. The text does not hold it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] SecretError),
    /// The file does not hold a key that can sign.
    #[error("{path}: must hold a private key in PEM, RSA of 2048 to 4096 bits or Ed25519", path = .0.display())]
    Key(PathBuf),
}

/// Signs mails for one domain.
pub(super) struct Signer(DkimSigner<DkimKey, Done>);

impl Signer {
    pub(super) fn new(dkim: &Dkim) -> Result<Self, KeyError> {
        let text = read_text(&dkim.key_path)?;
        let key = parse(&text).ok_or_else(|| KeyError::Key(dkim.key_path.clone()))?;
        let signer = DkimSigner::from_key(key).domain(&dkim.domain).selector(&dkim.selector);
        Ok(Self(signer.headers(SIGNED)))
    }

    /// The mail with a signature in front, which has the time of now.
    pub(super) fn sign(&self, mail: Vec<u8>) -> Result<Vec<u8>, mail_auth::Error> {
        let mut signed = self.0.sign(&mail)?.to_header().into_bytes();
        signed.extend_from_slice(&mail);
        Ok(signed)
    }
}

fn parse(pem: &str) -> Option<DkimKey> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()?;
    if let PrivateKeyDer::Pkcs8(der) = &key
        // OpenSSL writes no public key beside it.
        && let Ok(key) = Ed25519Key::from_pkcs8_maybe_unchecked_der(der.secret_pkcs8_der())
    {
        return Some(key.into());
    }
    RsaKey::<Sha256>::from_key_der(key).ok().map(DkimKey::from)
}

#[cfg(test)]
mod tests;
