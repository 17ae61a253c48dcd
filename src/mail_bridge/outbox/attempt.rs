// SPDX-License-Identifier: Apache-2.0
//! One attempt to send an outbound mail: reads it from disk, sends it over a kept or new connection, returns the
//! outcome. When to try, and what the outcome means, is left to the core.

use std::{sync::Arc, time::SystemTime};

use mail::{OutboundKind, OutboundMail};
use smtp::client::{Accepts, ClientError, Outcome, SendError, one_line};

use super::{
    compose::{ComposeContext, Composed, Invalid, check, compose},
    dkim,
    forward::Original,
    hosts::Contact,
    relay::{Connection, Relay},
};
use crate::journal::{Journal, JournalError, OutboundKey};

/// A mail and how the attempt to send it went.
pub(super) struct Tried {
    pub(super) mail: OutboundMail,
    pub(super) outcome: Outcome,
    pub(super) contact: Contact,
}

/// Result of an attempt.
pub(super) struct Attempted {
    pub(super) key: OutboundKey,
    /// The mail that was tried, or why it cannot be read.
    pub(super) tried: Result<Tried, String>,
    /// Still usable for the next mail.
    pub(super) connection: Option<Connection>,
}

/// Tries to send the mail with this key to the recipients in `open` by this host, over `connection` if there is one.
pub(super) async fn attempt(
    relay: Arc<Relay>,
    host: usize,
    journal: Journal,
    key: OutboundKey,
    open: u128,
    mut connection: Option<Connection>,
) -> Attempted {
    let read = tokio::task::spawn_blocking(move || read(&journal, &key)).await;
    let tried = match read.unwrap_or(Err(JournalError::Closed)) {
        Ok(Some(read)) => {
            let read = Arc::new(read);
            let (outcome, contact) = send((&relay, host), &read, open, &mut connection).await;
            Ok(Tried { mail: Arc::unwrap_or_clone(read).0, outcome, contact })
        }
        // The index knows it but the disk does not: somebody removed the file. It may come back.
        Ok(None) => Err("not in the journal".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    Attempted { key, tried, connection }
}

/// A mail, with the one that it passes on if it is a forward.
type Read = (OutboundMail, Option<Original>);

fn read(journal: &Journal, key: &OutboundKey) -> Result<Option<Read>, JournalError> {
    let Some(mail) = journal.read_outbound(key)? else { return Ok(None) };
    let original = if mail.kind == OutboundKind::Forward
        && let Some(id) = mail.answers
    {
        // An original that cannot be read must not keep its forward from a person.
        let read = journal.read_mail(&id).unwrap_or_else(|error| {
            tracing::error!(mail_id = %id, %error, "mail cannot be read, forwarded without it");
            None
        });
        Some(read.map_or(Original::Gone, |mail| Original::Kept(mail.data)))
    } else {
        None
    };
    Ok(Some((mail, original)))
}

/// What is reported of a mail that can never be sent.
pub(super) fn why_invalid(error: &Invalid) -> String {
    one_line(&format!("invalid: {error}"))
}

fn invalid(error: &Invalid, open: u128) -> Outcome {
    Outcome { delivered: 0, refused: open, reply: why_invalid(error) }
}

/// The outcome of an attempt that failed for now.
fn failed(reply: String) -> Outcome {
    Outcome { delivered: 0, refused: 0, reply: one_line(&reply) }
}

async fn send(
    (relay, host): (&Arc<Relay>, usize),
    read: &Arc<Read>,
    open: u128,
    connection: &mut Option<Connection>,
) -> (Outcome, Contact) {
    if let Err(error) = check(&read.0, &relay.params.sender_address) {
        return (invalid(&error, open), Contact::None);
    }
    let lost = |error: SendError| {
        let contact = match error.error {
            _ if error.data_sent => Contact::LostAfterData,
            ClientError::Wants(_) => Contact::Unwilling,
            _ => Contact::Away,
        };
        (failed(error.to_string()), contact)
    };
    let mut carries = true;
    loop {
        let (mut used, is_fresh) = match connection.take() {
            Some(kept) => (kept, false),
            None => match relay.connect(host).await {
                Ok(fresh) => (fresh, true),
                Err(error) => {
                    let is_login = error.is_login_refused();
                    tracing::warn!(smarthost = relay.address(host), %error, "no connection");
                    let contact = if is_login { Contact::LoginRefused } else { Contact::Unreached };
                    return (failed(error.to_string()), contact);
                }
            },
        };
        match talk(&mut used, relay, read, open, &mut carries).await {
            Ok(Some(outcome)) => {
                *connection = Some(used).filter(Connection::is_usable);
                return (outcome, Contact::Worked);
            }
            Ok(None) => {}
            // The server may have taken the mail: an immediate second attempt would send it twice.
            Err(error) if error.data_sent || is_fresh => return lost(error),
            // The server may have closed the idle connection: this does not count as an attempt.
            Err(_) => {}
        }
    }
}

/// Composes the mail for this server, signs and sends it. If a forward is refused for good it is sent again without the mail
/// it passes on: a person must hear of a mail that is too large, or holds what the server does not take. `None` if that needs
/// another connection; `carries` says whether a forward still carries its mail.
async fn talk(
    connection: &mut Connection,
    relay: &Arc<Relay>,
    read: &Arc<Read>,
    open: u128,
    carries: &mut bool,
) -> Result<Option<Outcome>, SendError> {
    let mut accepts = connection.accepts();
    if relay.signer.is_some() {
        accepts.size = accepts.size.map(|size| size.saturating_sub(dkim::FIELD_BYTES));
        // A server behind this one that takes 7 bits only would have to encode anew what is signed (RFC 6376 section 5.3).
        accepts.eight_bit = false;
    }
    loop {
        if !*carries {
            accepts.size = Some(0);
        }
        let (by, of) = (Arc::clone(relay), Arc::clone(read));
        // For a large mail this takes long.
        let prepared = tokio::task::spawn_blocking(move || prepare(&by, &of, open, accepts)).await;
        let prepared = prepared.unwrap_or_else(|error| {
            tracing::error!(%error, "outbox: composing a mail panicked");
            Err(failed("not composed".to_owned()))
        });
        let composed = match prepared {
            Ok(composed) => composed,
            Err(outcome) => return Ok(Some(outcome)),
        };
        let outcome = connection.send(&composed.message, open).await?;
        if composed.attached && outcome.delivered == 0 && outcome.refused != 0 {
            tracing::warn!(
                mail_id = read.0.answers.map(tracing::field::display),
                reply = outcome.reply,
                "forward refused, sent without its mail"
            );
            *carries = false;
            if connection.is_usable() {
                continue;
            }
            return Ok(None);
        }
        return Ok(Some(outcome));
    }
}

/// Composes and signs the mail for a server that accepts this; otherwise the outcome of the attempt.
fn prepare(
    relay: &Relay,
    (mail, original): &Read,
    open: u128,
    accepts: Accepts,
) -> Result<Composed, Outcome> {
    let params = &relay.params;
    let context = ComposeContext {
        sender: &params.sender_address,
        hostname: &params.hostname,
        now: SystemTime::now(),
        accepts,
    };
    let mut composed = compose(mail, original.as_ref(), &context).map_err(|error| invalid(&error, open))?;
    if let Some(signer) = &relay.signer {
        let signed = signer.sign(composed.message.data);
        // Without a signature it would be taken for a forgery.
        composed.message.data = signed.map_err(|error| failed(format!("not signed: {error}")))?;
    }
    Ok(composed)
}

#[cfg(test)]
mod tests;
