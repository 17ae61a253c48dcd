// SPDX-License-Identifier: Apache-2.0
//! What a signature must cover for an order: everything that decides what is read, who wrote it and when.

use std::fs;

use mail::AuthResult::*;
use testbed::sign::SignedDomain;

use super::scene::{MAIL, SENDING_HOST, Scene, assert_results, signed_over};

/// Fields that an order's signature covers in these tests.
const FIELDS: [&str; 5] = ["From", "To", "Subject", "Date", "Message-ID"];

/// [`MAIL`] with further header fields before its body.
fn with(fields: &str) -> String {
    MAIL.replace("\r\n\r\n", &format!("\r\n{fields}\r\n\r\n"))
}

#[test]
fn an_order_needs_its_identity_signed_and_a_question_does_not() {
    let scene = Scene::new();
    let covered = scene.check(signed_over(&scene.domain, MAIL, &FIELDS));
    assert!(covered.order_covered && covered.order_gap.is_empty(), "{covered:?}");
    let checked = scene.check(signed_over(&scene.domain, MAIL, &["From", "Subject", "Date"]));
    assert_results(&checked, Fail, Pass, Pass);
    assert!(!checked.order_covered);
    assert_eq!(checked.order_gap, "its DKIM signature does not cover Message-ID");
    // Anyone with a copy could add the missing field, and so make a new order of it each time.
    let anonymous = MAIL.replace("Message-ID: <1@example.org>\r\n", "");
    for mail in [anonymous.clone(), MAIL.replace("Date: Mon, 6 Jan 2025 08:00:00 +0100\r\n", "")] {
        let checked = scene.check(signed_over(&scene.domain, &mail, &FIELDS));
        assert_results(&checked, Fail, Pass, Pass);
        assert!(checked.order_gap.starts_with("the mail has no "), "{}", checked.order_gap);
    }
}

/// DMARC's tree walk finds one organisation where a registry publishes a policy and does not say that it is one.
#[test]
fn no_order_rests_on_a_signature_of_another_customer_of_the_authors_registry() {
    for (registry, organisation) in
        [("com.au", "com.au"), ("github.io", "github.io"), ("dispatch.com.au", "one")]
    {
        let mut scene = Scene::of(SignedDomain::new(&format!("mallory.{registry}"), "s1"));
        scene.zone += &format!("_dmarc.{registry}. TXT \"v=DMARC1; p=none\"\n");
        let mail = MAIL.replace("example.org", &format!("alice.{registry}"));
        let checked = scene.check(signed_over(&scene.domain, &mail, &FIELDS));
        assert_eq!((checked.dkim, checked.dmarc), (Pass, Pass), "{registry}: {}", checked.reason);
        if organisation == "one" {
            assert!(checked.order_covered, "{registry}: {}", checked.order_gap);
        } else {
            assert!(!checked.order_covered, "{registry}");
            let why = format!(
                "its DKIM signature is of mallory.{registry}, by the public suffix list another organisation"
            );
            assert_eq!(checked.order_gap, why);
            // Beside one of the author's own, it does no harm.
            let own = SignedDomain::new(&format!("alice.{registry}"), "s1");
            scene.zone += &own.zone();
            let signed = String::from_utf8(signed_over(&own, &mail, &FIELDS)).unwrap();
            let both = scene.check(signed_over(&scene.domain, &signed, &FIELDS));
            assert!(both.order_covered, "{registry}: {}", both.order_gap);
        }
    }
}

#[test]
fn what_decides_how_the_body_is_read_is_signed_or_says_nothing() {
    let scene = Scene::new();
    for field in [
        "MIME-Version: 1.0",
        "Mime-Version: 1.0 (1.0)",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Type: TEXT/PLAIN; charset=\"us-ascii\"; format=flowed",
        "Content-Transfer-Encoding: 7bit",
        "Content-Transfer-Encoding: 8BIT",
        "Content-Disposition: inline",
        "Content-Language: de",
    ] {
        let checked = scene.check(signed_over(&scene.domain, &with(field), &FIELDS));
        assert!(checked.order_covered, "{field}: {}", checked.order_gap);
    }
    for field in [
        "MIME-Version: 2.0",
        "Content-Type: text/html",
        "Content-Type: text/plain; charset=utf-7",
        "Content-Type: text/plain; name=a",
        "Content-Type: multipart/mixed; boundary=b",
        "Content-Transfer-Encoding: base64",
        "Content-Disposition: attachment",
        "Content-Disposition: inline; filename=a",
    ] {
        let name = field.split(':').next().unwrap();
        let checked = scene.check(signed_over(&scene.domain, &with(field), &FIELDS));
        assert_results(&checked, Fail, Pass, Pass);
        assert_eq!(checked.order_gap, format!("its DKIM signature does not cover {name}"), "{field}");
        assert!(!checked.order_covered);
        let fields = [&FIELDS[..], &[name]].concat();
        let checked = scene.check(signed_over(&scene.domain, &with(field), &fields));
        assert!(checked.order_covered, "{field}: {}", checked.order_gap);
    }
    // Two fields of one kind: the signed one is not the one that is read.
    let checked = scene.check(signed_over(
        &scene.domain,
        &with("Content-Disposition: attachment\r\nContent-Disposition: inline"),
        &[&FIELDS[..], &["Content-Disposition"]].concat(),
    ));
    assert!(!checked.order_covered && checked.dmarc == PermError, "{checked:?}");
}

