// SPDX-License-Identifier: Apache-2.0
//! The bytes of a record log: header, record heads, checksums, and the scan that tells a torn tail from damage.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
};

const MAGIC: &[u8; 16] = b"posthorn log 2\n\0";
/// Magic, nonce, checksum of both, four zero bytes.
pub const HEADER_BYTES: u64 = 32;
/// Length, checksum of the payload, synced offset, checksum of these; all little-endian.
pub const HEAD_BYTES: u64 = 20;
const HEAD: usize = HEAD_BYTES as usize;
/// Stands in the length field of a marker: everything before it is on disk, and no record follows yet.
const MARKER: u32 = u32::MAX;
/// Size of one read, bytes.
const READ_BYTES: usize = 256 * 1024;

pub(super) fn header(nonce: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    let fields = [&MAGIC[..], &nonce.to_le_bytes(), &crc(&[MAGIC, &nonce.to_le_bytes()]).to_le_bytes()];
    header.iter_mut().zip(fields.concat()).for_each(|(to, from)| *to = from);
    header
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Empty, or a header that was torn while it was being written.
    New,
    /// A log with this nonce.
    Log(u64),
    /// A damaged log header.
    Damaged,
    /// Not a record log.
    Other,
}

/// Reads the header of a file that is `length` bytes long.
pub(super) fn read_start(file: &File, length: u64) -> io::Result<Start> {
    let mut bytes = Vec::new();
    At { file, offset: 0, end: length.min(HEADER_BYTES) }.read_to_end(&mut bytes)?;
    let nonce = bytes.get(16..24).and_then(|nonce| nonce.try_into().ok()).map(u64::from_le_bytes);
    if let Some(nonce) = nonce
        && bytes == header(nonce)
    {
        return Ok(Start::Log(nonce));
    }
    let torn = bytes.iter().all(|byte| *byte == 0) || bytes.starts_with(MAGIC) || MAGIC.starts_with(&bytes);
    Ok(match torn {
        true if length <= HEADER_BYTES => Start::New,
        true => Start::Damaged,
        false => Start::Other,
    })
}

/// Head of a record or marker, as it is on disk.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// Length of the payload, bytes; `None` for a marker.
    length: Option<u32>,
    crc: u32,
    /// How much of the file was on disk when the record was appended.
    synced: u64,
}

impl Head {
    /// Decodes the head at `offset` of a log with this nonce; `None` if these bytes are not one.
    fn decode(bytes: &[u8; HEAD], nonce: u64, offset: u64) -> Option<Self> {
        let mut rest = &bytes[..];
        let length = u32::from_le_bytes(take(&mut rest)?);
        let payload_crc = u32::from_le_bytes(take(&mut rest)?);
        let synced = u64::from_le_bytes(take(&mut rest)?);
        let fields = bytes.get(..HEAD.saturating_sub(4))?;
        let whole = synced <= offset && take(&mut rest)? == head_crc(fields, nonce, offset).to_le_bytes();
        let length = (length != MARKER).then_some(length);
        whole.then_some(Self { length, crc: payload_crc, synced })
    }

    fn encode(length: u32, payload_crc: u32, synced: u64, nonce: u64, offset: u64) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        let fields = [&length.to_le_bytes()[..], &payload_crc.to_le_bytes(), &synced.to_le_bytes()].concat();
        let crc = head_crc(&fields, nonce, offset).to_le_bytes();
        head.iter_mut().zip(fields.iter().chain(&crc)).for_each(|(to, from)| *to = *from);
        head
    }
}

/// Head of a record appended at `offset` while the first `synced` bytes of the file are on disk.
pub(super) fn record_head(record: &[u8], length: u32, synced: u64, nonce: u64, offset: u64) -> [u8; HEAD] {
    Head::encode(length, crc(&[record]), synced, nonce, offset)
}

/// The marker for a log that is on disk up to `offset`. It stands there until a record overwrites it.
pub(super) fn marker(nonce: u64, offset: u64) -> [u8; HEAD] {
    Head::encode(MARKER, 0, offset, nonce, offset)
}

/// Reads the record at `offset`; `None` if there is no intact one of at most `max` bytes.
pub(super) fn read_record(file: &File, nonce: u64, offset: u64, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut record = Vec::new();
    let mut reader = At { file, offset, end: u64::MAX };
    Ok(next_record(&mut reader, nonce, offset, max, &mut record)?.then_some(record))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// End of the intact records.
    pub valid: u64,
    /// Start of the last batch: the records that were appended after the same sync.
    pub batch: u64,
    /// Whether a marker follows the records.
    pub marked: bool,
    /// Bytes after the records and the marker.
    pub torn: u64,
    /// Whether those bytes prove that more than `valid` was on disk.
    pub damaged: bool,
}

