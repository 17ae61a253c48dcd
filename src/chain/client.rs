// SPDX-License-Identifier: Apache-2.0
//! Connects to the chain, anchors, and looks for what was anchored.
//!
//! A transaction returns only once it is final. Batches may be anchored many at a time; changes of the registry run one
//! after another, beside them.
//!
//! [`super::lane`] signs, sends and confirms them; retrying is left to the caller.

use std::{path::Path, time::Duration};

use evidence::merkle::Hash;
use tokio::{
    sync::{Mutex, watch},
    time::sleep,
};
use web3::{
    Web3,
    ethabi::Token,
    types::{Address, H256, U256},
};

use crate::{
    Addresses, Connection, Finality, InFlight, LedgerError, LedgerKey, Mined, RECONNECT, Slot,
    account::{Account, Call, Presence, action},
    contracts::{Artifact, Contracts, word},
    deploy::Deployer,
    lane::Lane,
    queries::{LOG_RANGE, OnChain, anchored, call, newest_block, next_index},
};

/// Confirmations on a chain that does not say what is final.
const CONFIRMATIONS: u64 = 12;

/// Settings of a [`Ledger`].
#[derive(Clone)]
pub struct LedgerOptions {
    /// Blocks until a transaction is final, including its own, at least 1; `None`: until the chain calls its block
    /// finalized, or 12 where it does not say. On the embedded chain it is always 1.
    pub confirmations: Option<u64>,
    /// How long to wait while nothing becomes of any transaction; then [`LedgerError::Timeout`] says so, and whoever
    /// asks for the same again goes on waiting for the same transaction.
    pub timeout: Duration,
    /// Most batches that are sent and in no block yet; at least 1.
    pub in_flight: usize,
    /// Most that a transaction may pay for gas, tip included [wei per gas].
    pub max_fee: U256,
    /// Contracts that are already deployed; `None`: those in `contracts.json`.
    pub contracts: Option<Contracts>,
    /// Key of the account that registers and revokes; `None`: the one that anchors.
    pub registrar: Option<LedgerKey>,
    /// Id of a chain that must not be used.
    pub refused_chain_id: Option<u64>,
}

/// The sender registry and the evidence ledger on one chain, with the accounts that use them. Share it by reference.
pub struct Ledger {
    pub(super) web3: Web3<Connection>,
    pub(super) account: Account,
    pub(super) addresses: Addresses,
    pub(super) registry: Artifact,
    pub(super) evidence: Artifact,
    /// Of the account that anchors.
    lane: Lane,
    /// Of the account that changes the registry, if that is another.
    registrar: Option<(Address, Lane)>,
    /// Held while the registry changes, because each change may need the one before it.
    pub(super) registering: Mutex<()>,
}

