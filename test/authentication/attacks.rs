// SPDX-License-Identifier: Apache-2.0
//! Mails of honest and of hostile senders, what is found out about each, and what pyspf, dkimpy and authheaders find.
//!
//! What proves a sender here must prove it to each of them. What proves it to them and not here is in the table with the
//! reason.

use std::{collections::BTreeMap, process::Command, time::Duration};

use authenticator::{dns::Dns, silence::Waits, zone::Zone};
use mail::AuthResult::{self, *};
use mail_auth::dkim::Canonicalization;
use serde_json::{Value, json};
use testbed::{dns::NameServer, output_of, project, sign::SignedDomain};

use super::{
    published,
    scene::{MAIL, SENDING_HOST, STRANGER, Scene, signed_over},
};

/// A mail, its envelope, its sender's DNS, and what must be found.
struct Case {
    what: String,
    scene: Scene,
    mail: Vec<u8>,
    /// Results of SPF, DKIM and DMARC.
    right: [AuthResult; 3],
    /// Why less is proven here than to the others; empty if the same is.
    stricter: &'static str,
    /// Why more is.
    laxer: &'static str,
}

/// What is found out about a mail whose author cannot be told: nobody asks its DNS.
const MALFORMED: [AuthResult; 3] = [Unknown, Unknown, PermError];

/// Fields that the signatures of these mails cover.
const COVERED: [&str; 5] = ["From", "To", "Subject", "Date", "Message-ID"];

fn case(
    what: impl Into<String>,
    scene: Scene,
    mail: Vec<u8>,
    right: [AuthResult; 3],
    stricter: &'static str,
) -> Case {
    Case { what: what.into(), scene, mail, right, stricter, laxer: "" }
}

fn from_fields(cases: &mut Vec<Case>) {
    const TWO: &str = "RFC 9989 4.4.1: more than one author";
    const UNREADABLE: &str = "RFC 5322 3.4: what it means depends on who reads it";
    const OBSOLETE: &str = "RFC 5322 4.4: no mail has been made like this since 2001";
    // There is nobody but the one author, whose domain has signed it.
    const LAXER: &[&str] = &["alice@example.org;", ",alice@example.org", "Alice <alice@example.org> <>"];
    #[rustfmt::skip]
    let rows: &[(&str, AuthResult, &str)] = &[
        ("alice@example.org", Pass, ""),
        ("<alice@example.org>", Pass, ""),
        ("Alice <alice@example.org>", Pass, ""),
        ("Alice <alice@EXAMPLE.org>", Pass, ""),
        ("\"Alice, A.\" <alice@example.org>", Pass, ""),
        ("\"alice@evil.example\" <alice@example.org>", Pass, ""),
        ("=?utf-8?q?J=C3=BCrgen?= <alice@example.org>", Pass, ""),
        ("=?utf-8?q?alice=40evil.example?= <alice@example.org>", Pass, ""),
        ("Alice\r\n <alice@example.org>", Pass, ""),
        ("alice+tag=x@example.org", Pass, ""),
        ("o'brien@example.org", Pass, ""),
        ("alice@example.org (Alice)", Pass, ""),
        ("(Alice) alice@example.org", Pass, ""),
        ("Alice <alice@example.org>, Bob <bob@example.org>", PermError, TWO),
        ("Alice <alice@example.org>, mallory@evil.example", PermError, TWO),
        ("mallory@evil.example, Alice <alice@example.org>", PermError, TWO),
        ("alice@example.org, alice@example.org", PermError, TWO),
        ("Alice <\"alice\"@example.org>", Pass, ""),
        ("Alice <\"al ice\"@example.org>", PermError, "docs/decisions/0052: no local part that needs quotes"),
        ("\"alice\"@example.org", PermError, "docs/decisions/0052: a quoted local part needs angle brackets"),
        ("alice@example.org@evil.example", PermError, ""),
        ("<alice@evil.example> <alice@example.org>", PermError, UNREADABLE),
        ("alice@evil.example <alice@example.org>", Pass, ""),
        ("Alice <alice@example.org", Pass, ""),
        ("Alice alice@example.org>", PermError, ""),
        ("<<alice@example.org>>", PermError, ""),
        ("alice@[192.0.2.1]", PermError, ""),
        ("alice@.example.org", PermError, "RFC 5322 3.2.3: no dot-atom"),
        ("alice@example..org", PermError, ""),
        (".alice@example.org", PermError, "RFC 5322 3.2.3: no dot-atom"),
        ("al..ice@example.org", PermError, "RFC 5322 3.2.3: no dot-atom"),
        ("alice", PermError, ""),
        ("@example.org", PermError, "RFC 5322 3.4.1: no local part"),
        ("alice@", PermError, ""),
        ("<>", PermError, ""),
        ("", PermError, ""),
        ("mallory@evil.example", None, ""),
        ("alice@example.org.evil.example", None, ""),
        ("alice@evil-example.org", None, ""),
        ("alice@sub.example.org", Pass, ""),
        ("alice@org", None, ""),
        ("Fleet: alice@example.org;", Pass, ""),
        ("Fleet:;", PermError, ""),
        ("alice@example.org;", Pass, ""),
        ("alice@example.org,", Pass, ""),
        (",alice@example.org", Pass, ""),
        ("mailto:alice@example.org", Pass, ""),
        ("alice@example.org <>", PermError, ""),
        ("Alice <alice@example.org> <>", Pass, ""),
        ("<@relay.example:alice@example.org>", PermError, OBSOLETE),
        ("\"Alice\\\" <mallory@evil.example>\" <alice@example.org>", Pass, ""),
        ("Alice (<mallory@evil.example>) <alice@example.org>", Pass, ""),
        ("Alice <alice@example.org> (mallory@evil.example)", Pass, ""),
        ("alice@xn--example-.org", None, ""),
        ("alice@ex\u{430}mple.org", None, ""),
        ("alice @example.org", Pass, ""),
        ("alice@ example.org", Pass, ""),
        ("Alice <alice (work) @ example.org>", Pass, ""),
        ("Alice <alice\r\n @\r\n example.org>", Pass, ""),
    ];
    for (from, right, stricter) in rows {
        let scene = Scene::new();
        let mail = MAIL.replace("Alice <alice@example.org>", from);
        let mail = signed_over(&scene.domain, &mail, &COVERED);
        let right = match right {
            Pass => [Fail, Pass, Pass],
            PermError => MALFORMED,
            // What is of another domain proves nothing, so nobody asks about it.
            other => [Unknown, Neutral, *other],
        };
        let laxer = if LAXER.contains(from) { "they refuse lists with empty places" } else { "" };
        cases.push(Case { laxer, ..case(format!("From: {from}"), scene, mail, right, stricter) });
    }
}

