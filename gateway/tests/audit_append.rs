//! The append to a chain on a real Redis against its twin in the policy, through the store's own calls, on
//! the same random history: every outcome and everything that is stored. Then what the bytes are worth:
//! what was appended verifies.
//!
//! The seed is printed; `AUDIT_SEED` repeats a run, `AUDIT_STEPS` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tidegate_gateway::clock::{Clock, SystemClock};
use tidegate_gateway::store::chains::{Chains, head_key, ids_key, segment_key};
use tidegate_gateway::store::memory::MemoryStore;
use tidegate_gateway::store::{Store, StoreCounters, StoreFailure};
use tidegate_policy::audit::append::{Append, Noted, Outcome, Place, Shelf};
use tidegate_policy::audit::hash::Hash;
use tidegate_policy::audit::record::{ChainName, Head, Line};
use tidegate_tests::eventually;
use tidegate_tests::random::Random;
use tidegate_tests::redis::Redis;

mod redis_store;

const STEPS: u64 = 6_000;
const WAIT: Duration = Duration::from_secs(20);

fn chain() -> ChainName {
    ChainName::new("eu/staging").expect("a name")
}

async fn connect(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).expect("a sound URL");
    client.get_multiplexed_async_connection().await.expect("a connection")
}

/// Ids of a small world, so that they come again; bytes with all that a protocol could stumble over.
fn lines(random: &mut Random) -> Vec<Line> {
    let mut ids: Vec<u64> = (0..=random.below(4)).map(|_| random.below(400)).collect();
    ids.sort_unstable();
    ids.dedup();
    let line =
        |id: u64| Line { id: format!("e-{id}"), bytes: format!("{id}\r\n\0$ü").into_bytes() };
    ids.into_iter().map(line).collect()
}

/// A place that the chain is not at, in one of its parts.
fn wrong(random: &mut Random, place: Place) -> Place {
    let mut wrong = place;
    match random.below(3) {
        0 => wrong.head.seq += 1,
        1 => wrong.head.hash = Hash::of(&[b"another"]),
        _ => wrong.segment += 1,
    }
    wrong
}

/// What Redis holds of the chain, as a shelf.
async fn held(connection: &mut MultiplexedConnection, place: Place, newest: u64) -> Shelf {
    let mut shelf = Shelf { place, ..Shelf::default() };
    for segment in 0..=newest {
        let mut list = redis::cmd("LRANGE");
        list.arg(segment_key(&chain(), segment)).arg(0).arg(-1);
        let records: Vec<Vec<u8>> = list.query_async(connection).await.expect("records");
        let mut all = redis::cmd("HGETALL");
        all.arg(ids_key(&chain(), segment));
        let ids: BTreeMap<String, u64> = all.query_async(connection).await.expect("ids");
        if !records.is_empty() {
            shelf.segments.insert(segment, records);
            shelf.ids.insert(segment, ids);
        }
    }
    shelf
}

/// The head alone, as somebody may set it.
async fn set_head(connection: &mut MultiplexedConnection, place: Place) {
    let mut command = redis::cmd("DEL");
    command.arg(head_key(&chain()));
    if place != Place::GENESIS {
        let Place { head, segment, segment_first } = place;
        command = redis::cmd("HSET");
        command.arg(head_key(&chain())).arg("seq").arg(head.seq);
        command.arg("hash").arg(head.hash.to_string());
        command.arg("seg").arg(segment).arg("seg_first").arg(segment_first);
    }
    command.exec_async(connection).await.expect("set");
}

