//! Owns keeping one connection to Redis open: opening it, loading the scripts, noticing that it broke or leads to where
//! nothing may be written any more, opening it anew. Knows no calls' meaning.
//!
//! A broken connection is absent. One that is open but silent (a stopped Redis, a black hole) stays in use, since its silence
//! is what the bound on calls in flight is for; beside it a new one is tried, which takes its place only once it works. So
//! does one to a server that became a replica: the name or address may belong to the new master by now, but an open
//! connection does not move by itself. Nor does one to a master that is parted from its Sentinels, which says of itself that
//! it is one: where most of them name another, this connection is left, whether that other can be reached or not. Two that
//! take charges would admit each limit twice.

use std::sync::Arc;
use std::time::Duration;

use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError, RedisResult};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use super::address::RedisAddress;
use super::info::Info;
use super::lineage::Memory;
use super::link::{LinkSettings, Live, Server, Shared, Target};
use super::marks::{self, Marking};
use super::runs;
use crate::store::keys;
use crate::throttle::Throttle;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Between attempts; doubled each time. The largest bounds how long Redis is back unnoticed.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_millis(800);
/// How long a connection may leave calls unanswered before a second one is tried beside it.
const SILENCE_MAX_US: u64 = 3_000_000;
const SILENCE_CHECK: Duration = Duration::from_secs(1);
const LOG_INTERVAL_US: u64 = 10_000_000;

/// Holds a connection in its slot for as long as it runs.
pub struct Supervisor {
    slot: usize,
    settings: Arc<LinkSettings>,
    server: Arc<Server>,
    shared: Arc<Shared>,
    failures: Throttle,
}

/// A connection that can be called at once.
struct Opened {
    live: Live,
    /// Tells that it broke.
    broken: UnboundedReceiver<()>,
    /// To which memory it leads.
    memory: Memory,
    /// Where that was.
    at: RedisAddress,
}

/// Why a connection is left that is open.
enum Leave {
    /// It leads to a replica.
    Replica,
    /// It answers nobody.
    Silent,
    /// Most of the Sentinels name this one.
    Master(Box<RedisAddress>),
}

// === impl Opened ===

impl Opened {
    /// Whom the Sentinels name instead, if they do.
    fn misses(&self, named: &mut watch::Receiver<Option<RedisAddress>>) -> Option<Leave> {
        let named = named.borrow_and_update().clone();
        named.filter(|at| !at.is_same_place(&self.at)).map(|at| Leave::Master(Box::new(at)))
    }
}

// === impl Leave ===

impl Leave {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Replica => "it led to a replica",
            Self::Silent => "it was silent",
            Self::Master(_) => "most of the Sentinels name another master",
        }
    }
}

// === impl Supervisor ===

impl Supervisor {
    /// Nothing is opened yet.
    pub fn new(
        slot: usize,
        settings: &Arc<LinkSettings>,
        server: &Arc<Server>,
        shared: &Arc<Shared>,
    ) -> Self {
        Self {
            slot,
            settings: Arc::clone(settings),
            server: Arc::clone(server),
            shared: Arc::clone(shared),
            failures: Throttle::new(1, LOG_INTERVAL_US),
        }
    }

    /// For ever.
    pub async fn run(self) {
        let mut before = None;
        loop {
            let opened = self.open_patiently().await;
            if before.is_some() {
                self.settings.counters.reconnects.inc();
            }
            before = Some(self.hold(opened, before).await);
            self.shared.publish(None);
            tracing::warn!(slot = self.slot, redis = %self.settings.target, "the connection to Redis broke");
        }
    }

    /// Keeps a working connection published until there is none; to which memory the last one led.
    async fn hold(&self, mut opened: Opened, before: Option<Memory>) -> Memory {
        self.server.lineage.meets(before.as_ref(), &opened.memory);
        self.shared.publish(Some(opened.live.clone()));
        tracing::info!(slot = self.slot, redis = %self.settings.target, "connected to Redis");
        let mut named = self.server.named.subscribe();
        loop {
            let leave = tokio::select! {
                // `None` cannot come while the connection lives; it would mean that it is gone.
                _ = opened.broken.recv() => return opened.memory,
                // What was named before this connection was opened counts no more: another one may be the master since.
                Ok(()) = named.changed() => opened.misses(&mut named),
                () = self.settings.clock.sleep(SILENCE_CHECK) => self.tires(&opened),
            };
            let Some(leave) = leave else { continue };
            let other = match &leave {
                Leave::Replica => self.open_writable().await,
                Leave::Silent => self.open().await,
                Leave::Master(at) => self.open_at(at.as_ref().clone()).await,
            };
            match other {
                Ok(other) => {
                    self.settings.counters.reconnects.inc();
                    self.server.lineage.meets(Some(&opened.memory), &other.memory);
                    tracing::warn!(
                        slot = self.slot, redis = %self.settings.target, why = leave.as_str(),
                        "replaced a connection to Redis"
                    );
                    opened = other;
                    self.shared.publish(Some(opened.live.clone()));
                }
                Err(error) => {
                    self.log(&error);
                    // None is better than one that charges where nobody else does.
                    if let Leave::Master(_) = leave {
                        return opened.memory;
                    }
                }
            }
        }
    }

    /// Why the connection is left for what its calls say of it, if it is.
    fn tires(&self, opened: &Opened) -> Option<Leave> {
        let watch = opened.live.watch();
        if watch.is_replica() {
            return Some(Leave::Replica);
        }
        let silent_us = watch.silent_us(self.settings.clock.elapsed_us());
        (silent_us >= SILENCE_MAX_US).then_some(Leave::Silent)
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

    async fn open(&self) -> RedisResult<Opened> {
        let at = match &self.settings.target {
            Target::Fixed(address) => address.clone(),
            Target::Master(sentinels) => sentinels.master(&self.settings.tls).await?,
        };
        self.open_at(at).await
    }

    /// A connection with the scripts in place: what is published can be called at once.
    async fn open_at(&self, at: RedisAddress) -> RedisResult<Opened> {
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
        let client = at.client(&self.settings.tls)?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut live = Live::new(connection, &self.settings);
        live.load(&self.settings.scripts).await?;
        let info = Info::of(&mut live).await?;
        let memory = Memory::read(&info);
        let guarded = Arc::clone(&self.settings.guarded.marks);
        runs::look(&mut live, &info, &guarded).await?;
        // A replica and a full server refuse to write: their calls say so, and there is another
        // round over the marks soon.
        if let Err(error) = marks::mark(&mut live, &self.settings.marks, Marking::Missing).await {
            self.log(&error);
        }
        Ok(Opened { live, broken, memory, at })
    }

    /// Another replica would be no gain: the connection that exists stays.
    async fn open_writable(&self) -> RedisResult<Opened> {
        let mut opened = self.open().await?;
        opened.live.probe(keys::PROBE).await.map(|()| opened)
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
