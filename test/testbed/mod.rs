//! A whole posthorn on this machine: nodes as real processes in a ROS domain of their own, an observer of their graph,
//! a signed sender with its zone, a receiving mail server. Used by the tests, the demo and the benchmarks.
//!
//! Everything is awaited by a condition with a time limit, and ended by pid.

#![allow(dead_code, reason = "each of the test, the demo and the benchmark uses a part of it")]

pub mod dns;
pub mod domain;
pub mod node;
#[cfg(feature = "ros")]
pub mod observer;
#[cfg(feature = "ros")]
pub mod posthorn;
pub mod report;
pub mod sign;
pub mod smtp;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long a condition may take on a loaded machine before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An executable of this build: a node, or an example.
pub fn executable(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("own path");
    // target/release/deps/test, target/release/examples/demo
    let profile = here.parent().and_then(Path::parent).expect("target directory");
    let candidates = [profile.join(name), profile.join("examples").join(name)];
    let found = candidates.iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not built: run make test or make demo")).clone()
}

/// A port of 127.0.0.1 that is free now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").port()
}

/// A file of the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Waits until `condition` gives something, or fails naming `what` after [`PATIENCE`].
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
