// SPDX-License-Identifier: Apache-2.0
//! Keeps the senders that are revoked here and not on the chain yet, in a file: how many, then one keyed digest per line.
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
    time::{Duration, Instant},
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
        "revocations '{path}': line {line} must be {rule}; the sender of a line that is lost would count as before: \
         revoke again whom you revoked last, once the file is repaired or removed",
        path = path.display()
    )]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What it must be.
        rule: &'static str,
    },
}

/// A request to revoke a sender. Of two of the same sender, the later one has the greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revocation {
    /// Keyed digest of the address.
    pub digest: Digest,
    number: u64,
}

/// Revocations that the chain does not have yet.
#[derive(Debug)]
pub struct Revocations {
    path: PathBuf,
    /// How long a revocation still holds once the chain has it.
    lag: Duration,
    waiting: Mutex<Waiting>,
    /// Why the file is not what it should be. Held while it is written, so that it never goes back to an earlier state.
    unwritten: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    /// The number of each sender's latest revocation.
    numbers: BTreeMap<Digest, u64>,
    /// When the chain had it.
    ended: BTreeMap<Digest, Instant>,
}

impl Revocations {
    /// Reads the file; a missing file means that none waits. A revocation still holds for `lag` once the chain has it: a
    /// look-up may be under way, and of several nodes behind an endpoint one may lag. Blocking.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn open(path: &Path, lag: Duration) -> Result<Self, RevocationsError> {
        let waiting = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Waiting::default(),
            Err(source) => return Err(RevocationsError::Io { path: path.to_owned(), source }),
            Ok(text) => Waiting::parse(&text).map_err(|(line, rule)| RevocationsError::Damaged {
                path: path.to_owned(),
                line,
                rule,
            })?,
        };
        Ok(Self { path: path.to_owned(), lag, waiting: Mutex::new(waiting), unwritten: Mutex::default() })
    }

    /// Whether this sender counts as revoked, whatever the chain says.
    pub fn hold(&self, digest: &Digest) -> bool {
        let waiting = lock(&self.waiting);
        waiting.numbers.contains_key(digest)
            || waiting.ended.get(digest).is_some_and(|ended| ended.elapsed() < self.lag)
    }

    /// The revocation of this sender that waits for the chain.
    pub fn of(&self, digest: &Digest) -> Option<Revocation> {
        lock(&self.waiting).numbers.get(digest).map(|number| Revocation { digest: *digest, number: *number })
    }

    /// All that wait.
    pub fn all(&self) -> Vec<Revocation> {
        let waiting = lock(&self.waiting);
        waiting
            .numbers
            .iter()
            .map(|(digest, number)| Revocation { digest: *digest, number: *number })
            .collect()
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        lock(&self.waiting).numbers.len()
    }

    /// Adds a revocation, which holds from then on, and writes it. If the disk does not take it,
    /// [`unwritten`](Self::unwritten) says so. Blocking.
    pub fn add(&self, digest: Digest) -> Revocation {
        let revocation = lock(&self.waiting).add(digest);
        self.write();
        revocation
    }

    /// Ends a revocation that the chain has, unless the sender was revoked again since. Blocking.
    pub fn end(&self, revocation: Revocation) {
        let mut waiting = lock(&self.waiting);
        if waiting.remove(revocation) {
            waiting.ended.retain(|_, ended| ended.elapsed() < self.lag);
            waiting.ended.insert(revocation.digest, Instant::now());
            drop(waiting);
            self.write();
        }
    }

    /// Ends one that a registration has undone, unless the sender was revoked again since. Blocking.
    pub fn lift(&self, revocation: Revocation) {
        let mut waiting = lock(&self.waiting);
        if waiting.remove(revocation) {
            drop(waiting);
            self.write();
        }
    }

    /// Forgets that a sender was revoked a moment ago, because it is registered again.
    pub fn forget(&self, digest: &Digest) {
        lock(&self.waiting).ended.remove(digest);
    }

    /// Writes the file, if it is not what it should be. Blocking.
    pub fn write_again(&self) {
        if self.unwritten().is_some() {
            self.write();
        }
    }

    /// Why the file is not what it should be: after a restart, what was added may not hold, or what was lifted may hold
    /// again. `None` if all is written.
    pub fn unwritten(&self) -> Option<String> {
        lock(&self.unwritten).clone()
    }

    fn write(&self) {
        let mut unwritten = lock(&self.unwritten);
        let text = lock(&self.waiting).to_text();
        *unwritten = replace_file(&self.path, text.as_bytes()).err().map(|error| error.to_string());
        if let Some(error) = &*unwritten {
            tracing::error!(error, path = %self.path.display(), "the revocations are not on disk");
        }
    }
}

