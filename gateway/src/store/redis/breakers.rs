//! Owns the scripts of breakers as the gateway calls them: their arguments and what their replies mean.
//! Knows neither who reports nor connections.

use std::sync::{Arc, Mutex, PoisonError};

use redis::{Cmd, Script, Value};
use tidegate_policy::breaker::mesh::{
    Cause, Ended, Event, Order, Said, State, Transition, Usual, Window,
};
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::breaker::BreakerName;

use super::RedisStore;
use super::script::integers;
use crate::store::breakers::{Breakers, TOLD_MAX, is_noted, key, list_key};
use crate::store::{Call, StoreFailure};

/// The scripts themselves; their headers list KEYS, ARGV and returns.
pub const TEXTS: [&str; 2] =
    [include_str!("../../../../lua/cb_step.lua"), include_str!("../../../../lua/cb_note.lua")];
/// How long a region's list is kept after the last change, or after a gateway last saw to it while it was read, in ms:
/// longer than the longest order that has an end.
pub const LIST_LIFE_MS: u64 = 31 * 86_400_000;
/// A gateway sees to it that often, in µs.
const RENEWED_US: u64 = 3_600_000_000;
/// What an order was not carried out by.
const UNLISTED: &str =
    "the list of changes, from which Envoys that do not report on the breaker hear of it";
/// A script then takes the server's own TIME. Only tests of the scripts give another.
const SERVER_TIME: u64 = 0;
const REPLY_HEAD_LEN: usize = 17;

/// The scripts by their SHAs.
#[derive(Debug, Clone)]
pub(crate) struct BreakerScripts {
    step: String,
    note: String,
}

/// Which list this gateway saw to last, and when, in µs of its clock's own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Renewed(Arc<Mutex<Option<(String, u64)>>>);

// === impl Renewed ===

impl Renewed {
    /// Whether the list has to be kept for longer now.
    fn renews(&self, list: &str, now_us: u64) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = last
            .as_ref()
            .is_some_and(|(of, at_us)| of == list && now_us.saturating_sub(*at_us) < RENEWED_US);
        if !is_fresh {
            *last = Some((list.to_owned(), now_us));
        }
        !is_fresh
    }
}

// === impl BreakerScripts ===

impl BreakerScripts {
    /// Computes the SHAs.
    pub fn new() -> Self {
        let [step, note] = TEXTS.map(|text| Script::new(text).get_hash().to_owned());
        Self { step, note }
    }

    fn step(&self, key: &str, event: &Event<'_>) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.step).arg(1).arg(key);
        arguments(&mut command, SERVER_TIME, event);
        command
    }

    fn note(&self, list: &str, name: &BreakerName) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.note).arg(1).arg(list);
        command.arg(name.as_str()).arg(TOLD_MAX).arg(LIST_LIFE_MS).arg(SERVER_TIME);
        command
    }
}

/// What stands behind the keys of cb_step.
pub fn arguments(command: &mut Cmd, now_ms: u64, event: &Event<'_>) {
    match event {
        Event::Look => {
            command.arg(now_ms).arg(0).arg(0);
        }
        Event::Sync { terms, holder, seq, batch, entropy } => {
            let (ms, calls) = match terms.window {
                Window::Ms(ms) => (ms, 0),
                Window::Calls(calls) => (0, calls),
            };
            command.arg(now_ms).arg(1).arg(entropy).arg(ms).arg(calls);
            command.arg(terms.min_calls).arg(terms.failure_permille).arg(terms.slow_permille);
            command.arg(terms.open_ms).arg(terms.backoff).arg(terms.successes).arg(terms.probe_ms);
            command.arg(terms.trip_reporters).arg(holder.as_slice()).arg(seq);
            command.arg(batch.epoch).arg(batch.calls).arg(batch.failures).arg(batch.slow);
            command.arg(u8::from(batch.tripped));
            let (id, ended) = batch.probe.map_or((0, 0), |probe| {
                let ended = match probe.ended {
                    Ended::Ok => 1,
                    Ended::Failed => 2,
                    Ended::GivenBack => 3,
                };
                (probe.id, ended)
            });
            command.arg(id).arg(ended).arg(u8::from(batch.ask));
            let (min, over_ms) =
                terms.adaptive.map_or((0, 0), |adaptive| (adaptive.min_permille, adaptive.over_ms));
            command.arg(min).arg(over_ms);
        }
        Event::Order { order, for_ms, entropy } => {
            let number = match order {
                Order::Trip => 1,
                Order::Reset => 2,
                Order::ForceOpen => 3,
                Order::Disable => 4,
                Order::MetricsOnly => 5,
            };
            command.arg(now_ms).arg(2).arg(entropy).arg(number).arg(for_ms);
        }
    }
}

