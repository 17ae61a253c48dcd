//! Looks at a graph for tests and the demo, in a process and so in a ROS domain of its own: prints every message as a
//! line of JSON and calls services. It knows types by name only; what it subscribes to is on its command line.
//!
//! Arguments: NAMESPACE, then TOPIC=TYPE=QOS for each subscription. Standard input: `{"service", "type", "request"}` a
//! line, ends the process when it ends. Standard output: `{"ready": true}` when the subscriptions are made,
//! `{"matched": true}` when each has a publisher, then `{"topic", "message"}` and `{"service", "response"}`.

#![allow(clippy::print_stdout, reason = "what it prints is its purpose")]

use std::{error::Error, io::BufRead, time::Duration};

use futures::StreamExt;
use posthorn::ros::qos::Qos;
use r2r::QosProfile;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// After which a request is repeated.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let namespace = arguments.next().ok_or("usage: observer NAMESPACE TOPIC=TYPE=QOS …")?;
    let mut unmatched = Vec::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _entered = runtime.enter();
    let (lines, mut printed) = mpsc::unbounded_channel::<Value>();
    let mut node = r2r::Node::create(r2r::Context::create()?, "observer", &namespace)?;

    for argument in arguments {
        let [topic, type_name, qos] = argument.split('=').collect::<Vec<_>>()[..] else {
            return Err(format!("argument {argument:?}: must be TOPIC=TYPE=QOS").into());
        };
        let known = [Qos::Event, Qos::State, Qos::Sensor].into_iter().find(|known| known.name() == qos);
        let profile = known.ok_or(format!("QoS {qos:?}: must be event, state or sensor"))?.profile();
        let mut messages = node.subscribe_untyped(topic, type_name, profile)?;
        unmatched.push(format!("{}{topic}", if topic.starts_with('/') { "" } else { "/" }));
        let (topic, lines) = (topic.to_owned(), lines.clone());
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let line = match message {
                    Ok(message) => json!({ "topic": topic, "message": message }),
                    Err(error) => json!({ "topic": topic, "error": error.to_string() }),
                };
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
    }
    let _ = lines.send(json!({ "ready": true }));

    // Requests come from a thread, because nothing else can wait for standard input.
    let (asked, mut requests) = mpsc::unbounded_channel::<Value>();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(request) = serde_json::from_str(&line) else { break };
            if asked.send(request).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    runtime.spawn(async move {
        while let Some(line) = printed.recv().await {
            println!("{line}");
        }
    });
    let mut matched = false;
    loop {
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
    }
}

/// Calls a service when it is there, and prints its answer.
fn ask(
    node: &mut r2r::Node,
    call: &Value,
    lines: mpsc::UnboundedSender<Value>,
) -> Result<(), Box<dyn Error>> {
    let text = |name: &str| call[name].as_str().map(str::to_owned).ok_or(format!("request without {name}"));
    let (service, type_name) = (text("service")?, text("type")?);
    let client = node.create_client_untyped(&service, &type_name, QosProfile::services_default())?;
    let request = call["request"].clone();
    tokio::spawn(async move {
        // A server that was killed is believed to be there for a while, and one that is starting is not there yet.
        let line = loop {
            // Fast DDS refuses a request while it knows of no server.
            let Ok(answer) = client.request(request.clone()) else {
                tokio::time::sleep(PATIENCE / 10).await;
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