fn changes(cases: &mut Vec<Case>) {
    const TWICE: &str = "RFC 5322 3.6 and RFC 6376 8.15: a field that may be there once is there twice";
    const UNSIGNED: &str = "RFC 6376 5.4: the author's words must be signed";
    let field = |name: &str| {
        let line = MAIL.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        format!("{line}\r\n")
    };
    for name in COVERED {
        let line = field(name);
        let other = format!("{name}: other@evil.example\r\n");
        let changed = |what: &str, to: String, right: [AuthResult; 3], stricter| {
            let scene = Scene::new();
            let mail = String::from_utf8(signed_over(&scene.domain, MAIL, &COVERED)).unwrap();
            // Behind the signature, which names the fields.
            let at = mail.rfind(&line).unwrap();
            let mail = format!("{}{to}{}", &mail[..at], &mail[at + line.len()..]);
            case(format!("{name} {what}"), scene, mail.into_bytes(), right, stricter)
        };
        let is_author = name == "From";
        let removed = if is_author { MALFORMED } else { [Fail, Fail, Fail] };
        cases.push(changed("removed", String::new(), removed, ""));
        let foreign = if is_author { [Unknown, Neutral, None] } else { [Fail, Fail, Fail] };
        cases.push(changed("changed", other.clone(), foreign, ""));
        // A signature covers the last one.
        let (above, below, stricter) = match name {
            "To" => ([Fail, Pass, Pass], [Fail, Fail, Fail], ""),
            // They take that for another author.
            "From" => (MALFORMED, MALFORMED, ""),
            _ => (MALFORMED, MALFORMED, TWICE),
        };
        cases.push(changed("again above", format!("{other}{line}"), above, stricter));
        cases.push(changed("again below", format!("{line}{other}"), below, ""));
        let capitals = line.replacen(name, &name.to_uppercase(), 1);
        cases.push(changed("in capitals", capitals, [Fail, Pass, Pass], ""));
        cases.push(changed("folded", line.replacen(": ", ":\r\n ", 1), [Fail, Pass, Pass], ""));
        cases.push(changed("with a space before its colon", line.replacen(": ", " : ", 1), MALFORMED, ""));
        // Signed, but for this one.
        let scene = Scene::new();
        let rest: Vec<_> = COVERED.into_iter().filter(|other| *other != name).collect();
        if !is_author {
            let mail = signed_over(&scene.domain, MAIL, &rest);
            let (right, stricter) = match name {
                "Subject" | "Date" => ([Neutral, Fail], UNSIGNED),
                _ => ([Pass, Pass], ""),
            };
            cases.push(case(format!("{name} not signed"), scene, mail, [Fail, right[0], right[1]], stricter));
        }
    }
    for (what, from, to, right) in [
        ("a word more in the body", "Where is it,", "Where is it now,", [Fail, Fail]),
        ("a line more below", "has it?\r\n", "has it?\r\nStop it.\r\n", [Fail, Fail]),
        ("empty lines below", "has it?\r\n", "has it?\r\n\r\n\r\n", [Pass, Pass]),
        ("no body", "Where is it, and how much charge has it?\r\n", "", [Fail, Fail]),
        ("a field more", "\r\n\r\nWhere", "\r\nX-Unsigned: 1\r\n\r\nWhere", [Pass, Pass]),
    ] {
        let scene = Scene::new();
        let mail = String::from_utf8(signed_over(&scene.domain, MAIL, &COVERED)).unwrap();
        assert!(mail.contains(from), "{from}");
        let mail = mail.replace(from, to).into_bytes();
        cases.push(case(what, scene, mail, [Fail, right[0], right[1]], ""));
    }
}

