// SPDX-License-Identifier: Apache-2.0
//! Measures what the evidence of many mails costs: memory, disk, look-ups, start. `EVIDENCE=10000000` sets how many.

#![allow(missing_docs, clippy::indexing_slicing, clippy::unwrap_used)]

use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use evidence::{Entry, Finding, log::EvidenceLog};
use mail::MailId;

/// Entries per sync, as in the node under load.
const BATCH: u64 = 1024;
const LOOKUPS: u64 = 100_000;

fn entry(number: u64) -> Entry {
    let finding = Finding {
        mail_id: MailId::of(&number.to_le_bytes()),
        received_at: UNIX_EPOCH + Duration::from_secs(1_790_000_000 + number / 100),
        sender_digest: [9; 32],
        verdict: [1, 2, 2, 2, 2, 2, 0],
    };
    finding.entry(&"/fleet/authenticator".parse().unwrap())
}

/// Resident memory of this process (VmRSS) [MB]. It does not include the kernel's cache of the files it reads.
fn memory() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

fn megabytes(path: &Path) -> f64 {
    fs::metadata(path).map_or(0.0, |file| file.len() as f64 / 1e6)
}

/// Median and 99th percentile of the look-up time [us].
fn lookups(log: &EvidenceLog, numbers: impl Iterator<Item = u64>, known: bool) -> (f64, f64) {
    let mut times: Vec<_> = numbers
        .map(|number| {
            let identity = entry(number).identity();
            let start = Instant::now();
            assert_eq!(log.index_of(&identity).unwrap().is_some(), known);
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn main() {
    let count: u64 = std::env::var("EVIDENCE").map_or(10_000_000, |count| count.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut out = std::io::stdout().lock();
    let mut say = |line: String| writeln!(out, "{line}").unwrap();
    let (mut log, _) = EvidenceLog::open(dir.path()).unwrap();
    let (start, mut slowest, mut peak) = (Instant::now(), 0.0_f64, 0.0_f64);
    for first in (0..count).step_by(BATCH as usize) {
        let entries: Vec<_> = (first..count.min(first + BATCH)).map(entry).collect();
        let began = Instant::now();
        log.append(&entries, SystemTime::now()).unwrap();
        slowest = slowest.max(began.elapsed().as_secs_f64());
        peak = peak.max(memory());
    }
    let filled = start.elapsed().as_secs_f64();
    say(format!("{count} mails appended in {filled:.0} s, {BATCH} a sync; slowest batch {slowest:.2} s"));
    say(format!("memory {:.1} MB, at most {peak:.1} MB", memory()));
    let file = |name: &str| megabytes(&dir.path().join(name));
    say(format!(
        "evidence.log {:.0} MB, evidence.index {:.0} MB",
        file("evidence.log"),
        file("evidence.index")
    ));
    // Spread over all mails, without a pattern that a cache could follow.
    let spread = |at: u64| (at * 7_368_787) % count;
    let (half, most) = lookups(&log, (0..LOOKUPS).map(spread), true);
    say(format!("look-up of a known mail: {half:.1} us, 99 % below {most:.1} us"));
    let (half, most) = lookups(&log, count..count + LOOKUPS, false);
    say(format!("look-up of an unknown mail: {half:.1} us, 99 % below {most:.1} us"));
    drop(log);
    let start = Instant::now();
    let log = EvidenceLog::open(dir.path()).unwrap().0;
    say(format!("start after a clean end: {:.0} ms", start.elapsed().as_secs_f64() * 1e3));
    drop(log);
    fs::remove_file(dir.path().join("evidence.index")).unwrap();
    let start = Instant::now();
    let log = EvidenceLog::open(dir.path()).unwrap().0;
    say(format!(
        "start without the index: {:.1} s, memory {:.1} MB",
        start.elapsed().as_secs_f64(),
        memory()
    ));
    assert_eq!(log.evidenced(), count);
}
