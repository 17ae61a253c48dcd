// SPDX-License-Identifier: Apache-2.0
use std::time::Duration;

use super::{
    super::{
        Finding, Kind,
        entry::tests::{order, source},
        tests::{entries, finding, now},
    },
    *,
};

fn entry(number: u64) -> Entry {
    finding(number).entry(&source())
}

fn identity(number: u64) -> Identity {
    entry(number).identity()
}

#[test]
fn records_have_the_length_that_finds_them() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = EvidenceLog::open(dir.path()).unwrap();
    assert_eq!(anchor(&log, 0, 0).encode().len() as u64, ANCHOR_BYTES);
}

fn anchor(log: &EvidenceLog, first: u64, count: u32) -> Anchor {
    crate::tests::anchor(first, count, Tree::new(log.leaves(first, count).unwrap()).root())
}

#[test]
fn a_mail_keeps_its_place_however_often_it_comes_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, torn) = EvidenceLog::open(dir.path()).unwrap();
    assert_eq!(torn, 0);
    let places = |evidence: Vec<Evidence>| evidence.iter().map(|evidence| evidence.index).collect::<Vec<_>>();
    assert_eq!(places(log.append(&[entry(1), entry(2), entry(1)], now()).unwrap()), [0, 1, 0]);
    let size = log.evidence_log.log.len_bytes();
    // What is found out later, or under another name, does not replace what was found out first.
    let other = Finding { verdict: [9; 7], ..finding(2) }.entry(&"/other".parse().unwrap());
    let first = Evidence { index: 1, recorded_at: now(), entry: entry(2) };
    assert_eq!(log.append(&[other], now() + Duration::from_secs(1)).unwrap(), [first]);
    assert_eq!(log.evidence_log.log.len_bytes(), size);
    drop(log);
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    assert_eq!(places(log.append(&[entry(3), entry(2)], now()).unwrap()), [2, 1]);
    assert_eq!(log.evidenced(), 3);
}

#[test]
fn entries_of_other_nodes_are_recorded_once_and_keep_nobody_elses_out() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    let places = |evidence: Vec<Evidence>| evidence.iter().map(|evidence| evidence.index).collect::<Vec<_>>();
    // The same subject as the mail's, and as each other's.
    let subject = *finding(1).mail_id.as_bytes();
    let of = |source: &str, digest| {
        Entry::new(Kind::ORDER, source.parse().unwrap(), subject, [digest; 32]).unwrap()
    };
    let all = [of("/thief", 1), entry(1), of("/chatbot", 1), of("/chatbot", 2), of("/thief", 1)];
    assert_eq!(places(log.append(&all, now()).unwrap()), [0, 1, 2, 3, 0]);
    drop(log);
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    assert_eq!(places(log.append(&all, now()).unwrap()), [0, 1, 2, 3, 0]);
    log.append_anchors(vec![anchor(&log, 0, 4)]).unwrap();
    for (index, entry) in all.iter().enumerate().take(4) {
        let receipt = log.receipt(&entry.identity()).unwrap().unwrap();
        assert_eq!((receipt.evidence.index, &receipt.evidence.entry), (index as u64, entry));
        assert_eq!(receipt.verify_offline(), Ok(()));
    }
    assert_eq!(log.receipt(&order(9).identity()).unwrap(), None);
}

#[test]
fn every_leaf_of_an_anchored_batch_has_a_receipt_that_verifies_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    log.append(&entries(0..7), now()).unwrap();
    let receipts = log.append_anchors(vec![anchor(&log, 0, 5), anchor(&log, 5, 1)]).unwrap();
    assert!(receipts.iter().map(|receipt| receipt.evidence.index).eq(0..6));
    drop(log);
    let (log, _) = EvidenceLog::open(dir.path()).unwrap();
    assert_eq!((log.anchored(), log.evidenced()), (6, 7));
    for (number, appended) in receipts.into_iter().enumerate() {
        let receipt = log.receipt(&identity(number as u64)).unwrap().unwrap();
        assert_eq!(receipt.verify_offline(), Ok(()));
        assert_eq!(receipt, appended);
    }
    assert_eq!(log.receipt(&identity(6)).unwrap(), None);
}

#[test]
fn damage_in_either_log_is_an_error_and_cuts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    log.append(&[entry(1), entry(2)], now()).unwrap();
    log.append_anchors(vec![anchor(&log, 0, 2)]).unwrap();
    drop(log);
    for name in ["evidence.log", "anchors.log"] {
        let path = dir.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        for at in [60, whole.len() - 30] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let error = EvidenceLog::open(dir.path()).unwrap_err();
            assert!(error.to_string().contains("damaged at byte"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        std::fs::write(&path, whole).unwrap();
    }
    EvidenceLog::open(dir.path()).unwrap();
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn check(log: &mut EvidenceLog, count: u64) {
    assert_eq!(log.evidenced(), count);
    for number in 0..count {
        assert_eq!(log.index_of(&identity(number)).unwrap(), Some(number));
    }
    assert_eq!(log.index_of(&identity(count)).unwrap(), None);
}

#[test]
fn an_index_that_is_missing_old_or_of_another_log_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    log.append(&entries(0..100), now()).unwrap();
    drop(log);
    let index = dir.path().join("evidence.index");
    let old = std::fs::read(&index).unwrap();
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    log.append(&entries(100..5000), now()).unwrap();
    // The files as `kill -9` leaves them.
    let killed = tempfile::tempdir().unwrap();
    copy(dir.path(), killed.path());
    check(&mut EvidenceLog::open(killed.path()).unwrap().0, 5000);
    drop(log);
    // The files as a power loss may leave them: the log is synced, the index is not.
    std::fs::write(&index, &old).unwrap();
    check(&mut EvidenceLog::open(dir.path()).unwrap().0, 5000);
    std::fs::remove_file(&index).unwrap();
    check(&mut EvidenceLog::open(dir.path()).unwrap().0, 5000);
    let other = tempfile::tempdir().unwrap();
    let (mut log, _) = EvidenceLog::open(other.path()).unwrap();
    log.append(&[entry(7), entry(8)], now()).unwrap();
    drop(log);
    std::fs::copy(other.path().join("evidence.index"), &index).unwrap();
    check(&mut EvidenceLog::open(dir.path()).unwrap().0, 5000);
}

#[test]
fn an_index_that_lost_its_slots_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    log.append(&entries(0..500), now()).unwrap();
    drop(log);
    let index = dir.path().join("evidence.index");
    let mut bytes = std::fs::read(&index).unwrap();
    bytes[4096..].fill(0);
    std::fs::write(&index, bytes).unwrap();
    check(&mut EvidenceLog::open(dir.path()).unwrap().0, 500);
}