impl Ledger {
    /// Connects to the chain. If no contracts are given and `contracts.json` in `state_dir` says that there are none yet
    /// ([`want_new_contracts`]), it deploys them; otherwise they must exist on chain. If the process dies after deployment
    /// but before the file is written, the contracts are deployed again.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached; otherwise the chain, the file or the account must be changed.
    pub async fn connect(
        chain: Connection,
        key: LedgerKey,
        state_dir: &Path,
        options: LedgerOptions,
    ) -> Result<Self, LedgerError> {
        let action = "connect to the chain";
        let web3 = Web3::new(chain);
        let chain_id = web3.eth().chain_id().await.map_err(|error| LedgerError::from_web3(action, error))?;
        let chain_id = u64::try_from(chain_id)
            .map_err(|_| LedgerError::Answer { action, rule: "a chain id below 2^64".to_owned() })?;
        if options.refused_chain_id == Some(chain_id) {
            let rule = format!("of a node of another chain than that with id {chain_id}");
            return Err(LedgerError::Endpoint { rule });
        }
        let (registry, evidence) = (Artifact::sender_registry()?, Artifact::evidence_ledger()?);
        let LedgerOptions { confirmations, timeout, in_flight, max_fee, contracts, .. } = options;
        let finality = Finality::Confirmations(confirmations.unwrap_or(CONFIRMATIONS).max(1));
        let mut account = Account { web3: web3.clone(), key, chain_id, finality, max_fee, timeout };
        let transactions = match web3.transport() {
            // It mines what it is sent, at once, and never reorganises.
            #[cfg(feature = "embedded")]
            Connection::Embedded(_) => {
                account.finality = Finality::Confirmations(1);
                None
            }
            Connection::Http(_) => Some(state_dir),
        };
        if confirmations.is_none() && transactions.is_some() {
            match account.finalized(action).await? {
                Some(_) => account.finality = Finality::Finalized,
                None => {
                    tracing::warn!(confirmations = CONFIRMATIONS, "the node does not say what is finalized")
                }
            }
        }
        let lane = Lane::start(account.clone(), transactions, in_flight.max(1))?;
        let own = options.registrar.filter(|key| key.address() != account.key.address());
        let registrar = match own.map(|key| Account { key, ..account.clone() }) {
            Some(registrar) => Some((registrar.key.address(), Lane::start(registrar, transactions, 1)?)),
            None => None,
        };
        let deployer = Deployer {
            web3: &web3,
            chain_id,
            registry: &registry,
            evidence: &evidence,
            lane: &lane,
            registrar: match &registrar {
                Some((address, lane)) => (lane, *address),
                None => (&lane, account.key.address()),
            },
        };
        let addresses = deployer.contracts(contracts, &state_dir.join("contracts.json")).await?;
        let registering = Mutex::default();
        Ok(Self { web3, account, addresses, registry, evidence, lane, registrar, registering })
    }

    /// Calls [`connect`](Self::connect) until the chain can be reached, with growing pauses of at most 5 s. `report`
    /// gets every failure on the way. Drop the future to stop.
    ///
    /// # Errors
    /// The first error that waiting will not cure.
    pub async fn connect_patiently(
        chain: Connection,
        key: LedgerKey,
        state_dir: &Path,
        options: LedgerOptions,
        mut report: impl FnMut(&LedgerError),
    ) -> Result<Self, LedgerError> {
        let mut attempts = 0_u32;
        loop {
            match Self::connect(chain.clone(), key.clone(), state_dir, options.clone()).await {
                Err(error) if error.is_retryable() => report(&error),
                result => return result,
            }
            attempts = attempts.saturating_add(1);
            sleep(RECONNECT.delay(attempts)).await;
        }
    }

    /// Follows the transactions in flight of the account that anchors; `None` while there is none.
    pub fn in_flight(&self) -> watch::Receiver<Option<InFlight>> {
        self.lane.in_flight()
    }

    /// Follows the transactions in flight of the account that changes the registry, if that is another.
    pub fn registrar_in_flight(&self) -> Option<watch::Receiver<Option<InFlight>>> {
        self.registrar.as_ref().map(|(_, lane)| lane.in_flight())
    }

    /// The account that changes the registry, if that is not the one that anchors.
    pub fn registrar_address(&self) -> Option<Address> {
        self.registrar.as_ref().map(|(address, _)| *address)
    }

    /// Returns when a transaction is final.
    pub fn finality(&self) -> Finality {
        self.account.finality
    }

    /// Returns the addresses of the contracts.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Returns the index of the first leaf that is not anchored.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached.
    pub async fn next_index(&self) -> Result<u64, LedgerError> {
        next_index(&self.web3, self.addresses.evidence_ledger, &self.evidence).await
    }

    /// Waits until another batch may be anchored: only so many are in no block at a time.
    ///
    /// # Errors
    /// That of [`broken`](Self::broken).
    pub async fn slot(&self) -> Result<Slot, LedgerError> {
        self.lane.slot().await
    }

    /// Waits until a batch has failed, so that none can come after it. Once all transactions [`rest`](Self::rest), ask
    /// [`next_index`](Self::next_index), and begin anew from there.
    pub async fn broken(&self) -> LedgerError {
        self.lane.broken().await
    }

