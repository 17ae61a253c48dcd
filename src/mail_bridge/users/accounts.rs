// SPDX-License-Identifier: Apache-2.0
//! Who may log in: names and hashes of passwords, from the text of a file. Pure, and slow on purpose.
//!
//! A name that is not there costs as much as one that is: the password is compared with the hash of another account,
//! always the same one for a name. Passwords are compared byte by byte, in constant time, without SASLprep.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::BuildHasher,
};

use argon2::{
    Argon2, Params, PasswordVerifier,
    password_hash::{PasswordHash, PasswordHashString},
};

/// Most memory and passes that a hash may ask for [KiB, count].
const MEMORY_KIB: u32 = 256 * 1024;
const PASSES: u32 = 16;
/// Longest name, bytes.
const NAME_BYTES: usize = 255;

/// The accounts. Has no `Debug`, so that no log can hold a hash by accident.
pub struct Accounts {
    hashes: BTreeMap<String, PasswordHashString>,
    /// Picks the account whose hash stands in for one that is not there.
    pick: RandomState,
}

/// A line that is no account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAccounts {
    /// The line breaks a rule.
    #[error("line {line}: must be {rule}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// The rule, worded to follow "must be".
        rule: &'static str,
    },
    /// There is no account.
    #[error("no account in it (name:hash)")]
    Empty,
}

impl Accounts {
    /// Reads one `name:hash` a line; empty lines and those that begin with `#` are skipped.
    ///
    /// # Errors
    /// The first line that breaks a rule. The error does not repeat it.
    pub fn parse(text: &str) -> Result<Self, InvalidAccounts> {
        let mut hashes = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = |rule| InvalidAccounts::Line { line: index.saturating_add(1), rule };
            let (name, hash) = line.split_once(':').ok_or_else(|| invalid("name:hash"))?;
            let odd = |c: char| c.is_whitespace() || c.is_control();
            if name.is_empty() || name.len() > NAME_BYTES || name.contains(odd) {
                return Err(invalid("name:hash, the name at most 255 bytes without spaces"));
            }
            let hash = password_hash(hash).map_err(invalid)?;
            if hashes.insert(name.to_owned(), hash).is_some() {
                return Err(invalid("another name than the lines before it"));
            }
        }
        if hashes.is_empty() {
            Err(InvalidAccounts::Empty)
        } else {
            Ok(Self { hashes, pick: RandomState::new() })
        }
    }

    /// Whether there is such an account with such a password. Takes as long as its hash asks for: tens of milliseconds
    /// and of megabytes.
    pub fn verify(&self, name: &str, password: &str) -> bool {
        let known = self.hashes.get(name);
        let Some(hash) = known.or_else(|| self.stand_in(name)) else { return false };
        let right = Argon2::default().verify_password(password.as_bytes(), &hash.password_hash()).is_ok();
        right && known.is_some()
    }

    fn stand_in(&self, name: &str) -> Option<&PasswordHashString> {
        let count = u64::try_from(self.hashes.len()).ok()?;
        let place = self.pick.hash_one(name).checked_rem(count)?;
        self.hashes.values().nth(usize::try_from(place).ok()?)
    }
}

fn password_hash(text: &str) -> Result<PasswordHashString, &'static str> {
    const MALFORMED: &str =
        "name:hash, the hash argon2id in PHC format ($argon2id$v=19$m=…,t=…,p=…$salt$hash)";
    let hash = PasswordHash::new(text).map_err(|_| MALFORMED)?;
    let params = Params::try_from(&hash).map_err(|_| MALFORMED)?;
    if hash.algorithm != argon2::ARGON2ID_IDENT || hash.salt.is_none() || hash.hash.is_none() {
        return Err(MALFORMED);
    }
    if params.m_cost() > MEMORY_KIB || params.t_cost() > PASSES {
        return Err("cheaper: m of at most 262144 and t of at most 16");
    }
    Ok(hash.serialize())
}

#[cfg(test)]
pub(super) mod tests {
    use argon2::{Algorithm, PasswordHasher, Version, password_hash::SaltString};

    use super::*;

    /// A hash that takes no time.
    pub(crate) fn cheap(password: &str) -> String {
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
        let salt = SaltString::encode_b64(b"eightbytes").unwrap();
        argon.hash_password(password.as_bytes(), &salt).unwrap().to_string()
    }

    #[test]
    fn knows_its_accounts_and_nobody_else() {
        let text = format!("# devices\n\nada:{}\r\nbob@fleet.example:{}\n", cheap("secret"), cheap("s:e:c"));
        let accounts = Accounts::parse(&text).unwrap();
        for (name, password, right) in [
            ("ada", "secret", true),
            ("bob@fleet.example", "s:e:c", true),
            ("ada", "s:e:c", false),
            ("Ada", "secret", false),
            ("ada", "", false),
            ("", "", false),
            // The stand-in's password is nobody else's.
            ("eve", "secret", false),
            ("eve", "s:e:c", false),
        ] {
            assert_eq!(accounts.verify(name, password), right, "{name} {password}");
        }
        assert!(std::ptr::eq(accounts.stand_in("eve").unwrap(), accounts.stand_in("eve").unwrap()));
    }

    /// From `src/test.c` of the reference implementation.
    #[test]
    fn takes_what_the_reference_implementation_makes() {
        let hash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let accounts = Accounts::parse(&format!("ada:{hash}")).unwrap();
        assert!(accounts.verify("ada", "password") && !accounts.verify("ada", "Password"));
    }

    #[test]
    fn names_the_line_and_its_rule_and_not_what_is_in_it() {
        let cheap = cheap("x");
        for (line, rule) in [
            ("ada", "line 2: must be name:hash"),
            (":x", "line 2: must be name:hash, the name"),
            ("a b:x", "line 2: must be name:hash, the name"),
            ("ada:hunter2", "line 2: must be name:hash, the hash argon2id"),
            ("ada:$argon2id$v=19$m=8,t=1,p=1$ZWlnaHRieXRlcw", "line 2: must be name:hash, the hash argon2id"),
            (
                "ada:$argon2i$v=19$m=8,t=1,p=1$ZWlnaHRieXRlcw$x1AJIZSsGd6nLxpD9gjFiw",
                "line 2: must be name:hash, the hash argon2id",
            ),
            (
                "ada:$argon2id$v=19$m=4000000,t=1,p=1$ZWlnaHRieXRlcw$x1AJIZSsGd6nLxpD9gjFiw",
                "line 2: must be cheaper",
            ),
            (&format!("bob:{cheap}"), "line 2: must be another name"),
        ] {
            let error = Accounts::parse(&format!("bob:{cheap}\n{line}\n")).err().unwrap().to_string();
            assert!(error.starts_with(rule) && !error.contains("hunter2"), "{line}: {error}");
        }
        assert_eq!(Accounts::parse("# nobody\n").err(), Some(InvalidAccounts::Empty));
    }
}
