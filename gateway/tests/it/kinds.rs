//! Redis Cluster and Sentinel, real servers under load: a slot that moves, a master that dies, and
//! what a decision over several subjects reserves and gives back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use tidegate_gateway::clock::Clock;
use tidegate_gateway::store::redis::RedisStore;
use tidegate_gateway::store::{Charge, Checked, Store, StoreCounters};
use tidegate_gateway::{Cores, Running};
use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};
use tidegate_policy::limit::Algorithm;
use tidegate_policy::scope::{Region, Scope};
use tidegate_policy::wire::{DecideRequest, DecisionId, SETTLE_PATH, SettleReply, Verdict, encode};
use tidegate_tests::eventually;
use tidegate_tests::redis::cluster::RedisCluster;
use tidegate_tests::redis::sentinel::Watched;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::bench::{
    ADMIN, CALM_SOON_BACK, Caller, Speaks, TOKEN, decides, metric, question, request, settings,
    settlement, start, start_around,
};
use crate::redis_store::settings_at;
use crate::redis_store::swift::Held;

const PATIENCE: Duration = Duration::from_secs(60);

async fn gateway(url: &str) -> Running {
    start(settings(&format!("--redis-url {url} {CALM_SOON_BACK}"))).await
}

fn daily(client: &str, limit: u32) -> DecideRequest {
    let mut question = DecideRequest { timeout_ms: 5_000, ..question(client) };
    let one = &mut question.limits[0];
    (one.limit, one.burst, one.period_us) = (limit, limit, 86_400_000_000);
    question
}

fn look(client: &str) -> DecideRequest {
    let mut question = daily(client, 100);
    question.limits[0].cost = 0;
    question
}

