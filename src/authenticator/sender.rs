// SPDX-License-Identifier: Apache-2.0
//! Whom the registry can have: one mailbox, or every mailbox of a domain.

use std::fmt;

use mail::{AddressError, EmailAddress, ascii_domain};

/// A sender, by the name under which it is registered; `Display` writes the form in which it is compared and digested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderName {
    /// One mailbox.
    Mailbox(EmailAddress),
    /// Every mailbox of exactly this domain that has no entry of its own, written `@domain`.
    Domain(String),
}

impl SenderName {
    /// Reads an address, or a domain with an `@` in front.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix('@') {
            // A domain obeys the rules of an address's.
            Some(domain) => {
                EmailAddress::parse(&format!("x@{domain}")).map(|address| Self::domain_of(&address))
            }
            None => EmailAddress::parse(text).map(Self::Mailbox),
        }
    }

    /// The domain of an address.
    pub fn domain_of(address: &EmailAddress) -> Self {
        let domain = address.domain();
        Self::Domain(ascii_domain(domain).unwrap_or_else(|| domain.to_lowercase()))
    }
}

impl fmt::Display for SenderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mailbox(address) => f.write_str(&address.normalised()),
            Self::Domain(domain) => write!(f, "@{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_an_address_or_a_domain_and_has_one_spelling() {
        let shown = |text| SenderName::parse(text).map(|name| name.to_string());
        assert_eq!(shown("Dana@Dispatch.Example").as_deref(), Ok("dana@dispatch.example"));
        assert_eq!(shown("@Dispatch.Example").as_deref(), Ok("@dispatch.example"));
        assert_eq!(shown("@b\u{fc}cher.example").as_deref(), Ok("@xn--bcher-kva.example"));
        let dana = EmailAddress::parse("dana@B\u{fc}cher.example").unwrap();
        assert_eq!(SenderName::domain_of(&dana), SenderName::parse("@xn--bcher-kva.example").unwrap());
        for text in
            ["", "@", "@@dispatch.example", "@a@dispatch.example", "@.example", "dispatch.example", "@a b"]
        {
            assert!(SenderName::parse(text).is_err(), "{text}");
        }
    }
}
