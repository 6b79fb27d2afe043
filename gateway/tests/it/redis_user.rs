//! A user of Redis with the least rights, under TLS on both sides: on one server, on a Cluster, behind
//! Sentinels. The rights are those that `docs/gateway.md` names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use http::Method;
use tempfile::TempDir;
use tidegate_gateway::{Environment, Running};
use tidegate_policy::limit::Algorithm;
use tidegate_policy::wire::{DecideRequest, SETTLE_PATH, SettleRequest, encode};
use tidegate_tests::certificates::Authority;
use tidegate_tests::eventually;
use tidegate_tests::redis::cluster::RedisCluster;
use tidegate_tests::redis::sentinel::Watched;
use tidegate_tests::redis::{Redis, Tls};

use crate::audit_sync::PEM;
use crate::bench::{
    ADMIN, Caller, Speaks, TOKEN, question, request, settings, settings_with, settlement, start,
};

const PATIENCE: Duration = Duration::from_secs(60);
const CALM: &str = "--deadline 20s --pool-wait 19s --redis-response-timeout 10s --cold-start 5m --store-breaker-open 200ms";
const USER: &str = "tidegate:s3cret@";
const PAGE: &str = include_str!("../../../docs/gateway.md");

/// The words of `ACL SETUSER` as the page has them.
fn documented() -> Vec<String> {
    let line = PAGE.lines().find(|line| line.starts_with("ACL SETUSER tidegate"));
    let line = line.expect("the rights").replace("PASSWORD", "s3cret");
    line.split(' ').map(str::to_owned).collect()
}

async fn admit(redis: &Redis, more: &[&str]) {
    let words = documented();
    let words: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let reply = redis.command(&words).await;
    assert!(reply.starts_with("+OK"), "{words:?}: {reply}");
}

/// What it was refused.
async fn refused(redis: &Redis) -> String {
    redis.command(&["ACL", "LOG"]).await
}

struct Signed {
    dir: TempDir,
    tls: Tls,
}

impl Signed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Authority::new();
        let ca = authority.write(dir.path(), "ca.crt");
        let own = authority.sign().write(dir.path(), "redis");
        authority.sign().write(dir.path(), "ours");
        Self { dir, tls: Tls { own, ca } }
    }

    fn flags(&self) -> String {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let (ca, certificate, key) = (file("ca.crt"), file("ours.crt"), file("ours.key"));
        format!("--redis-tls-ca {ca} --redis-tls-cert {certificate} --redis-tls-key {key} {CALM}")
    }
}

fn hourly(client: &str, algorithm: Algorithm) -> DecideRequest {
    let mut question = question(client);
    let one = &mut question.limits[0];
    (one.limit, one.burst, one.period_us, one.algorithm) = (10, 10, 3_600_000_000, algorithm);
    question
}

