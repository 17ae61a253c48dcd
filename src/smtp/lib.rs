// SPDX-License-Identifier: Apache-2.0
//! SMTP (RFC 5321) and LMTP (RFC 2033), both sides of it.
//!
//! - [`session`]: the server's side of one connection, without IO: bytes in, replies and mails out.
//! - [`client`]: the client's side, over any stream.
//!
//! Neither opens a listener, keeps a mail on disk or decides when to try again: that is mail_bridge.

pub mod client;
pub mod session;
