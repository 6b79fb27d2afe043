//! Tests of orders for a record that lies under two names: as gateways of before wrote it, and as those of today do.

use std::sync::Arc;

use tidegate_policy::idempotency::fingerprint::RequestHash;
use tidegate_policy::idempotency::record::{Begun, Claim, Completed, Extended, Fence, Held, Owner};
use tidegate_policy::idempotency::stored::StoredAnswer;
use tidegate_policy::scope::Environment;
use tidegate_policy::wire::DecisionId;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::store::claims::{Completion, Spread};
use crate::store::memory::MemoryStore;
use crate::store::{Call, Store, StoreCounters};

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
    Asked { order, name, before, tenant, endpoint, key: SubjectName::from_bytes(b"k") }
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

/// Claims whose changes under one name fail.
struct Failing<'a> {
    claims: &'a dyn Claims,
    at: &'a RecordName,
}

impl Failing<'_> {
    fn unless<T: Send + 'static>(&self, name: &RecordName, call: Call<T>) -> Call<T> {
        match name == self.at {
            true => Box::pin(std::future::ready(Err(StoreFailure::Crowded))),
            false => call,
        }
    }
}

impl Claims for Failing<'_> {
    fn forgets(&self) -> bool {
        self.claims.forgets()
    }

    fn begin(&self, name: &RecordName, claim: &Claim) -> Call<Begun> {
        self.claims.begin(name, claim)
    }

    fn replicated(&self, name: &RecordName, claim: &Claim, fence: Fence, by: Spread) -> Call<u8> {
        self.claims.replicated(name, claim, fence, by)
    }

    fn lookup(&self, name: &RecordName, hash: Option<&RequestHash>, by: Writer) -> Call<Found> {
        self.claims.lookup(name, hash, by)
    }

    fn complete(&self, name: &RecordName, completion: &Completion<'_>) -> Call<Completed> {
        self.claims.complete(name, completion)
    }

    fn abandon(&self, name: &RecordName, held: Held, keep_ms: u64) -> Call<Abandoned> {
        self.unless(name, self.claims.abandon(name, held, keep_ms))
    }

    fn extend(&self, name: &RecordName, held: Held, lock_us: u64, ttl_ms: u64) -> Call<Extended> {
        self.claims.extend(name, held, lock_us, ttl_ms)
    }

    fn holder(&self, name: &RecordName) -> Call<Option<Held>> {
        self.claims.holder(name)
    }

    fn delete(&self, name: &RecordName) -> Call<bool> {
        self.unless(name, self.claims.delete(name))
    }
}

/// An order that was carried out under one name, and failed under the other, is not one that was not carried out.
#[tokio::test]
async fn an_order_that_was_half_done_says_so() {
    let asked = asked(Order::Look);
    let before = asked.before.as_ref().expect("words");
    for order in [Order::Release, Order::Delete] {
        for (fails_at, half) in [(before, true), (&asked.name, false)] {
            let store = store(Lies::Dead, Lies::Live).await;
            let claims = Failing { claims: store.claims().expect("it keeps claims"), at: fails_at };
            let undone = self::asked(order).carry_out(&claims).await.expect_err("one fails");
            assert_eq!(matches!(undone, Undone::Part(1, 2, _)), half, "{order:?}: {undone:?}");
            assert_eq!(matches!(undone, Undone::Itself(_)), !half, "{order:?}: {undone:?}");
        }
    }
}
