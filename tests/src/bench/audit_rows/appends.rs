//! Owns how fast gateways append to one chain: events per second beside a bare INCR, and how long an append
//! takes, and how many events go to the disk, where several gateways append at their own pace.

use std::fmt::Display;
use std::time::{Duration, Instant};

use tidegate_gateway::audit::chain_end::{Accepted, BATCH_MAX};
use tidegate_gateway::clock::{Clock as _, SystemClock};
use tidegate_policy::audit::record::Event;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};

use super::chains::{self, Gateway};
use crate::bench::envoy_rows::Effort;
use crate::bench::stats::{Figures, at_share, shuffle};
use crate::bench::summary::Summary;
use crate::redis::Redis;

/// Interleaved pairs.
const PAIRS: usize = 8;
/// Gateways, and connections that count, that have no rest.
const WRITERS: u32 = 4;
/// Events of an append whose rate is compared.
const BATCH: u64 = 32;
/// Appends of each gateway for a second that another row lasts.
const APPENDS_PER_S: u64 = 400;
/// Gateways, and events per second of each.
const PACES: [(u32, u64); 2] = [(4, 1_000), (8, 250)];
/// How long events are gathered.
const TICKS_MS: [u64; 2] = [20, 50];
/// Each pace lasts so many times as long as another row: there are few appends in a second.
const LONGER: u32 = 5;

/// Measures, prints, adds to the summary.
pub async fn measure(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    let redis = Redis::start().await;
    let mut names = (0_u32..).map(|number| format!("bench-{number}"));
    saturated(&redis, &mut names, effort, summary).await?;
    paced(&redis, &mut names, effort, summary).await
}

async fn saturated(
    redis: &Redis,
    names: &mut impl Iterator<Item = String>,
    effort: Effort,
    summary: &mut Summary,
) -> Result<(), String> {
    let lasts = Duration::from_secs(effort.seconds.into());
    let each = APPENDS_PER_S * u64::from(effort.seconds);
    println!(
        "\nthe audit chain, {WRITERS} gateways that append {BATCH} events at a time without a rest, {each} times each ÷ {WRITERS} connections of INCR, {PAIRS} interleaved pairs of {} s",
        effort.seconds
    );
    let (mut ratio, mut bare, mut again) =
        (Figures::default(), Figures::default(), Figures::default());
    let (mut rates, mut races) = (Figures::default(), Figures::default());
    let (mut spooled, mut busy) = (Figures::default(), Figures::default());
    for _ in 0..PAIRS {
        let incr = increments(redis, lasts).await?;
        let asked = asked(redis, lasts).await?;
        let name = names.next().ok_or("no name is left")?;
        let gateways = chains::gateways(redis, &name, WRITERS).await;
        let done = appended(redis, gateways, each).await?;
        ratio.push(done.events / asked);
        bare.push(done.events / incr);
        rates.push(done.events);
        races.push(done.races_each);
        spooled.push(done.spooled);
        busy.push(done.redis_us_each);
        again.push(increments(redis, lasts).await? / incr);
        // Chains stay for ever.
        redis.command(&["FLUSHALL"]).await;
    }
    println!("  {:<32} {ratio}", "audit_append_32_vs_incr");
    println!("  {:<32} {bare}", "audit_append_32_vs_bare_incr");
    println!("  {:<32} {again}", "audit_incr_aa");
    println!(
        "  events/s {rates}, races lost per append {races}, Redis's CPU µs per append {busy}, on the disk {spooled} %"
    );
    summary.set("audit_append_32_vs_incr", ratio.median());
    summary.set("audit_append_32_vs_bare_incr", bare.median());
    summary.set("audit_incr_aa", again.median());
    summary.set("audit_append_32_events_per_s", rates.median());
    Ok(())
}

/// INCRs per second of connections that wait for their answers, by octets that are ready.
async fn increments(redis: &Redis, lasts: Duration) -> Result<f64, String> {
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    for _ in 0..WRITERS {
        let socket = redis.socket();
        tasks.spawn(async move {
            let mut stream = UnixStream::connect(socket).await?;
            let (mut reply, mut count) = ([0; 64], 0_u32);
            while begin.elapsed() < lasts {
                stream.write_all(b"*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n").await?;
                let read = stream.read(&mut reply).await?;
                if reply[..read].first() != Some(&b':') {
                    return Err(std::io::Error::other("INCR was not answered with a number"));
                }
                count += 1;
            }
            Ok::<_, std::io::Error>(count)
        });
    }
    per_second(tasks, begin).await
}

/// The same by the client that appends.
async fn asked(redis: &Redis, lasts: Duration) -> Result<f64, String> {
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    for _ in 0..WRITERS {
        let url = redis.url();
        tasks.spawn(async move {
            let mut connection =
                redis::Client::open(url)?.get_multiplexed_async_connection().await?;
            let mut count = 0_u32;
            while begin.elapsed() < lasts {
                let _sum: u64 =
                    redis::cmd("INCR").arg("counter").query_async(&mut connection).await?;
                count += 1;
            }
            Ok::<_, redis::RedisError>(count)
        });
    }
    per_second(tasks, begin).await
}

/// What tasks counted since then, per second.
async fn per_second<E: Display + Send + 'static>(
    tasks: JoinSet<Result<u32, E>>,
    begin: Instant,
) -> Result<f64, String> {
    let mut total = 0.0;
    for done in tasks.join_all().await {
        total += f64::from(done.map_err(|error| error.to_string())?);
    }
    Ok(total / begin.elapsed().as_secs_f64())
}

struct Appended {
    /// Per second.
    events: f64,
    /// Races lost, per append.
    races_each: f64,
    /// Events that went to the disk first, of a hundred.
    spooled: f64,
    /// What Redis worked for one append, in µs.
    redis_us_each: f64,
}

