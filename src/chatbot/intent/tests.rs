// SPDX-License-Identifier: Apache-2.0
use mail::Mailbox;
use proptest::prelude::*;

use super::*;

fn mail(subject: &str, text: &str) -> Content {
    let from = vec![Mailbox { name: "Anna Schmidt".into(), address: "anna@example.org".into() }];
    Content { subject: subject.into(), text: text.into(), from, ..Content::default() }
}

fn read(subject: &str, text: &str) -> Result<Request, Unclear> {
    super::read(&mail(subject, text)).map_err(|not_taken| not_taken.why)
}

fn truck() -> String {
    "truck_1".to_owned()
}

fn stop() -> Request {
    Request::Order(Command::Stop, truck())
}

#[test]
fn reads_each_intent() {
    let requests = [
        ("help", Request::Help),
        ("Status.", Request::Fleet),
        ("please status TRUCK_1", Request::Status(truck())),
        ("Where is truck_1?", Request::Position(truck())),
        ("battery truck_1, please!", Request::Battery(truck())),
        ("Stop truck_1!", stop()),
        ("resume truck_1", Request::Order(Command::Resume, truck())),
    ];
    for (line, request) in requests {
        assert_eq!(parse(line), Some(request.clone()), "{line}");
        assert_eq!(read(line, ""), Ok(request.clone()), "{line}");
        assert_eq!(read("", line), Ok(request), "{line}");
    }
}

#[test]
fn never_interprets_what_does_not_match_as_a_whole() {
    let lines = [
        "",
        "stat",
        "status of truck_1",
        "where is my truck",
        "where truck_1",
        "don't stop truck_1",
        "stop",
        "stop all trucks",
        "status truck-1",
        "stop truck_1 tomorrow",
        "battery",
        "helpme",
        "stop truck_1; resume truck_2",
        "ѕtop truck_1",
    ];
    for line in lines {
        assert_eq!(parse(line), None, "{line}");
    }
}

#[test]
fn a_question_in_the_text_wins_over_the_subject() {
    assert_eq!(
        read("Re: status", "Hello,\n\nwhere is truck_1?\n\nThanks\nAnna"),
        Ok(Request::Position(truck()))
    );
    assert_eq!(read("help", "I wonder:\nbattery truck_1"), Ok(Request::Battery(truck())));
    assert_eq!(read("status", "How are they doing today?"), Ok(Request::Fleet));
    assert_eq!(read("", "help\nstatus"), Err(Unclear::Several));
    assert_eq!(read("", "help\nhelp"), Ok(Request::Help));
}

#[test]
fn an_inherited_subject_speaks_only_for_an_empty_reply() {
    assert_eq!(read("Re: status", "> quoted"), Ok(Request::Fleet));
    assert_eq!(read("Re: status", "Why is truck_1 so slow?"), Err(Unclear::Nothing));
    assert_eq!(read("status", &"a\n".repeat(10_001)), Err(Unclear::TooLong));
}

#[test]
fn takes_an_order_that_stands_alone() {
    let text = "Hi,\nplease stop truck_1!\nBest regards,\nAnna\n-- \nAnna Schmidt, dispatch";
    for subject in ["", "stop truck_1", "urgent", "Truck_1", "Re: battery truck_1"] {
        assert_eq!(read(subject, text), Ok(stop()), "{subject}");
    }
}

#[test]
fn an_order_beside_anything_else_is_unclear() {
    for text in
        ["stop truck_1\nwhen it is at the depot", "stop truck_1\nstop truck_2", "status\nstop truck_1"]
    {
        assert_eq!(read("", text), Err(Unclear::NotAlone), "{text}");
    }
    assert_eq!(read("stop truck_1", "no, leave it"), Err(Unclear::NotAlone));
    assert_eq!(read("stop truck_1", "resume truck_1"), Err(Unclear::Subject));
    assert_eq!(read("tomorrow at nine", "stop truck_1"), Err(Unclear::Subject));
    assert_eq!(read("status", "stop truck_1"), Err(Unclear::Subject));
    assert_eq!(read("stop truck_1", "status"), Err(Unclear::NotAlone));
}

