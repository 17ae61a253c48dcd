// SPDX-License-Identifier: Apache-2.0
//! Converts `OutboundMail`, `Disposition` and `DeliveryStatus`.

use std::time::SystemTime;

use mail::{Action, Delivery, DeliveryState, Disposition, MailId, OutboundKind, OutboundMail};

use super::{ConvertError, error, id_from_ros, time_to_ros};
use crate::msg;

/// Converts an outbound mail to its message.
pub fn outbound_to_ros(mail: &OutboundMail, now: SystemTime) -> msg::OutboundMail {
    msg::OutboundMail {
        stamp: time_to_ros(now),
        answers: answers_to_ros(mail.answers),
        kind: mail.kind as u8,
        message_id: mail.message_id.clone(),
        from_address: mail.from.clone(),
        to: mail.to.clone(),
        reply_to: mail.reply_to.clone(),
        urgent: mail.urgent,
        subject: mail.subject.clone(),
        in_reply_to: mail.in_reply_to.clone(),
        text: mail.text.clone(),
        authentication_results: mail.authentication_results.clone(),
    }
}

/// A message that is not a valid outbound mail, with the fields by which its sender recognizes it.
#[derive(Debug, PartialEq, Eq)]
pub struct OutboundRefusal {
    answers: String,
    kind: u8,
    message_id: String,
    /// The field that is wrong.
    pub error: ConvertError,
}

/// Converts a message to an outbound mail.
///
/// # Errors
/// Names the field that violates `OutboundMail.msg`.
pub fn outbound_from_ros(mail: msg::OutboundMail) -> Result<OutboundMail, OutboundRefusal> {
    let known = kind_and_answers(&mail);
    let (answers, kind) = known.map_err(|error| OutboundRefusal {
        answers: mail.answers.clone(),
        kind: mail.kind,
        message_id: mail.message_id.clone(),
        error,
    })?;
    Ok(OutboundMail {
        answers,
        kind,
        message_id: mail.message_id,
        from: mail.from_address,
        to: mail.to,
        reply_to: mail.reply_to,
        urgent: mail.urgent,
        subject: mail.subject,
        in_reply_to: mail.in_reply_to,
        text: mail.text,
        authentication_results: mail.authentication_results,
    })
}

fn kind_and_answers(mail: &msg::OutboundMail) -> Result<(Option<MailId>, OutboundKind), ConvertError> {
    if mail.to.is_empty() {
        return Err(error("to", "[]", "at least one recipient"));
    }
    let kind = [OutboundKind::Answer, OutboundKind::Forward, OutboundKind::Notice]
        .into_iter()
        .find(|kind| *kind as u8 == mail.kind)
        .ok_or_else(|| error("kind", mail.kind, "one of KIND_*"))?;
    Ok((answers_from_ros(&mail.answers)?, kind))
}

/// The delivery status that tells the sender why its message is not a valid outbound mail.
pub fn refusal_to_ros(refusal: &OutboundRefusal, now: SystemTime) -> msg::DeliveryStatus {
    msg::DeliveryStatus {
        stamp: time_to_ros(now),
        answers: refusal.answers.clone(),
        kind: refusal.kind,
        message_id: refusal.message_id.clone(),
        status: DeliveryState::Refused as u8,
        attempts: 0,
        reply: format!("malformed: {}", refusal.error),
    }
}

/// The id of the mail being answered; empty if there is none.
fn answers_to_ros(answers: Option<MailId>) -> String {
    answers.map(|id| id.to_string()).unwrap_or_default()
}

fn answers_from_ros(text: &str) -> Result<Option<MailId>, ConvertError> {
    if text.is_empty() { Ok(None) } else { id_from_ros("answers", text).map(Some) }
}

/// Converts a disposition to its message.
pub fn disposition_to_ros(disposition: &Disposition, now: SystemTime) -> msg::Disposition {
    msg::Disposition {
        stamp: time_to_ros(now),
        mail_id: disposition.mail_id.to_string(),
        consumer: disposition.consumer.clone(),
        action: disposition.action as u8,
        reason: disposition.reason.clone(),
    }
}

