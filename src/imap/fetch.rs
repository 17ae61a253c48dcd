// SPDX-License-Identifier: Apache-2.0
//! Fetches messages, many with one command, one at a time in memory.

use std::{ops::RangeInclusive, sync::Arc};

use io_imap::{
    coroutine::{ImapCoroutine, ImapCoroutineState},
    rfc3501::fetch_stream_batch::{ImapMessageFetchStreamBatch, ImapMessageFetchStreamBatchYield},
};
use tokio::{
    io::AsyncReadExt,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    ImapError, Session,
    session::{Budget, uids},
};

/// A message up to this size needs no room in [`Memory`], bytes.
const SMALL_BYTES: usize = 256 * 1024;
/// A message may take this many times the patience with a silence, however steadily its bytes come.
const SLOW_FACTOR: u32 = 10;

/// Memory that all sessions share for large messages, so that a hundred servers with large mails do not need a hundred
/// times as much. Clones are of the same memory.
#[derive(Clone, Debug)]
pub struct Memory {
    free: Arc<Semaphore>,
    bytes: u32,
}

impl Memory {
    /// Room for so many bytes; one message may have all of it.
    pub fn new(bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX >> 3).min(u32::MAX >> 3);
        Self { free: Arc::new(Semaphore::new(bytes as usize)), bytes }
    }

    /// Waits for room.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes <= SMALL_BYTES {
            return None;
        }
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes);
        // Nobody closes the semaphore.
        Arc::clone(&self.free).acquire_many_owned(wanted).await.ok()
    }
}

/// A message.
#[derive(Debug)]
pub struct Fetched {
    /// Its UID.
    pub uid: u32,
    /// What it says.
    pub body: Body,
    /// Its room in [`Memory`], free again when this is dropped.
    pub room: Option<OwnedSemaphorePermit>,
}

/// The bytes of a message.
#[derive(Debug)]
pub enum Body {
    /// All of them.
    Whole(Vec<u8>),
    /// None: there are this many, more than were asked for.
    TooLarge(u64),
}

/// Messages that a server is sending. They MUST be read to the end, or the session is of no more use.
pub struct Fetch<'a> {
    session: &'a mut Session,
    memory: &'a Memory,
    largest: usize,
    command: ImapMessageFetchStreamBatch,
    /// What was read and not yet looked at, bytes of the session's buffer.
    read: Option<usize>,
    budget: Budget,
}

impl Session {
    /// Begins to fetch the messages with these UIDs, without marking them as read. Messages above `largest` bytes are
    /// skipped over.
    ///
    /// # Errors
    /// If there are no such UIDs.
    pub fn fetch<'a>(
        &'a mut self,
        range: RangeInclusive<u32>,
        largest: usize,
        memory: &'a Memory,
    ) -> Result<Fetch<'a>, ImapError> {
        let command = ImapMessageFetchStreamBatch::new(uids(range)?, true);
        Ok(Fetch { session: self, memory, largest, command, read: None, budget: Budget::default() })
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
            match self.command.resume(&mut self.session.fragmentizer, bytes) {
                ImapCoroutineState::Complete(ended) => return ended.map(|()| None).map_err(ImapError::from),
                ImapCoroutineState::Yielded(asked) => match asked {
                    ImapMessageFetchStreamBatchYield::WantsRead => {
                        self.read = Some(self.session.read(&mut self.budget).await?);
                    }
                    ImapMessageFetchStreamBatchYield::WantsWrite(bytes) => self.session.write(&bytes).await?,
                    ImapMessageFetchStreamBatchYield::MessageStart { uid } => {
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
                        let patience = self.session.patience.saturating_mul(SLOW_FACTOR);
                        let Some(message) = &mut message else { continue };
                        self.admit(message, len as usize).await;
                        let rest = timeout(patience, self.rest(message, len as usize)).await;
                        rest.map_err(|_| ImapError::Silent(patience))??;
                    }
                    ImapMessageFetchStreamBatchYield::MessageEnd => {
                        self.budget = Budget::default();
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
