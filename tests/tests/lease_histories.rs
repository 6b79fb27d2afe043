//! What is leased never adds up to more than the limit: the shipped filter in many processes with many
//! workers, the real gateway, once with its store in memory and once with the shipped scripts on a real Redis, one
//! virtual time, and random histories of what a network, a clock and an operator do to them.
//!
//! `LEASES_SEED` repeats a run, `LEASES_HISTORIES` makes it longer.

use std::collections::BTreeMap;

use tidegate_host_sim::Runner;
use tidegate_tests::lab::ideal::{Ideal, Numbers};
use tidegate_tests::lab::stored::Stored;
use tidegate_tests::lab::weather::{Odds, Turn, Weather};
use tidegate_tests::lab::{self, Life, Outcome, Requests, SECOND, Sent};
use tidegate_tests::parts;
use tidegate_tests::random::Random;

const HISTORIES: u64 = 12;
const LENGTH_NS: u64 = 40 * SECOND;
const KEYS: [&str; 3] = ["k", "l", "m"];
/// The longest life of a lease, two generations.
const LEASE_NS: u64 = 61 * SECOND;
/// The gateway's clock shows whole µs; a rounding is no overshoot.
const DUST: f64 = 0.01;

const NUMBERS: [Numbers; 5] = [
    Numbers { limit: 10, period_ns: 10 * SECOND, burst: 10 },
    Numbers { limit: 100, period_ns: 60 * SECOND, burst: 100 },
    Numbers { limit: 300, period_ns: SECOND, burst: 300 },
    Numbers { limit: 50, period_ns: SECOND, burst: 20 },
    Numbers { limit: 5, period_ns: 60 * SECOND, burst: 5 },
];

fn runner() -> Runner {
    Runner::with_cache(Some(parts::root().join("target/host-sim-cache"))).expect("a simulator")
}

/// What is limited in a history.
#[derive(Debug, Clone, Copy)]
struct Limits {
    numbers: Numbers,
    /// A second limit on the same requests, which the gateway decides.
    exact: Option<Numbers>,
    keys: usize,
    /// What a request costs at most.
    units_max: u64,
    /// Whether they are changed to less, and back.
    tightens: bool,
}

/// `turn`: something else about it that changes no limit; where limits are made tighter, each other turn has half of them.
fn config(limits: Limits, turn: u64) -> String {
    let parts = if limits.tightens && turn % 2 == 1 { 2 } else { 1 };
    let limit = |name: &str, numbers: Numbers, decide: &str| {
        let Numbers { limit, period_ns, burst } = numbers;
        let (limit, burst) = (limit / parts, (burst / parts).max(1));
        let per_s = period_ns / SECOND;
        format!(
            r#"{{"name": "{name}", "by": "key", "limit": {limit}, "per": "{per_s}s", "burst": {burst}, "decide": "{decide}", "cost": {{"header": "x-cost"}}}}"#
        )
    };
    let mut all = vec![limit("key", limits.numbers, "lease")];
    all.extend(limits.exact.map(|numbers| limit("exact", numbers, "exact")));
    format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate", "timeout": "45ms", "breaker": {{"open": "{}ms"}}}}, "identities": {{"key": {{"header": "x-key", "trusted": true}}}}, "policies": [{{"name": "p", "match": {{"path": "/p"}}, "on_unavailable": ["lease", "deny"], "rate_limits": [{}]}}]}}"#,
        200 + turn,
        all.join(", ")
    )
}

/// What happens in one history.
struct History {
    limits: Limits,
    processes: Vec<Vec<Life>>,
    turns: Vec<(u64, Turn)>,
    odds: Odds,
    seed: u64,
}

/// One request after the other, around the limit, so that the bucket is sometimes empty and sometimes full.
fn requests(
    random: &mut Random,
    limits: Limits,
    from_ns: u64,
    to_ns: u64,
    share: u64,
    workers: usize,
) -> Vec<Requests> {
    let Limits { numbers, keys, units_max, .. } = limits;
    let share = share * (1 + units_max) / 2;
    let mean_ns = share * numbers.period_ns / numbers.limit / keys as u64 / (1 + random.below(6));
    let (mut at_ns, mut all) = (from_ns, Vec::new());
    let mut worker = 0;
    loop {
        at_ns += match random.below(200) {
            0 => random.below(10 * SECOND),
            _ => random.below(2 * mean_ns.max(2)),
        };
        if at_ns >= to_ns || all.len() > 1_500 {
            return all;
        }
        // Now spread over workers, now all on one.
        if random.below(8) > 0 {
            worker = random.below(workers as u64) as usize;
        }
        let times = if random.below(40) == 0 { 1 + random.below(20) } else { 1 };
        all.push(Requests {
            at_ns,
            times,
            every_ns: 1_000,
            worker,
            key: KEYS[random.below(keys as u64) as usize].to_owned(),
            path: "/p",
            units: 1 + random.below(units_max),
        });
    }
}

