//! The loop of a run: takes what is due, lets it happen, settles streams. It must not judge what it sees.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::exchange::Exchange;
use super::options::HostOptions;
use super::timeline::{Action, Timeline};
use crate::host::clock::Event;
use crate::host::compile::Compiler;
use crate::host::lints::Lint;
use crate::host::lints::found::Lints;
use crate::host::load::StartError;
use crate::host::network::{Network, ServiceCall};
use crate::host::process::Process;
use crate::host::random::Random;
use crate::host::shared::Shared;
use crate::host::stream::StreamId;
use crate::host::threads::{Plugin, Threads};
use crate::host::trace::{LogLine, TraceKind, TraceLine, millis};

/// Everything a run left behind.
#[derive(Debug, Default)]
pub(crate) struct RunOutcome {
    pub(crate) start_error: Option<StartError>,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) calls: Vec<ServiceCall>,
    pub(crate) metrics: BTreeMap<String, u64>,
    pub(crate) shared_data: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) trace: Vec<TraceLine>,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) lints: Vec<Lint>,
    /// What no real host would survive, or this one gave up on.
    pub(crate) problems: Vec<String>,
    pub(crate) ended_at_ns: u64,
}

/// How far an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Waiting,
    /// With the number of its call to the upstream, once there is one.
    Open {
        call: Option<usize>,
    },
    Over,
}

pub(super) struct World<'a> {
    pub(super) options: &'a HostOptions,
    pub(super) timeline: &'a Timeline,
    pub(super) shared: Rc<RefCell<Shared>>,
    pub(super) process: Process,
    pub(super) exchanges: Vec<Exchange>,
    pub(super) places: Vec<Place>,
    /// Those that the upstream has answered, or will.
    pub(super) answered: BTreeSet<StreamId>,
    /// Those of [`Place::Open`].
    pub(super) open_count: usize,
    pub(super) request_ids: Random,
}

/// Timers can go on for ever; so can a queue that feeds itself without time passing.
const EVENTS_MAX: usize = 1_000_000;
/// How long after the last step a stream that waits for a timer may still be freed by one.
const GRACE_NS: u64 = 60_000_000_000;

/// Runs one timeline against one plugin.
pub(crate) fn run(
    compiler: &Compiler,
    plugins: Result<Vec<Plugin>, StartError>,
    options: &HostOptions,
    timeline: &Timeline,
    network: Network,
) -> RunOutcome {
    let shared = Rc::new(RefCell::new(Shared::new(options.start_unix_ns, network)));
    shared.borrow_mut().lints = Lints::new(options.lints);
    let started = plugins.and_then(|plugins| {
        Threads::start(compiler, plugins, options.threads.clone(), Rc::clone(&shared))
    });
    let mut outcome = RunOutcome::default();
    match started {
        Err(error) => outcome.start_error = Some(error),
        Ok(threads) => {
            let process = Process::new(threads, Rc::clone(&shared), options.buffer_bytes_max);
            let mut world = World::new(options, timeline, Rc::clone(&shared), process);
            world.run(&mut outcome);
            outcome.exchanges = world.exchanges;
        }
    }
    let mut shared = shared.borrow_mut();
    outcome.calls = std::mem::take(&mut shared.network.calls);
    outcome.metrics = shared.metrics.snapshot();
    outcome.shared_data = shared.data.snapshot();
    outcome.trace = std::mem::take(&mut shared.trace);
    outcome.logs = std::mem::take(&mut shared.logs);
    outcome.lints = shared.lints.take();
    outcome.problems.extend(shared.crash.take());
    outcome.ended_at_ns = shared.now_ns;
    outcome
}

impl<'a> World<'a> {
    fn new(
        options: &'a HostOptions,
        timeline: &'a Timeline,
        shared: Rc<RefCell<Shared>>,
        process: Process,
    ) -> Self {
        for (index, step) in timeline.steps.iter().enumerate() {
            shared.borrow_mut().events.push(step.at_ns, Event::Client(index));
        }
        let exchanges: Vec<_> = timeline
            .announced
            .iter()
            .map(|announced| Exchange {
                client: announced.client.clone(),
                nth: announced.nth,
                worker: announced.worker,
                ..Exchange::default()
            })
            .collect();
        let seed = options.plugins.first().map_or(0, |plugin| plugin.seed);
        let places = vec![Place::Waiting; exchanges.len()];
        Self {
            options,
            timeline,
            shared,
            process,
            exchanges,
            places,
            answered: BTreeSet::new(),
            open_count: 0,
            request_ids: Random::new(seed, "request ids"),
        }
    }

