//! The bridge over real sockets and real files.

mod intake;
mod journal;
mod kill;
mod outbox;
mod settlement;
mod support;
