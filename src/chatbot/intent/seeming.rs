// SPDX-License-Identifier: Apache-2.0
//! Finds what a person would read as an order, so that its sender can be told when it is not carried out.
//!
//! Generous on purpose: a seeming order is never carried out, and a sender who is told too much loses nothing.

use std::fmt;

use vehicle::{Command, is_name};

use crate::reading;

/// Bytes of a line that are searched; the rest of a longer line is ignored.
const MAX_BYTES: usize = 2000;
/// A line of at most this many words with "stop" or "resume" in it is an order in a hurry ("STOP ALL TRUCKS NOW").
const SHORT: usize = 6;
/// Words that people write for each command. The first is the command itself; the others count only in a line that has
/// something like a vehicle in it and is not a question.
const WORDS: &[(Command, &[&str])] = &[
    (
        Command::Stop,
        &[
            "stop", "stops", "stopp", "stoppe", "stoppen", "halt", "halte", "anhalten", "pause", "brake",
            "freeze", "arrete", "arrête", "arrêter", "arrêtez", "stoppez", "detener",
        ],
    ),
    (
        Command::Resume,
        &[
            "resume",
            "continue",
            "restart",
            "proceed",
            "weiterfahren",
            "fortsetzen",
            "reprendre",
            "reprends",
            "reprenez",
            "reanudar",
        ],
    ),
];

/// An order that a mail seems to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeming {
    /// Command that the mail seems to mean.
    pub command: Command,
    /// Guess at the vehicle's name, in lower case; `None` if there is nothing to guess from.
    pub vehicle: Option<String>,
}

/// Shows the order as it should have been written, with `VEHICLE` for a name that cannot be guessed.
impl fmt::Display for Seeming {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.command.word(), self.vehicle.as_deref().unwrap_or("VEHICLE"))
    }
}

/// The order in the first of `lines` that reads like one.
pub(super) fn find<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Seeming> {
    lines.into_iter().find_map(of_line)
}

fn of_line(line: &str) -> Option<Seeming> {
    let line = line.get(..line.floor_char_boundary(MAX_BYTES)).unwrap_or_default().to_lowercase();
    let tokens: Vec<&str> = reading::tokens(&line).collect();
    let (at, command, plain) = tokens.iter().enumerate().find_map(|(at, token)| {
        let (command, words) = WORDS.iter().find(|(_, words)| words.contains(token))?;
        Some((at, *command, words.first() == Some(token)))
    })?;
    let (before, after) = tokens.split_at(at);
    let vehicle = vehicle(after).or_else(|| vehicle(before));
    // "bus stop" in a long sentence is not an order; "please stop sending" might be one.
    let begins =
        before.iter().all(|word| ["please", "now", "urgent", "emergency", "posthorn"].contains(word));
    let second = after.get(1).filter(|word| plain && begins && tokens.len() == at + 2 && is_name(word));
    let asks = !plain && line.contains('?');
    (!asks && vehicle.is_some() || plain && (begins || tokens.len() <= SHORT))
        .then(|| Seeming { command, vehicle: vehicle.or_else(|| second.map(|word| (*word).to_owned())) })
}

/// Whether a line seems to name a vehicle other than `vehicle`: a word with an underscore, or a name that differs from
/// `vehicle` only in its number.
pub(super) fn names_another(line: &str, vehicle: &str) -> bool {
    let line = line.to_lowercase();
    let stem = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_').to_owned();
    let tokens: Vec<&str> = reading::tokens(&line).collect();
    let is_number = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
    let pairs = tokens.windows(2).filter(|pair| pair.last().is_some_and(is_number)).map(<[&str]>::concat);
    let plain = |name: &str| name.replace('_', "");
    tokens.iter().map(|token| (*token).to_owned()).chain(pairs).any(|name| {
        let alike = name.contains('_') || stem(&name) == stem(vehicle) && name != stem(vehicle);
        alike && plain(&name) != plain(vehicle)
    })
}

/// The first name with a digit or an underscore in it, or the first word before a number ("truck 2" gives `truck_2`).
fn vehicle(tokens: &[&str]) -> Option<String> {
    let digit = |word: &str| word.contains(|c: char| c.is_ascii_digit());
    tokens.iter().enumerate().find_map(|(at, token)| {
        let number = tokens.get(at + 1).filter(|next| next.bytes().all(|byte| byte.is_ascii_digit()));
        let name = match number {
            _ if digit(token) || token.contains('_') => (*token).to_owned(),
            Some(number) if token.chars().all(char::is_alphabetic) => format!("{token}_{number}"),
            _ => return None,
        };
        is_name(&name).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Option<String> {
        find([line]).map(|seeming| seeming.to_string())
    }

    #[test]
    fn guesses_what_should_have_been_written() {
        for (line, order) in [
            ("STOP TRUCK 3 !!!", "stop truck_3"),
            ("can somebody please halt truck_2", "stop truck_2"),
            ("truck_2 must stop at once", "stop truck_2"),
            ("I told you to stop the damn thing called van_7, do you hear me?", "stop van_7"),
            ("stop bus", "stop bus"),
            ("stop all trucks", "stop VEHICLE"),
            ("STOP!", "stop VEHICLE"),
            ("Please stop the vehicle that stands in front of gate number seven", "stop VEHICLE"),
            ("truck_1 kann weiterfahren", "resume truck_1"),
            ("arrêtez truck_1", "stop truck_1"),
            ("do not stop truck_1", "stop truck_1"),
        ] {
            assert_eq!(shown(line).as_deref(), Some(order), "{line}");
        }
    }

    #[test]
    fn sees_another_vehicle() {
        for line in ["truck_2", "Truck 2 burns", "truck2", "for truck_10", "van_1"] {
            assert!(names_another(line, "truck_1"), "{line}");
        }
        for line in ["truck_1", "Truck 1", "TRUCK1!", "Accident on A9", "gate 3", "the truck", "Emergency"] {
            assert!(!names_another(line, "truck_1"), "{line}");
        }
        assert!(!names_another("truck", "bus_7") && names_another("bus 8", "bus_7"));
    }

    #[test]
    fn ordinary_prose_is_none() {
        for line in [
            "",
            "Truck one is on fire",
            "How is truck_1?",
            "We waited for two hours at the bus stop by the old church yesterday",
            "They continue the works on the bridge until Friday, as far as I know",
            "I will start at nine",
            "Did truck_1 continue on its way?",
            "When did truck_1 start?",
        ] {
            assert_eq!(shown(line), None, "{line}");
        }
    }
}
