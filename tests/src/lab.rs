//! Owns several Envoy processes in the simulator, each with its own workers, clock and lives, in front of
//! one gateway and in one virtual time. Decides nothing and judges nothing.
//!
//! Every process runs by itself up to its next callout; the earliest of all callouts is heard next. So
//! the gateway sees them in the order of their moments, and a run is the same each time.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::{fs, thread};

use tidegate_host_sim::{Reply, Report, Runner, Scenario, Service, ServiceRequest, Services};

pub mod ideal;
mod life;
pub mod stored;
pub mod weather;

pub use life::{Life, alone};
use weather::Weather;

/// What the gateway's clock shows at the beginning: a whole second, and later than 2024.
pub const START_UNIX_S: u64 = 1_767_225_600;
/// A nanosecond's fellows.
pub const SECOND: u64 = 1_000_000_000;

/// Requests at equal distances.
#[derive(Debug, Clone)]
pub struct Requests {
    /// The first, since the beginning.
    pub at_ns: u64,
    /// How many.
    pub times: u64,
    /// From one to the next.
    pub every_ns: u64,
    /// To which worker.
    pub worker: usize,
    /// The value of their header `x-key`.
    pub key: String,
    /// Their path: the upstream answers `/fails` with 500, `/hangs` late with 504, and others with 200.
    pub path: &'static str,
    /// What each costs: the value of its header `x-cost`, which a cost of 1 has not.
    pub units: u64,
}

/// A request, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    /// When it came.
    pub at_ns: u64,
    /// When it was decided: as it came, or as the callout was heard whose answer it waited for.
    pub decided_ns: u64,
    /// The process.
    pub process: usize,
    /// The status that its client got; 0 if none.
    pub status: u16,
    /// Whether it waited, for a callout of its own or of others.
    pub waited: bool,
    /// The hash of its key.
    pub key: u64,
    /// What it costs.
    pub units: u64,
}

/// A run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every request, by time.
    pub sent: Vec<Sent>,
    /// Callouts that requests waited for.
    pub decides: u64,
    /// Callouts that nobody waited for.
    pub syncs: u64,
    /// The filter's counters, of all processes.
    pub metrics: BTreeMap<String, u64>,
    /// What a filter must not log.
    pub complaints: Vec<String>,
}

/// Where callouts wait for their turn.
struct Desk {
    state: Mutex<State>,
    turn: Condvar,
}

struct State {
    seats: Vec<Seat>,
    /// Of each process when its callouts were heard, by when they were answered.
    heard: Vec<BTreeMap<u64, u64>>,
    weather: Weather,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    /// On its way to its next callout, whenever that is.
    Runs,
    /// Since when its callout waits.
    Waits(u64),
    Over,
}

/// The way from one process to the gateway.
struct Way {
    desk: Arc<Desk>,
    process: usize,
    /// What its clock shows when the lab's stands at 0.
    zero_unix_ns: u64,
}

/// Ends a process however its thread ends, so that others do not wait for it.
struct Leaves<'d>(&'d Desk, usize);

/// Runs processes, each life by life, until all have ended.
pub fn run(runner: &Runner, processes: &[Vec<Life>], weather: Weather) -> Outcome {
    let seats = vec![Seat::Runs; processes.len()];
    let heard = vec![BTreeMap::new(); processes.len()];
    let state = State { seats, heard, weather };
    let desk = Arc::new(Desk { state: Mutex::new(state), turn: Condvar::new() });
    let mut outcome = Outcome::default();
    thread::scope(|scope| {
        let running: Vec<_> = processes
            .iter()
            .enumerate()
            .map(|(process, lives)| {
                let desk = &desk;
                scope.spawn(move || {
                    let _leaves = Leaves(desk, process);
                    let mut outcome = Outcome::default();
                    for life in lives {
                        live(runner, desk, process, life, &mut outcome);
                    }
                    outcome
                })
            })
            .collect();
        for process in running {
            outcome.take(process.join().expect("a process that ends"));
        }
    });
    outcome.sent.sort_unstable();
    outcome
}

