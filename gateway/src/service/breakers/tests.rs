//! What a process is told while some of its region's breakers cannot be asked.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_policy::audit::{AuditEvent, AuditSink};
use tidegate_policy::breaker::mesh::{Batch, LIFE_MS, Order, State, Terms, Window};
use tidegate_policy::gcra::EPOCH_US;
use tidegate_policy::scope::{Environment, Region};
use tidegate_policy::wire::breaker::{CHANGES_MAX, ProcessId, REPORTS_MAX};
use tidegate_policy::wire::{MESSAGE_BYTES_MAX, encode};
use tokio::time::Instant;

use super::changes::{SAID_BYTES_MAX, STATE_BYTES, TOLD_AGAIN_MAX, TOLD_AGAIN_MS, UNSEEN_MS};
use super::*;
use crate::audit::Auditor;
use crate::clock::{Clock, ManualClock};
use crate::metrics::{BreakerLabel, Metrics, SharedMetrics, TestLabel};
use crate::store::memory::MemoryStore;
use crate::store::{Call, Store, StoreCounters};

const TERMS: Terms = Terms {
    window: Window::Ms(10_000),
    min_calls: 1,
    failure_permille: 1_000,
    slow_permille: 0,
    adaptive: None,
    open_ms: 1_000,
    backoff: 0,
    successes: 1,
    probe_ms: 600_000,
    trip_reporters: 2,
};
const LIST: &str = "the list";
const HOUR_MS: u64 = 3_600_000;
const DEADLINE_US: u64 = 30_000;

/// A store in memory of which some breakers, or their list, cannot be reached.
struct Partly {
    memory: MemoryStore,
    away: Mutex<BTreeSet<&'static str>>,
    /// So many numbers are one, as gateways of before noted what changed at one moment.
    grain: u64,
    /// How long each call takes.
    takes: Duration,
    /// What there is, and cannot be read.
    unreadable: &'static str,
}

impl Partly {
    /// How a call to it ends, if it is away.
    fn fails<T: Send + 'static>(&self, name: &str) -> Option<Call<T>> {
        let away = self.away.lock().expect("unpoisoned").contains(name);
        away.then(|| -> Call<T> { Box::pin(std::future::ready(Err(StoreFailure::Timeout))) })
    }

    fn later<T: Send + 'static>(&self, call: Call<T>) -> Call<T> {
        let takes = self.takes;
        if takes.is_zero() {
            return call;
        }
        Box::pin(async move {
            let never = std::future::pending::<()>();
            tokio::time::timeout(takes, never).await.expect_err("pending");
            call.await
        })
    }

    fn kept(&self) -> &dyn Breakers {
        self.memory.breakers().expect("it keeps breakers")
    }

    fn away(&self, names: &[&'static str]) {
        *self.away.lock().expect("unpoisoned") = names.iter().copied().collect();
    }
}

impl Breakers for Partly {
    fn step(&self, scope: &Scope, name: &BreakerName, event: &Event<'_>) -> Call<Said> {
        if let Some(failed) = self.fails(name.as_str()) {
            return failed;
        }
        let said = match name.as_str() == self.unreadable {
            true => Box::pin(std::future::ready(Err(StoreFailure::Refused("no breaker".into())))),
            false => self.kept().step(scope, name, event),
        };
        self.later(said)
    }

    fn changed(&self, scope: &Scope, since: u64) -> Call<Vec<(BreakerName, u64)>> {
        if let Some(failed) = self.fails(LIST) {
            return failed;
        }
        let (changed, grain) = (self.kept().changed(scope, 0), self.grain);
        self.later(Box::pin(async move {
            let mut changed = changed.await?;
            for (_, number) in &mut changed {
                *number -= *number % grain;
            }
            changed.retain(|(_, number)| *number >= since);
            Ok(changed)
        }))
    }
}

struct Nobody;

impl AuditSink for Nobody {
    fn record(&self, _event: AuditEvent) {}
}

