// SPDX-License-Identifier: Apache-2.0
//! Orders from the mail to the vehicle and back: delayed, unheard, forged, interrupted.

use std::time::Duration;

use evidence::digest_of;
use mail::MailId;
use ros::{convert::command_from_ros, msg, topics};
use serde_json::{Value, json};
use testbed::{
    posthorn::{HUMAN, Posthorn, SENDER, id_of, message_of},
    run_posthorn,
    smtp::Delivered,
    wait_for,
};
use vehicle::signed_bytes;

use super::{life::DIAGNOSTICS, publisher::Publisher};

const COMMANDS: topics::TopicFacts = topics::VEHICLES_COMMANDS.facts;
const ACKNOWLEDGEMENTS: topics::TopicFacts = topics::VEHICLES_ACKNOWLEDGEMENTS.facts;

/// Orders as a person gives them, and what comes of them.
trait Ordering {
    fn order(&self, order: &str, seconds: u64) -> MailId;
    fn not_carried_out(&self) -> (Delivered, Delivered);
    fn accepted(&self, order: &str);
    fn speed_of_truck_1(&mut self) -> f64;
}

impl Ordering for Posthorn {
    /// Submits an order from the registered operator, dated `seconds` ago.
    fn order(&self, order: &str, seconds: u64) -> MailId {
        let tag = format!("{}-{seconds}", order.replace(' ', "-"));
        let mail = message_of(&tag, "", order, Duration::from_secs(seconds));
        self.accept(SENDER, &self.sender.sign(&mail))
    }

    /// Takes the answer that tells the sender the order was not carried out, and the urgent copy for the person.
    fn not_carried_out(&self) -> (Delivered, Delivered) {
        let mut mails = [self.sink.next(), self.sink.next()];
        mails.sort_by_key(|mail| mail.rcpt_to != [SENDER]);
        let [answer, copy] = mails;
        assert_eq!((&answer.rcpt_to, &copy.rcpt_to), (&vec![SENDER.to_owned()], &vec![HUMAN.to_owned()]));
        assert!(answer.text().starts_with("NOT carried out"), "{}", answer.text());
        assert_eq!(copy.header("Subject"), Some("URGENT: Fwd: (no subject)"));
        (answer, copy)
    }

    fn accepted(&self, order: &str) {
        let answer = self.sink.next();
        assert!(answer.text().contains(&format!("has accepted the order \"{order}\".")), "{}", answer.text());
    }

    fn speed_of_truck_1(&mut self) -> f64 {
        let answer = self.observer.call(topics::GET_STATE.facts, &json!({ "vehicle": "truck_1" }));
        answer["states"][0]["speed"].as_f64().expect("speed")
    }
}

fn is(id: MailId) -> impl Fn(&Value) -> bool {
    move |command| id_of(&command["mail_id"]) == id
}

/// This once failed: the resume was published after the stop, and the truck drove on.
#[test]
fn a_resume_that_was_delayed_does_not_override_the_stop_that_followed_it() {
    let mut posthorn = Posthorn::start(&[COMMANDS, topics::MAIL_DISPOSITIONS.facts], &[]);
    posthorn.order("stop truck_1", 0);
    posthorn.accepted("stop");
    let resume = posthorn.order("resume truck_1", 60);
    let (answer, _) = posthorn.not_carried_out();
    let text = answer.text();
    let (_, later) = text
        .split_once("it was not sent, as truck_1 has been ordered to stop, by a mail dated ")
        .expect(&text);
    // Fewer than 60 if the stop was dated some seconds before the resume.
    let later: u32 = later.split_once(" s later").and_then(|(seconds, _)| seconds.parse().ok()).expect(&text);
    assert!((30..=60).contains(&later), "{text}");
    let disposition = posthorn.observer.message(topics::MAIL_DISPOSITIONS.facts, is(resume));
    assert_eq!(disposition["action"], msg::Disposition::FORWARDED as u64);
    wait_for("truck_1 stands", || (posthorn.speed_of_truck_1() == 0.0).then_some(()));
    let sent = posthorn.observer.received(COMMANDS);
    assert!(sent.iter().all(|command| command["command"] == msg::VehicleCommand::STOP as u64), "{sent:?}");
    // The stop still counts after a restart.
    posthorn.restart_chatbot(&[]);
    posthorn.order("resume truck_1", 59);
    assert!(posthorn.not_carried_out().0.text().contains("was not sent"));
}

