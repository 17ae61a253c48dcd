// SPDX-License-Identifier: Apache-2.0
//! Why a folder cannot be read for now, and what follows from it.

use imap::ImapError;

use super::{progress::ProgressError, secret::NoCredentials};
use crate::journal::JournalError;

/// Attempts to get a message that the server does not give, and one over which the connection breaks, before it is suspected.
/// The second to last are for it alone.
const REFUSALS: u32 = 3;
const BREAKS: u32 = 10;

/// Why a folder cannot be read for now.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    #[error(transparent)]
    Credentials(#[from] NoCredentials),
    #[error(transparent)]
    Imap(#[from] ImapError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Progress(#[from] ProgressError),
    #[error("the server lists the message with UID {0} and does not give it")]
    Withheld(u32),
    #[error("the message with UID {0} is larger than max_message_bytes")]
    TooLarge(u32),
    /// So long that the server may have ended the session.
    #[error("waited until mails were settled")]
    Held,
}

impl FolderError {
    pub(super) fn needs_a_person(&self) -> bool {
        match self {
            Self::Credentials(_) => true,
            Self::Imap(error) => error.needs_a_person(),
            _ => false,
        }
    }

    /// After how many times in a row the message at which it happens is suspected; `None` if it is not the message's fault.
    pub(super) fn attempts(&self) -> Option<u32> {
        match self {
            Self::Withheld(_)
            | Self::Imap(ImapError::No(_) | ImapError::Protocol(_) | ImapError::TooMuch(_)) => Some(REFUSALS),
            Self::Imap(ImapError::Crowded) => None,
            Self::Imap(_) => Some(BREAKS),
            _ => None,
        }
    }
}
