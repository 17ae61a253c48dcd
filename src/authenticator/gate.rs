//! Decides which requests to register or revoke a sender reach the chain. Pure, except that it reads or makes the
//! token's file when it is opened.
//!
//! Guarantees that without the token nothing is registered or revoked, and that what is registered can be the From
//! mailbox of a mail. It does not keep anyone in the graph from listening: a token in a request is as secret as the graph.

use std::path::{Path, PathBuf};

use crate::{
    mail::{MailId, is_address},
    secret::{self, SecretError},
};

/// Characters of a refused address that are shown.
const SHOWN: usize = 64;

/// A request that is refused before the chain is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The token is not the one in the file.
    #[error("token: must be what the file {} holds (parameter registry_token_path)", .0.display())]
    Token(PathBuf),
    /// No mail can have this author.
    #[error(
        "address {shown}: must be one bare address, local-part@domain, at most 254 ASCII characters without spaces, \
         quotes or angle brackets"
    )]
    Address {
        /// The start of the address, escaped.
        shown: String,
    },
}

/// The token that requests must carry. Has no `Debug`, so that it is never logged.
pub struct Gate {
    /// 64 hex digits and where they are kept; `None`: no token is asked for.
    token: Option<(String, PathBuf)>,
}

impl Gate {
    /// Reads the token from `path`; makes it, mode 0600, if there is none. `None`: no token is asked for.
    ///
    /// # Errors
    /// If the file cannot be read or made, others may read it, or it holds something else.
    pub fn open(path: Option<&Path>) -> Result<Self, SecretError> {
        let read = |path: &Path| {
            let secret = secret::load_or_create(path)?;
            Ok((MailId::from_bytes(secret).to_string(), path.to_owned()))
        };
        Ok(Self { token: path.map(read).transpose()? })
    }

    /// Whether a request with `token` may change the registration of `address`. The token is judged first, so that
    /// nobody without it learns anything else.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn admit(&self, token: &str, address: &str) -> Result<(), Refusal> {
        if let Some((expected, path)) = &self.token
            && !is_same(expected, token.trim())
        {
            return Err(Refusal::Token(path.clone()));
        }
        if !is_address(address) {
            let start: String = address.chars().take(SHOWN).collect();
            let more = if start.len() < address.len() { "…" } else { "" };
            return Err(Refusal::Address { shown: format!("{start:?}{more}") });
        }
        Ok(())
    }
}

/// Takes as long for a token that is right up to its last digit as for one that is wrong from the first.
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
        assert_eq!(gate.admit(token, "dana@dispatch.example"), Ok(()));
        assert_eq!(gate.admit(&file, "dana@dispatch.example"), Ok(()), "with the file's line end");
        let longer = format!("{token}0");
        for wrong in ["", &token[1..], &longer, &"0".repeat(64), "hunter2"] {
            let refusal = gate.admit(wrong, "dana").unwrap_err();
            assert_eq!(refusal, Refusal::Token(path.clone()), "{wrong}");
            let words = refusal.to_string();
            assert!(words.contains("registry_token_path") && words.contains("registry.token"), "{words}");
            assert!(!words.contains(token) && !words.contains("hunter2"), "{words}");
        }
        // It is the same after a restart.
        assert_eq!(Gate::open(Some(&path)).unwrap().admit(token, "a@b"), Ok(()));
    }

    #[test]
    fn only_an_address_that_a_mail_can_have_is_admitted_and_the_refusal_shows_it_escaped() {
        let gate = Gate::open(None).unwrap();
        assert_eq!(gate.admit("", "dana+x@dispatch.example"), Ok(()));
        let long = format!("{}@dispatch.example", "a".repeat(300));
        let junk = [
            "",
            "dana",
            "Dana <dana@dispatch.example>",
            "dana@dispatch.example, carl@dispatch.example",
            "dana@dispatch.example carl@dispatch.example",
            "dana@dispatch.example\0",
            " dana@dispatch.example",
            "jürgen@dispatch.example",
            "dana@",
            &long,
        ];
        for address in junk {
            let words = gate.admit("", address).unwrap_err().to_string();
            assert!(words.contains("must be one bare address, local-part@domain"), "{words}");
            assert!(!words.contains('\0') && words.len() < 500, "{words}");
        }
        let words = gate.admit("", "dana").unwrap_err().to_string();
        assert!(words.starts_with("address \"dana\": must be "), "{words}");
    }
}