    fn run(&mut self, outcome: &mut RunOutcome) {
        let last_step_ns = self.timeline.steps.iter().map(|step| step.at_ns).max().unwrap_or(0);
        let horizon_ns = self.options.until_ns.unwrap_or(u64::MAX);
        for _ in 0..EVENTS_MAX {
            if self.shared.borrow().crash.is_some() || self.is_finished(last_step_ns) {
                self.look_at_open_streams();
                return;
            }
            let due = self.shared.borrow().events.next_at_ns().filter(|at_ns| *at_ns <= horizon_ns);
            let Some((at_ns, event)) = due.and_then(|_| self.shared.borrow_mut().events.pop())
            else {
                self.look_at_open_streams();
                return;
            };
            self.shared.borrow_mut().now_ns = at_ns;
            self.handle(event);
            self.settle();
            self.process.watch_hangs();
        }
        self.look_at_open_streams();
        outcome.problems.push(format!(
            "the run was ended after {EVENTS_MAX} events: timers or queues feed themselves"
        ));
    }

    /// With only timers left, a paused stream may still be freed by one, but not for ever.
    fn is_finished(&self, last_step_ns: u64) -> bool {
        let shared = self.shared.borrow();
        if self.options.until_ns.is_some() || shared.events.has_work() {
            return false;
        }
        let next_ns = shared.events.next_at_ns().unwrap_or(u64::MAX);
        self.open_count == 0 || next_ns > last_step_ns.saturating_add(GRACE_NS)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Client(step) => match self.timeline.steps.get(step).map(|s| s.action.clone()) {
                Some(Action::Client { exchange, act }) => self.client(exchange, act),
                Some(Action::Update { plugin, config }) => {
                    self.trace("listener", "update", || format!("plugin {plugin}"));
                    self.process.threads.update(plugin, config);
                }
                None => {}
            },
            Event::Upstream { exchange, piece } => self.upstream_answered(exchange, piece),
            Event::Callout { vm, root, token, answer } => {
                self.process.callout_answered(vm, root, token, answer);
            }
            Event::Tick { vm, root, generation } => self.process.tick(vm, root, generation),
            Event::QueueReady { vm, root, queue } => self.process.queue_ready(vm, root, queue),
            Event::Drained { vm, root } => self.process.threads.end_root(vm, root),
        }
    }

    /// What passed the filters reaches the upstream, exchanges that ended are closed; each may move others.
    fn settle(&mut self) {
        loop {
            let touched = self.process.take_touched();
            if touched.is_empty() {
                return;
            }
            for id in touched {
                self.send_up(id);
                if self.process.is_gone(id) {
                    self.close(id);
                }
            }
        }
    }

    fn close(&mut self, id: StreamId) {
        let Some(Place::Open { call }) = self.places.get(id.0).copied() else {
            return;
        };
        let (Some((http, usage)), Some(result)) =
            (self.process.close(id), self.exchanges.get_mut(id.0))
        else {
            return;
        };
        if let Some(place) = self.places.get_mut(id.0) {
            *place = Place::Over;
        }
        self.open_count -= 1;
        result.take_from(&http, usage);
        let seen = if result.is_reset {
            "reset".to_owned()
        } else {
            result.status.map_or_else(String::new, |status| status.to_string())
        };
        let took_ns = result.ended_at_ns.unwrap_or(0).saturating_sub(result.sent_at_ns);
        let client = result.client.clone();
        let mut shared = self.shared.borrow_mut();
        if let Some(call) = call.and_then(|call| shared.network.calls.get_mut(call)) {
            call.is_reset = call.ended_at_ns.is_none();
        }
        drop(shared);
        self.trace("client", &client, || format!("gets {seen} after {}", millis(took_ns)));
    }

    /// What clients of exchanges that never ended have so far.
    fn look_at_open_streams(&mut self) {
        for (index, place) in self.places.iter().enumerate() {
            let id = StreamId(index);
            if let (Place::Open { .. }, Some(result)) = (place, self.exchanges.get_mut(index)) {
                let usage = self.process.usage(id);
                self.process.with_http(id, |http| result.take_from(http, usage));
            }
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.shared.borrow().now_ns
    }

    pub(super) fn trace(&self, name: &str, who: &str, what: impl FnOnce() -> String) {
        if self.options.threads.tracing {
            let mut shared = self.shared.borrow_mut();
            let line = TraceLine {
                at_ns: shared.now_ns,
                vm: String::new(),
                context: 0,
                kind: TraceKind::World,
                name: format!("{name} {who}"),
                args: what(),
                status: String::new(),
            };
            shared.push_trace(line);
        }
    }
}
