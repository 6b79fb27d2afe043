//! Owns the gateway's life: putting the parts together, listening, the background tasks, and the
//! end. Decides nothing.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::audit::Action;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::access::{AdminTokens, FilterTokens};
use crate::audit::{Auditor, Happening};
use crate::clock::Clock;
use crate::cores::Cores;
use crate::health::Health;
use crate::http::admin::{AdminListener, Door};
use crate::http::commands::Commands;
use crate::http::connection::{ServeSettings, serve};
use crate::http::data::DataListener;
use crate::http::handshake::Tls;
use crate::metrics::SharedMetrics;
use crate::secret::{Origin, Parse, Parsed, Problem, SecretError, SecretSource, Watched};
use crate::service::{Service, statistics};
use crate::settings::Settings;
use crate::tls::TlsFiles;
use crate::world::{StartError, World};

const SECRETS_INTERVAL: Duration = Duration::from_secs(1);
/// What matters of the admin listener is waited for apart: commands go on without their connections.
const ADMIN_DRAIN: Duration = Duration::from_millis(200);

/// The parts without sockets.
pub struct Gateway {
    settings: Settings,
    world: World,
    health: Arc<Health>,
    auditor: Arc<Auditor>,
    tokens: Option<Arc<Watched<Parsed<FilterTokens>>>>,
    admin_tokens: Option<Arc<Watched<Parsed<AdminTokens>>>>,
    tls: Option<Arc<Watched<TlsFiles>>>,
    admin_tls: Option<Arc<Watched<TlsFiles>>>,
    service: Arc<Service>,
    data: Arc<DataListener>,
    admin: Arc<AdminListener>,
}

/// A gateway that listens. Dropping it stops it without waiting.
pub struct Running {
    /// Where the filter asks.
    pub data_addr: SocketAddr,
    /// Where operators and probes ask.
    pub admin_addr: SocketAddr,
    health: Arc<Health>,
    auditor: Arc<Auditor>,
    stop_data: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    data: JoinHandle<bool>,
    admin: JoinHandle<bool>,
    commands: Arc<Commands>,
    drain_timeout: Duration,
    _background: JoinSet<()>,
}

// === impl Gateway ===

impl Gateway {
    /// Puts the parts together and reads the secrets; opens no socket and starts no task.
    pub fn new(settings: Settings, world: World) -> Result<Self, StartError> {
        let tokens = watched(parsed(settings.token.as_ref(), FilterTokens::parse))?;
        let admin_tokens = watched(parsed(settings.admin_tokens.as_ref(), AdminTokens::parse))?;
        let tls = watched(settings.tls.clone())?;
        let admin_tls = watched(settings.admin_tls.clone())?;
        let door = match (&admin_tokens, settings.dev) {
            (Some(tokens), _) => Door::Tokens(Arc::clone(tokens)),
            (None, true) => Door::Open,
            (None, false) => Door::Shut,
        };
        let World { stores, clock, audit, trail, metrics, cores } = world.clone();
        let region = settings.service.region.clone();
        let instance = instance()?;
        let sync = settings.audit.as_ref().map(|audit| audit.sync.clone()).unwrap_or_default();
        let auditor = Auditor::new(audit, Arc::clone(&clock), region, instance);
        let auditor = Arc::new(auditor.with_trail(trail, sync));
        let health = Arc::new(Health::new());
        let service = Service::new(
            settings.service.clone(),
            stores.clone(),
            clock,
            Arc::clone(&metrics),
            Arc::clone(&auditor),
        );
        let service = Arc::new(service.on(&cores));
        let data = DataListener::new(
            Arc::clone(&service),
            tokens.clone(),
            Arc::clone(&auditor),
            Arc::clone(&metrics),
        );
        let admin = AdminListener::new(
            door,
            Arc::clone(&health),
            settings.service.clone(),
            stores,
            Arc::clone(&auditor),
            metrics,
            &service,
        );
        Ok(Self {
            settings,
            world,
            health,
            auditor,
            tokens,
            admin_tokens,
            tls,
            admin_tls,
            service,
            data: Arc::new(data),
            admin: Arc::new(admin),
        })
    }

    /// The filter's side without a socket, for in-process callers.
    pub fn data(&self) -> &Arc<DataListener> {
        &self.data
    }

    /// Puts the parts together, binds both listeners and starts.
    pub async fn start(settings: Settings, world: World) -> Result<Running, StartError> {
        Self::new(settings, world)?.listen().await
    }

