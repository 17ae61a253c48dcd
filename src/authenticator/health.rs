// SPDX-License-Identifier: Apache-2.0
//! Turns counters into the statuses that the authenticator reports on `/diagnostics`. Pure.

use health::{Level, Status};
use mail::{AuthResult, Registration, Verdict};

/// Counts of mails since the node started.
#[derive(Clone, Debug, Default)]
pub struct Mails {
    /// Mails being verified now.
    pub in_flight: usize,
    /// Mails waiting for their turn.
    pub waiting: usize,
    /// Mails whose sender was authenticated.
    pub authenticated: u64,
    /// Mails whose sender was not authenticated.
    pub refused: u64,
    /// Times a mail was left to be delivered again because DNS or the registry did not answer.
    pub left: u64,
    /// The same, since the last verdict for which both had answered.
    pub left_in_a_row: u64,
    /// Mails delivered while the queue was full; they will be delivered again.
    pub overflowed: u64,
    /// Messages on mail/raw that violate their specification.
    pub malformed: u64,
}

impl Mails {
    /// Counts a mail that was left to be delivered again.
    pub fn left(&mut self) {
        self.left += 1;
        self.left_in_a_row += 1;
    }

    /// Counts a mail that has its verdict.
    pub fn judged(&mut self, verdict: &Verdict) {
        *(if verdict.authenticated { &mut self.authenticated } else { &mut self.refused }) += 1;
        let lacks_answer =
            verdict.dmarc == AuthResult::TempError || verdict.registry == Registration::Unavailable;
        if !lacks_answer {
            self.left_in_a_row = 0;
        }
    }
}

/// State of the connection to the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Whether the contracts were found or deployed.
    pub connected: bool,
    /// Whether the chain answered the last request.
    pub reachable: bool,
    /// Number of leaves that have a receipt.
    pub anchored: u64,
    /// Why the last attempt failed; `None` after a success.
    pub last_error: Option<String>,
    /// Why the chain did not answer when it was last asked about transactions in flight; `None` after an answer.
    pub silence: Option<String>,
    /// Number of transactions in flight.
    pub in_flight: usize,
    /// Number of revocations that the chain does not have yet; they hold here.
    pub revocations: usize,
    /// Why the chain did not take one of them when it was last sent.
    pub revocation_error: Option<String>,
    /// What the transaction that the others wait for waits for; `None` unless it waits for too long.
    pub late: Option<String>,
}

/// Returns the two statuses, mails and ledger. `evidenced` is the number of leaves in the evidence log.
pub fn statuses(mails: &Mails, evidenced: u64, ledger: &Ledger) -> Vec<Status> {
    let (level, message) = if mails.left_in_a_row == 0 {
        (Level::Ok, "verifies")
    } else {
        (Level::Warn, "DNS or the registry did not answer for the latest mails, which come again")
    };
    let mails = Status::new("mails", level, message)
        .gauge("in_flight", mails.in_flight)
        .gauge("waiting", mails.waiting)
        .counter("authenticated", mails.authenticated)
        .counter("refused", mails.refused)
        .counter("left", mails.left)
        .gauge("left_in_a_row", mails.left_in_a_row)
        .counter("overflowed", mails.overflowed)
        .counter("malformed", mails.malformed);

    let pending = evidenced.saturating_sub(ledger.anchored);
    let error = ledger.last_error.as_ref().or(ledger.silence.as_ref());
    let (level, message) = match (error, ledger.connected, &ledger.late) {
        (Some(error), false, _) => (Level::Error, format!("waits for the chain: {error}")),
        (None, false, _) => (Level::Warn, "connecting to the chain".to_owned()),
        (Some(error), true, _) => (Level::Error, format!("waits for the chain, evidence is kept: {error}")),
        (None, true, Some(late)) => (Level::Warn, format!("a transaction is late, evidence is kept: {late}")),
        (None, true, None) if let Some(error) = &ledger.revocation_error => {
            (Level::Warn, format!("the chain does not have all revocations: {error}"))
        }
        (None, true, None) if !ledger.reachable => (Level::Ok, "nothing to anchor yet".to_owned()),
        (None, true, None) => (Level::Ok, "anchors".to_owned()),
    };
    let ledger = Status::new("ledger", level, message)
        .counter("evidenced", evidenced)
        .counter("anchored", ledger.anchored)
        .gauge("pending", pending)
        .gauge("in_flight", ledger.in_flight)
        .gauge("revocations", ledger.revocations);
    vec![mails, ledger]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_chain_is_an_error_that_says_what_is_kept() {
        let ledger = Ledger { last_error: Some("connection refused".into()), ..Ledger::default() };
        let status = statuses(&Mails::default(), 3, &ledger).pop().unwrap();
        assert_eq!(
            (status.level, status.message.as_str()),
            (Level::Error, "waits for the chain: connection refused")
        );
        assert_eq!(status.figure("pending"), Some(3));
    }

    #[test]
    fn a_late_transaction_is_a_warning_until_it_is_an_error() {
        let late = Some("anchor evidence: transaction 0x1 is in no block after 3 blocks".to_owned());
        let ledger = Ledger { connected: true, reachable: true, in_flight: 1, late, ..Ledger::default() };
        let status = statuses(&Mails::default(), 3, &ledger).pop().unwrap();
        assert_eq!((status.level, status.figure("in_flight")), (Level::Warn, Some(1)));
        assert!(status.message.contains("0x1 is in no block after 3 blocks"), "{}", status.message);
        for ledger in [
            Ledger { last_error: Some("connection refused".to_owned()), ..ledger.clone() },
            Ledger { silence: Some("connection refused".to_owned()), ..ledger },
        ] {
            assert_eq!(statuses(&Mails::default(), 3, &ledger).pop().unwrap().level, Level::Error);
        }
    }

    #[test]
    fn a_revocation_that_the_chain_refuses_is_a_warning() {
        let error = "the contract refuses: the account is not the contract's owner".to_owned();
        let ledger = Ledger {
            connected: true,
            reachable: true,
            revocations: 2,
            revocation_error: Some(error.clone()),
            ..Ledger::default()
        };
        let status = statuses(&Mails::default(), 0, &ledger).pop().unwrap();
        assert_eq!((status.level, status.figure("revocations")), (Level::Warn, Some(2)));
        assert!(status.message.contains(&error), "{}", status.message);
    }

    #[test]
    fn an_unanswered_question_is_warned_about_until_the_next_one_is_answered() {
        let mut mails = Mails::default();
        let level = |mails: &Mails| statuses(mails, 0, &Ledger::default())[0].level;
        mails.left();
        assert_eq!(level(&mails), Level::Warn);
        // These mails were given up: still nothing has answered.
        mails.judged(&Verdict { dmarc: AuthResult::TempError, ..Verdict::default() });
        mails.judged(&Verdict { registry: Registration::Unavailable, ..Verdict::default() });
        assert_eq!(level(&mails), Level::Warn);
        mails.judged(&Verdict { dmarc: AuthResult::Fail, ..Verdict::default() });
        assert_eq!(level(&mails), Level::Ok);
        assert_eq!((mails.left, mails.refused), (1, 3));
    }

    #[test]
    fn all_is_well_when_the_chain_answers() {
        let ledger = Ledger { connected: true, reachable: true, anchored: 3, ..Ledger::default() };
        let statuses = statuses(&Mails::default(), 3, &ledger);
        assert!(statuses.iter().all(|status| status.level == Level::Ok), "{statuses:?}");
    }
}
