//! Owns every metric's name, labels and help, and their text form. Knows nothing of what is
//! counted; texts of reasons come from the policy's own list.

mod breakers;
mod labels;
mod leases;
mod pressure;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tidegate_policy::reason::Reason;

pub use self::breakers::{BreakerLabel, BreakerMetrics, ChangeLabel, TestLabel};
pub use self::labels::{
    ActionLabel, CauseLabel, HttpLabel, LimitLabel, OutcomeLabel, ReasonLabel, RoleLabel,
    VerdictLabel,
};
use self::leases::LeaseCounters;
use self::pressure::PressureMetrics;
use crate::audit::counters::ChainCounters;
use crate::store::StoreCounters;

/// From 50 µs (memory, a near Redis) to 1 s, with edges at the pool wait and the deadline.
const SECONDS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.015, 0.03, 0.05, 0.1,
    0.25, 1.0,
];

type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

/// All metrics of one gateway.
pub struct Metrics {
    registry: Registry,
    /// Decisions given, by verdict.
    decisions: Family<VerdictLabel, Counter>,
    /// Those that allow.
    pub allowed: Counter,
    /// Those that deny.
    pub denied: Counter,
    /// What each limit said.
    pub limits: Family<LimitLabel, Counter>,
    /// Decisions that asked a limit with other numbers than the one before it.
    pub limit_changes: Counter,
    /// Calls refused without a verdict, by reason.
    pub refusals: Family<ReasonLabel, Counter>,
    /// Store calls under way.
    pub in_flight: Gauge,
    /// Callers that wait for a place.
    pub waiting: Gauge,
    /// The bound on store calls under way.
    pub in_flight_max: Gauge,
    /// The most that were under way at once since the statistics were last logged.
    pub in_flight_peak: Gauge,
    /// Calls that did not get a place at once.
    pub waits: Counter,
    /// Waits that ended without a place.
    pub acquire_timeouts: Counter,
    /// Store calls that outlived their deadline and kept their place until they ended.
    pub outlived: Counter,
    /// What waits for the processor.
    pub pressure: PressureMetrics,
    /// How long store calls took.
    pub store_calls: Seconds<OutcomeLabel>,
    /// Those that were answered.
    pub store_calls_ok: Histogram,
    /// Shadow limits that could not be read beside enforced ones that could.
    pub shadow_failures: Counter,
    /// Decisions whose charge was given back, since nobody heard of them.
    pub given_back: Counter,
    /// Whether the background probe reached the store of a role.
    pub store_up: Family<RoleLabel, Gauge>,
    /// Connections that a role's store may have.
    pub store_connections: Family<RoleLabel, Gauge>,
    /// Those that are up.
    pub store_connections_up: Family<RoleLabel, Gauge>,
    /// What is seen of leases.
    pub leases: LeaseCounters,
    /// Upstreams' breakers.
    pub breakers: BreakerMetrics,
    /// What the stores count themselves.
    pub store: StoreCounters,
    /// HTTP answers.
    pub http_requests: Family<HttpLabel, Counter>,
    /// Those with 200 on the filter's listener.
    pub data_ok: Counter,
    /// Callers that left before their answer.
    pub gone: Counter,
    /// Connections closed at once because too many were open.
    pub connections_refused: Counter,
    /// TLS handshakes that failed, by cause.
    pub handshake_failures: Family<CauseLabel, Counter>,
    /// Handlers that panicked.
    pub panics: Counter,
    /// What the audit chain counts.
    pub audit: ChainCounters,
    /// Audit events, by action.
    pub audit_events: Family<ActionLabel, Counter>,
    /// Secrets that were read again and refused.
    pub secret_failures: Counter,
    /// Secrets that were replaced.
    pub secret_reloads: Counter,
    /// When the gateway started.
    pub start_time_seconds: Gauge<f64, AtomicU64>,
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything, so that a scrape shows each name from the start.
    pub fn new() -> Self {
        let decisions = Family::<VerdictLabel, Counter>::default();
        let verdict = |verdict| decisions.get_or_create(&VerdictLabel { verdict }).clone();
        let (allowed, denied) = (verdict("allow"), verdict("deny"));
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        let store_calls = Seconds::new_with_constructor(seconds);
        let store_calls_ok = store_calls.get_or_create(&OutcomeLabel { outcome: "ok" }).clone();
        let http_requests = Family::<HttpLabel, Counter>::default();
        let data_ok = HttpLabel { listener: "data", status: 200 };
        let data_ok = http_requests.get_or_create(&data_ok).clone();
        let mut metrics = Self {
            registry: Registry::with_prefix("tidegate_gateway"),
            decisions,
            allowed,
            denied,
            limits: Family::default(),
            refusals: Family::default(),
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            in_flight_max: Gauge::default(),
            in_flight_peak: Gauge::default(),
            waits: Counter::default(),
            acquire_timeouts: Counter::default(),
            outlived: Counter::default(),
            pressure: PressureMetrics::default(),
            store_calls,
            store_calls_ok,
            shadow_failures: Counter::default(),
            given_back: Counter::default(),
            store_up: Family::default(),
            store_connections: Family::default(),
            store_connections_up: Family::default(),
            leases: LeaseCounters::default(),
            breakers: BreakerMetrics::default(),
            store: StoreCounters::default(),
            http_requests,
            data_ok,
            gone: Counter::default(),
            connections_refused: Counter::default(),
            handshake_failures: Family::default(),
            limit_changes: Counter::default(),
            panics: Counter::default(),
            audit: ChainCounters::default(),
            audit_events: Family::default(),
            secret_failures: Counter::default(),
            secret_reloads: Counter::default(),
            start_time_seconds: Gauge::default(),
        };
        metrics.register_decisions();
        metrics.register_bounds();
        metrics.register_store();
        metrics.breakers.register(&mut metrics.registry);
        metrics.register_process();
        metrics
    }

