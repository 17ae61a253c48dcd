// SPDX-License-Identifier: Apache-2.0
//! Runs a whole posthorn on this machine: nodes as real processes in their own ROS domain, an observer of their graph,
//! a signed sender with its zone, and a receiving mail server. The tests, the demo and the benchmarks share it.
//!
//! It waits only for conditions, each with a time limit, and ends processes by pid.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is part of the tests: what fails here fails a test"
)]

pub mod dns;
pub mod domain;
pub mod dovecot;
pub mod node;
pub mod observer;
pub mod posthorn;
pub mod report;
pub mod sign;
pub mod smtp;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use domain::Domain;

/// How long a condition may take, on a loaded machine, before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Path of an executable of this build: a node or an example.
pub fn executable(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("own path");
    // target/release/deps/test, target/release/examples/demo
    let profile = here.parent().and_then(Path::parent).expect("target directory");
    let candidates = [profile.join(name), profile.join("examples").join(name)];
    let found = candidates.iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not built: run make test or make demo")).clone()
}

/// Runs the command `posthorn` in a graph; returns its exit code, standard output and standard error. What Fast DDS says there
/// is left out: at times it complains of a lock on shared memory that another participant holds, and goes on.
pub fn run_posthorn(domain: &Domain, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(executable("posthorn"));
    let output = command.args(arguments).envs(domain.environment()).output().expect("posthorn");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let error: String = text(output.stderr)
        .split_inclusive('\n')
        .filter(|line| !line.contains("[RTPS_") && !line.contains("mRTPS_"))
        .collect();
    (output.status.code().expect("no signal"), text(output.stdout), error)
}

/// Runs `docs/verify_receipt.py` on a file, against a chain's JSON-RPC.
pub fn verify_receipt(file: &Path, rpc: &str, contract: &str) -> Output {
    let mut python = Command::new(project("target/venv/web3/bin/python"));
    python.arg(project("docs/verify_receipt.py")).arg(file).args(["--rpc", rpc, "--contract", contract]);
    python.output().expect("web3.py: run scripts/venv web3")
}

/// The address of the ledger that was deployed for a state directory, from the one who deployed it and not from a
/// receipt.
pub fn deployed_ledger(directory: &Path) -> String {
    let contracts = std::fs::read(directory.join("contracts.json")).expect("contracts.json");
    let contracts: serde_json::Value = serde_json::from_slice(&contracts).expect("JSON");
    contracts["evidence_ledger"].as_str().expect("an address").to_owned()
}

/// What a program prints about `input`.
///
/// # Panics
/// If it cannot be started or fails.
pub fn output_of(program: &mut Command, input: String) -> String {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is installed");
    let mut stdin = child.stdin.take().expect("piped");
    // It may print before it has read everything.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).expect("it reads"));
    let output = child.wait_with_output().expect("its output");
    writer.join().expect("written");
    assert!(output.status.success(), "{program:?} failed");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A TCP port of 127.0.0.1 where nobody listens. Neither another call nor a connection of whatever else runs takes it
/// later: it is below Linux's ephemeral ports (32,768 and up).
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    static CALLS: AtomicU32 = AtomicU32::new(0);
    loop {
        // Another process begins somewhere else.
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let offset = std::process::id().wrapping_mul(101).wrapping_add(call) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + offset).expect("below 32,000");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Path of a file of the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Waits until `condition` returns a value; after [`PATIENCE`], panics with `what`.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
