//! Owns the reading of the conformance plugin's log lines, of Envoy's log around them, and of its
//! access log. It must not judge what they say.

use std::collections::BTreeMap;

use super::clock::Clock;
use super::corpus::Case;
use super::record::{Entry, Lane};

/// How Envoy is told to write its log: seconds, nanoseconds, thread, message.
pub(super) const LOG_FORMAT: &str = "%E %F %t %v";
/// What an access log line begins with; then come the listener's name, the client's port, details.
pub(super) const ACCESS: &str = "ACCESS";

/// One line that the plugin logged.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) at_ms: f64,
    pub(super) vm: String,
    /// Differs from VM to VM.
    pub(super) instance: String,
    pub(super) tag: String,
    pub(super) is_root: bool,
    pub(super) context: u32,
    pub(super) text: String,
}

// === impl Line ===

impl Line {
    /// Reads `@instance tag kind context text`; what else a plugin writes is told of no context.
    pub(super) fn of_message(message: &str, at_ms: f64, vm: &str) -> Option<Self> {
        let (vm_name, tag) = (vm.to_owned(), "-".to_owned());
        let Some(line) = message.strip_prefix('@') else {
            if message.trim().is_empty() {
                return None;
            }
            let (instance, text) = (String::new(), format!("writes {message:?}"));
            let line = Self { at_ms, vm: vm_name, instance, tag, is_root: true, context: 0, text };
            return Some(line);
        };
        let mut words = line.splitn(5, ' ');
        Some(Self {
            at_ms,
            vm: vm.to_owned(),
            instance: words.next()?.to_owned(),
            tag: words.next()?.to_owned(),
            is_root: words.next()? == "root",
            context: words.next()?.parse().ok()?,
            text: masked(words.next()?),
        })
    }

    pub(super) fn lane(&self) -> Lane {
        let (vm, tag, context) = (self.vm.clone(), self.tag.clone(), self.context);
        if self.is_root {
            Lane::Root { vm, tag, context }
        } else {
            Lane::Stream { vm, tag, context }
        }
    }
}

/// Without what is another one in each run: ports, dates, durations, ids of requests, and the size of
/// a configuration that names its clusters.
fn masked(text: &str) -> String {
    if text.starts_with("configure(") {
        return "configure(..)".to_owned();
    }
    let text = masked_after(text, "size(\"response_headers\") = 0 ", |c| c.is_ascii_digit());
    let text = masked_after(&text, "127.0.0.1:", |c| c.is_ascii_digit());
    let text = masked_after(&text, "\"x-envoy-upstream-service-time\": \"", |c| c.is_ascii_digit());
    let text = masked_after(&text, "\"date\": \"", |c| c != '"');
    masked_after(&text, "\"x-request-id\": \"", |c| c.is_ascii_hexdigit() || c == '-')
}

fn masked_after(text: &str, mark: &str, is_masked: impl Fn(char) -> bool) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out += mark;
        let rest = part.trim_start_matches(&is_masked);
        out += if rest.len() < part.len() { ".." } else { "" };
        out += rest;
    }
    out
}

/// Envoy's whole output, by the scenarios it is about.
#[derive(Debug, Default)]
pub(super) struct Written<'o> {
    lines: BTreeMap<&'o str, Vec<Raw<'o>>>,
    /// Response code details by scenario and the client's port.
    details: BTreeMap<(&'o str, u16), &'o str>,
}

/// A line of the plugin's in Envoy's log: `E F t wasm log NAME ROOT VM_ID: message`.
#[derive(Debug)]
struct Raw<'o> {
    unix_ms: f64,
    thread: &'o str,
    vm_id: &'o str,
    message: &'o str,
}

// === impl Written ===

impl<'o> Written<'o> {
    /// Reads Envoy's output.
    pub(super) fn read(output: &'o str) -> Self {
        let mut written = Self::default();
        for line in output.lines() {
            if let Some(rest) = line.strip_prefix(ACCESS) {
                written.details.extend(details(rest));
            } else if let Some(raw) = raw(line) {
                // A VM's id is its scenario's, or begins with it.
                let id = raw.vm_id.split('-').next().unwrap_or_default();
                written.lines.entry(id).or_default().push(raw);
            }
        }
        written
    }

