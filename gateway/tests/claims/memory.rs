//! What thousands of records take of a real Redis, by its own `used_memory`: with their names, their expiry, its
//! tables, and what its allocator rounds up.

use tidegate_gateway::store::claims::{Claims, Completion};
use tidegate_policy::idempotency::record::{Completed, Held};
use tidegate_policy::idempotency::stored::{HeaderRule, StoredAnswer};
use tidegate_tests::redis::Redis;

use crate::support::{TTL_MS, claim, claims, hash, name, owner, store};

/// What a record may take beside headers and body.
const BESIDE: u64 = 300;

async fn used(redis: &Redis) -> u64 {
    let told = redis.command(&["INFO", "memory"]).await;
    let used = told.lines().find_map(|line| line.strip_prefix("used_memory:"));
    used.and_then(|used| used.trim().parse().ok()).expect("a number")
}

/// What jemalloc adds to a string of this length: it has four sizes to each doubling.
fn rounding(len: u64) -> u64 {
    let spacing = (len.next_power_of_two() / 8).max(16);
    len.next_multiple_of(spacing) - len
}

async fn put(claims: &dyn Claims, number: u128, answer: Option<&StoredAnswer>) {
    let name = name("acme", &format!("8e03978e-40d5-43e8-bc93-{number:012}"));
    claims.begin(&name, &claim(number)).await.expect("an answer");
    let Some(answer) = answer else { return };
    let held = Held { owner: owner(number), fence: 1 };
    let completion = Completion { held, hash: hash(7), answer, ttl_ms: TTL_MS };
    assert_eq!(claims.complete(&name, &completion).await, Ok(Completed::Stored));
}

/// Prints what it found.
#[tokio::test]
async fn thousands_of_records_take_little_more_than_their_payload() {
    let headers: [(&[u8], &[u8]); 2] =
        [(b"content-type", b"application/json"), (b"location", b"/v1/orders/17/refunds/4711")];
    let headers = HeaderRule::default().kept(headers).expect("few");
    let mut told = String::from("    body  payload   record   beside  rounded\n");
    let sizes = [None, Some(0), Some(200), Some(1_024), Some(8_192), Some(65_536)];
    for (body, count) in sizes.into_iter().zip([10_000, 10_000, 10_000, 10_000, 10_000, 1_000]) {
        let redis = Redis::start().await;
        let store = store(&redis).await;
        let claims = claims(&store);
        let (status, headers) = (201, headers.clone());
        let answer = body.map(|len| StoredAnswer { status, headers, body: Some(vec![b'x'; len]) });
        let packed = answer.as_ref().map_or(0, |answer| answer.headers.to_bytes().len());
        let payload = u64::try_from(packed + body.unwrap_or(0)).expect("small");
        // Both connections have their buffers.
        for number in 0..20 {
            put(claims, 1_000_000 + number, answer.as_ref()).await;
        }
        let before = used(&redis).await;
        for number in 0..count {
            put(claims, number, answer.as_ref()).await;
        }
        let each = (used(&redis).await - before) / u64::try_from(count).expect("small");
        // The head of a record, and the allocator's own of a string.
        let rounded = rounding(payload + 70 + 6);
        let (body, beside) = (body.unwrap_or(0), each - payload);
        told += &format!("{body:>8} {payload:>8} {each:>8} {beside:>8} {rounded:>8}\n");
        assert!(beside <= BESIDE + rounded, "{told}");
    }
    println!("{told}");
}
