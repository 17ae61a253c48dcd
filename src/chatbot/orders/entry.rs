// SPDX-License-Identifier: Apache-2.0
//! Defines what is remembered of an order, and its encoding on disk. Pure.
//!
//! Encoding: version 2, state, command, whether it is on the ledger, time (seconds and nanoseconds since 1970),
//! command_id, mail_id, then vehicle, ordered_by, message_id and reason, each after its length in 2 bytes; integers are
//! big-endian. Every encoded order can be decoded, and texts longer than 998 bytes are cut.
//!
//! Reading and writing files is left to [`super::store`].

use std::time::{Duration, SystemTime};

use mail::MailId;
use vehicle::{Command, Precedence, VehicleCommand};

const VERSION: u8 = 2;
/// Longer than any encoded order: four texts of at most 998 bytes each.
pub(super) const MAX_BYTES: usize = 8192;

/// Progress of an order: from `Sent` to any other state, and then `Unheard -> Accepted` and `Accepted -> Refused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The order may have been published; its sender has not been told anything.
    Sent = 1,
    /// The vehicle accepted the order.
    Accepted = 2,
    /// The vehicle refused the order.
    Refused = 3,
    /// The vehicle did not acknowledge the order in time.
    Unheard = 4,
    /// Another order replaced this one before the vehicle acknowledged it.
    Overtaken = 5,
}

/// What is remembered of an order that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Progress of the order.
    pub state: State,
    /// Command that was given.
    pub command: Command,
    /// Copied from `VehicleCommand.ordered_at`.
    pub ordered_at: SystemTime,
    /// Copied from `VehicleCommand.command_id`.
    pub command_id: [u8; 32],
    /// Id of the mail that gave the order; of several with the same signed fields, the latest.
    pub mail_id: MailId,
    /// Copied from `VehicleCommand.vehicle`.
    pub vehicle: String,
    /// Address of the operator who gave the order.
    pub ordered_by: String,
    /// Message-ID of that mail.
    pub message_id: String,
    /// Why the vehicle refused the order; empty if it did not.
    pub reason: String,
    /// The authenticator has answered that the order is on the evidence ledger.
    pub on_ledger: bool,
}

impl Entry {
    /// Remembers an order that is about to be published.
    pub(super) fn new(order: &VehicleCommand, message_id: &str) -> Self {
        Self {
            state: State::Sent,
            command: order.command,
            ordered_at: order.ordered_at,
            command_id: order.command_id,
            mail_id: order.mail_id,
            vehicle: order.vehicle.clone(),
            ordered_by: order.ordered_by.clone(),
            message_id: message_id.to_owned(),
            reason: String::new(),
            on_ledger: false,
        }
    }

    /// The order, without its signature.
    pub(super) fn order(&self) -> VehicleCommand {
        VehicleCommand {
            command_id: self.command_id,
            mail_id: self.mail_id,
            vehicle: self.vehicle.clone(),
            command: self.command,
            ordered_by: self.ordered_by.clone(),
            ordered_at: self.ordered_at,
            signature: [0; 64],
        }
    }

    /// Rank of this order among the orders to the same vehicle.
    pub fn precedence(&self) -> Precedence {
        Precedence { ordered_at: self.ordered_at, stop: self.command == Command::Stop }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let at = self.ordered_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut bytes = vec![VERSION, self.state as u8, self.command as u8, self.on_ledger.into()];
        bytes.extend_from_slice(&at.as_secs().to_be_bytes());
        bytes.extend_from_slice(&at.subsec_nanos().to_be_bytes());
        bytes.extend_from_slice(&self.command_id);
        bytes.extend_from_slice(self.mail_id.as_bytes());
        for text in [&self.vehicle, &self.ordered_by, &self.message_id, &self.reason] {
            // Each text is already bounded at its source, at 998 bytes.
            let text = text.get(..text.floor_char_boundary(998)).unwrap_or_default();
            bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    /// Decodes an order; `None` if `bytes` are not an order of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let [version, state, command, on_ledger] = *rest.split_off(..4)? else { return None };
        let seconds = u64::from_be_bytes(rest.split_off(..8)?.try_into().ok()?);
        let nanoseconds = u32::from_be_bytes(rest.split_off(..4)?.try_into().ok()?);
        let command_id = rest.split_off(..32)?.try_into().ok()?;
        let mail_id = MailId::from_bytes(rest.split_off(..32)?.try_into().ok()?);
        let mut text = || {
            let length = u16::from_be_bytes(rest.split_off(..2)?.try_into().ok()?);
            String::from_utf8(rest.split_off(..usize::from(length))?.to_vec()).ok()
        };
        let (vehicle, ordered_by, message_id, reason) = (text()?, text()?, text()?, text()?);
        let states = [State::Sent, State::Accepted, State::Refused, State::Unheard, State::Overtaken];
        let entry = Self {
            state: states.into_iter().find(|known| *known as u8 == state)?,
            command: [Command::Stop, Command::Resume].into_iter().find(|known| *known as u8 == command)?,
            ordered_at: SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))?,
            command_id,
            mail_id,
            vehicle,
            ordered_by,
            message_id,
            reason,
            on_ledger: on_ledger == 1,
        };
        (version == VERSION && on_ledger <= 1 && rest.is_empty() && nanoseconds < 1_000_000_000)
            .then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            state: State::Refused,
            command: Command::Resume,
            ordered_at: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 7),
            command_id: [1; 32],
            mail_id: MailId::from_bytes([2; 32]),
            vehicle: "truck_1".into(),
            ordered_by: "a@b".into(),
            message_id: "1@b".into(),
            reason: "ü".repeat(600),
            on_ledger: true,
        }
    }

    #[test]
    fn survives_its_bytes_and_nothing_else_is_an_entry() {
        let (entry, bytes) = (entry(), entry().encode());
        let cut = Entry { reason: "ü".repeat(499), ..entry };
        assert_eq!(Entry::decode(&bytes), Some(cut));
        assert!(bytes.len() < MAX_BYTES);
        for length in 0..bytes.len() {
            assert_eq!(Entry::decode(&bytes[..length]), None, "{length}");
        }
        for (place, value) in [(0, 1), (1, 6), (2, 0), (3, 2), (12, 0xff)] {
            let mut wrong = bytes.clone();
            wrong[place] = value;
            assert_eq!(Entry::decode(&wrong), None, "{place}");
        }
        assert_eq!(Entry::decode(&[bytes, vec![0]].concat()), None);
    }
}
