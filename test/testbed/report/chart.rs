// SPDX-License-Identifier: Apache-2.0
//! Draws a report: one panel per metric, one group of two horizontal bars per case, each bar with its number.

use std::fmt::Write;

use super::{Report, Row, number};

const WIDTH: f64 = 880.0;
const MARGIN: f64 = 24.0;
/// Where bars start, and the length of the longest.
const LEFT: f64 = 190.0;
const LONGEST: f64 = 560.0;
const BAR: f64 = 16.0;
const GROUP: f64 = 2.0 * BAR + 16.0;
const OURS: &str = "#1f6feb";
const THEIRS: &str = "#b0b7c0";
const TARGET: &str = "#d1242f";

/// The report as an SVG document.
pub(super) fn draw(report: &Report) -> String {
    let mut metrics: Vec<(&str, &str)> = Vec::new();
    for row in &report.rows {
        if !metrics.contains(&(row.metric, row.unit)) {
            metrics.push((row.metric, row.unit));
        }
    }
    let mut body = String::new();
    let mut with_target = false;
    let mut y = 88.0;
    for (metric, unit) in metrics {
        text(&mut body, MARGIN, y + 6.0, "metric", &format!("{metric} [{unit}]"));
        y += 20.0;
        let rows: Vec<_> =
            report.rows.iter().filter(|row| (row.metric, row.unit) == (metric, unit)).collect();
        with_target |= panel(&mut body, y, &rows);
        y += rows.len() as f64 * GROUP + 20.0;
    }
    text(&mut body, MARGIN, 34.0, "title", report.title);
    legend(&mut body, 58.0, report, with_target);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" viewBox=\"0 0 {WIDTH} {y}\">\n\
         <style>text {{ font: 13px 'DejaVu Sans', Verdana, sans-serif; fill: #1f2328 }} .title {{ font-size: 16px; \
         font-weight: bold }} .metric {{ font-weight: bold }} .end {{ text-anchor: end }}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn legend(body: &mut String, y: f64, report: &Report, with_target: bool) {
    let mut x = MARGIN;
    for (colour, label) in [(OURS, "posthorn"), (THEIRS, report.peer)] {
        let _ = writeln!(
            body,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>",
            y - 11.0
        );
        text(body, x + 18.0, y, "", label);
        // An estimate of the text's width.
        x += 18.0 + label.chars().count() as f64 * 8.0 + 24.0;
    }
    if with_target {
        line(body, x, y - 13.0, y + 3.0);
        text(body, x + 8.0, y, "", "target");
    }
}

/// Draws the groups of one metric on one scale that starts at zero; returns whether a target is marked on it.
fn panel(body: &mut String, top: f64, rows: &[&Row]) -> bool {
    let mut marked = false;
    let figures = rows.iter().flat_map(|row| [row.ours, row.theirs]).filter(|value| value.is_finite());
    let largest = figures.fold(0.0, f64::max);
    // A target far above every figure would flatten the bars, so one above 1.5 times the largest is not drawn.
    let targets = rows.iter().filter_map(|row| row.target()).filter(|&target| target <= 1.5 * largest);
    let scale = LONGEST / targets.fold(largest, f64::max).max(f64::MIN_POSITIVE);
    for (n, row) in rows.iter().enumerate() {
        let y = top + n as f64 * GROUP;
        text(body, LEFT - 10.0, y + BAR + 5.0, "end", &row.case);
        let target = row.target().map(|target| (target, target * scale));
        for (bar, value, colour) in [(0.0, row.ours, OURS), (1.0, row.theirs, THEIRS)] {
            let length = if value.is_finite() { (value * scale).max(1.0) } else { 0.0 };
            let y = y + bar * BAR;
            let _ = writeln!(
                body,
                "<rect class=\"bar\" x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>",
                BAR - 1.0
            );
            let mut label = number(value);
            if bar == 0.0
                && let (Some((target, _)), Some(holds)) = (target, row.holds())
            {
                let _ = write!(label, "  (target {}: {})", number(target), super::word(holds));
            }
            text(body, LEFT + length + 6.0, y + BAR - 4.0, "", &label);
        }
        if let Some((_, x)) = target.filter(|&(_, x)| x <= LONGEST + 0.5) {
            line(body, LEFT + x, y - 3.0, y + 2.0 * BAR + 2.0);
            marked = true;
        }
    }
    let bottom = top + rows.len() as f64 * GROUP - 12.0;
    let _ = writeln!(
        body,
        "<line x1=\"{LEFT}\" x2=\"{LEFT}\" y1=\"{}\" y2=\"{bottom}\" stroke=\"#57606a\"/>",
        top - 4.0
    );
    marked
}

/// Marks a target.
fn line(body: &mut String, x: f64, top: f64, bottom: f64) {
    let _ = writeln!(
        body,
        "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"{TARGET}\" stroke-width=\"2\"/>"
    );
}

fn text(body: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>");
}