fn live(runner: &Runner, desk: &Arc<Desk>, process: usize, life: &Life, outcome: &mut Outcome) {
    let unix_s = START_UNIX_S.saturating_add_signed(life.ahead_s);
    let zero_unix_ns = (unix_s * SECOND).wrapping_sub(life.from_ns);
    let wasm = fs::read(life.filter()).expect("the built filter: `make plugin others`");
    let text = life.scenario(unix_s);
    let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let way = Way { desk: Arc::clone(desk), process, zero_unix_ns };
    let services = Services::default().bind_any(way);
    let report = runner.run_bytes(&scenario, &wasm, services).expect("it can run");
    let heard = desk.heard(process);
    outcome.take(seen(life, process, report, &heard));
}

fn seen(life: &Life, process: usize, report: Report, heard: &BTreeMap<u64, u64>) -> Outcome {
    if let Some(error) = &report.start_error {
        panic!("the filter does not start: {error}");
    }
    let bad = |line: &&tidegate_host_sim::LogLine| line.level >= tidegate_host_sim::LogLevel::Error;
    let complaints = report.logs.iter().filter(bad).map(|line| line.message.clone()).collect();
    // Exchanges stand in the order in which they were announced, as the requests of the life.
    let said = life.requests.iter().flat_map(|requests| {
        let said = (ideal::hash(&requests.key), requests.units);
        (0..requests.times).map(move |_| said)
    });
    let sent = report.exchanges.iter().zip(said).map(|(exchange, (key, units))| {
        let at_ns = life.from_ns + exchange.sent_at_ns;
        // The upstream answers at once.
        let ended_ns = life.from_ns + exchange.headers_at_ns.unwrap_or(exchange.sent_at_ns);
        let waited = ended_ns > at_ns;
        let decided_ns = if waited { *heard.get(&ended_ns).unwrap_or(&ended_ns) } else { at_ns };
        let status = exchange.status.unwrap_or(0);
        Sent { at_ns, decided_ns, process, status, waited, key, units }
    });
    let to = |path: &str| {
        let is_to = |call: &&tidegate_host_sim::ServiceCall| {
            !call.is_upstream && call.request.path() == path
        };
        report.calls.iter().filter(is_to).count() as u64
    };
    Outcome {
        sent: sent.collect(),
        decides: to("/v1/decide") + to("/v1/decisions"),
        syncs: to("/v1/sync"),
        metrics: report.metrics,
        complaints,
    }
}

// === impl Outcome ===

impl Outcome {
    fn take(&mut self, other: Self) {
        self.sent.extend(other.sent);
        self.decides += other.decides;
        self.syncs += other.syncs;
        self.complaints.extend(other.complaints);
        for (name, value) in other.metrics {
            *self.metrics.entry(name).or_default() += value;
        }
    }

    /// Those that reached the upstream.
    pub fn admitted(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| sent.status == 200)
    }
}

// === impl Desk ===

impl Desk {
    fn sits(&self, process: usize, seat: Seat) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = state.seats.get_mut(process) {
            *own = seat;
        }
        self.turn.notify_all();
    }

    /// When that process's callouts were heard, by when they were answered; once.
    fn heard(&self, process: usize) -> BTreeMap<u64, u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.heard.get_mut(process).map(std::mem::take).unwrap_or_default()
    }

    /// Hears a callout once no other process can have an earlier one.
    fn hears(&self, process: usize, now_ns: u64, request: &ServiceRequest) -> Reply {
        self.sits(process, Seat::Waits(now_ns));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.is_turn_of(process, now_ns) {
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let reply = state.weather.hears(now_ns, request);
        // Nothing is decided by what is lost, and an answer may come at the moment at which that is sent.
        let is_answered = matches!(reply.outcome, tidegate_host_sim::Outcome::Answer(_));
        if let Some(own) = state.heard.get_mut(process).filter(|_| is_answered) {
            own.insert(now_ns + reply.after_ns, now_ns);
        }
        if let Some(own) = state.seats.get_mut(process) {
            *own = Seat::Runs;
        }
        self.turn.notify_all();
        reply
    }
}

// === impl State ===

impl State {
    fn is_turn_of(&self, process: usize, now_ns: u64) -> bool {
        self.seats.iter().enumerate().all(|(other, seat)| match seat {
            Seat::Runs => false,
            Seat::Waits(at_ns) => (*at_ns, other) >= (now_ns, process),
            Seat::Over => true,
        })
    }
}

// === impl Way ===

impl Service for Way {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        self.desk.hears(self.process, now_unix_ns.wrapping_sub(self.zero_unix_ns), request)
    }
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.sits(self.1, Seat::Over);
    }
}
