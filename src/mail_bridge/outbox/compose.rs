// SPDX-License-Identifier: Apache-2.0
//! Composes an outbound mail: header, body and envelope. The clock and the server's abilities are arguments. Pure.

use std::time::SystemTime;

use mail::{AddressError, EmailAddress, OutboundKind, OutboundMail};
use mail_builder::{
    MessageBuilder,
    headers::{content_type::ContentType, raw::Raw},
    mime::MimePart,
};
use smtp::client::{Accepts, Message};

use super::{
    forward::{Original, Way, note, with_results},
    schedule::RECIPIENTS,
};
use crate::journal::OutboundKey;

/// Largest Message-ID, bytes, so that it fits on a header line.
const MESSAGE_ID_BYTES: usize = 900;

/// Longest results of a forward [bytes].
const MAX_RESULTS_BYTES: usize = 998;

/// The sender, time and server that a mail is composed for.
#[derive(Clone, Copy, Debug)]
pub struct ComposeContext<'a> {
    /// From address if the mail names none.
    pub sender: &'a str,
    /// Right side of generated Message-IDs.
    pub hostname: &'a str,
    /// Time for the Date field.
    pub now: SystemTime,
    /// What the receiving server accepts.
    pub accepts: Accepts,
}

/// A mail ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// What the smart host gets.
    pub message: Message,
    /// Whether the mail that a forward passes on is attached.
    pub attached: bool,
}

/// An outbound mail can never be sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    /// An address cannot stand in an envelope. It is not quoted, because the text goes to `mail/deliveries` and logs.
    #[error("{0} is not an address like name@host: {1}")]
    Address(&'static str, AddressError),
    /// There are no recipients, or too many.
    #[error("{0} recipients, must be 1 to {RECIPIENTS}")]
    Recipients(usize),
    /// Reply-To has too many addresses.
    #[error("{0} addresses in reply_to, must be at most {RECIPIENTS}")]
    ReplyTo(usize),
    /// A forward does not name the mail that it passes on.
    #[error("answers is empty, a forward must name the mail that it passes on")]
    Forward,
    /// Results that do not fit into a header.
    #[error("authentication_results {0:?}: must be printable ASCII, at most {MAX_RESULTS_BYTES} bytes")]
    Results(String),
    /// A field is not a valid Message-ID.
    #[error(
        "{field} {value:?} is not a Message-ID: printable ASCII without spaces and angle brackets, at most {MESSAGE_ID_BYTES} bytes"
    )]
    MessageId {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

/// Checks that a mail can be composed. `sender` is the From address if the mail names none.
///
/// # Errors
/// The first rule of [`Invalid`] that the mail breaks.
pub fn check(mail: &OutboundMail, sender: &str) -> Result<(), Invalid> {
    if !(1..=RECIPIENTS).contains(&mail.to.len()) {
        return Err(Invalid::Recipients(mail.to.len()));
    }
    if mail.reply_to.len() > RECIPIENTS {
        return Err(Invalid::ReplyTo(mail.reply_to.len()));
    }
    if mail.kind == OutboundKind::Forward && mail.answers.is_none() {
        return Err(Invalid::Forward);
    }
    let from = std::slice::from_ref(&mail.from);
    let from = if mail.from.is_empty() { &[sender.to_owned()] } else { from };
    for (field, addresses) in [("from", from), ("to", &mail.to), ("reply_to", &mail.reply_to)] {
        for address in addresses {
            EmailAddress::parse(address).map_err(|error| Invalid::Address(field, error))?;
        }
    }
    let results = &mail.authentication_results;
    if results.len() > MAX_RESULTS_BYTES
        || !results.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
    {
        return Err(Invalid::Results(results.chars().take(80).collect()));
    }
    for (field, value) in [("message_id", &mail.message_id), ("in_reply_to", &mail.in_reply_to)] {
        check_message_id(field, value)?;
    }
    Ok(())
}

/// Message-ID for a mail without one. It follows from the mail's key, so it is the same every time.
pub fn message_id(mail: &OutboundMail, hostname: &str) -> String {
    format!("{}@{hostname}", OutboundKey::of(mail))
}

/// Composes a mail, with the `original` that it passes on if it is a forward. For the same server the result is
/// always the same, except for the Date.
///
/// # Errors
/// Those of [`check`].
pub fn compose(
    mail: &OutboundMail,
    original: Option<&Original>,
    context: &ComposeContext,
) -> Result<Composed, Invalid> {
    check(mail, context.sender)?;
    let from = if mail.from.is_empty() { context.sender } else { &mail.from };
    let mail_from = if mail.kind == OutboundKind::Forward { from.to_owned() } else { String::new() };
    let composed = |data, attached| Composed {
        message: Message { mail_from, rcpt_to: mail.to.clone(), data },
        attached,
    };
    let (Some(original), Some(id)) = (original, mail.answers) else {
        return Ok(composed(serialize(headers(mail, from, context).text_body(mail.text.as_str())), false));
    };
    let id = id.to_string();
    if let Original::Kept(data) = original {
        let results = &mail.authentication_results;
        let text = format!("{}{}", mail.text, note(original, &id, Some(results)));
        let data = &*with_results(data, context.hostname, results);
        let way = Way::of(data, context.accepts.eight_bit);
        // No mail contains its own digest, so the boundary does not occur in the original.
        let boundary = format!("posthorn-{}", id.get(..32).unwrap_or_default());
        let kind = ContentType::new("multipart/mixed").attribute("boundary", boundary);
        let parts = vec![MimePart::new("text/plain", text.as_str()), way.part(data)];
        let body = MimePart::new(kind, parts).transfer_encoding(way.encoding());
        let whole = serialize(headers(mail, from, context).body(body));
        if context.accepts.size.is_none_or(|size| whole.len() <= size) {
            return Ok(composed(whole, true));
        }
    }
    let text = format!("{}{}", mail.text, note(original, &id, None));
    Ok(composed(serialize(headers(mail, from, context).text_body(text)), false))
}

fn headers<'a>(mail: &'a OutboundMail, from: &'a str, context: &ComposeContext<'a>) -> MessageBuilder<'a> {
    let texts = |list: &'a [String]| list.iter().map(String::as_str).collect::<Vec<_>>();
    let seconds = context.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let id =
        if mail.message_id.is_empty() { message_id(mail, context.hostname) } else { mail.message_id.clone() };
    // RFC 3834 section 5: an answer is a reply to a mail; a forward or notice is not, but a machine made it too.
    let auto_submitted = match mail.kind {
        OutboundKind::Answer => "auto-replied",
        OutboundKind::Forward | OutboundKind::Notice => "auto-generated",
    };
    let mut builder = MessageBuilder::new()
        .from(from)
        .to(texts(&mail.to))
        .subject(mail.subject.as_str())
        .message_id(id)
        .date(i64::try_from(seconds).unwrap_or_default())
        .header("Auto-Submitted", Raw::new(auto_submitted));
    if !mail.reply_to.is_empty() {
        builder = builder.reply_to(texts(&mail.reply_to));
    }
    if !mail.in_reply_to.is_empty() {
        builder = builder.in_reply_to(mail.in_reply_to.as_str()).references(mail.in_reply_to.as_str());
    }
    if mail.urgent {
        // RFC 2156 section 5.3.4, and the field that mail programs show.
        builder = builder.header("Importance", Raw::new("high")).header("X-Priority", Raw::new("1"));
    }
    builder
}

