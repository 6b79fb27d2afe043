//! What is leased never adds up to more than the limit: the real scripts on a real Redis, the filter's
//! own pools and slices, and whatever a network, a clock and an operator do to them. Admissions are
//! held against an ideal bucket; each rule that the proof stands on is broken once and found out.
//!
//! `LEASES_SEED` repeats a run, `LEASES_HISTORIES` makes it longer.

use redis::Value;
use redis::aio::MultiplexedConnection;
use tidegate_policy::gcra::{EPOCH_US, Quota};
use tidegate_policy::lease::holder::{Pool, Report};
use tidegate_policy::lease::slice::{Offer, Slice};
use tidegate_policy::lease::step::Times;
use tidegate_policy::wire::{HolderId, LeaseGrant, Want};
use tidegate_tests::random::Random;
use tidegate_tests::redis::Redis;

const CHECK: &str = include_str!("../../../lua/rl_check.lua");
const LEASE: &str = include_str!("../../../lua/rl_lease.lua");
const START_US: u64 = EPOCH_US + 63_072_000_000_000;
const HISTORIES: u64 = 60;
const STEPS: usize = 1_500;
const TIMEOUT_US: u64 = 45_000;
const SECOND: u64 = 1_000_000;
/// A rounding of doubles is no overshoot.
const DUST: f64 = 1e-6;

/// What the limit would admit at most, at one place.
struct Ideal {
    level: f64,
    quota: Quota,
    at_us: u64,
    /// What was leased when the store lost its memory, until it must be over.
    credit: (f64, u64),
    worst: f64,
    admitted: u64,
}

impl Ideal {
    fn new(quota: Quota) -> Self {
        let level = f64::from(quota.burst());
        Self { level, quota, at_us: START_US, credit: (0.0, 0), worst: 0.0, admitted: 0 }
    }

    fn at(&mut self, now_us: u64) {
        let passed = now_us.saturating_sub(self.at_us) as f64;
        let rate = f64::from(self.quota.limit()) / self.quota.period_us() as f64;
        self.level = (self.level + passed * rate).min(f64::from(self.quota.burst()));
        self.at_us = self.at_us.max(now_us);
    }

    fn admit(&mut self, now_us: u64, units: u32) {
        self.at(now_us);
        self.level -= f64::from(units);
        self.admitted += u64::from(units);
        let credit = if now_us < self.credit.1 { self.credit.0 } else { 0.0 };
        self.worst = self.worst.max(-(self.level + credit));
    }
}

/// The store: the scripts, with a clock of ours.
struct Server {
    connection: MultiplexedConnection,
    check: String,
    lease: String,
    expires_us: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    holder: u64,
    seq: u32,
    demand: u32,
    left: u32,
    back: u32,
    want: Want,
    quota: Quota,
}

impl Server {
    async fn start(redis: &Redis, check: &str, lease: &str) -> Self {
        let client = redis::Client::open(redis.url()).expect("a sound URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let mut shas = Vec::new();
        for script in [check, lease] {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script);
            let sha: String = load.query_async(&mut connection).await.expect("loaded");
            shas.push(sha);
        }
        let [check, lease] = shas.try_into().expect("two");
        let mut server = Self { connection, check, lease, expires_us: None };
        server.flush().await;
        server
    }

    async fn flush(&mut self) {
        redis::cmd("DEL").arg("k").exec_async(&mut self.connection).await.expect("deleted");
        self.expires_us = None;
    }

    /// The script's reply. The key's life is measured by our clock: real time means nothing here.
    async fn run(&mut self, sha: &str, now_us: u64, packed: Vec<u8>) -> Vec<i64> {
        if self.expires_us.is_some_and(|expires_us| now_us >= expires_us) {
            self.flush().await;
        }
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("EVALSHA").arg(sha).arg(1).arg("k");
        pipeline.arg(now_us).arg(0).arg(packed);
        pipeline.cmd("PTTL").arg("k").cmd("PERSIST").arg("k").ignore();
        let values: Vec<Value> = pipeline.query_async(&mut self.connection).await.expect("values");
        let left_ms: i64 = redis::from_redis_value_ref(&values[1]).expect("a number");
        if let Ok(left_ms) = u64::try_from(left_ms) {
            // A moment may have passed between the two.
            self.expires_us = Some(now_us + (left_ms + 1) * 1_000);
        }
        redis::from_redis_value_ref(&values[0]).expect("integers")
    }

