// SPDX-License-Identifier: Apache-2.0
//! How far a folder was read, on disk, and which mails it had.
//!
//! # Guarantees
//! - A message is recorded only after its mail is on disk in the journal. A crash in between fetches it again, and the
//!   journal knows it by its digest.
//! - When UIDVALIDITY changes, all UIDs do; the digests of what was fetched before stay, so that no mail comes twice.
//!
//! One [`RecordLog`] a folder, `imap/<account>-<digest of the folder's name>.log` in the journal's directory: 36 bytes a message.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use mail::MailId;
use record_log::{HEADER_BYTES, RecordLog, RecordLogError, create_directory};
use serde_indexed::{DeserializeIndexed, SerializeIndexed};
use sha2::{Digest, Sha256};

/// Largest record, bytes: of more messages than are fetched with one command.
const RECORD_BYTES: usize = 1 << 20;
/// Messages in a record.
const RECORD_MESSAGES: usize = 20_000;
/// UID and digest of a message.
const MESSAGE_BYTES: usize = 36;

/// The progress of a folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    /// The directory cannot be made or used.
    #[error("directory '{path}' cannot be used: {source}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] RecordLogError),
    /// A record is not one of ours.
    #[error("'{path}': a record cannot be read; move the file away, and the folder is read as for the first time", path = path.display())]
    Record {
        /// The log.
        path: PathBuf,
    },
}

/// Where a folder's UIDs come from; if any of it changes, they mean other messages.
#[derive(Clone, Debug, PartialEq, Eq, SerializeIndexed, DeserializeIndexed)]
pub struct Numbering {
    /// Server and user.
    #[serde(index = 1)]
    pub mailbox: String,
    /// Name of the folder.
    #[serde(index = 2)]
    pub folder: String,
    /// UIDVALIDITY.
    #[serde(index = 3)]
    pub uid_validity: u32,
}

/// How far a folder was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// What the UIDs mean.
    pub numbering: Numbering,
    /// Everything up to this UID is in the journal, or was not wanted.
    pub through: u32,
    /// The day on which the folder was read for the first time, as ISO 8601 writes it.
    pub since: String,
    /// Messages up to this UID may be mails that came before, with other UIDs; 0 if there were none.
    pub again_through: u32,
}

/// UIDs begin, anew or for the first time.
#[derive(SerializeIndexed, DeserializeIndexed)]
struct Began {
    #[serde(index = 1)]
    numbering: Numbering,
    #[serde(index = 2)]
    through: u32,
    #[serde(index = 3)]
    since: String,
    #[serde(index = 4)]
    again_through: u32,
}

/// Messages whose mails are in the journal.
#[derive(SerializeIndexed, DeserializeIndexed)]
struct Fetched {
    #[serde(index = 1)]
    through: u32,
    #[serde(index = 2, with = "serde_bytes")]
    messages: Vec<u8>,
}

const BEGAN: u8 = 1;
const FETCHED: u8 = 2;

enum Record {
    Began(Began),
    Fetched(Fetched),
}

/// The progress of one folder; it has the log to itself until it is dropped.
pub struct Progress {
    log: RecordLog,
    cursor: Option<Cursor>,
}

impl Progress {
    /// Opens the log of a folder. Blocking.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn open(journal: &Path, account: &str, folder: &str) -> Result<Self, ProgressError> {
        let directory = journal.join("imap");
        create_directory(&directory)
            .map_err(|source| ProgressError::Directory { path: directory.clone(), source })?;
        let digest = MailId::from_bytes(Sha256::digest(folder).into()).to_string();
        let path = directory.join(format!("{account}-{}.log", digest.get(..16).unwrap_or_default()));
        let (mut cursor, mut is_ours) = (None, true);
        let (log, _) = RecordLog::open_each(&path, RECORD_BYTES, &mut |_, record| match read(record) {
            Some(record) => advance(&mut cursor, record),
            None => is_ours = false,
        })?;
        if is_ours { Ok(Self { log, cursor }) } else { Err(ProgressError::Record { path }) }
    }

    /// How far the folder was read; `None` if it never was.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Begins to read the folder, for the first time or with new UIDs. On disk when this returns. Blocking.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(&mut self, cursor: Cursor) -> Result<(), ProgressError> {
        let Cursor { numbering, through, since, again_through } = cursor;
        self.append(BEGAN, &Began { numbering, through, since, again_through })
    }

    /// Records messages whose mails are on disk, and that nothing else up to `through` is missing. On disk when this
    /// returns. Blocking.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn fetched(&mut self, through: u32, messages: &[(u32, MailId)]) -> Result<(), ProgressError> {
        let bytes_of = |some: &[(u32, MailId)]| -> Vec<u8> {
            some.iter().flat_map(|(uid, id)| uid.to_le_bytes().into_iter().chain(*id.as_bytes())).collect()
        };
        let (most, rest) = messages.split_at(messages.len().saturating_sub(RECORD_MESSAGES));
        for some in most.chunks(RECORD_MESSAGES) {
            self.append(FETCHED, &Fetched { through: 0, messages: bytes_of(some) })?;
        }
        // Only the last record says that nothing is missing.
        self.append(FETCHED, &Fetched { through, messages: bytes_of(rest) })
    }

    fn append<T: serde::Serialize>(&mut self, kind: u8, value: &T) -> Result<(), ProgressError> {
        let path = self.log.path().to_owned();
        // An earlier write may have failed.
        self.log.recover()?;
        let record = cbor4ii::serde::to_vec(vec![kind], value)
            .map_err(|_| ProgressError::Record { path: path.clone() })?;
        self.log.append(&record)?;
        self.log.sync()?;
        let record = read(&record).ok_or(ProgressError::Record { path })?;
        advance(&mut self.cursor, record);
        Ok(())
    }

    /// Digests of all mails that the folder ever had. Blocking.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn known(&self) -> Result<HashSet<MailId>, ProgressError> {
        let mut known = HashSet::new();
        self.each(&mut |record| {
            if let Record::Fetched(fetched) = record {
                known.extend(fetched.messages().map(|(_, id)| id));
            }
        })?;
        Ok(known)
    }

    /// The mails that these messages are, of those that were fetched. Blocking.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn ids_of(&self, uids: &HashSet<u32>) -> Result<HashMap<u32, MailId>, ProgressError> {
        let (mut ids, mut numbering) = (HashMap::new(), None);
        self.each(&mut |record| match record {
            // UIDs from before mean other messages: all of them, or those that went back.
            Record::Began(began) => {
                let is_new = numbering.as_ref() != Some(&began.numbering);
                ids.retain(|uid, _| !is_new && *uid <= began.through);
                numbering = Some(began.numbering);
            }
            Record::Fetched(fetched) => ids.extend(fetched.messages().filter(|(uid, _)| uids.contains(uid))),
        })?;
        Ok(ids)
    }

    fn each(&self, each: &mut dyn FnMut(Record)) -> Result<(), ProgressError> {
        self.log.read_range(HEADER_BYTES, self.log.len_bytes(), &mut |_, record| {
            if let Some(record) = read(record) {
                each(record);
            }
        })?;
        Ok(())
    }
}

