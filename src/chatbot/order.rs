//! `stop <vehicle>` and `resume <vehicle>`: orders, from operators only.

use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::{
    compose::PERSON_HAS_IT,
    intent::{Request, Seeming, Unclear},
};
use crate::{mail::Content, vehicle::Command};

pub(super) fn parse(words: &[&str]) -> Option<Request> {
    let command = |word| [Command::Stop, Command::Resume].into_iter().find(|command| command.word() == word);
    match *words {
        [word, vehicle] => Some(Request::Order(command(word)?, vehicle.to_owned())),
        _ => None,
    }
}

/// What tells an order from another and a fresh one from an old copy, from the fields that a signature covers.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// `VehicleCommand.command_id`.
    pub command_id: [u8; 32],
    /// When the sender wrote it.
    pub date: SystemTime,
}

impl Identity {
    /// `None` without Message-ID or Date: such a mail could be repeated by anybody who has a copy.
    pub fn of(from: &str, content: &Content) -> Option<Self> {
        let date = content.date.filter(|_| !content.message_id.is_empty())?;
        let from = from.to_ascii_lowercase();
        let command_id = Sha256::new_with_prefix(from).chain_update([0]).chain_update(&content.message_id);
        Some(Self { command_id: command_id.finalize().into(), date })
    }
}

/// To an observer.
pub(super) fn refuse(command: Command, vehicle: &str) -> String {
    let word = command.word();
    format!(
        "NOT carried out: \"{word} {vehicle}\": you are registered as an observer, who may ask but not order.\n\
         An operator can give the order.\n"
    )
}

/// To an operator whose mail reads like an order but is none that can be taken.
pub(super) fn not_taken(why: &Unclear, seeming: &Seeming) -> String {
    let next = match why {
        // Another mail from the same program would not be signed otherwise.
        Unclear::NotCovered(_) => {
            "another mail from the same mail program will not be taken either, and must be signed otherwise (DKIM); reach the \
             vehicle another way"
                .to_owned()
        }
        _ => format!("write exactly `{seeming}` as the only line"),
    };
    format!("NOT carried out: {why}; {next}.\n\n{PERSON_HAS_IT}")
}

/// To an operator whose order cannot be sent as things are.
pub(super) fn not_ordered(command: Command, vehicle: &str, why: &str) -> String {
    format!("NOT carried out: \"{} {vehicle}\": {why}.\n\n{PERSON_HAS_IT}", command.word())
}

/// To whoever may be registered, while the registry cannot be asked; with the order that the mail gives or seems to.
pub(super) fn unchecked(order: Option<&Seeming>) -> String {
    let why = "the registry of those who may ask and order cannot be reached at the moment";
    match order {
        Some(order) => format!(
            "NOT carried out: \"{order}\": {why}.\n\nSend it again later, or reach the vehicle another way.\n"
        ),
        None => format!("Your mail has had no effect: {why}.\n\nSend it again later.\n"),
    }
}
