// SPDX-License-Identifier: Apache-2.0
//! Tests of the bridge with real sockets and real files.

mod forwards;
mod full_disk;
mod intake;
mod journal;
mod kill;
mod mailbox;
mod odd_mailbox;
mod outbox;
mod settlement;
mod support;
