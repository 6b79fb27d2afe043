//! Owns the plot of docs/leases.md: admitted and callouts of each cell, as bars. Knows no rule.

use std::fmt::Write as _;

use super::patterns::{LIMITS, PATTERNS};
use super::{Cells, Holders};

const LEFT: f64 = 250.0;
const PANEL: f64 = 190.0;
const ROW: f64 = 34.0;
const TOP: f64 = 60.0;
const BAR: f64 = 150.0;

/// A panel for each limit: of each load two bars, worker holders and process holders; above, what of the
/// ideal is admitted, and below it in another colour the callouts per request.
pub(super) fn svg(cells: &Cells) -> String {
    let width = LEFT + PANEL * LIMITS.len() as f64 + 10.0;
    let height = TOP + ROW * PATTERNS.len() as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\">Green: admitted, of what an ideal bucket admits. Blue: callouts per request. Upper bars: 16 worker holders; lower: 4 process holders. Full width is 1.</text>\n"
    );
    for (limit, of) in LIMITS.iter().enumerate() {
        let x = LEFT + PANEL * limit as f64;
        line(&mut svg, &format!("<text x=\"{x}\" y=\"48\">{}</text>", of.name));
    }
    for (pattern, of) in PATTERNS.iter().enumerate() {
        let y = TOP + ROW * pattern as f64;
        line(&mut svg, &format!("<text x=\"10\" y=\"{}\">{}</text>", y + 18.0, of.name()));
        for limit in 0..LIMITS.len() {
            let x = LEFT + PANEL * limit as f64;
            for (nth, who) in [Holders::Workers, Holders::Processes].into_iter().enumerate() {
                let Some(cell) = cells.patterns.get(&(pattern, limit, who)) else { continue };
                let y = y + 14.0 * nth as f64;
                bar(&mut svg, x, y, cell.admitted, "#3a9d5d");
                bar(&mut svg, x, y + 6.0, cell.callouts, "#3b6fb5");
            }
            let end = x + BAR;
            let bottom = y + ROW;
            line(
                &mut svg,
                &format!(
                    "<line x1=\"{end}\" y1=\"{y}\" x2=\"{end}\" y2=\"{bottom}\" stroke=\"#999\"/>"
                ),
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn bar(svg: &mut String, x: f64, y: f64, part: f64, colour: &str) {
    let width = (part.clamp(0.0, 1.2) * BAR).max(0.5);
    line(
        svg,
        &format!("<rect x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"5\" fill=\"{colour}\"/>"),
    );
}

fn line(svg: &mut String, text: &str) {
    writeln!(svg, "{text}").expect("a String takes everything");
}
