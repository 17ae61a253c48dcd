// SPDX-License-Identifier: Apache-2.0
//! README.md shows what `make demo` prints: the first two scenes and the last lines.

use std::process::Command;

use testbed::executable;

use super::{is_current, read};

const BEGIN: &str = "<!-- generated: demo -->\n```\n";
const END: &str = "```\n<!-- end -->";

#[test]
fn the_readme_shows_what_the_demo_prints() {
    let output = Command::new(executable("demo")).output().expect("demo");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    let scenes: Vec<_> = (0..lines.len()).filter(|&at| lines[at].starts_with("── ")).collect();
    let end = lines.iter().rposition(|line| line.contains(" checks: ")).expect("the last lines");
    let shown = [&lines[scenes[0]..scenes[2]], &["…", ""], &lines[end..]].concat();
    let shown: String = shown.iter().flat_map(|line| [line, "\n"]).collect();

    let readme = read("README.md");
    let (before, rest) = readme.split_once(BEGIN).expect("README.md has the marker of the demo");
    let (committed, after) = rest.split_once(END).expect("README.md has the end of the demo");
    if masked(committed) != masked(&shown) {
        is_current("README.md", &format!("{before}{BEGIN}{shown}{END}{after}"));
    }
}

/// Without what differs from run to run: ids, hashes, positions, times. The number of checks does not.
fn masked(text: &str) -> String {
    let mut made = String::new();
    for line in text.split_inclusive('\n') {
        for piece in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_') {
            let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let counts = line.contains(" checks: ") || word.starts_with("truck_");
            let differs = word.contains(|c: char| c.is_ascii_digit()) && !counts;
            made.push_str(if differs { "#" } else { word });
            made.push_str(&piece[word.len()..]);
        }
    }
    made
}
