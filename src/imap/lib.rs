// SPDX-License-Identifier: Apache-2.0
//! Reads mailboxes by IMAP (RFC 3501, RFC 9051), over TLS or, to this host, without.
//!
//! What the server says costs bounded memory and time: an answer to a command and a message each have a limit, and so has
//! each silence. Grammar and order of the protocol are io-imap's (decision 0081); sockets, limits and what went wrong, in words,
//! are here. Which messages are wanted, and when to try again, is left to the caller.

mod account;
mod budget;
mod commands;
mod error;
mod fetch;
mod idle;
mod session;
#[cfg(test)]
mod tests;

pub use account::{Access, Credentials, Extension, Folder, FolderCounts, Opened, Security, Server, Wake};
pub use error::ImapError;
pub use fetch::{Body, Fetch, Fetched, Memory, Room};
pub use session::Session;
