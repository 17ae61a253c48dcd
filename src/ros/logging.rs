// SPDX-License-Identifier: Apache-2.0
//! Sends `tracing` events to stderr and to `/rosout`.
//!
//! rcl writes to stderr in ROS's format, at the level set by `--log-level`; `/rosout` gets INFO and above. rcl leaves
//! `/rosout` to the client library and r2r does not implement it, so this module does.

use std::{
    fmt::{self, Write},
    time::{Duration, SystemTime},
};

use r2r::{LogSeverity, QosProfile, rcl_interfaces::msg::Log};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    registry,
};

use super::{
    RosError,
    convert::time_to_ros,
    graph::{Graph, Publisher},
};

/// Log messages kept for a late subscriber to `/rosout`, and for how long; the same values as in rclcpp.
const ROSOUT_DEPTH: usize = 1000;
const ROSOUT_LIFESPAN: Duration = Duration::from_secs(10);

/// Installs a process-wide subscriber that logs every event in the name of `graph`'s node. From other crates it takes
/// only warnings and errors.
///
/// # Errors
/// If the middleware rejects the publisher.
pub fn install(graph: &mut Graph) -> Result<(), RosError> {
    let qos =
        QosProfile::default().reliable().transient_local().keep_last(ROSOUT_DEPTH).lifespan(ROSOUT_LIFESPAN);
    let rosout = graph.publisher_named("/rosout", "/rosout".to_owned(), qos)?;
    // The same format as rcl's name for a node's logger.
    let logger = graph.path().replace('/', ".");
    let subscriber = registry().with(ToRcl { logger, rosout });
    // Fails only if another node in this process installed its logger first; that one stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Crates that a node is made of: their events are logged from INFO on. A test compares them with `cargo metadata`.
pub const OUR_CRATES: &[&str] = &[
    "authenticator",
    "chain",
    "chatbot",
    "evidence",
    "fair_queue",
    "fleet_simulator",
    "health",
    "imap",
    "mail",
    "mail_bridge",
    "posthorn",
    "record_log",
    "ros",
    "settings",
    "smtp",
    "tls",
    "vehicle",
    "vehicle_router",
];

struct ToRcl {
    logger: String,
    rosout: Publisher<Log>,
}

/// The severity constants of `rcl_interfaces/msg/Log`; DEBUG and below are not published.
fn rosout_level(level: Level) -> Option<u8> {
    match level {
        Level::ERROR => Some(40),
        Level::WARN => Some(30),
        Level::INFO => Some(20),
        Level::DEBUG | Level::TRACE => None,
    }
}

impl<S: Subscriber> Layer<S> for ToRcl {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let crate_name = metadata.target().split("::").next().unwrap_or_default();
        OUR_CRATES.contains(&crate_name) || *metadata.level() <= Level::WARN
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let severity = match *metadata.level() {
            Level::ERROR => LogSeverity::Error,
            Level::WARN => LogSeverity::Warn,
            Level::INFO => LogSeverity::Info,
            Level::DEBUG | Level::TRACE => LogSeverity::Debug,
        };
        let mut line = Line::default();
        event.record(&mut line);
        // r2r panics on a NUL, which a C string cannot hold.
        let text = line.text().replace('\0', "\u{FFFD}");
        let file = metadata.file().unwrap_or_default();
        let line = metadata.line().unwrap_or_default();
        r2r::log(&text, &self.logger, file, line, severity);
        if let Some(level) = rosout_level(*metadata.level()) {
            let log = Log {
                stamp: time_to_ros(SystemTime::now()),
                level,
                name: self.logger.clone(),
                msg: text,
                file: file.to_owned(),
                function: metadata.target().to_owned(),
                line,
            };
            // An error cannot be logged from here, but stderr already has the text.
            let _ = self.rosout.publish(&log);
        }
    }
}

/// An event as one line: the message, then ` name=value` for each field.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn text(self) -> String {
        self.message + &self.fields
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
