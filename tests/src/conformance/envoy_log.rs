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
    /// Reads `@instance tag kind context text`; nothing for what somebody else logged.
    pub(super) fn of_message(message: &str, at_ms: f64, vm: &str) -> Option<Self> {
        let mut words = message.strip_prefix('@')?.splitn(5, ' ');
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

/// What Envoy wrote about one scenario.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) lines: Vec<Line>,
    /// Response code details by the client's port.
    pub(super) details: BTreeMap<u16, String>,
}

/// Reads Envoy's whole output and keeps what is about one scenario, its own marks taken off names.
pub(super) fn of_case(output: &str, case: &Case, clock: &Clock) -> Written {
    let mut written = Written::default();
    let mut labels = Labels::default();
    for line in output.lines() {
        if let Some(rest) = line.strip_prefix(ACCESS) {
            written.details.extend(details(rest, case));
        } else if let Some((vm_id, thread, mut line)) = plugin_line(line, case, clock) {
            line.vm = labels.of(vm_id, thread, &line.instance);
            written.lines.push(line);
        }
    }
    written
}

fn details(rest: &str, case: &Case) -> Option<(u16, String)> {
    let mut words = rest.trim_start().splitn(3, ' ');
    let is_ours = words.next()? == case.id;
    let port = words.next()?.parse().ok()?;
    is_ours.then_some((port, words.next()?.to_owned()))
}

/// The VM's id, the thread and the line: `E F t wasm log NAME ROOT VM_ID: message`.
fn plugin_line<'o>(line: &'o str, case: &Case, clock: &Clock) -> Option<(&'o str, &'o str, Line)> {
    let mut words = line.splitn(4, ' ');
    let seconds: f64 = words.next()?.parse().ok()?;
    let nanoseconds: f64 = words.next()?.parse().ok()?;
    let thread = words.next()?;
    let (names, message) = words.next()?.strip_prefix("wasm log")?.split_once(": ")?;
    let vm_id = names.rsplit(' ').next()?;
    if vm_id != case.id && !vm_id.starts_with(&case.own("")) {
        return None;
    }
    let at_ms = clock.at_ms(seconds * 1000.0 + nanoseconds / 1_000_000.0);
    let message = message.replace(&case.own(""), "");
    Some((vm_id, thread, Line::of_message(&message, at_ms, "")?))
}

/// Which VM is which: a configuration is tried in a canary, then the main thread's VM and the
/// worker's are made; each later VM of the main thread is a canary again.
#[derive(Default)]
struct Labels<'o> {
    main_thread: Option<&'o str>,
    known: BTreeMap<String, &'static str>,
    on_main: BTreeMap<&'o str, usize>,
}

impl<'o> Labels<'o> {
    fn of(&mut self, vm_id: &'o str, thread: &'o str, instance: &str) -> String {
        let is_main = *self.main_thread.get_or_insert(thread) == thread;
        let count = self.on_main.entry(vm_id).or_default();
        let label = self.known.entry(format!("{vm_id} {instance}")).or_insert_with(|| {
            if !is_main {
                return "w0";
            }
            *count += 1;
            if *count == 2 { "main" } else { "canary" }
        });
        (*label).to_owned()
    }
}

/// The lines as entries.
pub(super) fn entries(lines: &[Line]) -> Vec<Entry> {
    let entry =
        |line: &Line| Entry { at_ms: line.at_ms, lane: line.lane(), text: line.text.clone() };
    lines.iter().map(entry).collect()
}
