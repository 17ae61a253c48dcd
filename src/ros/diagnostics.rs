//! `/diagnostics` at 1 Hz: what a node says of itself, one status for each thing that can fail.

use std::time::{Duration, SystemTime};

use r2r::diagnostic_msgs::msg::{DiagnosticArray, DiagnosticStatus, KeyValue};
use tokio::time::MissedTickBehavior;

use super::{RosError, convert::time_to_ros, graph::Graph, topics::DIAGNOSTICS};
use crate::health::Status;

const PERIOD: Duration = Duration::from_secs(1);

/// Publishes what `statuses` gives once a second, for as long as the runtime lives.
///
/// # Errors
/// If the middleware refuses the publisher.
pub fn publish(
    graph: &mut Graph,
    mut statuses: impl FnMut() -> Vec<Status> + Send + 'static,
) -> Result<(), RosError> {
    let publisher = graph.publisher(&DIAGNOSTICS)?;
    let node = graph.name();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut message = DiagnosticArray::default();
            message.header.stamp = time_to_ros(SystemTime::now());
            message.status = statuses().into_iter().map(|status| to_ros(&node, status)).collect();
            if let Err(error) = publisher.publish(&message) {
                tracing::warn!(%error, "diagnostics are lost");
            }
        }
    });
    Ok(())
}

fn to_ros(node: &str, status: Status) -> DiagnosticStatus {
    DiagnosticStatus {
        level: status.level as u8,
        name: format!("{node}: {}", status.name),
        message: status.message,
        hardware_id: String::new(),
        values: status
            .values
            .into_iter()
            .map(|(key, value)| KeyValue { key: key.to_owned(), value })
            .collect(),
    }
}
