// SPDX-License-Identifier: Apache-2.0
//! `make demo`: sends five mails through the whole graph and prints what happened to each. Exits 0 only if everything
//! it claims did happen.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::{fs, net::SocketAddr, process::Output, time::Instant};

use mail::MailId;
use ros::{msg, topics};
use serde_json::{Value, json};
use testbed::{
    deployed_ledger,
    dovecot::{self, Dovecot, Wish},
    posthorn::{HUMAN, POSTHORN, Posthorn, SENDER, STRANGER_DOMAIN, id_of, is_receipt_of, message},
    run_posthorn, verify_receipt,
};

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
    let mut posthorn = Posthorn::start(&observed, &[("embedded_rpc_listen", "127.0.0.1:0")]);
    let rpc = posthorn.authenticator.wait_for_log("the embedded chain serves JSON-RPC address=");
    let witness = Witness::new(&posthorn, rpc.parse().expect("address"));
    println!(
        "{SENDER} is registered as operator in the contract. ({:.1} s)\n",
        began.elapsed().as_secs_f64()
    );

    let question =
        posthorn.question("question", "Where is truck_2?", "Hello,\r\nwhere is truck_2?\r\n\r\nDana");
    let forged = message("forged", "Stop truck_2", "stop truck_2").into_bytes();
    let unclear =
        posthorn.question("unclear", "The gate", "The gate at dock 4 is stuck again, somebody should look.");
    let late = posthorn.question("late", "Where is truck_2?", "where is truck_2?");
    let stranger = format!("mallory@{STRANGER_DOMAIN}");
    let mut checks = 0;
    checks += show(
        &mut posthorn,
        &witness,
        Scene {
            title: "A signed question by a registered sender",
            way: Way::Smtp(SENDER),
            data: question,
            authenticated: true,
            action: msg::Disposition::ANSWERED as u64,
            goes_to: Some((SENDER, &["truck_2", "geo:48.", "km/h"])),
        },
    );
    checks += show(
        &mut posthorn,
        &witness,
        Scene {
            title: "A forged order: it claims the same sender, but nothing proves it",
            way: Way::Smtp(&stranger),
            data: forged,
            authenticated: false,
            action: msg::Disposition::REJECTED as u64,
            goes_to: None,
        },
    );
    checks += show(
        &mut posthorn,
        &witness,
        Scene {
            title: "A signed mail that chatbot cannot interpret",
            way: Way::Smtp(SENDER),
            data: unclear,
            authenticated: true,
            action: msg::Disposition::FORWARDED as u64,
            goes_to: Some((HUMAN, &["The gate at dock 4 is stuck again", SENDER])),
        },
    );
    let mut mails = 4;
    if dovecot::is_there() {
        let server = Dovecot::start(Wish::default());
        posthorn.read_mailbox(&server);
        let fetched = posthorn.question("mailbox", "Where is truck_1?", "where is truck_1?");
        checks += 1 + show(
            &mut posthorn,
            &witness,
            Scene {
                title: "A signed question that posthorn finds in its mailbox, on a real Dovecot",
                way: Way::Mailbox(&server),
                data: fetched,
                authenticated: true,
                action: msg::Disposition::ANSWERED as u64,
                goes_to: Some((SENDER, &["truck_1", "geo:48."])),
            },
        );
        testbed::wait_for("the message is marked as read", || {
            server.messages(POSTHORN, "INBOX").iter().all(|(flags, _)| flags.contains('S')).then_some(())
        });
        mails += 1;
        // The server ends here; the bridge tries it again, and drains all the same.
    } else {
        println!("There is no Dovecot here: a mail from a mailbox is left out. make dovecot installs it.\n");
    }
    revoke(&posthorn);
    checks += 1 + show(
        &mut posthorn,
        &witness,
        Scene {
            title: "A signed question by the same sender, revoked with posthorn sender revoke",
            way: Way::Smtp(SENDER),
            data: late,
            authenticated: false,
            action: msg::Disposition::REJECTED as u64,
            goes_to: None,
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
        "{checks} checks: {mails} mails accepted, judged, evidenced with a verified proof and settled; {} mails sent, none to the \
         forger;\n1 sender revoked; no vehicle ordered; 5 nodes drained. {:.1} s in all.",
        mails - 2,
        began.elapsed().as_secs_f64()
    );
}

