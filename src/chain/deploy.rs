// SPDX-License-Identifier: Apache-2.0
//! Finds the two contracts: those that are given, those of `contracts.json`, or new ones. New ones can replace contracts of
//! the first version and take over the senders; only an operator starts that, as it costs fees, and a node that lies
//! about a version could have its own senders taken over.
//!
//! Nothing is forgotten by a crash on the way: `contracts.json` names the new contracts only once they have everything;
//! before that, the next start deploys again.

use std::{collections::BTreeSet, path::Path};

use evidence::eip55::to_eip55;
use mail::Role;
use web3::{
    Web3,
    ethabi::Token,
    types::{Address, BlockNumber, FilterBuilder, U256},
};

use crate::{
    Addresses, Connection, Contracts, LedgerError, Mined, Terms,
    account::{Call, action},
    client::{LOG_RANGE, call, newest_block},
    contracts::{Artifact, Kept},
    lane::Lane,
    registry::{registering, revoking},
};

/// Version of the contracts that this program calls.
const VERSION: u64 = 2;
/// Registrations that are sent to a new registry before one of them is waited for; nodes keep 16 transactions of an
/// account and perhaps more.
const TOGETHER: usize = 16;

/// What deploys contracts.
pub(super) struct Deployer<'l> {
    pub web3: &'l Web3<Connection>,
    pub chain_id: u64,
    pub registry: &'l Artifact,
    pub evidence: &'l Artifact,
    /// Of the account that deploys, owns and anchors.
    pub lane: &'l Lane,
    /// Of the account that registers.
    pub registrar: (&'l Lane, Address),
}

