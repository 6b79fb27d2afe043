//! The data of one wasmtime store: contexts, the running callback, what is deferred. It must not call into the guest.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::StoreLimits;

use super::callouts::{Callouts, Dispatch};
use super::clock::{Event, VmId};
use super::foreign::Foreign;
use super::grpc::Grpc;
use super::lints::LintName;
use super::lints::watch::Watch;
use super::metrics::MetricIds;
use super::random::Random;
use super::reply::LocalReply;
use super::settings::PluginSettings;
use super::shared::SharedCell;
use super::stream::{Direction, Stream, Usage};
use super::trace::{LogLine, TraceKind, TraceLine};
use super::turnstile::Turnstile;
use crate::abi::codes::{LogLevel, Status};
use crate::abi::guest::GuestHandles;

/// What the guest is doing, which decides the host calls it may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The module's own start section.
    Starting,
    /// `_initialize`, `main`, `_start`.
    Initializing,
    Allocating,
    Running,
}

/// What a callback asked for that happens once it has returned.
pub(crate) enum After {
    Continue(Direction),
    Close,
    Reply(LocalReply),
}

/// A root context: one plugin configuration and its timer.
pub(crate) struct Root {
    pub(crate) settings: Arc<PluginSettings>,
    /// It answered `on_done` with false and has not said `proxy_done`.
    pub(crate) is_waiting_for_done: bool,
    pub(crate) tick_period_ms: u32,
    /// Ticks of an older generation are void.
    pub(crate) tick_generation: u64,
}

/// Everything a host function can reach.
pub(crate) struct VmState {
    pub(crate) vm: VmId,
    pub(crate) label: String,
    /// The settings of the plugin that the VM was made for; those of one root are [`VmState::plugin`].
    pub(crate) base: Arc<PluginSettings>,
    pub(crate) shared: SharedCell,
    pub(crate) guest: GuestHandles,
    pub(crate) limits: StoreLimits,
    pub(crate) stage: Stage,
    /// The context host calls are about; the plugin may switch it.
    pub(crate) current: u32,
    /// The context whose callback runs.
    pub(crate) called: u32,
    /// The plugin's configuration can be read.
    pub(crate) config_open: bool,
    pub(crate) roots: BTreeMap<u32, Root>,
    pub(crate) streams: BTreeMap<u32, Stream>,
    last_context: u32,
    /// Roots that said `proxy_done` in the callback that runs.
    pub(crate) finished_roots: Vec<u32>,
    pub(crate) callouts: Callouts,
    pub(crate) watch: Watch,
    pub(crate) grpc: Grpc,
    pub(crate) foreign: Foreign,
    pub(crate) dns_tokens: u32,
    /// What buffer 8 holds during a callback that brings something.
    pub(crate) call_data: Vec<u8>,
    pub(crate) metric_ids: MetricIds,
    pub(crate) random: Random,
    pub(crate) after: Vec<(u32, After)>,
    /// The running callback replied or closed: its action is void.
    pub(crate) stops_iteration: bool,
    pub(crate) tracing: bool,
    pub(crate) turnstile: Option<Turnstile>,
    pub(crate) note: String,
}

impl Root {
    pub(crate) fn new(settings: Arc<PluginSettings>) -> Self {
        Self { settings, is_waiting_for_done: false, tick_period_ms: 0, tick_generation: 0 }
    }
}

impl VmState {
    pub(crate) fn new(
        vm: VmId,
        label: &str,
        base: Arc<PluginSettings>,
        shared: SharedCell,
        tracing: bool,
    ) -> Self {
        let limits = wasmtime::StoreLimitsBuilder::new()
            .memory_size(base.memory_bytes_max)
            .table_elements(1_000_000)
            .build();
        let random = Random::new(base.seed, label);
        Self {
            vm,
            label: label.to_owned(),
            base,
            shared,
            guest: GuestHandles::default(),
            limits,
            stage: Stage::Starting,
            current: 0,
            called: 0,
            config_open: false,
            roots: BTreeMap::new(),
            streams: BTreeMap::new(),
            last_context: 0,
            finished_roots: Vec::new(),
            callouts: Callouts::default(),
            watch: Watch::default(),
            grpc: Grpc::default(),
            foreign: Foreign::default(),
            dns_tokens: 0,
            call_data: Vec::new(),
            metric_ids: MetricIds::default(),
            random,
            after: Vec::new(),
            stops_iteration: false,
            tracing,
            turnstile: None,
            note: String::new(),
        }
    }

    pub(crate) fn with_turnstile(mut self, turnstile: Option<Turnstile>) -> Self {
        self.turnstile = turnstile;
        self
    }

    /// No VM draws what another one drew: one that is loaded anew is somebody else.
    pub(crate) fn nth_of_its_label(mut self, nth: u64) -> Self {
        if nth > 1 {
            self.random = Random::new(self.base.seed, &format!("{}, {nth}", self.label));
        }
        self
    }

    // === contexts ===

    /// Root and stream contexts share one counter, which starts at 1.
    pub(crate) fn next_context(&mut self) -> u32 {
        self.last_context = self.last_context.wrapping_add(1);
        self.last_context
    }

    pub(crate) fn knows_context(&self, context: u32) -> bool {
        context == 0 || self.roots.contains_key(&context) || self.streams.contains_key(&context)
    }

    pub(crate) fn root_of(&self, context: u32) -> u32 {
        self.streams.get(&context).map_or(context, |stream| stream.root)
    }

