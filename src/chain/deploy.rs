// SPDX-License-Identifier: Apache-2.0
//! Finds the two contracts: those that are given, those of `contracts.json`, or new ones. New ones can replace contracts of
//! the first version and take over the senders; only an operator starts that, as it costs fees, and a node that lies
//! about a version could have its own senders taken over.
//!
//! `contracts.json` names new contracts as soon as they are deployed, and says whose senders they do not have yet. Whatever
//! cuts that short, the next start goes on where it ended.

use std::{collections::BTreeSet, path::Path};

use evidence::eip55::to_eip55;
use mail::Role;
use web3::{
    Web3,
    ethabi::Token,
    types::{Address, U256},
};

use crate::{
    Addresses, Connection, Contracts, LedgerError, Mined, Sender, Terms,
    account::{Call, action},
    contracts::{Artifact, Kept, OldRegistry},
    lane::{Ended, Lane},
    queries::{LOG_RANGE, call, logs, newest_block},
    registry::{find, registering, revoking},
};

/// Version of the contracts that this program calls.
const VERSION: u64 = 2;
/// Registrations that are sent to a new registry before one of them is waited for; nodes keep 16 transactions of an
/// account and perhaps more.
const TOGETHER: usize = 16;

const LOOK: &str = "look for the contracts";
const READ_OLD: &str = "read the old registry";

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
                (Kept::Addresses(Addresses::new(self.chain_id, registry.into(), ledger.into(), 0)), true)
            }
            None => (Addresses::load(path)?, false),
        };
        let addresses = match known {
            Kept::Addresses(addresses) => addresses,
            Kept::Missing => return Err(LedgerError::LostContracts { path: path.to_owned() }),
            Kept::NewWanted { registry: None } => {
                // Both at a time.
                let (registry, ledger) = (self.deploy_registry()?, self.deploy_ledger()?);
                let (registry, _) = created(action::DEPLOY_REGISTRY, registry.await?)?;
                Addresses::want_new(path, Some(registry))?;
                return self.deployed(registry, ledger, path).await;
            }
            Kept::NewWanted { registry: Some(registry) } => {
                return self.deployed(registry, self.deploy_ledger()?, path).await;
            }
        };
        if addresses.chain_id != self.chain_id {
            let (path, expected, found) = (path.to_owned(), addresses.chain_id, self.chain_id);
            return Err(LedgerError::WrongChain { path, expected, found });
        }
        // Asked first: the node may get the block meanwhile. An embedded chain gets none from anybody.
        let is_behind = matches!(self.web3.transport(), Connection::Http(_))
            && newest_block(self.web3, LOOK).await? < addresses.deployed_block;
        let mut is_old = [false; 2];
        for (is_old, (contract, address, parameter)) in is_old.iter_mut().zip([
            ("SenderRegistry", addresses.sender_registry, "registry_address"),
            ("EvidenceLedger", addresses.evidence_ledger, "ledger_address"),
        ]) {
            let place = match is_given {
                true => format!("parameter '{parameter}'"),
                false => format!("'{}'", path.display()),
            };
            match self.version(address).await? {
                None if is_behind => {
                    return Err(LedgerError::Behind { action: LOOK, deployed: addresses.deployed_block });
                }
                None => {
                    let chain_id = self.chain_id;
                    return Err(LedgerError::NoCode { place, contract, address, chain_id });
                }
                Some(VERSION) => {}
                Some(1) if addresses.replace => *is_old = true,
                Some(version) => {
                    let wanted = VERSION;
                    return Err(LedgerError::OtherVersion { place, contract, address, version, wanted });
                }
            }
        }
        let mut addresses = match is_old {
            [false, false] => addresses,
            is_old => self.replace(&addresses, is_old, path).await?,
        };
        if let Some(old) = addresses.senders_of {
            self.take_over(old, addresses.sender_registry).await?;
            addresses.senders_of = None;
            addresses.store(path)?;
        }
        Ok(addresses)
    }

    /// Version of the contract at this address; `None` if there is none.
    async fn version(&self, address: Address) -> Result<Option<u64>, LedgerError> {
        let code = self.web3.eth().code(address, None).await;
        if code.map_err(|error| LedgerError::from_web3(LOOK, error))?.0.is_empty() {
            return Ok(None);
        }
        match call(self.web3, address, self.registry, "VERSION", &[]).await {
            Ok(answer) => match answer.as_slice() {
                [Token::Uint(version)] => Ok(Some(u64::try_from(*version).unwrap_or(u64::MAX))),
                _ => Err(LedgerError::Answer { action: LOOK, rule: "a version".to_owned() }),
            },
            // The first one has no such function.
            Err(LedgerError::Reverted { .. }) => Ok(Some(1)),
            Err(error) => Err(error),
        }
    }

    /// Waits for the ledger, the last of new contracts, and writes the file.
    async fn deployed(
        &self,
        registry: Address,
        ledger: impl Future<Output = Ended>,
        path: &Path,
    ) -> Result<Addresses, LedgerError> {
        let (ledger, block) = created(action::DEPLOY_LEDGER, ledger.await?)?;
        let addresses = Addresses::new(self.chain_id, registry, ledger, block);
        addresses.store(path)?;
        Ok(addresses)
    }

    fn deploy_registry(&self) -> Result<impl Future<Output = Ended> + use<>, LedgerError> {
        let data = self.registry.deployment(&[Token::Address(self.registrar.1)])?;
        Ok(self.lane.send(Call { action: action::DEPLOY_REGISTRY, to: None, data }, None))
    }

    fn deploy_ledger(&self) -> Result<impl Future<Output = Ended> + use<>, LedgerError> {
        let data = self.evidence.deployment(&[])?;
        Ok(self.lane.send(Call { action: action::DEPLOY_LEDGER, to: None, data }, None))
    }

    /// Deploys a new registry, a new ledger or both, in place of those that are old, and writes the file.
    async fn replace(
        &self,
        old: &Addresses,
        [registry, ledger]: [bool; 2],
        path: &Path,
    ) -> Result<Addresses, LedgerError> {
        // Those of an attempt before this one stay.
        let kept = path.with_file_name("contracts-v1.json");
        if !kept.exists() {
            old.store(&kept)?;
        }
        let mut new = old.clone();
        if registry {
            let from_block = old.deployed_block;
            let predecessor = OldRegistry { address: old.sender_registry, from_block };
            let count = self.old_digests(predecessor).await?.len();
            let registry = to_eip55(&old.sender_registry.0);
            tracing::info!(registry, count, "a registry of version 1 is replaced, as contracts.json asks");
            if count == 0 {
                return Err(LedgerError::NoSenders { registry, from_block });
            }
            new.senders_of = Some(predecessor);
            (new.sender_registry, _) = created(action::DEPLOY_REGISTRY, self.deploy_registry()?.await?)?;
            new.replace = ledger;
            new.store(path)?;
        }
        if ledger {
            let ledger = to_eip55(&old.evidence_ledger.0);
            tracing::info!(ledger, "a ledger of version 1 is replaced, as contracts.json asks");
            (new.evidence_ledger, new.deployed_block) =
                created(action::DEPLOY_LEDGER, self.deploy_ledger()?.await?)?;
            new.replace = false;
            new.store(path)?;
        }
        Ok(new)
    }

    /// Registers and revokes in the registry `new` whom it does not have of an old one.
    async fn take_over(&self, old: OldRegistry, new: Address) -> Result<(), LedgerError> {
        let senders = self.old_senders(old).await?;
        let lane = self.registrar.0;
        let mut sent = Vec::new();
        for some in senders.chunks(TOGETHER) {
            // What was sent before, perhaps by an earlier process, is in a block.
            lane.rest().await?;
            let digests = some.iter().map(|sender| sender.digest);
            let (_, known) = find(self.web3, new, self.registry, digests).await?;
            for (sender, known) in some.iter().zip(known) {
                let OldSender { digest, terms, revoked_at } = sender;
                let is_revoked_since = revoked_at.is_some_and(|at| {
                    known.revoked_at.is_none() && known.registered_at.is_some_and(|time| time <= at)
                });
                let call = match revoked_at {
                    None if known == Sender::default() => {
                        registering(self.registry, new, *digest, terms, None)?
                    }
                    Some(_) if known == Sender::default() || is_revoked_since => {
                        revoking(self.registry, new, *digest)?
                    }
                    _ => continue,
                };
                sent.push(lane.send(call, None));
            }
        }
        for one in sent {
            one.await?;
        }
        tracing::info!(count = senders.len(), "the new registry has all senders of the old one");
        Ok(())
    }

    /// Whom a registry of the first version ever had.
    async fn old_digests(&self, old: OldRegistry) -> Result<BTreeSet<[u8; 32]>, LedgerError> {
        let registered = Artifact::sender_registry_v1()?.topic("Registered")?;
        let newest = newest_block(self.web3, READ_OLD).await?;
        // The block is that of the ledger, which was deployed beside the registry.
        let (mut from, mut digests) = (old.from_block.saturating_sub(LOG_RANGE), BTreeSet::new());
        while from <= newest {
            let to = from.saturating_add(LOG_RANGE - 1).min(newest);
            let logs = logs(self.web3, READ_OLD, old.address, (registered, None), (from, to)).await?;
            digests.extend(logs.iter().filter_map(|log| log.topics.get(1)).map(|digest| digest.0));
            from = to.saturating_add(1);
        }
        Ok(digests)
    }

    /// The senders of a registry of the first version.
    async fn old_senders(&self, old: OldRegistry) -> Result<Vec<OldSender>, LedgerError> {
        let (digests, artifact) = (self.old_digests(old).await?, Artifact::sender_registry_v1()?);
        let mut senders = Vec::with_capacity(digests.len());
        for digest in digests {
            let arguments = [Token::FixedBytes(digest.to_vec())];
            let answer = call(self.web3, old.address, &artifact, "sender", &arguments).await?;
            let bad =
                || LedgerError::Answer { action: READ_OLD, rule: "a registration of version 1".to_owned() };
            senders.push(OldSender::parse(digest, &answer).ok_or_else(bad)?);
        }
        Ok(senders)
    }
}

/// A sender in a registry of the first version.
struct OldSender {
    digest: [u8; 32],
    terms: Terms,
    revoked_at: Option<u64>,
}

impl OldSender {
    /// Reads what the registry answers about a sender that was registered.
    fn parse(digest: [u8; 32], answer: &[Token]) -> Option<Self> {
        let [Token::Uint(role), Token::Uint(_), Token::Uint(revoked_at), Token::FixedBytes(key)] = answer
        else {
            return None;
        };
        let role =
            [Role::Observer, Role::Operator].into_iter().find(|known| U256::from(*known as u8) == *role)?;
        let key: [u8; 32] = key.as_slice().try_into().ok()?;
        let terms = Terms { dkim_key: (key != [0; 32]).then_some(key), ..Terms::of(role) };
        let revoked_at = Some(u64::try_from(*revoked_at).ok()?).filter(|time| *time != 0);
        Some(Self { digest, terms, revoked_at })
    }
}

/// Address of the contract that a transaction has created, and its block.
fn created(action: &'static str, mined: Mined) -> Result<(Address, u64), LedgerError> {
    let address =
        mined.created.ok_or(LedgerError::Answer { action, rule: "the new contract's address".to_owned() })?;
    Ok((address, mined.block_number))
}
