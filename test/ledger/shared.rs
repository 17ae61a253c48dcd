// SPDX-License-Identifier: Apache-2.0
//! Blocks of the embedded chain are recorded for a shared one, whatever becomes of that or of the embedded chain.

use std::{collections::BTreeMap, fs, future::Future, path::Path, time::Duration};

use authenticator::{
    params::{Params, SPECS},
    shared_chain::{SharedChain, SharedChainError, SharedHandles},
};
use chain::{Connection, EMBEDDED_CHAIN_ID, EmbeddedChain};
use evidence::{EmbeddedBlock, log::EvidenceLog};
use serde_json::json;
use settings::{Value, resolve};
use testbed::{free_port, wait_for};
use tokio::time::{sleep, timeout};

use super::{
    fixture::{Kind, World, anchor},
    liar::Liar,
    newest,
};

fn params(directory: &Path, endpoint: &str) -> Params {
    let overrides = [("anchor_embedded_into", endpoint), ("registry_token_path", "none")];
    let overrides = overrides.map(|(name, text)| (name.to_owned(), Value::Text(text.to_owned())));
    Params::load(&resolve(SPECS, BTreeMap::from(overrides)).unwrap(), directory).unwrap()
}

fn embedded(world: &World) -> EmbeddedChain {
    match &world.chain {
        Connection::Embedded(chain) => chain.clone(),
        Connection::Http(_) => panic!("an embedded chain is wanted"),
    }
}

/// Opens the log of blocks in `directory`, for the chain of `world` and the node `source`; again if need be, see
/// [`super::store`].
fn open(world: &World, directory: &Path, endpoint: &str, source: &str) -> (SharedChain, SharedHandles) {
    wait_for("the lock of the log", || {
        let chain = (embedded(world), world.key.clone());
        match SharedChain::open(&params(directory, endpoint), endpoint, chain, source.parse().unwrap()) {
            Err(error) if error.to_string().contains("in use") => None,
            opened => Some(opened.unwrap()),
        }
    })
}

/// Runs a task, which must not end by itself, until something else is done.
async fn beside<T>(
    task: impl Future<Output = Result<(), SharedChainError>>,
    other: impl Future<Output = T>,
) -> T {
    tokio::select! {
        ended = task => panic!("{ended:?}"),
        done = timeout(Duration::from_secs(30), other) => done.expect("in time"),
    }
}

