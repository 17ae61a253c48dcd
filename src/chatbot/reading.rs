// SPDX-License-Identifier: Apache-2.0
//! Separates the sender's own words from subject prefixes, quotes, signatures, greetings and courtesies.
//!
//! A line is dropped only if it certainly says nothing. What is not recognised stays, so that an order next to it is
//! not taken. What is dropped for its place and not for its words (a signature, "On … wrote:") is kept aside.
//!
//! What the words mean is left to [`super::intent`].

mod phrases;
mod programs;

use self::{
    phrases::{AT_BEGINNING, AT_END, COURTESIES, DOUBTS, FORWARDS, NOT_IN_A_DATE, PREFIXES, URGENCY},
    programs::PROGRAMS,
};

/// Most lines of a text that are read, quotes included.
const MAX_LINES: usize = 10_000;
/// Longest line that can be a request, bytes.
const MAX_REQUEST_BYTES: usize = 200;
/// Shortest line of underscores that Outlook puts above the original mail.
const RULE: &str = "__________";

/// Most words of a paragraph that may be a condition; a longer one is a disclaimer.
const SHORT_PARAGRAPH: usize = 12;

const PUNCTUATION: &[char] = &['.', '!', '?', ',', ';', ':', '…'];

/// A subject without its prefixes, and what they showed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subject<'a> {
    /// The subject without prefixes.
    pub words: &'a str,
    /// The subject had a prefix such as "Re:" or "Fwd:".
    pub inherited: bool,
    /// The subject had a prefix such as "Fwd:", so the text may be somebody else's.
    pub forwarded: bool,
}

pub(super) fn subject(text: &str) -> Subject<'_> {
    let mut subject = Subject { words: text.trim(), inherited: false, forwarded: false };
    while let Some((prefix, rest)) =
        PREFIXES.iter().find_map(|prefix| Some((prefix, strip_prefix_ignoring_case(subject.words, prefix)?)))
    {
        let forwarded = subject.forwarded || FORWARDS.contains(prefix);
        subject = Subject { words: rest.trim_start(), inherited: true, forwarded };
    }
    subject
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}

/// The lines of a text that its sender wrote.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Own<'a> {
    /// Lines that may mean something.
    pub lines: Vec<&'a str>,
    /// Signature lines and lines that introduce a quote, dropped for their place and not for their words.
    pub aside: Vec<String>,
}

/// The lines of `text` that the person with display name `sender` wrote. `None` if there are too many lines to read.
pub(super) fn own<'a>(text: &'a str, sender: &str) -> Option<Own<'a>> {
    let mut all: Vec<&str> =
        text.lines().take(MAX_LINES + 1).map(str::trim).filter(|line| !line.is_empty()).collect();
    if all.len() > MAX_LINES || text.lines().nth(MAX_LINES).is_some() {
        return None;
    }
    let sender = sender.to_lowercase();
    let mut aside = Vec::new();
    let mut lines = Vec::new();
    let mut following = all.iter().skip(1).copied().map(Some).chain([None]);
    let end = all.iter().position(|line| is_end(line, following.next().flatten())).unwrap_or(all.len());
    if all.split_off(end).first() == Some(&"--") {
        let below = text.lines().map(str::trim).skip_while(|line| *line != "--").skip(1);
        aside = below_signature(below, &sender);
    }
    // Go backwards, because "On … wrote:" is recognised by the quote that follows it; clients wrap it into two lines.
    let mut before_quote = false;
    let mut attribution = None;
    for line in all.into_iter().rev() {
        if line.starts_with('>') {
            lines.extend(attribution.take());
            before_quote = true;
            continue;
        }
        if let Some(second_half) = attribution.take() {
            if begins_attribution(line) {
                aside.push(format!("{line} {second_half}"));
                continue;
            }
            lines.push(second_half);
        } else if std::mem::take(&mut before_quote) && line.ends_with("wrote:") {
            if begins_attribution(line) {
                aside.push(line.to_owned());
            } else {
                attribution = Some(line);
            }
            continue;
        }
        lines.extend(meaningful(line, &sender));
    }
    lines.extend(attribution);
    lines.reverse();
    aside.retain(|text| !is_attribution(text));
    Some(Own { lines, aside })
}

