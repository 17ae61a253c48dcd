// SPDX-License-Identifier: Apache-2.0
//! Decodes raw EIP-1559 transactions and recovers their sender. Pure.
//!
//! A transaction decodes only with a valid signature whose `s` is in the lower half (EIP-2).
//!
//! Nonce, funds and gas are checked by `evm`.

use rlp::{DecoderError, Rlp, RlpStream};
use web3::{
    signing::{keccak256, recover},
    types::{Address, H256, U256},
};

/// Half the order of secp256k1, big-endian; `s` must not exceed it (EIP-2).
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d,
    0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// A signed transaction of type 2 with its recovered sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transaction {
    pub hash: H256,
    pub from: Address,
    pub chain_id: u64,
    pub nonce: u64,
    pub max_priority_fee: u128,
    pub max_fee: u128,
    pub gas: u64,
    /// `None` creates a contract.
    pub to: Option<Address>,
    pub value: U256,
    pub data: Vec<u8>,
    pub access_list: Vec<(Address, Vec<H256>)>,
    pub y_parity: u8,
    pub r: U256,
    pub s: U256,
}

/// Bytes that are not a valid transaction of this chain. The texts are those of real nodes.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(super) enum TransactionError {
    #[error("transaction type not supported: must be EIP-1559 (2)")]
    Type,
    #[error("rlp: {0}")]
    Rlp(#[from] DecoderError),
    #[error("invalid sender: the signature does not recover")]
    Signature,
}

impl Transaction {
    /// Decodes the argument of `eth_sendRawTransaction`.
    pub fn decode(raw: &[u8]) -> Result<Self, TransactionError> {
        let Some((2, body)) = raw.split_first() else { return Err(TransactionError::Type) };
        let rlp = Rlp::new(body);
        if rlp.payload_info()?.total() != body.len() {
            return Err(DecoderError::RlpInconsistentLengthAndData.into());
        }
        if rlp.item_count()? != 12 {
            return Err(DecoderError::RlpIncorrectListLen.into());
        }
        let mut unsigned = RlpStream::new_list(9);
        for field in 0..9 {
            unsigned.append_raw(rlp.at(field)?.as_raw(), 1);
        }
        let message = keccak256(&[&[2], unsigned.as_raw()].concat());
        let (y_parity, r, s): (u8, U256, U256) = (rlp.val_at(9)?, rlp.val_at(10)?, rlp.val_at(11)?);
        let mut signature = [0; 64];
        let (r_bytes, s_bytes) = signature.split_at_mut(32);
        r.to_big_endian(r_bytes);
        s.to_big_endian(s_bytes);
        if *s_bytes > HALF_ORDER[..] || y_parity > 1 {
            return Err(TransactionError::Signature);
        }
        let from = recover(&message, &signature, y_parity.into()).map_err(|_| TransactionError::Signature)?;
        let to = rlp.at(5)?;
        let access_list = rlp.at(8)?;
        let access_list = access_list.iter().map(|item| Ok((item.val_at(0)?, item.list_at(1)?)));
        Ok(Self {
            hash: keccak256(raw).into(),
            from,
            chain_id: rlp.val_at(0)?,
            nonce: rlp.val_at(1)?,
            max_priority_fee: rlp.val_at(2)?,
            max_fee: rlp.val_at(3)?,
            gas: rlp.val_at(4)?,
            to: if to.is_empty() { None } else { Some(to.as_val()?) },
            value: rlp.val_at(6)?,
            data: rlp.val_at(7)?,
            access_list: access_list.collect::<Result<_, DecoderError>>()?,
            y_parity,
            r,
            s,
        })
    }

    /// Returns what it pays per unit of gas at this base fee [wei].
    pub fn price(&self, base_fee: u64) -> u128 {
        self.max_fee.min(self.max_priority_fee.saturating_add(base_fee.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use web3::signing::{Key, SecretKey, SecretKeyRef};

    use super::*;

    fn signed(secret: [u8; 32], high_s: bool) -> (Address, Vec<u8>) {
        let secret = SecretKey::from_slice(&secret).unwrap();
        let key = SecretKeyRef::new(&secret);
        let fields = |stream: &mut RlpStream| {
            stream.append(&1u64).append(&2u64).append(&3u128).append(&4u128).append(&5u64);
            stream.append(&Address::repeat_byte(6)).append(&U256::from(7)).append(&vec![8u8, 9]);
            stream.begin_list(1).begin_list(2).append(&Address::repeat_byte(10)).append_list(&[H256::zero()]);
        };
        let mut unsigned = RlpStream::new_list(9);
        fields(&mut unsigned);
        let signature = key.sign_message(&keccak256(&[&[2], unsigned.as_raw()].concat())).unwrap();
        let mut s = U256::from_big_endian(signature.s.as_bytes());
        let mut parity = signature.v;
        if high_s {
            let order = U256::from_big_endian(&HALF_ORDER) * 2 + 1;
            (s, parity) = (order - s, 1 - parity);
        }
        let mut stream = RlpStream::new_list(12);
        fields(&mut stream);
        stream.append(&parity).append(&U256::from_big_endian(signature.r.as_bytes())).append(&s);
        (key.address(), [&[2], stream.as_raw()].concat())
    }

    #[test]
    fn recovers_the_sender_and_every_field() {
        let (from, raw) = signed([1; 32], false);
        let transaction = Transaction::decode(&raw).unwrap();
        assert_eq!(transaction.from, from);
        assert_eq!((transaction.chain_id, transaction.nonce, transaction.gas), (1, 2, 5));
        assert_eq!((transaction.max_priority_fee, transaction.max_fee), (3, 4));
        assert_eq!(transaction.to, Some(Address::repeat_byte(6)));
        assert_eq!((transaction.value, transaction.data), (U256::from(7), vec![8, 9]));
        assert_eq!(transaction.access_list, [(Address::repeat_byte(10), vec![H256::zero()])]);
    }

    #[test]
    fn refuses_the_other_signature_of_the_same_transaction() {
        let (_, raw) = signed([1; 32], true);
        assert_eq!(Transaction::decode(&raw), Err(TransactionError::Signature));
    }

    #[test]
    fn refuses_what_is_cut_short_too_long_or_of_another_type() {
        let (_, raw) = signed([1; 32], false);
        for cut in 0..raw.len() {
            assert!(Transaction::decode(&raw[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Transaction::decode(&[&raw[..], &[0]].concat()).is_err());
        assert_eq!(Transaction::decode(&[&[1], &raw[1..]].concat()), Err(TransactionError::Type));
        // Lengths that overflow.
        assert!(Transaction::decode(&[&[2][..], &[0xff; 40]].concat()).is_err());
        assert!(Transaction::decode(&[&[2, 0xfb][..], &[0xbf; 40]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_only_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, byte: u8) {
            let _ = Transaction::decode(&[&[2], &bytes[..]].concat());
            let (_, mut raw) = signed([1; 32], false);
            let at = at.index(raw.len());
            raw[at] = byte;
            let _ = Transaction::decode(&raw);
        }
    }
}
