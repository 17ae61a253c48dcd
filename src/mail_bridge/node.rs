// SPDX-License-Identifier: Apache-2.0
//! The node: mails from the bridge go to topics, dispositions and outbound mails go from topics to the bridge.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mail::{AcceptedMail, MailId, mail_of};
use ros::{
    RosError,
    convert::{
        delivery_to_ros, disposition_from_ros, mail_to_ros, outbound_from_ros, raw_to_ros, refusal_to_ros,
    },
    diagnostics,
    graph::{Graph, Publisher, Request},
    inbox::Inbox,
    msg,
    runtime::{self, NodeError, NodeFacts, Shutdown},
    srv, topics,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::MissedTickBehavior,
};

use super::{
    bridge::{Bridge, Handle, Streams},
    params::{GROUPS, Params, SPECS},
};

/// Name, purpose and parameters of the node.
pub const FACTS: NodeFacts = NodeFacts {
    name: "mail_bridge",
    about: "Takes mails by SMTP and LMTP into the graph, and sends mails from the graph by SMTP",
    specs: SPECS,
    groups: GROUPS,
};

/// Interval between checks for subscribers to mail/raw.
const SUBSCRIBER_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Bytes of outbound mails that are being journaled at once; beyond that the reader of mail/outbound waits.
const OUTBOUND_BYTES: u32 = 16 << 20;

/// Refusals of malformed messages that may wait to be published; beyond that the reader of mail/outbound waits.
const REFUSED: usize = 16;

/// Entry point of the executable.
pub fn main() -> ExitCode {
    runtime::run(FACTS, Params::load, run)
}

async fn run(mut graph: Graph, params: Params, mut shutdown: Shutdown) -> Result<(), NodeError> {
    let raw = graph.publisher(&topics::MAIL_RAW)?;
    let inbound = graph.publisher(&topics::MAIL_INBOUND)?;
    let delivered = graph.publisher(&topics::MAIL_DELIVERIES)?;
    let dispositions = graph.subscribe(&topics::MAIL_DISPOSITIONS)?;
    let outbound = graph.subscribe(&topics::MAIL_OUTBOUND)?;
    let requests = graph.serve(&topics::GET_RAW)?;

    let (mut bridge, Streams { mut mails, mut deliveries }) = Bridge::start(params).await?;
    let handle = bridge.handle();
    let health_handle = handle.clone();
    diagnostics::publish(&mut graph, move || health_handle.status())?;
    graph.watch("dispositions", take_dispositions(dispositions, handle.clone()));
    let (refuse, mut refused) = mpsc::channel(REFUSED);
    graph.watch("outbound", take_outbound(outbound, handle.clone(), refuse));
    graph.watch("get_raw", serve_raw(requests, handle.clone()));
    let mut running = graph.spin()?;

    let mut subscriber_checks = tokio::time::interval(SUBSCRIBER_CHECK_INTERVAL);
    subscriber_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            error = running.ended() => return Err(error.into()),
            error = bridge.ended() => return Err(error.into()),
            _ = subscriber_checks.tick() => handle.set_subscribers(raw.subscribers()),
            Some(mail) = mails.recv() => {
                if let Err(error) = publish_mail(&raw, &inbound, mail) {
                    tracing::warn!(%error, "a mail was not published; it comes again");
                }
            }
            Some(delivery) = deliveries.recv() => {
                tell(&delivered, &delivery_to_ros(&delivery, SystemTime::now()));
            }
            Some(status) = refused.recv() => tell(&delivered, &status),
        }
    }
    // Both are journaled: after the restart, mails are published again and a delivery's state is on disk.
    drop((mails, deliveries));
    if !bridge.drain().await {
        return Err("cut short: what was under way goes on after the restart".into());
    }
    // They served the bridge until it had drained.
    Ok(running.shutdown().await?)
}

fn publish_mail(
    raw: &Publisher<msg::RawMail>,
    inbound: &Publisher<msg::Mail>,
    accepted: AcceptedMail,
) -> Result<(), RosError> {
    let (mail_id, size) = (accepted.id, accepted.data.len());
    // Parse only if somebody subscribes, for example a person or rosbag.
    let parsed = inbound.is_heard().then(|| mail_to_ros(&mail_of(&accepted)));
    raw.publish(&raw_to_ros(accepted))?;
    tracing::info!(%mail_id, size, "published");
    parsed.map_or(Ok(()), |mail| inbound.publish(&mail))
}

fn tell(delivered: &Publisher<msg::DeliveryStatus>, status: &msg::DeliveryStatus) {
    if let Err(error) = delivered.publish(status) {
        tracing::warn!(%error, "a delivery status is lost");
    }
}

async fn take_dispositions(mut messages: Inbox<msg::Disposition>, handle: Handle) {
    while let Some(message) = messages.recv().await {
        match disposition_from_ros(message) {
            Ok(disposition) => {
                if handle.disposition(disposition).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "a message on mail/dispositions breaks its specification"),
        }
    }
}

/// Journals outbound mails in parallel, so that they share a sync; one after the other, each would wait for its own.
async fn take_outbound(
    mut messages: Inbox<msg::OutboundMail>,
    handle: Handle,
    refuse: mpsc::Sender<msg::DeliveryStatus>,
) {
    let room = Arc::new(Semaphore::new(OUTBOUND_BYTES as usize));
    while let Some(message) = messages.recv().await {
        let bytes = u32::try_from(topics::outbound_bytes(&message)).unwrap_or(u32::MAX).min(OUTBOUND_BYTES);
        // Nobody closes the semaphore.
        let Ok(permit) = Arc::clone(&room).acquire_many_owned(bytes).await else { return };
        match outbound_from_ros(message) {
            Ok(mail) => {
                let handle = handle.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    let answers = mail.answers;
                    if let Err(error) = handle.outbound(mail).await {
                        tracing::error!(%error, ?answers, "an outbound mail was not journaled; its mail comes again");
                    }
                });
            }
            Err(refusal) => {
                tracing::warn!(error = %refusal.error, "a message on mail/outbound breaks its specification");
                let _ = refuse.send(refusal_to_ros(&refusal, SystemTime::now())).await;
            }
        }
    }
}

async fn serve_raw(mut requests: mpsc::Receiver<Request<srv::GetRaw::Service>>, handle: Handle) {
    while let Some(request) = requests.recv().await {
        let response = match request.message.mail_id.parse::<MailId>() {
            Ok(id) => match handle.get_raw(id).await {
                Ok(Some(mail)) => {
                    srv::GetRaw::Response { found: true, data: mail.data, message: String::new() }
                }
                Ok(None) => no_mail(format!("mail {id}: not in the journal, or not any more")),
                Err(error) => {
                    tracing::error!(%error, "the journal cannot be read");
                    no_mail(error.to_string())
                }
            },
            Err(error) => no_mail(error.to_string()),
        };
        if let Err(error) = request.respond(response) {
            tracing::warn!(%error, "an answer of get_raw is lost");
        }
    }
}

fn no_mail(message: String) -> srv::GetRaw::Response {
    srv::GetRaw::Response { message, ..srv::GetRaw::Response::default() }
}