    async fn exact(&mut self, now_us: u64, quota: Quota, cost: u32) -> bool {
        let pace = quota.pace();
        let mut packed = vec![b'g', 0];
        let numbers = [f64::from(cost), pace.interval, pace.span, pace.interval, pace.span];
        packed.extend(numbers.map(f64::to_le_bytes).as_flattened());
        let sha = self.check.clone();
        self.run(&sha, now_us, packed).await[0] == 1
    }

    async fn lease(&mut self, now_us: u64, said: &Message) -> Option<LeaseGrant> {
        let mut packed = said.holder.to_le_bytes().to_vec();
        for number in [said.seq, said.demand, said.left, said.back] {
            packed.extend(number.to_le_bytes());
        }
        packed.push(said.want as u8);
        let pace = said.quota.pace();
        let numbers = [pace.interval, pace.span, pace.interval, pace.span];
        packed.extend(numbers.map(f64::to_le_bytes).as_flattened());
        let times = Times::of(said.quota);
        for us in [times.generation_us, times.short_us, times.hold_us] {
            packed.extend(us.to_le_bytes());
        }
        let sha = self.lease.clone();
        let reply = self.run(&sha, now_us, packed).await;
        let whole = |number: i64| u64::try_from(number).expect("not negative");
        (reply[0] == 1).then(|| LeaseGrant {
            holder: HolderId(said.holder),
            seq: said.seq,
            granted: u32::try_from(reply[1]).expect("units"),
            ttl_us: whole(reply[2]),
            deny_us: whole(reply[3]),
            remaining: whole(reply[4]),
            scarce: reply[5] == 1,
            limit: None,
        })
    }
}

/// What is wrong with a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// It takes an answer that it does not wait for any more.
    LateReplyTaken,
    /// It does not report what lies in its workers' slices.
    SliceLeftOut,
    /// It forgets what lies in slices whenever it looks, and not once that has ended.
    SliceForgotten,
    /// Units live from the receipt of the answer.
    TtlFromReceipt,
}

/// A pool in which what is out gets older at that moment, and is forgotten when that comes for the second time.
fn turning(pool: &Pool, at_us: u64) -> Pool {
    let mut octets = pool.to_bytes();
    octets[32..40].copy_from_slice(&at_us.to_le_bytes());
    Pool::from_bytes(&octets)
}

/// One Envoy process: a pool and its workers' slices.
struct Process {
    pool: Pool,
    slices: Vec<Slice>,
    quota: Quota,
    /// Its clock against the store's, in µs.
    offset_us: i64,
    flaw: Flaw,
    timeout_us: u64,
    /// Of the last message.
    seq: u32,
}

impl Process {
    fn new(random: &mut Random, quota: Quota, workers: usize) -> Self {
        Self {
            pool: Pool::new(random.next(), START_US),
            slices: vec![Slice::default(); workers],
            quota,
            offset_us: 0,
            flaw: Flaw::None,
            timeout_us: TIMEOUT_US,
            seq: 0,
        }
    }

    fn clock(&self, now_us: u64) -> u64 {
        now_us.saturating_add_signed(self.offset_us)
    }

    /// What is wrong with it at each look.
    fn spoil(&mut self) {
        if self.flaw == Flaw::SliceForgotten {
            self.pool = turning(&self.pool, 0);
        }
    }

