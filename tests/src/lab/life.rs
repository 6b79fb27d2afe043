//! Owns one life of one process: what happens in it, and how that is said to the simulator.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::Requests;
use crate::parts;

/// More than one scenario may have.
const REQUESTS_MAX: usize = 190_000;

/// One life of one process, from its start until it dies: it neither drains nor says goodbye.
#[derive(Debug, Clone)]
pub struct Life {
    /// When it starts.
    pub from_ns: u64,
    /// When it dies.
    pub to_ns: u64,
    /// Its workers.
    pub workers: usize,
    /// Whether its workers share data.
    pub shares: bool,
    /// Of its randomness.
    pub seed: u64,
    /// How far its clock is ahead of the gateway's, in whole seconds.
    pub ahead_s: i64,
    /// When its clock is set, and by how many ms.
    pub clock_steps: Vec<(u64, i64)>,
    /// Its configurations, JSON: the first one, and from when on others.
    pub configs: Vec<(u64, String)>,
    /// What it is asked, by time.
    pub requests: Vec<Requests>,
    /// When a worker's VM traps, and which: with all that it holds, and with the requests that wait in it.
    pub traps: Vec<(u64, usize)>,
}

// === impl Life ===

impl Life {
    /// The filter as it is shipped, where nothing has to trap.
    pub(super) fn filter(&self) -> PathBuf {
        match self.traps.is_empty() {
            true => parts::filter("tidegate"),
            false => parts::trapping_filter(),
        }
    }

    /// A life as a scenario.
    pub(super) fn scenario(&self, unix_s: u64) -> String {
        let life = self;
        let Life { workers, seed, .. } = life;
        let until_ns = life.to_ns - life.from_ns;
        let steps: Vec<String> = life
            .clock_steps
            .iter()
            .map(|(at_ns, by_ms)| format!("[{}ns, {by_ms}]", at_ns - life.from_ns))
            .collect();
        let config = life.configs.first().map_or("{}", |(_, config)| config);
        let capabilities = if life.shares { String::new() } else { alone() };
        let (reload, trap) = match life.traps.is_empty() {
            true => ("", ""),
            false => (
                ", fail_policy: FAIL_RELOAD",
                "{ on: GET /trap, answer: { status: 200, headers: { x-tidegate-trap: now } } }, ",
            ),
        };
        let mut yaml = format!(
            "name: a life\nplugin: {{ config: {config}{capabilities}{reload} }}\n\
             host: {{ workers: {workers}, main: {main}, canary: false, seed: {seed}, start_unix_s: {unix_s}, until: {until_ns}ns, \
             drain: 3s, clock_steps: [{steps}], lints: \"off\" }}\n\
             gateway: in-process\nupstream: [{trap}{{ on: GET /fails, answer: 500 }}, {{ on: GET /hangs, answer: 504, after: 700ms }}, {{ answer: 200 }}]\n\
             timeline:\n",
            main = life.shares,
            steps = steps.join(", "),
        );
        let mut count = 0;
        for requests in &life.requests {
            let Requests { at_ns, times, every_ns, worker, key, path, units } = requests;
            let cost = if *units == 1 { String::new() } else { format!(", x-cost: \"{units}\"") };
            count += usize::try_from(*times).expect("a number of requests");
            let at_ns = at_ns - life.from_ns;
            writeln!(
                yaml,
                "  - {{ at: {at_ns}ns, client: c, worker: {worker}, address: \"192.0.2.1:1\", times: {times}, every: {every_ns}ns, send: {{ path: {path}, headers: {{ x-key: {key}{cost} }} }} }}"
            )
            .expect("a String takes everything");
        }
        for (at_ns, config) in life.configs.iter().skip(1) {
            let at_ns = at_ns - life.from_ns;
            writeln!(yaml, "  - {{ at: {at_ns}ns, update: {{ config: {config} }} }}")
                .expect("a String takes everything");
        }
        for (at_ns, worker) in &life.traps {
            let at_ns = at_ns - life.from_ns;
            writeln!(
                yaml,
                "  - {{ at: {at_ns}ns, client: traps, worker: {worker}, address: \"192.0.2.2:1\", send: {{ path: /trap }} }}"
            )
            .expect("a String takes everything");
        }
        assert!(count <= REQUESTS_MAX, "{count} requests are too many for one life");
        yaml
    }
}

/// All that the filter calls but shared data, as a host that has none: a part of a scenario's plugin.
pub fn alone() -> String {
    let callbacks = [
        "on_context_create",
        "on_vm_start",
        "on_configure",
        "on_tick",
        "on_request_headers",
        "on_request_body",
        "on_request_trailers",
        "on_response_headers",
        "on_response_body",
        "on_response_trailers",
        "on_http_call_response",
        "on_done",
        "on_log",
        "on_delete",
    ];
    let calls = [
        "log",
        "get_buffer_bytes",
        "get_header_map_pairs",
        "get_header_map_value",
        "add_header_map_value",
        "replace_header_map_value",
        "remove_header_map_value",
        "set_property",
        "get_property",
        "set_tick_period_milliseconds",
        "continue_stream",
        "send_local_response",
        "http_call",
        "define_metric",
        "increment_metric",
        "record_metric",
        "get_metric",
        "set_effective_context",
        "get_current_time_nanoseconds",
    ];
    let wasi = [
        "fd_write",
        "random_get",
        "environ_get",
        "environ_sizes_get",
        "clock_time_get",
        "proc_exit",
    ];
    let names: Vec<String> = callbacks
        .iter()
        .chain(&calls)
        .map(|name| format!("proxy_{name}"))
        .chain(wasi.map(str::to_owned))
        .collect();
    format!(", capabilities: [{}]", names.join(", "))
}
