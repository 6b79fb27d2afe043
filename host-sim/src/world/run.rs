//! The loop of a run: takes what is due, lets it happen, settles streams. It must not judge what it sees.

use std::collections::{BTreeMap, BTreeSet};

use super::crew::{Crew, Job};
use super::exchange::Exchange;
use super::options::HostOptions;
use super::schedule::Schedule;
use super::timeline::{Action, Timeline};
use super::turns::Turns;
use super::upstream::upstream_answered;
use crate::host::clock::Event;
use crate::host::compile::Compiler;
use crate::host::lints::Lint;
use crate::host::lints::found::Lints;
use crate::host::load::StartError;
use crate::host::network::{Network, ServiceCall};
use crate::host::process::Process;
use crate::host::random::Random;
use crate::host::shared::{Shared, SharedCell};
use crate::host::stream::StreamId;
use crate::host::threads::Plugin;
use crate::host::trace::{LogLine, TraceKind, TraceLine, millis};

/// Everything a run left behind.
#[derive(Default)]
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
    /// The choices made, where there were any.
    pub(crate) schedule: Option<Schedule>,
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
    pub(super) shared: SharedCell,
    pub(super) crew: Crew,
    pub(super) schedule: Option<Schedule>,
    pub(super) turns: Turns,
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
    schedule: Option<Schedule>,
) -> RunOutcome {
    let shared = SharedCell::new(Shared::new(options.start_unix_ns, network));
    shared.borrow_mut().lints = Lints::new(options.lints);
    let is_apart = schedule.is_some();
    let started =
        plugins.and_then(|plugins| Crew::start(compiler, plugins, options, &shared, is_apart));
    let mut outcome = RunOutcome::default();
    match started {
        Err(error) => outcome.start_error = Some(error),
        Ok(crew) => {
            let mut world = World::new(options, timeline, shared.clone(), crew, schedule);
            world.run(&mut outcome);
            outcome.exchanges = std::mem::take(&mut world.exchanges);
            outcome.schedule = world.schedule.take();
        }
    }
    let mut shared = shared.borrow_mut();
    outcome.calls = std::mem::take(&mut shared.network.calls);
    // Envoy connects first; what is cut in the moment in which it was sent reaches nobody.
    outcome.calls.retain(|call| call.reset_at_ns != Some(call.at_ns));
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
        shared: SharedCell,
        crew: Crew,
        schedule: Option<Schedule>,
    ) -> Self {
        for (index, step) in timeline.steps.iter().enumerate() {
            let event = match step.action {
                Action::Client { .. } => Event::Client(index),
                Action::Update { .. } => Event::Update(index),
            };
            shared.borrow_mut().events.push(step.at_ns, event);
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
            turns: Turns::new(crew.seat_count()),
            crew,
            schedule,
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
            self.happen(event);
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

    /// What an event does, and to whom. An update concerns all and is done at once.
    pub(super) fn job(&mut self, event: Event) -> Option<(usize, Job)> {
        Some(match event {
            Event::Client(step) | Event::Update(step) => {
                match self.timeline.steps.get(step).map(|s| s.action.clone())? {
                    Action::Client { exchange, act } => {
                        (self.seat_of(StreamId(exchange)), self.client(exchange, act))
                    }
                    Action::Update { plugin, config } => {
                        self.update(plugin, config);
                        return None;
                    }
                }
            }
            Event::Upstream { exchange, piece } => {
                let id = StreamId(exchange);
                (self.seat_of(id), Box::new(move |process| upstream_answered(process, id, piece)))
            }
            Event::Retry(call) => (
                call.vm.seat,
                Box::new(move |process| {
                    call.send(&mut process.shared.borrow_mut());
                }),
            ),
            Event::Callout { vm, root, token, answer } => {
                (vm.seat, Box::new(move |p| p.callout_answered(vm, root, token, answer)))
            }
            Event::Root { vm, root, news } => {
                (vm.seat, Box::new(move |p| p.root_news(vm, root, news)))
            }
            Event::Tick { vm, root, generation } => {
                (vm.seat, Box::new(move |process| process.tick(vm, root, generation)))
            }
            Event::QueueReady { vm, root, queue } => {
                (vm.seat, Box::new(move |process| process.queue_ready(vm, root, queue)))
            }
            Event::Drained { vm, root } => {
                (vm.seat, Box::new(move |process| process.threads.end_root(vm, root)))
            }
        })
    }

    /// Tried on the canary, then taken everywhere.
    fn update(&mut self, plugin: usize, config: Vec<u8>) {
        self.trace("listener", "update", || format!("plugin {plugin}"));
        let tried = config.clone();
        let accepted =
            self.crew.run(0, move |process| process.threads.accepts_update(plugin, &tried));
        if accepted != Some(true) {
            return;
        }
        for seat in 0..self.crew.seat_count() {
            let config = config.clone();
            self.crew.run(seat, move |process| process.threads.update(plugin, &config));
        }
    }

    pub(super) fn seat_of(&self, id: StreamId) -> usize {
        let worker = self.timeline.announced.get(id.0).map_or(0, |announced| announced.worker);
        self.crew.seat_of_worker(worker)
    }

    /// What passed the filters reaches the upstream, exchanges that ended are closed; each may move others.
    pub(super) fn settle(&mut self, seat: usize) {
        loop {
            let touched = self.crew.run(seat, Process::take_touched).unwrap_or_default();
            if touched.is_empty() {
                return;
            }
            for id in touched {
                self.send_up(seat, id);
                if self.crew.run(seat, move |process| process.is_gone(id)) == Some(true) {
                    self.close(seat, id);
                }
            }
        }
    }

    fn close(&mut self, seat: usize, id: StreamId) {
        let Some(Place::Open { call }) = self.places.get(id.0).copied() else {
            return;
        };
        let closed = self.crew.run(seat, move |process| process.close(id)).flatten();
        let (Some((http, usage)), Some(result)) = (closed, self.exchanges.get_mut(id.0)) else {
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
        let now_ns = shared.now_ns;
        if let Some(call) = call.and_then(|call| shared.network.calls.get_mut(call)) {
            let is_answered = call.answered_at_ns.is_some_and(|at_ns| at_ns <= now_ns);
            if call.ended_at_ns.is_none() || !is_answered {
                call.reset(now_ns);
            }
        }
        drop(shared);
        self.trace("client", &client, || format!("gets {seen} after {}", millis(took_ns)));
    }

    /// What clients of exchanges that never ended have so far.
    fn look_at_open_streams(&mut self) {
        for index in 0..self.places.len() {
            let id = StreamId(index);
            if !matches!(self.places.get(index), Some(Place::Open { .. })) {
                continue;
            }
            let seat = self.seat_of(id);
            let seen = self.crew.run(seat, move |process| process.look_at(id)).flatten();
            if let (Some((http, usage)), Some(result)) = (seen, self.exchanges.get_mut(index)) {
                result.take_from(&http, usage);
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