/// Workers whose VMs trap a moment after a request, while some wait for their answers.
fn trapped(random: &mut Random, requests: &[Requests], to_ns: u64, most: u64) -> Vec<(u64, usize)> {
    let count = random.below(most + 1);
    let one = |_| {
        let request = &requests[random.index(requests.len())];
        let at_ns = request.at_ns + random.below(3_000_000);
        (at_ns, request.worker)
    };
    if requests.is_empty() {
        return Vec::new();
    }
    (0..count).map(one).filter(|(at_ns, _)| *at_ns < to_ns).collect()
}

fn history(seed: u64) -> History {
    let mut random = Random::new(seed);
    // Beside: what came later changes nothing of what a seed means.
    let mut harder = Random::new(!seed);
    let numbers = NUMBERS[random.below(5) as usize];
    let exact = Numbers { burst: 1 + numbers.burst * 2 / 3, ..numbers };
    let limits = Limits {
        numbers,
        exact: (random.below(4) == 0).then_some(exact),
        keys: 1 + random.below(KEYS.len() as u64) as usize,
        units_max: if random.below(3) == 0 { 1 + numbers.burst / 4 } else { 1 },
        tightens: harder.below(3) == 0,
    };
    let traps_max = if harder.below(2) == 0 { 4 } else { 0 };
    let count = 2 + random.below(3);
    let mut processes = Vec::new();
    for process in 0..count {
        let (mut lives, mut from_ns) = (Vec::new(), random.below(SECOND));
        while from_ns < LENGTH_NS {
            let to_ns = match random.below(2) {
                0 => LENGTH_NS,
                _ => (from_ns + SECOND + random.below(20 * SECOND)).min(LENGTH_NS),
            };
            let workers = 1 + random.below(6) as usize;
            let within = |random: &mut Random| from_ns + random.below(to_ns - from_ns);
            let clock_steps = (0..random.below(3))
                .map(|_| (within(&mut random), random.below(20_000) as i64 - 10_000))
                .collect();
            let mut configs = vec![(from_ns, config(limits, 0))];
            let mut updates: Vec<_> = (0..random.below(3)).map(|_| within(&mut random)).collect();
            updates.sort_unstable();
            configs.extend(
                updates.iter().zip(1..).map(|(at_ns, turn)| (*at_ns, config(limits, turn))),
            );
            let shares = random.below(4) > 0;
            let ahead_s = random.below(2_000) as i64 - 1_000;
            let asked = requests(&mut random, limits, from_ns, to_ns, count, workers);
            let traps = trapped(&mut harder, &asked, to_ns, traps_max);
            lives.push(Life {
                from_ns,
                to_ns,
                workers,
                shares,
                seed: seed.wrapping_mul(1_000) + process * 100 + lives.len() as u64,
                ahead_s,
                clock_steps,
                configs,
                requests: asked,
                traps,
            });
            from_ns = to_ns + random.below(2 * SECOND);
        }
        processes.push(lives);
    }
    let mut turns = Turn::some(&mut random, LENGTH_NS);
    turns.sort_by_key(|(at_ns, _)| *at_ns);
    let bad = random.below(4) * 20;
    let odds = Odds { lost: bad, late: bad, doubled: 2 * bad, unanswered: bad, slow: bad };
    History { limits, processes, turns, odds, seed }
}

/// By how much any key exceeded any limit.
fn worst(history: &History, outcome: &Outcome) -> f64 {
    let Limits { numbers, exact, .. } = history.limits;
    let over = [Some(numbers), exact].into_iter().flatten().map(|numbers| {
        let mut keys: BTreeMap<u64, Vec<&Sent>> = BTreeMap::new();
        outcome.admitted().for_each(|sent| keys.entry(sent.key).or_default().push(sent));
        keys.values_mut().for_each(|sent| sent.sort_by_key(|sent| sent.decided_ns));
        let over = keys.values().map(|sent| worst_of(history, numbers, sent));
        over.fold(0.0, f64::max)
    });
    over.fold(0.0, f64::max)
}