    /// The response code details of one request.
    pub(super) fn details(&self, case: &Case, port: u16) -> Option<&'o str> {
        self.details.get(&(case.id.as_str(), port)).copied()
    }

    /// What the plugins of one scenario logged, its own marks taken off names.
    pub(super) fn entries(&self, case: &Case, clock: &Clock) -> Vec<Entry> {
        let told = self.lines.get(case.id.as_str()).into_iter().flatten();
        let lines: Vec<(&Raw<'_>, Line)> = told
            .filter_map(|raw| {
                let message = raw.message.replace(&case.own(""), "");
                Some((raw, Line::of_message(&message, clock.at_ms(raw.unix_ms), "")?))
            })
            .collect();
        let labels = labels(&lines);
        let entry = |(raw, mut line): (&Raw<'_>, Line)| {
            let unknown = "w0".to_owned();
            let key = (raw.vm_id.to_owned(), line.instance.clone());
            line.vm = labels.get(&key).cloned().unwrap_or(unknown);
            Entry { at_ms: line.at_ms, lane: line.lane(), text: line.text }
        };
        lines.into_iter().map(entry).collect()
    }
}

fn details(rest: &str) -> Option<((&str, u16), &str)> {
    let mut words = rest.trim_start().splitn(3, ' ');
    let (id, port) = (words.next()?, words.next()?.parse().ok()?);
    Some(((id, port), words.next().filter(|details| !details.is_empty())?))
}

fn raw(line: &str) -> Option<Raw<'_>> {
    let mut words = line.splitn(4, ' ');
    let seconds: f64 = words.next()?.parse().ok()?;
    let nanoseconds: f64 = words.next()?.parse().ok()?;
    let thread = words.next()?;
    let (names, message) = words.next()?.strip_prefix("wasm log")?.split_once(": ")?;
    let unix_ms = seconds * 1000.0 + nanoseconds / 1_000_000.0;
    Some(Raw { unix_ms, thread, vm_id: names.rsplit(' ').next()?, message })
}

/// Which VM is which, by its id and its instance: a configuration is tried in a canary, then the main
/// thread's VM and the worker's are made; each later VM of the main thread is a canary again. VMs of
/// one id are told apart by the plugin that they were made for.
fn labels(lines: &[(&Raw<'_>, Line)]) -> BTreeMap<(String, String), String> {
    let main_thread = lines.first().map(|(raw, _)| raw.thread);
    let mut order: Vec<(&str, &str, &str)> = Vec::new();
    let mut tags: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (raw, line) in lines.iter().filter(|(_, line)| !line.instance.is_empty()) {
        let key = (raw.vm_id, line.instance.as_str());
        if !order.iter().any(|(vm_id, instance, _)| (*vm_id, *instance) == key) {
            order.push((key.0, key.1, raw.thread));
        }
        if line.tag != "-" {
            tags.entry(key).or_insert(&line.tag);
        }
    }
    let mut on_main: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut labels = BTreeMap::new();
    for (vm_id, instance, thread) in order {
        let tag = tags.get(&(vm_id, instance)).copied().unwrap_or_default();
        let count = on_main.entry((vm_id, tag)).or_default();
        let label = if Some(thread) == main_thread {
            *count += 1;
            if *count == 2 { "main" } else { "canary" }
        } else {
            "w0"
        };
        labels.insert((vm_id.to_owned(), instance.to_owned()), label.to_owned());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_masked() {
        let rows = [
            ("configure(123)", "configure(..)"),
            ("= 0 \"127.0.0.1:4711\"", "= 0 \"127.0.0.1:..\""),
            (
                "{\"x-request-id\": \"ab-12\", \"x\": \"1\"}",
                "{\"x-request-id\": \"..\", \"x\": \"1\"}",
            ),
            ("{\"date\": \"Sat, 21 Nov\"}", "{\"date\": \"..\"}"),
            ("get(1) = 0 \"x\"", "get(1) = 0 \"x\""),
        ];
        for (text, expected) in rows {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn lines_are_read_and_vms_are_known_by_their_order() {
        let raw = |thread, vm_id| Raw { unix_ms: 0.0, thread, vm_id, message: "" };
        let line = |message: &str| Line::of_message(message, 0.0, "").expect("a line");
        let (one, two) = (raw("7", "x.1"), raw("8", "x.1"));
        let lines = [
            (&one, line("@1 - root 1 context_create(id 0)")),
            (&one, line("@1 a root 1 configure(5)")),
            (&one, line("@2 a root 1 configure(5)")),
            (&two, line("@3 a root 1 configure(5)")),
            (&one, line("@4 b root 1 configure(5)")),
        ];
        let labels = labels(&lines);
        let of = |instance: &str| labels[&("x.1".to_owned(), instance.to_owned())].as_str();
        assert_eq!(["1", "2", "3", "4"].map(of), ["canary", "main", "w0", "canary"]);
        assert_eq!(lines[0].1.text, "context_create(id 0)");
        assert!(Line::of_message("\n", 0.0, "").is_none());
    }
}
