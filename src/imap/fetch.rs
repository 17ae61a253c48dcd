// SPDX-License-Identifier: Apache-2.0
//! Fetches messages, many with one command, one at a time in memory.

use std::{collections::HashSet, ops::RangeInclusive, sync::Arc, time::Duration};

use io_imap::{
    coroutine::ImapCoroutineState,
    rfc3501::fetch_stream_batch::{ImapMessageFetchStreamBatch, ImapMessageFetchStreamBatchYield},
};
use tokio::{
    io::AsyncReadExt,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{ImapError, Session, budget::Budget, commands::uids, session::step};

/// A message up to this size needs no room in [`Memory`], bytes.
const SMALL_BYTES: usize = 256 * 1024;
/// Slowest pace at which a message may come, bytes a second, beside the patience with a silence.
const SLOWEST: u32 = 16 * 1024;
/// Bound on what is said between two messages, bytes.
const BETWEEN_BYTES: usize = 1024 * 1024;

/// Memory that all sessions share for large messages, so that a hundred servers with large mails do not need a hundred
/// times as much. Clones are of the same memory, and of the same share of it.
#[derive(Clone, Debug)]
pub struct Memory {
    free: Arc<Semaphore>,
    share: Arc<Semaphore>,
    share_bytes: u32,
}

/// Room for a large message, free again when this is dropped.
#[derive(Debug)]
pub struct Room {
    _shared: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Memory {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.min(1 << 29);
        let share_bytes = u32::try_from(bytes).unwrap_or_default();
        Self { free: Arc::new(Semaphore::new(bytes)), share: Arc::new(Semaphore::new(bytes)), share_bytes }
    }

    /// The same memory for one more server, which may have so many bytes of it at most: one that sends slowly holds up only
    /// itself.
    #[must_use]
    pub fn share(&self, bytes: usize) -> Self {
        let bytes = bytes.min(1 << 29).min(usize::try_from(self.share_bytes).unwrap_or_default());
        let share_bytes = u32::try_from(bytes).unwrap_or_default();
        Self { free: Arc::clone(&self.free), share: Arc::new(Semaphore::new(bytes)), share_bytes }
    }

    /// Waits for room.
    async fn take(&self, bytes: usize) -> Option<Room> {
        if bytes <= SMALL_BYTES {
            return None;
        }
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.share_bytes);
        // Nobody closes the semaphores. Who waits for the shared one holds nothing that another server needs.
        let own = Arc::clone(&self.share).acquire_many_owned(wanted).await.ok()?;
        let shared = Arc::clone(&self.free).acquire_many_owned(wanted).await.ok()?;
        Some(Room { _shared: shared, _own: own })
    }
}

/// A message.
#[derive(Debug)]
pub struct Fetched {
    /// Its UID.
    pub uid: u32,
    /// What it says.
    pub body: Body,
    /// Its room in [`Memory`], if it is large.
    pub room: Option<Room>,
}

/// The bytes of a message.
#[derive(Debug)]
pub enum Body {
    /// All of them.
    Whole(Vec<u8>),
    /// None: there are this many, more than were asked for. They are not read, so the session is of no more use.
    TooLarge(u64),
}

/// Messages that a server is sending. They MUST be read to the end, or the session is of no more use.
pub struct Fetch<'a> {
    session: &'a mut Session,
    range: RangeInclusive<u32>,
    seen: HashSet<u32>,
    memory: &'a Memory,
    largest: usize,
    command: ImapMessageFetchStreamBatch,
    /// What was read and not yet looked at, bytes of the session's buffer.
    read: Option<usize>,
    budget: Budget,
}

impl Session {
    /// Begins to fetch the messages with these UIDs, without marking them as read, up to `largest` bytes each.
    ///
    /// # Errors
    /// If there are no such UIDs.
    pub fn fetch<'a>(
        &'a mut self,
        range: RangeInclusive<u32>,
        largest: usize,
        memory: &'a Memory,
    ) -> Result<Fetch<'a>, ImapError> {
        let command = ImapMessageFetchStreamBatch::new(uids(range.clone())?, true);
        let budget = self.budget(BETWEEN_BYTES);
        Ok(Fetch { session: self, range, seen: HashSet::new(), memory, largest, command, read: None, budget })
    }
}

