// SPDX-License-Identifier: Apache-2.0
//! Verifies a receipt against the chain.
//!
//! A receipt is accepted only if chain id, contract, block, transaction and anchor all match.
//!
//! The proof itself is checked by [`Receipt::verify_offline`].

use std::fmt::Debug;

use evidence::Receipt;
use web3::types::{Address, H256, U64};

use crate::{Ledger, LedgerError, client::parse_anchored};

impl Ledger {
    /// Verifies that a receipt is true: it proves its evidence ([`Receipt::verify_offline`]), and this ledger's chain
    /// has its root, in its transaction, in its block, anchored by this ledger's contract.
    ///
    /// # Errors
    /// The first mismatch; or that the chain cannot be reached, which is retryable and says nothing about the
    /// receipt.
    pub async fn verify(&self, receipt: &Receipt) -> Result<(), LedgerError> {
        receipt.verify_offline()?;
        let anchor = &receipt.anchor;
        let same = Same { index: receipt.evidence.index };
        same.check("the chain id", anchor.chain_id, self.addresses.chain_id)?;
        same.check("the contract", Address::from(anchor.contract), self.addresses.evidence_ledger)?;
        let transaction = H256(anchor.transaction);
        let Some((mined, number, hash)) = self.receipt_of("verify a receipt", transaction).await? else {
            return Err(same.differs("the transaction", &transaction, &"not mined"));
        };
        same.check("the block number", anchor.block_number, number)?;
        same.check("the block hash", H256(anchor.block_hash), hash)?;
        same.check("the transaction's status", Some(U64::one()), mined.status)?;
        let topic = self.anchored_topic()?;
        let ours = mined.logs.iter().filter(|log| {
            log.address == self.addresses.evidence_ledger && log.topics.first() == Some(&topic)
        });
        let anchored: Vec<_> = ours
            .filter_map(parse_anchored)
            .map(|event| (event.first, event.count, H256(event.root)))
            .collect();
        let expected = (anchor.first, anchor.count, H256(anchor.root));
        if anchored.contains(&expected) {
            Ok(())
        } else {
            Err(same.differs("the anchor", &expected, &anchored))
        }
    }
}

struct Same {
    index: u64,
}

impl Same {
    fn check<T: Debug + PartialEq>(
        &self,
        what: &'static str,
        expected: T,
        found: T,
    ) -> Result<(), LedgerError> {
        if expected == found { Ok(()) } else { Err(self.differs(what, &expected, &found)) }
    }

    fn differs(&self, what: &'static str, expected: &dyn Debug, found: &dyn Debug) -> LedgerError {
        let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
        LedgerError::NotOnChain { index: self.index, what, expected, found }
    }
}
