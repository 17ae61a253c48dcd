//! The client of the two contracts.

use std::{path::Path, time::Duration};

use tokio::{sync::Mutex, time::sleep};
use web3::{
    Web3,
    ethabi::Token,
    types::{Address, BlockId, BlockNumber, Bytes, CallRequest, FilterBuilder, H256, Log, U256},
};

use super::{
    Addresses, Backoff, Chain, LedgerError, LedgerKey, Mined,
    contracts::Artifact,
    submit::{Submitter, in_block},
};
use crate::{
    authenticator::{
        merkle::{Hash, Tree},
        params::Contracts,
    },
    mail::{Registration, Role},
};

/// Blocks in one `eth_getLogs`: what public nodes allow.
const LOG_RANGE: u64 = 5_000;

/// How transactions are waited for.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// Blocks with and after the transaction's own until it counts; at least 1. The embedded chain always has 1.
    pub confirmations: u64,
    /// How long to wait for them.
    pub timeout: Duration,
    /// Contracts that are deployed; `None`: those of `contracts.json`, or new ones.
    pub contracts: Option<Contracts>,
}

/// An `Anchored` event on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnChain {
    /// Index of the first leaf.
    pub first: u64,
    /// Number of leaves.
    pub count: u32,
    /// Merkle root.
    pub root: Hash,
    /// Hash of the transaction.
    pub transaction: H256,
}

/// The sender registry and the evidence ledger on one chain, with the account that owns them. Shared by reference:
/// questions run at once, transactions one after the other.
pub struct Ledger {
    pub(super) web3: Web3<Chain>,
    key: LedgerKey,
    options: LedgerOptions,
    pub(super) addresses: Addresses,
    registry: Artifact,
    pub(super) evidence: Artifact,
    /// Held from nonce to receipt.
    in_flight: Mutex<()>,
}

impl Ledger {
    /// Asks the chain who it is, and deploys the contracts if none are given and `contracts.json` in `state_dir` does
    /// not exist; else they must be there. If the process dies between deployment and file, the contracts are deployed anew.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached; otherwise the chain, the file or the account must be changed.
    pub async fn connect(
        chain: Chain,
        key: LedgerKey,
        state_dir: &Path,
        options: LedgerOptions,
    ) -> Result<Self, LedgerError> {
        let action = "connect to the chain";
        let web3 = Web3::new(chain);
        let chain_id = web3.eth().chain_id().await.map_err(|error| LedgerError::from_web3(action, error))?;
        let (registry, evidence) = (Artifact::sender_registry()?, Artifact::evidence_ledger()?);
        let path = state_dir.join("contracts.json");
        let given = options.contracts.map(|Contracts { registry, ledger }| Addresses {
            chain_id: chain_id.as_u64(),
            sender_registry: registry.into(),
            evidence_ledger: ledger.into(),
            deployed_block: 0,
        });
        let addresses = match given.map_or_else(|| Addresses::load(&path), |given| Ok(Some(given)))? {
            Some(addresses) => addresses,
            None => {
                let submitter =
                    Submitter { web3: &web3, key: &key, chain_id: chain_id.as_u64(), options: &options };
                let (sender_registry, _) = deploy(&submitter, "deploy SenderRegistry", &registry).await?;
                let (evidence_ledger, deployed_block) =
                    deploy(&submitter, "deploy EvidenceLedger", &evidence).await?;
                let chain_id = chain_id.as_u64();
                let addresses = Addresses { chain_id, sender_registry, evidence_ledger, deployed_block };
                addresses.store(&path)?;
                addresses
            }
        };
        if U256::from(addresses.chain_id) != chain_id {
            let (expected, found) = (addresses.chain_id, chain_id.as_u64());
            return Err(LedgerError::WrongChain { path, expected, found });
        }
        let both =
            [("SenderRegistry", addresses.sender_registry), ("EvidenceLedger", addresses.evidence_ledger)];
        for (contract, address) in both {
            let code = web3.eth().code(address, None).await;
            if code.map_err(|error| LedgerError::from_web3(action, error))?.0.is_empty() {
                let chain_id = addresses.chain_id;
                return Err(LedgerError::NoCode { path, contract, address, chain_id });
            }
        }
        Ok(Self { web3, key, options, addresses, registry, evidence, in_flight: Mutex::new(()) })
    }

