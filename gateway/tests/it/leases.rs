//! Leases over HTTP, on one Redis and on a Redis Cluster: holders that take, keep and give back, callers
//! that are decided one by one, and a slot that moves meanwhile. What is handed out adds up to the limit.

use http::Method;
use std::time::Duration;

use tidegate_gateway::Running;
use tidegate_policy::wire::{
    DecideRequest, DecisionId, HolderId, LeaseCall, LeaseGrant, SYNC_PATH, SyncReply, SyncRequest,
    VERSION, Verdict, Want, encode,
};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;
use tidegate_tests::redis::cluster::RedisCluster;

use crate::bench::{CALM_SOON_BACK, Caller, Speaks, TOKEN, question, request, settings, start};

const PATIENCE: Duration = Duration::from_secs(60);
const LIMIT: u32 = 1_000;
const KEY: &str = "ratelimit:{default|a1}:ip:203.0.113.1:p.one";

/// A limit that refills so slowly that nothing comes back meanwhile.
fn daily() -> DecideRequest {
    let mut question = DecideRequest { timeout_ms: 5_000, ..question("203.0.113.1") };
    let one = &mut question.limits[0];
    one.id = "p.one".to_owned();
    (one.limit, one.burst, one.period_us) = (LIMIT, LIMIT, 86_400_000_000);
    question
}

/// A process as the gateway knows it.
struct Holder {
    id: u64,
    seq: u32,
    left: u32,
}

impl Holder {
    fn new(id: u64) -> Self {
        Self { id, seq: 0, left: 0 }
    }

    /// Says what it keeps, gives back and wants. Repeated until it is answered: what was heard before
    /// is not heard twice.
    async fn says(&mut self, gateway: &Running, back: u32, want: Want) -> Option<LeaseGrant> {
        self.seq += 1;
        self.left -= back;
        let limit = daily().limits.remove(0);
        let call = LeaseCall {
            id: limit.id,
            subject: limit.subject,
            tenant: daily().scope.tenant,
            limit: limit.limit,
            period_us: limit.period_us,
            burst: limit.burst,
            holder: HolderId(self.id),
            seq: self.seq,
            demand: 100,
            left: self.left,
            back,
            want,
        };
        let id = DecisionId::new(u128::from(self.id) << 32 | u128::from(self.seq));
        let scope = question("203.0.113.1").scope;
        let message = SyncRequest { v: VERSION, id, scope, timeout_ms: 5_000, leases: vec![call] };
        let caller = Caller::new(Speaks::Http2);
        let answer = eventually(PATIENCE, "an answer", async || {
            let to = gateway.data_addr;
            let call = request(to, Method::POST, SYNC_PATH, Some(TOKEN), encode(&message));
            let answer = caller.send(call).await;
            if answer.status == 200 { Ok(answer) } else { Err(answer.text()) }
        })
        .await;
        let grant = SyncReply::decode(&answer.body, id).expect("a reply").leases.first().copied();
        self.left += grant.map_or(0, |grant| grant.granted);
        grant
    }
}

/// A holder takes what it can get.
pub async fn take_some(gateway: &Running) {
    let grant = Holder::new(7).says(gateway, 0, Want::Now).await;
    assert!(grant.is_some_and(|grant| grant.granted > 0), "{grant:?}");
}

async fn exact(gateway: &Running) -> bool {
    let caller = Caller::new(Speaks::Http2);
    let verdict = eventually(PATIENCE, "a verdict", async || {
        let answer = caller.decide(gateway.data_addr, &daily()).await;
        if answer.status == 200 { Ok(answer.verdict().verdict) } else { Err(answer.text()) }
    });
    verdict.await == Verdict::Allow
}

/// All of the limit goes to two holders and to callers that are decided one by one; `between` happens
/// after each turn. Gives how many were admitted.
async fn spent(gateway: &Running, mut between: impl AsyncFnMut(u32)) -> u32 {
    let mut holders = [Holder::new(0xaaaa_bbbb), Holder::new(0xcccc_dddd)];
    let (mut admitted, mut idle) = (0, 0);
    for turn in 0u32.. {
        let before = admitted;
        for holder in &mut holders {
            // Now it keeps some, now it gives some back, now it has spent all.
            let (keeps, back) = (holder.left / 3, if turn % 3 == 0 { holder.left / 4 } else { 0 });
            admitted += holder.left - keeps - back;
            holder.left = keeps + back;
            holder.says(gateway, back, Want::Now).await;
        }
        for _ in 0..5 {
            admitted += u32::from(exact(gateway).await);
        }
        between(turn).await;
        idle = if admitted == before { idle + 1 } else { 0 };
        if idle > 3 {
            break;
        }
    }
    admitted + holders.iter().map(|holder| holder.left).sum::<u32>()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_redis_gives_out_the_limit_and_a_leased_key_is_small() {
    let redis = Redis::start().await;
    let gateway =
        start(settings(&format!("--redis-url {} {CALM_SOON_BACK} --cold-start off", redis.url())))
            .await;
    let mut sizes = Vec::new();
    let admitted = spent(&gateway, async |_| {
        let reply = redis.command(&["MEMORY", "USAGE", KEY]).await;
        let size: u64 = reply.trim().trim_start_matches(':').parse().expect("its size");
        sizes.push(size);
    });
    assert_eq!(admitted.await, LIMIT);
    println!("{sizes:?} bytes with two holders");

    // As most keys are: one holder.
    redis.command(&["FLUSHALL"]).await;
    Holder::new(1).says(&gateway, 0, Want::Ahead).await.expect("a grant");
    let reply = redis.command(&["MEMORY", "USAGE", KEY]).await;
    let size: u64 = reply.trim().trim_start_matches(':').parse().expect("its size");
    println!("{size} bytes with one holder");
    assert!(size <= 200, "{size} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_gives_out_the_limit_while_its_slot_moves() {
    let cluster = RedisCluster::start().await;
    let gateway = start(settings(&format!(
        "--redis-url {} {CALM_SOON_BACK} --cold-start off",
        cluster.url()
    )))
    .await;
    let mut moves = 0;
    let admitted = spent(&gateway, async |turn| {
        if turn % 4 == 1 && moves < 3 {
            let from = cluster.serving(KEY).await;
            cluster.move_slot(KEY, (from + 1) % 3).await;
            moves += 1;
        }
    });
    assert_eq!(admitted.await, LIMIT);
    assert!(moves > 0, "a slot moved");
}

/// A message that comes again, or after a newer one, changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_heard_is_not_heard_again() {
    let redis = Redis::start().await;
    let gateway =
        start(settings(&format!("--redis-url {} {CALM_SOON_BACK} --cold-start off", redis.url())))
            .await;
    let mut holder = Holder::new(7);
    let grant = holder.says(&gateway, 0, Want::Ahead).await.expect("a grant");
    assert_eq!(grant.granted, 150, "three halves of a second of its demand, while there is plenty");
    holder.seq = 0;
    assert_eq!(holder.says(&gateway, 0, Want::Ahead).await, None, "heard before");
    assert!(holder.says(&gateway, 0, Want::Nothing).await.is_some());
}
