// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a record log.

use std::{io, path::PathBuf};

/// A record log cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordLogError {
    /// The file or its directory cannot be read or written.
    #[error("record log '{path}': cannot {action}", path = path.display())]
    Io {
        /// Path of the log.
        path: PathBuf,
        /// The operation that failed, as a verb phrase.
        action: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// The log is open already, in this process or another.
    #[error("record log '{path}': in use by another process; set another directory (state_directory)", path = path.display())]
    Locked {
        /// Path of the log.
        path: PathBuf,
    },
    /// The file is not a record log, or one of another version.
    #[error("record log '{path}': does not start with the magic of a posthorn record log, version 2", path = path.display())]
    NotALog {
        /// Path of the log.
        path: PathBuf,
    },
    /// The log is damaged where it must be whole; nothing was changed.
    #[error("record log '{path}': damaged at byte {offset}, must be whole to its end, {bytes} bytes on; restore it, or move it and those after it away", path = path.display())]
    Damaged {
        /// Path of the log.
        path: PathBuf,
        /// Where the first bad record starts.
        offset: u64,
        /// Bytes from there to the end of the file.
        bytes: u64,
    },
    /// The record is larger than the log's bound; nothing was written.
    #[error("record log '{path}': record of {bytes} bytes, must be at most {max}", path = path.display())]
    TooLarge {
        /// Path of the log.
        path: PathBuf,
        /// Size of the record, bytes.
        bytes: usize,
        /// Largest record allowed, bytes.
        max: usize,
    },
    /// An earlier write or sync failed; recover the log or reopen it.
    #[error("record log '{path}': refuses to go on after a failed write or sync, must be recovered", path = path.display())]
    Poisoned {
        /// Path of the log.
        path: PathBuf,
    },
}

impl RecordLogError {
    /// Whether the disk, a quota or the file size limit is exhausted, so that a retry helps once there is room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