#[test]
fn an_order_that_asks_is_inherited_or_cut_is_unclear() {
    assert_eq!(read("", "stop truck_1?"), Err(Unclear::Asking));
    assert_eq!(read("stop truck_1?", ""), Err(Unclear::Asking));
    assert_eq!(read("stop truck_1?", "stop truck_1"), Err(Unclear::Subject));
    assert_eq!(read("Fwd: stop truck_1", ""), Err(Unclear::Inherited));
    assert_eq!(read("Re: stop truck_1", "status truck_1"), Ok(Request::Status(truck())));
    assert_eq!(
        super::read(&Content { truncated: true, ..mail("", "stop truck_1") })
            .map_err(|not_taken| not_taken.why),
        Err(Unclear::Truncated)
    );
}

/// Orders as people write them in a hurry, as (subject, text).
const ORDERS: &[(&str, &str)] = &[
    ("", "Stop truck_1 immediately!!!"),
    ("", "STOP TRUCK_1\n\nSent from my iPhone"),
    ("Emergency", "stop truck_1"),
    ("EMERGENCY!!!", "STOP TRUCK_1 NOW!!!"),
    ("Fire at gate 3", "stop truck_1"),
    ("Accident on A9", "Please stop truck_1 at once."),
    ("URGENT: stop truck_1", ""),
    ("stop truck_1", "\nSent from my Galaxy\n"),
    ("Stop truck_1!", "Thanks\nAnna"),
    ("stop truck_1", "stop truck_1\nstop truck_1"),
    ("Truck_1", "stop truck_1 asap"),
    ("truck 1!!", "stop truck_1"),
    ("STOP", "stop truck_1"),
    ("STOP TRUCK 1", "stop truck_1"),
    ("Re: battery truck_1", "stop truck_1\n\nOn Sat, 21 Nov 2026 at 09:00, posthorn wrote:\n> Battery: 3 %"),
    (
        "AW: status",
        "stop truck_1\n\n________________________________\nVon: posthorn\nGesendet: Samstag\n\ntruck_1 drives",
    ),
    ("", "Hi posthorn, please stop truck_1. Thanks, Anna"),
    ("", "Hello,\n\nplease stop truck_1 right now!\n\nMit freundlichen Grüßen\nAnna Schmidt"),
    ("", "*STOP truck_1*"),
    ("", "Emergency! Stop truck_1! Now!"),
    ("", "Please, please stop truck_1!!"),
    ("", "pls stop truck_1 thx"),
    ("", "Posthorn: stop truck_1 please"),
    ("", "stop truck_1\n\nGet Outlook for iOS<https://aka.ms/o0ukef>"),
    ("", "stop truck_1\n\nVon meinem iPhone gesendet"),
    (
        "",
        "stop truck_1\n-- \nAnna Schmidt, dispatch\n\nThis e-mail is confidential. If you are not the person that it is\n\
         meant for, please tell us and delete it before you read on.",
    ),
    ("", "stop truck_1\n-- \nAnna Schmidt\nPlease consider the environment before printing this email"),
    ("", "stop truck_1\n--\nACME Logistics, Munich, +49 89 1234"),
    ("", "Good morning,\nstop truck_1.\nKind regards, Anna"),
    ("Dringend", "stop truck_1"),
    ("Problem mit truck_1", "stop truck_1"),
];

