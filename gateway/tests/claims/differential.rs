//! The scripts of claims on a real Redis against their twin in the policy, on the same random history
//! of a few owners: every reply, what is stored octet for octet, and every expiry.
//!
//! The seed is printed; `IDEM_SEED` repeats a run, `IDEM_STEPS` makes it longer.

use std::collections::BTreeMap;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use tidegate_policy::idempotency::record::{
    self, Abandoned, Begun, Claim, Completed, ENDED_MAX, Extended, Fence, Found, Held, Record,
    Write,
};
use tidegate_policy::idempotency::stored::{StoredAnswer, StoredHeaders};
use tidegate_tests::random::Random;
use tidegate_tests::redis::Redis;

use crate::support::{hash, owner};

const SCRIPTS: [&str; 5] = [
    include_str!("../../../lua/idem_begin.lua"),
    include_str!("../../../lua/idem_lookup.lua"),
    include_str!("../../../lua/idem_complete.lua"),
    include_str!("../../../lua/idem_abandon.lua"),
    include_str!("../../../lua/idem_extend.lua"),
];
const STEPS: usize = 20_000;
const KEYS: u64 = 6;
/// More than a record remembers the ends of.
const OWNERS: u64 = 9;
const START_US: u64 = 1_800_000_000_000_000;

fn answer(random: &mut Random) -> StoredAnswer {
    let status = u16::try_from(200 + random.below(400)).expect("small");
    let mut headers = Vec::new();
    for _ in 0..random.below(3) {
        let (name_len, value_len) = (random.below(20), random.below(60));
        headers.push((random.octets(name_len), random.octets(value_len)));
    }
    let len = match random.below(20) {
        0 => 70_000,
        1 => 0,
        _ => random.below(300),
    };
    let body = (random.below(4) > 0).then(|| random.octets(len));
    StoredAnswer { status, headers: StoredHeaders::new(headers).expect("few"), body }
}

/// One step as both sides take it.
#[derive(Debug)]
enum Step {
    Begin(Claim),
    Lookup(Option<u8>),
    Complete(Held, StoredAnswer, u64),
    Abandon(Held, u64),
    Extend(Held, u64, u64),
}

impl Step {
    fn random(random: &mut Random, fences: &BTreeMap<(u64, u64), Fence>, key: u64) -> Self {
        let number = random.below(OWNERS);
        let ttl_ms = 60_000 + random.below(86_400_000);
        // Mostly what the owner knows, sometimes what it cannot know.
        let fence = match random.below(8) {
            0..=2 => 0,
            3 => random.below(5),
            _ => fences.get(&(key, number)).copied().unwrap_or(1),
        };
        let held = Held { owner: owner(number.into()), fence };
        match random.below(13) {
            0..=4 => Self::Begin(Claim {
                owner: owner(number.into()),
                hash: hash(if random.below(12) == 0 { 8 } else { 7 }),
                lock_us: random.below(30_000_000),
                ttl_ms,
                takeover: random.below(2) == 0,
            }),
            5 => Self::Lookup(
                [None, Some(7), Some(8)][usize::try_from(random.below(3)).expect("small")],
            ),
            6 | 12 => Self::Complete(held, answer(random), ttl_ms),
            7..=10 => Self::Abandon(held, ttl_ms),
            _ => Self::Extend(held, random.below(30_000_000), ttl_ms),
        }
    }

