// SPDX-License-Identifier: Apache-2.0
//! Replies as people read them, and mails as DATA takes them. Pure.

use smtp_proto::Response;

use super::Outcome;

/// How much of a reply is kept for people, characters: at most 998 bytes, the bound of `DeliveryStatus.reply`.
const REPLY_CHARS: usize = 240;

/// A refusal of all recipients in `asked`: for good if 5xx, otherwise for now.
pub(super) fn refusal(reply: &Response<String>, asked: u128, refused: u128) -> Outcome {
    let refused = if reply.code >= 500 { refused | asked } else { refused };
    Outcome { delivered: 0, refused, reply: text(reply) }
}

/// The reply on one line.
pub(super) fn text(reply: &Response<String>) -> String {
    let [class, subject, detail] = reply.esc;
    let esc = if class == 0 { String::new() } else { format!("{class}.{subject}.{detail} ") };
    one_line(&format!("{} {esc}{}", reply.code, reply.message))
}

/// Makes foreign text fit for people to read: one line, bounded, without control characters.
pub fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(REPLY_CHARS).collect()
}

/// The mail as sent after DATA: dots at line starts doubled, then the final dot line.
pub(super) fn stuffed(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len().saturating_add(16));
    for line in data.split_inclusive(|&byte| byte == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}
