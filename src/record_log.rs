//! An append-only file of records that survives `kill -9` and power loss. Pure std; blocking.
//!
//! # What survives
//! `Appended -> Synced`. A record is promised to survive only when [`RecordLog::sync`] has returned after its
//! [`RecordLog::append`]; before that it may be lost, wholly, together with everything appended after it. Records
//! come back in the order appended, without gaps. Append many and sync once: that is group commit.
//!
//! # After a failure
//! When a write or a sync fails the kernel may have dropped the pages and a second sync would lie ("fsyncgate").
//! So the log is poisoned: it cuts the file back to what was synced, as far as the disk lets it, and MUST refuse
//! every further append and sync. The owner ends, or opens the log again: opening checks every record, cuts a torn
//! tail, and syncs what it recovered before it returns it.
//!
//! # Format
//! A 16-byte magic, then records: length (`u32`, little-endian), CRC-32 (`u32`, little-endian) over the length's
//! bytes and the payload, payload. The length is under the checksum, so a tail of zeros is no record.
//! Reading stops at the first record that is cut short or damaged; the bytes from there on are the torn tail. They
//! are cut from the log and kept in `<path>.torn` (which holds the latest tail only), for a person to look at.
//!
//! Files are made for their owner only: mails and evidence are nobody else's. What exists keeps its mode.
//!
//! What it does not do: read a record again (its owner keeps what it needs), compact, or notice a disk that lies.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 16] = b"posthorn log 1\n\0";
/// Length and checksum.
const HEAD_BYTES: usize = 8;
/// Mode of a new file: its owner only.
pub(crate) const FILE_MODE: u32 = 0o600;
/// Mode of a new directory: its owner only.
const DIRECTORY_MODE: u32 = 0o700;
/// Appended records are handed to the kernel when this much is buffered, bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// A record log that cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordLogError {
    /// The file or its directory cannot be read or written.
    #[error("record log '{path}': cannot {action}", path = path.display())]
    Io {
        /// The log.
        path: PathBuf,
        /// What failed.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Another process, or another part of this one, has it open.
    #[error("record log '{path}': in use by another process; set another directory (state_directory)", path = path.display())]
    Locked {
        /// The log.
        path: PathBuf,
    },
    /// The file is something else, or of another version.
    #[error("record log '{path}': does not start with the magic of a posthorn record log, version 1", path = path.display())]
    NotALog {
        /// The log.
        path: PathBuf,
    },
    /// Damaged, where it must be whole; nothing was changed.
    #[error("record log '{path}': damaged at byte {offset}, must be whole to its end, {bytes} bytes on; restore it, or move it and those after it away", path = path.display())]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Where the first bad record starts.
        offset: u64,
        /// Bytes from there to the end.
        bytes: u64,
    },
    /// A record larger than the bound the log was opened with; nothing was written.
    #[error("record log '{path}': record of {bytes} bytes, must be at most {max}", path = path.display())]
    TooLarge {
        /// The log.
        path: PathBuf,
        /// Size of the record.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// An earlier write or sync failed; open the log again.
    #[error("record log '{path}': refuses to go on after a failed write or sync, must be opened again", path = path.display())]
    Poisoned {
        /// The log.
        path: PathBuf,
    },
}

/// What was in a log when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The records, in the order appended.
    pub records: Vec<Vec<u8>>,
    /// Bytes of the torn tail that were cut, 0 after a clean end.
    pub torn_bytes: u64,
}

/// An open log, locked exclusively until dropped. Records that were not synced are lost when it is dropped.
#[derive(Debug)]
pub struct RecordLog {
    path: PathBuf,
    file: File,
    max_record_bytes: usize,
    /// Appended, not yet handed to the kernel.
    buffer: Vec<u8>,
    /// Length of the file that is known to be on disk.
    synced: u64,
    /// Length of the file with what the kernel has.
    written: u64,
    poisoned: bool,
}

impl RecordLog {
    /// Opens the log at `path`, creates it if it is missing, and recovers its records. What is returned is on disk.
    ///
    /// # Errors
    /// If the file cannot be read, written or locked, or is not a record log. `max_record_bytes` must not be less
    /// than it was before: a larger record is taken for damage.
    pub fn open(path: &Path, max_record_bytes: usize) -> Result<(Self, Recovered), RecordLogError> {
        Self::open_if(path, max_record_bytes, |_, _| true)
    }