#[test]
fn a_log_shorter_than_its_index_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    log.append(&[entry(1), entry(2), entry(3)], now()).unwrap();
    drop(log);
    let path = dir.path().join("evidence.log");
    let bytes = std::fs::read(&path).unwrap();
    // Cut at the end of a record, which the log alone would not notice.
    std::fs::write(&path, &bytes[..32 + 286]).unwrap();
    let error = EvidenceLog::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("damaged at byte 318,"), "{error}");
}

#[test]
fn a_place_that_a_crash_gave_to_another_mail_is_not_taken_for_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    log.append(&[entry(1)], now()).unwrap();
    // The index slot reached the disk, but the evidence did not.
    log.index.insert(&identity(2), 1).unwrap();
    assert_eq!(log.index_of(&identity(2)).unwrap(), None);
    let places: Vec<_> =
        log.append(&[entry(3), entry(2)], now()).unwrap().iter().map(|evidence| evidence.index).collect();
    assert_eq!(places, [1, 2]);
    assert_eq!(log.index_of(&identity(2)).unwrap(), Some(2));
    assert_eq!(log.index_of(&identity(3)).unwrap(), Some(1));
}

#[test]
fn many_anchors_are_found_by_halving() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    log.append(&entries(0..3000), now()).unwrap();
    let mut first = 0;
    while log.anchored() < 2900 {
        let count = 1 + (first % 3) as u32;
        log.append_anchors(vec![anchor(&log, first, count)]).unwrap();
        first = log.anchored();
    }
    drop(log);
    let (log, _) = EvidenceLog::open(dir.path()).unwrap();
    assert!(log.anchor_log.count() > NEWEST_ANCHORS);
    for number in (0..log.anchored()).step_by(37) {
        let receipt = log.receipt(&identity(number)).unwrap().unwrap();
        assert_eq!((receipt.verify_offline(), receipt.evidence.index), (Ok(()), number));
    }
}

#[test]
fn refuses_anchors_out_of_order_and_of_another_root() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    log.append(&[entry(1), entry(2)], now()).unwrap();
    for (first, count) in [(1, 1), (0, 3), (0, 0)] {
        let error = log.append_anchors(vec![anchor(&log, first, count)]).unwrap_err();
        assert!(matches!(error, EvidenceError::OutOfOrder { .. }));
    }
    let other = Anchor { root: [0; 32], ..anchor(&log, 0, 2) };
    assert!(matches!(log.append_anchors(vec![other]).unwrap_err(), EvidenceError::Root { first: 0, end: 2 }));
    // One wrong anchor, and none is stored.
    let gap = [anchor(&log, 0, 1), anchor(&log, 0, 1)];
    assert!(matches!(
        log.append_anchors(gap.to_vec()).unwrap_err(),
        EvidenceError::OutOfOrder { first: 0, .. }
    ));
    assert_eq!(log.anchored(), 0);
    log.append_anchors(vec![anchor(&log, 0, 2)]).unwrap();
}

/// A reorganisation takes anchors back; their leaves are anchored again, in other batches or in another block.
#[test]
fn anchors_that_are_taken_back_are_superseded_by_those_that_follow() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    log.append(&entries(0..6), now()).unwrap();
    log.append_anchors(vec![anchor(&log, 0, 2), anchor(&log, 2, 2), anchor(&log, 4, 2)]).unwrap();
    assert_eq!(log.supersede(1).unwrap(), 2);
    assert_eq!((log.anchored(), log.anchors()), (2, 1));
    assert_eq!(log.receipt(&identity(2)).unwrap(), None, "a receipt that is not true is not given");
    assert_eq!(log.receipt(&identity(1)).unwrap().unwrap().anchor.revision, 0);

    // The first comes back as it was, the second in other batches.
    log.append_anchors(vec![anchor(&log, 2, 2)]).unwrap();
    drop(log);
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    let moved = Anchor { block_hash: [8; 32], ..anchor(&log, 4, 1) };
    let receipts = log.append_anchors(vec![moved, anchor(&log, 5, 1)]).unwrap();
    assert!(receipts.iter().all(|receipt| receipt.anchor.revision == 1));
    let revision =
        |log: &EvidenceLog, number| log.receipt(&identity(number)).unwrap().unwrap().anchor.revision;
    assert_eq!([2, 3, 4, 5].map(|number| revision(&log, number)), [0, 0, 1, 1]);

    // All of them, once more.
    assert_eq!(log.supersede(0).unwrap(), 4);
    assert_eq!((log.anchored(), log.supersede(0).unwrap()), (0, 0));
    log.append_anchors(vec![Anchor { block_hash: [9; 32], ..anchor(&log, 0, 6) }]).unwrap();
    assert_eq!([0, 3, 5].map(|number| revision(&log, number)), [2, 2, 2], "one more than the highest");
}
