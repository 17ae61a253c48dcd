// SPDX-License-Identifier: Apache-2.0
//! Answers JSON-RPC requests to the embedded chain as the execution API specifies. Pure except for mining.
//!
//! Errors use go-ethereum's words, which clients look for. Only the newest state is kept: who asks for that of an
//! older block gets an error.
//!
//! State, blocks and files are left to `evm` and `chain`, HTTP to `server`.

use std::time::SystemTime;

use alloy_consensus::TxReceipt;
use jsonrpc_core::{Error, ErrorCode, Value};
use revm::context::result::InvalidTransaction;
use serde::de::DeserializeOwned;
use serde_json::json;
use web3::types::{Address, Bytes, H256, U64, U256};

use crate::embedded::{
    block::{BASE_FEE, Block, GAS_LIMIT},
    chain::{Chain, MineError},
    evm::{Message, Outcome},
    transaction::Transaction,
};
use crate::error::STORAGE_FAILED;

/// Suggested tip, which is always enough [wei].
const TIP: u64 = 1;
/// Maximum number of logs that one answer has.
const MAX_LOGS: usize = 10_000;
/// Maximum numbers of blocks and of percentiles that `eth_feeHistory` tells of, as in go-ethereum.
const MAX_FEE_BLOCKS: u64 = 1024;
const MAX_PERCENTILES: usize = 100;

/// Answers one request; `now` is the time of the block that it may mine.
pub(super) fn answer(
    chain: &mut Chain,
    method: &str,
    params: &[Value],
    now: SystemTime,
) -> Result<Value, Error> {
    let head = chain.head_number();
    match method {
        "web3_clientVersion" => Ok(json!(concat!("posthorn/", env!("CARGO_PKG_VERSION")))),
        "eth_chainId" => Ok(json!(U64::from(chain.genesis.chain_id))),
        "net_version" => Ok(json!(chain.genesis.chain_id.to_string())),
        "eth_syncing" => Ok(json!(false)),
        "eth_accounts" => Ok(json!([])),
        "eth_blockNumber" => Ok(json!(U64::from(head))),
        "eth_gasPrice" => Ok(json!(U256::from(BASE_FEE + TIP))),
        "eth_maxPriorityFeePerGas" => Ok(json!(U256::from(TIP))),
        "eth_feeHistory" => fee_history(chain, params),
        "eth_getTransactionCount" => {
            newest_only(chain, params.get(1))?;
            Ok(json!(U256::from(chain.state.nonce(param(params, 0)?))))
        }
        "eth_getBalance" => {
            newest_only(chain, params.get(1))?;
            Ok(json!(chain.state.balance(param(params, 0)?)))
        }
        "eth_getCode" => {
            newest_only(chain, params.get(1))?;
            Ok(json!(Bytes(chain.state.code(param(params, 0)?))))
        }
        "eth_getStorageAt" => {
            newest_only(chain, params.get(2))?;
            Ok(json!(chain.state.storage(param(params, 0)?, param(params, 1)?)))
        }
        "eth_call" => {
            newest_only(chain, params.get(1))?;
            without_overrides(params)?;
            call(chain, &message(params)?).map(|outcome| json!(Bytes(outcome.output)))
        }
        "eth_estimateGas" => {
            newest_only(chain, params.get(1))?;
            without_overrides(params)?;
            estimate(chain, message(params)?)
        }
        "eth_sendRawTransaction" => send(chain, &param::<Bytes>(params, 0)?.0, now),
        "eth_getTransactionReceipt" => Ok(found(chain, param(params, 0)?, receipt)),
        "eth_getTransactionByHash" => Ok(found(chain, param(params, 0)?, transaction)),
        "eth_getBlockByNumber" => {
            let number = block_number(params.first(), head)?;
            Ok(block(chain, number, param(params, 1).unwrap_or(false)))
        }
        "eth_getBlockByHash" => {
            let number = chain.number_of(param(params, 0)?);
            Ok(number.map_or(Value::Null, |number| block(chain, number, param(params, 1).unwrap_or(false))))
        }
        "eth_getBlockReceipts" => {
            let number = block_number(params.first(), head)?;
            let receipts = chain.block(number).map(|block| receipt(chain, block, block.transaction_hash()));
            Ok(if number > head { Value::Null } else { receipts.into_iter().collect() })
        }
        "eth_getLogs" => logs(chain, params.first().unwrap_or(&Value::Null)),
        _ => Err(error(-32601, format!("the method {method} does not exist/is not available"))),
    }
}

