// SPDX-License-Identifier: Apache-2.0
//! Finds the evidence of an entry: a hash table in a file, built from the evidence log and checked against it.
//! Blocking.
//!
//! # Format
//! A header of 4096 bytes holds magic, nonce, bits, entries, covered and CRC-32. `2^bits` slots of 16 bytes follow,
//! little-endian: a keyed hash of the identity, then the index plus one in 40 bits above 24 bits of checksum. A slot
//! of zeros is empty. The highest bits of a hash name its home slot; its entry goes into the first empty slot
//! from there on. So the table can be doubled in one pass, in order, in bounded memory. At most three quarters of the
//! slots are used.
//!
//! # Durability
//! The evidence log is the source of truth. All evidence below `covered` is in the table on disk. Later evidence is
//! inserted again on opening, which changes nothing if it is there already. After a crash a slot may be stale, so
//! every look-up is compared with the log. A table of another log, or one with a damaged header, is rebuilt. On
//! finding a damaged slot, the code damages the header on purpose, so that the next start rebuilds the table.
//!
//! Reading the log, and inserting what the table lacks, is left to [`super::log`].

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use record_log::{FILE_MODE, sync_directory};
use sha2::{Digest, Sha256};

use crate::Identity;

const MAGIC: &[u8; 16] = b"posthorn index 1";
const HEADER_BYTES: u64 = 4096;
const SLOT_BYTES: usize = 16;
/// log2 of the slots in a new table, which takes 64 KiB.
const FIRST_BITS: u32 = 12;
/// Slots that a look-up reads at once.
const PROBED: usize = 64;
/// Slots that doubling writes at once: 1 MiB.
const WINDOW: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    hash: u64,
    index: u64,
}

/// Where a look-up ended.
enum Found {
    Entry(u64),
    Vacant(u64),
}

/// The open table.
#[derive(Debug)]
pub(super) struct EntryIndex {
    path: PathBuf,
    file: File,
    nonce: u64,
    bits: u32,
    entries: u64,
    covered: u64,
    /// All evidence below this index is in the table, though perhaps not on disk.
    inserted: u64,
}

