// SPDX-License-Identifier: Apache-2.0
//! The chain cannot be reached, or takes no transaction.

use chain::LedgerKey;
use ros::{msg, topics};
use serde_json::Value;
use testbed::{
    free_port,
    posthorn::{Posthorn, SENDER, Unready, id_of, is_receipt_of},
};

use crate::ledger::fixture::{Anvil, fund, mine_at};

fn run<T>(request: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(request)
}

/// Gives the authenticator's account money.
pub fn fund_authenticator(posthorn: &Posthorn, anvil: &Anvil) {
    fund_owner_of("ledger.key", posthorn, anvil);
}

/// Gives the account money whose key is in this file of the authenticator's.
pub fn fund_owner_of(file: &str, posthorn: &Posthorn, anvil: &Anvil) {
    let key = LedgerKey::load_or_create(&posthorn.authenticator_state().join(file)).unwrap();
    run(fund(&anvil.chain(), key.address()));
}

#[test]
fn an_unreachable_chain_is_waited_for_said_in_diagnostics_and_caught_up_with() {
    let port = free_port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let unready = Unready::start(
        &[topics::MAIL_AUTHENTICATED.facts, topics::MAIL_RECEIPTS.facts, super::life::DIAGNOSTICS],
        &[("ethereum_endpoint", &endpoint), ("confirmations", "1"), ("registry_patience_s", "0.0")],
    );
    let mut posthorn = unready.0;
    posthorn.observer.message(super::life::DIAGNOSTICS, |m| ledger_status(m, 2, "waits for the chain"));

    // Mail is still accepted and judged, but without the registry nobody is authenticated.
    let data = posthorn.question("early", "help", "");
    let early = posthorn.accept(SENDER, &data);
    let judged = posthorn
        .observer
        .message(topics::MAIL_AUTHENTICATED.facts, |message| id_of(&message["mail"]["id"]) == early);
    assert_eq!(judged["verdict"]["registry"], msg::Verdict::REGISTRY_UNAVAILABLE as u64);
    assert_eq!(judged["verdict"]["authenticated"], false);

    // The mail's sender is told; at the second delivery, if chatbot and authenticator had not found each other at the
    // first.
    let told = posthorn.sink.next();
    assert_eq!(told.rcpt_to, [SENDER]);
    assert!(told.text().starts_with("Your mail has had no effect"), "{}", told.text());

    // The chain comes up, and the node's account gets money.
    let anvil = Anvil::start(port);
    fund_authenticator(&posthorn, &anvil);

    let receipt = posthorn.observer.message(topics::MAIL_RECEIPTS.facts, is_receipt_of(early));
    assert_eq!((&receipt["index"], &receipt["chain_id"]), (&0.into(), &31337.into()));
    posthorn.observer.message(super::life::DIAGNOSTICS, |m| ledger_status(m, 0, "anchors"));
    assert!(posthorn.sink.rest().is_empty());
}

/// A host comes up before its uplink: mails are judged once the registry can be asked, not before.
#[test]
fn mails_wait_for_a_chain_that_comes_within_the_patience() {
    let port = free_port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let mut posthorn = Unready::start(
        &[topics::MAIL_AUTHENTICATED.facts],
        &[("ethereum_endpoint", &endpoint), ("confirmations", "1")],
    )
    .0;
    let data = posthorn.question("early", "help", "");
    let early = posthorn.accept(SENDER, &data);
    posthorn.authenticator.wait_for_log("waiting for the chain");
    assert!(posthorn.observer.received(topics::MAIL_AUTHENTICATED.facts).is_empty());

    let anvil = Anvil::start(port);
    fund_authenticator(&posthorn, &anvil);
    let judged = posthorn
        .observer
        .message(topics::MAIL_AUTHENTICATED.facts, |message| id_of(&message["mail"]["id"]) == early);
    assert_eq!(judged["verdict"]["registry"], msg::Verdict::REGISTRY_UNREGISTERED as u64);
}

/// Once, a transaction that could not get into a block was waited for under a green status.
#[test]
fn fees_above_the_limit_are_a_warning_and_anchoring_goes_on_below_it() {
    const GWEI: u64 = 1_000_000_000;
    let anvil = Anvil::start(free_port());
    let set_base_fee = |gwei: u64| run(mine_at(&anvil.chain(), gwei * GWEI));
    let endpoint = anvil.endpoint();
    let parameters =
        [("ethereum_endpoint", endpoint.as_str()), ("confirmations", "1"), ("max_fee_gwei", "100")];
    let mut posthorn =
        Unready::start(&[topics::MAIL_RECEIPTS.facts, super::life::DIAGNOSTICS], &parameters).0;
    fund_authenticator(&posthorn, &anvil);
    posthorn.authenticator.wait_for_log("connected to the chain");

    set_base_fee(1_000);
    let data = posthorn.question("dear", "help", "");
    let id = posthorn.accept(SENDER, &data);
    posthorn.observer.message(super::life::DIAGNOSTICS, |message| {
        ledger_status(message, 1, "waits for fees below max_fee_gwei = 100")
    });
    set_base_fee(10);
    posthorn.observer.message(topics::MAIL_RECEIPTS.facts, is_receipt_of(id));
    posthorn.observer.forget(super::life::DIAGNOSTICS);
    posthorn.observer.message(super::life::DIAGNOSTICS, |message| ledger_status(message, 0, "anchors"));
}

/// Whether the ledger's status has this level, and a message with these words.
fn ledger_status(message: &Value, level: u64, words: &str) -> bool {
    status_of("ledger", message, level, words)
}

/// The same of a status of the authenticator by its name.
pub fn status_of(name: &str, message: &Value, level: u64, words: &str) -> bool {
    message["status"].as_array().into_iter().flatten().any(|status| {
        status["name"] == format!("authenticator: {name}")
            && status["level"] == level
            && status["message"].as_str().unwrap().contains(words)
    })
}
