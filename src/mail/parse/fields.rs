// SPDX-License-Identifier: Apache-2.0
//! Splits a header section into fields, as bytes (RFC 5322 section 2.2).
//!
//! Any bytes give a section, in linear time. Unfolding and decoding are left to the parent module.

/// One header field: its name without surrounding white space, its value as received, still folded and encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'x> {
    pub name: &'x [u8],
    pub value: &'x [u8],
}

/// The header section of a mail or of a MIME part.
#[derive(Debug, PartialEq, Eq)]
pub struct Section<'x> {
    /// The first fields, at most as many as the caller asked for.
    pub fields: Vec<Field<'x>>,
    /// Number of fields in the section, including those beyond the limit.
    pub count: usize,
    /// Offset at which the body begins.
    pub body: usize,
    /// Some lines were no fields; they are neither in `fields` nor counted.
    pub skipped: bool,
}

impl<'x> Section<'x> {
    /// The fields of this name, in the order of the mail; names are compared without regard to case.
    pub fn named<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Field<'x>> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// Splits the header section at the start of `data`, which ends at the first empty line or with the data. Lines that
/// are no field (no colon, or white space in the name) are skipped.
pub fn section(data: &[u8], max: usize) -> Section<'_> {
    let mut section = Section { fields: Vec::new(), count: 0, body: data.len(), skipped: false };
    // Name of the field being read, and where its value starts.
    let mut open: Option<(&[u8], usize)> = None;
    let mut start = 0;
    for line in data.split_inclusive(|&byte| byte == b'\n') {
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        if !folded {
            close(&mut section, open.take(), data, start, max);
            if matches!(line, b"\n" | b"\r\n") {
                section.body = start + line.len();
                return section;
            }
            open = line.iter().position(|&byte| byte == b':').and_then(|colon| {
                let name = line.get(..colon).unwrap_or_default().trim_ascii_end();
                let is_name = !name.is_empty() && !name.iter().any(u8::is_ascii_whitespace);
                is_name.then_some((name, start + colon + 1))
            });
        }
        section.skipped |= open.is_none() && !line.trim_ascii().is_empty();
        start += line.len();
    }
    close(&mut section, open, data, start, max);
    section
}

fn close<'x>(
    section: &mut Section<'x>,
    open: Option<(&'x [u8], usize)>,
    data: &'x [u8],
    end: usize,
    max: usize,
) {
    if let Some((name, start)) = open {
        section.count += 1;
        if section.fields.len() < max {
            section.fields.push(Field { name, value: data.get(start..end).unwrap_or_default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_folded_lines_with_their_field_and_finds_the_body() {
        let data = b"A: 1\r\n  2\r\nnot a field\r\n\t3\r\nB : 4\n\r\nC: body";
        let section = section(data, 10);
        assert_eq!(
            section.fields,
            [Field { name: b"A", value: b" 1\r\n  2\r\n" }, Field { name: b"B", value: b" 4\n" }]
        );
        assert_eq!(data.get(section.body..), Some(&b"C: body"[..]));
        assert!(section.skipped);
        assert!(!super::section(b"A: 1\r\n \r\n\r\nx", 10).skipped);
        assert!(super::section(b"A: 1\r\nshort text", 10).skipped);
    }

    #[test]
    fn counts_fields_beyond_the_bound() {
        let section = section(b"a:\nb:\nc:\n", 2);
        assert_eq!((section.fields.len(), section.count, section.body), (2, 3, 9));
    }
}
