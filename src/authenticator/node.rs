// SPDX-License-Identifier: Apache-2.0
//! The authenticator node: verifies mails from `mail/raw`, publishes their verdicts, anchors evidence and serves the
//! registry.
//!
//! [`Core`] decides what happens to a mail and when; this module does it: queries DNS and the registry, writes
//! evidence, publishes. It also connects the other parts to topics, services and tasks.

use std::{pin::pin, process::ExitCode, sync::Arc, time::SystemTime};

use chain::want_new_contracts;
use evidence::{Finding, Source, log::EvidenceLog};
use futures::FutureExt;
use mail::{AcceptedMail, EmailAddress, Verdict, mail_of};
use record_log::create_directory;
use ros::{
    convert::{accepted_from_ros, authenticated_to_ros, receipt_to_ros},
    diagnostics,
    graph::{Graph, Publisher},
    msg,
    runtime::{self, NodeError, NodeFacts, Shutdown},
    topics,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    address::AddressKey,
    core::{Core, Input, Job, Limits, Outcome},
    desk::{Desk, Work},
    dns::Dns,
    evidencer::{Closed, Evidencer},
    gate::Gate,
    health,
    known::KnownDomains,
    params::{EVIDENCE_DIRECTORY, Params, SPECS},
    receipts, services,
    verdict::revoked,
    verify::{Policy, verify},
};
use crate::{
    anchoring::Followed,
    on_chain::{self, ChainKeeper, KeeperHandles},
    prover::{Prover, Provers},
    registry::Registry,
    shared_chain,
    store::EvidenceStore,
};

/// Name, description and parameters of the node.
pub const FACTS: NodeFacts = NodeFacts {
    name: "authenticator",
    about: "Finds out who sent a mail, and records mail and verdict on the evidence ledger",
    specs: SPECS,
    groups: &[],
};

/// Entry point of the executable.
pub fn main() -> ExitCode {
    runtime::run(FACTS, Params::load, run)
}

async fn run(mut graph: Graph, params: Params, mut shutdown: Shutdown) -> Result<(), NodeError> {
    let source = graph.fully_qualified_name().parse::<Source>()?;
    let (dns, policy) = (
        Dns::open(params.dns_zone_file.as_deref(), &params.dns_servers, params.dns_waits)?,
        Policy::open(&params)?,
    );
    let limits = Limits {
        max_in_flight: params.max_in_flight,
        dns_patience: params.temperror_give_up,
        registry_patience: params.registry_patience,
    };
    let stated_by = source.clone();
    let opened = tokio::task::spawn_blocking(move || open(params, stated_by)).await?;
    let (keeper, handles, store, gate, known) = opened?;
    let KeeperHandles { registry, registrar, chain, shared } = handles;
    let Followed { ledger, receipts, health: chain_health } = chain;
    let (evidencer, evidence_writer) = Evidencer::new(store.clone(), source);

    let core = Core::new(limits, &known.all());
    let verifier = Verifier {
        dns,
        policy,
        known: Arc::new(known),
        registry: registry.clone(),
        evidencer: evidencer.clone(),
        authenticated: graph.publisher(&topics::MAIL_AUTHENTICATED)?,
    };
    let desk = Desk::new(core, verifier);
    let mut raw = graph.subscribe(&topics::MAIL_RAW)?;
    let published = graph.publisher(&topics::MAIL_RECEIPTS)?;
    graph.watch("evidence", evidence_writer.run());
    graph.watch("chain", keeper.run());
    graph.watch("registrar", registrar.run());
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
    let provers = Provers {
        entries: Prover::new(store.clone(), ledger),
        blocks: shared.as_ref().map(|shared| Prover::new(shared.store.clone(), shared.ledger.clone())),
    };
    services::serve(&mut graph, &registry, provers, (evidencer, store.clone()), gate)?;
    let (counted, mails) = (store.clone(), desk.counts());
    diagnostics::publish(&mut graph, move || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let status = |name, store: &EvidenceStore, health: &watch::Receiver<health::Ledger>| {
            health::ledger_status(name, store.counts().0, &health.borrow(), now)
        };
        let mut statuses =
            vec![health::mails_status(&mails()), status(on_chain::STATUS, &counted, &chain_health)];
        statuses.extend(
            shared.as_ref().map(|shared| status(shared_chain::STATUS, &shared.store, &shared.health)),
        );
        statuses
    })?;
    let mut running = graph.spin()?;
    tracing::info!("verifying");

    let mut connected = pin!(registry.connected_once().fuse());
    loop {
        let wakeup = desk.next_wakeup();
        let input = tokio::select! {
            () = shutdown.requested() => break,
            error = running.ended() => return Err(error.into()),
            () = &mut connected => Input::ChainConnected,
            () = sleep_until(wakeup.unwrap_or_else(Instant::now)), if wakeup.is_some() => Input::Tick,
            Some(mail) = raw.recv() => delivered(mail),
        };
        desk.step(input);
    }
    // Evidence not anchored yet is on disk and is anchored after the next start.
    desk.drain().await;
    Ok(running.shutdown().await?)
}

