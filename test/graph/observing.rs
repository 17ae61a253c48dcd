// SPDX-License-Identifier: Apache-2.0
//! `make observe`, and with it every test that uses an observer, sees everything that is published.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use testbed::{PATIENCE, domain::Domain, executable, project, wait_for};

/// Messages published at once: ten times what r2r queues.
const BURST: usize = 100;

/// The publishing process. It ends when its standard input closes; killed on drop.
struct Burst(Child);

impl Drop for Burst {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The numbers that the observer printed of a burst, and its exit status. Stops at the whole burst or when nothing
/// comes any more.
fn observe_a_burst(
    arguments: &[&str],
    end: impl FnOnce(&mut Child),
) -> (Vec<usize>, std::process::ExitStatus) {
    let domain = Domain::take();
    let mut observer = Command::new(executable("observer"))
        .args(arguments)
        .args(["", "burst=std_msgs/msg/String=event"])
        .envs(domain.environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("observer");
    let (sender, lines) = std::sync::mpsc::channel::<String>();
    let output = BufReader::new(observer.stdout.take().expect("piped"));
    std::thread::spawn(move || {
        output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)).ok();
    });
    let mut burst = Burst(
        Command::new("python3")
            .arg(project("test/graph/burst.py"))
            .arg(BURST.to_string())
            .envs(domain.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3"),
    );
    let mut published = String::new();
    BufReader::new(burst.0.stdout.take().expect("piped")).read_line(&mut published).expect("line");
    assert_eq!(published, "published\n");

    let mut numbers = Vec::new();
    while numbers.len() < BURST {
        let Ok(line) = lines.recv_timeout(PATIENCE) else { break };
        let line: Value = serde_json::from_str(&line).expect("JSON");
        if line["topic"] == "burst" {
            numbers
                .push(line["message"]["data"].as_str().and_then(|text| text.parse().ok()).expect("number"));
        }
    }
    end(&mut observer);
    let status = wait_for("the observer ends", || observer.try_wait().expect("wait"));
    (numbers, status)
}

#[test]
fn an_observer_prints_every_message_of_a_burst_and_ends_with_its_input() {
    let (numbers, status) = observe_a_burst(&[], |observer| drop(observer.stdin.take()));
    assert_eq!(numbers, (0..BURST).collect::<Vec<_>>());
    assert!(status.success(), "{status}");
}

#[test]
fn watching_goes_on_without_an_input_and_ends_with_a_signal() {
    for signal in ["INT", "TERM"] {
        let (numbers, status) = observe_a_burst(&["--watch"], |observer| {
            drop(observer.stdin.take());
            let kill = Command::new("kill").arg(format!("-{signal}")).arg(observer.id().to_string()).status();
            assert!(kill.expect("kill").success());
        });
        assert_eq!(numbers.len(), BURST, "{numbers:?}");
        assert!(status.success(), "SIG{signal}: {status}");
    }
}

/// Middleware threads once used objects that process exit had destroyed: 6 of 20 observers died from SIGSEGV or
/// SIGABRT.
#[test]
fn an_observer_ends_without_a_crash_each_of_ten_times() {
    let domain = Domain::take();
    for round in 0..10 {
        let mut observer = Command::new(executable("observer"))
            .args(["", "burst=std_msgs/msg/String=event"])
            .envs(domain.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("observer");
        let mut ready = String::new();
        BufReader::new(observer.stdout.take().expect("piped")).read_line(&mut ready).expect("line");
        assert_eq!(ready, "{\"ready\":true}\n");
        drop(observer.stdin.take());
        let status = wait_for("the observer ends", || observer.try_wait().expect("wait"));
        assert!(status.success(), "round {round}: {status}");
    }
}
