// SPDX-License-Identifier: Apache-2.0
//! Other nodes put entries into the authenticator's sequence.

use std::fs;

use ros::{convert::receipt_from_ros, msg, topics};
use serde_json::{Value, json};
use testbed::{
    posthorn::{Posthorn, SENDER, is_receipt_of},
    run_posthorn, wait_for,
};

fn entry(kind: &str, number: usize) -> Value {
    json!({ "kind": kind, "source": "/fleet/camera", "subject": format!("{number:064x}"), "digest": vec![7; 32] })
}

fn record(posthorn: &mut Posthorn, entries: &[Value]) -> Value {
    posthorn.observer.call(topics::RECORD.facts, &json!({ "entries": entries }))
}

#[test]
fn entries_of_other_nodes_are_recorded_once_proven_and_told_from_mails() {
    let mut posthorn = Posthorn::start(&[topics::MAIL_RECEIPTS.facts], &[]);
    let (order, image) = (entry("order", 1), entry("acme.image", 1));
    let answer = record(&mut posthorn, &[order.clone(), image.clone(), order.clone()]);
    assert_eq!(answer, json!({ "success": true, "indices": [0, 1, 0], "message": "" }));
    for (index, entry) in [(0, &order), (1, &image)] {
        let receipt =
            posthorn.observer.message(topics::MAIL_RECEIPTS.facts, |receipt| receipt["index"] == index);
        assert_eq!((&receipt["entry"], &receipt["facts"]), (entry, &json!([])));
        let receipt: msg::LedgerReceipt = serde_json::from_value(receipt).expect("a receipt");
        assert_eq!(receipt_from_ros(&receipt).expect("a receipt").verify_offline(), Ok(()));
    }

    // Nobody says in the authenticator's place what it found out about a mail; and what comes with it is not recorded.
    let refused = record(&mut posthorn, &[entry("order", 2), entry("mail_verdict", 2)]);
    let words = refused["message"].as_str().expect("text");
    assert!(
        words.starts_with("entries[1]: field 'kind' = \"mail_verdict\": must be another one"),
        "{refused}"
    );
    assert_eq!((&refused["success"], &refused["indices"]), (&json!(false), &json!([])));
    let data = posthorn.question("mail", "help", "");
    let id = posthorn.accept(SENDER, &data);
    let receipt = posthorn.observer.message(topics::MAIL_RECEIPTS.facts, is_receipt_of(id));
    assert_eq!((&receipt["index"], &receipt["entry"]["source"]), (&json!(2), &json!("/authenticator")));

    let many: Vec<_> = (10..1034).map(|number| entry("acme.image", number)).collect();
    let indices: Vec<_> = (3..1027).collect();
    assert_eq!(record(&mut posthorn, &many)["indices"], json!(indices));
    // What was answered is on disk.
    posthorn.authenticator.kill();
    posthorn.restart_authenticator(&[]);
    assert_eq!(record(&mut posthorn, &many[1000..])["indices"], json!(indices[1000..]));
    let digest = "07".repeat(32);
    let subject = format!("{:064x}", 1033);
    let wanted = [&subject, "--kind", "acme.image", "--source", "/fleet/camera", "--digest", &digest];
    let receipt = wait_for("the last entry is anchored", || {
        match run_posthorn(&posthorn.domain, &[&["prove"], &wanted[..]].concat()) {
            (0, receipt, _) => Some(receipt),
            (1, _, error) if error.contains("not anchored yet") => None,
            other => panic!("prove: {other:?}"),
        }
    });
    let kept = posthorn.authenticator_state().join("receipt.json");
    fs::write(&kept, receipt).unwrap();
    let (code, output, error) = run_posthorn(&posthorn.domain, &["verify", &kept.display().to_string()]);
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    let statement =
        format!("acme.image {subject}, stated by /fleet/camera with facts of SHA-256 {digest}, is leaf 1026");
    assert!(output.contains(&statement) && !output.contains("sender"), "{output}");
}