    fn command(&self, shas: &[String], key: &str, now_us: u64) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        let mut on = |script: usize| command.arg(&shas[script]).arg(1).arg(key).clone();
        match self {
            Self::Begin(claim) => {
                let mut command = on(0);
                command.arg(now_us).arg(claim.owner.to_bytes().as_slice());
                command.arg(claim.hash.as_bytes().as_slice()).arg(claim.lock_us).arg(claim.ttl_ms);
                command.arg(u8::from(claim.takeover)).clone()
            }
            Self::Lookup(asked) => {
                let asked = asked.map(|number| hash(number).as_bytes().to_vec());
                on(1).arg(now_us).arg(asked.unwrap_or_default()).arg(0).clone()
            }
            Self::Complete(held, answer, ttl_ms) => {
                let mut command = on(2);
                command.arg(now_us).arg(held.owner.to_bytes().as_slice()).arg(held.fence);
                command.arg(hash(7).as_bytes().as_slice()).arg(ttl_ms).arg(answer.status);
                command.arg(u8::from(answer.body.is_some())).arg(answer.headers.to_bytes());
                command.arg(answer.body.clone().unwrap_or_default()).clone()
            }
            Self::Abandon(held, keep_ms) => {
                on(3).arg(held.owner.to_bytes().as_slice()).arg(held.fence).arg(keep_ms).clone()
            }
            Self::Extend(held, lock_us, ttl_ms) => {
                let mut command = on(4);
                command.arg(now_us).arg(held.owner.to_bytes().as_slice()).arg(held.fence);
                command.arg(lock_us).arg(ttl_ms).clone()
            }
        }
    }

    /// What the twin says and writes.
    fn expected(&self, record: Option<&Record>, now_us: u64) -> (Value, Option<Write>) {
        match self {
            Self::Begin(claim) => {
                let (begun, write) = record::begin(now_us, record, claim);
                (Value::Array(begun_parts(&begun)), write)
            }
            Self::Lookup(asked) => {
                let asked = asked.map(hash);
                let found = record::lookup(now_us, record, asked.as_ref());
                (Value::Array(found_parts(&found)), None)
            }
            Self::Complete(held, answer, ttl_ms) => {
                let step =
                    record::complete(now_us, record, *held, hash(7), answer.clone(), *ttl_ms);
                let said = match step.0 {
                    Completed::Stored => 1,
                    Completed::AlreadyDone => 2,
                    Completed::Fenced => 0,
                    Completed::Recovered => -1,
                };
                (Value::Int(said), step.1)
            }
            Self::Abandon(held, keep_ms) => {
                let (abandoned, write) = record::abandon(record, *held, *keep_ms);
                let said = match abandoned {
                    Abandoned::Freed => 1,
                    Abandoned::Fenced => 0,
                    Abandoned::Remembered => -1,
                };
                (Value::Int(said), write)
            }
            Self::Extend(held, lock_us, ttl_ms) => {
                let (extended, write) = record::extend(now_us, record, *held, *lock_us, *ttl_ms);
                let said = match extended {
                    Extended::Extended => 1,
                    Extended::Fenced => 0,
                    Extended::Gone => -1,
                };
                (Value::Int(said), write)
            }
        }
    }
}

fn int(number: u64) -> Value {
    Value::Int(i64::try_from(number).expect("below 2^63"))
}

fn begun_parts(begun: &Begun) -> Vec<Value> {
    match begun {
        Begun::Spent => vec![int(0)],
        Begun::Claimed { fence, taken_over } => {
            vec![int(if *taken_over { 7 } else { 1 }), int(*fence)]
        }
        Begun::Found(found) => found_parts(found),
    }
}

fn found_parts(found: &Found) -> Vec<Value> {
    match found {
        Found::Absent => vec![int(8)],
        Found::InFlight { wait_us } => vec![int(2), int(*wait_us)],
        Found::Conflict => vec![int(4)],
        Found::Unknown => vec![int(5)],
        Found::Unreadable { .. } => panic!("neither twin seals"),
        Found::Done(answer) => {
            let code = if answer.body.is_some() { 3 } else { 6 };
            let mut parts = vec![int(code), int(answer.status.into())];
            parts.push(Value::BulkString(answer.headers.to_bytes()));
            parts.extend(answer.body.clone().map(Value::BulkString));
            parts
        }
    }
}

