//! The memory store against the policy's step, and at its cap.

use super::*;
use crate::clock::ManualClock;
use proptest::prelude::*;
use tidegate_policy::gcra::{self, EPOCH_US, Quota, Reach};
use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};
use tidegate_policy::limit::Algorithm;
use tidegate_policy::scope::{Environment, KeyFormat, Region, Tenant};

const START_US: u64 = EPOCH_US + 1_000_000_000;

fn scope() -> Scope {
    Scope {
        region: Region::fallback(),
        environment: Environment::default(),
        tenant: Tenant::None,
        key_format: KeyFormat::V1,
    }
}

fn subject(name: &str) -> Subject {
    Subject { kind: SubjectKind::Ip, name: SubjectName::from_bytes(name.as_bytes()) }
}

fn store(keys_max: usize) -> (MemoryStore, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(START_US));
    let shared: Arc<dyn Clock> = clock.clone();
    (MemoryStore::new(shared, keys_max, StoreCounters::default()), clock)
}

fn charge<'a>(subject: &'a Subject, limit_id: &'a str, cost: u32) -> Charge<'a> {
    let quota = Quota::new(10, 1_000_000, 5).expect("a quota");
    Charge { subject, limit_id, quota, algorithm: Algorithm::Gcra, cost, alone: false }
}

fn check(store: &MemoryStore, charges: &[Charge<'_>]) -> Result<Checked, StoreFailure> {
    let mut call = store.rate_check(&scope(), charges);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match call.as_mut().poll(&mut context) {
        std::task::Poll::Ready(checked) => checked,
        std::task::Poll::Pending => panic!("memory answers at once"),
    }
}

#[test]
fn all_limits_are_charged_or_none() {
    let (store, _clock) = store(10);
    let client = subject("a");
    let both = [charge(&client, "p.one", 5), charge(&client, "p.two", 6)];
    let denied = check(&store, &both).expect("checked");
    assert!(!denied.allowed);
    assert_eq!(store.key_count(), 0, "a denied request writes nothing");
    let again = check(&store, &[charge(&client, "p.one", 5)]).expect("checked");
    assert!(again.allowed);
}

#[test]
fn regions_and_environments_are_apart() {
    let (store, _clock) = store(10);
    let client = subject("a");
    let charges = [charge(&client, "p.one", 5)];
    let mut other = scope();
    other.region = Region::new("elsewhere").expect("a region");
    assert!(check(&store, &charges).expect("checked").allowed);
    assert!(!check(&store, &charges).expect("checked").allowed);
    let mut call = store.rate_check(&other, &charges);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let answer = call.as_mut().poll(&mut context);
    assert!(matches!(answer, std::task::Poll::Ready(Ok(Checked { allowed: true, .. }))));
}

#[test]
fn a_full_store_refuses_new_keys_until_old_ones_expire() {
    let (store, clock) = store(2);
    let clients = ["a", "b", "c"].map(subject);
    let [a, b, c] = &clients;
    assert!(check(&store, &[charge(a, "p.one", 1)]).is_ok());
    assert!(check(&store, &[charge(b, "p.one", 1)]).is_ok());
    assert_eq!(check(&store, &[charge(c, "p.one", 1)]), Err(StoreFailure::Full(2)));
    assert_eq!(store.counters.full.get(), 1);
    assert!(check(&store, &[charge(a, "p.one", 1)]).is_ok(), "known keys go on");
    assert!(check(&store, &[charge(c, "p.one", 0)]).is_ok(), "looking needs no room");

    clock.set(START_US + 2_000_000);
    assert!(check(&store, &[charge(c, "p.one", 1)]).is_ok(), "the others have expired");
    assert_eq!(store.key_count(), 1);
}

/// Settled over and over, one limit stays two keys: itself, and what was given back of it. Also where there is room for
/// no other.
#[test]
fn settlements_take_no_room() {
    let (store, _clock) = store(3);
    let (a, b) = (subject("a"), subject("b"));
    assert!(check(&store, &[charge(&a, "p.one", 2)]).is_ok());
    assert!(check(&store, &[charge(&b, "p.one", 1)]).is_ok());
    let settle = |id, by| {
        let Charge { subject, limit_id, quota, algorithm, .. } = charge(&a, "p.one", 0);
        let (age_us, charged_cold, receipt) = (0, false, None);
        let one =
            Adjustment { subject, limit_id, quota, algorithm, by, age_us, charged_cold, receipt };
        let settled = store.adjust(&scope(), DecisionId::new(id), &[one]);
        settled.map(|standings| standings[0].reading.remaining)
    };
    for id in 0..10_000 {
        for _ in 0..2 {
            assert_eq!(settle(2 * id, 1), Ok(2), "once");
        }
        assert_eq!(settle(2 * id + 1, -1), Ok(3));
    }
    assert_eq!((store.key_count(), store.counters.full.get()), (3, 0));
}

#[test]
fn a_full_store_is_swept_at_most_once_a_second() {
    let (store, clock) = store(1);
    let (a, b) = (subject("a"), subject("b"));
    assert!(check(&store, &[charge(&a, "p.one", 1)]).is_ok());
    assert!(check(&store, &[charge(&b, "p.one", 1)]).is_err(), "swept, found nothing");
    clock.set(START_US + 500_000);
    assert!(
        check(&store, &[charge(&b, "p.one", 1)]).is_err(),
        "a has expired, but no sweep is due"
    );
    clock.set(START_US + 1_000_000);
    assert!(check(&store, &[charge(&b, "p.one", 1)]).is_ok());
}

#[test]
fn a_region_that_begins_ahead_of_the_clock_is_cold_for_its_time_and_no_longer() {
    let (store, clock) = store(10);
    let store = store.guarded(Duration::from_secs(300));
    let client = subject("a");
    let reduced = |at_us| {
        clock.set(at_us);
        check(&store, &[charge(&client, "p.one", 0)]).expect("checked").limits[0].reduced
    };
    assert_eq!(reduced(START_US + 3_600_000_000), Some(5));
    assert_eq!(reduced(START_US), Some(5), "the clock stepped back");
    assert_eq!(reduced(START_US + 299_999_999), Some(5));
    assert_eq!(reduced(START_US + 300_000_000), None);
}

proptest! {
    /// The store is the step plus a map: forgetting what has expired never changes an answer.
    #[test]
    fn the_store_answers_as_the_bare_step_does(
        calls in proptest::collection::vec((0u64..400_000, 0usize..3, 0u32..7), 1..80)
    ) {
        let (store, clock) = store(100);
        let clients = ["a", "b", "c"].map(subject);
        let mut tats = [None; 3];
        let mut now_us = START_US;
        for (step_us, who, cost) in calls {
            now_us += step_us;
            clock.set(now_us);
            let charge = charge(&clients[who], "p.one", cost);
            let stored = check(&store, &[charge]).expect("checked");
            let pace = charge.quota.pace();
            let reach = Reach::of(pace, pace);
            let bare = gcra::Charge { quota: charge.quota, cost, tat: tats[who], reach };
            let answer = gcra::check(Instant::from_unix_us(now_us), &[bare]);
            let (reading, write) = answer.limits[0];
            let charged_us = (answer.allowed && cost > 0).then_some(now_us);
            let limits = vec![Standing { reading, reduced: None, unread: false, charged_us }];
            prop_assert_eq!(stored, Checked { allowed: answer.allowed, limits });
            tats[who] = write.map(|write| write.tat).or(tats[who]);
        }
    }
}
