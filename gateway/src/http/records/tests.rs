//! Tests of orders for a record that lies under two names: as gateways of before wrote it, and as those of today do.

use std::sync::Arc;

use tidegate_policy::idempotency::fingerprint::RequestHash;
use tidegate_policy::idempotency::record::{Claim, Held, Owner};
use tidegate_policy::idempotency::stored::StoredAnswer;
use tidegate_policy::scope::Environment;
use tidegate_policy::wire::DecisionId;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::store::claims::Completion;
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreCounters};

const START_US: u64 = 1_800_000_000_000_000;
const LOCK_US: u64 = 15_000_000;

/// What lies under a name.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lies {
    Nothing,
    /// Claimed, and its lock has ended.
    Dead,
    /// Claimed.
    Live,
    Done,
}

fn asked(order: Order) -> Asked {
    let tenant = TenantId::new("acme").expect("a tenant");
    let endpoint = Endpoint::of(b"POST", b"/orders/7", Some("/orders/{id}")).expect("an endpoint");
    let key = IdempotencyKey::new("k").expect("a key");
    let environment = Environment::default();
    let name = RecordName::of(&environment, &tenant, &endpoint, &key);
    let before = RecordName::with_words(&environment, &tenant, &endpoint, &key);
    Asked { order, name, before, tenant, endpoint, digest: String::new() }
}

async fn lay(claims: &dyn Claims, name: &RecordName, lies: Lies, owner: u128) {
    if lies == Lies::Nothing {
        return;
    }
    let (owner, hash) = (Owner::from(DecisionId::new(owner)), RequestHash::from_bytes([7; 32]));
    let claim = Claim { owner, hash, lock_us: LOCK_US, ttl_ms: TTL_MS, takeover: false };
    claims.begin(name, &claim).await.expect("claimed");
    if lies == Lies::Done {
        let (held, answer) =
            (Held { owner, fence: 1 }, StoredAnswer { status: 201, ..StoredAnswer::default() });
        let completion = Completion { held, hash, answer: &answer, ttl_ms: TTL_MS };
        claims.complete(name, &completion).await.expect("stored");
    }
}

/// A store in which that lies under the name of before and that of today.
async fn store(before: Lies, today: Lies) -> Arc<dyn Store> {
    let clock = Arc::new(ManualClock::at(START_US));
    let shared: Arc<dyn Clock> = clock.clone();
    let store = MemoryStore::new(shared, 100, StoreCounters::default());
    let (claims, asked) = (store.claims().expect("it keeps claims"), asked(Order::Look));
    let both = [(asked.before.as_ref().expect("words"), before, 1), (&asked.name, today, 2)];
    for (name, lies, owner) in both {
        if lies == Lies::Dead {
            lay(claims, name, lies, owner).await;
        }
    }
    clock.set(START_US + LOCK_US);
    for (name, lies, owner) in both {
        if lies != Lies::Dead {
            lay(claims, name, lies, owner).await;
        }
    }
    Arc::new(store)
}

async fn shown(order: Order, store: &Arc<dyn Store>) -> (&'static str, &'static str) {
    let claims = store.claims().expect("it keeps claims");
    let shown = asked(order).carry_out(claims).await.expect("the store answers");
    (shown.order.unwrap_or("looked up"), shown.state)
}

#[tokio::test]
async fn an_operator_meets_of_both_names_what_a_retry_meets() {
    use Lies::{Dead, Done, Live, Nothing};
    const RELEASED: (&str, &str) = ("released", "absent");
    const KEPT: (&str, &str) = ("nothing: no claim is without an answer", "done");
    for (before, today, state, released) in [
        (Nothing, Live, "in_flight", RELEASED),
        (Live, Nothing, "in_flight", RELEASED),
        (Dead, Nothing, "unknown", RELEASED),
        (Done, Nothing, "done", KEPT),
        // Claimed through one of before, and its answer came through one of today.
        (Live, Done, "done", KEPT),
        (Dead, Done, "done", KEPT),
        // Taken over through one of today.
        (Dead, Live, "in_flight", RELEASED),
        (Dead, Dead, "unknown", RELEASED),
    ] {
        let store = store(before, today).await;
        let looked = shown(Order::Look, &store).await;
        assert_eq!(looked, ("looked up", state), "{before:?} {today:?}");
        assert_eq!(shown(Order::Release, &store).await, released, "{before:?} {today:?}");
        let (said, left) = (shown(Order::Delete, &store).await, shown(Order::Delete, &store).await);
        assert_eq!(said, ("deleted", "absent"), "{before:?} {today:?}");
        assert_eq!(left, ("nothing: there was none", "absent"), "{before:?} {today:?}");
    }
}
