// SPDX-License-Identifier: Apache-2.0
//! Patterns of addresses, such as `*@fleet.example`, for whose a mail is and what is accepted.

/// A pattern of addresses, in which `*` stands for any text; letters are compared in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPattern(String);

impl AddressPattern {
    /// Reads a pattern; `None` if it has no at sign, which every address has.
    pub fn parse(text: &str) -> Option<Self> {
        text.contains('@').then(|| Self(text.to_lowercase()))
    }

    /// Whether the address fits.
    pub fn fits(&self, address: &str) -> bool {
        fits(&self.0, &address.to_lowercase())
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any text. Linear in each part: what is between two stars is
/// found at its first place.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, fit) in [
            ("a@b", "a@b", true),
            ("a@b", "a@bc", false),
            ("*@b", "x.y@b", true),
            ("*@b", "@b", true),
            ("*@b", "a@b.c", false),
            ("reqs*@*.example", "reqs+7@a.b.example", true),
            ("reqs*@*.example", "reqs@example", false),
            ("a*a@b", "a@b", false),
            ("**@b", "a@b", true),
            ("Reqs@B", "reqS@b", true),
        ] {
            assert_eq!(AddressPattern::parse(pattern).unwrap().fits(text), fit, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_has_an_at_sign() {
        assert_eq!(AddressPattern::parse("*"), None);
        assert_eq!(AddressPattern::parse("postmaster"), None);
    }
}
