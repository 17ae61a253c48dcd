// SPDX-License-Identifier: Apache-2.0
use super::*;

fn own_lines<'a>(text: &'a str, sender: &str) -> Option<Vec<&'a str>> {
    own(text, sender).map(|own| own.lines)
}

#[test]
fn keeps_aside_what_is_dropped_for_its_place() {
    let aside = |text| own(text, "Anna Schmidt").map(|own| own.aside).unwrap_or_default();
    assert_eq!(aside("status\n-- \nnot before six"), ["not before six"]);
    assert_eq!(
        aside(
            "status\n-- \nAnna Schmidt\n\nIf you are not the one for whom this is meant, delete it before you read on"
        ),
        ["Anna Schmidt"]
    );
    assert_eq!(aside("On no account, as Bob wrote:\n> x"), ["On no account, as Bob wrote:"]);
    assert_eq!(aside("On Monday\nBob wrote:\n> x"), ["On Monday Bob wrote:"]);
    assert_eq!(aside("On Saturday, May 2, 2026 at 9:00 PM\nBob wrote:\n> x"), Vec::<&str>::new());
}

#[test]
fn what_programs_and_polite_people_add_is_nothing() {
    for line in [
        "Sent from my iPhone",
        "Get Outlook for iOS<https://aka.ms/o0ukef>",
        "Sent from Mail<https://go.microsoft.com/fwlink/?LinkId=550986> for Windows",
        "Von meinem iPhone gesendet",
        "Thanks, Anna!",
        "Mit freundlichen Grüßen",
        "-- Anna",
        "Emergency!!!",
    ] {
        assert_eq!(own_lines(line, "Anna Schmidt"), Some(vec![]), "{line}");
    }
    for (line, rest) in [
        ("Hi posthorn, please stop truck_1", "please stop truck_1"),
        ("Please stop truck_1. Thanks, Anna", "Please stop truck_1."),
        ("Posthorn: stop truck_1!", "stop truck_1!"),
        ("Stop truck_1. Not yet.", "Stop truck_1. Not yet."),
        ("Bob, stop truck_1", "Bob, stop truck_1"),
    ] {
        assert_eq!(own_lines(line, "Anna Schmidt"), Some(vec![rest]), "{line}");
    }
}

#[test]
fn tells_what_trails_off_or_is_doubtful() {
    for line in ["stop truck_1...", "stop truck_1,", "stop truck_1:", "stop truck_1; x", "stop… truck_1"] {
        assert!(trails_off(line), "{line}");
    }
    assert!(!trails_off("Stop truck_1, please."));
    for line in
        ["do NOT", "don't", "tomorrow", "at 18:00", "9pm", "Übung", "nicht jetzt", "wenn leer", "pas encore"]
    {
        assert!(is_doubtful(line), "{line}");
    }
    for line in
        ["Emergency", "URGENT!!!", "Fire at gate 3", "Accident on A9", "Anna Schmidt, dispatch, +49 89 1234"]
    {
        assert!(!is_doubtful(line), "{line}");
    }
}

#[test]
fn strips_all_prefixes_of_a_subject() {
    let shown = |text| {
        let Subject { words, inherited, forwarded } = subject(text);
        (words, inherited, forwarded)
    };
    assert_eq!(shown(" RE: Fwd:re:Status "), ("Status", true, true));
    assert_eq!(shown("AW: Re: Status"), ("Status", true, false));
    assert_eq!(shown("Rest: x"), ("Rest: x", false, false));
    assert_eq!(shown("é"), ("é", false, false));
}

#[test]
fn drops_quotes_signatures_and_courtesies() {
    let text = "Hello posthorn,\r\n\r\nwhere is truck_1?\r\n\r\nOn Mon, Bob wrote:\r\n> stop truck_1\r\n\
                Best regards,\r\nAnna\r\n-- \r\nstop truck_2\r\n";
    assert_eq!(own_lines(text, "Anna Schmidt"), Some(vec!["where is truck_1?"]));
    let wrapped = "status\nOn Sat, Nov 21, 2026 at 6:30 posthorn <p@example.org>\nwrote:\n\n> stop";
    assert_eq!(own_lines(wrapped, ""), Some(vec!["status"]));
    for rule in ["-----Original Message-----", "________________________________"] {
        let copied = format!("status\n\n{rule}\nFrom: posthorn\nSent: now\n\nstop truck_1");
        assert_eq!(own_lines(&copied, ""), Some(vec!["status"]), "{rule}");
    }
}

#[test]
fn keeps_what_it_does_not_recognise() {
    let text = "stop truck_1\nwhen Bob wrote:\nAnna\n>x";
    assert_eq!(own_lines(text, "Bob"), Some(vec!["stop truck_1", "when Bob wrote:", "Anna"]));
    assert_eq!(own_lines("a\nhe wrote:\n> x", ""), Some(vec!["a", "he wrote:"]));
    assert_eq!(own_lines(&"a\n".repeat(MAX_LINES + 1), ""), None);
    let no_copy = "a\n-----Original Message-----\nb";
    assert_eq!(own_lines(no_copy, ""), Some(vec!["a", "-----Original Message-----", "b"]));
    assert_eq!(own_lines("sent from my desk", ""), Some(vec!["sent from my desk"]));
    assert_eq!(own_lines("No thanks, stop truck_1", ""), Some(vec!["No thanks, stop truck_1"]));
}

#[test]
fn words_tolerate_politeness_and_punctuation() {
    assert_eq!(words("Please, STOP Truck_1, please!"), ["stop", "truck_1"]);
    assert_eq!(words("where\u{a0}is  truck_1 ?? thank you."), ["where", "is", "truck_1"]);
    assert_eq!(words("please"), Vec::<String>::new());
    assert_eq!(words("displease"), ["displease"]);
    assert_eq!(words("URGENT: *stop truck_1* immediately!!!"), ["stop", "truck_1"]);
    assert_eq!(words("Now stop truck_1, right now, please"), ["stop", "truck_1"]);
    assert_eq!(words("*stop truck_1!*"), ["stop", "truck_1"]);
    assert_eq!(words("stop now"), ["stop"]);
    assert_eq!(words(&"a ".repeat(200)), Vec::<String>::new());
}