/// Whether `line` begins the signature (RFC 3676 section 4.3) or the copy of the original mail. A copy begins with
/// header fields.
fn is_end(line: &str, next: Option<&str>) -> bool {
    let is_field = |line: &str| line.char_indices().take(12).any(|(_, c)| c == ':');
    let is_rule = line.starts_with("-----") && line.to_ascii_lowercase().contains("original message")
        || line.starts_with(RULE) && line.trim_matches('_').is_empty();
    line == "--" || is_rule && next.is_some_and(is_field)
}

/// The paragraphs of a signature. If it begins with the sender's name, long paragraphs are ignored: disclaimers contain
/// every word there is, and somebody who adds a condition is brief.
fn below_signature<'a>(lines: impl Iterator<Item = &'a str>, sender: &str) -> Vec<String> {
    let mut paragraphs: Vec<String> = Vec::new();
    let mut open = false;
    for line in lines {
        let ends = line.is_empty() || line.starts_with('>') || line == "--";
        match paragraphs.last_mut() {
            _ if ends || is_courtesy(line, "") => {}
            Some(last) if open => last.extend([" ", line]),
            _ => paragraphs.push(line.to_owned()),
        }
        open = !ends;
    }
    let is_named = |text: &str| {
        let text = text.to_lowercase();
        sender.split_whitespace().any(|part| part.len() > 2 && tokens(&text).any(|token| token == part))
    };
    if paragraphs.first().is_none_or(|first| is_named(first)) {
        paragraphs.retain(|text| text.split_whitespace().count() <= SHORT_PARAGRAPH);
    }
    paragraphs
}

fn begins_attribution(line: &str) -> bool {
    strip_prefix_ignoring_case(line, "on ").is_some()
}

/// Whether a line is what mail programs write before a quote: it has a year, and no word that they do not use.
fn is_attribution(text: &str) -> bool {
    let lower = text.to_lowercase();
    let is_year = |token: &str| token.len() == 4 && token.bytes().all(|byte| byte.is_ascii_digit());
    begins_attribution(text)
        && lower.ends_with("wrote:")
        && tokens(&lower).any(is_year)
        && !tokens(&lower).any(|token| NOT_IN_A_DATE.contains(&token))
}

/// The part of a line that says something: the whole line, nothing, or its only sentence that is not a courtesy.
fn meaningful<'a>(line: &'a str, sender: &str) -> Option<&'a str> {
    if is_courtesy(line, sender) {
        return None;
    }
    let mut rest = sentences(line).into_iter().filter(|sentence| !is_courtesy(sentence, sender));
    match (rest.next(), rest.next()) {
        (None, _) => None,
        (Some(only), None) => Some(only),
        _ => Some(line),
    }
}

/// The sentences of a line, with a greeting before the first comma or colon of a sentence split off.
fn sentences(line: &str) -> Vec<&str> {
    let ends = line.char_indices().zip(line.chars().skip(1)).filter_map(|((at, c), next)| {
        let trails_off = line.get(..at).is_some_and(|head| head.ends_with('.'));
        (next.is_whitespace() && ("!?".contains(c) || c == '.' && !trails_off)).then_some(at + 1)
    });
    let mut start = 0;
    let sentences = ends.chain([line.len()]).filter_map(|end| {
        let sentence = line.get(start..end)?.trim();
        start = end;
        Some(match sentence.split_once([',', ':']) {
            Some((greeting, rest)) if is_courtesy(greeting, "") => [greeting, rest.trim()],
            _ => [sentence, ""],
        })
    });
    sentences.flatten().filter(|sentence| !sentence.is_empty()).collect()
}

