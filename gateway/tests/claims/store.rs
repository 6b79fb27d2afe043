//! The store's own calls on a real Redis: from a claim to its answer, octets as they were, what another
//! system wrote, and what is no record.

use tidegate_gateway::store::claims::{Claims, Completion, Writer};
use tidegate_gateway::store::{Store, StoreFailure};
use tidegate_policy::idempotency::key::IdempotencyKey;
use tidegate_policy::idempotency::name::RecordName;
use tidegate_policy::idempotency::record::{
    Abandoned, Begun, Claim, Completed, Extended, Found, Held,
};
use tidegate_policy::idempotency::stored::{HeaderRule, StoredAnswer};
use tidegate_tests::redis::Redis;

use crate::support::{LOCK_US, TTL_MS, claim, claims, hash, name, owner, store};

const CLAIMED: Begun = Begun::Claimed { fence: 1, taken_over: false };

async fn put(redis: &Redis, command: &[&str]) {
    let client = redis::Client::open(redis.url()).expect("a sound URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let (verb, rest) = command.split_first().expect("a command");
    redis::cmd(verb).arg(rest).exec_async(&mut connection).await.expect("done");
}

fn answer(body: Option<Vec<u8>>) -> StoredAnswer {
    let headers: [(&[u8], &[u8]); 2] = [(b"Location", b"/o/1"), (b"etag", b"\"\xff\"")];
    let headers = HeaderRule::default().kept(headers).expect("few");
    StoredAnswer { status: 201, headers, body }
}

/// Whatever octets an answer has, whoever asks again gets the same ones.
#[tokio::test]
async fn answers_come_back_octet_for_octet() {
    let redis = Redis::start().await;
    let store = store(&redis).await;
    let claims = claims(&store);
    assert!(!claims.forgets());
    let every: Vec<u8> = (0..=u8::MAX).collect();
    let bodies = [
        Some(Vec::new()),
        Some(every.clone()),
        Some(b"\r\n$-1\r\n*0\r\n".to_vec()),
        Some(every.repeat(256)),
        None,
    ];
    for (index, body) in bodies.into_iter().enumerate() {
        let name = name("acme", &format!("octets-{index}"));
        let answer = answer(body);
        assert_eq!(claims.begin(&name, &claim(1)).await, Ok(CLAIMED));
        let held = Held { owner: owner(1), fence: 1 };
        let completion = Completion { held, hash: hash(7), answer: &answer, ttl_ms: TTL_MS };
        assert_eq!(claims.complete(&name, &completion).await, Ok(Completed::Stored));
        assert_eq!(claims.complete(&name, &completion).await, Ok(Completed::AlreadyDone));
        let found = Found::Done(answer);
        assert_eq!(claims.begin(&name, &claim(2)).await, Ok(Begun::Found(found.clone())));
        assert_eq!(claims.lookup(&name, None, Writer::Gateway).await, Ok(found));
        let other = Claim { hash: hash(8), ..claim(3) };
        assert_eq!(claims.begin(&name, &other).await, Ok(Begun::Found(Found::Conflict)));
    }
}

/// A slow owner comes back after somebody took over.
#[tokio::test]
async fn a_slow_owner_changes_nothing_after_a_takeover() {
    let redis = Redis::start().await;
    let store = store(&redis).await;
    let claims = claims(&store);
    let name = name("acme", "slow");
    // A lock that has ended as soon as it is there.
    let short = Claim { lock_us: 0, ..claim(1) };
    assert_eq!(claims.begin(&name, &short).await, Ok(CLAIMED));
    assert_eq!(claims.begin(&name, &claim(2)).await, Ok(Begun::Found(Found::Unknown)));
    let taking = Claim { takeover: true, ..claim(2) };
    let taken = Begun::Claimed { fence: 2, taken_over: true };
    assert_eq!(claims.begin(&name, &taking).await, Ok(taken));
    let (slow, new) = (Held { owner: owner(1), fence: 1 }, Held { owner: owner(2), fence: 2 });
    let late = answer(Some(b"late".to_vec()));
    let completion = Completion { held: slow, hash: hash(7), answer: &late, ttl_ms: TTL_MS };
    assert_eq!(claims.complete(&name, &completion).await, Ok(Completed::Fenced));
    assert_eq!(claims.abandon(&name, slow, TTL_MS).await, Ok(Abandoned::Fenced));
    assert_eq!(claims.extend(&name, slow, LOCK_US, TTL_MS).await, Ok(Extended::Fenced));
    assert_eq!(claims.extend(&name, new, LOCK_US, TTL_MS).await, Ok(Extended::Extended));
    let first = answer(Some(b"first".to_vec()));
    let completion = Completion { held: new, hash: hash(7), answer: &first, ttl_ms: TTL_MS };
    assert_eq!(claims.complete(&name, &completion).await, Ok(Completed::Stored));
    assert_eq!(claims.lookup(&name, None, Writer::Gateway).await, Ok(Found::Done(first)));
}

/// The answer to a begin is lost: the end of its owner may come behind it or ahead of it.
#[tokio::test]
async fn a_begin_whose_answer_was_lost_is_given_back_whichever_comes_first() {
    let redis = Redis::start().await;
    let store = store(&redis).await;
    let claims = claims(&store);
    let lost = Held::unheard(owner(1));
    let behind = name("acme", "behind");
    assert_eq!(claims.begin(&behind, &claim(1)).await, Ok(CLAIMED));
    assert_eq!(claims.abandon(&behind, lost, TTL_MS).await, Ok(Abandoned::Freed));
    let ahead = name("acme", "ahead");
    assert_eq!(claims.abandon(&ahead, lost, TTL_MS).await, Ok(Abandoned::Remembered));
    for (name, fence) in [(behind, 2), (ahead, 1)] {
        assert_eq!(claims.begin(&name, &claim(1)).await, Ok(Begun::Spent));
        let retry = Begun::Claimed { fence, taken_over: false };
        assert_eq!(claims.begin(&name, &claim(2)).await, Ok(retry), "a retry runs");
    }
}

/// Redis loses the record between claim and answer: the answer is kept all the same.
#[tokio::test]
async fn an_answer_whose_record_was_lost_is_stored_anew() {
    let redis = Redis::start().await;
    let store = store(&redis).await;
    let claims = claims(&store);
    let name = name("acme", "lost");
    assert_eq!(claims.begin(&name, &claim(1)).await, Ok(CLAIMED));
    put(&redis, &["FLUSHALL"]).await;
    let held = Held { owner: owner(1), fence: 1 };
    assert_eq!(claims.extend(&name, held, LOCK_US, TTL_MS).await, Ok(Extended::Gone));
    let answer = answer(Some(b"x".to_vec()));
    let completion = Completion { held, hash: hash(7), answer: &answer, ttl_ms: TTL_MS };
    assert_eq!(claims.complete(&name, &completion).await, Ok(Completed::Recovered));
    let replay = Begun::Found(Found::Done(answer));
    assert_eq!(claims.begin(&name, &claim(2)).await, Ok(replay));
}

/// Keys of a system that knew no tenants: what it wrote is never run again, and never misread.
#[tokio::test]
async fn what_another_system_wrote_has_an_unknown_outcome() {
    let redis = Redis::start().await;
    let store = store(&redis).await;
    let claims = claims(&store);
    let older = |key: &str| {
        let key = IdempotencyKey::new(key).expect("a key");
        RecordName::of_older_format(&key).expect("plain")
    };
    put(&redis, &["SET", "idempotency:json", "{\"status\":200}"]).await;
    put(&redis, &["HSET", "idempotency:hash", "status", "200"]).await;
    for key in ["json", "hash"] {
        let asked = hash(7);
        let by_anybody = claims.lookup(&older(key), Some(&asked), Writer::Anybody).await;
        assert_eq!(by_anybody, Ok(Found::Unknown), "{key}");
        let by_us = claims.lookup(&older(key), Some(&asked), Writer::Gateway).await;
        assert!(matches!(by_us, Err(StoreFailure::Refused(_))), "{key}: {by_us:?}");
    }
    let nothing = claims.lookup(&older("none"), Some(&hash(7)), Writer::Anybody).await;
    assert_eq!(nothing, Ok(Found::Absent));
    assert_eq!(claims.begin(&older("ours"), &claim(1)).await, Ok(CLAIMED));
    let ours = claims.lookup(&older("ours"), Some(&hash(8)), Writer::Anybody).await;
    assert_eq!(ours, Ok(Found::Conflict), "a record of ours under an older name counts as one");
}

/// Nothing overwrites in silence what it cannot read.
#[tokio::test]
async fn what_is_no_record_is_an_error_and_stays() {
    let redis = Redis::start().await;
    let store: &dyn Store = &store(&redis).await;
    let claims: &dyn Claims = claims(store);
    let name = name("acme", "foreign");
    let held = Held { owner: owner(1), fence: 1 };
    let answer = answer(None);
    let completion = Completion { held, hash: hash(7), answer: &answer, ttl_ms: TTL_MS };
    let later_format = "\u{2}".repeat(70);
    let no_state = format!("\u{1}\u{4}{}", "\0".repeat(68));
    for foreign in ["something", later_format.as_str(), no_state.as_str()] {
        put(&redis, &["SET", name.as_str(), foreign]).await;
        let refused = |failure: &StoreFailure| matches!(failure, StoreFailure::Refused(text) if text.contains("holds no record"));
        assert!(claims.begin(&name, &claim(1)).await.is_err_and(|f| refused(&f)));
        assert!(claims.lookup(&name, None, Writer::Gateway).await.is_err_and(|f| refused(&f)));
        assert!(claims.complete(&name, &completion).await.is_err_and(|f| refused(&f)));
        assert!(claims.abandon(&name, held, TTL_MS).await.is_err_and(|f| refused(&f)));
        assert!(claims.extend(&name, held, LOCK_US, TTL_MS).await.is_err_and(|f| refused(&f)));
    }
}

/// Payload and 300 bytes, as Redis itself counts it with the name and all its own, but for what its allocator
/// rounds a string up to.
#[tokio::test]
async fn a_record_takes_little_more_than_its_payload() {
    let redis = Redis::start().await;
    let store = store(&redis).await;
    let claims = claims(&store);
    let headers: [(&[u8], &[u8]); 2] =
        [(b"content-type", b"application/json"), (b"location", b"/v1/orders/17/refunds/4711")];
    let headers = HeaderRule::default().kept(headers).expect("few");
    for body in [None, Some(0), Some(200), Some(1_024), Some(8_192), Some(65_536)] {
        let name = name("acme", &format!("8e03978e-40d5-43e8-bc93-{:012}", body.unwrap_or(1)));
        assert_eq!(claims.begin(&name, &claim(1)).await, Ok(CLAIMED));
        let (headers, bytes) = match body {
            Some(len) => (headers.clone(), vec![b'x'; len]),
            None => Default::default(),
        };
        let payload = headers.to_bytes().len() + bytes.len();
        if body.is_some() {
            let answer = StoredAnswer { status: 201, headers, body: Some(bytes) };
            let held = Held { owner: owner(1), fence: 1 };
            let completion = Completion { held, hash: hash(7), answer: &answer, ttl_ms: TTL_MS };
            assert_eq!(claims.complete(&name, &completion).await, Ok(Completed::Stored));
        }
        let number = async |words: &[&str]| {
            let reply = redis.command(words).await;
            reply.trim().trim_start_matches(':').parse::<usize>().expect("a number")
        };
        let used = number(&["MEMORY", "USAGE", name.as_str()]).await;
        let string = number(&["STRLEN", name.as_str()]).await;
        // jemalloc has four sizes to each doubling.
        let spacing = string.next_power_of_two() / 8;
        let rounding = string.next_multiple_of(spacing.max(16)) + spacing - string;
        assert!(used <= payload + 300 + rounding, "{used} of {payload}, {rounding} rounded");
        assert!(string <= payload + 70, "{string} of {payload}");
    }
}
