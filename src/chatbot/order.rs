//! `stop <vehicle>` and `resume <vehicle>`: orders, from operators only.

use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::{describe::Clock, intent::Request, status};
use crate::{
    mail::Content,
    vehicle::{Command, VehicleState},
};

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

pub(super) fn answer(command: Command, vehicle: &str, state: Option<&VehicleState>, clock: &Clock) -> String {
    let word = command.word();
    let sent = format!(
        "The order \"{word}\" was sent to {vehicle}.\n\n\
         That it was sent does not mean that it was carried out: ask \"status {vehicle}\" in a moment.\n"
    );
    match state {
        Some(state) => format!("{sent}\nLast known before the order:\n\n{}", status::answer(state, clock)),
        None => sent,
    }
}

/// To an observer.
pub(super) fn refuse(command: Command, vehicle: &str) -> String {
    let word = command.word();
    format!(
        "The order \"{word} {vehicle}\" was not carried out: you are registered as an observer, who may ask but not order.\n\
         An operator can give the order.\n"
    )
}

/// While the registry cannot be asked.
pub(super) fn refuse_for_now(command: Command, vehicle: &str) -> String {
    let word = command.word();
    format!(
        "The order \"{word} {vehicle}\" was not carried out: the registry of operators cannot be reached at the moment.\n\
         Send it again later, or reach an operator another way.\n"
    )
}