/// Mails that are not orders, though many have the words of one. True: the writer may think it is one, and must be
/// told.
const NO_ORDERS: &[(&str, &str, bool)] = &[
    ("", "do not stop truck_1", true),
    ("", "Don't stop truck_1!", true),
    ("", "never stop truck_1", true),
    ("", "stop truck_1 when it is unloaded", true),
    ("", "stop truck_1\nwhen it is unloaded", true),
    ("", "stop truck_1\n\n\n\n\nbut only if it is empty", true),
    ("", "should we stop truck_1", true),
    ("", "should we stop truck_1?", true),
    ("", "stop truck_1?", true),
    ("", "stop truck_1!?", true),
    ("", "stop truck_1...", true),
    ("", "stop truck_1 … or rather not", true),
    ("", "stop truck_1,\nunless it is raining", true),
    ("", "stop truck_1:", true),
    ("", "stop truck_1; resume truck_1", true),
    ("", "stop truck_1 and truck_2", true),
    ("", "stop truck_1\nstop truck_2", true),
    ("", "stop truck_1\nresume truck_1", true),
    ("", "stop truck_1. Not yet.", true),
    ("", "No. Stop truck_1 later.", true),
    ("", "No thanks, stop truck_1", true),
    ("", "Bob, stop truck_1", true),
    ("", "Bob said: stop truck_1", true),
    ("", "\"stop truck_1\"", true),
    ("", "~~stop truck_1~~", true),
    ("", "stop truck_1 tomorrow", true),
    ("", "stop truck_1 at 18:00", true),
    ("", "stop truck_1 in an hour", true),
    ("", "I will stop truck_1", true),
    ("", "stop all trucks", true),
    ("", "stop truck 1", true),
    ("", "stop the truck", true),
    ("", "STOP!!!", true),
    ("", "halt truck_1", true),
    ("resume truck_1", "not before 18:00", true),
    ("resume truck_1", "stop truck_1", true),
    ("do not", "stop truck_1", true),
    ("tomorrow", "stop truck_1", true),
    ("at 18:00", "stop truck_1", true),
    ("What if I wrote this?", "stop truck_1", true),
    ("truck_2", "stop truck_1", true),
    ("Truck 2 burns", "stop truck_1", true),
    ("stop truck_2", "stop truck_1", true),
    ("resume truck_1", "stop truck_1\nstop truck_1", true),
    ("where is truck_1", "stop truck_1", true),
    ("Test", "stop truck_1", true),
    ("Übung", "stop truck_1", true),
    ("Bitte nicht", "stop truck_1", true),
    ("nur wenn er leer ist", "stop truck_1", true),
    ("Pas encore", "stop truck_1", true),
    ("", "truck_1 bitte erst anhalten wenn er leer ist", true),
    ("", "stop truck_1\nerst wenn er leer ist", true),
    ("", "stop truck_1\npas maintenant", true),
    ("Fwd: news", "stop truck_1", true),
    ("Fwd: stop truck_1", "", true),
    ("Re: stop truck_1", "", true),
    ("", "stop truck_1\n-- \nnot before it is unloaded", true),
    ("", "stop truck_1\n-- \nresume truck_1", true),
    ("", "stop truck_1\nOn no account before noon, as Bob wrote:\n> x", true),
    ("", "stop truck_1\n-----Original Message-----\nnot yet", true),
    ("", "stop truck_1\n-- \nAnna\nnot before it is unloaded", true),
    ("stop truck_1", "-- \nAnna Schmidt\n\nbut not before six", true),
    ("", "Stop truck_1. Now?", true),
    ("", "stop truck_1\nplease?", true),
    ("[Fwd: news]", "stop truck_1", true),
    ("", "stop truck_1\nSent from my desk, not before six", true),
    ("", "FYI\n---------- Forwarded message ---------\nFrom: Bob\n\nstop truck_1", true),
    ("", "stop truck_1\n> not before it is unloaded\nright?", true),
    ("", "> stop truck_1", false),
    ("Re: stop truck_1", "> stop truck_1\nThanks!\nAnna", true),
    ("Re: stop truck_1", "Why did it take so long?", false),
    ("", "The truck stopped at the depot.", false),
];

#[test]
fn takes_every_clear_order() {
    assert!(ORDERS.len() >= 25);
    for (subject, text) in ORDERS {
        assert_eq!(read(subject, text), Ok(stop()), "{subject:?} {text:?}");
    }
}

#[test]
fn carries_out_nothing_that_was_not_asked_and_tells_who_might_think_so() {
    assert!(NO_ORDERS.len() >= 40);
    for (subject, text, looks_like) in NO_ORDERS {
        let read = super::read(&mail(subject, text));
        let Err(not_taken) = read else { panic!("{subject:?} {text:?}: {read:?}") };
        assert_eq!(not_taken.looks_like.is_some(), *looks_like, "{subject:?} {text:?}: {not_taken:?}");
    }
}