/// How a mail comes in.
enum Way<'s> {
    /// By SMTP, from this envelope sender.
    Smtp(&'s str),
    /// It lies in a mailbox.
    Mailbox(&'s Dovecot),
}

/// One mail and its expected outcome.
struct Scene<'s> {
    title: &'static str,
    way: Way<'s>,
    data: Vec<u8>,
    authenticated: bool,
    action: u64,
    /// Recipient of the resulting mail and the words that it must contain; `None` if nothing is sent.
    goes_to: Option<(&'static str, &'static [&'static str])>,
}

/// Plays a scene, prints its block, and returns the number of checks that passed.
fn show(posthorn: &mut Posthorn, witness: &Witness, scene: Scene<'_>) -> u32 {
    let Scene { title, way, data, authenticated, action, goes_to } = scene;
    let (id, came, on_disk) = match way {
        Way::Smtp(mail_from) => {
            let came = format!("envelope sender {mail_from}");
            (posthorn.accept(mail_from, &data), came, "250 after it was on disk")
        }
        Way::Mailbox(server) => {
            server.deliver(POSTHORN, "INBOX", &data);
            (
                MailId::of(&data),
                format!("in the INBOX of {POSTHORN}"),
                "fetched by IMAP over TLS, and on disk",
            )
        }
    };
    let judged = posthorn
        .observer
        .message(topics::MAIL_AUTHENTICATED.facts, |message| id_of(&message["mail"]["id"]) == id);
    let (mail, verdict) = (&judged["mail"], &judged["verdict"]);
    println!("── {title} {}", "─".repeat(96_usize.saturating_sub(title.len())));
    println!("  in       From {}, Subject {}, {came}", mail["from_addresses"][0]["address"], mail["subject"]);
    println!("           {on_disk}; id {}…", &id.to_string()[..16]);
    let word = if verdict["authenticated"] == true { "AUTHENTICATED" } else { "NOT AUTHENTICATED" };
    let method =
        |name: &str| RESULTS[usize::try_from(verdict[name].as_u64().expect("result")).expect("small")];
    println!("  verdict  {word}: SPF {}, DKIM {}, DMARC {}", method("spf"), method("dkim"), method("dmarc"));
    println!("           {}", verdict["reason"].as_str().expect("reason"));
    assert_eq!(verdict["authenticated"], authenticated, "{verdict}");

    let receipt = posthorn.observer.message(topics::MAIL_RECEIPTS.facts, is_receipt_of(id));
    witness.verify(posthorn, id, &receipt["root"]);
    println!(
        "  ledger   leaf {} in transaction {}…, block {}",
        receipt["index"],
        &receipt["transaction"].as_str().expect("transaction")[..18],
        receipt["block_number"]
    );
    println!("           receipt verified over JSON-RPC by docs/verify_receipt.py, with web3.py");

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

/// Revokes the sender, with the command that an operator has.
fn revoke(posthorn: &Posthorn) {
    let token = posthorn.authenticator_state().join("registry.token").display().to_string();
    let revoke = ["sender", "revoke", SENDER, "--token-file", &token];
    let (code, output, error) = run_posthorn(&posthorn.domain, &revoke);
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
}

/// Verifies receipts with nothing of posthorn: in Python, with web3.py, over the chain's JSON-RPC.
struct Witness {
    rpc: String,
    /// The ledger's address, from the one who deployed it and not from a receipt.
    contract: String,
}

impl Witness {
    fn new(posthorn: &Posthorn, rpc: SocketAddr) -> Self {
        Self { rpc: format!("http://{rpc}"), contract: deployed_ledger(&posthorn.authenticator_state()) }
    }

    /// Asks for the mail's receipt with the command that anybody has and verifies it; also checks that one of another
    /// verdict is refused.
    fn verify(&self, posthorn: &Posthorn, id: MailId, root: &Value) {
        let (code, receipt, error) = run_posthorn(&posthorn.domain, &["prove", &id.to_string()]);
        assert_eq!(code, 0, "{error}");
        let genuine: Value = serde_json::from_str(&receipt).expect("JSON");
        assert_eq!((id_of(&genuine["entry"]["subject"]), &genuine["root"]), (id, root));
        let scratch = tempfile::tempdir().expect("scratch");
        let file = scratch.path().join("receipt.json");
        let run = |receipt: &Value| {
            fs::write(&file, receipt.to_string()).expect("receipt");
            verify_receipt(&file, &self.rpc, &self.contract)
        };
        let Output { status, stdout, stderr } = run(&genuine);
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        assert!(
            String::from_utf8_lossy(&stdout)
                .contains(&format!("mail_verdict {id}, leaf {}", genuine["index"]))
        );
        let mut tampered = genuine.clone();
        // Whether the sender was authenticated.
        tampered["facts"][44] = json!(1 - genuine["facts"][44].as_u64().expect("a byte"));
        let refused = run(&tampered);
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("facts are not those that were recorded"));
    }
}
