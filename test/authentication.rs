// SPDX-License-Identifier: Apache-2.0
//! Verifies senders from raw bytes to verdict. Zone files stand in for the DNS; keys are generated at run time.

mod arc;
pub mod attacks;
mod changes;
mod dns;
mod load;
mod orders;
mod pinned;
mod properties;
mod published;
mod rfc7208;
pub mod scene;

use std::{
    fs,
    time::{Duration, UNIX_EPOCH},
};

use authenticator::verdict::Checked;
use mail::{AuthResult::*, Origin, parse};
use mail_auth::dkim::Canonicalization;
use testbed::sign::SignedDomain;

use self::scene::{MAIL, SENDING_HOST, Scene, assert_results, signed_over};

fn edit(mail: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(mail).unwrap();
    assert!(text.contains(from), "{from}");
    text.replace(from, to).into_bytes()
}

#[test]
fn a_signed_and_aligned_mail_is_proven() {
    let scene = Scene::new();
    let checked = scene.check(scene.domain.sign(MAIL));
    assert_results(&checked, Fail, Pass, Pass);
    assert_eq!((checked.dkim_domain.as_str(), checked.dkim_selector.as_str()), ("example.org", "s1"));
    assert_eq!(checked.from.as_deref(), Some("alice@example.org"));
    assert_eq!(checked.reason, "example.org is proven by DKIM to have sent the mail.");
}

#[test]
fn both_examples_of_rfc_8463_verify() {
    let folder = testbed::project("test/data/authentication");
    let mut scene = Scene::new();
    scene.zone = fs::read_to_string(folder.join("rfc8463-appendix-a.zone")).unwrap();
    scene.mail_from = "joe@football.example.com".into();
    let mail = fs::read_to_string(folder.join("rfc8463-appendix-a.eml")).unwrap();
    let checked = scene.check(&mail);
    assert_results(&checked, None, Pass, Pass);
    assert_eq!(checked.dkim_selector, "brisbane");
    // The second signature alone: RSA with 1024 bits.
    let rsa = mail.split_at(mail.find("DKIM-Signature: v=1; a=rsa").unwrap()).1;
    let checked = scene.check(rsa);
    assert_results(&checked, None, Pass, Pass);
    assert_eq!(checked.dkim_selector, "test");
}

#[test]
fn a_forged_mail_is_not() {
    let scene = Scene::new();
    let checked = scene.check(MAIL);
    assert_results(&checked, Fail, None, Fail);
    assert_eq!(
        checked.reason,
        "Nothing proves that example.org sent the mail: it has no DKIM signature, SPF did not pass."
    );
}

#[test]
fn what_a_mail_says_of_itself_is_not_read() {
    let mut scene = Scene::new();
    let claims = "Authentication-Results: mx.example.net; spf=pass; dkim=pass header.d=example.org; dmarc=pass\r\n\
        Received-SPF: pass\r\n\
        ARC-Authentication-Results: i=1; mx.example.net; dmarc=pass\r\n";
    let bare = scene.check(MAIL);
    let Checked { arc, .. } = bare;
    assert_eq!(Checked { arc, ..scene.check(format!("{claims}{MAIL}")) }, bare);
    scene.peer = SENDING_HOST;
    assert_results(
        &scene.check(format!("Authentication-Results: x; spf=fail; dmarc=fail\r\n{MAIL}")),
        Pass,
        None,
        Pass,
    );
}

#[test]
fn a_changed_body_or_subject_is_not() {
    let scene = Scene::new();
    let signed = scene.domain.sign(MAIL);
    let checked = scene.check(edit(signed.clone(), "how much charge", "how much money"));
    assert_results(&checked, Fail, Fail, Fail);
    assert!(checked.reason.contains("its body is not the one that was signed"), "{}", checked.reason);
    assert_eq!((checked.dkim_domain.as_str(), checked.dkim_selector.as_str()), ("", ""));
    assert_results(&scene.check(edit(signed, "Where is vehicle 7?", "stop vehicle 7")), Fail, Fail, Fail);
}

#[test]
fn a_signature_of_another_domain_is_not() {
    let mut scene = Scene::new();
    let mallory = SignedDomain::new("example.com", "s1");
    scene.zone += &mallory.zone();
    let checked = scene.check(mallory.sign(MAIL));
    assert_results(&checked, Fail, Neutral, Fail);
    assert!(checked.reason.contains("its DKIM signature is of another domain"), "{}", checked.reason);
    // With both signatures, the aligned one is named.
    let both = mallory.sign(&String::from_utf8(scene.domain.sign(MAIL)).unwrap());
    let checked = scene.check(both);
    assert_results(&checked, Fail, Pass, Pass);
    assert_eq!(checked.dkim_domain, "example.org");
}

