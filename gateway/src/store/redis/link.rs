//! Owns one connection to Redis for as long as the gateway lives: opening it, loading the script,
//! noticing that it broke, opening it anew. Knows no keys and no calls' meaning.
//!
//! Why not the crate's own connection manager: its callers wait for a reconnect, which a decision
//! of 30 ms cannot. Here a broken connection is simply absent, so a call fails at once. A
//! connection that is open but silent (a stopped Redis, a black hole) stays in use, since its
//! silence is what the bound on calls in flight is for; beside it a new one is tried, which takes
//! its place only once it works. So does one to a server that became a replica: the name or address
//! may belong to the new master by now, but an open connection does not move by itself.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, PushInfo, PushKind, RedisError, RedisResult,
    ServerErrorKind, Value,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use super::address::RedisAddress;
use super::lineage::{Lineage, Memory};
use super::marks::{self, Marking};
use super::place::Sentinels;
use super::replicas::Replicas;
use super::script::Scripts;
use super::tls::RedisTls;
use crate::clock::Clock;
use crate::cores::Cores;
use crate::store::{StoreCounters, keys};
use crate::throttle::Throttle;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Between attempts; doubled each time. The largest bounds how long Redis is back unnoticed.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_millis(800);
/// How long a connection may leave calls unanswered before a second one is tried beside it.
const SILENCE_MAX_US: u64 = 3_000_000;
const SILENCE_CHECK: Duration = Duration::from_secs(1);
const LOG_INTERVAL_US: u64 = 10_000_000;

/// Where a connection leads.
#[derive(Clone)]
pub enum Target {
    /// To this server.
    Fixed(RedisAddress),
    /// To whoever is the master when it is opened.
    Master(Sentinels),
}

/// What all connections to one server have in common.
#[derive(Clone)]
pub struct LinkSettings {
    /// Where it is.
    pub target: Target,
    /// The certificates, if the address asks for TLS.
    pub tls: RedisTls,
    /// After that long a call has failed for good.
    pub response_timeout: Duration,
    /// How many calls may wait to be written, at least 1.
    pub pipeline_len_max: usize,
    /// What is loaded before a connection is published.
    pub scripts: Arc<Scripts>,
    /// The region's marks; those that are missing are set before a connection is published.
    pub marks: Arc<[String]>,
    /// Where connections live: each on the core of its slot.
    pub cores: Arc<Cores>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where things are counted.
    pub counters: StoreCounters,
}

/// A slot that holds a connection whenever there is one.
pub struct Link {
    shared: Arc<Shared>,
    supervisor: JoinHandle<()>,
}

/// A connection that was up when it was taken.
#[derive(Clone)]
pub struct Live {
    connection: MultiplexedConnection,
    watch: Arc<Watch>,
    replicas: Arc<Replicas>,
    settings: Arc<LinkSettings>,
}

/// What the calls over a connection say of it.
#[derive(Default)]
struct Watch {
    /// When it began to leave calls unanswered; 0 if it answers.
    silent_since_us: AtomicU64,
    /// Whether its server ever was a replica. Stays, because a call that only reads says nothing
    /// about it, and a replacement costs little.
    replica: AtomicBool,
}

struct Shared {
    live: RwLock<Option<Live>>,
}

struct Supervisor {
    slot: usize,
    settings: Arc<LinkSettings>,
    lineage: Arc<Lineage>,
    shared: Arc<Shared>,
    failures: Throttle,
}

/// A connection, what tells that it broke, and to which memory it leads.
type Opened = (Live, UnboundedReceiver<()>, Memory);

// === impl Target ===

impl Target {
    fn pattern(&self) -> &RedisAddress {
        match self {
            Self::Fixed(address) => address,
            Self::Master(sentinels) => &sentinels.pattern,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => write!(f, "{address}"),
            Self::Master(sentinels) => write!(f, "master {}", sentinels.master),
        }
    }
}

// === impl LinkSettings ===

impl LinkSettings {
    /// The same for another server.
    pub fn leading_to(&self, target: Target) -> Self {
        Self { target, ..self.clone() }
    }
}

// === impl Link ===

