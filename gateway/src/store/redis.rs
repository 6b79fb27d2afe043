//! Owns the store that lies in one standalone Redis (6 or later): which connection a call takes,
//! and what its errors mean. Knows neither callers nor deadlines.
//!
//! Connections are multiplexed and supervised one by one (see [`link`]); while none is up a call
//! fails at once instead of waiting for a reconnect. A call is never repeated after its command may
//! have reached Redis: `rl_check` charges each time it runs. The one repetition is after NOSCRIPT,
//! which says that nothing ran.
//!
//! A server that answers but refuses to write (a replica, a full one) fails every decision, so the
//! probe writes as well: `SET tidegate:probe <ms> PX 5000`, see [`keys::PROBE`].

pub mod address;
mod link;
mod script;
pub mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tidegate_policy::scope::Scope;

use self::address::RedisAddress;
use self::link::{Link, Live};
use self::script::RlCheck;
use self::tls::RedisTls;
use super::{Call, Charge, Checked, Store, StoreCounters, StoreFailure, keys};
use crate::clock::Clock;

/// How the store is reached.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Where it is.
    pub address: RedisAddress,
    /// The certificates, if the address asks for TLS.
    pub tls: RedisTls,
    /// How many connections share the calls, at least 1.
    pub connections: usize,
    /// After that long a call has failed for good.
    pub response_timeout: Duration,
    /// How many calls may wait to be written per connection: the bound on calls in flight.
    pub pipeline_len_max: usize,
}

/// State in Redis.
pub struct RedisStore {
    address: RedisAddress,
    links: Vec<Link>,
    next: AtomicUsize,
    script: Arc<RlCheck>,
    counters: StoreCounters,
}

// === impl RedisStore ===

impl RedisStore {
    /// Starts to connect in the background and returns at once: a Redis that is down is a matter
    /// for the calls. Needs a tokio runtime. Fails only if the address cannot be used at all.
    pub fn start(
        settings: &RedisSettings,
        clock: &Arc<dyn Clock>,
        counters: StoreCounters,
    ) -> Result<Self, RedisError> {
        let script = Arc::new(RlCheck::new());
        let links = (0..settings.connections.max(1))
            .map(|slot| Link::start(slot, settings, Arc::clone(clock), &script, counters.clone()))
            .collect::<Result<_, _>>()?;
        let address = settings.address.clone();
        Ok(Self { address, links, next: AtomicUsize::new(0), script, counters })
    }

    /// The next connection that is up, in turn.
    fn pick(&self) -> Result<Live, StoreFailure> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.links.len();
        (0..count)
            .find_map(|step| self.links.get((start.wrapping_add(step)) % count)?.live())
            .ok_or_else(|| StoreFailure::Unreachable(format!("{}: no connection", self.address)))
    }
}

impl Store for RedisStore {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn describe(&self) -> String {
        let up = self.links.iter().filter(|link| link.live().is_some()).count();
        format!("{}, {up} of {} connections up", self.address, self.links.len())
    }

    fn rate_check(&self, scope: &Scope, charges: &[Charge<'_>]) -> Call<Checked> {
        let keys: Vec<String> = charges
            .iter()
            .map(|charge| keys::rate_limit(scope, charge.subject, charge.limit_id))
            .collect();
        let command = self.script.call_command(&keys, charges);
        let charge_count = charges.len();
        let script = Arc::clone(&self.script);
        let counters = self.counters.clone();
        let live = self.pick();
        Box::pin(async move {
            let mut live = live?;
            let reply = evaluate(&mut live, &script, &command, &counters).await;
            script.read(&reply.map_err(|error| failure(&error))?, charge_count)
        })
    }

    fn probe(&self) -> Call<()> {
        let lives: Vec<Live> = self.links.iter().filter_map(Link::live).collect();
        let nothing = StoreFailure::Unreachable(format!("{}: no connection", self.address));
        Box::pin(async move {
            let mut last = Err(nothing);
            for mut live in lives {
                last = live.probe().await.map_err(|error| failure(&error));
                if last.is_ok() {
                    break;
                }
            }
            last
        })
    }
}

async fn evaluate(
    live: &mut Live,
    script: &RlCheck,
    command: &Cmd,
    counters: &StoreCounters,
) -> Result<Value, RedisError> {
    match live.send(command).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            counters.script_loads.inc();
            live.send(&script.load_command()).await?;
            live.send(command).await
        }
        answered => answered,
    }
}

fn failure(error: &RedisError) -> StoreFailure {
    if error.is_timeout() {
        return StoreFailure::Timeout;
    }
    match error.kind() {
        ErrorKind::Io => StoreFailure::Unreachable(error.to_string()),
        // A replica, or a server that still reads its data: not the store that was meant, yet.
        ErrorKind::Server(
            ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown,
        ) => StoreFailure::Unreachable(error.to_string()),
        ErrorKind::Server(
            ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot,
        ) => StoreFailure::Refused(format!("{error}: this is Redis Cluster, not supported yet")),
        ErrorKind::Parse => StoreFailure::Garbled(error.to_string()),
        _ => StoreFailure::Refused(error.to_string()),
    }
}
