// SPDX-License-Identifier: Apache-2.0
//! The test's side of `test/observer.rs`: receives what was published and calls services.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex,
        mpsc::{Receiver, channel},
    },
    time::Instant,
};

use ros::topics::{ServiceFacts, TopicFacts};
use serde_json::{Value, json};

use super::{PATIENCE, domain::Domain, executable};

/// Watches a graph and calls its services, through a separate process.
pub struct Observer {
    child: Child,
    requests: ChildStdin,
    lines: Mutex<Receiver<Value>>,
    /// Messages received while waiting for something else.
    seen: Vec<(String, Value)>,
}

impl Observer {
    /// Subscribes to `topics`; returns once the subscriptions exist.
    pub fn start(domain: &Domain, topics: &[TopicFacts]) -> Self {
        let mut command = Command::new(executable("observer"));
        command.arg("");
        for topic in topics {
            command.arg(format!("{}={}={}", topic.name, topic.type_name, topic.qos.name()));
        }
        command.envs(domain.environment()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("observer");
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        let requests = child.stdin.take().expect("piped");
        let mut observer = Self { child, requests, lines: Mutex::new(lines), seen: Vec::new() };
        observer.next_line("the observer is ready", |line| line["ready"].as_bool().map(|_| ()));
        observer
    }

    /// Waits until every subscription has a publisher. Messages published after that are received.
    pub fn wait_until_matched(&mut self) {
        self.next_line("every observed topic has a publisher", |line| line["matched"].as_bool().map(|_| ()));
    }

    /// Takes the next message on `topic` that `matches`, even if it arrived earlier; keeps the others.
    pub fn message(&mut self, topic: TopicFacts, matches: impl Fn(&Value) -> bool) -> Value {
        let wanted = |name: &str, message: &Value| name == topic.name && matches(message);
        if let Some(place) = self.seen.iter().position(|(name, message)| wanted(name, message)) {
            return self.seen.remove(place).1;
        }
        self.next_line(&format!("a message on {}", topic.name), |line| {
            let message = &line["message"];
            wanted(line["topic"].as_str()?, message).then(|| message.clone())
        })
    }

    /// Messages received on `topic` that have not been taken. They stay available to [`Observer::message`].
    pub fn received(&mut self, topic: TopicFacts) -> Vec<Value> {
        while let Ok(line) = self.lines.lock().expect("lines").try_recv() {
            Self::keep(&mut self.seen, line);
        }
        self.seen.iter().filter(|(name, _)| name == topic.name).map(|(_, message)| message.clone()).collect()
    }

    /// Drops the messages received on `topic` so far, so that [`Observer::message`] takes only what comes after.
    pub fn forget(&mut self, topic: TopicFacts) {
        self.received(topic);
        self.seen.retain(|(name, _)| name != topic.name);
    }

    /// Calls a service; waits until it is available.
    pub fn call(&mut self, service: ServiceFacts, request: &Value) -> Value {
        let line = json!({ "service": service.name, "type": service.type_name, "request": request });
        writeln!(self.requests, "{line}").expect("observer listens");
        self.next_line(&format!("{} answers", service.name), |line| {
            (line["service"].as_str()? == service.name).then(|| line["response"].clone())
        })
    }

    fn keep(seen: &mut Vec<(String, Value)>, line: Value) {
        if let Some(topic) = line["topic"].as_str() {
            seen.push((topic.to_owned(), line["message"].clone()));
        }
    }

    fn next_line<T>(&mut self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(began.elapsed());
            let line = self.lines.lock().expect("lines").recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
            assert!(line.get("error").is_none(), "{what}: {line}");
            if let Some(value) = wanted(&line) {
                return value;
            }
            Self::keep(&mut self.seen, line);
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
