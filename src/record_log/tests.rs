// SPDX-License-Identifier: Apache-2.0
use std::{fs, os::unix::fs::PermissionsExt};

use proptest::prelude::*;

use super::*;

const HEADER: usize = 32;
const HEAD: usize = 20;

fn open(path: &Path) -> (RecordLog, Recovered) {
    RecordLog::open(path, 1000).unwrap()
}

fn written(path: &Path, records: &[&[u8]]) {
    let (mut log, _) = open(path);
    for record in records {
        log.append(record).unwrap();
    }
    log.sync().unwrap();
}

#[test]
fn recovers_what_was_synced_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    written(&path, &[b"one", b"", b"three"]);
    written(&path, &[b"four"]);
    let (_log, recovered) = open(&path);
    assert_eq!(recovered.records, [&b"one"[..], b"", b"three", b"four"]);
    assert_eq!(recovered.torn_bytes, 0);
}

#[test]
fn cut_anywhere_keeps_every_whole_record_and_reports_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    written(&path, &[b"one", b"twotwo"]);
    let whole = fs::read(&path).unwrap();
    let ends = [HEADER, HEADER + HEAD + 3, HEADER + 2 * HEAD + 9];
    assert_eq!(whole.len(), ends[2] + HEAD, "and the marker");
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let (log, recovered) = open(&path);
        let expected = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
        assert_eq!(recovered.records.len(), expected, "cut at {cut}");
        let valid = if cut < HEADER { 0 } else { ends[expected] };
        assert_eq!(recovered.torn_bytes, (cut - valid) as u64, "cut at {cut}");
        if cut > HEADER && recovered.torn_bytes > 0 {
            assert_eq!(fs::read(dir.path().join("log.torn")).unwrap(), whole[valid..cut]);
        }
        drop(log);
        written(&path, &[b"next"]);
        assert_eq!(open(&path).1.records.len(), expected + 1);
    }
}

#[test]
fn a_sealed_log_is_refused_as_it_is_when_it_is_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    written(&path, &[b"one", b"two"]);
    open(&path).0.seal().unwrap();
    let whole = fs::read(&path).unwrap();
    let sealed = || {
        let mut records = 0;
        RecordLog::open_sealed(&path, 1000, &mut |_, _| records += 1).map(|_| records)
    };
    assert_eq!(sealed().unwrap(), 2);
    let mut flipped = whole.clone();
    flipped[HEADER + HEAD] ^= 1;
    let second = HEADER + HEAD + 3;
    let end = second + HEAD + 3;
    for (bytes, at) in [
        (&flipped[..], HEADER),
        (&whole[..whole.len() - 1], end),
        // Cut at the end of a record: only the seal shows it.
        (&whole[..end], end),
        (&whole[..second], second),
        (&whole[..7], HEADER),
        (&[], HEADER),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = sealed().unwrap_err();
        assert!(
            error.to_string().contains(&format!("{}': damaged at byte {at},", path.display())),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn what_is_made_is_its_owners_only_and_what_exists_is_left() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let made = dir.path().join("state/journal");
    create_directory(&made).unwrap();
    create_directory(&made).unwrap();
    assert_eq!(mode(dir.path()), 0o755);
    assert_eq!((mode(made.parent().unwrap()), mode(&made)), (0o700, 0o700));
    let path = made.join("log");
    written(&path, &[b"one"]);
    fs::write(&path, [&fs::read(&path).unwrap()[..], b"torn"].concat()).unwrap();
    assert_eq!(open(&path).1.torn_bytes, 4);
    assert_eq!((mode(&path), mode(&made.join("log.torn"))), (0o600, 0o600));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    written(&path, &[b"two"]);
    assert_eq!(mode(&path), 0o640);
}

#[test]
fn a_directory_in_which_others_may_replace_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o775, 0o757, 0o1777] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        let error = create_directory(dir.path()).unwrap_err().to_string();
        assert_eq!(error, format!("it has mode {mode:o}: must be writable by its owner only (chmod go-w)"));
        // What is made below it is its owner's.
        create_directory(&dir.path().join(format!("{mode}"))).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_what_was_synced_is_an_error_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    written(&path, &[b"one", b"", b"three"]);
    written(&path, &[b"four"]);
    let whole = fs::read(&path).unwrap();
    let synced = whole.len() - HEAD;
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        match RecordLog::open(&path, 1000) {
            Err(error) => {
                assert!(bit / 8 < synced, "bit {bit}: {error}");
                assert_eq!(fs::read(&path).unwrap(), flipped, "bit {bit}");
                RecordLog::read(&path, 1000).unwrap_err();
            }
            // The flipped bit is in the marker: nothing is lost.
            Ok((_, recovered)) => {
                assert!(bit / 8 >= synced, "bit {bit} of {} recovered {recovered:?}", synced * 8);
                assert_eq!((recovered.records.len(), recovered.torn_bytes), (4, HEAD as u64));
            }
        }
    }
}

