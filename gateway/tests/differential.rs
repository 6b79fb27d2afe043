//! `lua/rl_check.lua` on a real Redis against its twin in the policy, on the same random history:
//! verdicts, every reading, the stored times bit for bit, and the expiries.
//!
//! The seed is printed; `RL_CHECK_SEED` repeats a run, `RL_CHECK_STEPS` makes it longer.

use std::collections::HashMap;

use redis::Value;
use redis::aio::MultiplexedConnection;
use tidegate_policy::gcra::{Charge, EPOCH_US, Instant, Quota, Retry, Tat, Write, check};
use tidegate_tests::redis::Redis;

const SCRIPT: &str = include_str!("../../lua/rl_check.lua");
const STEPS: usize = 20_000;
const KEYS: usize = 24;
/// Beyond it the clock goes back to the start: no real clock is further from the script's zero.
const END_US: u64 = START_US + 631_152_000_000_000;
const START_US: u64 = EPOCH_US + 63_072_000_000_000;

/// Splitmix64: enough for choosing test steps, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let index = usize::try_from(self.below(choices.len() as u64)).expect("small");
        choices[index]
    }
}

/// Few enough that a key meets limits that grow and shrink, odd enough that intervals do not
/// divide evenly.
fn quota(random: &mut Random) -> Quota {
    let limit = random.one_of(&[1u32, 2, 3, 5, 7, 10, 60, 100, 999, 1_000, 1_000_000]);
    let period_us = random.one_of(&[
        1_000_000u64,
        1_234_567,
        10_000_000,
        60_000_000,
        3_600_000_000,
        86_400_000_000,
    ]);
    let burst = random.one_of(&[1u32, 2, 3, 5, 10, 37, 100, 1_000]);
    Quota::new(limit, period_us.max(u64::from(limit)), burst).expect("a sound quota")
}

fn cost(random: &mut Random, burst: u32) -> u32 {
    match random.below(8) {
        0..=4 => 1.min(burst),
        5 => 0,
        6 => u32::try_from(random.below(u64::from(burst))).expect("small"),
        _ => u32::try_from(random.below(u64::from(burst) + 3)).expect("small"),
    }
}

/// Mostly forward by a little, sometimes by much, sometimes back, sometimes not at all.
fn step_clock(random: &mut Random, now_us: u64) -> u64 {
    match random.below(20) {
        0 => now_us.saturating_sub(random.below(120_000_000)).max(EPOCH_US),
        1 => now_us.saturating_sub(random.below(1_000)).max(EPOCH_US),
        2 => now_us + random.below(7_200_000_000),
        3 | 4 => now_us,
        5..=9 => now_us + random.below(1_000),
        _ => now_us + random.below(3_000_000),
    }
}

struct Step {
    now_us: u64,
    keys: Vec<String>,
    charges: Vec<Charge>,
}

/// The twin's side: what each key holds.
#[derive(Default)]
struct Model(HashMap<String, Tat>);

impl Model {
    fn step(&mut self, random: &mut Random, now_us: u64) -> Step {
        // 1 to 8, fewer more often: with many limits in a call one of them nearly always denies.
        let count = 1 + random.below(8).min(random.below(8));
        let mut keys: Vec<String> = Vec::new();
        while keys.len() < usize::try_from(count).expect("small") {
            let key = format!("k{}", random.below(KEYS as u64));
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let charges = keys
            .iter()
            .map(|key| {
                let quota = quota(random);
                let tat = self.0.get(key).copied();
                Charge { quota, cost: cost(random, quota.burst()), tat }
            })
            .collect();
        Step { now_us, keys, charges }
    }

    /// One limit of the last step again, at the instant that its reading promised or 1 µs early:
    /// there the rounding of whole µs decides.
    fn promised(&self, random: &mut Random, last: &Step, reply: &[i64]) -> Option<Step> {
        let index = usize::try_from(random.below(last.keys.len() as u64)).expect("small");
        let &[remaining, next_us, reset_us, retry_us] =
            reply.get(2 + 4 * index..)?.first_chunk()?;
        let wait_us = if retry_us > 0 { retry_us } else { random.one_of(&[next_us, reset_us]) };
        let wait_us = u64::try_from(wait_us).ok()?.saturating_sub(random.below(2));
        let (key, charge) = (last.keys.get(index)?.clone(), *last.charges.get(index)?);
        let one_more = u32::try_from(remaining).ok()?.saturating_add(1);
        let cost = if retry_us > 0 { charge.cost } else { one_more };
        let charge = Charge { cost, tat: self.0.get(&key).copied(), ..charge };
        Some(Step { now_us: last.now_us + wait_us, keys: vec![key], charges: vec![charge] })
    }

    /// Takes in what was written and compares it with what Redis holds: the times bit for bit, the
    /// expiry to the moment that passed between writing and looking.
    fn settle(&mut self, step: &Step, writes: &[Option<Write>], seen: &Seen, at: &str) {
        for ((key, write), held) in step.keys.iter().zip(writes).zip(&seen.held) {
            let ttl_ms = match (write, self.0.get(key)) {
                (Some(write), _) => i64::try_from(write.ttl_ms).expect("below 2^63"),
                (None, Some(_)) => -1,
                (None, None) => -2,
            };
            if let Some(write) = write {
                self.0.insert(key.clone(), write.tat);
            }
            if ttl_ms >= 0 && ttl_ms <= seen.elapsed_ms && held.tat_bits.is_none() {
                // Expired between the two, on a machine that was busy elsewhere.
                self.0.remove(key);
                continue;
            }
            let tat_bits = self.0.get(key).map(|tat| tat.0.to_bits());
            assert_eq!(held.tat_bits, tat_bits, "{at} {key}: {:?}", step.charges);
            let slack_ms = if ttl_ms >= 0 { seen.elapsed_ms } else { 0 };
            let late_ms = ttl_ms - held.ttl_ms;
            assert!((0..=slack_ms).contains(&late_ms), "{at} {key}: {held:?}, not {ttl_ms} ms");
        }
    }
}

/// What Redis says of one key after a step.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    tat_bits: Option<u64>,
    /// -1 without expiry, -2 without key.
    ttl_ms: i64,
}