impl Fetched {
    fn messages(&self) -> impl Iterator<Item = (u32, MailId)> {
        self.messages.chunks_exact(MESSAGE_BYTES).filter_map(|message| {
            let (uid, id) = message.split_first_chunk()?;
            Some((u32::from_le_bytes(*uid), MailId::from_bytes(id.try_into().ok()?)))
        })
    }
}

fn read(record: &[u8]) -> Option<Record> {
    let (kind, value) = record.split_first()?;
    match *kind {
        BEGAN => cbor4ii::serde::from_slice(value).ok().map(Record::Began),
        FETCHED => cbor4ii::serde::from_slice(value).ok().map(Record::Fetched),
        _ => None,
    }
}

fn advance(cursor: &mut Option<Cursor>, record: Record) {
    match (record, cursor) {
        (Record::Began(Began { numbering, through, since, again_through }), cursor) => {
            *cursor = Some(Cursor { numbering, through, since, again_through });
        }
        (Record::Fetched(fetched), Some(cursor)) => cursor.through = cursor.through.max(fetched.through),
        (Record::Fetched(_), None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbering(uid_validity: u32) -> Numbering {
        Numbering { mailbox: "a@mail.example".into(), folder: "INBOX".into(), uid_validity }
    }

    fn cursor(uid_validity: u32, through: u32) -> Cursor {
        Cursor { numbering: numbering(uid_validity), through, since: "2026-11-23".into(), again_through: 0 }
    }

    #[test]
    fn is_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Progress::open(dir.path(), "dispatch", "INBOX").unwrap();
        let ids: Vec<_> = (0..3_u8).map(|n| MailId::of(&[n])).collect();
        let mut progress = open();
        assert_eq!(progress.cursor(), None);
        progress.begin(cursor(7, 10)).unwrap();
        progress.fetched(12, &[(11, ids[0]), (12, ids[1])]).unwrap();
        progress.fetched(20, &[]).unwrap();
        drop(progress);

        let mut progress = open();
        assert_eq!(progress.cursor(), Some(&cursor(7, 20)));
        assert_eq!(progress.ids_of(&HashSet::from([12, 13])).unwrap(), HashMap::from([(12, ids[1])]));
        progress.begin(cursor(8, 0)).unwrap();
        progress.fetched(1, &[(1, ids[2])]).unwrap();
        drop(progress);

        let progress = open();
        assert_eq!(progress.cursor(), Some(&cursor(8, 1)));
        assert_eq!(progress.ids_of(&HashSet::from([1, 12])).unwrap(), HashMap::from([(1, ids[2])]));
        assert_eq!(progress.known().unwrap(), ids.into_iter().collect());
        let many: Vec<_> = (2..60_002).map(|uid| (uid, MailId::of(&[7]))).collect();
        let mut progress = progress;
        progress.fetched(60_001, &many).unwrap();
        drop(progress);
        let progress = open();
        assert_eq!(progress.cursor(), Some(&cursor(8, 60_001)));
        assert_eq!(progress.ids_of(&HashSet::from([2, 30_000, 60_001])).unwrap().len(), 3);
        let mut progress = progress;
        progress.begin(cursor(8, 2)).unwrap();
        assert_eq!(progress.ids_of(&HashSet::from([1, 2, 3])).unwrap().len(), 2, "3 went back");
        let other = Progress::open(dir.path(), "dispatch", "Archive/2026").unwrap();
        assert_eq!(other.cursor(), None);
    }
}
