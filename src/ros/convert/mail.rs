// SPDX-License-Identifier: Apache-2.0
//! Converts `Mail` and `RawMail`.

use std::time::SystemTime;

use mail::{AcceptedMail, Attachment, Content, Envelope, Header, ImapMessage, Mail, MailId, Mailbox, Origin};

use super::{ConvertError, bytes_from_ros, error, id_from_ros, time_from_ros, time_to_ros};
use crate::msg;

// Each constant of a message has a type of its own.
const SMTP: u8 = msg::Origin::SMTP as u8;
const LMTP: u8 = msg::Origin::LMTP as u8;
const IMAP: u8 = msg::Origin::IMAP as u8;

/// Converts a mail to its message.
pub fn mail_to_ros(mail: &Mail) -> msg::Mail {
    let Mail { id, received_at, origin, consumers, content, size } = mail;
    msg::Mail {
        stamp: time_to_ros(*received_at),
        id: id.to_string(),
        origin: origin_to_ros(origin),
        consumers: consumers.clone(),
        message_id: content.message_id.clone(),
        in_reply_to: content.in_reply_to.clone(),
        subject: content.subject.clone(),
        from_addresses: addresses_to_ros(&content.from),
        reply_to: addresses_to_ros(&content.reply_to),
        to: addresses_to_ros(&content.to),
        cc: addresses_to_ros(&content.cc),
        date: content.date.map(time_to_ros).unwrap_or_default(),
        headers: content
            .headers
            .iter()
            .map(|Header { name, value }| msg::MailHeader { name: name.clone(), value: value.clone() })
            .collect(),
        text: content.text.clone(),
        truncated: content.truncated,
        text_only: content.text_only,
        attachments: content
            .attachments
            .iter()
            .map(|attachment| msg::Attachment {
                filename: attachment.filename.clone(),
                media_type: attachment.media_type.clone(),
                size: attachment.size,
                digest: attachment.digest.to_vec(),
            })
            .collect(),
        size: *size,
    }
}

/// Converts a mail and its bytes to a message.
pub fn raw_to_ros(accepted: AcceptedMail) -> msg::RawMail {
    msg::RawMail {
        stamp: time_to_ros(accepted.received_at),
        id: accepted.id.to_string(),
        origin: origin_to_ros(&accepted.origin),
        consumers: accepted.consumers,
        data: accepted.data,
    }
}

/// Converts a message to a mail.
///
/// # Errors
/// Names the field that violates `Mail.msg`.
pub fn mail_from_ros(mail: &msg::Mail) -> Result<Mail, ConvertError> {
    let content = Content {
        message_id: mail.message_id.clone(),
        in_reply_to: mail.in_reply_to.clone(),
        subject: mail.subject.clone(),
        from: addresses_from_ros(&mail.from_addresses),
        reply_to: addresses_from_ros(&mail.reply_to),
        to: addresses_from_ros(&mail.to),
        cc: addresses_from_ros(&mail.cc),
        date: Some(time_from_ros(&mail.date)).filter(|date| *date != SystemTime::UNIX_EPOCH),
        headers: mail
            .headers
            .iter()
            .map(|header| Header { name: header.name.clone(), value: header.value.clone() })
            .collect(),
        text: mail.text.clone(),
        truncated: mail.truncated,
        text_only: mail.text_only,
        attachments: mail.attachments.iter().map(attachment_from_ros).collect::<Result<_, _>>()?,
    };
    Ok(Mail {
        id: id_from_ros("id", &mail.id)?,
        received_at: time_from_ros(&mail.stamp),
        origin: origin_from_ros(&mail.origin)?,
        consumers: mail.consumers.clone(),
        content,
        size: mail.size,
    })
}

/// Converts a raw mail to the mail as it was accepted.
///
/// # Errors
/// Names the field that violates `RawMail.msg`. The id must be the SHA-256 of the bytes.
pub fn accepted_from_ros(raw: msg::RawMail) -> Result<AcceptedMail, ConvertError> {
    let id = id_from_ros("id", &raw.id)?;
    if MailId::of(&raw.data) != id {
        return Err(error("id", id, "the SHA-256 of data"));
    }
    Ok(AcceptedMail {
        id,
        received_at: time_from_ros(&raw.stamp),
        origin: origin_from_ros(&raw.origin)?,
        consumers: raw.consumers,
        data: raw.data,
    })
}

fn origin_to_ros(origin: &Origin) -> msg::Origin {
    let (protocol, envelope, imap) = match origin {
        Origin::Smtp(envelope) => (SMTP, Some(envelope), None),
        Origin::Lmtp(envelope) => (LMTP, Some(envelope), None),
        Origin::Imap(message) => (IMAP, None, Some(message)),
    };
    let envelope = envelope.map(|Envelope { peer, helo, mail_from, rcpt_to }| msg::Envelope {
        peer_address: peer.to_string(),
        helo: helo.clone(),
        mail_from: mail_from.clone(),
        rcpt_to: rcpt_to.clone(),
    });
    let imap = imap.map(|ImapMessage { account, folder, uid_validity, uid }| msg::ImapMessage {
        account: account.clone(),
        folder: folder.clone(),
        uid_validity: *uid_validity,
        uid: *uid,
    });
    msg::Origin { protocol, envelope: envelope.into_iter().collect(), imap: imap.into_iter().collect() }
}

