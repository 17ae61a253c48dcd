// SPDX-License-Identifier: Apache-2.0
//! The end of a mail's text: whether it is a mail, and the reply if it is none.

use mail::Envelope;

use crate::session::{
    Incoming, Phase, Protocol, Session, TEXT_LINE_BYTES,
    data::{Refusal, received_fields},
};

impl Session {
    /// Replies to the end of DATA: once, or in LMTP once for each recipient (RFC 2033 section 4.2). Ends the
    /// transaction.
    pub(super) fn reply_to_data(&mut self, reply: &str) {
        let recipients = self.transaction.take().map_or(1, |transaction| transaction.rcpt_to.len());
        let replies = if self.protocol == Protocol::Lmtp { recipients } else { 1 };
        (0..replies).for_each(|_| self.say(reply));
        self.steps = self.steps.wrapping_add(1);
    }

    pub(super) fn end_of_data(&mut self, result: Result<Vec<u8>, Refusal>) -> Option<Box<Incoming>> {
        self.phase = Phase::Command;
        let result = match result {
            Ok(data) if received_fields(&data) > self.limits.received_headers => {
                Err(("554 5.4.6 too many Received fields, the mail loops".to_owned(), false))
            }
            Ok(data) => Ok(data),
            Err(refusal) if refusal.is_temporary() => {
                self.turned_away = self.turned_away.saturating_add(1);
                self.reply_to_data(&self.refusal_text(refusal));
                return None;
            }
            Err(refusal) => Err((self.refusal_text(refusal), refusal.closes())),
        };
        match result {
            Ok(data) => {
                let (Some(transaction), Some(helo)) = (&self.transaction, &self.helo) else {
                    self.reply_to_data("503 5.5.1 no transaction");
                    return None;
                };
                let envelope = Envelope {
                    peer: self.peer,
                    helo: helo.clone(),
                    mail_from: transaction.mail_from.clone(),
                    rcpt_to: transaction.rcpt_to.clone(),
                };
                self.mails = self.mails.saturating_add(1);
                (self.junk, self.over) = (0, 0);
                self.phase = Phase::Storing;
                Some(Box::new(Incoming { envelope, data }))
            }
            Err((reply, closes)) => {
                self.reply_to_data(&reply);
                if closes {
                    self.phase = Phase::Closed;
                } else {
                    self.count_error();
                }
                None
            }
        }
    }

    pub(super) fn refusal_text(&self, refusal: Refusal) -> String {
        match refusal {
            Refusal::BareLineEnding => "550 5.6.11 bare CR or LF in the mail, lines end with CRLF".to_owned(),
            Refusal::TooLarge | Refusal::Endless => {
                format!("552 5.3.4 mail is larger than {} bytes", self.limits.message_bytes)
            }
            Refusal::LineTooLong => format!("554 5.6.0 line of text is longer than {TEXT_LINE_BYTES} bytes"),
            Refusal::NoMemory => "452 4.3.1 too many large mails at once, try again later".to_owned(),
        }
    }
}
