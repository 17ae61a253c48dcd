// SPDX-License-Identifier: Apache-2.0
//! Asks for receipts, verifies them, and compares an evidence log with its chain.

use std::{io, path::Path};

use chain::{Connection, Http, OnChain, anchors_on, verify_by_hash, verify_in_block, verify_on};
use evidence::{
    BlockProof, EmbeddedBlock, Identity, Receipt,
    audit::{Agreement, Batch, audit},
};
use ros::{
    convert::{block_proof_from_ros, entry_to_ros, receipt_from_ros},
    msg,
    runtime::visit,
    srv, topics,
};

use crate::{
    arguments::{Against, Contract, Fleet, Wanted},
    ask::{Failure, NODE, ask},
    receipt, show,
};

/// The receipt that is wanted, as it is kept in a file.
pub fn prove(fleet: &Fleet, wanted: &Wanted) -> Result<Vec<u8>, Failure> {
    let (message, block, why) = match wanted {
        Wanted::Mail(id) => {
            ask_for(fleet, srv::Prove::Request { mail_id: id.to_string(), ..srv::Prove::Request::default() })?
        }
        Wanted::Entry(entry) => ask_for(
            fleet,
            srv::Prove::Request { entry: entry_to_ros(entry), ..srv::Prove::Request::default() },
        )?,
        Wanted::Block(number) => {
            let answer = ask(
                fleet,
                &topics::PROVE_BLOCK,
                &srv::ProveBlock::Request { number: *number, with_block: true },
            )?;
            found(answer.found, (answer.receipt, answer.block, answer.message))?
        }
    };
    let receipt = receipt_from_ros(&message)?;
    receipt.verify_offline()?;
    if !is_of(&receipt, wanted) {
        let statement = receipt::statement(&receipt);
        return Err(format!("the receipt that came is of something else: {statement}").into());
    }
    let block = block_proof_from_ros(block);
    match &block {
        Some(block) => verify_in_block(&receipt, block)?,
        None => eprintln!("posthorn: the receipt has no proof of its block: {}", show::line(&why)),
    }
    Ok(receipt::write(&receipt, block.as_ref())?.into_bytes())
}

/// A receipt, the proof of its block, and why there is none.
type Found = (msg::LedgerReceipt, msg::BlockProof, String);

fn ask_for(fleet: &Fleet, request: srv::Prove::Request) -> Result<Found, Failure> {
    let answer = ask(fleet, &topics::PROVE, &srv::Prove::Request { with_block: true, ..request })?;
    found(answer.found, (answer.receipt, answer.block, answer.message))
}

/// What the authenticator found, or why it found nothing.
fn found(is_found: bool, found: Found) -> Result<Found, Failure> {
    if is_found { Ok(found) } else { Err(found.2.into()) }
}

fn is_of(receipt: &Receipt, wanted: &Wanted) -> bool {
    let entry = &receipt.evidence.entry;
    match wanted {
        Wanted::Mail(id) => entry.identity() == Identity::of_mail(id),
        Wanted::Entry(wanted) => entry.identity() == wanted.identity(),
        Wanted::Block(number) => EmbeddedBlock::of(entry).is_some_and(|block| block.number == *number),
    }
}

/// Whether the evidence log in `directory` and a contract agree, in words.
pub fn compare(directory: &Path, contract: &Contract, from_block: u64) -> Result<Vec<u8>, Failure> {
    let Contract { endpoint, address } = contract;
    let (next, anchors) = on_chain(endpoint, async |chain| anchors_on(chain, *address, from_block).await)?;
    let batch = |OnChain { first, count, root, .. }| Batch { first, count, root };
    let batches: Vec<_> = anchors.into_iter().map(batch).collect();
    Ok(agreement(&audit(directory, next, &batches)?, batches.len()).into_bytes())
}

/// Report of an audit that found no difference.
fn agreement(&Agreement { leaves, mails, anchored, torn_bytes }: &Agreement, batches: usize) -> String {
    let others = leaves.saturating_sub(mails);
    let waiting = leaves.saturating_sub(anchored);
    let torn = match torn_bytes {
        0 => String::new(),
        bytes => {
            format!("The last {bytes} bytes of the log are no complete record: being written, or torn.\n")
        }
    };
    format!(
        "Log and chain agree. Leaves in the log: {leaves}, of mails: {mails}, of other kinds: {others}; on chain: \
         {anchored}, in batches: {batches}; waiting to be anchored: {waiting}.\n{torn}"
    )
}

/// Connects to `endpoint` and runs `errand`.
fn on_chain<T>(
    endpoint: &str,
    errand: impl AsyncFnOnce(Connection) -> Result<T, chain::LedgerError>,
) -> Result<T, Failure> {
    let node = Connection::Http(Http::new(endpoint)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(errand(node))?)
}

/// What a receipt proves, in words.
pub fn verify(
    (receipt, block): &(Receipt, Option<BlockProof>),
    against: Against,
) -> Result<Vec<u8>, Failure> {
    receipt.verify_offline()?;
    let statement = receipt::statement(receipt);
    let text = match against {
        Against::Itself => {
            block.as_ref().map_or(Ok(()), |block| verify_in_block(receipt, block))?;
            let rest = "Whether the chain says so is not verified: that needs --contract, and --endpoint or --block-hash.";
            format!("The receipt says, and its proof holds: {statement}.\n{rest}\n")
        }
        Against::Chain(Contract { endpoint, address }) => {
            on_chain(&endpoint, async |chain| verify_on(chain, address, receipt, block.as_ref()).await)?;
            format!("Proven: {statement}.\n")
        }
        Against::Block { address, hash } => {
            let block = block.as_ref().ok_or("the receipt has no proof of its block, see posthorn prove")?;
            verify_by_hash(hash, address, receipt, block)?;
            let block = hex::encode(hash);
            format!("Proven, if block 0x{block} is in the chain: {statement}.\n")
        }
    };
    Ok(text.into_bytes())
}

/// Prints at most `count` receipts from index `first` on, each in a line, by `print`.
pub fn print_receipts(
    fleet: &Fleet,
    (first, count): (u64, u64),
    mut print: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Failure> {
    visit(NODE, &fleet.namespace, async |mut graph| {
        let client = graph.client(&topics::PROVE_RANGE)?;
        let _running = graph.spin()?;
        let (mut next, end) = (first, first.saturating_add(count));
        while next < end {
            let answer =
                client.find_and_ask(&srv::ProveRange::Request { first: next }, fleet.timeout).await?;
            if !answer.success {
                return Err(answer.message.into());
            }
            if answer.receipts.is_empty() {
                break;
            }
            for message in &answer.receipts {
                let receipt = receipt_from_ros(message)?;
                receipt.verify_offline()?;
                if receipt.evidence.index != next {
                    let index = receipt.evidence.index;
                    return Err(format!("the receipt that came is of entry {index}, not of {next}").into());
                }
                if next < end {
                    print(receipt::write(&receipt, None)?.as_bytes())?;
                    next += 1;
                }
            }
        }
        Ok(())
    })
}