/// Callers that ask without a pause until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    admitted: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(gateway: &Running, question: &DecideRequest) -> Self {
        let load = Self {
            stop: Arc::default(),
            admitted: Arc::default(),
            failed: Arc::default(),
            callers: Vec::new(),
        };
        let one = || {
            let (stop, to) = (Arc::clone(&load.stop), gateway.data_addr);
            let (admitted, failed) = (Arc::clone(&load.admitted), Arc::clone(&load.failed));
            let question = question.clone();
            tokio::spawn(async move {
                let caller = Caller::new(Speaks::Http2);
                while !stop.load(Ordering::Relaxed) {
                    let answer = caller.decide(to, &question).await;
                    match answer.status.as_u16() {
                        200 if answer.verdict().verdict == Verdict::Allow => {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        }
                        200 => {}
                        503 | 429 => _ = failed.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}: {}", answer.text()),
                    }
                }
            })
        };
        let callers = (0..4).map(|_| one()).collect();
        Self { callers, ..load }
    }

    pub async fn admits(&self, at_least: usize) {
        eventually(PATIENCE, "admissions", async || match self.admitted.load(Ordering::Relaxed) {
            seen if seen >= at_least => Ok(()),
            seen => Err(seen),
        })
        .await;
    }

    pub async fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("no panic");
        }
        (self.admitted.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_limits_exact_while_a_slot_moves_and_decides_again_after_a_master_died() {
    let mut cluster = RedisCluster::start().await;
    let gateway = gateway(&cluster.url()).await;
    let key = "ratelimit:{default|a1}:ip:203.0.113.1:p.one";
    let busy = daily("203.0.113.1", 200);
    decides(&gateway, &busy).await;

    let load = Load::start(&gateway, &busy);
    load.admits(20).await;
    let from = cluster.serving(key).await;
    cluster.move_slot(key, (from + 1) % 3).await;
    load.admits(199).await;
    let (admitted, failed) = load.end().await;
    // One before the load. A call that was lost on its way may have been charged for nobody.
    assert!((199 - failed..=199).contains(&admitted), "{admitted} admitted, {failed} failed");
    assert_eq!(failed, 0, "a slot that moves is followed");
    assert_eq!(cluster.serving(key).await, (from + 1) % 3);
    assert_eq!(decides(&gateway, &busy).await.verdict, Verdict::Deny);

    // The master of the slot dies, and its replica takes over: by the limits of others, all served.
    let clients: Vec<DecideRequest> =
        (0..12).map(|n| daily(&format!("198.51.100.{n}"), 1_000_000)).collect();
    let load = Load::start(&gateway, &clients[0]);
    load.admits(20).await;
    let dead = cluster.serving(key).await;
    cluster.fails_over_soon().await;
    cluster.nodes[dead].process().kill();
    for client in &clients {
        decides(&gateway, client).await;
    }
    let reply = decides(&gateway, &daily("203.0.113.1", 200)).await;
    assert_eq!(reply.verdict, Verdict::Deny, "the replica knows what was used");
    let before = load.admitted.load(Ordering::Relaxed);
    load.admits(before + 20).await;
    load.end().await;
}

/// What is left of a limit after a settlement.
async fn settled(gateway: &Running, asked: &DecideRequest, by: i64) -> u64 {
    let caller = Caller::new(Speaks::Http2);
    eventually(PATIENCE, "a settlement", async || {
        let body = encode(&settlement(asked, by));
        let call = request(gateway.data_addr, Method::POST, SETTLE_PATH, Some(TOKEN), body);
        let answer = caller.send(call).await;
        match SettleReply::decode(&answer.body, asked.id) {
            Ok(reply) => Ok(reply.limits[0].remaining),
            Err(_) => Err(answer.text()),
        }
    })
    .await
}

/// A grant and what was settled lie with the limit, wherever its slot goes: each grant is used once,
/// each settlement counts once.
#[tokio::test(flavor = "multi_thread")]
async fn grants_and_settlements_go_with_a_slot_that_moves_and_with_a_replica_that_takes_over() {
    let mut cluster = RedisCluster::start().await;
    let gateway = gateway(&cluster.url()).await;
    let key = "ratelimit:{default|a1}:ip:203.0.113.1:p.one";
    let mut busy = daily("203.0.113.1", 60);
    busy.limits[0].id = "p.one".to_owned();
    // The same subject, so the same slot; a limit of its own, adjusted again and again.
    let mut adjusted = daily("203.0.113.1", 100);
    adjusted.limits[0].id = "p.other".to_owned();
    decides(&gateway, &busy).await;
    assert_eq!(decides(&gateway, &adjusted).await.limits[0].remaining, 99);
    let caller = Caller::new(Speaks::Http1);
    let grant = r#"{"limit": "p.one", "subject": {"kind": "ip", "name": "203.0.113.1"}, "units": 40, "seconds": 3600}"#;
    let to = gateway.admin_addr;
    let call = request(to, Method::POST, "/v1/limits/grant", Some(ADMIN), grant);
    let granted = caller.send(call).await;
    assert!(granted.status == 200 && granted.text().contains("\"remaining\":99"), "{granted:?}");

    let load = Load::start(&gateway, &busy);
    load.admits(20).await;
    let moves = async {
        for _ in 0..3 {
            let from = cluster.serving(key).await;
            cluster.move_slot(key, (from + 1) % 3).await;
        }
    };
    let settles = async {
        for _ in 0..50 {
            assert_eq!(settled(&gateway, &adjusted, 9).await, 90, "once");
        }
    };
    tokio::join!(moves, settles);
    load.admits(99).await;
    let (admitted, failed) = load.end().await;
    assert_eq!((admitted, failed), (99, 0), "sixty and forty, of which one was before");
    assert_eq!(decides(&gateway, &busy).await.verdict, Verdict::Deny);

    let grant = grant.replace("40", "7");
    let call = request(to, Method::POST, "/v1/limits/grant", Some(ADMIN), grant);
    assert_eq!(caller.send(call).await.status, 200);
    let dead = cluster.serving(key).await;
    eventually(PATIENCE, "the replica has it all", async || {
        let acknowledged = cluster.nodes[dead].command(&["WAIT", "1", "1000"]).await;
        if acknowledged.starts_with(":1") { Ok(()) } else { Err(acknowledged) }
    })
    .await;
    let load = Load::start(&gateway, &daily("198.51.100.1", 1_000_000));
    load.admits(20).await;
    cluster.fails_over_soon().await;
    cluster.nodes[dead].process().kill();
    assert_eq!(settled(&gateway, &adjusted, 9).await, 90, "the replica knows that it was settled");
    let other = DecideRequest { id: DecisionId::new(77), ..adjusted };
    assert_eq!(settled(&gateway, &other, 1).await, 89, "another decision counts");
    let mut rest = 0;
    while decides(&gateway, &busy).await.verdict == Verdict::Allow {
        rest += 1;
    }
    assert_eq!(rest, 7, "the replica knows what was granted");
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_subjects_on_a_cluster_are_charged_together_or_not_at_all() {
    let mut cluster = RedisCluster::start().await;
    // What is given back is waited for, however long it takes.
    let clock: Arc<dyn Clock> =
        Arc::new(Held::new(Duration::from_millis(5), &Arc::new(Semaphore::new(0))));
    let (at, counters) = (settings_at(&cluster.url()), StoreCounters::default());
    let store = RedisStore::start(&at, &Arc::new(Cores::here()), &clock, counters);
    let patient = settings(&format!("--redis-url {} {CALM_SOON_BACK}", cluster.url()));
    let patient = start_around(patient, Arc::new(store.expect("an address"))).await;
    let gateway = gateway(&cluster.url()).await;
    let both = |one: &str, two: &str| {
        let mut question = daily(one, 5);
        let mut second = question.limits[0].clone();
        second.id = "p.two".to_owned();
        (second.limit, second.burst) = (3, 3);
        second.subject =
            Subject { kind: SubjectKind::Ip, name: SubjectName::from_bytes(two.as_bytes()) };
        question.limits.push(second);
        question
    };
    for left in (0..3).rev() {
        let reply = decides(&patient, &both("a", "shared")).await;
        assert_eq!(reply.verdict, Verdict::Allow);
        assert_eq!((reply.limits[0].remaining, reply.limits[1].remaining), (left + 2, left));
    }
    for turn in 0..4 {
        for client in ["a", "b", "c"] {
            let reply = decides(&patient, &both(client, "shared")).await;
            assert_eq!(reply.verdict, Verdict::Deny);
            let expected = if client == "a" { 2 } else { 5 };
            assert_eq!(reply.limits[0].remaining, expected, "{client} {turn}: given back");
            assert!(reply.limits[0].allowed && !reply.limits[1].allowed);
        }
    }
    // The tightest is asked first, and denies first. Here the one that is nearer to its end admits,
    // and the other one denies by its cost: what was reserved comes back.
    let costs = |one, two| {
        let mut question = both("d", "tight");
        (question.limits[0].cost, question.limits[1].cost) = (one, two);
        question
    };
    let first = decides(&patient, &costs(4, 1)).await;
    assert_eq!((first.limits[0].remaining, first.limits[1].remaining), (1, 2));
    for turn in 0..3 {
        let denied = decides(&patient, &costs(1, 3)).await;
        assert_eq!(denied.verdict, Verdict::Deny);
        let left = (denied.limits[0].remaining, denied.limits[1].remaining);
        assert_eq!(left, (1, 2), "{turn}: given back");
    }
    assert_eq!(decides(&patient, &costs(1, 2)).await.verdict, Verdict::Allow);

    // Known to this one too.
    assert_eq!(decides(&gateway, &both("h", "shared")).await.verdict, Verdict::Deny);

    // Whose other limit lies on a master that stands still is denied all the same by one that is known to be used up.
    let mut serving = None;
    for (nth, node) in cluster.nodes.iter().enumerate().take(3) {
        let keys = node.command(&["KEYS", "*"]).await;
        let client = ["a", "b", "c", "d", "e", "f", "g", "h"]
            .iter()
            .find(|client| keys.contains(&format!(":ip:{client}:p.one")));
        if let (false, Some(client)) = (keys.contains(":ip:shared:"), client) {
            serving = Some((nth, *client));
        }
    }
    let (still, client) = serving.expect("one is on another node");
    cluster.nodes[still].process().signal(Signal::STOP.as_raw());
    let denied =
        Caller::new(Speaks::Http2).decide(gateway.data_addr, &both(client, "shared")).await;
    cluster.nodes[still].process().signal(Signal::CONT.as_raw());
    let denied: serde_json::Value = serde_json::from_slice(&denied.body).expect("JSON");
    assert_eq!(denied["verdict"], "deny", "{denied}");
}

/// What is given back to several masters comes to all that live, also behind one that is dead; and the message may be
/// sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_reaches_the_other_masters_though_one_is_dead() {
    let mut cluster = RedisCluster::start().await;
    for node in &cluster.nodes {
        // No replica takes over, however long it lasts, and the rest goes on.
        for (name, value) in
            [("cluster-node-timeout", "600000"), ("cluster-require-full-coverage", "no")]
        {
            let set = node.command(&["CONFIG", "SET", name, value]).await;
            assert!(set.starts_with("+OK"), "{set}");
        }
    }
    cluster.whole().await;
    let gateway = gateway(&cluster.url()).await;
    let clients: Vec<String> = (0..12).map(|n| format!("c{n}")).collect();
    for client in &clients {
        let mut asked = daily(client, 100);
        asked.limits[0].cost = 10;
        assert_eq!(decides(&gateway, &asked).await.limits[0].remaining, 90);
    }
    let dead = cluster.serving("ratelimit:{default|a1}:ip:203.0.113.1:p.one").await;
    let keys = cluster.nodes[dead].command(&["KEYS", "ratelimit:*:ip:c*"]).await;
    let (own, others): (Vec<_>, Vec<_>) =
        clients.iter().partition(|client| keys.contains(&format!(":ip:{client}:p.one")));
    assert!(!own.is_empty() && !others.is_empty(), "{keys}");
    // Those of the dead master first.
    let mut all = settlement(&daily(own[0], 100), -10);
    // Within that time nothing comes back by itself that is not taken off again: of this test's as well.
    all.timeout_ms = 60_000;
    all.adjustments = own
        .iter()
        .chain(&others)
        .flat_map(|client| settlement(&daily(client, 100), -10).adjustments)
        .collect();
    for one in &mut all.adjustments {
        one.id = "p.one".to_owned();
    }
    cluster.nodes[dead].process().kill();
    let caller = Caller::new(Speaks::Http2);
    for turn in 0..2 {
        let body = encode(&all);
        let call = request(gateway.data_addr, Method::POST, SETTLE_PATH, Some(TOKEN), body);
        let answer = caller.send(call).await;
        assert_eq!(answer.status, 503, "{turn}: {}", answer.text());
        for client in &others {
            let left =
                decides(&gateway, &DecideRequest { timeout_ms: 5_000, ..look(client) }).await;
            // Less what came back by itself within the message's own time.
            assert_eq!(left.limits[0].remaining, 99, "{turn} {client}");
        }
    }
}

/// One of two limits denies. That the other one's charge cannot be given back yet keeps nobody waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_denial_does_not_wait_for_what_is_given_back() {
    let cluster = RedisCluster::start().await;
    let goes_on = Arc::new(Semaphore::new(0));
    // Before a refund is sent again.
    let clock: Arc<dyn Clock> = Arc::new(Held::new(Duration::from_millis(20), &goes_on));
    let settings = settings_at(&cluster.url());
    let counters = StoreCounters::default();
    let store = RedisStore::start(&settings, &Arc::new(Cores::here()), &clock, counters);
    let store = store.expect("an address");
    let asked = daily("a", 5);
    let scope = Scope {
        region: Region::fallback(),
        environment: asked.scope.environment.clone(),
        tenant: asked.scope.tenant.clone(),
        key_format: asked.scope.key_format,
    };
    let other = Subject { kind: SubjectKind::Ip, name: SubjectName::from_bytes(b"shared") };
    let quota = asked.limits[0].quota().expect("sound");
    let charge = |subject, cost| Charge {
        subject,
        limit_id: "p.one",
        quota,
        algorithm: Algorithm::Gcra,
        cost,
        alone: false,
    };
    let one = |cost| charge(&asked.limits[0].subject, cost);
    eventually(PATIENCE, "a first decision", async || {
        store.rate_check(&scope, &[one(0), charge(&other, 0)]).await.map(drop)
    })
    .await;
    // Where it is noted what was given back stands something else.
    let note = "settled:{default|ca}:ip:a:p.one";
    let node = &cluster.nodes[cluster.serving(note).await];
    assert_eq!(node.command(&["SADD", note, "another"]).await.trim(), ":1");
    let checked = store.rate_check(&scope, &[one(2), charge(&other, 6)]);
    let checked = tokio::time::timeout(PATIENCE, checked).await.expect("told");
    let checked = checked.expect("a verdict");
    assert!(!checked.allowed);
    let left = |checked: &Checked| checked.limits[0].reading.remaining;
    assert_eq!(left(&checked), 3, "as it was when it was charged");
    assert_eq!(node.command(&["DEL", note]).await.trim(), ":1");
    goes_on.add_permits(1);
    eventually(PATIENCE, "all is given back", async || {
        let looked =
            store.rate_check(&scope, &[one(0)]).await.map_err(|error| error.to_string())?;
        if left(&looked) == 5 { Ok(()) } else { Err(format!("{looked:?}")) }
    })
    .await;
}

