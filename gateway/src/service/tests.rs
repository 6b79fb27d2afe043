//! The service with a scripted store, on paused time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::clock::ManualClock;
use crate::metrics::{BreakerLabel, ChangeLabel, LimitLabel, Metrics, ReasonLabel, TestLabel};
use crate::store::memory::MemoryStore;
use crate::store::{
    Adjustment, Call, Charge, Checked, Standing, Store, StoreCounters, Temperature,
};
use tidegate_policy::audit::{AuditEvent, AuditSink, Thinning};
use tidegate_policy::breaker::mesh::State;
use tidegate_policy::gcra::{EPOCH_US, Reading, Retry};
use tidegate_policy::idempotency::endpoint::Endpoint;
use tidegate_policy::idempotency::fingerprint::{HashRule, Head, RequestHasher};
use tidegate_policy::idempotency::key::IdempotencyKey;
use tidegate_policy::idempotency::stored::StoredAnswer;
use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};
use tidegate_policy::scope::{CallerScope, KeyFormat, Tenant, TenantId};
use tidegate_policy::wire::{
    AnswerHead, ClaimCall, ClaimState, Finish, FinishBy, Finished, Keyed, LimitCall, SettleRequest,
    VERSION,
};
use tokio::sync::watch;
use tokio::time::Instant;

/// What the store does with its calls.
#[derive(Clone)]
enum Script {
    /// Each charge with a cost of at most this is admitted.
    AdmitUpTo(u32),
    Fail(StoreFailure),
    FailShadow(StoreFailure),
    /// Of two calls the first admits so much, the second hangs.
    HangShadow(u32),
    /// Hangs until the gate opens.
    Hang(watch::Receiver<bool>),
    After(Duration),
    Misbehave,
}

struct FakeStore {
    script: Mutex<Script>,
    calls: AtomicUsize,
    /// Limit ids and costs of each call.
    seen: Mutex<Vec<Vec<(String, u32)>>>,
    /// Ages and amounts.
    settled: Mutex<Vec<(u64, i64)>>,
}

impl FakeStore {
    fn settled(&self) -> Vec<(u64, i64)> {
        self.settled.lock().expect("unpoisoned").clone()
    }

    fn seen(&self) -> Vec<Vec<(String, u32)>> {
        self.seen.lock().expect("unpoisoned").clone()
    }
}