async fn loaded(connection: &mut MultiplexedConnection) -> Vec<String> {
    let mut shas = Vec::new();
    for script in SCRIPTS {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(script);
        shas.push(load.query_async(connection).await.expect("loaded"));
    }
    shas
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

#[tokio::test]
async fn the_scripts_and_their_twin_agree_octet_for_octet() {
    let seed = number("IDEM_SEED").unwrap_or_else(|| getrandom::u64().expect("randomness"));
    let steps = number("IDEM_STEPS").map_or(STEPS, |n| usize::try_from(n).expect("a count"));
    println!("IDEM_SEED={seed} IDEM_STEPS={steps}");
    let redis = Redis::start().await;
    let client = redis::Client::open(redis.url()).expect("a sound URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let shas = loaded(&mut connection).await;
    let mut random = Random::new(seed);
    let mut records: BTreeMap<u64, Record> = BTreeMap::new();
    let mut fences: BTreeMap<(u64, u64), Fence> = BTreeMap::new();
    let mut replies: BTreeMap<String, usize> = BTreeMap::new();
    let (mut now_us, mut cut, mut full) = (START_US, 0, 0);
    for index in 0..steps {
        let at = format!("seed {seed} step {index}");
        now_us = match random.below(10) {
            0 => {
                let most_us = random.one_of(&[5_000_000, 5_000_000, 5_000_000, 100_000_000]);
                now_us - random.below(most_us)
            }
            1..=3 => now_us,
            _ => now_us + random.below(8_000_000),
        };
        let number = random.below(KEYS);
        let key = format!("k{number}");
        if random.below(20) == 0 {
            // Expired, evicted or flushed.
            records.remove(&number);
            redis::cmd("DEL").arg(&key).exec_async(&mut connection).await.expect("deleted");
        }
        let step = Step::random(&mut random, &fences, number);
        let (expected, write) = step.expected(records.get(&number), now_us);
        if let (Step::Begin(claim), Some(write)) = (&step, &write) {
            let who = (0..OWNERS).find(|n| owner((*n).into()) == claim.owner).expect("known");
            fences.insert((number, who), write.record.fence);
        }
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("TIME").add_command(step.command(&shas, &key, now_us));
        // Real time means nothing to a clock that jumps: what is there loses its expiry.
        pipeline.cmd("GET").arg(&key).cmd("PTTL").arg(&key).cmd("PERSIST").arg(&key).ignore();
        pipeline.cmd("TIME");
        let seen: Vec<Value> = pipeline.query_async(&mut connection).await.expect("values");
        let [before, reply, stored, ttl, after] = seen.as_slice() else {
            panic!("{at}: {seen:?}");
        };
        assert_eq!(*reply, expected, "{at}: {step:?}");
        let ttl_ms: i64 = redis::from_redis_value_ref(ttl).expect("a number");
        match write {
            Some(write) => {
                match write.ttl_ms {
                    Some(own_ms) => {
                        let elapsed_ms = time_ms(after) - time_ms(before) + 1;
                        let late_ms = i64::try_from(own_ms).expect("below 2^63") - ttl_ms;
                        assert!((0..=elapsed_ms).contains(&late_ms), "{at}: {step:?} {ttl_ms}");
                    }
                    None => {
                        cut += u64::from(matches!(step, Step::Begin(_)));
                        assert_eq!(ttl_ms, -1, "{at}: {step:?}, as it was");
                    }
                }
                full += u64::from(write.record.ended.len() == ENDED_MAX);
                records.insert(number, write.record);
            }
            None => assert!(ttl_ms < 0, "{at}: {step:?} wrote"),
        }
        let held = records.get(&number).map(Record::to_bytes);
        let stored: Option<Vec<u8>> = redis::from_redis_value_ref(stored).expect("octets");
        assert_eq!(stored, held, "{at}: {step:?}");
        *replies.entry(kind(&step, reply)).or_default() += 1;
    }
    println!("{replies:?}, {cut} locks cut, {full} full lists of ends");
    assert!(steps < STEPS || cut > 20, "{cut} locks that end later than they may");
    assert!(steps < STEPS || full > 0, "{full} full lists of ends");
    // 8 of begin, 6 of lookup, 4 of complete, 3 of abandon, 3 of extend.
    assert!(steps < STEPS || replies.len() == 24, "every reply comes up: {replies:?}");
}

/// The script and its code.
fn kind(step: &Step, reply: &Value) -> String {
    let script = match step {
        Step::Begin(_) => "begin",
        Step::Lookup(_) => "lookup",
        Step::Complete(..) => "complete",
        Step::Abandon(..) => "abandon",
        Step::Extend(..) => "extend",
    };
    let code = match reply {
        Value::Array(parts) => parts.first(),
        code => Some(code),
    };
    format!("{script} {code:?}")
}

fn time_ms(time: &Value) -> i64 {
    let (seconds, us): (i64, i64) = redis::from_redis_value_ref(time).expect("a time");
    seconds * 1_000 + us / 1_000
}
