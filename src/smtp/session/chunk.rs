// SPDX-License-Identifier: Apache-2.0
//! BDAT (RFC 3030): a mail in chunks of announced sizes, with line ends as strict as after DATA.
//!
//! A chunk that is refused is read to its end first, so that none of it is taken for a command. Where its size is not
//! known, or more than anybody would read, the session ends instead. All chunks of a mail are one step, so that the
//! mail has no more time than after DATA, and to abandon it is an error.

use crate::session::{
    Incoming, Phase, Session,
    data::{DataReader, Refusal},
};

/// A chunk that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    size: usize,
    /// Bytes still to come.
    left: usize,
    last: bool,
    /// The reply, if the chunk was refused before it came.
    refused: Option<&'static str>,
}

impl Chunk {
    /// Whether it is part of a mail, and not only read so that it is not taken for commands.
    pub(super) fn is_of_a_mail(&self) -> bool {
        self.refused.is_none()
    }

    /// Takes bytes off `input`; false if the chunk is not complete.
    pub(super) fn read(&mut self, reader: Option<&mut DataReader>, input: &mut &[u8]) -> bool {
        let (bytes, rest) = input.split_at(self.left.min(input.len()));
        *input = rest;
        self.left = self.left.saturating_sub(bytes.len());
        if let (Some(reader), None) = (reader, self.refused) {
            reader.read_chunk(bytes);
        }
        self.left == 0
    }
}

impl Session {
    pub(super) fn bdat(&mut self, parameters: &str) {
        let Some((size, last)) = parse(parameters) else {
            return self.end_with("501 5.5.4 must be BDAT size [LAST], closing connection");
        };
        if size > self.limits.message_bytes.saturating_mul(2) {
            return self.end_with("552 5.3.4 chunk is too large, closing connection");
        }
        let refused = match &self.transaction {
            None => Some("503 5.5.1 say MAIL first"),
            Some(transaction) if transaction.rcpt_to.is_empty() => Some("503 5.5.1 no valid recipient"),
            Some(_) => None,
        };
        if refused.is_none() && self.chunks.is_none() {
            self.chunks = Some(DataReader::new(self.limits.message_bytes));
            self.texts = self.texts.wrapping_add(1);
        }
        self.phase = Phase::Chunk(Chunk { size, left: size, last, refused });
    }

    /// Replies to a chunk that is complete; the last one is a mail.
    pub(super) fn end_of_chunk(&mut self, chunk: Chunk) -> Option<Box<Incoming>> {
        self.phase = Phase::Command;
        if let Some(reply) = chunk.refused {
            self.refuse(reply);
            return None;
        }
        let reader = self.chunks.take()?;
        if chunk.last {
            return self.end_of_data(reader.end_of_chunks());
        }
        match reader.refusal() {
            Some(refusal) => self.fail(refusal),
            None => {
                self.chunks = Some(reader);
                let reply = format!("250 2.0.0 {} bytes", chunk.size);
                if chunk.size == 0 { self.junk(&reply) } else { self.say(&reply) }
            }
        }
        None
    }

    /// Ends the transaction in the middle of a mail. Further chunks get 503.
    fn fail(&mut self, refusal: Refusal) {
        self.transaction = None;
        self.say(&self.refusal_text(refusal));
        if refusal.is_temporary() {
            self.turned_away = self.turned_away.saturating_add(1);
        } else if refusal.closes() {
            self.phase = Phase::Closed;
        } else {
            self.count_error();
        }
    }

    /// Drops the chunks of a mail that the client gave up.
    pub(super) fn abandon_chunks(&mut self) {
        if self.chunks.take().is_some() {
            self.count_error();
        }
    }
}

