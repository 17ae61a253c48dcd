// SPDX-License-Identifier: Apache-2.0
//! Classes of mails that share a part of the window: one From domain from one peer. Pure.
//!
//! Nothing here is authenticated: a class only decides who waits behind whom. A sender who forges a From joins the
//! class of the domain he names at his own peer, and gets no more than its part of the window.

use std::net::IpAddr;

use mail::{
    AcceptedMail, EmailAddress, Origin,
    parse::{MAX_FIELDS, authors, section},
};
use sha2::{Digest, Sha256};

/// Second-level labels under which names are registered below a country's domain (`example.co.uk`). A missing label
/// puts strangers into one class, which slows them down and nobody else.
const REGISTRIES: &[&str] =
    &["ac", "co", "com", "edu", "go", "gob", "gov", "gv", "ltd", "mil", "ne", "net", "nom", "or", "org"];
/// How much of a header is searched for its From, bytes; a From further down is ignored.
const HEADER_BYTES: usize = 64 * 1024;

/// The class of a mail. Both parts are digests, so that it is small however long the names are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    /// Digest of the client's address, or of the account that the mail was fetched from; for IPv6, of the /64 network,
    /// as each client has 2^64 addresses.
    pub peer: u64,
    /// Digest of the From domain.
    pub domain: u64,
}

impl Class {
    /// The class of this mail. A mail without exactly one author counts for the domain of its envelope sender.
    pub fn of(mail: &AcceptedMail) -> Self {
        let of_envelope = || domain(&mail.origin.envelope()?.mail_from);
        Self::new(&mail.origin, &author_domain(&mail.data).or_else(of_envelope).unwrap_or_default())
    }

    /// The class of mails with this From domain that came in this way.
    pub fn new(origin: &Origin, domain: &str) -> Self {
        let peer = match origin {
            Origin::Smtp(envelope) | Origin::Lmtp(envelope) => network(envelope.peer).to_string(),
            // No address has a space.
            Origin::Imap(message) => format!("account {}", message.account),
        };
        Self { peer: digest(peer.as_bytes()), domain: Self::domain(domain) }
    }

    /// The part of a class that stands for this From domain.
    pub fn domain(domain: &str) -> u64 {
        digest(registered(domain).as_bytes())
    }
}

/// The address itself for IPv4, its /64 network for IPv6.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
    }
}

fn digest(bytes: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(bytes).into();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Domain of a mail's only author, in lower case, read exactly as the authenticator reads it: otherwise a comment in
/// the From field could put a mail whose domain does not answer into another domain's class.
pub fn author_domain(data: &[u8]) -> Option<String> {
    let header = data.get(..HEADER_BYTES).unwrap_or(data);
    match authors(&section(header, MAX_FIELDS)).as_slice() {
        [one] => domain(&one.address),
        _ => None,
    }
}

fn domain(address: &str) -> Option<String> {
    EmailAddress::parse(address).ok().map(|address| address.domain().to_lowercase())
}

/// The registered part of a domain, as far as its labels tell: whoever registered it owns all names below it.
pub fn registered(domain: &str) -> &str {
    let labels = domain.trim_end_matches('.').rsplit('.').take(2).collect::<Vec<_>>();
    let country = matches!(labels[..], [top, second] if top.len() == 2 && REGISTRIES.contains(&second));
    let dots = if country { 3 } else { 2 };
    let domain = domain.trim_end_matches('.');
    domain
        .rmatch_indices('.')
        .nth(dots - 1)
        .and_then(|(dot, _)| domain.get(dot.saturating_add(1)..))
        .unwrap_or(domain)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use mail::{Envelope, ImapMessage, MailId};

    fn class(peer: &str, mail_from: &str, data: &str) -> Class {
        Class::of(&AcceptedMail {
            id: MailId::of(data.as_bytes()),
            received_at: SystemTime::UNIX_EPOCH,
            origin: Origin::Smtp(Envelope {
                peer: peer.parse().unwrap(),
                helo: String::new(),
                mail_from: mail_from.to_owned(),
                rcpt_to: Vec::new(),
            }),
            consumers: Vec::new(),
            data: data.as_bytes().to_vec(),
        })
    }

    #[test]
    fn reads_the_domain_of_the_from_field_as_folded_and_as_named() {
        for header in [
            "From: ada@x.test\r\n\r\n",
            "Subject: from: b@y.test\r\nFROM: \"b@y.test\" <ada@X.Test>\r\nTo: c@z.test\r\n\r\n",
            "From: Ada\r\n <ada@mail.x.test> (at work)\r\n\r\nFrom: b@y.test\r\n",
            "From: ada@x.test (b@y.test)\r\n\r\n",
        ] {
            assert_eq!(
                author_domain(header.as_bytes()).as_deref().map(registered),
                Some("x.test"),
                "{header}"
            );
        }
        assert_eq!(author_domain(b"Subject: s\r\n\r\nFrom: b@y.test\r\n"), None);
        assert_eq!(author_domain(b""), None);
    }

    #[test]
    fn names_below_a_registered_domain_are_one_class() {
        for (domain, part) in [
            ("a.b.evil.test", "evil.test"),
            ("evil.test", "evil.test"),
            ("a.evil.co.uk", "evil.co.uk"),
            ("a.web.de", "web.de"),
            ("test", "test"),
            ("x.test.", "x.test"),
            ("", ""),
            ("..", ""),
        ] {
            assert_eq!(registered(domain), part, "{domain}");
        }
    }

    #[test]
    fn a_class_is_a_domain_and_a_peer() {
        let mail = "From: ada@x.test\r\n\r\n";
        let one = class("192.0.2.1", "bounce@y.test", mail);
        assert_eq!(one, class("192.0.2.1", "", mail));
        assert_ne!(one, class("192.0.2.2", "", mail));
        assert_ne!(one, class("192.0.2.1", "", "From: ada@y.test\r\n\r\n"));
        assert_eq!(class("192.0.2.1", "ada@x.test", "no header\r\n"), one);
        assert_eq!(class("2001:db8::1", "", mail), class("2001:db8::ffff:2", "", mail));
        assert_ne!(class("2001:db8::1", "", mail), class("2001:db8:0:1::1", "", mail));
    }

    #[test]
    fn mails_of_one_account_share_a_part_of_the_room() {
        let class = |account: &str, uid| {
            let (account, folder) = (account.to_owned(), "INBOX".to_owned());
            Class::new(&Origin::Imap(ImapMessage { account, folder, uid_validity: 1, uid }), "x.test")
        };
        assert_eq!(class("fleet@x.test", 1), class("fleet@x.test", 2));
        assert_ne!(class("fleet@x.test", 1), class("reqs@x.test", 1));
        assert_eq!(class("fleet@x.test", 1).domain, Class::domain("mail.x.test"));
    }
}
