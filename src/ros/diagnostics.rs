// SPDX-License-Identifier: Apache-2.0
//! Publishes a node's statuses on `/diagnostics` at 1 Hz, and hears those of others.
//!
//! There is one status for each thing that can fail, named by namespace, node and thing: `fleet/mail_bridge: intake`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use health::{Figure, Status};
use r2r::diagnostic_msgs::msg::{DiagnosticArray, DiagnosticStatus, KeyValue};
use tokio::time::MissedTickBehavior;

use super::{
    RosError,
    convert::time_to_ros,
    graph::{Graph, Publisher},
    inbox::Inbox,
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

/// A status as another node published it; nothing about it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Namespace, node and thing, such as `fleet/mail_bridge: intake`.
    pub name: String,
    /// Severity, numbered as in `diagnostic_msgs/DiagnosticStatus`.
    pub level: u8,
    /// Its condition in a sentence.
    pub message: String,
    /// Its figures and labels, by name.
    pub values: BTreeMap<String, String>,
}

/// Hears the statuses of every node of this ROS domain.
pub struct Listener(Inbox<DiagnosticArray>);

impl Listener {
    /// Subscribes to `/diagnostics`.
    ///
    /// # Errors
    /// If the middleware rejects it.
    pub fn new(graph: &mut Graph) -> Result<Self, RosError> {
        graph.subscribe(&DIAGNOSTICS).map(Self)
    }

    /// The next statuses; `None` once the node has ended.
    pub async fn next(&mut self) -> Option<Vec<Heard>> {
        let message = self.0.recv().await?;
        let heard = |DiagnosticStatus { name, level, message, values, .. }| Heard {
            name,
            level,
            message,
            values: values.into_iter().map(|KeyValue { key, value }| (key, value)).collect(),
        };
        Some(message.status.into_iter().map(heard).collect())
    }
}

/// The host name, which stands in for the hardware id that a diagnostic status requires.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim_end().to_owned()
}

fn to_ros(node: &str, host: &str, status: Status) -> DiagnosticStatus {
    let figure = |figure: Figure| KeyValue { key: figure.name.to_string(), value: figure.value.to_string() };
    let figures = status.figures.into_iter().map(figure);
    let labels = status.labels.into_iter().map(|(name, value)| KeyValue { key: name.to_owned(), value });
    DiagnosticStatus {
        level: status.level as u8,
        name: format!("{node}: {}", status.name),
        message: status.message,
        hardware_id: host.to_owned(),
        values: figures.chain(labels).collect(),
    }
}
