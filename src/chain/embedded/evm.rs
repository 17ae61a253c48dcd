// SPDX-License-Identifier: Apache-2.0
//! Holds the state of the embedded chain and runs the EVM that changes it. Pure.
//!
//! Running a transaction changes nothing until its outcome is committed.
//!
//! Blocks and files are left to `chain`.

use revm::{
    Context, DatabaseCommit, ExecuteEvm, MainBuilder, MainContext,
    context::{
        BlockEnv, TxEnv,
        result::{ExecutionResult, HaltReason, InvalidTransaction, Output, ResultAndState},
        transaction::{AccessList, AccessListItem},
    },
    context_interface::result::EVMError,
    database::{CacheDB, EmptyDB},
    primitives::{Address as EvmAddress, B256, TxKind, U256 as EvmU256},
    state::AccountInfo,
};
use web3::types::{Address, H256, U256};

use crate::embedded::{
    block::{BASE_FEE, GAS_LIMIT, LogEntry},
    transaction::Transaction,
};

/// Initial balance of the funded account [wei]: a million ether, enough for some 30 billion anchors.
const FUNDS: u128 = 1_000_000_000_000_000_000_000_000;

/// A call in the form that the EVM takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    pub from: Address,
    pub to: Option<Address>,
    pub gas: u64,
    pub value: U256,
    pub data: Vec<u8>,
}

/// Result of running a call or a transaction.
#[derive(Debug)]
pub(super) struct Outcome {
    pub success: bool,
    /// Why it did not run to its end, if it was not a revert.
    pub halted: Option<String>,
    pub gas_used: u64,
    /// Most gas needed at any point, before refunds.
    pub gas_peak: u64,
    /// Data returned, or data of the revert.
    pub output: Vec<u8>,
    pub created: Option<Address>,
    pub logs: Vec<LogEntry>,
    changes: revm::state::EvmState,
}

/// Accounts, code and storage.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct State {
    chain_id: u64,
    db: CacheDB<EmptyDB>,
}

impl State {
    pub fn new(chain_id: u64, funded: Address) -> Self {
        let mut db = CacheDB::new(EmptyDB::new());
        db.insert_account_info(address(funded), AccountInfo::from_balance(EvmU256::from(FUNDS)));
        Self { chain_id, db }
    }

    /// Runs a transaction without changing the state.
    pub fn run(
        &self,
        transaction: &Transaction,
        number: u64,
        timestamp: u64,
    ) -> Result<Outcome, InvalidTransaction> {
        let item = |(account, keys): &(Address, Vec<H256>)| AccessListItem {
            address: address(*account),
            storage_keys: keys.iter().map(|key| B256::from(key.0)).collect(),
        };
        let tx = TxEnv {
            tx_type: 2,
            caller: address(transaction.from),
            gas_limit: transaction.gas,
            gas_price: transaction.max_fee,
            gas_priority_fee: Some(transaction.max_priority_fee),
            kind: kind(transaction.to),
            value: number256(transaction.value),
            data: transaction.data.clone().into(),
            nonce: transaction.nonce,
            chain_id: Some(transaction.chain_id),
            access_list: AccessList(transaction.access_list.iter().map(item).collect()),
            ..TxEnv::default()
        };
        self.execute(tx, number, timestamp, BASE_FEE, false)
    }

    /// Runs a call, which needs no nonce and pays no fee.
    pub fn call(
        &self,
        message: &Message,
        number: u64,
        timestamp: u64,
    ) -> Result<Outcome, InvalidTransaction> {
        let tx = TxEnv {
            caller: address(message.from),
            gas_limit: message.gas,
            kind: kind(message.to),
            value: number256(message.value),
            data: message.data.clone().into(),
            chain_id: Some(self.chain_id),
            ..TxEnv::default()
        };
        self.execute(tx, number, timestamp, 0, true)
    }

    /// Applies the changes of an outcome of [`run`](Self::run).
    pub fn commit(&mut self, outcome: Outcome) {
        self.db.commit(outcome.changes);
    }

