// SPDX-License-Identifier: Apache-2.0
//! `make bench-path`: throughput and latency of mails over the whole graph, compared with a plain Python pipeline
//! (`test/bench/peer.py`). Fails if either side loses a mail, answers it twice or answers it wrongly.
//!
//! Each side runs alone, all cases in a row, and the sides take turns, so that other load on the machine affects both.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod load;
mod sides;

use std::time::Duration;

use load::{Case, Load, Measured};
use sides::{Peer, SENDERS, Whole};
use testbed::report::{Promise, Report, Row, percentile};

/// Number of turns that each side takes.
const ROUNDS: usize = 3;
/// Mails sent before a turn's first case and not measured: they fill connections, caches and first batches.
const WARM_UP: Case = Case { name: "warm-up", load: closed(4), mails: 100 };
const CASES: [Case; 3] = [
    Case { name: "10 mails/s", load: Load::Open { rate: 10 }, mails: 100 },
    Case { name: "100 mails/s", load: Load::Open { rate: 100 }, mails: 1000 },
    // As many as one From domain from one peer may have in flight by default: a quarter of mail_bridge's window.
    Case { name: "32 connections", load: closed(32), mails: 3000 },
];
const fn closed(connections: usize) -> Load {
    Load::Closed { connections, limit: Duration::from_secs(10) }
}
/// The design's promise "p99 under 150 ms from 250 to answer" [ms].
const PROMISED_P99: f64 = 150.0;

fn main() {
    let cores = std::thread::available_parallelism().expect("cores");
    let busy = std::fs::read_to_string("/proc/loadavg").expect("/proc/loadavg");
    println!("\n{cores} cores, load average {} before", busy.split(' ').next().unwrap_or_default());
    println!("posthorn  {}", sides::WHOLE_HAS);
    println!("peer      {}", sides::PEER_HAS);
    println!("both      {}\n", sides::BOTH_HAVE);

    let mut ours: [Vec<Measured>; 3] = Default::default();
    let mut theirs: [Vec<Measured>; 3] = Default::default();
    let mut failures = Vec::new();
    for round in 0..ROUNDS {
        let mut whole = Whole::start(&SENDERS);
        turn(&format!("r{round}-posthorn"), &mut ours, |tag, case| whole.run(tag, case));
        failures.extend(whole.end());
        let mut peer = Peer::start(&SENDERS);
        turn(&format!("r{round}-peer"), &mut theirs, |tag, case| peer.run(tag, case));
        peer.end();
    }

    let mut rows = Vec::new();
    for (case, (ours, theirs)) in CASES.iter().zip(ours.iter().zip(&theirs)) {
        let mut row = |metric, unit, figure: &dyn Fn(&[Measured]) -> f64, promise| {
            let (ours, theirs) = (figure(ours), figure(theirs));
            rows.push(Row { case: case.name.to_owned(), metric, unit, ours, theirs, promise });
        };
        let open = matches!(case.load, Load::Open { .. });
        row("answered", "mails/s", &|turns| median(turns.iter().map(Measured::rate)), Promise::Nothing);
        row("p50, 250 to answer", "ms", &|turns| latency(turns, 50.0, Measured::latencies), Promise::Nothing);
        let promise = if open { Promise::AtMost(PROMISED_P99) } else { Promise::Nothing };
        row("p99, 250 to answer", "ms", &|turns| latency(turns, 99.0, Measured::latencies), promise);
        row(
            "longest, 250 to answer",
            "ms",
            &|turns| latency(turns, 100.0, Measured::latencies),
            Promise::Nothing,
        );
        if open {
            let whole = |turns: &[Measured]| latency(turns, 99.0, Measured::since_due);
            row("p99, due to be sent to answer", "ms", &whole, Promise::Nothing);
        }
    }
    let title = "make bench-path: signed questions answered by SMTP over the whole graph";
    Report { name: "path", title, peer: "aiosmtpd + dkimpy", rows }.publish();
    assert!(failures.is_empty(), "the figures stand, but a node did not end well: {failures:#?}");
}

/// Runs all cases of one side and checks its answers.
fn turn(tag: &str, results: &mut [Vec<Measured>; 3], mut run: impl FnMut(&str, &Case) -> Measured) {
    run(&format!("{tag}-w"), &WARM_UP);
    for (n, case) in CASES.iter().enumerate() {
        let measured = run(&format!("{tag}-{n}"), case);
        let latencies = measured.latencies();
        println!(
            "{tag:<12} {:<15} {:>5} mails, each answered once: {:>6.1}/s, p50 {:>6.1} ms, p99 {:>6.1} ms, max {:>6.1} ms",
            case.name,
            latencies.len(),
            measured.rate(),
            percentile(&latencies, 50.0),
            percentile(&latencies, 99.0),
            percentile(&latencies, 100.0),
        );
        results[n].push(measured);
    }
}

/// A percentile over the mails of all turns [ms].
fn latency(turns: &[Measured], percent: f64, of: impl Fn(&Measured) -> Vec<f64>) -> f64 {
    let mut all: Vec<_> = turns.iter().flat_map(of).collect();
    all.sort_by(f64::total_cmp);
    percentile(&all, percent)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    percentile(&values, 50.0)
}