fn worst_of(history: &History, numbers: Numbers, admitted: &[&Sent]) -> f64 {
    let mut ideal = Ideal::new(numbers);
    let mut turns = history.turns.iter().peekable();
    for sent in admitted {
        while let Some((at_ns, turn)) = turns.next_if(|(at_ns, _)| *at_ns <= sent.decided_ns) {
            match turn {
                Turn::Forgets => ideal.forgets(*at_ns, LEASE_NS),
                Turn::ClockSet(by_ns) if *by_ns > 0 => ideal.leaps(*at_ns, *by_ns as u64, LEASE_NS),
                Turn::ClockSet(_) | Turn::Away(_) | Turn::Heals | Turn::Ordered(_) => {}
            }
        }
        ideal.admit(sent.decided_ns, sent.units);
    }
    ideal.worst
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn many_processes_never_exceed_the_limit() {
    many(|history| Weather::new(history.odds, history.seed, history.turns.clone()));
}

#[test]
fn many_processes_never_exceed_the_limit_that_redis_keeps() {
    many(|history| {
        let gateway = Box::new(Stored::start());
        Weather::before(gateway, history.odds, history.seed, history.turns.clone())
    });
}

fn many(weather: impl Fn(&History) -> Weather) {
    let seed = number("LEASES_SEED").unwrap_or(1);
    let histories = number("LEASES_HISTORIES").unwrap_or(HISTORIES);
    println!("LEASES_SEED={seed} LEASES_HISTORIES={histories}");
    let runner = runner();
    let (mut admitted, mut asked, mut decides, mut anew) = (0, 0, 0, 0);
    for seed in seed..seed + histories {
        let history = history(seed);
        let outcome = lab::run(&runner, &history.processes, weather(&history));
        let over = worst(&history, &outcome);
        let History { limits, processes, turns, odds, seed } = &history;
        println!(
            "history {seed}: {limits:?}, {} processes, {} lives, {odds:?}, {turns:?}: {} of {} admitted, {} + {} callouts, worst {over:.6}",
            processes.len(),
            processes.iter().map(Vec::len).sum::<usize>(),
            outcome.admitted().count(),
            outcome.sent.len(),
            outcome.decides,
            outcome.syncs,
        );
        assert!(over < DUST, "LEASES_SEED={seed}: {over} units too many");
        let strange = outcome
            .complaints
            .iter()
            .find(|line| !line.contains("is not asked for a while") && !line.contains("trap"));
        assert_eq!(strange, None, "LEASES_SEED={seed}");
        admitted += outcome.admitted().count() as u64;
        asked += outcome.sent.len() as u64;
        decides += outcome.decides;
        anew += outcome.metrics.get("wasm.plugin.vm_reload_success").copied().unwrap_or(0);
    }
    println!(
        "{histories} histories: {admitted} of {asked} admitted, {decides} decided by the gateway, {anew} VMs built anew"
    );
    assert!(admitted > histories * 20, "units are admitted at all");
    assert!(decides < asked, "some are decided within Envoy");
    assert!(histories < HISTORIES || anew > histories, "only {anew} VMs are built anew");
}

/// Many workers hold slices of one pool while the bucket fills up behind them, and then all ask at once:
/// what lies in slices is not there a second time.
#[test]
fn what_many_workers_hold_is_part_of_what_is_left() {
    const WORKERS: usize = 16;
    let numbers = Numbers { limit: 1_000, period_ns: SECOND, burst: 300 };
    let limits = Limits { numbers, exact: None, keys: 1, units_max: 1, tightens: false };
    let runner = runner();
    let mut random = Random::new(number("LEASES_SEED").unwrap_or(1));
    let mut processes = Vec::new();
    for process in 0..2 {
        let mut requests = Vec::new();
        for round in 0..5 {
            let flood_ns = (round + 1) * 2 * SECOND + process * 1_000_000;
            // Every slice is in use, and so few units are leased that the bucket is full.
            let mut at_ns = flood_ns - 1_500_000_000;
            while at_ns < flood_ns - random.below(20_000_000) {
                at_ns += random.below(30_000_000);
                requests.push((at_ns, 1, random.below(WORKERS as u64) as usize));
            }
            let workers = 0..WORKERS;
            requests.extend(workers.map(|worker| (flood_ns + worker as u64 * 1_000, 30, worker)));
        }
        requests.sort_unstable();
        let requests = requests.into_iter().map(|(at_ns, times, worker)| Requests {
            at_ns,
            times,
            every_ns: 1_000,
            worker,
            key: "k".to_owned(),
            path: "/p",
            units: 1,
        });
        processes.push(vec![Life {
            from_ns: 0,
            to_ns: 12 * SECOND,
            workers: WORKERS,
            shares: true,
            seed: process,
            ahead_s: 0,
            clock_steps: Vec::new(),
            configs: vec![(0, config(limits, 0))],
            requests: requests.collect(),
            traps: Vec::new(),
        }]);
    }
    let history = History { limits, processes, turns: Vec::new(), odds: Odds::default(), seed: 0 };
    let weather = Weather::new(history.odds, history.seed, Vec::new());
    let outcome = lab::run(&runner, &history.processes, weather);
    let over = worst(&history, &outcome);
    println!(
        "{} of {} admitted, {} + {} callouts, worst {over:.6}",
        outcome.admitted().count(),
        outcome.sent.len(),
        outcome.decides,
        outcome.syncs,
    );
    assert!(over < DUST, "{over} units too many");
    assert!(outcome.syncs > 0, "units are leased");
}