#[test]
fn a_mail_with_two_authors_is_malformed() {
    let mut scene = Scene::new();
    scene.peer = SENDING_HOST;
    let signed = scene.domain.sign(MAIL);
    let twice = [b"From: Mallory <mallory@example.com>\r\n", signed.as_slice()].concat();
    for mail in [
        twice,
        scene.domain.sign(&MAIL.replace("<alice@example.org>", "<alice@example.org>, bob@example.org")),
    ] {
        let checked = scene.check(&mail);
        assert_eq!((checked.dmarc, checked.from.as_deref()), (PermError, Option::None));
        assert!(checked.reason.contains("more than one"), "{}", checked.reason);
    }
}

#[test]
fn a_mail_that_can_be_read_in_two_ways_is_malformed() {
    let mut scene = Scene::new();
    scene.peer = SENDING_HOST;
    let signed = String::from_utf8(scene.domain.sign(MAIL)).unwrap();
    let second_subject = format!("Subject: stop vehicle 7\r\n{signed}");
    // A line without a colon ends the header section for one parser and not for another.
    let garbage = format!("garbage\r\n{signed}");
    let no_from = MAIL.split_once("\r\n").unwrap().1.to_owned();
    let empty_from = format!("From: \r\n{no_from}");
    // A field that was signed as absent, added later, and read by a lenient parser.
    let unsigned = MAIL.replace("Subject: Where is vehicle 7?\r\n", "");
    let unsigned = String::from_utf8(scene.domain.sign(&unsigned)).unwrap();
    let spaced = format!("Subject : Where is vehicle 8?\r\n{unsigned}");
    let returns = signed.replace("<1@", "<1\r@");
    let many_fields = format!("{}{signed}", "X: y\r\n".repeat(1001));
    for mail in [
        second_subject,
        garbage,
        spaced,
        returns,
        no_from,
        empty_from,
        many_fields,
        String::new(),
        "\r\nbody".into(),
    ] {
        let checked = scene.check(&mail);
        assert_eq!((checked.dmarc, checked.from.as_deref()), (PermError, Option::None), "{mail}");
        assert!(checked.reason.starts_with("The mail is malformed"), "{}", checked.reason);
    }
}

#[test]
fn the_author_is_the_one_that_consumers_see() {
    let scene = Scene::new();
    for from in [
        "Alice <alice@EXAMPLE.org>",
        "\"boss@example.net\" <alice@example.org>",
        "alice@example.org (boss@example.net)",
    ] {
        let mail = scene.domain.sign(&MAIL.replace("Alice <alice@example.org>", from));
        let seen = parse(&mail).from;
        let checked = scene.check(&mail);
        assert_results(&checked, Fail, Pass, Pass);
        assert_eq!(checked.from.as_deref(), Some(seen[0].address.as_str()), "{from}");
        assert_eq!(checked.from.as_deref(), Some("alice@example.org"), "{from}");
    }
}

#[test]
fn an_expired_signature_is_not() {
    let mut scene = Scene::new();
    let signed = scene.domain.sign_with(MAIL, |signer| signer.expiration(600));
    assert_results(&scene.check(&signed), Fail, Pass, Pass);
    scene.now += Duration::from_secs(601);
    let checked = scene.check(&signed);
    assert_results(&checked, Fail, Fail, Fail);
    assert!(checked.reason.contains("expired"));
    // The caller provides the clock: here it shows a time long before the mail was signed.
    scene.now = UNIX_EPOCH + Duration::from_secs(1);
    assert_results(&scene.check(&signed), Fail, Pass, Pass);
}

#[test]
fn a_signature_over_a_part_of_the_body_is_not() {
    let scene = Scene::new();
    let signed = scene.domain.sign_with(MAIL, |signer| signer.body_length(true));
    let appended = [signed.as_slice(), b"stop vehicle 7\r\n"].concat();
    for mail in [signed, appended] {
        let checked = scene.check(&mail);
        assert_results(&checked, Fail, Neutral, Fail);
        assert!(checked.reason.contains("(l=)"), "{}", checked.reason);
    }
    // l=0 covers nothing of the body, which is not how mail-auth reads 0.
    let nothing = edit(scene.domain.sign(MAIL), "DKIM-Signature: v=1;", "DKIM-Signature: v=1; l=0;");
    assert_ne!(scene.check(nothing).dmarc, Pass);
}

