// SPDX-License-Identifier: Apache-2.0
//! Defines what an address is, once for SMTP, composing, verification and the registry.
//!
//! No [`EmailAddress`] can break out of an SMTP command or a header: it has no space, control character, bracket,
//! quote, comma, colon, semicolon or backslash. Whether the mailbox exists is not checked.
//!
//! The null reverse-path `<>` and the `<Postmaster>` without a domain are not addresses; the SMTP session knows them.

use std::{fmt, ops::Deref, str::FromStr};

use unicode_normalization::UnicodeNormalization;

/// Longest address, bytes: a path (RFC 5321 section 4.5.3.1.3) without its angle brackets.
const MAX_BYTES: usize = 254;
/// The ASCII characters of an atom that are neither letters nor digits (RFC 5322 section 3.2.3).
const SYMBOLS: &str = "!#$%&'*+-/=?^_`{|}~";

/// One bare address, `local-part@domain`; `Display` writes it as it was given.
///
/// Both sides are dot-atoms (RFC 5322 section 3.4.1), in which characters beyond ASCII may stand as well (RFC 6531
/// section 3.3). Quoted local parts and domain literals are not addresses here (`docs/decisions/0052`), and a local
/// part may be longer than 64 bytes, as bounce addresses are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EmailAddress {
    text: String,
    /// Position of the `@`.
    at: usize,
}

/// The rule that a text breaks, so that it is not an address. Does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is longer than a path can be.
    #[error("it is longer than {MAX_BYTES} bytes")]
    Length,
    /// There is no `@`, or more than one.
    #[error("it needs exactly one at sign")]
    At,
    /// A part is empty, or has a dot at its start, at its end or beside another.
    #[error("the {0} is empty, or has a dot at its start or end or beside another dot")]
    Dots(Part),
    /// A part has a character that may not stand in an atom.
    #[error("the {0} has a space, a control character, a quote, a bracket, a backslash or one of , ; :")]
    Character(Part),
    /// The caller takes ASCII only.
    #[error("it may have ASCII characters only")]
    Ascii,
}

/// A side of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The side before the `@`.
    Local,
    /// The side behind the `@`.
    Domain,
}

impl EmailAddress {
    /// Reads a text that is one address and nothing else.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_BYTES {
            return Err(AddressError::Length);
        }
        let (local, domain) = text.split_once('@').ok_or(AddressError::At)?;
        if domain.contains('@') {
            return Err(AddressError::At);
        }
        dot_atom(Part::Local, local)?;
        dot_atom(Part::Domain, domain)?;
        if !domain.is_ascii()
            && let Some(ascii) = ascii_domain(domain)
        {
            // U+FF20 is an at sign to DNS, for example.
            dot_atom(Part::Domain, &ascii)?;
        }
        Ok(Self { text: text.to_owned(), at: local.len() })
    }

    /// Reads an address for a caller who takes ASCII only, and says why.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse_ascii(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
            .and_then(|address| if address.is_ascii() { Ok(address) } else { Err(AddressError::Ascii) })
    }

    /// The address as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The side before the `@`, as it was given.
    pub fn local_part(&self) -> &str {
        self.text.get(..self.at).unwrap_or_default()
    }

    /// The side behind the `@`, as it was given.
    pub fn domain(&self) -> &str {
        self.text.get(self.at.saturating_add(1)..).unwrap_or_default()
    }

    /// The form in which addresses are compared and digested: the domain as [`ascii_domain`] has it, and the local part in
    /// Unicode's form NFC (RFC 6532 section 3.1) with its ASCII letters in lower case.
    ///
    /// RFC 5321 lets a host distinguish `Bob@` from `bob@`; no host in use does, nor do people, so both are one sender.
    pub fn normalised(&self) -> String {
        let domain = ascii_domain(self.domain()).unwrap_or_else(|| self.domain().to_lowercase());
        let local: String = self.local_part().nfc().collect();
        format!("{}@{domain}", local.to_ascii_lowercase())
    }

    /// Whether mail to both goes to the same mailbox.
    pub fn is_same(&self, other: &Self) -> bool {
        self.normalised() == other.normalised()
    }
}

/// A domain as DNS has it, in lower case, with A-labels in place of U-labels (RFC 5890 section 2.3.2.1, by the rules of
/// UTS 46); `None` if it is no internationalised domain though it looks like one.
pub fn ascii_domain(domain: &str) -> Option<String> {
    // A domain may have an underscore, which no host name has; `EmailAddress` decides about the rest.
    idna::domain_to_ascii_cow(domain.as_bytes(), idna::AsciiDenyList::EMPTY).ok().map(Into::into)
}

fn dot_atom(part: Part, text: &str) -> Result<(), AddressError> {
    let is_atom = |c: char| c.is_ascii_alphanumeric() || SYMBOLS.contains(c) || is_beyond_ascii(c);
    if text.split('.').any(str::is_empty) {
        Err(AddressError::Dots(part))
    } else if text.chars().all(|c| c == '.' || is_atom(c)) {
        Ok(())
    } else {
        Err(AddressError::Character(part))
    }
}

/// Whether `c` is a character beyond ASCII that shows: not U+0085, U+00A0 or U+3000.
fn is_beyond_ascii(c: char) -> bool {
    !c.is_ascii() && !c.is_control() && !c.is_whitespace()
}

impl FromStr for EmailAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

