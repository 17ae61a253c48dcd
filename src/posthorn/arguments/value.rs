// SPDX-License-Identifier: Apache-2.0
//! Reads the values of arguments. Pure. What is wrong with one is said as its rule.

use std::time::Duration;

use evidence::{Kind, Source};
use mail::{EmailAddress, MailId};

pub(super) fn bare_address(text: &str) -> Result<String, String> {
    let rule = |error| format!("must be one bare address, local-part@domain: {error}");
    // ASCII only, as the registry takes it.
    EmailAddress::parse_ascii(text).map_err(rule)?;
    Ok(text.to_owned())
}

pub(super) fn contract(text: &str) -> Result<[u8; 20], String> {
    let mut bytes = [0; 20];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes)
        .map_err(|_| "must be 0x and 40 hex digits".to_owned())?;
    Ok(bytes)
}

pub(super) fn mail_id(text: &str) -> Result<MailId, String> {
    text.parse().map_err(|_| "must be 64 hex digits".to_owned())
}

pub(super) fn digest(text: &str) -> Result<[u8; 32], String> {
    mail_id(text).map(|digits| *digits.as_bytes())
}

pub(super) fn kind(text: &str) -> Result<Kind, String> {
    let kind = text.parse().map_err(|_| format!("must be {}", Kind::RULE))?;
    if kind == Kind::MAIL_VERDICT {
        Err("the receipt of a mail needs its ID alone".to_owned())
    } else {
        Ok(kind)
    }
}

pub(super) fn source(text: &str) -> Result<Source, String> {
    text.parse().map_err(|_| format!("must be {}", Source::RULE))
}

/// A ROS namespace with a leading slash; `fleet` is `/fleet`.
pub(super) fn namespace(text: &str) -> Result<String, String> {
    let inner = text.strip_prefix('/').unwrap_or(text);
    let word = |word: &str| {
        word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && word.bytes().next().is_some_and(|first| !first.is_ascii_digit())
    };
    if inner.is_empty() || inner.split('/').all(word) {
        Ok(format!("/{inner}"))
    } else {
        Err("must be words of letters, digits and _ with / between them, such as fleet".to_owned())
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    number.map(Duration::from_secs_f64).ok_or_else(|| "must be 0.1 to 3600 seconds".to_owned())
}
