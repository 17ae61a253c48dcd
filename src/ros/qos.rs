// SPDX-License-Identifier: Apache-2.0
//! The named QoS profiles of posthorn's topics.

use r2r::QosProfile;

/// A QoS profile, named for the kind of data that a topic carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Events: reliable, volatile, last 1000. Messages published before a subscriber joins are not delivered to it.
    Event,
    /// Mails with their bytes: reliable, volatile, last 256, which is what mail_bridge has in flight by default. The
    /// depth is smaller because messages may be large; a message that a subscriber misses is published again.
    Mail,
    /// Current state: reliable, transient-local, last 1. A subscriber that joins later gets the latest message.
    State,
    /// Stream of readings: best effort, volatile, last 5. A newer reading is worth more than a lost one.
    Sensor,
}

impl Qos {
    /// Samples kept for a slow reader.
    pub const fn depth(self) -> usize {
        match self {
            Self::Event => 1000,
            Self::Mail => 256,
            Self::State => 1,
            Self::Sensor => 5,
        }
    }

    /// The profile's name, as used in the documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Mail => "mail",
            Self::State => "state",
            Self::Sensor => "sensor",
        }
    }

    /// Converts to an r2r profile.
    pub fn profile(self) -> QosProfile {
        let profile = QosProfile::default().keep_last(self.depth());
        match self {
            Self::Event | Self::Mail => profile.reliable().volatile(),
            Self::State => profile.reliable().transient_local(),
            Self::Sensor => profile.best_effort().volatile(),
        }
    }
}
