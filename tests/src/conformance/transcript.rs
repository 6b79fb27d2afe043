//! Owns the comparison: entries become one text, moment by moment and lane by lane. It must not
//! know where they came from.

use std::collections::BTreeMap;

use super::record::{Entry, Lane};

/// Closer moments are one: a real machine cannot keep them apart.
const MOMENT_MS: f64 = 30.0;
/// How much earlier than its moment something may seem to be: two clocks are read.
const EARLY_MS: f64 = 5.0;

/// What happened, in an order that two runs can share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// The lines.
    pub lines: Vec<String>,
}

/// The moments at which anything happened in the simulator; a real run is cut at the same.
pub(super) fn moments(entries: &[Entry]) -> Vec<f64> {
    let mut all: Vec<f64> = entries.iter().map(|entry| entry.at_ms).collect();
    all.retain(|at_ms| *at_ms < f64::MAX);
    all.push(0.0);
    all.sort_by(f64::total_cmp);
    let mut moments: Vec<f64> = Vec::new();
    for at_ms in all {
        if moments.last().is_none_or(|last| at_ms - last >= MOMENT_MS) {
            moments.push(at_ms);
        }
    }
    moments
}

// === impl Transcript ===

impl Transcript {
    /// Orders entries: first what roots did, which no timeline binds, then moment by moment, within
    /// a moment lane by lane, within a lane as it happened.
    pub(super) fn new(entries: &[Entry], moments: &[f64]) -> Self {
        let section_of = |entry: &Entry| match entry.lane {
            Lane::Root { .. } => 0,
            _ if entry.at_ms == f64::MAX => moments.len() + 1,
            _ => moments.iter().rposition(|m| *m <= entry.at_ms + EARLY_MS).unwrap_or(0) + 1,
        };
        let calls = numbered_calls(entries, &section_of);
        let mut sections: BTreeMap<(usize, Lane), Vec<&Entry>> = BTreeMap::new();
        for entry in entries {
            let lane = calls.get(&entry.lane).unwrap_or(&entry.lane).clone();
            sections.entry((section_of(entry), lane)).or_default().push(entry);
        }
        let mut lines = Vec::new();
        let mut current = None;
        for ((section, lane), mut entries) in sections {
            if current != Some(section) {
                current = Some(section);
                lines.push(match section {
                    0 => "roots".to_owned(),
                    nth if nth > moments.len() => "at the end".to_owned(),
                    nth => format!("{} ms", moments[nth - 1]),
                });
            }
            // Stable: what was written first at one moment stays first.
            entries.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
            let name = lane.name();
            lines.extend(entries.iter().map(|entry| format!("  {name:<12} {}", entry.text)));
        }
        Self { lines }
    }

    /// Both texts in one, `-` before what only this has and `+` before what only the other has.
    pub fn diff(&self, other: &Self) -> String {
        let (a, b) = (&self.lines, &other.lines);
        // The longest common subsequence, from behind.
        let mut longest = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
        for i in (0..a.len()).rev() {
            for j in (0..b.len()).rev() {
                longest[i][j] = if a[i] == b[j] {
                    longest[i + 1][j + 1] + 1
                } else {
                    longest[i + 1][j].max(longest[i][j + 1])
                };
            }
        }
        let (mut i, mut j, mut marked) = (0, 0, Vec::new());
        while i < a.len() || j < b.len() {
            if i < a.len() && j < b.len() && a[i] == b[j] {
                marked.push((' ', a[i].as_str()));
                (i, j) = (i + 1, j + 1);
            } else if i < a.len() && (j == b.len() || longest[i + 1][j] >= longest[i][j + 1]) {
                marked.push(('-', a[i].as_str()));
                i += 1;
            } else {
                marked.push(('+', b[j].as_str()));
                j += 1;
            }
        }
        around_marks(&marked)
    }
}