struct Bench {
    clock: Arc<ManualClock>,
    store: Partly,
    seen: Seen,
    metrics: SharedMetrics,
    seq: u64,
    since: u64,
    /// Of the longest answer.
    octets: usize,
}

impl Bench {
    fn new() -> Self {
        // Later than the earliest moment, so that the clock may go back.
        let clock = Arc::new(ManualClock::at(EPOCH_US + 4 * HOUR_MS * 1_000));
        let shared: Arc<dyn Clock> = clock.clone();
        let metrics = Arc::new(Metrics::new());
        let auditor = Auditor::new(Arc::new(Nobody), Arc::clone(&shared), Region::fallback(), 1);
        let seen = Seen::new(Arc::clone(&metrics), Arc::new(auditor), Arc::clone(&shared));
        let memory = MemoryStore::new(shared, 1_000, StoreCounters::default());
        Self {
            clock,
            store: Partly {
                memory,
                away: Mutex::default(),
                grain: 1,
                takes: Duration::ZERO,
                unreadable: "",
            },
            seen,
            metrics,
            seq: 0,
            since: 0,
            octets: 0,
        }
    }

    fn pass(&self, ms: u64) {
        self.clock.set(self.clock.unix_us() + ms * 1_000);
    }

    fn goes_back(&self, ms: u64) {
        self.clock.set(self.clock.unix_us() - ms * 1_000);
    }

    /// Another store takes this one's place, which knows nothing.
    fn forgets(&mut self) {
        let clock: Arc<dyn Clock> = self.clock.clone();
        self.store.memory = MemoryStore::new(clock, 1_000, StoreCounters::default());
    }

    async fn forced(&self, name: &str) {
        let (name, order) = (BreakerName::new(name).expect("a name"), Order::ForceOpen);
        let order = Event::Order { order, for_ms: 0, entropy: 0 };
        self.store.step(&scope(), &name, &order).await.expect("a step");
    }

    async fn looked(&self, name: &str) -> Said {
        let name = BreakerName::new(name).expect("a name");
        self.store.step(&scope(), &name, &Event::Look).await.expect("a look")
    }

    /// What a process is told: names, states and permits; and whether something failed.
    async fn say(
        &mut self,
        reports: &[(&str, Batch)],
    ) -> Result<(Vec<(String, State, bool)>, bool), StoreFailure> {
        self.pass(1);
        self.seq += 1;
        let reports = reports.iter().map(|(name, batch)| BreakerReport {
            name: BreakerName::new(name).expect("a name"),
            terms: TERMS,
            batch: *batch,
        });
        let (process, seq, since) = (ProcessId([1; 8]), self.seq, self.since);
        let part = BreakersPart { process, seq, since, reports: reports.collect() };
        let so_far = Mutex::new(SoFar::new(since));
        let (breakers, scope, seen, clock) = (&self.store, &scope(), &self.seen, &*self.clock);
        let until_us = clock.elapsed_us() + DEADLINE_US / 2;
        let asked = Asked { breakers, scope, seen, clock, until_us };
        let work =
            tokio::time::timeout(Duration::from_micros(DEADLINE_US), asked.sync(part, &so_far));
        let (said, failed) = match work.await {
            Ok(()) => lock(&so_far).said()?,
            Err(_) => SoFar::late(&so_far).ok_or(StoreFailure::Timeout)?,
        };
        let id = DecisionId::new(1);
        let said = BreakersReply { v: VERSION, id, breakers: said };
        self.octets = self.octets.max(encode(&said).len());
        let said = said.breakers;
        self.since = said.cursor;
        let told = said
            .states
            .into_iter()
            .map(|state| (state.name.as_str().to_owned(), state.state, state.permit.is_some()));
        Ok((told.collect(), failed.is_some()))
    }
}

fn scope() -> Scope {
    Scope {
        region: Region::fallback(),
        environment: Environment::default(),
        tenant: Tenant::None,
        key_format: KeyFormat::default(),
    }
}

