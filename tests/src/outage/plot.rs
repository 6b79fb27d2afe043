//! Owns the plot of docs/outage.md: of each half second what each Envoy let through. Knows no parts.

use std::fmt::Write as _;
use std::time::Duration;

use super::{ENVOYS, Fate, PHASES, RATE, Report};
use crate::puppet::Does;

const LEFT: f64 = 90.0;
const WIDTH: f64 = 900.0;
const TOP: f64 = 46.0;
const PANEL: f64 = 90.0;
const GAP: f64 = 16.0;
const STRIP: f64 = 14.0;
const BIN: Duration = Duration::from_millis(500);

/// A panel for each Envoy: green bars for requests that were let through and answered well, red ones above for those
/// that failed. What is missing to the grey line was refused. Below, where the region's breaker stood.
pub(super) fn svg(report: &Report) -> String {
    let whole = report.ends(PHASES.len() - 1);
    let x = |at: Duration| LEFT + WIDTH * at.as_secs_f64() / whole.as_secs_f64();
    let bottom = TOP + (PANEL + GAP) * ENVOYS as f64;
    let (width, height) = (LEFT + WIDTH + 20.0, bottom + STRIP + 44.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"16\">What three Envoys let through to one upstream, in each half second. Green: answered well. Red: failed. Up to the line: refused.</text>\n"
    );
    for (nth, phase) in PHASES.iter().enumerate() {
        let (from, to) = (x(report.began[nth]), x(report.ends(nth)));
        let fill = match (phase.does, phase.order) {
            (_, Some("force_open")) => "#e4e4f4",
            (Does::Works, _) => "#ffffff",
            _ => "#fbeaea",
        };
        let (y, high, wide) = (TOP - 4.0, bottom - TOP, to - from);
        line(
            &mut svg,
            &format!(
                "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{wide:.1}\" height=\"{high}\" fill=\"{fill}\"/>"
            ),
        );
        let text = phase.text;
        line(
            &mut svg,
            &format!("<text x=\"{:.1}\" y=\"36\" font-size=\"10\">{text}</text>", from + 2.0),
        );
        line(
            &mut svg,
            &format!(
                "<line x1=\"{from:.1}\" y1=\"26\" x2=\"{from:.1}\" y2=\"{bottom}\" stroke=\"#bbb\"/>"
            ),
        );
    }
    let of_bin = f64::from(RATE) * BIN.as_secs_f64();
    for envoy in 0..ENVOYS {
        let floor = TOP + (PANEL + GAP) * envoy as f64 + PANEL;
        let unit = (PANEL - 10.0) / of_bin;
        line(
            &mut svg,
            &format!("<text x=\"10\" y=\"{}\">Envoy {}</text>", floor - PANEL / 2.0, envoy + 1),
        );
        let full = floor - of_bin * unit;
        line(
            &mut svg,
            &format!(
                "<line x1=\"{LEFT}\" y1=\"{full}\" x2=\"{}\" y2=\"{full}\" stroke=\"#999\"/>",
                LEFT + WIDTH
            ),
        );
        let bins = whole.as_millis() / BIN.as_millis();
        for bin in 0..u32::try_from(bins).expect("few") {
            let within = BIN * bin..BIN * (bin + 1);
            let count = |fate| {
                let of = |one: &&super::Request| one.envoy == envoy && one.fate == fate;
                let there = report.requests.iter().filter(of);
                there.filter(|one| within.contains(&one.sent)).count() as f64 * unit
            };
            let (well, failed) = (count(Fate::Well), count(Fate::Failed));
            let (left, wide) = (x(within.start), x(within.end) - x(within.start));
            for (high, y, fill) in
                [(well, floor - well, "#3a9d5d"), (failed, floor - well - failed, "#c0392b")]
            {
                if high > 0.0 {
                    line(
                        &mut svg,
                        &format!(
                            "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" fill=\"{fill}\"/>"
                        ),
                    );
                }
            }
        }
        line(
            &mut svg,
            &format!(
                "<line x1=\"{LEFT}\" y1=\"{floor}\" x2=\"{}\" y2=\"{floor}\" stroke=\"#333\"/>",
                LEFT + WIDTH
            ),
        );
    }
    line(&mut svg, &format!("<text x=\"10\" y=\"{}\">region</text>", bottom + STRIP - 2.0));
    for (nth, (at, state)) in report.states.iter().enumerate() {
        let end = report.states.get(nth + 1).map_or(whole, |(next, _)| *next);
        let fill = match state.as_str() {
            "closed" => "#3a9d5d",
            "half_open" => "#e2b33c",
            "forced_open" => "#5b5bb0",
            _ => "#c0392b",
        };
        let (from, wide) = (x(*at), x(end) - x(*at));
        line(
            &mut svg,
            &format!(
                "<rect x=\"{from:.1}\" y=\"{bottom}\" width=\"{wide:.1}\" height=\"{STRIP}\" fill=\"{fill}\"/>"
            ),
        );
    }
    let y = bottom + STRIP + 16.0;
    for second in (0..=whole.as_secs()).step_by(10) {
        let at = x(Duration::from_secs(second));
        line(
            &mut svg,
            &format!(
                "<text x=\"{at:.1}\" y=\"{y}\" text-anchor=\"middle\" font-size=\"10\">{second} s</text>"
            ),
        );
    }
    let y = y + 18.0;
    line(
        &mut svg,
        &format!(
            "<text x=\"{LEFT}\" y=\"{y}\" font-size=\"11\">Region: green closed, red open, yellow half open, blue forced open by an operator; looked at every 250 ms.</text>"
        ),
    );
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, text: &str) {
    writeln!(svg, "{text}").expect("a String takes everything");
}