    /// [`connect`](Self::connect) again and again, with growing pauses of at most 5 s, until the chain can be reached;
    /// `report` gets every failure on the way. Drop it to end it.
    ///
    /// # Errors
    /// The first error that waiting does not cure.
    pub async fn connect_patiently(
        chain: Chain,
        key: LedgerKey,
        state_dir: &Path,
        options: LedgerOptions,
        mut report: impl FnMut(&LedgerError),
    ) -> Result<Self, LedgerError> {
        let mut backoff = Backoff::default();
        loop {
            match Self::connect(chain.clone(), key.clone(), state_dir, options.clone()).await {
                Err(error) if error.is_retryable() => report(&error),
                result => return result,
            }
            sleep(backoff.next()).await;
        }
    }

    /// Where the contracts are.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What the registry says of a sender: registration, role (`None` unless active) and the digest of the DKIM key
    /// it must sign with (zeros: any).
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached.
    pub async fn sender(&self, digest: [u8; 32]) -> Result<(Registration, Role, [u8; 32]), LedgerError> {
        let arguments = [Token::FixedBytes(digest.to_vec())];
        let answer = self.call(self.addresses.sender_registry, &self.registry, "sender", &arguments).await?;
        let bad = || LedgerError::Answer { action: "sender", rule: "a registration".to_owned() };
        let [Token::Uint(role), Token::Uint(registered), Token::Uint(revoked), Token::FixedBytes(key)] =
            answer.as_slice()
        else {
            return Err(bad());
        };
        let key_hash = key.as_slice().try_into().map_err(|_| bad())?;
        let role = match role.as_u64() {
            _ if registered.is_zero() => return Ok((Registration::Unregistered, Role::None, key_hash)),
            _ if !revoked.is_zero() => return Ok((Registration::Revoked, Role::None, key_hash)),
            1 => Role::Observer,
            2 => Role::Operator,
            _ => return Err(bad()),
        };
        Ok((Registration::Active, role, key_hash))
    }

    /// Registers a sender, or changes its role and key, and ends a revocation. Returns when it is confirmed.
    ///
    /// # Errors
    /// [`LedgerError::Reverted`] for `Role::None` or a foreign registry; retryable if the chain cannot be reached.
    pub async fn register(
        &self,
        digest: [u8; 32],
        role: Role,
        dkim_key_hash: [u8; 32],
    ) -> Result<Mined, LedgerError> {
        let digest = Token::FixedBytes(digest.to_vec());
        let arguments = [digest, Token::Uint((role as u8).into()), Token::FixedBytes(dkim_key_hash.to_vec())];
        let data = self.registry.encode("register", &arguments)?;
        self.transact("register a sender", self.addresses.sender_registry, data).await
    }

    /// Revokes a sender. Returns when it is confirmed.
    ///
    /// # Errors
    /// [`LedgerError::Reverted`] if it is not registered or revoked already; retryable if the chain cannot be reached.
    pub async fn revoke(&self, digest: [u8; 32]) -> Result<Mined, LedgerError> {
        let data = self.registry.encode("revoke", &[Token::FixedBytes(digest.to_vec())])?;
        self.transact("revoke a sender", self.addresses.sender_registry, data).await
    }

    /// Index of the first leaf that is not anchored.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached.
    pub async fn next_index(&self) -> Result<u64, LedgerError> {
        let answer = self.call(self.addresses.evidence_ledger, &self.evidence, "next", &[]).await?;
        match answer.as_slice() {
            [Token::Uint(next)] if next.bits() <= 64 => Ok(next.as_u64()),
            _ => Err(LedgerError::Answer { action: "next", rule: "an index".to_owned() }),
        }
    }

    /// Anchors the root of `leaves`, which begin at index `first`. Returns when it is confirmed. On a retryable
    /// error it may be anchored or not: [`next_index`](Self::next_index) tells.
    ///
    /// # Errors
    /// [`LedgerError::Reverted`] if `first` is not the next index or there are no leaves; retryable if the chain
    /// cannot be reached or does not confirm in time.
    pub async fn anchor(&self, first: u64, leaves: Vec<Hash>) -> Result<Mined, LedgerError> {
        let root = Tree::new(leaves.clone()).root();
        let (first, count) = (Token::Uint(first.into()), Token::Uint(leaves.len().into()));
        let data = self.evidence.encode("anchor", &[first, count, Token::FixedBytes(root.to_vec())])?;
        self.transact("anchor evidence", self.addresses.evidence_ledger, data).await
    }

