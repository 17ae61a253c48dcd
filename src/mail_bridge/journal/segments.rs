//! The files of the journal: opening, appending, rotating, retiring. Blocking.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::{
    index::{Index, Place},
    record::Record,
    store::{JournalError, Settings, lock},
};
use crate::{
    mail::{Action, Disposition},
    mail_bridge::params::MESSAGE_BYTES,
    record_log::{Each, FILE_MODE, RecordLog, RecordLogError, create_directory},
};

/// Bound of a record: a mail and its envelope.
const RECORD_BYTES: usize = MESSAGE_BYTES as usize + 1024 * 1024;
/// Identities in one `Remembered` record.
const REMEMBERED_CHUNK: usize = 10_000;

pub(super) struct Segments {
    settings: Settings,
    /// Older segments and their sizes, bytes.
    older: BTreeMap<u64, u64>,
    number: u64,
    current: RecordLog,
    /// Held until dropped: one owner.
    _lock: File,
}

impl Segments {
    /// Opens the directory and fills `index`; also gives the bytes of the torn tail that were cut. Only the last segment
    /// may have one, as a segment is synced before the next is made.
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
            let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok());
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
        Ok((Self { settings, older, number, current, _lock: lock }, torn_bytes))
    }

    pub(super) fn append(&mut self, record: &Record) -> Result<Place, JournalError> {
        let bytes = record.encode();
        let offset = self.current.append(&bytes)?;
        Ok(Place { segment: self.number, offset, bytes: bytes.len() })
    }

    pub(super) fn sync(&mut self) -> Result<(), JournalError> {
        Ok(self.current.sync()?)
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

    /// Seals the current segment and starts a new one.
    pub(super) fn rotate(&mut self) -> Result<(), JournalError> {
        self.current.seal()?;
        let next = self.number.saturating_add(1);
        let (log, _) = RecordLog::open(&path(&self.settings.directory, next), RECORD_BYTES)?;
        self.older.insert(self.number, self.current.len_bytes());
        self.current = log;
        self.number = next;
        Ok(())
    }

    /// The oldest segment, if it is to be retired.
    pub(super) fn retirable(&self, index: &Index) -> Option<u64> {
        let (&oldest, &bytes) = self.older.first_key_value()?;
        let spare = self.older.len() > self.settings.keep_segments;
        (spare && index.live_bytes(oldest).saturating_mul(2) <= bytes).then_some(oldest)
    }

    /// Saves what is needed of a segment and deletes it. A crash in between leaves both, which `Index::apply` allows.
    /// `index` is locked for each record, not for the reading.
    pub(super) fn retire(&mut self, number: u64, index: &Mutex<Index>) -> Result<(), JournalError> {
        let file = path(&self.settings.directory, number);
        let (mut mails, mut keys) = (Vec::new(), Vec::new());
        let recovered = RecordLog::read(&file, RECORD_BYTES)?;
        if recovered.torn_bytes > 0 {
            // Damaged since it was opened: what is behind the damage is not to be deleted unseen.
            let bytes = recovered.torn_bytes;
            let offset = self.older.get(&number).map_or(0, |length| length.saturating_sub(bytes));
            return Err(RecordLogError::Damaged { path: file, offset, bytes }.into());
        }
        for bytes in recovered.records {
            let record = decode(&file, &bytes)?;
            let mut index = lock(index);
            match &record {
                Record::Accepted(mail)
                    if index.mail(&mail.id).is_some_and(|place| place.segment == number) =>
                {
                    if index.is_unsettled(&mail.id) {
                        self.move_to_end(&record, &mut index)?;
                    } else if index.is_passed_on(&mail.id) {
                        // Its forward is not sent yet. Settled again behind it, else it would come again after a restart.
                        let settled = Disposition {
                            mail_id: mail.id,
                            action: Action::Forwarded,
                            reason: "kept for its forward".to_owned(),
                        };
                        self.move_to_end(&record, &mut index)?;
                        self.move_to_end(&Record::Settled(settled), &mut index)?;
                    } else {
                        mails.push(mail.id);
                    }
                }
                Record::Queued(_, mail) => {
                    let key = super::OutboundKey::of(mail);
                    if index.outbound(&key).is_none_or(|place| place.segment != number) {
                        continue;
                    }
                    if index.is_pending(&key) {
                        let attempt = index.attempt(&key).cloned();
                        self.move_to_end(&record, &mut index)?;
                        if let Some(attempt) = attempt {
                            self.move_to_end(&Record::Attempted(attempt), &mut index)?;
                        }
                    } else {
                        keys.push(key);
                    }
                }
                Record::Remembered(old_mails, old_keys) => {
                    mails.extend(old_mails.iter().filter(|id| index.is_remembered(id)));
                    keys.extend(old_keys.iter().filter(|key| index.is_remembered_key(key)));
                }
                _ => {}
            }
        }
        for chunk in mails.chunks(REMEMBERED_CHUNK) {
            self.move_to_end(&Record::Remembered(chunk.to_vec(), Vec::new()), &mut lock(index))?;
        }
        for chunk in keys.chunks(REMEMBERED_CHUNK) {
            self.move_to_end(&Record::Remembered(Vec::new(), chunk.to_vec()), &mut lock(index))?;
        }
        self.sync()?;
        fs::remove_file(&file).map_err(|source| JournalError::Segment {
            path: file,
            action: "delete",
            source,
        })?;
        self.older.remove(&number);
        Ok(())
    }

    fn move_to_end(&mut self, record: &Record, index: &mut Index) -> Result<(), JournalError> {
        let place = self.append(record)?;
        index.apply(record, place);
        Ok(())
    }
}

