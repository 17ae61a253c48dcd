// SPDX-License-Identifier: Apache-2.0
//! Runs a node as a process.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use super::{domain::Domain, executable, project, wait_for};

/// A running node; killed by pid on drop.
pub struct Node {
    name: String,
    child: Child,
    log: Arc<Mutex<String>>,
    /// Ends when everything the process wrote is in the log.
    reader: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts `name` with its file in `config/` and with `parameters` on top, as `name:=value` in YAML.
    pub fn start(name: &str, domain: &Domain, parameters: &[(&str, &str)]) -> Self {
        let mut command = Command::new(executable(name));
        let config = project(&format!("config/{name}.yaml"));
        command.arg("--ros-args").arg("--params-file").arg(config);
        for (parameter, value) in parameters {
            command.arg("-p").arg(format!("{parameter}:={value}"));
        }
        Self::run(name, domain, command)
    }

    /// Starts any command as a node and collects its standard error.
    pub fn run(name: &str, domain: &Domain, mut command: Command) -> Self {
        command.envs(domain.environment()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, written) = (BufReader::new(child.stderr.take().expect("piped")), Arc::clone(&log));
        let reader = std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                *written.lock().expect("log") += &(line + "\n");
            }
        });
        Self { name: name.to_owned(), child, log, reader: Some(reader) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the node has written to standard error.
    pub fn log(&self) -> String {
        self.log.lock().expect("log").clone()
    }

    /// Whether the node has finished what it had to finish, and said so.
    pub fn drained(&self) -> bool {
        self.log().lines().any(|line| line.ends_with(": drained"))
    }

    /// Waits for a line on standard error that contains `text`; returns what follows `text`, up to the next space.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let (name, log, child) = (self.name.clone(), Arc::clone(&self.log), &mut self.child);
        wait_for(&format!("{name} writes {text:?}"), || {
            let log = log.lock().expect("log");
            if let Some(found) = log.find(text) {
                let rest = &log[found + text.len()..];
                if let Some(end) = rest.find(|c: char| c.is_whitespace()) {
                    return Some(rest[..end].to_owned());
                }
            }
            if let Some(status) = child.try_wait().expect("wait") {
                panic!("{name} ended with {status} before it wrote {text:?}:\n{log}");
            }
            None
        })
    }

    /// Sends SIGTERM, as an operator would, and returns the exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        self.end_by("TERM")
    }

    /// Sends a signal, `INT` or `TERM`, and returns the exit status.
    pub fn end_by(&mut self, signal: &str) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill");
        assert!(sent.success(), "{} is gone already:\n{}", self.name, self.log());
        self.wait()
    }

    /// Kills the process, as a power failure would.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
        self.read_log_to_its_end();
    }

    /// Waits until the process ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        let child = &mut self.child;
        let status = wait_for(&format!("{name} ends"), || child.try_wait().expect("wait"));
        self.read_log_to_its_end();
        status
    }

    fn read_log_to_its_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reader");
        }
    }

    /// CPU time used so far, user and system [clock ticks of 10 ms].
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("/proc");
        // proc(5): the name, in parentheses, can contain spaces; utime and stime are fields 14 and 15.
        let fields: Vec<_> = stat.rsplit(')').next().expect("name").split_whitespace().collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.name, self.log());
        }
    }
}