fn origin_from_ros(origin: &msg::Origin) -> Result<Origin, ConvertError> {
    match (origin.protocol, origin.envelope.as_slice(), origin.imap.as_slice()) {
        (SMTP, [envelope], []) => envelope_from_ros(envelope).map(Origin::Smtp),
        (LMTP, [envelope], []) => envelope_from_ros(envelope).map(Origin::Lmtp),
        (IMAP, [], [message]) => {
            let msg::ImapMessage { account, folder, uid_validity, uid } = message.clone();
            Ok(Origin::Imap(ImapMessage { account, folder, uid_validity, uid }))
        }
        (protocol, ..) => {
            let rule = "SMTP or LMTP with exactly one envelope, or IMAP with exactly one message of imap";
            Err(error("origin.protocol", protocol, rule))
        }
    }
}

fn envelope_from_ros(envelope: &msg::Envelope) -> Result<Envelope, ConvertError> {
    let msg::Envelope { peer_address, helo, mail_from, rcpt_to } = envelope;
    Ok(Envelope {
        peer: peer_address
            .parse()
            .map_err(|_| error("origin.envelope.peer_address", peer_address, "an IP address"))?,
        helo: helo.clone(),
        mail_from: mail_from.clone(),
        rcpt_to: rcpt_to.clone(),
    })
}

fn attachment_from_ros(attachment: &msg::Attachment) -> Result<Attachment, ConvertError> {
    Ok(Attachment {
        filename: attachment.filename.clone(),
        media_type: attachment.media_type.clone(),
        size: attachment.size,
        digest: bytes_from_ros("attachments.digest", &attachment.digest)?,
    })
}

fn addresses_to_ros(addresses: &[Mailbox]) -> Vec<msg::Address> {
    addresses
        .iter()
        .map(|Mailbox { name, address }| msg::Address { name: name.clone(), address: address.clone() })
        .collect()
}

fn addresses_from_ros(addresses: &[msg::Address]) -> Vec<Mailbox> {
    addresses
        .iter()
        .map(|address| Mailbox { name: address.name.clone(), address: address.address.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted() -> AcceptedMail {
        let data = b"From: A <a@Example.org>\r\nTo: b@example.org\r\nSubject: hi\r\n\r\nhelp\r\n".to_vec();
        AcceptedMail {
            id: MailId::of(&data),
            received_at: SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_123),
            origin: Origin::Lmtp(Envelope {
                peer: "127.0.0.1".parse().unwrap(),
                helo: "client".into(),
                mail_from: "a@example.org".into(),
                rcpt_to: vec!["b@example.org".into()],
            }),
            consumers: vec!["chatbot".into()],
            data,
        }
    }

    #[test]
    fn a_mail_survives_the_graph() {
        let message =
            ImapMessage { account: "a@example.org".into(), folder: "INBOX".into(), uid_validity: 7, uid: 9 };
        let by_lmtp = accepted();
        let Origin::Lmtp(envelope) = by_lmtp.origin.clone() else { unreachable!() };
        for origin in [Origin::Smtp(envelope.clone()), Origin::Lmtp(envelope), Origin::Imap(message)] {
            let accepted = AcceptedMail { origin, ..by_lmtp.clone() };
            let mail = mail::mail_of(&accepted);
            assert_eq!(mail_from_ros(&mail_to_ros(&mail)), Ok(mail.clone()));
            assert_eq!(accepted_from_ros(raw_to_ros(accepted.clone())), Ok(accepted));
        }
    }

    #[test]
    fn an_origin_that_is_neither_one_thing_nor_the_other_is_refused() {
        let raw = raw_to_ros(accepted());
        for origin in [
            msg::Origin::default(),
            msg::Origin { protocol: 9, ..raw.origin.clone() },
            msg::Origin { protocol: msg::Origin::IMAP as u8, ..raw.origin.clone() },
            msg::Origin { envelope: Vec::new(), ..raw.origin.clone() },
            msg::Origin { imap: vec![msg::ImapMessage::default()], ..raw.origin.clone() },
        ] {
            let error = accepted_from_ros(msg::RawMail { origin, ..raw.clone() }).unwrap_err();
            assert!(error.to_string().starts_with("field 'origin.protocol'"), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_not_those_of_the_id_are_refused() {
        let raw = msg::RawMail { data: b"other".to_vec(), ..raw_to_ros(accepted()) };
        let error = accepted_from_ros(raw).unwrap_err();
        assert!(error.to_string().ends_with("must be the SHA-256 of data"), "{error}");
    }
}
