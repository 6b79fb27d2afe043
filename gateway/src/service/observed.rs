//! Owns what the service remembers of its decisions, within bounds: the limits it was asked about,
//! and the hottest keys. Knows no store.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tidegate_policy::gcra::Quota;
use tidegate_policy::limit::Algorithm;
use tidegate_policy::scope::Tenant;
use tidegate_policy::wire::{DecideReply, DecideRequest, LimitCall, LimitState};

use super::hot::{Heat, Hottest, Key};
use crate::clock::Clock;
use crate::metrics::{LimitLabel, SharedMetrics};
use crate::throttle::Throttle;

/// Limits beyond that many are counted together, as [`OTHERS`], and not remembered, unless one has not been asked about
/// for [`GONE_MINUTES`].
const LIMITS_MAX: usize = 1_024;
/// Whoever renames limits leaves old ones behind; they make room for others after that long.
const GONE_MINUTES: u64 = 60;
/// The label of all further limits.
pub const OTHERS: &str = "others";
/// So many of the hottest keys are shown.
const HOT_SHOWN: usize = 32;
/// Counts are of the minute under way and of the one before.
const MINUTE_US: u64 = 60_000_000;
/// At most that share of a limit is left, of a request that was admitted: a tenth.
const NEAR: u64 = 10;
/// Once per change of a configuration is seldom; filters that disagree say so with every decision.
const CHANGES_LOG_INTERVAL_US: u64 = 10_000_000;
/// What a limit says of a request.
const OUTCOMES: [&str; 5] = ["allowed", "near", "denied", "shadow-denied", "unread"];

/// What is remembered.
pub struct Observed {
    clock: Arc<dyn Clock>,
    metrics: SharedMetrics,
    hasher: RandomState,
    state: Mutex<State>,
    changes: Throttle,
}

#[derive(Default)]
struct State {
    limits: HashMap<String, Known>,
    now: Hottest,
    before: Hottest,
    minute: u64,
    /// When it was last looked for limits that make room: once a minute is enough.
    pruned: u64,
}

/// A limit that was asked about, and its counters once they were needed.
struct Known {
    quota: Quota,
    algorithm: Algorithm,
    counters: [Option<Counter>; OUTCOMES.len()],
    /// In which minute it was last asked about.
    minute: u64,
}

