//! An outbound mail as bytes and envelope. The clock is an argument.

use std::time::SystemTime;

use mail_builder::{MessageBuilder, headers::raw::Raw};

use super::schedule::RECIPIENTS;
use crate::mail::{OutboundKind, OutboundMail};
use crate::mail_bridge::journal::OutboundKey;

/// Bound of a Message-ID, bytes: a header line.
const MESSAGE_ID_BYTES: usize = 900;
/// Bound of an address, bytes (RFC 5321 section 4.5.3.1.3).
const ADDRESS_BYTES: usize = 254;

/// A mail ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// Reverse-path; empty is null.
    pub mail_from: String,
    /// Forward-paths.
    pub rcpt_to: Vec<String>,
    /// Header and body, lines ending with CRLF, not dot-stuffed.
    pub data: Vec<u8>,
}

/// An outbound mail that cannot be sent, ever.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    /// Not an address that can stand in an envelope. It is not named: the text goes to `mail/deliveries` and logs.
    #[error("{0} is not an address like name@host of at most {ADDRESS_BYTES} bytes")]
    Address(&'static str),
    /// No recipient, or too many.
    #[error("{0} recipients, must be 1 to {RECIPIENTS}")]
    Recipients(usize),
    /// Not a Message-ID.
    #[error(
        "{field} {value:?} is not a Message-ID: printable ASCII without spaces and angle brackets, at most {MESSAGE_ID_BYTES} bytes"
    )]
    MessageId {
        /// Which.
        field: &'static str,
        /// As given.
        value: String,
    },
}

/// Composes a mail. `sender` stands in for an empty From. Every time the same, but for the Date.
///
/// # Errors
/// If an address or a Message-ID could not stand in a header or an envelope.
pub fn compose(
    mail: &OutboundMail,
    sender: &str,
    hostname: &str,
    now: SystemTime,
) -> Result<Composed, Invalid> {
    let from = if mail.from.is_empty() { sender } else { &mail.from };
    if !(1..=RECIPIENTS).contains(&mail.to.len()) {
        return Err(Invalid::Recipients(mail.to.len()));
    }
    if !is_address(from) {
        return Err(Invalid::Address("from"));
    }
    if !mail.to.iter().all(|to| is_address(to)) {
        return Err(Invalid::Address("to"));
    }
    let message_id = if mail.message_id.is_empty() {
        format!("{}@{hostname}", OutboundKey::of(mail))
    } else {
        mail.message_id.clone()
    };
    check_message_id("message_id", &message_id)?;
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut builder = MessageBuilder::new()
        .from(from)
        .to(mail.to.iter().map(String::as_str).collect::<Vec<_>>())
        .subject(mail.subject.as_str())
        .message_id(message_id)
        .date(i64::try_from(seconds).unwrap_or_default());
    if !mail.in_reply_to.is_empty() {
        check_message_id("in_reply_to", &mail.in_reply_to)?;
        builder = builder.in_reply_to(mail.in_reply_to.as_str()).references(mail.in_reply_to.as_str());
    }
    // RFC 3834 section 5: an answer is a reply to a mail, a forward was made by a machine all the same.
    let (auto_submitted, mail_from) = match mail.kind {
        OutboundKind::Answer => ("auto-replied", String::new()),
        OutboundKind::Forward => ("auto-generated", from.to_owned()),
        OutboundKind::Notice => ("auto-generated", String::new()),
    };
    let mut data = Vec::new();
    builder
        .header("Auto-Submitted", Raw::new(auto_submitted))
        .text_body(mail.text.as_str())
        .serialize(&mut data);
    Ok(Composed { mail_from, rcpt_to: mail.to.clone(), data })
}

fn is_address(text: &str) -> bool {
    let plain = !text.chars().any(|c| c.is_control() || c.is_whitespace() || "<>()[]\\\",;:".contains(c));
    let parts = text.split_once('@');
    plain
        && text.len() <= ADDRESS_BYTES
        && parts
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'))
}

fn check_message_id(field: &'static str, value: &str) -> Result<(), Invalid> {
    let valid = value.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>".contains(&byte));
    if valid && (1..=MESSAGE_ID_BYTES).contains(&value.len()) {
        Ok(())
    } else {
        Err(Invalid::MessageId { field, value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mail_parser::MessageParser;

    use super::*;
    use crate::mail::MailId;

    fn mail() -> OutboundMail {
        OutboundMail {
            answers: MailId::of(b"question"),
            kind: OutboundKind::Answer,
            message_id: "answer@bridge.test".to_owned(),
            from: String::new(),
            to: vec!["ada@x.test".to_owned()],
            reply_to: Vec::new(),
            urgent: false,
            subject: "Re: Wo ist Fahrzeug 7? \r\nBcc: evil@x.test".to_owned(),
            in_reply_to: "question@x.test".to_owned(),
            text: "Grüße\n.\nvehicle 7 is at the depot".to_owned(),
        }
    }

    fn composed(mail: &OutboundMail) -> Result<String, Invalid> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        compose(mail, "posthorn@bridge.test", "bridge.test", now)
            .map(|mail| String::from_utf8(mail.data).unwrap())
    }

    #[test]
    fn an_answer_reads_back_and_is_marked_as_automatic() {
        let text = composed(&mail()).unwrap();
        let content = MessageParser::default().parse(&text).unwrap();
        assert_eq!(content.message_id(), Some("answer@bridge.test"));
        assert_eq!(content.in_reply_to().as_text(), Some("question@x.test"));
        assert_eq!(content.from().unwrap().first().unwrap().address(), Some("posthorn@bridge.test"));
        assert!(content.body_text(0).unwrap().contains("Grüße"));
        for line in [
            "Auto-Submitted: auto-replied\r\n",
            "Date: Sun, 9 Sep 2001 01:46:40 +0000\r\n",
            "References: <question@x.test>\r\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("\r\nBcc:"), "{text}");
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{text}");
    }

    #[test]
    fn refuses_what_could_break_out_of_an_envelope_or_a_header() {
        for to in ["", "a", "a@b c", "a@b>\r\nRCPT TO:<c@d", "<a@b>", "a@b@c", "a,b@c"] {
            assert!(composed(&OutboundMail { to: vec![to.to_owned()], ..mail() }).is_err(), "{to:?}");
        }
        assert!(composed(&OutboundMail { to: Vec::new(), ..mail() }).is_err());
        assert!(composed(&OutboundMail { in_reply_to: "a>\r\nX: y".to_owned(), ..mail() }).is_err());
        assert!(composed(&OutboundMail { message_id: "a b".to_owned(), ..mail() }).is_err());
    }

    #[test]
    fn gives_a_message_id_that_is_the_same_every_time() {
        let mail = OutboundMail { message_id: String::new(), ..mail() };
        assert_eq!(composed(&mail), composed(&mail));
        let text = composed(&mail).unwrap();
        assert!(
            MessageParser::default().parse(&text).unwrap().message_id().unwrap().ends_with("@bridge.test")
        );
    }

    #[test]
    fn an_answer_has_no_return_path_and_a_forward_has() {
        let from = |kind| {
            compose(&OutboundMail { kind, ..mail() }, "p@b.test", "b.test", SystemTime::UNIX_EPOCH)
                .unwrap()
                .mail_from
        };
        assert_eq!(from(OutboundKind::Answer), "");
        assert_eq!(from(OutboundKind::Forward), "p@b.test");
    }
}
