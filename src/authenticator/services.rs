// SPDX-License-Identifier: Apache-2.0
//! Serves the node's services: the registry, behind its gate, recording, and receipts.
//!
//! No request reaches the registry unless the gate admits it. Refusals are logged without token or address.
//!
//! The rules are in [`super::gate`], the changes in [`super::registry`]; [`proofs`] serves receipts.

mod proofs;

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use chain::{Sender, Terms};
use mail::Role;
use ros::{
    RosError,
    builtin_interfaces::msg::Time,
    convert::{entries_from_ros, role_from_ros, time_to_ros},
    graph::{Graph, Request, ServiceType},
    msg, srv, topics,
};
use tokio::{sync::mpsc, task::JoinSet};

use super::gate::{Gate, Refusal};
use crate::{
    evidencer::Evidencer,
    key_digest::digest_of_key,
    prover::Provers,
    registrar::{Changed, Pending},
    registry::{Listed, Registry},
    sender::SenderName,
    store::EvidenceStore,
};

/// Delay before answering a request with a wrong token.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_millis(250);
/// Most senders in one answer of list_senders.
const LISTED: u64 = 256;
/// Answers of a service of the registry that may be outstanding: they wait for the chain, and cost next to nothing.
const MAX_ANSWERS: usize = 1000;
/// Entries that may wait for the chain before those of other nodes are refused, so that nobody holds up the receipts of
/// mails for long.
const MAX_WAITING: u64 = 10_000;

/// Starts the services.
pub(super) fn serve(
    graph: &mut Graph,
    registry: &Registry,
    provers: Provers,
    (evidencer, store): (Evidencer, EvidenceStore),
    gate: Gate,
) -> Result<(), RosError> {
    let gate = Arc::new(gate);
    let register = graph.serve(&topics::REGISTER_SENDER)?;
    graph.watch("register_sender", serve_register(register, registry.clone(), Arc::clone(&gate)));
    let revoke = graph.serve(&topics::REVOKE_SENDER)?;
    graph.watch("revoke_sender", serve_revoke(revoke, registry.clone(), Arc::clone(&gate)));
    let list = graph.serve(&topics::LIST_SENDERS)?;
    graph.watch("list_senders", serve_list(list, registry.clone(), gate));
    proofs::serve(graph, provers)?;
    let record = graph.serve(&topics::RECORD)?;
    graph.watch("record", serve_record(record, evidencer, store));
    Ok(())
}

/// Takes each request at once, so that changes have their places in the order of the requests, and answers it when the
/// chain has it.
async fn serve_register(
    mut requests: mpsc::Receiver<Request<srv::RegisterSender::Service>>,
    registry: Registry,
    gate: Arc<Gate>,
) {
    let mut answers = JoinSet::new();
    while let Some(request) = requests.recv().await {
        let wanted = &request.message;
        let pending = match (gate.admit(&wanted.token, &wanted.address), terms(wanted)) {
            (Err(refusal), _) => Err(refusal),
            (Ok(_), Err(rule)) => Ok(Pending::refused(rule)),
            (Ok(SenderName::Domain(_)), Ok(Terms { role: Role::Operator, .. })) => {
                let rule =
                    "field 'role' = 2: must be ROLE_OBSERVER for a domain, as an order comes from somebody";
                Ok(Pending::refused(rule.to_owned()))
            }
            (Ok(name), Ok(terms)) => Ok(registry.register(name, terms).await),
        };
        answers.spawn(async move {
            let done = outcome("sender registered", &request.message.caller, pending).await;
            let (success, message) = answer(done.map(|done| done.transaction));
            respond(request, srv::RegisterSender::Response { success, message });
        });
        reap(&mut answers, MAX_ANSWERS).await;
    }
}

/// What a request wants a sender registered for.
fn terms(request: &srv::RegisterSender::Request) -> Result<Terms, String> {
    let role = match role_from_ros("role", request.role).map_err(|error| error.to_string())? {
        Role::None => return Err("field 'role' = 0: must be ROLE_OBSERVER or ROLE_OPERATOR".to_owned()),
        role => role,
    };
    let second = |name: &str, time: &Time| match (u64::try_from(time.sec), time.nanosec) {
        (Ok(0), 0) => Ok(None),
        (Ok(seconds), 0) => Ok(Some(seconds)),
        _ => Err(format!(
            "field '{name}' = {} s {} ns: must be a whole second since 1970",
            time.sec, time.nanosec
        )),
    };
    let valid_from = second("valid_from", &request.valid_from)?;
    let valid_until = second("valid_until", &request.valid_until)?;
    if valid_until.is_some_and(|until| until <= valid_from.unwrap_or(0)) {
        return Err(format!(
            "field 'valid_until' = {} s: must be later than valid_from",
            request.valid_until.sec
        ));
    }
    let dkim_key = match request.dkim_key.as_str() {
        "" => None,
        text => Some(
            digest_of_key(text)
                .ok_or("field 'dkim_key': must be base64, the tag p= of the key's DNS record")?,
        ),
    };
    Ok(Terms { role, valid_from, valid_until, dkim_key })
}

