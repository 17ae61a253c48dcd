//! The node: raw mails to verdicts to topics, evidence to the chain, receipts to a topic, the registry as services.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    address::AddressKey,
    chain::{Ends, Keeper, Registry},
    core::{Checked, as_evidenced, decide, evidence_code},
    desk::{Desk, Work},
    dns::Dns,
    evidence::{Finding, Receipt, log::EvidenceLog, store::EvidenceStore},
    evidencer::Evidencer,
    gate::{Gate, Refusal},
    health::{self, Mails},
    intake::Admission,
    judge::{Judge, Step},
    params::{Params, SPECS},
    verify::{Policy, author_domain, verify},
};
use crate::{
    mail::{AcceptedMail, MailId, Role, mail_of},
    ros::{
        RosError,
        convert::{accepted_from_ros, authenticated_to_ros, receipt_to_ros, role_from_ros},
        diagnostics,
        graph::{Graph, Publisher, Request, ServiceType},
        lock, msg,
        runtime::{self, NodeError, NodeFacts, Shutdown},
        srv, topics,
    },
};

/// Name, purpose and parameters of the node.
pub const FACTS: NodeFacts = NodeFacts {
    name: "authenticator",
    about: "Finds out who sent a mail, and records mail and verdict on the evidence ledger",
    specs: SPECS,
};

/// How long a request with a wrong token is left without an answer, and those behind it.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_millis(250);

/// `main` of the executable.
pub fn main() -> ExitCode {
    runtime::run(FACTS, Params::load, run)
}

async fn run(mut graph: Graph, params: Params, mut shutdown: Shutdown) -> Result<(), NodeError> {
    let (dns, policy) = (
        Dns::open(params.dns_zone_file.as_deref(), &params.dns_servers, params.dns_waits)?,
        Policy::from(&params),
    );
    let (max_in_flight, patience) = (params.max_in_flight, params.registry_patience);
    let judge = Judge::new(params.temperror_give_up, patience);
    let opened = tokio::task::spawn_blocking(move || open(params)).await?;
    let (keeper, Ends { registry, receipts, health: chain_health }, store, gate) = opened?;
    let (evidencer, evidence_keeper) = Evidencer::new(store.clone());

    let mails = Arc::new(Mutex::new(Mails::default()));
    let verifier = Arc::new(Verifier {
        dns,
        policy,
        judge: Mutex::new(judge),
        registry: registry.clone(),
        evidencer,
        authenticated: graph.publisher(&topics::MAIL_AUTHENTICATED)?,
        mails: Arc::clone(&mails),
    });
    let mut raw = graph.subscribe(&topics::MAIL_RAW)?;
    let published = graph.publisher(&topics::MAIL_RECEIPTS)?;
    serve(&mut graph, &registry, &store, gate)?;
    let (counted, told) = (store.clone(), Arc::clone(&mails));
    diagnostics::publish(&mut graph, move || {
        let (evidenced, _) = counted.counts();
        health::statuses(&lock(&told), evidenced, &chain_health.borrow())
    })?;
    let mut spinning = graph.spin()?;
    // Both work until they are stopped: one that ends has failed.
    let mut keepers = JoinSet::<Result<(), NodeError>>::new();
    keepers.spawn(async { Ok(keeper.run().await?) });
    keepers.spawn(async { Ok(evidence_keeper.run().await?) });
    keepers.spawn(async {
        publish_receipts(receipts, published).await;
        // There are no more because the keeper of the chain has ended, which says why.
        std::future::pending().await
    });
    tracing::info!("verifying");

    // Mails that waited while this host was off are not refused because the chain takes a moment longer.
    let connected = registry.clone();
    let connection = async move { tokio::time::timeout(patience, connected.connected_once()).await };
    tokio::pin!(connection);
    let mut takes_mails = false;
    let mut desk = Desk::new(Arc::clone(&verifier), max_in_flight);
    loop {
        lock(&mails).load(desk.load());
        tokio::select! {
            () = shutdown.requested() => break,
            error = spinning.ended() => return Err(error.into()),
            Some(ended) = keepers.join_next() => {
                ended??;
                return Err("a task that works until the end has ended".into());
            }
            () = desk.turn() => {}
            _ = &mut connection, if !takes_mails => takes_mails = true,
            Some(mail) = raw.recv(), if takes_mails => match accepted_from_ros(mail) {
                Ok(mail) => {
                    if desk.take(mail) == Admission::Full {
                        // Said by the figures: a line for each would fill the log when it matters.
                        lock(&mails).overflowed += 1;
                    }
                }
                Err(error) => {
                    lock(&mails).malformed += 1;
                    tracing::warn!(%error, "a message on mail/raw breaks its specification");
                }
            },
        }
    }
    // What is in flight is finished; evidence that is not anchored is on disk and is anchored at the next start.
    desk.drain().await;
    keepers.shutdown().await;
    Ok(())
}

type Opened = (Keeper, Ends, EvidenceStore, Gate);

/// Everything that is on this host's disk.
fn open(params: Params) -> Result<Opened, NodeError> {
    let (log, torn_bytes) = EvidenceLog::open(&params.state_directory.join("evidence"))?;
    if torn_bytes > 0 {
        tracing::warn!(torn_bytes, "evidence log: cut a torn tail");
    }
    let store = EvidenceStore::new(log);
    let key = AddressKey::load_or_create(&params.address_key_path)?;
    let gate = Gate::open(params.registry_token_path.as_deref())?;
    let (keeper, ends) = Keeper::open(params, store.clone(), key)?;
    Ok((keeper, ends, store, gate))
}

