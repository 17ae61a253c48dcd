//! `tracing` events to stderr, by rcl in ROS's format at the level of `--log-level`, and to `/rosout`, from INFO on.
//!
//! rcl leaves `/rosout` to the client library, and r2r does not do it; so it is done here.

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

/// Records that a late subscription to `/rosout` gets, and how old they are at most: as rclcpp has it.
const ROSOUT_DEPTH: usize = 1000;
const ROSOUT_LIFESPAN: Duration = Duration::from_secs(10);

/// Sends every event of this process to the log as the node of `graph`. Of other crates only warnings and errors.
///
/// # Errors
/// If the middleware refuses the publisher.
pub fn install(graph: &mut Graph) -> Result<(), RosError> {
    let qos =
        QosProfile::default().reliable().transient_local().keep_last(ROSOUT_DEPTH).lifespan(ROSOUT_LIFESPAN);
    let rosout = graph.publisher_named("/rosout", "/rosout".to_owned(), qos)?;
    // As rcl names a node's logger.
    let logger = graph.path().replace('/', ".");
    let subscriber = registry().with(ToRcl { logger, rosout });
    // Fails only if a node was installed before, which then keeps the log.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

struct ToRcl {
    logger: String,
    rosout: Publisher<Log>,
}

/// Levels of `rcl_interfaces/msg/Log`; debug is not sent.
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
        metadata.target().starts_with(env!("CARGO_CRATE_NAME")) || *metadata.level() <= Level::WARN
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
        // A NUL would end the C string, and with it r2r.
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
            // An error cannot be logged here; stderr has the text. At the end the node, and so the topic, goes first.
            let _ = self.rosout.publish(&log);
        }
    }
}

/// An event as one line: the message, then `name=value` for each field.
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