/// One of the hottest keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hot {
    /// Empty if the subject does not count by it.
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
        let changes = Throttle::new(1, CHANGES_LOG_INTERVAL_US);
        Self { clock, metrics, hasher: RandomState::new(), state: Mutex::default(), changes }
    }

    /// Takes a decision in.
    pub fn note(&self, message: &DecideRequest, reply: &DecideReply) {
        let minute = self.clock.elapsed_us() / MINUTE_US;
        // As keys have it: what does not count by the tenant is one for all of them.
        let tenant = |call: &LimitCall| match &message.scope.tenant {
            Tenant::Named(name) if call.subject.is_of_tenant() => name.as_str(),
            Tenant::Named(_) | Tenant::None => "",
        };
        let digest = |call: &LimitCall| {
            let (kind, subject) = (call.subject.kind.as_str(), call.subject.name.as_str());
            self.hasher.hash_one((tenant(call), kind, subject, call.id.as_str()))
        };
        let key = |call: &LimitCall| Key {
            tenant: tenant(call).to_owned(),
            kind: call.subject.kind.as_str(),
            subject: call.subject.name.as_str().to_owned(),
            limit: call.id.clone(),
        };
        let mut state = self.lock();
        state.turn(minute);
        for (call, said) in message.limits.iter().zip(&reply.limits) {
            if let Some(before) = state.count(call, outcome(call, said), &self.metrics) {
                self.changed(call, before);
            }
            state.now.count(digest(call), !said.allowed, || key(call));
        }
    }

    /// A new configuration on its way to all filters, or filters that disagree for good.
    fn changed(&self, now: &LimitCall, (quota, algorithm): (Quota, Algorithm)) {
        self.metrics.limit_changes.inc();
        if let Some(more) = self.changes.admit(self.clock.elapsed_us()) {
            let numbers = |limit, period_us, burst, algorithm: Algorithm| {
                let period = Duration::from_micros(period_us);
                format!("{limit} per {period:?}, burst {burst}, {}", algorithm.as_str())
            };
            tracing::warn!(
                limit = now.id,
                before = numbers(quota.limit(), quota.period_us(), quota.burst(), algorithm),
                now = numbers(now.limit, now.period_us, now.burst, now.algorithm),
                more,
                "a limit is asked about with other numbers: if that does not end soon, filters have different configurations; each keeps to its own numbers"
            );
        }
    }

    /// The numbers that a limit was last asked about with.
    pub fn limit(&self, id: &str) -> Option<(Quota, Algorithm)> {
        self.lock().limits.get(id).map(|known| (known.quota, known.algorithm))
    }

    /// The hottest keys, the hottest first.
    pub fn hottest(&self) -> Vec<Hot> {
        let mut state = self.lock();
        state.turn(self.clock.elapsed_us() / MINUTE_US);
        let held = [state.before.clone(), state.now.clone()];
        drop(state);
        let mut sums: HashMap<&Key, Heat> = HashMap::new();
        for (key, heat) in held.iter().flat_map(Hottest::entries) {
            let sum = sums.entry(key).or_default();
            sum.asked += heat.asked;
            sum.denied += heat.denied;
            sum.doubt += heat.doubt;
        }
        let mut hot: Vec<Hot> = sums
            .into_iter()
            .map(|(key, Heat { asked, denied, doubt })| {
                let Key { tenant, kind, subject, limit } = key.clone();
                Hot { tenant, kind, subject, limit, asked, denied, doubt }
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

/// Which of [`OUTCOMES`].
fn outcome(call: &LimitCall, said: &LimitState) -> usize {
    if said.unread {
        return 4;
    }
    let near = said.remaining.saturating_mul(NEAR) <= u64::from(whole(call, said));
    match (call.shadow, said.allowed, near) {
        (_, true, false) => 0,
        (_, true, true) => 1,
        (false, false, _) => 2,
        (true, false, _) => 3,
    }
}

/// What a limit lets in at once that counts nothing, by the numbers that are in force.
fn whole(call: &LimitCall, said: &LimitState) -> u32 {
    match (said.limit, call.algorithm, call.quota()) {
        (Some(_), Algorithm::Gcra, Ok(quota)) => quota.cold_burst(),
        (Some(reduced), ..) => reduced,
        (None, ..) => call.burst,
    }
}

// === impl State ===

impl State {
    fn turn(&mut self, minute: u64) {
        match minute.saturating_sub(self.minute) {
            0 => return,
            1 => self.before = std::mem::take(&mut self.now),
            _ => {
                self.before = Hottest::default();
                self.now = Hottest::default();
            }
        }
        self.minute = minute;
    }

    /// Remembers a limit's numbers, if it is among those that are remembered, and counts. Gives the
    /// numbers of before if they were others.
    fn count(
        &mut self,
        call: &LimitCall,
        outcome: usize,
        metrics: &SharedMetrics,
    ) -> Option<(Quota, Algorithm)> {
        let quota = call.quota().ok()?;
        let algorithm = call.algorithm;
        let name = OUTCOMES.get(outcome).copied().unwrap_or_default();
        let counter = |limit: &str| {
            let label = LimitLabel { limit: limit.to_owned(), outcome: name };
            metrics.limits.get_or_create(&label).clone()
        };
        let count = |known: &mut Known| {
            if let Some(place) = known.counters.get_mut(outcome) {
                place.get_or_insert_with(|| counter(&call.id)).inc();
            }
        };
        let minute = self.minute;
        if let Some(known) = self.limits.get_mut(&call.id) {
            count(known);
            known.minute = minute;
            let before = (known.quota, known.algorithm);
            (known.quota, known.algorithm) = (quota, algorithm);
            return (before != (quota, algorithm)).then_some(before);
        }
        if self.limits.len() >= LIMITS_MAX && minute > self.pruned {
            self.pruned = minute;
            self.prune(metrics);
        }
        if self.limits.len() >= LIMITS_MAX {
            counter(OTHERS).inc();
            return None;
        }
        let mut known = Known { quota, algorithm, counters: Default::default(), minute };
        count(&mut known);
        self.limits.insert(call.id.clone(), known);
        None
    }

    /// Forgets the limits that have not been asked about for long, and their metrics.
    fn prune(&mut self, metrics: &SharedMetrics) {
        let minute = self.minute;
        self.limits.retain(|limit, known| {
            let stays = minute.saturating_sub(known.minute) < GONE_MINUTES;
            if !stays {
                for outcome in OUTCOMES {
                    metrics.limits.remove(&LimitLabel { limit: limit.clone(), outcome });
                }
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::metrics::Metrics;
    use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};
    use tidegate_policy::scope::{CallerScope, Environment, KeyFormat, TenantId};
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
            unread: false,
            charged_us: None,
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
            leases: Vec::new(),
        };
        let verdict = if allowed { Verdict::Allow } else { Verdict::Deny };
        let limits = vec![state];
        (
            request,
            DecideReply {
                v: VERSION,
                id,
                verdict,
                limits,
                claim: None,
                leases: Vec::new(),
                octets: Vec::new(),
            },
        )
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
        assert!(observed.lock().now.entries().count() <= crate::service::hot::HELD);
        tokio::time::advance(std::time::Duration::from_secs(180)).await;
        assert_eq!(observed.hottest(), [], "of the last minutes only");
    }

    /// A key without a tenant is one key, whatever tenant its requests are of.
    #[tokio::test(start_paused = true)]
    async fn only_what_counts_by_the_tenant_is_told_by_it() {
        let (observed, _) = observed();
        for tenant in ["acme", "bolt"] {
            for kind in [SubjectKind::Ip, SubjectKind::Tenant] {
                let (mut request, reply) = one(tenant, "p.l", 50, true);
                let tenant = TenantId::new(tenant).expect("a tenant");
                let name = if kind == SubjectKind::Ip { "a" } else { tenant.as_str() };
                let name = SubjectName::from_bytes(name.as_bytes());
                request.limits[0].subject = Subject { kind, name };
                request.scope.tenant = Tenant::Named(tenant);
                observed.note(&request, &reply);
            }
        }
        let hottest = observed.hottest();
        let told: Vec<_> =
            hottest.iter().map(|hot| (hot.tenant.as_str(), hot.kind, hot.asked)).collect();
        assert_eq!(told, [("", "ip", 2), ("acme", "tenant", 1), ("bolt", "tenant", 1)]);
    }

    /// Half of a hundred in a cold window, a quarter in a cold bucket; and what could not be read is none of these.
    #[tokio::test(start_paused = true)]
    async fn near_is_told_by_the_numbers_in_force_and_nothing_of_what_was_not_read() {
        let (observed, metrics) = observed();
        let rows = [
            (Algorithm::Window, 6, "allowed"),
            (Algorithm::Window, 5, "near"),
            (Algorithm::Gcra, 3, "allowed"),
            (Algorithm::Gcra, 2, "near"),
        ];
        for (number, (algorithm, remaining, outcome)) in rows.into_iter().enumerate() {
            for unread in [false, true] {
                let (mut request, mut reply) = one("a", &format!("p.l{number}"), remaining, true);
                request.limits[0].algorithm = algorithm;
                (reply.limits[0].limit, reply.limits[0].unread) = (Some(50), unread);
                observed.note(&request, &reply);
            }
            for (seen, count) in
                OUTCOMES.map(|seen| (seen, u64::from([outcome, "unread"].contains(&seen))))
            {
                let label = LimitLabel { limit: format!("p.l{number}"), outcome: seen };
                let counted = metrics.limits.get_or_create(&label).get();
                assert_eq!(counted, count, "{algorithm:?} {remaining} {seen}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn limits_are_counted_by_outcome_and_are_bounded() {
        let (observed, metrics) = observed();
        for (remaining, allowed) in [(50, true), (10, true), (0, false)] {
            let (request, reply) = one("a", "p.l", remaining, allowed);
            observed.note(&request, &reply);
        }
        assert_eq!(metrics.limit_changes.get(), 0);
        for burst in [100, 200, 200, 100] {
            let (mut request, reply) = one("a", "p.disagreed", 50, true);
            request.limits.iter_mut().for_each(|limit| limit.burst = burst);
            observed.note(&request, &reply);
        }
        assert_eq!(metrics.limit_changes.get(), 2, "to and fro");
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
        assert_eq!(count(OTHERS, "allowed"), 2_002 - 1_024);
        assert!(observed.limit("p.l").is_some() && observed.limit("p.l1999").is_none());
        // Who is asked about stays; the others make room after an hour.
        for (seconds, known) in [(3_500, false), (160, true)] {
            tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
            for limit in ["p.l", "p.renamed"] {
                let (request, reply) = one("a", limit, 50, true);
                observed.note(&request, &reply);
            }
            assert_eq!(observed.limit("p.renamed").is_some(), known, "after {seconds} s");
        }
        assert!(observed.limit("p.l").is_some() && observed.limit("p.l0").is_none());
        assert_eq!((count("p.l", "allowed"), count("p.l0", "allowed")), (3, 0));
    }
}
