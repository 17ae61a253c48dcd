// SPDX-License-Identifier: Apache-2.0
//! TLS 1.2 and 1.3 (RFC 8446) of the mail protocols, by rustls.
//!
//! - [`client`]: a server's certificate is checked, by the authorities of this host or of a file; a client that checks none
//!   is made by another name, for opportunistic encryption.
//! - [`server`]: our own certificate, from files that are read again when they change.
//!
//! Errors say what a person can do about them. When TLS begins, on connecting or after STARTTLS, is left to the
//! protocols.

pub mod client;
pub mod server;
