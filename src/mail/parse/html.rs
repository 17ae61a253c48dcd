// SPDX-License-Identifier: Apache-2.0
//! Reduces HTML to the text that a reader sees: blocks end lines, quoted lines start with `>`, struck words are wrapped
//! in `~~`, and hidden text is left out.
//!
//! It takes linear time and cuts at fixed bounds. html5gum makes the tokens; no tree is built, because a tree builder
//! takes quadratic time for deeply nested elements, and minutes for a megabyte of `<div>`. Only elements that change
//! how text is shown go on a bounded stack.
//!
//! Style sheets are not applied. Orders are never taken from HTML.

mod element;

use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};

use self::element::{Break, Effect, Role};

/// Deepest nesting of elements that change how text is shown; reading stops beyond it.
const MAX_OPEN: usize = 256;
/// Deepest quote level that is shown.
const MAX_QUOTES: usize = 16;

/// An HTML document reduced to text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Html {
    pub(super) text: String,
    /// A reader may see more or less than `text`: pictures, hidden words, or words that styles add.
    pub(super) more: bool,
    /// A bound was reached, and the rest was left out.
    pub(super) cut: bool,
}

/// Reduces `html` to text, and stops soon after `max` bytes.
pub(super) fn to_text(html: &str, max: usize) -> Html {
    read(html, max, false)
}

fn read(html: &str, max: usize, conditional: bool) -> Html {
    let mut page = Page::default();
    // The content of `<script>` and the like is not HTML.
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    for Ok(token) in Tokenizer::new_with_emitter(html, emitter) {
        match token {
            Token::StartTag(tag) => page.start(&tag),
            Token::EndTag(tag) => page.end(&tag.name),
            Token::String(text) => page.text(&String::from_utf8_lossy(&text)),
            // Conditional comments: Outlook shows their content, other programs do not. They do not nest.
            Token::Comment(comment) if comment.starts_with(b"[if") && !conditional => {
                let inner = read(&String::from_utf8_lossy(&comment), max, true);
                let words = inner.text.split_once("]>").map_or("", |(_, words)| words);
                page.html.more |= inner.more || inner.cut || words.replace("<![endif]", "").trim() != "";
            }
            _ => {}
        }
        if page.open.len() > MAX_OPEN || page.html.text.len() > max {
            page.html.cut = true;
            break;
        }
    }
    page.end_line();
    page.html
}

struct Open {
    name: Vec<u8>,
    effect: Effect,
}

#[derive(Default)]
struct Page {
    html: Html,
    /// Open elements that change how text is shown, and open elements of the same names inside them.
    open: Vec<Open>,
    rest_is_quote: bool,
    /// The current line has text on it.
    in_line: bool,
    /// White space to write before the next character of the line.
    space: Option<char>,
    /// Write an empty line before the next line.
    gap: bool,
    /// Inside a struck word: the opening `~~` is written, the closing one is not.
    in_struck: bool,
}

impl Page {
    fn start(&mut self, tag: &StartTag<()>) {
        let role = Role::of(tag);
        self.html.more |= role.more;
        if self.open.last().is_some_and(|last| element::closes(&tag.name, &last.name)) {
            self.open.pop();
        }
        self.rest_is_quote |= role.rest_is_quote;
        self.break_line(role.breaks);
        let nested = self.open.iter().any(|open| open.name == **tag.name);
        if !role.is_void && (role.effect != Effect::None || nested) {
            self.open.push(Open { name: tag.name.to_vec(), effect: role.effect });
        }
    }

    fn end(&mut self, name: &[u8]) {
        let breaks = element::breaks(name);
        self.break_line(breaks);
        let Some(at) = self.open.iter().rposition(|open| open.name == name) else { return };
        if breaks == Break::None && !element::is_region(name) {
            // The end tag of an inline element does not close the blocks inside it.
            self.open.remove(at);
            return;
        }
        let quoted = self.open.get(at).is_some_and(|open| open.effect == Effect::Quote);
        self.open.truncate(at);
        if quoted
            && let Some(around) = self.open.iter_mut().rfind(|open| open.effect == Effect::QuoteUntilQuote)
        {
            // The sender answers below each piece of a quotation.
            around.effect = Effect::None;
        }
    }

    fn has(&self, effect: Effect) -> bool {
        self.open.iter().any(|open| open.effect == effect)
    }

    fn text(&mut self, text: &str) {
        if self.has(Effect::Code) {
            self.html.more |= element::adds_words(text);
        } else if self.has(Effect::Hidden) {
            self.html.more |= text.contains(|c: char| !c.is_whitespace() && !is_invisible(c));
        } else {
            let (as_it_is, struck) = (self.has(Effect::AsItIs), self.has(Effect::Struck));
            text.chars().for_each(|c| match c {
                '\n' if as_it_is => self.break_line(Break::Line),
                c if c.is_whitespace() => self.space = self.space.or(Some(' ')),
                c if is_invisible(c) => {}
                c => self.write(c, struck),
            });
        }
    }

    fn write(&mut self, c: char, struck: bool) {
        if self.in_struck && (!struck || self.space.is_some()) {
            self.end_struck();
        }
        if self.in_line {
            self.html.text.extend(self.space);
        } else {
            if std::mem::take(&mut self.gap) && !self.html.text.is_empty() {
                self.html.text.push('\n');
            }
            let is_quote = |open: &&Open| matches!(open.effect, Effect::Quote | Effect::QuoteUntilQuote);
            let quotes = self.open.iter().filter(is_quote).count() + usize::from(self.rest_is_quote);
            self.html.text.push_str(&"> ".repeat(quotes.min(MAX_QUOTES)));
        }
        (self.in_line, self.space) = (true, None);
        if struck && !self.in_struck {
            self.in_struck = true;
            self.html.text.push_str("~~");
        }
        self.html.text.push(c);
    }

    fn end_struck(&mut self) {
        if std::mem::take(&mut self.in_struck) {
            self.html.text.push_str("~~");
        }
    }

    fn break_line(&mut self, kind: Break) {
        match kind {
            Break::None => {}
            Break::Cell => self.space = Some('\t'),
            Break::Hard if !self.in_line => self.gap = true,
            Break::Hard | Break::Line => self.end_line(),
            Break::Paragraph => {
                self.end_line();
                self.gap = true;
            }
        }
    }

    fn end_line(&mut self) {
        self.end_struck();
        self.space = None;
        if std::mem::take(&mut self.in_line) {
            self.html.text.push('\n');
        }
    }
}

/// Whether `c` has no width: soft hyphens, joiners and marks, which newsletters insert by the hundred.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
