//! What the authenticator says on `/diagnostics`. Pure.

use crate::{
    health::{Level, Status},
    mail::{AuthResult, Registration, Verdict},
};

/// Mails since the start.
#[derive(Clone, Debug, Default)]
pub struct Mails {
    /// Being verified now.
    pub in_flight: usize,
    /// Waiting for their turn.
    pub waiting: usize,
    /// Whose sender is authenticated.
    pub authenticated: u64,
    /// Whose sender is not.
    pub refused: u64,
    /// Left to be delivered again, because DNS or the registry did not answer.
    pub left: u64,
    /// Of these, since the last verdict that did not lack an answer.
    pub left_in_a_row: u64,
    /// Delivered while too many waited; they come again.
    pub overflowed: u64,
    /// Messages on mail/raw that break their specification.
    pub malformed: u64,
}

impl Mails {
    /// So many are in flight and wait.
    pub fn load(&mut self, load: (usize, usize)) {
        (self.in_flight, self.waiting) = load;
    }

    /// A mail was left.
    pub fn left(&mut self) {
        self.left += 1;
        self.left_in_a_row += 1;
    }

    /// A mail has its verdict.
    pub fn judged(&mut self, verdict: &Verdict) {
        *(if verdict.authenticated { &mut self.authenticated } else { &mut self.refused }) += 1;
        let lacks_answer =
            verdict.dmarc == AuthResult::TempError || verdict.registry == Registration::Unavailable;
        if !lacks_answer {
            self.left_in_a_row = 0;
        }
    }
}

/// How the chain is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The contracts were found or deployed.
    pub connected: bool,
    /// The chain answered when it was last asked.
    pub reachable: bool,
    /// Leaves that have a receipt.
    pub anchored: u64,
    /// Why the last attempt failed; `None` after a success.
    pub last_error: Option<String>,
}

/// The statuses; `evidenced` is the number of leaves in the evidence log.
pub fn statuses(mails: &Mails, evidenced: u64, ledger: &Ledger) -> Vec<Status> {
    let (level, message) = if mails.left_in_a_row == 0 {
        (Level::Ok, "verifies")
    } else {
        (Level::Warn, "DNS or the registry did not answer for the latest mails, which come again")
    };
    let mails = Status::new("mails", level, message)
        .with("in_flight", mails.in_flight)
        .with("waiting", mails.waiting)
        .with("authenticated", mails.authenticated)
        .with("refused", mails.refused)
        .with("left", mails.left)
        .with("left_in_a_row", mails.left_in_a_row)
        .with("overflowed", mails.overflowed)
        .with("malformed", mails.malformed);

    let pending = evidenced.saturating_sub(ledger.anchored);
    let (level, message) = match (&ledger.last_error, ledger.connected, ledger.reachable) {
        (Some(error), false, _) => (Level::Error, format!("waits for the chain: {error}")),
        (None, false, _) => (Level::Warn, "connecting to the chain".to_owned()),
        (Some(error), true, _) => (Level::Error, format!("waits for the chain, evidence is kept: {error}")),
        (None, true, false) => (Level::Ok, "nothing to anchor yet".to_owned()),
        (None, true, true) => (Level::Ok, "anchors".to_owned()),
    };
    let ledger = Status::new("ledger", level, message)
        .with("evidenced", evidenced)
        .with("anchored", ledger.anchored)
        .with("pending", pending);
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
        assert!(status.values.contains(&("pending", "3".to_owned())));
    }

    #[test]
    fn an_unanswered_question_is_warned_about_until_the_next_one_is_answered() {
        let mut mails = Mails::default();
        let level = |mails: &Mails| statuses(mails, 0, &Ledger::default())[0].level;
        mails.left();
        assert_eq!(level(&mails), Level::Warn);
        // Given up: nobody has answered yet.
        mails.judged(&Verdict { dmarc: AuthResult::TempError, ..Verdict::default() });
        mails.judged(&Verdict { registry: Registration::Unavailable, ..Verdict::default() });
        assert_eq!(level(&mails), Level::Warn);
        mails.judged(&Verdict { dmarc: AuthResult::Fail, ..Verdict::default() });
        assert_eq!(level(&mails), Level::Ok);
        assert_eq!((mails.left, mails.refused), (1, 3));
    }

    #[test]
    fn all_is_well_when_the_chain_answers() {
        let ledger = Ledger { connected: true, reachable: true, anchored: 3, last_error: None };
        let statuses = statuses(&Mails::default(), 3, &ledger);
        assert!(statuses.iter().all(|status| status.level == Level::Ok), "{statuses:?}");
    }
}
