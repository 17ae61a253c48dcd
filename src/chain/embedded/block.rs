// SPDX-License-Identifier: Apache-2.0
//! Defines a block of the embedded chain: one transaction and its result. Pure.
//!
//! A block's hash is the Keccak-256 of its encoding, which contains the parent's hash. So blocks are chained over
//! their contents, and the same transactions at the same times give the same hashes. It is not the hash of an
//! Ethereum header, because there is no state root.
//!
//! Running the transaction is left to `evm`.

use rlp::{DecoderError, Rlp, RlpStream};
use web3::{
    signing::keccak256,
    types::{Address, H256},
};

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
}

/// Hashes the encoding of a block or of the genesis.
pub(super) fn hash(encoding: &[u8]) -> H256 {
    keccak256(encoding).into()
}

/// Start of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Genesis {
    pub chain_id: u64,
    /// Account that gets all funds.
    pub funded: Address,
}

impl Genesis {
    const NAME: &'static str = "posthorn embedded chain v1";

    pub fn encode(&self) -> Vec<u8> {
        let mut stream = RlpStream::new_list(3);
        stream.append(&Self::NAME).append(&self.chain_id).append(&self.funded);
        stream.out().to_vec()
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
        assert_ne!(hash(&genesis.encode()), hash(&Genesis { chain_id: 6, ..genesis }.encode()));
    }
}