/// This once failed: the order was published once, with nobody subscribed, and its sender was told that it was sent.
#[test]
fn a_stop_that_no_vehicle_hears_is_told_to_its_sender_and_to_a_person() {
    let mut posthorn = Posthorn::start(&[], &[]);
    posthorn.restart_chatbot(&[("acknowledgement_timeout_s", "2.0"), ("order_retry_s", "0.2")]);
    posthorn.fleet_simulator.kill();
    posthorn.order("stop truck_1", 0);
    let (answer, _) = posthorn.not_carried_out();
    let words = "truck_1 did not acknowledge it within 2 s; nothing listens for orders";
    assert!(answer.text().contains(words), "{}", answer.text());
    assert!(posthorn.chatbot.log().matches("order published").count() > 5, "{}", posthorn.chatbot.log());
}

#[test]
fn an_order_is_published_again_after_the_chatbot_was_killed_and_answered_once() {
    let mut posthorn = Posthorn::start(&[COMMANDS], &[]);
    posthorn.fleet_simulator.kill();
    let stop = posthorn.order("stop truck_1", 0);
    let first = posthorn.observer.message(COMMANDS, is(stop));
    posthorn.restart_chatbot(&[]);
    posthorn.observer.forget(COMMANDS);
    let again = posthorn.observer.message(COMMANDS, is(stop));
    posthorn.restart_fleet_simulator(&[]);
    posthorn.accepted("stop");
    assert_eq!((&first["command_id"], &first["signature"]), (&again["command_id"], &again["signature"]));
    assert!(posthorn.sink.rest().is_empty());
}

#[test]
fn a_vehicle_takes_no_order_that_the_key_does_not_prove_and_none_twice() {
    let mut posthorn = Posthorn::start(&[COMMANDS, ACKNOWLEDGEMENTS, topics::CHATBOT_ORDER_KEY.facts], &[]);
    let stop = posthorn.order("stop truck_1", 3);
    posthorn.accepted("stop");
    let stop = posthorn.observer.message(COMMANDS, is(stop));
    posthorn.order("resume truck_1", 2);
    posthorn.accepted("resume");
    let of = |id: &Value, status: u64| {
        let id = id.clone();
        move |said: &Value| said["command_id"] == id && said["status"] == status
    };
    let accepted = msg::VehicleAcknowledgement::ACCEPTED as u64;
    posthorn.observer.message(ACKNOWLEDGEMENTS, of(&stop["command_id"], accepted));

    // Somebody replays the signed order: it is not carried out again, only acknowledged again.
    let mut publisher = Publisher::start(&posthorn.domain, COMMANDS, 2);
    publisher.publish(&stop);
    posthorn.observer.message(ACKNOWLEDGEMENTS, of(&stop["command_id"], accepted));
    // The same order with a newer date, and one with an invented id.
    let mut newer = stop.clone();
    newer["ordered_at"]["sec"] = json!(stop["ordered_at"]["sec"].as_u64().expect("sec") + 2);
    let mut forged = newer.clone();
    forged["command_id"] = json!("ab".repeat(32));
    for forged in [newer, forged] {
        publisher.publish(&forged);
        let refused = of(&forged["command_id"], msg::VehicleAcknowledgement::REFUSED as u64);
        let said = posthorn.observer.message(ACKNOWLEDGEMENTS, refused);
        assert_eq!(said["reason"], "its signature is not by the order key that this vehicle trusts");
    }
    wait_for("truck_1 drives", || (posthorn.speed_of_truck_1() > 1.0).then_some(()));

    // The sender had been told that the vehicle accepted the first one.
    let notice = posthorn.sink.next();
    assert_eq!(notice.rcpt_to, [SENDER, HUMAN]);
    assert!(notice.text().contains("has now refused it: its signature"), "{}", notice.text());

    // A vehicle that has the key of another chatbot refuses, and the sender hears why.
    let key = posthorn.observer.message(topics::CHATBOT_ORDER_KEY.facts, |_| true);
    assert_eq!(key["public_key"].as_str().map(str::len), Some(64));
    let other = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    posthorn.restart_fleet_simulator(&[("order_key", other)]);
    posthorn.order("stop truck_1", 0);
    let answer = posthorn.not_carried_out().0.text();
    assert!(answer.contains("truck_1 has refused it: its signature is not by the order key"), "{answer}");
}

const RECEIPTS: topics::TopicFacts = topics::MAIL_RECEIPTS.facts;