#[test]
fn zeros_are_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    written(&path, &[b"one"]);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], &[0; 100]].concat()).unwrap();
    assert_eq!(open(&path).1, Recovered { records: vec![b"one".to_vec()], torn_bytes: 100 });
}

/// Appends and syncs batches of records, then writes unsynced records to the kernel. Returns the end of the last
/// sync.
fn batches(path: &Path, synced: &[Vec<Vec<u8>>], unsynced: &[Vec<u8>]) -> usize {
    let (mut log, _) = open(path);
    for batch in synced {
        for record in batch {
            log.append(record).unwrap();
        }
        log.sync().unwrap();
    }
    let end = log.len_bytes();
    for record in unsynced {
        log.append(record).unwrap();
    }
    log.flush().unwrap();
    usize::try_from(end).unwrap()
}

fn records(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), count)
}

proptest! {
    #[test]
    fn any_change_of_what_was_synced_is_an_error(
        synced in prop::collection::vec(records(1..4), 1..5), at: prop::sample::Index, change in 1..=255_u8,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let end = batches(&path, &synced, &[]);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at.index(end)] ^= change;
        fs::write(&path, &bytes).unwrap();
        prop_assert!(RecordLog::open(&path, 1000).is_err());
        prop_assert_eq!(fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn whatever_happens_behind_the_last_sync_loses_nothing_before_it(
        synced in prop::collection::vec(records(1..4), 0..4), unsynced in records(0..5),
        cut: prop::sample::Index, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let end = batches(&path, &synced, &unsynced);
        let mut bytes = fs::read(&path).unwrap();
        // Pages reach the disk in any order, so any of them may be missing.
        for (at, change) in changes {
            let behind = end + at.index(bytes.len() - end + 1);
            bytes.get_mut(behind).into_iter().for_each(|byte| *byte ^= change);
        }
        bytes.truncate(end + cut.index(bytes.len() - end + 1));
        fs::write(&path, &bytes).unwrap();
        let (_, recovered) = open(&path);
        let expected = synced.concat();
        prop_assert_eq!(&recovered.records[..expected.len()], &expected[..]);
    }
}

#[test]
fn a_mail_that_looks_like_a_log_makes_no_torn_tail_into_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    // Somebody mails a copy of another log: its records and markers stand where they would in the victim's.
    let hostile = dir.path().join("hostile");
    written(&hostile, &[b"one", b"two"]);
    let payload = fs::read(&hostile).unwrap();
    let end = batches(&path, &[vec![b"kept".to_vec()]], &[payload[HEADER..].to_vec(), payload]);
    let bytes = fs::read(&path).unwrap();
    for torn in end..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[torn] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(open(&path).1.records[0], b"kept");
    }
}

#[test]
fn has_one_owner_and_readers_that_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut log, _) = open(&path);
    assert!(matches!(RecordLog::open(&path, 1000), Err(RecordLogError::Locked { .. })));
    log.append(b"one").unwrap();
    assert!(RecordLog::read(&path, 1000).unwrap().records.is_empty());
    log.sync().unwrap();
    assert_eq!(RecordLog::read(&path, 1000).unwrap().records, [b"one"]);
    drop(log);
    assert_eq!(open(&path).1.records, [b"one"]);
}

