// SPDX-License-Identifier: Apache-2.0
//! Queues of received messages, bounded in number and in bytes.
//!
//! A message that finds its queue full is lost, with a warning: the thread that receives must not wait. mail_bridge
//! publishes unsettled mails again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::mpsc;

/// Bytes that a queue holds at most, or one message that is larger.
const MAX_BYTES: usize = 64 << 20;

/// The node's end of a queue.
#[derive(Debug)]
pub struct Inbox<T> {
    receiver: mpsc::Receiver<T>,
    scale: Scale<T>,
}

/// The receiving thread's end.
pub(super) struct Slot<T> {
    sender: mpsc::Sender<T>,
    scale: Scale<T>,
    depth: usize,
}

/// Weighs the messages in a queue.
#[derive(Debug)]
struct Scale<T> {
    weigh: fn(&T) -> usize,
    held: Arc<AtomicUsize>,
}

/// A queue of `depth` messages whose size in bytes `weigh` tells, roughly.
pub(super) fn inbox<T>(depth: usize, weigh: fn(&T) -> usize) -> (Slot<T>, Inbox<T>) {
    let (sender, receiver) = mpsc::channel(depth);
    let held = Arc::default();
    let slot = Slot { sender, scale: Scale { weigh, held: Arc::clone(&held) }, depth };
    (slot, Inbox { receiver, scale: Scale { weigh, held } })
}

impl<T> Slot<T> {
    /// Queues a message.
    ///
    /// # Errors
    /// Why it is lost, if somebody would have read it.
    pub(super) fn put(&self, message: T) -> Result<(), String> {
        let bytes = (self.scale.weigh)(&message);
        let held = self.scale.held.fetch_add(bytes, Ordering::Relaxed);
        let result = if held > 0 && held.saturating_add(bytes) > MAX_BYTES {
            Err(format!("{held} bytes of messages wait, {MAX_BYTES} may"))
        } else {
            match self.sender.try_send(message) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => Err(format!("{} messages wait", self.depth)),
                Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            }
        };
        self.scale.held.fetch_sub(bytes, Ordering::Relaxed);
        result
    }
}

impl<T> Inbox<T> {
    /// Takes the next message; `None` once the node has stopped receiving. Cancel-safe.
    pub async fn recv(&mut self) -> Option<T> {
        let message = self.receiver.recv().await?;
        self.scale.held.fetch_sub((self.scale.weigh)(&message), Ordering::Relaxed);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn holds_a_number_of_messages_and_of_bytes_or_one_that_is_larger() {
        let (slot, mut inbox) = inbox::<usize>(3, |bytes| *bytes);
        assert_eq!(slot.put(MAX_BYTES + 1), Ok(()));
        assert_eq!(
            slot.put(1),
            Err(format!("{} bytes of messages wait, {MAX_BYTES} may", MAX_BYTES + 1)),
            "beside a larger one"
        );
        assert_eq!(inbox.recv().await, Some(MAX_BYTES + 1));
        for bytes in [MAX_BYTES - 1, 1, 0] {
            assert_eq!(slot.put(bytes), Ok(()));
        }
        assert_eq!(slot.put(0), Err("3 messages wait".to_owned()));
        assert_eq!(inbox.recv().await, Some(MAX_BYTES - 1));
        assert_eq!(slot.put(MAX_BYTES - 1), Ok(()), "what was refused holds nothing");
    }
}
