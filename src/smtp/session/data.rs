// SPDX-License-Identifier: Apache-2.0
//! The text of a mail after DATA: finds its end, undoes dot-stuffing, refuses all but strict CRLF line ends. Pure.
//!
//! `smtp_proto::DataReceiver` is not used, for two reasons. It passes on bare LF and bare CR; if the next hop takes
//! those for line ends, it reads one mail as two ("SMTP smuggling"). And it misses the end of an empty mail, whose
//! dot is the first line after DATA.

/// Longest line of text that is taken, bytes without its CRLF. RFC 5322 allows 998; real mails go far beyond, parsers
/// must not.
pub const TEXT_LINE_BYTES: usize = 256 * 1024;

/// Why the text of a mail is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A CR without LF or an LF without CR. Reported at once; the session MUST end, because the peer may think that
    /// the mail is already over.
    BareLineEnding,
    /// The mail is larger than the limit. Reported at its end.
    TooLarge,
    /// The mail is more than twice the limit. Reported at once; the session ends.
    Endless,
    /// A line is longer than [`TEXT_LINE_BYTES`]. Reported at the end of the mail.
    LineTooLong,
    /// There is no memory for the mail now. Reported at its end.
    NoMemory,
}

impl Refusal {
    /// Whether the session must end because the end of the mail was not reached.
    pub(super) fn closes(self) -> bool {
        matches!(self, Self::BareLineEnding | Self::Endless)
    }

    /// Whether the client did nothing wrong, and may send the mail again.
    pub(super) fn is_temporary(self) -> bool {
        matches!(self, Self::NoMemory)
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    LineStart,
    Text,
    /// After any other CR.
    Cr,
    /// After a dot at the start of a line.
    Dot,
    /// After a CR that follows such a dot.
    DotCr,
}

/// Reads one mail, and keeps no more of its bytes than the limit.
#[derive(Debug)]
pub(super) struct DataReader {
    state: State,
    data: Vec<u8>,
    max_bytes: usize,
    /// Size of the mail so far, including bytes that were not kept.
    bytes: usize,
    line_bytes: usize,
    refusal: Option<Refusal>,
}

impl DataReader {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { state: State::LineStart, data: Vec::new(), max_bytes, bytes: 0, line_bytes: 0, refusal: None }
    }

    /// Takes bytes off `input`, up to and including the final dot line; `None` if it needs more.
    pub(super) fn read(&mut self, input: &mut &[u8]) -> Option<Result<Vec<u8>, Refusal>> {
        while let Some((&byte, mut rest)) = input.split_first() {
            match (self.state, byte) {
                (State::LineStart | State::Text, b'\r') => self.state = State::Cr,
                (State::Cr, b'\n') => {
                    self.push(b"\r\n");
                    self.line_bytes = 0;
                    self.state = State::LineStart;
                }
                (State::LineStart, b'.') => self.state = State::Dot,
                (State::Dot, b'\r') => self.state = State::DotCr,
                (State::DotCr, b'\n') => {
                    *input = rest;
                    return Some(self.refusal.map_or_else(|| Ok(std::mem::take(&mut self.data)), Err));
                }
                (State::Cr | State::DotCr, _) | (_, b'\n') => return Some(Err(Refusal::BareLineEnding)),
                (State::LineStart | State::Text | State::Dot, _) => {
                    let end =
                        input.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(input.len());
                    let (text, after) = input.split_at(end);
                    self.line_bytes = self.line_bytes.saturating_add(text.len());
                    self.push(text);
                    self.state = State::Text;
                    rest = after;
                }
            }
            *input = rest;
            if self.bytes > self.max_bytes.saturating_mul(2) {
                return Some(Err(Refusal::Endless));
            }
        }
        None
    }

    /// Takes a piece of a mail that has no end of its own and no dot-stuffing (RFC 3030).
    pub(super) fn read_chunk(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, mut rest)) = bytes.split_first() {
            match (self.state, byte) {
                (State::Cr, b'\n') => {
                    self.push(b"\r\n");
                    self.line_bytes = 0;
                    self.state = State::LineStart;
                }
                (State::Cr, _) | (_, b'\n') => return self.refuse(Refusal::BareLineEnding),
                (_, b'\r') => self.state = State::Cr,
                _ => {
                    let end =
                        bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
                    let (text, after) = bytes.split_at(end);
                    self.line_bytes = self.line_bytes.saturating_add(text.len());
                    self.push(text);
                    self.state = State::Text;
                    rest = after;
                }
            }
            bytes = rest;
        }
    }

    /// Why the chunks so far are refused.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// The mail, after its last chunk.
    pub(super) fn end_of_chunks(self) -> Result<Vec<u8>, Refusal> {
        match (self.refusal, self.state) {
            (Some(refusal), _) => Err(refusal),
            (None, State::LineStart) => Ok(self.data),
            (None, _) => Err(Refusal::BareLineEnding),
        }
    }

    /// Bytes of memory that the mail takes.
    pub(super) fn held_bytes(&self) -> usize {
        self.data.capacity()
    }

    /// Drops the mail for lack of memory; what is still to come is read and dropped.
    pub(super) fn no_memory(&mut self) {
        self.refuse(Refusal::NoMemory);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > self.max_bytes {
            self.refuse(Refusal::TooLarge);
        } else if self.line_bytes > TEXT_LINE_BYTES {
            self.refuse(Refusal::LineTooLong);
        } else if self.refusal.is_none() {
            self.make_room(bytes.len());
            self.data.extend_from_slice(bytes);
        }
    }

    /// Doubles the memory as it fills, but takes no more than the largest mail needs.
    fn make_room(&mut self, bytes: usize) {
        let (length, room) = (self.data.len(), self.data.capacity());
        let needed = length.saturating_add(bytes);
        if needed > room {
            let room = room.saturating_mul(2).min(self.max_bytes).max(needed);
            self.data.reserve_exact(room.saturating_sub(length));
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        // What ends the session is not forgotten for what does not.
        if !self.refusal.is_some_and(Refusal::closes) {
            self.refusal = Some(refusal);
        }
        self.data = Vec::new();
    }
}

