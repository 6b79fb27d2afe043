//! A slot of a Redis Cluster on its way from one master to another, under a gateway with its guard against cold regions:
//! whichever of a call's keys have moved, it is decided, and nothing is admitted or settled twice.

use std::collections::BTreeMap;

use http::Method;
use tidegate_gateway::Running;
use tidegate_policy::limit::Algorithm;
use tidegate_policy::wire::{
    DecideReply, DecideRequest, DecisionId, HolderId, LeaseCall, SETTLE_PATH, SYNC_PATH,
    SettleReply, SettleRequest, SyncReply, SyncRequest, VERSION, Verdict, Want, encode,
};
use tidegate_tests::redis::cluster::RedisCluster;

use crate::bench::{
    ADMIN, CALM, Caller, Speaks, TOKEN, decides, question, request, settings, settlement, start,
    warm,
};
use crate::kinds::Load;

const SUBJECT: &str = "203.0.113.1";
const MARK: &str = "ratelimit:{default|a1}:start";

fn key(limit: &str) -> String {
    format!("ratelimit:{{default|a1}}:ip:{SUBJECT}:{limit}")
}

/// Ten a day of each of these: nothing comes back meanwhile. One whose name begins with `w` is a window.
fn asked(limits: &[&str], cost: u32) -> DecideRequest {
    let mut asked = DecideRequest { timeout_ms: 5_000, ..question(SUBJECT) };
    let mut one = asked.limits.remove(0);
    (one.limit, one.burst, one.period_us, one.cost) = (10, 10, 86_400_000_000, cost);
    for limit in limits {
        let window = limit.starts_with('w');
        one.algorithm = if window { Algorithm::Window } else { Algorithm::Gcra };
        one.id = format!("p.{limit}");
        asked.limits.push(one.clone());
    }
    asked
}

/// At once: no answer but a verdict will do. None of these is reduced, as in a cold region.
async fn ask(gateway: &Running, limits: &[&str], cost: u32) -> DecideReply {
    let asked = asked(limits, cost);
    let answer = Caller::new(Speaks::Http2).decide(gateway.data_addr, &asked).await;
    assert_eq!(answer.status, 200, "{limits:?}: {}", answer.text());
    let reply = answer.verdict();
    assert!(reply.limits.iter().all(|limit| limit.limit.is_none()), "{reply:?}");
    reply
}

async fn remaining(gateway: &Running, limit: &str) -> u64 {
    ask(gateway, &[limit], 0).await.limits[0].remaining
}

/// The answer's status, and what is left where there is one.
async fn settle(gateway: &Running, message: &SettleRequest) -> (u16, Option<u64>) {
    let body = encode(message);
    let call = request(gateway.data_addr, Method::POST, SETTLE_PATH, Some(TOKEN), body);
    let answer = Caller::new(Speaks::Http2).send(call).await;
    let reply = SettleReply::decode(&answer.body, message.id).ok();
    (answer.status.as_u16(), reply.map(|reply| reply.limits[0].remaining))
}

fn settles(limit: &str, id: u128, by: i64) -> SettleRequest {
    let asked = asked(&[limit], 1);
    SettleRequest { id: DecisionId::new(id), ..settlement(&asked, by) }
}

/// What a process that needs some at once is given of a limit.
async fn leased(gateway: &Running, limit: &str) -> u32 {
    let asked = asked(&[limit], 1);
    let limit = asked.limits[0].clone();
    let call = LeaseCall {
        id: limit.id,
        subject: limit.subject,
        tenant: asked.scope.tenant.clone(),
        limit: limit.limit,
        period_us: limit.period_us,
        burst: limit.burst,
        holder: HolderId(7),
        seq: 1,
        demand: 100,
        left: 0,
        back: 0,
        want: Want::Ahead,
    };
    let id = DecisionId::new(70);
    let message =
        SyncRequest { v: VERSION, id, scope: asked.scope, timeout_ms: 5_000, leases: vec![call] };
    let body = encode(&message);
    let call = request(gateway.data_addr, Method::POST, SYNC_PATH, Some(TOKEN), body);
    let answer = Caller::new(Speaks::Http2).send(call).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    SyncReply::decode(&answer.body, id).expect("a reply").leases[0].granted
}

async fn of_a_warm_region(cluster: &RedisCluster) -> Running {
    let flags = format!("--cold-start 5m --redis-url {} {CALM}", cluster.url());
    let gateway = start(settings(&flags)).await;
    decides(&gateway, &question("a")).await;
    warm(&gateway).await;
    gateway
}

