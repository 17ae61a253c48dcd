// SPDX-License-Identifier: Apache-2.0
//! Decides for which host and domain SPF is evaluated: for the host that delivered a mail, if that says something about
//! the sender.
//!
//! No query is made that could not prove the author.
//!
//! The evaluation is [`crate::spf`], alignment is left to DMARC in [`super`].

use std::net::IpAddr;

use mail::{AuthResult, EmailAddress, Envelope, Origin};
use mail_auth::{SpfOutput, SpfResult};

use super::{Policy, may_align};
use crate::{
    dns::Dns,
    silence::Question,
    spf::{Query, check_host},
};

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
    let local = EmailAddress::parse(&envelope.mail_from);
    let query = Query {
        ip: envelope.peer,
        local: local.as_ref().map_or("", EmailAddress::local_part),
        domain: &domain,
        helo: &envelope.helo,
    };
    let is_answer = |result: &AuthResult| *result != AuthResult::TempError;
    let asked = dns.ask(Question::Spf, &domain, check_host(dns, &query), is_answer).await;
    let result = asked.unwrap_or(AuthResult::TempError);
    let output = SpfOutput::new(domain).with_result(for_dmarc(result));
    Spf { output, result, why_not: "" }
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

/// The result as mail-auth's DMARC takes it.
fn for_dmarc(result: AuthResult) -> SpfResult {
    match result {
        AuthResult::Pass => SpfResult::Pass,
        AuthResult::Fail => SpfResult::Fail,
        AuthResult::SoftFail => SpfResult::SoftFail,
        AuthResult::Neutral => SpfResult::Neutral,
        AuthResult::TempError => SpfResult::TempError,
        AuthResult::PermError => SpfResult::PermError,
        AuthResult::None | AuthResult::Unknown => SpfResult::None,
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
