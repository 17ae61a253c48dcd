// SPDX-License-Identifier: Apache-2.0
//! Serves the node's services: the registry, behind its gate, recording, and receipts.
//!
//! No request reaches the registry unless the gate admits it. Refusals are logged without token or address.
//!
//! The rules are in [`super::gate`], the changes in [`super::registry`].

use std::{sync::Arc, time::Duration};

use evidence::Identity;
use mail::{EmailAddress, MailId, Role};
use ros::{
    RosError,
    convert::{entries_from_ros, entry_from_ros, receipt_to_ros, role_from_ros},
    graph::{Graph, Request, ServiceType},
    srv, topics,
};
use tokio::{sync::mpsc, task::JoinSet};

use super::gate::{Gate, Refusal};
use crate::{evidencer::Evidencer, registry::Registry, store::EvidenceStore};

/// Delay before answering a request with a wrong token; requests behind it wait too.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_millis(250);

/// Entries that may wait for the chain before those of other nodes are refused, so that nobody holds up the receipts of
/// mails for long.
const MAX_WAITING: u64 = 10_000;

/// Starts the services.
pub(super) fn serve(
    graph: &mut Graph,
    registry: &Registry,
    store: &EvidenceStore,
    evidencer: Evidencer,
    gate: Gate,
) -> Result<(), RosError> {
    let gate = Arc::new(gate);
    let register = graph.serve(&topics::REGISTER_SENDER)?;
    graph.watch("register_sender", serve_register(register, registry.clone(), Arc::clone(&gate)));
    let revoke = graph.serve(&topics::REVOKE_SENDER)?;
    graph.watch("revoke_sender", serve_revoke(revoke, registry.clone(), gate));
    let prove = graph.serve(&topics::PROVE)?;
    graph.watch("prove", serve_prove(prove, store.clone()));
    let record = graph.serve(&topics::RECORD)?;
    graph.watch("record", serve_record(record, evidencer, store.clone()));
    Ok(())
}

async fn serve_register(
    mut requests: mpsc::Receiver<Request<srv::RegisterSender::Service>>,
    registry: Registry,
    gate: Arc<Gate>,
) {
    while let Some(request) = requests.recv().await {
        let srv::RegisterSender::Request { address, role, token } = &request.message;
        let result = match admit(&gate, token, address).await {
            Err(refusal) => Err(refusal),
            Ok(address) => match role_from_ros("role", *role) {
                Ok(Role::None) => Err("field 'role' = 0: must be ROLE_OBSERVER or ROLE_OPERATOR".to_owned()),
                Ok(role) => outcome("sender registered", registry.register(&address, role).await),
                Err(error) => Err(error.to_string()),
            },
        };
        let (success, message) = answer(result);
        respond(request, srv::RegisterSender::Response { success, message });
    }
}

async fn serve_revoke(
    mut requests: mpsc::Receiver<Request<srv::RevokeSender::Service>>,
    registry: Registry,
    gate: Arc<Gate>,
) {
    let mut waiting = JoinSet::new();
    while let Some(request) = requests.recv().await {
        let srv::RevokeSender::Request { address, token } = &request.message;
        match admit(&gate, token, address).await {
            Err(refusal) => respond_revoke(request, Err(refusal)),
            Ok(address) => {
                // At once, also if the chain takes minutes for the one before.
                let (denied, registry) = (registry.deny(&address).await, registry.clone());
                waiting.spawn(async move {
                    respond_revoke(request, outcome("sender revoked", registry.revoke(denied).await));
                });
            }
        }
        while waiting.try_join_next().is_some() {}
    }
}

fn respond_revoke(request: Request<srv::RevokeSender::Service>, result: Result<String, String>) {
    let (success, message) = answer(result);
    respond(request, srv::RevokeSender::Response { success, message });
}

/// Asks the gate. Each service handles one request at a time, so the pause limits how fast tokens can be tried.
async fn admit(gate: &Gate, token: &str, address: &str) -> Result<EmailAddress, String> {
    let refusal = match gate.admit(token, address) {
        Ok(address) => return Ok(address),
        Err(refusal) => refusal,
    };
    // Log the refusal without the address, which belongs only in the request.
    match &refusal {
        Refusal::Token(_) => {
            tracing::warn!(
                "a request to the registry is refused: its token is not the one of registry_token_path"
            );
            tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
        }
        Refusal::Address { .. } => {
            tracing::warn!("a request to the registry is refused: not one bare address")
        }
    }
    Err(refusal.to_string())
}

async fn serve_prove(mut requests: mpsc::Receiver<Request<srv::Prove::Service>>, store: EvidenceStore) {
    while let Some(request) = requests.recv().await {
        let response = match wanted(&request.message) {
            Ok((what, identity)) => match store.receipt(identity).await {
                Ok(Some(receipt)) => srv::Prove::Response {
                    found: true,
                    receipt: receipt_to_ros(&receipt),
                    message: String::new(),
                },
                Ok(None) => no_receipt(format!("{what}: not known, or not anchored yet")),
                Err(error) => {
                    tracing::error!(%error, "the evidence log was changed");
                    no_receipt(error.to_string())
                }
            },
            Err(message) => no_receipt(message),
        };
        respond(request, response);
    }
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

/// One request at a time: those behind it wait in the bounded queue of the service.
async fn serve_record(
    mut requests: mpsc::Receiver<Request<srv::Record::Service>>,
    evidencer: Evidencer,
    store: EvidenceStore,
) {
    while let Some(request) = requests.recv().await {
        let (evidenced, anchored) = store.counts();
        let recorded = match entries_from_ros(&request.message.entries) {
            Ok(_) if evidenced.saturating_sub(anchored) > MAX_WAITING => {
                Err(format!("{MAX_WAITING} entries wait for the chain already, try again later"))
            }
            Ok(entries) => evidencer.record(entries).await.map_err(|closed| closed.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let response = match recorded {
            Ok(evidence) => srv::Record::Response {
                success: true,
                indices: evidence.iter().map(|evidence| evidence.index).collect(),
                message: String::new(),
            },
            Err(message) => {
                tracing::warn!(message, "entries are not recorded");
                srv::Record::Response { message, ..srv::Record::Response::default() }
            }
        };
        respond(request, response);
    }
}

fn no_receipt(message: String) -> srv::Prove::Response {
    srv::Prove::Response { message, ..srv::Prove::Response::default() }
}

fn outcome(what: &str, result: Result<String, String>) -> Result<String, String> {
    match &result {
        Ok(transaction) => tracing::info!(%transaction, "{what}"),
        Err(error) => tracing::warn!(%error, "not done: {what}"),
    }
    result
}

/// Fills the fields of a response. An Ethereum node's message may contain a NUL, which would end the C string and
/// take r2r down with it.
fn answer(result: Result<String, String>) -> (bool, String) {
    match result {
        Ok(transaction) => (true, transaction),
        Err(error) => (false, error.replace('\0', "\u{FFFD}")),
    }
}

fn respond<T>(request: Request<T>, response: T::Response)
where
    T: ServiceType + 'static,
{
    if let Err(error) = request.respond(response) {
        tracing::warn!(%error, "an answer is lost");
    }
}
