// SPDX-License-Identifier: Apache-2.0
//! Classifies HTML elements by their effect on the text inside them.
//!
//! Every element gets a role; unknown ones show their text. Tracking which elements are open is left to the parent
//! module.

use html5gum::StartTag;

/// How an element separates its content from the text before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// Inline: no separation.
    None,
    /// A table cell: a tab.
    Cell,
    /// A line of its own.
    Line,
    /// `<br>`: ends the line, or adds an empty one if the line is empty.
    Hard,
    /// Lines of its own, with an empty line before and after.
    Paragraph,
}

/// How an element changes the text inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Shows the text.
    None,
    /// Contains code for the program, as in `<style>`.
    Code,
    /// Hides the text from every reader.
    Hidden,
    /// Quotes somebody else's words.
    Quote,
    /// Quotes until the first quote inside it has ended: Gmail puts the answers between pieces of a quotation in there.
    QuoteUntilQuote,
    /// Strikes the text through.
    Struck,
    /// Preserves line ends.
    AsItIs,
}

pub(super) struct Role {
    pub(super) breaks: Break,
    pub(super) effect: Effect,
    /// The element has no end tag.
    pub(super) is_void: bool,
    /// The original mail begins here, without being marked as a quote.
    pub(super) rest_is_quote: bool,
    /// The element shows something other than text.
    pub(super) more: bool,
}

const VOID: &[&[u8]] = &[
    b"area", b"base", b"br", b"col", b"embed", b"hr", b"img", b"input", b"link", b"meta", b"source",
    b"track", b"wbr",
];
const PICTURES: &[&[u8]] = &[
    b"audio",
    b"button",
    b"canvas",
    b"embed",
    b"iframe",
    b"img",
    b"input",
    b"math",
    b"object",
    b"picture",
    b"select",
    b"svg",
    b"textarea",
    b"video",
];
/// Class prefixes, beside `blockquote`, that mail programs put on the element around the original mail.
const QUOTES: &[&str] = &["moz-cite-prefix", "yahoo_quoted", "protonmail_quote", "zmail_extra"];
/// Ids and classes that Outlook, Exchange and Zimbra put before the original mail.
const SEPARATORS: &[&str] = &[
    "divrplyfwdmsg",
    "appendonsend",
    "mail-editor-reference-message-container",
    "outlookmessageheader",
    "zwchr",
];
/// Styles of the line that Outlook draws above the original mail.
const RULES: &[&str] = &["border-top:solid#e1e1e11.0pt", "border-top:solid#b5c4df1.0pt"];

impl Role {
    pub(super) fn of(tag: &StartTag<()>) -> Self {
        let name: &[u8] = &tag.name;
        let attribute = |name: &[u8]| {
            let value = tag.attributes.get(name)?;
            Some(String::from_utf8_lossy(value).to_ascii_lowercase())
        };
        let style: String =
            attribute(b"style").unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect();
        let class = attribute(b"class").unwrap_or_default();
        let id = attribute(b"id").unwrap_or_default();
        let names = || class.split_whitespace().chain([id.as_str()]);
        let hidden = tag.attributes.contains_key(&b"hidden"[..]) || style.split(';').any(hides);
        let effect = match name {
            b"head" | b"style" | b"script" | b"title" | b"template" | b"noscript" => Effect::Code,
            _ if hidden => Effect::Hidden,
            b"blockquote" => Effect::Quote,
            b"div" if attribute(b"name").as_deref() == Some("quote") => Effect::Quote,
            _ if names().any(|name| QUOTES.iter().any(|quote| name.starts_with(quote))) => Effect::Quote,
            _ if names().any(|name| name == "gmail_quote") => Effect::QuoteUntilQuote,
            b"s" | b"strike" | b"del" => Effect::Struck,
            _ if style.contains("line-through") => Effect::Struck,
            b"pre" | b"textarea" | b"listing" | b"xmp" | b"plaintext" => Effect::AsItIs,
            _ => Effect::None,
        };
        Self {
            breaks: breaks(name),
            effect,
            is_void: VOID.contains(&name),
            rest_is_quote: names().any(|name| SEPARATORS.contains(&name.trim_start_matches("x_")))
                || RULES.iter().any(|rule| style.contains(rule)),
            more: PICTURES.contains(&name) || style.contains("url("),
        }
    }
}

/// Whether one declaration of a `style` attribute, without white space, hides the element.
fn hides(declaration: &str) -> bool {
    let Some((property, value)) = declaration.split_once(':') else { return false };
    let value = value.trim_end_matches("!important");
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%').parse::<f32>();
    match property {
        "display" => value == "none",
        "visibility" => matches!(value, "hidden" | "collapse"),
        "mso-hide" => value == "all",
        // Too small to read.
        "font-size" => number.is_ok_and(|size| size == 0.0 || size <= 1.0 && value.ends_with("px")),
        "opacity" | "max-height" | "max-width" => number.is_ok_and(|size| size == 0.0),
        _ => false,
    }
}

/// Whether a style sheet or other code may change which words are seen.
pub(super) fn adds_words(code: &str) -> bool {
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
    let code = code.replace("behavior:url(", "");
    ["content:", "display:none", "visibility:hidden", "font-size:0", "url(", "line-through"]
        .iter()
        .any(|word| code.contains(word))
}

pub(super) fn breaks(name: &[u8]) -> Break {
    match name {
        b"br" => Break::Hard,
        b"td" | b"th" => Break::Cell,
        b"div" | b"li" | b"tr" | b"dt" | b"dd" | b"address" | b"article" | b"aside" | b"body"
        | b"caption" | b"center" | b"details" | b"dialog" | b"fieldset" | b"figcaption" | b"figure"
        | b"footer" | b"form" | b"header" | b"hgroup" | b"html" | b"legend" | b"main" | b"menu" | b"nav"
        | b"option" | b"search" | b"section" | b"summary" | b"tbody" | b"tfoot" | b"thead" => Break::Line,
        b"p" | b"blockquote" | b"dl" | b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" | b"hr" | b"listing"
        | b"ol" | b"plaintext" | b"pre" | b"table" | b"ul" | b"xmp" => Break::Paragraph,
        _ => Break::None,
    }
}

/// Whether the end tag of this inline element closes the elements inside it.
pub(super) fn is_region(name: &[u8]) -> bool {
    matches!(name, b"head" | b"style" | b"script" | b"title" | b"template" | b"noscript" | b"object" | b"svg")
}

/// Whether a start tag `name` closes the element `open`, whose end tag may be omitted.
pub(super) fn closes(name: &[u8], open: &[u8]) -> bool {
    match open {
        b"p" => !matches!(breaks(name), Break::None | Break::Hard | Break::Cell),
        b"li" | b"option" => name == open,
        b"td" | b"th" => matches!(name, b"td" | b"th" | b"tr"),
        b"tr" => name == b"tr",
        b"dt" | b"dd" => matches!(name, b"dt" | b"dd"),
        b"head" => name == b"body",
        _ => false,
    }
}
