// SPDX-License-Identifier: Apache-2.0
//! Parses the bytes of a mail into a [`Content`].
//!
//! [`parse`] is total: any bytes give a `Content` within the bounds of `Mail.msg`, in time linear in their length.
//! Nothing here is authenticated; a signature is verified over the bytes, never over a `Content`.
//!
//! mail-parser reads field values and decodes bodies. Only this file and the modules below it use mail-parser outside
//! tests, so that moving to its next major version stays here. We split fields and MIME parts ourselves, because
//! mail-parser's tree bounds neither its depth (a nested `message/rfc822` is dropped recursively) nor the number of
//! fields.

mod bounds;
mod fields;
mod html;
mod mime;
mod plain;

pub use fields::Section;
pub use fields::section;
pub use plain::is_version_1;

use std::{
    panic::catch_unwind,
    time::{Duration, SystemTime},
};

use mail_parser::{Address as Parsed, HeaderValue, parsers::MessageStream};

use self::{bounds::Bounds, fields::Field, mime::Body};
use super::{Content, EmailAddress, Header, Mailbox};

/// Most header fields kept, and most mailboxes of To and of Cc.
pub const MAX_FIELDS: usize = 1000;
/// Most mailboxes of From and of Reply-To.
const MAX_AUTHORS: usize = 100;
/// Longest name, subject or message id, bytes: the longest line of RFC 5322 section 2.1.1.
const LINE_BYTES: usize = 998;
/// Longest addr-spec kept, bytes, as in `Address.msg`; it may be longer than an [`EmailAddress`].
const ADDRESS_BYTES: usize = 320;
/// Longest decoded field value, bytes.
const VALUE_BYTES: usize = 8192;
/// Bytes of a raw field value that are read; encoded words can be ten times as long as their text.
const RAW_VALUE_BYTES: usize = 1 << 17;
/// Bytes of a raw address list that are read.
const RAW_ADDRESSES_BYTES: usize = 1 << 20;

/// Parses a mail; never fails. The module documentation lists the guarantees.
pub fn parse(data: &[u8]) -> Content {
    // The decoders are not ours. A mail is delivered again until it is settled, so one that makes them panic would stop
    // the node at every start. Show it as empty and truncated instead; RawMail still has its bytes.
    catch_unwind(|| content(data)).unwrap_or_else(|_| Content { truncated: true, ..Content::default() })
}

fn content(data: &[u8]) -> Content {
    let section = section(data, MAX_FIELDS);
    let mut bounds = Bounds::default();
    // A line that is not a field was meant as text: the empty line before it is missing.
    bounds.cut_if(section.count > section.fields.len() || section.skipped);
    let mut content = Content::default();
    for field in &section.fields {
        let name = bounds.line(&String::from_utf8_lossy(field.name), LINE_BYTES);
        let value = unstructured(field, VALUE_BYTES, &mut bounds);
        match name.to_ascii_lowercase().as_str() {
            "from" => addresses(&mut content.from, field, MAX_AUTHORS, &mut bounds),
            "reply-to" => addresses(&mut content.reply_to, field, MAX_AUTHORS, &mut bounds),
            "to" => addresses(&mut content.to, field, MAX_FIELDS, &mut bounds),
            "cc" => addresses(&mut content.cc, field, MAX_FIELDS, &mut bounds),
            // These fields must not be repeated; keep the first. The authenticator refuses mails that repeat them.
            "subject" if content.subject.is_empty() => {
                content.subject = unstructured(field, LINE_BYTES, &mut bounds);
            }
            "message-id" if content.message_id.is_empty() => content.message_id = id(field, &mut bounds),
            "in-reply-to" if content.in_reply_to.is_empty() => content.in_reply_to = id(field, &mut bounds),
            "date" if content.date.is_none() => content.date = date(field, &mut bounds),
            _ => {}
        }
        content.headers.push(Header { name, value });
    }
    let body = mime::read(&section.fields, data.get(section.body..).unwrap_or_default(), &mut bounds);
    let Body { text, attachments, text_only } = body;
    Content { text, attachments, text_only: text_only && !bounds.cut, truncated: bounds.cut, ..content }
}

/// The value of a field with the final line end that mail-parser expects.
fn line_of(field: &Field, max: usize, bounds: &mut Bounds) -> Vec<u8> {
    let value = bounds.bytes(field.value, max).trim_ascii_end();
    [value, b"\n"].concat()
}

fn unstructured(field: &Field, max: usize, bounds: &mut Bounds) -> String {
    let value = line_of(field, RAW_VALUE_BYTES, bounds);
    match MessageStream::new(&value).parse_unstructured() {
        HeaderValue::Text(text) => bounds.line(text.trim(), max),
        _ => String::new(),
    }
}

fn addresses(list: &mut Vec<Mailbox>, field: &Field, max: usize, bounds: &mut Bounds) {
    let value = line_of(field, RAW_ADDRESSES_BYTES, bounds);
    let parsed = match MessageStream::new(&value).parse_address() {
        HeaderValue::Address(Parsed::List(list)) => list,
        HeaderValue::Address(Parsed::Group(groups)) => {
            groups.into_iter().flat_map(|group| group.addresses).collect()
        }
        _ => Vec::new(),
    };
    for one in parsed {
        let Some(address) = one.address.filter(|address| !address.is_empty()) else { continue };
        // Part of an address is a different address, so leave it out instead of cutting it, like the last of a cut
        // list.
        let fits =
            address.len() <= ADDRESS_BYTES && list.len() < max && field.value.len() <= RAW_ADDRESSES_BYTES;
        bounds.cut_if(!fits);
        if fits {
            let name = bounds.line(one.name.as_deref().unwrap_or_default().trim(), LINE_BYTES);
            let address = bounds.line(&plain_address(&address), ADDRESS_BYTES);
            list.push(Mailbox { name, address });
        }
    }
}

