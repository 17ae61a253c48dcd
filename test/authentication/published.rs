// SPDX-License-Identifier: Apache-2.0
//! What a domain publishes, with all the mistakes that one can make in it, and what of it proves a sender: from a zone
//! file and from a DNS server alike.

use std::time::Duration;

use authenticator::{dns::Dns, silence::Waits};
use mail::AuthResult::{self, *};
use testbed::dns::NameServer;

use super::scene::{MAIL, SENDING_HOST, Scene};

/// What is published in place of what, the section that decides, and the results of SPF, DKIM and DMARC.
pub type Row = (&'static str, &'static str, &'static str, [AuthResult; 3]);

const SPF: &str = "@ TXT \"v=spf1 ip4:203.0.113.7 ip4:127.0.0.1 -all\"";
const POLICY: &str = "v=DMARC1; p=reject";
const KEY: &str = "v=DKIM1; k=ed25519; p=";

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    ("", "", "all is well", [Pass, Pass, Pass]),
    // The signed mail of a host that SPF lists is proven twice; so each of the two is looked at with the other broken.
    (SPF, "@ TXT \"v=spf1 ip4:203.0.113.7 -all\"\n@ TXT \"v=spf1 +all\"", "RFC 7208 4.5: two records", [PermError, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1 ip4:203.0.113.7 -all\"\n@ TXT \"v=spf10 +all\"", "RFC 7208 4.5: the other is none", [Pass, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1 ip4:203.0.113.7 ipv4:192.0.2.1 -all\"", "RFC 7208 4.6: a mistake behind the match", [PermError, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1 include:_spf.example.org -all\"\n_spf TXT \"v=spf1 ip4:203.0.113.7\"\n_spf TXT \"v=spf1 -all\"", "RFC 7208 5.2: an included name with two", [PermError, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1 include:_spf.example.org -all\"\n_spf TXT \"v=spf1 ip4:203.0.113.7\"", "RFC 7208 5.2", [Pass, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1 redirect=_spf.example.org\"\n_spf TXT \"v=spf1 ip4:203.0.113.7/40\"", "RFC 7208 6.1: redirected to a mistake", [PermError, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1 a=203.0.113.7.example ip4=203.0.113.7 -all\"", "RFC 7208 6: unknown modifiers are ignored", [Fail, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1 include:%{p} ip4:203.0.113.7 -all\"", "RFC 7208 7.2: the client's DNS decides nothing", [PermError, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1\\009ip4:203.0.113.7\"", "RFC 7208 12: a tab is no space", [None, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1 -include:a.example.org +all\"\na TXT \"v=spf1 include:b.example.org\"\nb TXT \"v=spf1 ip4:203.0.113.7\"", "RFC 7208 5.2: an include in an included record", [Fail, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1 a:no.example.org mx:no.example.org ip4:203.0.113.7 -all\"", "RFC 7208 4.6.4: two void look-ups", [Pass, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1 a:no.example.org mx:no.example.org exists:%{l}.no.example.org ip4:203.0.113.7 -all\"", "RFC 7208 4.6.4: three void look-ups", [PermError, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1 exists:%{l}.%{ir}.ok.%{d2} -all\"\nalice.7.113.0.203.ok A 127.0.0.2", "RFC 7208 5.7 and 7", [Pass, Pass, Pass]),
    (SPF, "@ TXT \"v=spf1 mx:%{d}/25 -all\"\n@ MX 10 mx\nmx A 203.0.113.99", "RFC 7208 5.4", [Pass, Pass, Pass]),
    (KEY, "v=DKIM1; s=tlsrpt; k=ed25519; p=", "RFC 6376 3.6.1: s= without email", [Pass, PermError, Pass]),
    (KEY, "v=DKIM1; s=*; h=sha256; k=ed25519; p=", "RFC 6376 3.6.1", [Pass, Pass, Pass]),
    (KEY, "v=DKIM1; h=sha1; k=ed25519; p=", "RFC 6376 3.6.1: h= without sha256", [Pass, PermError, Pass]),
    (KEY, "k=ed25519; v=DKIM1; p=", "RFC 6376 3.6.1: v= is not the first", [Pass, PermError, Pass]),
    (KEY, "k=ed25519; p=", "RFC 6376 3.6.1: v= is recommended", [Pass, Pass, Pass]),
    (KEY, "v=DKIM1; k=ed25519; p=AAAA; p=", "RFC 6376 3.2: a tag twice", [Pass, PermError, Pass]),
    (POLICY, "v=DMARC1; p=reject\"\n_dmarc TXT \"v=DMARC1; p=none", "RFC 9989 4.10: two policies", [Pass, Pass, None]),
    (POLICY, "v=dmarc1; p=reject", "RFC 9989 4.7: the version is case-sensitive", [Pass, Pass, None]),
    (POLICY, "p=reject; v=DMARC1", "RFC 9989 4.7: the version is the first", [Pass, Pass, None]),
    (POLICY, "v=DMARC1; p=refuse", "RFC 9989 4.10.1: no policy, and nobody to report to", [Pass, Pass, None]),
    (POLICY, "v=DMARC1; p=refuse; rua=mailto:d@example.org", "RFC 9989 4.10.1: as if p=none", [Pass, Pass, Pass]),
    (POLICY, "v=DMARC1; p=reject; sp=x", "RFC 9989 4.10.1: as if it had no policy at all", [Pass, Pass, None]),
    (POLICY, "v=DMARC1; p=reject; adkim=s; adkim=r", "RFC 6376 3.2: a tag twice", [Pass, Pass, None]),
    (POLICY, "v=DMARC1; p=reject; adkim=strict; aspf=x", "RFC 9989 4.8: relaxed, the default", [Pass, Pass, Pass]),
    (POLICY, "v=DMARC1; p=reject; fo=y; pct=z; new=1; stray", "RFC 9989 4.8: what is not understood is ignored", [Pass, Pass, Pass]),
];

#[test]
fn what_a_domain_publishes_counts_as_the_rfcs_say() {
    let waits = Waits { timeout: Duration::from_secs(5), silence: Duration::ZERO };
    let mut scene = Scene::new();
    scene.peer = SENDING_HOST;
    let mail = scene.domain.sign(MAIL);
    let whole = scene.zone.clone();
    let mut wrong = Vec::new();
    for (published, instead, section, results) in ROWS {
        assert!(whole.contains(published), "{published} is not in the zone:\n{whole}");
        scene.zone = if published.is_empty() { whole.clone() } else { whole.replace(published, instead) };
        let server = NameServer::start(&scene.zone, &[]);
        let servers = Dns::servers(&[server.address], waits).unwrap();
        for (source, dns) in [("zone", scene.dns()), ("server", servers)] {
            let checked = scene.check_with(&dns, &mail);
            let found = [checked.spf, checked.dkim, checked.dmarc];
            if found != *results {
                wrong.push(format!(
                    "{section}, {source}: {found:?} instead of {results:?}: {}",
                    checked.reason
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
