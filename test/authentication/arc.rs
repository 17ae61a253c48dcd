// SPDX-License-Identifier: Apache-2.0
//! Mails that lists and forwarders changed and sealed by ARC, with dkimpy as the sealer, and what dkimpy finds of them.

use std::process::Command;

use authenticator::verdict::Checked;
use mail::AuthResult::{self, *};
use serde_json::{Value, json};
use testbed::{
    output_of, project,
    sign::{SignedDomain, base64},
};

use super::scene::{MAIL, Scene, signed_over};

/// What a sealer saw of a mail that DMARC proves.
const PASSED: &str = "dmarc=pass header.from=example.org";
/// What a list does.
const FOOTER: (&str, &str) = ("has it?\r\n", "has it?\r\n--\r\nThe list\r\n");
const TAG: (&str, &str) = ("Subject: Where", "Subject: [fleet] Where");

/// A host that changes a mail, then seals it as this domain with these results; without results it does not seal.
#[derive(Clone, Copy)]
struct Hop<'d> {
    domain: &'d SignedDomain,
    changes: &'d [(&'d str, &'d str)],
    results: &'d str,
    /// A field that the seal does not cover.
    omits: &'d str,
}

struct Case<'d> {
    what: &'static str,
    hops: Vec<Hop<'d>>,
    right: AuthResult,
}

/// What dkimpy makes of a mail, and what it finds then.
fn sealed(scene: &Scene, cases: &[Case]) -> Vec<(Vec<u8>, String)> {
    let mail = signed_over(&scene.domain, MAIL, &["From", "To", "Subject", "Date", "Message-ID"]);
    let zone = authenticator::zone::Zone::parse(&scene.zone, "case").unwrap();
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
    let records = zone.iter().flat_map(|(name, records)| {
        let key = records.txt.iter().map(text).find(|text| text.starts_with("v=DKIM1"));
        key.map(|key| (name.trim_end_matches('.').to_owned(), json!(key)))
    });
    let records: serde_json::Map<String, Value> = records.collect();
    let hop = |hop: &Hop| {
        let (domain, key) = match hop.results {
            "" => (String::new(), String::new()),
            _ => (hop.domain.domain.clone(), hop.domain.private_pem()),
        };
        json!({ "domain": domain, "key": key, "changes": hop.changes, "results": hop.results,
            "omits": hop.omits })
    };
    let job = |case: &Case| {
        let hops: Vec<_> = case.hops.iter().map(hop).collect();
        format!("{}\n", json!({ "mail": base64(&mail), "hops": hops, "zone": records }))
    };
    // dkimpy: scripts/venv mailauth
    let mut python = Command::new(project("target/venv/mailauth/bin/python"));
    let output =
        output_of(python.arg(project("test/authentication/sealer.py")), cases.iter().map(job).collect());
    let answer = |line: &str| {
        let answer: Value = serde_json::from_str(line).unwrap();
        (hex::decode(answer["mail"].as_str().unwrap()).unwrap(), answer["found"].as_str().unwrap().to_owned())
    };
    output.lines().map(answer).collect()
}

/// A domain that seals, with a key that dkimpy can sign with.
fn sealer(domain: &str, bits: usize) -> SignedDomain {
    SignedDomain::rsa(domain, "s1", bits)
}

