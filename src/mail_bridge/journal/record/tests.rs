// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;

fn records() -> impl Strategy<Value = Record> {
    let text = "\\PC{0,9}";
    let id = any::<[u8; 32]>().prop_map(MailId::from_bytes);
    let at = any::<u64>().prop_map(|nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
    let mail =
        (id.clone(), at.clone(), text, any::<IpAddr>(), prop::collection::vec(text, 0..3), any::<Vec<u8>>());
    let outbound = (at, id.clone(), any::<bool>(), text, prop::collection::vec(text, 0..3));
    let key = || any::<([u8; 32], u8)>().prop_map(|(id, kind)| OutboundKey { id, kind });
    prop_oneof![
        mail.prop_map(|(id, received_at, text, peer, rcpt_to, data)| Record::Accepted(AcceptedMail {
            id,
            received_at,
            envelope: Envelope { source: Source::Lmtp, peer, helo: text.clone(), mail_from: text, rcpt_to },
            data,
        })),
        (id.clone(), text).prop_map(|(mail_id, reason)| Record::Settled(Disposition {
            mail_id,
            action: Action::Forwarded,
            reason
        })),
        outbound.prop_map(|(at, answers, forward, text, to)| Record::Queued(
            at,
            OutboundMail {
                answers: (!text.is_empty()).then_some(answers),
                kind: if forward { OutboundKind::Forward } else { OutboundKind::Answer },
                message_id: text.clone(),
                from: text.clone(),
                reply_to: to.clone(),
                urgent: forward,
                to,
                subject: text.clone(),
                in_reply_to: String::new(),
                text,
            }
        )),
        (key(), any::<(u32, u128, u128)>(), text).prop_map(|(key, (attempts, open, failed), reply)| {
            Record::Attempted(Attempt { key, state: SendState::Deferred, attempts, open, failed, reply })
        }),
        (prop::collection::vec(id, 0..3), prop::collection::vec(key(), 0..3))
            .prop_map(|(mails, keys)| Record::Remembered(mails, keys)),
    ]
}

proptest! {
    #[test]
    fn a_record_reads_back(record in records()) {
        prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in any::<Vec<u8>>(), tag in 1u8..6) {
        let _ = Record::decode(&bytes);
        let _ = Record::decode(&[&[tag][..], &bytes].concat());
    }
}