/// First the mark is here and one limit's key is there; then the mark is there and another limit's key is here. Each time there
/// are limits that have no key yet.
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_decided_wherever_the_keys_of_their_slot_lie() {
    let cluster = RedisCluster::start().await;
    let gateway = of_a_warm_region(&cluster).await;
    let old = ["here", "there", "kept", "w-here", "w-there"];
    let mut left: BTreeMap<String, u64> = BTreeMap::new();
    for limit in old {
        assert_eq!(ask(&gateway, &[limit], 3).await.verdict, Verdict::Allow);
        left.insert(limit.to_owned(), 7);
    }
    let from = cluster.serving(MARK).await;
    let to = (from + 1) % 3;
    let (slot, _) = cluster.announce_move(MARK, to).await;
    for key in [key("p.there"), format!("{}:W86400", key("p.w-there"))] {
        cluster.migrate(&key, from, to).await;
    }
    for (turn, new) in ["new-1", "new-2"].into_iter().enumerate() {
        let id = 100 * (u128::try_from(turn).expect("small") + 1);
        // One by itself.
        for limit in ["here", "there", "w-here", "w-there", new, "w-new"] {
            let before = *left.entry(limit.to_owned()).or_insert(10);
            let reply = ask(&gateway, &[limit], 1).await;
            assert_eq!((reply.verdict, reply.limits[0].remaining), (Verdict::Allow, before - 1));
            left.insert(limit.to_owned(), before - 1);
        }
        // Together, until one is used up: then none is charged, and the others are told untouched.
        let together = ["here", "there", new, "w-here", "w-there"];
        let admits = together.map(|limit| left[limit]).into_iter().min().expect("some") / 2;
        for turn in 0..admits + 2 {
            let reply = ask(&gateway, &together, 2).await;
            let allowed = turn < admits;
            assert_eq!(reply.verdict == Verdict::Allow, allowed, "{turn}: {reply:?}");
            for (limit, said) in together.iter().zip(&reply.limits) {
                let own = left.get_mut(*limit).expect("known");
                assert_eq!(said.allowed, *own >= 2, "{turn}: {limit} {reply:?}");
                *own -= if allowed { 2 } else { 0 };
                assert_eq!(said.remaining, *own, "{turn}: {limit} {reply:?}");
            }
        }
        // What is charged more is charged once; nothing is given back, and that is said.
        for _ in 0..2 {
            assert_eq!(settle(&gateway, &settles(new, id, 1)).await, (200, Some(left[new] - 1)));
            for limit in ["here", "w-new"] {
                assert_eq!(settle(&gateway, &settles(limit, id, -1)).await.0, 503, "{limit}");
            }
        }
        *left.get_mut(new).expect("known") -= 1;
        for limit in ["here", "w-new"] {
            assert_eq!(remaining(&gateway, limit).await, left[limit]);
        }
        cluster.migrate(MARK, from, to).await;
        for limit in ["here", "there", "w-here", "w-there"] {
            // Room for the next turn.
            let reset = format!(
                r#"{{"limit": "p.{limit}", "subject": {{"kind": "ip", "name": "{SUBJECT}"}}}}"#
            );
            let to = gateway.admin_addr;
            let call = request(to, Method::POST, "/v1/limits/reset", Some(ADMIN), reset);
            assert_eq!(Caller::new(Speaks::Http1).send(call).await.status, 200);
            left.insert(limit.to_owned(), 10);
        }
    }
    // The mark is there, and this one here.
    assert_eq!(leased(&gateway, "kept").await, 7);
    left.insert("kept".to_owned(), 0);
    cluster.migrate_rest(&slot, from, to).await;
    cluster.end_move(&slot, from, to).await;
    for (limit, left) in left {
        assert_eq!(remaining(&gateway, &limit).await, left, "{limit}");
    }
    let again = settle(&gateway, &settles("new-1", 100, 1)).await;
    assert_eq!(again.1, Some(remaining(&gateway, "new-1").await), "it knows that it was settled");
}

