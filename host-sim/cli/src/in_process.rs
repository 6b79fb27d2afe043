//! The gateway's library as a service in virtual time: its own routes, rules and memory store, without a socket. It must
//! not decide anything, and it reads no clock: the moment of each call is the simulator's.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use tidegate_gateway::audit::Auditor;
use tidegate_gateway::clock::{Clock, Sleep};
use tidegate_gateway::http::data::DataListener;
use tidegate_gateway::http::operate::Command;
use tidegate_gateway::metrics::Metrics;
use tidegate_gateway::service::{Service as Decisions, ServiceSettings};
use tidegate_gateway::settings::{Environment, Settings, SettingsError};
use tidegate_gateway::store::Stores;
use tidegate_gateway::store::memory::MemoryStore;
use tidegate_host_sim::{
    Answer, Fault, HeaderMap, Outcome, Reply, Scenario, Service, ServiceRequest, Services,
};
use tidegate_policy::audit::{AuditEvent, AuditSink};

/// How long an answer is under way. A real gateway with its state in memory takes less; one with Redis in the same zone
/// about this.
const LATENCY_NS: u64 = 1_000_000;

/// A gateway with an empty memory store.
pub struct InProcess {
    clock: Arc<VirtualClock>,
    data: DataListener,
    decisions: Arc<Decisions>,
    settings: ServiceSettings,
    stores: Stores,
}

/// Stands at the moment of the call under way.
#[derive(Default)]
struct VirtualClock {
    unix_us: AtomicU64,
}

/// Decisions are what a scenario looks at; the audit chain has tests of its own.
struct NoAudit;

/// The services that a scenario asks for: the gateway behind every cluster where it says `gateway: in-process`, else none.
///
/// `flags` are those of the gateway's own command line, e.g. `--environment=staging`.
pub fn services(scenario: &Scenario, flags: &[String]) -> Result<Services, SettingsError> {
    let services = Services::default();
    if !scenario.needs_service() {
        return Ok(services);
    }
    let settings = settings(flags)?;
    Ok(services.bind_fresh(move || InProcess::start(settings.clone())))
}

fn settings(flags: &[String]) -> Result<Settings, SettingsError> {
    let command = ["tidegate-gateway", "serve", "--dev"].map(str::to_owned);
    Settings::parse(command.into_iter().chain(flags.iter().cloned()), &Environment::default())
}

// === impl InProcess ===

impl InProcess {
    /// A gateway as its flags make it, but with its state in memory, whatever they say of Redis.
    pub fn new(flags: &[String]) -> Result<Self, SettingsError> {
        Ok(Self::start(settings(flags)?))
    }

    fn start(settings: Settings) -> Self {
        let clock = Arc::new(VirtualClock::default());
        let shared: Arc<dyn Clock> = Arc::<VirtualClock>::clone(&clock);
        let metrics = Arc::new(Metrics::new());
        let store =
            MemoryStore::new(Arc::clone(&shared), settings.memory_keys_max, metrics.store.clone())
                .guarded(settings.memory_cold.unwrap_or_default());
        let region = settings.service.region.clone();
        let auditor = Arc::new(Auditor::new(Arc::new(NoAudit), Arc::clone(&shared), region, 0));
        let stores = Stores::single(Arc::new(store));
        let settings = settings.service;
        let decisions = Arc::new(Decisions::new(
            settings.clone(),
            stores.clone(),
            shared,
            Arc::clone(&metrics),
            Arc::clone(&auditor),
        ));
        // Tokens are the operator's and no part of a decision: every caller is known.
        let data = DataListener::new(Arc::clone(&decisions), None, auditor, metrics);
        Self { clock, data, decisions, settings, stores }
    }

    /// Carries out what an operator sends to the admin listener, as somebody who may: its path and body. What it answers, or
    /// `None` if there is no such command.
    pub fn operate(&mut self, now_unix_ns: u64, path: &str, body: &str) -> Option<u16> {
        self.clock.unix_us.store(now_unix_ns / 1_000, Ordering::Relaxed);
        let Self { decisions, settings, stores, .. } = self;
        let (observed, seen) = (decisions.observed(), decisions.seen());
        let done = match Command::at(path)?.read(body.as_bytes(), settings, observed) {
            Ok(ready) => at_once(ready.run(settings, stores, observed, seen))?,
            Err(done) => *done,
        };
        Some(done.answer.status().as_u16())
    }

    fn answer(&self, request: &ServiceRequest) -> Option<Answer> {
        let mut head = Request::builder().method(request.method().as_str()).uri(request.path());
        for (name, value) in request.headers.pairs() {
            if !name.starts_with(b":") {
                head = head.header(name.as_slice(), value.as_slice());
            }
        }
        // What is no HTTP gets what hyper answers by itself: a 400 without the gateway's mark.
        let Ok((head, ())) = head.body(()).map(Request::into_parts) else {
            return Some(Answer::new(400, ""));
        };
        let (parts, body) = at_once(self.data.answer(&head, &request.body))?.into_parts();
        let mut headers = HeaderMap::default();
        for (name, value) in &parts.headers {
            headers.add(name.as_str().as_bytes(), value.as_bytes());
        }
        let body: UnsyncBoxBody<_, _> = body.boxed_unsync();
        let body = at_once(body.collect())?.ok()?.to_bytes();
        Some(Answer { headers, ..Answer::new(parts.status.as_u16(), body) })
    }
}

impl Service for InProcess {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        self.clock.unix_us.store(now_unix_ns / 1_000, Ordering::Relaxed);
        match self.answer(request) {
            Some(answer) => {
                Reply { after_ns: LATENCY_NS, outcome: Outcome::Answer(answer), tries: 1 }
            }
            None => Reply { after_ns: 0, outcome: Outcome::Fault(Fault::Timeout), tries: 1 },
        }
    }
}

/// What a future is once it is polled: with its state in memory the gateway waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

// === impl VirtualClock ===

impl Clock for VirtualClock {
    fn unix_us(&self) -> u64 {
        self.unix_us.load(Ordering::Relaxed)
    }

    fn elapsed_us(&self) -> u64 {
        self.unix_us()
    }

    /// No time passes within a call, so that no deadline is ever reached.
    fn sleep(&self, _duration: Duration) -> Sleep {
        Box::pin(std::future::pending())
    }
}

impl AuditSink for NoAudit {
    fn record(&self, _event: AuditEvent) {}
}
