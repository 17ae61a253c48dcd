// SPDX-License-Identifier: Apache-2.0
//! Formats a benchmark's result: rows of our figure beside a peer's, as a table, as `target/bench/<name>.json` and as a
//! chart in `target/bench/<name>.svg`.

mod chart;

use std::{fmt::Write, fs};

use serde_json::{Value, json};

use super::project;

/// The target for our figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Promise {
    /// No target: the peer is there for comparison.
    Nothing,
    AtMost(f64),
    AtLeast(f64),
}

/// One figure of ours and the peer's.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub case: String,
    pub metric: &'static str,
    pub unit: &'static str,
    pub ours: f64,
    pub theirs: f64,
    pub promise: Promise,
}

impl Row {
    /// Our figure divided by theirs; none if theirs is zero.
    pub fn ratio(&self) -> Option<f64> {
        (self.theirs != 0.0).then(|| self.ours / self.theirs)
    }

    /// The target as a number.
    pub fn target(&self) -> Option<f64> {
        match self.promise {
            Promise::Nothing => None,
            Promise::AtMost(target) | Promise::AtLeast(target) => Some(target),
        }
    }

    /// Whether our figure meets the target; a NaN meets none.
    pub fn holds(&self) -> Option<bool> {
        match self.promise {
            Promise::Nothing => None,
            Promise::AtMost(target) => Some(self.ours <= target),
            Promise::AtLeast(target) => Some(self.ours >= target),
        }
    }
}

pub struct Report {
    /// The name, as in `make bench-<name>`.
    pub name: &'static str,
    /// One line that says what was measured.
    pub title: &'static str,
    pub peer: &'static str,
    pub rows: Vec<Row>,
}

impl Report {
    /// Prints the table and writes both files, creating their folder.
    pub fn publish(&self) {
        print!("{}", self.table());
        let directory = project("target/bench");
        fs::create_dir_all(&directory).expect("target/bench");
        for (ending, text) in [("json", format!("{:#}\n", self.json())), ("svg", chart::draw(self))] {
            let path = directory.join(format!("{}.{ending}", self.name));
            fs::write(&path, text).expect("target/bench is writable");
            println!("{}", path.display());
        }
    }

    fn table(&self) -> String {
        let mut lines =
            vec![["case", "metric", "unit", "posthorn", self.peer, "ratio", "target"].map(str::to_owned)];
        for row in &self.rows {
            let ratio = row.ratio().map_or("–".to_owned(), |ratio| format!("{} ×", number(ratio)));
            let target = match (row.promise, row.holds()) {
                (Promise::AtMost(target), Some(holds)) => format!("≤ {} {}", number(target), word(holds)),
                (Promise::AtLeast(target), Some(holds)) => format!("≥ {} {}", number(target), word(holds)),
                _ => String::new(),
            };
            lines.push([
                row.case.clone(),
                row.metric.to_owned(),
                row.unit.to_owned(),
                number(row.ours),
                number(row.theirs),
                ratio,
                target,
            ]);
        }
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 7] = std::array::from_fn(width);
        let mut out = format!("{}\n\n", self.title);
        for (n, line) in lines.iter().enumerate() {
            for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
                // Align numbers to the right.
                let padded = if (3..6).contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                };
                let _ = write!(out, "{padded}  ");
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
            if n == 0 {
                let _ = writeln!(out, "{}", "─".repeat(widths.iter().sum::<usize>() + 12));
            }
        }
        out.push('\n');
        out
    }

    fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "case": row.case, "metric": row.metric, "unit": row.unit, "ours": row.ours, "peer": self.peer,
                "theirs": row.theirs, "ratio": row.ratio(), "target": row.target(), "holds": row.holds(),
            })
        };
        self.rows.iter().map(row).collect()
    }
}

fn word(holds: bool) -> &'static str {
    if holds { "holds" } else { "MISSED" }
}

/// Formats with about three significant digits, and at most two decimals.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// The smallest element of `sorted` that at least `percent` of the elements do not exceed (nearest rank).
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the slice")]
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(promise: Promise) -> Row {
        Row { case: "10 mails/s".to_owned(), metric: "p99", unit: "ms", ours: 30.0, theirs: 20.0, promise }
    }

    fn report() -> Report {
        let rows = vec![row(Promise::AtMost(25.0)), row(Promise::Nothing)];
        Report { name: "test", title: "A < B & C", peer: "a peer", rows }
    }

    #[test]
    fn compares_with_a_target_in_its_direction() {
        assert_eq!(row(Promise::AtMost(30.0)).holds(), Some(true));
        assert_eq!(row(Promise::AtMost(29.9)).holds(), Some(false));
        assert_eq!(row(Promise::AtLeast(30.0)).holds(), Some(true));
        assert_eq!(row(Promise::AtLeast(30.1)).holds(), Some(false));
        assert_eq!(row(Promise::Nothing).holds(), None);
        assert_eq!(Row { ours: f64::NAN, ..row(Promise::AtMost(1.0)) }.holds(), Some(false));
    }

    #[test]
    fn has_no_ratio_to_nothing() {
        assert_eq!(row(Promise::Nothing).ratio(), Some(1.5));
        assert_eq!(Row { theirs: 0.0, ..row(Promise::Nothing) }.ratio(), None);
    }

    #[test]
    fn writes_every_field_of_a_row() {
        let json = report().json();
        let expected = json!({
            "case": "10 mails/s", "metric": "p99", "unit": "ms", "ours": 30.0, "peer": "a peer", "theirs": 20.0,
            "ratio": 1.5, "target": 25.0, "holds": false,
        });
        assert_eq!(json[0], expected);
        assert_eq!(json[1]["target"], Value::Null);
        assert_eq!(json[1]["holds"], Value::Null);
    }

    #[test]
    fn says_in_the_table_that_a_target_is_missed() {
        let table = report().table();
        assert!(table.contains("≤ 25.0 MISSED"), "{table}");
        assert!(table.contains("1.50 ×"), "{table}");
    }

    #[test]
    fn draws_a_bar_for_each_figure_and_escapes_texts() {
        let svg = chart::draw(&report());
        assert_eq!(svg.matches("class=\"bar").count(), 4, "{svg}");
        assert!(svg.contains("A &lt; B &amp; C"), "{svg}");
        assert!(!svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn takes_percentiles_by_nearest_rank() {
        let sorted: Vec<_> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 50.0), 100.0);
        assert_eq!(percentile(&sorted, 99.0), 198.0);
        assert_eq!(percentile(&[7.0], 99.0), 7.0);
    }
}
