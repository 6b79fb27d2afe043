//! Owns what operators see of breakers and order them: bodies and answers. Knows no tokens.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_policy::breaker::mesh::{Event, Order, Said, State};
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::breaker::BreakerName;

use super::operate::{Done, Undone, bad, text};
use crate::service::ServiceSettings;
use crate::service::breakers::{Seen, entropy, region_scope};
use crate::service::together::together;
use crate::store::breakers::Breakers;
use crate::store::{Store, StoreFailure, StoreRole, Stores};

/// The most that a list shows; those that did not change for longest are left out.
const LISTED_MAX: usize = 1_000;
/// The longest time that an order may be for.
const FOR_S_MAX: u64 = 30 * 86_400;

/// An operator's order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
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

/// A breaker in a list.
#[derive(Serialize)]
#[serde(untagged)]
enum Row<'a> {
    Shown(Shown<'a>),
    /// Its record could not be read, for this reason.
    Unread {
        breaker: &'a str,
        unread: &'static str,
    },
}

/// What became of an order.
#[derive(Serialize)]
struct Ordered<'a> {
    /// Whether the region knew a breaker of that name before: if not, no filter has reported it yet, or it is another's
    /// spelling.
    known: bool,
    #[serde(flatten)]
    shown: Shown<'a>,
}

/// What became of an order to all of many.
#[derive(Serialize)]
struct ForAll<'a> {
    breaker: &'a str,
    known: bool,
    order: &'static str,
    /// How many of them it changed.
    changed: usize,
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

fn kept(store: &Arc<dyn Store>) -> Result<&dyn Breakers, StoreFailure> {
    store.breakers().ok_or_else(|| StoreFailure::Refused("this store keeps no breakers".to_owned()))
}

/// Every breaker that the region knows. One that cannot be read keeps none of the others from being shown.
pub async fn list(settings: &ServiceSettings, stores: &Stores) -> Result<String, Undone> {
    let store = stores.for_one_message(StoreRole::Regional);
    let (breakers, scope) = (kept(&store)?, region_scope(settings));
    let known = breakers.changed(&scope, 0).await?.into_iter().rev().take(LISTED_MAX);
    let names: Vec<BreakerName> = known.map(|(name, _)| name).collect();
    let looks = names.iter().map(|name| breakers.step(&scope, name, &Event::Look));
    let looks = together(looks.collect()).await;
    let rows = names.iter().zip(&looks).filter_map(|(name, said)| match said {
        Ok(said) => (!said.fresh).then(|| Row::Shown(shown(name, said))),
        Err(failure) => {
            Some(Row::Unread { breaker: name.as_str(), unread: failure.reason().as_str() })
        }
    });
    Ok(text(&rows.collect::<Vec<_>>()))
}

// === impl Asked ===

impl Asked {
    /// Reads one; how it ended if that cannot be.
    pub fn read(body: &[u8]) -> Result<Self, Box<Done>> {
        const SHAPE: &str = r#"send {"breaker": "name", "order": "trip", "for_s": 600}; order is trip, reset, force_open, disable or metrics_only, for_s 0 to 2592000 (0: without end)"#;
        let asked: Self = serde_json::from_slice(body)
            .map_err(|error| bad("breaker", &format!("{error}: {SHAPE}")))?;
        let Self { order, for_s, .. } = asked;
        if for_s > FOR_S_MAX {
            return Err(bad("breaker", &format!("for_s is {for_s}: {SHAPE}")));
        }
        if order == Order::Reset && for_s > 0 {
            return Err(bad("breaker", "a reset is for no time: leave for_s out"));
        }
        Ok(asked)
    }

    /// What the audit trail says of it. Whom a breaker is for may be personal data: its configured name tells enough.
    pub fn detail(&self) -> String {
        let Self { breaker, order, for_s } = self;
        format!("breaker {} {}: for {for_s} s", breaker.configured(), word(*order))
    }

