// SPDX-License-Identifier: Apache-2.0
//! `make bench-soak`: 100 signed questions a second over the whole graph for a long time, recording each node's memory.
//! `SOAK_MINUTES=25` sets how long, `SOAK_RATE=100` how many. Fails if a mail is lost or answered twice, or a node's
//! memory reaches its limit.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod curve;
#[allow(dead_code, reason = "the closed loop and the latencies are for bench-path")]
mod load;

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use curve::Curve;
use load::{Load, questions, run};
use testbed::posthorn::{Posthorn, SENDER};

/// Seconds of load between two checks of the answers.
const LOAD_SECONDS: u32 = 30;
/// Approximate maximum of points on a curve.
const POINTS: u32 = 600;
/// Memory that every node must stay below [MB].
const BOUND: f64 = 300.0;
const NAMES: [&str; 5] = ["mail_bridge", "authenticator", "chatbot", "vehicle_router", "fleet_simulator"];

fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
}

/// Resident memory of a process (VmRSS) [MB].
fn memory(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a node has ended");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("kB") / 1024.0
}

fn main() {
    let duration = Duration::from_secs_f64(setting("SOAK_MINUTES", 25.0) * 60.0);
    let rate = setting("SOAK_RATE", 100.0) as u32;
    // The default batch age, because the embedded chain keeps one block per batch in memory.
    let mut posthorn = Posthorn::start(&[], &[("batch_max_age_s", "10.0")]);
    let pids = posthorn.nodes().map(|node| node.pid());
    let mut curves = NAMES.map(|name| Curve { name: name.to_owned(), points: Vec::new() });
    let (start, ended) = (Instant::now(), AtomicBool::new(false));
    let mut mails = 0;
    thread::scope(|scope| {
        let (curves, ended) = (&mut curves, &ended);
        scope.spawn(move || {
            let step = (duration / POINTS).max(Duration::from_millis(500));
            while !ended.load(Ordering::Relaxed) {
                let minutes = start.elapsed().as_secs_f64() / 60.0;
                for (curve, pid) in curves.iter_mut().zip(pids) {
                    curve.points.push((minutes, memory(pid)));
                }
                thread::sleep(step);
            }
        });
        for turn in 0.. {
            if start.elapsed() >= duration {
                break;
            }
            let count = (rate * LOAD_SECONDS) as usize;
            let asked = questions(count, &format!("soak-{turn}"), &[SENDER], &posthorn.sender);
            let measured = run(Load::Open { rate }, &asked, posthorn.smtp, &posthorn.sink);
            mails += measured.mails();
            println!("{:>5.1} min: {mails} mails, each answered once", start.elapsed().as_secs_f64() / 60.0);
        }
        ended.store(true, Ordering::Relaxed);
    });
    println!("\n{mails} mails, {rate} a second; memory in MB\n{}", curve::table(&curves));
    for curve in &curves {
        println!("{}", curve.plot());
    }
    let title = format!("make bench-soak: memory of each node, {rate} mails a second, {mails} mails");
    println!("{}", curve::publish("soak", &title, &curves).display());
    for node in posthorn.nodes() {
        let status = node.terminate();
        assert!(status.success(), "{status}\n{}", node.log().lines().last().unwrap_or_default());
    }
    for curve in &curves {
        assert!(
            curve.most() < BOUND,
            "{} needed {:.0} MB, must stay below {BOUND}",
            curve.name,
            curve.most()
        );
    }
}
