// SPDX-License-Identifier: Apache-2.0
//! Signs orders and verifies them: Ed25519 (RFC 8032) over the bytes that `VehicleCommand.msg` describes.
//!
//! A signature covers every field of an order, and nothing but orders of this version. Whether an order is fresh or a
//! copy is left to [`super::OrderGate`].

use std::{fmt, path::Path, str::FromStr};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use record_log::secret::{self, SecretError};

use super::VehicleCommand;

/// First bytes under every signature, so that the signature is valid for an order of this version only.
const DOMAIN: &[u8] = b"posthorn order v1\0";

/// The bytes that the signature of an order covers.
pub fn signed_bytes(order: &VehicleCommand) -> Vec<u8> {
    let ordered_at = order.ordered_at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut bytes = DOMAIN.to_vec();
    bytes.extend_from_slice(&order.command_id);
    bytes.extend_from_slice(order.mail_id.as_bytes());
    bytes.push(order.command as u8);
    bytes.extend_from_slice(&ordered_at.as_secs().to_be_bytes());
    bytes.extend_from_slice(&ordered_at.subsec_nanos().to_be_bytes());
    for text in [&order.vehicle, &order.ordered_by] {
        // The message bounds both texts far below 65,535 bytes.
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// The chatbot's private key, which signs orders. It has no `Debug`, so that it is never logged.
#[derive(Clone)]
pub struct OrderKey(SigningKey);

impl OrderKey {
    /// Makes a key from its seed (RFC 8032).
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// Reads the key from a file of 64 hex digits; creates the file with mode 0600 if there is none.
    ///
    /// # Errors
    /// If the file cannot be read or created, is accessible to others, or holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretError> {
        secret::load_or_create(path).map(|secret| Self::from_bytes(*secret.expose()))
    }

    /// The public key, for vehicles.
    pub fn public(&self) -> OrderPublicKey {
        OrderPublicKey(self.0.verifying_key())
    }

    /// Signs `order`. The same order always gets the same signature.
    pub fn sign(&self, order: &mut VehicleCommand) {
        order.signature = self.0.sign(&signed_bytes(order)).to_bytes();
    }
}

/// Public half of an [`OrderKey`]; as text, 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderPublicKey(VerifyingKey);

impl OrderPublicKey {
    /// Whether this key signed the order. Strict: refuses keys of small order and alternative encodings of a signature.
    pub fn proves(&self, order: &VehicleCommand) -> bool {
        self.0.verify_strict(&signed_bytes(order), &Signature::from_bytes(&order.signature)).is_ok()
    }
}

impl fmt::Display for OrderPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.as_bytes()))
    }
}

/// The text is not a usable public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an Ed25519 public key, 64 hex digits")]
pub struct NotAKey;

impl FromStr for OrderPublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAKey)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| NotAKey)?;
        if key.is_weak() { Err(NotAKey) } else { Ok(Self(key)) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::Command;
    use mail::MailId;

    pub fn order(command: Command, second: u64) -> VehicleCommand {
        let mut order = VehicleCommand {
            command_id: [u8::try_from(second % 251).unwrap(); 32],
            mail_id: MailId::from_bytes([0xcd; 32]),
            vehicle: "truck_2".into(),
            command,
            ordered_by: "dana@dispatch.example".into(),
            ordered_at: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000 + second, 5),
            signature: [0; 64],
        };
        key().sign(&mut order);
        order
    }

    /// The key of RFC 8032 section 7.1, test 1.
    pub fn key() -> OrderKey {
        let mut seed = [0; 32];
        let digits = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        hex::decode_to_slice(digits, &mut seed).unwrap();
        OrderKey::from_bytes(seed)
    }

    /// The bytes are written by hand from `VehicleCommand.msg`; the signature comes from another implementation
    /// (OpenSSL).
    #[test]
    fn signs_the_bytes_that_the_message_describes() {
        let order = order(Command::Stop, 1);
        let bytes = [
            "706f7374686f726e206f72646572207631",
            "00",
            &"01".repeat(32),
            &"cd".repeat(32),
            "01",
            "000000006553f101",
            "00000005",
            "0007",
            "747275636b5f32",
            "0015",
            "64616e614064697370617463682e6578616d706c65",
        ];
        assert_eq!(hex::encode(signed_bytes(&order)), bytes.concat());
        assert_eq!(
            key().public().to_string(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        assert_eq!(
            hex::encode(order.signature),
            "47619bc4e23230f4d9bc59ae788bb8814d8d088d96956fcd3771be886bac75005bb50edfd2f856ce19e24a4ef3f5c514bf419723b9e069dcdd42bc394b0ff208"
        );
        assert!(key().public().proves(&order));
    }

    #[test]
    fn a_change_of_any_field_is_not_proven() {
        let order = order(Command::Stop, 1);
        let changes: [fn(&mut VehicleCommand); 7] = [
            |order| order.command_id[0] ^= 1,
            |order| order.mail_id = MailId::from_bytes([0; 32]),
            |order| order.vehicle.push('1'),
            |order| order.command = Command::Resume,
            |order| order.ordered_by.clear(),
            |order| order.ordered_at += Duration::from_nanos(1),
            |order| order.signature[63] ^= 1,
        ];
        for change in changes {
            let mut changed = order.clone();
            change(&mut changed);
            assert!(!key().public().proves(&changed), "{changed:?}");
        }
        assert!(!OrderKey::from_bytes([7; 32]).public().proves(&order));
    }

    #[test]
    fn a_public_key_is_read_as_it_is_written_and_nothing_else_is() {
        let public = key().public();
        assert_eq!(public.to_string().parse(), Ok(public));
        // The last two are not on the curve, and of small order: with the latter, a signature proves nothing.
        let off_curve = format!("02{}", "00".repeat(31));
        for bad in ["", "d75a", &"zz".repeat(32), &off_curve, &format!("01{}", "00".repeat(31))] {
            assert_eq!(bad.parse::<OrderPublicKey>(), Err(NotAKey), "{bad}");
        }
    }
}
