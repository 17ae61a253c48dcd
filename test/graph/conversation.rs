// SPDX-License-Identifier: Apache-2.0
//! What senders get: answers, orders carried out, or nothing.

use mail::{MailId, Role};
use ros::{msg, topics};
use serde_json::json;
use testbed::posthorn::{HUMAN, POSTHORN, Posthorn, SENDER, STRANGER_DOMAIN, id_of, is_receipt_of, message};

#[test]
fn questions_are_answered_from_live_vehicle_data() {
    let posthorn = Posthorn::start(&[], &[]);
    let cases: [(&str, &[&str]); 5] = [
        ("help", &["status", "where is", "battery"]),
        ("status", &["truck_1", "truck_2", "truck_3"]),
        ("status truck_1", &["truck_1", "Position: 48.", "Battery:", "Speed:"]),
        ("where is truck_2", &["truck_2", "geo:48.", ",11."]),
        ("battery truck_3", &["truck_3", " %", " V"]),
    ];
    for (question, expected) in cases {
        let data = posthorn.question(&question.replace(' ', "-"), question, "");
        posthorn.accept(SENDER, &data);
        let answer = posthorn.sink.next();
        assert_eq!(answer.rcpt_to, [SENDER]);
        assert_eq!(answer.mail_from, "", "an answer has the null reverse-path (RFC 3834)");
        assert_eq!(answer.header("Auto-Submitted"), Some("auto-replied"));
        assert_eq!(answer.header("Subject"), Some(format!("Re: {question}").as_str()));
        let in_reply_to = format!("<{}@dispatch.example>", question.replace(' ', "-"));
        assert_eq!(answer.header("In-Reply-To"), Some(in_reply_to.as_str()));
        let text = answer.text();
        for part in expected {
            assert!(text.contains(part), "{question}: no {part:?} in\n{text}");
        }
    }
}

#[test]
fn a_mail_that_comes_twice_is_answered_once() {
    let posthorn = Posthorn::start(&[], &[]);
    let data = posthorn.question("twice", "help", "");
    assert_eq!(posthorn.accept(SENDER, &data), posthorn.accept(SENDER, &data));
    let last = posthorn.question("last", "help", "");
    posthorn.accept(SENDER, &data);
    posthorn.accept(SENDER, &last);
    let mut answered = [posthorn.sink.next(), posthorn.sink.next()]
        .map(|mail| mail.header("In-Reply-To").expect("In-Reply-To").to_owned());
    answered.sort();
    assert_eq!(answered, ["<last@dispatch.example>", "<twice@dispatch.example>"]);
    assert!(posthorn.sink.rest().is_empty());
}

