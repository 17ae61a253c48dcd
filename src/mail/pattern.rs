// SPDX-License-Identifier: Apache-2.0
//! Patterns of addresses, such as `*@fleet.example`, for whose a mail is and what is accepted.

/// A pattern of addresses, in which `*` stands for any text; letters are compared in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPattern {
    text: String,
    delimiter: Option<char>,
}

impl AddressPattern {
    /// Reads a pattern; `None` if it has no at sign, which every address has. With a delimiter, `reqs@fleet.example`
    /// also fits `reqs+7@fleet.example` (RFC 5233).
    pub fn parse(text: &str, delimiter: Option<char>) -> Option<Self> {
        text.contains('@').then(|| Self { text: text.to_lowercase(), delimiter })
    }

    /// Whether the address fits, as it is or without its extension.
    pub fn fits(&self, address: &str) -> bool {
        let address = address.to_lowercase();
        fits(&self.text, &address)
            || self
                .delimiter
                .and_then(|delimiter| without_extension(&address, delimiter))
                .is_some_and(|address| fits(&self.text, &address))
    }
}

/// The address without what follows the first delimiter of its local part; `None` if it has no extension, or nothing
/// before it.
fn without_extension(address: &str, delimiter: char) -> Option<String> {
    let (local, domain) = address.rsplit_once('@')?;
    let (user, _) = local.split_once(delimiter).filter(|(user, _)| !user.is_empty())?;
    Some(format!("{user}@{domain}"))
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
            assert_eq!(AddressPattern::parse(pattern, None).unwrap().fits(text), fit, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_has_an_at_sign() {
        assert_eq!(AddressPattern::parse("*", None), None);
        assert_eq!(AddressPattern::parse("postmaster", None), None);
    }

    #[test]
    fn with_a_delimiter_an_extension_is_no_part_of_the_address() {
        for (pattern, address, fit) in [
            ("reqs@b", "reqs+7@b", true),
            ("reqs@b", "Reqs+7+8@B", true),
            ("reqs@b", "reqs+@b", true),
            ("reqs+7@b", "reqs+7@b", true),
            ("reqs@b", "reqs-7@b", false),
            ("reqs@b", "reqs@b+7", false),
            ("@b", "+7@b", false),
            ("reqs@b", "reqs2+7@b", false),
        ] {
            assert_eq!(
                AddressPattern::parse(pattern, Some('+')).unwrap().fits(address),
                fit,
                "{pattern} {address}"
            );
        }
        assert!(!AddressPattern::parse("reqs@b", None).unwrap().fits("reqs+7@b"));
    }
}
