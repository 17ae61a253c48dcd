// SPDX-License-Identifier: Apache-2.0
//! Checks the health of a fleet: its nodes' statuses, its disk, its secrets. Changes nothing.
//!
//! A check that fails is an [`Level::Error`], and then the command's exit code is 1; a warning is for people to read.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
};

use health::Level;
use mail_bridge::params::JOURNAL_RESERVE_BYTES;
use record_log::{free_bytes, secret};

use crate::show;

/// The nodes that every fleet has. A simulator or a renamed node is reported if it is heard.
const NODES: [&str; 4] = ["mail_bridge", "authenticator", "chatbot", "vehicle_router"];

/// What was found, in the order of the checks.
#[derive(Debug, Default)]
pub struct Report(Vec<(Level, String)>);

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, level: Level, what: impl Display) {
        self.0.push((level, show::line(&what.to_string())));
    }

    /// Whether no check failed.
    pub fn is_well(&self) -> bool {
        self.0.iter().all(|(level, _)| *level != Level::Error)
    }

    /// The findings, one a line.
    pub fn text(&self) -> String {
        let word = |level| match level {
            Level::Ok => "ok   ",
            Level::Warn => "warn ",
            Level::Error => "ERROR",
        };
        self.0.iter().map(|(level, what)| format!("{}  {what}\n", word(*level))).collect()
    }
}

/// The latest statuses on `/diagnostics`: level and message by name, such as `fleet/mail_bridge: intake`.
#[derive(Debug, Default)]
pub struct Statuses(BTreeMap<String, (u8, String)>);

impl Statuses {
    /// Takes a status of any node of any namespace.
    pub fn hear(&mut self, name: String, level: u8, message: String) {
        self.0.insert(name, (level, message));
    }

    /// Whether every node of `namespace` has been heard.
    pub fn are_complete(&self, namespace: &str) -> bool {
        NODES.iter().all(|node| self.has(&path(namespace, node)))
    }

    fn has(&self, node: &str) -> bool {
        self.0.keys().any(|name| name.split(": ").next() == Some(node))
    }

    /// Reports the statuses of `namespace`, and which nodes were not heard.
    pub fn report(&self, namespace: &str, report: &mut Report) {
        for node in NODES.iter().map(|node| path(namespace, node)).filter(|node| !self.has(node)) {
            report.add(Level::Error, format!("node /{node}: nothing heard of it on /diagnostics"));
        }
        for (name, (level, message)) in &self.0 {
            let node = name.split(": ").next().unwrap_or_default();
            if node.rsplit_once('/').map_or("", |(namespace, _)| namespace)
                != namespace.trim_start_matches('/')
            {
                continue;
            }
            let level = match level {
                0 => Level::Ok,
                1 => Level::Warn,
                _ => Level::Error,
            };
            report.add(level, format!("{name}: {message}"));
        }
    }
}

/// A node as statuses name it, such as `fleet/mail_bridge`.
pub(crate) fn path(namespace: &str, node: &str) -> String {
    format!("{namespace}/{node}").trim_start_matches('/').to_owned()
}

/// Reports free disk and secrets of `directory`, which holds a directory for each node.
pub fn look_at_files(directory: &Path, report: &mut Report) {
    let folders = match contents(directory) {
        Ok(folders) => folders,
        Err(error) => {
            let what = format!(
                "state directory {}: {error}; --state-directory names another one",
                directory.display()
            );
            return report.add(Level::Warn, what);
        }
    };
    match free_bytes(directory) {
        Ok(free) => {
            let too_little = i64::try_from(free).is_ok_and(|free| free < JOURNAL_RESERVE_BYTES);
            let (level, rule) = if too_little {
                (
                    Level::Warn,
                    format!(
                        ", by default mails are refused below {JOURNAL_RESERVE_BYTES} (journal_reserve_bytes)"
                    ),
                )
            } else {
                (Level::Ok, String::new())
            };
            report.add(level, format!("state directory {}: {free} bytes free{rule}", directory.display()));
        }
        Err(error) => {
            report.add(Level::Error, format!("state directory {}: {error}", directory.display()));
        }
    }
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        look_at_secrets(folder, report);
    }
}

