// SPDX-License-Identifier: Apache-2.0
//! Publishes messages as another node of the graph would.

use std::{
    io::Write,
    process::{Child, ChildStdin, Command, Stdio},
};

use ros::topics::TopicFacts;
use serde_json::Value;
use testbed::{domain::Domain, project};

/// A Python node with one publisher; killed by pid on drop.
pub struct Publisher {
    child: Child,
    messages: ChildStdin,
}

impl Publisher {
    /// Starts the node; it publishes nothing before the topic has as many `subscribers`.
    pub fn start(domain: &Domain, topic: TopicFacts, subscribers: usize) -> Self {
        let type_name = topic.type_name.rsplit('/').next().expect("name");
        let mut command = Command::new("python3");
        command.arg(project("test/graph/publish.py")).args([topic.name, type_name, &subscribers.to_string()]);
        let mut child = command.envs(domain.environment()).stdin(Stdio::piped()).spawn().expect("python3");
        let messages = child.stdin.take().expect("piped");
        Self { child, messages }
    }

    /// Publishes a message with these fields; the others have their defaults.
    pub fn publish(&mut self, fields: &Value) {
        writeln!(self.messages, "{fields}").expect("publish.py says why on standard error");
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
