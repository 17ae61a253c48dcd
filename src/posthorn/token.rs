// SPDX-License-Identifier: Apache-2.0
//! Reads the registry's token from its file. It is never an argument, and never printed.

use std::path::Path;

use record_log::secret::{self, SecretError};

/// The registry's token. Has no `Debug`, so that it is never printed.
pub struct Token(String);

impl Token {
    /// Reads the token from `path`; does not create the file.
    ///
    /// # Errors
    /// If the file cannot be read, gives group or others any permission, or does not hold a token.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        Ok(Self(hex::encode(secret::load(path)?.expose())))
    }

    /// No token, for an authenticator that asks for none.
    pub fn none() -> Self {
        Self(String::new())
    }

    /// The token, for a request.
    pub fn expose(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn is_read_but_never_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry.token");
        let error = Token::read(&path).err().unwrap().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(!path.exists());
        secret::load_or_create(&path).unwrap();
        assert_eq!(Token::read(&path).ok().unwrap().expose(), fs::read_to_string(&path).unwrap().trim());
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let error = Token::read(&path).err().unwrap().to_string();
        assert!(error.contains("has mode 644, must give group and others nothing"), "{error}");
    }
}
