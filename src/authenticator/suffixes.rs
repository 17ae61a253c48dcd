// SPDX-License-Identifier: Apache-2.0
//! Tells whether two domains belong to one organisation by the public suffix list (<https://publicsuffix.org>). Pure, except
//! that [`Suffixes::open`] reads a file.
//!
//! DMARC finds an organisation by the policies that domains publish (RFC 9989 section 4.10), so that two customers of a
//! registry that publishes one without `psd=y` are aligned. Its predecessor went by this list. For an order, both must agree.
//!
//! What an order needs otherwise is up to `verify`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use mail::ascii_domain;
use psl::Psl;
use publicsuffix::List;

/// The file of the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SuffixesError {
    /// It cannot be read.
    #[error("public suffix list '{path}' (parameter 'public_suffix_list') cannot be read: {source}", path = path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// It is not such a list.
    #[error(
        "public suffix list '{path}' (parameter 'public_suffix_list'): must be the list of publicsuffix.org, with 'com' and 'co.uk'",
        path = path.display()
    )]
    Rules {
        /// Path of the file.
        path: PathBuf,
    },
}

/// The list; clones share it.
#[derive(Clone, Debug, Default)]
pub enum Suffixes {
    /// As of the release of this program.
    #[default]
    BuiltIn,
    /// From a file.
    File(Arc<List>),
}

impl Suffixes {
    /// Reads the list from `path`, or takes the one that is built in. Blocking.
    ///
    /// # Errors
    /// If the file cannot be read or is no such list.
    pub fn open(path: Option<&Path>) -> Result<Self, SuffixesError> {
        let Some(path) = path else { return Ok(Self::BuiltIn) };
        let text = fs::read_to_string(path)
            .map_err(|source| SuffixesError::Read { path: path.to_owned(), source })?;
        let list = text.parse::<List>().ok().map(|list| Self::File(Arc::new(list)));
        // A text file of any other kind, or half a download, would make every name a domain of its own.
        let has_rules = |list: &Self| {
            !list.is_one_organisation("a.co.uk", "b.co.uk") && list.is_one_organisation("a.b.com", "b.com")
        };
        list.filter(has_rules).ok_or_else(|| SuffixesError::Rules { path: path.to_owned() })
    }

    /// Whether both domains are one, or below one that somebody has registered.
    pub fn is_one_organisation(&self, one: &str, other: &str) -> bool {
        let name = |domain: &str| {
            ascii_domain(domain.trim_end_matches('.')).unwrap_or_else(|| domain.to_ascii_lowercase())
        };
        let (one, other) = (name(one), name(other));
        one == other
            || self.registered(&one).is_some_and(|registered| self.registered(&other) == Some(registered))
    }

    /// The part of a domain that somebody has registered; `None` if it is a public suffix.
    fn registered<'d>(&self, domain: &'d str) -> Option<&'d str> {
        let found = match self {
            Self::BuiltIn => psl::List.domain(domain.as_bytes()).map(|domain| domain.as_bytes()),
            Self::File(list) => list.domain(domain.as_bytes()).map(|domain| domain.as_bytes()),
        };
        str::from_utf8(found?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "// ===BEGIN ICANN DOMAINS===\ncom\nuk\nco.uk\nau\ncom.au\nxn--p1ai\n中国\n// ===END ICANN DOMAINS===\n\
                        // ===BEGIN PRIVATE DOMAINS===\ngithub.io\n// ===END PRIVATE DOMAINS===\n";

    #[test]
    fn one_organisation_is_below_one_registered_domain() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.dat");
        fs::write(&path, LIST).unwrap();
        for list in [Suffixes::BuiltIn, Suffixes::open(Some(&path)).unwrap()] {
            for (one, other) in [
                ("example.com", "mail.example.com"),
                ("A.shop.CO.UK.", "b.shop.co.uk"),
                ("a.example.com.au", "example.com.au"),
                ("dispatch.example", "mx.dispatch.example"),
                ("github.io", "github.io"),
                ("b\u{fc}cher.com", "mx.xn--bcher-kva.com"),
                ("a.\u{4f8b}\u{5b50}.\u{4e2d}\u{56fd}", "xn--fsqu00a.xn--fiqs8s"),
            ] {
                assert!(list.is_one_organisation(one, other), "{list:?}: {one} {other}");
                assert!(list.is_one_organisation(other, one), "{list:?}: {one} {other}");
            }
            for (one, other) in [
                ("victim.com.au", "attacker.com.au"),
                ("victim.github.io", "attacker.github.io"),
                ("victim.github.io", "github.io"),
                ("com.au", "a.com.au"),
                ("example.com", "example.org"),
                ("", "example.org"),
                ("example", "a.example"),
            ] {
                assert!(!list.is_one_organisation(one, other), "{list:?}: {one} {other}");
            }
        }
    }

    #[test]
    fn a_file_that_is_not_the_list_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.dat");
        let error = |path: &Path| Suffixes::open(Some(path)).unwrap_err().to_string();
        assert!(error(&path).contains("cannot be read") && error(&path).contains("public_suffix_list"));
        for text in ["", "\0", "<!DOCTYPE html>", "com\n", "org\nnet\n"] {
            fs::write(&path, text).unwrap();
            assert!(
                error(&path).contains("must be the list of publicsuffix.org"),
                "{text:?}: {}",
                error(&path)
            );
        }
    }
}
