//! Owns what the service remembers of its decisions, within bounds: the limits it was asked about,
//! and the hottest keys. Knows no store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tidegate_policy::gcra::Quota;
use tidegate_policy::limit::Algorithm;
use tidegate_policy::scope::Tenant;
use tidegate_policy::wire::{DecideReply, DecideRequest, LimitCall, LimitState};

use crate::clock::Clock;
use crate::metrics::{LimitLabel, SharedMetrics};

/// Limits beyond that many are counted together, as [`OTHERS`], and not remembered.
const LIMITS_MAX: usize = 1_024;
/// The label of all further limits.
pub const OTHERS: &str = "others";
/// Keys that are counted; what is shown are the first [`HOT_SHOWN`] of them.
const HOT_HELD: usize = 256;
const HOT_SHOWN: usize = 32;
/// Counts are of the minute under way and of the one before.
const MINUTE_US: u64 = 60_000_000;
/// At most that share of a limit is left, of a request that was admitted: a tenth.
const NEAR: u64 = 10;

/// What is remembered.
pub struct Observed {
    clock: Arc<dyn Clock>,
    metrics: SharedMetrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    limits: HashMap<String, (Quota, Algorithm)>,
    now: HashMap<Key, Heat>,
    before: HashMap<Key, Heat>,
    minute: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    tenant: String,
    kind: &'static str,
    subject: String,
    limit: String,
}

/// How often a key was asked about; space-saving, so `asked` is too high by `doubt` at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Heat {
    asked: u64,
    denied: u64,
    doubt: u64,
}

/// One of the hottest keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hot {
    /// Empty if the request had none.
    pub tenant: String,
    /// The subject's kind.
    pub kind: &'static str,
    /// The subject, as it stands in keys.
    pub subject: String,
    /// `policy.limit`.
    pub limit: String,
    /// Requests in this minute and the one before.
    pub asked: u64,
    /// Those that this limit did not admit.
    pub denied: u64,
    /// At most by that much `asked` is too high.
    pub doubt: u64,
}

// === impl Observed ===

impl Observed {
    /// Nothing was seen yet.
    pub fn new(clock: Arc<dyn Clock>, metrics: SharedMetrics) -> Self {
        Self { clock, metrics, state: Mutex::default() }
    }

    /// Takes a decision in.
    pub fn note(&self, message: &DecideRequest, reply: &DecideReply) {
        let minute = self.clock.elapsed_us() / MINUTE_US;
        let mut state = self.lock();
        state.turn(minute);
        for (call, said) in message.limits.iter().zip(&reply.limits) {
            let limit = if state.learn(call) { call.id.clone() } else { OTHERS.to_owned() };
            let label = LimitLabel { limit, outcome: outcome(call, said) };
            self.metrics.limits.get_or_create(&label).inc();
            let tenant = match &message.scope.tenant {
                Tenant::Named(name) => name.as_str().to_owned(),
                Tenant::None => String::new(),
            };
            let (kind, subject) = (call.subject.kind.as_str(), call.subject.name.as_str());
            let (subject, limit) = (subject.to_owned(), call.id.clone());
            state.heat(Key { tenant, kind, subject, limit }, !said.allowed);
        }
    }

    /// The numbers that a limit was last asked about with.
    pub fn limit(&self, id: &str) -> Option<(Quota, Algorithm)> {
        self.lock().limits.get(id).copied()
    }

    /// The hottest keys, the hottest first.
    pub fn hottest(&self) -> Vec<Hot> {
        let mut state = self.lock();
        state.turn(self.clock.elapsed_us() / MINUTE_US);
        let mut sums = state.before.clone();
        for (key, heat) in &state.now {
            let sum = sums.entry(key.clone()).or_default();
            sum.asked += heat.asked;
            sum.denied += heat.denied;
            sum.doubt += heat.doubt;
        }
        drop(state);
        let mut hot: Vec<Hot> = sums
            .into_iter()
            .map(|(Key { tenant, kind, subject, limit }, Heat { asked, denied, doubt })| Hot {
                tenant,
                kind,
                subject,
                limit,
                asked,
                denied,
                doubt,
            })
            .collect();
        hot.sort_by(|a, b| b.asked.cmp(&a.asked).then_with(|| a.subject.cmp(&b.subject)));
        hot.truncate(HOT_SHOWN);
        hot
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outcome(call: &LimitCall, said: &LimitState) -> &'static str {
    let near = said.remaining.saturating_mul(NEAR) <= u64::from(call.burst);
    match (call.shadow, said.allowed, near) {
        (false, false, _) => "denied",
        (true, false, _) => "shadow-denied",
        (_, true, true) => "near",
        (_, true, false) => "allowed",
    }
}

// === impl State ===

impl State {
    fn turn(&mut self, minute: u64) {
        match minute.saturating_sub(self.minute) {
            0 => return,
            1 => self.before = std::mem::take(&mut self.now),
            _ => {
                self.before.clear();
                self.now.clear();
            }
        }
        self.minute = minute;
    }

