// SPDX-License-Identifier: Apache-2.0
//! Tests who is told about mails that have no effect.

use super::*;

/// Takes apart the end of an order that is not carried out: the answer, and the person's copy.
fn told(conclusion: &Conclusion) -> (&OutboundMail, &OutboundMail) {
    let [answer, forward] = &conclusion.mails[..] else { panic!("{conclusion:?}") };
    assert_eq!((answer.kind, answer.to.as_slice()), (OutboundKind::Answer, &["anna@example.org".into()][..]));
    assert_eq!((forward.kind, forward.urgent), (OutboundKind::Forward, true));
    assert_eq!(conclusion.disposition.action, Action::Forwarded);
    assert!(answer.text.starts_with("NOT carried out") && answer.text.contains("A person has a copy"));
    (answer, forward)
}

/// Regression: of seventeen clear orders, nine went quietly to a person (issue 5, point 23).
#[test]
fn an_operator_whose_order_is_not_taken_hears_it_at_once_and_how_to_write_it() {
    let policy = policy_with("refuse");
    for (subject, text) in [
        ("", "STOP TRUCK_3 or I come myself"),
        ("Emergency", "you must stop truck_3, there is a child on the road"),
        ("resume truck_1", "stop truck_3"),
        ("stop truck_3?", ""),
    ] {
        let conclusion = conclusion(&policy, &mail(subject, text), &verdict(Role::Operator));
        let (answer, forward) = told(&conclusion);
        assert!(answer.text.contains("write exactly `"), "{}", answer.text);
        assert!(
            answer.text.contains("truck_") && answer.text.contains("` as the only line"),
            "{}",
            answer.text
        );
        assert!(forward.subject.starts_with("URGENT: Fwd: "), "{}", forward.subject);
        assert!(forward.text.contains("was told that it is NOT carried out"), "{}", forward.text);
    }
}

#[test]
fn an_order_is_taken_only_from_plain_text_that_is_signed() {
    let policy = policy_with("refuse");
    let mut mail = mail("", "stop truck_1");
    let uncovered =
        Verdict { order_covered: false, order_gap: "no signature".into(), ..verdict(Role::Operator) };
    let run = |mail: &Mail, verdict: &Verdict| conclusion(&policy, mail, verdict);
    let done = run(&mail, &uncovered);
    let text = &told(&done).0.text;
    assert!(text.contains("no signature covers it: no signature; another mail from the same"), "{text}");
    mail.content.text_only = false;
    let done = run(&mail, &verdict(Role::Operator));
    assert!(told(&done).0.text.contains("not as plain text alone"), "{:?}", done);
    let mut undated = mail;
    (undated.content.text_only, undated.content.date) = (true, None);
    assert!(told(&run(&undated, &verdict(Role::Operator))).0.text.contains("no Message-ID or no Date"));
}

#[test]
fn an_order_in_an_automatic_mail_of_an_operator_goes_to_a_person_without_an_answer() {
    let policy = policy_with("refuse");
    let run = |mail: &Mail, role| concluded(judge(&policy, mail, &verdict(role), Some("it says so")));
    let mut order = mail("stop truck_1", "");
    let conclusion = run(&order, Role::Operator);
    let (forward, action) = one_sent(&conclusion);
    assert_eq!((forward.kind, forward.urgent, action), (OutboundKind::Forward, true, Action::Forwarded));
    assert_eq!(silent(&run(&order, Role::Observer)).0, Action::Ignored);
    // The person's own absence note about the forward must not cause another forward.
    order.content.from = vec![address("operator@localhost")];
    assert_eq!(silent(&run(&order, Role::Operator)).0, Action::Ignored);
}

/// Regression: a registered sender's mail vanished while DNS or the registry was down (issue 5, point 6).
#[test]
fn a_mail_that_cannot_be_judged_is_not_dropped_in_silence() {
    let policy = policy_with("refuse");
    let unjudged = Verdict {
        dmarc: AuthResult::TempError,
        registry: Registration::Active,
        role: Role::Operator,
        reason: "DNS does not answer".into(),
        ..Verdict::default()
    };
    for registry in [Registration::Active, Registration::Unavailable] {
        let unjudged = Verdict { registry, ..unjudged.clone() };
        let conclusion = conclusion(&policy, &mail("stop truck_1", ""), &unjudged);
        let (forward, action) = one_sent(&conclusion);
        assert_eq!((forward.kind, forward.urgent, action), (OutboundKind::Forward, false, Action::Forwarded));
        assert!(
            forward.text.contains("DNS does not answer.\nNOTHING PROVES who sent it"),
            "{}",
            forward.text
        );
    }
    let unregistered = Verdict { registry: Registration::Unregistered, ..unjudged.clone() };
    assert_eq!(silent(&conclusion(&policy, &mail("status", ""), &unregistered)).0, Action::Rejected);

    // Somebody who knows a registered address cannot fill the person's mailbox with it.
    let mut quota = Quota::default();
    let forwards = (0..100).filter(|_| {
        let mail = mail("status", "");
        let interpretation = Interpretation { automatic: None, ..Interpretation::of(&mail, &unjudged) };
        concluded(policy.judge(&mail, &unjudged, interpretation, &mut quota, at(3))).mails.len() == 1
    });
    assert_eq!(forwards.count(), 20);
}

#[test]
fn an_order_to_an_unknown_vehicle_or_without_vehicle_router_is_not_carried_out() {
    let policy = policy_with("refuse");
    let unknown = conclusion(&policy, &mail("stop bus", ""), &verdict(Role::Operator));
    assert!(told(&unknown).0.text.contains("there is no vehicle \"bus\". Vehicles: Truck_1, truck_2."));
    let step = judge(&policy, &mail("stop truck_1", ""), &verdict(Role::Operator), None);
    let Step::AskStates(pending) = step else { panic!("{step:?}") };
    assert_eq!(pending.query(), "truck_1");
    let given_up =
        concluded(policy.answer(pending, Err(Unavailable), policy.params.acknowledgement_timeout, at(3)));
    assert!(told(&given_up).0.text.contains("vehicle_router does not answer"));
}

#[test]
fn without_the_registry_questions_follow_the_policy_and_everybody_proven_is_told() {
    let run = |policy, subject| conclusion(&policy_with(policy), &mail(subject, ""), &unavailable());
    for (policy, subject) in [
        ("refuse", "status"),
        ("refuse", "stop truck_1"),
        ("refuse", "gibberish"),
        ("answer", "stop truck_1"),
        ("answer", "gibberish"),
    ] {
        let conclusion = run(policy, subject);
        let (answer, action) = one_sent(&conclusion);
        assert_eq!((answer.kind, action), (OutboundKind::Answer, Action::Answered));
        assert!(answer.text.contains("cannot be reached at the moment"), "{}", answer.text);
        assert_eq!(answer.text.starts_with("NOT carried out: \"stop truck_1\""), subject == "stop truck_1");
    }
    assert_eq!(one_sent(&run("answer", "status")).1, Action::Answered);
}