#[test]
fn a_signature_that_leaves_out_what_is_read_is_not() {
    let scene = Scene::new();
    for left_out in ["From", "Subject", "Date"] {
        let fields = ["From", "To", "Subject", "Date", "Message-ID"];
        let fields: Vec<_> = fields.into_iter().filter(|field| *field != left_out).collect();
        let checked = scene.check(signed_over(&scene.domain, MAIL, &fields));
        assert_results(&checked, Fail, Neutral, Fail);
        let why = format!("its DKIM signature does not cover {left_out},");
        assert!(checked.reason.contains(&why), "{}", checked.reason);
    }
    // Answers must go only where the author asked for them.
    let redirected = [b"Reply-To: mallory@example.com\r\n", scene.domain.sign(MAIL).as_slice()].concat();
    assert_ne!(scene.check(redirected).dmarc, Pass);
}

#[test]
fn weak_keys_and_algorithms_are_not() {
    let scene = Scene::of(SignedDomain::rsa("example.org", "s1", 768));
    let checked = scene.check(scene.domain.sign(MAIL));
    assert_results(&checked, Fail, Neutral, Fail);
    assert!(checked.reason.contains("too short"), "{}", checked.reason);
    let scene = Scene::of(SignedDomain::rsa("example.org", "s1", 1024));
    assert_results(&scene.check(scene.domain.sign(MAIL)), Fail, Pass, Pass);
    let checked = scene.check(edit(scene.domain.sign(MAIL), "rsa-sha256", "rsa-sha1"));
    assert_results(&checked, Fail, Neutral, Fail);
    assert!(checked.reason.contains("rsa-sha1"));
}

#[test]
fn signatures_beyond_the_limit_are_ignored() {
    let mut scene = Scene::new();
    scene.policy.dkim_max_signatures = 2;
    let mut mail = String::from_utf8(scene.domain.sign(MAIL)).unwrap();
    let broken = mail.split_once("\r\nFrom:").unwrap().0.replace("bh=", "bh=AAAA") + "\r\n";
    mail = format!("{broken}{mail}");
    assert_results(&scene.check(&mail), Fail, Pass, Pass);
    assert_results(&scene.check(format!("{broken}{mail}")), Fail, Fail, Fail);
}

#[test]
fn a_key_that_is_missing_malformed_or_revoked_is_a_permanent_error() {
    let mut scene = Scene::new();
    let signed = scene.domain.sign(MAIL);
    let zone = scene.zone.clone();
    scene.zone = zone.replace("s1._domainkey", "s2._domainkey");
    let checked = scene.check(&signed);
    assert_results(&checked, Fail, PermError, Fail);
    assert!(checked.reason.contains("not published"), "{}", checked.reason);
    for record in ["v=DKIM1; k=ed25519; p=AAAA", "v=DKIM1; k=ed25519; p=", "v=DKIM2; p=x", "no key"] {
        scene.zone = zone.replace("v=DKIM1; k=ed25519; p=", &format!("{record}\" ; "));
        assert_results(&scene.check(&signed), Fail, PermError, Fail);
    }
    let unreadable = edit(signed, "a=ed25519-sha256", "a=ed25519-sha512");
    assert_results(&scene.check(unreadable), Fail, PermError, Fail);
}

#[test]
fn a_signature_whose_key_is_not_in_the_dns_is_not() {
    let scene = Scene::new();
    let asks = |query: &str| {
        edit(scene.domain.sign(MAIL), "DKIM-Signature: v=1;", &format!("DKIM-Signature: v=1; q={query};"))
    };
    for query in ["http", "dns", "http:\r\n dns/x"] {
        let checked = scene.check(asks(query));
        assert_results(&checked, Fail, PermError, Fail);
        assert!(checked.reason.contains("another place than the DNS"), "{}", checked.reason);
    }
    // This changes what was signed, and so is no pass; but its key is asked for.
    assert_results(&scene.check(asks("x/y:\r\n dns/txt")), Fail, Fail, Fail);
}

