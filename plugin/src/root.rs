//! Owns what one configuration of the filter needs to serve requests: the checked document, the
//! callout's fixed part, the counters. Made whole or not at all.

use std::cell::{Cell, RefCell};

use tidegate_policy::audit::Action;
use tidegate_policy::audit::testimony::Testimony;
use tidegate_policy::breaker::Outcome;
use tidegate_policy::breaker::alone::Ticket;
use tidegate_policy::breaker::mesh::State;
use tidegate_policy::config::{Config, ConfigHash, Severity};
use tidegate_policy::exchange::Signal;
use tidegate_policy::homes;
use tidegate_policy::identity::Secrets;
use tidegate_policy::mode::Overrides;
use tidegate_policy::reason::Reason;
use tidegate_policy::scope::{CallerScope, Environment, KeyFormat, Region, Tenant};
use tidegate_policy::wire;

use crate::circuits::{self, Circuits, Fresh, Told};
use crate::codec;
use crate::counters::{self, Counters};
use crate::host::{self, Buffer, Level};
use crate::lease_home::Home;
use crate::leases::Leases;
use crate::notice::Notice;
use crate::path::{Path, Step};
use crate::property::Property;
use crate::vm::{Events, Line};

/// Names the environment that the filter was deployed for.
const ENVIRONMENT_VARIABLE: &str = "TIDEGATE_ENVIRONMENT";

/// How often claims are looked after and audit events are sent, where nothing else needs a tick: a third of
/// the shortest lock is longer than a second.
pub(crate) const BEAT_MS: u32 = 1_000;

/// The callout's authority. Not the cluster's name: Istio's hold `|`, which no authority may.
const AUTHORITY: &str = "tidegate-gateway";

/// One configuration in force.
#[derive(Debug)]
pub(crate) struct Root {
    pub config: Config,
    /// The keys that its identities need.
    pub secrets: Secrets,
    pub caller: CallerScope,
    pub overrides: Overrides,
    pub counters: RefCell<Counters>,
    /// Tells the log of requests without a verdict.
    pub notice: Notice,
    /// What is leased, if anything is.
    pub leases: Option<RefCell<Leases>>,
    /// Whether any policy has idempotency: its claims are looked after while their requests take long.
    pub is_idempotent: bool,
    /// How often it was called by the clock, to look after claims.
    pub ticks: Cell<u32>,
    /// Guards the way to the gateway.
    path: Path,
    /// Guards the ways to the gateways of home regions, in their order.
    homes: Vec<Path>,
    /// Whether the log was told of a route whose metadata mean nothing: once, not per request.
    pub told_strange_route: Cell<bool>,
    /// The headers of a question, encoded once.
    pub call_headers: Vec<u8>,
    /// The headers of several questions at once, encoded once.
    pub together_headers: Vec<u8>,
    /// The questions that wait for those that are out.
    pub line: RefCell<Line>,
    /// The headers of a settlement, encoded once.
    pub settle_headers: Vec<u8>,
    /// The headers of a tick's message, encoded once.
    pub sync_headers: Vec<u8>,
    /// The headers of a report on circuit breakers, encoded once.
    pub report_headers: Vec<u8>,
    /// The circuit breakers of upstreams.
    pub circuits: Circuits,
    /// The headers of a message with audit events, encoded once.
    pub audit_headers: Vec<u8>,
    /// The audit events that wait; shared with the configurations of the same gateway.
    pub events: Option<Events>,
    /// Whether any decision waits for its event.
    pub waits_for_events: bool,
    /// Whether the log was told that the gateway takes no events.
    pub told_refused: Cell<bool>,
    /// Whether it was recorded that it is in force.
    told_news: Cell<bool>,
    /// The document's fingerprint, and the filter's name in Envoy's configuration.
    fingerprint: (ConfigHash, String),
}

// === impl Root ===

