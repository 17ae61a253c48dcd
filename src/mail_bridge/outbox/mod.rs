//! Outbound mails: composed, handed to the smart host, tried again, reported.
//!
//! # What is promised
//! `Queued -> Deferred* -> Delivered | Failed`, each on disk before it is reported. After a crash between the smart
//! host's 250 and the record of it, the mail is sent again with the same Message-ID: the smart host may get it twice,
//! the outbox never sends two different answers.
//!
//! Envelope sender: an answer goes out with the null reverse-path, which RFC 3834 section 3.3 allows so that nothing
//! answers it and no bounce comes back as a mail; a forward with the From address.

#[cfg(feature = "net")]
pub mod client;
#[cfg(feature = "net")]
mod compose;
pub mod schedule;
#[cfg(feature = "net")]
mod sender;

#[cfg(feature = "net")]
pub use compose::{Composed, Invalid, compose};
#[cfg(feature = "net")]
pub use sender::{Delivery, Sender};