    fn message(&mut self, report: Report) -> Message {
        self.seq = report.seq;
        let left = match self.flaw {
            Flaw::SliceLeftOut => self.pool.units(),
            _ => report.left,
        };
        Message {
            holder: self.pool.holder(),
            seq: report.seq,
            demand: report.demand,
            left,
            back: report.back,
            want: report.want,
            quota: self.quota,
        }
    }

    /// What lies in slices.
    fn out(&self) -> u32 {
        self.slices.iter().map(Slice::units).sum()
    }

    /// A request: whether it goes on, and what there is to send.
    fn request(
        &mut self,
        now_us: u64,
        worker: usize,
        cost: u32,
    ) -> (Option<bool>, Option<Message>) {
        let now_us = self.clock(now_us);
        self.spoil();
        let slice = &mut self.slices[worker];
        let mut report = None;
        let mut offer = slice.take(now_us, cost);
        if offer == Offer::Empty {
            offer = self.pool.meet(now_us, slice, cost);
            report = match offer {
                Offer::Taken(_) if self.pool.runs_low(now_us) => {
                    self.pool.begin(now_us, Want::Ahead, self.timeout_us)
                }
                Offer::Empty => self.pool.begin(now_us, Want::Now, self.timeout_us),
                Offer::Taken(_) | Offer::Denied { .. } => None,
            };
        }
        let admitted = match offer {
            Offer::Taken(reserved) => {
                self.slices[worker].spend(reserved);
                Some(true)
            }
            Offer::Denied { .. } => Some(false),
            Offer::Empty => None,
        };
        (admitted, report.map(|report| self.message(report)))
    }

    fn tick(&mut self, now_us: u64) -> Option<Message> {
        let now_us = self.clock(now_us);
        self.spoil();
        for slice in &mut self.slices {
            let (owes, idle) = slice.rest();
            if owes {
                self.pool.settle(now_us, slice, idle);
            }
        }
        let (pool, timeout_us) = (&mut self.pool, self.timeout_us);
        let report = match pool.tick(now_us, timeout_us) {
            None => pool.ask_again(now_us, timeout_us),
            report => report,
        };
        Some(self.message(report?))
    }

    fn answer(&mut self, now_us: u64, mut grant: LeaseGrant, sent_us: u64) {
        let now_us = self.clock(now_us);
        match self.flaw {
            Flaw::LateReplyTaken if !self.pool.is_waiting_for(grant.seq) => {
                // As if it were waited for: a message of its own, and this for an answer.
                self.pool.give_up(self.seq);
                if let Some(report) = self.pool.begin(now_us, Want::Nothing, self.timeout_us) {
                    grant.seq = report.seq;
                }
            }
            Flaw::TtlFromReceipt => grant.ttl_us += now_us.saturating_sub(sent_us),
            _ => {}
        }
        self.pool.finish(now_us, &grant, 0);
    }

    /// What it could still spend.
    fn held(&self) -> u32 {
        self.out() + self.pool.units()
    }
}

enum Event {
    Request(usize, Message),
    Reply(usize, LeaseGrant, u64),
}

/// A limit, its store, the processes that lease of it, and the network between them.
struct World {
    server: Server,
    ideal: Ideal,
    processes: Vec<Process>,
    now_us: u64,
    /// By the moment of delivery.
    network: Vec<(u64, u64, Event)>,
    events: u64,
    workers: usize,
}

impl World {
    async fn new(redis: &Redis, random: &mut Random, quota: Quota, processes: usize) -> Self {
        Self {
            server: Server::start(redis, CHECK, LEASE).await,
            ideal: Ideal::new(quota),
            processes: (0..processes).map(|_| Process::new(random, quota, 2)).collect(),
            now_us: START_US,
            network: Vec::new(),
            events: 0,
            workers: 2,
        }
    }

    fn send(&mut self, after_us: u64, event: Event) {
        self.events += 1;
        self.network.push((self.now_us + after_us, self.events, event));
    }

