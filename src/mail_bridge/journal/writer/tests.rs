// SPDX-License-Identifier: Apache-2.0
use std::{fs, path::Path, time::SystemTime};

use super::*;
use crate::journal::{Settings, index::Index};
use mail::{Action, Envelope, Origin};

fn writer(directory: &Path) -> Writer {
    let settings = Settings {
        directory: directory.to_owned(),
        segment_bytes: 1,
        keep_segments: 0,
        remembered: 9,
        reserve_bytes: 0,
    };
    let mut index = Index::new(9);
    let (segments, _) = Segments::open(settings, &mut index).unwrap();
    let shared = Arc::new(Shared { index: index.into(), ..Shared::default() });
    Writer::new(segments, shared, mpsc::unbounded_channel().0)
}

fn mail(data: &str) -> AcceptedMail {
    let envelope = Envelope {
        peer: [127, 0, 0, 1].into(),
        helo: String::new(),
        mail_from: String::new(),
        rcpt_to: Vec::new(),
    };
    let data = data.as_bytes().to_vec();
    AcceptedMail {
        id: MailId::of(&data),
        received_at: SystemTime::UNIX_EPOCH,
        origin: Origin::Smtp(envelope),
        consumers: vec!["chatbot".to_owned()],
        data,
    }
}

/// Runs one request, and then the work between requests until the thread would wait for the next.
fn take(
    writer: &mut Writer,
    command: impl FnOnce(Reply<Accepted>) -> Command,
) -> Result<Accepted, JournalError> {
    let (reply, mut result) = oneshot::channel();
    let (_none, mut commands) = mpsc::channel(1);
    writer.turn(Some(command(reply)), &mut commands);
    while writer.retiring.is_some() {
        writer.turn(None, &mut commands);
    }
    result.try_recv().unwrap()
}

#[test]
fn a_thread_that_panics_is_a_journal_that_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path());
    let shared = Arc::clone(&writer.shared);
    let thread = thread::spawn(move || {
        let _writer = writer;
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert_eq!(lock(&shared.figures).failed.as_deref(), Some("its thread panicked"));
}

#[test]
fn a_needed_record_damaged_since_it_was_written_is_not_retired() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    take(&mut writer, |reply| Command::Accept(mail("needed"), reply)).unwrap();
    let first = dir.path().join("0000000001.log");
    let mut bytes = fs::read(&first).unwrap();
    let at = bytes.windows(6).position(|window| window == b"needed").unwrap();
    bytes[at] ^= 1;
    fs::write(&first, &bytes).unwrap();
    // Settled mails behind it, enough to make the segment worth retiring.
    for n in 0..9 {
        let mail = mail(&n.to_string());
        let (reply, _) = oneshot::channel();
        let disposition = Disposition {
            mail_id: mail.id,
            consumer: "chatbot".to_owned(),
            action: Action::Ignored,
            reason: String::new(),
        };
        take(&mut writer, |reply| Command::Accept(mail, reply)).unwrap();
        writer.turn(Some(Command::Dispose(disposition, true, reply)), &mut mpsc::channel(1).1);
    }
    assert_eq!(fs::read(&first).unwrap(), bytes);
    let stuck = lock(&writer.shared.figures).stuck.clone().unwrap();
    assert!(stuck.contains("damaged at byte 32,"), "{stuck}");
    take(&mut writer, |reply| Command::Accept(mail("goes on"), reply)).unwrap();
}

#[test]
fn mails_that_would_cut_into_the_reserve_are_refused_and_repetitions_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    take(&mut writer, |reply| Command::Accept(mail("one"), reply)).unwrap();
    writer.segments.set_reserve(1 << 50);
    let refused = take(&mut writer, |reply| Command::Accept(mail("two"), reply));
    assert!(matches!(refused, Err(JournalError::NoRoom(_))), "{refused:?}");
    assert_eq!(take(&mut writer, |reply| Command::Accept(mail("one"), reply)).unwrap(), Accepted::Known);
}
