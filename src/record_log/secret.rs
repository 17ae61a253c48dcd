// SPDX-License-Identifier: Apache-2.0
//! Loads a 32-byte secret from a file, or creates the file on first use; reads other secrets, such as passwords.
//!
//! The file of a 32-byte secret holds 64 hex digits and a line end. A file with any permission for group or others is
//! rejected.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::sync_directory;

/// Longest secret text [bytes].
const MAX_TEXT: u64 = 64 << 10;

/// The secret could not be loaded or created. The message names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read or created.
    #[error("secret file '{path}': cannot {action}", path = path.display())]
    Io {
        /// Path of the secret file.
        path: PathBuf,
        /// The operation that failed, worded to follow "cannot".
        action: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// Group or others have some permission on the file.
    #[error("secret file '{path}': has mode {mode:03o}, must give group and others nothing (chmod 600)", path = path.display())]
    Exposed {
        /// Path of the secret file.
        path: PathBuf,
        /// The file's permission bits.
        mode: u32,
    },
    /// The file does not hold a secret.
    #[error("secret file '{path}': must hold {rule}", path = path.display())]
    Content {
        /// Path of the secret file.
        path: PathBuf,
        /// The expected content, worded to follow "must hold".
        rule: &'static str,
    },
}

/// A secret key. Has no `Debug` and no `Display`, so that no log or error text can hold it by accident.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// The key itself.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Reads the secret at `path`. If there is no such file, creates it with mode 0600 from the operating system's random
/// number generator.
///
/// # Errors
/// If the file cannot be read or created, gives group or others any permission, or does not hold 64 hex digits.
pub fn load_or_create(path: &Path) -> Result<Secret, SecretError> {
    match load(path) {
        Err(SecretError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            create(path).map_err(|source| failed(path, "create", source))?;
            load(path)
        }
        result => result,
    }
}

/// Reads the secret at `path`, which must exist.
///
/// # Errors
/// As [`load_or_create`].
pub fn load(path: &Path) -> Result<Secret, SecretError> {
    parse(&read_text(path)?, path)
}

/// Reads the secret that the text of a file is.
///
/// # Errors
/// [`SecretError::Content`] unless it is 64 hex digits and perhaps a line end.
pub fn parse(text: &str, path: &Path) -> Result<Secret, SecretError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.trim_end(), &mut bytes)
        .map_err(|_| SecretError::Content { path: path.to_owned(), rule: "64 hex digits" })?;
    Ok(Secret(bytes))
}

/// Reads a text that only the file's owner may have access to.
///
/// # Errors
/// If the file cannot be read, gives group or others any permission, is longer than [`MAX_TEXT`] or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, SecretError> {
    // Opening a pipe would wait for a writer.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(SecretError::Content { path: path.to_owned(), rule: "a text, as a regular file" });
    }
    let file = File::open(path).map_err(|source| failed(path, "open", source))?;
    let mode = file.metadata().map_err(|source| failed(path, "stat", source))?.permissions().mode() & 0o777;
    let credentials = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    if mode & 0o077 & !tolerated(path, credentials.as_deref()) != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    let length =
        file.take(MAX_TEXT + 1).read_to_string(&mut text).map_err(|source| failed(path, "read", source))?;
    if length as u64 > MAX_TEXT {
        return Err(SecretError::Content { path: path.to_owned(), rule: "at most 65536 bytes" });
    }
    Ok(text)
}

/// What others may have of a secret. systemd gives a service its credentials by an access list, whose mask shows as the
/// group's permission to read (systemd issue 29435); the directory is the service's own.
fn tolerated(path: &Path, credentials: Option<&Path>) -> u32 {
    if credentials.is_some_and(|directory| path.starts_with(directory)) { 0o040 } else { 0 }
}

/// The file appears complete or not at all. If another process creates it first, that process's secret is kept.
fn create(path: &Path) -> io::Result<()> {
    let mut secret = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let draft = PathBuf::from(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    writeln!(file, "{}", hex::encode(secret))?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_directory(path),
    }
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> SecretError {
    SecretError::Io { path: path.to_owned(), action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_a_secret_once_that_only_its_owner_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let load = |path: &Path| *load_or_create(path).unwrap().expose();
        let secret = load(&path);
        assert_ne!(secret, [0; 32]);
        assert_eq!(load(&path), secret);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(load(&dir.path().join("other")), secret);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_credential_of_systemd_may_look_readable_by_its_group() {
        let (directory, inside) =
            (Path::new("/run/credentials/x.service"), "/run/credentials/x.service/password");
        assert_eq!(tolerated(Path::new(inside), Some(directory)), 0o040);
        assert_eq!(tolerated(Path::new(inside), None), 0);
        assert_eq!(tolerated(Path::new("/run/credentials/y.service/password"), Some(directory)), 0);
    }

    #[test]
    fn refuses_what_others_can_read_and_what_is_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = load_or_create(&path).err().unwrap().to_string();
        assert!(error.contains("has mode 640"), "{error}");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(&path, "hunter2\n").unwrap();
        let error = load_or_create(&path).err().unwrap().to_string();
        assert!(error.contains("must hold 64 hex digits") && !error.contains("hunter2"), "{error}");
    }
}