/// Nodes that do not know under which name others reach them are at the host that was asked, not at the one that is named
/// first: nobody listens there.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_name_no_host_are_where_they_were_asked() {
    let cluster = RedisCluster::start().await;
    for node in &cluster.nodes {
        let set = ["CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint"];
        assert!(node.command(&set).await.starts_with("+OK"));
    }
    let (scheme, nodes) =
        cluster.url().split_once("://").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a URL");
    let gateway = gateway(&format!("{scheme}://127.0.0.9:1,{nodes}")).await;
    for client in 0..12 {
        assert_eq!(
            decides(&gateway, &daily(&format!("c{client}"), 5)).await.verdict,
            Verdict::Allow
        );
    }
}

/// One master that stands still, or dies, is the trouble of its own clients: it takes neither the places of the others nor
/// the guard of the store.
#[tokio::test(flavor = "multi_thread")]
async fn one_master_that_fails_is_no_trouble_for_the_clients_of_the_others() {
    const FLAGS: &str = "--deadline 2s --pool-wait 1s --redis-response-timeout 60s";
    let mut cluster = RedisCluster::start().await;
    for node in &cluster.nodes {
        // No replica takes over, however long it lasts.
        let set = node.command(&["CONFIG", "SET", "cluster-node-timeout", "600000"]).await;
        assert!(set.starts_with("+OK"), "{set}");
    }
    cluster.whole().await;
    let gateway = start(settings(&format!("--redis-url {} {FLAGS}", cluster.url()))).await;
    let caller = Caller::new(Speaks::Http2);
    let clients: Vec<String> = (0..24).map(|n| format!("c{n}")).collect();
    for client in &clients {
        assert_eq!(decides(&gateway, &daily(client, 1_000)).await.verdict, Verdict::Allow);
    }
    let (mut failing, mut keys) = (0, String::new());
    for (nth, node) in cluster.nodes.iter().enumerate() {
        let lie = node.command(&["KEYS", "ratelimit:*:ip:c*"]).await;
        if node.command(&["ROLE"]).await.contains("master") && lie.contains(":ip:c") {
            (failing, keys) = (nth, lie);
        }
    }
    let is_first = |client: &&String| keys.contains(&format!(":ip:{client}:p.one"));
    let own: Vec<&String> = clients.iter().filter(is_first).collect();
    let others: Vec<&String> = clients.iter().filter(|client| !is_first(client)).collect();
    assert!(!own.is_empty() && !others.is_empty(), "{keys}");
    let served = async |turns: usize, when: &str| {
        for client in others.iter().cycle().take(turns) {
            let answer = caller.decide(gateway.data_addr, &daily(client, 1_000)).await;
            assert_eq!(answer.status, 200, "{when}: {}", answer.text());
        }
    };
    // Its own clients come, two hundred at once, and again when it was found silent.
    cluster.nodes[failing].process().signal(Signal::STOP.as_raw());
    for _ in 0..2 {
        let crowd = (0..200).map(|nth| {
            let (caller, to) = (caller.clone(), gateway.data_addr);
            let asked = daily(own[nth % own.len()], 1_000);
            tokio::spawn(async move { caller.decide(to, &asked).await.status })
        });
        for one in crowd.collect::<Vec<_>>() {
            assert_ne!(one.await.expect("no panic"), 200);
        }
        // Half of all places are taken for as long as it is silent; sixteen, if those come in more than 50 ms.
        let taken = metric(&gateway, "tidegate_gateway_in_flight").await;
        assert!((16.0..=50.0).contains(&taken), "{taken}");
        served(50, "one stands still").await;
    }
    cluster.nodes[failing].process().signal(Signal::CONT.as_raw());
    decides(&gateway, &daily(own[0], 1_000)).await;

    // Five in a row would open the guard of one server.
    cluster.nodes[failing].process().kill();
    for _ in 0..10 {
        for _ in 0..6 {
            caller.decide(gateway.data_addr, &daily(own[0], 1_000)).await;
        }
        served(1, "one is dead").await;
    }
}

