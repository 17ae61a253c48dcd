// SPDX-License-Identifier: Apache-2.0
//! How a forward attaches the mail that it passes on, and what its text says about it. Pure.
//!
//! RFC 2046 section 5.2.1 allows `message/rfc822` no encoding but 7bit, 8bit and binary. A mail that does not fit
//! those, because the server does not accept 8 bits, a line is too long for SMTP, a byte is 0 or the header is not
//! ASCII (RFC 6532), goes as a file (`application/octet-stream`, base64), which every server and mail program
//! accepts.

use mail::parse;
use mail_builder::mime::MimePart;
use smtp::client::one_line;

/// File name of the attached mail.
const FILE: &str = "original.eml";
/// Longest line of text on the wire, bytes without its CRLF (RFC 5321 section 4.5.3.1.6).
const LINE_BYTES: usize = 998;
/// Number of attachments listed by name; the rest are only counted.
const NAMED: usize = 20;

/// The mail that a forward passes on, if it still exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Original {
    /// The mail's bytes as received.
    Kept(Vec<u8>),
    /// The mail is no longer in the journal.
    Gone,
}

/// How the original is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As `message/rfc822` in 7 bits.
    SevenBit,
    /// As `message/rfc822` in 8 bits.
    EightBit,
    /// As a file in base64.
    File,
}

impl Way {
    /// Chooses the way for these bytes; `eight_bit` says whether the server accepts 8 bits.
    pub(super) fn of(data: &[u8], eight_bit: bool) -> Self {
        let header = data.windows(4).position(|end| end == b"\r\n\r\n").and_then(|end| data.get(..end));
        let long = data.split(|&byte| byte == b'\n').any(|line| line.len() > LINE_BYTES.saturating_add(1));
        if data.contains(&0) || long || !header.unwrap_or(data).is_ascii() {
            Self::File
        } else if data.is_ascii() {
            Self::SevenBit
        } else if eight_bit {
            Self::EightBit
        } else {
            Self::File
        }
    }

    /// Transfer encoding of the whole multipart (RFC 2045 section 6.4).
    pub(super) fn encoding(self) -> &'static str {
        if self == Self::EightBit { "8bit" } else { "7bit" }
    }

    /// The original as a MIME part.
    pub(super) fn part(self, data: &[u8]) -> MimePart<'_> {
        match self {
            Self::File => MimePart::new("application/octet-stream", data).attachment(FILE),
            Self::SevenBit | Self::EightBit => {
                MimePart::new("message/rfc822", data).transfer_encoding(self.encoding()).attachment(FILE)
            }
        }
    }
}

/// What the text of a forward says about the original, which is `attached` or not. Attachments are listed only if the
/// reader cannot open the mail to see them.
pub(super) fn note(original: &Original, id: &str, attached: bool) -> String {
    let Original::Kept(data) = original else {
        return format!(
            "\n\n---\nThe mail as received is not attached: it is no longer in the journal.\nIts id is {id}\n"
        );
    };
    let attachments = parse(data).attachments;
    let count = match attachments.len() {
        0 => "no attachments".to_owned(),
        1 => "1 attachment".to_owned(),
        more => format!("{more} attachments"),
    };
    if attached {
        return format!(
            "\n\n---\nThe mail as received is attached as {FILE}: {} bytes, with {count} of its own.\n",
            data.len()
        );
    }
    let mut note = format!(
        "\n\n---\nThe mail as received, with {count}, is not attached: the mail server\n\
         does not take it, for its size ({} bytes) or for what is in it.\n\
         mail_bridge/get_raw gives it by its id:\n{id}\n",
        data.len()
    );
    for attachment in attachments.iter().take(NAMED) {
        let name = if attachment.filename.is_empty() { "(no name)" } else { &attachment.filename };
        note.push_str(&one_line(&format!("- {name} ({}, {} bytes)", attachment.media_type, attachment.size)));
        note.push('\n');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_as_a_mail_where_it_can_and_as_a_file_where_not() {
        let long = [&b"a".repeat(LINE_BYTES)[..], b"\r\n"].concat();
        let too_long = [&b"a".repeat(LINE_BYTES + 1)[..], b"\r\n"].concat();
        for (body, seven, eight) in [
            (&b"plain\r\n"[..], Way::SevenBit, Way::SevenBit),
            (&long, Way::SevenBit, Way::SevenBit),
            ("Grüße\r\n".as_bytes(), Way::File, Way::EightBit),
            (&too_long, Way::File, Way::File),
            (b"a\0b\r\n", Way::File, Way::File),
        ] {
            let mail = [b"Subject: s\r\n\r\n", body].concat();
            assert_eq!((Way::of(&mail, false), Way::of(&mail, true)), (seven, eight), "{body:?}");
        }
        assert_eq!(Way::of("Subject: Grüße\r\n\r\n".as_bytes(), true), Way::File);
    }
}