    /// Whether the limit is among those that are remembered.
    fn learn(&mut self, call: &LimitCall) -> bool {
        let Ok(quota) = call.quota() else { return false };
        if let Some(known) = self.limits.get_mut(&call.id) {
            *known = (quota, call.algorithm);
            return true;
        }
        let room = self.limits.len() < LIMITS_MAX;
        if room {
            self.limits.insert(call.id.clone(), (quota, call.algorithm));
        }
        room
    }

    /// Space-saving: a key that is new where all places are taken takes the coldest one's, count and
    /// all.
    fn heat(&mut self, key: Key, denied: bool) {
        if !self.now.contains_key(&key) && self.now.len() >= HOT_HELD {
            let coldest = self.now.iter().min_by_key(|(_, heat)| heat.asked);
            if let Some((cold, heat)) = coldest.map(|(key, heat)| (key.clone(), heat.asked)) {
                self.now.remove(&cold);
                self.now.insert(key.clone(), Heat { asked: heat, denied: 0, doubt: heat });
            }
        }
        let heat = self.now.entry(key).or_default();
        heat.asked += 1;
        heat.denied += u64::from(denied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::metrics::Metrics;
    use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};
    use tidegate_policy::scope::{CallerScope, Environment, KeyFormat};
    use tidegate_policy::wire::{DecisionId, VERSION, Verdict};

    fn one(
        subject: &str,
        limit: &str,
        remaining: u64,
        allowed: bool,
    ) -> (DecideRequest, DecideReply) {
        let subject =
            Subject { kind: SubjectKind::Ip, name: SubjectName::from_bytes(subject.as_bytes()) };
        let scope = CallerScope {
            region: None,
            environment: Environment::default(),
            tenant: Tenant::None,
            key_format: KeyFormat::V1,
        };
        let call = LimitCall {
            id: limit.to_owned(),
            subject,
            limit: 100,
            period_us: 60_000_000,
            burst: 100,
            algorithm: Algorithm::Gcra,
            cost: 1,
            shadow: false,
        };
        let state = LimitState {
            id: limit.to_owned(),
            allowed,
            remaining,
            next_us: 0,
            reset_us: 0,
            retry_us: Some(0),
            limit: None,
        };
        let id = DecisionId::new(1);
        let request = DecideRequest {
            v: VERSION,
            id,
            scope,
            timeout_ms: 45,
            traceparent: None,
            request_id: None,
            limits: vec![call],
            claim: None,
        };
        let verdict = if allowed { Verdict::Allow } else { Verdict::Deny };
        let limits = vec![state];
        (request, DecideReply { v: VERSION, id, verdict, limits, claim: None, octets: Vec::new() })
    }

    fn observed() -> (Observed, SharedMetrics) {
        let metrics = Arc::new(Metrics::new());
        (Observed::new(Arc::new(ManualClock::at(0)), Arc::clone(&metrics)), metrics)
    }

    #[tokio::test(start_paused = true)]
    async fn the_hottest_key_is_found_among_more_than_are_held() {
        let (observed, _) = observed();
        for turn in 0..2_000 {
            let cold = format!("cold-{turn}");
            for (name, allowed) in [(cold.as_str(), true), ("hot", turn % 4 == 0)] {
                let (request, reply) = one(name, "p.l", 50, allowed);
                observed.note(&request, &reply);
            }
        }
        let hottest = observed.hottest();
        assert_eq!(hottest.len(), HOT_SHOWN);
        let first = hottest.first().expect("some");
        assert_eq!((first.subject.as_str(), first.asked, first.denied), ("hot", 2_000, 1_500));
        assert!(observed.lock().now.len() <= HOT_HELD);
        tokio::time::advance(std::time::Duration::from_secs(180)).await;
        assert_eq!(observed.hottest(), [], "of the last minutes only");
    }

    #[tokio::test(start_paused = true)]
    async fn limits_are_counted_by_outcome_and_are_bounded() {
        let (observed, metrics) = observed();
        for (remaining, allowed) in [(50, true), (10, true), (0, false)] {
            let (request, reply) = one("a", "p.l", remaining, allowed);
            observed.note(&request, &reply);
        }
        for n in 0..2_000 {
            let (request, reply) = one("a", &format!("p.l{n}"), 50, true);
            observed.note(&request, &reply);
        }
        let count = |limit: &str, outcome| {
            let label = LimitLabel { limit: limit.to_owned(), outcome };
            metrics.limits.get_or_create(&label).get()
        };
        for outcome in ["allowed", "near", "denied"] {
            assert_eq!(count("p.l", outcome), 1, "{outcome}");
        }
        assert_eq!(count(OTHERS, "allowed"), 2_001 - 1_024);
        assert!(observed.limit("p.l").is_some() && observed.limit("p.l1999").is_none());
    }
}