/// Converts a message to a disposition.
///
/// # Errors
/// Names the field that violates `Disposition.msg`.
pub fn disposition_from_ros(message: msg::Disposition) -> Result<Disposition, ConvertError> {
    use Action::{Answered, Forwarded, Ignored, Kept, Ordered, Rejected};
    if message.consumer.is_empty() || message.consumer.len() > 64 {
        return Err(error("consumer", format!("{:?}", message.consumer), "a name of 1 to 64 bytes"));
    }
    if message.reason.len() > 998 {
        return Err(error("reason", format!("{} bytes", message.reason.len()), "at most 998 bytes"));
    }
    Ok(Disposition {
        mail_id: id_from_ros("mail_id", &message.mail_id)?,
        consumer: message.consumer,
        action: [Answered, Ordered, Forwarded, Ignored, Rejected, Kept]
            .into_iter()
            .find(|action| *action as u8 == message.action)
            .ok_or_else(|| error("action", message.action, "one of the actions of Disposition.msg"))?,
        reason: message.reason,
    })
}

/// Converts the delivery status of an outbound mail to its message.
pub fn delivery_to_ros(delivery: &Delivery, now: SystemTime) -> msg::DeliveryStatus {
    msg::DeliveryStatus {
        stamp: time_to_ros(now),
        answers: answers_to_ros(delivery.answers),
        kind: delivery.kind as u8,
        message_id: delivery.message_id.clone(),
        status: delivery.state as u8,
        attempts: delivery.attempts,
        reply: delivery.reply.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbound_mail_survives_the_graph() {
        let mail = OutboundMail {
            answers: Some(MailId::of(b"x")),
            kind: OutboundKind::Forward,
            message_id: "1@example.org".into(),
            from: "posthorn@example.org".into(),
            to: vec!["a@example.org".into()],
            reply_to: vec!["b@example.org".into()],
            urgent: true,
            subject: "s".into(),
            in_reply_to: "0@example.org".into(),
            text: "t".into(),
            authentication_results: "dmarc=pass".into(),
        };
        let message = outbound_to_ros(&mail, SystemTime::UNIX_EPOCH);
        assert_eq!(message.kind, msg::OutboundMail::KIND_FORWARD as u8);
        assert_eq!(outbound_from_ros(message.clone()), Ok(mail));
        let notice = msg::OutboundMail { answers: String::new(), ..message.clone() };
        assert_eq!(outbound_from_ros(notice).unwrap().answers, None);
        let nobody = msg::OutboundMail { to: vec![], ..message.clone() };
        let refusal = outbound_from_ros(nobody).unwrap_err();
        assert_eq!(refusal.error.to_string(), "field 'to' = []: must be at least one recipient");
        let status = refusal_to_ros(&refusal, SystemTime::UNIX_EPOCH);
        assert_eq!(status.status, msg::DeliveryStatus::REFUSED as u8);
        assert_eq!(
            (status.answers, status.message_id),
            (message.answers.clone(), message.message_id.clone())
        );
        assert_eq!(status.reply, "malformed: field 'to' = []: must be at least one recipient");
        for (kind, answers) in [(0, String::new()), (9, String::new()), (1, "zz".to_owned())] {
            assert!(outbound_from_ros(msg::OutboundMail { kind, answers, ..message.clone() }).is_err());
        }
    }

    #[test]
    fn states_of_a_delivery_are_those_of_the_message() {
        assert_eq!(DeliveryState::Refused as u8, msg::DeliveryStatus::REFUSED as u8);
        assert_eq!(DeliveryState::Queued as u8, msg::DeliveryStatus::QUEUED as u8);
        assert_eq!(DeliveryState::Delivered as u8, msg::DeliveryStatus::DELIVERED as u8);
        assert_eq!(DeliveryState::Deferred as u8, msg::DeliveryStatus::DEFERRED as u8);
        assert_eq!(DeliveryState::Failed as u8, msg::DeliveryStatus::FAILED as u8);
    }

    #[test]
    fn a_disposition_survives_the_graph() {
        let disposition = Disposition {
            mail_id: MailId::of(b"x"),
            consumer: "chatbot".into(),
            action: Action::Rejected,
            reason: "r".into(),
        };
        let message = disposition_to_ros(&disposition, SystemTime::UNIX_EPOCH);
        assert_eq!(message.action, msg::Disposition::REJECTED as u8);
        assert_eq!(disposition_from_ros(message.clone()), Ok(disposition));
        let error =
            disposition_from_ros(msg::Disposition { consumer: String::new(), ..message }).unwrap_err();
        assert_eq!(error.to_string(), "field 'consumer' = \"\": must be a name of 1 to 64 bytes");
        assert!(disposition_from_ros(msg::Disposition::default()).is_err());
    }
}