impl Fetch<'_> {
    /// The next message, in the server's order; `None` after the last.
    ///
    /// # Errors
    /// If the connection is lost, or the server refuses or does not keep to the protocol.
    pub async fn next(&mut self) -> Result<Option<Fetched>, ImapError> {
        let mut message: Option<Fetched> = None;
        loop {
            let bytes = self.read.take().map(|read| self.session.buffer.get(..read).unwrap_or_default());
            match step(&mut self.command, &mut self.session.fragmentizer, bytes)? {
                ImapCoroutineState::Complete(ended) => return ended.map(|()| None).map_err(ImapError::from),
                ImapCoroutineState::Yielded(asked) => match asked {
                    ImapMessageFetchStreamBatchYield::WantsRead => {
                        self.read = Some(self.session.read(&mut self.budget).await?);
                    }
                    ImapMessageFetchStreamBatchYield::WantsWrite(bytes) => self.session.write(&bytes).await?,
                    ImapMessageFetchStreamBatchYield::MessageStart { uid } => {
                        if !self.range.contains(&uid) || !self.seen.insert(uid) {
                            return Err(ImapError::Protocol(format!(
                                "it sends the message with UID {uid}, for which it was not asked, or sends it twice"
                            )));
                        }
                        message = Some(Fetched { uid, body: Body::Whole(Vec::new()), room: None });
                    }
                    ImapMessageFetchStreamBatchYield::BodyChunk(bytes) => {
                        if let Some(Fetched { body, .. }) = &mut message {
                            *body = if bytes.len() > self.largest {
                                Body::TooLarge(bytes.len() as u64)
                            } else {
                                Body::Whole(bytes)
                            };
                        }
                    }
                    ImapMessageFetchStreamBatchYield::WantsStream { len } => {
                        let Some(mut begun) = message.take() else { continue };
                        // A server that cannot send for longer may end the session.
                        let admitted = timeout(self.session.patience, self.admit(&mut begun, len as usize));
                        admitted.await.map_err(|_| ImapError::Crowded)?;
                        if matches!(begun.body, Body::TooLarge(_)) {
                            return Ok(Some(begun));
                        }
                        let patience = self.session.patience + Duration::from_secs((len / SLOWEST).into());
                        let rest = timeout(patience, self.rest(&mut begun, len as usize)).await;
                        rest.map_err(|_| ImapError::Slow)??;
                        message = Some(begun);
                    }
                    ImapMessageFetchStreamBatchYield::MessageEnd => {
                        self.budget = self.session.budget(BETWEEN_BYTES);
                        return Ok(message);
                    }
                },
            }
        }
    }

    /// Waits for room for a message of which `len` bytes are to come, unless it is too large.
    async fn admit(&self, message: &mut Fetched, len: usize) {
        let begun = match &message.body {
            Body::Whole(bytes) => bytes.len(),
            Body::TooLarge(bytes) => usize::try_from(*bytes).unwrap_or(usize::MAX),
        };
        let size = begun.saturating_add(len);
        if size > self.largest {
            message.body = Body::TooLarge(size as u64);
        } else {
            message.room = self.memory.take(size).await;
        }
    }

    /// Reads the remaining `len` bytes of a message.
    async fn rest(&mut self, message: &mut Fetched, len: usize) -> Result<(), ImapError> {
        let session = &mut *self.session;
        let mut left = len;
        while left > 0 {
            let buffer = &mut session.buffer;
            let want = left.min(buffer.len());
            let read = session.stream.read(buffer.get_mut(..want).unwrap_or_default());
            let read =
                timeout(session.patience, read).await.map_err(|_| ImapError::Silent(session.patience))??;
            if read == 0 {
                return Err(ImapError::Closed);
            }
            if let Body::Whole(bytes) = &mut message.body {
                // Grown by what came, not by what was promised.
                bytes.extend_from_slice(session.buffer.get(..read).unwrap_or_default());
            }
            left = left.saturating_sub(read);
        }
        Ok(())
    }
}