/// What a reply of cb_step says, or `None` if it is none that it gives.
pub fn said(reply: &Value) -> Option<Said> {
    let numbers = integers(reply)?;
    let (head, changes) = numbers.split_at_checked(REPLY_HEAD_LEN)?;
    let [
        state_number,
        epoch,
        wait_ms,
        healed_ms,
        counted,
        settled,
        permit,
        permit_ms,
        would,
        calls,
        failures,
        slow,
        trips,
        successes,
        fresh,
        usual_calls,
        usual_failures,
    ] = head.try_into().ok()?;
    let whole = |number: i64| u64::try_from(number).ok();
    let optional = |number: i64| if number == -1 { Some(None) } else { whole(number).map(Some) };
    let flag =
        |number: i64| [(0, false), (1, true)].iter().find(|row| row.0 == number).map(|row| row.1);
    let mut transitions = Vec::new();
    for change in changes.chunks(4) {
        let [from, to, why, after_ms] = change else { return None };
        let (from, to, cause) = (state(*from)?, state(*to)?, cause(*why)?);
        let change = Transition { from, to, cause, after_ms: whole(*after_ms)? };
        transitions.push(change);
    }
    Some(Said {
        state: state(state_number)?,
        epoch: whole(epoch)?,
        wait_ms: optional(wait_ms)?,
        healed_ms: optional(healed_ms)?,
        counted: flag(counted)?,
        settled: flag(settled)?,
        permit: if permit == 0 { None } else { Some((whole(permit)?, whole(permit_ms)?)) },
        transitions,
        would_open: if would == 0 { None } else { Some(cause(would)?) },
        window: (whole(calls)?, whole(failures)?, whole(slow)?),
        trips: u8::try_from(trips).ok()?,
        successes: u8::try_from(successes).ok()?,
        fresh: flag(fresh)?,
        usual: Usual { calls: whole(usual_calls)?, failures: whole(usual_failures)? },
    })
}

fn state(number: i64) -> Option<State> {
    State::ALL.get(usize::try_from(number).ok()?).copied()
}

fn cause(number: i64) -> Option<Cause> {
    Cause::ALL.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

fn listed(reply: &Value) -> Option<Vec<(BreakerName, u64)>> {
    let rows: Vec<(String, u64)> = redis::from_redis_value_ref(reply).ok()?;
    rows.into_iter().map(|(name, epoch)| Some((BreakerName::new(&name)?, epoch))).collect()
}

fn garbled(what: &str, reply: &Value) -> StoreFailure {
    StoreFailure::Garbled(format!("{what}: {reply:?}"))
}

impl Breakers for RedisStore {
    fn step(&self, scope: &Scope, name: &BreakerName, event: &Event<'_>) -> Call<Said> {
        let (key, list, name) = (key(scope, name), list_key(scope), name.clone());
        let command = self.scripts.breakers().step(&key, event);
        let (looks, orders) = (matches!(event, Event::Look), matches!(event, Event::Order { .. }));
        let (servers, scripts) = (self.servers.clone(), self.scripts.clone());
        Box::pin(async move {
            let reply = servers.evaluate(&key, &command, &scripts).await?;
            let said = said(&reply).ok_or_else(|| garbled("cb_step", &reply))?;
            if is_noted(&said, looks) {
                let note = scripts.breakers().note(&list, &name);
                if let Err(failure) = servers.evaluate(&list, &note, &scripts).await {
                    tracing::warn!(%failure, "a breaker's change could not be listed");
                    // The change itself is made, and who reports on the breaker hears of it in any case. An order is for
                    // those as well who do not; that on the bare name of many nobody reports on.
                    if orders {
                        return Err(StoreFailure::Partly(UNLISTED.to_owned()));
                    }
                }
            }
            Ok(said)
        })
    }

    fn changed(&self, scope: &Scope, since: u64) -> Call<Vec<(BreakerName, u64)>> {
        let list = list_key(scope);
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(&list).arg(since).arg("+inf").arg("WITHSCORES");
        let (servers, scripts) = (self.servers.clone(), self.scripts.clone());
        let renews = self.listed.renews(&list, self.clock.elapsed_us());
        Box::pin(async move {
            let reply = servers.evaluate(&list, &command, &scripts).await?;
            if renews {
                let mut renewal = redis::cmd("PEXPIRE");
                renewal.arg(&list).arg(LIST_LIFE_MS);
                if let Err(failure) = servers.evaluate(&list, &renewal, &scripts).await {
                    tracing::warn!(%failure, "the list of breakers is not kept for longer");
                }
            }
            listed(&reply).ok_or_else(|| garbled("a region's breakers", &reply))
        })
    }
}
