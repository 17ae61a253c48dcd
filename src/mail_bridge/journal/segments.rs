// SPDX-License-Identifier: Apache-2.0
//! The journal's files: opening, appending, rotating, retiring. Blocking.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};

use record_log::{
    Each, FILE_MODE, HEADER_BYTES, RecordLog, RecordLogError, create_directory, free_bytes, sync_directory,
};

use super::{
    index::{Index, Note, Place},
    record::{OutboundKey, Record},
    store::{JournalError, NoRoom, Settings},
};
use crate::params::MESSAGE_BYTES;

/// Largest record, bytes: a mail and its envelope.
const RECORD_BYTES: usize = MESSAGE_BYTES as usize + 1024 * 1024;
/// Largest number of identities in one `Remembered` record.
const REMEMBERED_CHUNK: usize = 10_000;

/// Free space that retiring a segment must leave after copying, bytes: settlements need it more.
const RETIRE_ROOM_BYTES: u64 = 1024 * 1024;

pub(super) struct Segments {
    settings: Settings,
    /// Older segments and their sizes, bytes.
    older: BTreeMap<u32, u64>,
    number: u32,
    current: RecordLog,
    deleter: Deleter,
    /// Why nothing can be appended any more.
    broken: Option<Arc<str>>,
    /// Exclusive lock on the directory; released on drop.
    _lock: File,
}

impl Segments {
    /// Opens the directory and fills `index`. Also returns the bytes of torn tail that were cut. Only the last
    /// segment can have a torn tail, because a segment is synced before the next is created.
    pub(super) fn open(settings: Settings, index: &mut Index) -> Result<(Self, u64), JournalError> {
        let directory = &settings.directory;
        let failed = |source| JournalError::Directory { path: directory.clone(), source };
        create_directory(directory).map_err(failed)?;
        let lock = directory.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(lock)
            .map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::Locked { path: directory.clone() },
            TryLockError::Error(source) => failed(source),
        })?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u32>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        let number = numbers.pop().unwrap_or(1);
        let mut older = BTreeMap::new();
        for number in numbers {
            let file = path(&settings.directory, number);
            let log =
                restore(&file, number, index, |each| RecordLog::open_sealed(&file, RECORD_BYTES, each))?;
            older.insert(number, log.len_bytes());
        }
        let file = path(&settings.directory, number);
        let (current, torn_bytes) =
            restore(&file, number, index, |each| RecordLog::open_each(&file, RECORD_BYTES, each))?;
        let deleter = Deleter::start().map_err(failed)?;
        Ok((Self { settings, older, number, current, deleter, broken: None, _lock: lock }, torn_bytes))
    }

    /// Appends a record and returns its place, which is valid once it is synced.
    pub(super) fn append(&mut self, record: &Record) -> Result<Place, JournalError> {
        let bytes = record.encode()?;
        let offset = self.current.append(&bytes)?;
        Ok(Place::new(self.number, offset, bytes.len()))
    }

    pub(super) fn sync(&mut self) -> Result<(), JournalError> {
        Ok(self.current.sync()?)
    }

    /// After a failed write: makes the journal usable again, cut back to the last sync.
    pub(super) fn recover(&mut self) -> Result<(), JournalError> {
        match &self.broken {
            Some(reason) => Err(JournalError::Failed(Arc::clone(reason))),
            None => Ok(self.current.recover()?),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.current.len_bytes() >= self.settings.segment_bytes
    }

    pub(super) fn count(&self) -> usize {
        self.older.len().saturating_add(1)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.older.values().sum::<u64>().saturating_add(self.current.len_bytes())
    }

    /// Checks that `bytes` more would leave the reserve untouched.
    pub(super) fn room(&self, bytes: u64) -> Result<(), NoRoom> {
        room(&self.settings.directory, self.settings.reserve_bytes, bytes)
    }

    #[cfg(test)]
    pub(super) fn set_reserve(&mut self, bytes: u64) {
        self.settings.reserve_bytes = bytes;
    }

    /// Bound on the identities in one `Remembered` record: half a segment, so that no record outgrows its segment.
    pub(super) fn remembered_in_one(&self) -> usize {
        let half = self.settings.segment_bytes / 2 / size_of::<OutboundKey>() as u64;
        usize::try_from(half).unwrap_or(usize::MAX).clamp(1, REMEMBERED_CHUNK)
    }

    /// Seals the current segment and starts a new one.
    pub(super) fn rotate(&mut self) -> Result<(), JournalError> {
        self.current.seal()?;
        let next = self.number.saturating_add(1);
        let file = path(&self.settings.directory, next);
        match RecordLog::open(&file, RECORD_BYTES) {
            Ok((log, _)) => {
                self.older.insert(self.number, self.current.len_bytes());
                self.current = log;
                self.number = next;
                Ok(())
            }
            Err(error) => {
                // While the new file exists, the current segment counts as closed and must not be appended to.
                let removed = match fs::remove_file(&file) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => Err(source),
                    _ => sync_directory(&file),
                };
                if let Err(source) = removed {
                    let error = JournalError::Segment { path: file, action: "delete", source };
                    self.broken = Some(error.to_string().into());
                    return Err(error);
                }
                Err(error.into())
            }
        }
    }

    /// The oldest segment, if it is worth retiring: at most half of it is still needed; or what is still needed is no
    /// more than the waste in all segments beyond `keep_segments`, and that waste is at least a quarter of them. So
    /// copying costs at most what it frees, one stuck mail does not keep everything behind it, and segments that are
    /// still needed are not copied over and over.
    pub(super) fn retirable(&self, index: &Index) -> Option<u32> {
        let spare = self.older.len().saturating_sub(self.settings.keep_segments);
        let (mut dead, mut all) = (0_u64, 0_u64);
        let (&oldest, &bytes) = self.older.first_key_value().filter(|_| spare > 0)?;
        let records = |bytes: u64| bytes.saturating_sub(HEADER_BYTES);
        for (&number, &bytes) in self.older.iter().take(spare) {
            all = all.saturating_add(records(bytes));
            dead = dead.saturating_add(records(bytes).saturating_sub(index.live_bytes(number)));
        }
        let live = index.live_bytes(oldest);
        let worth = live.saturating_mul(2) <= records(bytes) || live <= dead && all / 4 <= dead;
        let room = || room(&self.settings.directory, RETIRE_ROOM_BYTES, live).is_ok();
        (worth && room()).then_some(oldest)
    }

    /// Reads the record at `place`.
    pub(super) fn read(&self, place: Place) -> Result<Option<Record>, JournalError> {
        read(&self.settings.directory, place)
    }

    /// Deletes an older segment that is no longer needed.
    pub(super) fn delete(&mut self, number: u32) {
        self.older.remove(&number);
        self.deleter.delete(path(&self.settings.directory, number));
    }
}

