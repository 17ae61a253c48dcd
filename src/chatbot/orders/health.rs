// SPDX-License-Identifier: Apache-2.0
//! Builds the status of the orders for `/diagnostics`. Pure.

use health::{Level, Status};

use super::Orders;

impl Orders {
    /// The status for `/diagnostics`. `written` says whether the last order could be written to disk.
    pub fn health(&self, written: bool) -> Status {
        let (level, message) = match (written, self.last_was_heard, self.ledger.is_answered()) {
            (false, ..) => (Level::Error, "orders cannot be written to disk: no resume is sent"),
            (true, false, _) => (Level::Warn, "the last order was not acknowledged"),
            (true, true, false) => {
                (Level::Warn, "the authenticator does not record orders, which wait for the ledger")
            }
            (true, true, true) => (Level::Ok, "acknowledged"),
        };
        Status::new("orders", level, message)
            .gauge("waiting", self.waiting().count())
            .counter("accepted", self.accepted)
            .counter("refused", self.refused)
            .counter("unacknowledged", self.unheard)
            .gauge("wait_for_ledger", self.ledger.waiting())
            .counter("too_many_for_ledger", self.ledger.overflowed())
    }
}