impl Root {
    /// Reads the plugin's configuration. Every problem is logged with its field; `None` makes
    /// Envoy refuse the configuration and keep the one in force.
    pub(crate) fn configure(size: usize, me: u64) -> Option<Self> {
        let (config, hash) = match document(size) {
            Ok(document) => read(&document)?,
            Err(problem) => return refuse(&problem),
        };
        let token = match &config.gateway.token_env {
            None => None,
            Some(name) => match std::env::var(name) {
                Ok(token) if sound_token(&token) => Some(token),
                Ok(_) => {
                    return refuse(&format!(
                        "gateway.token: the environment variable {name} holds no token; it must be visible ASCII"
                    ));
                }
                Err(_) => {
                    return refuse(&format!(
                        "gateway.token: the environment variable {name} is not set; pass it by vm_config.environment_variables"
                    ));
                }
            },
        };
        let environment =
            |name: &str| std::env::var_os(name).map(|value| value.into_encoded_bytes());
        let secrets = match Secrets::new(&config, environment) {
            Ok(secrets) => secrets,
            Err(problem) => return refuse(&problem),
        };
        let caller = match caller() {
            Ok(caller) => caller,
            Err(problem) => return refuse(&problem),
        };
        let call_headers = |path| call_headers(path, token.as_deref(), None);
        let digits = hash.digits();
        let asking = |path| self::call_headers(path, token.as_deref(), Some(&digits));
        host::log(
            Level::Info,
            &format!(
                "tidegate: {} policies in force, gateway {}, configuration {hash}",
                config.policies.len(),
                config.gateway.cluster
            ),
        );
        let filter = counters::filter_name();
        counters::configuration(hash, &filter);
        let path = Path::new(config.gateway.breaker, "the gateway".to_owned());
        let home = |home: &homes::Home| {
            Path::new(config.gateway.breaker, format!("the gateway of region {}", home.region))
        };
        let homes = config.homes.all().iter().map(home).collect();
        let leases = config.has_leases().then(|| leases(&config, &caller));
        let circuits = Circuits::new(&config, me);
        if !circuits.is_empty()
            && let Err(status) = host::set_tick_period(circuits::TICK_MS)
        {
            return refuse(&format!(
                "circuit_breakers: the host gives no ticks: status {}",
                status.0
            ));
        }
        let is_idempotent = config.policies.iter().any(|policy| policy.idempotency.is_some());
        if is_idempotent
            && circuits.is_empty()
            && leases.is_none()
            && let Err(status) = host::set_tick_period(BEAT_MS)
        {
            return refuse(&format!("idempotency: the host gives no ticks: status {}", status.0));
        }
        Some(Self {
            config,
            secrets,
            caller,
            overrides: Overrides::default(),
            counters: RefCell::default(),
            notice: Notice::default(),
            leases,
            is_idempotent,
            ticks: Cell::new(0),
            path,
            homes,
            told_strange_route: Cell::default(),
            call_headers: asking(wire::DECIDE_PATH),
            together_headers: asking(wire::together::DECISIONS_PATH),
            line: RefCell::default(),
            settle_headers: call_headers(wire::SETTLE_PATH),
            sync_headers: call_headers(wire::SYNC_PATH),
            report_headers: call_headers(wire::breaker::BREAKERS_PATH),
            circuits,
            audit_headers: call_headers(wire::audit::AUDIT_PATH),
            events: None,
            waits_for_events: false,
            told_refused: Cell::default(),
            told_news: Cell::default(),
            fingerprint: (hash, filter),
        })
    }

    /// The document's hash.
    pub(crate) fn hash(&self) -> ConfigHash {
        self.fingerprint.0
    }

    /// How often it is called without a request that waits; 0 is never.
    pub(crate) fn idle_tick_ms(&self) -> u32 {
        let beats = self.is_idempotent || self.events.is_some();
        match (self.circuits.is_empty() && self.leases.is_none(), beats) {
            (false, _) => circuits::TICK_MS,
            (true, true) => BEAT_MS,
            (true, false) => 0,
        }
    }

    /// Whether events of both may go in one message.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        let of = |root: &Self| (root.caller.clone(), root.config.gateway.cluster.clone());
        self.audit_headers == other.audit_headers && of(self) == of(other)
    }

    /// What a record says of this configuration, once, unless another worker of the process has said it.
    pub(crate) fn news(&self) -> Option<String> {
        if self.told_news.replace(true) {
            return None;
        }
        let (hash, filter) = &self.fingerprint;
        let (key, digits) = (format!("tidegate.audit.config.{filter}"), hash.digits());
        // Whoever cannot know says it: once more than necessary is no harm.
        let (before, cas) = host::shared(&key).unwrap_or_default();
        if before == digits.as_bytes()
            || host::set_shared(&key, digits.as_bytes(), cas) == Ok(false)
        {
            return None;
        }
        let policies = self.config.policies.len();
        let replaces = match std::str::from_utf8(&before) {
            Ok(before) if !before.is_empty() => format!(" replaces={before}"),
            Ok(_) | Err(_) => String::new(),
        };
        let audit = if self.config.audits { "on" } else { "off" };
        let version = env!("CARGO_PKG_VERSION");
        Some(format!(
            "configuration={hash} sha256={digits}{replaces} policies={policies} audit={audit} filter={filter} version={version}"
        ))
    }

    /// What the process knows of circuit breakers, for a stream's exchange. `now_us`: the time, where it is known.
    pub(crate) fn fresh_circuits(&self, stream: u32, now_us: Option<u64>) -> Fresh<'_> {
        Fresh { circuits: &self.circuits, config: &self.config, stream, now_us }
    }

    /// Counts what circuit breakers do.
    pub(crate) fn count_circuit(&self, breaker: usize, told: Told, by: u64) {
        self.counters.borrow_mut().circuit(&self.config, breaker, told, by);
        let open = Reason::CircuitOpen.as_str();
        let (outcome, text) = match told {
            Told::Tripped => (open, "this process is shut by its own failures"),
            Told::Closed => ("ok", "this process lets requests through again"),
            _ => return,
        };
        self.tell(|| {
            let names = vec![self.config.circuit_breakers.get(breaker)?.name.clone()];
            let told = Testimony::own(Action::Breaker, outcome, text.to_owned());
            Some(Box::new(Testimony { names, ..told }))
        });
    }

    /// The cluster that leads to a gateway: that of a home region, or this region's own.
    pub(crate) fn cluster(&self, home: Option<usize>) -> &str {
        let home = home.and_then(|index| self.config.homes.get(index));
        home.map_or(&self.config.gateway.cluster, |home| &home.cluster)
    }

    /// Counts what happened.
    pub(crate) fn count(&self, signals: Vec<Signal>) {
        for signal in signals {
            self.counters.borrow_mut().signal(&self.config, signal);
        }
    }

    /// Whether a gateway may be asked now; if not, in how many ms it makes sense.
    pub(crate) fn admit(&self, home: Option<usize>) -> Result<Ticket, u64> {
        let (leave, step) = self.path(home).admit();
        self.note(home, step);
        leave
    }

    /// Takes what became of a callout.
    pub(crate) fn settle(
        &self,
        (home, ticket): (Option<usize>, Ticket),
        outcome: Outcome,
        entropy: u64,
    ) {
        self.note(home, self.path(home).settle(ticket, outcome, entropy));
    }

    fn path(&self, home: Option<usize>) -> &Path {
        home.and_then(|index| self.homes.get(index)).unwrap_or(&self.path)
    }

    fn note(&self, home: Option<usize>, step: Step) {
        if let Some(told) = step.told {
            self.counters.borrow_mut().way(&self.config, home, told);
        }
        let Some(entered) = step.entered else { return };
        if entered == State::Closed {
            self.counters.borrow_mut().way(&self.config, home, Told::Closed);
        }
        self.tell(|| {
            let text = format!("the way to {} is {}", self.path(home).name(), entered.as_str());
            Some(Box::new(Testimony::own(Action::Breaker, "ok", text)))
        });
    }
}

