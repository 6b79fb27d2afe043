//! Tests of claims whose endpoints have words for what varies.

use tidegate_policy::idempotency::endpoint::Endpoint;
use tidegate_policy::idempotency::fingerprint::RequestHash;
use tidegate_policy::idempotency::key::IdempotencyKey;
use tidegate_policy::idempotency::stored::StoredAnswer;
use tidegate_policy::scope::{Environment, KeyFormat, Region};
use tidegate_policy::wire::AnswerHead;

use super::*;
use crate::clock::ManualClock;
use crate::store::StoreCounters;
use crate::store::memory::MemoryStore;

const START_US: u64 = 1_800_000_000_000_000;
const LOCK_MS: u32 = 15_000;

struct Desk {
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
}

fn keyed(template: &str) -> Keyed {
    Keyed {
        key: IdempotencyKey::new("k").expect("a key"),
        endpoint: Endpoint::of(b"POST", b"/orders/7", Some(template)).expect("an endpoint"),
        configured: true,
        hash: RequestHash::from_bytes([7; 32]),
    }
}

fn call(template: &str, takeover: bool) -> ClaimCall {
    ClaimCall {
        keyed: keyed(template),
        lock_ms: LOCK_MS,
        life_s: 86_400,
        takeover,
        look: false,
        older_keys: false,
        ephemeral: true,
        replicas: None,
    }
}

fn answer() -> StoredAnswer {
    StoredAnswer { status: 201, body: Some(b"made".to_vec()), ..StoredAnswer::default() }
}

// === impl Desk ===

impl Desk {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(START_US));
        let shared: Arc<dyn Clock> = clock.clone();
        let store = MemoryStore::new(shared, 100, StoreCounters::default());
        Self { store: Arc::new(store), clock }
    }

    fn claiming(&self, id: u128) -> Claiming {
        let tenant = Tenant::Named(TenantId::new("acme").expect("a tenant"));
        let scope = Scope {
            region: Region::new("here").expect("a region"),
            environment: Environment::default(),
            tenant,
            key_format: KeyFormat::default(),
        };
        Claiming { store: Arc::clone(&self.store), scope, id: DecisionId::new(id) }
    }

    async fn begins(&self, id: u128, template: &str, takeover: bool) -> ClaimState {
        self.claiming(id).begin(&call(template, takeover)).await.expect("the store answers").0
    }

    /// As the first owner's word that reaches a gateway of today.
    async fn finishes(&self, fence: u64, by: FinishBy) -> Finished {
        self.finishes_as(1, fence, by).await
    }

    async fn finishes_as(&self, id: u128, fence: u64, by: FinishBy) -> Finished {
        let finish = Finish { keyed: keyed("/orders/{id}"), fence, by };
        let (_, octets) = AnswerHead::of(&answer()).expect("small");
        self.claiming(id).finish(&finish, &octets).await.expect("the store answers")
    }

    /// What lies under a name, whoever asks.
    async fn found(&self, name: &RecordName) -> Found {
        let claims = self.store.claims().expect("it keeps claims");
        claims.lookup(name, None, Writer::Gateway).await.expect("the store answers")
    }

    /// As gateways named it before.
    fn before(&self, template: &str) -> RecordName {
        let Keyed { endpoint, key, .. } = keyed(template);
        let tenant = TenantId::new("acme").expect("a tenant");
        RecordName::with_words(&Environment::default(), &tenant, &endpoint, &key).expect("words")
    }

    /// A claim that a gateway of before made, and its answer if it had one.
    async fn recorded_before(&self, template: &str, is_done: bool) {
        let claims = self.store.claims().expect("it keeps claims");
        let name = self.before(template);
        let claiming = self.claiming(1);
        claims.begin(&name, &claiming.claim(&call(template, false))).await.expect("claimed");
        if is_done {
            let held = Held { owner: Owner::from(DecisionId::new(1)), fence: 1 };
            let (hash, answer) = (RequestHash::from_bytes([7; 32]), answer());
            let completion = Completion { held, hash, answer: &answer, ttl_ms: 86_400_000 };
            claims.complete(&name, &completion).await.expect("stored");
        }
    }
}

#[tokio::test]
async fn another_word_for_what_varies_finds_the_same_record() {
    let desk = Desk::new();
    let claimed = desk.begins(1, "/orders/{id}", false).await;
    assert!(matches!(claimed, ClaimState::Claimed { fence: 1, .. }), "{claimed:?}");
    for template in ["/orders/{order}", "/orders/{}", "/orders/{id}"] {
        let found = desk.begins(2, template, false).await;
        assert!(matches!(found, ClaimState::InFlight { .. }), "{template}: {found:?}");
    }
    let other = desk.begins(2, "/orders/7", false).await;
    assert!(matches!(other, ClaimState::Claimed { .. }), "{other:?}");
}

#[tokio::test]
async fn what_was_recorded_under_the_word_is_still_found() {
    let desk = Desk::new();
    desk.recorded_before("/orders/{id}", true).await;
    let found = desk.begins(2, "/orders/{id}", false).await;
    assert!(matches!(found, ClaimState::Done(head) if head.status == 201), "{found:?}");

    let desk = Desk::new();
    desk.recorded_before("/orders/{id}", false).await;
    let found = desk.begins(2, "/orders/{id}", true).await;
    assert!(matches!(found, ClaimState::InFlight { .. }), "{found:?}");
    desk.clock.set(START_US + u64::from(LOCK_MS) * 1_000);
    let found = desk.begins(2, "/orders/{id}", false).await;
    assert_eq!(found, ClaimState::Unknown);
    let taken = desk.begins(2, "/orders/{id}", true).await;
    assert!(matches!(taken, ClaimState::Claimed { .. }), "{taken:?}");
}

