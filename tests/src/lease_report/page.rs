//! Owns the tables of docs/leases.md. What stands around them is written by hand.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::patterns::{LIMITS, PATTERNS};
use super::{Cell, Cells, Holders, STICKY};

const BEGIN: &str = "<!-- make lease-report: begin -->\n";
const END: &str = "<!-- make lease-report: end -->\n";

/// Puts the tables in their place.
pub(super) fn write(path: &Path, cells: &Cells) -> Result<(), String> {
    let page = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let place = page.split_once(BEGIN).zip(page.split_once(END));
    let ((before, _), (_, after)) =
        place.ok_or_else(|| format!("{}: no {BEGIN} and {END}", path.display()))?;
    let page = format!("{before}{BEGIN}{}{END}{after}", tables(cells));
    fs::write(path, page).map_err(|error| format!("{}: {error}", path.display()))
}

fn show(cell: Option<&Cell>) -> String {
    let Some(Cell { admitted, over, callouts, waited }) = cell else { return "-".to_owned() };
    let over = if *over > 0.0 { format!(" **+{over:.1}**") } else { String::new() };
    format!("{admitted:.3}{over} / {callouts:.3} / {waited:.3}")
}

/// As markdown.
pub(super) fn tables(cells: &Cells) -> String {
    let mut text = String::from("| load |");
    for limit in LIMITS {
        write!(text, " {} W | {0} P |", limit.name).expect("a String takes everything");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(2 * LIMITS.len()));
    for (number, pattern) in PATTERNS.iter().enumerate() {
        write!(text, "\n| {} |", pattern.name()).expect("a String takes everything");
        for limit in 0..LIMITS.len() {
            for who in [Holders::Workers, Holders::Processes] {
                let cell = show(cells.patterns.get(&(number, limit, who)));
                write!(text, " {cell} |").expect("a String takes everything");
            }
        }
    }
    text.push_str("\n\n| 1000/s by 4 processes | leased | exact |\n|---|---|---|");
    for (number, pattern) in PATTERNS.iter().enumerate().take(3) {
        let of = |who| show(cells.patterns.get(&(number, 0, who)));
        let (leased, exact) = (of(Holders::Processes), of(Holders::Nobody));
        write!(text, "\n| {} | {leased} | {exact} |", pattern.name())
            .expect("a String takes everything");
    }
    text.push_str("\n\n| each client 100/min, on one worker for 30 s | W | P |\n|---|---|---|");
    for (number, (_, name)) in STICKY.iter().enumerate() {
        let of = |who| show(cells.sticky.get(&(number, who)));
        write!(text, "\n| {name} | {} | {} |", of(Holders::Workers), of(Holders::Processes))
            .expect("a String takes everything");
    }
    text.push('\n');
    text
}