pub(super) fn error(code: i64, message: impl Into<String>) -> Error {
    Error { code: ErrorCode::from(code), message: message.into(), data: None }
}

fn param<T: DeserializeOwned>(params: &[Value], index: usize) -> Result<T, Error> {
    let value = params.get(index).cloned().unwrap_or(Value::Null);
    serde_json::from_value(value).map_err(|why| error(-32602, format!("invalid argument {index}: {why}")))
}

fn message(params: &[Value]) -> Result<Message, Error> {
    let fields: serde_json::Map<String, Value> = param(params, 0)?;
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null()).cloned().map(|value| [value]);
    let gas = field("gas").map(|value| param::<U64>(&value, 0)).transpose()?;
    let data = field("input").or_else(|| field("data")).map(|value| param::<Bytes>(&value, 0)).transpose()?;
    Ok(Message {
        from: field("from").map(|value| param(&value, 0)).transpose()?.unwrap_or_default(),
        to: field("to").map(|value| param(&value, 0)).transpose()?,
        gas: gas.map_or(GAS_LIMIT, |gas| gas.as_u64().min(GAS_LIMIT)),
        value: field("value").map(|value| param(&value, 0)).transpose()?.unwrap_or_default(),
        data: data.unwrap_or_default().0,
    })
}

fn call(chain: &Chain, message: &Message) -> Result<Outcome, Error> {
    let (number, timestamp) = (chain.head_number(), chain.head_timestamp());
    let outcome =
        chain.state.call(message, number, timestamp).map_err(|invalid| error(-32000, text(&invalid)))?;
    if outcome.success {
        return Ok(outcome);
    }
    if let Some(reason) = outcome.halted {
        return Err(error(-32000, reason));
    }
    let data = Some(json!(Bytes(outcome.output)));
    Err(Error { code: ErrorCode::from(3), message: "execution reverted".into(), data })
}

/// Finds the least gas with which the message succeeds.
fn estimate(chain: &Chain, mut message: Message) -> Result<Value, Error> {
    let (mut low, mut high) = (call(chain, &message)?.gas_peak.saturating_sub(1), message.gas);
    // More than the peak is needed only if a call withholds a 64th of its gas (EIP-150).
    message.gas = low + 1;
    if call(chain, &message).is_ok() {
        return Ok(json!(U256::from(message.gas)));
    }
    while low + 1 < high {
        message.gas = low.midpoint(high);
        *if call(chain, &message).is_ok() { &mut high } else { &mut low } = message.gas;
    }
    Ok(json!(U256::from(high)))
}

fn send(chain: &mut Chain, raw: &[u8], now: SystemTime) -> Result<Value, Error> {
    let transaction = Transaction::decode(raw).map_err(|why| error(-32000, why.to_string()))?;
    match chain.mine(&transaction, raw, now) {
        Ok(()) => Ok(json!(transaction.hash)),
        Err(MineError::Invalid(invalid)) => Err(error(-32000, text(&invalid))),
        Err(failure @ MineError::Log(_)) => Err(error(STORAGE_FAILED, failure.to_string())),
        Err(refusal) => Err(error(-32000, refusal.to_string())),
    }
}

/// Describes the error in go-ethereum's words, which clients look for.
fn text(invalid: &InvalidTransaction) -> String {
    match invalid {
        InvalidTransaction::NonceTooLow { tx, state } => {
            format!("nonce too low: next nonce {state}, tx nonce {tx}")
        }
        InvalidTransaction::NonceTooHigh { tx, state } => {
            format!("nonce too high: next nonce {state}, tx nonce {tx}")
        }
        InvalidTransaction::LackOfFundForMaxFee { fee, balance } => {
            format!("insufficient funds for gas * price + value: balance {balance}, tx cost {fee}")
        }
        InvalidTransaction::InvalidChainId => "invalid chain id for signer".into(),
        InvalidTransaction::GasPriceLessThanBasefee => {
            format!("max fee per gas less than block base fee: baseFee {BASE_FEE}")
        }
        InvalidTransaction::CallGasCostMoreThanGasLimit { .. }
        | InvalidTransaction::GasFloorMoreThanGasLimit { .. } => format!("intrinsic gas too low: {invalid}"),
        other => other.to_string(),
    }
}