#[test]
fn says_what_should_have_been_written() {
    for (subject, text, line) in [
        ("", "STOP TRUCK 3 immediately, it burns", "stop truck_3"),
        ("Emergency", "stop truck_1 when it is unloaded", "stop truck_1"),
        ("please RESUME Truck_2, all clear", "", "resume truck_2"),
        ("", "stop them all", "stop VEHICLE"),
    ] {
        let Err(NotTaken { looks_like: Some(seeming), .. }) = super::read(&mail(subject, text)) else {
            panic!("{subject:?} {text:?}")
        };
        assert_eq!(seeming.to_string(), line);
    }
}

/// Each of these texts makes the parser look as often as possible.
#[test]
fn a_long_text_is_read_in_time() {
    for unit in [
        "a. ",
        "a\n",
        "thanks, ",
        "please ",
        "On a wrote:\n> b\n",
        "<http",
        "-- \n",
        "--\nnot a\n",
        "Hi: stop truck_1! ",
    ] {
        let mut mail = mail("stop truck_1", &unit.repeat(262_144 / unit.len()));
        mail.from = vec![Mailbox { name: "b ".repeat(499), address: "anna@example.org".into() }];
        let start = std::time::Instant::now();
        let read = super::read(&mail);
        // A debug build on a busy machine takes a tenth of that.
        assert!(start.elapsed().as_secs() < 10, "{unit:?}: {:?}", start.elapsed());
        assert!(!matches!(read, Ok(Request::Order(..))), "{unit:?}: {read:?}");
    }
}

#[test]
fn an_order_beside_a_question_is_not_answered_as_a_question() {
    assert_eq!(read("", "status truck_1\nand stop the truck 1, it burns"), Err(Unclear::Inexact));
    assert_eq!(read("status", "The bus stop is far from here, they told me"), Ok(Request::Fleet));
}

#[test]
fn an_order_is_carried_out_only_from_a_whole_text_that_is_signed() {
    let whole = Content { text_only: true, ..mail("", "stop truck_1") };
    let signed = Verdict { order_covered: true, dmarc: AuthResult::Pass, ..Verdict::default() };
    assert_eq!(may_order(&whole, &signed), Ok(()));
    assert_eq!(may_order(&mail("", "stop truck_1"), &signed), Err(Unclear::NotTextOnly));
    assert_eq!(may_order(&Content { truncated: true, ..whole.clone() }, &signed), Err(Unclear::Truncated));
    let gap = "its DKIM signature does not cover Message-ID".to_owned();
    let vouched_for = Verdict { dmarc: AuthResult::Fail, arc: AuthResult::Pass, ..signed.clone() };
    assert!(matches!(may_order(&whole, &vouched_for), Err(Unclear::NotCovered(_))));
    let unsigned = Verdict { order_gap: gap.clone(), ..Verdict::default() };
    let refused = may_order(&whole, &unsigned);
    assert_eq!(refused, Err(Unclear::NotCovered(gap.clone())));
    assert!(refused.is_err_and(|why| why.to_string().ends_with(&gap)));
}

#[test]
fn an_order_in_a_quote_or_signature_is_none() {
    assert_eq!(read("", "> stop truck_1"), Err(Unclear::Nothing));
    assert_eq!(read("status", "-- \nstop truck_1"), Ok(Request::Fleet));
}

proptest! {
    #[test]
    fn another_line_of_words_spoils_an_order(line in "[a-z]{1,8} (if|when|not|but) [a-z ]{1,20}") {
        prop_assert_eq!(read("", &format!("stop truck_1\n{line}")), Err(Unclear::NotAlone));
        prop_assert_eq!(read("", &format!("{line}\nstop truck_1")), Err(Unclear::NotAlone));
    }

    /// Any request that is read has a valid vehicle name.
    #[test]
    fn reads_only_names(subject in "(?s).{0,40}", text in "((?s).|\n){0,200}", line in "(stop|status|where is|battery) \\PC{1,20}") {
        for request in [read(&subject, &text), read(&line, &text), read(&subject, &line)].into_iter().flatten() {
            prop_assert!(request.vehicle().is_none_or(is_name));
        }
    }
}
