// SPDX-License-Identifier: Apache-2.0
//! Keeps the [`Book`] in a record log; of several records of an order, the last one counts. Blocking.
//!
//! When a call returns without an error, its record is on disk. After a failure the next write starts a new file, so
//! that writing recovers by itself when the disk does. What goes into the book is left to [`super::Orders`].

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use record_log::{RecordLog, RecordLogError, create_directory, sync_directory};

use super::{Book, Entry, entry::MAX_BYTES};

/// The file is rewritten when it is larger than this, and than four times its size after the last rewrite.
const MAX_LOG_BYTES: u64 = 256 * 1024;

/// Why orders cannot be kept on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory, or a file in it, failed.
    #[error("state_directory '{path}': cannot {action}", path = path.display())]
    Io {
        /// The state directory.
        path: PathBuf,
        /// Operation that failed.
        action: &'static str,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The record log failed.
    #[error(transparent)]
    Log(#[from] RecordLogError),
    /// A complete record is not an order of this version.
    #[error("record log '{path}': holds a record that is no order of this version; move it away", path = .0.display())]
    Corrupt(PathBuf),
}

/// The open file in one directory. It belongs to this process alone.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// The open log; `None` after a failure.
    log: Option<RecordLog>,
    /// Length of the log after its last rewrite.
    compact_bytes: u64,
}

impl Store {
    /// Opens the orders in `directory`, and creates the directory and the file if they are missing.
    ///
    /// # Errors
    /// If a file cannot be used, is in use, or holds something else.
    pub fn open(directory: &Path) -> Result<(Self, Book), StoreError> {
        let failed = |action| move |source| StoreError::Io { path: directory.to_owned(), action, source };
        create_directory(directory).map_err(failed("be made"))?;
        let path = directory.join("orders.log");
        let (log, recovered) = RecordLog::open(&path, MAX_BYTES)?;
        let mut book = Book::default();
        for record in &recovered.records {
            book.put(Entry::decode(record).ok_or_else(|| StoreError::Corrupt(path.clone()))?);
        }
        Ok((Self { directory: directory.to_owned(), log: Some(log), compact_bytes: 0 }, book))
    }

    /// Writes the new state of orders; `book` is everything else that must be kept.
    ///
    /// # Errors
    /// If the disk fails. The next call tries again with a new file.
    pub fn write(&mut self, entries: &[Entry], book: &Book) -> Result<(), StoreError> {
        let bound = MAX_LOG_BYTES.max(self.compact_bytes.saturating_mul(4));
        let mut log = match self.log.take().filter(|log| log.len_bytes() < bound) {
            Some(log) => log,
            None => self.anew(book)?,
        };
        for entry in entries {
            log.append(&entry.encode())?;
        }
        log.sync()?;
        self.log = Some(log);
        Ok(())
    }

    /// Rewrites the file. The new file is complete before it replaces the old one, and stays locked throughout.
    fn anew(&mut self, book: &Book) -> Result<RecordLog, StoreError> {
        let (path, draft) = (self.directory.join("orders.log"), self.directory.join("orders.log.new"));
        let failed = |action, source| StoreError::Io { path: self.directory.clone(), action, source };
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove orders.log.new", error));
            }
            _ => {}
        }
        let (mut log, _) = RecordLog::open(&draft, MAX_BYTES)?;
        for entry in book.entries() {
            log.append(&entry.encode())?;
        }
        log.sync()?;
        fs::rename(&draft, &path).map_err(|error| failed("rename orders.log.new", error))?;
        sync_directory(&path).map_err(|error| failed("be synced", error))?;
        self.compact_bytes = log.len_bytes();
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt,
        time::{Duration, SystemTime},
    };

    use super::{super::State, *};
    use mail::MailId;
    use vehicle::Command;

    fn entry(number: u64, state: State) -> Entry {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Entry {
            state,
            command: Command::Stop,
            ordered_at: SystemTime::UNIX_EPOCH + Duration::from_secs(number),
            command_id: id,
            mail_id: MailId::from_bytes([1; 32]),
            vehicle: "truck_1".into(),
            ordered_by: "a@b".into(),
            message_id: "1@b".into(),
            reason: String::new(),
            on_ledger: false,
        }
    }

    fn put(store: &mut Store, book: &mut Book, entry: Entry) {
        store.write(std::slice::from_ref(&entry), book).unwrap();
        book.put(entry);
    }

    #[test]
    fn what_was_written_is_there_after_a_restart_and_the_file_stays_small() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("chatbot");
        let (mut store, mut book) = Store::open(&directory).unwrap();
        let error = Store::open(&directory).unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("state_directory"), "{error}");
        for number in 0..2500 {
            put(&mut store, &mut book, entry(number, State::Sent));
        }
        put(&mut store, &mut book, entry(2499, State::Accepted));
        drop(store);
        let length = fs::metadata(directory.join("orders.log")).unwrap().len();
        assert!(length < 2 * MAX_LOG_BYTES, "{length}");
        let (_store, again) = Store::open(&directory).unwrap();
        assert_eq!(again, book);
        assert_eq!(again.newest("truck_1").map(|entry| entry.state), Some(State::Accepted));
    }

    #[test]
    fn recovers_without_a_restart_when_the_disk_does() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("chatbot");
        let (mut store, mut book) = Store::open(&directory).unwrap();
        put(&mut store, &mut book, entry(1, State::Sent));
        // As after a failed write, while no new file can be made because a folder has its name.
        store.log = None;
        fs::create_dir(directory.join("orders.log.new")).unwrap();
        store.write(&[entry(2, State::Sent)], &book).unwrap_err();
        fs::remove_dir(directory.join("orders.log.new")).unwrap();
        put(&mut store, &mut book, entry(3, State::Sent));
        assert!(
            matches!(Store::open(&directory), Err(StoreError::Log(RecordLogError::Locked { .. }))),
            "the new file is locked"
        );
        drop(store);
        assert_eq!(Store::open(&directory).unwrap().1, book);
        let mode = fs::metadata(directory.join("orders.log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_record_that_is_no_order_is_not_passed_over() {
        let scratch = tempfile::tempdir().unwrap();
        let (mut log, _) = RecordLog::open(&scratch.path().join("orders.log"), MAX_BYTES).unwrap();
        log.append(b"x").unwrap();
        log.sync().unwrap();
        drop(log);
        let error = Store::open(scratch.path()).unwrap_err().to_string();
        assert!(error.contains("no order of this version"), "{error}");
    }
}