impl Link {
    /// Starts the supervisor.
    pub fn start(
        slot: usize,
        settings: &Arc<LinkSettings>,
        lineage: &Arc<Lineage>,
    ) -> RedisResult<Self> {
        // Opens nothing, but says whether the address can be used at all.
        settings.target.pattern().client(&settings.tls)?;
        let shared = Arc::new(Shared { live: RwLock::new(None) });
        let supervisor = Supervisor {
            slot,
            settings: Arc::clone(settings),
            lineage: Arc::clone(lineage),
            shared: Arc::clone(&shared),
            failures: Throttle::new(1, LOG_INTERVAL_US),
        };
        Ok(Self { shared, supervisor: settings.cores.spawn(slot, supervisor.run()) })
    }

    /// The connection, if one is up.
    pub fn live(&self) -> Option<Live> {
        self.shared.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

// === impl Live ===

impl Live {
    /// Sends one command and waits for its answer or the response timeout.
    pub async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let sent_us = self.settings.clock.elapsed_us();
        let answer =
            self.connection.send_packed_command(command).await.and_then(Value::extract_error);
        self.watch.note(sent_us, answer.as_ref().err());
        answer
    }

    /// Sends commands one behind the other and waits for all answers; the first error counts.
    pub async fn send_all(&mut self, commands: &Pipeline, count: usize) -> RedisResult<()> {
        let sent_us = self.settings.clock.elapsed_us();
        let answers = self.connection.send_packed_commands(commands, 0, count).await;
        let answers = answers.and_then(|answers| {
            answers.into_iter().try_for_each(|one| one.extract_error().map(drop))
        });
        self.watch.note(sent_us, answers.as_ref().err());
        answers
    }

    /// Sends one command as a question about a slot that is on its way here.
    pub async fn send_asking(&mut self, command: &Cmd) -> RedisResult<Value> {
        let mut both = Pipeline::with_capacity(2);
        both.cmd("ASKING").add_command(command.clone());
        let sent_us = self.settings.clock.elapsed_us();
        let answers = self.connection.send_packed_commands(&both, 0, 2).await;
        let answer = answers.and_then(|answers| match answers.into_iter().nth(1) {
            Some(answer) => answer.extract_error(),
            None => Err(RedisError::from((ErrorKind::Parse, "one answer of two"))),
        });
        self.watch.note(sent_us, answer.as_ref().err());
        answer
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.settings.target
    }

    /// Where things are counted.
    pub fn counters(&self) -> &StoreCounters {
        &self.settings.counters
    }

    /// On how many replicas everything is that this connection was answered for, at most after `within`.
    pub async fn acknowledged(&mut self, replicas: u8, within: Duration) -> RedisResult<u8> {
        let waits = Arc::clone(&self.replicas);
        waits.acknowledged(self, replicas, within).await
    }

    /// Loads the scripts.
    pub async fn load(&mut self, scripts: &Scripts) -> RedisResult<()> {
        for command in scripts.load_commands() {
            self.send(&command).await?;
            self.settings.counters.script_loads.inc();
        }
        Ok(())
    }

    /// Whether decisions can be written, by this key.
    pub async fn probe(&mut self, key: &str) -> RedisResult<()> {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(self.settings.clock.unix_us() / 1_000).arg("PX").arg(keys::PROBE_TTL_MS);
        self.send(&set).await.map(drop)
    }
}

// === impl Watch ===

impl Watch {
    fn note(&self, sent_us: u64, error: Option<&RedisError>) {
        if !error.is_some_and(RedisError::is_timeout) {
            self.silent_since_us.store(0, Ordering::Relaxed);
            if error.is_some_and(is_replica) {
                self.replica.store(true, Ordering::Relaxed);
            }
            return;
        }
        // The first timeout marks the moment; if another was faster, its moment stands.
        let first = self.silent_since_us.compare_exchange(
            0,
            sent_us.max(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if first.is_ok() {
            tracing::debug!("a connection to Redis fell silent");
        }
    }

    fn silent_us(&self, now_us: u64) -> u64 {
        match self.silent_since_us.load(Ordering::Relaxed) {
            0 => 0,
            since_us => now_us.saturating_sub(since_us),
        }
    }
}

// === impl Supervisor ===

impl Supervisor {
    async fn run(self) {
        let mut before = None;
        loop {
            let opened = self.open_patiently().await;
            if before.is_some() {
                self.settings.counters.reconnects.inc();
            }
            before = Some(self.hold(opened, before).await);
            self.publish(None);
            tracing::warn!(slot = self.slot, redis = %self.settings.target, "the connection to Redis broke");
        }
    }

    /// Keeps a working connection published until it breaks; to which memory the last one led.
    async fn hold(&self, opened: Opened, before: Option<Memory>) -> Memory {
        let (mut live, mut broken, mut memory) = opened;
        self.lineage.meets(before.as_ref(), &memory);
        self.publish(Some(live.clone()));
        tracing::info!(slot = self.slot, redis = %self.settings.target, "connected to Redis");
        loop {
            tokio::select! {
                // `None` cannot come while the connection lives; it would mean that it is gone.
                _ = broken.recv() => return memory,
                () = self.settings.clock.sleep(SILENCE_CHECK) => {}
            }
            let replica = live.watch.replica.load(Ordering::Relaxed);
            if !replica && live.watch.silent_us(self.settings.clock.elapsed_us()) < SILENCE_MAX_US {
                continue;
            }
            let opened = if replica { self.open_writable().await } else { self.open().await };
            match opened {
                Ok(other) => {
                    self.settings.counters.reconnects.inc();
                    self.lineage.meets(Some(&memory), &other.2);
                    tracing::warn!(
                        slot = self.slot, redis = %self.settings.target, replica,
                        "replaced a connection to Redis that was silent or led to a replica"
                    );
                    (live, broken, memory) = other;
                    self.publish(Some(live.clone()));
                }
                Err(error) => self.log(&error),
            }
        }
    }

    async fn open_patiently(&self) -> Opened {
        let mut wait = BACK_OFF_MIN;
        loop {
            match self.open().await {
                Ok(opened) => return opened,
                Err(error) => self.log(&error),
            }
            self.settings.clock.sleep(wait).await;
            wait = (wait * 2).min(BACK_OFF_MAX);
        }
    }

    /// A connection with the script in place: what is published can be called at once.
    async fn open(&self) -> RedisResult<Opened> {
        let (broke, broken) = unbounded_channel();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(self.settings.response_timeout))
            .set_pipeline_buffer_size(self.settings.pipeline_len_max.max(1))
            .set_push_sender(move |push: PushInfo| match push.kind {
                // Nobody listens any more once the connection was replaced.
                PushKind::Disconnection => broke.send(()).map_err(|_closed| redis::aio::SendError),
                _ => Ok(()),
            });
        let tls = &self.settings.tls;
        let address = match &self.settings.target {
            Target::Fixed(address) => address.clone(),
            Target::Master(sentinels) => sentinels.master(tls).await?,
        };
        let client = address.client(tls)?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let watch = Arc::new(Watch::default());
        let replicas = Arc::default();
        let mut live = Live { connection, watch, replicas, settings: Arc::clone(&self.settings) };
        live.load(&self.settings.scripts).await?;
        let memory = Memory::of(&mut live).await?;
        // A replica and a full server refuse to write: their calls say so, and there is another
        // round over the marks soon.
        if let Err(error) = marks::mark(&mut live, &self.settings.marks, Marking::Missing).await {
            self.log(&error);
        }
        Ok((live, broken, memory))
    }

    /// Another replica would be no gain: the connection that exists stays.
    async fn open_writable(&self) -> RedisResult<Opened> {
        let mut opened = self.open().await?;
        opened.0.probe(keys::PROBE).await.map(|()| opened)
    }

    fn publish(&self, live: Option<Live>) {
        *self.shared.live.write().unwrap_or_else(PoisonError::into_inner) = live;
    }

    fn log(&self, error: &RedisError) {
        if let Some(more) = self.failures.admit(self.settings.clock.elapsed_us()) {
            tracing::warn!(
                slot = self.slot, redis = %self.settings.target, %error, more,
                "cannot connect to Redis; trying on"
            );
        }
    }
}

/// Whether the error says that writes belong to another server.
fn is_replica(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
    )
}
