// SPDX-License-Identifier: Apache-2.0
//! A domain that signs its mail, for tests, the demo and benchmarks: a DKIM key generated at run time, the zone file
//! that publishes it, and the signer.

use std::net::Ipv4Addr;

use mail_auth::{
    common::{
        crypto::{Algorithm, Ed25519Key, HashImpl, Sha256, SigningKey},
        headers::{HeaderWriter, Writable},
    },
    dkim::{DkimSigner, Done},
};
use rsa::{
    Pkcs1v15Sign, RsaPrivateKey,
    pkcs1::EncodeRsaPrivateKey,
    pkcs8::{EncodePublicKey, LineEnding},
};

const SIGNED: [&str; 6] = ["From", "To", "Subject", "Date", "Message-ID", "Reply-To"];

/// A host on the Internet that a domain's SPF record lists.
pub const SENDING_HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// A domain with one DKIM key. The key never leaves the process.
pub struct SignedDomain {
    pub domain: String,
    pub selector: String,
    key: Vec<u8>,
    rsa: Option<RsaPrivateKey>,
}

impl SignedDomain {
    /// Makes a domain with a new Ed25519 key.
    pub fn new(domain: &str, selector: &str) -> Self {
        let key = Ed25519Key::generate_pkcs8().unwrap();
        Self { domain: domain.to_owned(), selector: selector.to_owned(), key, rsa: None }
    }

    /// Makes a domain with a new RSA key. In a debug build, 2048 bits take seconds.
    pub fn rsa(domain: &str, selector: &str, bits: usize) -> Self {
        let rsa = Some(RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).unwrap());
        Self { domain: domain.to_owned(), selector: selector.to_owned(), key: Vec::new(), rsa }
    }

    /// The domain's zone: SPF for [`SENDING_HOST`] and this host, the DKIM key, a DMARC policy.
    pub fn zone(&self) -> String {
        let kind = if self.rsa.is_some() { "rsa" } else { "ed25519" };
        let key = self.published_key();
        // A TXT string holds at most 255 bytes.
        let (first, second) = key.split_at(key.len().min(200));
        let Self { domain, selector, .. } = self;
        format!(
            "$ORIGIN {domain}.\n\
             @ TXT \"v=spf1 ip4:{SENDING_HOST} ip4:127.0.0.1 -all\"\n\
             _dmarc TXT \"v=DMARC1; p=reject\"\n\
             {selector}._domainkey TXT \"v=DKIM1; k={kind}; p={first}\" \"{second}\"\n"
        )
    }

    /// The private key of a domain with an RSA key, for signers that are not ours.
    pub fn private_pem(&self) -> String {
        self.rsa.as_ref().expect("an RSA key").to_pkcs1_pem(LineEnding::LF).unwrap().to_string()
    }

    /// The public key as the domain publishes it: the tag `p=`.
    pub fn published_key(&self) -> String {
        base64(&match &self.rsa {
            Some(key) => key.to_public_key().to_public_key_der().unwrap().into_vec(),
            None => Ed25519Key::from_pkcs8_der(&self.key).unwrap().public_key(),
        })
    }

    /// The message with a signature in front.
    pub fn sign(&self, message: &str) -> Vec<u8> {
        self.sign_with(message, |signer| signer)
    }

    /// The same, with a signer adjusted by the caller.
    pub fn sign_with<'k>(
        &'k self,
        message: &str,
        change: impl FnOnce(DkimSigner<Key<'k>, Done>) -> DkimSigner<Key<'k>, Done>,
    ) -> Vec<u8> {
        let signer =
            DkimSigner::from_key(Key(self)).domain(&self.domain).selector(&self.selector).headers(SIGNED);
        let signature = change(signer).sign(message.as_bytes()).unwrap();
        [signature.to_header().as_bytes(), message.as_bytes()].concat()
    }
}

/// The domain's key, in the form that mail-auth's signer takes.
pub struct Key<'k>(&'k SignedDomain);

impl SigningKey for Key<'_> {
    type Hasher = Sha256;

    fn sign(&self, input: impl Writable) -> mail_auth::Result<Vec<u8>> {
        match &self.0.rsa {
            None => Ed25519Key::from_pkcs8_der(&self.0.key)?.sign(input),
            Some(key) => {
                let mut hasher = Sha256::hasher();
                input.write(&mut hasher);
                let digest = mail_auth::common::crypto::HashContext::complete(hasher);
                Ok(key.sign(padding(), digest.as_ref()).unwrap())
            }
        }
    }

    fn algorithm(&self) -> Algorithm {
        if self.0.rsa.is_some() { Algorithm::RsaSha256 } else { Algorithm::Ed25519Sha256 }
    }
}

/// RSASSA-PKCS1-v1_5 padding with the DigestInfo of SHA-256 (RFC 8017 section 9.2).
fn padding() -> Pkcs1v15Sign {
    let prefix = [0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];
    Pkcs1v15Sign { hash_len: Some(32), prefix: prefix.into() }
}

/// Standard base64 (RFC 4648 section 4).
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |bytes: &[u8]| {
        let bits = bytes.iter().fold(0_usize, |bits, &byte| bits << 8 | usize::from(byte))
            << (8 * (3 - bytes.len()));
        (0..4)
            .map(move |n| if n > bytes.len() { '=' } else { char::from(DIGITS[bits >> (18 - 6 * n) & 63]) })
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
