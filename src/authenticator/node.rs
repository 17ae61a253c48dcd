// SPDX-License-Identifier: Apache-2.0
//! The authenticator node: verifies mails from `mail/raw`, publishes their verdicts, anchors evidence and serves the
//! registry.
//!
//! A verdict is published only after its evidence is on disk; a mail without a verdict is left to be delivered again.
//!
//! The other modules decide; this one connects them to topics, services and tasks.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Instant, SystemTime},
};

use evidence::{Finding, log::EvidenceLog};
use fair_queue::author_domain;
use mail::{AcceptedMail, MailId, mail_of};
use ros::{
    convert::{accepted_from_ros, authenticated_to_ros, receipt_to_ros},
    diagnostics,
    graph::{Graph, Publisher},
    lock, msg,
    runtime::{self, NodeError, NodeFacts, Shutdown},
    topics,
};

use super::{
    address::AddressKey,
    core::{Checked, as_evidenced, decide, evidence_code},
    desk::{Desk, Work},
    dns::Dns,
    evidencer::Evidencer,
    gate::Gate,
    health::{self, Mails},
    intake::Admission,
    judge::{Judge, Step},
    known::KnownDomains,
    params::{EVIDENCE_DIRECTORY, Params, SPECS},
    receipts, services,
    verify::{Policy, verify},
};
use crate::{
    on_chain::{ChainKeeper, KeeperHandles, Registry},
    store::EvidenceStore,
};

/// Name, description and parameters of the node.
pub const FACTS: NodeFacts = NodeFacts {
    name: "authenticator",
    about: "Finds out who sent a mail, and records mail and verdict on the evidence ledger",
    specs: SPECS,
};

