//! The loop of a run: takes what is due, lets it happen, settles streams. It must not judge what it sees.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::exchange::{Exchange, Place};
use super::options::HostOptions;
use super::timeline::Timeline;
use super::workers::Workers;
use crate::host::clock::{Event, VmId};
use crate::host::compile::{Compiled, Compiler};
use crate::host::load::StartError;
use crate::host::network::{Network, ServiceCall};
use crate::host::service::ServiceRequest;
use crate::host::shared::Shared;
use crate::host::trace::{LogLine, TraceKind, TraceLine, millis};
use crate::host::vm::Vm;

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
    /// What no real host would survive, or this one gave up on.
    pub(crate) problems: Vec<String>,
    pub(crate) ended_at_ns: u64,
}

pub(super) struct World<'a> {
    pub(super) options: &'a HostOptions,
    pub(super) timeline: &'a Timeline,
    pub(super) shared: Rc<RefCell<Shared>>,
    pub(super) workers: Workers,
    pub(super) exchanges: Vec<Exchange>,
    pub(super) places: Vec<Place>,
    /// Those of [`Place::Open`]: a run of many requests must not look at all of them after each event.
    pub(super) open: BTreeSet<usize>,
}

/// Timers can go on for ever; so can a queue that feeds itself without time passing.
const EVENTS_MAX: usize = 1_000_000;
/// How long after the last step a stream that waits for a timer may still be freed by one.
const GRACE_NS: u64 = 60_000_000_000;

/// Runs one timeline against one plugin.
pub(crate) fn run(
    compiler: &Compiler,
    compiled: Result<Compiled, StartError>,
    options: &HostOptions,
    timeline: &Timeline,
    network: Network,
) -> RunOutcome {
    let shared = Rc::new(RefCell::new(Shared::new(options.start_unix_ns, network)));
    let started = compiled
        .and_then(|compiled| Workers::start(compiler, compiled, options, Rc::clone(&shared)));
    let mut outcome = RunOutcome::default();
    match started {
        Err(error) => outcome.start_error = Some(error),
        Ok(workers) => {
            let mut world = World::new(options, timeline, Rc::clone(&shared), workers);
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
    outcome.problems.extend(shared.crash.take());
    outcome.ended_at_ns = shared.now_ns;
    outcome
}

impl<'a> World<'a> {
    fn new(
        options: &'a HostOptions,
        timeline: &'a Timeline,
        shared: Rc<RefCell<Shared>>,
        workers: Workers,
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
        let places = vec![Place::Waiting; exchanges.len()];
        Self { options, timeline, shared, workers, exchanges, places, open: BTreeSet::new() }
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
        self.open.is_empty() || next_ns > last_step_ns.saturating_add(GRACE_NS)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Client(step) => self.client(step),
            Event::Upstream { exchange, reply } => self.upstream_answered(exchange, reply),
            Event::Callout { vm, root, token, answer } => {
                if let Some(vm) = self.workers.vm(vm) {
                    vm.callout_answered(root, token, answer);
                }
            }
            Event::Root { vm, root, news } => {
                if let Some(vm) = self.workers.vm(vm) {
                    vm.root_news(root, news);
                }
            }
            Event::Tick { vm, root, generation } => {
                if let Some(vm) = self.workers.vm(vm) {
                    vm.tick(root, generation);
                }
            }
            Event::QueueReady { vm, root, queue } => {
                if let Some(vm) = self.workers.vm(vm) {
                    vm.queue_ready(root, queue);
                }
            }
        }
    }

    pub(super) fn open_stream(&mut self, exchange: usize) -> Option<(&mut Vm, u32)> {
        let Some(Place::Open { vm, context, .. }) = self.places.get(exchange).copied() else {
            return None;
        };
        Some((self.workers.vm(vm)?, context))
    }

    /// After any event any stream may have moved: requests that passed reach the upstream, streams that ended are closed.
    fn settle(&mut self) {
        let open: Vec<_> = self.open.iter().copied().collect();
        for exchange in open {
            let Some(Place::Open { vm, context, is_upstream_called }) =
                self.places.get(exchange).copied()
            else {
                continue;
            };
            let Some(stream) = self.workers.vm(vm).and_then(|vm| vm.stream(context)) else {
                continue;
            };
            let passed = &stream.request.sent;
            if !is_upstream_called
                && !stream.replied
                && !stream.detached
                && passed.ended_at_ns.is_some()
            {
                let request = ServiceRequest {
                    cluster: String::new(),
                    headers: passed.headers.clone().unwrap_or_default(),
                    body: passed.body.clone(),
                    trailers: passed.trailers.clone().unwrap_or_default(),
                };
                self.call_upstream(exchange, vm, context, request);
            } else if stream.is_over() {
                self.close(exchange, vm, context);
            }
        }
    }

    fn close(&mut self, exchange: usize, vm: VmId, context: u32) {
        let stream = self.workers.vm(vm).and_then(|vm| vm.close_stream(context));
        let (Some(stream), Some(result), Some(place)) =
            (stream, self.exchanges.get_mut(exchange), self.places.get_mut(exchange))
        else {
            return;
        };
        *place = Place::Over;
        self.open.remove(&exchange);
        result.take_from(&stream);
        let seen = if result.is_reset {
            "reset".to_owned()
        } else {
            result.status.map_or_else(String::new, |status| status.to_string())
        };
        let (client, took_ns) = (
            result.client.clone(),
            result.ended_at_ns.unwrap_or(0).saturating_sub(result.sent_at_ns),
        );
        self.trace("client", &client, format!("gets {seen} after {}", millis(took_ns)));
    }

    /// What clients of streams that never ended have so far.
    fn look_at_open_streams(&mut self) {
        for exchange in std::mem::take(&mut self.open) {
            let stream = self
                .open_stream(exchange)
                .and_then(|(vm, context)| vm.stream(context))
                .map(|stream| {
                    let mut seen = Exchange::default();
                    seen.take_from(stream);
                    seen
                });
            if let (Some(seen), Some(result)) = (stream, self.exchanges.get_mut(exchange)) {
                let known = std::mem::take(result);
                *result = Exchange {
                    client: known.client,
                    nth: known.nth,
                    worker: known.worker,
                    sent_at_ns: known.sent_at_ns,
                    is_disconnected: known.is_disconnected,
                    ..seen
                };
            }
        }
    }

    pub(super) fn trace(&self, name: &str, who: &str, what: String) {
        if self.options.tracing {
            let mut shared = self.shared.borrow_mut();
            let line = TraceLine {
                at_ns: shared.now_ns,
                vm: String::new(),
                context: 0,
                kind: TraceKind::World,
                name: format!("{name} {who}"),
                args: what,
                status: String::new(),
            };
            shared.push_trace(line);
        }
    }
}
