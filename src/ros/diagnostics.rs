// SPDX-License-Identifier: Apache-2.0
//! Publishes a node's statuses on `/diagnostics` at 1 Hz.
//!
//! There is one status for each thing that can fail, named by namespace, node and thing: `fleet/mail_bridge: intake`.

use std::time::{Duration, SystemTime};

use health::Status;
use r2r::diagnostic_msgs::msg::{DiagnosticArray, DiagnosticStatus, KeyValue};
use tokio::time::MissedTickBehavior;

use super::{
    RosError,
    convert::time_to_ros,
    graph::{Graph, Publisher},
    topics::DIAGNOSTICS,
};

const PERIOD: Duration = Duration::from_secs(1);

/// Calls `statuses` once a second and publishes the result, for as long as the node runs. Call it inside a tokio
/// runtime.
///
/// # Errors
/// If the middleware rejects the publisher.
pub fn publish(
    graph: &mut Graph,
    statuses: impl FnMut() -> Vec<Status> + Send + 'static,
) -> Result<(), RosError> {
    let publisher = graph.publisher(&DIAGNOSTICS)?;
    graph.watch("diagnostics", repeat(publisher, graph.path(), statuses));
    Ok(())
}

async fn repeat(
    publisher: Publisher<DiagnosticArray>,
    node: String,
    mut statuses: impl FnMut() -> Vec<Status>,
) {
    let host = host();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut message = DiagnosticArray::default();
        message.header.stamp = time_to_ros(SystemTime::now());
        message.status = statuses().into_iter().map(|status| to_ros(&node, &host, status)).collect();
        if let Err(error) = publisher.publish(&message) {
            tracing::warn!(%error, "diagnostics are lost");
        }
    }
}

/// The host name, which stands in for the hardware id that a diagnostic status requires.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim_end().to_owned()
}

fn to_ros(node: &str, host: &str, status: Status) -> DiagnosticStatus {
    DiagnosticStatus {
        level: status.level as u8,
        name: format!("{node}: {}", status.name),
        message: status.message,
        hardware_id: host.to_owned(),
        values: status
            .values
            .into_iter()
            .map(|(key, value)| KeyValue { key: key.to_owned(), value })
            .collect(),
    }
}
