//! Owns the store that lies in Redis (6 or later): one server, a master that Sentinels name, or a
//! Cluster. Knows neither callers nor deadlines.
//!
//! Connections are multiplexed and supervised one by one (see [`link`] and [`supervisor`]); while none is up a call
//! fails at once instead of waiting for a reconnect. A call is never repeated after its command may
//! have reached Redis: `rl_check` charges each time it runs. It is repeated after an answer that says
//! that nothing ran: NOSCRIPT, and on a Cluster MOVED, ASK and TRYAGAIN.
//!
//! A server that answers but refuses to write (a replica, a full one) fails every decision, so the
//! probe writes as well: `SET tidegate:probe <ms> PX 5000`, see [`keys::PROBE`]; on a Cluster at each master.

pub mod address;
mod apart;
mod audit;
pub mod breakers;
mod call_keys;
mod cluster;
mod eviction;
mod grant;
mod idempotency;
mod info;
mod leases;
mod lineage;
mod link;
mod marks;
mod nearness;
pub mod place;
mod pool;
mod refund;
mod replicas;
mod reserve;
mod reset;
mod runs;
mod script;
pub mod seal;
mod sentinel;
mod servers;
mod settle;
mod silence;
mod supervisor;
pub mod tls;
mod vote;

use std::sync::Arc;
use std::time::Duration;

use ::redis::{ErrorKind, RedisError, ServerErrorKind};
use tidegate_policy::scope::{self, Environment, Scope};
use tidegate_policy::wire::DecisionId;
use tokio::task::JoinHandle;

use self::apart::Asker;
use self::call_keys::Shard;
use self::cluster::Follower;
use self::idempotency::Seal;
use self::marks::Marking;
use self::nearness::Nearness;
use self::place::Place;
use self::refund::Behind;
use self::reserve::Reservation;
use self::reset::Resetting;
use self::script::{Asked, Keys, Scripts};
use self::seal::SealKeys;
use self::servers::Servers;
use self::settle::Settling;
use self::tls::RedisTls;
use super::breakers::Breakers;
use super::chains::Chains;
use super::claims::Claims;
use super::keys::{KeyStyle, Place as KeyPlace};
use super::leases::Leases;
use super::{
    Adjustment, Call, Charge, Checked, Standing, Store, StoreCounters, StoreFailure, Temperature,
    keys,
};
use crate::clock::{Clock, whole_us};
use crate::cores::Cores;

/// How the store is reached.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Where it is.
    pub place: Place,
    /// The certificates, if the address asks for TLS.
    pub tls: RedisTls,
    /// How many connections share the calls, at least 1.
    pub connections: usize,
    /// After that long a call has failed for good.
    pub response_timeout: Duration,
    /// How many calls may wait to be written per connection: the bound on calls in flight.
    pub pipeline_len_max: usize,
    /// Whose keys lie there.
    pub region: Region,
}

/// What a store knows of the region whose keys it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The region.
    pub name: scope::Region,
    /// The environment.
    pub environment: Environment,
    /// How keys are spelled.
    pub style: KeyStyle,
    /// How long the region is cold after its beginning; `None` without a guard.
    pub cold: Option<Duration>,
}

/// State in Redis.
#[derive(Clone)]
pub struct RedisStore {
    servers: Servers,
    scripts: Arc<Scripts>,
    region: Region,
    clock: Arc<dyn Clock>,
    nearness: Arc<Nearness>,
    listed: breakers::Renewed,
    behind: Behind,
    seal: Seal,
    _marker: Arc<Marker>,
    _follower: Option<Arc<Follower>>,
}

/// Keeps the region's marks for as long as the store lives.
struct Marker(JoinHandle<()>);

// === impl Region ===

impl Region {
    /// Whether there is a guard.
    pub fn guarded(&self) -> bool {
        self.cold.is_some()
    }

    fn marks(&self) -> Arc<[String]> {
        if self.guarded() {
            keys::marks(self.style, &self.name, &self.environment).into()
        } else {
            Arc::default()
        }
    }
}

// === impl Marker ===

impl Drop for Marker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl RedisStore ===

impl RedisStore {
    /// Starts to connect in the background and returns at once: a Redis that is down is a matter
    /// for the calls. Needs a tokio runtime. Fails only if the address cannot be used at all.
    pub fn start(
        settings: &RedisSettings,
        cores: &Arc<Cores>,
        clock: &Arc<dyn Clock>,
        counters: StoreCounters,
    ) -> Result<Self, RedisError> {
        let region = settings.region.clone();
        let scripts = Arc::new(Scripts::new(region.cold.map_or(0, whole_us)));
        let seal = Seal::new(clock, counters.unreadable.clone());
        let (servers, follower) = Servers::start(settings, &scripts, cores, clock, counters)?;
        let keep = servers.clone().keep_marked(Arc::clone(clock));
        // Also without marks: it is looked whether Redis throws keys away.
        let marker = Arc::new(Marker(tokio::spawn(keep)));
        Ok(Self {
            servers,
            scripts,
            region,
            clock: Arc::clone(clock),
            nearness: Arc::new(Nearness::new()),
            listed: breakers::Renewed::default(),
            behind: Behind::new(),
            seal,
            _marker: marker,
            _follower: follower.map(Arc::new),
        })
    }

    /// The same, with keys that seal the answers that it stores.
    pub fn sealed_by(mut self, keys: Option<Arc<SealKeys>>) -> Self {
        self.seal = self.seal.clone().with(keys);
        self
    }