/// What one transaction gave.
struct Seen {
    reply: Vec<i64>,
    held: Vec<Held>,
    /// At most that long between the step and the look.
    elapsed_ms: i64,
}

/// The step and a look at its keys in one transaction, timed by Redis itself. Then the keys lose
/// their expiry: real time means nothing to a clock that jumps by hours.
async fn evaluate(connection: &mut MultiplexedConnection, sha: &str, step: &Step) -> Seen {
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("TIME");
    pipeline.cmd("EVALSHA").arg(sha).arg(step.keys.len()).arg(&step.keys).arg(step.now_us);
    for charge in &step.charges {
        let quota = charge.quota;
        pipeline.arg(quota.limit()).arg(quota.period_us()).arg(quota.burst()).arg(charge.cost);
    }
    for key in &step.keys {
        pipeline.cmd("GET").arg(key).cmd("PTTL").arg(key).cmd("PERSIST").arg(key).ignore();
    }
    pipeline.cmd("TIME");
    let values: Vec<Value> = pipeline.query_async(connection).await.expect("values");
    let [before, reply, looks @ .., after] = values.as_slice() else {
        panic!("{values:?}");
    };
    let held = looks.chunks(2).map(|pair| {
        let text: Option<String> = redis::from_redis_value_ref(&pair[0]).expect("a string");
        let tat_bits = text.map(|text| text.parse::<f64>().expect("a number").to_bits());
        Held { tat_bits, ttl_ms: redis::from_redis_value_ref(&pair[1]).expect("a number") }
    });
    Seen {
        reply: redis::from_redis_value_ref(reply).expect("integers"),
        held: held.collect(),
        elapsed_ms: time_ms(after) - time_ms(before) + 1,
    }
}

fn time_ms(time: &Value) -> i64 {
    let (seconds, us): (i64, i64) = redis::from_redis_value_ref(time).expect("a time");
    seconds * 1_000 + us / 1_000
}

fn expected(step: &Step) -> (Vec<i64>, Vec<Option<Write>>) {
    let answer = check(Instant::from_unix_us(step.now_us), &step.charges);
    let whole = |number: u64| i64::try_from(number).expect("below 2^63");
    let mut reply = vec![i64::from(answer.allowed), whole(step.now_us)];
    let mut writes = Vec::new();
    for (reading, write) in answer.limits {
        let retry = match reading.retry {
            Retry::Fits => 0,
            Retry::AfterUs(wait_us) => whole(wait_us),
            Retry::Never => -1,
        };
        reply.extend([
            whole(reading.remaining),
            whole(reading.next_us),
            whole(reading.reset_us),
            retry,
        ]);
        writes.push(write);
    }
    (reply, writes)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

#[tokio::test]
async fn the_script_and_its_twin_agree_bit_for_bit() {
    let seed = number("RL_CHECK_SEED").unwrap_or_else(|| getrandom::u64().expect("randomness"));
    let steps = number("RL_CHECK_STEPS").map_or(STEPS, |n| usize::try_from(n).expect("a count"));
    println!("RL_CHECK_SEED={seed} RL_CHECK_STEPS={steps}");
    let redis = Redis::start().await;
    let client = redis::Client::open(redis.url()).expect("a sound URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let sha = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut connection).await;
    let sha: String = sha.expect("loaded");
    let mut random = Random(seed);
    let mut model = Model::default();
    let mut now_us = START_US;
    let (mut allowed, mut limits) = (0, 0);
    let mut last: Option<(Step, Vec<i64>)> = None;
    for index in 0..steps {
        let at = format!("seed {seed} step {index}");
        let follow = last.take().filter(|_| random.below(3) == 0);
        let promised = follow.and_then(|(step, reply)| model.promised(&mut random, &step, &reply));
        if promised.is_none() && random.below(10) == 0 {
            // Expired, evicted or flushed: the key is gone.
            let key = format!("k{}", random.below(KEYS as u64));
            model.0.remove(&key);
            redis::cmd("DEL").arg(&key).exec_async(&mut connection).await.expect("deleted");
        }
        let step = promised.unwrap_or_else(|| {
            let from_us = if now_us > END_US { START_US } else { now_us };
            let next_us = step_clock(&mut random, from_us);
            model.step(&mut random, next_us)
        });
        now_us = step.now_us;
        let seen = evaluate(&mut connection, &sha, &step).await;
        let (expected_reply, writes) = expected(&step);
        assert_eq!(seen.reply, expected_reply, "{at}: {:?} {:?}", step.keys, step.charges);
        model.settle(&step, &writes, &seen, &at);
        limits += step.keys.len();
        allowed += usize::from(seen.reply[0] == 1);
        last = Some((step, seen.reply));
    }
    let denied = steps - allowed;
    println!("{steps} steps, {limits} limits, {allowed} allowed, {denied} denied, 0 mismatches");
    assert!(steps < 1_000 || allowed.min(denied) > steps / 5, "both kinds come up");
}
