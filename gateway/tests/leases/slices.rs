//! What a process reports as left, against what its workers may still spend: never less; and who is gone with what it had
//! is forgotten within two lives, however busy the key. Without a store: any grant is as good as another.

use tidegate_policy::lease::holder::TICK_US;
use tidegate_policy::lease::slice::Reserved;

use super::*;

const WORKERS: usize = 4;
/// The longest life of what is granted here.
const LIFE_US: u64 = 2 * SECOND;
/// From then on whatever vanished is forgotten: two lives, and ticks until somebody looks.
const FORGOTTEN_US: u64 = 2 * LIFE_US + 3 * TICK_US;
/// A worker sees by itself that the clock stepped back, if it is by more than that.
const CLOCK_SLACK_US: u64 = 10_000;

/// When what is out gets older, and in the end is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turns {
    /// As it should.
    Sound,
    /// Each time that somebody looks.
    AtOnce,
    Never,
}

#[derive(Default)]
struct Worker {
    slice: Slice,
    seen_us: u64,
    ticked_us: u64,
    /// Of requests that wait for something else, until then.
    reserved: Vec<(Reserved, u32, u64)>,
}

struct Life {
    pool: Pool,
    workers: Vec<Worker>,
    real_us: u64,
    clock_us: u64,
    ticked_us: u64,
    /// Of the last message.
    seq: u32,
    /// The message that is out, and when its answer is there.
    flight: Option<(u32, u64)>,
    turns: Turns,
    stepped_us: u64,
}

impl Life {
    fn new(random: &mut Random, turns: Turns) -> Self {
        Self {
            pool: Pool::new(random.next(), START_US),
            workers: (0..WORKERS).map(|_| Worker::default()).collect(),
            real_us: START_US,
            clock_us: START_US,
            ticked_us: START_US,
            seq: 0,
            flight: None,
            turns,
            stepped_us: START_US,
        }
    }

    /// The pool, with what is wrong with it.
    fn spoil(&mut self) {
        match self.turns {
            Turns::Sound => {}
            Turns::AtOnce => self.pool = turning(&self.pool, 0),
            Turns::Never => self.pool = turning(&self.pool, u64::MAX),
        }
    }

    fn sends(&mut self, random: &mut Random, report: Option<Report>) {
        if let Some(report) = report {
            // Some come when nobody waits for them any more.
            let after_us = if random.below(10) == 0 { SECOND } else { random.below(5_000) };
            self.seq = report.seq;
            self.flight = Some((report.seq, self.real_us + after_us));
        }
    }

    /// A worker's clock is looked at.
    fn sees(&mut self, worker: usize) {
        let Worker { slice, seen_us, .. } = &mut self.workers[worker];
        if self.clock_us + CLOCK_SLACK_US < *seen_us {
            slice.drop_all();
            *seen_us = self.clock_us;
        }
        *seen_us = self.clock_us.max(*seen_us);
    }

    fn request(&mut self, random: &mut Random, worker: usize) {
        self.sees(worker);
        let (now_us, cost) = (self.clock_us, if random.below(10) == 0 { 3 } else { 1 });
        let slice = &mut self.workers[worker].slice;
        let mut offer = slice.take(now_us, cost);
        if offer == Offer::Empty {
            offer = self.pool.meet(now_us, slice, cost);
            let want = match offer {
                Offer::Taken(_) if self.pool.runs_low(now_us) => Some(Want::Ahead),
                Offer::Empty => Some(Want::Now),
                Offer::Taken(_) | Offer::Denied { .. } => None,
            };
            let report = want.and_then(|want| self.pool.begin(now_us, want, TIMEOUT_US));
            self.sends(random, report);
        }
        if let Offer::Taken(reserved) = offer {
            let until_us = self.real_us + random.below(2) * random.below(3 * SECOND);
            self.workers[worker].reserved.push((reserved, cost, until_us));
        }
    }

    fn tick(&mut self, worker: usize) {
        self.sees(worker);
        let Worker { slice, ticked_us, .. } = &mut self.workers[worker];
        *ticked_us = self.real_us;
        let (owes, idle) = slice.rest();
        if owes {
            self.pool.settle(self.clock_us, slice, idle);
        }
    }