fn closed(names: &[&str]) -> Vec<(String, State, bool)> {
    names.iter().map(|name| ((*name).to_owned(), State::Closed, false)).collect()
}

/// One that cannot be asked keeps nobody from what the others say: a test that was given is told, and counted.
#[tokio::test(start_paused = true)]
async fn a_report_that_fails_is_left_out_and_the_others_are_told_and_counted() {
    let mut bench = Bench::new();
    bench.say(&[("a", Batch::default())]).await.expect("an answer");
    bench.say(&[]).await.expect("an answer");
    let dead = Batch { epoch: bench.since, calls: 1, failures: 1, ..Batch::default() };
    let (told, _) = bench.say(&[("a", dead)]).await.expect("an answer");
    assert_eq!(told, [("a".to_owned(), State::Open, false)]);
    bench.pass(2_000);
    bench.store.away(&["x", "y"]);
    let ask = Batch { ask: true, ..Batch::default() };
    let asked = [("x", Batch::default()), ("a", ask), ("y", Batch::default()), ("b", ask)];
    let (told, failed) = bench.say(&asked).await.expect("an answer");
    let expected =
        [("a".to_owned(), State::HalfOpen, true), ("b".to_owned(), State::Closed, false)];
    assert_eq!((told.as_slice(), failed), (expected.as_slice(), true));
    let label = TestLabel { breaker: "a".to_owned(), outcome: "granted" };
    assert_eq!(bench.metrics.breakers.tests.get_or_create(&label).get(), 1);
    bench.store.away(&[LIST]);
    let before = bench.since;
    let told = bench.say(&[("b", Batch::default())]).await;
    assert_eq!(told, Ok((closed(&["b"]), true)));
    assert_eq!(bench.since, before);
    bench.store.away(&[LIST, "a", "b"]);
    let told = bench.say(&[("a", ask), ("b", ask)]).await;
    assert_eq!(told, Err(StoreFailure::Timeout), "nothing answers");
    assert_eq!(bench.say(&[]).await, Err(StoreFailure::Timeout));
    assert_eq!(bench.since, before);
}

/// What changed on a server that is away is told once it is back, however much else is told meanwhile.
#[tokio::test(start_paused = true)]
async fn nobody_is_told_beyond_a_change_that_cannot_be_looked_at() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c", "d"] {
        bench.say(&[(name, Batch::default())]).await.expect("an answer");
        // Longer than what is told again in any case.
        bench.pass(2 * TOLD_AGAIN_MS);
    }
    bench.since = 0;
    let mut told = async |away: &[&'static str]| {
        bench.store.away(away);
        bench.say(&[]).await.expect("an answer")
    };
    assert_eq!(told(&["b", "d"]).await, (closed(&["a", "c"]), true));
    for _ in 0..3 {
        assert_eq!(told(&["b", "d"]).await, (closed(&["c"]), true));
    }
    assert_eq!(told(&["d"]).await, (closed(&["b", "c"]), true));
    assert_eq!(told(&[]).await, (closed(&["d"]), false));
}

/// More changes than one message tells, many of them in the same millisecond.
#[tokio::test(start_paused = true)]
async fn what_changed_at_one_moment_is_told_whole_by_the_next_message() {
    let mut bench = Bench::new();
    bench.store.grain = 100;
    let names: Vec<String> = (0..300).map(|number| format!("n{number}")).collect();
    for names in names.chunks(100) {
        let reports: Vec<_> = names.iter().map(|name| (name.as_str(), Batch::default())).collect();
        bench.say(&reports).await.expect("an answer");
    }
    let mut told = BTreeSet::new();
    bench.since = 0;
    for _ in 0..2 {
        let (states, _) = bench.say(&[]).await.expect("an answer");
        told.extend(states.into_iter().map(|(name, _, _)| name));
    }
    assert_eq!(told.len(), 300);
}