struct Verifier {
    dns: Dns,
    policy: Policy,
    judge: Mutex<Judge>,
    registry: Registry,
    evidencer: Evidencer,
    authenticated: Publisher<msg::AuthenticatedMail>,
    mails: Arc<Mutex<Mails>>,
}

impl Work for Verifier {
    type Checked = Checked;

    fn domain(&self, mail: &AcceptedMail) -> String {
        author_domain(&mail.data)
    }

    async fn check(&self, mail: &AcceptedMail) -> Checked {
        verify(&self.dns, &self.policy, &mail.envelope, &mail.data, SystemTime::now()).await
    }

    async fn finish(&self, mail: &AcceptedMail, checked: Checked) -> bool {
        let step = lock(&self.judge).checked(mail.id, &checked, Instant::now());
        let registered = match (step, &checked.from) {
            (Step::Leave, _) => return self.leave(mail.id, &checked.reason),
            (Step::AskRegistry, Some(from)) => Some(self.registry.sender(from).await),
            (Step::AskRegistry | Step::Decide, _) => None,
        };
        if let Some((registration, _)) = registered
            && lock(&self.judge).asked(mail.id, registration, Instant::now()) == Step::Leave
        {
            return self.leave(mail.id, "the registry cannot be asked");
        }
        let sender_digest = self.registry.digest(checked.from.as_deref().unwrap_or_default());
        let verdict = decide(checked, registered);
        let finding = Finding {
            mail_id: mail.id,
            received_at: mail.received_at,
            sender_digest,
            verdict: evidence_code(&verdict),
        };
        let Ok(evidence) = self.evidencer.evidence(finding).await else { return false };
        lock(&self.judge).judged(mail.id);
        let verdict = as_evidenced(verdict, &evidence.finding.verdict);
        lock(&self.mails).judged(&verdict);
        tracing::info!(mail_id = %mail.id, authenticated = verdict.authenticated, reason = %verdict.reason, "verdict");
        let message = authenticated_to_ros(&mail_of(mail), &verdict, SystemTime::now());
        if let Err(error) = self.authenticated.publish(&message) {
            tracing::warn!(%error, mail_id = %mail.id, "a verdict was not published; the mail comes again");
        }
        verdict.authenticated
    }
}

impl Verifier {
    /// Nobody is authenticated.
    fn leave(&self, id: MailId, reason: &str) -> bool {
        lock(&self.mails).left();
        tracing::warn!(mail_id = %id, reason, "left to be delivered again");
        false
    }
}

async fn publish_receipts(mut receipts: mpsc::Receiver<Receipt>, publisher: Publisher<msg::LedgerReceipt>) {
    while let Some(receipt) = receipts.recv().await {
        if let Err(error) = publisher.publish(&receipt_to_ros(&receipt)) {
            tracing::warn!(%error, "a receipt was not published; authenticator/prove has it");
        }
    }
}

fn serve(graph: &mut Graph, registry: &Registry, store: &EvidenceStore, gate: Gate) -> Result<(), RosError> {
    let gate = Arc::new(gate);
    tokio::spawn(serve_register(graph.serve(&topics::REGISTER_SENDER)?, registry.clone(), Arc::clone(&gate)));
    tokio::spawn(serve_revoke(graph.serve(&topics::REVOKE_SENDER)?, registry.clone(), gate));
    tokio::spawn(serve_prove(graph.serve(&topics::PROVE)?, store.clone()));
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
            Ok(()) => match role_from_ros("role", *role) {
                Ok(Role::None) => Err("field 'role' = 0: must be ROLE_OBSERVER or ROLE_OPERATOR".to_owned()),
                Ok(role) => outcome("sender registered", registry.register(address, role).await),
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
    while let Some(request) = requests.recv().await {
        let srv::RevokeSender::Request { address, token } = &request.message;
        let result = match admit(&gate, token, address).await {
            Err(refusal) => Err(refusal),
            Ok(()) => outcome("sender revoked", registry.revoke(address).await),
        };
        let (success, message) = answer(result);
        respond(request, srv::RevokeSender::Response { success, message });
    }
}

/// Requests are served one after the other, so the pause bounds how fast tokens can be tried.
async fn admit(gate: &Gate, token: &str, address: &str) -> Result<(), String> {
    let refusal = match gate.admit(token, address) {
        Ok(()) => return Ok(()),
        Err(refusal) => refusal,
    };
    // Logged without the address: that is only in the request.
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
        let response = match request.message.mail_id.parse::<MailId>() {
            Ok(id) => match store.receipt(id).await {
                Ok(Some(receipt)) => srv::Prove::Response {
                    found: true,
                    receipt: receipt_to_ros(&receipt),
                    message: String::new(),
                },
                Ok(None) => no_receipt(format!("mail {id}: not known, or not anchored yet")),
                Err(error) => {
                    tracing::error!(%error, "the evidence log was changed");
                    no_receipt(error.to_string())
                }
            },
            Err(error) => no_receipt(error.to_string()),
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

/// The fields of a response. The words of an Ethereum node may hold a NUL, which would end the C string, and with it r2r.
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
