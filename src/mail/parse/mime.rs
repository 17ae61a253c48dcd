// SPDX-License-Identifier: Apache-2.0
//! Walks the MIME tree of a mail and collects its text and attachments (RFC 2045, 2046).
//!
//! Each leaf is decoded once and each level of nesting scanned once, within bounds. `text_only` holds for two shapes,
//! and only if every reader sees the same words: one text/plain part, or a multipart/alternative of one text/plain and
//! one text/html part with the same words. A multipart/mixed around either shape does not count, although it says the
//! same: mail programs make it when the mail holds something else as well.
//!
//! A nested message (`message/rfc822`) is an attachment and is not opened: its words are not this sender's.

use std::borrow::Cow;

use mail_parser::{
    ContentType, HeaderValue,
    decoders::{
        base64::base64_decode, charsets::map::charset_decoder, quoted_printable::quoted_printable_decode,
    },
    parsers::MessageStream,
};
use sha2::{Digest, Sha256};

use super::{
    LINE_BYTES, RAW_VALUE_BYTES,
    bounds::Bounds,
    fields::{Field, section},
    html::{self, Html},
    line_of, plain,
};
use crate::Attachment;

/// Deepest nesting of multiparts that are opened; a deeper multipart is an attachment.
const MAX_DEPTH: usize = 16;
/// Most parts read, over all levels.
const MAX_PARTS: usize = 1000;
const MAX_PART_FIELDS: usize = 100;
const TEXT_BYTES: usize = 262_144;
/// Bytes of a text part that are converted; markup is a few times as long as its text.
const RAW_TEXT_BYTES: usize = 4 * TEXT_BYTES;
/// Longest media type, bytes: two names of 127 and a slash (RFC 6838 section 4.2).
const MEDIA_TYPE_BYTES: usize = 255;

/// The body of a mail, taken apart.
#[derive(Default)]
pub(super) struct Body {
    pub(super) text: String,
    pub(super) attachments: Vec<Attachment>,
    /// `text` holds all of the sender's words.
    pub(super) text_only: bool,
}

/// Reads the body of a mail that has these header fields.
pub(super) fn read(fields: &[Field], body: &[u8], bounds: &mut Bounds) -> Body {
    let mut walk = Walk {
        parts: 0,
        is_alternative: false,
        plain: None,
        html: None,
        attachments: Vec::new(),
        is_certain: true,
        bounds,
    };
    walk.part(fields, body, 0, "text/plain");
    let text_only = walk.is_text_only() && !walk.bounds.cut;
    let html = walk.html.map(|html| html.text).unwrap_or_default();
    // Some programs send an empty text part beside the HTML.
    let text = walk.plain.filter(|plain| !plain.trim().is_empty() || html.is_empty()).unwrap_or(html);
    Body { text, attachments: walk.attachments, text_only }
}

struct Walk<'b> {
    parts: usize,
    /// The whole body is a `multipart/alternative`.
    is_alternative: bool,
    plain: Option<String>,
    html: Option<Html>,
    attachments: Vec<Attachment>,
    /// Every reader sees the parts read so far in the same way.
    is_certain: bool,
    bounds: &'b mut Bounds,
}

