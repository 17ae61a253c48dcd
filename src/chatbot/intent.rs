// SPDX-License-Identifier: Apache-2.0
//! Reads one [`Request`] from a mail, or gives the reason why there is none.
//!
//! The rules; the tests list the cases:
//! - A line is a request only as a whole. Questions are looked for in the first `READ_LINES` of the sender's own
//!   lines.
//! - A question comes from the text if all requests there are the same one; if there are none, it comes from the
//!   subject. An inherited subject ("Re: status") counts only if the reply has no words of its own.
//! - An order stands alone: every one of the sender's own lines is this order. The subject may say anything but
//!   another order, a question, or a word that can mean that the order does not hold, or not yet. An inherited subject
//!   never gives an order, and the text under a forwarded subject is not the sender's.
//! - A mail that reads like an order but cannot be taken as one is never answered as if it were something else: it is
//!   unclear, and the result says which order it looks like.
//!
//! This decides only what a mail says. An order may be carried out only if [`may_order`] agrees.

mod seeming;

pub use seeming::Seeming;

use super::{battery, help, order, position, reading, status};
use mail::{AuthResult, Content, Verdict};
use vehicle::{Command, is_name};

/// Number of the sender's own lines in which questions are looked for.
const READ_LINES: usize = 20;

/// A mail's request. Vehicle names are in lower case, because they are compared without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Asks what can be asked.
    Help,
    /// Asks how all vehicles are.
    Fleet,
    /// Asks how one vehicle is.
    Status(String),
    /// Asks where one vehicle is.
    Position(String),
    /// Asks for the charge of one vehicle.
    Battery(String),
    /// Orders one vehicle to do something.
    Order(Command, String),
}

impl Request {
    /// The one vehicle that the request is about; `None` if it is about all or none.
    pub fn vehicle(&self) -> Option<&str> {
        match self {
            Self::Help | Self::Fleet => None,
            Self::Status(vehicle)
            | Self::Position(vehicle)
            | Self::Battery(vehicle)
            | Self::Order(_, vehicle) => Some(vehicle),
        }
    }

    /// Whether the request is an order, which would move or stop a vehicle.
    pub fn is_order(&self) -> bool {
        matches!(self, Self::Order(..))
    }
}

/// Why a mail is not interpreted. The text completes a sentence to the sender or the person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// No line is a request.
    #[error("it asks for nothing that posthorn knows")]
    Nothing,
    /// It reads like an order, but is not worded exactly like one.
    #[error("it reads like an order, but has other words than one")]
    Inexact,
    /// The text has more lines than are read.
    #[error("its text has too many lines")]
    TooLong,
    /// It holds several different requests.
    #[error("it asks for more than one thing")]
    Several,
    /// It holds an order with something beside it.
    #[error("it holds an order, but not alone: an order must be the only line")]
    NotAlone,
    /// It holds an order with a question mark.
    #[error("it holds an order with a question mark")]
    Asking,
    /// It holds an order that trails off or goes on.
    #[error("it holds an order that does not end")]
    Unfinished,
    /// It holds an order, but the subject may contradict it.
    #[error("it holds an order, but its subject may say something else")]
    Subject,
    /// It holds an order, but a signature or the line before a quotation may contradict it.
    #[error("it holds an order, but its signature or the line before a quotation may say something else")]
    Aside,
    /// It holds an order in a subject after "Re:" or "Fwd:", or in the text of a forwarded mail.
    #[error("it holds an order that was taken over from another mail")]
    Inherited,
    /// It holds an order, but the mail was cut at a bound.
    #[error("it holds an order, but parts of the mail could not be read")]
    Truncated,
    /// It holds an order, but is more than one plain text.
    #[error(
        "it holds an order, but not as plain text alone: an order must be a mail without HTML of its own, attachments or pictures"
    )]
    NotTextOnly,
    /// It holds an order that no signature covers; the text says what is missing, as the verdict does.
    #[error("it holds an order, but no signature covers it: {0}")]
    NotCovered(String),
}

/// A mail that could not be interpreted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotTaken {
    /// The reason, for the sender and the person.
    pub why: Unclear,
    /// The order that the mail seems to give. Its sender must hear at once that it is not carried out.
    pub looks_like: Option<Seeming>,
}

/// Parses a line that is a request as a whole.
pub fn parse(line: &str) -> Option<Request> {
    let words = reading::words(line);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let intents = [help::parse, status::parse, position::parse, battery::parse, order::parse];
    let request = intents.iter().find_map(|parse| parse(&words))?;
    request.vehicle().is_none_or(is_name).then_some(request)
}

/// Reads the request of a mail.
///
/// # Errors
/// Why the mail is not interpreted, and which order it seems to give.
pub fn read(content: &Content) -> Result<Request, NotTaken> {
    let seeming = seeming(content);
    match interpret(content) {
        // An order in other words beside a question: a sender who got an answer would think that both were understood.
        Ok(request) if !request.is_order() && seeming.is_some() => Err(Unclear::Inexact),
        Err(Unclear::Nothing) if seeming.is_some() => Err(Unclear::Inexact),
        result => result,
    }
    .map_err(|why| NotTaken { why, looks_like: seeming })
}