/// While gateways are replaced one may claim as before, and another take the answer.
#[tokio::test]
async fn an_answer_that_came_through_a_gateway_of_today_is_found() {
    let desk = Desk::new();
    desk.recorded_before("/orders/{id}", false).await;
    let claims = desk.store.claims().expect("it keeps claims");
    let name = desk.claiming(1).name(&keyed("/orders/{id}")).expect("a name");
    let held = Held { owner: Owner::from(DecisionId::new(1)), fence: 1 };
    let (hash, answer) = (RequestHash::from_bytes([7; 32]), answer());
    let completion = Completion { held, hash, answer: &answer, ttl_ms: 86_400_000 };
    claims.complete(&name, &completion).await.expect("stored");
    let found = desk.begins(2, "/orders/{id}", false).await;
    assert!(matches!(found, ClaimState::Done(head) if head.status == 201), "{found:?}");
}

const EXTEND: FinishBy = FinishBy::Extend { lock_ms: LOCK_MS, life_s: 86_400 };
const ABANDON: FinishBy = FinishBy::Abandon { life_s: 86_400 };

fn complete() -> FinishBy {
    let (answer, _) = AnswerHead::of(&answer()).expect("small");
    FinishBy::Complete { answer, life_s: 86_400 }
}

/// While gateways are replaced one may claim as before, and its heartbeats come through another.
#[tokio::test]
async fn a_claim_of_a_gateway_of_before_is_extended_and_given_back_where_it_lies() {
    for was_given_back in [false, true] {
        let desk = Desk::new();
        if was_given_back {
            desk.begins(1, "/orders/{}", false).await;
            assert_eq!(desk.finishes(1, ABANDON).await, Finished::Freed);
        }
        desk.recorded_before("/orders/{id}", false).await;
        for beat in 1..=3 {
            desk.clock.set(START_US + beat * 10_000_000);
            assert_eq!(desk.finishes(1, EXTEND).await, Finished::Extended, "{was_given_back}");
        }
        let retry = async || desk.begins(2, "/orders/{id}", true).await;
        let early = retry().await;
        assert!(matches!(early, ClaimState::InFlight { .. }), "{was_given_back}: {early:?}");
        assert_eq!(desk.finishes(1, ABANDON).await, Finished::Freed, "{was_given_back}");
        let claimed = retry().await;
        assert!(matches!(claimed, ClaimState::Claimed { .. }), "{was_given_back}: {claimed:?}");
    }
}

#[tokio::test]
async fn who_was_taken_over_extends_nothing_under_either_name() {
    let desk = Desk::new();
    desk.recorded_before("/orders/{id}", false).await;
    desk.clock.set(START_US + u64::from(LOCK_MS) * 1_000);
    let taken = desk.begins(2, "/orders/{id}", true).await;
    let ClaimState::Claimed { fence, .. } = taken else { panic!("{taken:?}") };
    assert_eq!(desk.finishes(1, EXTEND).await, Finished::Fenced);
    assert_eq!(desk.found(&desk.before("/orders/{id}")).await, Found::Unknown);
    // Nor has it the last word, whoever ends first.
    assert_eq!(desk.finishes_as(2, fence, complete()).await, Finished::Stored);
    assert_eq!(desk.finishes(1, complete()).await, Finished::Fenced);
    assert_eq!(desk.found(&desk.before("/orders/{id}")).await, Found::Unknown);
}

#[tokio::test]
async fn a_claim_of_a_gateway_of_before_has_its_answer_where_it_lies() {
    let desk = Desk::new();
    desk.recorded_before("/orders/{id}", false).await;
    for said in [Finished::Stored, Finished::AlreadyDone] {
        assert_eq!(desk.finishes(1, complete()).await, said);
    }
    // Also a gateway of before finds it there, and it stands nowhere else.
    let before = desk.found(&desk.before("/orders/{id}")).await;
    assert!(matches!(before, Found::Done(_)), "{before:?}");
    let name = desk.claiming(1).name(&keyed("/orders/{id}")).expect("a name");
    assert_eq!(desk.found(&name).await, Found::Absent);
}

/// Taken over by a gateway of today: the one of before is nobody's any more.
#[tokio::test]
async fn who_took_over_has_its_answer_under_its_own_name() {
    let desk = Desk::new();
    desk.recorded_before("/orders/{id}", false).await;
    desk.clock.set(START_US + u64::from(LOCK_MS) * 1_000);
    let claims = desk.store.claims().expect("it keeps claims");
    let before = desk.before("/orders/{id}");
    let other = desk.claiming(9).claim(&call("/orders/{id}", true));
    claims.begin(&before, &other).await.expect("taken over");
    let name = desk.claiming(1).name(&keyed("/orders/{id}")).expect("a name");
    let own = desk.claiming(1).claim(&call("/orders/{id}", true));
    claims.begin(&name, &own).await.expect("claimed");
    assert_eq!(desk.finishes(1, complete()).await, Finished::Stored);
    let found = desk.found(&name).await;
    assert!(matches!(found, Found::Done(_)), "{found:?}");
}