    /// Like [`open`](Self::open), for a log that was ended with a sync: damage is no torn tail but lost records.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and [`RecordLogError::Damaged`] if anything in it is no record.
    pub fn open_whole(path: &Path, max_record_bytes: usize) -> Result<(Self, Recovered), RecordLogError> {
        Self::open_if(path, max_record_bytes, |valid, torn| valid > 0 && torn == 0)
    }

    /// Opens the log if `allowed` says so of the bytes that are valid and those that are torn.
    fn open_if(
        path: &Path,
        max_record_bytes: usize,
        allowed: impl Fn(u64, u64) -> bool,
    ) -> Result<(Self, Recovered), RecordLogError> {
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
        let (valid, recovered) = scan(path, &file, max_record_bytes)?;
        if !allowed(valid, recovered.torn_bytes) {
            let bytes = recovered.torn_bytes;
            return Err(RecordLogError::Damaged { path: path.to_owned(), offset: valid, bytes });
        }
        if valid == 0 {
            // New, or torn while it was made.
            file.set_len(0).map_err(failed("truncate"))?;
            file.seek(SeekFrom::Start(0)).map_err(failed("seek"))?;
            file.write_all(MAGIC).map_err(failed("write"))?;
        } else if recovered.torn_bytes > 0 {
            keep_torn(path, &mut file, valid).map_err(failed("keep the torn tail of"))?;
            file.set_len(valid).map_err(failed("truncate"))?;
        }
        // A predecessor may have been killed between write and sync.
        file.sync_all().map_err(failed("sync"))?;
        sync_directory(path).map_err(failed("sync the directory of"))?;
        let end = file.seek(SeekFrom::End(0)).map_err(failed("seek"))?;
        let log = Self {
            path: path.to_owned(),
            file,
            max_record_bytes,
            buffer: Vec::new(),
            synced: end,
            written: end,
            poisoned: false,
        };
        Ok((log, recovered))
    }

    /// The records of a log that somebody else may be writing: takes no lock, changes nothing. A record that is
    /// being written counts as torn.
    ///
    /// # Errors
    /// If the file cannot be read or is not a record log.
    pub fn read(path: &Path, max_record_bytes: usize) -> Result<Recovered, RecordLogError> {
        let file = File::open(path).map_err(|source| RecordLogError::Io {
            path: path.to_owned(),
            action: "open",
            source,
        })?;
        scan(path, &file, max_record_bytes).map(|(_, recovered)| recovered)
    }

