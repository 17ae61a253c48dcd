// SPDX-License-Identifier: Apache-2.0
//! Curves over time: as a table, as lines of text, and as `target/bench/<name>.svg`.

use std::{fmt::Write, fs, path::PathBuf};

use testbed::project;

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 370.0;
const RIGHT: f64 = 700.0;
const COLOURS: [&str; 5] = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df"];
/// Characters for the eight heights of a column.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const COLUMNS: usize = 72;

/// A figure over time.
pub struct Curve {
    pub name: String,
    /// Pairs of minutes since the start and the figure.
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    pub fn most(&self) -> f64 {
        self.points.iter().map(|point| point.1).fold(0.0, f64::max)
    }

    /// The figure at this fraction of the points.
    fn at(&self, part: f64) -> f64 {
        let last = self.points.len() - 1;
        self.points[(last as f64 * part).round() as usize].1
    }

    /// Change per minute over the second half, by least squares.
    fn slope(&self) -> f64 {
        let half = &self.points[self.points.len() / 2..];
        let count = half.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| half.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let covariance: f64 = half.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        let variance: f64 = half.iter().map(|point| (point.0 - x).powi(2)).sum();
        if variance > 0.0 { covariance / variance } else { 0.0 }
    }

    /// The curve as one line of text, scaled from zero to its maximum.
    pub fn plot(&self) -> String {
        let columns = (0..COLUMNS).map(|column| {
            let part = self.at(column as f64 / (COLUMNS - 1) as f64) / self.most().max(f64::MIN_POSITIVE);
            BARS[((part * 8.0) as usize).min(7)]
        });
        format!("{:<16}{} {:.0}", self.name, columns.collect::<String>(), self.most())
    }
}

/// Each curve's value at its start, middle and end, its maximum, and its slope.
pub fn table(curves: &[Curve]) -> String {
    let mut out = format!(
        "{:<16}{:>8}{:>8}{:>8}{:>8}{:>26}\n",
        "", "start", "middle", "end", "most", "a minute, second half"
    );
    for curve in curves {
        let [start, middle, end] = [0.0, 0.5, 1.0].map(|part| curve.at(part));
        let (most, slope) = (curve.most(), curve.slope());
        let _ =
            writeln!(out, "{:<16}{start:>8.1}{middle:>8.1}{end:>8.1}{most:>8.1}{slope:>+26.3}", curve.name);
    }
    out
}

/// Writes the chart and returns its path.
pub fn publish(name: &str, title: &str, curves: &[Curve]) -> PathBuf {
    let longest =
        curves.iter().filter_map(|curve| curve.points.last()).map(|point| point.0).fold(0.0, f64::max);
    let most = curves.iter().map(Curve::most).fold(0.0, f64::max);
    let (longest, top) = (longest.max(f64::MIN_POSITIVE), (most / 10.0).ceil().max(1.0) * 10.0);
    let x = |minutes: f64| LEFT + minutes / longest * (RIGHT - LEFT);
    let y = |figure: f64| BOTTOM - figure / top * (BOTTOM - TOP);
    let mut body = format!("<text x=\"{LEFT}\" y=\"30\" class=\"title\">{title}</text>\n");
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (figure, minutes) = (top * part, longest * part);
        let _ = writeln!(
            body,
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{0}\" y2=\"{0}\" stroke=\"#d0d7de\"/>\n\
             <text x=\"{1}\" y=\"{2}\" class=\"end\">{figure:.0} MB</text>\n\
             <text x=\"{3}\" y=\"{4}\" class=\"middle\">{minutes:.1} min</text>",
            y(figure),
            LEFT - 6.0,
            y(figure) + 4.0,
            x(minutes),
            BOTTOM + 22.0
        );
    }
    for (n, (curve, colour)) in curves.iter().zip(COLOURS).enumerate() {
        let points: String =
            curve.points.iter().map(|point| format!("{:.1},{:.1} ", x(point.0), y(point.1))).collect();
        let label = TOP + 22.0 * n as f64;
        let _ = writeln!(
            body,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n\
             <rect x=\"{0}\" y=\"{1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n\
             <text x=\"{2}\" y=\"{label}\">{3}</text>",
            RIGHT + 16.0,
            label - 11.0,
            RIGHT + 34.0,
            curve.name
        );
    }
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\">\n\
         <style>text {{ font: 13px 'DejaVu Sans', Verdana, sans-serif; fill: #1f2328 }} .title {{ font-size: 16px; \
         font-weight: bold }} .end {{ text-anchor: end }} .middle {{ text-anchor: middle }}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    );
    let directory = project("target/bench");
    fs::create_dir_all(&directory).expect("target/bench");
    let path = directory.join(format!("{name}.svg"));
    fs::write(&path, svg).expect("target/bench is writable");
    path
}
