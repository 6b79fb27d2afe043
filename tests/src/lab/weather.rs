//! Owns what happens between processes and the gateway: messages that are lost, late or doubled, a store that
//! forgets, a clock that is set.

use std::collections::BTreeMap;

use host_sim::in_process::InProcess;
use tidegate_host_sim::{Fault, Outcome, Reply, Service, ServiceRequest};

use super::{SECOND, START_UNIX_S};
use crate::random::Random;

/// How bad it is, in thousandths of all messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Odds {
    /// Never arrives.
    pub lost: u64,
    /// Arrives when nobody waits for its answer any more.
    pub late: u64,
    /// Arrives once more, later.
    pub doubled: u64,
    /// Arrives, and its answer does not.
    pub unanswered: u64,
    /// Its answer takes about as long as it is waited for.
    pub slow: u64,
}

/// What happens to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Its store forgets all; the region is cold from then on.
    Forgets,
    /// Its clock is set by that many ns.
    ClockSet(i64),
    /// It is away, or back.
    Away(bool),
    /// An operator orders that of a breaker: the body of `POST /v1/breakers/order`.
    Ordered(String),
    /// It is back, and nothing goes wrong any more.
    Heals,
}

/// Who is asked: the real gateway, with whatever behind it.
pub trait Gateway: Service + Send {
    /// Its store forgets all; the region is cold from then on.
    fn forgets(&mut self);

    /// Carries out what an operator orders of a breaker.
    fn ordered(&mut self, now_unix_ns: u64, body: &str);
}

/// The gateway's own library, with its store in memory.
struct InMemory(InProcess);

/// The way to the gateway, and the gateway.
pub struct Weather {
    gateway: Box<dyn Gateway>,
    odds: Odds,
    random: Random,
    /// By time.
    turns: Vec<(u64, Turn)>,
    clock_ns: i64,
    is_away: bool,
    late: BTreeMap<(u64, u64), ServiceRequest>,
    count: u64,
}

// === impl Turn ===

impl Turn {
    /// Some, by chance, that begin before `until_ns`, with their times.
    pub fn some(random: &mut Random, until_ns: u64) -> Vec<(u64, Self)> {
        let mut turns = Vec::new();
        if random.below(3) == 0 {
            turns.push((random.below(until_ns), Self::Forgets));
        }
        if random.below(3) == 0 {
            let by_ns = random.below(10 * SECOND).cast_signed() - (5 * SECOND).cast_signed();
            turns.push((random.below(until_ns), Self::ClockSet(by_ns)));
        }
        if random.below(3) == 0 {
            let from_ns = random.below(until_ns);
            turns.push((from_ns, Self::Away(true)));
            turns.push((from_ns + random.below(5 * SECOND), Self::Away(false)));
        }
        turns
    }
}

// === impl Weather ===

impl Weather {
    /// A gateway that is warm, with its store in memory.
    pub fn new(odds: Odds, seed: u64, turns: Vec<(u64, Turn)>) -> Self {
        Self::before(Box::new(InMemory(in_memory(&[]))), odds, seed, turns)
    }

    /// The same before a gateway of the caller's.
    pub fn before(
        gateway: Box<dyn Gateway>,
        odds: Odds,
        seed: u64,
        mut turns: Vec<(u64, Turn)>,
    ) -> Self {
        turns.sort_by_key(|(at_ns, _)| *at_ns);
        Self {
            gateway,
            odds,
            random: Random::new(seed),
            turns,
            clock_ns: 0,
            is_away: false,
            late: BTreeMap::new(),
            count: 0,
        }
    }

    pub(super) fn hears(&mut self, now_ns: u64, request: &ServiceRequest) -> Reply {
        while let Some(((at_ns, _), late)) =
            self.late.first_key_value().map(|(k, r)| (*k, r.clone()))
            && at_ns <= now_ns
        {
            self.late.pop_first();
            self.turn(at_ns);
            if !self.is_away {
                self.deliver(at_ns, &late);
            }
        }
        self.turn(now_ns);
        let Odds { lost, late, doubled, unanswered, slow } = self.odds;
        let nothing = Reply { after_ns: 0, outcome: Outcome::Fault(Fault::Timeout), tries: 1 };
        if self.is_away || self.random.happens(lost) {
            return nothing;
        }
        if self.random.happens(doubled) {
            self.keep(now_ns, request);
        }
        if self.random.happens(late) {
            self.keep(now_ns, request);
            return nothing;
        }
        let mut reply = self.deliver(now_ns, request);
        if self.random.happens(unanswered) {
            return nothing;
        }
        reply.after_ns = match self.random.happens(slow) {
            true => self.random.below(60_000_000),
            false => 800_000 + self.random.below(1_600_000),
        };
        reply
    }

    fn keep(&mut self, now_ns: u64, request: &ServiceRequest) {
        let span_ns = [50_000_000, SECOND, 10 * SECOND][usize::from(self.random.below(3) as u8)];
        let at_ns = now_ns + 1 + self.random.below(span_ns);
        self.count += 1;
        self.late.insert((at_ns, self.count), request.clone());
    }

    fn deliver(&mut self, now_ns: u64, request: &ServiceRequest) -> Reply {
        let unix_ns = (START_UNIX_S * SECOND + now_ns).saturating_add_signed(self.clock_ns);
        self.gateway.call(unix_ns, request)
    }

    fn turn(&mut self, now_ns: u64) {
        while self.turns.first().is_some_and(|(at_ns, _)| *at_ns <= now_ns) {
            let (at_ns, turn) = self.turns.remove(0);
            match turn {
                Turn::Forgets => self.gateway.forgets(),
                Turn::ClockSet(by_ns) => self.clock_ns += by_ns,
                Turn::Away(is_away) => self.is_away = is_away,
                Turn::Ordered(body) => {
                    let unix_ns = START_UNIX_S * SECOND + at_ns;
                    self.gateway.ordered(unix_ns.saturating_add_signed(self.clock_ns), &body);
                }
                Turn::Heals => (self.is_away, self.odds) = (false, Odds::default()),
            }
        }
    }
}

// === impl InMemory ===

impl Service for InMemory {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        self.0.call(now_unix_ns, request)
    }
}

impl Gateway for InMemory {
    fn forgets(&mut self) {
        self.0 = in_memory(&["--cold-start", "5m"]);
    }

    fn ordered(&mut self, now_unix_ns: u64, body: &str) {
        assert_eq!(self.0.operate(now_unix_ns, "/v1/breakers/order", body), Some(200), "{body}");
    }
}

fn in_memory(flags: &[&str]) -> InProcess {
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    InProcess::new(&flags).expect("sound flags")
}