/// Number of `Received` fields in the header of a mail, one for each hop (RFC 5321 section 6.3).
pub(super) fn received_fields(data: &[u8]) -> usize {
    const NAME: &[u8] = b"received:";
    data.split(|&byte| byte == b'\n')
        .take_while(|line| !matches!(line, [] | [b'\r']))
        .filter(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))
        .count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(max: usize, mut input: &[u8]) -> (Option<Result<Vec<u8>, Refusal>>, usize) {
        let mut reader = DataReader::new(max);
        let result = reader.read(&mut input);
        (result, input.len())
    }

    #[test]
    fn ends_at_the_dot_line_only_and_unstuffs_dots() {
        assert_eq!(
            read(99, b"a\r\n..\r\n.b\r\n\r\n.\r\nQUIT"),
            (Some(Ok(b"a\r\n.\r\nb\r\n\r\n".to_vec())), 4)
        );
        assert_eq!(read(99, b".\r\n"), (Some(Ok(Vec::new())), 0));
        assert_eq!(read(99, b"a.\r\n. \r\n"), (None, 0));
    }

    #[test]
    fn refuses_every_bare_line_ending() {
        for text in [
            "a\n",
            "a\rb",
            "\n",
            "a\r\n.\n",
            "a\n.\r\n",
            "a\n.\n",
            "a\r\n.\rb",
            "a\r.\r\n",
            "a\r\r\n",
            ".\r\r\n",
        ] {
            assert_eq!(read(99, text.as_bytes()).0, Some(Err(Refusal::BareLineEnding)), "{text:?}");
        }
    }

    #[test]
    fn reads_an_oversize_mail_to_its_end_but_not_for_ever() {
        assert_eq!(read(4, b"abcd\r\n.\r\nx"), (Some(Err(Refusal::TooLarge)), 1));
        assert_eq!(read(6, b"abcd\r\n.\r\n"), (Some(Ok(b"abcd\r\n".to_vec())), 0));
        assert_eq!(read(4, b"abcdefghi").0, Some(Err(Refusal::Endless)));
    }

    #[test]
    fn empty_lines_are_no_way_to_go_on_for_ever() {
        assert_eq!(read(4, &b"\r\n".repeat(5)), (Some(Err(Refusal::Endless)), 0));
        assert_eq!(read(4, &[&b"\r\n".repeat(4)[..], b".\r\n"].concat()).0, Some(Err(Refusal::TooLarge)));
    }

    #[test]
    fn bounds_a_line_without_its_end() {
        let longest = b"a".repeat(TEXT_LINE_BYTES);
        let mail = [&longest[..], b"\r\n", &longest, b"\r\n"].concat();
        assert_eq!(read(1 << 20, &[&mail[..], b".\r\n"].concat()).0, Some(Ok(mail)));
        let text = [&longest[..], b"a\r\n.\r\n"].concat();
        assert_eq!(read(1 << 20, &text).0, Some(Err(Refusal::LineTooLong)));
    }

    #[test]
    fn counts_received_fields_of_the_header_only() {
        assert_eq!(
            received_fields(b"Received: a\r\n b\r\nRECEIVED: c\r\nX-Received: d\r\n\r\nReceived: e\r\n"),
            2
        );
        assert_eq!(received_fields(b""), 0);
    }

    #[test]
    fn a_mail_without_memory_is_read_to_its_end_and_a_permanent_reason_goes_first() {
        let mut reader = DataReader::new(9);
        assert_eq!(reader.read(&mut &b"ab\r\n"[..]), None);
        assert!(reader.held_bytes() >= 4);
        reader.no_memory();
        assert_eq!(reader.held_bytes(), 0);
        assert_eq!(reader.read(&mut &b"c\r\n.\r\n"[..]), Some(Err(Refusal::NoMemory)));
        let mut reader = DataReader::new(9);
        reader.no_memory();
        assert_eq!(reader.read(&mut &b"123456789\r\n.\r\n"[..]), Some(Err(Refusal::TooLarge)));
    }

    proptest! {
        #[test]
        fn a_stuffed_mail_reads_back_however_it_is_cut(lines in prop::collection::vec("[.a ]{0,5}", 0..9), cut in 0usize..60) {
            let mail: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let stuffed: String = lines
                .iter()
                .map(|line| if line.starts_with('.') { format!(".{line}\r\n") } else { format!("{line}\r\n") })
                .chain([".\r\n".to_owned()])
                .collect();
            let (first, second) = stuffed.as_bytes().split_at(cut.min(stuffed.len()));
            let mut reader = DataReader::new(1000);
            let (mut first, mut second) = (first, second);
            let result = reader.read(&mut first).or_else(|| reader.read(&mut second));
            prop_assert_eq!(result, Some(Ok(mail.into_bytes())));
        }

        #[test]
        fn keeps_no_more_than_the_limit(input in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = DataReader::new(20);
            let result = reader.read(&mut &input[..]);
            prop_assert!(reader.data.len() <= 20 && reader.held_bytes() <= 20);
            if let Some(Ok(data)) = result {
                prop_assert!(data.len() <= 20);
            }
        }
    }
}