/// Names as long as names may be, 128 of them reported on, and hundreds more that changed: every answer is one that a
/// filter reads, and nothing stays untold.
#[tokio::test(start_paused = true)]
async fn what_is_too_much_for_one_message_is_told_by_the_next() {
    // Many at moments of their own, and more at one moment than one message tells.
    for together in [4, 100] {
        let mut bench = Bench::new();
        bench.store.grain = together;
        let name = |number| format!("payments:{number:0>191}");
        let names: Vec<String> = (0..REPORTS_MAX + 400).map(name).collect();
        let (own, others) = names.split_at(REPORTS_MAX);
        for names in others.chunks(usize::try_from(together).expect("small")) {
            let reports: Vec<_> =
                names.iter().map(|name| (name.as_str(), Batch::default())).collect();
            bench.say(&reports).await.expect("an answer");
        }
        bench.since = 0;
        let reports: Vec<_> = own.iter().map(|name| (name.as_str(), Batch::default())).collect();
        let (mut told, mut messages) = (BTreeSet::new(), 0);
        while told.len() < names.len() {
            let (states, _) = bench.say(&reports).await.expect("an answer");
            told.extend(states.into_iter().map(|(name, _, _)| name));
            messages += 1;
            assert!(messages < 40, "{together}: {} of {} told", told.len(), names.len());
        }
        assert!(bench.octets <= MESSAGE_BYTES_MAX, "{} octets", bench.octets);
    }
}

/// Short names and long ones, of which all changed a moment ago: whichever of them an answer tells again, it is no longer than answers may be.
#[tokio::test(start_paused = true)]
async fn what_is_told_again_fits_whichever_names_stand_together() {
    let mut bench = Bench::new();
    let long = |number| format!("payments:{number:0>191}");
    let names: Vec<String> = (0..256).map(|n| format!("p:{n}")).chain((0..256).map(long)).collect();
    for names in names.chunks(REPORTS_MAX) {
        let reports: Vec<_> = names.iter().map(|name| (name.as_str(), Batch::default())).collect();
        bench.since = u64::MAX / 2;
        bench.say(&reports).await.expect("an answer");
    }
    bench.since = bench.clock.unix_us() / 1_000;
    let mut told = BTreeSet::new();
    for messages in 1.. {
        bench.octets = 0;
        let (states, _) = bench.say(&[]).await.expect("an answer");
        assert!(bench.octets <= SAID_BYTES_MAX + STATE_BYTES, "{} octets", bench.octets);
        told.extend(states.into_iter().map(|(name, _, _)| name));
        if told.len() == names.len() {
            break;
        }
        assert!(messages < 8, "{} of {} told", told.len(), names.len());
    }
}

/// Many more changes than one message tells, behind one that cannot be looked at for as long as it takes: it hides none
/// of them, and is told once it can be.
#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_looked_at_hides_none_behind_it() {
    let mut bench = Bench::new();
    let names: Vec<String> = (0..900).map(|number| format!("n{number:03}")).collect();
    for name in &names {
        bench.say(&[(name, Batch::default())]).await.expect("an answer");
    }
    bench.pass(2 * TOLD_AGAIN_MS);
    for away in [&["n000"][..], &["n000", "n500"]] {
        bench.store.away(away);
        bench.since = 0;
        let mut told = BTreeSet::new();
        for _ in 0..8 {
            let (states, failed) = bench.say(&[]).await.expect("an answer");
            assert!(failed && states.len() <= CHANGES_MAX, "{}", states.len());
            told.extend(states.into_iter().map(|(name, _, _)| name));
        }
        let untold: Vec<_> = names.iter().filter(|name| !told.contains(*name)).collect();
        assert_eq!(untold, away, "{} told", told.len());
    }
    bench.store.away(&[]);
    let mut told = BTreeSet::new();
    for _ in 0..4 {
        told.extend(
            bench.say(&[]).await.expect("an answer").0.into_iter().map(|(name, _, _)| name),
        );
    }
    assert!(["n000", "n500"].iter().all(|name| told.contains(*name)));
}

