//! Owns what operators see of breakers and order them: bodies and answers. Knows no tokens.

use serde::{Deserialize, Serialize};
use tidegate_policy::breaker::mesh::{Event, Order, Said};
use tidegate_policy::wire::{self, breaker::BreakerName};

use super::operate::{Done, bad, done};
use crate::service::ServiceSettings;
use crate::service::breakers::{Seen, entropy, region_scope};
use crate::store::breakers::Breakers;
use crate::store::{StoreFailure, StoreRole, Stores};

/// The most that a list shows; those that did not change for longest are left out.
const LISTED_MAX: usize = 1_000;
/// The longest time that an order may be for.
const FOR_S_MAX: u64 = 30 * 86_400;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderBody {
    breaker: BreakerName,
    order: Order,
    /// 0 or absent = without end; of a trip: the usual time.
    #[serde(default)]
    for_s: u64,
}

#[derive(Serialize)]
struct Shown<'a> {
    breaker: &'a str,
    state: &'static str,
    epoch: u64,
    /// Open: ms until a test is due. Half open: until the test that is out is lost. An operator's
    /// state: until its end.
    wait_ms: Option<u64>,
    calls: u64,
    failures: u64,
    slow: u64,
    /// Of an adaptive one, once it has learnt enough: failures of 10,000 calls that are usual, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    usual_of_10000: Option<u64>,
    /// How often it opened since it was last closed.
    trips: u8,
    /// Good tests in a row.
    successes: u8,
}

fn shown<'a>(name: &'a BreakerName, said: &Said) -> Shown<'a> {
    let (calls, failures, slow) = said.window;
    Shown {
        breaker: name.as_str(),
        state: said.state.as_str(),
        epoch: said.epoch,
        wait_ms: said.wait_ms,
        calls,
        failures,
        slow,
        usual_of_10000: said.usual.share(),
        trips: said.trips,
        successes: said.successes,
    }
}

fn kept(stores: &Stores) -> Result<&dyn Breakers, StoreFailure> {
    let store = stores.of(StoreRole::Regional);
    store.breakers().ok_or_else(|| StoreFailure::Refused("this store keeps no breakers".to_owned()))
}

fn text<T: Serialize>(value: &T) -> String {
    String::from_utf8_lossy(&wire::encode(value)).into_owned()
}

/// Every breaker that the region knows.
pub async fn list(settings: &ServiceSettings, stores: &Stores) -> Done {
    let listed = async {
        let (breakers, scope) = (kept(stores)?, region_scope(settings));
        let mut rows = Vec::new();
        for (name, _) in breakers.changed(&scope, 0).await?.into_iter().rev().take(LISTED_MAX) {
            let said = breakers.step(&scope, &name, &Event::Look).await?;
            if !said.fresh {
                rows.push((name, said));
            }
        }
        let rows: Vec<Shown<'_>> = rows.iter().map(|(name, said)| shown(name, said)).collect();
        Ok(text(&rows))
    };
    done("the breakers".to_owned(), listed.await)
}

/// Carries out an order.
pub async fn order(body: &[u8], settings: &ServiceSettings, stores: &Stores, seen: &Seen) -> Done {
    const SHAPE: &str = r#"send {"breaker": "name", "order": "trip", "for_s": 600}; order is trip, reset, force_open, disable or metrics_only, for_s 0 to 2592000 (0: without end)"#;
    let OrderBody { breaker, order, for_s } = match serde_json::from_slice(body) {
        Ok(asked) => asked,
        Err(error) => return bad("breaker", &format!("{error}: {SHAPE}")),
    };
    if for_s > FOR_S_MAX {
        return bad("breaker", &format!("for_s is {for_s}: {SHAPE}"));
    }
    if order == Order::Reset && for_s > 0 {
        return bad("breaker", "a reset is for no time: leave for_s out");
    }
    // Whom a breaker is for may be personal data: its configured name tells enough.
    let detail = format!("breaker {} {}: for {for_s} s", breaker.configured(), word(order));
    let carried = async {
        let event = Event::Order { order, for_ms: for_s * 1_000, entropy: entropy() };
        let scope = region_scope(settings);
        let said = kept(stores)?.step(&scope, &breaker, &event).await?;
        seen.note(&breaker, None, &said);
        Ok(text(&shown(&breaker, &said)))
    };
    done(detail, carried.await)
}

fn word(order: Order) -> &'static str {
    match order {
        Order::Trip => "trip",
        Order::Reset => "reset",
        Order::ForceOpen => "force_open",
        Order::Disable => "disable",
        Order::MetricsOnly => "metrics_only",
    }
}