#[test]
fn a_chain_proves_a_sender_if_all_its_sealers_are_trusted_and_the_first_saw_dmarc_pass() {
    let mut scene = Scene::new();
    let (list, relay) = (sealer("lists.example", 1024), sealer("relay.example", 1024));
    let (other, weak) = (sealer("other.example", 1024), sealer("weak.example", 768));
    let forger = sealer("lists.example", 1024);
    for domain in [&list, &relay, &other, &weak] {
        scene.zone.push_str(&domain.zone());
    }
    scene.policy.arc_sealers =
        ["lists.example", "relay.example", "weak.example"].map(ToOwned::to_owned).into();
    let seal = |domain, results| Hop { domain, changes: &[TAG, FOOTER], results, omits: "" };
    let change = |changes| Hop { domain: &list, changes, results: "", omits: "" };
    let cases = [
        Case { what: "sealed by a trusted list", hops: vec![seal(&list, PASSED)], right: Pass },
        Case { what: "sealed by another list", hops: vec![seal(&other, PASSED)], right: Neutral },
        Case { what: "not sealed", hops: vec![change(&[TAG, FOOTER])], right: None },
        Case {
            what: "changed afterwards",
            hops: vec![seal(&list, PASSED), change(&[("Where is it", "Stop it")])],
            right: Fail,
        },
        Case {
            what: "another author afterwards",
            hops: vec![seal(&list, PASSED), change(&[("From: Alice <alice@", "From: Alice <bob@")])],
            right: Fail,
        },
        Case {
            what: "another result afterwards",
            hops: vec![
                seal(&list, "dmarc=fail header.from=example.org"),
                change(&[("dmarc=fail", "dmarc=pass")]),
            ],
            right: Fail,
        },
        Case {
            what: "the sealer saw DMARC fail",
            hops: vec![seal(&list, "dmarc=fail header.from=example.org")],
            right: Neutral,
        },
        Case {
            what: "the sealer saw another author",
            hops: vec![seal(&list, "dmarc=pass header.from=evil.example")],
            right: Neutral,
        },
        Case {
            what: "the sealer says nothing of DMARC",
            hops: vec![seal(&list, "dkim=pass header.d=example.org")],
            right: Neutral,
        },
        Case {
            what: "forwarded, changed and sealed again",
            hops: vec![
                Hop { domain: &relay, changes: &[], results: PASSED, omits: "" },
                seal(&list, "arc=pass; dmarc=fail header.from=example.org"),
            ],
            right: Pass,
        },
        Case {
            what: "the first sealer is not trusted",
            hops: vec![
                Hop { domain: &other, changes: &[], results: PASSED, omits: "" },
                seal(&list, "arc=pass; dmarc=pass header.from=example.org"),
            ],
            right: Neutral,
        },
        Case {
            what: "the last sealer is not trusted",
            hops: vec![
                Hop { domain: &list, changes: &[], results: PASSED, omits: "" },
                seal(&other, "arc=pass; dmarc=pass header.from=example.org"),
            ],
            right: Neutral,
        },
        Case {
            what: "the second sealer saw the chain broken",
            hops: vec![
                Hop { domain: &relay, changes: &[], results: PASSED, omits: "" },
                seal(&list, "arc=fail; dmarc=fail header.from=example.org"),
            ],
            right: Fail,
        },
        Case {
            what: "the first set removed",
            hops: vec![
                Hop { domain: &relay, changes: &[], results: PASSED, omits: "" },
                seal(&list, "arc=pass; dmarc=fail header.from=example.org"),
                change(&[("ARC-Seal: i=1", "X-Seal: i=1")]),
            ],
            right: Fail,
        },
        Case {
            what: "a seal that leaves out the subject",
            hops: vec![Hop { omits: "subject", ..seal(&list, PASSED) }],
            right: Fail,
        },
        Case {
            what: "a first seal that leaves out the subject",
            hops: vec![
                Hop { domain: &relay, changes: &[], results: PASSED, omits: "subject" },
                seal(&list, "arc=pass; dmarc=fail header.from=example.org"),
            ],
            right: Fail,
        },
        Case { what: "a seal by another key", hops: vec![seal(&forger, PASSED)], right: Fail },
        Case { what: "a short key", hops: vec![seal(&weak, PASSED)], right: Neutral },
    ];
    let results = sealed(&scene, &cases);
    assert_eq!(results.len(), cases.len());
    for (Case { what, right, .. }, (mail, found)) in cases.iter().zip(results) {
        let checked = scene.check(&mail);
        assert_eq!((checked.dmarc, checked.arc), (Fail, *right), "{what}: {}", checked.reason);
        // What is proven here is proven to dkimpy, and what is broken here is not.
        match right {
            Pass => assert_eq!(found, "pass", "{what}"),
            // The standard leaves to the sealer what it covers.
            Fail if what.contains("leaves out") => assert_eq!(found, "pass", "{what}"),
            Fail => assert_ne!(found, "pass", "{what}"),
            _ => {}
        }
        if *right == Pass {
            let said =
                "lists.example, whose ARC seal is trusted, vouches for example.org having sent the mail.";
            assert_eq!(
                (checked.arc_domain.as_str(), checked.reason.as_str()),
                ("lists.example", said),
                "{what}"
            );
            let gap = "only an ARC chain proves its sender, which is not enough for an order";
            assert_eq!((checked.order_covered, checked.order_gap.as_str()), (false, gap), "{what}");
            // Nobody is trusted unless the operator says so, and no key but the registered one proves a sender with a pin.
            let mut strict = Scene { policy: scene.policy.clone(), zone: scene.zone.clone(), ..Scene::new() };
            strict.policy.arc_sealers.clear();
            let Checked { arc, dmarc, .. } = strict.check(&mail);
            assert_eq!((arc, dmarc), (Unknown, Fail), "{what}");
        }
    }
    // There is no need for it where DMARC passes.
    let unchanged = [Case {
        what: "unchanged",
        hops: vec![Hop { domain: &list, changes: &[], results: PASSED, omits: "" }],
        right: Unknown,
    }];
    let (mail, _) = sealed(&scene, &unchanged).remove(0);
    let checked = scene.check(&mail);
    assert_eq!((checked.dmarc, checked.arc), (Pass, Unknown), "{}", checked.reason);
}
