// SPDX-License-Identifier: Apache-2.0
//! What the authenticator found out about one mail: the facts of a [`Kind::MAIL_VERDICT`]. Pure.

use std::time::SystemTime;

use mail::MailId;

use super::{Entry, Kind, Source, digest_of};
use crate::{merkle::Hash, put_time, take, take_time};

/// What the authenticator found out about one mail, as far as it is kept as evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Id of the mail.
    pub mail_id: MailId,
    /// When the mail was journaled. Times before 1970 count as 1970.
    pub received_at: SystemTime,
    /// Keyed digest of the From address.
    pub sender_digest: Hash,
    /// The codes of authenticated, spf, dkim, dmarc, registry, role and arc, numbered as in `Verdict.msg`.
    pub verdict: [u8; 7],
}

impl Finding {
    /// The finding as an entry of the ledger, which `source` states.
    pub fn entry(&self, source: &Source) -> Entry {
        let facts = self.facts();
        let (kind, subject, digest) = (Kind::MAIL_VERDICT, *self.mail_id.as_bytes(), digest_of(&facts));
        Entry { kind, source: source.clone(), subject, digest, facts }
    }

    /// Returns the finding of an entry; `None` if the entry is of another kind.
    pub fn of(entry: &Entry) -> Option<Self> {
        let mut rest = (*entry.kind() == Kind::MAIL_VERDICT).then_some(entry.facts())?;
        let finding = Self {
            mail_id: MailId::from_bytes(*entry.subject()),
            received_at: take_time(&mut rest)?,
            sender_digest: take(&mut rest)?,
            verdict: take(&mut rest)?,
        };
        rest.is_empty().then_some(finding)
    }

    /// Returns the facts, 51 bytes with big-endian integers:
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 8 + 4 | when the mail was journaled: seconds since 1970 (UTC, no leap seconds), nanoseconds |
    /// | 32 | sender digest |
    /// | 7 | authenticated (0 or 1), then spf, dkim, dmarc, registry, role and arc as `Verdict.msg` numbers them |
    fn facts(&self) -> Vec<u8> {
        [&put_time(self.received_at)[..], &self.sender_digest, &self.verdict].concat()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::super::tests::{order, source};
    use super::*;

    proptest! {
        #[test]
        fn a_finding_reads_back_from_its_entry(
            id: [u8; 32], seconds in 0..u64::from(u32::MAX), nanos in 0..1_000_000_000_u32, sender_digest: [u8; 32],
            verdict: [u8; 7],
        ) {
            let received_at = UNIX_EPOCH + Duration::new(seconds, nanos);
            let finding = Finding { mail_id: MailId::from_bytes(id), received_at, sender_digest, verdict };
            prop_assert_eq!(Finding::of(&finding.entry(&source())), Some(finding));
        }

        #[test]
        fn facts_of_another_form_are_no_finding(facts in prop::collection::vec(any::<u8>(), 1..63)) {
            let digest = digest_of(&facts);
            let entry = Entry::with_facts(Kind::MAIL_VERDICT, source(), [1; 32], digest, facts.clone());
            if let Ok(entry) = entry {
                prop_assert_eq!(Finding::of(&entry).unwrap().facts(), facts);
            }
        }
    }

    #[test]
    fn another_kind_is_no_finding() {
        assert_eq!(Finding::of(&order(1)), None);
    }
}