    /// Lost, doubled, late or as it should be.
    fn send_badly(&mut self, random: &mut Random, event: impl Fn() -> Event) {
        let delay = |random: &mut Random| match random.below(20) {
            0 => random.below(40 * SECOND),
            1..=3 => random.below(400_000),
            _ => 200 + random.below(3_000),
        };
        if random.below(12) > 0 {
            let after_us = delay(random);
            self.send(after_us, event());
        }
        if random.below(5) == 0 {
            let after_us = delay(random);
            self.send(after_us, event());
        }
    }

    /// Time passes, and what is under way arrives.
    async fn pass(&mut self, random: &mut Random, until_us: u64) {
        while let Some(next) = (0..self.network.len())
            .filter(|&n| self.network[n].0 <= until_us)
            .min_by_key(|&n| (self.network[n].0, self.network[n].1))
        {
            let (at_us, _, event) = self.network.swap_remove(next);
            self.now_us = self.now_us.max(at_us);
            let now_us = self.now_us;
            match event {
                Event::Request(process, said) => {
                    if let Some(grant) = self.server.lease(now_us, &said).await {
                        self.send_badly(random, || Event::Reply(process, grant, 0));
                    }
                }
                Event::Reply(process, grant, sent_us) => {
                    self.processes[process].answer(now_us, grant, sent_us);
                }
            }
        }
        self.now_us = self.now_us.max(until_us);
    }

    async fn exact(&mut self, quota: Quota, cost: u32) -> bool {
        let admits = self.server.exact(self.now_us, quota, cost).await;
        if admits {
            self.ideal.admit(self.now_us, cost);
        }
        admits
    }

    async fn step(&mut self, random: &mut Random) {
        let process = random.index(self.processes.len());
        match random.below(1_000) {
            0..700 => {
                let worker = random.index(self.workers);
                let cost = if random.below(15) == 0 { 3 } else { 1 };
                let quota = self.processes[process].quota;
                let (admitted, said) = self.processes[process].request(self.now_us, worker, cost);
                if admitted == Some(true) {
                    self.ideal.admit(self.now_us, cost);
                }
                // What is not there is asked of the bucket itself, as a decision does.
                if admitted.is_none() {
                    self.exact(quota, cost).await;
                }
                if let Some(said) = said {
                    self.send_badly(random, || Event::Request(process, said));
                }
            }
            700..800 => {
                let quota = self.processes[process].quota;
                self.exact(quota, 1).await;
            }
            800..960 => {
                if let Some(said) = self.processes[process].tick(self.now_us) {
                    self.send_badly(random, || Event::Request(process, said));
                }
            }
            // The process dies, another takes its place and the port of its calls.
            960..970 => {
                let quota = self.processes[process].quota;
                self.processes[process] = Process::new(random, quota, self.workers);
            }
            // One worker's VM is built anew.
            970..980 => {
                let worker = random.index(self.workers);
                self.processes[process].slices[worker] = Slice::default();
            }
            980..990 => {
                let by = i64::try_from(random.below(10 * SECOND)).expect("small");
                let by = if random.below(2) == 0 { by } else { -by };
                self.step_clock(process, by);
            }
            // A call is given up.
            _ => {
                let seq = self.processes[process].seq;
                self.processes[process].pool.give_up(seq);
            }
        }
    }

    /// Every VM ticks, so a clock that steps back is seen by all within a tick.
    fn step_clock(&mut self, process: usize, by_us: i64) {
        let process = &mut self.processes[process];
        process.offset_us += by_us;
        if by_us < 0 {
            for slice in &mut process.slices {
                slice.drop_all();
            }
        }
        let now_us = process.clock(self.now_us);
        process.pool.tick(now_us, TIMEOUT_US);
    }
}