/// Checks that the order in a mail may be carried out: it is all that the sender wrote, and it is signed.
///
/// # Errors
/// The reason why the order may not be carried out.
pub fn may_order(content: &Content, verdict: &Verdict) -> Result<(), Unclear> {
    match () {
        () if content.truncated => Err(Unclear::Truncated),
        () if !content.text_only => Err(Unclear::NotTextOnly),
        // ARC is never enough, whatever the verdict says.
        () if !verdict.order_covered || verdict.dmarc != AuthResult::Pass => {
            Err(Unclear::NotCovered(verdict.order_gap.clone()))
        }
        () => Ok(()),
    }
}

/// The order that a mail seems to give, in the sender's own words. An inherited subject counts only if the sender wrote
/// nothing else.
fn seeming(content: &Content) -> Option<Seeming> {
    let subject = reading::subject(&content.subject);
    let own = reading::own(&content.text, sender(content)).map(|own| own.lines);
    let own = own.unwrap_or_else(|| content.text.lines().take(READ_LINES).collect());
    let subject = (!subject.inherited || own.is_empty()).then_some(subject.words);
    seeming::find(subject.into_iter().chain(own))
}

fn sender(content: &Content) -> &str {
    content.from.first().map_or("", |from| from.name.as_str())
}

fn interpret(content: &Content) -> Result<Request, Unclear> {
    let subject = reading::subject(&content.subject);
    let own = reading::own(&content.text, sender(content)).ok_or(Unclear::TooLong)?;
    let in_subject = parse(subject.words);
    let in_text: Vec<_> = own.lines.iter().map(|line| (*line, parse(line))).collect();

    let orders = in_text.iter().filter(|(_, request)| request.as_ref().is_some_and(Request::is_order));
    if let Some((_, Some(order))) = orders.clone().next() {
        let alone = in_text.iter().all(|(_, request)| request.as_ref() == Some(order));
        let mut lines = orders.map(|(line, _)| *line);
        return match () {
            () if lines.clone().any(|line| line.contains('?')) => Err(Unclear::Asking),
            () if content.truncated => Err(Unclear::Truncated),
            () if !alone => Err(Unclear::NotAlone),
            () if subject.forwarded => Err(Unclear::Inherited),
            () if lines.any(reading::trails_off) => Err(Unclear::Unfinished),
            () if !subject.inherited && !agrees(subject.words, in_subject.as_ref(), order) => {
                Err(Unclear::Subject)
            }
            () if !is_harmless(&own.aside, order) => Err(Unclear::Aside),
            () => Ok(order.clone()),
        };
    }
    if let Some(order) = in_subject.as_ref().filter(|request| request.is_order()) {
        return match () {
            () if subject.inherited && own.lines.is_empty() => Err(Unclear::Inherited),
            // A reply to an answer about an order: only the text counts.
            () if subject.inherited => question(None, &in_text),
            () if subject.words.contains('?') => Err(Unclear::Asking),
            () if content.truncated => Err(Unclear::Truncated),
            () if !own.lines.is_empty() => Err(Unclear::NotAlone),
            () if reading::trails_off(subject.words) => Err(Unclear::Unfinished),
            () if !is_harmless(&own.aside, order) => Err(Unclear::Aside),
            () => Ok(order.clone()),
        };
    }
    let speaks = !subject.inherited || own.lines.is_empty();
    question(in_subject.filter(|_| speaks), &in_text)
}

/// Whether a subject with these `words`, parsed as `request`, leaves the order in the text unchanged.
fn agrees(words: &str, request: Option<&Request>, order: &Request) -> bool {
    let says_the_same = request.is_none_or(|request| request == order);
    says_the_same
        && !words.contains('?')
        && !reading::trails_off(words)
        && is_harmless(&[words.to_owned()], order)
}

/// Whether the lines beside an order say nothing about it, or the same: no other order or vehicle, and no condition.
fn is_harmless(lines: &[String], order: &Request) -> bool {
    let Request::Order(command, vehicle) = order else { return false };
    lines.iter().all(|line| {
        let same = seeming::find([line.as_str()]).is_none_or(|seeming| {
            seeming.command == *command && seeming.vehicle.is_none_or(|named| named == *vehicle)
        });
        same && !reading::is_doubtful(line) && !seeming::names_another(line, vehicle)
    })
}

fn question(in_subject: Option<Request>, in_text: &[(&str, Option<Request>)]) -> Result<Request, Unclear> {
    let mut questions = in_text.iter().take(READ_LINES).filter_map(|(_, request)| request.as_ref());
    match questions.next() {
        Some(first) if questions.all(|other| other == first) => Ok(first.clone()),
        Some(_) => Err(Unclear::Several),
        None => in_subject.ok_or(Unclear::Nothing),
    }
}

#[cfg(test)]
mod tests;
