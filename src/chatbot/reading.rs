//! What of a mail are the sender's own words: subject without prefixes, text without quotes, signature and courtesies.
//!
//! A line is dropped only if it certainly says nothing; what is not recognised stays, so that an order next to it is
//! not taken ([`super::intent`]).

/// Most lines of a text, quotes included.
const MAX_LINES: usize = 10_000;
/// Longest line that can be a request, bytes.
const MAX_REQUEST_BYTES: usize = 200;

const PREFIXES: &[&str] = &["re:", "fwd:", "fw:", "aw:", "wg:"];
const PUNCTUATION: &[char] = &['.', '!', '?', ',', ';', ':', '…'];
/// Lines without a meaning, after lower case and without punctuation at the end.
const COURTESIES: &[&str] = &[
    "hi",
    "hello",
    "hey",
    "dear posthorn",
    "hi posthorn",
    "hello posthorn",
    "hey posthorn",
    "posthorn",
    "hi all",
    "hello all",
    "hi team",
    "hello team",
    "hi there",
    "hello there",
    "good morning",
    "good afternoon",
    "good evening",
    "good day",
    "please",
    "thanks",
    "thank you",
    "many thanks",
    "thanks in advance",
    "cheers",
    "best",
    "regards",
    "best regards",
    "kind regards",
    "best wishes",
    "greetings",
    "sincerely",
    "yours sincerely",
];

/// A subject: its words and whether they are inherited from another mail.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subject<'a> {
    /// Without prefixes.
    pub words: &'a str,
    /// It had a prefix such as "Re:" or "Fwd:".
    pub inherited: bool,
}

/// Takes the prefixes from a subject.
pub(super) fn subject(text: &str) -> Subject<'_> {
    let mut words = text.trim();
    let mut inherited = false;
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| strip_prefix_ignoring_case(words, prefix)) {
        words = rest.trim_start();
        inherited = true;
    }
    Subject { words, inherited }
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}

/// The lines of `text` that `sender` (a display name) wrote and that may mean something. `None`: too many to tell.
pub(super) fn own_lines<'a>(text: &'a str, sender: &str) -> Option<Vec<&'a str>> {
    let all: Vec<&str> = text.lines().take_while(|line| !ends_text(line)).take(MAX_LINES + 1).collect();
    if all.len() > MAX_LINES {
        return None;
    }
    let mut own = Vec::new();
    // Backwards, because "On … wrote:" is told by the quote that follows it; clients wrap it into two lines.
    let mut before_quote = false;
    let mut attribution = None;
    for line in all.into_iter().rev().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with('>') {
            own.extend(attribution.take());
            before_quote = true;
            continue;
        }
        if let Some(second_half) = attribution.take() {
            if begins_attribution(line) {
                continue;
            }
            own.push(second_half);
        } else if std::mem::take(&mut before_quote) && line.ends_with("wrote:") {
            attribution = (!begins_attribution(line)).then_some(line);
            continue;
        }
        if !is_courtesy(line, sender) {
            own.push(line);
        }
    }
    own.extend(attribution);
    own.reverse();
    Some(own)
}

/// The signature (RFC 3676 section 4.3) or the copy of the mail that is answered begins.
fn ends_text(line: &str) -> bool {
    let line = line.trim();
    line == "--" || line.starts_with("-----") && line.to_ascii_lowercase().contains("original message")
}

fn begins_attribution(line: &str) -> bool {
    strip_prefix_ignoring_case(line, "on ").is_some()
}

fn is_courtesy(line: &str, sender: &str) -> bool {
    let line = line.trim_end_matches(PUNCTUATION).to_ascii_lowercase();
    let sender = sender.to_ascii_lowercase();
    let mut words = line.split_whitespace();
    let is_name = !line.is_empty() && words.all(|word| sender.split_whitespace().any(|part| part == word));
    line.is_empty() || is_name || COURTESIES.contains(&line.as_str())
}

/// The words of a line in lower case, without "please", "thanks" and punctuation at the end; empty if it is too long.
pub(super) fn words(line: &str) -> Vec<String> {
    if line.len() > MAX_REQUEST_BYTES {
        return Vec::new();
    }
    let line = line.to_ascii_lowercase();
    let mut line = bare(&line);
    for courtesy in ["thanks", "thank you", "please"] {
        // Only a whole word: "display please", not "displease".
        if let Some(rest) = line.strip_suffix(courtesy)
            && rest.ends_with(|c: char| c.is_whitespace() || c == ',')
        {
            line = bare(rest);
        }
    }
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if words.first().is_some_and(|first| first.trim_end_matches(',') == "please") {
        words.remove(0);
    }
    words
}

fn bare(line: &str) -> &str {
    line.trim_end_matches(|c: char| c.is_whitespace() || PUNCTUATION.contains(&c)).trim_start()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_all_prefixes_of_a_subject() {
        assert_eq!(subject(" RE: Fwd:re:Status "), Subject { words: "Status", inherited: true });
        assert_eq!(subject("Rest: x"), Subject { words: "Rest: x", inherited: false });
        assert_eq!(subject("é"), Subject { words: "é", inherited: false });
    }

    #[test]
    fn drops_quotes_signatures_and_courtesies() {
        let text = "Hello posthorn,\r\n\r\nwhere is truck_1?\r\n\r\nOn Mon, Bob wrote:\r\n> stop truck_1\r\n\
                    Best regards,\r\nAnna\r\n-- \r\nstop truck_2\r\n";
        assert_eq!(own_lines(text, "Anna Schmidt"), Some(vec!["where is truck_1?"]));
        let wrapped = "status\nOn Sat, Nov 21, 2026 at 6:30 posthorn <p@example.org>\nwrote:\n\n> stop";
        assert_eq!(own_lines(wrapped, ""), Some(vec!["status"]));
        assert_eq!(own_lines("status\n-----Original Message-----\nstop truck_1", ""), Some(vec!["status"]));
    }

    #[test]
    fn keeps_what_it_does_not_recognise() {
        let text = "stop truck_1\nwhen Bob wrote:\nAnna\n>x";
        assert_eq!(own_lines(text, "Bob"), Some(vec!["stop truck_1", "when Bob wrote:", "Anna"]));
        assert_eq!(own_lines("a\nhe wrote:\n> x", ""), Some(vec!["a", "he wrote:"]));
        assert_eq!(own_lines(&"a\n".repeat(MAX_LINES + 1), ""), None);
    }

    #[test]
    fn words_tolerate_politeness_and_punctuation() {
        assert_eq!(words("Please, STOP Truck_1, please!"), ["stop", "truck_1"]);
        assert_eq!(words("where\u{a0}is  truck_1 ?? thank you."), ["where", "is", "truck_1"]);
        assert_eq!(words("please"), Vec::<String>::new());
        assert_eq!(words("displease"), ["displease"]);
        assert_eq!(words(&"a ".repeat(200)), Vec::<String>::new());
    }
}
