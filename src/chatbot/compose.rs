// SPDX-License-Identifier: Apache-2.0
//! Composes answers, forwards and notices as mails.
//!
//! Every mail keeps within the bounds of `OutboundMail.msg`, and answers and forwards get the same Message-ID whenever
//! they are composed again. What is said, and to whom it may be said, is decided elsewhere.

use mail::{Attachment, AuthResult, Content, EmailAddress, MailId, OutboundKind, OutboundMail, Verdict};

use super::{orders::Entry, params::Params, reading};

/// Bounds of `OutboundMail.msg`, bytes.
const MAX_SUBJECT_BYTES: usize = 998;
const MAX_TEXT_BYTES: usize = 262_144;
const MAX_MESSAGE_ID_BYTES: usize = 998;
const CUT: &str = "\n[cut]\n";
/// Most attachments listed in a forward.
const MAX_LISTED: usize = 20;
/// Tells a sender that the mail went to a person as [`Copy::Urgent`].
pub(super) const PERSON_HAS_IT: &str = "A person has a copy of your mail, marked urgent.\n";

/// Why a person gets a copy of a mail, which decides what the copy says about the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// A mail whose sender has had no answer.
    Plain,
    /// An order that is not carried out; its sender was told so.
    Urgent,
    /// An order in an automatic mail, which is never answered.
    Automatic,
    /// A mail of which nothing proves who sent it.
    Unproven,
}

/// The parts of a mail that are kept while vehicle_router is asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReceivedMail {
    pub id: MailId,
    /// The one From address; proven only if DMARC passed.
    pub from: EmailAddress,
    name: String,
    subject: String,
    /// Subject of an answer.
    answer_subject: String,
    message_id: String,
    text: String,
    /// The attachments, one line each.
    attachments: Vec<String>,
    truncated: bool,
    /// What the authenticator found out about it, as in `Authentication-Results`.
    results: String,
}

impl ReceivedMail {
    /// Keeps the parts of a mail. `None` unless From is exactly one address, as DMARC speaks for one, and in ASCII, so
    /// that it can be written to through a smart host without SMTPUTF8.
    pub fn of(id: MailId, content: &Content, verdict: &Verdict) -> Option<Self> {
        let [from] = content.from.as_slice() else { return None };
        let address = EmailAddress::parse_ascii(&from.address).ok()?;
        let subject = one_line(&content.subject);
        Some(Self {
            id,
            results: results(verdict, address.domain()),
            from: address,
            name: one_line(&from.name),
            answer_subject: match reading::subject(&subject).words {
                "" => "Re: your mail to posthorn".to_owned(),
                words => format!("Re: {words}"),
            },
            subject,
            message_id: message_id(&content.message_id),
            text: content.text.clone(),
            attachments: listed(&content.attachments),
            truncated: content.truncated,
        })
    }

    /// Message-ID of the mail; empty if it has none that fits into a header.
    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    /// Composes an answer to the From address; Reply-To is ignored.
    pub fn answer(&self, params: &Params, text: &str) -> OutboundMail {
        let subject = self.answer_subject.clone();
        self.compose(params, OutboundKind::Answer, self.from.to_string(), subject, text.to_owned())
    }

    /// Composes a forward to the person, with the reason. A reply goes directly to the sender; mail_bridge attaches the
    /// original.
    pub fn forward(&self, params: &Params, reason: &str, copy: Copy) -> OutboundMail {
        let Self { name, from, subject, text, attachments, .. } = self;
        let name = if name.is_empty() { String::new() } else { format!("{name} ") };
        let sender = match copy {
            Copy::Plain => "The sender is authenticated and has had no answer.",
            Copy::Urgent => {
                "The sender is an operator, authenticated, and was told that it is NOT carried out."
            }
            Copy::Automatic => "The sender is an operator, authenticated, and has had no answer.",
            Copy::Unproven => "NOTHING PROVES who sent it. The sender has had no answer.",
        };
        let mut attached = String::new();
        for line in attachments {
            attached += &format!("Attached: {line}\n");
        }
        if self.truncated {
            attached += "Not all of it is shown here.\n";
        }
        let text = format!(
            "posthorn passes this mail on to you: {reason}.\n{sender}\n\
             A reply to this mail goes to the sender.\n\n\
             From: {name}<{from}>\nSubject: {subject}\n{attached}\n{text}"
        );
        let urgent = matches!(copy, Copy::Urgent | Copy::Automatic);
        let prefix = if urgent { "URGENT: Fwd" } else { "Fwd" };
        let title = if subject.is_empty() { "(no subject)" } else { subject };
        let mail = self.compose(
            params,
            OutboundKind::Forward,
            params.human_mailbox.to_string(),
            format!("{prefix}: {title}"),
            text,
        );
        let authentication_results = self.results.clone();
        OutboundMail { reply_to: vec![from.to_string()], urgent, authentication_results, ..mail }
    }

    fn compose(
        &self,
        params: &Params,
        kind: OutboundKind,
        to: String,
        subject: String,
        text: String,
    ) -> OutboundMail {
        bounded(OutboundMail {
            answers: Some(self.id),
            kind,
            message_id: outbound_id(self.id, kind, &params.from_address),
            from: params.from_address.to_string(),
            to: vec![to],
            reply_to: Vec::new(),
            urgent: false,
            subject,
            in_reply_to: self.message_id.clone(),
            text,
            authentication_results: String::new(),
        })
    }
}