    /// Adds a record. It MUST NOT be taken for durable before [`sync`](Self::sync) has returned.
    ///
    /// # Errors
    /// [`RecordLogError::TooLarge`] leaves the log as it was; any other error poisons it.
    pub fn append(&mut self, record: &[u8]) -> Result<(), RecordLogError> {
        self.check_poison()?;
        let too_large = || RecordLogError::TooLarge {
            path: self.path.clone(),
            bytes: record.len(),
            max: self.max_record_bytes,
        };
        if record.len() > self.max_record_bytes {
            return Err(too_large());
        }
        let length = u32::try_from(record.len()).map_err(|_| too_large())?.to_le_bytes();
        self.buffer.extend_from_slice(&length);
        self.buffer.extend_from_slice(&checksum(length, record).to_le_bytes());
        self.buffer.extend_from_slice(record);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Returns when everything appended is on disk. Costs nothing if nothing was appended.
    ///
    /// # Errors
    /// Any error poisons the log; the records appended since the last sync are gone.
    pub fn sync(&mut self) -> Result<(), RecordLogError> {
        self.check_poison()?;
        self.flush()?;
        if self.synced == self.written {
            return Ok(());
        }
        if let Err(source) = self.file.sync_data() {
            return Err(self.poison("sync", source));
        }
        self.synced = self.written;
        Ok(())
    }

    /// Where the log is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the log with everything appended, bytes.
    pub fn len_bytes(&self) -> u64 {
        self.written.saturating_add(self.buffer.len() as u64)
    }

    fn flush(&mut self) -> Result<(), RecordLogError> {
        if let Err(source) = self.file.write_all(&self.buffer) {
            return Err(self.poison("write", source));
        }
        self.written = self.written.saturating_add(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    fn check_poison(&self) -> Result<(), RecordLogError> {
        if self.poisoned { Err(RecordLogError::Poisoned { path: self.path.clone() }) } else { Ok(()) }
    }

    /// Refuses from now on, and cuts off what a later open could take for synced.
    fn poison(&mut self, action: &'static str, source: io::Error) -> RecordLogError {
        self.poisoned = true;
        self.buffer.clear();
        // The disk has just failed: this may as well, and then the checksums are left.
        let _ = self.file.set_len(self.synced);
        RecordLogError::Io { path: self.path.clone(), action, source }
    }
}

/// Length of the valid part (0: not even the magic) and what is in it.
fn scan(path: &Path, file: &File, max_record_bytes: usize) -> Result<(u64, Recovered), RecordLogError> {
    let failed = |source| RecordLogError::Io { path: path.to_owned(), action: "read", source };
    let length = file.metadata().map_err(failed)?.len();
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    let mut magic = Vec::new();
    (&mut reader).take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(failed)?;
    if magic.len() < MAGIC.len() && MAGIC.starts_with(&magic) {
        return Ok((0, Recovered { records: Vec::new(), torn_bytes: length }));
    }
    if magic != MAGIC {
        return Err(RecordLogError::NotALog { path: path.to_owned() });
    }
    let mut valid = MAGIC.len() as u64;
    let mut records = Vec::new();
    while let Some(record) = read_record(&mut reader, max_record_bytes).map_err(failed)? {
        valid = valid.saturating_add((HEAD_BYTES + record.len()) as u64);
        records.push(record);
    }
    Ok((valid, Recovered { records, torn_bytes: length.saturating_sub(valid) }))
}

/// The next record, or none at the end or at the first damage.
fn read_record(reader: &mut impl Read, max_record_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let (mut length, mut crc) = ([0; 4], [0; 4]);
    for field in [&mut length, &mut crc] {
        match reader.read_exact(field) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
    }
    let bytes = u32::from_le_bytes(length);
    if bytes as usize > max_record_bytes {
        return Ok(None);
    }
    let mut record = Vec::new();
    reader.take(u64::from(bytes)).read_to_end(&mut record)?;
    let whole = record.len() == bytes as usize && checksum(length, &record) == u32::from_le_bytes(crc);
    Ok(whole.then_some(record))
}

fn checksum(length: [u8; 4], record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(record);
    hasher.finalize()
}

/// On disk when it returns, as the tail is cut next.
fn keep_torn(path: &Path, file: &mut File, valid: u64) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".torn");
    file.seek(SeekFrom::Start(valid))?;
    let mut torn = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(name)?;
    io::copy(file, &mut torn)?;
    torn.sync_all()?;
    sync_directory(path)
}

/// Makes a directory, and those above it that are missing, for its owner only.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Syncs the directory that holds `path`, so that a file created or renamed there stays there.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn open(path: &Path) -> (RecordLog, Recovered) {
        RecordLog::open(path, 1000).unwrap()
    }

    fn written(path: &Path, records: &[&[u8]]) {
        let (mut log, _) = open(path);
        for record in records {
            log.append(record).unwrap();
        }
        log.sync().unwrap();
    }

    #[test]
    fn recovers_what_was_synced_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        written(&path, &[b"one", b"", b"three"]);
        written(&path, &[b"four"]);
        let (_log, recovered) = open(&path);
        assert_eq!(recovered.records, [&b"one"[..], b"", b"three", b"four"]);
        assert_eq!(recovered.torn_bytes, 0);
    }

    #[test]
    fn cut_anywhere_keeps_every_whole_record_and_reports_and_keeps_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        written(&path, &[b"one", b"twotwo"]);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (log, recovered) = open(&path);
            let expected = usize::from(cut >= 16 + 11);
            assert_eq!(recovered.records.len(), expected, "cut at {cut}");
            let valid = if cut < 16 { 0 } else { 16 + 11 * expected };
            assert_eq!(recovered.torn_bytes, (cut - valid) as u64, "cut at {cut}");
            if cut > 16 && recovered.torn_bytes > 0 {
                assert_eq!(fs::read(dir.path().join("log.torn")).unwrap(), whole[valid..cut]);
            }
            drop(log);
            written(&path, &[b"next"]);
            assert_eq!(open(&path).1.records.len(), expected + 1);
        }
    }

    #[test]
    fn a_log_that_must_be_whole_is_refused_as_it_is_when_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        written(&path, &[b"one", b"two"]);
        let whole = fs::read(&path).unwrap();
        assert_eq!(RecordLog::open_whole(&path, 1000).unwrap().1.records.len(), 2);
        let mut flipped = whole.clone();
        flipped[16 + 8] ^= 1;
        for (bytes, at) in
            [(&flipped[..], 16), (&whole[..whole.len() - 1], 16 + 11), (&whole[..7], 0), (&[], 0)]
        {
            fs::write(&path, bytes).unwrap();
            let error = RecordLog::open_whole(&path, 1000).unwrap_err();
            assert!(matches!(error, RecordLogError::Damaged { offset, .. } if offset == at), "{error}");
            assert!(
                error.to_string().contains(&format!("{}': damaged at byte {at},", path.display())),
                "{error}"
            );
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn what_is_made_is_its_owners_only_and_what_exists_is_left() {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let made = dir.path().join("state/journal");
        create_directory(&made).unwrap();
        create_directory(&made).unwrap();
        assert_eq!(mode(dir.path()), 0o755);
        assert_eq!((mode(made.parent().unwrap()), mode(&made)), (0o700, 0o700));
        let path = made.join("log");
        written(&path, &[b"one"]);
        fs::write(&path, [&fs::read(&path).unwrap()[..], b"torn"].concat()).unwrap();
        assert_eq!(open(&path).1.torn_bytes, 4);
        assert_eq!((mode(&path), mode(&made.join("log.torn"))), (0o600, 0o600));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        written(&path, &[b"two"]);
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn takes_no_flipped_bit_and_no_zeros_for_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        written(&path, &[b"one"]);
        let whole = fs::read(&path).unwrap();
        for bit in 16 * 8..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, damaged).unwrap();
            assert_eq!(open(&path).1.records.len(), 0, "bit {bit}");
        }
        fs::write(&path, [&whole[..], &[0; 100]].concat()).unwrap();
        assert_eq!(open(&path).1, Recovered { records: vec![b"one".to_vec()], torn_bytes: 100 });
    }

    #[test]
    fn has_one_owner_and_readers_that_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut log, _) = open(&path);
        assert!(matches!(RecordLog::open(&path, 1000), Err(RecordLogError::Locked { .. })));
        log.append(b"one").unwrap();
        assert!(RecordLog::read(&path, 1000).unwrap().records.is_empty());
        log.sync().unwrap();
        assert_eq!(RecordLog::read(&path, 1000).unwrap().records, [b"one"]);
        drop(log);
        assert_eq!(open(&path).1.records, [b"one"]);
    }

    #[test]
    fn refuses_a_record_over_the_bound_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut log, _) = open(&path);
        assert!(matches!(log.append(&[0; 1001]), Err(RecordLogError::TooLarge { .. })));
        log.append(&[0; 1000]).unwrap();
        log.sync().unwrap();
        drop(log);
        assert_eq!(open(&path).1.records.len(), 1);
    }

    #[test]
    fn leaves_a_file_alone_that_is_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "a letter to somebody else").unwrap();
        assert!(matches!(RecordLog::open(&path, 1000), Err(RecordLogError::NotALog { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"a letter to somebody else");
    }

    #[test]
    fn refuses_everything_after_a_failed_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        written(&path, &[b"one"]);
        let (mut log, _) = open(&path);
        // A handle that cannot write fails as a full disk does.
        log.file = File::open(&path).unwrap();
        log.append(b"two").unwrap();
        assert!(matches!(log.sync(), Err(RecordLogError::Io { action: "write", .. })));
        assert!(matches!(log.append(b"three"), Err(RecordLogError::Poisoned { .. })));
        assert!(matches!(log.sync(), Err(RecordLogError::Poisoned { .. })));
        drop(log);
        assert_eq!(open(&path).1.records, [b"one"]);
    }
}