#[test]
fn an_operator_stops_a_vehicle_and_nobody_else_does() {
    let observed = [topics::VEHICLES_COMMANDS.facts, topics::MAIL_DISPOSITIONS.facts];
    let mut posthorn = Posthorn::start(&observed, &[]);
    let is = |id: MailId| move |message: &serde_json::Value| id_of(&message["mail_id"]) == id;

    // Unsigned: nobody is told anything.
    let forged = message("forged", "stop truck_1", "").into_bytes();
    let forged = posthorn.accept(&format!("mallory@{STRANGER_DOMAIN}"), &forged);
    let disposition = posthorn.observer.message(topics::MAIL_DISPOSITIONS.facts, is(forged));
    assert_eq!(disposition["action"], msg::Disposition::REJECTED as u64);

    // Signed by somebody who may only ask questions.
    posthorn.register(SENDER, Role::Observer);
    let data = posthorn.question("observer", "stop truck_1", "");
    posthorn.accept(SENDER, &data);
    let refusal = posthorn.sink.next();
    assert!(refusal.text().starts_with("NOT carried out"), "{}", refusal.text());
    assert!(posthorn.observer.received(topics::VEHICLES_COMMANDS.facts).is_empty());

    // Signed by an operator: the vehicle stops.
    posthorn.register(SENDER, Role::Operator);
    let data = posthorn.question("operator", "stop truck_1", "");
    let order = posthorn.accept(SENDER, &data);
    let command = posthorn.observer.message(topics::VEHICLES_COMMANDS.facts, is(order));
    assert_eq!((&command["vehicle"], &command["ordered_by"]), (&json!("truck_1"), &json!(SENDER)));
    assert_eq!(command["command"], msg::VehicleCommand::STOP as u64);
    let answer = posthorn.sink.next().text();
    assert!(answer.starts_with("truck_1 has accepted the order \"stop\"."), "{answer}");
    testbed::wait_for("truck_1 stands", || {
        let answer = posthorn.observer.call(topics::GET_STATE.facts, &json!({ "vehicle": "truck_1" }));
        (answer["states"][0]["speed"] == 0.0).then_some(())
    });

    // Signed by a revoked sender: rejected, as for a stranger.
    let request = json!({ "address": SENDER, "token": posthorn.registry_token() });
    let answer = posthorn.observer.call(topics::REVOKE_SENDER.facts, &request);
    assert_eq!(answer["success"], true, "{answer}");
    let data = posthorn.question("revoked", "resume truck_1", "");
    let revoked = posthorn.accept(SENDER, &data);
    let disposition = posthorn.observer.message(topics::MAIL_DISPOSITIONS.facts, is(revoked));
    assert_eq!(disposition["action"], msg::Disposition::REJECTED as u64);
    assert!(posthorn.observer.received(topics::VEHICLES_COMMANDS.facts).is_empty());
    assert!(posthorn.sink.rest().is_empty());
}

#[test]
fn what_is_not_understood_goes_to_a_person_and_a_mail_without_headers_to_nobody() {
    let mut posthorn = Posthorn::start(&[topics::MAIL_DISPOSITIONS.facts], &[]);
    let bare = posthorn.accept(SENDER, b"stop truck_1\r\n");
    let disposition = posthorn
        .observer
        .message(topics::MAIL_DISPOSITIONS.facts, |message| id_of(&message["mail_id"]) == bare);
    assert_eq!(disposition["action"], msg::Disposition::REJECTED as u64);

    let data = posthorn.question("unclear", "lunch?", "Shall we meet at noon?");
    let unclear = posthorn.accept(SENDER, &data);
    let forward = posthorn.sink.next();
    assert_eq!((forward.rcpt_to, forward.mail_from.as_str()), (vec![HUMAN.to_owned()], POSTHORN));
    assert!(forward.data.contains("Shall we meet at noon?"));
    let disposition = posthorn
        .observer
        .message(topics::MAIL_DISPOSITIONS.facts, |message| id_of(&message["mail_id"]) == unclear);
    assert_eq!(disposition["action"], msg::Disposition::FORWARDED as u64);
    assert!(posthorn.sink.rest().is_empty());
}

#[test]
fn the_bytes_of_a_mail_and_its_receipt_can_be_asked_for() {
    let mut posthorn = Posthorn::start(&[topics::MAIL_RECEIPTS.facts], &[]);
    let data = posthorn.question("kept", "help", "");
    let id = posthorn.accept(SENDER, &data);
    let receipt = posthorn.observer.message(topics::MAIL_RECEIPTS.facts, is_receipt_of(id));
    let request = json!({ "mail_id": id.to_string() });
    let raw = posthorn.observer.call(topics::GET_RAW.facts, &request);
    assert_eq!(raw["found"], true);
    assert_eq!(raw["data"], json!(data));
    let proven = posthorn.observer.call(topics::PROVE.facts, &request);
    assert_eq!((&proven["found"], &proven["receipt"]), (&json!(true), &receipt));
    let unknown = json!({ "mail_id": "0".repeat(64) });
    assert_eq!(posthorn.observer.call(topics::GET_RAW.facts, &unknown)["found"], false);
    assert_eq!(posthorn.observer.call(topics::PROVE.facts, &unknown)["found"], false);
}