/// Everything that limits ask of a store; the first that fails.
async fn all(gateway: &Running, client: &str) -> Result<(), String> {
    let caller = Caller::new(Speaks::Http2);
    let plain = Caller::new(Speaks::Http1);
    for temperature in ["cold", "warm"] {
        let body = format!(r#"{{"temperature": "{temperature}"}}"#);
        let call = request(gateway.admin_addr, Method::POST, "/v1/region", Some(ADMIN), body);
        let answer = plain.send(call).await;
        if answer.status != 200 {
            return Err(format!("{temperature}: {}", answer.text()));
        }
    }
    for algorithm in Algorithm::ALL {
        let asked = hourly(client, algorithm);
        for step in ["decide", "settle", "grant", "inspect", "decide", "reset"] {
            let path = format!("/v1/limits/{step}");
            let more = if step == "grant" { r#", "units": 5, "seconds": 60"# } else { "" };
            let body = format!(
                r#"{{"limit": "p.one", "subject": {{"kind": "ip", "name": "{client}"}}{more}}}"#
            );
            let answer = match step {
                "decide" => caller.decide(gateway.data_addr, &asked).await,
                "settle" => {
                    let message =
                        SettleRequest { timeout_ms: asked.timeout_ms, ..settlement(&asked, 2) };
                    let (to, body) = (gateway.data_addr, encode(&message));
                    caller.send(request(to, Method::POST, SETTLE_PATH, Some(TOKEN), body)).await
                }
                _ => {
                    let to = gateway.admin_addr;
                    plain.send(request(to, Method::POST, &path, Some(ADMIN), body)).await
                }
            };
            if answer.status != 200 {
                return Err(format!("{step} {algorithm:?}: {}", answer.text()));
            }
        }
    }
    Ok(())
}

async fn ready(gateway: &Running) -> Result<(), String> {
    let ready = Caller::new(Speaks::Http1).get(gateway.admin_addr, "/readyz", None).await.text();
    if ready.contains("ok") { Ok(()) } else { Err(ready) }
}

async fn works(gateway: &Running) {
    eventually(PATIENCE, "everything works", async || all(gateway, "a").await).await;
    // It is looked at once a second, and no sooner found well than calls are answered.
    eventually(PATIENCE, "it is ready", async || ready(gateway).await).await;
    for client in ["b", "c", "d", "e", "f", "g", "h"] {
        all(gateway, client).await.expect("still");
    }
    ready(gateway).await.expect("still");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_under_tls_with_the_least_rights() {
    let signed = Signed::new();
    let redis = Redis::start_with_tls(&signed.tls.own, &signed.tls.ca, "yes").await;
    admit(&redis, &[]).await;
    let place = format!("127.0.0.1:{}", redis.tcp_port());
    let gateway =
        start(settings(&format!("--redis-url rediss://{USER}{place} {}", signed.flags()))).await;
    works(&gateway).await;
    assert_eq!(refused(&redis).await, "*0\r\n");
    let wrong = format!("--redis-url rediss://tidegate:wrong@{place} {}", signed.flags());
    let gateway = start(settings(&wrong)).await;
    all(&gateway, "a").await.expect_err("another password");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_under_tls_with_the_least_rights() {
    let signed = Signed::new();
    let cluster = RedisCluster::start_with(Some(&signed.tls)).await;
    for node in &cluster.nodes {
        admit(node, &["+cluster|slots", "+asking"]).await;
    }
    let url = cluster.url_as(USER);
    assert!(url.starts_with("rediss-cluster://"), "{url}");
    let gateway = start(settings(&format!("--redis-url {url} {}", signed.flags()))).await;
    works(&gateway).await;
    // A slot that moves: the other node is asked with the same rights, over TLS as well.
    let key = "ratelimit:{default|a1}:ip:203.0.113.1:p.one";
    let busy = hourly("203.0.113.1", Algorithm::Gcra);
    let caller = Caller::new(Speaks::Http2);
    for left in [9, 8] {
        let answer = caller.decide(gateway.data_addr, &busy).await;
        assert_eq!(answer.verdict().limits[0].remaining, left);
        let from = cluster.serving(key).await;
        cluster.move_slot(key, (from + 1) % 3).await;
    }
    for node in &cluster.nodes {
        assert_eq!(refused(node).await, "*0\r\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_servers_under_tls_with_the_least_rights() {
    let signed = Signed::new();
    let (_, rights) = PAGE.split_once("`user tidegate on").expect("the Sentinels' user");
    let (rights, _) = rights.split_once('`').expect("an end");
    let line = format!("user tidegate on{}", rights.replace("PASSWORD", "s3cret"));
    let mut watched = Watched::start_with(Some(&signed.tls), &line).await;
    for server in [&watched.master, &watched.replica] {
        admit(server, &[]).await;
    }
    let own = "sentinel_tls=true&sentinel_user=tidegate&sentinel_password=s3cret";
    let url = format!("{}?{own}", watched.url_as(USER));
    assert!(url.starts_with("rediss-sentinel://"), "{url}");
    let gateway = start(settings(&format!("--redis-url {url} {}", signed.flags()))).await;
    works(&gateway).await;
    assert_eq!(refused(&watched.master).await, "*0\r\n");
    watched.fails_over_soon().await;
    watched.master.process().kill();
    works(&gateway).await;
    assert_eq!(refused(&watched.replica).await, "*0\r\n");
}

/// What is asked of Redis about itself: it cannot be told whether it began anew from a snapshot, and all else works.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_may_not_be_asked_about_itself_serves_all_the_same() {
    let redis = Redis::start_with_tcp().await;
    admit(&redis, &["-info"]).await;
    let url = format!("redis://{USER}127.0.0.1:{}", redis.tcp_port());
    let gateway = start(settings(&format!("--redis-url {url} {CALM}"))).await;
    works(&gateway).await;
    assert!(refused(&redis).await.contains("info"));
    assert_eq!(redis.command(&["KEYS", "ratelimit:*:run"]).await.trim(), "*0");
}

/// What starts is an event, so a gateway with a key appends at once.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_chain_works_with_the_least_rights_and_waits_on_the_disk_without_one() {
    for (more, is_chained) in [(&[][..], true), (&["-llen"], false)] {
        let redis = Redis::start_with_tcp().await;
        admit(&redis, more).await;
        let dir = tempfile::tempdir().expect("a folder");
        let environment = Environment::from([
            ("TIDEGATE_TOKEN", TOKEN),
            ("TIDEGATE_ADMIN_TOKENS", "bo:admin:the-admins-token"),
            ("AUDIT_PRIVATE_KEY_V1", PEM),
        ]);
        let (port, folder) = (redis.tcp_port(), dir.path().display());
        let flags =
            format!("--redis-url redis://{USER}127.0.0.1:{port} --audit-dir {folder} {CALM}");
        let _gateway = start(settings_with(&flags, &environment)).await;
        eventually(PATIENCE, "the first events are where they can be", async || {
            let chained = redis.command(&["LLEN", "audit:{default}:seg:0"]).await;
            let spool = fs::read_to_string(dir.path().join("spool.jsonl")).unwrap_or_default();
            let refused = refused(&redis).await;
            let is_so = if is_chained {
                chained != ":0\r\n" && refused == "*0\r\n"
            } else {
                chained == ":0\r\n" && refused.contains("llen") && spool.contains("started")
            };
            if is_so { Ok(()) } else { Err((chained, refused, spool)) }
        })
        .await;
    }
}

/// Each right that limits need is needed: without it something is refused.
#[tokio::test(flavor = "multi_thread")]
async fn no_right_of_the_documented_user_is_superfluous() {
    let needed = ["evalsha", "script|load", "time", "get", "set", "mget", "del", "pttl"];
    for right in needed {
        let redis = Redis::start_with_tcp().await;
        assert!(documented().contains(&format!("+{right}")), "{right}");
        admit(&redis, &[&format!("-{right}")]).await;
        let url = format!("redis://{USER}127.0.0.1:{}", redis.tcp_port());
        let gateway = start(settings(&format!("--redis-url {url} {CALM}"))).await;
        eventually(PATIENCE, "a refusal", async || {
            let works = match all(&gateway, "a").await {
                Ok(()) => ready(&gateway).await,
                fails => fails,
            };
            let refused = refused(&redis).await;
            if works.is_err() && refused.contains(right) { Ok(()) } else { Err((right, refused)) }
        })
        .await;
    }
}

/// What any script or call of the gateway needs is among the documented rights.
#[test]
fn every_command_of_every_script_and_call_is_documented() {
    let rights = PAGE.split(['`', ' ', '\n']).filter_map(|word| word.strip_prefix('+'));
    let rights: BTreeSet<String> =
        rights.map(|right| right.split('|').next().unwrap_or(right).to_uppercase()).collect();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for (folder, before, after) in [("../lua", "call('", '\''), ("src/store/redis", "cmd(\"", '"')]
    {
        for entry in fs::read_dir(here.join(folder)).expect("a folder") {
            let path = entry.expect("a file").path();
            if path.is_dir() {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a text");
            for (at, _) in text.match_indices(before) {
                let command = text[at + before.len()..].split(after).next().expect("a name");
                let known = rights.contains(command) || command == "SENTINEL";
                assert!(known, "{command} of {} is no right in docs/gateway.md", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "{seen}");
}