/// The first of what lies behind the head in that segment already, as they were appended.
fn lying_there(random: &mut Random, shelf: &Shelf, segment: u64) -> Vec<Line> {
    let counted = if segment == shelf.place.segment { shelf.place.segment_len() } else { 0 };
    let counted = usize::try_from(counted).expect("small");
    let records = shelf.segments.get(&segment).map_or(&[][..], Vec::as_slice);
    let behind = records.iter().skip(counted);
    let line = |bytes: &Vec<u8>| {
        let text = String::from_utf8(bytes.clone()).expect("text");
        Line { id: format!("e-{}", text.lines().next().expect("an id")), bytes: bytes.clone() }
    };
    behind.take(1 + usize::try_from(random.below(8)).expect("small")).map(line).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

#[tokio::test]
async fn the_script_and_its_twin_agree() {
    let seed = number("AUDIT_SEED").unwrap_or_else(|| getrandom::u64().expect("randomness"));
    let steps = number("AUDIT_STEPS").unwrap_or(STEPS);
    println!("AUDIT_SEED={seed} AUDIT_STEPS={steps}");
    let redis = Redis::start().await;
    let store = redis_store::start(&redis, WAIT).await;
    let mut connection = connect(&redis).await;
    let mut random = Random::new(seed);
    let mut shelf = Shelf::default();
    let (mut seen, mut knew_better) = ([0_u32; 5], 0_u32);
    let (mut before, mut torn_for) = (vec![Place::GENESIS], 0);
    let mut noted: Vec<Noted> = Vec::new();
    let mut last: Vec<Line> = Vec::new();
    for step in 0..steps {
        let was_torn = torn_for > 0;
        if random.below(60) == 0 {
            // Somebody sets the head back, or takes it away.
            let to = usize::try_from(random.below(1 << 32)).expect("small") % before.len();
            shelf.place = if random.below(8) == 0 { Place::GENESIS } else { before[to] };
            if random.below(6) == 0 {
                // Or a part of it: the segment, and the number of its first record.
                shelf.place.segment += random.below(2);
                let first = (shelf.place.head.seq + random.below(4)).saturating_sub(1);
                shelf.place.segment_first = first;
            }
            set_head(&mut connection, shelf.place).await;
        } else if torn_for > 15 {
            redis.command(&["FLUSHALL"]).await;
            (shelf, before, torn_for) = (Shelf::default(), vec![Place::GENESIS], 0);
        }
        let place = shelf.place;
        let expected = if random.below(5) == 0 { wrong(&mut random, place) } else { place };
        let segment = place.segment + u64::from(random.below(30) == 0);
        let mut lines = lines(&mut random);
        if was_torn && random.below(2) == 0 {
            let there = lying_there(&mut random, &shelf, segment);
            lines = if there.is_empty() { lines } else { there };
        } else if !noted.is_empty() && random.below(2) == 0 {
            // Of all that is noted of these events, or of a part of it, the caller knows better.
            lines = last.clone();
            if random.below(2) == 0 {
                noted.pop();
            }
        } else {
            noted.clear();
        }
        let append = Append {
            expected,
            segment,
            ids_from: segment.saturating_sub(random.below(4)),
            hash: Hash::of(&[&step.to_be_bytes()]),
            lines: &lines,
            refuted: &noted,
        };
        let there = store.append(&chain(), &append).await.expect("an outcome");
        let here = shelf.append(&append);
        assert_eq!(there, here, "seed {seed} step {step}: {append:?}");
        torn_for = if matches!(there, Outcome::Torn(..)) { torn_for + 1 } else { 0 };
        seen[match there {
            Outcome::Done(_) if was_torn => 4,
            Outcome::Done(_) => 0,
            Outcome::Moved(..) => 1,
            Outcome::Duplicates(..) => 2,
            Outcome::Torn(..) => 3,
        }] += 1;
        if let Outcome::Done(place) = there {
            before.push(place);
        }
        knew_better += u32::from(matches!(there, Outcome::Done(_)) && !noted.is_empty());
        noted = if let Outcome::Duplicates(_, noted) = there { noted } else { Vec::new() };
        last = lines;
        assert_eq!(store.place(&chain()).await, Ok(shelf.place), "seed {seed} step {step}");
        if step % 500 == 0 {
            let newest = shelf.segments.keys().next_back().copied().unwrap_or_default();
            let there = held(&mut connection, shelf.place, newest).await;
            assert_eq!(there, shelf, "seed {seed} step {step}");
        }
    }
    let newest = shelf.segments.keys().next_back().copied().unwrap_or_default();
    assert_eq!(held(&mut connection, shelf.place, newest).await, shelf, "seed {seed}");
    println!(
        "{steps} steps, {} records, done/moved/duplicates/torn/done since {seen:?}",
        shelf.place.head.seq
    );
    assert!(steps < 1_000 || knew_better > 50, "{knew_better}");
    assert!(steps < 1_000 || seen.iter().all(|count| *count > 50), "all kinds come up: {seen:?}");
}

#[tokio::test]
async fn records_are_read_back_in_pieces() {
    let redis = Redis::start().await;
    let there = redis_store::start(&redis, WAIT).await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let here = MemoryStore::new(clock, 10, StoreCounters::default());
    for chains in [there.chains(), here.chains()] {
        let chains = chains.expect("both keep chains");
        assert_eq!(chains.place(&chain()).await, Ok(Place::GENESIS));
        let lines: Vec<Line> =
            (0..5).map(|n| Line { id: format!("e-{n}"), bytes: vec![n; 3] }).collect();
        let append = Append {
            expected: Place::GENESIS,
            segment: 0,
            ids_from: 0,
            hash: Hash::of(&[b"x"]),
            lines: &lines,
            refuted: &[],
        };
        let done = chains.append(&chain(), &append).await;
        assert!(matches!(done, Ok(Outcome::Done(_))), "{done:?}");
        let bytes = |from: u8, to: u8| Ok((from..to).map(|n| vec![n; 3]).collect::<Vec<_>>());
        for (from, count, expected) in [
            (0, 5, bytes(0, 5)),
            (1, 2, bytes(1, 3)),
            (4, 9, bytes(4, 5)),
            (7, 1, bytes(0, 0)),
            (0, 0, bytes(0, 0)),
        ] {
            assert_eq!(chains.records(&chain(), 0, from, count).await, expected);
        }
        let other = ChainName::new("us").expect("a name");
        assert_eq!(chains.place(&other).await, Ok(Place::GENESIS), "chains are apart");
    }
}

#[tokio::test]
async fn a_store_in_memory_is_bounded() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let counters = StoreCounters::default();
    let store = MemoryStore::new(clock, 3, counters.clone());
    let chains = store.chains().expect("chains");
    let lines: Vec<Line> = (0..4).map(|n| Line { id: format!("e-{n}"), bytes: vec![n] }).collect();
    let append = Append {
        expected: Place::GENESIS,
        segment: 0,
        ids_from: 0,
        hash: Hash::of(&[b"x"]),
        lines: &lines,
        refuted: &[],
    };
    assert_eq!(chains.append(&chain(), &append).await, Err(StoreFailure::Full(3)));
    assert_eq!(counters.full.get(), 1);
}