fn serialize(builder: MessageBuilder) -> Vec<u8> {
    let mut data = Vec::new();
    builder.serialize(&mut data);
    data
}

fn check_message_id(field: &'static str, value: &str) -> Result<(), Invalid> {
    let valid = value.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>".contains(&byte));
    if valid && value.len() <= MESSAGE_ID_BYTES {
        Ok(())
    } else {
        Err(Invalid::MessageId { field, value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mail_parser::{MessageParser, MimeHeaders};

    use super::*;
    use mail::MailId;

    fn mail() -> OutboundMail {
        OutboundMail {
            answers: Some(MailId::of(b"question")),
            kind: OutboundKind::Answer,
            message_id: "answer@bridge.test".to_owned(),
            from: String::new(),
            to: vec!["ada@x.test".to_owned()],
            reply_to: Vec::new(),
            urgent: false,
            subject: "Re: Wo ist Fahrzeug 7? \r\nBcc: evil@x.test".to_owned(),
            in_reply_to: "question@x.test".to_owned(),
            text: "Grüße\n.\nvehicle 7 is at the depot".to_owned(),
            authentication_results: String::new(),
        }
    }

    fn composed(mail: &OutboundMail) -> Result<String, Invalid> {
        compose(mail, None, &context(Accepts::default()))
            .map(|mail| String::from_utf8(mail.message.data).unwrap())
    }

    fn context(accepts: Accepts) -> ComposeContext<'static> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        ComposeContext { sender: "posthorn@bridge.test", hostname: "bridge.test", now, accepts }
    }

    fn forward(original: Original, accepts: Accepts) -> Composed {
        let data = if let Original::Kept(data) = &original { &data[..] } else { b"gone" };
        let mail = OutboundMail { kind: OutboundKind::Forward, answers: Some(MailId::of(data)), ..mail() };
        compose(&mail, Some(&original), &context(accepts)).unwrap()
    }

    const PHOTO: &str = "From: ada@x.test\r\nSubject: look\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n.\r\n--b\r\nContent-Type: image/jpeg\r\n\
        Content-Disposition: attachment; filename=\"photo.jpg\"\r\nContent-Transfer-Encoding: base64\r\n\r\n/9j/\r\n--b--\r\n";

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
        let nothing = OutboundMail { kind: OutboundKind::Forward, answers: None, ..mail() };
        assert_eq!(composed(&nothing), Err(Invalid::Forward));
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
            compose(&OutboundMail { kind, ..mail() }, None, &context(Accepts::default()))
                .unwrap()
                .message
                .mail_from
        };
        assert_eq!(from(OutboundKind::Answer), "");
        assert_eq!(from(OutboundKind::Notice), "");
        assert_eq!(from(OutboundKind::Forward), "posthorn@bridge.test");
    }

    #[test]
    fn a_forward_carries_the_mail_as_received_and_says_what_is_in_it() {
        // 8 bits if the server accepts them; otherwise a file, as message/rfc822 must not be base64 (RFC 2046 section
        // 5.2.1).
        for (eight_bit, kind) in [(true, "message/rfc822"), (false, "application/octet-stream")] {
            let composed = forward(Original::Kept(PHOTO.into()), Accepts { eight_bit, size: None });
            assert!(composed.attached && composed.message.data.is_ascii() != eight_bit);
            let mail = MessageParser::default().parse(&composed.message.data).unwrap();
            let text = mail.body_text(0).unwrap().replace("\r\n", "\n");
            assert!(text.starts_with("Grüße\n.\nvehicle 7 is at the depot"), "{text}");
            let said =
                format!("attached as original.eml: {} bytes, with 1 attachment of its own", PHOTO.len());
            assert!(text.contains(&said), "{text}");
            let part = &mail.attachments().next().unwrap();
            let found = part.content_type().unwrap();
            assert_eq!(format!("{}/{}", found.ctype(), found.subtype().unwrap()), kind);
            assert_eq!(part.attachment_name(), Some("original.eml"));
            let carried = if eight_bit { part.message().unwrap().raw_message() } else { part.contents() };
            // The line end before the boundary is part of the boundary.
            assert_eq!(String::from_utf8_lossy(carried).trim_end(), PHOTO.trim_end());
        }
    }

    #[test]
    fn a_forward_without_its_mail_says_so() {
        let large = forward(Original::Kept(PHOTO.into()), Accepts { eight_bit: true, size: Some(900) });
        let gone = forward(Original::Gone, Accepts::default());
        let id = MailId::of(PHOTO.as_bytes()).to_string();
        for (composed, said) in [
            (large, ["does not take it, for its size", &id, "- photo.jpg (image/jpeg, 3 bytes)"]),
            (gone, ["is not attached", "no longer", "journal"]),
        ] {
            assert!(!composed.attached);
            let mail = MessageParser::default().parse(&composed.message.data).unwrap();
            let text = mail.body_text(0).unwrap();
            assert!(said.iter().all(|said| text.contains(said)), "{text}");
            assert_eq!(mail.attachments().count(), 0);
        }
    }

    #[test]
    fn names_who_gets_a_reply_and_what_is_urgent() {
        let plain = composed(&mail()).unwrap();
        assert!(
            !plain.contains("\r\nReply-To") && !plain.contains("Importance") && !plain.contains("X-Priority")
        );
        let reply_to = vec!["ada@x.test".to_owned(), "fleet@bridge.test".to_owned()];
        let text = composed(&OutboundMail { reply_to, urgent: true, ..mail() }).unwrap();
        assert!(text.contains("Reply-To: <ada@x.test>, <fleet@bridge.test>\r\n"), "{text}");
        assert!(
            text.contains("\r\nImportance: high\r\n") && text.contains("\r\nX-Priority: 1\r\n"),
            "{text}"
        );
        for bad in ["", "a@b>\r\nBcc: <c@d", "a b@c"] {
            let mail = OutboundMail { reply_to: vec![bad.to_owned()], ..mail() };
            assert!(matches!(composed(&mail), Err(Invalid::Address("reply_to", _))), "{bad:?}");
        }
        let many = OutboundMail { reply_to: vec!["a@b".to_owned(); 101], ..mail() };
        assert_eq!(composed(&many), Err(Invalid::ReplyTo(101)));
    }
}
