// SPDX-License-Identifier: Apache-2.0
//! Words what the sender of an order and the person are told. Pure.
//!
//! No text claims that an order was carried out, only that the vehicle accepted it. Whether and when to tell is left to
//! [`super::Orders`].

use std::time::Duration;

use mail::OutboundMail;
use vehicle::{Command, VehicleCommand};

use super::{Entry, Params, seconds};
use crate::{compose, describe::span};

/// The outcome of an order, as its sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The vehicle accepted the order.
    Accepted,
    /// The vehicle refused the order, for this reason.
    Refused(String),
    /// The vehicle did not acknowledge the order; `heard` says whether anybody subscribed to orders.
    Unheard { heard: bool },
    /// Another order replaced this one before the vehicle acknowledged it.
    Overtaken,
    /// The order may have been published before a restart, and is now too old to be published again.
    Interrupted,
    /// Not sent: a newer order was given to the vehicle.
    Older { newest: Command, by: Duration },
    /// Not sent: the mail is too old.
    Late { age: Duration, bound: Duration },
    /// Not sent: its date lies this far in the future.
    Ahead(Duration),
    /// Not sent: an order with a different date or command has the same Message-ID.
    Reused,
    /// Not sent: it could not be written to disk.
    Unwritten,
}

impl Outcome {
    /// Whether the order may have been published, so that the vehicle may have heard it.
    fn was_sent(&self) -> bool {
        matches!(self, Self::Unheard { .. } | Self::Overtaken | Self::Interrupted)
    }
}

/// Why the order is not carried out, as a clause.
pub(super) fn why(order: &VehicleCommand, outcome: &Outcome, params: &Params) -> String {
    let vehicle = &order.vehicle;
    match outcome {
        Outcome::Accepted => format!("{vehicle} has accepted it"),
        Outcome::Refused(reason) if reason.is_empty() => format!("{vehicle} has refused it"),
        Outcome::Refused(reason) => format!("{vehicle} has refused it: {reason}"),
        Outcome::Unheard { heard } => {
            let listens = if *heard { "" } else { "; nothing listens for orders at the moment" };
            let timeout = seconds(params.acknowledgement_timeout);
            format!("{vehicle} did not acknowledge it within {timeout}{listens}")
        }
        Outcome::Overtaken => {
            format!("another order to {vehicle} was given before {vehicle} acknowledged this one")
        }
        Outcome::Interrupted => {
            format!(
                "posthorn was restarted before {vehicle} acknowledged it, and it is too old to be sent again"
            )
        }
        Outcome::Older { newest, by } if by.is_zero() => format!(
            "it was not sent, as {vehicle} has been ordered to {} at the same second, and a stop wins",
            newest.word()
        ),
        Outcome::Older { newest, by } => format!(
            "it was not sent, as {vehicle} has been ordered to {}, by a mail dated {} later",
            newest.word(),
            seconds(*by)
        ),
        Outcome::Late { age, bound } => format!(
            "it was not sent, as the mail is {} old and orders are sent only within {}",
            span(*age),
            span(*bound)
        ),
        Outcome::Ahead(ahead) => {
            format!("it was not sent, as the mail's Date is {} ahead of this clock", span(*ahead))
        }
        Outcome::Reused => "it was not sent, as another order has the same Message-ID".to_owned(),
        Outcome::Unwritten => "it was not sent, as posthorn cannot write to its disk".to_owned(),
    }
}

/// The text of the answer to the sender. `state` is the last known state of the vehicle.
pub(super) fn answer(order: &VehicleCommand, outcome: &Outcome, state: &str, params: &Params) -> String {
    let (word, vehicle) = (order.command.word(), &order.vehicle);
    let known =
        if state.is_empty() { String::new() } else { format!("\nLast known before the order:\n\n{state}") };
    if *outcome == Outcome::Accepted {
        return format!(
            "{vehicle} has accepted the order \"{word}\".\n\n\
             To see that it does so, ask \"status {vehicle}\" in a moment.\n{known}"
        );
    }
    let why = why(order, outcome, params);
    let next = match outcome {
        outcome if outcome.was_sent() => format!(
            "{vehicle} may have heard it all the same; ask \"status {vehicle}\". It is not sent again.\n"
        ),
        Outcome::Ahead(_) => {
            "Set the clock of the computer that writes your mails, and send it again.\n".to_owned()
        }
        Outcome::Refused(_) => String::new(),
        _ => format!("To order it now, write a new mail with exactly `{word} {vehicle}` as the only line.\n"),
    };
    let known_to = if outcome.was_sent() { " as far as is known" } else { "" };
    format!(
        "NOT carried out{known_to}: \"{word} {vehicle}\": {why}.\n\n{next}{}{known}",
        compose::PERSON_HAS_IT
    )
}

/// Composes a correction for when a vehicle contradicts what the sender was told. Its Message-ID is made from the order
/// and the correction, so that it is sent only once, however often it is composed.
pub(super) fn notice(params: &Params, entry: &Entry, outcome: &Outcome) -> OutboundMail {
    let (word, vehicle) = (entry.command.word(), &entry.vehicle);
    let (verb, text) = match outcome {
        Outcome::Refused(reason) => (
            "refused",
            format!(
                "{vehicle} has accepted the order \"{word}\", as you were told, and has now refused it: {reason}\n"
            ),
        ),
        _ => (
            "accepted",
            format!(
                "{vehicle} has accepted the order \"{word}\" after all. You were told that it had not acknowledged it in time.\n"
            ),
        ),
    };
    let text =
        format!("{text}\nOrdered by {}. Ask \"status {vehicle}\" to see how it is.\n", entry.ordered_by);
    let id = format!("{}.{vehicle}.{verb}", hex::encode(entry.command_id));
    compose::notice(params, &id, entry, format!("{vehicle}: \"{word}\" {verb} after all"), text)
}