fn signatures(cases: &mut Vec<Case>) {
    use Canonicalization::{Relaxed, Simple};
    for header in [Relaxed, Simple] {
        for body in [Relaxed, Simple] {
            let scene = Scene::new();
            let mail = scene.domain.sign_with(MAIL, |mut signer| {
                (signer.template.ch, signer.template.cb) = (header, body);
                signer
            });
            cases.push(case(format!("c={header:?}/{body:?}"), scene, mail, [Fail, Pass, Pass], ""));
        }
    }
    const STRICT: &str = "_dmarc TXT \"v=DMARC1; p=reject; adkim=s\"";
    for (author, signer, policy, right) in [
        ("example.org", "example.org", "", [Pass, Pass]),
        ("example.org", "mail.example.org", "", [Pass, Pass]),
        ("mail.example.org", "example.org", "", [Pass, Pass]),
        ("a.example.org", "b.example.org", "", [Pass, Pass]),
        ("example.org", "example.org", STRICT, [Pass, Pass]),
        ("example.org", "mail.example.org", STRICT, [Pass, Fail]),
        ("mail.example.org", "example.org", STRICT, [Pass, Fail]),
        ("example.org", "evil.example", "", [Neutral, Fail]),
        ("example.org", "example.org.evil.example", "", [Neutral, Fail]),
        ("example.org", "evilexample.org", "", [Neutral, Fail]),
        ("example.org", "org", "", [Neutral, Fail]),
    ] {
        let own = SignedDomain::new("example.org", "s1");
        let mut scene = Scene::of(SignedDomain::new(signer, "s2"));
        let policy = if policy.is_empty() { "_dmarc TXT \"v=DMARC1; p=reject\"" } else { policy };
        let without_policy = |zone: String| zone.replace("_dmarc TXT \"v=DMARC1; p=reject\"\n", "");
        let own = if signer == "example.org" { String::new() } else { without_policy(own.zone()) };
        scene.zone = format!("{own}{}$ORIGIN example.org.\n{policy}\n", without_policy(scene.domain.zone()));
        let mail = MAIL.replace("@example.org", &format!("@{author}"));
        let mail = signed_over(&scene.domain, &mail, &COVERED);
        let what = format!("From {author}, signed by {signer}, {policy}");
        cases.push(case(what, scene, mail, [Fail, right[0], right[1]], ""));
    }
    // The signature covers itself, too: what can be read does not fit any more.
    for (tag, instead, dkim) in [
        ("v=1", "v=2", PermError),
        ("v=1; ", "", Fail),
        ("s=s1", "s=s2", PermError),
        ("s=s1", "s=", PermError),
        ("d=example.org", "d=", PermError),
        ("a=ed25519-sha256", "a=rsa-sha256", Fail),
        ("a=ed25519-sha256", "a=ed25519-sha1", PermError),
        ("a=ed25519-sha256", "a=none", PermError),
        ("c=relaxed/relaxed", "c=loose/relaxed", PermError),
        ("bh=", "bh=A", Fail),
        ("v=1", "v=1; q=http", PermError),
        ("v=1", "v=1; l=0", Fail),
        ("v=1", "v=1; x=1", Fail),
        ("v=1", "v=1; i=@evil.example", Fail),
        ("v=1", "v=1; v=1", Fail),
    ] {
        let scene = Scene::new();
        let mail = String::from_utf8(scene.domain.sign(MAIL)).unwrap();
        assert!(mail.contains(tag), "{tag} is not in {mail}");
        let mail = mail.replacen(tag, instead, 1).into_bytes();
        cases.push(case(format!("{instead} in place of {tag}"), scene, mail, [Fail, dkim, Fail], ""));
    }
}

