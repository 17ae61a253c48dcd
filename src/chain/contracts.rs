// SPDX-License-Identifier: Apache-2.0
//! Loads the two contracts' committed artifacts, stores their addresses, and decodes why they revert.
//!
//! The addresses file is always complete or absent.
//!
//! Calling the contracts is left to [`super::client`].

use std::{fmt, fs, io, path::Path};

use evidence::eip55::to_eip55;
use record_log::replace_file;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use web3::{
    ethabi::{Contract, Token},
    types::{Address, Bytes, H256, U256},
};

use crate::LedgerError;

const EVIDENCE_LEDGER: &str = include_str!("../../contracts/artifacts/EvidenceLedger.json");
const SENDER_REGISTRY: &str = include_str!("../../contracts/artifacts/SenderRegistry.json");
/// As the first version had it.
const SENDER_REGISTRY_V1: &str = include_str!("../../contracts/artifacts/v1/SenderRegistry.json");

/// A compiled contract.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Artifact {
    pub abi: Contract,
    /// Code of the transaction that deploys it.
    pub bytecode: Bytes,
}

/// A number as the ABI and the storage of contracts have it: 32 bytes, big-endian.
pub fn word(number: impl Into<U256>) -> [u8; 32] {
    let mut word = [0; 32];
    number.into().to_big_endian(&mut word);
    word
}

impl Artifact {
    /// Parses the artifact of `EvidenceLedger.sol`.
    pub fn evidence_ledger() -> Result<Self, LedgerError> {
        Self::parse(EVIDENCE_LEDGER)
    }

    /// Parses the artifact of `SenderRegistry.sol`.
    pub fn sender_registry() -> Result<Self, LedgerError> {
        Self::parse(SENDER_REGISTRY)
    }

    /// Parses the artifact of the first version of `SenderRegistry.sol`.
    pub fn sender_registry_v1() -> Result<Self, LedgerError> {
        Self::parse(SENDER_REGISTRY_V1)
    }

    /// The data of the transaction that deploys it.
    pub fn deployment(&self, arguments: &[Token]) -> Result<Vec<u8>, LedgerError> {
        let Some(constructor) = &self.abi.constructor else { return Ok(self.bytecode.0.clone()) };
        let data = constructor.encode_input(self.bytecode.0.clone(), arguments);
        data.map_err(|why| LedgerError::Artifact(why.to_string()))
    }

    fn parse(json: &str) -> Result<Self, LedgerError> {
        serde_json::from_str(json).map_err(|why| LedgerError::Artifact(why.to_string()))
    }

    /// Encodes a call of `function` with these arguments.
    pub fn encode(&self, function: &str, arguments: &[Token]) -> Result<Vec<u8>, LedgerError> {
        let encoded = self.abi.function(function).and_then(|function| function.encode_input(arguments));
        encoded.map_err(|why| LedgerError::Artifact(why.to_string()))
    }

    /// Topic of an event in logs.
    pub fn topic(&self, event: &str) -> Result<H256, LedgerError> {
        let event = self.abi.event(event);
        event.map(|event| event.signature()).map_err(|why| LedgerError::Artifact(why.to_string()))
    }

    /// Decodes what a call of `function` returned.
    pub fn decode(&self, function: &'static str, data: &[u8]) -> Result<Vec<Token>, LedgerError> {
        let function_abi =
            self.abi.function(function).map_err(|why| LedgerError::Artifact(why.to_string()))?;
        function_abi
            .decode_output(data)
            .map_err(|why| LedgerError::Answer { action: function, rule: format!("decodable: {why}") })
    }
}

/// Why a contract reverted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revert {
    /// The account may not anchor.
    NotAnchorer(Address),
    /// The account may not register and revoke.
    NotRegistrar(Address),
    /// The batch is anchored already, or would leave a gap.
    OutOfOrder {
        /// Index of the first leaf that is not anchored.
        next: u64,
        /// Index of the batch's first leaf.
        first: u64,
    },
    /// The batch has no leaves.
    EmptyBatch,
    /// The role does not exist.
    BadRole(u8),
    /// The validity ends before it begins.
    BadValidity {
        /// Its begin [s since 1970].
        from: u64,
        /// Its end [s since 1970].
        until: u64,
    },
    /// The sender was revoked, or registered again, after the registrar had looked.
    Outdated,
    /// Any other reason, in the node's words.
    Other(String),
}

impl fmt::Display for Revert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnchorer(account) => {
                write!(
                    f,
                    "account {} may not anchor; the owner says who may (setAnchorer)",
                    to_eip55(&account.0)
                )
            }
            Self::NotRegistrar(account) => {
                let account = to_eip55(&account.0);
                write!(f, "account {account} may not register; the owner says who may (setRegistrar)")
            }
            Self::OutOfOrder { next, first } => {
                write!(f, "the batch begins at leaf {first}, must begin at {next}")
            }
            Self::EmptyBatch => write!(f, "the batch has no leaves, must have at least 1"),
            Self::BadRole(role) => {
                write!(f, "role {role} does not exist, must be 1 (observer) or 2 (operator)")
            }
            Self::BadValidity { from, until } => {
                write!(f, "the validity ends at {until} s since 1970, must end after its begin at {from} s")
            }
            Self::Outdated => {
                write!(
                    f,
                    "the sender was revoked or registered by somebody else meanwhile; look, and register again"
                )
            }
            Self::Other(reason) => write!(f, "{reason}"),
        }
    }
}

