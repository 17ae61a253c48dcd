//! What a node says of itself on `/diagnostics`. Pure; `ros::diagnostics` publishes it at 1 Hz.

/// How well a thing is, as `diagnostic_msgs/DiagnosticStatus` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Works.
    Ok = 0,
    /// Works, but somebody should look.
    Warn = 1,
    /// Does not work.
    Error = 2,
}

/// The state of one thing that can fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The thing, for example "journal"; the node's name is put before it.
    pub name: &'static str,
    /// How well it is.
    pub level: Level,
    /// One sentence, no address in it.
    pub message: String,
    /// Figures, name and value.
    pub values: Vec<(&'static str, String)>,
}

impl Status {
    /// A thing in this state, without figures.
    pub fn new(name: &'static str, level: Level, message: impl Into<String>) -> Self {
        Self { name, level, message: message.into(), values: Vec::new() }
    }

    /// The same with one more figure.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.values.push((name, value.to_string()));
        self
    }
}
