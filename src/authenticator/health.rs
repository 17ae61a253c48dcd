// SPDX-License-Identifier: Apache-2.0
//! Turns counters into the statuses that the authenticator reports on `/diagnostics`. Pure.

use health::{Level, Status};
use mail::{AuthResult, Registration, Verdict};

use crate::params::GWEI;

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
    /// Why nothing is anchored until the next start; `None` while it is.
    pub ended: Option<String>,
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
    /// What another node of the chain has otherwise, or that it does not answer.
    pub dissent: Option<String>,
    /// What does not change while the node runs; `None` until it has connected.
    pub facts: Option<Facts>,
    /// How the chain stood when it answered last.
    pub chain: Option<Chain>,
    /// The newest batch that became final since the start.
    pub last_anchor: Option<LastAnchor>,
}

/// Which chain and contracts are used, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Chain id (EIP-155).
    pub chain_id: u64,
    /// Address of the sender registry.
    pub registry: String,
    /// Address of the evidence ledger.
    pub ledger: String,
    /// When a transaction is final, in words.
    pub finality: String,
    /// Most that a transaction may pay [wei per gas].
    pub max_fee: u64,
}

/// How a chain stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Number of the newest block.
    pub head: u64,
    /// Its time [s since 1970].
    pub head_time: u64,
    /// Number of the newest block that is finalized, if the node says.
    pub finalized: Option<u64>,
    /// What the node asks for a transaction [wei per gas].
    pub gas_price_wei: u64,
    /// The account that anchors.
    pub account: Account,
    /// The account that registers, if that is another.
    pub registrar: Option<Account>,
}

/// An account and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its address.
    pub address: String,
    /// Its balance [gwei].
    pub balance_gwei: u64,
}

/// A batch that is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastAnchor {
    /// Number of its block.
    pub block: u64,
    /// Number of its entries.
    pub entries: u32,
    /// What was paid for it [gwei].
    pub fee_gwei: u64,
}

/// So many transactions should be paid for, or an operator is warned.
const FUNDS: u64 = 100;
/// Gas of the most expensive of them, a registration.
const GAS: u64 = 105_000;

impl Ledger {
    /// Says that an account will soon have nothing left.
    fn is_poor(&self) -> Option<String> {
        let Chain { account, registrar, gas_price_wei, .. } = self.chain.as_ref()?;
        let fee_gwei = gas_price_wei.saturating_mul(GAS) / GWEI;
        [Some(account), registrar.as_ref()].into_iter().flatten().find_map(
            |Account { address, balance_gwei }| {
                let left = balance_gwei.checked_div(fee_gwei)?;
                let words =
                    || format!("account {address} has funds for {left} more transactions at today's fees");
                (left < FUNDS).then(words)
            },
        )
    }

    /// Adds what people want to know of the chain.
    fn describe(&self, mut status: Status, now: u64) -> Status {
        if let Some(Facts { chain_id, registry, ledger, finality, max_fee }) = &self.facts {
            status = status
                .label("chain_id", chain_id.to_string())
                .label("registry", registry)
                .label("ledger", ledger)
                .label("finality", finality)
                .gauge("max_fee_wei", *max_fee);
        }
        if let Some(Chain { head, head_time, finalized, gas_price_wei, account, registrar }) = &self.chain {
            status = status
                .gauge("head_block", *head)
                .gauge("head_age_s", now.saturating_sub(*head_time))
                .gauge("gas_price_wei", *gas_price_wei)
                .label("account", &account.address)
                .gauge("balance_gwei", account.balance_gwei);
            if let Some(finalized) = finalized {
                status = status.gauge("finalized_block", *finalized);
            }
            if let Some(registrar) = registrar {
                status = status
                    .label("registrar", &registrar.address)
                    .gauge("registrar_balance_gwei", registrar.balance_gwei);
            }
        }
        if let Some(LastAnchor { block, entries, fee_gwei }) = self.last_anchor {
            status = status
                .gauge("last_anchor_block", block)
                .gauge("last_anchor_entries", entries)
                .gauge("last_anchor_fee_gwei", fee_gwei);
        }
        status
    }
}

/// The status of the mails.
pub fn mails_status(mails: &Mails) -> Status {
    let (level, message) = if mails.left_in_a_row == 0 {
        (Level::Ok, "verifies")
    } else {
        (Level::Warn, "DNS or the registry did not answer for the latest mails, which come again")
    };
    Status::new("mails", level, message)
        .gauge("in_flight", mails.in_flight)
        .gauge("waiting", mails.waiting)
        .counter("authenticated", mails.authenticated)
        .counter("refused", mails.refused)
        .counter("left", mails.left)
        .gauge("left_in_a_row", mails.left_in_a_row)
        .counter("overflowed", mails.overflowed)
        .counter("malformed", mails.malformed)
}

