//! The gateway with a store of claims that knows nothing: a begin is a SET of a record's size, an answer a SET of
//! its own, a look a GET. Benchmarks measure claims beside it; it takes the gateway's flags.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::clock::Clock;
use tidegate_gateway::store::claims::{Claims, Completion, Spread, Writer};
use tidegate_gateway::store::redis::RedisStore;
use tidegate_gateway::store::{
    Adjustment, Call, Charge, Checked, Standing, Store, StoreCounters, StoreRole, Temperature,
};
use tidegate_gateway::{Cores, Environment, Gateway, Settings, World};
use tidegate_policy::idempotency::fingerprint::RequestHash;
use tidegate_policy::idempotency::name::RecordName;
use tidegate_policy::idempotency::record::{
    Abandoned, Begun, Claim, Completed, Extended, Fence, Found, HEAD_LEN, Held,
};
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::DecisionId;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The same connections as the gateway's own store, and no scripts.
struct Plain(RedisStore);

impl Plain {
    fn set(&self, name: &RecordName, octets: &[u8], ttl_ms: u64) -> Call<()> {
        let mut command = redis::cmd("SET");
        command.arg(name.as_str()).arg(octets).arg("PX").arg(ttl_ms);
        self.0.plain(name, command)
    }

    fn get<T: Send + 'static>(&self, name: &RecordName, says: T) -> Call<T> {
        let mut command = redis::cmd("GET");
        command.arg(name.as_str());
        let asked = self.0.plain(name, command);
        Box::pin(async move { asked.await.map(|()| says) })
    }
}

impl Claims for Plain {
    fn forgets(&self) -> bool {
        false
    }

    fn begin(&self, name: &RecordName, claim: &Claim) -> Call<Begun> {
        let set = self.set(name, &[0; HEAD_LEN], claim.ttl_ms);
        let claimed = Begun::Claimed { fence: 1, taken_over: false };
        Box::pin(async move { set.await.map(|()| claimed) })
    }

    fn complete(&self, name: &RecordName, completion: &Completion<'_>) -> Call<Completed> {
        let mut octets = vec![0; HEAD_LEN];
        octets.extend(completion.answer.headers.to_bytes());
        octets.extend_from_slice(completion.answer.body.as_deref().unwrap_or_default());
        let set = self.set(name, &octets, completion.ttl_ms);
        Box::pin(async move { set.await.map(|()| Completed::Stored) })
    }

    fn lookup(&self, name: &RecordName, _: Option<&RequestHash>, _: Writer) -> Call<Found> {
        self.get(name, Found::Absent)
    }

    fn replicated(&self, name: &RecordName, _: &Claim, _: Fence, _: Spread) -> Call<u8> {
        self.get(name, 0)
    }

    fn abandon(&self, name: &RecordName, _: Held, _: u64) -> Call<Abandoned> {
        self.get(name, Abandoned::Freed)
    }

    fn extend(&self, name: &RecordName, _: Held, _: u64, _: u64) -> Call<Extended> {
        self.get(name, Extended::Extended)
    }

    fn holder(&self, name: &RecordName) -> Call<Option<Held>> {
        self.get(name, None)
    }

    fn delete(&self, name: &RecordName) -> Call<bool> {
        self.get(name, false)
    }
}

impl Store for Plain {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn rate_check(&self, scope: &Scope, charges: &[Charge<'_>]) -> Call<Checked> {
        self.0.rate_check(scope, charges)
    }

    fn settle(
        &self,
        scope: &Scope,
        id: DecisionId,
        adjustments: &[Adjustment<'_>],
    ) -> Call<Vec<Standing>> {
        self.0.settle(scope, id, adjustments)
    }

    fn reset(&self, scope: &Scope, limits: &[Charge<'_>]) -> Call<()> {
        self.0.reset(scope, limits)
    }

    fn grant(&self, scope: &Scope, limit: &Charge<'_>, units: u32, lasts: Duration) -> Call<()> {
        self.0.grant(scope, limit, units, lasts)
    }

    fn set_region(&self, scope: &Scope, temperature: Temperature) -> Call<()> {
        self.0.set_region(scope, temperature)
    }

    fn probe(&self) -> Call<()> {
        self.0.probe()
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(self)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let environment = Environment::new(std::env::vars_os());
    let settings = Settings::parse(std::env::args_os(), &environment)?;
    // As the gateway does it: decisions have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<(), Box<dyn Error>> {
    let world = World::from_settings(&settings, Cores::start(settings.cores)?)?;
    let redis = settings.redis.as_ref().ok_or("give it --redis-url")?;
    let clock: Arc<dyn Clock> = Arc::clone(&world.clock);
    let store = RedisStore::start(redis, &world.cores, &clock, StoreCounters::default())?;
    let stores = world.stores.clone().with(StoreRole::Idempotency, Arc::new(Plain(store)));
    let running = Gateway::start(settings, world.with_stores(stores)).await?;
    std::future::pending::<()>().await;
    running.shutdown().await;
    Ok(())
}