impl Waiting {
    /// An error has the number of the line and what it must be.
    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let (mut waiting, mut lines) = (Self::default(), text.lines());
        let count = lines.next().and_then(|first| first.strip_suffix(" revocations")?.parse::<usize>().ok());
        for (line, digits) in (2..).zip(lines) {
            let mut digest = Digest::default();
            hex::decode_to_slice(digits, &mut digest).map_err(|_| (line, "64 hex digits"))?;
            waiting.add(digest);
        }
        if count != Some(waiting.numbers.len()) {
            return Err((1, "the number of lines that follow, as in '2 revocations'"));
        }
        Ok(waiting)
    }

    fn to_text(&self) -> String {
        let digests: String = self.numbers.keys().map(|digest| hex::encode(digest) + "\n").collect();
        format!("{} revocations\n{digests}", self.numbers.len())
    }

    fn add(&mut self, digest: Digest) -> Revocation {
        self.last += 1;
        self.numbers.insert(digest, self.last);
        Revocation { digest, number: self.last }
    }

    /// Whether it was there, and no later one of the sender is.
    fn remove(&mut self, Revocation { digest, number }: Revocation) -> bool {
        self.numbers.get(&digest) == Some(&number) && self.numbers.remove(&digest).is_some()
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(15);

    #[test]
    fn a_revocation_survives_a_restart_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revocations");
        let revocations = Revocations::open(&path, LAG).unwrap();
        let first = revocations.add([1; 32]);
        let second = revocations.add([2; 32]);
        assert_eq!(revocations.unwritten(), None);
        let reopened = Revocations::open(&path, LAG).unwrap();
        assert_eq!((reopened.count(), reopened.hold(&[1; 32]), reopened.hold(&[3; 32])), (2, true, false));
        assert_eq!(reopened.all().iter().map(|one| one.digest[0]).collect::<Vec<_>>(), [1, 2]);
        // The chain has the first: it holds a moment longer, in case a look-up is under way.
        revocations.end(first);
        assert_eq!((revocations.of(&[1; 32]), revocations.hold(&[1; 32])), (None, true));
        revocations.forget(&[1; 32]);
        assert!(!revocations.hold(&[1; 32]));
        // A registration undoes the second.
        revocations.lift(second);
        assert!(!revocations.hold(&[2; 32]));
        assert_eq!(Revocations::open(&path, LAG).unwrap().count(), 0);
    }

    #[test]
    fn what_ends_a_revocation_does_not_end_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let revocations = Revocations::open(&dir.path().join("revocations"), LAG).unwrap();
        let first = revocations.add([1; 32]);
        let second = revocations.add([1; 32]);
        revocations.end(first);
        revocations.lift(first);
        assert_eq!(revocations.of(&[1; 32]), Some(second));
        revocations.end(second);
        assert_eq!(revocations.count(), 0);
    }

    #[test]
    fn a_revocation_holds_though_the_disk_does_not_take_it_and_is_written_when_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone").join("revocations");
        let revocations = Revocations::open(&path, LAG).unwrap();
        revocations.add([1; 32]);
        assert!(revocations.hold(&[1; 32]) && revocations.unwritten().is_some());
        revocations.write_again();
        assert!(revocations.unwritten().is_some());
        fs::create_dir(dir.path().join("gone")).unwrap();
        revocations.write_again();
        assert_eq!((revocations.unwritten(), Revocations::open(&path, LAG).unwrap().count()), (None, 1));
    }

    #[test]
    fn a_damaged_file_is_named_and_not_read_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revocations");
        let good = "ab".repeat(32);
        for (text, line) in [
            (format!("2 revocations\n{good}\n{}\n", &good[1..]), 3),
            (format!("1 revocations\n{good}0\n"), 2),
            (format!("2 revocations\n{good}\n"), 1),
            (format!("0 revocations\n{good}\n"), 1),
            (format!("{good}\n"), 1),
            (String::new(), 1),
        ] {
            fs::write(&path, &text).unwrap();
            let error = Revocations::open(&path, LAG).unwrap_err().to_string();
            assert!(error.contains(&format!("revocations': line {line} must be ")), "{text}: {error}");
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(Revocations::open(&path, LAG).unwrap_err().to_string().contains("cannot be read"));
    }
}
