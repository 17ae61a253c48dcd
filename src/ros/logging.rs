//! `tracing` events to rcl's log handlers: stderr in ROS's format and `/rosout`, at the level of `--log-level`.

use std::fmt::{self, Write};

use r2r::LogSeverity;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    registry,
};

/// Sends every event of this process to rcl as the node named `logger`. Of other crates only warnings and errors.
pub fn install(logger: String) {
    let subscriber = registry().with(ToRcl { logger });
    // Fails only if a node was installed before, which then keeps the log.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct ToRcl {
    logger: String,
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
        r2r::log(&text, &self.logger, file, metadata.line().unwrap_or_default(), severity);
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
