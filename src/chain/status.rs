// SPDX-License-Identifier: Apache-2.0
//! What people want to know of a chain and of the accounts there: how far it is, what it costs, what is left.

use web3::types::{Address, U256};

use crate::{Ledger, LedgerError};

/// The chain and the accounts as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainStatus {
    /// Number of the newest block.
    pub head: u64,
    /// Its time [s since 1970].
    pub head_time: u64,
    /// Number of the newest block that is finalized; `None` if the node does not say.
    pub finalized: Option<u64>,
    /// What the node asks for a transaction now [wei per gas].
    pub gas_price: U256,
    /// The account that anchors, and its balance [wei].
    pub account: (Address, U256),
    /// The account that registers, if that is another, and its balance [wei].
    pub registrar: Option<(Address, U256)>,
}

impl Ledger {
    /// Asks the chain how it stands.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached.
    pub async fn status(&self) -> Result<ChainStatus, LedgerError> {
        let (account, registrar) = (self.account.key.address(), self.registrar_address());
        let accounts: Vec<_> = [Some(account), registrar].into_iter().flatten().collect();
        let (head, gas_price, balances) = self.account.standing(&accounts).await?;
        let mut balances = balances.into_iter();
        let mut balance_of = |address| (address, balances.next().unwrap_or_default());
        Ok(ChainStatus {
            head: head.number,
            head_time: head.timestamp,
            finalized: head.finalized,
            gas_price,
            account: balance_of(account),
            registrar: registrar.map(balance_of),
        })
    }
}