/// Entry point of the executable.
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
    let (keeper, KeeperHandles { registry, receipts, health: chain_health }, store, gate, known) = opened?;
    let (evidencer, evidence_writer) = Evidencer::new(store.clone());

    let mails = Arc::new(Mutex::new(Mails::default()));
    let verifier = Arc::new(Verifier {
        dns,
        policy,
        judge: Mutex::new(judge),
        known: Arc::new(known),
        registry: registry.clone(),
        evidencer,
        authenticated: graph.publisher(&topics::MAIL_AUTHENTICATED)?,
        mails: Arc::clone(&mails),
    });
    let mut raw = graph.subscribe(&topics::MAIL_RAW)?;
    let published = graph.publisher(&topics::MAIL_RECEIPTS)?;
    graph.watch("evidence", evidence_writer.run());
    graph.watch("chain", keeper.run());
    graph.watch("receipts", async move {
        receipts::publish(receipts, |receipt| {
            if let Err(error) = published.publish(&receipt_to_ros(&receipt)) {
                tracing::warn!(%error, "a receipt was not published; authenticator/prove has it");
            }
        })
        .await;
        // The channel closes only when the chain's task ends, and that one says why.
        std::future::pending::<()>().await
    });
    services::serve(&mut graph, &registry, &store, gate)?;
    let (counted, told) = (store.clone(), Arc::clone(&mails));
    diagnostics::publish(&mut graph, move || {
        let (evidenced, _) = counted.counts();
        health::statuses(&lock(&told), evidenced, &chain_health.borrow())
    })?;
    let mut running = graph.spin()?;
    tracing::info!("verifying");

    // Hold mails back until the chain connects, so that a backlog is not rejected because the chain starts a little
    // later.
    let connected = registry.clone();
    let connection = async move { tokio::time::timeout(patience, connected.connected_once()).await };
    tokio::pin!(connection);
    let mut takes_mails = false;
    let mut desk = Desk::new(Arc::clone(&verifier), max_in_flight);
    verifier.known.all().iter().for_each(|domain| desk.know(domain));
    loop {
        lock(&mails).load(desk.load());
        tokio::select! {
            () = shutdown.requested() => break,
            error = running.ended() => return Err(error.into()),
            () = desk.turn() => {}
            _ = &mut connection, if !takes_mails => takes_mails = true,
            Some(mail) = raw.recv(), if takes_mails => match accepted_from_ros(mail) {
                Ok(mail) => {
                    if desk.take(mail) == Admission::Full {
                        // Reported as a count: one line per mail would flood the log when it matters most.
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
    // Finish the mails in flight. Evidence not anchored yet is on disk and is anchored after the next start.
    desk.drain().await;
    Ok(running.shutdown().await?)
}

type Opened = (ChainKeeper, KeeperHandles, EvidenceStore, Gate, KnownDomains);

/// Opens all state on this host's disk.
fn open(params: Params) -> Result<Opened, NodeError> {
    let (log, torn_bytes) = EvidenceLog::open(&params.state_directory.join(EVIDENCE_DIRECTORY))?;
    if torn_bytes > 0 {
        tracing::warn!(torn_bytes, "evidence log: cut a torn tail");
    }
    let store = EvidenceStore::new(log);
    let key = AddressKey::load_or_create(&params.address_key_path)?;
    let gate = Gate::open(params.registry_token_path.as_deref())?;
    let domains = params.state_directory.join("known_domains");
    let known = KnownDomains::open(&domains)
        .map_err(|error| format!("{}: {error}; remove it, it is made anew", domains.display()))?;
    let (keeper, handles) = ChainKeeper::open(params, store.clone(), key)?;
    Ok((keeper, handles, store, gate, known))
}

struct Verifier {
    dns: Dns,
    policy: Policy,
    judge: Mutex<Judge>,
    known: Arc<KnownDomains>,
    registry: Registry,
    evidencer: Evidencer,
    authenticated: Publisher<msg::AuthenticatedMail>,
    mails: Arc<Mutex<Mails>>,
}

impl Work for Verifier {
    type Checked = Checked;

    fn domain(&self, mail: &AcceptedMail) -> String {
        author_domain(&mail.data).unwrap_or_default()
    }

    async fn check(&self, mail: &AcceptedMail) -> Checked {
        verify(&self.dns, &self.policy, &mail.envelope, &mail.data, SystemTime::now()).await
    }

    async fn finish(&self, mail: &AcceptedMail, checked: Checked) -> Option<String> {
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
        let sender_digest = self.registry.digest(checked.from.as_ref());
        let domain = checked.from.as_ref().map(|from| from.domain().to_lowercase());
        let verdict = decide(checked, registered);
        let finding = Finding {
            mail_id: mail.id,
            received_at: mail.received_at,
            sender_digest,
            verdict: evidence_code(&verdict),
        };
        let Ok(evidence) = self.evidencer.evidence(finding).await else { return None };
        lock(&self.judge).judged(mail.id);
        let verdict = as_evidenced(verdict, &evidence.finding.verdict);
        lock(&self.mails).judged(&verdict);
        tracing::info!(mail_id = %mail.id, authenticated = verdict.authenticated, reason = %verdict.reason, "verdict");
        let message = authenticated_to_ros(&mail_of(mail), &verdict, SystemTime::now());
        if let Err(error) = self.authenticated.publish(&message) {
            tracing::warn!(%error, mail_id = %mail.id, "a verdict was not published; the mail comes again");
        }
        let domain = domain.filter(|_| verdict.authenticated)?;
        if !self.known.knows(&domain) {
            let (known, domain) = (Arc::clone(&self.known), domain.clone());
            tokio::task::spawn_blocking(move || {
                if let Err(error) = known.add(&domain) {
                    tracing::warn!(%error, "known_domains cannot be written: the domain is strange again after a restart");
                }
            });
        }
        Some(domain)
    }
}

impl Verifier {
    /// Leaves the mail to be delivered again; returns no domain because nobody was authenticated.
    fn leave(&self, id: MailId, reason: &str) -> Option<String> {
        lock(&self.mails).left();
        tracing::warn!(mail_id = %id, reason, "left to be delivered again");
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use settings::Rule;

    #[test]
    fn a_batch_is_no_larger_than_what_the_topic_of_receipts_keeps() {
        let spec = SPECS.iter().find(|spec| spec.name == "batch_max_mails").unwrap();
        let Rule::IntRange(_, last) = spec.rule else { panic!("{spec:?}") };
        assert_eq!(usize::try_from(last).unwrap(), topics::MAIL_RECEIPTS.facts.qos.depth());
    }
}
