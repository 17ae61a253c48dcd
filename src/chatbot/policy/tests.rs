// SPDX-License-Identifier: Apache-2.0
mod told;

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, time::Duration};

use mail::{Attachment, AuthResult, Content, Envelope, MailId, Mailbox, OutboundKind, Registration, Role};
use proptest::prelude::*;
use settings::{Value, resolve};
use vehicle::{Battery, Position};

use super::*;
use crate::params::SPECS;

fn policy_with(unavailable: &str) -> Policy {
    let given =
        BTreeMap::from([("when_registry_unavailable".to_owned(), Value::Text(unavailable.to_owned()))]);
    Policy::new(Params::load(&resolve(SPECS, given).unwrap(), Path::new("/state")).unwrap())
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn address(address: &str) -> Mailbox {
    Mailbox { name: "Anna".into(), address: address.into() }
}

/// A mail received at 0 s, whose From and Reply-To differ.
fn mail(subject: &str, text: &str) -> Mail {
    let envelope = Envelope {
        peer: Ipv4Addr::LOCALHOST.into(),
        helo: "client.example.org".into(),
        mail_from: "bounces@example.org".into(),
        rcpt_to: vec!["posthorn@localhost".into()],
    };
    let content = Content {
        message_id: "1@example.org".into(),
        date: Some(at(0)),
        subject: subject.into(),
        from: vec![address("anna@example.org")],
        reply_to: vec![address("stranger@example.net")],
        text: text.into(),
        text_only: true,
        ..Content::default()
    };
    let id = MailId::of(format!("{subject}\0{text}").as_bytes());
    let (origin, consumers) = (mail::Origin::Smtp(envelope), vec!["chatbot".into()]);
    Mail { id, received_at: at(0), origin, consumers, content, size: 0 }
}

fn verdict(role: Role) -> Verdict {
    let (dmarc, registry) = (AuthResult::Pass, Registration::Active);
    let reason = "ok".into();
    Verdict { dmarc, registry, role, authenticated: true, order_covered: true, reason, ..Verdict::default() }
}

fn unavailable() -> Verdict {
    Verdict { dmarc: AuthResult::Pass, registry: Registration::Unavailable, ..Verdict::default() }
}

fn fleet() -> Fleet {
    let position = Position { latitude_deg: 48.0, longitude_deg: 11.0, altitude_m: 520.0, at: at(1) };
    let battery = Battery { charge: 0.83, voltage_v: 24.8, at: at(1) };
    let known =
        VehicleState { position: Some(position), battery: Some(battery), ..VehicleState::unheard("Truck_1") };
    Fleet { states: vec![known], vehicles: vec!["Truck_1".into(), "truck_2".into()] }
}

/// The first step for a mail, at 3 s.
fn judge(policy: &Policy, mail: &Mail, verdict: &Verdict, automatic: Option<&'static str>) -> Step {
    let interpretation = Interpretation { automatic, ..Interpretation::of(mail, verdict) };
    policy.judge(mail, verdict, interpretation, &mut Quota::default(), at(3))
}

/// The last step for a mail, with vehicle_router answering at 3 s.
fn last(policy: &Policy, mail: &Mail, verdict: &Verdict) -> Step {
    completed(policy, judge(policy, mail, verdict, None))
}

fn completed(policy: &Policy, step: Step) -> Step {
    match step {
        Step::AskStates(pending) => policy.answer(pending, Ok(&fleet()), Duration::ZERO, at(3)),
        step => step,
    }
}

fn concluded(step: Step) -> Conclusion {
    if let Step::Conclude(conclusion) = step { conclusion } else { panic!("{step:?}") }
}

/// How a mail ends, with vehicle_router answering at 3 s.
fn conclusion(policy: &Policy, mail: &Mail, verdict: &Verdict) -> Conclusion {
    concluded(last(policy, mail, verdict))
}

fn ordered(step: Step) -> Box<Ordered> {
    if let Step::Order(ordered) = step { ordered } else { panic!("{step:?}") }
}

/// Takes apart the end of a mail on whose account nothing is sent.
fn silent(conclusion: &Conclusion) -> (Action, &str) {
    let Conclusion { mails, disposition } = conclusion;
    assert_eq!(*mails, []);
    (disposition.action, &disposition.reason)
}

fn one_sent(conclusion: &Conclusion) -> (&OutboundMail, Action) {
    let [mail] = &conclusion.mails[..] else { panic!("{conclusion:?}") };
    (mail, conclusion.disposition.action)
}

#[test]
fn answers_a_question_to_the_authenticated_address_only() {
    let mail = mail("Where is truck_1?", "");
    let conclusion = conclusion(&policy_with("refuse"), &mail, &verdict(Role::Observer));
    let (answer, action) = one_sent(&conclusion);
    assert_eq!(action, Action::Answered);
    assert_eq!((answer.answers, answer.kind), (Some(mail.id), OutboundKind::Answer));
    assert_eq!(answer.to, ["anna@example.org"]);
    assert_eq!(answer.subject, "Re: Where is truck_1?");
    assert_eq!(answer.in_reply_to, "1@example.org");
    assert_eq!(answer.message_id, format!("{}.answer@localhost", &mail.id.to_string()[..32]));
    assert!(answer.text.starts_with("Truck_1\n\nPosition: 48.000000, 11.000000, altitude 520 m, 2 s ago"));
}

#[test]
fn answers_help_status_and_battery() {
    let policy = policy_with("refuse");
    let text = |subject, role| {
        let conclusion = conclusion(&policy, &mail(subject, ""), &verdict(role));
        one_sent(&conclusion).0.text.clone()
    };
    assert!(text("help", Role::Operator).contains("stop VEHICLE"));
    assert!(!text("help", Role::Observer).contains("stop VEHICLE"));
    assert_eq!(text("status", Role::Observer), "Truck_1: geo:48.000000,11.000000, battery 83 %, 2 s ago\n");
    assert!(text("status truck_1", Role::Observer).contains("Speed:    never reported"));
    assert_eq!(text("battery truck_1", Role::Observer), "Truck_1\n\nBattery:  83 %, 24.8 V, 2 s ago\n");
    assert_eq!(text("battery truck_2", Role::Observer), "truck_2\n\nBattery:  never reported\n");
    assert_eq!(
        text("battery bus", Role::Observer),
        "there is no vehicle \"bus\". Vehicles: Truck_1, truck_2.\n"
    );
}

#[test]
fn an_operator_orders() {
    let mail = mail("", "Stop truck_1!");
    let ordered = ordered(last(&policy_with("refuse"), &mail, &verdict(Role::Operator)));
    let order = &ordered.order;
    assert_eq!((order.mail_id, order.command, order.ordered_at), (mail.id, Command::Stop, at(0)));
    assert_eq!((order.vehicle.as_str(), order.ordered_by.as_str()), ("Truck_1", "anna@example.org"));
    assert!(ordered.state.starts_with("Truck_1\n\nPosition: 48."));
}

#[test]
fn a_forward_says_what_is_attached_and_its_reply_goes_to_the_sender() {
    let mut mail = mail("Damage", "See the photo.");
    mail.content.attachments = vec![Attachment {
        filename: "dent\r\nBcc: x.jpg".into(),
        media_type: "image/jpeg".into(),
        size: 1_200_000,
        digest: [0; 32],
    }];
    let conclusion = conclusion(&policy_with("refuse"), &mail, &verdict(Role::Observer));
    let (forward, _) = one_sent(&conclusion);
    assert!(
        forward.text.contains("\nAttached: dent  Bcc: x.jpg (image/jpeg, 1200000 bytes)\n"),
        "{}",
        forward.text
    );
    assert_eq!((forward.reply_to.as_slice(), forward.urgent), (&["anna@example.org".to_owned()][..], false));
}

#[test]
fn an_observer_is_told_that_orders_are_not_allowed() {
    let conclusion = conclusion(&policy_with("refuse"), &mail("stop truck_1", ""), &verdict(Role::Observer));
    let (answer, action) = one_sent(&conclusion);
    assert_eq!((answer.kind, action), (OutboundKind::Answer, Action::Answered));
    assert!(answer.text.starts_with("NOT carried out: \"stop truck_1\": you are registered as an observer"));
}

#[test]
fn rejects_who_is_not_authenticated_and_tells_nobody() {
    let failed = Verdict { reason: "DMARC failed".into(), ..Verdict::default() };
    let contradictory = Verdict { dmarc: AuthResult::Fail, reason: String::new(), ..verdict(Role::Operator) };
    let policy = policy_with("answer");
    for subject in ["status", "stop truck_1", "gibberish"] {
        assert_eq!(
            silent(&conclusion(&policy, &mail(subject, ""), &failed)),
            (Action::Rejected, "DMARC failed")
        );
        let conclusion = conclusion(&policy, &mail(subject, ""), &contradictory);
        assert_eq!(silent(&conclusion), (Action::Rejected, "not authenticated"));
    }
    let conclusion = conclusion(&policy, &mail("help", ""), &verdict(Role::None));
    assert_eq!(silent(&conclusion), (Action::Rejected, "registered without a role"));
}

#[test]
fn ignores_automatic_mail_and_its_own() {
    let policy = policy_with("refuse");
    let step = judge(&policy, &mail("status", ""), &verdict(Role::Operator), Some("Auto-Submitted"));
    assert_eq!(silent(&concluded(step)), (Action::Ignored, "Auto-Submitted"));
    let mut own = mail("status", "");
    own.content.from = vec![address("Posthorn@localhost")];
    assert_eq!(silent(&conclusion(&policy, &own, &verdict(Role::Operator))).0, Action::Ignored);
}

#[test]
fn rejects_other_than_one_from_address() {
    for from in [vec![], vec![address("a@b"), address("c@d")], vec![address("a@b\r\nBcc: c@d")]] {
        let mut mail = mail("status", "");
        mail.content.from = from;
        assert_eq!(
            silent(&conclusion(&policy_with("refuse"), &mail, &verdict(Role::Operator))).0,
            Action::Rejected
        );
    }
}

#[test]
fn forwards_what_is_not_understood_with_sender_and_text() {
    let mail = mail("The\r\nBcc: x", "Truck one is on fire");
    let conclusion = conclusion(&policy_with("refuse"), &mail, &verdict(Role::Observer));
    let (forward, action) = one_sent(&conclusion);
    assert_eq!((forward.kind, action), (OutboundKind::Forward, Action::Forwarded));
    assert_eq!(forward.to, ["operator@localhost"]);
    assert_eq!(forward.subject, "Fwd: The  Bcc: x");
    assert!(
        forward.text.contains("From: Anna <anna@example.org>\n")
            && forward.text.ends_with("\nTruck one is on fire")
    );
    assert!(forward.message_id.ends_with(".forward@localhost"));
}

#[test]
fn a_forward_keeps_the_bounds_of_the_message() {
    let mail = mail(&"ü".repeat(998), &"ü".repeat(262_144));
    let conclusion = conclusion(&policy_with("refuse"), &mail, &verdict(Role::Observer));
    let (forward, _) = one_sent(&conclusion);
    assert!(
        forward.subject.len() <= 998 && forward.text.len() <= 262_144 && forward.text.ends_with("[cut]\n")
    );
}

#[test]
fn waits_for_vehicle_router_and_gives_up_in_favour_of_a_person() {
    let policy = policy_with("refuse");
    let Step::AskStates(pending) = judge(&policy, &mail("status", ""), &verdict(Role::Observer), None) else {
        panic!("needs states")
    };
    assert_eq!((pending.query(), pending.pause()), ("", Duration::ZERO));
    let answer =
        |fleet: Result<&Fleet, Unavailable>, now| policy.answer(pending.clone(), fleet, Duration::ZERO, now);
    assert!(matches!(answer(Err(Unavailable), at(900)), Step::Leave));
    let late = concluded(answer(Err(Unavailable), at(901)));
    assert_eq!(one_sent(&late).1, Action::Forwarded);
    assert_eq!(one_sent(&concluded(answer(Ok(&fleet()), at(901)))).1, Action::Answered);
}

#[test]
fn vehicle_router_is_asked_again_about_an_order_until_its_sender_must_hear() {
    let policy = policy_with("refuse");
    let mail = mail("stop truck_1", "");
    let Step::AskStates(first) = judge(&policy, &mail, &verdict(Role::Operator), None) else {
        panic!("needs states")
    };
    let (timeout, nearly) = (policy.params.acknowledgement_timeout, Duration::from_nanos(1));
    let again = policy.answer(first, Err(Unavailable), timeout - nearly, at(3));
    let Step::AskStates(again) = again else { panic!("{again:?}") };
    assert_eq!((again.query(), again.pause()), ("truck_1", policy.params.order_retry));
    // An answer is never too late.
    ordered(policy.answer(again.clone(), Ok(&fleet()), timeout, at(3)));
    let told = concluded(policy.answer(again, Err(Unavailable), timeout, at(3)));
    let [answer, forward] = &told.mails[..] else { panic!("{told:?}") };
    assert!(answer.text.starts_with("NOT carried out") && forward.urgent, "{told:?}");
}

/// A signature does not cover every field: a copy with one more field has another mail id, but is the same order.
#[test]
fn a_copy_of_an_order_is_the_same_order() {
    let policy = policy_with("refuse");
    let original = mail("stop truck_1", "");
    let copy = Mail { id: MailId::of(b"with one more field"), received_at: at(800), ..original.clone() };
    let command = |mail: &Mail| ordered(last(&policy, mail, &verdict(Role::Operator))).order.command_id;
    assert_eq!(command(&copy), command(&original));
    let mut other = original.clone();
    other.content.message_id = "2@example.org".into();
    assert_ne!(command(&other), command(&original));
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    use AuthResult::{Fail, Pass, TempError, Unknown};
    let result = || prop::sample::select(vec![Unknown, Pass, Fail, TempError]);
    let registry =
        prop::sample::select(vec![Registration::Active, Registration::Revoked, Registration::Unavailable]);
    let role = prop::sample::select(vec![Role::None, Role::Observer, Role::Operator]);
    (result(), result(), registry, role, any::<[bool; 2]>()).prop_map(
        |(dmarc, arc, registry, role, [authenticated, order_covered])| Verdict {
            dmarc,
            arc,
            registry,
            role,
            authenticated,
            order_covered,
            ..Verdict::default()
        },
    )
}

proptest! {
    /// For any words and any verdict: no order without authority, no answer to an unproven sender, and every mail that
    /// is not an order is concluded.
    #[test]
    fn nothing_leaves_without_authority(
        subject in "((stop|resume|status|battery|where is) [a-z_0-9]{1,9}|help|(?s).{0,40})",
        text in "((stop|resume|status) (truck_1|bus)|(?s).{0,80})",
        verdict in any_verdict(),
        automatic in prop::option::of(Just("a list")),
        unavailable in prop::sample::select(vec!["refuse", "answer"]),
    ) {
        let policy = policy_with(unavailable);
        let last = completed(&policy, judge(&policy, &mail(&subject, &text), &verdict, automatic));
        let operator = verdict.dmarc == AuthResult::Pass
            && verdict.registry == Registration::Active
            && verdict.role == Role::Operator
            && verdict.authenticated;
        let conclusion = match last {
            Step::Order(_) => {
                prop_assert!(operator && verdict.order_covered && automatic.is_none());
                return Ok(());
            }
            last => concluded(last),
        };
        for mail in &conclusion.mails {
            let results = [verdict.dmarc, verdict.arc];
            let (proven, open) =
                (results.contains(&AuthResult::Pass), results.contains(&AuthResult::TempError));
            match mail.kind {
                OutboundKind::Answer => prop_assert!(proven && automatic.is_none()),
                _ => prop_assert!(proven && verdict.authenticated || open),
            }
        }
    }
}
