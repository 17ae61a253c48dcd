// SPDX-License-Identifier: Apache-2.0
use mail::MailId;
use proptest::prelude::*;

use super::{
    entry::tests::{order, source},
    *,
};

pub(crate) fn finding(number: u64) -> Finding {
    Finding {
        mail_id: MailId::of(&number.to_be_bytes()),
        received_at: UNIX_EPOCH + Duration::new(1_790_000_000 + number, 5),
        sender_digest: [9; 32],
        verdict: [1, 2, 2, 2, 2, 2, 0],
    }
}

/// The entries of so many mails.
pub(crate) fn entries(numbers: std::ops::Range<u64>) -> Vec<Entry> {
    numbers.map(|number| finding(number).entry(&source())).collect()
}

/// When the evidence of the tests is recorded.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_790_000_100, 7)
}

fn evidence(index: u64) -> Evidence {
    Evidence { index, recorded_at: now(), entry: finding(index).entry(&source()) }
}

/// The anchor of so many leaves from `first` on, in some block.
pub(crate) fn anchor(first: u64, count: u32, root: Hash) -> Anchor {
    Anchor {
        first,
        count,
        revision: 0,
        root,
        chain_id: 1,
        contract: [1; 20],
        transaction: [2; 32],
        block_number: 3,
        block_hash: [4; 32],
        anchored_at: UNIX_EPOCH,
    }
}

fn receipt() -> Receipt {
    let batch: Vec<_> = (10..15).map(evidence).collect();
    let tree = merkle::Tree::new(batch.iter().map(Evidence::leaf).collect());
    let (evidence, anchor) = (batch[2].clone(), anchor(10, 5, tree.root()));
    Receipt { leaf: evidence.leaf(), evidence, anchor, inclusion_proof: tree.proof(2).unwrap() }
}

#[test]
fn the_leaf_stays_what_it_was() {
    assert_eq!(evidence(1).encode().len(), 202);
    assert_eq!(evidence(1).to_record().len() as u64, EVIDENCE_BYTES);
    // Computed with Python's struct and hashlib. Published receipts depend on it: any change needs a new version in
    // the prefix.
    let leaf = |evidence: &Evidence| MailId::from_bytes(evidence.leaf()).to_string();
    assert_eq!(leaf(&evidence(1)), "bc313f3f6474c5f8b38b9dc81f012a7b1c3d9ad3025754628605faeef775fe1f");
    let order = Evidence { index: 2, recorded_at: now(), entry: order(1) };
    assert_eq!(leaf(&order), "ff2694b3dc4dc4c3028578fc95b5e049e189cacb3e231a34586a5f3131d4abce");
}

#[test]
fn a_receipt_proves_its_evidence_and_nothing_else() {
    assert_eq!(receipt().verify_offline(), Ok(()));
    let tampered = |change: fn(&mut Receipt)| {
        let mut receipt = receipt();
        change(&mut receipt);
        receipt.verify_offline()
    };
    let leaf = |index| Err(ReceiptError::Leaf { index });
    let proof = |index| Err(ReceiptError::Proof { index, first: 10, last: 14 });
    let other = |kind: &str, source: &str, subject, digest| {
        let entry = Entry::new(kind.parse().unwrap(), source.parse().unwrap(), subject, digest).unwrap();
        // Every part of an entry is in the leaf, also of one whose facts are elsewhere.
        let evidence = Evidence { entry, ..evidence(12) };
        evidence.leaf()
    };
    let one = other("order", "/a", [1; 32], [1; 32]);
    assert_ne!(other("orders", "/a", [1; 32], [1; 32]), one);
    assert_ne!(other("order", "/b", [1; 32], [1; 32]), one);
    assert_ne!(other("order", "/a", [2; 32], [1; 32]), one);
    assert_ne!(other("order", "/a", [1; 32], [2; 32]), one);
    assert_eq!(
        tampered(|receipt| {
            receipt.evidence.entry = Finding { verdict: [0; 7], ..finding(12) }.entry(&source());
        }),
        leaf(12)
    );
    assert_eq!(tampered(|receipt| receipt.evidence.recorded_at += Duration::from_nanos(1)), leaf(12));
    assert_eq!(tampered(|receipt| receipt.evidence.index = 13), leaf(13));
    assert_eq!(
        tampered(|receipt| {
            receipt.evidence.index = 9;
            receipt.leaf = receipt.evidence.leaf();
        }),
        proof(9)
    );
    assert_eq!(tampered(|receipt| receipt.anchor.root[0] ^= 1), proof(12));
    assert_eq!(tampered(|receipt| receipt.inclusion_proof.truncate(1)), proof(12));
}

proptest! {
    #[test]
    fn reads_back_what_it_wrote(
        index: u64, seconds in 0..u64::from(u32::MAX), nanos in 0..1_000_000_000_u32, kind in "[a-z][a-z0-9_.]{0,31}",
        source in "(/[A-Za-z_][A-Za-z0-9_]{0,14}){1,4}", subject: [u8; 32], digest: [u8; 32],
        facts in prop::collection::vec(any::<u8>(), 0..=MAX_FACTS_BYTES),
    ) {
        let recorded_at = UNIX_EPOCH + Duration::new(seconds, nanos);
        let digest = if facts.is_empty() { digest } else { digest_of(&facts) };
        let entry = Entry::with_facts(kind.parse().unwrap(), source.parse().unwrap(), subject, digest, facts).unwrap();
        let evidence = Evidence { index, recorded_at, entry };
        prop_assert_eq!(Evidence::from_record(&evidence.to_record()), Some(evidence));
    }

    /// A byte of a record is changed, or some are cut or added: what can still be read is another record.
    #[test]
    fn takes_only_the_canonical_encoding(
        index: u64, is_order: bool, at in any::<prop::sample::Index>(), byte: u8, length in 0..2 * EVIDENCE_BYTES as usize,
    ) {
        let entry = if is_order { order(1) } else { finding(1).entry(&source()) };
        let mut bytes = Evidence { index, recorded_at: now(), entry }.to_record();
        bytes[at.index(EVIDENCE_BYTES as usize)] = byte;
        if let Some(evidence) = Evidence::from_record(&bytes) {
            prop_assert_eq!(&evidence.to_record(), &bytes);
        }
        bytes.resize(length, 0);
        prop_assert!(length == EVIDENCE_BYTES as usize || Evidence::from_record(&bytes).is_none());
    }

    #[test]
    fn hostile_bytes_are_only_no_record(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let bytes = [&EVIDENCE_DOMAIN[..], &bytes].concat();
        if let Some(evidence) = Evidence::from_record(&bytes) {
            prop_assert_eq!(evidence.to_record(), bytes);
        }
    }
}

#[test]
fn an_anchor_reads_back() {
    let anchor = receipt().anchor;
    assert_eq!(Anchor::decode(&anchor.encode()), Some(anchor));
    assert_eq!(Anchor::decode(&[0; 10]), None);
}
