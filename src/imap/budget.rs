// SPDX-License-Identifier: Apache-2.0
//! What an answer may cost. Pure.

use tokio::time::Instant;

use super::ImapError;

/// What a server may say in answer to one command, and until when.
pub(crate) struct Budget {
    pub(crate) taken: usize,
    pub(crate) bytes: usize,
    pub(crate) until: Instant,
}

impl Budget {
    pub(crate) fn take(&mut self, bytes: usize) -> Result<usize, ImapError> {
        if bytes == 0 {
            return Err(ImapError::Closed);
        }
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > self.bytes { Err(ImapError::TooMuch(self.bytes)) } else { Ok(bytes) }
    }
}
