// SPDX-License-Identifier: Apache-2.0
//! Measures how many signed mails a core verifies a second, beside dkimpy and, if it is installed, OpenDKIM's library. Ours
//! is the authenticator's whole check, with SPF and DMARC; theirs is DKIM alone. Nobody waits for a DNS.

#![allow(missing_docs, clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use authenticator::{
    dns::Dns,
    suffixes::Suffixes,
    verify::{Policy, verify},
    zone::Zone,
};
use mail::{AuthResult, Envelope, Origin};
use serde_json::{Value, json};
use testbed::{project, sign::SignedDomain};

const MAILS: usize = 50;
const BODY_BYTES: usize = 4000;
const ROUNDS: usize = 3;
/// Time of each measurement.
const WHILE: Duration = Duration::from_secs(2);

fn mails(domain: &SignedDomain) -> Vec<Vec<u8>> {
    let line = "Where is truck_1, and how much charge has it? It should be at the depot by noon.\r\n";
    let mail = |number: usize| {
        format!(
            "From: Dana <dana@{}>\r\nTo: fleet@example.net\r\nSubject: status {number}\r\nDate: Mon, 6 Jan 2025 08:00:00 \
             +0100\r\nMessage-ID: <{number}@dispatch.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n{}",
            domain.domain,
            line.repeat(BODY_BYTES / line.len())
        )
    };
    (0..MAILS).map(|number| domain.sign(&mail(number))).collect()
}

/// Mails a second by the authenticator's check.
fn ours(dns: &Dns, mails: &[Vec<u8>]) -> f64 {
    let policy = Policy {
        dkim_max_signatures: 10,
        relays: Vec::new(),
        suffixes: Suffixes::BuiltIn,
        arc_sealers: Vec::new(),
    };
    let origin = Origin::Smtp(Envelope {
        peer: "192.0.2.1".parse().unwrap(),
        helo: "client.example.com".into(),
        mail_from: "dana@dispatch.example".into(),
        rcpt_to: vec!["fleet@example.net".into()],
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (began, now, mut count) = (Instant::now(), SystemTime::now(), 0_u32);
    while began.elapsed() < WHILE {
        for mail in mails {
            let checked = runtime.block_on(verify(dns, &policy, &origin, mail, now));
            assert_eq!((checked.dkim, checked.dmarc), (AuthResult::Pass, AuthResult::Pass), "{checked:?}");
            count += 1;
        }
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn main() {
    let mut out = std::io::stdout().lock();
    let dir = tempfile::tempdir().unwrap();
    for (name, domain) in [
        ("RSA-2048", SignedDomain::rsa("dispatch.example", "s1", 2048)),
        ("Ed25519", SignedDomain::new("dispatch.example", "s1")),
    ] {
        let mails = mails(&domain);
        let zone = Zone::parse(&domain.zone(), "zone").unwrap();
        let key = if name == "Ed25519" { "ed25519" } else { "rsa" };
        let job = dir.path().join(format!("{key}.json"));
        let theirs = json!({
            "mails": mails.iter().map(hex::encode).collect::<Vec<_>>(),
            "record": format!("v=DKIM1; k={key}; p={}", domain.published_key()),
            "seconds": WHILE.as_secs_f64(),
        });
        fs::write(&job, theirs.to_string()).unwrap();
        let dns = Dns::zone(&zone).unwrap();
        let mut rates: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for _ in 0..ROUNDS {
            rates.entry("posthorn".to_owned()).or_default().push(ours(&dns, &mails));
            let peers = Command::new(project("target/venv/mailauth/bin/python"))
                .arg(project("test/bench/dkim_peers.py"))
                .arg(&job)
                .output()
                .expect("dkimpy: run scripts/venv mailauth");
            assert!(peers.status.success(), "{}", String::from_utf8_lossy(&peers.stderr));
            let measured: BTreeMap<String, Value> = serde_json::from_slice(&peers.stdout).unwrap();
            for (peer, rate) in measured {
                if let Some(rate) = rate.as_f64() {
                    rates.entry(peer).or_default().push(rate);
                } else {
                    writeln!(out, "{name}: {peer}: {}", rate.as_str().unwrap_or("not measured")).unwrap();
                }
            }
        }
        let ours = median(rates.remove("posthorn").unwrap());
        writeln!(out, "{name}: posthorn (SPF, DKIM, DMARC) {ours:.0} mails a second").unwrap();
        for (peer, rates) in rates {
            let rate = median(rates);
            writeln!(
                out,
                "{name}: {peer} (DKIM) {rate:.0} mails a second; posthorn {:.1} times as many",
                ours / rate
            )
            .unwrap();
        }
    }
}