/// Whoever may write to Redis can note anything.
#[tokio::test]
async fn what_is_noted_of_an_event_and_is_no_number_can_be_refuted_as_well() {
    let redis = Redis::start().await;
    let store = redis_store::start(&redis, WAIT).await;
    let line = [Line { id: "e-1".to_owned(), bytes: b"x".to_vec() }];
    for (number, noted) in ["abc", "1e3", "-1", "007", "99999999999999999", ""].iter().enumerate() {
        redis.command(&["FLUSHALL"]).await;
        redis.command(&["HSET", &ids_key(&chain(), 0), "e-1", noted]).await;
        let hash = Hash::of(&[&number.to_be_bytes()]);
        let expected = Place::GENESIS;
        let mut append =
            Append { expected, segment: 0, ids_from: 0, hash, lines: &line, refuted: &[] };
        let refuted = [Noted { index: 0, seq: 0 }];
        let told = store.append(&chain(), &append).await;
        assert_eq!(told, Ok(Outcome::Duplicates(expected, refuted.to_vec())), "{noted}");
        append.refuted = &refuted;
        let done = store.append(&chain(), &append).await;
        assert!(matches!(done, Ok(Outcome::Done(_))), "{noted}: {done:?}");
    }
}

/// A head that somebody tore apart is an error that names it, never a chain that begins anew.
#[tokio::test]
async fn a_head_without_all_its_parts_is_refused() {
    let redis = Redis::start().await;
    let store = redis_store::start(&redis, WAIT).await;
    let mut connection = connect(&redis).await;
    let line = [Line { id: "e-1".to_owned(), bytes: b"x".to_vec() }];
    let append = Append {
        expected: Place::GENESIS,
        segment: 0,
        ids_from: 0,
        hash: Hash::of(&[b"x"]),
        lines: &line,
        refuted: &[],
    };
    for part in ["seq", "hash", "seg", "seg_first"] {
        let mut set = redis::cmd("HSET");
        set.arg(head_key(&chain())).arg(part).arg("0");
        set.exec_async(&mut connection).await.expect("set");
        let refused = store.append(&chain(), &append).await;
        assert!(
            matches!(&refused, Err(StoreFailure::Refused(why)) if why.contains("holds no head")),
            "{refused:?}"
        );
        redis::cmd("DEL").arg(head_key(&chain())).exec_async(&mut connection).await.expect("gone");
    }
}