/// Size of a chunk, and whether it is the last.
fn parse(parameters: &str) -> Option<(usize, bool)> {
    let mut words = parameters.trim_end().split(' ');
    let size = words.next().filter(|size| (1..=20).contains(&size.len()))?;
    let last = match words.next() {
        None => false,
        Some(word) => word.eq_ignore_ascii_case("LAST").then_some(true)?,
    };
    let is_number = size.bytes().all(|byte| byte.is_ascii_digit()) && words.next().is_none();
    is_number.then(|| (size.parse().unwrap_or(usize::MAX), last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::session::tests::{codes, session, talk};
    use crate::session::{COMMAND_LINE_BYTES, Progress, Protocol};

    const BEGIN: &str = "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n";

    fn chunks(input: &str) -> String {
        let codes = codes(&mut session(Protocol::Smtp), &format!("{BEGIN}{input}"));
        codes.strip_prefix("250 250 250 ").unwrap_or(&codes).to_owned()
    }

    #[test]
    fn takes_a_mail_in_chunks_wherever_they_are_cut() {
        for input in [
            "BDAT 8 LAST \r\na\r\n.\r\n\r\n",
            "BDAT 2\r\na\rBDAT 6 LAST\r\n\n.\r\n\r\n",
            "bdat 8\r\na\r\n.\r\n\r\nBDAT 0 last\r\n",
            "BDAT 0\r\nBDAT 8\r\na\r\n.\r\n\r\nBDAT 0 LAST\r\n",
        ] {
            let mut session = session(Protocol::Smtp);
            let (codes, mails) = talk(&mut session, &format!("{BEGIN}{input}QUIT\r\n"));
            assert!(codes.iter().all(|code| code == "250" || code == "221"), "{codes:?}");
            // A dot is a dot, and there is no stuffing.
            assert_eq!(mails[0].data, b"a\r\n.\r\n\r\n");
        }
        let mut lmtp = session(Protocol::Lmtp);
        let begin = "LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<b@b>\r\n";
        assert_eq!(
            codes(&mut lmtp, &format!("{begin}BDAT 2\r\n\r\nBDAT 0 LAST\r\n")),
            "250 250 250 250 250 250 250"
        );
    }

    #[test]
    fn takes_no_bare_line_ending_in_a_chunk_or_between_two() {
        for input in [
            "BDAT 3 LAST\r\na\n\n",
            "BDAT 3 LAST\r\na\rb",
            "BDAT 3 LAST\r\nabc",
            "BDAT 2 LAST\r\na\r",
            "BDAT 2\r\na\rBDAT 1 LAST\r\nb",
            "BDAT 1\r\n\nBDAT 3 LAST\r\nb\r\n",
            "BDAT 9 LAST\r\n\r\n.\n\r\n.\r\n",
            &format!("BDAT 1500 LAST\r\n\n{}", "x".repeat(1499)),
        ] {
            let codes = chunks(&format!("{input}MAIL FROM:<evil@x.test>\r\n"));
            assert!(codes.ends_with("550"), "{input:?}: {codes}");
        }
    }

    #[test]
    fn what_is_in_a_refused_chunk_is_no_command() {
        let evil = "MAIL FROM:<evil@x.test>\r\n";
        let chunk = format!("BDAT {} LAST\r\n{evil}", evil.len());
        assert_eq!(codes(&mut session(Protocol::Smtp), &format!("EHLO c\r\n{chunk}NOOP\r\n")), "250 503 250");
        let mail = format!("EHLO c\r\nMAIL FROM:<>\r\n{chunk}RSET\r\nNOOP\r\n");
        assert_eq!(codes(&mut session(Protocol::Smtp), &mail), "250 250 503 250 250");
        // Too large: the rest of the mail's chunks were on their way.
        let big = "x".repeat(1001);
        assert_eq!(chunks(&format!("BDAT 1001\r\n{big}BDAT 25 LAST\r\n{evil}NOOP\r\n")), "552 503 250");
    }

    #[test]
    fn a_refused_chunk_is_no_mail_whose_time_would_count() {
        let mut session = session(Protocol::Smtp);
        talk(&mut session, "EHLO c\r\nBDAT 900 LAST\r\nx");
        assert!(!session.in_mail());
        talk(&mut session, &format!("{}{BEGIN}BDAT 900 LAST\r\nx", "x".repeat(899)));
        assert!(session.in_mail());
    }

    #[test]
    fn ends_the_session_if_nobody_knows_where_the_chunk_ends() {
        for line in [
            "BDAT",
            "BDAT ",
            "BDAT x",
            "BDAT -1",
            "BDAT +1",
            "BDAT 1 FIRST",
            "BDAT 1 LAST x",
            "BDAT 1  LAST",
            "BDAT 100000000000000000000",
        ] {
            assert_eq!(chunks(&format!("{line}\r\nNOOP\r\n")), "501", "{line}");
        }
        for size in ["2001", "18446744073709551615", "99999999999999999999"] {
            assert_eq!(chunks(&format!("BDAT {size}\r\nNOOP\r\n")), "552", "{size}");
        }
        let padded = format!("BDAT 26 LAST{}\r\nMAIL FROM:<evil@x.test>\r\n", " ".repeat(1100));
        for pieces in [1, 7, 1024, 2000] {
            let mut session = session(Protocol::Smtp);
            talk(&mut session, BEGIN);
            let said: Vec<_> = padded
                .as_bytes()
                .chunks(pieces)
                .map(|piece| codes(&mut session, str::from_utf8(piece).unwrap()))
                .collect();
            assert_eq!(said.concat(), "500", "in pieces of {pieces}");
        }
        for line in ["BDAT 4\nNOOP\r\n", "BDAT 4\0\r\nNOOP\r\n", "BDAT\t4\r\nNOOP\r\n"] {
            assert_eq!(chunks(line), "500", "{line:?}");
        }
    }

    #[test]
    fn chunks_and_other_commands_do_not_mix() {
        let first = "BDAT 2\r\n\r\n";
        assert_eq!(chunks(&format!("{first}DATA\r\nBDAT 0 LAST\r\n")), "250 503 250");
        assert_eq!(
            chunks(&format!("{first}RCPT TO:<b@b>\r\nMAIL FROM:<>\r\nBDAT 0 LAST\r\n")),
            "250 503 503 250"
        );
        // What was given up does not come back.
        assert_eq!(chunks(&format!("{first}RSET\r\nBDAT 0 LAST\r\n")), "250 250 503");
        let mut session = session(Protocol::Smtp);
        let (_, mails) =
            talk(&mut session, &format!("{BEGIN}BDAT 5\r\nold\r\n{BEGIN}BDAT 5 LAST\r\nnew\r\n"));
        assert_eq!(mails[0].data, b"new\r\n");
    }

    #[test]
    fn chunks_without_end_end() {
        assert!(chunks(&"BDAT 0\r\n".repeat(200)).ends_with("250 421"));
        let begun = "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 2\r\n\r\nRSET\r\n".repeat(9);
        assert!(codes(&mut session(Protocol::Smtp), &format!("EHLO c\r\n{begun}")).ends_with("250 421"));
        let mut session = session(Protocol::Smtp);
        talk(&mut session, &format!("{BEGIN}BDAT 2\r\n\r\n"));
        let steps = session.steps();
        talk(&mut session, &"BDAT 1\r\nxNOOP\r\n".repeat(9));
        assert!(session.in_mail() && session.held_bytes() >= 11);
        assert_eq!(session.steps(), steps, "the clock of the mail goes on");
        session.no_memory();
        assert_eq!(session.held_bytes(), 0);
        assert_eq!(codes(&mut session, "BDAT 2 LAST\r\n\r\nNOOP\r\n"), "452 250");
        assert_eq!(session.take_turned_away(), 1);
    }

    proptest! {
        #[test]
        fn a_mail_in_chunks_is_the_mail(lines in prop::collection::vec("[.a ]{0,5}", 0..9), size in 1usize..9, cut in 0usize..200) {
            let mail: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let mut input = BEGIN.to_owned();
            for chunk in mail.as_bytes().chunks(size) {
                input += &format!("BDAT {}\r\n{}", chunk.len(), std::str::from_utf8(chunk).unwrap());
            }
            input += "BDAT 0 LAST\r\n";
            let (first, second) = input.split_at(cut.min(input.len()));
            let mut session = session(Protocol::Smtp);
            let mails = [talk(&mut session, first).1, talk(&mut session, second).1].concat();
            prop_assert_eq!(mails.len(), 1);
            prop_assert_eq!(&mails[0].data, mail.as_bytes());
        }

        #[test]
        fn keeps_no_more_than_the_limit(sizes in prop::collection::vec(0usize..1500, 0..9)) {
            let mut session = session(Protocol::Smtp);
            let chunks: String = sizes.iter().map(|size| format!("BDAT {size}\r\n{}", "x".repeat(*size))).collect();
            let input = format!("{BEGIN}{chunks}");
            let mut rest = input.as_bytes();
            prop_assert!(!matches!(session.receive(&mut rest), Progress::Mail(_)));
            prop_assert!(session.held_bytes() <= 1000 && session.line.len() <= COMMAND_LINE_BYTES);
        }
    }
}
