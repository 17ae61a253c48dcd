// SPDX-License-Identifier: Apache-2.0
//! Reads `stop <vehicle>` and `resume <vehicle>`, and words the answers to orders that are not taken.
//!
//! A copy of a mail has the identity of the original. Who may order, and publishing orders, is left to
//! [`super::authority`] and [`super::orders`].

use std::time::SystemTime;

use mail::Content;
use sha2::{Digest, Sha256};
use vehicle::Command;

use super::{
    compose::PERSON_HAS_IT,
    intent::{Request, Seeming, Unclear},
};

pub(super) fn parse(words: &[&str]) -> Option<Request> {
    let command = |word| [Command::Stop, Command::Resume].into_iter().find(|command| command.word() == word);
    match *words {
        [word, vehicle] => Some(Request::Order(command(word)?, vehicle.to_owned())),
        _ => None,
    }
}

/// Tells one order from another, and a fresh one from an old copy, by fields that a signature covers.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// `VehicleCommand.command_id`.
    pub command_id: [u8; 32],
    /// Date of the mail.
    pub date: SystemTime,
}

impl Identity {
    /// `None` without a Message-ID or a Date, because anybody with a copy of such a mail could repeat it.
    pub fn of(from: &str, content: &Content) -> Option<Self> {
        let date = content.date.filter(|_| !content.message_id.is_empty())?;
        let from = from.to_ascii_lowercase();
        let command_id = Sha256::new_with_prefix(from).chain_update([0]).chain_update(&content.message_id);
        Some(Self { command_id: command_id.finalize().into(), date })
    }
}

/// The answer to an observer, who may not order.
pub(super) fn refuse(command: Command, vehicle: &str) -> String {
    let word = command.word();
    format!(
        "NOT carried out: \"{word} {vehicle}\": you are registered as an observer, who may ask but not order.\n\
         An operator can give the order.\n"
    )
}

/// The answer to an operator whose mail reads like an order but cannot be taken as one.
pub(super) fn not_taken(why: &Unclear, seeming: &Seeming) -> String {
    let next = match why {
        // Another mail from the same program would be signed in the same way.
        Unclear::NotCovered(_) => {
            "another mail from the same mail program will not be taken either, and must be signed otherwise (DKIM); reach the \
             vehicle another way"
                .to_owned()
        }
        _ => format!("write exactly `{seeming}` as the only line"),
    };
    format!("NOT carried out: {why}; {next}.\n\n{PERSON_HAS_IT}")
}

/// The answer to an operator whose order cannot be sent now.
pub(super) fn not_ordered(command: Command, vehicle: &str, why: &str) -> String {
    format!("NOT carried out: \"{} {vehicle}\": {why}.\n\n{PERSON_HAS_IT}", command.word())
}

/// The answer to a proven sender while the registry cannot be asked; `order` is what the mail seems to order.
pub(super) fn unchecked(order: Option<&Seeming>) -> String {
    let why = "the registry of those who may ask and order cannot be reached at the moment";
    match order {
        Some(order) => format!(
            "NOT carried out: \"{order}\": {why}.\n\nSend it again later, or reach the vehicle another way.\n"
        ),
        None => format!("Your mail has had no effect: {why}.\n\nSend it again later.\n"),
    }
}