#[test]
fn an_order_needs_a_signature_of_its_own_domain() {
    let mut scene = Scene::new();
    scene.peer = SENDING_HOST;
    let checked = scene.check(MAIL);
    assert_eq!((checked.order_covered, checked.order_gap.as_str()), (false, "it has no DKIM signature"));
    let mallory = SignedDomain::new("example.com", "s1");
    scene.zone += &mallory.zone();
    let checked = scene.check(mallory.sign(MAIL));
    assert_eq!(checked.dmarc, Pass);
    assert_eq!(checked.order_gap, "its DKIM signature is of another domain");
    // The signature of the sender's domain covers too little for an order, and the other is by another domain.
    let ours = signed_over(&scene.domain, MAIL, &["From", "Subject", "Date"]);
    let checked = scene.check(mallory.sign(&String::from_utf8(ours).unwrap()));
    assert_eq!(checked.order_gap, "its DKIM signature does not cover Message-ID");
    assert!(!checked.order_covered);
    // Of two signatures by the sender's domain, it is enough that one covers what an order needs.
    let ours = signed_over(&scene.domain, MAIL, &["From", "Subject", "Date"]);
    let checked = scene.check(scene.domain.sign(&String::from_utf8(ours).unwrap()));
    assert!(checked.order_covered, "{}", checked.order_gap);
}

/// A recorded mail: OpenDKIM signs its Date, Subject, From and To, but not its Message-ID.
#[test]
fn opendkim_with_debians_defaults_proves_a_question_and_no_order() {
    let folder = testbed::project("test/data/authentication");
    let mut scene = Scene::new();
    scene.zone = fs::read_to_string(folder.join("opendkim-debian.zone")).unwrap();
    scene.mail_from = "dana@depot.example".into();
    for name in ["question", "order"] {
        let mail = fs::read(folder.join(format!("opendkim-debian-{name}.eml"))).unwrap();
        let checked = scene.check(mail);
        assert_results(&checked, None, Pass, Pass);
        assert_eq!(checked.reason, "depot.example is proven by DKIM to have sent the mail.");
        assert_eq!(checked.order_gap, "its DKIM signature does not cover Message-ID", "{name}");
        assert!(!checked.order_covered);
    }
}

/// A recorded mail: OpenDKIM with the settings that `docs/senders.md` recommends.
#[test]
fn opendkim_with_the_recommended_settings_proves_an_order() {
    let folder = testbed::project("test/data/authentication");
    let mut scene = Scene::new();
    scene.zone = fs::read_to_string(folder.join("opendkim-orders.zone")).unwrap();
    let checked = scene.check(fs::read(folder.join("opendkim-orders.eml")).unwrap());
    assert_results(&checked, None, Pass, Pass);
    assert!(checked.order_covered, "{}", checked.order_gap);
    let zone = fs::read_to_string(folder.join("opendkim-orders.zone")).unwrap();
    let document = fs::read_to_string(testbed::project("docs/senders.md")).unwrap();
    assert!(
        zone.contains("docs/senders.md")
            && document
                .contains("\nSignHeaders     From,Reply-To,Subject,Date,To,Cc,Message-ID,MIME-Version,")
    );
}

#[test]
fn nothing_is_covered_where_nothing_is_proven() {
    let scene = Scene::new();
    let signed = scene.domain.sign(MAIL);
    let changed = String::from_utf8(signed.clone()).unwrap().replace("how much", "how little");
    for mail in [changed, format!("From: b@example.org\r\n{}", String::from_utf8(signed).unwrap())] {
        let checked = scene.check(mail);
        assert!(!checked.order_covered && !checked.order_gap.is_empty(), "{checked:?}");
    }
}