async fn serve_revoke(
    mut requests: mpsc::Receiver<Request<srv::RevokeSender::Service>>,
    registry: Registry,
    gate: Arc<Gate>,
) {
    let mut answers = JoinSet::new();
    while let Some(request) = requests.recv().await {
        let srv::RevokeSender::Request { address, token, .. } = &request.message;
        let pending = match gate.admit(token, address) {
            Err(refusal) => Err(refusal),
            Ok(name) => Ok(registry.revoke(name).await),
        };
        answers.spawn(async move {
            let done = outcome("sender revoked", &request.message.caller, pending).await;
            let was_registered = done.as_ref().is_ok_and(|done| done.was_registered);
            let (success, message) = answer(done.map(|done| done.transaction));
            respond(request, srv::RevokeSender::Response { success, was_registered, message });
        });
        reap(&mut answers, MAX_ANSWERS).await;
    }
}

async fn serve_list(
    mut requests: mpsc::Receiver<Request<srv::ListSenders::Service>>,
    registry: Registry,
    gate: Arc<Gate>,
) {
    let mut answers = JoinSet::new();
    while let Some(request) = requests.recv().await {
        let (registry, gate) = (registry.clone(), Arc::clone(&gate));
        answers.spawn(async move {
            let srv::ListSenders::Request { first, token, caller } = &request.message;
            let listed = match gate.open_to(token) {
                Ok(()) => {
                    let listed = registry.list((*first).into(), LISTED).await;
                    match &listed {
                        Ok(_) => tracing::info!(caller = ?named(caller), first, "senders listed"),
                        Err(error) => tracing::warn!(caller = ?named(caller), %error, "senders not listed"),
                    }
                    listed
                }
                Err(refusal) => {
                    warn_of(&refusal, caller).await;
                    Err(refusal.to_string())
                }
            };
            let response = match listed {
                Ok((senders, count)) => srv::ListSenders::Response {
                    success: true,
                    senders: senders.iter().map(listed_to_ros).collect(),
                    count: u32::try_from(count).unwrap_or(u32::MAX),
                    message: String::new(),
                },
                Err(error) => {
                    let (success, message) = answer(Err(error));
                    srv::ListSenders::Response { success, message, ..srv::ListSenders::Response::default() }
                }
            };
            respond(request, response);
        });
        reap(&mut answers, MAX_ANSWERS).await;
    }
}

fn listed_to_ros(listed: &Listed) -> msg::RegisteredSender {
    let time = |seconds: Option<u64>| {
        let at = seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        at.map(time_to_ros).unwrap_or_default()
    };
    let Sender { terms, registered_at, revoked_at } = listed.sender;
    msg::RegisteredSender {
        address: listed.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        digest: listed.digest.to_vec(),
        registry: listed.registration as u8,
        role: terms.role as u8,
        registered_at: time(registered_at),
        revoked_at: time(revoked_at),
        valid_from: time(terms.valid_from),
        valid_until: time(terms.valid_until),
        dkim_key: terms.dkim_key.unwrap_or_default().to_vec(),
    }
}

/// Forgets the answers that were given. If `most` are still to be given, waits for one.
async fn reap(answers: &mut JoinSet<()>, most: usize) {
    while answers.try_join_next().is_some() {}
    if answers.len() >= most {
        answers.join_next().await;
    }
}

/// Who a request says it is of, cut to the length of its field, which the middleware does not enforce.
fn named(caller: &str) -> String {
    caller.chars().take(64).collect()
}

/// What became of a request: refused by the gate, or a change.
async fn outcome(what: &str, caller: &str, pending: Result<Pending, Refusal>) -> Result<Changed, String> {
    let result = match pending {
        Err(refusal) => {
            warn_of(&refusal, caller).await;
            return Err(refusal.to_string());
        }
        Ok(pending) => pending.done().await,
    };
    match &result {
        Ok(Changed { transaction, .. }) => tracing::info!(caller = ?named(caller), %transaction, "{what}"),
        Err(error) => tracing::warn!(caller = ?named(caller), %error, "not done: {what}"),
    }
    result
}

/// Logs a refusal, without the address, which belongs only in the request.
async fn warn_of(refusal: &Refusal, caller: &str) {
    let caller = named(caller);
    match refusal {
        Refusal::Token(_) => {
            // Slows down whoever tries tokens, and nobody else.
            tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
            tracing::warn!(
                ?caller,
                "a request to the registry is refused: its token is not the one of registry_token_path"
            );
        }
        Refusal::Address { .. } => {
            tracing::warn!(
                ?caller,
                "a request to the registry is refused: neither one bare address nor a domain"
            );
        }
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

/// Fills the fields of a response.
fn answer(result: Result<String, String>) -> (bool, String) {
    match result {
        Ok(transaction) => (true, transaction),
        Err(error) => (false, for_c(&error)),
    }
}

/// The text without NUL, which an Ethereum node's message may contain: it would end the C string and take r2r down with it.
fn for_c(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

fn respond<T>(request: Request<T>, response: T::Response)
where
    T: ServiceType + 'static,
{
    if let Err(error) = request.respond(response) {
        tracing::warn!(%error, "an answer is lost");
    }
}
