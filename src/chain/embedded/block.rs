// SPDX-License-Identifier: Apache-2.0
//! Defines a block of the embedded chain: one transaction and its result. Pure.
//!
//! A block has a header as Ethereum's blocks have, the Keccak-256 of which is its hash: it contains the parent's hash and
//! the roots of the tries of its transaction and of its receipt. So blocks are chained over their contents, the same
//! transactions at the same times give the same hashes, and what proves a transaction on Ethereum proves one here. There
//! is no root of the state: the field is zero.
//!
//! Running the transaction is left to `evm`.

use alloy_consensus::{Header, Receipt, ReceiptEnvelope, TxReceipt};
use alloy_eips::Encodable2718;
use alloy_primitives::{B256, Log};
use alloy_trie::root::ordered_trie_root_encoded;
use rlp::{DecoderError, Rlp, RlpStream};
use web3::{
    signing::keccak256,
    types::{Address, H256},
};

/// Base fee per unit of gas [wei]; constant, because blocks are never full.
pub(super) const BASE_FEE: u64 = 1_000_000_000;
/// Gas limit of a block, and so of its one transaction (EIP-7825).
pub(super) const GAS_LIMIT: u64 = 16_777_216;

/// An event that a contract logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogEntry {
    pub address: Address,
    pub topics: Vec<H256>,
    pub data: Vec<u8>,
}

/// A block with its one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Counted from 1; 0 is the genesis, which has no transaction.
    pub number: u64,
    pub parent: H256,
    /// Time of the block in seconds since 1970.
    pub timestamp: u64,
    /// The signed transaction as received.
    pub raw: Vec<u8>,
    pub from: Address,
    pub to: Option<Address>,
    pub success: bool,
    pub gas_used: u64,
    /// Price paid per unit of gas [wei].
    pub price: u128,
    pub created: Option<Address>,
    pub logs: Vec<LogEntry>,
}

impl Block {
    pub fn encode(&self) -> Vec<u8> {
        let address = |stream: &mut RlpStream, address: &Option<Address>| {
            match address {
                Some(address) => stream.append(address),
                None => stream.append_empty_data(),
            };
        };
        let mut stream = RlpStream::new_list(11);
        stream.append(&self.number).append(&self.parent).append(&self.timestamp).append(&self.raw);
        stream.append(&self.from);
        address(&mut stream, &self.to);
        stream.append(&u8::from(self.success)).append(&self.gas_used).append(&self.price);
        address(&mut stream, &self.created);
        stream.begin_list(self.logs.len());
        for log in &self.logs {
            stream.begin_list(3).append(&log.address).append_list(&log.topics).append(&log.data);
        }
        stream.out().to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecoderError> {
        let rlp = Rlp::new(bytes);
        let address = |index| {
            let item = rlp.at(index)?;
            if item.is_empty() { Ok(None) } else { item.as_val().map(Some) }
        };
        let log = |item: Rlp| {
            Ok(LogEntry { address: item.val_at(0)?, topics: item.list_at(1)?, data: item.val_at(2)? })
        };
        Ok(Self {
            number: rlp.val_at(0)?,
            parent: rlp.val_at(1)?,
            timestamp: rlp.val_at(2)?,
            raw: rlp.val_at(3)?,
            from: rlp.val_at(4)?,
            to: address(5)?,
            success: rlp.val_at::<u8>(6)? == 1,
            gas_used: rlp.val_at(7)?,
            price: rlp.val_at(8)?,
            created: address(9)?,
            logs: rlp.at(10)?.iter().map(log).collect::<Result<_, _>>()?,
        })
    }

    /// Hash of its transaction.
    pub fn transaction_hash(&self) -> H256 {
        keccak256(&self.raw).into()
    }

    /// The receipt of its transaction, which has type 2, as they all have here.
    pub fn receipt(&self) -> ReceiptEnvelope {
        let log = |log: &LogEntry| {
            let topics = log.topics.iter().map(|topic| topic.0.into()).collect();
            Log::new_unchecked(log.address.0.into(), topics, log.data.clone().into())
        };
        let receipt = Receipt {
            status: self.success.into(),
            cumulative_gas_used: self.gas_used,
            logs: self.logs.iter().map(log).collect(),
        };
        ReceiptEnvelope::Eip1559(receipt.with_bloom())
    }

    pub fn header(&self) -> Header {
        let receipt = self.receipt();
        Header {
            parent_hash: self.parent.0.into(),
            transactions_root: ordered_trie_root_encoded(&[&self.raw]),
            receipts_root: ordered_trie_root_encoded(&[receipt.encoded_2718()]),
            logs_bloom: receipt.bloom(),
            gas_used: self.gas_used,
            ..header(self.number, self.timestamp)
        }
    }
}

/// The header of an empty block.
fn header(number: u64, timestamp: u64) -> Header {
    Header {
        number,
        timestamp,
        gas_limit: GAS_LIMIT,
        base_fee_per_gas: Some(BASE_FEE),
        state_root: B256::ZERO,
        ..Header::default()
    }
}

/// Start of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Genesis {
    pub chain_id: u64,
    /// Account that gets all funds.
    pub funded: Address,
}

impl Genesis {
    const NAME: &'static str = "posthorn embedded chain v2";

    pub fn encode(&self) -> Vec<u8> {
        let mut stream = RlpStream::new_list(3);
        stream.append(&Self::NAME).append(&self.chain_id).append(&self.funded);
        stream.out().to_vec()
    }

    /// The header of block 0, which says whose funds they are.
    pub fn header(&self) -> Header {
        Header { mix_hash: keccak256(&self.encode()).into(), ..header(0, 0) }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecoderError> {
        let rlp = Rlp::new(bytes);
        if rlp.val_at::<String>(0)? != Self::NAME {
            return Err(DecoderError::Custom("another kind of chain"));
        }
        Ok(Self { chain_id: rlp.val_at(1)?, funded: rlp.val_at(2)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(
            number: u64, parent: [u8; 32], timestamp: u64, raw: Vec<u8>, success: bool, gas_used: u64, price: u128,
            to: Option<[u8; 20]>, created: Option<[u8; 20]>, topics: Vec<[u8; 32]>, data: Vec<u8>,
        ) {
            let topics = topics.into_iter().map(H256).collect();
            let block = Block {
                number, parent: H256(parent), timestamp, raw, success, gas_used, price,
                from: Address::repeat_byte(1),
                to: to.map(Into::into),
                created: created.map(Into::into),
                logs: vec![LogEntry { address: Address::repeat_byte(2), topics, data }],
            };
            prop_assert_eq!(Block::decode(&block.encode()), Ok(block));
        }

        #[test]
        fn hostile_bytes_are_only_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Block::decode(&bytes);
            let _ = Genesis::decode(&bytes);
        }
    }

    #[test]
    fn a_genesis_is_read_back_and_told_from_others() {
        let genesis = Genesis { chain_id: 5, funded: Address::repeat_byte(3) };
        assert_eq!(Genesis::decode(&genesis.encode()), Ok(genesis.clone()));
        assert_ne!(genesis.header().hash_slow(), Genesis { chain_id: 6, ..genesis }.header().hash_slow());
    }
}
