// SPDX-License-Identifier: Apache-2.0
use mail::MailId;

use super::*;

fn id(number: u64) -> Identity {
    Identity::of_mail(&MailId::of(&number.to_le_bytes()))
}

fn find(index: &EntryIndex, number: u64) -> Option<u64> {
    index.find::<io::Error>(&id(number), |at| Ok(at == number)).unwrap()
}

#[test]
fn finds_everything_after_doublings_and_a_restart_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut index = EntryIndex::open(&path, 7, 0).unwrap();
    for number in 0..20_000 {
        index.insert(&id(number), number).unwrap();
    }
    assert_eq!(index.bits, FIRST_BITS + 3);
    let all = |index: &EntryIndex| {
        (0..20_000).for_each(|number| assert_eq!(find(index, number), Some(number)));
        (20_000..21_000).for_each(|number| assert_eq!(find(index, number), None));
    };
    all(&index);
    index.checkpoint().unwrap();
    drop(index);
    let index = EntryIndex::open(&path, 7, 0).unwrap();
    assert_eq!((index.covered(), index.entries), (20_000, 20_000));
    all(&index);
}

#[test]
fn doubling_keeps_what_came_around_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = EntryIndex::open(&dir.path().join("index"), 7, 0).unwrap();
    // All have their home in the last slots, so that most wrap around to the beginning; others are in the middle.
    let hashes = (0..500_u64).map(|number| u64::MAX - number * 3);
    let middle = (0..500_u64).map(|number| (1 << 63) + number);
    let entries: Vec<_> = hashes.chain(middle).zip(0..).map(|(hash, index)| Entry { hash, index }).collect();
    entries.iter().for_each(|entry| index.put(*entry).unwrap());
    for _ in 0..3 {
        index.double().unwrap();
        for entry in &entries {
            let found = index.probe::<io::Error>(entry.hash, |at| Ok(at == entry.index)).unwrap();
            assert!(matches!(found, Found::Entry(_)), "{entry:?}");
        }
    }
}

#[test]
fn a_table_of_another_log_or_with_a_damaged_header_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let made = || {
        let mut index = EntryIndex::create(&path, 7, FIRST_BITS).unwrap();
        index.insert(&id(1), 1).unwrap();
        index.checkpoint().unwrap();
    };
    made();
    assert_eq!(EntryIndex::open(&path, 8, 0).unwrap().covered(), 0);
    for at in 0..52 {
        made();
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(EntryIndex::open(&path, 7, 0).unwrap().covered(), 0, "byte {at}");
    }
    made();
    assert_eq!(EntryIndex::open(&path, 7, 0).unwrap().covered(), 2);
}

#[test]
fn a_damaged_slot_is_an_error_and_the_table_made_anew_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut index = EntryIndex::open(&path, 7, 0).unwrap();
    index.insert(&id(1), 1).unwrap();
    index.checkpoint().unwrap();
    let slot = at(index.home(index.hash(&id(1))));
    for byte in 0..16 {
        let mut bytes = [0; 1];
        index.file.read_exact_at(&mut bytes, slot + byte).unwrap();
        index.file.write_all_at(&[bytes[0] ^ 1], slot + byte).unwrap();
        let error = index.find::<io::Error>(&id(1), |_| Ok(true)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        index.file.write_all_at(&bytes, slot + byte).unwrap();
    }
    assert_eq!(EntryIndex::open(&path, 7, 0).unwrap().covered(), 0);
}