/// Whether a line is empty, a courtesy, the sender's name, urgency, or a mail program's. `sender` is in lower case.
fn is_courtesy(line: &str, sender: &str) -> bool {
    if line.len() > MAX_REQUEST_BYTES {
        return false;
    }
    let line = without_links(line).to_lowercase();
    if line.contains('?') {
        return false;
    }
    let line = line.trim_end_matches(|c: char| PUNCTUATION.contains(&c) || c.is_whitespace());
    let is_name = |words: &str| {
        let words = words.trim_start_matches(|c: char| c.is_whitespace() || ",-–—/".contains(c));
        words.split_whitespace().all(|word| sender.split_whitespace().any(|part| part == word))
    };
    let named = |phrase: &str| {
        line.strip_prefix(phrase)
            .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric) && is_name(rest))
    };
    line.is_empty()
        || is_name(line)
        || URGENCY.contains(&line)
        || PROGRAMS.contains(&line)
        || COURTESIES.iter().any(|phrase| named(phrase))
}

/// Removes `<https://…>`, which programs put after their names.
fn without_links(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, link)) = rest.split_once("<http") {
        let Some((address, after)) =
            link.split_once('>').filter(|(link, _)| !link.contains(char::is_whitespace))
        else {
            break;
        };
        // Without a scheme it is not a link but a word, so keep it.
        if !address.contains("://") {
            break;
        }
        text.push_str(before);
        rest = after;
    }
    text + rest
}

/// The words of a line in lower case, without politeness, urgency and final punctuation; empty if the line is too long.
pub(super) fn words(line: &str) -> Vec<String> {
    if line.len() > MAX_REQUEST_BYTES {
        return Vec::new();
    }
    let line = line.to_ascii_lowercase();
    let mut rest = bare(&line);
    // Each round removes one filler, so this ends.
    while let Some(shorter) = without_filler(rest) {
        rest = shorter;
    }
    rest.split_whitespace().map(str::to_owned).collect()
}

/// Removes one filler, as a whole word: from "display please", not from "displease". A line that is only a filler keeps
/// it, except "please".
fn without_filler(line: &str) -> Option<&str> {
    let parts = |c: char| c.is_whitespace() || ",:!-".contains(c);
    let end = AT_END.iter().find_map(|filler| {
        let rest = line.strip_suffix(filler).filter(|rest| rest.ends_with(parts))?;
        Some(bare(rest))
    });
    let beginning = || {
        AT_BEGINNING.iter().find_map(|filler| {
            let rest = line.strip_prefix(filler).filter(|rest| rest.starts_with(parts))?;
            Some(bare(rest.trim_start_matches(parts)))
        })
    };
    end.or_else(beginning).or((line == "please").then_some(""))
}

/// Strips white space, final punctuation, and the asterisks of a mail program's bold type.
fn bare(line: &str) -> &str {
    let mut line = line.trim();
    loop {
        let ended = line.trim_end_matches(|c: char| c.is_whitespace() || PUNCTUATION.contains(&c));
        let shorter = ended.strip_prefix('*').and_then(|rest| rest.strip_suffix('*')).unwrap_or(ended).trim();
        if shorter == line {
            return line;
        }
        line = shorter;
    }
}

/// Whether a line goes on or trails off: "stop truck_1, …".
pub(super) fn trails_off(line: &str) -> bool {
    let line = line.trim_end_matches(|c: char| c.is_whitespace() || c == '*');
    line.contains("..") || line.contains(['…', ';']) || line.ends_with([',', ':'])
}

/// Whether a line contains a time of day, or a word that can take back an order or put it off.
pub(super) fn is_doubtful(line: &str) -> bool {
    let line = line.to_lowercase();
    let is_digit = |c: char| c.is_ascii_digit();
    let has_time = line.char_indices().any(|(at, c)| {
        let (before, after) =
            (line.get(..at).unwrap_or_default(), line.get(at + c.len_utf8()..).unwrap_or_default());
        c == ':' && before.ends_with(is_digit) && after.starts_with(is_digit)
    });
    let is_hour = |token: &str| {
        let unit = token.trim_start_matches(is_digit);
        unit.len() < token.len() && matches!(unit, "am" | "pm" | "h" | "uhr")
    };
    has_time || tokens(&line).any(|token| DOUBTS.contains(&token) || is_hour(token))
}

/// The runs of letters, digits and underscores in a line.
pub(super) fn tokens(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests;
