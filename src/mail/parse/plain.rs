// SPDX-License-Identifier: Apache-2.0
//! Decides whether a text is certain, that is, whether every mail program shows the same words.
//!
//! Orders rest on this, so anything unusual makes a text uncertain. What the words mean is left to the chatbot.

use super::fields::Field;

/// Fields that determine how a part is read.
const FIELDS: [&str; 4] =
    ["mime-version", "content-type", "content-transfer-encoding", "content-disposition"];
/// Prefixes of charsets in which every US-ASCII byte means its US-ASCII letter, whatever comes before it.
const PLAIN_CHARSETS: [&str; 4] = ["iso-8859-", "windows-125", "koi8-", "utf-8"];

/// Whether the header fields of a part can be read in one way only: none repeated, a valid type, shown inline.
pub(super) fn is_certain(fields: &[Field]) -> bool {
    let values = |name: &str| {
        let name = name.to_owned();
        fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value)
    };
    let is = |value: &[u8], expected: &str| value.trim_ascii().eq_ignore_ascii_case(expected.as_bytes());
    FIELDS.iter().all(|name| values(name).count() <= 1)
        && values("mime-version").all(is_version_1)
        && values("content-disposition").all(|value| is(value, "inline"))
        && values("content-type").all(|value| {
            let kind = value.split(|&byte| byte == b';').next().unwrap_or_default();
            let mut halves = kind.trim_ascii().split(|&byte| byte == b'/');
            let is_word = |half: &[u8]| !half.is_empty() && half.iter().all(|&byte| is_token(byte));
            halves.next().is_some_and(is_word)
                && halves.next().is_some_and(is_word)
                && halves.next().is_none()
        })
}

/// Whether a MIME-Version is 1.0, the only one there is. Apple's programs add a comment: `1.0 (1.0)`.
pub fn is_version_1(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    let (number, comment) =
        value.split_at(value.iter().position(|&byte| byte == b'(').unwrap_or(value.len()));
    number.trim_ascii() == b"1.0" && (comment.is_empty() || comment.ends_with(b")"))
}

/// Whether a byte may occur in a type name (RFC 2045 section 5.1, except characters that type names do not use).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-+._".contains(&byte)
}