    /// Carries it out.
    pub async fn run(
        &self,
        settings: &ServiceSettings,
        stores: &Stores,
        seen: &Seen,
    ) -> Result<String, Undone> {
        let (scope, for_ms) = (&region_scope(settings), self.for_s * 1_000);
        let to = Addressed { order: self.order, for_ms, scope, seen };
        let store = stores.for_one_message(StoreRole::Regional);
        to.carry_out(kept(&store)?, &self.breaker).await
    }
}

/// An order on its way.
struct Addressed<'a> {
    order: Order,
    for_ms: u64,
    scope: &'a Scope,
    seen: &'a Seen,
}

// === impl Addressed ===

impl Addressed<'_> {
    /// On the bare name of one that is for each of many it is for all of them: what is in force for a time stands in
    /// the bare name's own record, to which filters keep beside what they know of each, so that it is for those who
    /// come later, too. A trip or a reset is done once, to each that the region knows.
    async fn carry_out(
        &self,
        breakers: &dyn Breakers,
        name: &BreakerName,
    ) -> Result<String, Undone> {
        let mut members = Vec::new();
        if name.whose().is_none() {
            let known = breakers.changed(self.scope, 0).await.map_err(Undone::Before)?;
            let known = known.into_iter().map(|(name, _)| name);
            members.extend(
                known.filter(|one| one.whose().is_some() && one.configured() == name.as_str()),
            );
        }
        let known = match members.is_empty() {
            true => {
                let said = breakers.step(self.scope, name, &Event::Look).await;
                !said.map_err(Undone::Before)?.fresh
            }
            false => true,
        };
        let at_once = matches!(self.order, Order::Trip | Order::Reset);
        if !at_once {
            members.clear();
        }
        let (changed, failed) = self.each(breakers, &members).await;
        failed.map_err(|failure| Undone::Part(changed, members.len(), failure))?;
        let for_all = ForAll { breaker: name.as_str(), known, order: word(self.order), changed };
        if self.order == Order::Trip && !members.is_empty() {
            return Ok(text(&for_all));
        }
        let said = breakers.step(self.scope, name, &self.event()).await;
        let said = said.map_err(|failure| match members.len() {
            0 => Undone::Itself(failure),
            all => Undone::Part(changed, all.saturating_add(1), failure),
        })?;
        self.seen.note(name, None, &said);
        match members.is_empty() {
            true => Ok(text(&Ordered { known, shown: shown(name, &said) })),
            false => Ok(text(&for_all)),
        }
    }

    /// How many of these changed. A reset leaves alone what is closed. Each is tried, and the first failure told beside.
    async fn each(
        &self,
        breakers: &dyn Breakers,
        names: &[BreakerName],
    ) -> (usize, Result<(), StoreFailure>) {
        let (mut changed, mut failed) = (0_usize, Ok(()));
        let looks = names.iter().map(|name| breakers.step(self.scope, name, &Event::Look));
        let mut meant = Vec::new();
        for (name, said) in names.iter().zip(together(looks.collect()).await) {
            let stays = |said: &Said| self.order == Order::Reset && said.state == State::Closed;
            match said {
                Ok(said) if said.fresh || stays(&said) => {}
                Ok(_) => meant.push(name),
                Err(failure) => failed = failed.and(Err(failure)),
            }
        }
        let steps = meant.iter().map(|name| breakers.step(self.scope, name, &self.event()));
        for (name, said) in meant.iter().zip(together(steps.collect()).await) {
            match said {
                Ok(said) => {
                    self.seen.note(name, None, &said);
                    changed = changed.saturating_add(1);
                }
                Err(failure) => failed = failed.and(Err(failure)),
            }
        }
        (changed, failed)
    }

    fn event(&self) -> Event<'static> {
        Event::Order { order: self.order, for_ms: self.for_ms, entropy: entropy() }
    }
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
