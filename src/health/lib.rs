// SPDX-License-Identifier: Apache-2.0
//! The statuses that a node reports on `/diagnostics`. Pure; `ros::diagnostics` publishes them at 1 Hz.

use std::borrow::Cow;

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
    pub name: Cow<'static, str>,
    /// Severity of its current condition.
    pub level: Level,
    /// One sentence that contains no address.
    pub message: String,
    /// Figures about it.
    pub figures: Vec<Figure>,
    /// What else tells it apart, by name in snake case, such as the address of a contract; rarely changes.
    pub labels: Vec<(&'static str, String)>,
}

/// What a figure does over time, in the terms of Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows only, and begins at 0 or at what is on disk when the node starts.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A figure that a node reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name, in snake case, with the unit at the end if it has one, such as `in_flight_bytes`.
    pub name: Cow<'static, str>,
    /// What it does over time.
    pub kind: Kind,
    /// Its value now.
    pub value: u64,
}

impl Status {
    /// A status without figures and labels.
    pub fn new(name: impl Into<Cow<'static, str>>, level: Level, message: impl Into<String>) -> Self {
        Self { name: name.into(), level, message: message.into(), figures: Vec::new(), labels: Vec::new() }
    }

    /// Adds a figure that grows only.
    #[must_use]
    pub fn counter(self, name: impl Into<Cow<'static, str>>, value: impl TryInto<u64>) -> Self {
        self.with(name.into(), Kind::Counter, value)
    }

    /// Adds a figure that goes up and down.
    #[must_use]
    pub fn gauge(self, name: impl Into<Cow<'static, str>>, value: impl TryInto<u64>) -> Self {
        self.with(name.into(), Kind::Gauge, value)
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((name, value.into()));
        self
    }

    /// The value of a figure; `None` if there is none of this name.
    pub fn figure(&self, name: &str) -> Option<u64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    fn with(mut self, name: Cow<'static, str>, kind: Kind, value: impl TryInto<u64>) -> Self {
        // Callers pass unsigned integers of at most 64 bits; anything else would be shown as the largest.
        let value = value.try_into().unwrap_or(u64::MAX);
        self.figures.push(Figure { name, kind, value });
        self
    }
}