/// Scans the records of a log from the one at `from` up to `length`, passing the offset and payload of each to
/// `each`.
pub(super) fn scan(
    file: &File,
    nonce: u64,
    (from, length): (u64, u64),
    max: usize,
    each: &mut dyn FnMut(u64, &[u8]),
) -> io::Result<Scan> {
    let buffer = usize::try_from(length.saturating_sub(from)).unwrap_or(READ_BYTES).min(READ_BYTES);
    let mut reader = BufReader::with_capacity(buffer, At { file, offset: from, end: length });
    let (mut valid, mut batch, mut synced) = (from, from, None);
    let mut record = Vec::new();
    while let Some(head) = next_head(&mut reader, nonce, valid)?
        && next_payload(&mut reader, head, max, &mut record)?
    {
        if synced.replace(head.synced) != Some(head.synced) {
            batch = valid;
        }
        each(valid, &record);
        valid = valid.saturating_add(HEAD_BYTES).saturating_add(record.len() as u64);
        // Do not keep the memory of one large record.
        record.shrink_to(READ_BYTES);
    }
    let mut reader = At { file, offset: valid, end: length };
    let marked = next_head(&mut reader, nonce, valid)?.is_some_and(|head| head.length.is_none());
    let tail = if marked { valid.saturating_add(HEAD_BYTES) } else { valid };
    let torn = length.saturating_sub(tail);
    let damaged = torn > 0 && proves_more(file, nonce, (valid, length))?;
    Ok(Scan { valid, batch, marked, torn, damaged })
}

/// Whether a head between `valid` and `length` says that more than `valid` was on disk when it was written. The nonce
/// keeps bytes of a mail from passing for a head.
fn proves_more(file: &File, nonce: u64, (valid, length): (u64, u64)) -> io::Result<bool> {
    let mut window = Vec::new();
    let mut start = valid;
    while start < length {
        window.clear();
        let end = start.saturating_add((READ_BYTES.saturating_add(HEAD)) as u64).min(length);
        At { file, offset: start, end }.read_to_end(&mut window)?;
        for (offset, bytes) in (start..).zip(window.windows(HEAD)) {
            // Try the cheap test first: nearly all bytes fail it.
            let synced = bytes.get(8..16).and_then(|synced| synced.try_into().ok()).map(u64::from_le_bytes);
            if synced.is_some_and(|synced| synced > valid && synced <= offset)
                && bytes.try_into().is_ok_and(|bytes| Head::decode(bytes, nonce, offset).is_some())
            {
                return Ok(true);
            }
        }
        start = start.saturating_add(READ_BYTES as u64);
    }
    Ok(false)
}

/// Reads the record at `offset` into `record`; false if there is no intact one.
fn next_record(
    reader: &mut impl Read,
    nonce: u64,
    offset: u64,
    max: usize,
    record: &mut Vec<u8>,
) -> io::Result<bool> {
    match next_head(reader, nonce, offset)? {
        Some(head) => next_payload(reader, head, max, record),
        None => Ok(false),
    }
}

fn next_head(reader: &mut impl Read, nonce: u64, offset: u64) -> io::Result<Option<Head>> {
    let mut head = [0; HEAD];
    match reader.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        result => result.map(|()| Head::decode(&head, nonce, offset)),
    }
}

fn next_payload(reader: &mut impl Read, head: Head, max: usize, record: &mut Vec<u8>) -> io::Result<bool> {
    let Some(length) = head.length.map(|length| length as usize).filter(|length| *length <= max) else {
        return Ok(false);
    };
    record.resize(length, 0);
    match reader.read_exact(record) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| crc(&[record]) == head.crc),
    }
}

fn head_crc(fields: &[u8], nonce: u64, offset: u64) -> u32 {
    crc(&[&nonce.to_le_bytes(), &offset.to_le_bytes(), fields])
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

/// A range of a file, read without moving the file's cursor.
struct At<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let read = self.file.read_at(buffer.get_mut(..length).unwrap_or_default(), self.offset)?;
        self.offset = self.offset.saturating_add(read as u64);
        Ok(read)
    }
}