/// Paths of what is in a directory, in order.
fn contents(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Reports every file in `folder` that must be a secret by its name.
fn look_at_secrets(folder: &Path, report: &mut Report) {
    let files = match contents(folder) {
        Ok(files) => files,
        Err(error) => return report.add(Level::Error, format!("directory {}: {error}", folder.display())),
    };
    let is_secret = |path: &&PathBuf| {
        path.extension().is_some_and(|extension| extension == "key" || extension == "token")
    };
    for file in files.iter().filter(is_secret).filter(|file| file.is_file()) {
        // A key may also be a keystore, whose password is elsewhere.
        let looked = secret::read_text(file).and_then(|text| match text.trim_start().starts_with('{') {
            true => Ok(()),
            false => secret::parse(&text, file).map(drop),
        });
        match looked {
            Ok(()) => {
                report.add(Level::Ok, format!("secret file {}: only its owner has access", file.display()))
            }
            Err(error) => report.add(Level::Error, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn statuses(names: &[(&str, u8)]) -> Statuses {
        let mut statuses = Statuses::default();
        for (name, level) in names {
            statuses.hear((*name).to_owned(), *level, "words".to_owned());
        }
        statuses
    }

    const ALL: [(&str, u8); 4] = [
        ("fleet/mail_bridge: intake", 0),
        ("fleet/authenticator: mails", 0),
        ("fleet/chatbot: mails", 1),
        ("fleet/vehicle_router: vehicles", 0),
    ];

    #[test]
    fn a_fleet_with_all_its_nodes_is_well_and_warnings_are_shown() {
        let all = statuses(&ALL);
        assert!(all.are_complete("/fleet") && !all.are_complete("/") && !all.are_complete("/other"));
        let mut report = Report::default();
        all.report("/fleet", &mut report);
        assert!(report.is_well());
        assert!(report.text().contains("warn   fleet/chatbot: mails: words\n"), "{}", report.text());
    }

    #[test]
    fn a_silent_node_and_an_error_are_not_well() {
        let mut report = Report::default();
        statuses(&ALL[..3]).report("/fleet", &mut report);
        assert!(report.text().starts_with("ERROR  node /fleet/vehicle_router: nothing"), "{}", report.text());
        assert!(!report.is_well());
        for level in [2, 3, 9] {
            let mut report = Report::default();
            statuses(&[&ALL[..], &[("fleet/mail_bridge: journal", level)]].concat())
                .report("/fleet", &mut report);
            assert!(!report.is_well(), "{level}");
        }
    }

    #[test]
    fn another_fleet_s_nodes_are_not_this_one_s() {
        let mut report = Report::default();
        let other =
            [("mail_bridge: intake", 2), ("fleet/a/mail_bridge: intake", 2), ("fleet2/chatbot: x", 2)];
        statuses(&[&ALL[..], &other].concat()).report("/fleet", &mut report);
        assert!(report.is_well(), "{}", report.text());
        let mut report = Report::default();
        statuses(&other).report("/", &mut report);
        assert!(report.text().contains("ERROR  mail_bridge: intake"), "{}", report.text());
        assert!(!report.text().contains("fleet"), "{}", report.text());
    }

    #[test]
    fn what_a_node_says_reaches_the_terminal_escaped() {
        let mut report = Report::default();
        report.add(Level::Ok, "a\u{1b}[2J\nok     faked");
        assert_eq!(report.text(), "ok     a\\u{1b}[2J\\u{a}ok     faked\n");
    }

    #[test]
    fn a_secret_that_others_can_read_is_not_well() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("authenticator");
        fs::create_dir(&folder).unwrap();
        let file = folder.join("registry.token");
        secret::load_or_create(&file).unwrap();
        let look = || {
            let mut report = Report::default();
            look_at_files(dir.path(), &mut report);
            report
        };
        assert!(look().is_well(), "{}", look().text());
        assert!(
            look().text().contains("bytes free\n")
                && look().text().contains("registry.token: only its owner")
        );
        fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(!look().is_well() && look().text().contains("has mode 644"), "{}", look().text());
    }

    #[test]
    fn a_state_directory_that_is_elsewhere_is_a_warning_and_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("fleet");
        let mut report = Report::default();
        look_at_files(&missing, &mut report);
        assert!(report.is_well() && report.text().contains("--state-directory"), "{}", report.text());
        assert!(!missing.exists());
    }
}
