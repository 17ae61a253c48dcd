// SPDX-License-Identifier: Apache-2.0
//! Recognises automatic mail, which is never answered (RFC 3834 section 2). Pure.
//!
//! It errs on the side of silence, because an answer to automatic mail can start a loop. Callers decide what else to do
//! with such a mail.

use super::{Content, Origin};

/// Local parts of mailboxes that no person reads.
const ROBOTS: &[&str] =
    &["mailer-daemon", "mailer", "noreply", "no-reply", "do-not-reply", "donotreply", "bounces"];
/// Fields whose mere presence shows that a list or a responder sent the mail (RFC 2369, RFC 2919 and common practice).
const FIELDS: &[(&str, &str)] = &[
    ("list-id", "it comes from a mailing list (List-Id)"),
    ("list-unsubscribe", "it comes from a mailing list (List-Unsubscribe)"),
    ("list-post", "it comes from a mailing list (List-Post)"),
    ("x-autoreply", "it is an automatic reply (X-Autoreply)"),
    ("x-autorespond", "it is an automatic reply (X-Autorespond)"),
];

/// Why a mail counts as automatic, for a person; `None` if a person may have written it.
pub fn is_automatic(content: &Content, origin: &Origin) -> Option<&'static str> {
    let reverse_path = origin.envelope().map(|envelope| envelope.mail_from.as_str());
    if reverse_path == Some("") {
        return Some("it has the null reverse-path, as bounces do");
    }
    if reverse_path.is_some_and(is_robot) || content.from.iter().any(|from| is_robot(&from.address)) {
        return Some("its sender is a mail system or a list");
    }
    content.headers.iter().find_map(|header| {
        let name = header.name.to_ascii_lowercase();
        let value = header.value.to_ascii_lowercase();
        // Parameters and comments may follow the keyword.
        let keyword = value.split([';', '(']).next().unwrap_or_default().trim();
        match name.as_str() {
            // RFC 3834 section 5.
            "auto-submitted" if keyword != "no" => Some("it says that a program sent it (Auto-Submitted)"),
            "precedence" if matches!(keyword, "bulk" | "list" | "junk") => {
                Some("it is bulk mail (Precedence)")
            }
            "x-auto-response-suppress"
                if value.split(',').any(|word| matches!(word.trim(), "all" | "autoreply")) =>
            {
                Some("it asks for no automatic answer (X-Auto-Response-Suppress)")
            }
            // RFC 6522: delivery status and disposition notifications.
            "content-type" if keyword == "multipart/report" => Some("it is a report of a mail system"),
            _ => FIELDS.iter().find(|(field, _)| *field == name).map(|&(_, why)| why),
        }
    })
}

/// Also for texts that are no address, as a bare `MAILER-DAEMON`.
fn is_robot(address: &str) -> bool {
    let local = address.rsplit_once('@').map_or(address, |(local, _)| local).to_ascii_lowercase();
    ROBOTS.contains(&local.as_str())
        || local.starts_with("owner-")
        || ["-owner", "-request", "-bounces"].iter().any(|end| local.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Envelope, ImapMessage, parse};

    fn check(headers: &str, mail_from: &str) -> Option<&'static str> {
        let envelope = Envelope {
            peer: std::net::Ipv4Addr::LOCALHOST.into(),
            helo: "client.example".into(),
            mail_from: mail_from.into(),
            rcpt_to: vec!["fleet@example.org".into()],
        };
        is_automatic(&parse(headers.as_bytes()), &Origin::Smtp(envelope))
    }

    #[test]
    fn a_person_is_answered() {
        for headers in [
            "Subject: hi\n\n",
            "Auto-Submitted: no\n\n",
            "Auto-submitted: No (really)\n\n",
            "Precedence: first-class\n\n",
        ] {
            assert_eq!(check(headers, "alice@example.org"), None, "{headers}");
        }
    }

    #[test]
    fn a_fetched_mail_has_no_reverse_path_and_is_no_bounce() {
        let message = ImapMessage {
            account: "fleet@example.org".into(),
            folder: "INBOX".into(),
            uid_validity: 1,
            uid: 1,
        };
        let origin = Origin::Imap(message);
        assert_eq!(is_automatic(&parse(b"From: alice@example.org\n\n"), &origin), None);
        assert!(is_automatic(&parse(b"From: mailer-daemon@example.org\n\n"), &origin).is_some());
    }

    #[test]
    fn a_program_is_not() {
        for headers in [
            "Auto-Submitted: auto-replied\n\n",
            "AUTO-SUBMITTED:auto-generated; owner-email=\"a@b\"\n\n",
            "Auto-Submitted:\n\n",
            "Precedence: Bulk\n\n",
            "List-Id: Fleet <fleet.example.org>\n\n",
            "List-Unsubscribe: <mailto:leave@example.org>\n\n",
            "X-Auto-Response-Suppress: DR, AutoReply\n\n",
            "Content-Type: multipart/report; report-type=delivery-status; boundary=x\n\n",
            "From: MAILER-DAEMON@example.org\n\n",
        ] {
            assert!(check(headers, "alice@example.org").is_some(), "{headers}");
        }
        for sender in [
            "",
            "MAILER-DAEMON@example.org",
            "owner-fleet@example.org",
            "fleet-request@example.org",
            "No-Reply@example.org",
        ] {
            assert!(check("Subject: hi\n\n", sender).is_some(), "{sender}");
        }
    }
}