/// The status of a ledger, by its name. `evidenced` is the number of leaves in its log, `now` the time [s since 1970].
pub fn ledger_status(name: &'static str, evidenced: u64, ledger: &Ledger, now: u64) -> Status {
    let pending = evidenced.saturating_sub(ledger.anchored);
    let error = ledger.last_error.as_ref().or(ledger.silence.as_ref());
    let (level, message) = match (error, ledger.connected, &ledger.late) {
        _ if let Some(ended) = &ledger.ended => {
            (Level::Error, format!("anchors no more until the next start: {ended}"))
        }
        (Some(error), false, _) => (Level::Error, format!("waits for the chain: {error}")),
        (None, false, _) => (Level::Warn, "connecting to the chain".to_owned()),
        (Some(error), true, _) => (Level::Error, format!("waits for the chain, evidence is kept: {error}")),
        (None, true, Some(late)) => (Level::Warn, format!("a transaction is late, evidence is kept: {late}")),
        (None, true, None) if let Some(error) = &ledger.revocation_error => {
            (Level::Warn, format!("the chain does not have all revocations: {error}"))
        }
        (None, true, None) if let Some(words) = &ledger.dissent => (Level::Warn, words.clone()),
        (None, true, None) if let Some(words) = ledger.is_poor() => (Level::Warn, words),
        (None, true, None) if !ledger.reachable => (Level::Ok, "nothing to anchor yet".to_owned()),
        (None, true, None) => (Level::Ok, "anchors".to_owned()),
    };
    let status = Status::new(name, level, message)
        .counter("evidenced", evidenced)
        .counter("anchored", ledger.anchored)
        .gauge("pending", pending)
        .gauge("in_flight", ledger.in_flight)
        .gauge("revocations", ledger.revocations);
    ledger.describe(status, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_chain_is_an_error_that_says_what_is_kept() {
        let ledger = Ledger { last_error: Some("connection refused".into()), ..Ledger::default() };
        let status = ledger_status("ledger", 3, &ledger, 0);
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
        let status = ledger_status("ledger", 3, &ledger, 0);
        assert_eq!((status.level, status.figure("in_flight")), (Level::Warn, Some(1)));
        assert!(status.message.contains("0x1 is in no block after 3 blocks"), "{}", status.message);
        for ledger in [
            Ledger { last_error: Some("connection refused".to_owned()), ..ledger.clone() },
            Ledger { silence: Some("connection refused".to_owned()), ..ledger },
        ] {
            assert_eq!(ledger_status("ledger", 3, &ledger, 0).level, Level::Error);
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
        let status = ledger_status("ledger", 0, &ledger, 0);
        assert_eq!((status.level, status.figure("revocations")), (Level::Warn, Some(2)));
        assert!(status.message.contains(&error), "{}", status.message);
    }

    #[test]
    fn figures_and_labels_say_how_the_chain_stands_and_when_funds_run_out() {
        let account = |address: &str, balance_gwei| Account { address: address.to_owned(), balance_gwei };
        let chain = Chain {
            head: 90,
            head_time: 1000,
            finalized: Some(80),
            // 105 gwei for a registration.
            gas_price_wei: 1_000_000,
            account: account("0xA", 10_500),
            registrar: Some(account("0xB", 10_501)),
        };
        let ledger = Ledger {
            connected: true,
            reachable: true,
            chain: Some(chain),
            last_anchor: Some(LastAnchor { block: 85, entries: 12, fee_gwei: 50 }),
            ..Ledger::default()
        };
        let at = |ledger: &Ledger| ledger_status("ledger", 3, ledger, 1004);
        let status = at(&ledger);
        assert_eq!(status.level, Level::Ok);
        for (name, value) in [
            ("head_block", 90),
            ("head_age_s", 4),
            ("finalized_block", 80),
            ("balance_gwei", 10_500),
            ("registrar_balance_gwei", 10_501),
            ("last_anchor_fee_gwei", 50),
        ] {
            assert_eq!(status.figure(name), Some(value), "{name}");
        }
        assert!(status.labels.contains(&("registrar", "0xB".to_owned())));
        let with = |change: fn(&mut Chain)| {
            let mut chain = ledger.chain.clone().unwrap();
            change(&mut chain);
            at(&Ledger { chain: Some(chain), ..ledger.clone() })
        };
        let poor = with(|chain| chain.account.balance_gwei -= 1);
        assert_eq!(poor.level, Level::Warn);
        assert_eq!(poor.message, "account 0xA has funds for 99 more transactions at today's fees");
        let poor = with(|chain| chain.registrar.as_mut().unwrap().balance_gwei = 0);
        assert_eq!(poor.message, "account 0xB has funds for 0 more transactions at today's fees");
        // Where transactions cost nothing, nothing runs out.
        let free = with(|chain| (chain.gas_price_wei, chain.account.balance_gwei) = (0, 0));
        assert_eq!(free.level, Level::Ok);
    }

    #[test]
    fn an_unanswered_question_is_warned_about_until_the_next_one_is_answered() {
        let mut mails = Mails::default();
        let level = |mails: &Mails| mails_status(mails).level;
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
        let status = ledger_status("ledger", 3, &ledger, 0);
        assert_eq!(status.level, Level::Ok, "{status:?}");
    }
}