impl Walk<'_> {
    fn is_text_only(&self) -> bool {
        if !self.is_certain || !self.attachments.is_empty() {
            return false;
        }
        match (&self.plain, &self.html, self.parts) {
            (Some(_), None, 1) => true,
            (Some(plain), Some(html), 3) if self.is_alternative => {
                !html.more && plain::same_words(plain, &html.text)
            }
            _ => false,
        }
    }

    fn part(&mut self, fields: &[Field], body: &[u8], depth: usize, default: &str) {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            self.bounds.cut = true;
            return;
        }
        self.is_certain &= plain::is_certain(fields);
        let content_type = self.structured(fields, "content-type");
        let disposition = self.structured(fields, "content-disposition");
        let media_type = content_type.as_ref().map_or_else(|| default.to_owned(), media_type);
        let boundary = content_type.as_ref().and_then(|value| value.attribute("boundary"));
        if media_type.starts_with("multipart/") && !boundary.unwrap_or_default().is_empty() {
            // A multipart must not be encoded itself; its parts have their own encodings (RFC 2045 section 6.4).
            self.is_certain &= !matches!(encoding(fields).as_deref(), Some(b"base64" | b"quoted-printable"));
            let (parts, outside) = split(body, boundary.unwrap_or_default().as_bytes(), MAX_PARTS);
            // If no signature covers the Content-Type, somebody can replace it so that the sender's text falls outside
            // the parts.
            self.bounds.cut_if(outside && !parts.is_empty());
            if depth < MAX_DEPTH && !parts.is_empty() {
                self.is_alternative |= depth == 0 && media_type == "multipart/alternative";
                // RFC 2046 section 5.1.5.
                let default = if media_type == "multipart/digest" { "message/rfc822" } else { "text/plain" };
                for part in parts {
                    let section = section(part, MAX_PART_FIELDS);
                    // A line that is not a field was meant as text; the empty line before it is missing.
                    self.bounds.cut_if(section.skipped);
                    self.part(
                        &section.fields,
                        part.get(section.body..).unwrap_or_default(),
                        depth + 1,
                        default,
                    );
                }
                return;
            }
            self.bounds.cut_if(!parts.is_empty());
        }
        let content = self.decode(fields, body);
        let filename = disposition
            .as_ref()
            .and_then(|value| value.attribute("filename"))
            .or_else(|| content_type.as_ref().and_then(|value| value.attribute("name")))
            .unwrap_or_default();
        let is_body = filename.is_empty() && !disposition.as_ref().is_some_and(ContentType::is_attachment);
        let charset = content_type.as_ref().and_then(|value| value.attribute("charset"));
        match media_type.as_str() {
            "text/plain" if is_body && self.plain.is_none() => {
                let text = self.text(&content, charset);
                self.plain = Some(self.bounds.text(&text, TEXT_BYTES));
            }
            "text/html" if is_body && self.html.is_none() => {
                let mut html = html::to_text(&self.text(&content, charset), TEXT_BYTES);
                self.bounds.cut_if(html.cut);
                html.text = self.bounds.text(&html.text, TEXT_BYTES);
                self.html = Some(html);
            }
            _ => {
                let attachment = Attachment {
                    // Keep the last component, so that a name is never a path.
                    filename: self
                        .bounds
                        .line(filename.rsplit(['/', '\\']).next().unwrap_or_default(), LINE_BYTES),
                    media_type: self.bounds.line(&media_type, MEDIA_TYPE_BYTES),
                    size: content.len() as u64,
                    digest: Sha256::digest(&content).into(),
                };
                self.attachments.push(attachment);
            }
        }
    }

    fn structured(&mut self, fields: &[Field], name: &str) -> Option<ContentType<'static>> {
        let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))?;
        let value = line_of(field, RAW_VALUE_BYTES, self.bounds);
        match MessageStream::new(&value).parse_content_type().into_owned() {
            HeaderValue::ContentType(value) => Some(value),
            _ => None,
        }
    }

    /// The decoded content of a leaf; the body unchanged if its encoding is unknown or broken.
    fn decode<'x>(&mut self, fields: &[Field], body: &'x [u8]) -> Cow<'x, [u8]> {
        let encoding = encoding(fields);
        let (decoded, is_encoded) = match encoding.as_deref() {
            Some(b"base64") => (base64_decode(body), true),
            Some(b"quoted-printable") => (quoted_printable_decode(body), true),
            _ => (None, false),
        };
        let failed = is_encoded && decoded.is_none();
        self.is_certain &= !failed && plain::is_encoded_well(encoding.as_deref(), body);
        decoded.map_or(Cow::Borrowed(body), Cow::Owned)
    }

    fn text(&mut self, content: &[u8], charset: Option<&str>) -> String {
        let content = self.bounds.bytes(content, RAW_TEXT_BYTES);
        let text = match charset.and_then(|charset| charset_decoder(charset.as_bytes())) {
            Some(decode) => decode(content),
            None => String::from_utf8_lossy(content).into_owned(),
        };
        self.is_certain &= plain::is_decoded_well(charset, content, &text);
        text
    }
}

/// The Content-Transfer-Encoding, in lower case.
fn encoding(fields: &[Field]) -> Option<Vec<u8>> {
    let is_encoding = |field: &&Field| field.name.eq_ignore_ascii_case(b"content-transfer-encoding");
    fields.iter().find(is_encoding).map(|field| field.value.trim_ascii().to_ascii_lowercase())
}

fn media_type(value: &ContentType) -> String {
    match value.subtype() {
        Some(subtype) => format!("{}/{subtype}", value.ctype()).to_ascii_lowercase(),
        // RFC 2045 section 5.2: an unreadable Content-Type means text/plain.
        None => "text/plain".to_owned(),
    }
}

/// Splits a multipart body at its delimiter lines; the line end before a delimiter belongs to the delimiter. May return
/// one part more than `max`, which tells the caller that there are too many. The flag is true if text lies outside the
/// parts.
fn split<'x>(body: &'x [u8], boundary: &[u8], max: usize) -> (Vec<&'x [u8]>, bool) {
    let mut parts = Vec::new();
    let (mut open, mut start) = (None, 0);
    let (mut first, mut end) = (body.len(), body.len());
    for line in body.split_inclusive(|&byte| byte == b'\n') {
        let rest =
            line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary)).map(<[u8]>::trim_ascii_end);
        if let Some(rest @ (b"" | b"--")) = rest {
            first = first.min(start);
            if let Some(open) = open.take() {
                let part: &[u8] = body.get(open..start).unwrap_or_default();
                let part = part.strip_suffix(b"\n").unwrap_or(part);
                parts.push(part.strip_suffix(b"\r").unwrap_or(part));
            }
            if rest == b"--" || parts.len() > max {
                end = start + line.len();
                break;
            }
            open = Some(start + line.len());
        }
        start += line.len();
    }
    // The last delimiter is missing, so the part ends with the mail.
    parts.extend(open.and_then(|open| body.get(open..)));
    let outside = [body.get(..first), body.get(end..)];
    let outside = outside.into_iter().flatten().any(|text| !text.trim_ascii().is_empty());
    (parts, outside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_delimiter_lines_only() {
        let body = b"preamble\r\n--b\r\n1\r\n--bb\r\n--b \r\n2\r\n\r\n--b--\r\nepilogue\r\n--b\r\n";
        assert_eq!(split(body, b"b", 9), (vec![&b"1\r\n--bb"[..], b"2\r\n"], true));
        assert_eq!(split(b"--b\nunfinished", b"b", 9), (vec![&b"unfinished"[..]], false));
        assert!(split(b"none", b"b", 9).0.is_empty());
    }

    #[test]
    fn sees_what_stands_outside_the_parts() {
        assert!(!split(b"\r\n--b\r\n1\r\n--b--\r\n \r\n", b"b", 9).1);
        assert!(split(b"not this\r\n--b\r\n1\r\n--b--\r\n", b"b", 9).1);
        assert!(split(b"--b\r\n1\r\n--b--\r\nnor this\r\n", b"b", 9).1);
    }
}
