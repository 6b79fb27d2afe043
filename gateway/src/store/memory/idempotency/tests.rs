//! Tests of claims in memory: against the bare steps, at the caps, and that one of a thousand claims.

use super::*;
use crate::clock::ManualClock;
use tidegate_policy::idempotency::endpoint::Endpoint;
use tidegate_policy::idempotency::key::IdempotencyKey;
use tidegate_policy::idempotency::record::Owner;
use tidegate_policy::idempotency::stored::{StoredAnswer, StoredHeaders};
use tidegate_policy::scope::{Environment, TenantId};
use tidegate_policy::wire::DecisionId;

const START_US: u64 = 1_800_000_000_000_000;
const LOCK_US: u64 = 20_000_000;
const TTL_MS: u64 = 60_000;

fn name(key: &str) -> RecordName {
    RecordName::of(
        &Environment::default(),
        &TenantId::new("acme").expect("a tenant"),
        &Endpoint::of(b"POST", b"/orders", None).expect("an endpoint"),
        &IdempotencyKey::new(key).expect("a key"),
    )
}

fn claims(records_max: usize) -> (Arc<MemoryClaims>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(START_US));
    let shared: Arc<dyn Clock> = clock.clone();
    (Arc::new(MemoryClaims::new(shared, records_max, Counter::default())), clock)
}

fn owner(number: u128) -> Owner {
    DecisionId::new(number).into()
}

fn hash() -> RequestHash {
    RequestHash::from_bytes([7; 32])
}

fn claim(number: u128) -> Claim {
    Claim { owner: owner(number), hash: hash(), lock_us: LOCK_US, ttl_ms: TTL_MS, takeover: false }
}

fn now<T>(mut call: Call<T>) -> Result<T, StoreFailure> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match call.as_mut().poll(&mut context) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => panic!("memory answers at once"),
    }
}

fn answer(len: usize) -> StoredAnswer {
    let headers = StoredHeaders::default();
    StoredAnswer { status: 201, headers, body: Some(vec![0xff; len]) }
}

#[test]
fn from_the_claim_to_the_answer_and_to_its_end() {
    let (claims, clock) = claims(10);
    let name = name("k");
    let claimed = Begun::Claimed { fence: 1, taken_over: false };
    assert_eq!(now(claims.begin(&name, &claim(1))), Ok(claimed.clone()));
    let wait = Begun::Found(Found::InFlight { wait_us: LOCK_US });
    assert_eq!(now(claims.begin(&name, &claim(2))), Ok(wait));
    clock.set(START_US + 1_000_000);
    let held = Held { owner: owner(1), fence: 1 };
    assert_eq!(now(claims.extend(&name, held, LOCK_US, TTL_MS)), Ok(Extended::Extended));
    let wait = Found::InFlight { wait_us: LOCK_US };
    assert_eq!(now(claims.lookup(&name, Some(&hash()), Writer::Gateway)), Ok(wait));
    let stored = answer(3);
    let completion = Completion { held, hash: hash(), answer: &stored, ttl_ms: TTL_MS };
    assert_eq!(now(claims.complete(&name, &completion)), Ok(Completed::Stored));
    assert_eq!(now(claims.complete(&name, &completion)), Ok(Completed::AlreadyDone));
    assert_eq!(now(claims.abandon(&name, held, TTL_MS)), Ok(Abandoned::Fenced));
    let replay = Begun::Found(Found::Done(stored));
    assert_eq!(now(claims.begin(&name, &claim(2))), Ok(replay));
    clock.set(START_US + 1_000_000 + TTL_MS * 1_000);
    assert_eq!(now(claims.begin(&name, &claim(2))), Ok(claimed), "its life is over");
    assert!(claims.forgets());
}

#[test]
fn a_full_store_refuses_claims_and_keeps_what_it_has() {
    let (claims, clock) = claims(2);
    for (number, key) in [(1, "a"), (2, "b")] {
        assert!(now(claims.begin(&name(key), &claim(number))).is_ok());
    }
    assert_eq!(now(claims.begin(&name("c"), &claim(3))), Err(StoreFailure::Full(2)));
    assert_eq!(claims.full.get(), 1);
    let held = Held { owner: owner(1), fence: 1 };
    let stored = answer(9);
    let completion = Completion { held, hash: hash(), answer: &stored, ttl_ms: TTL_MS };
    assert_eq!(
        now(claims.complete(&name("a"), &completion)),
        Ok(Completed::Stored),
        "it has its place"
    );
    clock.set(START_US + TTL_MS * 1_000);
    assert!(now(claims.begin(&name("c"), &claim(3))).is_ok(), "the others have expired");
    assert_eq!(claims.len(), 1);
}

#[test]
fn octets_are_bounded_as_well() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(START_US));
    let mut claims = MemoryClaims::new(clock, 10, Counter::default());
    claims.bytes_max = 2_000;
    assert!(now(claims.begin(&name("a"), &claim(1))).is_ok());
    let held = Held { owner: owner(1), fence: 1 };
    for (len, expected) in [(2_000, Err(StoreFailure::Full(10))), (1_000, Ok(Completed::Stored))] {
        let stored = answer(len);
        let completion = Completion { held, hash: hash(), answer: &stored, ttl_ms: TTL_MS };
        assert_eq!(now(claims.complete(&name("a"), &completion)), expected);
    }
    let bytes = claims.lock().bytes;
    assert!((1_000..2_000).contains(&bytes), "{bytes}");
}

#[test]
fn of_many_at_once_one_claims() {
    for callers in [10u128, 50, 1_000] {
        let (claims, _clock) = claims(10);
        let begun: Vec<Begun> = std::thread::scope(|scope| {
            let ask = |number| {
                let claims = Arc::clone(&claims);
                scope.spawn(move || now(claims.begin(&name("k"), &claim(number))).expect("asked"))
            };
            let asked: Vec<_> = (0..callers).map(ask).collect();
            asked.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        let runs = begun.iter().filter(|begun| matches!(begun, Begun::Claimed { .. })).count();
        let waits =
            begun.iter().filter(|b| matches!(b, Begun::Found(Found::InFlight { .. }))).count();
        assert_eq!((runs, waits + 1), (1, usize::try_from(callers).expect("small")), "{callers}");
    }
}
