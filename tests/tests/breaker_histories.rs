//! No circuit breaker stays shut for good: the shipped filter in many processes with many workers, the real gateway, one
//! virtual time, and random histories of what an upstream, a network, a clock, updates and deaths do to them. Then the
//! upstream works, and within a stated time every request of every process is let in again.
//!
//! `BREAKERS_SEED` repeats a run, `BREAKERS_HISTORIES` makes it longer.

use tidegate_host_sim::Runner;
use tidegate_tests::lab::weather::{Odds, Turn, Weather};
use tidegate_tests::lab::{self, Life, Requests, SECOND};
use tidegate_tests::parts;
use tidegate_tests::random::Random;

const HISTORIES: u64 = 24;
/// The upstream works from then on, and so does all else.
const HEALED_NS: u64 = 20 * SECOND;
const OPEN_MS: u64 = 1_000;
/// A test's life: `upstream_timeout` and a second.
const LEASE_MS: u64 = 2_000;
const TICK_MS: u64 = 250;
/// Each part is what it can wait for at most, one after the other: a lease of a holder that died, and an open time, since that
/// may have been the third; a process that is not told for two seconds goes on alone, and hears of the region later; a wish
/// that is marked again after one; the turns of the tests that close it, of each of three processes, and their ticks; and that a
/// wish and two tests each wait for the next request.
const BOUND_MS: u64 =
    LEASE_MS + OPEN_MS * 6 / 5 + 2_000 + 1_000 + 2 * 3 * TICK_MS + 8 * TICK_MS + 3 * 300;
const BOUND_NS: u64 = BOUND_MS * 1_000_000;
const END_NS: u64 = HEALED_NS + BOUND_NS + 3 * SECOND;
const KEYS: u64 = 12;
/// From one request of a worker to its next, once all is well; each key comes all 300 ms.
const HEALTHY_NS: u64 = 25_000_000;