/// Numbers keep all their digits up to the largest that a record can have.
#[tokio::test]
async fn large_numbers_are_written_out() {
    const SEQ: u64 = (1 << 53) - 8;
    let redis = Redis::start().await;
    let store = redis_store::start(&redis, WAIT).await;
    let mut connection = connect(&redis).await;
    let head = Head { seq: SEQ, hash: Hash::of(&[b"before"]) };
    let place = Place { head, segment: 3, segment_first: SEQ };
    let mut set = redis::cmd("HSET");
    set.arg(head_key(&chain())).arg("seq").arg(SEQ).arg("hash").arg(head.hash.to_string());
    set.arg("seg").arg(3).arg("seg_first").arg(SEQ);
    set.exec_async(&mut connection).await.expect("set");
    let lines =
        ["a", "b"].map(|id| Line { id: id.to_owned(), bytes: id.as_bytes().to_vec() }).to_vec();
    let hash = Hash::of(&[b"after"]);
    let append =
        Append { expected: place, segment: 4, ids_from: 3, hash, lines: &lines, refuted: &[] };
    let end = Place { head: Head { seq: SEQ + 2, hash }, segment: 4, segment_first: SEQ + 1 };
    assert_eq!(store.append(&chain(), &append).await, Ok(Outcome::Done(end)));
    let mut all = redis::cmd("HGETALL");
    all.arg(ids_key(&chain(), 4));
    let ids: BTreeMap<String, u64> = all.query_async(&mut connection).await.expect("ids");
    assert_eq!(ids, BTreeMap::from([("a".to_owned(), SEQ + 1), ("b".to_owned(), SEQ + 2)]));
}

/// The connections of others, by number.
async fn clients(redis: &Redis) -> BTreeSet<String> {
    let list = redis.command(&["CLIENT", "LIST"]).await;
    let others = list.lines().filter(|line| line.contains("id=") && !line.contains("cmd=client"));
    others
        .filter_map(|line| line.split(' ').find(|word| word.starts_with("id=")))
        .map(str::to_owned)
        .collect()
}

/// What cuts connections loses nothing: a `timeout` of Redis, a balancer before it.
#[tokio::test]
async fn connections_that_are_cut_find_the_same_memory_and_those_to_a_new_redis_another() {
    let mut redis = Redis::start_durable().await;
    let store = redis_store::start(&redis, WAIT).await;
    let opened_anew = async |redis: &Redis, before: &BTreeSet<String>| {
        eventually(WAIT, "both connections were opened anew", async || {
            let clients = clients(redis).await;
            // Only then: until a connection is known to be cut it counts as up.
            let up = store.connections();
            let is_done = clients.len() == 2 && clients.is_disjoint(before) && up == Some((2, 2));
            if is_done { Ok(()) } else { Err((up, clients)) }
        })
        .await;
    };
    opened_anew(&redis, &BTreeSet::new()).await;
    let memory = store.memory(&chain());
    assert!(memory.is_some(), "{memory:?}");
    for cut in 0..3 {
        let before = clients(&redis).await;
        redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        opened_anew(&redis, &before).await;
        assert_eq!(store.memory(&chain()), memory, "{cut}");
    }
    redis.restart().await;
    // It counts its clients anew.
    eventually(WAIT, "the new one is found", async || {
        let found = store.memory(&chain());
        if store.connections() == Some((2, 2)) && found != memory { Ok(()) } else { Err(found) }
    })
    .await;
}
