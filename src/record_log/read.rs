// SPDX-License-Identifier: Apache-2.0
//! Reads record logs without opening them for writing.

use std::{fs::File, io, path::Path};

use crate::{
    Each, HEADER_BYTES, RecordLog, RecordLogError, Recovered,
    format::{self, Scan, Start},
};

impl RecordLog {
    /// Reads the records of a log that may be open for writing elsewhere: takes no lock, changes nothing. A record
    /// that is still being written counts as torn.
    ///
    /// # Errors
    /// If the file cannot be read, is not a record log, or is damaged.
    pub fn read(path: &Path, max_record_bytes: usize) -> Result<Recovered, RecordLogError> {
        let mut records = Vec::new();
        let torn_bytes =
            Self::read_each(path, max_record_bytes, &mut |_, record| records.push(record.to_vec()))?;
        Ok(Recovered { records, torn_bytes })
    }

    /// Like [`read`](Self::read), but passes the records to `each` one by one, even if the log then turns out to be
    /// damaged. Returns the bytes of the torn tail.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub fn read_each(path: &Path, max_record_bytes: usize, each: Each<'_>) -> Result<u64, RecordLogError> {
        let file = open_to_read(path)?;
        let (_, found) = find(path, &file, max_record_bytes, HEADER_BYTES, each)?;
        if found.damaged { Err(damaged(path, found)) } else { Ok(found.torn) }
    }

    /// Reads the record at `offset` of the log at `path`, which may be open for writing elsewhere.
    ///
    /// # Errors
    /// If the file cannot be read, or has no intact record of at most `max_record_bytes` there.
    pub fn read_one(path: &Path, offset: u64, max_record_bytes: usize) -> Result<Vec<u8>, RecordLogError> {
        let failed = |source| RecordLogError::Io { path: path.to_owned(), action: "read", source };
        let file = open_to_read(path)?;
        let length = file.metadata().map_err(failed)?.len();
        let record = match format::read_start(&file, length).map_err(failed)? {
            Start::Log(nonce) => {
                format::read_record(&file, nonce, offset, max_record_bytes).map_err(failed)?
            }
            _ => None,
        };
        record.ok_or_else(|| RecordLogError::Damaged {
            path: path.to_owned(),
            offset,
            bytes: length.saturating_sub(offset),
        })
    }

    /// The [`nonce`](Self::nonce) and the length of the log at `path`, if there is one.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn peek(path: &Path) -> Result<Option<(u64, u64)>, RecordLogError> {
        let failed = |source| RecordLogError::Io { path: path.to_owned(), action: "read", source };
        let file = match open_to_read(path) {
            Err(RecordLogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            file => file?,
        };
        let length = file.metadata().map_err(failed)?.len();
        match format::read_start(&file, length).map_err(failed)? {
            Start::Log(nonce) => Ok(Some((nonce, length))),
            _ => Ok(None),
        }
    }
}

fn open_to_read(path: &Path) -> Result<File, RecordLogError> {
    File::open(path).map_err(|source| RecordLogError::Io { path: path.to_owned(), action: "open", source })
}

/// Reads how the file starts, and scans it from `from` on.
pub(super) fn find(
    path: &Path,
    file: &File,
    max: usize,
    from: u64,
    each: Each<'_>,
) -> Result<(Start, Scan), RecordLogError> {
    let failed = |source| RecordLogError::Io { path: path.to_owned(), action: "read", source };
    let length = file.metadata().map_err(failed)?.len();
    let start = format::read_start(file, length).map_err(failed)?;
    let nothing =
        Scan { valid: HEADER_BYTES, batch: HEADER_BYTES, marked: false, torn: length, damaged: false };
    let found = match start {
        _ if length < from && from > HEADER_BYTES => {
            Scan { valid: length, torn: 0, damaged: true, ..nothing }
        }
        Start::Log(nonce) => format::scan(file, nonce, (from, length), max, each).map_err(failed)?,
        Start::New => nothing,
        Start::Damaged => Scan { valid: 0, damaged: true, ..nothing },
        Start::Other => return Err(RecordLogError::NotALog { path: path.to_owned() }),
    };
    Ok((start, found))
}

pub(super) fn damaged(path: &Path, found: Scan) -> RecordLogError {
    RecordLogError::Damaged { path: path.to_owned(), offset: found.valid, bytes: found.torn }
}