impl Revert {
    /// Finds the revert data in a JSON-RPC error. Nodes put it in different places, so the first hex string in `data`
    /// is taken.
    pub(super) fn from_rpc(message: &str, data: Option<&Value>) -> Self {
        let hex = |value: &Value| {
            serde_json::from_value::<Bytes>(value.clone()).ok().filter(|bytes| bytes.0.len() >= 4)
        };
        let bytes = data.and_then(|data| {
            let inner = data.as_object().into_iter().flat_map(|fields| fields.values());
            std::iter::once(data).chain(inner).find_map(hex)
        });
        bytes.and_then(|bytes| Self::decode(&bytes.0)).unwrap_or_else(|| Self::Other(message.to_owned()))
    }

    fn decode(data: &[u8]) -> Option<Self> {
        let (selector, arguments) = data.split_first_chunk::<4>()?;
        let artifacts = [Artifact::evidence_ledger().ok()?, Artifact::sender_registry().ok()?];
        let error = artifacts
            .iter()
            .flat_map(|artifact| artifact.abi.errors())
            .find(|error| error.signature().as_bytes().starts_with(selector))?;
        let number = |number: &U256| u64::try_from(*number).ok();
        match (error.name.as_str(), error.decode(arguments).ok()?.as_slice()) {
            ("NotAnchorer", [Token::Address(account)]) => Some(Self::NotAnchorer(*account)),
            ("NotRegistrar", [Token::Address(account)]) => Some(Self::NotRegistrar(*account)),
            ("OutOfOrder", [Token::Uint(next), Token::Uint(first)]) => {
                Some(Self::OutOfOrder { next: number(next)?, first: number(first)? })
            }
            ("EmptyBatch", []) => Some(Self::EmptyBatch),
            ("BadRole", [Token::Uint(role)]) => Some(Self::BadRole(u8::try_from(*role).ok()?)),
            ("BadValidity", [Token::Uint(from), Token::Uint(until)]) => {
                Some(Self::BadValidity { from: number(from)?, until: number(until)? })
            }
            ("Outdated", _) => Some(Self::Outdated),
            _ => None,
        }
    }
}

/// Addresses of contracts that are deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contracts {
    /// The sender registry.
    pub registry: [u8; 20],
    /// The evidence ledger.
    pub ledger: [u8; 20],
}

/// Addresses of the contracts, stored as `contracts.json` in the state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// Chain id (EIP-155).
    pub chain_id: u64,
    /// Address of `SenderRegistry`.
    pub sender_registry: Address,
    /// Address of `EvidenceLedger`.
    pub evidence_ledger: Address,
    /// Block that deployed `EvidenceLedger`, where searches for its events end; 0 if the addresses were given as
    /// parameters.
    pub deployed_block: u64,
    /// Whether an operator wants new contracts in place of those of version 1 among these.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// The registry of version 1 some of whose senders this one may not have yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub senders_of: Option<OldRegistry>,
}

/// A registry of version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldRegistry {
    /// Its address.
    pub address: Address,
    /// Block from which on it may have registrations.
    pub from_block: u64,
}

/// The file while contracts are to be deployed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new_registry: Option<Address>,
}

/// What `contracts.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Addresses(Addresses),
    /// It is `{}`: there are none yet, or an operator asks for new ones; `registry` is deployed already.
    NewWanted {
        registry: Option<Address>,
    },
    /// There is no such file.
    Missing,
}

impl Addresses {
    /// These contracts, which replace none.
    pub(super) fn new(
        chain_id: u64,
        sender_registry: Address,
        evidence_ledger: Address,
        deployed_block: u64,
    ) -> Self {
        let (replace, senders_of) = (false, None);
        Self { chain_id, sender_registry, evidence_ledger, deployed_block, replace, senders_of }
    }

    /// Reads the file.
    pub(super) fn load(path: &Path) -> Result<Kept, LedgerError> {
        let failed = |why: String| LedgerError::State { path: path.to_owned(), reason: why };
        match fs::read(path) {
            Ok(bytes) if let Ok(Wanted { new_registry }) = serde_json::from_slice(&bytes) => {
                Ok(Kept::NewWanted { registry: new_registry })
            }
            Ok(bytes) => {
                let addresses = serde_json::from_slice(&bytes).map(Kept::Addresses);
                addresses.map_err(|why| failed(format!("must be JSON: {why}")))
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Kept::Missing),
            Err(why) => Err(failed(format!("cannot be read: {why}"))),
        }
    }

    /// Writes that there are none yet, but for the registry if that is given.
    pub(super) fn want_new(path: &Path, new_registry: Option<Address>) -> Result<(), LedgerError> {
        replace(path, &Wanted { new_registry })
    }

    /// Replaces the file atomically.
    pub(super) fn store(&self, path: &Path) -> Result<(), LedgerError> {
        replace(path, self)
    }
}

fn replace(path: &Path, content: &impl Serialize) -> Result<(), LedgerError> {
    let text = serde_json::to_string_pretty(content).map_err(io::Error::from);
    let written = text.and_then(|text| replace_file(path, format!("{text}\n").as_bytes()));
    written.map_err(|why| LedgerError::State {
        path: path.to_owned(),
        reason: format!("cannot be written: {why}"),
    })
}