async fn appended(redis: &Redis, gateways: Vec<Gateway>, each: u64) -> Result<Appended, String> {
    // What becomes an event is not the append's work.
    let batches = |which: u64| -> Vec<Vec<Event>> {
        let from = which << 40;
        let batch = |n: u64| (from + n * BATCH..from + (n + 1) * BATCH).map(fresh);
        (0..each).map(|n| batch(n).collect()).collect()
    };
    let gateways: Vec<_> =
        (0_u64..).zip(gateways).map(|(which, gateway)| (batches(which), gateway)).collect();
    let worked = redis.cpu_us();
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for (batches, mut gateway) in gateways {
        tasks.spawn(async move {
            for batch in batches {
                gateway.end.commit(batch).await.map_err(|lost| lost.to_string())?;
            }
            Ok::<_, String>(gateway.counters)
        });
    }
    let (mut events, mut races, mut spooled) = (0, 0, 0);
    for counters in tasks.join_all().await {
        let counters = counters?;
        events += counters.appended.get();
        races += counters.races_lost.get();
        spooled += counters.spooled.get();
    }
    let took = begin.elapsed().as_secs_f64();
    let appends = number(events) / number(BATCH);
    Ok(Appended {
        events: number(events) / took,
        races_each: number(races) / appends,
        spooled: number(spooled) * 100.0 / number(events),
        redis_us_each: number(redis.cpu_us().saturating_sub(worked)) / appends,
    })
}

/// What gateways do at their own pace.
struct Pace {
    gateways: u32,
    per_s: u64,
    tick: Duration,
    p99_ms: Figures,
    spooled: Figures,
}

async fn paced(
    redis: &Redis,
    names: &mut impl Iterator<Item = String>,
    effort: Effort,
    summary: &mut Summary,
) -> Result<(), String> {
    let lasts = Duration::from_secs((effort.seconds * LONGER).into());
    println!(
        "\nthe audit chain at a pace, {} rounds of {} s, shuffled: how long an append takes with all that it repeats, and how many events go to the disk",
        effort.rounds,
        lasts.as_secs()
    );
    let mut rows: Vec<Pace> = Vec::new();
    for (gateways, per_s) in PACES {
        rows.extend(TICKS_MS.map(|ms| Pace {
            gateways,
            per_s,
            tick: Duration::from_millis(ms),
            p99_ms: Figures::default(),
            spooled: Figures::default(),
        }));
    }
    let mut seed = effort.seed;
    let mut order: Vec<usize> = (0..rows.len()).collect();
    for round in 1..=effort.rounds {
        shuffle(&mut order, &mut seed);
        for &row in &order {
            let name = names.next().ok_or("no name is left")?;
            let row = &mut rows[row];
            let gateways = chains::gateways(redis, &name, row.gateways).await;
            let (p99_ms, spooled) = at_a_pace(gateways, row.per_s, row.tick, lasts).await?;
            row.p99_ms.push(p99_ms);
            row.spooled.push(spooled);
            redis.command(&["FLUSHALL"]).await;
        }
        eprint!("\r  round {round} of {}", effort.rounds);
    }
    eprintln!("\r");
    for Pace { gateways, per_s, tick, p99_ms, spooled } in rows {
        let ms = tick.as_millis();
        println!("  {gateways} × {per_s}/s, tick {ms} ms: p99 {p99_ms} ms, spooled {spooled} %");
        let key = format!("{gateways}x{per_s}_tick_{ms}");
        summary.set(format!("audit_append_p99_ms_{key}"), p99_ms.median());
        summary.set(format!("audit_spooled_percent_{key}"), spooled.median());
    }
    Ok(())
}

/// The append's time within which 99 of 100 were done, and the percentage of events that went to the disk.
async fn at_a_pace(
    gateways: Vec<Gateway>,
    per_s: u64,
    tick: Duration,
    lasts: Duration,
) -> Result<(f64, f64), String> {
    let mut tasks = JoinSet::new();
    let (begin, count) = (Instant::now(), u32::try_from(gateways.len()).unwrap_or(1));
    for (which, mut gateway) in (0_u32..).zip(gateways) {
        tasks.spawn(async move {
            // Each ticks at a moment of its own.
            let first = begin + tick * (which + 1) / count;
            let mut ticks = interval_at(first.into(), tick);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (mut made, mut spooled, mut took) = (0_u64, 0_u64, Vec::new());
            while begin.elapsed() < lasts {
                ticks.tick().await;
                let due = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
                let due = due / 1_000 * per_s / 1_000;
                while made < due {
                    let until = due.min(made + u64::try_from(BATCH_MAX).unwrap_or(1));
                    let id = u64::from(which) << 40;
                    let events = (made..until).map(|n| fresh(id + n)).collect();
                    let sent = Instant::now();
                    let accepted = gateway.end.commit(events).await;
                    took.push(sent.elapsed());
                    if accepted.map_err(|lost| lost.to_string())? == Accepted::Spooled {
                        spooled += until - made;
                    }
                    made = until;
                }
            }
            Ok::<_, String>((made, spooled, took))
        });
    }
    let (mut made, mut spooled, mut took) = (0, 0, Vec::new());
    for done in tasks.join_all().await {
        let done = done?;
        made += done.0;
        spooled += done.1;
        took.extend(done.2);
    }
    took.sort_unstable();
    Ok((at_share(&took, 99), number(spooled) * 100.0 / number(made)))
}

/// A denial of this moment, as almost all are: for one of long ago an append looks through the ids of many segments.
fn fresh(number: u64) -> Event {
    chains::denial(number, SystemClock::new().unix_us() / 1_000)
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