type Opened = (ChainKeeper, KeeperHandles, EvidenceStore, Gate, KnownDomains);

/// Opens all state on this host's disk.
fn open(params: Params, source: Source) -> Result<Opened, NodeError> {
    let (evidence, contracts) =
        (params.state_directory.join(EVIDENCE_DIRECTORY), params.state_directory.join("contracts.json"));
    // Everything else that was there before and is not now, was lost. The evidence comes last, so that a start which is cut
    // short is still the first.
    create_directory(&params.state_directory)
        .map_err(|error| format!("state_directory {}: {error}", params.state_directory.display()))?;
    let is_first_start = !evidence.try_exists()? && !contracts.try_exists()?;
    let key = match is_first_start {
        true => AddressKey::load_or_create(&params.address_key_path)?,
        false => AddressKey::load(&params.address_key_path)?,
    };
    if is_first_start && params.contracts.is_none() {
        want_new_contracts(&params.state_directory)?;
    }
    let (log, torn_bytes) = EvidenceLog::open(&evidence)?;
    if torn_bytes > 0 {
        tracing::warn!(torn_bytes, "evidence log: cut a torn tail");
    }
    let store = EvidenceStore::new(log);
    let gate = Gate::open(params.registry_token_path.as_deref())?;
    let domains = params.state_directory.join("known_domains");
    let known = KnownDomains::open(&domains)
        .map_err(|error| format!("{}: {error}; remove it, it is made anew", domains.display()))?;
    let (keeper, handles) = ChainKeeper::open(params, store.clone(), key, source)?;
    Ok((keeper, handles, store, gate, known))
}

fn delivered(mail: msg::RawMail) -> Input {
    match accepted_from_ros(mail) {
        Ok(mail) => Input::delivered(mail),
        Err(error) => {
            tracing::warn!(%error, "a message on mail/raw breaks its specification");
            Input::Malformed
        }
    }
}

/// Does the work on single mails.
struct Verifier {
    dns: Dns,
    policy: Policy,
    known: Arc<KnownDomains>,
    registry: Registry,
    evidencer: Evidencer,
    authenticated: Publisher<msg::AuthenticatedMail>,
}

impl Work for Verifier {
    async fn run(&self, job: Job) -> Outcome {
        match job {
            Job::Check(mail) => {
                let now = SystemTime::now();
                let checked = verify(&self.dns, &self.policy, &mail.origin, &mail.data, now).await;
                Outcome::Checked(Box::new(checked))
            }
            Job::AskRegistry(from) => Outcome::Registered(self.registry.sender(&from).await),
            Job::Record { mail, from, codes } => self.record(&mail, from.as_ref(), codes).await,
            Job::Publish(mail, verdict) => self.publish(&mail, verdict).await,
        }
    }

    fn remember(&self, domain: String) {
        let known = Arc::clone(&self.known);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = known.add(&domain) {
                tracing::warn!(%error, "known_domains cannot be written: the domain is strange again after a restart");
            }
        });
    }
}

impl Verifier {
    async fn record(&self, mail: &AcceptedMail, from: Option<&EmailAddress>, codes: [u8; 7]) -> Outcome {
        let finding = Finding {
            mail_id: mail.id,
            received_at: mail.received_at,
            sender_digest: self.registry.digest(from),
            verdict: codes,
        };
        match self.evidencer.evidence(&finding).await {
            Ok(first) => Outcome::Evidenced(first.verdict),
            Err(Closed) => Outcome::Failed,
        }
    }

    async fn publish(&self, mail: &AcceptedMail, verdict: Verdict) -> Outcome {
        let parsed = mail_of(mail);
        let author = match parsed.content.from.as_slice() {
            [one] => EmailAddress::parse(&one.address).ok(),
            _ => None,
        };
        let verdict = match author {
            // The evidence has the verdict as it was when the registry was asked.
            Some(author) if verdict.authenticated && self.registry.has_revoked(&author).await => {
                revoked(verdict)
            }
            _ => verdict,
        };
        tracing::info!(mail_id = %mail.id, authenticated = verdict.authenticated, reason = %verdict.reason, "verdict");
        let message = authenticated_to_ros(&parsed, &verdict, SystemTime::now());
        if let Err(error) = self.authenticated.publish(&message) {
            tracing::warn!(%error, mail_id = %mail.id, "a verdict was not published; the mail comes again");
        }
        Outcome::Published
    }
}