    /// Anchors a batch of `count` leaves with this Merkle root, the first of which has index `first`. The future
    /// returns once it is final. The chain takes batches in the order of these calls, so the next one may be anchored
    /// at once. After a retryable error the batch may or may not be anchored.
    ///
    /// # Errors
    /// [`LedgerError::Reverted`] if `first` is not the next index or there are no leaves; retryable if the chain
    /// cannot be reached or does not confirm in time.
    pub fn anchor(
        &self,
        slot: Slot,
        (first, count, root): (u64, u32, Hash),
    ) -> impl Future<Output = Result<Mined, LedgerError>> + Send + use<> {
        let arguments =
            [Token::Uint(first.into()), Token::Uint(count.into()), Token::FixedBytes(root.to_vec())];
        let data = self.evidence.encode("anchor", &arguments);
        let to = Some(self.addresses.evidence_ledger);
        let sent = data.map(|data| self.lane.send(Call { action: action::ANCHOR, to, data }, Some(slot)));
        async move { sent?.await }
    }

    /// Waits until every transaction is in a block, or has ended; then batches may be anchored again.
    ///
    /// # Errors
    /// [`LedgerError::Timeout`] if nothing becomes of them.
    pub async fn rest(&self) -> Result<(), LedgerError> {
        self.lane.rest().await
    }

    /// Finds the batch that starts at leaf `first`, if it is on chain, confirmed or not. Searches back from the
    /// newest block.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached.
    pub async fn find_anchor(&self, first: u64) -> Result<Option<OnChain>, LedgerError> {
        let topic = word(first);
        let contract = self.addresses.evidence_ledger;
        let mut to = newest_block(&self.web3, "find an anchor").await?;
        loop {
            let from = to.saturating_sub(LOG_RANGE - 1).max(self.addresses.deployed_block);
            let found = anchored(&self.web3, &self.evidence, contract, Some(H256(topic)), (from, to)).await?;
            if !found.is_empty() {
                return Ok(found.into_iter().next());
            }
            if from <= self.addresses.deployed_block {
                return Ok(None);
            }
            to = from - 1;
        }
    }

    /// What the chain has in place of each of these blocks, given by number and hash.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached.
    pub async fn blocks(&self, blocks: &[(u64, [u8; 32])]) -> Result<Vec<Presence>, LedgerError> {
        let blocks: Vec<_> = blocks.iter().map(|(number, hash)| (*number, H256(*hash))).collect();
        self.account.blocks(&blocks).await
    }

    /// Number of the newest block that no reorganisation takes back: which is finalized, or, where the node does not say,
    /// has 64 blocks on top. On the embedded chain it is the newest.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached.
    pub async fn settled(&self) -> Result<u64, LedgerError> {
        match self.web3.transport() {
            #[cfg(feature = "embedded")]
            Connection::Embedded(_) => newest_block(&self.web3, "ask what is settled").await,
            Connection::Http(_) => self.account.settled().await,
        }
    }

    /// Waits until a transaction that was sent earlier, perhaps by an earlier process, is final.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached or nothing becomes of the transaction in time.
    pub fn confirm(
        &self,
        transaction: H256,
    ) -> impl Future<Output = Result<Mined, LedgerError>> + Send + use<> {
        let account = self.account.clone();
        async move { account.confirm("confirm a transaction", transaction).await }
    }

    pub(super) async fn call(
        &self,
        to: Address,
        contract: &Artifact,
        function: &'static str,
        arguments: &[Token],
    ) -> Result<Vec<Token>, LedgerError> {
        call(&self.web3, to, contract, function, arguments).await
    }

    /// The lane of the account that changes the registry.
    pub(super) fn registrar(&self) -> &Lane {
        self.registrar.as_ref().map_or(&self.lane, |(_, lane)| lane)
    }
}

/// Notes in a state directory that there are no contracts yet, so that [`Ledger::connect`] deploys them. From then on a
/// missing `contracts.json` is one that was lost. Blocking.
///
/// # Errors
/// If the file cannot be written.
pub fn want_new_contracts(state_dir: &Path) -> Result<(), LedgerError> {
    Addresses::want_new(&state_dir.join("contracts.json"), None)
}