/// The mailboxes of every From field, as in [`Content::from`].
pub fn authors(section: &Section) -> Vec<Mailbox> {
    let mut list = Vec::new();
    let mut bounds = Bounds::default();
    section.named("from").for_each(|field| addresses(&mut list, field, MAX_AUTHORS, &mut bounds));
    list
}

/// An address of a field as people write it: its domain in lower case, without white space around the `@` (RFC 5322 section
/// 3.4.1), and without quotes that the local part does not need (RFC 5321 section 4.1.2). Whatever else the sender wrote
/// stays: a quoted local part may have an `@` of its own.
pub fn plain_address(address: &str) -> String {
    let Some((local, domain)) = address.rsplit_once('@') else { return address.to_owned() };
    // Others than these are characters of the mailbox.
    let space = [' ', '\t'];
    let (local, domain) = (local.trim_end_matches(space), domain.trim_start_matches(space).to_lowercase());
    let inner = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let plain = inner.filter(|inner| EmailAddress::parse(&format!("{inner}@{domain}")).is_ok());
    format!("{}@{domain}", plain.unwrap_or(local))
}

/// The first message id in a field. An overlong id cannot be referred to, so it counts as unreadable.
fn id(field: &Field, bounds: &mut Bounds) -> String {
    let value = line_of(field, RAW_VALUE_BYTES, bounds);
    let text = match MessageStream::new(&value).parse_id() {
        HeaderValue::Text(text) => text.into_owned(),
        HeaderValue::TextList(list) => list.into_iter().next().unwrap_or_default().into_owned(),
        _ => String::new(),
    };
    bounds.cut_if(text.len() > LINE_BYTES);
    if text.len() > LINE_BYTES { String::new() } else { bounds.line(text.trim(), LINE_BYTES) }
}

/// A date after 1970 that fits `builtin_interfaces/Time`.
fn date(field: &Field, bounds: &mut Bounds) -> Option<SystemTime> {
    let value = line_of(field, LINE_BYTES, bounds);
    let HeaderValue::DateTime(date) = MessageStream::new(&value).parse_date() else { return None };
    let seconds = date.is_valid().then(|| date.to_timestamp())?;
    let seconds = i32::try_from(seconds).ok().and_then(|seconds| u64::try_from(seconds).ok())?;
    (seconds > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Content {
        parse(text.replace('\n', "\r\n").as_bytes())
    }

    #[test]
    fn lists_the_mailboxes_of_every_from_field() {
        let content = of("From: a@EXAMPLE.org\nFROM : B <B@example.net>\n\n");
        let addresses: Vec<_> = content.from.iter().map(|from| from.address.as_str()).collect();
        assert_eq!(addresses, ["a@example.org", "B@example.net"]);
    }

    #[test]
    fn an_address_loses_what_it_does_not_need() {
        for (written, plain) in [
            ("Dana@Dispatch.Example", "Dana@dispatch.example"),
            ("dana \t@ dispatch.example", "dana@dispatch.example"),
            ("\"dana.ray\"@dispatch.example", "dana.ray@dispatch.example"),
            ("\"dana\" @dispatch.example", "dana@dispatch.example"),
            // These are other mailboxes, or none.
            ("\"dana ray\"@dispatch.example", "\"dana ray\"@dispatch.example"),
            ("\"dana@evil.example\"@dispatch.example", "\"dana@evil.example\"@dispatch.example"),
            ("\"da\\na\"@dispatch.example", "\"da\\na\"@dispatch.example"),
            ("\"\"@dispatch.example", "\"\"@dispatch.example"),
            ("\"@dispatch.example", "\"@dispatch.example"),
            ("\"a\"b\"@dispatch.example", "\"a\"b\"@dispatch.example"),
            ("da na@dispatch.example", "da na@dispatch.example"),
            ("dana\u{a0}@dispatch.example", "dana\u{a0}@dispatch.example"),
            ("dana", "dana"),
        ] {
            assert_eq!(plain_address(written), plain, "{written}");
        }
    }

    #[test]
    fn strings_hold_no_nul_and_one_line_is_one_line() {
        let content = of("Subject: a\0b =?utf-8?q?c=0D=0ABcc:_x?=\n\nte\0xt");
        assert_eq!(content.subject, "a\u{fffd}b c  Bcc: x");
        assert_eq!(content.text, "te\u{fffd}xt");
    }

    #[test]
    fn leaves_out_an_address_that_is_too_long_and_says_so() {
        let content = of(&format!("From: a@example.org, {}@example.org\n\n", "x".repeat(400)));
        assert_eq!(content.from.len(), 1);
        assert!(content.truncated);
    }

    #[test]
    fn cuts_at_a_character_boundary() {
        let content = of(&format!("Subject: x{}\n\n", "é".repeat(600)));
        assert_eq!(content.subject.len(), 997);
        assert!(content.truncated);
    }

    #[test]
    fn reads_no_date_that_a_ros_time_cannot_hold() {
        assert!(of("Date: Fri, 21 Nov 1997 09:55:06 -0600\n\n").date.is_some());
        assert_eq!(of("Date: Fri, 21 Nov 2997 09:55:06 -0600\n\n").date, None);
        assert_eq!(of("Date: Fri, 21 Nov 1907 09:55:06 -0600\n\n").date, None);
    }
}