/// Whether `body` is valid in its Content-Transfer-Encoding, which is in lower case.
pub(super) fn is_encoded_well(encoding: Option<&[u8]>, body: &[u8]) -> bool {
    match encoding {
        None | Some(b"7bit" | b"8bit" | b"binary") => true,
        Some(b"quoted-printable") => {
            // Append a line end, because the last line may end in a soft line break.
            let body = [body, b"\n"].concat();
            body.split(|&byte| byte == b'=').skip(1).all(|piece| {
                let line = piece.iter().position(|&byte| byte == b'\n').and_then(|end| piece.get(..end));
                matches!(piece, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
                    || line.is_some_and(|line| line.trim_ascii().is_empty())
            })
        }
        Some(b"base64") => {
            let digits: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
            let padding = digits.iter().rev().take_while(|&&byte| byte == b'=').count();
            let (text, _) = digits.split_at(digits.len() - padding);
            padding <= 2 && digits.len().is_multiple_of(4) && text.iter().all(is_digit)
        }
        Some(_) => false,
    }
}

/// Whether `text` is the complete `content` in this charset and is displayed in the order in which it is stored.
pub(super) fn is_decoded_well(charset: Option<&str>, content: &[u8], text: &str) -> bool {
    let charset = charset.map(str::to_ascii_lowercase);
    let is_plain = match charset.as_deref() {
        None | Some("us-ascii") => content.is_ascii(),
        Some(charset) => PLAIN_CHARSETS.iter().any(|plain| charset.starts_with(plain)),
    };
    let is_direction = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    is_plain
        && !text.contains(|c: char| {
            c == char::REPLACEMENT_CHARACTER || c.is_control() && !"\r\n\t".contains(c) || is_direction(c)
        })
}

/// Whether plain text and HTML text have the same words, apart from emphasis and line ends, and quote the same of them.
/// A program that derives the plain text from the HTML may lose the quote marks.
pub(super) fn same_words(plain: &str, html: &str) -> bool {
    let (plain, html) = (words(plain), words(html));
    let fits = |((one, place), (other, shown)): (&(&str, Place), &(&str, Place))| {
        one == other && (*place == Place::BeforeQuote || (*place == Place::Quote) == (*shown == Place::Quote))
    };
    plain.len() == html.len() && plain.iter().zip(&html).all(fits)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Own,
    Quote,
    /// "On … wrote:", which some programs count as part of the quote below it.
    BeforeQuote,
}

/// Shortest line of underscores that Outlook puts above the original mail, which it does not mark as a quote.
const RULE: usize = 10;

fn words(text: &str) -> Vec<(&str, Place)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_rule = |line: &str| line.len() >= RULE && line.bytes().all(|byte| byte == b'_');
    let is_field = |line: &&str| line.char_indices().take(12).any(|(_, c)| c == ':');
    let mut places: Vec<(&str, Place)> = Vec::new();
    let mut rest = Place::Own;
    for (at, line) in lines.iter().enumerate() {
        let mut below = lines.iter().skip(at + 1).filter(|line| !line.is_empty());
        if is_rule(line) && below.next().is_some_and(is_field) {
            rest = Place::Quote;
            continue;
        }
        places.push((line, if line.starts_with('>') { Place::Quote } else { rest }));
    }
    let mut before_quote = false;
    let mut attribution = false;
    for (line, place) in places.iter_mut().rev().filter(|(line, _)| !line.is_empty()) {
        // An attribution ends with "wrote:" and begins at the nearest "On " above; a line that ends a sentence stops
        // it.
        attribution = *place == Place::Own
            && (before_quote && line.ends_with("wrote:")
                || attribution && !line.ends_with(['.', ':', '!', '?']));
        before_quote = *place == Place::Quote;
        if attribution {
            *place = Place::BeforeQuote;
            attribution = !line.starts_with("On ");
        }
    }
    places
        .into_iter()
        .flat_map(|(line, place)| {
            let unmarked = line.trim_start_matches(|c: char| c == '>' || c.is_whitespace());
            unmarked.split_whitespace().map(move |word| (word.trim_matches('*'), place))
        })
        .filter(|(word, _)| !word.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_what_it_says_or_is_none() {
        for (encoding, body) in [
            ("quoted-printable", "a=3D=\r\nb= \r\nc=C3=A9="),
            ("base64", "c3RvcCB0cnVja18x\r\n"),
            ("base64", "YQ==\r\n"),
            ("7bit", "a=zz"),
        ] {
            assert!(is_encoded_well(Some(encoding.as_bytes()), body.as_bytes()), "{body}");
        }
        for (encoding, body) in [
            ("quoted-printable", "a=zz"),
            ("quoted-printable", "stop truck_1= 2"),
            ("quoted-printable", "a==3D"),
            ("base64", "c3RvcA==dHJ1Y2s="),
            ("base64", "c3Rv!cCB0"),
            ("base64", "c3RvcCB0c"),
            ("uuencode", "x"),
            ("", "x"),
        ] {
            assert!(!is_encoded_well(Some(encoding.as_bytes()), body.as_bytes()), "{encoding} {body}");
        }
    }

    #[test]
    fn a_charset_shows_its_letters_in_their_order() {
        for (charset, content) in [(None, "a"), (Some("UTF-8"), "é\tü\r\n"), (Some("iso-8859-15"), "é")] {
            assert!(is_decoded_well(charset, content.as_bytes(), content), "{charset:?}");
        }
        for (charset, content, text) in [
            (None, "é", "é"),
            (Some("us-ascii"), "é", "é"),
            (Some("utf-7"), "a", "a"),
            (Some("utf-16"), "a", "a"),
            (Some("made-up"), "a", "a"),
            (Some("utf-8"), "a", "\u{fffd}"),
            (Some("utf-8"), "a\u{8}", "a\u{8}"),
            (Some("utf-8"), "\u{202e}a", "\u{202e}a"),
        ] {
            assert!(!is_decoded_well(charset, content.as_bytes(), text), "{charset:?} {text:?}");
        }
    }

    #[test]
    fn there_is_one_version_of_mime() {
        for value in ["1.0", " 1.0 (1.0)\r\n", "1.0 (Mac OS X Mail 16.0 \\(3774.100.2.1.4\\))"] {
            assert!(is_version_1(value.as_bytes()), "{value}");
        }
        for value in ["", "2.0", "1.0 (", "1.0 x", "(1.0)"] {
            assert!(!is_version_1(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn the_same_words_may_be_set_otherwise() {
        assert!(same_words("*stop*  truck_1\n\n> a\n>> b", "stop truck_1\n> a b\n"));
        assert!(!same_words("stop truck_1\n\na b", "stop truck_1\n> a b\n"));
        assert!(!same_words("stop truck_1", "stop truck_12"));
        assert!(!same_words("stop truck_1", "stop truck_1 later"));
    }
}