/// Whoever begins where thousands of members changed before hears of an order for all of them with its first message, and of
/// the members with the next ones: also where octets leave room for fewer than states are, and where one cannot be looked at.
#[tokio::test(start_paused = true)]
async fn who_begins_hears_of_orders_for_all_before_the_members() {
    for (members, width, away, messages) in
        [(900, 3, &[][..], 4), (900, 3, &["p:000"], 4), (240, 196, &[], 2)]
    {
        let mut bench = Bench::new();
        let names: Vec<String> =
            (0..members).map(|number| format!("p:{number:0>width$}")).collect();
        for name in &names {
            bench.say(&[(name, Batch::default())]).await.expect("an answer");
        }
        for bare in ["p", "q"] {
            bench.forced(bare).await;
        }
        bench.pass(2 * TOLD_AGAIN_MS);
        bench.store.away(away);
        bench.since = 0;
        let mut told = BTreeSet::new();
        for message in 0..messages {
            let (states, failed) = bench.say(&[]).await.expect("an answer");
            assert!(failed != away.is_empty() && states.len() <= CHANGES_MAX, "{}", states.len());
            for bare in ["p", "q"] {
                let forced = (bare.to_owned(), State::ForcedOpen, false);
                assert!(states.contains(&forced), "{bare} in message {message} of {members}");
            }
            told.extend(states.into_iter().map(|(name, ..)| name));
        }
        assert_eq!(told.len() + away.len(), names.len() + 2);
    }
}

/// Whatever the store's clock and its memory do: an order is heard of by a process that has read on, also by one that
/// did not ask for a while, and only what it cannot know is told anew.
#[tokio::test(start_paused = true)]
async fn an_order_is_heard_of_though_the_stores_clock_went_back() {
    let forced = |name: &str| vec![(name.to_owned(), State::ForcedOpen, false)];
    let mut bench = Bench::new();
    bench.say(&[("a", Batch::default())]).await.expect("an answer");
    bench.pass(2 * UNSEEN_MS);
    bench.say(&[("b", Batch::default())]).await.expect("an answer");
    bench.say(&[]).await.expect("an answer");
    bench.goes_back(HOUR_MS);
    for name in ["c", "d"] {
        bench.forced(name).await;
        let (told, _) = bench.say(&[]).await.expect("an answer");
        assert!(told.contains(&forced(name)[0]), "{name}: {told:?}");
    }
    // Another server that had heard of nothing takes the store's place, its clock behind.
    let read = bench.since;
    bench.forgets();
    bench.goes_back(HOUR_MS / 2);
    bench.forced("e").await;
    bench.pass(UNSEEN_MS / 2);
    bench.forced("f").await;
    let (told, _) = bench.say(&[]).await.expect("an answer");
    assert_eq!(told, [forced("e"), forced("f")].concat());
    assert!(bench.since < read);
    bench.pass(2 * TOLD_AGAIN_MS);
    assert_eq!(bench.say(&[]).await, Ok((forced("f"), false)), "what is told again");
    bench.forced("g").await;
    assert_eq!(bench.say(&[]).await, Ok(([forced("g"), forced("f")].concat(), false)));
    // One that is empty.
    let read = bench.since;
    bench.forgets();
    assert_eq!(bench.say(&[]).await, Ok((Vec::new(), false)));
    assert_eq!(bench.since, read);
    // While the clock is behind many numbers stand close together: what is told again stays bounded.
    bench.goes_back(HOUR_MS);
    let names: Vec<String> = (0..200).map(|number| format!("n{number}")).collect();
    for name in &names {
        bench.forced(name).await;
    }
    bench.goes_back(HOUR_MS / 2);
    let (told, _) = bench.say(&[]).await.expect("an answer");
    assert_eq!(told.len(), names.len());
    let (told, _) = bench.say(&[]).await.expect("an answer");
    assert_eq!(told.len(), TOLD_AGAIN_MAX);
}

