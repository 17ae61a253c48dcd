// SPDX-License-Identifier: Apache-2.0
//! Serves receipts: of entries, of ranges of them, and of the embedded chain's blocks.

use evidence::{Identity, Receipt, log::EvidenceError};
use mail::MailId;
use ros::{
    RosError,
    convert::{block_proof_to_ros, entry_from_ros, receipt_to_ros},
    graph::{Graph, Request},
    msg, srv, topics,
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{for_c, reap, respond};
use crate::prover::{Prover, Provers};

/// Receipts that are made at once.
const MAX_RECEIPTS: usize = 4;

/// Starts the services.
pub(super) fn serve(graph: &mut Graph, Provers { entries, blocks }: Provers) -> Result<(), RosError> {
    let prove = graph.serve(&topics::PROVE)?;
    graph.watch("prove", serve_prove(prove, entries.clone()));
    let range = graph.serve(&topics::PROVE_RANGE)?;
    graph.watch("prove_range", serve_range(range, entries));
    let block = graph.serve(&topics::PROVE_BLOCK)?;
    graph.watch("prove_block", serve_block(block, blocks));
    Ok(())
}

async fn serve_prove(mut requests: mpsc::Receiver<Request<srv::Prove::Service>>, prover: Prover) {
    let mut answers = JoinSet::new();
    while let Some(request) = requests.recv().await {
        let prover = prover.clone();
        answers.spawn(async move {
            let response = match wanted(&request.message) {
                Ok((what, identity)) => match prover.receipt(identity).await {
                    Ok(Some(receipt)) if request.message.with_block => with_block(&prover, &receipt).await,
                    Ok(Some(receipt)) => proven(&receipt),
                    Ok(None) => no_receipt(format!("{what}: not known, or not anchored yet")),
                    Err(error) => no_receipt(unreadable(&error)),
                },
                Err(message) => no_receipt(message),
            };
            respond(request, response);
        });
        reap(&mut answers, MAX_RECEIPTS).await;
    }
}

fn proven(receipt: &Receipt) -> srv::Prove::Response {
    let receipt = receipt_to_ros(receipt);
    srv::Prove::Response { found: true, receipt, ..srv::Prove::Response::default() }
}

/// The receipt, and the proof of its block or why there is none.
async fn with_block(prover: &Prover, receipt: &Receipt) -> srv::Prove::Response {
    let proof = prover.block_proof(receipt).await;
    let proof = proof.and_then(|proof| block_proof_to_ros(&proof).map_err(|error| error.to_string()));
    let (block, message) = match proof {
        Ok(block) => (block, String::new()),
        Err(error) => (msg::BlockProof::default(), for_c(&error)),
    };
    srv::Prove::Response { block, message, ..proven(receipt) }
}

async fn serve_block(
    mut requests: mpsc::Receiver<Request<srv::ProveBlock::Service>>,
    blocks: Option<Prover>,
) {
    let mut answers = JoinSet::new();
    while let Some(request) = requests.recv().await {
        let blocks = blocks.clone();
        answers.spawn(async move {
            let srv::Prove::Response { found, receipt, block, message } =
                prove_block(blocks.as_ref(), &request.message).await;
            respond(request, srv::ProveBlock::Response { found, receipt, block, message });
        });
        reap(&mut answers, MAX_RECEIPTS).await;
    }
}

async fn prove_block(blocks: Option<&Prover>, request: &srv::ProveBlock::Request) -> srv::Prove::Response {
    let srv::ProveBlock::Request { number, with_block: is_block_wanted } = *request;
    let Some(prover) = blocks else {
        return no_receipt(
            "anchor_embedded_into is not set: receipts of blocks are given only while it is".to_owned(),
        );
    };
    match prover.receipt_at(number).await {
        Ok(Some(receipt)) if is_block_wanted => with_block(prover, &receipt).await,
        Ok(Some(receipt)) => proven(&receipt),
        Ok(None) => no_receipt(format!("block {number}: not known, or not anchored yet")),
        Err(error) => no_receipt(unreadable(&error)),
    }
}

async fn serve_range(mut requests: mpsc::Receiver<Request<srv::ProveRange::Service>>, prover: Prover) {
    while let Some(request) = requests.recv().await {
        let response = match prover.range(request.message.first).await {
            Ok((receipts, anchored)) => srv::ProveRange::Response {
                success: true,
                receipts: receipts.iter().map(receipt_to_ros).collect(),
                anchored,
                message: String::new(),
            },
            Err(error) => {
                let message = unreadable(&error);
                srv::ProveRange::Response { message, ..srv::ProveRange::Response::default() }
            }
        };
        respond(request, response);
    }
}

fn unreadable(error: &EvidenceError) -> String {
    tracing::error!(%error, "the evidence log was changed");
    error.to_string()
}

/// The entry whose receipt is asked for, in words and by its identity.
fn wanted(request: &srv::Prove::Request) -> Result<(String, Identity), String> {
    if request.mail_id.is_empty() {
        let entry = entry_from_ros(&request.entry).map_err(|error| error.to_string())?;
        Ok((format!("{} {}", entry.kind(), request.entry.subject), entry.identity()))
    } else {
        let id = request.mail_id.parse::<MailId>().map_err(|error| error.to_string())?;
        Ok((format!("mail {id}"), Identity::of_mail(&id)))
    }
}

fn no_receipt(message: String) -> srv::Prove::Response {
    srv::Prove::Response { message, ..srv::Prove::Response::default() }
}
