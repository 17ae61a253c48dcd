//! A 32-byte secret in a file that only its owner can read: 64 hex digits and a line end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{mail::MailId, record_log::sync_directory};

/// A secret that cannot be had. Names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or made.
    #[error("secret file '{path}': cannot {action}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Others may read or write the file.
    #[error("secret file '{path}': has mode {mode:03o}, must give group and others nothing (chmod 600)", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("secret file '{path}': must hold {rule}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it must hold.
        rule: &'static str,
    },
}

/// Reads the secret at `path`; if there is no file, makes one, mode 0600, from the operating system's randomness.
///
/// # Errors
/// If the file cannot be read or made, others may read it, or it holds something else.
pub fn load_or_create(path: &Path) -> Result<[u8; 32], SecretError> {
    match load(path) {
        Err(SecretError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            create(path).map_err(|source| failed(path, "create", source))?;
            load(path)
        }
        result => result,
    }
}

fn load(path: &Path) -> Result<[u8; 32], SecretError> {
    let file = File::open(path).map_err(|source| failed(path, "open", source))?;
    let mode = file.metadata().map_err(|source| failed(path, "stat", source))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(100).read_to_string(&mut text).map_err(|source| failed(path, "read", source))?;
    let digits: MailId = text
        .trim_end()
        .parse()
        .map_err(|_| SecretError::Content { path: path.to_owned(), rule: "64 hex digits" })?;
    Ok(*digits.as_bytes())
}

/// The file appears whole or not at all; if another process is faster, its secret stands.
fn create(path: &Path) -> io::Result<()> {
    let mut secret = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let draft = PathBuf::from(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    writeln!(file, "{}", MailId::from_bytes(secret))?;
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
        let secret = load_or_create(&path).unwrap();
        assert_ne!(secret, [0; 32]);
        assert_eq!(load_or_create(&path).unwrap(), secret);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(load_or_create(&dir.path().join("other")).unwrap(), secret);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn refuses_what_others_can_read_and_what_is_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("has mode 640"), "{error}");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(&path, "hunter2\n").unwrap();
        let error = load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("must hold 64 hex digits") && !error.contains("hunter2"), "{error}");
    }
}
