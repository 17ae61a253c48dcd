// SPDX-License-Identifier: Apache-2.0
//! Turns an entry of the parameter `routes` into the topic of each vehicle.
//!
//! A [`Template`] always holds a placeholder, a valid topic and a known message type; subscribing is left to the node.

use super::extract::{EXTRACTORS, Extractor, extractor};

/// Placeholder for the vehicle's name in a topic template.
const PLACEHOLDER: &str = "{vehicle}";
/// Longest topic, bytes. What the namespace adds to it is checked when it is subscribed to.
const MAX_TOPIC_BYTES: usize = 240;

/// One entry of the parameter `routes`: `<topic template> <type>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    topic: String,
    extractor: &'static Extractor,
}

impl Template {
    /// Parses an entry.
    ///
    /// # Errors
    /// The rule that the entry breaks.
    pub fn parse(entry: &str) -> Result<Self, String> {
        let mut words = entry.split_whitespace();
        let (Some(topic), Some(type_name), None) = (words.next(), words.next(), words.next()) else {
            return Err("\"<topic template> <type>\", two words".to_owned());
        };
        if !topic.contains(PLACEHOLDER) {
            return Err(format!("a topic template with {PLACEHOLDER} in it"));
        }
        if !is_topic(&topic.replace(PLACEHOLDER, "v")) {
            return Err(format!(
                "a ROS topic name with {PLACEHOLDER} in it: words of letters, digits and underscores joined by \
                 slashes, none beginning with a digit"
            ));
        }
        let Some(extractor) = extractor(type_name) else {
            let known = EXTRACTORS.iter().map(|extractor| extractor.type_name).collect::<Vec<_>>().join(", ");
            return Err(format!("of a type that can be read: {known}"));
        };
        Ok(Self { topic: topic.to_owned(), extractor })
    }

    /// The topic template, placeholder included.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The topic of the vehicle with this name.
    pub fn topic_of(&self, vehicle: &str) -> String {
        self.topic.replace(PLACEHOLDER, vehicle)
    }

    /// How to read the messages on the topic.
    pub fn extractor(&self) -> &'static Extractor {
        self.extractor
    }
}

/// Whether `name` is a relative or absolute topic name (design.ros2.org, "Topic and Service names").
pub(super) fn is_topic(name: &str) -> bool {
    let relative = name.strip_prefix('/').unwrap_or(name);
    let is_token = |token: &str| {
        token.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    relative.split('/').all(is_token) && !name.contains("__") && name.len() <= MAX_TOPIC_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_topic_of_each_vehicle() {
        let template = Template::parse("/{vehicle}/fix_of_{vehicle}  sensor_msgs/msg/NavSatFix").unwrap();
        assert_eq!(template.topic_of("truck_1"), "/truck_1/fix_of_truck_1");
        assert_eq!(template.extractor().type_name, "sensor_msgs/msg/NavSatFix");
    }

    #[test]
    fn says_which_rule_an_entry_breaks() {
        let error = |entry: &str| Template::parse(entry).unwrap_err();
        assert!(error("{vehicle}/fix").contains("two words"));
        assert!(error("{vehicle}/fix sensor_msgs/msg/NavSatFix x").contains("two words"));
        assert!(error("fix sensor_msgs/msg/NavSatFix").contains("{vehicle}"));
        for topic in [
            "{vehicle}//fix",
            "{vehicle}/",
            "{vehicle}/1fix",
            "{vehicle}/fi-x",
            "{vehicle}/a__b",
            "~/{vehicle}",
        ] {
            assert!(
                error(&format!("{topic} sensor_msgs/msg/NavSatFix")).contains("ROS topic name"),
                "{topic}"
            );
        }
        let unknown = error("{vehicle}/name std_msgs/msg/String");
        assert!(EXTRACTORS.iter().all(|extractor| unknown.contains(extractor.type_name)), "{unknown}");
    }
}
