//! The QoS profiles of posthorn's topics, by name.

use r2r::QosProfile;

/// What a topic is to those who publish and subscribe to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Something happened: reliable, volatile, last 1000. Who was not there did not hear it.
    Event,
    /// Mails with their bytes: reliable, volatile, last 256, which is what mail_bridge has in flight by default. A message
    /// may be large, so that fewer are kept; one that is missed comes again.
    Mail,
    /// Something is so: reliable, transient-local, last 1. Who comes later hears the latest.
    State,
    /// A stream of readings: best effort, volatile, last 5. An old reading is worth less than the next.
    Sensor,
}

impl Qos {
    /// Samples kept for a reader that is slow.
    pub const fn depth(self) -> usize {
        match self {
            Self::Event => 1000,
            Self::Mail => 256,
            Self::State => 1,
            Self::Sensor => 5,
        }
    }

    /// The profile's name, as in the documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Mail => "mail",
            Self::State => "state",
            Self::Sensor => "sensor",
        }
    }

    /// The profile as the middleware takes it.
    pub fn profile(self) -> QosProfile {
        let profile = QosProfile::default().keep_last(self.depth());
        match self {
            Self::Event | Self::Mail => profile.reliable().volatile(),
            Self::State => profile.reliable().transient_local(),
            Self::Sensor => profile.best_effort().volatile(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mail_bridge::params::SPECS, params::Value};

    #[test]
    fn a_reader_of_mails_keeps_what_the_bridge_has_in_flight() {
        let window = SPECS.iter().find(|spec| spec.name == "max_in_flight").unwrap().default.value();
        let Value::Int(window) = window else { panic!("{window:?}") };
        // First publications and further ones.
        assert_eq!(usize::try_from(2 * window).unwrap(), Qos::Mail.depth());
    }
}
