// SPDX-License-Identifier: Apache-2.0
//! Waits for news of the open folder.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use io_imap::{
    coroutine::ImapCoroutineState,
    rfc2177::idle::{ImapIdle, ImapIdleOptions, ImapIdleYield},
    types::response::Data,
};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep_until},
};

use super::{
    ImapError, Session,
    account::Wake,
    session::{ANSWER_BYTES, step},
};

impl Session {
    /// Waits, by IDLE (RFC 2177), until the server tells of messages, `limit` has passed, or `called` is ready.
    ///
    /// # Errors
    /// If the server does not know IDLE or the connection is lost.
    pub async fn idle(
        &mut self,
        limit: Duration,
        called: impl Future<Output = ()>,
    ) -> Result<Wake, ImapError> {
        let done = Arc::new(AtomicBool::new(false));
        let mut idling = ImapIdle::new(Arc::clone(&done), ImapIdleOptions::default());
        let until = Instant::now() + limit;
        let mut called = std::pin::pin!(called);
        let (mut read, mut wake, mut budget) = (None, None, self.budget(ANSWER_BYTES));
        budget.until += limit;
        loop {
            let bytes = read.take().map(|read| self.buffer.get(..read).unwrap_or_default());
            match step(&mut idling, &mut self.fragmentizer, bytes)? {
                ImapCoroutineState::Complete(ended) => {
                    ended?;
                    return Ok(wake.unwrap_or(Wake::Time));
                }
                ImapCoroutineState::Yielded(ImapIdleYield::WantsWrite(bytes)) => self.write(&bytes).await?,
                ImapCoroutineState::Yielded(ImapIdleYield::Event(event)) => {
                    // What was said so far takes no more memory.
                    budget.taken = 0;
                    if event.data.iter().any(|data| matches!(data, Data::Exists(_))) {
                        wake = Some(Wake::News);
                    }
                }
                ImapCoroutineState::Yielded(ImapIdleYield::WantsRead) if wake.is_some() => {
                    read = Some(self.read(&mut budget).await?);
                }
                ImapCoroutineState::Yielded(ImapIdleYield::WantsRead) => {
                    read = tokio::select! {
                        some = self.stream.read(&mut self.buffer) => Some(budget.take(some?)?),
                        () = sleep_until(until) => { wake = Some(Wake::Time); None }
                        () = called.as_mut() => { wake = Some(Wake::Called); None }
                    };
                }
            }
            done.store(wake.is_some(), Ordering::SeqCst);
        }
    }
}