async fn recorded(handles: &SharedHandles, count: u64) {
    while handles.store.counts().0 < count {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_block_is_recorded_once_at_the_index_that_is_its_number() {
    let world = World::new(Kind::Embedded).await;
    let ledger = world.ledger().await;
    // More than are recorded at once.
    for first in 0..1100 {
        anchor(&ledger, first, vec![[1; 32]]).await.unwrap();
    }
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let blocks = newest(&world.chain).await.0 + 1;
    let (shared, handles) = open(&world, world.dir.path(), &nobody, "/authenticator");
    beside(shared.run(), recorded(&handles, blocks)).await;
    drop(handles);
    // The node is renamed, and ends while it has blocks that it did not record.
    anchor(&ledger, 1100, vec![[1; 32]]).await.unwrap();
    let (shared, handles) = open(&world, world.dir.path(), &nobody, "/fleet/authenticator");
    beside(shared.run(), recorded(&handles, blocks + 1)).await;
    drop(handles);

    let log = wait_for("the lock of the log", || {
        EvidenceLog::open(&world.path("shared/evidence")).ok().map(|(log, _)| log)
    });
    assert_eq!(log.evidenced(), blocks + 1);
    let hashes = embedded(&world).hashes(0, usize::MAX).await.unwrap();
    for (number, hash) in (0..).zip(hashes) {
        let evidence = log.evidence_at(number).unwrap().unwrap();
        assert_eq!(EmbeddedBlock::of(&evidence.entry), Some(EmbeddedBlock { number, hash }));
    }
}

#[tokio::test]
async fn another_chain_of_the_same_length_and_a_log_of_something_else_are_noticed() {
    let (world, other) = (World::new(Kind::Embedded).await, World::new(Kind::Embedded).await);
    drop((world.ledger().await, other.ledger().await));
    let (count, ours) = newest(&world.chain).await;
    let (other_count, theirs) = newest(&other.chain).await;
    assert_eq!(count, other_count);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let (shared, handles) = open(&world, world.dir.path(), &nobody, "/authenticator");
    beside(shared.run(), recorded(&handles, count + 1)).await;
    drop(handles);
    let (shared, _handles) = open(&other, world.dir.path(), &nobody, "/authenticator");
    let error = shared.run().await.unwrap_err().to_string();
    let expected = [
        format!("block {count} of the embedded chain is {theirs:?}, and"),
        format!("{ours:?}: the chain was lost"),
    ];
    assert!(expected.iter().all(|words| error.contains(words)), "{error}");

    // The log of the evidence itself, restored to the wrong place.
    let store = super::store(&world.path("shared-of-mails"));
    super::append(&store, 0..50).await;
    drop(store);
    fs::remove_dir_all(world.path("shared/evidence")).unwrap();
    fs::rename(world.path("shared-of-mails/evidence"), world.path("shared/evidence")).unwrap();
    let (shared, _handles) = open(&world, world.dir.path(), &nobody, "/authenticator");
    let error = shared.run().await.unwrap_err().to_string();
    assert!(error.contains("block 49 of the embedded chain is none, and not the one"), "{error}");
}

/// What a stranger's node says ends nothing here.
#[tokio::test]
async fn a_shared_chain_that_cannot_be_used_is_an_error_in_the_status_and_nothing_ends() {
    let world = World::new(Kind::Embedded).await;
    drop(world.ledger().await);
    let anvil = World::new(Kind::Anvil).await;
    // It says that it is an embedded chain, such as our own.
    let liar = Liar::start(anvil.chain.clone(), |method, _, result| match method {
        "eth_chainId" => Ok(json!(format!("{EMBEDDED_CHAIN_ID:#x}"))),
        _ => Ok(result),
    })
    .await;
    let (shared, handles) = open(&world, world.dir.path(), &liar.endpoint(), "/authenticator");
    let mut health = handles.health.clone();
    let words = beside(shared.run(), async {
        let said = health.wait_for(|health| health.ended.is_some()).await.unwrap();
        said.ended.clone().unwrap()
    });
    let words = words.await;
    assert!(words.contains("of another chain than that with id 1886352244"), "{words}");
}

/// A backup left out the log, or the marker beside the chain.
#[tokio::test]
async fn a_log_of_blocks_that_was_lost_is_not_begun_anew_and_one_that_is_there_is_kept() {
    let world = World::new(Kind::Embedded).await;
    drop(world.ledger().await);
    let blocks = newest(&world.chain).await.0 + 1;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let (shared, handles) = open(&world, world.dir.path(), &nobody, "/authenticator");
    beside(shared.run(), recorded(&handles, blocks)).await;
    drop(handles);
    let contracts = world.path("shared/contracts.json");
    fs::write(&contracts, "{\"new_registry\": null}").unwrap();
    fs::remove_file(world.path("chain/is_anchored")).unwrap();
    let (shared, handles) = open(&world, world.dir.path(), &nobody, "/authenticator");
    assert_eq!((handles.store.counts().0, fs::read(&contracts).unwrap().len()), (blocks, 22));
    drop((shared, handles));

    // The first start was cut short before it had asked for contracts.
    let cut_short = World::new(Kind::Embedded).await;
    drop(EvidenceLog::open(&cut_short.path("shared/evidence")).unwrap());
    drop(open(&cut_short, cut_short.dir.path(), &nobody, "/authenticator"));
    assert!(cut_short.path("shared/contracts.json").exists());

    fs::remove_dir_all(world.path("shared")).unwrap();
    let chain = (embedded(&world), world.key.clone());
    let params = params(world.dir.path(), &nobody);
    let error = SharedChain::open(&params, &nobody, chain, "/authenticator".parse().unwrap()).err().unwrap();
    assert!(
        error.to_string().contains("shared/evidence' is missing, though this is not the first start"),
        "{error}"
    );
}
