// SPDX-License-Identifier: Apache-2.0
//! Watches a graph for tests and the demo, in a separate process and therefore in its own ROS domain. It prints every
//! message as a line of JSON and calls services. It knows types only by name; the command line says what to subscribe
//! to.
//!
//! Arguments: NAMESPACE, then TOPIC=TYPE=QOS for each subscription. Standard input: one `{"service", "type",
//! "request"}` per line; the process ends at end of input. Standard output: `{"ready": true}` once the subscriptions
//! exist, `{"matched": true}` once each has a publisher, then `{"topic", "message"}` and `{"service", "response"}`,
//! with `"error"` in place of the last key on failure. With `--watch` as the first argument it reads no input. It also
//! ends on SIGINT and SIGTERM, and when its output is closed.

use std::{
    error::Error,
    io::{BufRead, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::LocalBoxStream};
use r2r::QosProfile;
use ros::qos::Qos;
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Time after which a request is repeated. It is longer than any write to a busy disk takes, so a slow call that must
/// happen only once is not made twice.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let watch = arguments.next_if(|argument| argument == "--watch").is_some();
    let namespace = arguments.next().ok_or("usage: observer [--watch] NAMESPACE TOPIC=TYPE=QOS …")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _entered = runtime.enter();
    let end = Arc::new(AtomicBool::new(false));
    end_with_signals(&runtime, &end)?;
    let mut node = r2r::Node::create(r2r::Context::create()?, "observer", &namespace)?;
    let mut subscriptions =
        arguments.map(|argument| subscribe(&mut node, &argument)).collect::<Result<Vec<_>, _>>()?;
    let mut unmatched: Vec<String> = subscriptions
        .iter()
        .map(|(topic, _)| format!("{}{topic}", if topic.starts_with('/') { "" } else { "/" }))
        .collect();

    // Printed by a separate thread, so a slow reader does not delay the subscriptions.
    let (lines, printed) = mpsc::unbounded_channel();
    let printer = std::thread::spawn(move || print(printed));
    let _ = lines.send(json!({ "ready": true }));
    let (asked, mut requests) = mpsc::unbounded_channel();
    if !watch {
        // A blocking thread: the spin loop must not wait for standard input.
        let end = Arc::clone(&end);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let Ok(request) = serde_json::from_str(&line) else { break };
                if asked.send(request).is_err() {
                    break;
                }
            }
            end.store(true, Ordering::Relaxed);
        });
    }
    let mut matched = false;
    while !end.load(Ordering::Relaxed) && !lines.is_closed() {
        unmatched.retain(|topic| {
            node.get_publishers_info_by_topic(topic, false).is_ok_and(|publishers| publishers.is_empty())
        });
        if unmatched.is_empty() && !matched {
            matched = true;
            let _ = lines.send(json!({ "matched": true }));
        }
        while let Ok(call) = requests.try_recv() {
            ask(&mut node, &call, lines.clone())?;
        }
        node.spin_once(Duration::from_millis(10));
        // One spin takes one message per subscription and r2r queues only ten, so drain them before the next spin.
        for (topic, messages) in &mut subscriptions {
            while let Some(Some(message)) = messages.next().now_or_never() {
                let _ = lines.send(match message {
                    Ok(message) => json!({ "topic": topic, "message": message }),
                    Err(error) => json!({ "topic": topic, "error": error.to_string() }),
                });
            }
        }
    }
    // Drop what uses the node first, then the node, then end the process, so that no middleware thread outlives what it
    // uses.
    runtime.shutdown_timeout(PATIENCE);
    drop(subscriptions);
    drop(node);
    drop(lines);
    printer.join().map_err(|_| "the printer panicked")?;
    Ok(())
}

type Messages = LocalBoxStream<'static, r2r::Result<Value>>;

/// Creates the subscription that an argument TOPIC=TYPE=QOS describes.
fn subscribe(node: &mut r2r::Node, argument: &str) -> Result<(String, Messages), Box<dyn Error>> {
    let [topic, type_name, qos] = argument.split('=').collect::<Vec<_>>()[..] else {
        return Err(format!("argument {argument:?}: must be TOPIC=TYPE=QOS").into());
    };
    let known =
        [Qos::Event, Qos::Mail, Qos::State, Qos::Sensor].into_iter().find(|known| known.name() == qos);
    let profile = known.ok_or(format!("QoS {qos:?}: must be event, mail, state or sensor"))?.profile();
    Ok((topic.to_owned(), node.subscribe_untyped(topic, type_name, profile)?.boxed_local()))
}

/// Sets `end` on the first SIGINT or SIGTERM.
fn end_with_signals(runtime: &tokio::runtime::Runtime, end: &Arc<AtomicBool>) -> std::io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let (mut received, end) = (signal(kind)?, Arc::clone(end));
        runtime.spawn(async move {
            received.recv().await;
            end.store(true, Ordering::Relaxed);
        });
    }
    Ok(())
}

/// Prints lines until the channel or standard output is closed.
fn print(mut lines: mpsc::UnboundedReceiver<Value>) {
    let mut out = std::io::stdout();
    while let Some(line) = lines.blocking_recv() {
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
}

/// Calls a service once it is available, and prints the answer.
fn ask(
    node: &mut r2r::Node,
    call: &Value,
    lines: mpsc::UnboundedSender<Value>,
) -> Result<(), Box<dyn Error>> {
    let text = |name: &str| call[name].as_str().map(str::to_owned).ok_or(format!("request without {name}"));
    let (service, type_name) = (text("service")?, text("type")?);
    let client = node.create_client_untyped(&service, &type_name, QosProfile::services_default())?;
    let request = call["request"].clone();
    let available = r2r::Node::is_available(&client)?;
    tokio::spawn(async move {
        // Fast DDS loses a request to a server of which it does not know both ends yet.
        let _ = available.await;
        // The graph lists a killed server for a while: try again.
        let line = loop {
            // Fast DDS rejects a request while it knows no server.
            let Ok(answer) = client.request(request.clone()) else {
                tokio::time::sleep(PATIENCE / 50).await;
                continue;
            };
            match tokio::time::timeout(PATIENCE, answer).await {
                Ok(Ok(Ok(response))) => break json!({ "service": service, "response": response }),
                Ok(Ok(Err(error)) | Err(error)) => {
                    break json!({ "service": service, "error": error.to_string() });
                }
                Err(_) => {}
            }
        };
        let _ = lines.send(line);
    });
    Ok(())
}