/// More changes than a slow store can be asked about before the deadline: each message tells some of them, the next one goes on
/// behind them, and none is late. What was reported on is told even where it is.
#[tokio::test(start_paused = true)]
async fn a_slow_store_is_asked_about_some_with_each_message() {
    for (takes_ms, messages_max, members) in [(2, 6, ""), (10, 30, ""), (10, 30, "n:")] {
        let mut bench = Bench::new();
        let name = |number| match number % 100 {
            // A bare name among members waits for its turn as they do.
            0 => format!("b{number}"),
            _ => format!("{members}n{number:03}"),
        };
        let names: Vec<String> = (0..400).map(name).collect();
        for name in &names {
            bench.forced(name).await;
        }
        bench.store.takes = Duration::from_millis(takes_ms);
        let (mut told, mut messages, begun) = (BTreeSet::new(), 0, Instant::now());
        while told.len() < names.len() {
            let (states, failed) = bench.say(&[]).await.expect("an answer");
            assert!(!failed, "{messages}");
            told.extend(states.into_iter().map(|(name, _, _)| name));
            messages += 1;
            assert!(messages <= messages_max, "{takes_ms} ms: {} told", told.len());
        }
        let late = Duration::from_micros(DEADLINE_US) * messages;
        assert!(begun.elapsed() < late, "none is late");
    }
    let mut bench = Bench::new();
    bench.forced("x").await;
    let names: Vec<String> = (0..128).map(|number| format!("n{number:03}")).collect();
    let reports: Vec<_> = names.iter().map(|name| (name.as_str(), Batch::default())).collect();
    bench.store.takes = Duration::from_millis(7);
    let (told, failed) = bench.say(&reports).await.expect("an answer");
    assert_eq!((told.len(), failed, bench.since), (64, false, 0));
    bench.store.takes = Duration::from_millis(2 * DEADLINE_US / 1_000);
    assert_eq!(bench.say(&reports).await, Err(StoreFailure::Timeout));
}

/// A record that nobody can read keeps no process from going on: it will not be read the next time either.
#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_read_holds_nobody_back() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.forced(name).await;
        bench.pass(2 * TOLD_AGAIN_MS);
    }
    bench.store.unreadable = "b";
    let forced = |name: &str| (name.to_owned(), State::ForcedOpen, false);
    assert_eq!(bench.say(&[]).await, Ok((vec![forced("a"), forced("c")], true)));
    assert_eq!(bench.say(&[]).await, Ok((vec![forced("c")], false)));
}

/// Breakers that nobody uses any more are counted nowhere, also where nothing is reported after them.
#[tokio::test(start_paused = true)]
async fn breakers_that_are_gone_are_counted_no_more() {
    let mut bench = Bench::new();
    let count = |bench: &Bench, state: State| {
        let label = BreakerLabel { breaker: "t".to_owned(), state: state.as_str() };
        bench.metrics.breakers.states.get_or_create(&label).get()
    };
    let age = async |bench: &Bench, ms: u64| {
        bench.pass(ms);
        tokio::time::advance(Duration::from_millis(ms)).await;
    };
    let dead = Batch { calls: 1, failures: 1, ..Batch::default() };
    let name = |name| BreakerName::new(name).expect("a name");
    for round in 0..3 {
        let names: Vec<String> = (0..100).map(|number| format!("t:{round}-{number}")).collect();
        let reports: Vec<_> = names.iter().map(|name| (name.as_str(), dead)).collect();
        bench.say(&reports).await.expect("an answer");
        assert_eq!((count(&bench, State::Open), count(&bench, State::Closed)), (100, 0));
        // A record that is gone, as another gateway's order or Redis may have it.
        bench.seen.note(&name("t:0-0"), None, &bench.looked("t:gone").await);
        assert_eq!(count(&bench, State::Open), if round == 0 { 99 } else { 100 });
        age(&bench, LIFE_MS + 1_200).await;
        bench.seen.sweep();
        assert_eq!(count(&bench, State::Open), 0);
    }
    // An operator's without an end stays, as its record does.
    let order = Event::Order { order: Order::ForceOpen, for_ms: 0, entropy: 0 };
    let forced = bench.store.step(&scope(), &name("t"), &order).await.expect("a step");
    bench.seen.note(&name("t"), None, &forced);
    age(&bench, 3 * LIFE_MS).await;
    bench.seen.sweep();
    assert_eq!(count(&bench, State::ForcedOpen), 1);
    // It is swept without being asked, too.
    bench.say(&[("t:a", dead)]).await.expect("an answer");
    age(&bench, 2 * LIFE_MS).await;
    bench.say(&[("t:b", dead)]).await.expect("an answer");
    assert_eq!(count(&bench, State::Open), 1);
}

