//! Owns one connection to Redis as its callers have it: taking it, sending over it, and what its answers say of it. Knows no
//! keys and no calls' meaning.
//!
//! Why not the crate's own connection manager: its callers wait for a reconnect, which a decision
//! of 30 ms cannot. Here a broken connection is simply absent, so a call fails at once;
//! [`super::supervisor`] opens it anew.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::address::RedisAddress;
use super::lineage::Lineage;
use super::place::Sentinels;
use super::replicas::Replicas;
use super::runs::{Guarded, Said};
use super::script::Scripts;
use super::supervisor::Supervisor;
use super::tls::RedisTls;
use crate::clock::Clock;
use crate::cores::Cores;
use crate::store::{StoreCounters, keys};

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
    /// What is guarded there, and looked at before a connection is published.
    pub guarded: Guarded,
    /// What the log has of its servers.
    pub said: Arc<Said>,
    /// Where connections live: each on the core of its slot.
    pub cores: Arc<Cores>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where things are counted.
    pub counters: StoreCounters,
}

/// What is known of one server by all connections to it.
#[derive(Default)]
pub struct Server {
    /// The memories to which they led.
    pub lineage: Lineage,
    /// Where the master was when most of the Sentinels were last of one mind; told again each time. `None` where nobody
    /// is asked.
    pub named: watch::Sender<Option<RedisAddress>>,
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
pub struct Watch {
    /// When it began to leave calls unanswered; 0 if it answers.
    silent_since_us: AtomicU64,
    /// Whether its server ever was a replica. Stays, because a call that only reads says nothing
    /// about it, and a replacement costs little.
    replica: AtomicBool,
    /// A probe is under way.
    probed: AtomicBool,
}

/// What a slot holds.
pub struct Shared {
    live: RwLock<Option<Live>>,
}

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
    /// The same for another server, on which nothing is guarded.
    pub fn leading_to(&self, target: Target) -> Self {
        Self { target, guarded: Guarded::default(), ..self.clone() }
    }
}

// === impl Link ===

impl Link {
    /// Starts the supervisor.
    pub fn start(
        slot: usize,
        settings: &Arc<LinkSettings>,
        server: &Arc<Server>,
    ) -> RedisResult<Self> {
        // Opens nothing, but says whether the address can be used at all.
        settings.target.pattern().client(&settings.tls)?;
        let shared = Arc::new(Shared { live: RwLock::new(None) });
        let supervisor = Supervisor::new(slot, settings, server, &shared);
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

// === impl Shared ===

impl Shared {
    /// From now on this is the connection, or there is none.
    pub fn publish(&self, live: Option<Live>) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
    }
}

// === impl Live ===

impl Live {
    /// Over this connection, of which nothing is known yet.
    pub fn new(connection: MultiplexedConnection, settings: &Arc<LinkSettings>) -> Self {
        let (watch, replicas) = (Arc::default(), Arc::default());
        Self { connection, watch, replicas, settings: Arc::clone(settings) }
    }

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

    /// The same; an error is that of one command, and the others' answers stand.
    pub async fn send_each(
        &mut self,
        commands: &Pipeline,
        count: usize,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let sent_us = self.settings.clock.elapsed_us();
        let answers = self.connection.send_packed_commands(commands, 0, count).await;
        self.watch.note(sent_us, answers.as_ref().err());
        Ok(answers?.into_iter().map(Value::extract_error).collect())
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

    /// What its calls said of it.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// What it has in common with the others to its server.
    pub fn settings(&self) -> &Arc<LinkSettings> {
        &self.settings
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

    /// Whether its server ever said that it is a replica.
    pub fn is_replica(&self) -> bool {
        self.replica.load(Ordering::Relaxed)
    }

    /// Whether its last call was left unanswered.
    pub fn is_silent(&self) -> bool {
        self.silent_since_us.load(Ordering::Relaxed) != 0
    }

    /// Whether it may be probed: one probe at a time is enough.
    pub fn begins_probe(&self) -> bool {
        !self.probed.swap(true, Ordering::Relaxed)
    }

    /// That probe has its answer, or will get none.
    pub fn ends_probe(&self) {
        self.probed.store(false, Ordering::Relaxed);
    }

    /// For how long it has left calls unanswered.
    pub fn silent_us(&self, now_us: u64) -> u64 {
        match self.silent_since_us.load(Ordering::Relaxed) {
            0 => 0,
            since_us => now_us.saturating_sub(since_us),
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
