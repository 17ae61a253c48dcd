// SPDX-License-Identifier: Apache-2.0
//! The statuses that a node reports on `/diagnostics`. Pure; `ros::diagnostics` publishes them at 1 Hz.

/// Severity of a status; the numbers are those of `diagnostic_msgs/DiagnosticStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Works as it should.
    Ok = 0,
    /// Works, but needs attention.
    Warn = 1,
    /// Does not work.
    Error = 2,
}

/// The status of one thing that can fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The thing that is reported on, for example "journal"; the publisher prefixes the node's name.
    pub name: &'static str,
    /// Severity of its current condition.
    pub level: Level,
    /// One sentence that contains no address.
    pub message: String,
    /// Figures as name and value.
    pub values: Vec<(&'static str, String)>,
}

impl Status {
    /// A status without figures.
    pub fn new(name: &'static str, level: Level, message: impl Into<String>) -> Self {
        Self { name, level, message: message.into(), values: Vec::new() }
    }

    /// Adds one figure.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.values.push((name, value.to_string()));
        self
    }
}