fn envelopes(cases: &mut Vec<Case>) {
    for (peer, listed) in [(SENDING_HOST, true), (STRANGER, false)] {
        for strict in [false, true] {
            for (mail_from, helo, aligned, exactly) in [
                ("alice@example.org", "client.example.com", true, true),
                ("Alice@EXAMPLE.org", "client.example.com", true, true),
                ("bounces+1@mail.example.org", "client.example.com", true, false),
                ("", "mail.example.org", true, false),
                ("", "example.org", true, true),
                ("", "evil.example", false, false),
                ("mallory@evil.example", "example.org", false, false),
                ("mallory@example.org.evil.example", "example.org", false, false),
                ("mallory@evilexample.org", "example.org", false, false),
            ] {
                let mut scene = Scene::new();
                let spf = "TXT \"v=spf1 ip4:203.0.113.7 -all\"";
                scene.zone += &format!(
                    "mail {spf}\nevil.example. {spf}\nexample.org.evil.example. {spf}\nevilexample.org. {spf}\n"
                );
                if strict {
                    scene.zone = scene.zone.replace("p=reject", "p=reject; aspf=s");
                }
                (scene.peer, scene.mail_from, scene.helo) = (peer, mail_from.to_owned(), helo.to_owned());
                let spf = match (aligned, listed) {
                    // It could prove nothing.
                    (false, _) => Unknown,
                    (true, true) => Pass,
                    (true, false) => Fail,
                };
                let dmarc = if listed && if strict { exactly } else { aligned } { Pass } else { Fail };
                let what =
                    format!("unsigned, from {peer}, MAIL FROM:<{mail_from}>, EHLO {helo}, strict: {strict}");
                cases.push(case(what, scene, MAIL.into(), [spf, None, dmarc], ""));
            }
        }
    }
}

/// What the mail says about itself, and what others have signed, proves nothing and does no harm.
fn claims(cases: &mut Vec<Case>) {
    let claims = [
        "Authentication-Results: mx.example.net; spf=pass; dkim=pass header.d=example.org; dmarc=pass\r\n",
        "Received-SPF: pass (example.org) client-ip=203.0.113.7\r\n",
        "ARC-Authentication-Results: i=1; mx.example.net; dmarc=pass\r\n",
        "ARC-Seal: i=1; a=rsa-sha256; d=evil.example; s=s; t=1; cv=none; b=AAAA\r\n",
        "DKIM-Signature: v=1; a=ed25519-sha256; d=example.org; s=s1; h=From; bh=AAAA; b=AAAA\r\n",
        "DKIM-Signature: \r\n",
        "X-Spam-Status: No\r\n",
    ];
    for claim in claims {
        let scene = Scene::new();
        let dkim = match claim {
            "DKIM-Signature: \r\n" => PermError,
            claim if claim.starts_with("DKIM-Signature") => Neutral,
            _ => None,
        };
        let unsigned = format!("{claim}{MAIL}").into_bytes();
        cases.push(case(format!("unsigned, {claim}"), scene, unsigned, [Fail, dkim, Fail], ""));
        let scene = Scene::new();
        let signed = [claim.as_bytes(), &signed_over(&scene.domain, MAIL, &COVERED)].concat();
        cases.push(case(format!("signed, {claim}"), scene, signed, [Fail, Pass, Pass], ""));
        let mut scene = Scene::new();
        let mallory = SignedDomain::new("evil.example", "s1");
        scene.zone += &mallory.zone();
        let signed = [claim.as_bytes(), &signed_over(&mallory, MAIL, &COVERED)].concat();
        cases.push(case(format!("signed by another, {claim}"), scene, signed, [Fail, Neutral, Fail], ""));
    }
}

/// The rows of `published`, each with a sending host that SPF lists.
fn of_published(cases: &mut Vec<Case>) {
    const NEW: &[&str] =
        &["RFC 9989 4.8: relaxed, the default", "RFC 9989 4.8: what is not understood is ignored"];
    const SAME: &[&str] = &["RFC 9989 4.7: the version is the first"];
    const LAX: &str = "the section that the row names; the others are lax about it";
    for (published, instead, section, right) in published::ROWS {
        let mut scene = Scene::new();
        scene.peer = SENDING_HOST;
        if !published.is_empty() {
            scene.zone = scene.zone.replace(published, instead);
        }
        let mail = signed_over(&scene.domain, MAIL, &COVERED);
        let (is_new, is_lax) = (NEW.contains(section), right[2] != Pass && !SAME.contains(section));
        let case = case(*section, scene, mail, *right, if is_lax { LAX } else { "" });
        let laxer = if is_new { "RFC 9989 4.8 ignores what RFC 7489 did not" } else { "" };
        cases.push(Case { laxer, ..case });
    }
}

