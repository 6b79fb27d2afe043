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
mod call_keys;
mod link;
mod marks;
mod pool;
mod script;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use ::redis::{ErrorKind, RedisError, ServerErrorKind};
use tidegate_policy::gcra::Quota;
use tidegate_policy::scope::{self, Environment, Scope};
use tidegate_policy::wire::DecisionId;
use tokio::task::JoinHandle;

use self::address::RedisAddress;
use self::link::LinkSettings;
use self::marks::Marking;
use self::pool::{Pool, evaluate};
use self::script::{Keys, Scripts, integers};
use self::tls::RedisTls;
use super::keys::KeyStyle;
use super::{
    Adjustment, Call, Charge, Checked, Standing, Store, StoreCounters, StoreFailure, Temperature,
    keys,
};
use crate::clock::{Clock, whole_us};

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
pub struct RedisStore {
    address: RedisAddress,
    pool: Arc<Pool>,
    scripts: Arc<Scripts>,
    region: Region,
    marks: Arc<[String]>,
    marker: Option<JoinHandle<()>>,
}

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

// === impl RedisStore ===

impl RedisStore {
    /// Starts to connect in the background and returns at once: a Redis that is down is a matter
    /// for the calls. Needs a tokio runtime. Fails only if the address cannot be used at all.
    pub fn start(
        settings: &RedisSettings,
        clock: &Arc<dyn Clock>,
        counters: StoreCounters,
    ) -> Result<Self, RedisError> {
        let region = settings.region.clone();
        let scripts = Arc::new(Scripts::new(region.cold.map_or(0, whole_us)));
        let marks = region.marks();
        let link = Arc::new(LinkSettings {
            address: settings.address.clone(),
            tls: settings.tls.clone(),
            response_timeout: settings.response_timeout,
            pipeline_len_max: settings.pipeline_len_max,
            scripts: Arc::clone(&scripts),
            marks: Arc::clone(&marks),
            clock: Arc::clone(clock),
            counters,
        });
        let address = settings.address.clone();
        let pool = Arc::new(Pool::start(address.to_string(), settings.connections, &link)?);
        let keep = keep_marked(Arc::clone(&pool), Arc::clone(&marks), Arc::clone(clock));
        let marker = region.guarded().then(|| tokio::spawn(keep));
        Ok(Self { address, pool, scripts, region, marks, marker })
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        if let Some(marker) = &self.marker {
            marker.abort();
        }
    }
}

/// Sets missing marks from time to time.
async fn keep_marked(pool: Arc<Pool>, marks: Arc<[String]>, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep(marks::INTERVAL).await;
        // No connection: each new one sets the marks itself.
        let Ok(mut live) = pool.pick() else { continue };
        if let Err(error) = marks::mark(&mut live, &marks, Marking::Missing).await {
            tracing::warn!(%error, "the region's marks could not be set; trying again soon");
        }
    }
}

impl Store for RedisStore {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn describe(&self) -> String {
        let (up, all) = self.pool.up();
        format!("{}, {up} of {all} connections up", self.address)
    }

    fn rate_check(&self, scope: &Scope, charges: &[Charge<'_>]) -> Call<Checked> {
        let keys = Keys::of(&self.region, scope, charges, None);
        let command = self.scripts.check_command(&keys, charges);
        let quotas: Vec<Quota> = charges.iter().map(|charge| charge.quota).collect();
        let scripts = Arc::clone(&self.scripts);
        let live = self.pool.pick();
        Box::pin(async move {
            let mut live = live?;
            let reply = evaluate(&mut live, &scripts, &command).await;
            scripts.read(&reply.map_err(|error| failure(&error))?, &quotas)
        })
    }

    fn settle(
        &self,
        scope: &Scope,
        id: DecisionId,
        adjustments: &[Adjustment<'_>],
    ) -> Call<Vec<Standing>> {
        let looks: Vec<Charge<'_>> = adjustments.iter().map(Charge::look).collect();
        let keys = Keys::of(&self.region, scope, &looks, Some(id));
        let settle = self.scripts.settle_command(&keys, adjustments);
        let look = self.scripts.check_command(&keys, &looks);
        let quotas: Vec<Quota> = looks.iter().map(|look| look.quota).collect();
        let scripts = Arc::clone(&self.scripts);
        let live = self.pool.pick();
        Box::pin(async move {
            let mut live = live?;
            let done = evaluate(&mut live, &scripts, &settle).await.map_err(|e| failure(&e))?;
            if integers(&done).is_none_or(|done| done.len() != quotas.len()) {
                return Err(StoreFailure::Garbled("rl_settle: of another shape".to_owned()));
            }
            let reply = evaluate(&mut live, &scripts, &look).await.map_err(|e| failure(&e))?;
            Ok(scripts.read(&reply, &quotas)?.limits)
        })
    }

    fn set_region(&self, _scope: &Scope, temperature: Temperature) -> Call<()> {
        let (live, marks) = (self.pool.pick(), Arc::clone(&self.marks));
        Box::pin(async move {
            let marked = marks::mark(&mut live?, &marks, Marking::All(temperature)).await;
            marked.map_err(|error| failure(&error))
        })
    }

    fn probe(&self) -> Call<()> {
        Box::pin(self.pool.probe())
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