/// As behind an address that only the clients know. Once with ASK and once with MOVED, unless the map is asked for in between.
#[tokio::test(flavor = "multi_thread")]
async fn redirects_that_name_no_host_lead_to_the_host_that_was_asked() {
    let cluster = RedisCluster::start().await;
    for node in &cluster.nodes {
        let words = ["CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint"];
        assert_eq!(node.command(&words).await.trim(), "+OK");
    }
    let gateway = of_a_warm_region(&cluster).await;
    assert_eq!(remaining(&gateway, "here").await, 10);
    let from = cluster.serving(MARK).await;
    let to = (from + 1) % 3;
    let (slot, _) = cluster.announce_move(MARK, to).await;
    assert_eq!(ask(&gateway, &["new"], 3).await.limits[0].remaining, 7);
    cluster.migrate_rest(&slot, from, to).await;
    cluster.end_move(&slot, from, to).await;
    assert_eq!(ask(&gateway, &["new"], 3).await.limits[0].remaining, 4);
}

/// To one that nobody was connected to: while the slot is on its way there, and, with another one, once it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_calls_that_go_to_a_new_master_are_decided() {
    let cluster = RedisCluster::start().await;
    for spare in [3, 4] {
        cluster.spare(spare).await;
    }
    let gateway = of_a_warm_region(&cluster).await;
    assert_eq!(remaining(&gateway, "here").await, 10);
    let (slot, from) = cluster.announce_move(MARK, 3).await;
    assert_eq!(ask(&gateway, &["new"], 3).await.limits[0].remaining, 7);
    cluster.migrate_rest(&slot, from, 3).await;
    cluster.end_move(&slot, from, 3).await;
    cluster.move_slot(MARK, 4).await;
    assert_eq!(ask(&gateway, &["new"], 3).await.limits[0].remaining, 4);
}

/// Three limits of which one tells how many there are, while its slot goes round key by key: not one too many, and none fails.
#[tokio::test(flavor = "multi_thread")]
async fn several_limits_stay_exact_under_load_while_their_slot_moves() {
    let cluster = RedisCluster::start().await;
    let gateway = of_a_warm_region(&cluster).await;
    let mut busy = asked(&["one", "two", "w-three"], 1);
    for (limit, most) in busy.limits.iter_mut().zip([700, 400, 900]) {
        (limit.limit, limit.burst) = (most, most);
    }
    let load = Load::start(&gateway, &busy);
    load.admits(20).await;
    for step in 1..=3 {
        let from = cluster.serving(MARK).await;
        let to = (from + 1) % 3;
        let (slot, _) = cluster.announce_move(MARK, to).await;
        for key in [MARK.to_owned(), key("p.two"), key("p.one")] {
            cluster.migrate(&key, from, to).await;
            load.admits(100 * step + 20).await;
        }
        cluster.migrate_rest(&slot, from, to).await;
        cluster.end_move(&slot, from, to).await;
    }
    load.admits(400).await;
    let (admitted, failed) = load.end().await;
    assert_eq!((admitted, failed), (400, 0));
}

/// Half of each limit, as everywhere in a cold region, also where the mark is on its way or was lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_cold_region_stays_cold_while_a_slot_moves() {
    let cluster = RedisCluster::start().await;
    let flags = format!("--cold-start 5m --redis-url {} {CALM}", cluster.url());
    let gateway = start(settings(&flags)).await;
    decides(&gateway, &asked(&["w-old"], 1)).await;
    let from = cluster.serving(MARK).await;
    let to = (from + 1) % 3;
    cluster.announce_move(MARK, to).await;
    for state in ["here", "there", "lost"] {
        match state {
            "there" => cluster.migrate(MARK, from, to).await,
            "lost" => {
                let client = redis::Client::open(cluster.nodes[to].url()).expect("a URL");
                let mut node =
                    client.get_multiplexed_async_connection().await.expect("a connection");
                let mut delete = redis::pipe();
                delete.cmd("ASKING").ignore().cmd("DEL").arg(MARK);
                let deleted: (u32,) = delete.query_async(&mut node).await.expect("an answer");
                assert_eq!(deleted, (1,));
            }
            _ => {}
        }
        let limit = format!("w-{state}");
        let asked = asked(&[&limit], 1);
        let mut admitted = 0;
        for _ in 0..12 {
            let answer = Caller::new(Speaks::Http2).decide(gateway.data_addr, &asked).await;
            assert_eq!(answer.status, 200, "{state}: {}", answer.text());
            let reply = answer.verdict();
            assert_eq!(reply.limits[0].limit, Some(5), "{state}");
            admitted += usize::from(reply.verdict == Verdict::Allow);
        }
        assert_eq!(admitted, 5, "{state}");
    }
}