fn quota(limit: u32, period_us: u64, burst: u32) -> Quota {
    Quota::new(limit, period_us, burst).expect("sound")
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// Loss, delay, duplication, reordering, crash, restart, steps of clocks, exact callers beside.
#[tokio::test]
async fn random_histories_never_exceed_the_limit() {
    let seed = number("LEASES_SEED").unwrap_or_else(|| getrandom::u64().expect("randomness"));
    let histories = number("LEASES_HISTORIES").unwrap_or(HISTORIES);
    println!("LEASES_SEED={seed} LEASES_HISTORIES={histories}");
    let redis = Redis::start().await;
    let (mut worst, mut admitted) = (0.0f64, 0);
    for history in 0..histories {
        let mut random = Random::new(seed.wrapping_add(history));
        let quota = [
            quota(10, 10 * SECOND, 10),
            quota(100, 60 * SECOND, 100),
            quota(1_000, SECOND, 1_000),
            quota(50, SECOND, 20),
            quota(5, 60 * SECOND, 5),
        ][random.index(5)];
        let processes = 1 + random.index(4);
        let mut world = World::new(&redis, &mut random, quota, processes).await;
        // Around the limit, so that buckets are sometimes empty and sometimes full.
        let mean_us = 2 * quota.period_us() / u64::from(quota.limit()) / (1 + random.below(12));
        for _ in 0..STEPS {
            let gap_us = match random.below(200) {
                0 => random.below(20 * SECOND),
                _ => random.below(mean_us.max(2)),
            };
            let until_us = world.now_us + gap_us;
            world.pass(&mut random, until_us).await;
            world.step(&mut random).await;
            let over = world.ideal.worst;
            assert!(over < DUST, "seed {seed} history {history}: {over} units too many");
        }
        worst = worst.max(world.ideal.worst);
        admitted += world.ideal.admitted;
    }
    println!("{histories} histories, {admitted} admitted, worst overshoot {worst:.6} units");
    assert!(admitted > histories * 20, "units are admitted at all");
}

/// A store that loses its memory owes nobody more than was leased at that moment.
#[tokio::test]
async fn after_a_flush_only_what_was_held_comes_on_top() {
    let redis = Redis::start().await;
    for seed in 0..10 {
        let mut random = Random::new(seed);
        let quota = quota(100, 10 * SECOND, 100);
        let mut world = World::new(&redis, &mut random, quota, 3).await;
        for step in 0..1_000 {
            let until_us = world.now_us + random.below(20_000);
            world.pass(&mut random, until_us).await;
            if step == 500 {
                let held: u32 = world.processes.iter().map(Process::held).sum();
                let coming = world.network.iter().map(|(_, _, event)| match event {
                    Event::Reply(_, grant, _) => grant.granted,
                    Event::Request(..) => 0,
                });
                let held = held + coming.sum::<u32>();
                world.server.flush().await;
                world.ideal.level = f64::from(quota.burst());
                world.ideal.credit = (f64::from(held), world.now_us + 120 * SECOND);
            }
            world.step(&mut random).await;
        }
        assert!(world.ideal.worst < DUST, "seed {seed}: {}", world.ideal.worst);
    }
}

/// Numbers that change make other pools; the old ones end by themselves.
#[tokio::test]
async fn a_changed_limit_admits_no_more_than_the_larger_one() {
    let redis = Redis::start().await;
    for seed in 0..20 {
        let mut random = Random::new(seed);
        // The second fills within a tenth of the large one's time.
        let smalls = [quota(100, 10 * SECOND, 50), quota(100, 10 * SECOND, 5)];
        let (small, large) = (smalls[seed as usize % 2], quota(200, 10 * SECOND, 100));
        let mut world = World::new(&redis, &mut random, large, 4).await;
        for process in &mut world.processes[..2] {
            process.quota = small;
        }
        for _ in 0..1_500 {
            let until_us = world.now_us + random.below(30_000);
            world.pass(&mut random, until_us).await;
            if random.below(300) == 0 {
                let process = random.index(4);
                let quota = if random.below(2) == 0 { small } else { large };
                world.processes[process] = Process::new(&mut random, quota, 2);
            }
            world.step(&mut random).await;
        }
        assert!(world.ideal.worst < DUST, "seed {seed}: {}", world.ideal.worst);
    }
}

mod rules;
mod slices;