    /// The OpenMetrics text.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Counts one refusal.
    pub fn refused(&self, reason: Reason) {
        self.refusals.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    fn register_decisions(&mut self) {
        self.leases.register(&mut self.registry);
        self.pressure.register(&mut self.registry);
        let registry = &mut self.registry;
        registry.register("decisions", "Decisions given", self.decisions.clone());
        registry.register(
            "limits",
            "What each limit said: allowed, near, denied or shadow-denied",
            self.limits.clone(),
        );
        let changes = "Decisions that asked a limit with other numbers than the one before";
        registry.register("limit_changes", changes, self.limit_changes.clone());
        registry.register("refusals", "Calls refused without a verdict", self.refusals.clone());
        registry.register(
            "shadow_failures",
            "Shadow limits that could not be read beside enforced ones that could",
            self.shadow_failures.clone(),
        );
        registry.register(
            "charges_given_back",
            "Decisions whose charge was given back: their caller had gone, or their claim failed",
            self.given_back.clone(),
        );
        registry.register("http_requests", "HTTP answers", self.http_requests.clone());
        registry.register(
            "callers_gone",
            "Callers that left before their answer",
            self.gone.clone(),
        );
    }

    fn register_bounds(&mut self) {
        let registry = &mut self.registry;
        registry.register("in_flight", "Store calls under way", self.in_flight.clone());
        registry.register("in_flight_max", "The bound on them", self.in_flight_max.clone());
        registry.register("waiting", "Callers that wait for a place", self.waiting.clone());
        registry.register(
            "in_flight_peak",
            "The most under way at once since the statistics were last logged",
            self.in_flight_peak.clone(),
        );
        registry.register(
            "waits",
            "Store calls that did not get a place at once",
            self.waits.clone(),
        );
        registry.register(
            "acquire_timeouts",
            "Waits that ended without a place",
            self.acquire_timeouts.clone(),
        );
        registry.register(
            "outlived_calls",
            "Store calls that outlived their deadline or caller and kept their place to the end",
            self.outlived.clone(),
        );
    }

    fn register_store(&mut self) {
        let registry = &mut self.registry;
        registry.register("store_call_seconds", "Store calls", self.store_calls.clone());
        registry.register("store_up", "1 if the last probe was answered", self.store_up.clone());
        registry.register(
            "store_connections",
            "Connections that a store may have",
            self.store_connections.clone(),
        );
        registry.register(
            "store_connections_up",
            "Connections that are up",
            self.store_connections_up.clone(),
        );
        registry.register(
            "store_reconnects",
            "Connections opened after a slot's first",
            self.store.reconnects.clone(),
        );
        registry.register(
            "store_script_loads",
            "Scripts loaded, at connect and after NOSCRIPT",
            self.store.script_loads.clone(),
        );
        registry.register(
            "store_unreadable",
            "Stored answers that could not be opened",
            self.store.unreadable.clone(),
        );
        registry.register(
            "store_evicting",
            "Looks, each 30 s, at a Redis that throws keys away when its memory is full",
            self.store.evicting.clone(),
        );
        registry.register(
            "store_rewound",
            "Connections that found a Redis that began anew from a snapshot, so that its region is cold",
            self.store.rewound.clone(),
        );
        registry.register(
            "store_full",
            "Calls refused because the memory store was full",
            self.store.full.clone(),
        );
    }

    fn register_process(&mut self) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let registry = &mut self.registry;
        registry.register(
            "connections_refused",
            "Connections closed at once because too many were open",
            self.connections_refused.clone(),
        );
        registry.register(
            "tls_handshake_failures",
            "TLS handshakes that failed",
            self.handshake_failures.clone(),
        );
        registry.register("panics", "Handlers that panicked", self.panics.clone());
        registry.register("audit_events", "Audit events", self.audit_events.clone());
        self.audit.register(registry);
        registry.register("secret_reloads", "Secrets replaced", self.secret_reloads.clone());
        registry.register(
            "secret_reload_failures",
            "Secrets read again and refused",
            self.secret_failures.clone(),
        );
        registry.register(
            "start_time_seconds",
            "When the gateway started, in seconds since 1970",
            self.start_time_seconds.clone(),
        );
        registry.register("build", "The build", build);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts a gauge up for as long as it lives.
pub struct Held(Gauge);

// === impl Held ===

impl Held {
    /// Counts up.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Metrics that threads share.
pub type SharedMetrics = Arc<Metrics>;