/// A breaker whose name found no room among the metrics' names stands among the others; once there is room it is counted
/// under its own name, and there alone.
#[tokio::test(start_paused = true)]
async fn a_breaker_that_stood_among_the_others_is_counted_once() {
    let mut bench = Bench::new();
    bench.say(&[("t", Batch::default())]).await.expect("an answer");
    let closed = bench.looked("t").await;
    let note = |bench: &Bench, name: &str| {
        bench.seen.note(&BreakerName::new(name).expect("a name"), None, &closed);
    };
    let counted = |bench: &Bench| {
        ["late", "others"].map(|name| {
            let label = BreakerLabel { breaker: name.to_owned(), state: "closed" };
            bench.metrics.breakers.states.get_or_create(&label).get()
        })
    };
    (0..1_000).for_each(|nth| note(&bench, &format!("n{nth}")));
    for _ in 0..2 {
        note(&bench, "late");
        assert_eq!(counted(&bench), [0, 1 + 1], "beside the last of the thousand");
        bench.pass(LIFE_MS / 2 + 1);
        tokio::time::advance(Duration::from_millis(LIFE_MS / 2 + 1)).await;
    }
    bench.seen.sweep();
    assert_eq!(counted(&bench), [0, 1], "the thousand were not seen for as long as a record lives");
    note(&bench, "late");
    assert_eq!(counted(&bench), [1, 0]);
    let gone = bench.looked("gone").await;
    bench.seen.note(&BreakerName::new("late").expect("a name"), None, &gone);
    assert_eq!(counted(&bench), [0, 0]);
}

/// A filter of before record 0121 does not go back with a list of changes that did, and so is told the same again and again: of
/// what it reports on, of as much as one answer tells, and of all once the numbers are beyond what it has read. It keeps
/// those of now from nothing.
#[tokio::test(start_paused = true)]
async fn a_filter_of_before_hears_beside_one_of_now_though_the_list_of_changes_went_back() {
    let forced = |name: &str| (name.to_owned(), State::ForcedOpen, false);
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.say(&[("a", Batch::default())]).await.expect("an answer");
        bench.say(&[]).await.expect("an answer");
    }
    let (read, mut since) = (bench.since, bench.since);
    bench.forgets();
    bench.goes_back(HOUR_MS);
    for name in ["a", "b", "c"] {
        bench.forced(name).await;
        bench.since = read;
        let (told, failed) = bench.say(&[("a", Batch::default())]).await.expect("an answer");
        assert!(told.contains(&forced("a")) && told.contains(&forced(name)) && !failed, "{told:?}");
        bench.since = since;
        let (told, _) = bench.say(&[]).await.expect("an answer");
        assert!(told.contains(&forced(name)), "{name}: {told:?}");
        since = bench.since;
        assert!(since < read);
        bench.pass(2 * TOLD_AGAIN_MS);
    }
}