/// Requests that reach a service in one moment come on connections of their own, in any order: they
/// are numbered by what they say.
fn numbered_calls(
    entries: &[Entry],
    section_of: &impl Fn(&Entry) -> usize,
) -> BTreeMap<Lane, Lane> {
    let mut first: BTreeMap<&Lane, (bool, usize, &str)> = BTreeMap::new();
    for entry in entries {
        if let Lane::Call { is_upstream, .. } = entry.lane {
            let told = (is_upstream, section_of(entry), entry.text.as_str());
            first.entry(&entry.lane).or_insert(told);
        }
    }
    let mut calls: Vec<_> = first.into_iter().map(|(lane, told)| (told, lane)).collect();
    calls.sort();
    let mut counts = [0, 0];
    let number = |((is_upstream, ..), lane): ((bool, usize, &str), &Lane)| {
        let count = &mut counts[usize::from(is_upstream)];
        *count += 1;
        (lane.clone(), Lane::Call { is_upstream, nth: *count })
    };
    calls.into_iter().map(number).collect()
}

/// Marked lines with their neighbours; the headings of moments always stand.
fn around_marks(marked: &[(char, &str)]) -> String {
    const NEIGHBOURS: usize = 4;
    let mut out = Vec::new();
    for (at, (mark, line)) in marked.iter().enumerate() {
        let from = at.saturating_sub(NEIGHBOURS);
        let to = (at + NEIGHBOURS + 1).min(marked.len());
        let is_near = marked[from..to].iter().any(|(mark, _)| *mark != ' ');
        if is_near || !line.starts_with(' ') {
            out.push(format!("{mark} {line}"));
        } else if out.last().is_some_and(|last| last != "  ...") {
            out.push("  ...".to_owned());
        }
    }
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at_ms: f64, lane: Lane, text: &str) -> Entry {
        Entry { at_ms, lane, text: text.to_owned() }
    }

    fn client() -> Lane {
        Lane::Client { name: "a".to_owned(), nth: 1 }
    }

    fn call(nth: usize) -> Lane {
        Lane::Call { is_upstream: false, nth }
    }

    #[test]
    fn what_is_late_belongs_to_the_moment_before() {
        let simulated = [entry(0.0, client(), "one"), entry(100.0, client(), "two")];
        let moments = moments(&simulated);
        assert_eq!(moments, [0.0, 100.0]);
        let on_time = Transcript::new(&simulated, &moments);
        let rows =
            [(60.0, 180.0, true), (-3.0, 96.0, true), (99.0, 180.0, false), (0.0, 80.0, false)];
        for (one, two, is_same) in rows {
            let real = [entry(one, client(), "one"), entry(two, client(), "two")];
            let is_equal = Transcript::new(&real, &moments) == on_time;
            assert_eq!(is_equal, is_same, "{one} {two}");
        }
    }

    #[test]
    fn the_order_of_one_lane_counts_and_that_of_two_does_not() {
        let told = |entries: &[Entry]| Transcript::new(entries, &[0.0]).lines;
        let (a, b) = (entry(0.0, client(), "a"), entry(1.0, call(1), "b"));
        let (b_first, a_then) = (entry(0.0, call(1), "b"), entry(1.0, client(), "a"));
        assert_eq!(told(&[a, b]), told(&[b_first, a_then]));
        let (one, two) = (entry(0.0, client(), "1"), entry(1.0, client(), "2"));
        let (two_first, one_then) = (entry(0.0, client(), "2"), entry(1.0, client(), "1"));
        assert_ne!(told(&[one, two]), told(&[two_first, one_then]));
    }

    #[test]
    fn calls_of_one_moment_are_numbered_by_what_they_say() {
        let told = |first: &str, second: &str| {
            let entries = [entry(0.0, call(1), first), entry(1.0, call(2), second)];
            Transcript::new(&entries, &[0.0]).lines
        };
        assert_eq!(told("GET /a", "GET /b"), told("GET /b", "GET /a"));
        assert_ne!(told("GET /a", "GET /b"), told("GET /a", "GET /c"));
    }

    #[test]
    fn a_difference_shows_both_sides() {
        let lines =
            |texts: &[&str]| Transcript { lines: texts.iter().map(|t| (*t).to_owned()).collect() };
        let (simulator, envoy) = (lines(&["0 ms", "  a", "  b"]), lines(&["0 ms", "  a", "  c"]));
        assert_eq!(simulator.diff(&envoy), "  0 ms\n    a\n-   b\n+   c");
    }
}