/// `turn`: odd ones have another breaker, so that places lie elsewhere; of every seventh that one is all there is.
fn config(by: bool, turn: u64) -> String {
    if turn % 7 == 5 {
        return r#"{"version": 1, "gateway": {"cluster": "tidegate", "timeout": "45ms"}, "policies": [{"name": "other", "match": {"path": "/other"}, "circuit_breaker": {}}]}"#.to_owned();
    }
    let by = if by { r#""by": {"header": "x-key", "trusted": true}, "max": 8, "# } else { "" };
    let other = match turn % 2 {
        0 => "",
        _ => r#"{"name": "other", "match": {"path": "/other"}, "circuit_breaker": {}}, "#,
    };
    format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate", "timeout": "45ms", "breaker": {{"open": "{}ms"}}}}, "policies": [{other}{{"name": "p", "match": {{"path": "/**"}}, "circuit_breaker": {{{by}"consecutive": 2, "min_calls": 5, "window": "5s", "open": "{OPEN_MS}ms", "successes": 2, "upstream_timeout": "1s"}}}}]}}"#,
        200 + turn
    )
}

fn one(at_ns: u64, worker: usize, key: u64, path: &'static str) -> Requests {
    Requests { at_ns, times: 1, every_ns: 1_000, worker, key: format!("k{key}"), path, units: 1 }
}

/// What a process is asked while all goes wrong; the upstream fails for some time, or works.
fn requests(random: &mut Random, from_ns: u64, to_ns: u64, workers: usize) -> Vec<Requests> {
    let (mut at_ns, mut all) = (from_ns, Vec::new());
    let mut odds = 0;
    loop {
        at_ns += match random.below(60) {
            0 => random.below(4 * SECOND),
            _ => random.below(60_000_000),
        };
        if at_ns >= to_ns {
            return all;
        }
        if random.below(30) == 0 {
            odds = random.one_of(&[0, 300, 1_000]);
        }
        let path = match (random.happens(odds), random.below(4)) {
            (true, 0) => "/hangs",
            (true, _) => "/fails",
            _ => "/works",
        };
        all.push(one(at_ns, random.index(workers), random.below(KEYS), path));
    }
}

/// All keys in turn, in each worker.
fn healthy(from_ns: u64, workers: usize) -> Vec<Requests> {
    let count = (END_NS - from_ns) / HEALTHY_NS;
    (0..count)
        .flat_map(|nth| {
            let at_ns = from_ns + nth * HEALTHY_NS;
            (0..workers).map(move |worker| one(at_ns + worker as u64, worker, nth % KEYS, "/works"))
        })
        .collect()
}

/// Of some histories the store's clock is days ahead for a time; set right it may know nothing any more.
fn days_ahead(random: &mut Random) -> Vec<(u64, Turn)> {
    if random.below(3) > 0 {
        return Vec::new();
    }
    let by_ns = ((1 + random.below(4)) * 86_400 * SECOND).cast_signed();
    let from_ns = random.below(HEALED_NS / 2);
    let to_ns = from_ns + random.below(HEALED_NS - from_ns);
    let mut turns = vec![(from_ns, Turn::ClockSet(by_ns)), (to_ns, Turn::ClockSet(-by_ns))];
    if random.below(2) == 0 {
        turns.push((to_ns, Turn::Forgets));
    }
    turns
}

/// Operators order breakers about, and take it all back once all is well.
fn orders(random: &mut Random, by: bool) -> Vec<(u64, Turn)> {
    let mut turns = Vec::new();
    let count = random.below(3) * random.below(4);
    for _ in 0..count {
        let name = match by && random.below(2) == 0 {
            true => format!("p:k{}", random.below(KEYS)),
            false => "p".to_owned(),
        };
        let order = random.one_of(&["trip", "reset", "force_open", "disable", "metrics_only"]);
        let for_s = match order {
            "reset" => 0,
            // A reset of all is of those that the region knows, and it may have forgotten some.
            "trip" => 1 + random.below(2),
            _ => random.below(3) * random.below(30),
        };
        let body = format!(r#"{{"breaker": "{name}", "order": "{order}", "for_s": {for_s}}}"#);
        turns.push((random.below(HEALED_NS), Turn::Ordered(body)));
        let back = format!(r#"{{"breaker": "{name}", "order": "reset"}}"#);
        turns.push((HEALED_NS, Turn::Ordered(back)));
    }
    turns
}

struct History {
    by: bool,
    processes: Vec<Vec<Life>>,
    turns: Vec<(u64, Turn)>,
    odds: Odds,
}

fn history(seed: u64) -> History {
    let mut random = Random::new(seed);
    let by = random.below(2) == 0;
    let mut processes = Vec::new();
    for process in 0..1 + random.below(3) {
        let (mut lives, mut from_ns) = (Vec::new(), random.below(SECOND));
        loop {
            let to_ns = from_ns + SECOND + random.below(20 * SECOND);
            let to_ns = if to_ns < HEALED_NS { to_ns } else { END_NS };
            let wild_ns = to_ns.min(HEALED_NS);
            let workers = 1 + random.index(4);
            let within = |random: &mut Random| from_ns + random.below(wild_ns - from_ns);
            let clock_steps = (0..random.below(2))
                .map(|_| (within(&mut random), random.below(20_000) as i64 - 10_000))
                .collect();
            let mut configs = vec![(from_ns, config(by, 0))];
            let mut updates: Vec<_> = (0..random.below(4)).map(|_| within(&mut random)).collect();
            updates.sort_unstable();
            let first = random.below(7);
            let turns = (1..).map(|nth| first + nth);
            configs
                .extend(updates.iter().zip(turns).map(|(at_ns, turn)| (*at_ns, config(by, turn))));
            let mut requests = requests(&mut random, from_ns, wild_ns, workers);
            if to_ns == END_NS {
                requests.extend(healthy(HEALED_NS, workers));
            }
            lives.push(Life {
                from_ns,
                to_ns,
                workers,
                shares: true,
                seed: seed.wrapping_mul(1_000) + process * 100 + lives.len() as u64,
                ahead_s: random.below(2_000) as i64 - 1_000,
                clock_steps,
                configs,
                requests,
                traps: Vec::new(),
            });
            if to_ns == END_NS {
                break;
            }
            from_ns = (to_ns + random.below(2 * SECOND)).min(HEALED_NS - 1);
        }
        processes.push(lives);
    }
    let mut turns = Turn::some(&mut random, HEALED_NS);
    turns.extend(days_ahead(&mut random));
    turns.extend(orders(&mut random, by));
    turns.push((HEALED_NS, Turn::Heals));
    let bad = random.below(4) * 30;
    let odds = Odds { lost: bad, late: bad, doubled: 2 * bad, unanswered: bad, slow: bad };
    History { by, processes, turns, odds }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn no_history_keeps_a_healthy_upstream_shut() {
    let first = number("BREAKERS_SEED").unwrap_or(1);
    let histories = number("BREAKERS_HISTORIES").unwrap_or(HISTORIES);
    println!("BREAKERS_SEED={first} BREAKERS_HISTORIES={histories}");
    let cache = parts::root().join("target/host-sim-cache");
    let runner = Runner::with_cache(Some(cache)).expect("a simulator");
    let (mut refused, mut shut_at_first) = (0, 0);
    for seed in first..first + histories {
        let History { by, processes, turns, odds } = history(seed);
        let outcome = lab::run(&runner, &processes, Weather::new(odds, seed, turns.clone()));
        let healthy = outcome.sent.iter().filter(|sent| sent.at_ns >= HEALED_NS);
        let late_ns =
            healthy.clone().filter(|sent| sent.status != 200).map(|sent| sent.at_ns).max();
        println!(
            "history {seed}: by {by}, {} processes, {} lives, {odds:?}, {turns:?}: {} of {} refused before, the last after {} ms of {BOUND_MS}",
            processes.len(),
            processes.iter().map(Vec::len).sum::<usize>(),
            outcome.sent.iter().filter(|sent| sent.at_ns < HEALED_NS && sent.status == 503).count(),
            outcome.sent.len(),
            late_ns.map_or(0, |late_ns| (late_ns - HEALED_NS) / 1_000_000),
        );
        refused += outcome.sent.iter().filter(|sent| sent.status == 503).count();
        shut_at_first += usize::from(late_ns.is_some());
        let strange: Vec<_> = healthy
            .filter(|sent| sent.at_ns >= HEALED_NS + BOUND_NS && sent.status != 200)
            .take(3)
            .collect();
        assert!(strange.is_empty(), "BREAKERS_SEED={seed}: {strange:?}");
    }
    assert!(refused > 100 && shut_at_first > 3, "{refused} refused, {shut_at_first} shut at first");
}

/// Two of three processes see failures, at whatever moment of anybody's tick: the third refuses from its next tick's answer on, until
/// somebody may test: after 0.8 to 1.2 times what is configured, and the next tick.
#[test]
fn what_two_processes_shut_is_shut_in_the_third_within_a_tick() {
    const TRIPPED_NS: u64 = 3 * SECOND;
    const EVERY_NS: u64 = 5_000_000;
    const MS: u64 = 1_000_000;
    let cache = parts::root().join("target/host-sim-cache");
    let runner = Runner::with_cache(Some(cache)).expect("a simulator");
    let (mut told_ms, mut open_ms) = (Vec::new(), Vec::new());
    for seed in 1..=12 {
        let tripped_ns = TRIPPED_NS + seed * 67 * MS;
        let process = |process: u64| {
            let works = (0..2).map(|worker| Requests {
                times: 6 * SECOND / EVERY_NS,
                every_ns: EVERY_NS,
                ..one(SECOND + MS * (1 + worker as u64), worker, process, "/works")
            });
            let fails = |nth: u64| one(tripped_ns + nth * 1_000, 0, process, "/fails");
            let fails = (0..2).map(fails).filter(|_| process < 2);
            vec![Life {
                from_ns: process * 61 * MS,
                to_ns: 7 * SECOND,
                workers: 2,
                shares: true,
                seed: seed * 10 + process,
                ahead_s: 0,
                clock_steps: Vec::new(),
                configs: vec![(0, config(false, 0))],
                requests: works.chain(fails).collect(),
                traps: Vec::new(),
            }]
        };
        let processes: Vec<_> = (0..3).map(process).collect();
        let weather = Weather::new(Odds::default(), seed, Vec::new());
        let outcome = lab::run(&runner, &processes, weather);
        let third = outcome.sent.iter().filter(|sent| sent.process == 2);
        let shut_ns = third.clone().find(|sent| sent.status == 503).expect("it is told").at_ns;
        let mut after = third.filter(|sent| sent.at_ns >= shut_ns);
        let tested = outcome.sent.iter().find(|sent| sent.at_ns > shut_ns && sent.status == 200);
        let open_ns = tested.expect("a test").at_ns - tripped_ns;
        assert!(after.all(|sent| sent.status == 503 || sent.at_ns >= tripped_ns + open_ns));
        told_ms.push((shut_ns - tripped_ns) / MS);
        open_ms.push(open_ns / MS);
    }
    println!("told after {told_ms:?} ms, tested after {open_ms:?} ms");
    let latest_ms = TICK_MS + EVERY_NS / MS + 1;
    assert!(told_ms.iter().all(|ms| *ms <= latest_ms), "{told_ms:?}");
    let (least, most) = (OPEN_MS * 4 / 5, OPEN_MS * 6 / 5 + 2 * TICK_MS);
    assert!(open_ms.iter().all(|ms| (least..=most).contains(ms)), "{open_ms:?}");
}