/// What the others find out, in the order of the cases.
fn peers(cases: &[Case]) -> Vec<Value> {
    // pyspf, dkimpy and authheaders: scripts/venv mailauth
    let mut python = Command::new(project("target/venv/mailauth/bin/python"));
    let lines = cases.iter().map(|case| format!("{}\n", as_json(case))).collect();
    let output = output_of(python.arg(project("test/authentication/peers.py")), lines);
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn as_json(case: &Case) -> Value {
    let zone = Zone::parse(&case.scene.zone, "case").unwrap();
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
    let records = zone.iter().map(|(name, records)| {
        let of_name = json!({
            "TXT": records.txt.iter().map(text).collect::<Vec<_>>(), "A": records.a, "AAAA": records.aaaa, "MX": records.mx,
        });
        (name.trim_end_matches('.').to_owned(), of_name)
    });
    json!({
        "zone": records.collect::<BTreeMap<_, _>>(),
        "ip": case.scene.peer,
        "helo": case.scene.helo,
        "mail_from": case.scene.mail_from,
        "mail": testbed::sign::base64(&case.mail),
    })
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    from_fields(&mut cases);
    changes(&mut cases);
    signatures(&mut cases);
    envelopes(&mut cases);
    of_published(&mut cases);
    claims(&mut cases);
    assert!(cases.len() >= 200, "{}", cases.len());
    cases
}

/// Each mail, its results, and why the others find more or less; for `docs/verdicts.md`.
pub fn table() -> Vec<Vec<String>> {
    let row = |case: Case| {
        let results = case.right.map(|result| match result {
            Unknown => "not asked".to_owned(),
            result => format!("{result:?}").to_lowercase(),
        });
        let difference = match (case.stricter, case.laxer) {
            ("", "") => String::new(),
            ("", laxer) => format!("they do not take it: {laxer}"),
            (stricter, _) => format!("they take it: {stricter}"),
        };
        let what: String = case.what.chars().flat_map(|c| c.escape_default().collect::<Vec<_>>()).collect();
        [vec![what.replace("\\\"", "\"").replace("\\'", "'")], results.to_vec(), vec![difference]].concat()
    };
    cases().into_iter().map(row).collect()
}

#[test]
fn what_proves_a_sender_proves_it_to_others_and_what_does_not_has_a_reason() {
    let cases = cases();
    let others = peers(&cases);
    assert_eq!(others.len(), cases.len());
    let mut wrong = Vec::new();
    let server = NameServer::start("", &[]);
    let waits = Waits { timeout: Duration::from_secs(5), silence: Duration::ZERO };
    for (case, others) in cases.iter().zip(&others) {
        server.serve(&case.scene.zone);
        let servers = Dns::servers(&[server.address], waits).unwrap();
        let mut found = [Unknown; 3];
        for (source, dns) in [("server", servers), ("zone", case.scene.dns())] {
            let checked = case.scene.check_with(&dns, &case.mail);
            found = [checked.spf, checked.dkim, checked.dmarc];
            if found != case.right {
                wrong.push(format!(
                    "{}, {source}: {found:?}, must be {:?}: {}",
                    case.what, case.right, checked.reason
                ));
            }
        }
        let to_others = [others["spf"] == "pass", others["dkim"] == true];
        let dmarc = others["dmarc"].as_array().unwrap().iter().all(|result| result == "pass");
        for (name, ours, theirs) in [("SPF", found[0], to_others[0]), ("DKIM", found[1], to_others[1])] {
            if ours == Pass && !theirs {
                wrong.push(format!("{}: {name} passes here and not elsewhere: {others}", case.what));
            }
        }
        let is_laxer = found[2] == Pass && !dmarc;
        if is_laxer == case.laxer.is_empty() {
            wrong.push(format!("{}: laxer: {is_laxer}, reason {:?}: {others}", case.what, case.laxer));
        }
        let is_stricter = dmarc && found[2] != Pass;
        if is_stricter == case.stricter.is_empty() {
            wrong.push(format!(
                "{}: stricter: {is_stricter}, reason {:?}: {others}",
                case.what, case.stricter
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
