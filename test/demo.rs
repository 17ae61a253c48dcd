// SPDX-License-Identifier: Apache-2.0
//! `make demo`: sends three mails through the whole graph and prints what happened to each. Exits 0 only if everything
//! it claims did happen.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::time::Instant;

use chain::{Connection, EmbeddedChain, Ledger, LedgerKey, LedgerOptions};
use evidence::Finding;
use mail::MailId;
use ros::{convert::receipt_from_ros, msg, topics};
use testbed::posthorn::{HUMAN, Posthorn, SENDER, STRANGER_DOMAIN, id_of, is_receipt_of, message};

fn main() {
    let began = Instant::now();
    println!("posthorn: email as one more sensor stream of a fleet\n");
    println!(
        "Starting mail_bridge, authenticator, chatbot, vehicle_router and fleet_simulator, each a process,"
    );
    println!("on embedded defaults: own journal, own chain, a zone file for DNS, loopback for mail.");
    let observed = [
        topics::MAIL_AUTHENTICATED.facts,
        topics::MAIL_RECEIPTS.facts,
        topics::MAIL_DISPOSITIONS.facts,
        topics::MAIL_DELIVERIES.facts,
        topics::VEHICLES_COMMANDS.facts,
    ];
    let mut posthorn = Posthorn::start(&observed, &[]);
    println!(
        "{SENDER} is registered as operator in the contract. ({:.1} s)\n",
        began.elapsed().as_secs_f64()
    );

    let question =
        posthorn.question("question", "Where is truck_2?", "Hello,\r\nwhere is truck_2?\r\n\r\nDana");
    let forged = message("forged", "Stop truck_2", "stop truck_2").into_bytes();
    let unclear =
        posthorn.question("unclear", "The gate", "The gate at dock 4 is stuck again, somebody should look.");
    let mut checks = 0;
    checks += show(
        &mut posthorn,
        Scene {
            title: "A signed question by a registered sender",
            data: question,
            authenticated: true,
            action: msg::Disposition::ANSWERED as u64,
            goes_to: Some((SENDER, &["truck_2", "geo:48.", "km/h"])),
        },
    );
    checks += show(
        &mut posthorn,
        Scene {
            title: "A forged order: it claims the same sender, but nothing proves it",
            data: forged,
            authenticated: false,
            action: msg::Disposition::REJECTED as u64,
            goes_to: None,
        },
    );
    checks += show(
        &mut posthorn,
        Scene {
            title: "A signed mail that chatbot cannot interpret",
            data: unclear,
            authenticated: true,
            action: msg::Disposition::FORWARDED as u64,
            goes_to: Some((HUMAN, &["The gate at dock 4 is stuck again", SENDER])),
        },
    );
    let unexpected = posthorn.sink.rest();
    assert!(unexpected.is_empty(), "mails that nobody should get: {unexpected:?}");
    let ordered = posthorn.observer.received(topics::VEHICLES_COMMANDS.facts);
    assert!(ordered.is_empty(), "orders that nobody may give: {ordered:?}");
    checks += 2;
    for node in posthorn.nodes() {
        let status = node.terminate();
        assert!(status.success(), "{status} after SIGTERM:\n{}", node.log());
        checks += 1;
    }
    println!(
        "{checks} checks: 3 mails accepted, judged, evidenced with a verified proof and settled; 2 mails sent, none to the \
         forger;\nno vehicle ordered; 5 nodes drained. {:.1} s in all.",
        began.elapsed().as_secs_f64()
    );
}

