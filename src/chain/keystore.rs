// SPDX-License-Identifier: Apache-2.0
//! Reads a key that is encrypted with a password, in the format Web3 Secret Storage, version 3, which geth, Clef, Foundry
//! and others write.
//!
//! The password is stretched by scrypt or PBKDF2; half of what comes out decrypts the key by AES-128 in counter mode, the
//! other half authenticates it. Only reading is here: keys are made with those tools. The one crate for the format,
//! eth-keystore, has had no release since 2022, so the steps are done with RustCrypto's crates.

use aes::Aes128;
use ctr::{
    Ctr128BE,
    cipher::{KeyIvInit, StreamCipher},
};
use hmac::Hmac;
use serde::Deserialize;
use sha2::Sha256;
use web3::signing::keccak256;

/// Bytes that the password is stretched to: a key of AES-128, and as much to authenticate.
const DERIVED: usize = 32;
/// Most memory that scrypt may take [bytes]: twice what the tools ask for.
const MAX_MEMORY: u64 = 512 << 20;
/// Most work of scrypt, in blocks of 128 bytes: 32 times what the tools ask for.
const MAX_BLOCKS: u64 = 1 << 26;
/// Most rounds of PBKDF2.
const MAX_ROUNDS: u32 = 16 << 20;

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeystoreError {
    /// The text is no keystore; what it must be.
    Content(&'static str),
    /// The password is another.
    Password,
}

#[derive(Deserialize)]
struct Keystore {
    version: u8,
    #[serde(alias = "Crypto")]
    crypto: Crypto,
}

#[derive(Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: String,
    #[serde(flatten)]
    kdf: Kdf,
    mac: String,
}

#[derive(Deserialize)]
struct CipherParams {
    iv: String,
}

/// How the password is stretched.
#[derive(Deserialize)]
#[serde(tag = "kdf", content = "kdfparams", rename_all = "lowercase")]
enum Kdf {
    Scrypt { dklen: usize, n: u64, r: u32, p: u32, salt: String },
    Pbkdf2 { dklen: usize, c: u32, prf: String, salt: String },
}

/// Decrypts the key.
///
/// # Errors
/// What the text must be, or that the password is another.
pub(super) fn decrypt(text: &str, password: &[u8]) -> Result<[u8; 32], KeystoreError> {
    let keystore: Keystore = serde_json::from_str(text).map_err(|_| {
        KeystoreError::Content("JSON as Web3 Secret Storage has it, if a password is given for it")
    })?;
    if keystore.version != 3 {
        return Err(KeystoreError::Content("version 3 of Web3 Secret Storage"));
    }
    let Crypto { cipher, cipherparams, ciphertext, kdf, mac } = keystore.crypto;
    if cipher != "aes-128-ctr" {
        return Err(KeystoreError::Content("a key encrypted by aes-128-ctr"));
    }
    let key: [u8; 32] = bytes(&ciphertext)?;
    let (iv, mac): ([u8; 16], [u8; 32]) = (bytes(&cipherparams.iv)?, bytes(&mac)?);
    let derived = kdf.derive(password)?;
    let (encrypting, authenticating) = derived.split_at(DERIVED / 2);
    if keccak256(&[authenticating, &key].concat()) != mac {
        return Err(KeystoreError::Password);
    }
    let mut key = key;
    let mut cipher = Ctr128BE::<Aes128>::new_from_slices(encrypting, &iv)
        .map_err(|_| KeystoreError::Content("an iv of 16 bytes"))?;
    cipher.apply_keystream(&mut key);
    Ok(key)
}

impl Kdf {
    fn derive(&self, password: &[u8]) -> Result<[u8; DERIVED], KeystoreError> {
        let mut derived = [0; DERIVED];
        let (Self::Scrypt { dklen, salt, .. } | Self::Pbkdf2 { dklen, salt, .. }) = self;
        if *dklen != DERIVED {
            return Err(KeystoreError::Content("a dklen of 32"));
        }
        let salt = hex_bytes(salt).ok_or(KeystoreError::Content("a salt in hex"))?;
        match *self {
            Self::Scrypt { n, r, p, .. } => {
                let (block, lanes) = (u64::from(r), u64::from(p));
                let memory = n.saturating_add(lanes).saturating_mul(block).saturating_mul(128);
                let is_bounded =
                    memory <= MAX_MEMORY && n.saturating_mul(block).saturating_mul(lanes) <= MAX_BLOCKS;
                let log_n =
                    u8::try_from(n.trailing_zeros()).ok().filter(|_| n.is_power_of_two() && is_bounded);
                let params = log_n.and_then(|log_n| scrypt::Params::new(log_n, r, p, DERIVED).ok());
                let params = params.ok_or(KeystoreError::Content(
                    "parameters of scrypt as RFC 7914 allows them, n a power of 2 below 2^(16 r), that take at most 512 MiB",
                ))?;
                scrypt::scrypt(password, &salt, &params, &mut derived)
                    .map_err(|_| KeystoreError::Content("a dklen of 32"))?;
            }
            Self::Pbkdf2 { c, ref prf, .. } => {
                if prf != "hmac-sha256" || !(1..=MAX_ROUNDS).contains(&c) {
                    return Err(KeystoreError::Content("pbkdf2 by hmac-sha256 in 1 to 16777216 rounds"));
                }
                pbkdf2::pbkdf2::<Hmac<Sha256>>(password, &salt, c, &mut derived)
                    .map_err(|_| KeystoreError::Content("a password of any length"))?;
            }
        }
        Ok(derived)
    }
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], KeystoreError> {
    let bytes = hex_bytes(text).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(KeystoreError::Content("a ciphertext and a mac of 64 hex digits, and an iv of 32"))
}

fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The key of the test vectors of Web3 Secret Storage, whose password is "testpassword".
    const KEY: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
    pub const PBKDF2: &str = r#"{
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": { "iv": "6087dab2f9fdbbfaddc31a909735c1e6" },
            "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
            "kdf": "pbkdf2",
            "kdfparams": {
                "c": 262144, "dklen": 32, "prf": "hmac-sha256",
                "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"
            },
            "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"
        },
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
        "version": 3
    }"#;
    /// The other vector, whose `r` = 1 RFC 7914 section 2 does not allow; the tools ask for 8.
    const SCRYPT: &str = r#"{
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": { "iv": "83dbcc02d8ccb40e466191a123791e0e" },
            "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
            "kdf": "scrypt",
            "kdfparams": {
                "dklen": 32, "n": 262144, "p": 8, "r": 1,
                "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"
            },
            "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"
        },
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
        "version": 3
    }"#;

    #[test]
    fn the_vector_of_the_format_is_read() {
        assert_eq!(decrypt(PBKDF2, b"testpassword").map(hex::encode).as_deref(), Ok(KEY));
        assert_eq!(decrypt(PBKDF2, b"testpassword\n"), Err(KeystoreError::Password));
    }

    #[test]
    fn what_is_no_keystore_or_costs_too_much_is_refused_by_its_rule() {
        let refused = |text: &str, from: &str, to: &str| {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            match decrypt(&changed, b"testpassword") {
                Err(KeystoreError::Content(rule)) => rule,
                other => panic!("{from}: {other:?}"),
            }
        };
        for (text, from, to, rule) in [
            (PBKDF2, "\"version\": 3", "\"version\": 1", "version 3"),
            (PBKDF2, "aes-128-ctr", "aes-256-ctr", "encrypted by aes-128-ctr"),
            (PBKDF2, "hmac-sha256", "hmac-sha512", "pbkdf2 by hmac-sha256"),
            (PBKDF2, "262144", "0", "in 1 to 16777216 rounds"),
            (PBKDF2, "262144", "4294967295", "in 1 to 16777216 rounds"),
            (PBKDF2, "\"dklen\": 32", "\"dklen\": 16", "a dklen of 32"),
            (PBKDF2, "\"pbkdf2\"", "\"argon2\"", "as Web3 Secret Storage has it"),
            (PBKDF2, "6087dab2", "6087dab", "an iv of 32"),
            (PBKDF2, "5318b4d5", "5318b4", "a ciphertext and a mac of 64 hex digits"),
            (SCRYPT, "\"version\": 3", "\"version\":  3", "n a power of 2 below 2^(16 r)"),
            (SCRYPT, "\"r\": 1", "\"r\": 17", "at most 512 MiB"),
            (SCRYPT, "262144", "262143", "n a power of 2"),
            (SCRYPT, "262144", "1073741824", "at most 512 MiB"),
            (SCRYPT, "\"p\": 8", "\"p\": 4294967295", "at most 512 MiB"),
            (SCRYPT, "262144, \"p\": 8", "2, \"p\": 33554432", "at most 512 MiB"),
            (SCRYPT, "\"salt\": \"ab", "\"salt\": \"xy", "a salt in hex"),
        ] {
            let words = refused(text, from, to);
            assert!(words.contains(rule), "{from}: {words}");
        }
        assert!(matches!(decrypt("hunter2", b""), Err(KeystoreError::Content(_))));
        assert_eq!(
            decrypt(&PBKDF2.replace("517ead", "517eae"), b"testpassword"),
            Err(KeystoreError::Password)
        );
    }
}