/// Composes a correction to the sender of an order and to the person, who were told something else before. `id` must be
/// unique.
pub(super) fn notice(
    params: &Params,
    id: &str,
    order: &Entry,
    subject: String,
    text: String,
) -> OutboundMail {
    let mut to = vec![order.ordered_by.clone()];
    if !order.ordered_by.eq_ignore_ascii_case(&params.human_mailbox) {
        to.push(params.human_mailbox.to_string());
    }
    bounded(OutboundMail {
        answers: None,
        kind: OutboundKind::Notice,
        message_id: format!("{id}.notice@{}", params.from_address.domain()),
        from: params.from_address.to_string(),
        to,
        reply_to: Vec::new(),
        urgent: true,
        subject,
        in_reply_to: order.message_id.clone(),
        text,
        authentication_results: String::new(),
    })
}

/// A verdict on a mail from this domain as the results of an `Authentication-Results` field (RFC 8601 section 2.2), without
/// what was not evaluated.
fn results(verdict: &Verdict, domain: &str) -> String {
    let Verdict { spf, dkim, dmarc, arc, dkim_domain, dkim_selector, .. } = verdict;
    // Names in the DNS; what is none is left out.
    let property = |name: &str, value: &str| {
        let is_name = !value.is_empty()
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if is_name { format!(" {name}={value}") } else { String::new() }
    };
    let signature = property("header.d", dkim_domain) + &property("header.s", dkim_selector);
    let methods = [
        ("spf", spf, String::new()),
        ("dkim", dkim, signature),
        ("dmarc", dmarc, property("header.from", domain)),
        ("arc", arc, String::new()),
    ];
    let results = methods.into_iter().filter_map(|(method, result, properties)| {
        let word = match result {
            AuthResult::Unknown => return None,
            AuthResult::None => "none",
            AuthResult::Pass => "pass",
            AuthResult::Fail => "fail",
            AuthResult::SoftFail => "softfail",
            AuthResult::Neutral => "neutral",
            AuthResult::TempError => "temperror",
            AuthResult::PermError => "permerror",
        };
        Some(format!("{method}={word}{properties}"))
    });
    let results: Vec<_> = results.collect();
    if results.is_empty() { "none".to_owned() } else { results.join("; ") }
}

/// Cuts a mail to the bounds of `OutboundMail.msg`.
fn bounded(mut mail: OutboundMail) -> OutboundMail {
    cut(&mut mail.subject, MAX_SUBJECT_BYTES, "");
    mail.text.retain(|c| !c.is_control() || "\n\t".contains(c));
    cut(&mut mail.text, MAX_TEXT_BYTES, CUT);
    mail
}

fn listed(attachments: &[Attachment]) -> Vec<String> {
    let line = |attachment: &Attachment| {
        let name = if attachment.filename.is_empty() { "without a name" } else { &attachment.filename };
        one_line(&format!("{name} ({}, {} bytes)", attachment.media_type, attachment.size))
    };
    let mut lines: Vec<_> = attachments.iter().take(MAX_LISTED).map(line).collect();
    if attachments.len() > MAX_LISTED {
        lines.push(format!("{} more", attachments.len() - MAX_LISTED));
    }
    lines
}

/// The Message-ID of the answer or forward for a mail, the same whenever it is composed again.
fn outbound_id(id: MailId, kind: OutboundKind, from_address: &EmailAddress) -> String {
    let word = match kind {
        OutboundKind::Answer => "answer",
        OutboundKind::Forward => "forward",
        OutboundKind::Notice => "notice",
    };
    let domain = from_address.domain();
    let id = id.to_string();
    let prefix = id.get(..32).unwrap_or(&id);
    format!("{prefix}.{word}@{domain}")
}

/// A decoded header may hold line breaks, which would start another header when it is copied into a new mail.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// `text` if it can be written into a header as a Message-ID, else nothing.
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

/// Cuts a reason to the bound of `Disposition.reason`.
pub(super) fn reason(text: &str) -> String {
    let mut text = one_line(text);
    cut(&mut text, MAX_SUBJECT_BYTES, "");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_those_of_the_verdict_in_the_words_of_rfc_8601() {
        let verdict = Verdict {
            spf: AuthResult::SoftFail,
            dkim: AuthResult::Pass,
            dmarc: AuthResult::Pass,
            dkim_domain: "dispatch.example".into(),
            dkim_selector: "s1".into(),
            ..Verdict::default()
        };
        assert_eq!(
            results(&verdict, "dispatch.example"),
            "spf=softfail; dkim=pass header.d=dispatch.example header.s=s1; dmarc=pass header.from=dispatch.example"
        );
        let hostile = Verdict { dkim_domain: "a; dmarc=pass".into(), dmarc: AuthResult::Fail, ..verdict };
        assert_eq!(
            results(&hostile, "b.example"),
            "spf=softfail; dkim=pass header.s=s1; dmarc=fail header.from=b.example"
        );
        assert_eq!(results(&Verdict::default(), "b.example"), "none");
    }
}
