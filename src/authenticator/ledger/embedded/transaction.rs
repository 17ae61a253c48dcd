//! Raw EIP-1559 transactions: decoding and recovery of the sender. Pure.

use rlp::{DecoderError, Rlp, RlpStream};
use web3::{
    signing::{keccak256, recover},
    types::{Address, H256, U256},
};

/// Half the order of secp256k1, big-endian: `s` is at most this (EIP-2).
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d,
    0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// A signed transaction of type 2, its sender recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transaction {
    pub hash: H256,
    pub from: Address,
    pub chain_id: u64,
    pub nonce: u64,
    pub max_priority_fee: u128,
    pub max_fee: u128,
    pub gas: u64,
    /// None creates a contract.
    pub to: Option<Address>,
    pub value: U256,
    pub data: Vec<u8>,
    pub access_list: Vec<(Address, Vec<H256>)>,
    pub y_parity: u8,
    pub r: U256,
    pub s: U256,
}

/// Bytes that are no transaction of this chain. The texts are those of real nodes.
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
    /// Decodes what `eth_sendRawTransaction` gets.
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

    /// What it pays for a unit of gas at this base fee [wei].
    pub fn price(&self, base_fee: u64) -> u128 {
        self.max_fee.min(self.max_priority_fee.saturating_add(base_fee.into()))
    }
}