    /// Binds both listeners and starts.
    pub async fn listen(self) -> Result<Running, StartError> {
        let settings = &self.settings;
        let data = bind("--listen (TIDEGATE_LISTEN)", settings.listen).await?;
        let admin = bind("--admin-listen (TIDEGATE_ADMIN_LISTEN)", settings.admin_listen).await?;
        let (data_addr, admin_addr) =
            (local(&data, settings.listen), local(&admin, settings.admin_listen));
        if let Some(path) = &settings.addresses_file {
            write_addresses(path, data_addr, admin_addr)
                .map_err(|source| StartError::AddressesFile { path: path.clone(), source })?;
        }
        tracing::info!("settings: {settings}");
        for note in &settings.notes {
            tracing::warn!("{note}");
        }
        let seconds = Duration::from_micros(self.world.clock.unix_us()).as_secs_f64();
        self.world.metrics.start_time_seconds.set(seconds);
        let background = self.background();
        let data_serving = ServeSettings::new(settings.drain_timeout);
        let admin_serving = ServeSettings::new(ADMIN_DRAIN);
        let (cores, here) = (&self.world.cores, Cores::here());
        let (stop_data, data_stopped) = watch::channel(false);
        let (stop_admin, admin_stopped) = watch::channel(false);
        let metrics = &self.world.metrics;
        let tls = |files| Tls::new(files, Arc::clone(metrics));
        let (data_tls, admin_tls) = (self.tls.map(tls), self.admin_tls.map(tls));
        let commands = Arc::clone(self.admin.commands());
        let data = serve(
            data,
            self.data,
            data_tls,
            Arc::clone(cores),
            Arc::clone(metrics),
            data_stopped,
            data_serving,
        );
        let admin = serve(
            admin,
            self.admin,
            admin_tls,
            Arc::new(here),
            Arc::clone(metrics),
            admin_stopped,
            admin_serving,
        );
        self.auditor.lifecycle(format!("started {}", env!("CARGO_PKG_VERSION")));
        // Values that are secret are left out of it already.
        self.auditor.record(Happening::own(Action::Config, format!("settings: {settings}")));
        tracing::info!(%data_addr, %admin_addr, "listening");
        Ok(Running {
            data_addr,
            admin_addr,
            health: self.health,
            auditor: self.auditor,
            stop_data,
            stop_admin,
            data: tokio::spawn(data),
            admin: tokio::spawn(admin),
            commands,
            drain_timeout: self.settings.drain_timeout,
            _background: background,
        })
    }

    fn background(&self) -> JoinSet<()> {
        let World { stores, clock, metrics, .. } = self.world.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self.health).watch(
            stores,
            Arc::clone(&clock),
            Arc::clone(&metrics),
        ));
        for core in self.world.cores.handles() {
            tasks.spawn_on(Arc::clone(&self.service).watch_pressure(), core);
        }
        tasks.spawn(statistics::log(Arc::clone(&self.service), self.settings.pool_log_interval));
        if let Some(tokens) = self.tokens.clone() {
            tasks.spawn(self.follow(tokens));
        }
        if let Some(tokens) = self.admin_tokens.clone() {
            tasks.spawn(self.follow(tokens));
        }
        for tls in [&self.tls, &self.admin_tls].into_iter().flatten() {
            tasks.spawn(self.follow(Arc::clone(tls)));
        }
        tasks
    }

    fn follow<O: Origin>(&self, secret: Arc<Watched<O>>) -> impl Future<Output = ()> + use<O> {
        let World { clock, metrics, .. } = self.world.clone();
        follow(secret, clock, metrics, Arc::clone(&self.auditor))
    }
}

// === impl Running ===

impl Running {
    /// Stops accepting, tells HTTP/2 clients to go away, finishes what is under way within the
    /// drain timeout, then operators' commands for as long again. `readyz` says 503 meanwhile. Returns whether
    /// everything that the filter asked was finished.
    pub async fn shutdown(self) -> bool {
        self.health.drain();
        tracing::info!("draining");
        self.stop_data.send_replace(true);
        let drained = finished(self.data.await);
        self.auditor
            .lifecycle(if drained { "stopped" } else { "stopped, calls cut off" }.to_owned());
        self.stop_admin.send_replace(true);
        finished(self.admin.await);
        // Also those whose callers have gone: how they end is on record.
        if !self.commands.ended(self.drain_timeout).await {
            tracing::error!(critical = true, "operators' commands were cut off at the end");
        }
        if let Some(trail) = self.auditor.trail() {
            trail.finish().await;
        }
        tracing::info!(drained, "stopped");
        drained
    }
}

fn finished(ended: Result<bool, tokio::task::JoinError>) -> bool {
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "a listener's task failed");
        false
    })
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { flag, address, source })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// Whole or not at all: a reader may poll for the file.
fn write_addresses(path: &PathBuf, data: SocketAddr, admin: SocketAddr) -> io::Result<()> {
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(".unfinished");
    std::fs::write(&unfinished, format!("data={data}\nadmin={admin}\n"))?;
    std::fs::rename(&unfinished, path)
}

fn parsed<T>(source: Option<&SecretSource>, parse: Parse<T>) -> Option<Parsed<T>> {
    source.map(|source| Parsed { source: source.clone(), parse })
}

fn watched<O: Origin>(origin: Option<O>) -> Result<Option<Arc<Watched<O>>>, SecretError> {
    origin.map(|origin| Watched::open(origin).map(Arc::new)).transpose()
}

fn instance() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::System {
        what: "the system gives no randomness",
        source: error.to_string().into(),
    })
}

/// Reads a secret again about once a second, for as long as the gateway lives.
async fn follow<O: Origin>(
    secret: Arc<Watched<O>>,
    clock: Arc<dyn Clock>,
    metrics: SharedMetrics,
    auditor: Arc<Auditor>,
) {
    let mut problem = Problem::default();
    loop {
        clock.sleep(SECRETS_INTERVAL).await;
        match secret.refresh() {
            Ok(false) => problem.is_gone(),
            Ok(true) => {
                problem.is_gone();
                metrics.secret_reloads.inc();
                tracing::info!(secret = secret.place(), "a new secret is in force");
                let detail = format!("a new secret is in force: {}", secret.place());
                auditor.record(Happening::own(Action::Config, detail));
            }
            Err(error) => {
                metrics.secret_failures.inc();
                if problem.is_news(error.to_string()) {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the last good secret stays in force"
                    );
                }
            }
        }
    }
}
