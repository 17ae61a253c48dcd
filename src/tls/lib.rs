// SPDX-License-Identifier: Apache-2.0
//! TLS 1.2 and 1.3 (RFC 8446) of the mail protocols, by rustls.
//!
//! A certificate is always checked: there is no way to turn that off, only to trust another authority. Errors say what a
//! person can do about them. When TLS begins, on connecting or after STARTTLS, is left to the protocols.

pub mod client;
