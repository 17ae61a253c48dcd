// SPDX-License-Identifier: Apache-2.0
//! Converts domain types to messages and back.
//!
//! Messages from the graph are validated here. Every error names the field, the value and the rule.

mod evidence;
mod mail;
mod outbound;
mod vehicle;
mod verdict;

pub use evidence::{
    MAX_RECORDED, RecordRefusal, block_proof_from_ros, block_proof_to_ros, entries_from_ros, entry_from_ros,
    entry_to_ros, receipt_from_ros, receipt_to_ros,
};
pub use mail::{accepted_from_ros, mail_from_ros, mail_to_ros, raw_to_ros};
pub use outbound::{
    OutboundRefusal, delivery_to_ros, disposition_from_ros, disposition_to_ros, outbound_from_ros,
    outbound_to_ros, refusal_to_ros,
};
pub use vehicle::{
    acknowledgement_from_ros, acknowledgement_to_ros, alert_to_ros, command_from_ros, command_to_ros,
    fleet_from_ros, state_to_ros, states_to_ros,
};
pub use verdict::{authenticated_from_ros, authenticated_to_ros, role_from_ros};

use std::time::{Duration, SystemTime};

use r2r::builtin_interfaces::msg::Time;

use ::mail::MailId;

/// A message that violates its specification.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("field '{field}' = {value}: must be {rule}")]
pub struct ConvertError {
    field: &'static str,
    value: String,
    rule: &'static str,
}

fn error(field: &'static str, value: impl ToString, rule: &'static str) -> ConvertError {
    ConvertError { field, value: value.to_string(), rule }
}

/// Converts to ROS time, clamped to what the message can hold (1970 to 2038).
pub fn time_to_ros(time: SystemTime) -> Time {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match i32::try_from(since.as_secs()) {
        Ok(sec) => Time { sec, nanosec: since.subsec_nanos() },
        Err(_) => Time { sec: i32::MAX, nanosec: 0 },
    }
}

/// Converts from ROS time; negative seconds become 1970.
pub fn time_from_ros(time: &Time) -> SystemTime {
    let sec = u64::try_from(time.sec).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(sec, time.nanosec)
}

fn id_from_ros(field: &'static str, text: &str) -> Result<MailId, ConvertError> {
    text.parse().map_err(|_| error(field, format!("{text:?}"), "64 hex digits"))
}

/// Hex digits with a `0x` prefix, as Ethereum tools write addresses and hashes.
fn prefixed_hex(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

fn hex_from_ros<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], ConvertError> {
    let mut bytes = [0; N];
    let digits = text.strip_prefix("0x").unwrap_or(text);
    hex::decode_to_slice(digits, &mut bytes)
        .map_err(|_| error(field, format!("{text:?}"), "hex digits, as many as the message says"))?;
    Ok(bytes)
}

fn bytes_from_ros<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], ConvertError> {
    bytes
        .try_into()
        .map_err(|_| error(field, format!("{} bytes", bytes.len()), "as long as the message says"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_and_are_cut_at_the_bounds_of_the_message() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 123_456_789);
        assert_eq!(time_from_ros(&time_to_ros(time)), time);
        assert_eq!(time_to_ros(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), Time { sec: 0, nanosec: 0 });
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(time_to_ros(far).sec, i32::MAX);
        assert_eq!(time_from_ros(&Time { sec: -1, nanosec: 0 }), SystemTime::UNIX_EPOCH);
    }
}