/// The record at a place. `None`: the segment was deleted meanwhile.
pub(super) fn read(directory: &Path, place: Place) -> Result<Option<Record>, JournalError> {
    let path = path(directory, place.segment);
    match RecordLog::read_one(&path, place.offset, RECORD_BYTES) {
        Err(RecordLogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => decode(&path, &bytes?).map(Some),
    }
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}.log"))
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Record, JournalError> {
    Record::decode(bytes).map_err(|source| JournalError::Record { path: path.to_owned(), source })
}

/// Fills `index` from a segment that `open` opens.
fn restore<T>(
    path: &Path,
    number: u64,
    index: &mut Index,
    open: impl FnOnce(Each<'_>) -> Result<T, RecordLogError>,
) -> Result<T, JournalError> {
    let mut failed = None;
    let opened = open(&mut |offset, bytes| match decode(path, bytes) {
        Ok(record) => index.apply(&record, Place { segment: number, offset, bytes: bytes.len() }),
        Err(error) => failed = failed.take().or(Some(error)),
    })?;
    failed.map_or(Ok(opened), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::MailId;

    #[test]
    fn a_segment_damaged_since_it_was_opened_is_not_retired() {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            Settings { directory: dir.path().to_owned(), segment_bytes: 1, keep_segments: 0, remembered: 9 };
        let mut index = Index::new(9);
        let (mut segments, _) = Segments::open(settings, &mut index).unwrap();
        let record = Record::Remembered(vec![MailId::of(b"one")], Vec::new());
        let place = segments.append(&record).unwrap();
        index.apply(&record, place);
        segments.sync().unwrap();
        segments.rotate().unwrap();
        let first = path(dir.path(), 1);
        let mut bytes = fs::read(&first).unwrap();
        bytes[60] ^= 1;
        fs::write(&first, &bytes).unwrap();
        let index = Mutex::new(index);
        let error = segments.retire(1, &index).unwrap_err();
        assert!(error.to_string().contains("damaged at byte 32,"), "{error}");
        assert_eq!(fs::read(&first).unwrap(), bytes);
    }
}