/// One mail and its expected outcome.
struct Scene {
    title: &'static str,
    data: Vec<u8>,
    authenticated: bool,
    action: u64,
    /// Recipient of the resulting mail and the words that it must contain; `None` if nothing is sent.
    goes_to: Option<(&'static str, &'static [&'static str])>,
}

/// Plays a scene, prints its block, and returns the number of checks that passed.
fn show(posthorn: &mut Posthorn, scene: Scene) -> u32 {
    let Scene { title, data, authenticated, action, goes_to } = scene;
    let stranger = format!("mallory@{STRANGER_DOMAIN}");
    let mail_from = if authenticated { SENDER } else { &stranger };
    let id = posthorn.accept(mail_from, &data);
    let judged = posthorn
        .observer
        .message(topics::MAIL_AUTHENTICATED.facts, |message| id_of(&message["mail"]["id"]) == id);
    let (mail, verdict) = (&judged["mail"], &judged["verdict"]);
    println!("── {title} {}", "─".repeat(96_usize.saturating_sub(title.len())));
    println!(
        "  in       From {}, Subject {}, envelope sender {mail_from}",
        mail["from_addresses"][0]["address"], mail["subject"]
    );
    println!("           250 after it was on disk; id {}…", &id.to_string()[..16]);
    let word = if verdict["authenticated"] == true { "AUTHENTICATED" } else { "NOT AUTHENTICATED" };
    let method =
        |name: &str| RESULTS[usize::try_from(verdict[name].as_u64().expect("result")).expect("small")];
    println!("  verdict  {word}: SPF {}, DKIM {}, DMARC {}", method("spf"), method("dkim"), method("dmarc"));
    println!("           {}", verdict["reason"].as_str().expect("reason"));
    assert_eq!(verdict["authenticated"], authenticated, "{verdict}");

    let receipt = posthorn.observer.message(topics::MAIL_RECEIPTS.facts, is_receipt_of(id));
    let receipt: msg::LedgerReceipt = serde_json::from_value(receipt).expect("receipt");
    verify(posthorn, id, &receipt);
    println!(
        "  ledger   leaf {} in transaction {}…, block {}",
        receipt.index,
        &receipt.transaction[..18],
        receipt.block_number
    );
    println!("           proof verified against the chain, by another process");

    let disposition = posthorn
        .observer
        .message(topics::MAIL_DISPOSITIONS.facts, |message| id_of(&message["mail_id"]) == id);
    assert_eq!(disposition["action"], action, "{disposition}");
    match goes_to {
        Some((recipient, words)) => {
            let answer = posthorn.sink.next();
            assert_eq!(answer.rcpt_to, [recipient]);
            let text = answer.text();
            assert!(words.iter().all(|word| text.contains(word)), "{words:?} in\n{text}");
            let delivered = msg::DeliveryStatus::DELIVERED as u64;
            posthorn.observer.message(topics::MAIL_DELIVERIES.facts, |message| {
                id_of(&message["answers"]) == id && message["status"] == delivered
            });
            println!("  out      to {recipient}, subject {:?}", answer.header("Subject").unwrap_or_default());
            for line in text.trim_end().lines() {
                println!("           │ {line}");
            }
        }
        None => println!("  out      nothing: {}", disposition["reason"].as_str().expect("reason")),
    }
    println!();
    4 + u32::from(goes_to.is_some()) * 3
}

/// Names of the results in `Verdict.msg`, indexed by number.
const RESULTS: [&str; 8] =
    ["not evaluated", "none", "pass", "fail", "softfail", "neutral", "temporary error", "permanent error"];

/// Reads the authenticator's chain from disk and verifies the receipt against it; also checks that a tampered receipt
/// does not verify.
fn verify(posthorn: &Posthorn, id: MailId, message: &msg::LedgerReceipt) {
    let directory = posthorn.authenticator_state();
    let receipt = receipt_from_ros(message).expect("receipt");
    let mut finding = Finding::of(&receipt.evidence.entry).expect("a verdict on a mail");
    assert_eq!(finding.mail_id, id);
    finding.verdict[0] ^= 1;
    let mut tampered = receipt.clone();
    tampered.evidence.entry = finding.entry(receipt.evidence.entry.source());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let chain = EmbeddedChain::open_read_only(&directory.join("chain")).expect("chain");
        let own_key = tempfile::tempdir().expect("scratch");
        let key = LedgerKey::load_or_create(&own_key.path().join("key")).expect("key");
        let options = LedgerOptions {
            confirmations: Some(1),
            in_flight: 1,
            timeout: testbed::PATIENCE,
            max_fee: u64::MAX.into(),
            contracts: None,
        };
        let ledger =
            Ledger::connect(Connection::Embedded(chain), key, &directory, options).await.expect("ledger");
        ledger.verify(&receipt).await.expect("the proof must verify");
        ledger.verify(&tampered).await.expect_err("a tampered receipt must not verify");
    });
}
