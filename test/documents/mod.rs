// SPDX-License-Identifier: Apache-2.0
//! Generates documents and other second copies of facts, and compares them with the committed files. `make docs`
//! rewrites them instead.

mod architecture;
mod demo;
mod help;
mod interfaces;
mod one_home;
mod orders;
mod readme;
mod security;
mod settings;
mod verdicts;

use std::{fs, path::PathBuf};

use ros::runtime::NodeFacts;
use testbed::project;

/// Every node, in the order used in the documents.
const NODES: [NodeFacts; 5] = [
    mail_bridge::node::FACTS,
    authenticator::node::FACTS,
    chatbot::node::FACTS,
    vehicle_router::node::FACTS,
    fleet_simulator::node::FACTS,
];

/// The command, which is no node.
const COMMAND: &str = "posthorn";

/// The content of a file of the project.
fn read(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Sorted names of the entries of a project folder.
fn list(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(project(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// Compares a committed file with what its sources generate; with `make docs`, writes the file instead.
pub(crate) fn is_current(path: &str, made: &str) {
    let file: PathBuf = project(path);
    if std::env::var_os("POSTHORN_REGENERATE").is_some() {
        fs::create_dir_all(file.parent().expect("folder")).expect(path);
        // Replace the file in one step, because other tests may be reading it.
        let whole = file.with_extension("new");
        fs::write(&whole, made).expect(path);
        fs::rename(whole, file).expect(path);
        return;
    }
    let committed = fs::read_to_string(file).unwrap_or_default();
    let same = committed.lines().zip(made.lines()).take_while(|(committed, made)| committed == made).count();
    assert!(
        committed == made,
        "{path} is not current from line {} on: run make docs and commit it\ncommitted: {:?}\nmade:      {:?}",
        same + 1,
        committed.lines().nth(same).unwrap_or_default(),
        made.lines().nth(same).unwrap_or_default(),
    );
}

/// A Markdown table. Outside of code, characters that would end a cell or start a tag are escaped.
fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    for row in rows {
        assert_eq!(row.len(), columns.len(), "{row:?}");
        let cells: Vec<_> = row.iter().map(|cell| escaped(cell)).collect();
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

fn escaped(cell: &str) -> String {
    let cell = cell.replace('|', "\\|");
    if cell.starts_with('`') { cell } else { cell.replace('<', "\\<") }
}

fn code(text: impl std::fmt::Display) -> String {
    format!("`{text}`")
}
