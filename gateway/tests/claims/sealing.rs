//! Sealed answers on a real Redis: what lies there, who can read it, and what an attacker with the store at
//! hand can make of it.

use std::sync::Arc;

use tidegate_gateway::settings::{Environment, Settings, seal};
use tidegate_gateway::store::claims::{Completion, Writer};
use tidegate_gateway::store::redis::RedisStore;
use tidegate_policy::idempotency::record::{Begun, Completed, Found, Held};
use tidegate_policy::idempotency::stored::{HeaderRule, StoredAnswer};
use tidegate_tests::redis::Redis;

use crate::support::{TTL_MS, claim, claims, hash, name, owner, store};

/// The keys as a gateway reads them.
fn keys(versions: &[u8], with: &str, plain: &str) -> seal::Sealing {
    let own = [("TOKEN", "t"), ("SEAL_WITH", with), ("SEAL_READ_PLAIN", plain)];
    let own = own.map(|(name, value)| (format!("TIDEGATE_{name}"), value.to_owned()));
    let keys = versions.iter().map(|version| {
        (format!("TIDEGATE_SEAL_KEY_V{version}"), format!("{version:02x}").repeat(32))
    });
    let pairs = own.into_iter().chain(keys).map(|(name, value)| (name.into(), value.into()));
    let settings = Settings::parse(["gateway", "serve"], &Environment::new(pairs));
    settings.expect("sound").seal
}

async fn sealing(redis: &Redis, versions: &[u8], with: &str) -> RedisStore {
    store(redis).await.sealed_by(keys(versions, with, ""))
}

fn answer(body: Option<&[u8]>) -> StoredAnswer {
    let headers: [(&[u8], &[u8]); 1] = [(b"location", b"/orders/secret-17")];
    let headers = HeaderRule::default().kept(headers).expect("few");
    StoredAnswer { status: 201, headers, body: body.map(<[u8]>::to_vec) }
}

async fn put(store: &RedisStore, key: &str, answer: &StoredAnswer) {
    let (claims, name) = (claims(store), name("acme", key));
    claims.begin(&name, &claim(1)).await.expect("claimed");
    let held = Held { owner: owner(1), fence: 1 };
    let completion = Completion { held, hash: hash(7), answer, ttl_ms: TTL_MS };
    assert_eq!(claims.complete(&name, &completion).await, Ok(Completed::Stored));
    assert_eq!(claims.complete(&name, &completion).await, Ok(Completed::AlreadyDone));
}

async fn found(store: &RedisStore, key: &str) -> Found {
    let (claims, name) = (claims(store), name("acme", key));
    let found = claims.lookup(&name, None, Writer::Gateway).await.expect("a record");
    assert_eq!(claims.begin(&name, &claim(2)).await, Ok(Begun::Found(found.clone())));
    found
}

/// Every octet that lies there.
async fn dump(redis: &Redis) -> Vec<u8> {
    let client = redis::Client::open(redis.url()).expect("a sound URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let mut all = Vec::new();
    let keys: Vec<String> =
        redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("keys");
    for key in keys {
        let value: Vec<u8> =
            redis::cmd("GET").arg(key).query_async(&mut connection).await.expect("a string");
        all.extend(value);
    }
    all
}

fn holds(octets: &[u8], text: &str) -> bool {
    octets.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn no_plain_text_lies_in_the_store_and_a_rotation_reads_all_of_it() {
    let redis = Redis::start().await;
    let plain = store(&redis).await;
    let first = answer(Some(b"card 4242"));
    put(&plain, "before", &first).await;
    assert!(holds(&dump(&redis).await, "4242"), "without keys it lies there as it is");
    redis.command(&["FLUSHALL"]).await;
    put(&plain, "before", &StoredAnswer { status: 201, ..StoredAnswer::default() }).await;

    let one = sealing(&redis, &[1], "").await;
    let bodyless = answer(None);
    put(&one, "one", &first).await;
    put(&one, "bodyless", &bodyless).await;
    let lies = dump(&redis).await;
    for text in ["4242", "card", "location", "secret-17"] {
        assert!(!holds(&lies, text), "{text} lies in the store");
    }
    assert_eq!(found(&one, "one").await, Found::Done(first.clone()));
    assert_eq!(found(&one, "bodyless").await, Found::Done(bodyless));
    // What lies there unsealed anybody could have written.
    assert_eq!(found(&one, "before").await, Found::Unreadable { status: 201 });
    let lenient = store(&redis).await.sealed_by(keys(&[1], "", "1"));
    assert!(matches!(found(&lenient, "before").await, Found::Done(_)));
    assert_eq!(found(&lenient, "one").await, Found::Done(first.clone()));

    // First of all every gateway learns the first key, and seals nothing: those that do not know it yet read all there is.
    let begins = sealing(&redis, &[1], "none").await;
    put(&begins, "begins", &first).await;
    for store in [&begins, &plain] {
        assert_eq!(found(store, "begins").await, Found::Done(first.clone()));
    }
    assert_eq!(found(&begins, "one").await, Found::Done(first.clone()));
    assert_eq!(found(&lenient, "begins").await, Found::Done(first.clone()));

    // First every gateway learns the new key, then they seal with it, then the old one goes.
    let learns = sealing(&redis, &[1, 2], "v1").await;
    put(&learns, "learns", &first).await;
    let turns = sealing(&redis, &[1, 2], "").await;
    put(&turns, "turns", &first).await;
    for store in [&learns, &turns] {
        for key in ["one", "learns", "turns"] {
            assert_eq!(found(store, key).await, Found::Done(first.clone()), "{key}");
        }
    }
    assert_eq!(found(&one, "turns").await, Found::Unreadable { status: 201 });
    let two = sealing(&redis, &[2], "").await;
    assert_eq!(found(&two, "turns").await, Found::Done(first));
    for key in ["one", "learns"] {
        assert_eq!(found(&two, key).await, Found::Unreadable { status: 201 }, "{key}");
        assert_eq!(found(&plain, key).await, Found::Unreadable { status: 201 }, "{key}");
    }
}

#[tokio::test]
async fn whoever_writes_into_the_store_makes_no_answer_of_it() {
    let redis = Redis::start().await;
    let store = Arc::new(sealing(&redis, &[1], "").await);
    put(&store, "theirs", &answer(Some(b"theirs"))).await;
    put(&store, "ours", &answer(Some(b"ours"))).await;
    let (theirs, ours) = (name("acme", "theirs"), name("acme", "ours"));
    // The same request, another key.
    let copied = redis.command(&["COPY", theirs.as_str(), ours.as_str(), "REPLACE"]).await;
    assert!(copied.starts_with(":1"), "{copied}");
    assert_eq!(found(&store, "ours").await, Found::Unreadable { status: 201 });
    assert!(matches!(found(&store, "theirs").await, Found::Done(_)));
    // The last octet is of the body's tag; the status stands in front.
    for (offset, octet) in [("2", "\x02"), ("80", "x"), ("-", "x")] {
        put(&store, offset, &answer(Some(b"mine"))).await;
        let at = name("acme", offset);
        let len = redis.command(&["STRLEN", at.as_str()]).await;
        let last: u32 = len.trim_start_matches(':').trim().parse::<u32>().expect("a length") - 1;
        let place = if offset == "-" { last.to_string() } else { offset.to_owned() };
        redis.command(&["SETRANGE", at.as_str(), &place, octet]).await;
        let lost = found(&store, offset).await;
        assert!(matches!(lost, Found::Unreadable { .. }), "{offset}: {lost:?}");
    }
}