impl EntryIndex {
    /// Opens the table of the log with this nonce, or creates an empty one sized for `expected` entries. The caller
    /// must insert all evidence from [`covered`](Self::covered) on.
    pub(super) fn open(path: &Path, nonce: u64, expected: u64) -> io::Result<Self> {
        let bits = expected.saturating_mul(2).max(1 << FIRST_BITS).ilog2();
        match File::options().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path, nonce, bits),
            file => match Self::read_header(path, file?, nonce)? {
                Some(index) => Ok(index),
                None => Self::create(path, nonce, bits),
            },
        }
    }

    /// Creates an empty table, replacing any file at `path`.
    fn create(path: &Path, nonce: u64, bits: u32) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
        let index = Self { path: path.to_owned(), file, nonce, bits, entries: 0, covered: 0, inserted: 0 };
        index
            .file
            .set_len(HEADER_BYTES.saturating_add(index.capacity().saturating_mul(SLOT_BYTES as u64)))?;
        Ok(index)
    }

    fn read_header(path: &Path, file: File, nonce: u64) -> io::Result<Option<Self>> {
        let mut header = Vec::new();
        (&file).take(HEADER_BYTES).read_to_end(&mut header)?;
        let number =
            |at: usize| header.get(at..).and_then(|from| from.first_chunk()).copied().map(u64::from_le_bytes);
        let (Some(bits), Some(entries), Some(covered)) = (number(24), number(32), number(40)) else {
            return Ok(None);
        };
        let Some(bits) = u32::try_from(bits).ok().filter(|bits| (FIRST_BITS..40).contains(bits)) else {
            return Ok(None);
        };
        let index = Self { path: path.to_owned(), file, nonce, bits, entries, covered, inserted: covered };
        let length = HEADER_BYTES.saturating_add(index.capacity().saturating_mul(SLOT_BYTES as u64));
        let whole = header.starts_with(&index.header()) && index.file.metadata()?.len() == length;
        Ok(whole.then_some(index))
    }

    fn header(&self) -> Vec<u8> {
        let numbers = [self.nonce, self.bits.into(), self.entries, self.covered].map(u64::to_le_bytes);
        let fields = [&MAGIC[..], &numbers.concat()].concat();
        let crc = crc32fast::hash(&fields).to_le_bytes();
        [&fields[..], &crc].concat()
    }

    fn capacity(&self) -> u64 {
        1 << self.bits
    }

    /// All evidence below this index is in the table on disk.
    pub(super) fn covered(&self) -> u64 {
        self.covered
    }

    /// Returns the index of this entry. `is` asks the log whether an index holds this entry.
    pub(super) fn find<E: From<io::Error>>(
        &self,
        identity: &Identity,
        is: impl FnMut(u64) -> Result<bool, E>,
    ) -> Result<Option<u64>, E> {
        match self.probe(self.hash(identity), is)? {
            Found::Entry(index) => Ok(Some(index)),
            Found::Vacant(_) => Ok(None),
        }
    }

    /// Inserts evidence whose index follows everything inserted before.
    pub(super) fn insert(&mut self, identity: &Identity, index: u64) -> io::Result<()> {
        if self.entries >= self.capacity() / 4 * 3 {
            self.double()?;
        }
        self.put(Entry { hash: self.hash(identity), index })?;
        self.entries = self.entries.saturating_add(1);
        self.inserted = index.saturating_add(1);
        Ok(())
    }

    /// Amount of inserted evidence that the table may lack on disk.
    pub(super) fn uncovered(&self) -> u64 {
        self.inserted.saturating_sub(self.covered)
    }

    /// Syncs everything inserted so far to disk.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        self.covered = self.inserted;
        self.file.write_all_at(&self.header(), 0)?;
        self.file.sync_data()
    }

    /// Keyed, so that nobody can craft entries that share a slot.
    fn hash(&self, identity: &Identity) -> u64 {
        let digest =
            Sha256::new().chain_update(self.nonce.to_le_bytes()).chain_update(identity.as_bytes()).finalize();
        digest.first_chunk().copied().map_or(0, u64::from_le_bytes)
    }

    fn home(&self, hash: u64) -> u64 {
        hash >> 64_u32.saturating_sub(self.bits)
    }

    fn put(&self, entry: Entry) -> io::Result<()> {
        match self.probe::<io::Error>(entry.hash, |index| Ok(index == entry.index))? {
            Found::Entry(_) => Ok(()),
            Found::Vacant(slot) => self.file.write_all_at(&self.encode(entry), at(slot)),
        }
    }

    fn probe<E: From<io::Error>>(
        &self,
        hash: u64,
        mut is: impl FnMut(u64) -> Result<bool, E>,
    ) -> Result<Found, E> {
        let capacity = self.capacity();
        let (mut slot, mut probed) = (self.home(hash), 0_u64);
        let mut block = [0; PROBED * SLOT_BYTES];
        while probed < capacity {
            let count = capacity.saturating_sub(slot).min(PROBED as u64);
            let bytes = usize::try_from(count).unwrap_or(PROBED).saturating_mul(SLOT_BYTES);
            let block = block.get_mut(..bytes).unwrap_or_default();
            self.file.read_exact_at(block, at(slot))?;
            for (slot, bytes) in (slot..).zip(block.chunks_exact(SLOT_BYTES)) {
                match self.decode(bytes)? {
                    None => return Ok(Found::Vacant(slot)),
                    Some(entry) if entry.hash == hash && is(entry.index)? => {
                        return Ok(Found::Entry(entry.index));
                    }
                    Some(_) => {}
                }
            }
            slot = slot.saturating_add(count) % capacity;
            probed = probed.saturating_add(count);
        }
        Err(self.damaged("no empty slot").into())
    }

    fn encode(&self, entry: Entry) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        let tagged = entry.index.saturating_add(1) << 24 | self.check(entry);
        let bytes = [entry.hash.to_le_bytes(), tagged.to_le_bytes()].concat();
        slot.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        slot
    }

    fn decode(&self, slot: &[u8]) -> io::Result<Option<Entry>> {
        if slot.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let number = |bytes: Option<&[u8; 8]>| bytes.copied().map_or(0, u64::from_le_bytes);
        let (hash, tagged) = (number(slot.first_chunk()), number(slot.last_chunk()));
        let entry = (tagged >> 24).checked_sub(1).map(|index| Entry { hash, index });
        match entry.filter(|entry| self.check(*entry) == tagged & 0xff_ffff) {
            None => Err(self.damaged("a damaged slot")),
            entry => Ok(entry),
        }
    }

    fn check(&self, entry: Entry) -> u64 {
        let numbers = [self.nonce, entry.hash, entry.index].map(u64::to_le_bytes);
        u64::from(crc32fast::hash(&numbers.concat())) & 0xff_ffff
    }

    /// Damages the header so that the next start rebuilds the table.
    fn damaged(&self, what: &str) -> io::Error {
        let _ = self.file.write_all_at(&[0; 16], 0).and_then(|()| self.file.sync_data());
        io::Error::new(io::ErrorKind::InvalidData, format!("{what}; it is made anew at the next start"))
    }

    /// Replaces the table with one of twice the size.
    fn double(&mut self) -> io::Result<()> {
        let draft = self.path.with_extension("tmp");
        let mut new = Self::create(&draft, self.nonce, self.bits.saturating_add(1))?;
        (new.entries, new.inserted) = (self.entries, self.inserted);
        // Slots before the first empty one may have wrapped around from the end; they are inserted last, one by one.
        let mut rest = Vec::new();
        let (mut run, mut seen_empty) = (Vec::new(), false);
        let mut window = Window { slots: vec![0; WINDOW * SLOT_BYTES], ..Window::default() };
        let mut reader = BufReader::with_capacity(WINDOW, &self.file);
        reader.seek(SeekFrom::Start(HEADER_BYTES))?;
        let mut slot = [0; SLOT_BYTES];
        for _ in 0..self.capacity() {
            reader.read_exact(&mut slot)?;
            match self.decode(&slot)? {
                Some(entry) if seen_empty => run.push(entry),
                Some(entry) => rest.push(entry),
                None => {
                    seen_empty = true;
                    window.place(&new, &mut run, &mut rest)?;
                }
            }
        }
        window.place(&new, &mut run, &mut rest)?;
        window.flush(&new)?;
        rest.into_iter().try_for_each(|entry| new.put(entry))?;
        new.checkpoint()?;
        fs::rename(&draft, &self.path)?;
        sync_directory(&self.path)?;
        new.path.clone_from(&self.path);
        *self = new;
        Ok(())
    }
}