    /// The batch that begins at leaf `first`, if it is on chain, confirmed or not. Looks back from the newest block.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached.
    pub async fn find_anchor(&self, first: u64) -> Result<Option<OnChain>, LedgerError> {
        let action = "find an anchor";
        let failed = |error| LedgerError::from_web3(action, error);
        let mut topic = [0; 32];
        U256::from(first).to_big_endian(&mut topic);
        let mut to = self.web3.eth().block_number().await.map_err(failed)?.as_u64();
        loop {
            let from = to.saturating_sub(LOG_RANGE - 1).max(self.addresses.deployed_block);
            let filter = FilterBuilder::default()
                .address(vec![self.addresses.evidence_ledger])
                .topics(Some(vec![self.anchored_topic()?]), Some(vec![H256(topic)]), None, None)
                .from_block(BlockNumber::Number(from.into()))
                .to_block(BlockNumber::Number(to.into()));
            let logs = self.web3.eth().logs(filter.build()).await.map_err(failed)?;
            if let Some(found) = logs.iter().find_map(parse_anchored) {
                return Ok(Some(found));
            }
            if from <= self.addresses.deployed_block {
                return Ok(None);
            }
            to = from - 1;
        }
    }

    /// Waits until a transaction that was sent before has its confirmations.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached or does not confirm in time.
    pub async fn confirm(&self, transaction: H256) -> Result<Mined, LedgerError> {
        self.submitter().confirm("confirm a transaction", transaction).await
    }

    pub(super) fn anchored_topic(&self) -> Result<H256, LedgerError> {
        let event = self.evidence.abi.event("Anchored");
        event.map(|event| event.signature()).map_err(|why| LedgerError::Artifact(why.to_string()))
    }

    async fn call(
        &self,
        to: Address,
        contract: &Artifact,
        function: &'static str,
        arguments: &[Token],
    ) -> Result<Vec<Token>, LedgerError> {
        let data = Some(Bytes(contract.encode(function, arguments)?));
        let request = CallRequest { to: Some(to), data, ..CallRequest::default() };
        let latest = Some(BlockId::Number(BlockNumber::Latest));
        let answer = self.web3.eth().call(request, latest).await;
        contract.decode(function, &answer.map_err(|error| LedgerError::from_web3(function, error))?.0)
    }

    async fn transact(&self, action: &'static str, to: Address, data: Vec<u8>) -> Result<Mined, LedgerError> {
        let _turn = self.in_flight.lock().await;
        let transaction = self.submitter().send(action, Some(to), data).await?;
        self.submitter().confirm(action, transaction).await
    }

    fn submitter(&self) -> Submitter<'_> {
        let chain_id = self.addresses.chain_id;
        Submitter { web3: &self.web3, key: &self.key, chain_id, options: &self.options }
    }

    pub(super) async fn receipt_of(
        &self,
        action: &'static str,
        transaction: H256,
    ) -> Result<Option<(web3::types::TransactionReceipt, u64, H256)>, LedgerError> {
        let receipt = self.web3.eth().transaction_receipt(transaction).await;
        Ok(receipt.map_err(|error| LedgerError::from_web3(action, error))?.and_then(in_block))
    }
}

/// Reads an `Anchored` event; none if the log is another one.
pub(super) fn parse_anchored(log: &Log) -> Option<OnChain> {
    let [_, first, root] = log.topics.as_slice() else { return None };
    let count = U256::from_big_endian(log.data.0.get(..32)?);
    Some(OnChain {
        first: u64::try_from(U256::from_big_endian(first.as_bytes())).ok()?,
        count: u32::try_from(count).ok()?,
        root: root.0,
        transaction: log.transaction_hash?,
    })
}

async fn deploy(
    submitter: &Submitter<'_>,
    action: &'static str,
    contract: &Artifact,
) -> Result<(Address, u64), LedgerError> {
    let transaction = submitter.send(action, None, contract.bytecode.0.clone()).await?;
    let mined = submitter.confirm(action, transaction).await?;
    let address =
        mined.created.ok_or(LedgerError::Answer { action, rule: "the new contract's address".to_owned() })?;
    Ok((address, mined.block_number))
}
