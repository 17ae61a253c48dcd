// SPDX-License-Identifier: Apache-2.0
//! Evaluates SPF for the host that delivered a mail, if that host says something about the sender.
//!
//! No query is made that could not prove the author.
//!
//! Alignment is left to DMARC in [`super`].

use std::net::IpAddr;

use mail::{AuthResult, EmailAddress, Envelope, Origin};
use mail_auth::{SpfOutput, SpfResult, spf::verify::SpfParameters};

use super::{Policy, may_align};
use crate::{dns::Dns, silence::Question};

/// Name of this host in SPF macros (RFC 7208 section 7.3).
const HOST: &str = "unknown";

pub(super) struct Spf {
    /// Output for DMARC.
    pub(super) output: SpfOutput,
    pub(super) result: AuthResult,
    /// Why SPF was not evaluated, in half a sentence; empty if it was.
    pub(super) why_not: &'static str,
}

impl Spf {
    fn unknown(why_not: &'static str) -> Self {
        Self { output: SpfOutput::default(), result: AuthResult::Unknown, why_not }
    }
}

/// Returns the domain that SPF applies to: that of MAIL FROM, or HELO for the null reverse-path (RFC 7208 section
/// 2.4).
pub(super) fn domain(envelope: &Envelope) -> String {
    EmailAddress::parse(&envelope.mail_from)
        .map_or_else(|_| envelope.helo.clone(), |address| address.domain().to_owned())
}

/// Evaluates SPF for a mail whose author's domain is `author`. Skips queries that can prove nothing, so that nobody
/// waits for the DNS of a domain that an envelope happens to name.
pub(super) async fn verify(dns: &Dns, policy: &Policy, origin: &Origin, author: &str) -> Spf {
    let envelope = match origin {
        Origin::Smtp(envelope) if !policy.relays.contains(&envelope.peer) && !is_internal(envelope.peer) => {
            envelope
        }
        Origin::Smtp(_) | Origin::Lmtp(_) => {
            return Spf::unknown("SPF says nothing of mail that an own host passed on");
        }
        Origin::Imap(_) => return Spf::unknown("SPF says nothing of mail fetched from a mailbox"),
    };
    if !envelope.mail_from.is_empty() && EmailAddress::parse(&envelope.mail_from).is_err() {
        return Spf::unknown("its envelope sender is not an address");
    }
    let domain = domain(envelope);
    if !may_align(&domain, author) {
        return Spf::unknown("its envelope sender is of another domain");
    }
    let params = || match envelope.mail_from.as_str() {
        "" => SpfParameters::verify_ehlo(envelope.peer, &envelope.helo, HOST),
        mail_from => SpfParameters::verify_mail_from(envelope.peer, &envelope.helo, HOST, mail_from),
    };
    let records = dns.spf_records();
    let check = dns.run(&records, || dns.resolver.verify_spf(dns.query(params(), &records)));
    let is_answer = |output: &SpfOutput| output.result() != SpfResult::TempError;
    let asked = dns.ask(Question::Spf, &domain, check, is_answer).await;
    let output = asked.unwrap_or_else(|| SpfOutput::default().with_result(SpfResult::TempError));
    Spf { result: result(&output), output, why_not: "" }
}

/// Whether the client is on this host or in a network that the Internet does not route to; such a client passes on
/// what others wrote. If it is a gateway that the sender's SPF record names, every forged mail would pass.
fn is_internal(peer: IpAddr) -> bool {
    match peer.to_canonical() {
        IpAddr::V4(v4) => {
            // RFC 6598: address space shared by a provider's customers.
            let is_shared = matches!(v4.octets(), [100, 64..=127, ..]);
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified() || is_shared
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified()
        }
    }
}

fn result(output: &SpfOutput) -> AuthResult {
    match output.result() {
        SpfResult::Pass => AuthResult::Pass,
        SpfResult::Fail => AuthResult::Fail,
        SpfResult::SoftFail => AuthResult::SoftFail,
        SpfResult::Neutral => AuthResult::Neutral,
        SpfResult::TempError => AuthResult::TempError,
        SpfResult::PermError => AuthResult::PermError,
        SpfResult::None => AuthResult::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_the_internet_does_not_route_to_are_internal() {
        let internal = |text: &str| is_internal(text.parse().unwrap());
        let inside = [
            "127.0.0.1",
            "127.255.0.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.7.1",
            "169.254.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "::1",
            "fd12::1",
            "fc00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ];
        assert_eq!(inside.into_iter().find(|peer| !internal(peer)), None);
        let outside = [
            "172.15.0.1",
            "172.32.0.1",
            "100.63.255.255",
            "100.128.0.0",
            "192.0.2.1",
            "2001:db8::1",
            "::ffff:192.0.2.1",
        ];
        assert_eq!(outside.into_iter().find(|peer| internal(peer)), None);
    }
}