impl Store for FakeStore {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn rate_check(&self, _scope: &Scope, charges: &[Charge<'_>]) -> Call<Checked> {
        let before = self.calls.fetch_add(1, Ordering::SeqCst);
        let ids = charges.iter().map(|charge| (charge.limit_id.to_owned(), charge.cost));
        self.seen.lock().expect("unpoisoned").push(ids.collect());
        let costs: Vec<u32> = charges.iter().map(|charge| charge.cost).collect();
        let script = self.script.lock().expect("unpoisoned").clone();
        Box::pin(async move {
            match script {
                Script::AdmitUpTo(max) => Ok(answer(&costs, max)),
                Script::Fail(failure) => Err(failure),
                Script::FailShadow(failure) if before % 2 == 1 => Err(failure),
                Script::FailShadow(_) => Ok(answer(&costs, u32::MAX)),
                Script::HangShadow(_) if before % 2 == 1 => std::future::pending().await,
                Script::HangShadow(max) => Ok(answer(&costs, max)),
                Script::Hang(mut gate) => {
                    gate.wait_for(|open| *open).await.expect("the test holds the gate");
                    Ok(answer(&costs, u32::MAX))
                }
                Script::After(delay) => {
                    let never = std::future::pending::<()>();
                    tokio::time::timeout(delay, never).await.expect_err("pending");
                    Ok(answer(&costs, u32::MAX))
                }
                Script::Misbehave => Ok(answer(&[], u32::MAX)),
            }
        })
    }

    fn settle(
        &self,
        _scope: &Scope,
        _id: DecisionId,
        adjustments: &[Adjustment<'_>],
    ) -> Call<Vec<Standing>> {
        let seen = adjustments.iter().map(|one| (one.age_us, one.by));
        self.settled.lock().expect("unpoisoned").extend(seen);
        let costs = vec![0; adjustments.len()];
        Box::pin(std::future::ready(Ok(answer(&costs, 0).limits)))
    }

    fn reset(&self, _scope: &Scope, _limits: &[Charge<'_>]) -> Call<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn grant(&self, _: &Scope, _: &Charge<'_>, _: u32, _: Duration) -> Call<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn set_region(&self, _scope: &Scope, _temperature: Temperature) -> Call<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn probe(&self) -> Call<()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn answer(costs: &[u32], max: u32) -> Checked {
    let allowed = costs.iter().all(|&cost| cost <= max);
    let reading = |&cost: &u32| Reading {
        remaining: u64::from(cost),
        next_us: 1,
        reset_us: 2,
        retry: if cost <= max { Retry::Fits } else { Retry::AfterUs(7) },
    };
    let standing = |cost| Standing {
        reading: reading(cost),
        reduced: Some(2),
        unread: false,
        charged_us: Some(7),
    };
    Checked { allowed, limits: costs.iter().map(standing).collect() }
}

#[derive(Default)]
struct Recorder(Mutex<Vec<AuditEvent>>);

impl AuditSink for Recorder {
    fn record(&self, event: AuditEvent) {
        self.0.lock().expect("unpoisoned").push(event);
    }
}

struct Bench {
    service: Arc<Service>,
    store: Arc<FakeStore>,
    metrics: SharedMetrics,
    audit: Arc<Recorder>,
}

const POOL_WAIT: Duration = Duration::from_millis(15);
const DEADLINE: Duration = Duration::from_millis(30);

fn bench(script: Script) -> Bench {
    bench_with(script, |_| {})
}

fn bench_with(script: Script, change: impl FnOnce(&mut ServiceSettings)) -> Bench {
    bench_of(script, change, |stores, _| stores)
}

/// One whose claims another store keeps than its limits.
fn bench_with_claims(script: Script) -> Bench {
    bench_of(
        script,
        |_| {},
        |stores, clock| {
            let claims = MemoryStore::new(Arc::clone(clock), 100, StoreCounters::default());
            stores.with(StoreRole::Idempotency, Arc::new(claims))
        },
    )
}

fn bench_of(
    script: Script,
    change: impl FnOnce(&mut ServiceSettings),
    stores: impl FnOnce(Stores, &Arc<dyn Clock>) -> Stores,
) -> Bench {
    let mut settings = ServiceSettings {
        region: Region::new("here").expect("a region"),
        region_configured: true,
        environment: Environment::default(),
        admission: AdmissionSettings {
            max_in_flight: 100,
            pool_wait: POOL_WAIT,
            deadline: DEADLINE,
        },
        breaker: alone::Settings::default(),
    };
    change(&mut settings);
    let store = Arc::new(FakeStore {
        script: Mutex::new(script),
        calls: AtomicUsize::new(0),
        seen: Mutex::default(),
        settled: Mutex::default(),
    });
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(EPOCH_US));
    let metrics = Arc::new(Metrics::new());
    let audit = Arc::new(Recorder::default());
    let sink: crate::audit::SharedSink = audit.clone();
    let auditor = Arc::new(Auditor::new(sink, Arc::clone(&clock), settings.region.clone(), 1));
    let shared: Arc<dyn Store> = store.clone();
    let stores = stores(Stores::single(shared), &clock);
    let service = Service::new(settings, stores, clock, Arc::clone(&metrics), auditor);
    Bench { service: Arc::new(service), store, metrics, audit }
}

fn limit(id: &str, cost: u32, shadow: bool) -> LimitCall {
    LimitCall {
        id: id.to_owned(),
        subject: Subject { kind: SubjectKind::Ip, name: SubjectName::from_bytes(b"192.0.2.1") },
        limit: 5,
        period_us: 60_000_000,
        burst: 5,
        algorithm: tidegate_policy::limit::Algorithm::Gcra,
        cost,
        shadow,
    }
}

fn question(limits: Vec<LimitCall>) -> DecideRequest {
    DecideRequest {
        v: VERSION,
        id: DecisionId::new(9),
        scope: CallerScope {
            region: None,
            environment: Environment::default(),
            tenant: Tenant::None,
            key_format: KeyFormat::V1,
        },
        timeout_ms: 45,
        traceparent: None,
        request_id: None,
        limits,
        claim: None,
        leases: Vec::new(),
    }
}

fn ask(
    bench: &Bench,
    question: &DecideRequest,
) -> impl Future<Output = Result<DecideReply, Refused>> + Send + 'static {
    let bytes = tidegate_policy::wire::encode(question);
    let service = Arc::clone(&bench.service);
    async move { service.decide(&bytes, None).await }
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_is_checked_like_a_decision_and_its_age_is_never_too_short() {
    let bench = bench(Script::AdmitUpTo(9));
    let one = limit("p.one", 1, false);
    let adjustment = tidegate_policy::wire::Adjustment {
        id: one.id,
        subject: one.subject,
        limit: one.limit,
        period_us: one.period_us,
        burst: one.burst,
        algorithm: one.algorithm,
        by: -3,
        receipt: None,
    };
    let asked = question(Vec::new());
    let mut message = SettleRequest {
        v: VERSION,
        id: asked.id,
        scope: asked.scope,
        timeout_ms: 45,
        age_us: 1_000,
        traceparent: None,
        request_id: None,
        adjustments: vec![adjustment.clone()],
        finish: None,
        octets: Vec::new(),
    };
    let settle = async |message: &SettleRequest| {
        bench.service.settle(&tidegate_policy::wire::encode(message)).await
    };
    let reply = settle(&message).await.expect("settled");
    assert_eq!((reply.id, reply.limits.len()), (DecisionId::new(9), 1));
    assert_eq!(reply.limits[0].limit, Some(2), "what is in force is told");
    message.adjustments.push(adjustment);
    let refused = settle(&message).await.expect_err("twice");
    assert_eq!(refused.reason, Reason::BadMessage);
    message.timeout_ms = 30;
    let refused = settle(&message).await.expect_err("hasty");
    assert_eq!(refused.reason, Reason::DeadlineOrder);
    assert_eq!(*bench.store.settled.lock().expect("unpoisoned"), [(46_000, -3)]);
}

fn one() -> DecideRequest {
    question(vec![limit("p.one", 1, false)])
}

fn reason(decided: &Result<DecideReply, Refused>) -> Option<Reason> {
    decided.as_ref().err().map(|refused| refused.reason)
}

#[tokio::test(start_paused = true)]
async fn enforced_and_shadow_limits_are_two_calls_merged_in_the_messages_order() {
    let bench = bench(Script::AdmitUpTo(3));
    let limits = vec![
        limit("p.shadow", 4, true),
        limit("p.one", 1, false),
        limit("p.other-shadow", 2, true),
        limit("p.two", 3, false),
    ];
    let reply = ask(&bench, &question(limits)).await.expect("a verdict");
    assert_eq!(reply.verdict, Verdict::Allow, "a shadow limit never denies");
    let seen: Vec<_> =
        reply.limits.iter().map(|l| (l.id.as_str(), l.allowed, l.remaining)).collect();
    let expected = [
        ("p.shadow", false, 4),
        ("p.one", true, 1),
        ("p.other-shadow", true, 2),
        ("p.two", true, 3),
    ];
    assert_eq!(seen, expected);
    let calls = bench.store.seen();
    let ids: Vec<Vec<&str>> =
        calls.iter().map(|call| call.iter().map(|(id, _)| id.as_str()).collect()).collect();
    assert_eq!(ids, [["p.one", "p.two"], ["p.shadow", "p.other-shadow"]]);
    let events = bench.audit.0.lock().expect("unpoisoned");
    let actions: Vec<Action> = events.iter().map(|event| event.action).collect();
    assert_eq!(
        actions,
        [Action::ColdStart],
        "the store says that limits are reduced; nothing else"
    );
}

#[tokio::test(start_paused = true)]
async fn a_denied_request_only_looks_at_shadow_limits_and_is_audited() {
    let bench = bench(Script::AdmitUpTo(3));
    let limits = vec![limit("p.one", 4, false), limit("p.shadow", 2, true)];
    let reply = ask(&bench, &question(limits)).await.expect("a verdict");
    assert_eq!(reply.verdict, Verdict::Deny);
    let first = reply.limits.first().expect("two limits");
    assert_eq!((first.allowed, first.retry_us), (false, Some(7)));
    let calls = bench.store.seen();
    assert_eq!(calls.last(), Some(&vec![("p.shadow".to_owned(), 0)]), "nothing is charged");
    let events = bench.audit.0.lock().expect("unpoisoned");
    let event = events.first().expect("one event");
    assert_eq!((event.action, event.outcome.as_str()), (Action::Deny, "quota-exceeded"));
    assert_eq!((event.detail.as_str(), &event.id), ("p.one", &DecisionId::new(9).to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_shadow_limit_that_fails_is_no_reason_to_deny() {
    let bench = bench(Script::FailShadow(StoreFailure::Timeout));
    let limits = vec![limit("p.one", 1, false), limit("p.shadow", 2, true)];
    let reply = ask(&bench, &question(limits)).await.expect("a verdict");
    assert_eq!(reply.verdict, Verdict::Allow);
    let shadow = reply.limits.last().expect("two limits");
    assert_eq!((shadow.allowed, shadow.remaining, shadow.unread), (true, 5, true));
    let counted = |outcome| {
        let label = LimitLabel { limit: "p.shadow".to_owned(), outcome };
        bench.metrics.limits.get_or_create(&label).get()
    };
    assert_eq!((counted("allowed"), counted("unread")), (0, 1));
    assert_eq!(bench.metrics.shadow_failures.get(), 1);

    let alone = bench_with(Script::Fail(StoreFailure::Timeout), |_| {});
    let decided = ask(&alone, &question(vec![limit("p.shadow", 2, true)])).await;
    assert_eq!(reason(&decided), Some(Reason::StoreTimeout), "alone there is no verdict");
}

/// Nor one that is never answered: what the enforced limits said stands.
#[tokio::test(start_paused = true)]
async fn a_shadow_limit_that_hangs_is_no_reason_to_deny_nor_to_admit() {
    for (max, verdict) in [(9, Verdict::Allow), (0, Verdict::Deny)] {
        let bench = bench(Script::HangShadow(max));
        let start = Instant::now();
        let limits = vec![limit("p.one", 1, false), limit("p.shadow", 2, true)];
        let reply = ask(&bench, &question(limits)).await.expect("a verdict");
        assert_eq!((reply.verdict, reply.limits.len()), (verdict, 2));
        assert_eq!(start.elapsed().as_millis(), DEADLINE.as_millis());
        assert_eq!(bench.metrics.shadow_failures.get(), 1);
        assert_eq!(bench.store.settled(), [], "the verdict was heard");
    }
    let alone = bench(Script::After(Duration::from_secs(9)));
    let decided = ask(&alone, &question(vec![limit("p.shadow", 2, true)])).await;
    assert_eq!(reason(&decided), Some(Reason::StoreTimeout), "alone there is no verdict");
}

/// A store that stands still charges all that it was asked when it goes on: nobody heard of it.
#[tokio::test(start_paused = true)]
async fn what_was_charged_for_a_decision_that_nobody_heard_of_is_given_back() {
    let limits = || vec![limit("p.one", 1, false), limit("p.two", 3, false)];
    for leaves in [false, true] {
        let (gate, closed) = watch::channel(false);
        let bench = bench(Script::Hang(closed));
        let call = tokio::spawn(ask(&bench, &question(limits())));
        tokio::task::yield_now().await;
        if leaves {
            call.abort();
            assert!(call.await.expect_err("aborted").is_cancelled());
        } else {
            let decided = call.await.expect("no panic");
            assert_eq!(reason(&decided), Some(Reason::StoreTimeout));
        }
        tokio::time::advance(Duration::from_millis(70)).await;
        gate.send(true).expect("the call waits");
        while bench.metrics.in_flight.get() > 0 {
            tokio::task::yield_now().await;
        }
        let age_us = if leaves { 70_000 } else { 100_000 };
        assert_eq!(bench.store.settled(), [(age_us, -1), (age_us, -3)]);
        assert_eq!(bench.metrics.given_back.get(), 1);
    }
    // What was denied charged nothing.
    let denied = bench(Script::AdmitUpTo(0));
    assert!(ask(&denied, &question(limits())).await.is_ok());
    assert_eq!(denied.store.settled(), []);
}

/// Whoever was told of a timeout says so, too; but that word may be lost, and nothing ran.
#[tokio::test(start_paused = true)]
async fn a_claim_that_nobody_heard_of_is_given_back() {
    let (gate, closed) = watch::channel(false);
    let bench = bench_with_claims(Script::Hang(closed));
    let mut message = keyed();
    message.claim.as_mut().expect("a claim").ephemeral = true;
    assert_eq!(reason(&ask(&bench, &message).await), Some(Reason::StoreTimeout));
    gate.send(true).expect("the call waits");
    while bench.metrics.in_flight.get() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.metrics.given_back.get(), 1);
    let retry = DecideRequest { id: DecisionId::new(10), ..message };
    let reply = ask(&bench, &retry).await.expect("a verdict");
    assert!(matches!(reply.claim, Some(ClaimState::Claimed { .. })), "{:?}", reply.claim);
}

/// Others wait for it, and nothing else will say it once more.
#[tokio::test(start_paused = true)]
async fn what_ends_a_claim_is_asked_of_a_store_that_is_left_alone_too() {
    let bench = bench_with_claims(Script::AdmitUpTo(9));
    let mut message = keyed();
    message.claim.as_mut().expect("a claim").ephemeral = true;
    let reply = ask(&bench, &message).await.expect("a verdict");
    let Some(ClaimState::Claimed { fence, .. }) = reply.claim else { panic!("{reply:?}") };
    *bench.store.script.lock().expect("unpoisoned") = Script::Fail(StoreFailure::Timeout);
    for _ in 0..5 {
        assert_eq!(reason(&ask(&bench, &one()).await), Some(Reason::StoreTimeout));
    }
    assert_eq!(bench.service.guard().state(), State::Open);
    let settling = ends(&message, fence, FinishBy::Abandon { life_s: 60 });
    let settled = bench.service.settle(&tidegate_policy::wire::encode(&settling)).await;
    assert_eq!(settled.expect("it is asked").finish, Some(Finished::Freed));
    assert_eq!(bench.service.guard().state(), State::Open, "and says nothing of the store");
}

/// Whoever asked between its loss and now was let run.
#[tokio::test(start_paused = true)]
async fn an_answer_whose_record_was_lost_is_audited() {
    let bench = bench_with_claims(Script::AdmitUpTo(9));
    let message = keyed();
    let answer = StoredAnswer { status: 201, ..StoredAnswer::default() };
    let (answer, octets) = AnswerHead::of(&answer).expect("short");
    let settling = ends(&message, 1, FinishBy::Complete { answer, life_s: 60 });
    let settling = tidegate_policy::wire::encode_framed(&settling, &octets);
    for came_to in [Finished::Recovered, Finished::AlreadyDone] {
        let settled = bench.service.settle(&settling).await.expect("settled");
        assert_eq!(settled.finish, Some(came_to));
        let audited = bench.audit.0.lock().expect("unpoisoned").clone();
        let [event] = audited.as_slice() else { panic!("{audited:?}") };
        let AuditEvent { action, outcome, tenant, thinning, .. } = event;
        assert_eq!((*action, outcome.as_str()), (Action::Claim, "recovered"));
        assert_eq!((tenant, *thinning), (&message.scope.tenant, Thinning::First));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_fails_leaves_no_charge() {
    let bench = bench(Script::AdmitUpTo(9));
    let decided = ask(&bench, &keyed()).await;
    assert_eq!(reason(&decided), Some(Reason::StoreError), "this store keeps no claims");
    assert_eq!(bench.store.settled(), [(0, -1)]);
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_does_not_fit_is_refused_with_both_values() {
    let elsewhere = |q: &mut DecideRequest| q.scope.region = Region::new("there").ok();
    let staging =
        |q: &mut DecideRequest| q.scope.environment = Environment::new("staging").expect("sound");
    let hasty = |q: &mut DecideRequest| q.timeout_ms = 30;
    let twice = |q: &mut DecideRequest| q.limits.push(limit("p.one", 1, true));
    type Change = fn(&mut DecideRequest);
    let rows: [(Change, Reason, &[&str]); 4] = [
        (elsewhere, Reason::RegionMismatch, &["there", "here"]),
        (staging, Reason::EnvironmentMismatch, &["staging", "default"]),
        (hasty, Reason::DeadlineOrder, &["30 ms", "30ms", "gateway.timeout", "--deadline"]),
        (twice, Reason::BadMessage, &["p.one"]),
    ];
    for (change, expected, parts) in rows {
        let bench = bench(Script::AdmitUpTo(9));
        let mut question = one();
        change(&mut question);
        let refused = ask(&bench, &question).await.expect_err("refused");
        assert_eq!(refused.reason, expected);
        for part in parts {
            assert!(refused.detail.contains(part), "{part} in {}", refused.detail);
        }
        assert_eq!(bench.store.calls.load(Ordering::SeqCst), 0, "{expected}: nothing was asked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_region_is_compared_only_if_both_sides_have_one() {
    let mut elsewhere = one();
    elsewhere.scope.region = Region::new("there").ok();
    let unconfigured = bench_with(Script::AdmitUpTo(9), |settings| {
        settings.region = Region::fallback();
        settings.region_configured = false;
    });
    assert!(ask(&unconfigured, &elsewhere).await.is_ok());
    assert!(ask(&bench(Script::AdmitUpTo(9)), &one()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_is_named_by_reason_and_shows_nothing_of_itself() {
    let inside = "redis://10.0.0.7:6379: connection reset".to_owned();
    let rows = [
        (StoreFailure::Unreachable(inside.clone()), Reason::StoreUnavailable),
        (StoreFailure::Timeout, Reason::StoreTimeout),
        (StoreFailure::Refused(inside.clone()), Reason::StoreError),
        (StoreFailure::Garbled(inside), Reason::StoreError),
        (StoreFailure::Full(7), Reason::StoreError),
        (StoreFailure::Crowded, Reason::ServiceOverloaded),
    ];
    for (failure, expected) in rows {
        let bench = bench(Script::Fail(failure));
        let refused = ask(&bench, &one()).await.expect_err("no verdict");
        assert_eq!(refused.reason, expected);
        assert!(!refused.detail.contains("10.0.0.7"), "{}", refused.detail);
        assert_eq!(refused.id, Some(DecisionId::new(9)));
    }
    let decided = ask(&bench(Script::Misbehave), &one()).await;
    assert_eq!(reason(&decided), Some(Reason::StoreError), "readings of other limits");
}

/// product row A5: with all places held by a stuck store, everybody else is told so after the pool
/// wait, and nobody else reaches the store, not even after the first callers have given up.
#[tokio::test(start_paused = true)]
async fn a_stuck_store_holds_no_more_than_the_bound() {
    let (gate, closed) = watch::channel(false);
    // The guard of the store would answer before the bound does.
    let bench = bench_with(Script::Hang(closed), |s| s.breaker.failures = 1_000);
    let start = Instant::now();
    let stuck: Vec<_> = (0..100).map(|_| tokio::spawn(ask(&bench, &one()))).collect();
    tokio::task::yield_now().await;
    let more: Vec<_> = (0..50).map(|_| tokio::spawn(ask(&bench, &one()))).collect();
    for call in more {
        let decided = call.await.expect("no panic");
        assert_eq!(reason(&decided), Some(Reason::ServiceOverloaded));
        assert_eq!(start.elapsed().as_millis(), POOL_WAIT.as_millis());
    }
    for call in stuck {
        let decided = call.await.expect("no panic");
        assert_eq!(reason(&decided), Some(Reason::StoreTimeout));
        assert_eq!(start.elapsed().as_millis(), DEADLINE.as_millis());
    }
    assert_eq!(bench.metrics.in_flight.get(), 100, "the calls are still out");
    let late = ask(&bench, &one()).await;
    assert_eq!(reason(&late), Some(Reason::ServiceOverloaded));
    assert_eq!(bench.store.calls.load(Ordering::SeqCst), 100);
    assert_eq!(bench.metrics.acquire_timeouts.get(), 51);
    assert_eq!(bench.metrics.outlived.get(), 100);
    let overloads = bench.audit.0.lock().expect("unpoisoned").len();
    assert_eq!(overloads, 51, "every overload is an event; the sink thins them out");

    gate.send(true).expect("calls wait");
    assert!(ask(&bench, &one()).await.is_ok(), "places come back when the calls end");
    while bench.metrics.in_flight.get() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.metrics.waiting.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_place_counts_towards_the_deadline() {
    let slow = Script::After(Duration::from_millis(25));
    let bench = bench_with(slow, |settings| settings.admission.max_in_flight = 1);
    // Leaves its place at 10 ms, when its own caller has long been told.
    *bench.store.script.lock().expect("unpoisoned") = Script::After(Duration::from_millis(10));
    let first = tokio::spawn(ask(&bench, &one()));
    tokio::task::yield_now().await;
    *bench.store.script.lock().expect("unpoisoned") = Script::After(Duration::from_millis(25));
    let start = Instant::now();
    let second = ask(&bench, &one()).await;
    assert_eq!(reason(&second), Some(Reason::StoreTimeout));
    assert_eq!(start.elapsed().as_millis(), DEADLINE.as_millis(), "10 ms of waiting included");
    assert!(first.await.expect("no panic").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_gateway_without_time_says_so_and_blames_no_store() {
    let bench = bench(Script::After(Duration::from_secs(9)));
    let calls: Vec<_> = (0..6).map(|_| tokio::spawn(ask(&bench, &one()))).collect();
    tokio::task::yield_now().await;
    // The whole process stood still: nobody saw the store's answers, nor the deadline.
    tokio::time::advance(Duration::from_millis(100)).await;
    for call in calls {
        assert_eq!(reason(&call.await.expect("no panic")), Some(Reason::ServiceOverloaded));
    }
    assert_eq!(bench.metrics.pressure.shed.get(), 6);
    let state = bench.service.guard().state();
    assert_eq!(state, State::Closed, "six in a row would have opened it");
}

/// An overload says that nothing was begun; a claim may have been, and is given back by whoever is told of a timeout.
#[tokio::test(start_paused = true)]
async fn a_gateway_without_time_tells_of_a_claim_that_may_have_been_made() {
    let bench = bench(Script::After(Duration::from_secs(9)));
    let call = tokio::spawn(ask(&bench, &keyed()));
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_millis(100)).await;
    assert_eq!(reason(&call.await.expect("no panic")), Some(Reason::StoreTimeout));
    assert_eq!(bench.metrics.pressure.shed.get(), 1);
    let state = bench.service.guard().state();
    assert_eq!(state, State::Closed, "and no store is blamed");
}

/// One limit and a claim.
fn keyed() -> DecideRequest {
    let head = Head { authority: None, method: b"POST", target: b"/pay", content_type: None };
    let hasher = RequestHasher::new(&head, None, HashRule::default()).expect("no body");
    let claim = ClaimCall {
        keyed: Keyed {
            key: IdempotencyKey::new("k").expect("a key"),
            endpoint: Endpoint::of(b"POST", b"/pay", None).expect("an endpoint"),
            configured: false,
            hash: hasher.finish(),
        },
        lock_ms: 15_000,
        life_s: 86_400,
        takeover: false,
        look: false,
        older_keys: false,
        ephemeral: false,
        replicas: None,
    };
    let mut keyed = one();
    keyed.scope.tenant = Tenant::Named(TenantId::new("acme").expect("a tenant"));
    keyed.claim = Some(claim);
    keyed
}

/// What ends the claim of a question.
fn ends(message: &DecideRequest, fence: u64, by: FinishBy) -> SettleRequest {
    let keyed = message.claim.as_ref().expect("a claim").keyed.clone();
    SettleRequest {
        v: VERSION,
        id: message.id,
        scope: message.scope.clone(),
        timeout_ms: 45,
        traceparent: None,
        request_id: None,
        age_us: 0,
        adjustments: Vec::new(),
        finish: Some(Finish { keyed, fence, by }),
        octets: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_shadow_limit_that_fails_is_no_reason_to_doubt_a_claim() {
    let mut message = keyed();
    message.limits = vec![limit("p.shadow", 2, true)];
    message.claim.as_mut().expect("a claim").ephemeral = true;
    let fails = Script::Fail(StoreFailure::Refused("WRONGTYPE".to_owned()));
    for script in [fails, Script::After(Duration::from_secs(9))] {
        let bench = bench_with_claims(script);
        let reply = ask(&bench, &message).await.expect("the claim is made, and its caller is told");
        assert!(matches!(reply.claim, Some(ClaimState::Claimed { .. })), "{:?}", reply.claim);
        assert_eq!(bench.metrics.shadow_failures.get(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_that_answers_others_is_not_left_alone() {
    let (_gate, closed) = watch::channel(false);
    let bench = bench(Script::Hang(closed));
    let slow: Vec<_> = (0..6).map(|_| tokio::spawn(ask(&bench, &one()))).collect();
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_millis(9)).await;
    *bench.store.script.lock().expect("unpoisoned") = Script::AdmitUpTo(9);
    assert!(ask(&bench, &one()).await.is_ok());
    for call in slow {
        assert_eq!(reason(&call.await.expect("no panic")), Some(Reason::StoreTimeout));
    }
    let state = bench.service.guard().state();
    assert_eq!(state, State::Closed, "six in a row, all older than an answer");
}

#[tokio::test(start_paused = true)]
async fn work_that_waits_for_the_processor_is_shed_unread() {
    let bench = bench(Script::AdmitUpTo(9));
    for _ in 0..2 {
        bench.service.pressure.note(15_000);
    }
    let Refused { reason, id, .. } = ask(&bench, &one()).await.expect_err("shed");
    assert_eq!((reason, id), (Reason::ServiceOverloaded, None));
    assert!(bench.store.seen().is_empty());
    let events = bench.audit.0.lock().expect("unpoisoned").clone();
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((event.action, event.thinning), (Action::Overload, Thinning::First));
    bench.service.pressure.note(0);
    assert!(ask(&bench, &one()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_keeps_its_place_until_its_call_has_ended() {
    let (gate, closed) = watch::channel(false);
    let bench = bench(Script::Hang(closed));
    let call = tokio::spawn(ask(&bench, &one()));
    tokio::task::yield_now().await;
    call.abort();
    assert!(call.await.expect_err("aborted").is_cancelled());
    assert_eq!(bench.metrics.in_flight.get(), 1);
    gate.send(true).expect("the call waits");
    while bench.metrics.in_flight.get() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_the_queue_takes_nothing() {
    let (_gate, closed) = watch::channel(false);
    let bench = bench_with(Script::Hang(closed), |settings| settings.admission.max_in_flight = 1);
    let holder = tokio::spawn(ask(&bench, &one()));
    tokio::task::yield_now().await;
    let waiter = tokio::spawn(ask(&bench, &one()));
    tokio::task::yield_now().await;
    assert_eq!(bench.metrics.waiting.get(), 1);
    waiter.abort();
    assert!(waiter.await.expect_err("aborted").is_cancelled());
    assert_eq!((bench.metrics.waiting.get(), bench.metrics.in_flight.get()), (0, 1));
    assert_eq!(reason(&holder.await.expect("no panic")), Some(Reason::StoreTimeout));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_is_refused_before_anything_else() {
    let bench = bench(Script::AdmitUpTo(9));
    let rows: [(&[u8], Reason); 4] = [
        (b"", Reason::BadMessage),
        (b"\xff\xfe", Reason::BadMessage),
        (b"{\"v\":2}", Reason::UnsupportedVersion),
        (b"{\"v\":1}", Reason::BadMessage),
    ];
    for (bytes, expected) in rows {
        let decided = bench.service.decide(bytes, None).await;
        assert_eq!(reason(&decided), Some(expected), "{bytes:?}");
    }
    let label = ReasonLabel { reason: "bad-message" };
    assert_eq!(bench.metrics.refusals.get_or_create(&label).get(), 0, "the http room counts");
}

/// product row B3: a dead store costs nobody a wait; one call at a time tests it.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_five_times_in_a_row_is_left_alone_for_a_while() {
    let bench = bench(Script::Fail(StoreFailure::Timeout));
    let calls = || bench.store.calls.load(Ordering::SeqCst);
    let set = |script| *bench.store.script.lock().expect("unpoisoned") = script;
    for _ in 0..5 {
        assert_eq!(reason(&ask(&bench, &one()).await), Some(Reason::StoreTimeout));
    }
    for _ in 0..50 {
        assert_eq!(reason(&ask(&bench, &one()).await), Some(Reason::StoreCircuitOpen));
    }
    assert_eq!(calls(), 5, "nobody called it");
    tokio::time::advance(Duration::from_millis(7_990)).await;
    assert_eq!(reason(&ask(&bench, &one()).await), Some(Reason::StoreCircuitOpen));

    tokio::time::advance(Duration::from_millis(4_011)).await;
    set(Script::After(Duration::from_millis(5)));
    for tested in 1..=3 {
        let ten: Vec<_> = (0..10).map(|_| tokio::spawn(ask(&bench, &one()))).collect();
        let mut passed = 0;
        for call in ten {
            let decided = call.await.expect("no panic");
            passed += usize::from(decided.is_ok());
        }
        assert_eq!(passed, 1, "one test at a time");
        assert_eq!(calls(), 5 + tested);
    }
    for _ in 0..10 {
        assert!(ask(&bench, &one()).await.is_ok(), "closed again");
    }
    // The same names as for upstreams' breakers.
    let breaker = || "~store-regional".to_owned();
    let changed = |from, to, cause| {
        let label = ChangeLabel { breaker: breaker(), from, to, cause };
        bench.metrics.breakers.changes.get_or_create(&label).get()
    };
    assert_eq!(changed("closed", "open", "failures"), 1);
    assert_eq!(changed("open", "half_open", "wait_over"), 1);
    assert_eq!(changed("half_open", "closed", "probes_succeeded"), 1);
    let tests = |outcome| {
        let label = TestLabel { breaker: breaker(), outcome };
        bench.metrics.breakers.tests.get_or_create(&label).get()
    };
    assert_eq!((tests("granted"), tests("ok"), tests("failed")), (3, 3, 0));
    let of_state = |state| BreakerLabel { breaker: breaker(), state };
    let stands = |state| bench.metrics.breakers.states.get_or_create(&of_state(state)).get();
    assert_eq!((stands("closed"), stands("open"), stands("half_open")), (1, 0, 0));
    let was_ms = |state| bench.metrics.breakers.state_ms.get_or_create(&of_state(state)).get();
    assert!((8_000..=12_010).contains(&was_ms("open")), "{} ms", was_ms("open"));
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_about_the_way_to_the_store_does_not_trip_its_guard() {
    let refused = || StoreFailure::Refused("TGSTATE a key holds no arrival time".to_owned());
    for failure in [refused(), StoreFailure::Garbled(String::new()), StoreFailure::Full(1)] {
        let bench = bench(Script::Fail(failure));
        for _ in 0..20 {
            assert_eq!(reason(&ask(&bench, &one()).await), Some(Reason::StoreError));
        }
    }
    let crowded = bench(Script::Fail(StoreFailure::Crowded));
    for turned_away in 1..=20 {
        assert_eq!(reason(&ask(&crowded, &one()).await), Some(Reason::ServiceOverloaded));
        assert_eq!(crowded.metrics.acquire_timeouts.get(), turned_away);
    }
    // Four failures, a caller that leaves, four failures: never five in a row without a break.
    let (_gate, closed) = watch::channel(false);
    let bench = bench(Script::Fail(StoreFailure::Timeout));
    for _ in 0..4 {
        ask(&bench, &one()).await.expect_err("fails");
    }
    *bench.store.script.lock().expect("unpoisoned") = Script::Hang(closed);
    let leaves = tokio::spawn(ask(&bench, &one()));
    tokio::task::yield_now().await;
    leaves.abort();
    assert!(leaves.await.expect_err("aborted").is_cancelled());
    *bench.store.script.lock().expect("unpoisoned") = Script::AdmitUpTo(1);
    assert!(ask(&bench, &one()).await.is_ok(), "four are not five");
}

/// What is logged while it lives, on this thread.
fn logged() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let writer = {
        let lines = Arc::clone(&lines);
        move || Lines(Arc::clone(&lines))
    };
    let subscriber = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("unpoisoned").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Product row A6: statistics at start and at an interval; exhaustion critical, once per interval.
#[tokio::test(start_paused = true)]
async fn statistics_are_logged_at_start_and_exhaustion_once_per_interval() {
    let (lines, _guard) = logged();
    let (open, gate) = watch::channel(false);
    let bench = bench_with(Script::Hang(gate), |settings| {
        settings.admission.max_in_flight = 3;
        settings.breaker.failures = u32::MAX;
    });
    let found = |what: &str| -> Vec<String> {
        let text = String::from_utf8(lines.lock().expect("unpoisoned").clone()).expect("text");
        text.lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
    };
    let interval = Duration::from_secs(60);
    let logging = tokio::spawn(statistics::log(Arc::clone(&bench.service), interval));
    for round in 1..=2 {
        let calls: Vec<_> = (0..50).map(|_| tokio::spawn(ask(&bench, &one()))).collect();
        for call in calls {
            assert!(call.await.expect("no panic").is_err());
        }
        let exhausted = found("the bound on store calls is exhausted");
        assert_eq!(exhausted.len(), round, "{exhausted:#?}");
        assert!(exhausted[round - 1].contains("critical=true max_in_flight=3"), "{exhausted:#?}");
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    tokio::time::advance(interval).await;
    tokio::task::yield_now().await;
    open.send_replace(true);
    let lines = found("statistics of store calls");
    let begins =
        "in_flight=0 in_flight_peak=0 in_flight_max=3 waiting=0 waits=0 acquire_timeouts=0";
    assert!(lines[0].contains(begins), "{lines:#?}");
    // 50 callers, and 50 more while three places were still held.
    let then =
        "in_flight=3 in_flight_peak=3 in_flight_max=3 waiting=0 waits=97 acquire_timeouts=97";
    assert!(lines[1].contains(then), "{lines:#?}");
    logging.abort();
}
