// SPDX-License-Identifier: Apache-2.0
//! Reads the values of arguments. Pure. What is wrong with one is said as its rule.

use std::time::Duration;

use authenticator::{key_digest::digest_of_key, sender::SenderName};
use evidence::{Kind, Source, eip55::from_eip55};
use mail::MailId;
use mail_parser::DateTime;

pub(super) fn bare_address(text: &str) -> Result<String, String> {
    let rule = |error| format!("must be one bare address, local-part@domain, or @domain: {error}");
    SenderName::parse(text).map_err(rule)?;
    Ok(text.to_owned())
}

pub(super) fn contract(text: &str) -> Result<[u8; 20], String> {
    from_eip55(text).map_err(|error| format!("must be {error}"))
}

/// Seconds since 1970 of a time or a day in UTC. A message has them in 32 bits.
pub(super) fn moment(text: &str) -> Result<i32, String> {
    let rule =
        || "must be a day or a time from 1970 to 2037, as 2027-01-31 or 2027-01-31T18:00:00Z".to_owned();
    let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    let is_whole = |time: &DateTime| {
        let day =
            DateTime::parse_rfc3339(&format!("{:04}-{:02}-{:02}T00:00:00Z", time.year, time.month, time.day));
        // mail-parser takes the 30th of February for the 2nd of March.
        time.is_valid() && day.is_some_and(|day| DateTime::from_timestamp(day.to_timestamp()) == day)
    };
    let time = DateTime::parse_rfc3339(&whole).filter(is_whole).ok_or_else(rule)?;
    i32::try_from(time.to_timestamp()).ok().filter(|seconds| *seconds > 0).ok_or_else(rule)
}

pub(super) fn dkim_key(text: &str) -> Result<String, String> {
    let rule = || "must be base64, the tag p= of the key's DNS record".to_owned();
    digest_of_key(text).map(|_| text.to_owned()).ok_or_else(rule)
}

pub(super) fn mail_id(text: &str) -> Result<MailId, String> {
    text.parse().map_err(|_| "must be 64 hex digits".to_owned())
}

pub(super) fn digest(text: &str) -> Result<[u8; 32], String> {
    mail_id(text).map(|digits| *digits.as_bytes())
}

pub(super) fn block_hash(text: &str) -> Result<[u8; 32], String> {
    let digits = text.strip_prefix("0x").and_then(|digits| digest(digits).ok());
    digits.ok_or_else(|| "must be 0x and 64 hex digits".to_owned())
}

pub(super) fn kind(text: &str) -> Result<Kind, String> {
    let kind = text.parse().map_err(|_| format!("must be {}", Kind::RULE))?;
    if kind == Kind::MAIL_VERDICT {
        Err("the receipt of a mail needs its ID alone".to_owned())
    } else if kind == Kind::EMBEDDED_BLOCK {
        Err("the receipt of a block needs its number alone, see posthorn chain prove".to_owned())
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