/// The base fee never changes, and no block is full.
fn fee_history(chain: &Chain, params: &[Value]) -> Result<Value, Error> {
    let head = chain.head_number();
    let last = block_number(params.get(1), head)?;
    if last > head {
        return Err(error(-32000, format!("request beyond head block: requested {last}, head {head}")));
    }
    let wanted = match params.first() {
        Some(Value::Number(number)) => number.as_u64().unwrap_or(0),
        _ => param::<U64>(params, 0)?.as_u64(),
    };
    let blocks = wanted.min(MAX_FEE_BLOCKS).min(last + 1);
    let oldest = last + 1 - blocks;
    let percentiles: Option<Vec<f64>> = param(params, 2)?;
    if percentiles.as_ref().is_some_and(|list| list.len() > MAX_PERCENTILES) {
        return Err(error(-32602, format!("invalid argument 2: at most {MAX_PERCENTILES} percentiles")));
    }
    let gas = |number| chain.block(number).map_or(0, |block| block.gas_used);
    let fees = vec![json!(U256::from(BASE_FEE)); usize::try_from(blocks).unwrap_or(0) + 1];
    #[expect(clippy::cast_precision_loss, reason = "gas is below 2^53")]
    let ratios: Vec<_> = (oldest..=last).map(|number| gas(number) as f64 / GAS_LIMIT as f64).collect();
    let mut history = json!({
        "oldestBlock": U64::from(oldest),
        "baseFeePerGas": fees,
        "gasUsedRatio": ratios,
    });
    if let (Some(percentiles), Value::Object(fields)) = (percentiles, &mut history) {
        let tips = vec![json!(U256::from(TIP)); percentiles.len()];
        fields.insert("reward".to_owned(), json!(ratios.iter().map(|_| &tips).collect::<Vec<_>>()));
    }
    Ok(history)
}

fn found(chain: &Chain, hash: H256, show: fn(&Chain, &Block, H256) -> Value) -> Value {
    let block = chain.by_transaction.get(&hash).and_then(|&number| chain.block(number));
    block.map_or(Value::Null, |block| show(chain, block, hash))
}

fn receipt(chain: &Chain, block: &Block, hash: H256) -> Value {
    json!({
        "transactionHash": hash,
        "transactionIndex": "0x0",
        "blockHash": chain.hash_of(block.number),
        "blockNumber": U64::from(block.number),
        "from": block.from,
        "to": block.to,
        "cumulativeGasUsed": U256::from(block.gas_used),
        "gasUsed": U256::from(block.gas_used),
        "effectiveGasPrice": U256::from(block.price),
        "contractAddress": block.created,
        "logs": log_entries(chain, block),
        "logsBloom": block.receipt().bloom(),
        "status": U64::from(u8::from(block.success)),
        "type": "0x2",
    })
}

fn transaction(chain: &Chain, block: &Block, hash: H256) -> Value {
    let Ok(transaction) = Transaction::decode(&block.raw) else { return Value::Null };
    let access = |(address, keys): &(Address, Vec<H256>)| json!({ "address": address, "storageKeys": keys });
    let access_list: Vec<_> = transaction.access_list.iter().map(access).collect();
    json!({
        "hash": hash,
        "type": "0x2",
        "chainId": U64::from(transaction.chain_id),
        "nonce": U256::from(transaction.nonce),
        "blockHash": chain.hash_of(block.number),
        "blockNumber": U64::from(block.number),
        "transactionIndex": "0x0",
        "from": block.from,
        "to": block.to,
        "value": transaction.value,
        "gas": U256::from(transaction.gas),
        "gasPrice": U256::from(block.price),
        "maxFeePerGas": U256::from(transaction.max_fee),
        "maxPriorityFeePerGas": U256::from(transaction.max_priority_fee),
        "input": Bytes(transaction.data),
        "accessList": access_list,
        "v": U64::from(transaction.y_parity),
        "yParity": U64::from(transaction.y_parity),
        "r": transaction.r,
        "s": transaction.s,
    })
}

fn block(chain: &Chain, number: u64, full: bool) -> Value {
    let Some(hash) = chain.hash_of(number) else { return Value::Null };
    let mined = chain.block(number);
    let transactions = mined.map(|block| {
        let hash = block.transaction_hash();
        vec![if full { transaction(chain, block, hash) } else { json!(hash) }]
    });
    let mut block = json!({
        "hash": hash,
        "transactions": transactions.unwrap_or_default(),
        "size": "0x0",
        "uncles": [],
    });
    let header = mined.map_or_else(|| chain.genesis.header(), Block::header);
    if let (Value::Object(block), Value::Object(mut header)) = (&mut block, json!(header)) {
        block.append(&mut header);
    }
    block
}

