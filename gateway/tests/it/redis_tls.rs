//! TLS to a real Redis: whom the gateway believes, what it shows, and files that change.

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;
use tidegate_gateway::{Cores, Running, StartError, World};
use tidegate_tests::certificates::{Authority, Files};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;

use crate::bench::{CALM, Caller, Speaks, VIEWER, question, settings, start};

/// Generous for a machine that is busy elsewhere.
const PATIENCE: Duration = Duration::from_secs(60);

/// A CA and the files of a server and of the gateway that it signed.
struct Signed {
    dir: TempDir,
    authority: Authority,
    server: Files,
    ours: Files,
}

impl Signed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Authority::new();
        authority.write(dir.path(), "ca.crt");
        let server = authority.sign().write(dir.path(), "redis");
        let ours = authority.sign().write(dir.path(), "ours");
        Self { dir, authority, server, ours }
    }

    async fn redis(&self, clients: &str) -> Redis {
        Redis::start_with_tls(&self.server, &self.dir.path().join("ca.crt"), clients).await
    }

    fn flags(&self, redis: &Redis, ca: &str) -> String {
        let ca = self.dir.path().join(ca);
        let port = redis.tcp_port();
        format!("--redis-url rediss://127.0.0.1:{port} --redis-tls-ca {} {CALM}", ca.display())
    }

    fn own(&self) -> String {
        let Files { certificate, key } = &self.ours;
        format!("--redis-tls-cert {} --redis-tls-key {}", certificate.display(), key.display())
    }
}

async fn decides(gateway: &Running, client: &str) -> u64 {
    let caller = Caller::new(Speaks::Http1);
    let mut question = question(client);
    question.timeout_ms = 5_000;
    let answer = eventually(PATIENCE, "a verdict", async || {
        let answer = caller.decide(gateway.data_addr, &question).await;
        if answer.status == 200 { Ok(answer) } else { Err(answer.text()) }
    })
    .await;
    answer.verdict().limits[0].remaining
}

/// The store is down for longer than several attempts to connect take.
async fn stays_away(gateway: &Running) {
    const DOWN_MS: u128 = 2_000;
    let caller = Caller::new(Speaks::Http1);
    eventually(PATIENCE, "down for a while", async || {
        let text = caller.get(gateway.admin_addr, "/v1/status", Some(VIEWER)).await.text();
        let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let store = &status["stores"][0];
        let since_ms = u128::from(store["since_unix_ms"].as_u64().expect("a time"));
        let now_ms = UNIX_EPOCH.elapsed().expect("after 1970").as_millis();
        let down = store["state"] == "down" && now_ms.saturating_sub(since_ms) > DOWN_MS;
        if down { Ok(()) } else { Err(text) }
    })
    .await;
    let mut question = question("a");
    question.timeout_ms = 5_000;
    let answer = caller.decide(gateway.data_addr, &question).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (503, "store-unavailable"));
}

#[tokio::test]
async fn decisions_are_made_over_tls() {
    let signed = Signed::new();
    let mut redis = signed.redis("no").await;
    let gateway = start(settings(&signed.flags(&redis, "ca.crt"))).await;
    assert_eq!(decides(&gateway, "a").await, 4);
    let keys = redis.command(&["KEYS", "ratelimit:*"]).await;
    assert!(keys.starts_with("*1\r\n"), "{keys}");
    redis.restart().await;
    assert_eq!(decides(&gateway, "b").await, 4, "and again after a restart");
}

#[tokio::test]
async fn a_redis_that_another_ca_signed_is_not_used() {
    let signed = Signed::new();
    let redis = signed.redis("no").await;
    Authority::new().write(signed.dir.path(), "other.crt");
    let gateway = start(settings(&signed.flags(&redis, "other.crt"))).await;
    stays_away(&gateway).await;
    // The file is replaced: the next attempt to connect reads it.
    signed.authority.write(signed.dir.path(), "other.crt");
    assert_eq!(decides(&gateway, "a").await, 4);
}

#[tokio::test]
async fn without_a_ca_of_its_own_a_private_one_is_not_believed() {
    let signed = Signed::new();
    let redis = signed.redis("no").await;
    let flags = format!("--redis-url rediss://127.0.0.1:{} {CALM}", redis.tcp_port());
    stays_away(&start(settings(&flags)).await).await;
}

#[tokio::test]
async fn a_redis_that_asks_for_a_certificate_gets_it() {
    let signed = Signed::new();
    let redis = signed.redis("yes").await;
    let flags = signed.flags(&redis, "ca.crt");
    stays_away(&start(settings(&flags)).await).await;
    let gateway = start(settings(&format!("{flags} {}", signed.own()))).await;
    assert_eq!(decides(&gateway, "a").await, 4);
}

#[tokio::test]
async fn a_mistake_in_a_file_stops_the_start() {
    let signed = Signed::new();
    let other = signed.authority.sign();
    let ca = signed.dir.path().join("ca.crt");
    let rows: [(&Path, &str, String, &str); 3] = [
        (&ca, "--redis-tls-ca", "hello".to_owned(), "holds no certificate: "),
        (&signed.ours.key, "--redis-tls-key", other.key, "is not the key of the certificate in"),
        (&signed.ours.certificate, "--redis-tls-cert", String::new(), "holds no certificate: "),
    ];
    let flags = format!("--redis-tls-ca {} {}", ca.display(), signed.own());
    for (file, flag, content, expected) in rows {
        let sound = fs::read(file).expect("a file");
        fs::write(file, content).expect("written");
        let settings = settings(&format!("--redis-url rediss://127.0.0.1:1 {flags}"));
        let error = match World::from_settings(&settings, Cores::here()) {
            Err(error @ StartError::Secret(_)) => error.to_string(),
            Err(error) => panic!("{error}"),
            Ok(_world) => panic!("started: {flag}"),
        };
        assert!(error.starts_with(&format!("{flag} ({}): {expected}", file.display())), "{error}");
        fs::write(file, sound).expect("written");
    }
}