    /// A moment passes, and what is due happens.
    fn passes(&mut self, random: &mut Random) {
        let us = random.below(10_000);
        (self.real_us, self.clock_us) = (self.real_us + us, self.clock_us + us);
        self.spoil();
        for worker in 0..WORKERS {
            let all = std::mem::take(&mut self.workers[worker].reserved);
            for (reserved, cost, until_us) in all {
                if until_us > self.real_us {
                    self.workers[worker].reserved.push((reserved, cost, until_us));
                } else if random.below(2) == 0 {
                    self.workers[worker].slice.spend(reserved);
                } else {
                    self.sees(worker);
                    self.workers[worker].slice.give_back(reserved, self.clock_us);
                }
            }
            if self.real_us - self.workers[worker].ticked_us >= TICK_US {
                self.tick(worker);
            }
        }
        if self.real_us - self.ticked_us >= TICK_US {
            self.ticked_us = self.real_us;
            let report = self.pool.tick(self.clock_us, TIMEOUT_US);
            self.sends(random, report);
        }
        if let Some((seq, _)) = self.flight.take_if(|(_, at_us)| *at_us <= self.real_us)
            && random.below(10) > 0
        {
            let grant = LeaseGrant {
                holder: HolderId(self.pool.holder()),
                seq,
                granted: random.small(20),
                ttl_us: random.one_of(&[SECOND, LIFE_US]),
                deny_us: 0,
                remaining: 100,
                scarce: random.below(2) == 0,
                limit: None,
            };
            self.pool.finish(self.clock_us, &grant, 0);
        }
    }

    /// What it would report now, and the pool's own part of it.
    fn left(&self) -> (u32, u32) {
        let mut pool = self.pool.clone();
        pool.give_up(self.seq);
        let report = pool.begin(self.clock_us, Want::Nothing, TIMEOUT_US);
        (report.expect("nothing is waited for").left, pool.units())
    }

    /// What its workers could spend now.
    fn spendable(&self) -> u32 {
        let spendable = |worker: &Worker| {
            let mut slice = worker.slice.clone();
            let units = slice.units();
            let sees = self.clock_us + CLOCK_SLACK_US < worker.seen_us;
            let has = !sees && matches!(slice.take(self.clock_us, units), Offer::Taken(_));
            if has { units } else { 0 }
        };
        self.workers.iter().map(spendable).sum()
    }

    /// All that its workers hold.
    fn held(&self) -> u32 {
        let held = |worker: &Worker| {
            let reserved: u32 = worker.reserved.iter().map(|(_, cost, _)| cost).sum();
            worker.slice.units() + reserved
        };
        self.workers.iter().map(held).sum()
    }
}

/// What is wrong with it, if anything: less reported than may be spent, or what is gone counted for too long.
fn wrong(random: &mut Random, turns: Turns, clock_steps: bool) -> Result<(), String> {
    let mut life = Life::new(random, turns);
    for round in 0..10 {
        for _ in 0..1_000 {
            life.passes(random);
            let worker = random.index(WORKERS);
            match random.below(100) {
                0..60 => life.request(random, worker),
                60..63 => life.workers[worker] = Worker::default(),
                // Not forth and back so fast that some workers see nothing of it.
                63..70 if clock_steps && life.real_us > life.stepped_us + 2 * TICK_US => {
                    let by_us = random.one_of(&[TICK_US, 3 * SECOND]);
                    let by_us = random.below(by_us);
                    let back = random.below(2) == 0;
                    life.stepped_us = life.real_us;
                    life.clock_us =
                        if back { life.clock_us - by_us } else { life.clock_us + by_us };
                }
                _ => {}
            }
            let ((left, own), spendable) = (life.left(), life.spendable());
            if left < own + spendable {
                return Err(format!("{left} left, and {own} + {spendable} to be spent"));
            }
        }
        if clock_steps {
            // Counted until the end that was told before the clock stepped back.
            continue;
        }
        let calm_us = life.real_us + FORGOTTEN_US;
        while life.real_us < calm_us {
            life.passes(random);
            life.request(random, round % WORKERS);
        }
        (0..WORKERS).for_each(|worker| life.tick(worker));
        let ((left, own), held) = (life.left(), life.held());
        if left > own + held {
            return Err(format!("{left} left, where there is {own} + {held}"));
        }
    }
    Ok(())
}

#[test]
fn what_workers_may_spend_is_left_and_who_is_gone_is_forgotten() {
    let seed = number("LEASES_SEED").unwrap_or_else(|| getrandom::u64().expect("randomness"));
    println!("LEASES_SEED={seed}");
    for history in 0..HISTORIES {
        for clock_steps in [false, true] {
            let mut random = Random::new(seed.wrapping_add(history));
            let found = wrong(&mut random, Turns::Sound, clock_steps);
            assert_eq!(found, Ok(()), "LEASES_SEED={seed} history {history}, {clock_steps}");
        }
    }
}

/// Each way in which it could be wrong is found out.
#[test]
fn who_is_forgotten_too_early_or_never_is_noticed() {
    for turns in [Turns::AtOnce, Turns::Never] {
        let finds = |seed| wrong(&mut Random::new(seed), turns, false).err();
        let found = (0..HISTORIES).find_map(finds);
        println!("{turns:?}: {found:?}");
        assert!(found.is_some(), "nobody notices {turns:?}");
    }
}
