// SPDX-License-Identifier: Apache-2.0
//! Decides whose a mail is, once, when it is accepted. Pure.
//!
//! A consumer is a node, or a group of replicas, that must dispose of a mail before it is settled. An entry of the
//! parameter `consumers` names one and says which mails are its own:
//!
//! | entry | mails |
//! |---|---|
//! | `archive=*` | all |
//! | `requirements=reqs@fleet.example` | those with a recipient that fits the pattern, where `*` is any text |
//! | `chatbot` | those with a recipient that no pattern fits |

use mail::{AddressPattern, Origin};

/// Largest length of a consumer's name, bytes (`Disposition.consumer`).
const NAME_BYTES: usize = 64;
/// Largest number of consumers (`Mail.consumers`).
const CONSUMERS: usize = 64;

/// The consumers of a bridge. Every mail has at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumers(Vec<Consumer>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Consumer {
    name: String,
    takes: Takes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Takes {
    All,
    /// Mails with a recipient that fits.
    Fitting(AddressPattern),
    /// Mails with a recipient that fits no pattern, and those without a recipient.
    Unclaimed,
}

/// An entry that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConsumer {
    /// The entry, or all of them.
    pub entry: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl Consumers {
    /// Parses the entries. With a delimiter, a pattern also fits addresses with an extension.
    ///
    /// # Errors
    /// The first entry that breaks a rule.
    pub fn parse(entries: &[String], delimiter: Option<char>) -> Result<Self, InvalidConsumer> {
        let mut consumers: Vec<Consumer> = Vec::new();
        for entry in entries {
            let invalid = |rule| InvalidConsumer { entry: entry.clone(), rule };
            let (name, pattern) = entry.split_once('=').map_or((&**entry, None), |(n, p)| (n, Some(p)));
            let is_word =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/');
            if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(is_word) {
                return Err(invalid("a name of at most 64 letters, digits, '_', '-', '.' and '/'"));
            }
            if consumers.iter().any(|known| known.name == name) {
                return Err(invalid("another name than the entries before it"));
            }
            let takes = match pattern {
                None => Takes::Unclaimed,
                Some("*") => Takes::All,
                Some(pattern) => {
                    Takes::Fitting(AddressPattern::parse(pattern, delimiter).ok_or_else(|| {
                        invalid("name, name=* or name=pattern, with an at sign in the pattern")
                    })?)
                }
            };
            consumers.push(Consumer { name: name.to_owned(), takes });
        }
        let invalid = |rule| Err(InvalidConsumer { entry: entries.join(", "), rule });
        if consumers.len() > CONSUMERS {
            return invalid("at most 64 entries");
        }
        if consumers.iter().all(|consumer| matches!(consumer.takes, Takes::Fitting(_))) {
            return invalid(
                "at least one entry without a pattern, or with *, so that every mail is somebody's",
            );
        }
        Ok(Self(consumers))
    }

    /// Names of the consumers that a mail is for; at least one.
    pub fn of(&self, origin: &Origin) -> Vec<String> {
        let recipients = origin.recipients();
        let claims = |consumer: &Consumer, recipient: &String| match &consumer.takes {
            Takes::Fitting(pattern) => pattern.fits(recipient),
            Takes::All | Takes::Unclaimed => false,
        };
        let is_unclaimed = |recipient| !self.0.iter().any(|consumer| claims(consumer, recipient));
        let takes = |consumer: &&Consumer| match consumer.takes {
            Takes::All => true,
            Takes::Fitting(_) => recipients.iter().any(|recipient| claims(consumer, recipient)),
            Takes::Unclaimed => recipients.is_empty() || recipients.iter().any(is_unclaimed),
        };
        self.0.iter().filter(takes).map(|consumer| consumer.name.clone()).collect()
    }

    /// Whether a consumer of this name is configured.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|consumer| consumer.name == name)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use mail::{Envelope, ImapMessage};

    fn parse(entries: &[&str]) -> Result<Consumers, InvalidConsumer> {
        Consumers::parse(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>(), None)
    }

    fn to(recipients: &[&str]) -> Origin {
        Origin::Smtp(Envelope {
            peer: Ipv4Addr::LOCALHOST.into(),
            helo: String::new(),
            mail_from: String::new(),
            rcpt_to: recipients.iter().map(|one| (*one).to_owned()).collect(),
        })
    }

    #[test]
    fn a_pattern_claims_a_recipient_and_a_star_takes_every_mail_beside_its_owner() {
        let all =
            parse(&["chatbot", "archive=*", "requirements=Reqs@fleet.example", "lab=*@lab.example"]).unwrap();
        for (recipients, consumers) in [
            (&["fleet@fleet.example"][..], &["chatbot", "archive"][..]),
            (&["reqs@FLEET.example"], &["archive", "requirements"]),
            (&["a@lab.example", "fleet@fleet.example"], &["chatbot", "archive", "lab"]),
            (&["reqs@fleet.example", "a@lab.example"], &["archive", "requirements", "lab"]),
            (&["xreqs@fleet.example"], &["chatbot", "archive"]),
            (&["postmaster"], &["chatbot", "archive"]),
            (&[], &["chatbot", "archive"]),
        ] {
            assert_eq!(all.of(&to(recipients)), consumers, "{recipients:?}");
        }
    }

    #[test]
    fn a_fetched_mail_is_for_its_account() {
        let consumers = parse(&["chatbot", "requirements=reqs@fleet.example"]).unwrap();
        let message = |account: &str| {
            let account = account.to_owned();
            Origin::Imap(ImapMessage { account, folder: "INBOX".into(), uid_validity: 1, uid: 1 })
        };
        assert_eq!(consumers.of(&message("reqs@fleet.example")), ["requirements"]);
        assert_eq!(consumers.of(&message("fleet@fleet.example")), ["chatbot"]);
    }

    #[test]
    fn an_entry_that_cannot_be_used_is_named_with_its_rule() {
        for (entries, entry) in [
            (&["chatbot", ""][..], ""),
            (&["chat bot"], "chat bot"),
            (&["chatbot", "chatbot=*"], "chatbot=*"),
            (&["chatbot=reqs"], "chatbot=reqs"),
            (&["requirements=reqs@fleet.example"], "requirements=reqs@fleet.example"),
            (&[], ""),
        ] {
            assert_eq!(parse(entries).unwrap_err().entry, entry);
        }
        let long = "c".repeat(65);
        assert_eq!(parse(&[&long]).unwrap_err().entry, long);
    }
}
