//! Answers and forwards as mails: recipients, identity, bounds.

use crate::mail::{Content, MailId, OutboundKind, OutboundMail, is_address};

use super::{params::Params, reading};

/// Bounds of `OutboundMail.msg`, bytes.
const MAX_SUBJECT_BYTES: usize = 998;
const MAX_TEXT_BYTES: usize = 262_144;
const MAX_MESSAGE_ID_BYTES: usize = 998;
const CUT: &str = "\n[cut]\n";

/// What is kept of a mail while vehicle_router is asked.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub id: MailId,
    /// The From address, authenticated.
    pub from: String,
    name: String,
    subject: String,
    message_id: String,
    text: String,
}

impl Origin {
    /// `None` unless From has exactly one address: DMARC speaks for one.
    pub fn of(id: MailId, content: &Content) -> Option<Self> {
        let [from] = content.from.as_slice() else { return None };
        is_address(&from.address).then(|| Self {
            id,
            from: from.address.clone(),
            name: one_line(&from.name),
            subject: one_line(&content.subject),
            message_id: message_id(&content.message_id),
            text: content.text.clone(),
        })
    }

    /// To the authenticated address, whatever Reply-To says.
    pub fn answer(&self, params: &Params, text: &str) -> OutboundMail {
        let subject = match reading::subject(&self.subject).words {
            "" => "Re: your mail to posthorn".to_owned(),
            words => format!("Re: {words}"),
        };
        self.compose(params, OutboundKind::Answer, self.from.clone(), subject, text.to_owned())
    }

    /// To the person, with the reason why.
    pub fn forward(&self, params: &Params, reason: &str) -> OutboundMail {
        let Self { name, from, subject, text, .. } = self;
        let name = if name.is_empty() { String::new() } else { format!("{name} ") };
        let text = format!(
            "posthorn passes this mail on to you: {reason}.\n\
             The sender is authenticated and has had no answer.\n\n\
             From: {name}<{from}>\nSubject: {subject}\n\n{text}"
        );
        self.compose(
            params,
            OutboundKind::Forward,
            params.human_mailbox.clone(),
            format!("Fwd: {subject}"),
            text,
        )
    }

    fn compose(
        &self,
        params: &Params,
        kind: OutboundKind,
        to: String,
        mut subject: String,
        text: String,
    ) -> OutboundMail {
        cut(&mut subject, MAX_SUBJECT_BYTES, "");
        let mut text: String = text.chars().filter(|c| !c.is_control() || "\n\t".contains(*c)).collect();
        cut(&mut text, MAX_TEXT_BYTES, CUT);
        OutboundMail {
            answers: self.id,
            kind,
            message_id: outbound_id(self.id, kind, &params.from_address),
            from: params.from_address.clone(),
            to: vec![to],
            reply_to: Vec::new(),
            urgent: false,
            subject,
            in_reply_to: self.message_id.clone(),
            text,
        }
    }
}

/// Message-ID of the answer to, or the forward of, a mail: the same whenever it is composed again.
fn outbound_id(id: MailId, kind: OutboundKind, from_address: &str) -> String {
    let word = match kind {
        OutboundKind::Answer => "answer",
        OutboundKind::Forward => "forward",
        OutboundKind::Notice => "notice",
    };
    let domain = from_address.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let id = id.to_string();
    let prefix = id.get(..32).unwrap_or(&id);
    format!("{prefix}.{word}@{domain}")
}

/// A decoded header can hold line breaks; in a new header they would begin another one.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// A Message-ID that can be put into a header, or nothing.
fn message_id(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'<' && byte != b'>');
    if is_plain && text.len() <= MAX_MESSAGE_ID_BYTES { text.to_owned() } else { String::new() }
}

fn cut(text: &mut String, max: usize, note: &str) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max.saturating_sub(note.len())));
        text.push_str(note);
    }
}

/// A reason that fits `Disposition.reason`.
pub(super) fn reason(text: &str) -> String {
    let mut text = one_line(text);
    cut(&mut text, MAX_SUBJECT_BYTES, "");
    text
}
