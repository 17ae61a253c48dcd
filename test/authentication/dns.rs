// SPDX-License-Identifier: Apache-2.0
//! Which DNS is asked: the configured servers, or only a zone file.

use std::{fs, net::UdpSocket, time::Duration};

use authenticator::{dns::Dns, silence::Waits, zone::Zone};
use mail::AuthResult::TempError;

use super::scene::{MAIL, STRANGER, Scene, assert_results};

fn waits(timeout_ms: u64) -> Waits {
    Waits { timeout: Duration::from_millis(timeout_ms), silence: Duration::ZERO }
}

#[test]
fn a_dns_that_does_not_answer_is_a_temporary_error() {
    let scene = Scene::new();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dns = Dns::servers(&[silent.local_addr().unwrap()], waits(200)).unwrap();
    let checked = scene.check_with(&dns, scene.domain.sign(MAIL));
    assert_results(&checked, TempError, TempError, TempError);
    assert!(checked.reason.contains("did not answer"), "{}", checked.reason);
    // The server was asked, so the next test would see packets if there were any.
    silent.set_nonblocking(true).unwrap();
    assert!(silent.recv(&mut [0; 512]).is_ok());
}

#[test]
fn a_zone_is_never_asked_of_the_network() {
    let mut scene = Scene::new();
    scene.zone += "spf.example.com. TXT \"v=spf1 a mx ptr a:other.example mx:other.example include:other.example -all\"\n\
        spf.example.com. MX 10 mx.example.com.\n\
        _dmarc.example.com. TXT \"v=DMARC1; p=none; sp=none; np=reject\"\n";
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let servers = Dns::servers(&[silent.local_addr().unwrap()], waits(500)).unwrap();
    let dns = servers.with_zone(&Zone::parse(&scene.zone, "test.zone").unwrap());
    for domain in ["example.org", "spf.example.com", "other.example", "no.such.domain.example.com"] {
        for peer in [STRANGER, "2001:db8::1".parse().unwrap()] {
            (scene.mail_from, scene.peer) = (format!("alice@{domain}"), peer);
            let mail = scene.domain.sign(&MAIL.replace("example.org", domain));
            let checked = scene.check_with(&dns, mail);
            assert_ne!(checked.spf, TempError, "{domain}");
            assert_ne!(checked.dmarc, TempError, "{domain}");
        }
    }
    silent.set_nonblocking(true).unwrap();
    assert_eq!(silent.recv(&mut [0; 512]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_file_that_is_no_zone_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.zone");
    let error = Zone::read(&missing).unwrap_err().to_string();
    assert!(error.contains("missing.zone cannot be read"), "{error}");
    let wrong = folder.path().join("wrong.zone");
    fs::write(&wrong, "\n\na. CNAME b.\n").unwrap();
    let error = Dns::open(Some(&wrong), &[], waits(1000)).err().unwrap().to_string();
    assert!(error.contains("wrong.zone:3: type CNAME"), "{error}");
}
