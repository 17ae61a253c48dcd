// SPDX-License-Identifier: Apache-2.0
//! A sender that is registered with a DKIM key: which key signed a mail, and what counts if it is another.

use std::{fs, time::Duration};

use authenticator::{
    dns::Dns,
    key_digest::digest_of_key,
    silence::Waits,
    verdict::{Checked, RegistryAnswer, decide},
};
use mail::{Registration, Role};
use testbed::{dns::NameServer, sign::SignedDomain};

use super::scene::{MAIL, SENDING_HOST, Scene, signed_over};

/// A domain with the key that is registered and another, such as a leaked one of a newsletter.
fn scene() -> (Scene, SignedDomain, SignedDomain) {
    let (own, other) =
        (SignedDomain::new("example.org", "s1"), SignedDomain::rsa("example.org", "news", 1024));
    let mut scene = Scene::of(SignedDomain::new("example.org", "unused"));
    let key_of = |domain: &SignedDomain| {
        let zone = domain.zone();
        zone.lines().find(|line| line.contains("_domainkey")).unwrap().to_owned() + "\n"
    };
    scene.zone = scene.zone + &key_of(&own) + &key_of(&other);
    (scene, own, other)
}

fn digest(domain: &SignedDomain) -> [u8; 32] {
    digest_of_key(&domain.published_key()).unwrap()
}

/// The registry's answer, and whether an order counts, for an operator with this key.
fn judged(checked: &Checked, key: [u8; 32]) -> (Registration, bool) {
    let answer = RegistryAnswer { dkim_key: Some(key), ..RegistryAnswer::active(Role::Operator) };
    let verdict = decide(checked.clone(), Some(answer));
    assert_eq!(verdict.authenticated, verdict.registry == Registration::Active);
    (verdict.registry, verdict.order_covered)
}

#[test]
fn only_a_mail_that_the_registered_key_signed_is_the_senders() {
    let (mut scene, own, other) = scene();
    let by_own = scene.check(own.sign(MAIL));
    assert_eq!(
        (by_own.dkim_keys.as_slice(), by_own.order_keys.as_slice()),
        (&[digest(&own)][..], &[digest(&own)][..])
    );
    assert_eq!(judged(&by_own, digest(&own)), (Registration::Active, true));
    let by_other = scene.check(other.sign(MAIL));
    assert_eq!(by_other.dkim_keys, [digest(&other)]);
    assert_eq!(judged(&by_other, digest(&own)), (Registration::OtherKey, false));
    // SPF proves the domain, and no key.
    scene.peer = SENDING_HOST;
    let by_spf = scene.check(MAIL);
    assert_eq!(judged(&by_spf, digest(&own)), (Registration::OtherKey, false));
    // A signature by the key that does not fit any more, beside one that does.
    let changed = String::from_utf8(own.sign(MAIL)).unwrap().replace("vehicle 7", "vehicle 8");
    let patched = scene.check(other.sign(&changed));
    assert_eq!(patched.dkim_keys, [digest(&other)]);
    assert_eq!(judged(&patched, digest(&own)), (Registration::OtherKey, false));
}

#[test]
fn an_order_needs_a_signature_by_the_registered_key_over_all_of_it() {
    let (scene, own, other) = scene();
    let little = ["From", "Subject", "Date"];
    let mixed = String::from_utf8(signed_over(&own, MAIL, &little)).unwrap();
    let checked = scene.check(other.sign(&mixed));
    assert!(checked.order_covered, "by any key: {}", checked.order_gap);
    assert_eq!(checked.order_keys, [digest(&other)]);
    assert_eq!(judged(&checked, digest(&own)), (Registration::Active, false));
    assert_eq!(judged(&checked, digest(&other)), (Registration::Active, true));
}

#[test]
fn the_key_is_that_of_the_record_that_verified_also_from_a_name_server() {
    let (scene, own, other) = scene();
    let server = NameServer::start(&scene.zone, &[]);
    let waits = Waits { timeout: Duration::from_secs(5), silence: Duration::ZERO };
    let dns = Dns::servers(&[server.address], waits).unwrap();
    let both = other.sign(&String::from_utf8(own.sign(MAIL)).unwrap());
    let checked = scene.check_with(&dns, both);
    assert_eq!(checked.dkim_keys.len(), 2);
    for domain in [&own, &other] {
        assert!(checked.dkim_keys.contains(&digest(domain)));
        assert_eq!(judged(&checked, digest(domain)), (Registration::Active, true));
    }
    // Of several records under one name, the first that can be used verifies, and is named.
    let broken = "s1._domainkey TXT \"v=DKIM1; k=ed25519; p=AQID; p=AQID\"\n";
    let mut twice = Scene::of(SignedDomain::new("example.org", "unused"));
    twice.zone = scene.zone.replace("s1._domainkey", &format!("{broken}s1._domainkey"));
    assert_eq!(twice.check(own.sign(MAIL)).dkim_keys, [digest(&own)]);
    let server = NameServer::start(&twice.zone, &[]);
    let dns = Dns::servers(&[server.address], waits).unwrap();
    assert_eq!(twice.check_with(&dns, own.sign(MAIL)).dkim_keys, [digest(&own)]);
}

#[test]
fn the_key_of_rfc_8463_has_the_digest_of_its_bytes() {
    let folder = testbed::project("test/data/authentication");
    let (mut scene, ..) = scene();
    scene.zone = fs::read_to_string(folder.join("rfc8463-appendix-a.zone")).unwrap();
    let mail = fs::read_to_string(folder.join("rfc8463-appendix-a.eml")).unwrap();
    let ed25519 = digest_of_key("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=").unwrap();
    assert!(scene.check(&mail).dkim_keys.contains(&ed25519));
}
