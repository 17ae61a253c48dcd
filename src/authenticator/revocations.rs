// SPDX-License-Identifier: Apache-2.0
//! Keeps the senders that are revoked here and not on the chain yet, in a file with one keyed digest per line.
//!
//! Who is in it MUST count as revoked, also after a crash: [`Revocations::add`] returns when it is on disk. A file that
//! cannot be read whole is an error, because a lost line would give a revoked sender back its rights.
//!
//! Sending them to the chain is left to [`super::registry`].

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use record_log::replace_file;

/// Keyed digest of an address.
type Digest = [u8; 32];

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RevocationsError {
    /// It cannot be read.
    #[error("revocations '{path}': cannot be read", path = path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A line is damaged.
    #[error(
        "revocations '{path}': line {line} must be 64 hex digits; the sender of a line that is lost would count as \
         before: revoke again whom you revoked last, once the file is repaired or removed",
        path = path.display()
    )]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
    },
}

/// A request to revoke a sender. Of two of the same sender, the later one has the greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Keyed digest of the address.
    pub digest: Digest,
    number: u64,
}

/// Revocations that the chain does not have yet.
#[derive(Debug)]
pub struct Revocations {
    path: PathBuf,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    /// The number of each sender's latest revocation.
    numbers: BTreeMap<Digest, u64>,
}

impl Revocations {
    /// Reads the file; a missing file means that none waits. Blocking.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn open(path: &Path) -> Result<Self, RevocationsError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|source| RevocationsError::Io { path: path.to_owned(), source })?,
        };
        let mut waiting = Waiting::default();
        for (line, digits) in (1..).zip(text.lines()) {
            let mut digest = Digest::default();
            hex::decode_to_slice(digits, &mut digest)
                .map_err(|_| RevocationsError::Damaged { path: path.to_owned(), line })?;
            waiting.add(digest);
        }
        Ok(Self { path: path.to_owned(), waiting: Mutex::new(waiting) })
    }

    /// The revocation of this sender that waits for the chain.
    pub fn of(&self, digest: &Digest) -> Option<Revocation> {
        self.lock().numbers.get(digest).map(|number| Revocation { digest: *digest, number: *number })
    }

    /// All that wait.
    pub fn all(&self) -> Vec<Revocation> {
        let waiting = self.lock();
        waiting
            .numbers
            .iter()
            .map(|(digest, number)| Revocation { digest: *digest, number: *number })
            .collect()
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.lock().numbers.len()
    }

    /// Adds a revocation, which holds from then on. Blocking. The error says that it is not on disk, so that it holds
    /// until this process ends.
    pub fn add(&self, digest: Digest) -> (Revocation, io::Result<()>) {
        let mut waiting = self.lock();
        let revocation = waiting.add(digest);
        (revocation, self.write(&waiting))
    }

    /// Removes a revocation that the chain has or that a registration has undone, unless the sender was revoked again
    /// since. Blocking.
    ///
    /// # Errors
    /// If the file cannot be written; the revocation is then sent again after the next start.
    pub fn remove(&self, revocation: Revocation) -> io::Result<()> {
        let mut waiting = self.lock();
        if waiting.numbers.get(&revocation.digest) != Some(&revocation.number) {
            return Ok(());
        }
        waiting.numbers.remove(&revocation.digest);
        self.write(&waiting)
    }

    /// Under the lock, so that the file never goes back to an earlier state.
    fn write(&self, waiting: &Waiting) -> io::Result<()> {
        let text: String = waiting.numbers.keys().map(|digest| hex::encode(digest) + "\n").collect();
        replace_file(&self.path, text.as_bytes())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn add(&mut self, digest: Digest) -> Revocation {
        self.last += 1;
        self.numbers.insert(digest, self.last);
        Revocation { digest, number: self.last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_survives_a_restart_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revocations");
        let revocations = Revocations::open(&path).unwrap();
        let (first, written) = revocations.add([1; 32]);
        written.unwrap();
        revocations.add([2; 32]).1.unwrap();
        let reopened = Revocations::open(&path).unwrap();
        assert_eq!((reopened.count(), reopened.of(&[3; 32])), (2, None));
        assert_eq!(reopened.all().iter().map(|one| one.digest[0]).collect::<Vec<_>>(), [1, 2]);
        revocations.remove(first).unwrap();
        assert_eq!((revocations.of(&[1; 32]), Revocations::open(&path).unwrap().count()), (None, 1));
    }

    #[test]
    fn what_ends_a_revocation_does_not_end_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let revocations = Revocations::open(&dir.path().join("revocations")).unwrap();
        let (first, _) = revocations.add([1; 32]);
        let (second, _) = revocations.add([1; 32]);
        revocations.remove(first).unwrap();
        assert_eq!(revocations.of(&[1; 32]), Some(second));
        revocations.remove(second).unwrap();
        assert_eq!(revocations.count(), 0);
    }

    #[test]
    fn a_revocation_holds_though_the_disk_does_not_take_it() {
        let dir = tempfile::tempdir().unwrap();
        let revocations = Revocations::open(&dir.path().join("gone").join("revocations")).unwrap();
        assert!(revocations.add([1; 32]).1.is_err());
        assert!(revocations.of(&[1; 32]).is_some());
    }

    #[test]
    fn a_damaged_file_is_named_and_not_read_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revocations");
        let good = "ab".repeat(32);
        for (text, line) in
            [(format!("{good}\n{}\n", &good[1..]), 2), ("\n".to_owned(), 1), (format!("{good}0\n"), 1)]
        {
            fs::write(&path, text).unwrap();
            let error = Revocations::open(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line} must be 64 hex digits")), "{error}");
            assert!(error.contains("revocations'"), "{error}");
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(Revocations::open(&path).unwrap_err().to_string().contains("cannot be read"));
    }
}
