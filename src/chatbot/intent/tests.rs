use super::*;
use crate::mail::Address;
use proptest::prelude::*;

fn mail(subject: &str, text: &str) -> Content {
    let from = vec![Address { name: "Anna Schmidt".into(), address: "anna@example.org".into() }];
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
    assert_eq!(read("stop truck_1", "resume truck_1"), Err(Unclear::NotAlone));
    assert_eq!(read("tomorrow at nine", "stop truck_1"), Err(Unclear::NotAlone));
    assert_eq!(read("status", "stop truck_1"), Err(Unclear::NotAlone));
    assert_eq!(read("stop truck_1", "status"), Err(Unclear::NotAlone));
}

#[test]
fn an_order_that_asks_is_inherited_or_cut_is_unclear() {
    assert_eq!(read("", "stop truck_1?"), Err(Unclear::Asking));
    assert_eq!(read("stop truck_1?", ""), Err(Unclear::Asking));
    assert_eq!(read("stop truck_1?", "stop truck_1"), Err(Unclear::NotAlone));
    assert_eq!(read("Fwd: stop truck_1", ""), Err(Unclear::Inherited));
    assert_eq!(read("Re: stop truck_1", "status truck_1"), Ok(Request::Status(truck())));
    assert_eq!(
        super::read(&Content { truncated: true, ..mail("", "stop truck_1") })
            .map_err(|not_taken| not_taken.why),
        Err(Unclear::Truncated)
    );
}

#[test]
fn an_order_in_a_quote_or_signature_is_none() {
    assert_eq!(read("", "> stop truck_1"), Err(Unclear::Nothing));
    assert_eq!(read("status", "-- \nstop truck_1"), Ok(Request::Fleet));
}

proptest! {
    /// An order beside any other line is never taken.
    #[test]
    fn another_line_of_words_spoils_an_order(line in "[a-z]{1,8} (if|when|not|but) [a-z ]{1,20}") {
        prop_assert_eq!(read("", &format!("stop truck_1\n{line}")), Err(Unclear::NotAlone));
        prop_assert_eq!(read("", &format!("{line}\nstop truck_1")), Err(Unclear::NotAlone));
    }

    /// Whatever is read is about a name that can be a vehicle's.
    #[test]
    fn reads_only_names(subject in "(?s).{0,40}", text in "((?s).|\n){0,200}", line in "(stop|status|where is|battery) \\PC{1,20}") {
        for request in [read(&subject, &text), read(&line, &text), read(&subject, &line)].into_iter().flatten() {
            prop_assert!(request.vehicle().is_none_or(is_name));
        }
    }
}
