//! The scripts on a real Redis against their twin in the policy, on the same random history of GCRA
//! limits and windows, cold and warm: verdicts, every reading, what is stored bit for bit, and the
//! expiries.
//!
//! The seed is printed; `RL_CHECK_SEED` repeats a run, `RL_CHECK_STEPS` makes it longer.

use std::collections::HashMap;

use redis::Value;
use redis::aio::MultiplexedConnection;
use tidegate_policy::gcra::{EPOCH_US, Instant, Quota, Retry};
use tidegate_policy::lease::bucket::Bucket;
use tidegate_policy::lease::step::{self as lease, Call, Times};
use tidegate_policy::limit::grant::grant;
use tidegate_policy::limit::refund::{REMEMBERED_US, Receipt, Refunds};
use tidegate_policy::limit::{Algorithm, Change, Charge, Held, Terms, Write, check, settle};
use tidegate_policy::window::Grain;
use tidegate_policy::wire::Want;
use tidegate_tests::random::Random;
use tidegate_tests::redis::Redis;

const CHECK: &str = include_str!("../../lua/rl_check.lua");
const SETTLE: &str = include_str!("../../lua/rl_settle.lua");
const GRANT: &str = include_str!("../../lua/rl_grant.lua");
const LEASE: &str = include_str!("../../lua/rl_lease.lua");
const RESET: &str = include_str!("../../lua/rl_reset.lua");
/// Some of their bytes stand in other fields, too.
const HOLDERS: [u64; 7] = [0, 1, u64::MAX, 0x0101_0101_0101_0101, 0x3f, 1 << 56, 0xdead_beef];
const STEPS: usize = 20_000;
const KEYS: u64 = 24;
const MARKS: u64 = 3;
const COLD_US: u64 = 300_000_000;
/// Beyond it the clock goes back to the start: no real clock is further from the script's zero.
const END_US: u64 = START_US + 631_152_000_000_000;
const START_US: u64 = EPOCH_US + 63_072_000_000_000;

const TEN_YEARS_US: u64 = 10 * 366 * 86_400_000_000;
/// As slow, as fast and as large as limits may be: limit, period and burst.
const EXTREMES: [(u32, u64, u32); 7] = [
    (1, TEN_YEARS_US, 1),
    (3, TEN_YEARS_US, 2),
    (1_000_000_000, TEN_YEARS_US, 1_000_000_000),
    (1_000_000_000, 1_000_000_000, 4_000_000_000),
    (1_000_000, 1_000_000, 1_000_000_000),
    (1, 1, 1),
    (1, 1, 4_000_000_000),
];