/// Where what is leased lies, and a tick to look after it.
fn leases(config: &Config, caller: &CallerScope) -> RefCell<Leases> {
    if let Err(status) = host::set_tick_period(circuits::TICK_MS) {
        host::log(
            Level::Warn,
            &format!(
                "tidegate: leased units are not given back: no tick: host status {}",
                status.0
            ),
        );
    }
    let region = caller.region.as_ref().map_or("", Region::as_str);
    let name = format!("{}\0{region}\0{}", config.gateway.cluster, caller.environment);
    RefCell::new(Leases::new(Home::new(&name), config.gateway.timeout_ms))
}

fn refuse<T>(problem: &str) -> Option<T> {
    host::log(Level::Error, &format!("tidegate: error: {problem}"));
    None
}

fn document(size: usize) -> Result<String, String> {
    let bytes = if size == 0 {
        Vec::new()
    } else {
        let read = host::buffer(Buffer::PluginConfiguration, size);
        read.map_err(|status| {
            format!("the configuration cannot be read: host status {}", status.0)
        })?
        .unwrap_or_default()
    };
    if bytes.is_empty() {
        return Err("no configuration; give the filter one JSON document (README.md)".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| format!("the configuration is no UTF-8: {error}"))
}

fn read(document: &str) -> Option<(Config, ConfigHash)> {
    let reading = Config::read(document);
    for diagnostic in &reading.diagnostics {
        let level = match diagnostic.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warn,
        };
        host::log(level, &format!("tidegate: {diagnostic}"));
    }
    reading.config.zip(reading.hash)
}

/// The region is the Envoy node's; a gateway that has one of its own compares them.
fn caller() -> Result<CallerScope, String> {
    let region = match host::property("xds\0node\0locality\0region") {
        Ok(Property::Bytes(bytes)) if !bytes.is_empty() => {
            let text = String::from_utf8_lossy(&bytes);
            Some(Region::new(&text).map_err(|bad| format!("the node's locality.region: {bad}"))?)
        }
        Ok(_) | Err(_) => None,
    };
    let environment = match std::env::var(ENVIRONMENT_VARIABLE) {
        Ok(text) if text.is_empty() => {
            return Err(format!(
                "{ENVIRONMENT_VARIABLE} is empty: write the environment's name into it or unset it"
            ));
        }
        Ok(text) => {
            Environment::new(&text).map_err(|bad| format!("{ENVIRONMENT_VARIABLE}: {bad}"))?
        }
        Err(_) => Environment::default(),
    };
    Ok(CallerScope { region, environment, tenant: Tenant::None, key_format: KeyFormat::default() })
}

fn sound_token(token: &str) -> bool {
    !token.is_empty() && token.len() <= 4096 && token.bytes().all(|b| b.is_ascii_graphic())
}

/// What asks for decisions says by which configuration it asks.
fn call_headers(path: &str, token: Option<&str>, config: Option<&str>) -> Vec<u8> {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![
        (":method", "POST"),
        (":path", path),
        (":authority", AUTHORITY),
        ("content-type", "application/json"),
    ];
    if let Some(value) = &authorization {
        headers.push(("authorization", value));
    }
    headers.extend(config.map(|config| (wire::CONFIG_HEADER, config)));
    codec::encode(&headers)
}
