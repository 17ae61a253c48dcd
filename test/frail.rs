// SPDX-License-Identifier: Apache-2.0
//! A node that is sound but for one task, whose end the parameter `end` chooses, for the tests of what then becomes of
//! the process. Apart from that task it is a shell like those of the nodes in `src/`.

use std::{process::ExitCode, time::Duration};

use ros::{
    dynamic::{self, NumberSubscription},
    graph::Graph,
    msg,
    runtime::{self, NodeError, NodeFacts, Shutdown},
    topics,
};
use settings::{Default as Preset, Rule, Spec, drain_timeout};

const SPECS: &[Spec] = &[
    Spec {
        name: "end",
        default: Preset::Text("never"),
        rule: Rule::NotEmpty,
        unit: "",
        description: "How the task ends: never, ends, fails or panics; or executor panics, for the thread of rclrs.",
    },
    drain_timeout(5.0),
];

const FACTS: NodeFacts =
    NodeFacts { name: "frail", about: "A node with a task that ends", specs: SPECS, groups: &[] };

/// Interval at which the node publishes what its own executor receives.
const PERIOD: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    runtime::run(FACTS, |values, _| values.text("end"), run)
}

async fn run(mut graph: Graph, end: String, mut shutdown: Shutdown) -> Result<(), NodeError> {
    let workers = graph.publisher(&topics::CHATBOT_WORKERS)?;
    let facts = topics::CHATBOT_WORKERS.facts;
    let own = NumberSubscription {
        topic: facts.name.to_owned(),
        type_name: facts.type_name.to_owned(),
        fields: &["in_flight"],
    };
    let panics = end == "executor panics";
    let _subscribed = dynamic::subscribe(&mut graph, &[own], move |_, _| assert!(!panics, "on purpose"))?;
    graph.watch("sound", std::future::pending::<()>());
    graph.watch("frail", frail(end));
    let mut running = graph.spin()?;
    eprintln!("running on");
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            error = running.ended() => return Err(error.into()),
            _ = ticks.tick() => workers.publish(&msg::WorkerStatus::default())?,
        }
    }
    Ok(running.shutdown().await?)
}

#[expect(clippy::panic, reason = "it is what the tests ask for")]
async fn frail(end: String) -> Result<(), &'static str> {
    // The node is running by then.
    tokio::time::sleep(PERIOD).await;
    match end.as_str() {
        "ends" => Ok(()),
        "fails" => Err("the disk is full"),
        "panics" => panic!("on purpose"),
        _ => std::future::pending().await,
    }
}
