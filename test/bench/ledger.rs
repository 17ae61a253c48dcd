// SPDX-License-Identifier: Apache-2.0
//! Measures how fast entries become evidence with a receipt: durably logged, anchored, final, receipt on disk.
//!
//! On the embedded chain, on anvil that mines each transaction at once, and on anvil with a block a second and twelve
//! confirmations; a transaction for many entries, and one for each; with 1, 16 and 64 transactions in flight. Then on a chain
//! as slow as Ethereum, blocks of 12 s, where only what comes after the first receipts tells how fast it goes on.

#![allow(missing_docs, clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

#[path = "../ledger/fixture.rs"]
#[allow(dead_code, unused_macros, unused_imports, reason = "most of it is for the tests")]
mod fixture;

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use authenticator::{
    anchor::{AnchorPolicy, AnchorState, Anchorer},
    store::EvidenceStore,
};
use chain::{Ledger, LedgerOptions};
use evidence::{Finding, log::EvidenceLog};
use fixture::{Kind, World, options};
use mail::MailId;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use web3::Transport;

/// Entries per sync of the log, as in the node under load.
const GROUP: u64 = 1000;

/// How a chain makes blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocks {
    AtOnce,
    /// One in so many seconds, and twelve confirmations.
    Every(u64),
}

/// Runs `count` entries through a fresh world; returns how many a second got a receipt: all, and those after the first
/// that were in flight together.
async fn rate(kind: Kind, blocks: Blocks, in_flight: usize, max_batch: u32, count: u64) -> [f64; 2] {
    let world = World::new(kind).await;
    drop(world.ledger().await);
    let confirmations = Some(if blocks == Blocks::AtOnce { 1 } else { 12 });
    if let Blocks::Every(seconds) = blocks {
        world.automine(false).await;
        world.chain.execute("evm_setIntervalMining", vec![json!(seconds)]).await.unwrap();
    }
    let options = LedgerOptions { confirmations, in_flight, timeout: Duration::from_secs(600), ..options() };
    let ledger = Ledger::connect(world.chain.clone(), world.key.clone(), world.dir.path(), options).await;
    let store = EvidenceStore::new(EvidenceLog::open(&world.path("evidence")).unwrap().0);
    let (receipts_in, mut receipts) = mpsc::channel(1024);
    let anchorer = Anchorer {
        store: store.clone(),
        ledger: Arc::new(ledger.unwrap()),
        policy: AnchorPolicy {
            max_batch,
            max_age: Duration::from_millis(if max_batch == 1 { 0 } else { 100 }),
            patience: Duration::ZERO,
            watch: Duration::from_secs(4),
            lag: Duration::from_secs(15),
        },
        receipts: receipts_in,
        state: watch::channel(AnchorState::default()).0,
        now: SystemTime::now,
    };
    let anchoring = tokio::spawn(anchorer.run(std::future::pending()));
    let began = Instant::now();
    let feeding = tokio::spawn(async move {
        for first in (0..count).step_by(GROUP as usize) {
            let entries = (first..count.min(first + GROUP)).map(entry).collect();
            store.append(entries, SystemTime::now()).await.unwrap();
        }
    });
    let first = u64::try_from(in_flight).unwrap() * u64::from(max_batch);
    let mut first_had_theirs = began;
    for index in 0..count {
        let receipt = receipts.recv().await.expect("the anchorer goes on");
        assert_eq!(receipt.evidence.index, index);
        if index + 1 == first {
            first_had_theirs = Instant::now();
        }
    }
    let rate = |count: u64, since: Instant| count as f64 / since.elapsed().as_secs_f64();
    let rates = [rate(count, began), rate(count.saturating_sub(first), first_had_theirs)];
    feeding.await.unwrap();
    anchoring.abort();
    rates
}

fn entry(number: u64) -> evidence::Entry {
    let finding = Finding {
        mail_id: MailId::of(&number.to_le_bytes()),
        received_at: UNIX_EPOCH + Duration::from_secs(1_790_000_000),
        sender_digest: [9; 32],
        verdict: [1, 2, 2, 2, 2, 2, 0],
    };
    finding.entry(&"/authenticator".parse().unwrap())
}

#[tokio::main]
async fn main() {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "entries with a receipt a second, durable and final, by transactions in flight; ratios: to 1\n"
    )
    .unwrap();
    writeln!(out, "{:<30} {:<14} {:>9} {:>18} {:>18}", "chain", "a transaction", "1", "16", "64").unwrap();
    let chains = [
        ("embedded", Kind::Embedded, Blocks::AtOnce),
        ("anvil, mines at once", Kind::Anvil, Blocks::AtOnce),
        ("anvil, 1 s, 12 confirmations", Kind::Anvil, Blocks::Every(1)),
    ];
    for (chain, kind, blocks) in chains {
        for (mode, max_batch) in [("of up to 1000", 1000), ("of each", 1)] {
            // So many that the rate counts, not the start.
            let counts = match (blocks, max_batch) {
                (Blocks::AtOnce, 1) => [1_000, 4_000, 4_000],
                (Blocks::AtOnce, _) => [50_000; 3],
                (Blocks::Every(_), 1) => [10, 400, 1_600],
                (Blocks::Every(_), _) => [20_000, 300_000, 300_000],
            };
            let mut rates = Vec::new();
            for (in_flight, count) in [1, 16, 64].into_iter().zip(counts) {
                rates.push(rate(kind, blocks, in_flight, max_batch, count).await[0]);
            }
            let ratios: String =
                rates[1..].iter().map(|rate| format!(" {rate:>9.0} {:>6.1} x", rate / rates[0])).collect();
            writeln!(out, "{chain:<30} {mode:<14} {:>9.1}{ratios}", rates[0]).unwrap();
        }
    }
    writeln!(out, "\nthe same once the first have their receipts").unwrap();
    let [_, sustained] = rate(Kind::Anvil, Blocks::Every(12), 64, 1000, 320_000).await;
    writeln!(out, "{:<30} {:<14} {sustained:>47.0}", "anvil, 12 s, 12 confirmations", "of up to 1000")
        .unwrap();
}
