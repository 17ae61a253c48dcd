// SPDX-License-Identifier: Apache-2.0
//! An append-only file of records that survives `kill -9` and power loss. Blocking.
//!
//! # What survives
//! `Appended -> Synced`. A record survives for certain only once a [`RecordLog::sync`] after its
//! [`RecordLog::append`] has returned. Until then the record, and everything appended after it, may be lost, but
//! never in part. Records come back in the order appended, without gaps. Append many and sync once: that is group
//! commit.
//!
//! # Torn or damaged
//! Each record says how much of the file was on disk when it was appended, and after each sync a marker at the end
//! says the same of everything before it. If anything after a bad record proves that the record had been on disk, the
//! log is damaged: it is not opened and nothing is changed. Any other bad record is taken for the torn tail of a sync
//! that never returned: it is cut, and kept in `<path>.torn` (the latest tail only) for a person to look at, unless
//! the disk is full.
//!
//! # After a failure
//! When a write or a sync fails, the kernel may have dropped the pages, and a second sync would lie ("fsyncgate"). So
//! the log is poisoned and MUST refuse every further append and sync until it is reopened, or until
//! [`RecordLog::recover`] has cut it back to the last sync, synced that, and read the end of it again.
//!
//! # Format
//! A header of 32 bytes: magic, a random nonce, their CRC-32. Then records, all numbers little-endian: length
//! (`u32`), CRC-32 of the payload, synced offset (`u64`), CRC-32 of the nonce, the record's own offset and these
//! three fields; then the payload. The marker is a head with length `u32::MAX`, which the next record overwrites. The
//! nonce keeps a payload from passing for a record.
//!
//! New files are readable by their owner only, because mails and evidence are private. Existing files keep their
//! mode.
//!
//! It does not compact, and it does not notice a disk that lies or a file cut off exactly at the end of a record.

mod error;
mod files;
mod format;
mod read;
pub mod reload;
pub mod secret;

use std::{
    collections::hash_map::RandomState,
    fs::{self, File, OpenOptions, TryLockError},
    hash::{BuildHasher, Hasher},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

pub use error::RecordLogError;
pub use files::{FILE_MODE, create_directory, free_bytes, replace_file, sync_directory};
pub use format::{HEAD_BYTES, HEADER_BYTES};
use format::{Scan, Start};
use read::{damaged, find};

/// The append buffer is written to the kernel at this size, bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// Contents of a log when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The records, in the order they were appended.
    pub records: Vec<Vec<u8>>,
    /// Bytes of torn tail that were cut; 0 after a clean shutdown.
    pub torn_bytes: u64,
}

/// Called with the offset and bytes of each record of a log.
pub type Each<'a> = &'a mut dyn FnMut(u64, &[u8]);

/// An open log, exclusively locked until dropped. Dropping it may lose the records that were not synced.
#[derive(Debug)]
pub struct RecordLog {
    path: PathBuf,
    file: File,
    nonce: u64,
    max_record_bytes: usize,
    /// Appended, but not yet written to the kernel.
    buffer: Vec<u8>,
    /// Length of the log known to be on disk, without the marker.
    synced: u64,
    /// Start of the batch that was synced last; recovery reads it again.
    batch: u64,
    /// Length of the log including what the kernel has but may not have synced.
    written: u64,
    poisoned: bool,
}

impl RecordLog {
    /// Opens the log at `path`, creating it if it is missing, and recovers its records. Everything returned is on
    /// disk.
    ///
    /// # Errors
    /// If the file cannot be read, written or locked, is not a record log, or is damaged. `max_record_bytes` must not
    /// be lower than it was before: a larger record is taken for damage.
    pub fn open(path: &Path, max_record_bytes: usize) -> Result<(Self, Recovered), RecordLogError> {
        let mut records = Vec::new();
        let (log, torn_bytes) =
            Self::open_each(path, max_record_bytes, &mut |_, record| records.push(record.to_vec()))?;
        Ok((log, Recovered { records, torn_bytes }))
    }

