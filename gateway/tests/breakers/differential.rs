//! The script of breakers on a real Redis against its twin in the policy, on the same random history of
//! a few processes: every reply, what is stored octet for octet, and every expiry.
//!
//! The seed is printed; `BREAKER_SEED` repeats a run, `BREAKER_STEPS` makes it longer.

use std::collections::BTreeMap;

use redis::Value;
use tidegate_gateway::store::redis::breakers::{TEXTS, arguments, said};
use tidegate_policy::breaker::mesh::{
    Adaptive, Batch, ENTROPY_RANGE, Ended, Event, Order, Record, Settled, Terms, Window, life_ms,
    step,
};
use tidegate_tests::random::Random;
use tidegate_tests::redis::Redis;

const STEPS: usize = 20_000;
const KEYS: u64 = 5;
const HOLDERS: u64 = 4;
const START_MS: u64 = 1_800_000_000_000;

fn some_terms(random: &mut Random) -> Terms {
    let window = match random.below(3) {
        0 => Window::Calls(1 + random.small(300)),
        _ => Window::Ms(100 + random.small(30_000)),
    };
    let permille = |random: &mut Random| u16::try_from(random.below(1_001)).expect("small");
    let adaptive = (random.below(2) == 0).then(|| Adaptive {
        min_permille: u16::try_from(1 + random.below(300)).expect("small"),
        over_ms: 1 + random.small(900_000),
    });
    Terms {
        adaptive,
        window,
        min_calls: random.small(60),
        failure_permille: permille(random),
        slow_permille: if random.below(3) == 0 { permille(random) } else { 0 },
        open_ms: 5 + random.small(20_000),
        backoff: random.octet(6),
        successes: 1 + random.octet(3),
        probe_ms: 1 + random.small(8_000),
        trip_reporters: 1 + random.octet(3),
    }
}

fn batch(random: &mut Random, record: Option<&Record>) -> Batch {
    let epoch = record.map_or(0, |record| record.epoch);
    let calls = match random.below(30) {
        0 => u32::MAX,
        1..=8 => 0,
        _ => random.small(40),
    };
    let part = |random: &mut Random| match random.below(4) {
        0 => calls,
        1 => 0,
        _ => u32::try_from(random.below(u64::from(calls) + 1)).expect("small"),
    };
    let probe = match (random.below(3), record.and_then(|record| record.probe)) {
        (0, Some(probe)) => Some(probe.id - u64::from(random.below(8) == 0)),
        (1, None) if random.below(8) == 0 => Some(START_MS),
        _ => None,
    };
    let ended = [Ended::Ok, Ended::Ok, Ended::Ok, Ended::Failed, Ended::GivenBack];
    let ended = ended[usize::try_from(random.below(5)).expect("small")];
    Batch {
        epoch: match random.below(16) {
            0 | 1 => epoch.saturating_sub(1),
            2 => epoch + random.below(10),
            3 => epoch + 86_400_000 * random.below(3),
            _ => epoch,
        },
        calls,
        failures: part(random),
        slow: part(random),
        tripped: random.below(8) == 0,
        probe: probe.map(|id| Settled { id, ended }),
        ask: random.below(2) == 0,
    }
}