/// Few enough that a key meets limits that grow and shrink, odd enough that intervals do not
/// divide evenly.
fn quota(random: &mut Random, algorithm: Algorithm) -> Quota {
    if random.below(12) == 0 {
        let (limit, period_us, burst) = random.one_of(&EXTREMES);
        let burst = if algorithm == Algorithm::Window { limit } else { burst };
        return algorithm.quota(limit, period_us, burst).expect("a sound quota");
    }
    let limit =
        random.one_of(&[1u32, 2, 3, 5, 7, 10, 60, 100, 999, 1_000, 40_000, 1_000_000, 10_000_000]);
    let period_us = random.one_of(&[
        1_000u64,
        1_000_000,
        1_234_567,
        10_000_000,
        60_000_000,
        3_600_000_000,
        86_400_000_000,
    ]);
    let burst = match algorithm {
        Algorithm::Gcra => random.one_of(&[1u32, 2, 3, 5, 10, 37, 100, 1_000]),
        Algorithm::Window => limit,
    };
    algorithm.quota(limit, period_us.max(u64::from(limit)), burst).expect("a sound quota")
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

/// One limit of a step, with all that the scripts may want of it.
#[derive(Debug, Clone)]
struct Part {
    key: String,
    algorithm: Algorithm,
    quota: Quota,
    /// Index of its mark; `None` is not guarded.
    mark: Option<usize>,
    /// What the mark says where no key names it; infinity if it is missing.
    told: Option<f64>,
    cost: u32,
    alone: bool,
    by: i64,
    age_us: u64,
    charged_cold: bool,
    receipt: Option<Receipt>,
}

#[derive(Debug)]
struct Step {
    now_us: u64,
    settles: bool,
    /// While their slot moves: the limits alone are named, and the marks told.
    apart: bool,
    /// What a holder says; then there is one part, of GCRA.
    lease: Option<Call>,
    parts: Vec<Part>,
}

/// The twin's side: what each key and each mark holds.
#[derive(Default)]
struct Model {
    held: HashMap<String, Held>,
    refunds: HashMap<String, Refunds>,
    /// What was said of each key's last charges.
    receipts: HashMap<String, Vec<Receipt>>,
    began_us: HashMap<usize, u64>,
}

/// Every second one is a window's.
fn key_of(number: u64) -> String {
    format!("k{number}{}", if number.is_multiple_of(2) { "" } else { "W" })
}

fn algorithm_of(key: &str) -> Algorithm {
    if key.ends_with('W') { Algorithm::Window } else { Algorithm::Gcra }
}

impl Part {
    fn random(random: &mut Random, key: String) -> Self {
        let algorithm = algorithm_of(&key);
        let quota = quota(random, algorithm);
        let mark = usize::try_from(random.below(MARKS + 1)).expect("small").checked_sub(1);
        let by = i64::try_from(random.below(2 * u64::from(quota.burst()) + 3)).expect("small")
            - i64::from(quota.burst())
            - 1;
        Self {
            key,
            algorithm,
            quota,
            mark,
            told: None,
            cost: cost(random, quota.burst()),
            alone: random.below(4) == 0,
            by: if by == 0 { 1 } else { by },
            age_us: random.one_of(&[0, 1_000, 500_000, 30_000_000]),
            charged_cold: random.below(2) == 0,
            receipt: None,
        }
    }

    /// Of a charge that was, or of one that never was.
    fn receipt(&self, random: &mut Random, model: &Model, now_us: u64) -> Option<Receipt> {
        let before_us = random.one_of(&[0, 1, 1_000, 5_000_000, 59_999_999, REMEMBERED_US]);
        let at_us = now_us.saturating_sub(before_us) + random.below(2) * random.below(2_000_000);
        let full_us = random.below(3 * self.quota.period_us());
        let wild = Receipt { at_us, full_us, cold: self.charged_cold };
        let known = model.receipts.get(&self.key).map_or(&[][..], |receipts| receipts);
        let one = known.len().checked_sub(1 + usize::try_from(random.below(8)).expect("small"));
        match random.below(4) {
            0 => None,
            1 => Some(wild),
            _ => one.and_then(|one| known.get(one)).copied(),
        }
    }

    fn packed(&self, marks: &[usize], settles: bool) -> Vec<u8> {
        let place = |mark| marks.iter().position(|known| *known == mark).expect("listed") + 1;
        let number = |mark| u8::try_from(place(mark)).expect("small");
        let mark = self.told.map_or_else(|| self.mark.map_or(0, number), |_| 255);
        let letter = if self.algorithm == Algorithm::Window { b'w' } else { b'g' };
        let letter = if self.alone && !settles { letter.to_ascii_uppercase() } else { letter };
        let mut packed = vec![letter, mark];
        let mut numbers: Vec<f64> = Vec::new();
        if settles {
            packed.push(u8::from(self.charged_cold));
            numbers.extend([self.by as f64, self.age_us as f64]);
            numbers.extend(self.receipt.map_or([0.0; 2], |one| [one.at(), one.tat()]));
        } else {
            numbers.push(f64::from(self.cost));
        }
        let (quota, period) = (self.quota, self.quota.period_us() as f64);
        match self.algorithm {
            Algorithm::Gcra => {
                let (warm, cold) = (quota.pace(), quota.cold_pace());
                numbers.extend([warm.interval, warm.span, cold.interval, cold.span]);
            }
            Algorithm::Window => {
                let (warm, cold) = (quota.limit(), quota.cold_limit());
                numbers.extend([f64::from(warm), period, f64::from(cold), period]);
            }
        }
        packed.extend(numbers.into_iter().flat_map(f64::to_le_bytes));
        if self.algorithm == Algorithm::Window {
            let grain = Grain::of(quota.limit(), quota.period_us());
            packed.push(grain.exponent);
            packed.extend((grain.slot_us as f64).to_le_bytes());
        }
        packed.extend(self.told.map(f64::to_le_bytes).as_slice().as_flattened());
        packed
    }
}

/// What a holder might say, honest or not, in any order.
fn lease_call(random: &mut Random, quota: Quota) -> Call {
    let mut units = || match random.below(3) {
        0 => 0,
        1 => u32::try_from(random.below(8)).expect("small"),
        _ => u32::try_from(random.below(u64::from(quota.burst()) + 2)).expect("small"),
    };
    let (left, back) = (units(), units());
    Call {
        holder: random.one_of(&HOLDERS),
        seq: u32::try_from(random.below(200)).expect("small") + 1,
        demand: random.one_of(&[0, 1, 5, 6, 7, 40, 100, 1_000, 1 << 20]),
        left,
        back,
        want: random.one_of(&[Want::Nothing, Want::Ahead, Want::Now, Want::Now]),
    }
}

impl Step {
    /// The marks that it names, each once.
    fn marks(&self) -> Vec<usize> {
        let named = self.parts.iter().filter(|part| part.told.is_none());
        let mut marks: Vec<usize> = named.filter_map(|part| part.mark).collect();
        marks.sort_unstable();
        marks.dedup();
        marks
    }
}

impl Model {
    fn step(&mut self, random: &mut Random, now_us: u64) -> Step {
        // 1 to 8, fewer more often: with many limits in a call one of them nearly always denies.
        let count = 1 + random.below(8).min(random.below(8));
        let mut keys: Vec<String> = Vec::new();
        while keys.len() < usize::try_from(count).expect("small") {
            let number = random.below(KEYS);
            let key = key_of(number);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let mut parts: Vec<Part> = keys.into_iter().map(|key| Part::random(random, key)).collect();
        for part in &mut parts {
            part.receipt = part.receipt(random, self, now_us);
        }
        let apart = random.below(8) == 0;
        for part in parts.iter_mut().filter(|_| apart) {
            let began = |mark| self.began_us.get(&mark).map_or(f64::INFINITY, |us| *us as f64);
            part.told = part.mark.map(began);
        }
        if random.below(3) == 0 {
            let gcra = |part: &&Part| part.algorithm == Algorithm::Gcra;
            if let Some(part) = parts.iter().find(gcra) {
                let lease = Some(lease_call(random, part.quota));
                return Step { now_us, settles: false, apart, lease, parts: vec![part.clone()] };
            }
        }
        let settles = random.below(5) == 0;
        for part in parts.iter_mut().filter(|_| apart) {
            part.by = part.by.abs();
        }
        Step { now_us, settles, apart, lease: None, parts }
    }

    /// One limit of the last step again, at the instant that its reading promised or 1 µs early:
    /// there the rounding of whole µs decides.
    fn promised(&self, random: &mut Random, last: &Step, reply: &[i64]) -> Option<Step> {
        if last.settles || last.lease.is_some() {
            return None;
        }
        let index = usize::try_from(random.below(last.parts.len() as u64)).expect("small");
        let &[remaining, next_us, reset_us, retry_us] =
            reply.get(2 + 5 * index..)?.first_chunk()?;
        let wait_us = if retry_us > 0 { retry_us } else { random.one_of(&[next_us, reset_us]) };
        let wait_us = u64::try_from(wait_us).ok()?.saturating_sub(random.below(2));
        let mut part = last.parts.get(index)?.clone();
        if retry_us <= 0 {
            part.cost = u32::try_from(remaining).ok()?.saturating_add(1);
        }
        let (now_us, apart) = (last.now_us + wait_us, last.apart);
        Some(Step { now_us, settles: false, apart, lease: None, parts: vec![part] })
    }

    /// How long each part's shard is cold; begins what has no mark, as rl_check does, and anew what lies ahead.
    fn cold_left_us(&mut self, step: &Step) -> Vec<u64> {
        let since = step.now_us - EPOCH_US;
        for mark in step.marks() {
            if !step.settles {
                self.began_us.entry(mark).or_insert(since);
            }
            self.began_us.entry(mark).and_modify(|began_us| *began_us = since.min(*began_us));
        }
        let left = |part: &Part| {
            let Some(mark) = part.mark else { return 0 };
            let known = self.began_us.get(&mark).copied();
            let told = part.told.map(|told| told as u64);
            let began_us = told.or(known).unwrap_or(since).min(since);
            (began_us + COLD_US).saturating_sub(since)
        };
        step.parts.iter().map(left).collect()
    }

    /// What the twin says and writes.
    fn expected(&mut self, step: &Step) -> (Vec<i64>, Vec<Option<Write>>) {
        let left = self.cold_left_us(step);
        let now = Instant::from_unix_us(step.now_us);
        let terms = |part: &Part, cold_left_us| Terms {
            algorithm: part.algorithm,
            quota: part.quota,
            cold_left_us,
        };
        if let (Some(call), [part], [cold_left_us]) = (&step.lease, &*step.parts, &*left) {
            let terms = lease::Terms { quota: part.quota, cold_left_us: *cold_left_us };
            let (given, write) = lease::step(now, terms, call, self.held.get(&part.key));
            let cold = i64::from(*cold_left_us > 0);
            let whole = |number: u64| i64::try_from(number).expect("below 2^63");
            let mut reply = vec![0, 0, 0, 0, 0, 0, cold];
            if !given.stale {
                let (granted, scarce) = (i64::from(given.granted), i64::from(given.scarce));
                let (ttl_us, deny_us) = (whole(given.ttl_us), whole(given.deny_us));
                reply = vec![1, granted, ttl_us, deny_us, whole(given.remaining), scarce, cold];
            }
            return (reply, vec![write]);
        }
        let parts = step.parts.iter().zip(left);
        if step.settles {
            let writes = parts.map(|(part, left)| {
                let Part { mark, by, age_us, charged_cold, receipt, .. } = *part;
                let since = step.now_us - EPOCH_US;
                let began = mark.map(|mark| self.began_us.get(&mark).copied().unwrap_or(since));
                let began_us = began.map_or(0, |began| EPOCH_US + began);
                let held = self.held.get(&part.key);
                let terms = terms(part, left);
                let change = Change { terms, by, age_us, charged_cold, receipt, began_us, held };
                settle(now, &change, self.refunds.entry(part.key.clone()).or_default())
            });
            return (vec![1; step.parts.len()], writes.collect());
        }
        let charges: Vec<Charge<'_>> = parts
            .clone()
            .map(|(part, left)| Charge {
                terms: terms(part, left),
                cost: part.cost,
                alone: part.alone,
                held: self.held.get(&part.key),
            })
            .collect();
        let answer = check(now, &charges);
        let whole = |number: u64| i64::try_from(number).expect("below 2^63");
        let mut reply = vec![i64::from(answer.allowed), whole(step.now_us)];
        let mut writes = Vec::new();
        for ((reading, write), (part, left)) in answer.limits.into_iter().zip(parts) {
            let is_plain = self.held.get(&part.key).is_none_or(|held| held.is_plain(now));
            if is_plain && answer.allowed && reading.retry == Retry::Fits && part.cost > 0 {
                let receipt =
                    Receipt { at_us: step.now_us, full_us: reading.reset_us, cold: left > 0 };
                self.receipts.entry(part.key.clone()).or_default().push(receipt);
            }
            let retry = match reading.retry {
                Retry::Fits => 0,
                Retry::AfterUs(wait_us) => whole(wait_us),
                Retry::Never => -1,
            };
            let (remaining, next_us) = (whole(reading.remaining), whole(reading.next_us));
            let flags = i64::from(left > 0) + if is_plain { 0 } else { 2 };
            reply.extend([remaining, next_us, whole(reading.reset_us), retry, flags]);
            writes.push(write);
        }
        (reply, writes)
    }

    /// Takes in what was written and compares it with what Redis holds: bit for bit, the expiry to
    /// the moment that passed between writing and looking.
    fn take_in(&mut self, step: &Step, writes: &[Option<Write>], seen: &Seen, at: &str) {
        for ((part, write), held) in step.parts.iter().zip(writes).zip(&seen.held) {
            let key = &part.key;
            let ttl_ms = match (write, self.held.get(key)) {
                (Some(write), _) => i64::try_from(write.ttl_ms).expect("below 2^63"),
                (None, Some(_)) => -1,
                (None, None) => -2,
            };
            if let Some(write) = write {
                self.held.insert(key.clone(), write.held.clone());
            }
            if ttl_ms >= 0 && ttl_ms <= seen.elapsed_ms && held.bytes.is_none() {
                // Expired between the two, on a machine that was busy elsewhere.
                self.held.remove(key);
                continue;
            }
            let bytes = self.held.get(key).map(bytes);
            assert_eq!(held.bytes, bytes, "{at} {key}: {step:?}");
            let slack_ms = if ttl_ms >= 0 { seen.elapsed_ms } else { 0 };
            let late_ms = ttl_ms - held.ttl_ms;
            assert!((0..=slack_ms).contains(&late_ms), "{at} {key}: {held:?}, not {ttl_ms} ms");
        }
        for (mark, began) in step.marks().into_iter().zip(&seen.marks) {
            let known = self.began_us.get(&mark).map(u64::to_string);
            assert_eq!(began, &known.unwrap_or_default(), "{at} m{mark}: {step:?}");
        }
        for (part, given_back) in step.parts.iter().zip(&seen.given_back) {
            let refunds = self.refunds.get(&part.key).map(Refunds::to_bytes);
            assert_eq!(given_back, &refunds.unwrap_or_default(), "{at} {}: {step:?}", part.key);
        }
    }
}

/// As it is stored.
fn bytes(held: &Held) -> Vec<u8> {
    if let Held::Leased(bucket) = held {
        assert_eq!(Bucket::from_bytes(&bucket.to_bytes()).as_ref(), Some(bucket));
    }
    held.to_bytes()
}

/// What Redis says of one key after a step.
#[derive(Debug, PartialEq, Eq)]
struct HeldThere {
    bytes: Option<Vec<u8>>,
    /// -1 without expiry, -2 without key.
    ttl_ms: i64,
}

/// What one transaction gave.
struct Seen {
    reply: Vec<i64>,
    held: Vec<HeldThere>,
    /// What was given back of each limit that was settled.
    given_back: Vec<Vec<u8>>,
    /// What its marks say.
    marks: Vec<String>,
    /// At most that long between the step and the look.
    elapsed_ms: i64,
}

struct Server {
    connection: MultiplexedConnection,
    check: String,
    settle: String,
    grant: String,
    lease: String,
    reset: String,
    settled: u64,
}

impl Server {
    async fn connect(redis: &Redis) -> Self {
        let client = redis::Client::open(redis.url()).expect("a sound URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let mut shas = Vec::new();
        for script in [CHECK, SETTLE, GRANT, LEASE, RESET] {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script);
            let sha: String = load.query_async(&mut connection).await.expect("loaded");
            shas.push(sha);
        }
        let [check, settle, grant, lease, reset] = shas.try_into().expect("five");
        Self { connection, check, settle, grant, lease, reset, settled: 0 }
    }

    async fn delete(&mut self, key: &str) {
        redis::cmd("DEL").arg(key).exec_async(&mut self.connection).await.expect("deleted");
    }

    /// What was forgotten.
    async fn reset(&mut self, key: &str, now_us: u64, keep_us: u64) -> u32 {
        let given_back = format!("g{key}");
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("EVALSHA").arg(&self.reset).arg(2).arg(key).arg(&given_back);
        pipeline.arg(now_us).arg(keep_us).cmd("PERSIST").arg(&given_back).ignore();
        let (forgot,) = pipeline.query_async(&mut self.connection).await.expect("reset");
        forgot
    }

    async fn grant(&mut self, key: &str, now_us: u64, units: u32, for_us: u64) {
        let letter = if algorithm_of(key) == Algorithm::Window { "w" } else { "g" };
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("EVALSHA").arg(&self.grant).arg(1).arg(key).arg(now_us);
        pipeline.arg(letter).arg(units).arg(for_us).cmd("PERSIST").arg(key);
        pipeline.exec_async(&mut self.connection).await.expect("granted");
    }

    /// The step and a look at its keys in one transaction, timed by Redis itself. Then the keys
    /// lose their expiry: real time means nothing to a clock that jumps by hours.
    async fn evaluate(&mut self, step: &Step) -> Seen {
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("TIME");
        let keys: Vec<&String> = step.parts.iter().map(|part| &part.key).collect();
        let given_back: Vec<String> = keys.iter().map(|key| format!("g{key}")).collect();
        let marks = step.marks();
        let names: Vec<String> = marks.iter().map(|mark| format!("m{mark}")).collect();
        if let Some(call) = &step.lease {
            pipeline.cmd("EVALSHA").arg(&self.lease).arg(1 + names.len());
            pipeline.arg(&keys).arg(&names).arg(step.now_us).arg(COLD_US);
            pipeline.arg(packed_lease(call, step.parts[0].quota));
            if let Some(told) = step.parts[0].told {
                pipeline.arg(told);
            }
        } else if step.settles && step.apart {
            pipeline.cmd("EVALSHA").arg(&self.settle).arg(keys.len()).arg(&keys);
            pipeline.arg(step.now_us).arg(COLD_US).arg(REMEMBERED_US / 1_000);
        } else if step.settles {
            self.settled += 1;
            let done: Vec<String> =
                (0..keys.len()).map(|n| format!("s{}-{n}", self.settled)).collect();
            pipeline.cmd("EVALSHA").arg(&self.settle).arg(3 * keys.len() + names.len());
            pipeline.arg(&keys).arg(done).arg(&given_back).arg(&names);
            pipeline.arg(step.now_us).arg(COLD_US).arg(REMEMBERED_US / 1_000);
        } else {
            pipeline.cmd("EVALSHA").arg(&self.check).arg(keys.len() + names.len());
            pipeline.arg(&keys).arg(&names).arg(step.now_us).arg(COLD_US);
        }
        for part in step.parts.iter().filter(|_| step.lease.is_none()) {
            pipeline.arg(part.packed(&marks, step.settles));
        }
        for key in &keys {
            pipeline.cmd("GET").arg(key).cmd("PTTL").arg(key).cmd("PERSIST").arg(key).ignore();
        }
        for key in given_back.iter().filter(|_| step.settles) {
            pipeline.cmd("GET").arg(key).cmd("PTTL").arg(key).cmd("PERSIST").arg(key).ignore();
        }
        for name in &names {
            pipeline.cmd("GET").arg(name);
        }
        pipeline.cmd("TIME");
        let values: Vec<Value> = pipeline.query_async(&mut self.connection).await.expect("values");
        let [before, reply, looks @ .., after] = values.as_slice() else {
            panic!("{values:?}");
        };
        let (looks, marks) = looks.split_at(looks.len() - names.len());
        let (looks, backs) = looks.split_at(2 * keys.len());
        let text = |value| redis::from_redis_value_ref::<Option<String>>(value).expect("a string");
        let bytes = |pair: &[Value]| redis::from_redis_value_ref::<Option<Vec<u8>>>(&pair[0]);
        let backs = backs.chunks(2).map(|pair| bytes(pair).expect("a string").unwrap_or_default());
        let held = looks.chunks(2).map(|pair| {
            let bytes = redis::from_redis_value_ref(&pair[0]).expect("a string");
            HeldThere { bytes, ttl_ms: redis::from_redis_value_ref(&pair[1]).expect("a number") }
        });
        Seen {
            reply: redis::from_redis_value_ref(reply).expect("integers"),
            held: held.collect(),
            given_back: backs.collect(),
            marks: marks.iter().map(|mark| text(mark).unwrap_or_default()).collect(),
            elapsed_ms: time_ms(after) - time_ms(before) + 1,
        }
    }
}

/// As the header of rl_lease says.
fn packed_lease(call: &Call, quota: Quota) -> Vec<u8> {
    let mut packed = call.holder.to_le_bytes().to_vec();
    for number in [call.seq, call.demand, call.left, call.back] {
        packed.extend(number.to_le_bytes());
    }
    packed.push(call.want as u8);
    let (warm, cold) = (quota.pace(), quota.cold_pace());
    let numbers = [warm.interval, warm.span, cold.interval, cold.span];
    packed.extend(numbers.map(f64::to_le_bytes).as_flattened());
    let times = Times::of(quota);
    for us in [times.generation_us, times.short_us, times.hold_us] {
        packed.extend(us.to_le_bytes());
    }
    packed
}

fn time_ms(time: &Value) -> i64 {
    let (seconds, us): (i64, i64) = redis::from_redis_value_ref(time).expect("a time");
    seconds * 1_000 + us / 1_000
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

#[tokio::test]
async fn the_scripts_and_their_twin_agree_bit_for_bit() {
    let seed = number("RL_CHECK_SEED").unwrap_or_else(|| getrandom::u64().expect("randomness"));
    let steps = number("RL_CHECK_STEPS").map_or(STEPS, |n| usize::try_from(n).expect("a count"));
    println!("RL_CHECK_SEED={seed} RL_CHECK_STEPS={steps}");
    let redis = Redis::start().await;
    let mut server = Server::connect(&redis).await;
    let mut random = Random::new(seed);
    let mut model = Model::default();
    let mut now_us = START_US;
    let (mut allowed, mut checked, mut limits, mut leased) = (0, 0, 0, 0);
    let mut last: Option<(Step, Vec<i64>)> = None;
    for index in 0..steps {
        let at = format!("seed {seed} step {index}");
        let follow = last.take().filter(|_| random.below(3) == 0);
        let promised = follow.and_then(|(step, reply)| model.promised(&mut random, &step, &reply));
        if promised.is_none() && random.below(10) == 0 {
            // Expired, evicted or flushed: the key is gone.
            let number = random.below(KEYS);
            let key = key_of(number);
            model.held.remove(&key);
            server.delete(&key).await;
        }
        if promised.is_none() && random.below(20) == 0 {
            let key = key_of(random.below(KEYS));
            let keep_us = random.one_of(&[1_000, 60_000_000, 86_400_000_000]);
            let forgot = server.reset(&key, now_us, keep_us).await;
            assert_eq!(forgot, u32::from(model.held.remove(&key).is_some()), "{at} {key}");
            let reset = Refunds::reset(Instant::from_unix_us(now_us), keep_us);
            model.refunds.insert(key, reset);
        }
        if promised.is_none() && random.below(6) == 0 {
            let key = key_of(random.below(KEYS));
            let units = random.one_of(&[0, 1, 3, 50, 1_000_000]);
            let for_us = random.one_of(&[1, 2_000_000, 600_000_000_000]);
            server.grant(&key, now_us, units, for_us).await;
            let (now, held) = (Instant::from_unix_us(now_us), model.held.get(&key));
            let empty = Held::empty(algorithm_of(&key), now);
            let write = grant(now, held, empty, units, for_us, 1);
            model.held.insert(key, write.held);
        }
        if promised.is_none() && random.below(40) == 0 {
            let mark = usize::try_from(random.below(MARKS)).expect("small");
            model.began_us.remove(&mark);
            server.delete(&format!("m{mark}")).await;
        }
        let step = promised.unwrap_or_else(|| {
            let from_us = if now_us > END_US { START_US } else { now_us };
            let next_us = step_clock(&mut random, from_us);
            model.step(&mut random, next_us)
        });
        now_us = step.now_us;
        let seen = server.evaluate(&step).await;
        let (expected, writes) = model.expected(&step);
        assert_eq!(seen.reply, expected, "{at}: {step:?}");
        model.take_in(&step, &writes, &seen, &at);
        limits += step.parts.len();
        let checks = !step.settles && step.lease.is_none();
        leased += usize::from(step.lease.is_some() && seen.reply[1] > 0);
        checked += usize::from(checks);
        allowed += usize::from(checks && seen.reply[0] == 1);
        last = Some((step, seen.reply));
    }
    let denied = checked - allowed;
    println!(
        "{steps} steps, {limits} limits, {allowed} allowed, {denied} denied, {leased} leases, 0 mismatches"
    );
    assert!(steps < 1_000 || leased > steps / 50, "leases come up");
    assert!(steps < 1_000 || allowed.min(denied) > steps / 10, "both kinds come up");
}

/// Of one limit, so many within a moment that the older ones are remembered by twos.
#[tokio::test]
async fn what_is_given_back_of_a_busy_limit_agrees_bit_for_bit() {
    const REFUND_BYTES: usize = 24;
    let redis = Redis::start().await;
    let mut server = Server::connect(&redis).await;
    let mut random = Random::new(3);
    let mut model = Model::default();
    let (mut now_us, mut most, mut whole, mut parts_of) = (START_US, 0, 0, 0);
    let quota = Quota::new(7_000, 1_000_000, 1_000).expect("sound");
    for index in 0..3_000 {
        now_us += random.below(130);
        let mut part = Part::random(&mut random, "k0".to_owned());
        let settles = random.below(5) < 2;
        part =
            Part { quota, mark: None, alone: false, charged_cold: false, cost: 1, by: -1, ..part };
        // Out of their order, and some never.
        let open = model.receipts.entry(part.key.clone()).or_default();
        let settles = settles && !open.is_empty();
        if settles {
            let late = usize::try_from(random.below(40)).expect("small").min(open.len() - 1);
            part.receipt = Some(open.remove(open.len() - 1 - late));
        }
        let before = model.held.get(&part.key).cloned();
        let step = Step { now_us, settles, apart: false, lease: None, parts: vec![part] };
        let seen = server.evaluate(&step).await;
        let (expected, writes) = model.expected(&step);
        assert_eq!(seen.reply, expected, "{index}: {step:?}");
        model.take_in(&step, &writes, &seen, &format!("step {index}"));
        if let (true, Some(Held::Arrival(before, _)), Some(Held::Arrival(after, _))) =
            (settles, before, model.held.get("k0"))
        {
            let back = before.0 - after.0;
            whole += usize::from(back == quota.pace().interval);
            parts_of += usize::from(back < quota.pace().interval);
            most = most.max(seen.given_back[0].len() / REFUND_BYTES);
        }
    }
    println!("{whole} whole, {parts_of} in part, at most {most} remembered");
    assert!(most == 32 && whole > 100 && parts_of > 100, "{most} {whole} {parts_of}");
}

/// At most once per decision and limit, however often it is sent.
#[tokio::test]
async fn what_was_settled_is_not_settled_again() {
    let redis = Redis::start().await;
    let mut server = Server::connect(&redis).await;
    let mut random = Random::new(1);
    for key in ["k0", "k1W"] {
        let mut part = Part::random(&mut random, key.to_owned());
        (part.by, part.mark) = (1, None);
        let step =
            Step { now_us: START_US, settles: true, apart: false, lease: None, parts: vec![part] };
        let first = server.evaluate(&step).await;
        assert_eq!(first.reply, [1]);
        // The number of the settlement is its name.
        server.settled -= 1;
        let again = server.evaluate(&step).await;
        assert_eq!(again.reply, [0], "{key}");
        assert_eq!(again.held[0].bytes, first.held[0].bytes, "{key}");
        server.settled += 1;
    }
}

/// Whatever a key has seen, it costs Redis at most 160 bytes: name, value and entry.
#[tokio::test]
async fn no_key_of_either_algorithm_takes_more_than_160_bytes() {
    const BYTES_MAX: u64 = 160;
    let redis = Redis::start().await;
    let mut server = Server::connect(&redis).await;
    let mut random = Random::new(2);
    let name = "ratelimit:{us-central1|a1}:ip:203.0.113.100:api.per-client";
    let keys = [(name.to_owned(), Algorithm::Gcra), (format!("{name}:W"), Algorithm::Window)];
    for (key, algorithm) in keys {
        let mut most = 0;
        for limit in [100, 32_767, 32_768, 8_388_607, 8_388_608, 1_000_000_000] {
            let quota = algorithm.quota(limit, 3_600_000_000, limit).expect("sound");
            server.delete(&key).await;
            let mut now_us = START_US;
            for turn in 0..600u64 {
                now_us += random.below(72_000_000);
                let by = i64::from(limit) / 7 + 1;
                let cost = u32::try_from(random.below(u64::from(limit) / 8 + 2)).expect("small");
                let mut part = Part::random(&mut random, key.clone());
                part = Part { quota, algorithm, mark: None, cost, by, alone: false, ..part };
                let settles = turn.is_multiple_of(5);
                server
                    .evaluate(&Step {
                        now_us,
                        settles,
                        apart: false,
                        lease: None,
                        parts: vec![part],
                    })
                    .await;
                let mut usage = redis::cmd("MEMORY");
                usage.arg("USAGE").arg(&key);
                let usage: Option<u64> =
                    usage.query_async(&mut server.connection).await.expect("a number");
                most = most.max(usage.unwrap_or(0));
            }
        }
        println!("{key}: at most {most} bytes");
        assert!((1..=BYTES_MAX).contains(&most), "{key}: {most} bytes");
    }
}