/// Three real Sentinels; the master is killed under load.
#[tokio::test(flavor = "multi_thread")]
async fn sentinels_name_the_new_master_after_the_old_one_died_under_load() {
    let mut watched = Watched::start().await;
    let gateway = gateway(&watched.url()).await;
    let used = daily("203.0.113.1", 3);
    for _ in 0..3 {
        assert_eq!(decides(&gateway, &used).await.verdict, Verdict::Allow);
    }
    let other = daily("203.0.113.2", 3);
    assert_eq!(decides(&gateway, &other).await.limits[0].remaining, 2);
    let grant = r#"{"limit": "p.one", "subject": {"kind": "ip", "name": "203.0.113.2"}, "units": 4, "seconds": 3600}"#;
    let call = request(gateway.admin_addr, Method::POST, "/v1/limits/grant", Some(ADMIN), grant);
    let granted = Caller::new(Speaks::Http1).send(call).await;
    assert!(granted.status == 200 && granted.text().contains("\"remaining\":6"), "{granted:?}");
    let load = Load::start(&gateway, &daily("busy", 1_000_000));
    load.admits(20).await;
    eventually(PATIENCE, "the replica has it all", async || {
        let acknowledged = watched.master.command(&["WAIT", "1", "1000"]).await;
        if acknowledged.starts_with(":1") { Ok(()) } else { Err(acknowledged) }
    })
    .await;
    watched.fails_over_soon().await;
    watched.master.process().kill();
    let reply = decides(&gateway, &used).await;
    assert_eq!(reply.verdict, Verdict::Deny, "the replica knows what was used");
    let mut rest = 0;
    while decides(&gateway, &other).await.verdict == Verdict::Allow {
        rest += 1;
    }
    assert_eq!(rest, 6, "the replica knows what was granted");
    let before = load.admitted.load(Ordering::Relaxed);
    load.admits(before + 20).await;
    load.end().await;
    let role = watched.replica.command(&["ROLE"]).await;
    assert!(role.contains("master"), "{role}");
}