/// An address is a text wherever one is asked for.
impl Deref for EmailAddress {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local part",
            Self::Domain => "domain",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_names_the_rule_and_not_the_address() {
        use {AddressError::*, Part::*};
        let long = format!("{}@example.org", "a".repeat(243));
        for (text, error) in [
            (&*long, Length),
            ("", At),
            ("a", At),
            ("a@b@c", At),
            ("@b", Dots(Local)),
            ("a.@b", Dots(Local)),
            ("a..b@c", Dots(Local)),
            ("a@", Dots(Domain)),
            ("a@.b", Dots(Domain)),
            ("a@b.", Dots(Domain)),
            ("a b@c", Character(Local)),
            ("\"a\"@b", Character(Local)),
            ("a@[192.0.2.1]", Character(Domain)),
            ("a@b\r\n", Character(Domain)),
            ("a@b\u{3000}", Character(Domain)),
            ("a@x\u{ff20}b.example", Character(Domain)),
            ("a@x\u{ff02}b.example", Character(Domain)),
        ] {
            assert_eq!(EmailAddress::parse(text), Err(error), "{text:?}");
            assert!(error.to_string().is_ascii() && !error.to_string().contains("example.org"));
        }
        assert!(EmailAddress::parse(&long[1..]).is_ok());
        assert!(EmailAddress::parse("\u{fc}@b").is_ok());
        assert_eq!(EmailAddress::parse_ascii("\u{fc}@b"), Err(Ascii));
        assert_eq!(EmailAddress::parse_ascii("a@b\u{3000}"), Err(Character(Domain)));
    }

    #[test]
    fn splits_at_the_at_and_compares_without_case() {
        let address = EmailAddress::parse("Jürgen.RAY@Bücher.Example").unwrap();
        assert_eq!((address.local_part(), address.domain()), ("Jürgen.RAY", "Bücher.Example"));
        assert_eq!(address.normalised(), "jürgen.ray@xn--bcher-kva.example");
        let is_same =
            |a: &str, b: &str| EmailAddress::parse(a).unwrap().is_same(&EmailAddress::parse(b).unwrap());
        assert!(is_same("Ä.B@ÄC.example", "Ä.b@äc.EXAMPLE"));
        assert!(!is_same("Ä@c.example", "ä@c.example"), "case beyond ASCII is the host's to judge");
        assert!(!is_same("a@c.example", "b@c.example"));
        assert!(is_same("ju\u{308}rgen@c.example", "jürgen@c.example"), "composed and decomposed");
        // One domain, as people and as DNS write it; one that is none, and an underscore, stay what they are.
        assert!(is_same("a@Bücher.example", "a@XN--Bcher-KVA.example"));
        assert!(is_same("a@u\u{308}.example", "a@ü.example"), "composed and decomposed");
        assert!(!is_same("a@bücher.example", "a@bucher.example"));
        assert!(is_same("a@XN--0.example", "a@xn--0.example"));
        assert_eq!(EmailAddress::parse("a@_x.Example").unwrap().normalised(), "a@_x.example");
    }

    proptest! {
        #[test]
        fn every_address_reads_back_and_none_breaks_out(text in text()) {
            let Ok(address) = EmailAddress::parse(&text) else { return Ok(()) };
            prop_assert_eq!(EmailAddress::parse(&address.to_string()), Ok(address.clone()));
            prop_assert_eq!(address.as_str(), &text);
            prop_assert_eq!(format!("{}@{}", address.local_part(), address.domain()), text.as_str());
            prop_assert!(!text.contains(|c: char| c.is_control() || c.is_whitespace() || "<>()[],;:\\\"".contains(c)));
            prop_assert!(text.len() <= MAX_BYTES && text.matches('@').count() == 1);
        }

        #[test]
        fn dot_atoms_around_an_at_are_an_address(
            local in "[a-z0-9!#$%&'*+/=?^_`{|}~äü用-]{1,9}(\\.[a-z0-9ß-]{1,9}){0,2}",
            domain in "[a-zA-Z0-9ü_-]{1,9}(\\.[a-z子]{1,9}){0,3}",
        ) {
            let address = EmailAddress::parse(&format!("{local}@{domain}")).unwrap();
            prop_assert_eq!((address.local_part(), address.domain()), (&*local, &*domain));
            let normalised = EmailAddress::parse(&address.normalised()).unwrap();
            prop_assert!(normalised.is_same(&address));
        }
    }

    /// Texts of which many are nearly addresses.
    fn text() -> impl Strategy<Value = String> {
        let pieces = vec![
            "a", "b.c", "@", ".", "ü", "\r", "\n", "\0", " ", "<", ">", "\"", "\\", "(", ")", "[", "]", ",",
            ";", ":", "\u{85}", "\u{a0}", "\u{7f}", "_",
        ];
        let near = |piece: String| {
            ("[a-z]{1,3}", "[a-z]{1,3}").prop_map(move |(a, b)| format!("{a}{piece}@{b}{piece}"))
        };
        let pieces = prop::sample::select(pieces).prop_map(str::to_owned);
        prop_oneof![
            any::<String>(),
            pieces.clone().prop_flat_map(near),
            prop::collection::vec(pieces, 1..8).prop_map(|pieces| pieces.concat()),
            any::<char>().prop_map(|c| format!("a{c}@b{c}")),
            any::<char>().prop_map(|c| format!("a{c}c@b")),
        ]
    }
}