fn log_entries(chain: &Chain, block: &Block) -> Vec<Value> {
    let transaction = block.transaction_hash();
    let show = |(index, log): (u64, &super::block::LogEntry)| {
        json!({
            "address": log.address,
            "topics": log.topics,
            "data": Bytes(log.data.clone()),
            "blockHash": chain.hash_of(block.number),
            "blockNumber": U64::from(block.number),
            "transactionHash": transaction,
            "transactionIndex": "0x0",
            "logIndex": U256::from(index),
            "removed": false,
        })
    };
    (0..).zip(&block.logs).map(show).collect()
}

fn logs(chain: &Chain, filter: &Value) -> Result<Value, Error> {
    let head = chain.head_number();
    let numbers = match filter.get("blockHash") {
        Some(hash) => {
            let number = chain.number_of(param(std::slice::from_ref(hash), 0)?);
            let number = number.ok_or_else(|| error(-32000, "unknown block"))?;
            number..=number
        }
        None => {
            let from = filter.get("fromBlock").map_or(Ok(head), |from| block_number(Some(from), head))?;
            from..=block_number(filter.get("toBlock"), head)?.min(head)
        }
    };
    let addresses = one_or_many(filter.get("address"))?;
    let topics: Vec<Value> = filter.get("topics").and_then(Value::as_array).cloned().unwrap_or_default();
    let topics =
        topics.iter().map(|topic| one_or_many(Some(topic))).collect::<Result<Vec<Vec<H256>>, _>>()?;
    let wanted = |log: &super::block::LogEntry| {
        (addresses.is_empty() || addresses.contains(&log.address))
            && (0..).zip(&topics).all(|(at, wanted)| {
                wanted.is_empty() || log.topics.get::<usize>(at).is_some_and(|topic| wanted.contains(topic))
            })
    };
    let mut entries = Vec::new();
    for block in numbers.filter_map(|number| chain.block(number)) {
        let shown = log_entries(chain, block);
        if entries.len() + shown.len() > MAX_LOGS {
            return Err(error(-32005, format!("query returned more than {MAX_LOGS} results")));
        }
        entries.extend(block.logs.iter().zip(shown).filter(|(log, _)| wanted(log)).map(|(_, shown)| shown));
    }
    Ok(Value::Array(entries))
}

fn one_or_many<T: DeserializeOwned>(value: Option<&Value>) -> Result<Vec<T>, Error> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) => {
            values.iter().map(|value| param(std::slice::from_ref(value), 0)).collect()
        }
        Some(value) => param(std::slice::from_ref(value), 0).map(|value| vec![value]),
    }
}

/// State and block overrides, which go-ethereum takes, would be ignored.
fn without_overrides(params: &[Value]) -> Result<(), Error> {
    match params.iter().skip(2).any(|value| !value.is_null()) {
        true => Err(error(-32602, "overrides are not supported")),
        false => Ok(()),
    }
}

/// An error unless the tag, number or EIP-1898 object names the newest block.
fn newest_only(chain: &Chain, tag: Option<&Value>) -> Result<(), Error> {
    let head = chain.head_number();
    let number = match tag.and_then(Value::as_object) {
        None => Some(block_number(tag, head)?),
        Some(object) => match object.get("blockHash") {
            Some(hash) => chain.number_of(param(std::slice::from_ref(hash), 0)?),
            None => Some(block_number(object.get("blockNumber"), head)?),
        },
    };
    match number {
        Some(number) if number == head => Ok(()),
        Some(number) if number < head => {
            let rule = format!(
                "historical state of block {number} is not available, only that of the newest, {head}"
            );
            Err(error(-32000, rule))
        }
        _ => Err(error(-32000, "header not found")),
    }
}

fn block_number(tag: Option<&Value>, head: u64) -> Result<u64, Error> {
    match tag {
        None | Some(Value::Null) => Ok(head),
        Some(Value::String(text)) => match text.as_str() {
            "latest" | "pending" | "safe" | "finalized" => Ok(head),
            "earliest" => Ok(0),
            _ => param::<U64>(&[Value::String(text.clone())], 0).map(|number| number.as_u64()),
        },
        Some(other) => {
            Err(error(-32602, format!("invalid block {other}: must be a tag or a number as 0x and hex")))
        }
    }
}