/// The part of the new table being filled, in order.
#[derive(Default)]
struct Window {
    slots: Vec<u8>,
    /// Number of its first slot.
    base: u64,
    /// Slot after the last one filled.
    next: u64,
}

impl Window {
    /// Places a run of slots that stood between two empty ones in the old table. In order of their hashes, each goes
    /// to its home slot or right after the previous one, as if it had been inserted alone.
    fn place(&mut self, new: &EntryIndex, run: &mut Vec<Entry>, rest: &mut Vec<Entry>) -> io::Result<()> {
        run.sort_unstable_by_key(|entry| entry.hash);
        for entry in run.drain(..) {
            let slot = new.home(entry.hash).max(self.next);
            if slot >= new.capacity() {
                rest.push(entry);
                continue;
            }
            if slot >= self.base.saturating_add(WINDOW as u64) {
                self.flush(new)?;
                self.base = slot - slot % WINDOW as u64;
            }
            let start = usize::try_from(slot.saturating_sub(self.base)).unwrap_or(WINDOW) * SLOT_BYTES;
            let place = self.slots.iter_mut().skip(start);
            place.zip(new.encode(entry)).for_each(|(to, from)| *to = from);
            self.next = slot.saturating_add(1);
        }
        Ok(())
    }

    fn flush(&mut self, new: &EntryIndex) -> io::Result<()> {
        let left = usize::try_from(new.capacity().saturating_sub(self.base)).unwrap_or(WINDOW).min(WINDOW);
        let slots = self.slots.get(..left * SLOT_BYTES).unwrap_or_default();
        new.file.write_all_at(slots, at(self.base))?;
        self.slots.fill(0);
        Ok(())
    }
}

/// Byte offset of a slot in the file.
fn at(slot: u64) -> u64 {
    slot.saturating_mul(SLOT_BYTES as u64).saturating_add(HEADER_BYTES)
}

#[cfg(test)]
mod tests;
