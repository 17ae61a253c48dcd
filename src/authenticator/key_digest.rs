// SPDX-License-Identifier: Apache-2.0
//! Names a DKIM key by a digest, as the registry has it.

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, general_purpose::PAD},
};
use sha2::{Digest, Sha256};

/// SHA-256 of the bytes that a DKIM key is, given in base64 as in the tag `p=` (RFC 6376 section 3.6.1), white space
/// within it ignored; `None` if it is no base64 or nothing.
pub fn digest_of_key(text: &str) -> Option<[u8; 32]> {
    key_bytes(text).map(|bytes| Sha256::digest(bytes).into())
}

/// The bytes that a DKIM key is, as for [`digest_of_key`].
pub(crate) fn key_bytes(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_ascii_whitespace().collect();
    let engine = GeneralPurpose::new(&STANDARD, PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent));
    engine.decode(text).ok().filter(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_digest_however_its_record_is_folded() {
        let digest = digest_of_key("AQID/w==").unwrap();
        assert_eq!(digest, <[u8; 32]>::from(Sha256::digest([1, 2, 3, 255])));
        assert_eq!(digest_of_key(" AQ\tID\r\n /w"), Some(digest));
        assert_ne!(digest_of_key("AQID"), Some(digest));
        for text in ["", "  ", "p=AQID", "AQID!", "AQI\u{fc}"] {
            assert_eq!(digest_of_key(text), None, "{text}");
        }
    }
}