#[test]
fn refuses_a_record_over_the_bound_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut log, _) = open(&path);
    assert!(matches!(log.append(&[0; 1001]), Err(RecordLogError::TooLarge { .. })));
    log.append(&[0; 1000]).unwrap();
    log.sync().unwrap();
    drop(log);
    assert_eq!(open(&path).1.records.len(), 1);
}

#[test]
fn leaves_a_file_alone_that_is_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "a letter to somebody else").unwrap();
    assert!(matches!(RecordLog::open(&path, 1000), Err(RecordLogError::NotALog { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"a letter to somebody else");
}

#[test]
fn refuses_everything_after_a_failed_write_until_it_is_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    written(&path, &[b"one"]);
    let (mut log, _) = open(&path);
    // A read-only handle fails to write, as a full disk does.
    let file = std::mem::replace(&mut log.file, File::open(&path).unwrap());
    log.append(b"two").unwrap();
    assert!(matches!(log.sync(), Err(RecordLogError::Io { action: "write", .. })));
    assert!(matches!(log.append(b"three"), Err(RecordLogError::Poisoned { .. })));
    assert!(matches!(log.sync(), Err(RecordLogError::Poisoned { .. })));
    assert!(matches!(log.recover(), Err(RecordLogError::Io { action: "truncate", .. })));
    assert!(matches!(log.append(b"three"), Err(RecordLogError::Poisoned { .. })));
    // The disk works again; recovery cuts what it took of the failed write.
    log.file = file;
    let end = log.synced;
    log.file.write_all_at(b"half of a rec", end).unwrap();
    log.recover().unwrap();
    log.append(b"four").unwrap();
    log.sync().unwrap();
    drop(log);
    assert_eq!(open(&path).1, Recovered { records: vec![b"one".to_vec(), b"four".to_vec()], torn_bytes: 0 });
}

#[test]
fn does_not_recover_what_lost_what_was_synced_or_is_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let poisoned = || {
        let (mut log, _) = open(&path);
        log.append(b"one").unwrap();
        log.sync().unwrap();
        log.poison("sync", io::Error::other("on purpose"));
        log
    };
    let mut log = poisoned();
    log.file.write_all_at(b"?", log.synced - 1).unwrap();
    let error = log.recover().unwrap_err();
    assert!(matches!(error, RecordLogError::Damaged { offset: 32, .. }), "{error}");
    drop(log);
    fs::remove_file(&path).unwrap();
    let mut log = poisoned();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    assert!(matches!(log.recover(), Err(RecordLogError::Io { action: "find", .. })));
    fs::write(&path, "another").unwrap();
    let error = log.recover().unwrap_err();
    assert!(error.to_string().contains("cannot find"), "{error}");
}

#[test]
fn reads_one_record_and_none_that_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut log, _) = open(&path);
    let places = [b"one", b"two"].map(|record| log.append(record).unwrap());
    log.sync().unwrap();
    assert_eq!(RecordLog::read_one(&path, places[1], 1000).unwrap(), b"two");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - HEAD - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(RecordLog::read_one(&path, places[0], 1000).unwrap(), b"one");
    let error = RecordLog::read_one(&path, places[1], 1000).unwrap_err();
    assert!(matches!(error, RecordLogError::Damaged { offset, .. } if offset == places[1]), "{error}");
}

#[test]
fn what_is_cut_is_gone_and_the_log_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut log, _) = RecordLog::open(&path, 100).unwrap();
    let offsets: Vec<_> = (0..4_u8).map(|number| log.append(&[number; 9]).unwrap()).collect();
    log.cut(offsets[2]).unwrap();
    log.append(&[7; 5]).unwrap();
    log.sync().unwrap();
    drop(log);
    let (mut log, recovered) = RecordLog::open(&path, 100).unwrap();
    assert_eq!(recovered.records, [vec![0; 9], vec![1; 9], vec![7; 5]]);
    assert_eq!(recovered.torn_bytes, 0);
    log.cut(0).unwrap();
    drop(log);
    assert_eq!(RecordLog::open(&path, 100).unwrap().1, Recovered::default());
}
