// SPDX-License-Identifier: Apache-2.0
//! Shows a mail as text for a terminal. Pure.
//!
//! No control or formatting character of the mail reaches the terminal: each is shown as its escape, such as `\u{1b}`.
//! The first paragraph is posthorn's own, and what it quotes of the mail is between quotation marks; everything below
//! it was written by others.

use mail::{Content, MailId, parse};

/// Longest file name or media type that is shown [characters].
const QUOTED: usize = 200;

/// The mail as text: what posthorn knows about it, its header fields, then its text.
pub fn mail(data: &[u8]) -> String {
    let content = parse(data);
    let mut text = format!("mail {}, {} bytes\n", MailId::of(data), data.len());
    for attachment in &content.attachments {
        text += &format!(
            "attachment {}, {}, {} bytes\n",
            quoted(&attachment.filename),
            quoted(&attachment.media_type),
            attachment.size
        );
    }
    if content.truncated {
        text += "parts of it are not shown here; --raw has all of it\n";
    }
    let Content { headers, text: words, .. } = content;
    text.push('\n');
    for header in headers {
        text += &format!("{}: {}\n", line(&header.name), line(&header.value));
    }
    text.push('\n');
    text += &paragraphs(&words);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Lines of cells as columns of equal width.
pub fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let padded: Vec<_> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += padded.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// `text` on one line, safe on a terminal.
pub fn line(text: &str) -> String {
    escaped(text, |_| false)
}

/// `text` between quotation marks that it cannot close, cut at [`QUOTED`] characters.
fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("\"{}\"", line(&short.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// `text` with its line ends, safe on a terminal.
fn paragraphs(text: &str) -> String {
    escaped(&text.replace("\r\n", "\n"), |character| character == '\n')
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\t' || keep(character) || !is_hostile(character) {
            safe.push(character);
        } else {
            safe.extend(character.escape_unicode());
        }
    }
    safe
}

/// Whether a terminal acts on the character, or shows nothing for it.
fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character,
            // Format characters and separators (Unicode, category Cf, Zl, Zp), tags among them.
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}'
            // Fillers and variation selectors, which show nothing.
            | '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shows_header_fields_and_text() {
        let data = b"From: Dana <dana@dispatch.example>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nstatus\r\ntruck_2\r\n";
        let shown = mail(data);
        let (ours, theirs) = shown.split_once("\n\n").unwrap();
        assert_eq!(ours, format!("mail {}, {} bytes", MailId::of(data), data.len()));
        assert_eq!(theirs, "From: Dana <dana@dispatch.example>\nSubject: Grüße\n\nstatus\ntruck_2\n");
    }

    #[test]
    fn control_characters_of_a_hostile_mail_are_escaped() {
        let data = "From: a@b\r\nSubject: =?utf-8?q?=1B]0;owned=07=0D=0Amail_faked?=\r\nX: a\u{202e}b\r\n\r\n\
                    \u{1b}[2Jgone\u{9b}31m\u{7f}\ttab\u{2028}";
        let shown = mail(data.as_bytes());
        // The parser has already put spaces in their place in header fields.
        assert!(shown.contains("\nSubject:  ]0;owned"), "{shown:?}");
        assert!(!shown.contains("\nmail faked"), "{shown:?}");
        assert!(shown.contains("a\\u{202e}b"), "{shown:?}");
        assert!(shown.contains("\\u{1b}[2Jgone\\u{9b}31m\\u{7f}\ttab\\u{2028}"), "{shown:?}");
    }

    #[test]
    fn one_line_stays_one_line() {
        assert_eq!(
            line("a\u{1b}[2J\r\nposthorn: done\u{2069}"),
            "a\\u{1b}[2J\\u{d}\\u{a}posthorn: done\\u{2069}"
        );
    }

    #[test]
    fn an_attachment_is_named_before_anything_that_others_wrote() {
        let data = b"From: a@b\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhi\r\n\
            --x\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"a\x1b.pdf\"\r\n\r\n%PDF\r\n--x--\r\n";
        let shown = mail(data);
        let ours = shown.split_once("\n\n").unwrap().0;
        assert!(
            ours.contains("\nattachment \"a") && ours.contains("\"application/pdf\", 4 bytes"),
            "{shown:?}"
        );
    }

    #[test]
    fn a_file_name_cannot_close_its_quotation_marks_or_fill_the_screen() {
        assert_eq!(quoted(r#"x", 3 bytes \"#), r#""x\", 3 bytes \\""#);
        assert_eq!(quoted(&"a".repeat(QUOTED + 1)), format!("\"{}…\"", "a".repeat(QUOTED)));
    }

    proptest! {
        #[test]
        fn no_mail_reaches_the_terminal_unescaped(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let data = [&b"Subject: x\r\n"[..], &data].concat();
            let shown = mail(&data);
            prop_assert!(!shown.contains(|c: char| is_hostile(c) && !"\n\t".contains(c)), "{:?}", shown);
        }
    }
}
