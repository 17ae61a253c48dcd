// SPDX-License-Identifier: Apache-2.0
//! Splits a zone file into entries and tokens: comments, parentheses, quotes and escapes (RFC 1035 section 5.1).
//!
//! Every entry keeps the number of the line where it starts.
//!
//! What the tokens mean is left to [`super`].

/// A word or quoted string, unescaped.
#[derive(Default)]
pub(super) struct Token(Vec<u8>);

impl Token {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    pub(super) fn string(&self) -> Result<Vec<u8>, String> {
        if self.0.len() > 255 {
            return Err(format!("a string has {} bytes, at most 255 are allowed; split it", self.0.len()));
        }
        Ok(self.0.clone())
    }
}

/// One entry; parentheses may spread it over several lines.
#[derive(Default)]
pub(super) struct Entry {
    /// The line starts with white space, so the owner is that of the previous entry.
    pub(super) continues: bool,
    pub(super) tokens: Vec<Token>,
}

/// Returns the entries and the lines on which they start; an error carries its own line.
pub(super) fn entries(text: &str) -> Result<Vec<(usize, Entry)>, (usize, String)> {
    let mut entries = Vec::new();
    let mut entry = Entry::default();
    let (mut first, mut depth) = (0, 0_usize);
    for (index, line) in text.lines().enumerate() {
        if depth == 0 {
            first = index + 1;
            entry.continues = line.starts_with([' ', '\t']);
        }
        tokens(line, &mut entry.tokens, &mut depth).map_err(|rule| (index + 1, rule))?;
        if depth == 0 {
            let entry = std::mem::take(&mut entry);
            if !entry.tokens.is_empty() {
                entries.push((first, entry));
            }
        }
    }
    if depth > 0 {
        return Err((first, "a parenthesis must be closed".to_owned()));
    }
    Ok(entries)
}

fn tokens(line: &str, tokens: &mut Vec<Token>, depth: &mut usize) -> Result<(), String> {
    let mut word: Option<Token> = None;
    let mut quoted = false;
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if quoted => {
                quoted = false;
                tokens.extend(word.take());
            }
            b'"' => {
                tokens.extend(word.replace(Token::default()));
                quoted = true;
            }
            b'\\' => word.get_or_insert_default().0.push(escaped(&mut bytes)?),
            _ if quoted => word.get_or_insert_default().0.push(byte),
            b';' => break,
            b' ' | b'\t' => tokens.extend(word.take()),
            b'(' | b')' => {
                tokens.extend(word.take());
                let next = if byte == b'(' { depth.checked_add(1) } else { depth.checked_sub(1) };
                *depth = next.ok_or("a parenthesis must be opened before it is closed")?;
            }
            _ => word.get_or_insert_default().0.push(byte),
        }
    }
    if quoted {
        return Err("a quoted string must end on its line".to_owned());
    }
    tokens.extend(word);
    Ok(())
}

/// Reads the rest of an escape, `\X` or `\DDD`.
fn escaped(bytes: &mut std::str::Bytes) -> Result<u8, String> {
    let rule = || "a backslash must be followed by a character or three decimal digits up to 255".to_owned();
    let first = bytes.next().ok_or_else(rule)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let digits = [first, bytes.next().ok_or_else(rule)?, bytes.next().ok_or_else(rule)?];
    std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok()).ok_or_else(rule)
}