/// Of one of the breakers little is unusual: nobody is late, and few of its calls fail, but for a while.
fn steady(random: &mut Random, record: Option<&Record>) -> Batch {
    let calls = 20 + random.small(40);
    let failures = match random.below(80) {
        0..=3 => calls / 2,
        4..=19 => 1,
        _ => 0,
    };
    Batch {
        epoch: record.map_or(0, |record| record.epoch),
        calls,
        failures,
        probe: record.and_then(|r| r.probe).map(|p| Settled { id: p.id, ended: Ended::Ok }),
        ask: true,
        ..Batch::default()
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

fn time_ms(time: &Value) -> i64 {
    let (seconds, us): (i64, i64) = redis::from_redis_value_ref(time).expect("a time");
    seconds * 1_000 + us / 1_000
}

#[tokio::test]
async fn the_script_and_its_twin_agree_octet_for_octet() {
    let seed = number("BREAKER_SEED").unwrap_or_else(|| getrandom::u64().expect("randomness"));
    let steps = number("BREAKER_STEPS").map_or(STEPS, |n| usize::try_from(n).expect("a count"));
    println!("BREAKER_SEED={seed} BREAKER_STEPS={steps}");
    let redis = Redis::start().await;
    let client = redis::Client::open(redis.url()).expect("a sound URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let mut load = redis::cmd("SCRIPT");
    load.arg("LOAD").arg(TEXTS[0]);
    let sha: String = load.query_async(&mut connection).await.expect("loaded");
    let mut random = Random::new(seed);
    let mut records: BTreeMap<u64, Record> = BTreeMap::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut terms: Vec<Terms> = (0..KEYS).map(|_| some_terms(&mut random)).collect();
    let (window, adaptive) =
        (Window::Ms(10_000), Some(Adaptive { min_permille: 20, over_ms: 60_000 }));
    terms[0] = Terms { window, failure_permille: 500, slow_permille: 0, adaptive, ..terms[0] };
    let (mut now_ms, mut seq) = (START_MS, 0);
    for index in 0..steps {
        let at = format!("seed {seed} step {index}");
        now_ms = match random.below(12) {
            0 => now_ms - random.below(3_000),
            1..=5 => now_ms,
            6 => now_ms + random.below(20_000),
            _ => now_ms + random.below(800),
        };
        let place = random.below(KEYS);
        let key = format!("k{place}");
        if random.below(200) == 0 {
            // Expired, evicted or flushed.
            records.remove(&place);
            redis::cmd("DEL").arg(&key).exec_async(&mut connection).await.expect("deleted");
        }
        let held = records.get(&place);
        let entropy = random.small(ENTROPY_RANGE);
        // Sometimes an author changes the numbers.
        let changed = some_terms(&mut random);
        let usual = terms[usize::try_from(place).expect("small")];
        let terms = if random.below(10) == 0 { changed } else { usual };
        let event = match random.below(40) {
            1.. if place == 0 && random.below(400) > 0 => {
                seq += 1;
                let batch = steady(&mut random, held);
                Event::Sync { terms: &usual, holder: [1; 8], seq, batch, entropy }
            }
            0..=3 => Event::Look,
            4 => {
                let order = Order::ALL[usize::try_from(random.below(5)).expect("small")];
                let for_ms = if random.below(4) == 0 { 0 } else { random.below(6_000) };
                Event::Order { order, for_ms, entropy }
            }
            5 => {
                let order = if random.below(2) == 0 { Order::Reset } else { Order::Trip };
                Event::Order { order, for_ms: 0, entropy }
            }
            _ => {
                // Now and then a report comes twice, or late.
                seq += u64::from(random.below(12) > 0);
                let seq = seq.saturating_sub(random.below(2) * random.below(4)).max(1);
                // Rarely from one of many, so that the list of processes is full, too.
                let holders = if random.below(3) == 0 { 200 } else { HOLDERS };
                let holder = [random.octet(holders); 8];
                let batch = batch(&mut random, held);
                Event::Sync { terms: &terms, holder, seq, batch, entropy }
            }
        };
        let (expected, write) = step(now_ms, held, &event);
        let mut command = redis::cmd("EVALSHA");
        command.arg(&sha).arg(1).arg(&key);
        arguments(&mut command, now_ms, &event);
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("TIME").add_command(command);
        // Real time means nothing to a clock that jumps: what is there loses its expiry.
        pipeline.cmd("GET").arg(&key).cmd("PTTL").arg(&key).cmd("PERSIST").arg(&key).ignore();
        pipeline.cmd("TIME");
        let values: Vec<Value> = pipeline.query_async(&mut connection).await.expect("values");
        let [before, reply, stored, ttl, after] = values.as_slice() else {
            panic!("{at}: {values:?}");
        };
        assert_eq!(said(reply).as_ref(), Some(&expected), "{at}: {event:?} on {held:?}");
        let ttl_ms: i64 = redis::from_redis_value_ref(ttl).expect("a number");
        if let Some(write) = write {
            match life_ms(now_ms, &write) {
                Some(life_ms) => {
                    let elapsed_ms = time_ms(after) - time_ms(before) + 1;
                    let late_ms = i64::try_from(life_ms).expect("below 2^63") - ttl_ms;
                    assert!((0..=elapsed_ms).contains(&late_ms), "{at}: {event:?} {ttl_ms}");
                }
                None => assert_eq!(ttl_ms, -1, "{at}: {event:?}"),
            }
            records.insert(place, write);
        } else {
            assert!(ttl_ms < 0, "{at}: {event:?} wrote");
        }
        let held = records.get(&place).map(Record::to_bytes);
        let stored: Option<Vec<u8>> = redis::from_redis_value_ref(stored).expect("octets");
        assert_eq!(stored, held, "{at}: {event:?}");
        for change in &expected.transitions {
            let (from, to, cause) = (change.from, change.to, change.cause);
            *seen.entry(format!("{from:?} to {to:?}, {cause:?}")).or_default() += 1;
        }
        for (kind, there) in [
            ("counted", expected.counted),
            ("settled", expected.settled),
            ("permit", expected.permit.is_some()),
            ("would open", expected.would_open.is_some()),
            ("healed", expected.healed_ms.is_some()),
            ("learnt", expected.usual.share().is_some()),
        ] {
            *seen.entry(kind.to_owned()).or_default() += usize::from(there);
        }
    }
    println!("{seen:#?}");
    let causes = ["Failures", "Slow", "Reporters", "ProbeFailed", "ProbesLost", "WaitOver"];
    for kind in
        causes.iter().chain(&["ProbesSucceeded", "Operator", "Expired", "Unusual", "would open"])
    {
        let count: usize = seen.iter().filter(|(at, _)| at.contains(kind)).map(|(_, n)| n).sum();
        assert!(steps < STEPS || count > 0, "{kind} comes up: {seen:?}");
    }
}
