// SPDX-License-Identifier: Apache-2.0
//! Decides whether a DKIM signature covers enough of a mail for an order to rest on it.
//!
//! Nothing may be added, removed or replaced that would turn the signed text into different words or a different
//! order. The fields named here occur at most once in a well-formed mail (`ONCE`), so a signature that names one
//! covers the one that is read, whichever instance it counts from (RFC 6376 section 5.4.2).
//!
//! Whether the signature passes, and whom it proves, is left to [`super`].

use mail::parse::is_version_1;
use mail_auth::dkim::Signature;

use super::Section;

/// An order has no identity without these; anyone with a copy could add them.
const REQUIRED: &[&str] = &["Date", "Message-ID"];
/// A field, and whether its value, in lower case, only states the default.
type Reading = (&'static str, fn(&str) -> bool);
/// Fields that determine how the body is read. They must be covered unless they only state the default.
const READING: &[Reading] = &[
    ("MIME-Version", |value| is_version_1(value.as_bytes())),
    ("Content-Type", is_plain_text),
    ("Content-Transfer-Encoding", |value| ["7bit", "8bit"].contains(&value)),
    ("Content-Disposition", |value| value == "inline"),
];

/// Returns why an order cannot rest on this signature, which covers the whole body; `None` if it can.
pub(super) fn gap(signature: &Signature, section: &Section) -> Option<String> {
    let value = |name| {
        let field = section.named(name).next()?;
        Some(String::from_utf8_lossy(field.value).trim().to_ascii_lowercase())
    };
    if let Some(name) = REQUIRED.iter().find(|name| value(name).is_none()) {
        return Some(format!("the mail has no {name}"));
    }
    let author = ["From", "Subject"].iter().chain(REQUIRED).copied().filter(|name| value(name).is_some());
    let reading = READING
        .iter()
        .filter(|(name, is_default)| value(name).is_some_and(|value| !is_default(&value)))
        .map(|(name, _)| *name);
    let missing: Vec<_> = author.chain(reading).filter(|name| !names(&signature.h, name)).collect();
    (!missing.is_empty()).then(|| format!("its DKIM signature does not cover {}", missing.join(" and ")))
}

/// Whether the fields that a signature covers include this one.
pub(super) fn names(signed: &[String], name: &str) -> bool {
    signed.iter().any(|field| field.trim().eq_ignore_ascii_case(name))
}

/// Whether the value means `text/plain` in a charset that reads the same without the field; line flow does not
/// matter.
fn is_plain_text(value: &str) -> bool {
    let mut parts = value.split(';').map(str::trim);
    let harmless = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        matches!(
            (name.trim(), value),
            ("charset", "us-ascii" | "utf-8")
                | ("format", "flowed" | "fixed")
                | ("delsp", "yes" | "no")
                | ("", "")
        )
    };
    parts.next() == Some("text/plain") && parts.all(harmless)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reads_alike_without_the_field_is_plain_text() {
        for value in [
            "text/plain",
            "text/plain;",
            "text/plain; charset=\"utf-8\"; format=flowed",
            "text/plain;charset=us-ascii",
        ] {
            assert!(is_plain_text(value), "{value}");
        }
        for value in [
            "text/html",
            "text/plain; name=a.txt",
            "text/plain; charset=utf-7",
            "text/plain; charset*=utf-8",
            "text/plain; charset=utf-8 (x)",
            "text/plain (x)",
            "multipart/mixed; boundary=b",
            "",
        ] {
            assert!(!is_plain_text(value), "{value}");
        }
    }
}