/// The digest of an order's facts, from the message on `vehicles/commands`.
fn digest(command: &Value) -> [u8; 32] {
    let command: msg::VehicleCommand = serde_json::from_value(command.clone()).expect("an order");
    digest_of(&signed_bytes(&command_from_ros(&command).expect("an order")))
}

fn is_receipt_of(command: &Value) -> impl Fn(&Value) -> bool {
    let (id, digest) = (command["command_id"].clone(), digest(command));
    move |receipt| {
        let entry = &receipt["entry"];
        entry["kind"] == "order" && entry["subject"] == id && entry["digest"] == json!(digest)
    }
}

#[test]
fn an_order_gets_a_receipt_that_whoever_has_the_order_can_verify() {
    let mut posthorn = Posthorn::start(&[COMMANDS, RECEIPTS], &[]);
    let stop = posthorn.order("stop truck_1", 0);
    let command = posthorn.observer.message(COMMANDS, is(stop));
    let receipt = posthorn.observer.message(RECEIPTS, is_receipt_of(&command));
    assert_eq!((&receipt["entry"]["source"], &receipt["facts"]), (&json!("/chatbot"), &json!([])));
    posthorn.accepted("stop");

    let (id, digest) = (command["command_id"].as_str().expect("text"), hex::encode(digest(&command)));
    let prove = ["prove", id, "--kind", "order", "--source", "/chatbot", "--digest", &digest];
    let (code, proven, error) = run_posthorn(&posthorn.domain, &prove);
    assert_eq!((code, error.as_str()), (0, ""), "{proven}");
    let kept = posthorn.authenticator_state().join("receipt.json");
    std::fs::write(&kept, proven).expect("scratch");
    let (code, output, error) = run_posthorn(&posthorn.domain, &["verify", &kept.display().to_string()]);
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    let statement = format!("order {id}, stated by /chatbot with facts of SHA-256 {digest}, is leaf");
    assert!(output.contains(&statement), "{output}");
}

/// A stop does not wait for the ledger; the ledger gets it when it can, even if the chatbot dies before.
#[test]
fn an_order_goes_out_without_the_authenticator_and_gets_its_receipt_later() {
    let judgements = topics::MAIL_AUTHENTICATED.facts;
    let mut posthorn = Posthorn::start(&[COMMANDS, judgements, DIAGNOSTICS], &[]);
    posthorn.chatbot.kill();
    let stop = posthorn.order("stop truck_1", 0);
    let judged = posthorn.observer.message(judgements, |message| id_of(&message["mail"]["id"]) == stop);
    posthorn.authenticator.kill();
    posthorn.restart_chatbot(&[]);
    // The observer hears the new chatbot, so it will not miss the command.
    posthorn.observer.forget(DIAGNOSTICS);
    posthorn.observer.message(DIAGNOSTICS, wait_for_ledger("0"));
    let mut publisher = Publisher::start(&posthorn.domain, judgements, 2);
    // Again and again, as mail_bridge would have it: nobody knows when chatbot and mail_bridge have found each other.
    let answer = wait_for("the answer", || {
        publisher.publish(&judged);
        posthorn.sink.wait(Duration::from_secs(1))
    });
    assert!(answer.text().contains("has accepted the order \"stop\"."), "{}", answer.text());
    let command = posthorn.observer.message(COMMANDS, is(stop));
    posthorn.observer.message(DIAGNOSTICS, wait_for_ledger("1"));
    posthorn.restart_chatbot(&[]);
    posthorn.observer.forget(DIAGNOSTICS);
    posthorn.observer.message(DIAGNOSTICS, wait_for_ledger("1"));
    posthorn.restart_authenticator(&[]);
    posthorn.observer.message(DIAGNOSTICS, wait_for_ledger("0"));
    // The observer may join the new authenticator's topic later than the receipt was published there.
    let entry = json!({
        "kind": "order", "source": "/chatbot", "subject": command["command_id"], "digest": digest(&command),
    });
    let request = json!({ "mail_id": "", "entry": entry });
    let proven = wait_for("the receipt", || {
        let answer = posthorn.observer.call(topics::PROVE.facts, &request);
        (answer["found"] == true).then_some(answer)
    });
    assert!(is_receipt_of(&command)(&proven["receipt"]), "{proven}");
}

fn wait_for_ledger(orders: &str) -> impl Fn(&Value) -> bool {
    let figure = json!({ "key": "wait_for_ledger", "value": orders });
    move |message| {
        let statuses = message["status"].as_array().into_iter().flatten();
        statuses.flat_map(|status| status["values"].as_array()).flatten().any(|value| *value == figure)
    }
}