    pub fn nonce(&self, account: Address) -> u64 {
        self.info(account).map_or(0, |info| info.nonce)
    }

    pub fn balance(&self, account: Address) -> U256 {
        self.info(account)
            .map_or_else(U256::zero, |info| U256::from_big_endian(&info.balance.to_be_bytes::<32>()))
    }

    pub fn code(&self, account: Address) -> Vec<u8> {
        let code = self.info(account).and_then(|info| self.db.cache.contracts.get(&info.code_hash));
        code.map(|code| code.original_bytes().to_vec()).unwrap_or_default()
    }

    /// Word of a contract's storage; zero where nothing was written.
    pub fn storage(&self, account: Address, slot: U256) -> H256 {
        let account = self.db.cache.accounts.get(&address(account));
        let word = account.and_then(|account| account.storage.get(&number256(slot)));
        H256(word.copied().unwrap_or_default().to_be_bytes())
    }

    fn info(&self, account: Address) -> Option<&AccountInfo> {
        self.db.cache.accounts.get(&address(account)).map(|account| &account.info)
    }

    fn execute(
        &self,
        tx: TxEnv,
        number: u64,
        timestamp: u64,
        base_fee: u64,
        free_nonce: bool,
    ) -> Result<Outcome, InvalidTransaction> {
        let block = BlockEnv {
            number: EvmU256::from(number),
            timestamp: EvmU256::from(timestamp),
            gas_limit: GAS_LIMIT,
            basefee: base_fee,
            ..BlockEnv::default()
        };
        let mut evm = Context::mainnet()
            .with_ref_db(&self.db)
            .with_block(block)
            .modify_cfg_chained(|cfg| {
                cfg.chain_id = self.chain_id;
                cfg.disable_nonce_check = free_nonce;
            })
            .build_mainnet();
        match evm.transact(tx) {
            Ok(done) => Ok(outcome(done)),
            Err(EVMError::Transaction(invalid)) => Err(invalid),
            Err(error) => Err(InvalidTransaction::Str(error.to_string().into())),
        }
    }
}

fn outcome(done: ResultAndState) -> Outcome {
    let gas = done.result.gas();
    let (gas_used, gas_peak) = (gas.tx_gas_used(), gas.total_gas_spent().max(gas.floor_gas()));
    let halted = match &done.result {
        ExecutionResult::Halt { reason: HaltReason::OutOfGas(_), .. } => Some("out of gas".to_owned()),
        ExecutionResult::Halt { reason, .. } => Some(format!("execution halted: {reason:?}")),
        _ => None,
    };
    let (success, logs, output, created) = match done.result {
        ExecutionResult::Success { logs, output: Output::Call(data), .. } => (true, logs, data, None),
        ExecutionResult::Success { logs, output: Output::Create(data, created), .. } => {
            (true, logs, data, created)
        }
        // A revert also undoes what was logged before it.
        ExecutionResult::Revert { output, .. } => (false, Vec::new(), output, None),
        ExecutionResult::Halt { .. } => (false, Vec::new(), revm::primitives::Bytes::new(), None),
    };
    let entry = |log: revm::primitives::Log| LogEntry {
        address: Address::from(log.address.into_array()),
        topics: log.topics().iter().map(|topic| H256(topic.0)).collect(),
        data: log.data.data.to_vec(),
    };
    Outcome {
        success,
        halted,
        gas_used,
        gas_peak,
        output: output.to_vec(),
        created: created.map(|address| Address::from(address.into_array())),
        logs: logs.into_iter().map(entry).collect(),
        changes: done.state,
    }
}

fn address(address: Address) -> EvmAddress {
    EvmAddress::from(address.0)
}

fn kind(to: Option<Address>) -> TxKind {
    to.map_or(TxKind::Create, |to| TxKind::Call(address(to)))
}

fn number256(number: U256) -> EvmU256 {
    EvmU256::from_limbs(number.0)
}