    /// The settings of the running context's root.
    pub(crate) fn plugin(&self) -> &PluginSettings {
        self.roots.get(&self.root_of(self.current)).map_or(&self.base, |root| &root.settings)
    }

    pub(crate) fn stream(&self) -> Option<&Stream> {
        self.streams.get(&self.current)
    }

    pub(super) fn stream_mut(&mut self) -> Option<&mut Stream> {
        self.streams.get_mut(&self.current)
    }

    pub(crate) fn defer(&mut self, after: After) {
        let current = self.current;
        if let Some(what) = self.stream().and_then(|stream| deadly(stream, &after)) {
            let why = format!("{what}: Envoy's whole process crashes on this");
            self.shared.borrow_mut().crash = Some(why);
            let is_logging = self.stream().is_some_and(|stream| stream.logging);
            if let (true, After::Reply(_)) = (is_logging, &after) {
                let note = || "the run ends here".to_owned();
                self.lint_call(LintName::LocalReplyInLog, current, note);
            }
            return;
        }
        self.stops_iteration |= !matches!(after, After::Continue(_));
        self.after.push((current, after));
    }

    /// The maps close at once, whichever direction resumes; the resume itself waits for the callback's end.
    pub(crate) fn continue_stream(&mut self, direction: Direction) {
        if let Some(stream) = self.stream_mut() {
            stream.request.headers_open = false;
            stream.request.trailers_open = false;
            stream.request.is_body_hidden = true;
        }
        self.watch_resume(direction);
        self.defer(After::Continue(direction));
    }

    /// Zero stops the timer.
    pub(crate) fn set_tick_period(&mut self, period_ms: u32) {
        let (vm, root_id) = (self.vm, self.root_of(self.current));
        let Some(root) = self.roots.get_mut(&root_id) else {
            return;
        };
        root.tick_period_ms = period_ms;
        root.tick_generation += 1;
        if period_ms > 0 {
            let tick = Event::Tick { vm, root: root_id, generation: root.tick_generation };
            self.shared.borrow_mut().after(u64::from(period_ms) * 1_000_000, tick);
        }
    }

    pub(crate) fn dispatch(&mut self, dispatch: Dispatch) -> Result<u32, Status> {
        let (vm, root) = (self.vm, self.root_of(self.current));
        let has_timeout = dispatch.timeout_ms > 0;
        let is_canary = self.label == "canary";
        let token = {
            let shared = &mut self.shared.borrow_mut();
            self.callouts.dispatch(shared, vm, root, dispatch, is_canary)?
        };
        if let Some(stream) = self.stream_mut() {
            stream.usage.callouts += 1;
        }
        self.watch_callout(token, has_timeout);
        Ok(token)
    }

    // === time, log, trace, accounts ===

    pub(crate) fn now_unix_ns(&self) -> u64 {
        let shared = self.shared.borrow();
        let steps = self.base.clock_steps.iter().filter(|(at_ns, _)| *at_ns <= shared.now_ns);
        steps.fold(shared.now_unix_ns(), |now_ns, (_, by_ns)| now_ns.saturating_add_signed(*by_ns))
    }

    pub(crate) fn log(&mut self, level: LogLevel, message: String) {
        if level >= self.base.log_level {
            let mut shared = self.shared.borrow_mut();
            let line = LogLine { at_ns: shared.now_ns, vm: self.label.clone(), level, message };
            shared.push_log(line);
        }
    }

    /// Writes one trace line with the note that the host function left.
    pub(crate) fn trace(&mut self, kind: TraceKind, context: u32, name: &str, status: &str) {
        if self.tracing {
            let args = std::mem::take(&mut self.note);
            let mut shared = self.shared.borrow_mut();
            let (at_ns, vm) = (shared.now_ns, self.label.clone());
            shared.push_trace(TraceLine {
                at_ns,
                vm,
                context,
                kind,
                name: name.to_owned(),
                args,
                status: status.to_owned(),
            });
        }
    }

    pub(crate) fn count_call(&mut self, context: u32) {
        if let Some(usage) = self.usage(context) {
            usage.host_calls += 1;
        }
    }

    pub(crate) fn count_bytes(&mut self, context: u32, len: u64) {
        if let Some(usage) = self.usage(context) {
            usage.host_bytes += len;
        }
    }

    pub(crate) fn count_allocation(&mut self) {
        if let Some(usage) = self.usage(self.current) {
            usage.allocations += 1;
        }
    }

    /// What a callback cost. A root's callback works for the stream it switched to, if any.
    pub(crate) fn count_work(&mut self, context: u32, fuel: u64, grown_bytes: u64) {
        let context = if self.streams.contains_key(&context) { context } else { self.current };
        if let Some(usage) = self.usage(context) {
            usage.fuel += fuel;
            usage.grown_bytes += grown_bytes;
        }
    }

    fn usage(&mut self, context: u32) -> Option<&mut Usage> {
        self.streams.get_mut(&context).map(|stream| &mut stream.usage)
    }
}

/// What Envoy does not survive: there is nobody left to answer, or nothing yet to resume.
fn deadly(stream: &Stream, after: &After) -> Option<&'static str> {
    match after {
        After::Reply(_) if stream.ending => {
            Some("proxy_send_local_response in proxy_on_log, proxy_on_done or proxy_on_delete")
        }
        After::Close if stream.ending => {
            Some("proxy_close_stream in proxy_on_log, proxy_on_done or proxy_on_delete")
        }
        After::Continue(Direction::Response) if !stream.http.borrow().response.started => {
            Some("proxy_continue_stream of a response that has not begun")
        }
        _ => None,
    }
}
