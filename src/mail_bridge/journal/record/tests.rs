// SPDX-License-Identifier: Apache-2.0
use std::{net::IpAddr, time::Duration};

use mail::{Action, Envelope, ImapMessage, Origin};
use proptest::prelude::*;

use super::*;

fn origins() -> impl Strategy<Value = Origin> {
    let text = "\\PC{0,9}";
    let envelope = (any::<IpAddr>(), text, prop::collection::vec(text, 0..3));
    (envelope, 0..3, any::<[u32; 2]>()).prop_map(|((peer, text, rcpt_to), protocol, [uid_validity, uid])| {
        let envelope = Envelope { peer, helo: text.clone(), mail_from: text.clone(), rcpt_to };
        match protocol {
            0 => Origin::Smtp(envelope),
            1 => Origin::Lmtp(envelope),
            _ => Origin::Imap(ImapMessage { account: text.clone(), folder: text, uid_validity, uid }),
        }
    })
}

fn records() -> impl Strategy<Value = Record> {
    let text = "\\PC{0,9}";
    let id = any::<[u8; 32]>().prop_map(MailId::from_bytes);
    let at = any::<u64>().prop_map(|nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
    let mail = (id.clone(), at.clone(), origins(), prop::collection::vec(text, 0..3), any::<Vec<u8>>());
    let outbound = (at, id.clone(), any::<bool>(), text, prop::collection::vec(text, 0..3));
    let key = || any::<([u8; 32], u8)>().prop_map(|(id, kind)| OutboundKey { id, kind });
    prop_oneof![
        mail.prop_map(|(id, received_at, origin, consumers, data)| Record::Accepted(AcceptedMail {
            id,
            received_at,
            origin,
            consumers,
            data,
        })),
        (id.clone(), text).prop_map(|(mail_id, reason)| Record::Disposed(Disposition {
            mail_id,
            consumer: reason.clone(),
            action: Action::Forwarded,
            reason
        })),
        id.clone().prop_map(Record::Settled),
        outbound.prop_map(|(at, answers, forward, text, to)| Record::Queued(QueuedMail {
            at,
            mail: OutboundMail {
                answers: (!text.is_empty()).then_some(answers),
                kind: if forward { OutboundKind::Forward } else { OutboundKind::Answer },
                message_id: text.clone(),
                from: text.clone(),
                reply_to: to.clone(),
                urgent: forward,
                to,
                subject: text.clone(),
                in_reply_to: String::new(),
                authentication_results: text.clone(),
                text,
            }
        })),
        (key(), any::<(u32, u128, u128)>(), text).prop_map(|(key, (attempts, open, failed), reply)| {
            Record::Attempted(Attempt { key, state: SendState::Deferred, attempts, open, failed, reply })
        }),
        (prop::collection::vec(id, 0..3), prop::collection::vec(key(), 0..3))
            .prop_map(|(mails, keys)| Record::Remembered(Remembered { mails, keys })),
    ]
}

proptest! {
    #[test]
    fn a_record_reads_back(record in records()) {
        prop_assert_eq!(Record::decode(&record.encode().unwrap()), Ok(record));
    }

    #[test]
    fn a_record_that_was_cut_or_has_bytes_behind_it_is_an_error(record in records(), cut in any::<prop::sample::Index>()) {
        let bytes = record.encode().unwrap();
        prop_assert!(Record::decode(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(Record::decode(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in any::<Vec<u8>>(), kind in 1u8..7) {
        let _ = Record::decode(&bytes);
        let _ = Record::decode(&[&[VERSION, kind][..], &bytes].concat());
    }
}

/// The bytes that are on the disks of users. What changes here makes their journals unreadable, unless it is a field
/// with a default; see the documentation of the module.
#[test]
fn the_bytes_stay_what_they_were() {
    let disposition = Disposition {
        mail_id: MailId::from_bytes([7; 32]),
        consumer: "archive".into(),
        action: Action::Kept,
        reason: "r".into(),
    };
    let id = [&[0x58, 32][..], &[7; 32]].concat();
    let fields = [&[VERSION, 2, 0xa4, 1][..], &id, b"\x02\x67archive\x03\x06\x04\x61r"].concat();
    assert_eq!(Record::Disposed(disposition).encode().unwrap(), fields);
    assert_eq!(
        Record::Settled(MailId::from_bytes([7; 32])).encode().unwrap(),
        [&[VERSION, 3][..], &id].concat()
    );
}

#[test]
fn a_field_of_a_later_posthorn_is_read_over_and_a_later_version_is_not() {
    let id = [&[0x58, 32][..], &[7; 32]].concat();
    let more = [&[VERSION, 2, 0xa5, 1][..], &id, b"\x02\x67archive\x03\x06\x04\x61r\x18\x63\x01"].concat();
    assert!(matches!(Record::decode(&more), Ok(Record::Disposed(_))), "{:?}", Record::decode(&more));
    let later = [&[VERSION + 1][..], &more[1..]].concat();
    assert_eq!(
        Record::decode(&later).unwrap_err().to_string(),
        "a record of version 3, must be 2: written by another version of posthorn"
    );
}
