// SPDX-License-Identifier: Apache-2.0
//! Takes outbound mails from the graph: gives those without one a Message-ID, checks and journals them, and reports
//! those it refuses.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use mail::{Delivery, DeliveryState, EmailAddress, MailId, OutboundMail};
use sha2::{Digest, Sha256};

use super::Handle;
use crate::{
    journal::{JournalError, OutboundKey, Queued},
    outbox::{check, message_id},
    params::Params,
};

/// What happened to a submitted outbound mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is on disk and will be sent.
    New,
    /// The same mail was submitted before; its state is reported again.
    Repeated,
    /// It was not taken; the reason is reported as [`DeliveryState::Refused`].
    Refused,
}

/// Sender identity of outbound mails.
#[derive(Debug)]
pub(super) struct SenderIdentity {
    sender: EmailAddress,
    hostname: String,
    /// Counter that keeps generated Message-IDs unique.
    made: AtomicU64,
}

impl SenderIdentity {
    pub(super) fn new(params: &Params) -> Self {
        Self {
            sender: params.sender_address.clone(),
            hostname: params.hostname.clone(),
            made: AtomicU64::new(0),
        }
    }

    /// Message-ID for a mail without one: always the same for a mail that answers one, otherwise a new one each time.
    fn message_id(&self, mail: &OutboundMail, now: SystemTime) -> String {
        if mail.answers.is_some() {
            return message_id(mail, &self.hostname);
        }
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let digest = Sha256::new()
            .chain_update(since.as_nanos().to_le_bytes())
            .chain_update(made.to_le_bytes())
            .chain_update(mail.to.join(","))
            .chain_update(&mail.subject)
            .chain_update(&mail.text);
        let id = MailId::from_bytes(digest.finalize().into()).to_string();
        format!("{}@{}", id.get(..32).unwrap_or_default(), self.hostname)
    }
}

impl Handle {
    /// Submits an outbound mail. When this returns `Ok`, the mail is on disk, was on disk already, or is refused.
    ///
    /// A malformed mail that answers one is taken even so, and fails at once: otherwise the mail that it answers
    /// would never be settled and would be published for ever.
    ///
    /// # Errors
    /// If the journal has failed or the bridge has ended: submit it again.
    pub async fn outbound(&self, mut mail: OutboundMail) -> Result<Submitted, JournalError> {
        let now = SystemTime::now();
        if mail.message_id.is_empty() {
            mail.message_id = self.identity.message_id(&mail, now);
        }
        if mail.answers.is_none()
            && let Err(error) = check(&mail, &self.identity.sender)
        {
            return Ok(self.refuse(&mail, format!("malformed: {error}")).await);
        }
        match self.journal.queue(now, mail.clone()).await? {
            Queued::New => Ok(Submitted::New),
            Queued::Known => Ok(self.repeated(mail).await),
        }
    }

    async fn repeated(&self, mail: OutboundMail) -> Submitted {
        let key = OutboundKey::of(&mail);
        let journal = self.journal.clone();
        let read = move || {
            // In this order: as long as the mail is on disk, so is its attempt.
            let last = journal.read_attempt(&key)?;
            Ok(journal.read_outbound(&key)?.map(|first| (first, last)))
        };
        match tokio::task::spawn_blocking(read).await.unwrap_or(Err(JournalError::Closed)) {
            Ok(Some((first, last)))
                if (OutboundMail { message_id: mail.message_id.clone(), ..first.clone() }) == mail =>
            {
                tracing::debug!(mail_id = ?mail.answers, kind = ?mail.kind, "outbound mail submitted again");
                let delivery = match last {
                    None => Delivery::of(&first, DeliveryState::Queued, 0, String::new()),
                    Some(last) => Delivery::of(&first, last.state.into(), last.attempts, last.reply),
                };
                let _ = self.deliver.send(delivery).await;
                Submitted::Repeated
            }
            Ok(Some(_)) => {
                let reason = "a mail of this identity (answers and kind, or message_id) with other content was taken before";
                self.refuse(&mail, reason.to_owned()).await
            }
            Ok(None) => {
                let reason = "a mail of this identity (answers and kind, or message_id) was taken before; its content is no longer kept";
                self.refuse(&mail, reason.to_owned()).await
            }
            Err(error) => {
                self.refuse(&mail, format!("a mail of this identity was taken before: {error}")).await
            }
        }
    }

    async fn refuse(&self, mail: &OutboundMail, reason: String) -> Submitted {
        tracing::warn!(mail_id = ?mail.answers, kind = ?mail.kind, reason, "outbound mail refused");
        // If nobody reads deliveries, the log still says it.
        let _ = self.deliver.send(Delivery::of(mail, DeliveryState::Refused, 0, reason)).await;
        Submitted::Refused
    }
}
