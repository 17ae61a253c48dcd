// SPDX-License-Identifier: Apache-2.0
//! How a forward attaches the mail that it passes on, and what its text says about it. Pure.
//!
//! RFC 2046 section 5.2.1 allows `message/rfc822` no encoding but 7bit, 8bit and binary. A mail that does not fit
//! those, because the server does not accept 8 bits, a line is too long for SMTP, a byte is 0 or the header is not
//! ASCII (RFC 6532), goes as a file (`application/octet-stream`, base64), which every server and mail program
//! accepts.

use std::borrow::Cow;

use mail::parse::{self, section};
use mail_builder::mime::MimePart;
use smtp::client::one_line;

/// Field that says what was found out about a mail.
const RESULTS: &str = "Authentication-Results";
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

/// The mail with what was found out about it as its first field, said by `hostname`, and without what others say that they
/// found out (RFC 8601 section 5): a reader's mail program would show theirs as if it were true. Without results, as
/// received.
pub(super) fn with_results<'m>(data: &'m [u8], hostname: &str, results: &str) -> Cow<'m, [u8]> {
    if results.is_empty() {
        return data.into();
    }
    let (header, body) = data.split_at_checked(section(data, 0).body).unwrap_or((data, &[]));
    let mut mail = format!("{RESULTS}: {hostname};\r\n {}\r\n", results.replace("; ", ";\r\n ")).into_bytes();
    let mut is_theirs = false;
    for line in header.split_inclusive(|byte| *byte == b'\n') {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            is_theirs = name.trim_ascii_end().eq_ignore_ascii_case(RESULTS.as_bytes());
        }
        if !is_theirs {
            mail.extend_from_slice(line);
        }
    }
    mail.extend_from_slice(body);
    mail.into()
}

/// What the text of a forward says about the original, which is attached with these results, or not. Attachments are listed
/// only if the reader cannot open the mail to see them.
pub(super) fn note(original: &Original, id: &str, attached: Option<&str>) -> String {
    let Original::Kept(data) = original else {
        return format!(
            "\n\n---\nThe mail as received is not attached: it is no longer in the journal.\nIts id is {id}\n"
        );
    };
    let attachments = parse::parse(data).attachments;
    let count = match attachments.len() {
        0 => "no attachments".to_owned(),
        1 => "1 attachment".to_owned(),
        more => format!("{more} attachments"),
    };
    if let Some(results) = attached {
        let fields = match results {
            "" => "",
            _ => "Its field Authentication-Results is posthorn's; those of others are removed.\n",
        };
        return format!(
            "\n\n---\nThe mail as received is attached as {FILE}: {} bytes, with {count} of its own.\n{fields}",
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
    fn what_others_found_out_is_replaced() {
        let mail = b"Received: x\r\nauthentication-results : evil.example;\r\n dmarc=pass\r\n\theader.from=a.example\r\n\
                     Subject: s\r\n folded\r\nAUTHENTICATION-RESULTS:\r\n x\r\nX-Authentication-Results: y\r\n\r\n\
                     Authentication-Results: body\r\n";
        let results = "dkim=fail; dmarc=fail header.from=a.example";
        assert_eq!(
            String::from_utf8(with_results(mail, "bridge.test", results).into_owned()).unwrap(),
            "Authentication-Results: bridge.test;\r\n dkim=fail;\r\n dmarc=fail header.from=a.example\r\n\
             Received: x\r\nSubject: s\r\n folded\r\nX-Authentication-Results: y\r\n\r\n\
             Authentication-Results: body\r\n"
        );
        assert_eq!(&*with_results(mail, "bridge.test", ""), mail);
        assert_eq!(&*with_results(b"", "h", "none"), b"Authentication-Results: h;\r\n none\r\n");
    }

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
