//! From a mail's words to one [`Request`], or the reason why not.
//!
//! The rules, of which the tests are the list:
//! - A line is a request only as a whole. The first `READ_LINES` of the sender's own lines are looked at.
//! - A question is taken from the text if exactly one is there; if none is, from the subject. An inherited subject
//!   ("Re: status") counts only if the reply has no words of its own.
//! - An order stands alone: every one of the sender's own lines is this order. The subject may say anything but another order, a
//!   question, or a word that can mean that the order does not hold, or not yet. An inherited subject orders nothing, and the
//!   text below a forwarded one is not the sender's.
//! - A mail that reads like an order which is not taken is never answered as if it did not: it is unclear, and says what it
//!   looks like.
//! - What was read as an order may be carried out only if [`may_order`] agrees.

mod seeming;

pub use seeming::Seeming;

use super::{battery, help, order, position, reading, status};
use crate::{
    mail::{Content, Verdict},
    vehicle::{Command, is_name},
};

/// How many of the sender's own lines are looked at for a question.
const READ_LINES: usize = 20;

/// What a mail asks for. Names of vehicles are in lower case, as they are compared without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// What can be asked?
    Help,
    /// How are all vehicles?
    Fleet,
    /// How is this vehicle?
    Status(String),
    /// Where is this vehicle?
    Position(String),
    /// How charged is this vehicle?
    Battery(String),
    /// Do this.
    Order(Command, String),
}

impl Request {
    /// The one vehicle that it is about.
    pub fn vehicle(&self) -> Option<&str> {
        match self {
            Self::Help | Self::Fleet => None,
            Self::Status(vehicle)
            | Self::Position(vehicle)
            | Self::Battery(vehicle)
            | Self::Order(_, vehicle) => Some(vehicle),
        }
    }

    /// Whether it would move something.
    pub fn is_order(&self) -> bool {
        matches!(self, Self::Order(..))
    }
}

/// Why a mail is not interpreted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// Nothing in it is a request.
    #[error("it asks for nothing that posthorn knows")]
    Nothing,
    /// It reads like an order, but not in the words of one.
    #[error("it reads like an order, but has other words than one")]
    Inexact,
    /// More lines than are looked at.
    #[error("its text has too many lines")]
    TooLong,
    /// More than one request.
    #[error("it asks for more than one thing")]
    Several,
    /// An order with something beside it.
    #[error("it holds an order, but not alone: an order must be the only line")]
    NotAlone,
    /// An order with a question mark.
    #[error("it holds an order with a question mark")]
    Asking,
    /// An order that trails off, or goes on.
    #[error("it holds an order that does not end")]
    Unfinished,
    /// An order under a subject that may say otherwise.
    #[error("it holds an order, but its subject may say something else")]
    Subject,
    /// An order above a signature, or below a quotation, whose words may say otherwise.
    #[error("it holds an order, but its signature or the line before a quotation may say something else")]
    Aside,
    /// An order in a subject after "Re:" or "Fwd:", or in the text of a forwarded mail.
    #[error("it holds an order that was taken over from another mail")]
    Inherited,
    /// An order in a mail that was cut at a bound.
    #[error("it holds an order, but parts of the mail could not be read")]
    Truncated,
    /// An order in a mail that is more than one plain text.
    #[error(
        "it holds an order, but not as plain text alone: an order must be a mail without HTML of its own, attachments or pictures"
    )]
    NotTextOnly,
    /// An order that no signature covers; what is missing, as the verdict says it.
    #[error("it holds an order, but no signature covers it: {0}")]
    NotCovered(String),
}

/// A mail that is not interpreted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotTaken {
    /// Why.
    pub why: Unclear,
    /// The order that it seems to give: its sender must hear at once that it is not carried out.
    pub looks_like: Option<Seeming>,
}

/// The request in a line, if the line is one as a whole.
pub fn parse(line: &str) -> Option<Request> {
    let words = reading::words(line);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let intents = [help::parse, status::parse, position::parse, battery::parse, order::parse];
    let request = intents.iter().find_map(|parse| parse(&words))?;
    request.vehicle().is_none_or(is_name).then_some(request)
}

/// The request in a mail.
///
/// # Errors
/// Why it is not interpreted, and which order it seems to give.
pub fn read(content: &Content) -> Result<Request, NotTaken> {
    let seeming = seeming(content);
    match interpret(content) {
        // An order in other words beside a question: whoever is answered would think that both were heard.
        Ok(request) if !request.is_order() && seeming.is_some() => Err(Unclear::Inexact),
        Err(Unclear::Nothing) if seeming.is_some() => Err(Unclear::Inexact),
        result => result,
    }
    .map_err(|why| NotTaken { why, looks_like: seeming })
}

/// Whether the order that was read from a mail may be carried out: it is all that the sender wrote, and signed.
///
/// # Errors
/// Why not.
pub fn may_order(content: &Content, verdict: &Verdict) -> Result<(), Unclear> {
    match () {
        () if content.truncated => Err(Unclear::Truncated),
        () if !content.text_only => Err(Unclear::NotTextOnly),
        () if !verdict.order_covered => Err(Unclear::NotCovered(verdict.order_gap.clone())),
        () => Ok(()),
    }
}

/// The order that a mail seems to give, in the sender's own words. An inherited subject is the sender's only if nothing
/// else is.
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
            // A reply to an answer about an order: the text speaks.
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

/// Whether a subject, which was read as `request`, leaves the order in the text as it is.
fn agrees(words: &str, request: Option<&Request>, order: &Request) -> bool {
    let says_the_same = request.is_none_or(|request| request == order);
    says_the_same
        && !words.contains('?')
        && !reading::trails_off(words)
        && is_harmless(&[words.to_owned()], order)
}

/// Whether lines beside an order say nothing about it, or the same: no other order or vehicle, no condition.
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
