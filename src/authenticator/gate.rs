// SPDX-License-Identifier: Apache-2.0
//! Decides which requests to register or revoke a sender reach the chain. Pure, except that opening it reads or
//! creates the token file.
//!
//! Nothing is registered or revoked without the token, if one is required, and every registered address can be the
//! From mailbox of a mail.
//!
//! It does not stop anyone in the ROS graph from listening: a token sent in a request is only as secret as the graph.

use std::path::{Path, PathBuf};

use mail::AddressError;
use record_log::secret::{self, SecretError};

use crate::sender::SenderName;

/// Number of characters of a rejected address to show.
const SHOWN: usize = 64;

/// Why a request was rejected before reaching the chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The token differs from the one in the file.
    #[error("token: must be what the file {} holds (parameter registry_token_path)", .0.display())]
    Token(PathBuf),
    /// The address cannot be the author of a mail.
    #[error("address {shown}: must be one bare address, local-part@domain, or @domain: {error}")]
    Address {
        /// Beginning of the address, escaped.
        shown: String,
        /// The rule that it breaks.
        error: AddressError,
    },
}

/// Holds the token that requests must carry. Has no `Debug`, so that it is never logged.
pub struct Gate {
    /// The token, 64 hex digits, and the path of its file. `None`: no token is required.
    token: Option<(String, PathBuf)>,
}

impl Gate {
    /// Reads the token from `path`, or creates the file with mode 0600 if it is missing. With `None`, no token is
    /// required.
    ///
    /// # Errors
    /// If the file cannot be read or created, is readable by others, or does not hold a token.
    pub fn open(path: Option<&Path>) -> Result<Self, SecretError> {
        let read = |path: &Path| {
            let secret = secret::load_or_create(path)?;
            Ok((hex::encode(secret.expose()), path.to_owned()))
        };
        Ok(Self { token: path.map(read).transpose()? })
    }

    /// Checks whether a request with `token` may change the registration of `address`, and returns the address. The
    /// token is checked first, so that a caller without it learns nothing else.
    ///
    /// # Errors
    /// The first rule that the request breaks.
    pub fn admit(&self, token: &str, address: &str) -> Result<SenderName, Refusal> {
        self.open_to(token)?;
        SenderName::parse(address).map_err(|error| {
            let start: String = address.chars().take(SHOWN).collect();
            let more = if start.len() < address.len() { "…" } else { "" };
            Refusal::Address { shown: format!("{start:?}{more}"), error }
        })
    }

    /// Checks whether a request with `token` may ask about the registry.
    ///
    /// # Errors
    /// [`Refusal::Token`].
    pub fn open_to(&self, token: &str) -> Result<(), Refusal> {
        if let Some((expected, path)) = &self.token
            && !is_same(expected, token.trim())
        {
            return Err(Refusal::Token(path.clone()));
        }
        Ok(())
    }
}

/// Takes the same time whichever digits of a wrong token differ.
fn is_same(expected: &str, token: &str) -> bool {
    let differences =
        expected.bytes().zip(token.bytes()).fold(0, |differences, (one, other)| differences | (one ^ other));
    expected.len() == token.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn only_the_token_of_the_file_opens_it_and_no_refusal_shows_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry.token");
        let gate = Gate::open(Some(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let file = fs::read_to_string(&path).unwrap();
        let token = file.trim();
        let admit =
            |gate: &Gate, token: &str, address: &str| gate.admit(token, address).map(|name| name.to_string());
        assert_eq!(admit(&gate, token, "dana@dispatch.example").as_deref(), Ok("dana@dispatch.example"));
        assert_eq!(
            admit(&gate, &file, "dana@dispatch.example").as_deref(),
            Ok("dana@dispatch.example"),
            "with the file's line end"
        );
        let longer = format!("{token}0");
        for wrong in ["", &token[1..], &longer, &"0".repeat(64), "hunter2"] {
            let refusal = gate.admit(wrong, "dana").unwrap_err();
            assert_eq!(refusal, Refusal::Token(path.clone()), "{wrong}");
            let words = refusal.to_string();
            assert!(words.contains("registry_token_path") && words.contains("registry.token"), "{words}");
            assert!(!words.contains(token) && !words.contains("hunter2"), "{words}");
        }
        // The token is the same after a restart.
        let again = Gate::open(Some(&path)).unwrap();
        assert_eq!(admit(&again, token, "a@b").as_deref(), Ok("a@b"));
        assert!(again.open_to(token).is_ok() && again.open_to("0").is_err());
    }

    #[test]
    fn only_an_address_that_a_mail_can_have_is_admitted_and_the_refusal_shows_it_escaped() {
        let gate = Gate::open(None).unwrap();
        for (address, name) in [
            ("dana+x@dispatch.example", "dana+x@dispatch.example"),
            ("j\u{fc}rgen@b\u{fc}cher.example", "j\u{fc}rgen@xn--bcher-kva.example"),
            ("@dispatch.example", "@dispatch.example"),
        ] {
            assert_eq!(gate.admit("", address).map(|name| name.to_string()).as_deref(), Ok(name));
        }
        let long = format!("{}@dispatch.example", "a".repeat(300));
        let junk = [
            "",
            "dana",
            "Dana <dana@dispatch.example>",
            "dana@dispatch.example, carl@dispatch.example",
            "dana@dispatch.example carl@dispatch.example",
            "dana@dispatch.example\0",
            " dana@dispatch.example",
            "dana@",
            &long,
        ];
        for address in junk {
            let words = gate.admit("", address).unwrap_err().to_string();
            assert!(words.contains("must be one bare address, local-part@domain, or @domain"), "{words}");
            assert!(!words.contains('\0') && words.len() < 500, "{words}");
        }
        let words = gate.admit("", "dana").unwrap_err().to_string();
        assert!(words.starts_with("address \"dana\": must be "), "{words}");
    }
}
