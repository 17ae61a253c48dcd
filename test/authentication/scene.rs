// SPDX-License-Identifier: Apache-2.0
//! The fixture for authentication tests: a mail, its sender, and what its domain publishes.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::SystemTime,
};

use authenticator::{
    dns::Dns,
    suffixes::Suffixes,
    verdict::{Checked, RegistryAnswer, decide, needs_registry},
    verify::{Policy, verify},
    zone::Zone,
};
use mail::{
    AuthResult::{self, Pass, TempError},
    Envelope, Origin, Role,
};
use testbed::sign::{self, SignedDomain};

pub const MAIL: &str = "From: Alice <alice@example.org>\r\n\
    To: fleet@example.net\r\n\
    Subject: Where is vehicle 7?\r\n\
    Date: Mon, 6 Jan 2025 08:00:00 +0100\r\n\
    Message-ID: <1@example.org>\r\n\
    \r\n\
    Where is it, and how much charge has it?\r\n";
/// A client that example.org's SPF record does not list.
pub const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// A client that example.org's SPF record lists.
pub const SENDING_HOST: IpAddr = IpAddr::V4(sign::SENDING_HOST);

/// A correspondent of a fleet whose DNS is a zone file.
pub struct Scene {
    pub domain: SignedDomain,
    pub zone: String,
    pub peer: IpAddr,
    pub mail_from: String,
    pub helo: String,
    /// How the mail comes in.
    pub origin: fn(Envelope) -> Origin,
    pub policy: Policy,
    pub now: SystemTime,
}

impl Scene {
    pub fn new() -> Self {
        Self::of(SignedDomain::new("example.org", "s1"))
    }

    pub fn of(domain: SignedDomain) -> Self {
        Self {
            zone: domain.zone(),
            domain,
            peer: STRANGER,
            mail_from: "alice@example.org".into(),
            helo: "client.example.com".into(),
            origin: Origin::Smtp,
            policy: Policy {
                dkim_max_signatures: 10,
                relays: Vec::new(),
                suffixes: Suffixes::BuiltIn,
                arc_sealers: Vec::new(),
            },
            now: SystemTime::now(),
        }
    }

    pub fn dns(&self) -> Dns {
        Dns::zone(&Zone::parse(&self.zone, "test.zone").unwrap()).unwrap()
    }

    pub fn check(&self, mail: impl AsRef<[u8]>) -> Checked {
        self.check_with(&self.dns(), mail)
    }

    pub fn check_with(&self, dns: &Dns, mail: impl AsRef<[u8]>) -> Checked {
        let envelope = Envelope {
            peer: self.peer,
            helo: self.helo.clone(),
            mail_from: self.mail_from.clone(),
            rcpt_to: vec!["fleet@example.net".into()],
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let checked =
            runtime.block_on(verify(dns, &self.policy, &(self.origin)(envelope), mail.as_ref(), self.now));
        assert!(!checked.reason.contains('@') && checked.reason.ends_with('.'), "{}", checked.reason);
        let active = Some(RegistryAnswer::active(Role::Operator));
        let verdict = decide(checked.clone(), active);
        assert_eq!(verdict.authenticated, [checked.dmarc, checked.arc].contains(&Pass));
        assert!(!verdict.order_covered || checked.dmarc == Pass);
        let is_open = [checked.dmarc, checked.arc].contains(&TempError);
        assert_eq!(needs_registry(&checked), verdict.authenticated || is_open);
        checked
    }
}

/// The mail with a signature that covers `fields`.
pub fn signed_over(domain: &SignedDomain, mail: &str, fields: &[&str]) -> Vec<u8> {
    domain.sign_with(mail, |mut signer| {
        signer.template.h = fields.iter().map(|field| (*field).to_owned()).collect();
        signer
    })
}

#[track_caller]
pub fn assert_results(checked: &Checked, spf: AuthResult, dkim: AuthResult, dmarc: AuthResult) {
    assert_eq!((checked.spf, checked.dkim, checked.dmarc), (spf, dkim, dmarc), "{}", checked.reason);
}