impl Deployer<'_> {
    /// The contracts to use: `given`, or those that the file at `path` names, or new ones if it asks for them.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached; otherwise the chain, the file or the parameters must be changed.
    pub async fn contracts(&self, given: Option<Contracts>, path: &Path) -> Result<Addresses, LedgerError> {
        let (known, is_given) = match given {
            Some(Contracts { registry, ledger }) => {
                let (sender_registry, evidence_ledger) = (registry.into(), ledger.into());
                let (chain_id, deployed_block, replace) = (self.chain_id, 0, false);
                let given = Addresses { chain_id, sender_registry, evidence_ledger, deployed_block, replace };
                (Kept::Addresses(given), true)
            }
            None => (Addresses::load(path)?, false),
        };
        let addresses = match known {
            Kept::Addresses(addresses) => addresses,
            Kept::Missing => return Err(LedgerError::LostContracts { path: path.to_owned() }),
            Kept::NewWanted => {
                let addresses = self.deploy().await?;
                addresses.store(path)?;
                return Ok(addresses);
            }
        };
        if addresses.chain_id != self.chain_id {
            let (path, expected, found) = (path.to_owned(), addresses.chain_id, self.chain_id);
            return Err(LedgerError::WrongChain { path, expected, found });
        }
        let mut is_old = false;
        for (contract, address, parameter) in [
            ("SenderRegistry", addresses.sender_registry, "registry_address"),
            ("EvidenceLedger", addresses.evidence_ledger, "ledger_address"),
        ] {
            let place = match is_given {
                true => format!("parameter '{parameter}'"),
                false => format!("'{}'", path.display()),
            };
            match self.version(address).await? {
                None => {
                    let chain_id = self.chain_id;
                    return Err(LedgerError::NoCode { place, contract, address, chain_id });
                }
                Some(VERSION) => {}
                Some(1) if addresses.replace => is_old = true,
                Some(version) => {
                    let wanted = VERSION;
                    return Err(LedgerError::OtherVersion { place, contract, address, version, wanted });
                }
            }
        }
        if is_old { self.replace(&addresses, path).await } else { Ok(addresses) }
    }

    /// Version of the contract at this address; `None` if there is none.
    async fn version(&self, address: Address) -> Result<Option<u64>, LedgerError> {
        let action = "look for the contracts";
        let code = self.web3.eth().code(address, None).await;
        if code.map_err(|error| LedgerError::from_web3(action, error))?.0.is_empty() {
            return Ok(None);
        }
        match call(self.web3, address, self.registry, "VERSION", &[]).await {
            Ok(answer) => match answer.as_slice() {
                [Token::Uint(version)] => Ok(Some(u64::try_from(*version).unwrap_or(u64::MAX))),
                _ => Err(LedgerError::Answer { action, rule: "a version".to_owned() }),
            },
            // The first one has no such function.
            Err(LedgerError::Reverted { .. }) => Ok(Some(1)),
            Err(error) => Err(error),
        }
    }

    async fn deploy(&self) -> Result<Addresses, LedgerError> {
        let deploy = |action, contract: &Artifact, arguments: &[Token]| {
            let data = contract.deployment(arguments)?;
            Ok::<_, LedgerError>(self.lane.send(Call { action, to: None, data }, None))
        };
        // Both at a time.
        let registry = deploy(action::DEPLOY_REGISTRY, self.registry, &[Token::Address(self.registrar.1)])?;
        let ledger = deploy(action::DEPLOY_LEDGER, self.evidence, &[])?;
        let (sender_registry, _) = created(action::DEPLOY_REGISTRY, registry.await?)?;
        let (evidence_ledger, deployed_block) = created(action::DEPLOY_LEDGER, ledger.await?)?;
        let (chain_id, replace) = (self.chain_id, false);
        Ok(Addresses { chain_id, sender_registry, evidence_ledger, deployed_block, replace })
    }

    /// Deploys new contracts in place of old ones, and registers there whom the old registry has.
    async fn replace(&self, old: &Addresses, path: &Path) -> Result<Addresses, LedgerError> {
        let shown = |address: Address| to_eip55(&address.0);
        tracing::info!(
            registry = shown(old.sender_registry),
            ledger = shown(old.evidence_ledger),
            "contracts of version 1 are replaced by new ones, as contracts.json asks"
        );
        let senders = self.old_senders(old).await?;
        let new = self.deploy().await?;
        let mut sent = Vec::new();
        for (digest, terms) in &senders {
            let call = match terms {
                Some(terms) => registering(self.registry, new.sender_registry, *digest, terms)?,
                None => revoking(self.registry, new.sender_registry, *digest)?,
            };
            sent.push(self.registrar.0.send(call, None));
            if sent.len() == TOGETHER {
                settle(&mut sent).await?;
            }
        }
        settle(&mut sent).await?;
        old.store(&path.with_file_name("contracts-v1.json"))?;
        new.store(path)?;
        tracing::info!(
            senders = senders.len(),
            "the new contracts have the senders of the old ones; the evidence is \
            anchored anew, and receipts of before stay true of the old ledger, which contracts-v1.json names"
        );
        Ok(new)
    }

    /// The senders of a registry of the first version, and their terms; `None` if they are revoked.
    async fn old_senders(&self, old: &Addresses) -> Result<Vec<([u8; 32], Option<Terms>)>, LedgerError> {
        let (action, artifact) = ("read the old registry", Artifact::sender_registry_v1()?);
        let newest = newest_block(self.web3, action).await?;
        // The registry was deployed beside the ledger, perhaps some blocks before.
        let (mut from, mut digests) = (old.deployed_block.saturating_sub(LOG_RANGE), BTreeSet::new());
        while from <= newest {
            let to = from.saturating_add(LOG_RANGE - 1).min(newest);
            let filter = FilterBuilder::default()
                .address(vec![old.sender_registry])
                .topics(Some(vec![artifact.topic("Registered")?]), None, None, None)
                .from_block(BlockNumber::Number(from.into()))
                .to_block(BlockNumber::Number(to.into()));
            let logs = self.web3.eth().logs(filter.build()).await;
            let logs = logs.map_err(|error| LedgerError::from_web3(action, error))?;
            digests.extend(logs.iter().filter_map(|log| log.topics.get(1)).map(|digest| digest.0));
            from = to.saturating_add(1);
        }
        let mut senders = Vec::with_capacity(digests.len());
        for digest in digests {
            let arguments = [Token::FixedBytes(digest.to_vec())];
            let answer = call(self.web3, old.sender_registry, &artifact, "sender", &arguments).await?;
            let terms = parse_old(&answer);
            let bad = || LedgerError::Answer { action, rule: "a registration of version 1".to_owned() };
            senders.push((digest, terms.ok_or_else(bad)?));
        }
        Ok(senders)
    }
}

/// Waits until all of these are final.
async fn settle(sent: &mut Vec<impl Future<Output = Result<Mined, LedgerError>>>) -> Result<(), LedgerError> {
    for one in sent.drain(..) {
        one.await?;
    }
    Ok(())
}

/// What version 1 answers about a sender that was registered: its terms, or that it is revoked.
fn parse_old(answer: &[Token]) -> Option<Option<Terms>> {
    let [Token::Uint(role), Token::Uint(_), Token::Uint(revoked), Token::FixedBytes(key)] = answer else {
        return None;
    };
    let role =
        [Role::Observer, Role::Operator].into_iter().find(|known| U256::from(*known as u8) == *role)?;
    let key: [u8; 32] = key.as_slice().try_into().ok()?;
    let terms = Terms { dkim_key: (key != [0; 32]).then_some(key), ..Terms::of(role) };
    Some(revoked.is_zero().then_some(terms))
}

/// Address of the contract that a transaction has created, and its block.
fn created(action: &'static str, mined: Mined) -> Result<(Address, u64), LedgerError> {
    let address =
        mined.created.ok_or(LedgerError::Answer { action, rule: "the new contract's address".to_owned() })?;
    Ok((address, mined.block_number))
}