    /// Like [`open`](Self::open), but passes the records to `each` one by one, even if the log then turns out not to
    /// open. Also returns the bytes of the torn tail.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_each(
        path: &Path,
        max_record_bytes: usize,
        each: Each<'_>,
    ) -> Result<(Self, u64), RecordLogError> {
        Self::open_if(path, max_record_bytes, HEADER_BYTES, each, |found| !found.damaged)
    }

    /// Like [`open_each`](Self::open_each), but reads only from the record at `from` on. Everything before it MUST
    /// have been on disk: a log that ends earlier is damaged.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_after(
        path: &Path,
        max_record_bytes: usize,
        from: u64,
        each: Each<'_>,
    ) -> Result<(Self, u64), RecordLogError> {
        Self::open_if(path, max_record_bytes, from, each, |found| !found.damaged)
    }

    /// Like [`open_each`](Self::open_each), for a [sealed](Self::seal) log: nothing of it may be missing.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and [`RecordLogError::Damaged`] if it does not end with its seal.
    pub fn open_sealed(path: &Path, max_record_bytes: usize, each: Each<'_>) -> Result<Self, RecordLogError> {
        let whole = |found: &Scan| found.marked && found.torn == 0;
        Self::open_if(path, max_record_bytes, HEADER_BYTES, each, whole).map(|(log, _)| log)
    }

    fn open_if(
        path: &Path,
        max_record_bytes: usize,
        from: u64,
        each: Each<'_>,
        allowed: impl Fn(&Scan) -> bool,
    ) -> Result<(Self, u64), RecordLogError> {
        let failed = |action| move |source| RecordLogError::Io { path: path.to_owned(), action, source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)
            .map_err(failed("open"))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => RecordLogError::Locked { path: path.to_owned() },
            TryLockError::Error(source) => failed("lock")(source),
        })?;
        let (start, found) = find(path, &file, max_record_bytes, from, each)?;
        if !allowed(&found) {
            return Err(damaged(path, found));
        }
        let nonce = if let Start::Log(nonce) = start {
            if found.torn > 0 {
                files::keep_torn(path, &mut file, found.valid).map_err(failed("keep the torn tail of"))?;
            }
            if found.torn > 0 || !found.marked {
                file.set_len(found.valid).map_err(failed("truncate"))?;
            }
            nonce
        } else {
            // A new file, or one whose header was torn while it was being made.
            let nonce = RandomState::new().build_hasher().finish();
            file.set_len(0).map_err(failed("truncate"))?;
            file.write_all_at(&format::header(nonce), 0).map_err(failed("write"))?;
            nonce
        };
        // The previous process may have been killed between write and sync.
        file.sync_all().map_err(failed("sync"))?;
        sync_directory(path).map_err(failed("sync the directory of"))?;
        let log = Self {
            path: path.to_owned(),
            file,
            nonce,
            max_record_bytes,
            buffer: Vec::new(),
            synced: found.valid,
            batch: found.batch,
            written: found.valid,
            poisoned: false,
        };
        log.mark();
        Ok((log, found.torn))
    }

    /// Appends a record and returns its offset. It MUST NOT be treated as durable before [`sync`](Self::sync) has
    /// returned.
    ///
    /// # Errors
    /// [`RecordLogError::TooLarge`] leaves the log unchanged; any other error poisons it.
    pub fn append(&mut self, record: &[u8]) -> Result<u64, RecordLogError> {
        self.check_poison()?;
        let too_large = || RecordLogError::TooLarge {
            path: self.path.clone(),
            bytes: record.len(),
            max: self.max_record_bytes,
        };
        if record.len() > self.max_record_bytes {
            return Err(too_large());
        }
        let length = u32::try_from(record.len()).ok().filter(|length| *length != u32::MAX);
        let offset = self.len_bytes();
        let head =
            format::record_head(record, length.ok_or_else(too_large)?, self.synced, self.nonce, offset);
        self.buffer.extend_from_slice(&head);
        self.buffer.extend_from_slice(record);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(offset)
    }

    /// Returns once everything appended is on disk. Free if nothing was appended.
    ///
    /// # Errors
    /// Any error poisons the log; the records appended since the last sync are lost.
    pub fn sync(&mut self) -> Result<(), RecordLogError> {
        self.check_poison()?;
        self.flush()?;
        if self.synced == self.written {
            return Ok(());
        }
        if let Err(source) = self.file.sync_data() {
            return Err(self.poison("sync", source));
        }
        self.batch = self.synced;
        self.synced = self.written;
        self.mark();
        Ok(())
    }

    /// Syncs, then syncs a marker that nothing follows, so that [`open_sealed`](Self::open_sealed) notices if the end
    /// is missing.
    ///
    /// # Errors
    /// Those of [`sync`](Self::sync).
    pub fn seal(&mut self) -> Result<(), RecordLogError> {
        self.sync()?;
        let sealed = self.file.write_all_at(&format::marker(self.nonce, self.synced), self.synced);
        if let Err(source) = sealed.and_then(|()| self.file.sync_data()) {
            return Err(self.poison("seal", source));
        }
        Ok(())
    }

    /// Makes a poisoned log usable again, cut back to the last sync; everything appended since is lost. Does nothing
    /// to a log that is not poisoned.
    ///
    /// # Errors
    /// If `path` now names another file, the file cannot be cut or synced, or the batch that was synced last is gone.
    /// The log then stays poisoned.
    pub fn recover(&mut self) -> Result<(), RecordLogError> {
        if !self.poisoned {
            return Ok(());
        }
        let path = &self.path;
        let failed = |action| move |source| RecordLogError::Io { path: path.clone(), action, source };
        let identity = |at: fs::Metadata| (at.dev(), at.ino());
        let there = fs::metadata(&self.path).map(identity).map_err(failed("find"))?;
        if there != self.file.metadata().map(identity).map_err(failed("find"))? {
            return Err(failed("find")(io::Error::other("another file has taken its place")));
        }
        self.file.set_len(self.synced).map_err(failed("truncate"))?;
        self.file.sync_all().map_err(failed("sync"))?;
        // Drop the page cache, to read what the disk has; if the kernel cannot, read anyway.
        let _ = rustix::fs::fadvise(&self.file, self.batch, None, rustix::fs::Advice::DontNeed);
        let range = (self.batch, self.synced);
        let found = format::scan(&self.file, self.nonce, range, self.max_record_bytes, &mut |_, _| {});
        let found = found.map_err(failed("read"))?;
        if found.valid != self.synced {
            return Err(damaged(&self.path, found));
        }
        self.poisoned = false;
        self.written = self.synced;
        self.mark();
        Ok(())
    }

    /// Takes back every record from the one at offset `to` on; they are gone from the disk when this returns. Syncs
    /// what was appended before.
    ///
    /// # Errors
    /// Any error poisons the log.
    pub fn cut(&mut self, to: u64) -> Result<(), RecordLogError> {
        self.sync()?;
        let to = to.clamp(HEADER_BYTES, self.synced);
        if let Err(source) = self.file.set_len(to).and_then(|()| self.file.sync_all()) {
            return Err(self.poison("cut", source));
        }
        (self.synced, self.written, self.batch) = (to, to, self.batch.min(to));
        self.mark();
        Ok(())
    }

    /// Passes the records between two offsets to `each`, in order, each with its offset. They MUST have been written
    /// to the kernel.
    ///
    /// # Errors
    /// If the file cannot be read, or not all of them are there.
    pub fn read_range(&self, from: u64, to: u64, each: Each<'_>) -> Result<(), RecordLogError> {
        let scan = format::scan(&self.file, self.nonce, (from, to), self.max_record_bytes, each);
        let found =
            scan.map_err(|source| RecordLogError::Io { path: self.path.clone(), action: "read", source })?;
        if found.valid == to { Ok(()) } else { Err(damaged(&self.path, found)) }
    }

    /// Random number that identifies this log.
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Path of the log.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the log including everything appended, bytes.
    pub fn len_bytes(&self) -> u64 {
        self.written.saturating_add(self.buffer.len() as u64)
    }

    fn flush(&mut self) -> Result<(), RecordLogError> {
        if let Err(source) = self.file.write_all_at(&self.buffer, self.written) {
            return Err(self.poison("write", source));
        }
        self.written = self.written.saturating_add(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    /// Writes the marker behind the synced records. Best effort: without it, damage there passes for a torn tail.
    fn mark(&self) {
        if let Err(error) = self.file.write_all_at(&format::marker(self.nonce, self.synced), self.synced) {
            tracing::debug!(path = %self.path.display(), %error, "record log not marked");
        }
    }

    fn check_poison(&self) -> Result<(), RecordLogError> {
        if self.poisoned { Err(RecordLogError::Poisoned { path: self.path.clone() }) } else { Ok(()) }
    }

    /// Poisons the log, and cuts off what a later open could take for synced.
    fn poison(&mut self, action: &'static str, source: io::Error) -> RecordLogError {
        self.poisoned = true;
        self.buffer = Vec::new();
        self.written = self.synced;
        // The disk has just failed, so this may fail too; then the checksums have to do.
        let _ = self.file.set_len(self.synced);
        RecordLogError::Io { path: self.path.clone(), action, source }
    }
}

#[cfg(test)]
mod tests;