    fn asker(&self, scope: &Scope) -> Asker {
        Asker {
            servers: self.servers.clone(),
            scripts: Arc::clone(&self.scripts),
            region: self.region.clone(),
            scope: scope.clone(),
            clock: Arc::clone(&self.clock),
        }
    }
}

impl Store for RedisStore {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn describe(&self) -> String {
        self.servers.describe()
    }

    fn connections(&self) -> Option<(usize, usize)> {
        Some(self.servers.connections())
    }

    fn for_one_message(&self) -> Option<Arc<dyn Store>> {
        let servers = self.servers.for_one_message()?;
        Some(Arc::new(Self { servers, ..self.clone() }))
    }

    fn answers_elsewhere(&self) -> bool {
        self.servers.answers_elsewhere()
    }

    fn rate_check(&self, scope: &Scope, charges: &[Charge<'_>]) -> Call<Checked> {
        if !self.servers.one_call_reaches_all() {
            let shards = Shard::of(&self.region, scope, charges);
            let (asker, behind) = (self.asker(scope), self.behind.clone());
            let reservation = Reservation { asker, shards, behind };
            return Box::pin(reservation.run(Arc::clone(&self.nearness)));
        }
        let keys = Keys::of(&self.region, scope, charges, None);
        let command = self.scripts.check_command(&keys, charges);
        let asked: Vec<Asked> = charges.iter().map(Asked::from).collect();
        let (servers, scripts) = (self.servers.clone(), Arc::clone(&self.scripts));
        Box::pin(async move {
            let key = keys.limits.first().map(String::as_str).unwrap_or_default();
            let reply = servers.evaluate(key, &command, &scripts).await;
            scripts.read(&reply.map_err(|failure| named(failure, &keys))?, &asked)
        })
    }

    fn settle(
        &self,
        scope: &Scope,
        id: DecisionId,
        adjustments: &[Adjustment<'_>],
    ) -> Call<Vec<Standing>> {
        Box::pin(Settling::new(self.asker(scope), id, adjustments).run())
    }

    fn knows(&self, scope: &Scope, limit: &Charge<'_>) -> Call<bool> {
        let key = KeyPlace::of(self.region.style, scope, limit.subject).rate_limit(scope, limit);
        let mut kind = ::redis::cmd("TYPE");
        kind.arg(&key);
        let (servers, scripts) = (self.servers.clone(), Arc::clone(&self.scripts));
        Box::pin(async move {
            let reply = servers.evaluate(&key, &kind, &scripts).await?;
            Ok(reply != ::redis::Value::SimpleString("none".to_owned()))
        })
    }

    fn reset(&self, scope: &Scope, limits: &[Charge<'_>]) -> Call<()> {
        let keys = Keys::of(&self.region, scope, limits, None).limits.into_iter().zip(limits);
        let reset = keys.map(|(key, limit)| Resetting::of(&self.scripts, key, limit.quota));
        let reset: Vec<Resetting> = reset.collect();
        let (servers, scripts) = (self.servers.clone(), Arc::clone(&self.scripts));
        Box::pin(async move {
            for one in reset {
                one.run(&servers, &scripts).await?;
            }
            Ok(())
        })
    }

    fn grant(&self, scope: &Scope, limit: &Charge<'_>, units: u32, lasts: Duration) -> Call<()> {
        let key = KeyPlace::of(self.region.style, scope, limit.subject).rate_limit(scope, limit);
        let command = grant::command(&self.scripts, &key, limit.algorithm, units, lasts);
        let (servers, scripts) = (self.servers.clone(), Arc::clone(&self.scripts));
        Box::pin(async move { servers.evaluate(&key, &command, &scripts).await.map(drop) })
    }

    fn guards(&self) -> bool {
        self.region.guarded()
    }

    fn set_region(&self, _scope: &Scope, temperature: Temperature) -> Call<()> {
        let servers = self.servers.clone();
        Box::pin(async move { servers.mark(Marking::All(temperature)).await })
    }

    fn probe(&self) -> Call<()> {
        let servers = self.servers.clone();
        Box::pin(async move { servers.probe().await })
    }

    fn chains(&self) -> Option<&dyn Chains> {
        Some(self)
    }

    fn breakers(&self) -> Option<&dyn Breakers> {
        Some(self)
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(self)
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }
}

/// With the keys of a call that Redis answered with an error: which of them it was, only some of its errors say.
fn named(failure: StoreFailure, keys: &Keys) -> StoreFailure {
    const NAMED_MAX: usize = 8;
    let StoreFailure::Refused(error) = failure else { return failure };
    let patterns = keys.limits.iter().take(NAMED_MAX).map(|key| keys::without_subject(key));
    let more = if keys.limits.len() > NAMED_MAX { ", …" } else { "" };
    let patterns = patterns.collect::<Vec<_>>().join(", ");
    StoreFailure::Refused(format!("{error}; of keys like {patterns}{more}"))
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
        // Of a Cluster that is not whole now, or whose slot moves longer than a call waits.
        ErrorKind::Server(ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain) => {
            StoreFailure::Unreachable(error.to_string())
        }
        ErrorKind::Server(
            ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot,
        ) => StoreFailure::Refused(format!(
            "{error}: this is a Redis Cluster, write redis-cluster://host:port"
        )),
        ErrorKind::Parse => StoreFailure::Garbled(error.to_string()),
        _ => StoreFailure::Refused(error.to_string()),
    }
}