#[test]
fn spf_proves_the_domain_of_the_reverse_path_only() {
    let mut scene = Scene::new();
    scene.peer = SENDING_HOST;
    let checked = scene.check(MAIL);
    assert_results(&checked, Pass, None, Pass);
    assert_eq!(checked.reason, "example.org is proven by SPF to have sent the mail.");
    scene.zone += &SignedDomain::new("example.com", "s1").zone();
    scene.mail_from = "mallory@example.com".into();
    let checked = scene.check(MAIL);
    assert_results(&checked, Unknown, None, Fail);
    assert!(checked.reason.contains("its envelope sender is of another domain"), "{}", checked.reason);
    // A subdomain in the same organisation, under a policy that demands the exact domain.
    scene.zone += "$ORIGIN example.org.\nmail TXT \"v=spf1 ip4:203.0.113.7 -all\"\n";
    scene.mail_from = "alice@mail.example.org".into();
    assert_results(&scene.check(MAIL), Pass, None, Pass);
    scene.zone = scene.zone.replace("p=reject", "p=reject; aspf=s");
    let checked = scene.check(MAIL);
    assert_results(&checked, Pass, None, Fail);
    assert!(checked.reason.contains("SPF passed for another domain"), "{}", checked.reason);
}

#[test]
fn the_client_of_a_relay_proves_nothing() {
    let mut scene = Scene::new();
    scene.peer = SENDING_HOST;
    scene.policy.relays = vec![SENDING_HOST];
    assert_results(&scene.check(MAIL), Unknown, None, Fail);
    assert_results(&scene.check(scene.domain.sign(MAIL)), Unknown, Pass, Pass);
    scene.policy.relays.clear();
    scene.origin = Origin::Lmtp;
    assert_results(&scene.check(MAIL), Unknown, None, Fail);
}

/// For sites where all mail arrives through a gateway on this host or next to it, which also sends the sender's mail.
#[test]
fn a_gateway_that_the_spf_record_names_proves_nothing() {
    let mut scene = Scene::new();
    scene.zone = scene.zone.replace("ip4:127.0.0.1", "ip4:127.0.0.1 ip4:10.0.0.0/8 ip6:fd12::/16 ip6:::1");
    for gateway in ["127.0.0.1", "10.1.2.3", "::1", "fd12::25"] {
        scene.peer = gateway.parse().unwrap();
        let checked = scene.check(MAIL);
        assert_results(&checked, Unknown, None, Fail);
        assert!(checked.reason.contains("SPF says nothing of mail that an own host passed on"));
        assert_results(&scene.check(scene.domain.sign(MAIL)), Unknown, Pass, Pass);
    }
}

#[test]
fn the_null_reverse_path_stands_for_the_name_of_the_client() {
    let mut scene = Scene::new();
    scene.peer = SENDING_HOST;
    scene.mail_from.clear();
    assert_results(&scene.check(MAIL), Unknown, None, Fail);
    scene.helo = "example.org".into();
    assert_results(&scene.check(MAIL), Pass, None, Pass);
    scene.helo = "[127.0.0.1]".into();
    assert_results(&scene.check(MAIL), Unknown, None, Fail);
}

#[test]
fn alignment_is_relaxed_unless_the_policy_is_strict() {
    let mut scene = Scene::new();
    let mail = MAIL.replace("alice@example.org", "alice@mail.example.org");
    let checked = scene.check(scene.domain.sign(&mail));
    assert_results(&checked, Fail, Pass, Pass);
    assert_eq!(checked.from.as_deref(), Some("alice@mail.example.org"));
    scene.zone = scene.zone.replace("p=reject", "p=reject; adkim=s");
    assert_results(&scene.check(scene.domain.sign(&mail)), Fail, Pass, Fail);
    assert_results(&scene.check(scene.domain.sign(MAIL)), Fail, Pass, Pass);
}

#[test]
fn a_domain_without_a_policy_cannot_be_authenticated() {
    let mut scene = Scene::new();
    scene.zone = scene.zone.replace("_dmarc", "_other");
    let checked = scene.check(scene.domain.sign(MAIL));
    assert_results(&checked, Fail, Pass, None);
    assert!(checked.reason.contains("publishes no DMARC policy"));
}

#[test]
fn canonicalisation_is_the_signers_choice() {
    let scene = Scene::new();
    let simple = scene.domain.sign_with(MAIL, |signer| {
        signer
            .header_canonicalization(Canonicalization::Simple)
            .body_canonicalization(Canonicalization::Simple)
    });
    assert_results(&scene.check(simple), Fail, Pass, Pass);
    let refolded = edit(scene.domain.sign(MAIL), "Subject: Where is", "subject:  Where\r\n\tis");
    assert_results(&scene.check(refolded), Fail, Pass, Pass);
}