/// Deletes files in order on its own thread, because a large file takes a while. Dropping it waits for the thread.
struct Deleter {
    files: Option<mpsc::Sender<PathBuf>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Deleter {
    fn start() -> io::Result<Self> {
        let (files, due) = mpsc::channel::<PathBuf>();
        let work = move || {
            for file in due {
                if let Err(error) = fs::remove_file(&file) {
                    // Segments must go in order; after a restart all those left are found again.
                    tracing::error!(path = %file.display(), %error, "journal: cannot delete a segment, keeping all until restart");
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("journal-delete".to_owned()).spawn(work)?;
        Ok(Self { files: Some(files), thread: Some(thread) })
    }

    fn delete(&self, file: PathBuf) {
        let _ = self.files.as_ref().map(|files| files.send(file));
    }
}

impl Drop for Deleter {
    fn drop(&mut self) {
        self.files.take();
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Checks that `bytes` more would leave the reserve untouched. Passes if the file system does not tell its free
/// space.
pub(super) fn room(directory: &Path, reserve: u64, bytes: u64) -> Result<(), NoRoom> {
    match free_bytes(directory) {
        Ok(free) if free < reserve.saturating_add(bytes) => Err(NoRoom { free, reserve }),
        _ => Ok(()),
    }
}

/// Reads the record at `place`; `None` if its segment was deleted meanwhile.
pub(super) fn read(directory: &Path, place: Place) -> Result<Option<Record>, JournalError> {
    let path = path(directory, place.segment());
    match RecordLog::read_one(&path, place.offset(), RECORD_BYTES) {
        Err(RecordLogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => decode(&path, &bytes?).map(Some),
    }
}

fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:010}.log"))
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Record, JournalError> {
    Record::decode(bytes).map_err(|source| JournalError::Record { path: path.to_owned(), source })
}

/// Fills `index` from the segment that `open` opens.
fn restore<T>(
    path: &Path,
    number: u32,
    index: &mut Index,
    open: impl FnOnce(Each<'_>) -> Result<T, RecordLogError>,
) -> Result<T, JournalError> {
    let mut failed = None;
    let opened = open(&mut |offset, bytes| match decode(path, bytes) {
        Ok(record) => index.apply(Note::from(&record), Place::new(number, offset, bytes.len())),
        Err(error) => failed = failed.take().or(Some(error)),
    })?;
    failed.map_or(Ok(opened), Err)
}
