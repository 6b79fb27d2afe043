//! Owns how long work waits for the processor, and which share of the decisions is shed for it. Knows nothing
//! of what is decided.
//!
//! The bound on store calls does not see what waits before it is read. A gateway that is asked more than its
//! cores can answer would answer everything late, and blame its store for it. Source: product row A5.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::admission::AdmissionSettings;
use crate::clock::{Clock, whole_us};
use crate::cores::{Cores, PerCore};
use crate::metrics::SharedMetrics;
use crate::throttle::Throttle;

/// How often it is looked at. A wait is one that two looks in a row have seen.
const INTERVAL: Duration = Duration::from_millis(5);
/// A decision waits so often: to be read, to send its question, for the answer to be read and to go on.
const WAITS: u64 = 4;
/// So many looks back a wait still explains what is late: about a deadline.
const LOOKS: usize = 6;
/// What shares are counted in.
const WHOLE: u64 = 16;
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Of whom a missed deadline tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// It answered nobody since.
    Store,
    /// The store is slow, but it answered others since: it can be reached.
    Nobody,
    /// The gateway stood still, or work waits in it.
    Gateway,
}

/// What waits for the processor.
pub struct Pressure {
    /// How long all waits of a decision together may be: as long as it may wait for a place.
    patience: Duration,
    deadline: Duration,
    /// When the store last answered anybody.
    answered_us: AtomicU64,
    cores: PerCore<Waits>,
    clock: Arc<dyn Clock>,
    metrics: SharedMetrics,
    said: Throttle,
}

/// What waits for one core.
#[derive(Default)]
struct Waits {
    /// What the last looks saw, in µs.
    seen_us: Mutex<[u64; LOOKS]>,
    /// What two looks in a row saw.
    wait_us: AtomicU64,
    /// Out of [`WHOLE`].
    share: AtomicU32,
    turn: AtomicU32,
}

// === impl Pressure ===

impl Pressure {
    /// Nothing waits.
    pub fn new(bounds: AdmissionSettings, clock: Arc<dyn Clock>, metrics: SharedMetrics) -> Self {
        Self {
            patience: bounds.pool_wait,
            deadline: bounds.deadline,
            answered_us: AtomicU64::new(0),
            cores: PerCore::alone(Waits::default()),
            clock,
            metrics,
            said: Throttle::new(1, whole_us(LOG_INTERVAL)),
        }
    }

    /// The same, for decisions that are spread over cores.
    pub fn on(self, cores: &Cores) -> Self {
        Self { cores: cores.each(Waits::default), ..self }
    }

    /// Looks at the core that this runs on, for as long as the gateway lives: a timer that ends late has waited as
    /// everything else does.
    pub async fn watch(&self) {
        loop {
            let begun_us = self.clock.elapsed_us();
            self.clock.sleep(INTERVAL).await;
            let took_us = self.clock.elapsed_us().saturating_sub(begun_us);
            self.note(took_us.saturating_sub(whole_us(INTERVAL)));
        }
    }

    /// A look saw a wait of `late_us`. One alone is a hiccup: it may concern nobody.
    pub fn note(&self, late_us: u64) {
        let core = self.cores.mine();
        let wait_us = late_us.min(core.push(late_us));
        core.wait_us.store(wait_us, Ordering::Relaxed);
        let waits_us = self.cores.all().map(|core| core.wait_us.load(Ordering::Relaxed));
        let most = Duration::from_micros(waits_us.max().unwrap_or(0));
        self.metrics.pressure.wait_seconds.set(most.as_secs_f64());
        // From the patience on some, from twice of it on all.
        let most_us = whole_us(self.patience).max(1);
        let beyond_us = wait_us.saturating_mul(WAITS).saturating_sub(most_us).min(most_us);
        let share = beyond_us.saturating_mul(WHOLE).div_ceil(most_us);
        core.share.store(u32::try_from(share).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Whether the decision that was just read is shed. A share of them is spread evenly.
    pub fn sheds(&self) -> bool {
        let core = self.cores.mine();
        let share = u64::from(core.share.load(Ordering::Relaxed));
        if share == 0 {
            return false;
        }
        let turn = u64::from(core.turn.fetch_add(1, Ordering::Relaxed));
        // The turns at which the share so far comes to a further whole.
        let shed = (turn % WHOLE + 1).saturating_mul(share) / WHOLE
            > (turn % WHOLE).saturating_mul(share) / WHOLE;
        if shed {
            self.shed();
        }
        shed
    }

    /// The store has answered somebody.
    pub fn answered(&self) {
        self.answered_us.store(self.clock.elapsed_us(), Ordering::Relaxed);
    }

    /// What a deadline says that had passed `late_us` ago when it was seen, of a decision that began at `begun_us`.
    /// A store that answers nobody is never excused by a wait.
    pub fn blame(&self, begun_us: u64, late_us: u64) -> Blame {
        let waits_us = self.cores.mine().worst_us().saturating_mul(WAITS);
        let answers = self.answered_us.load(Ordering::Relaxed) > begun_us;
        let stood_still = late_us >= whole_us(self.deadline);
        match (stood_still, answers, waits_us >= whole_us(self.patience)) {
            (true, _, _) | (false, true, true) => Blame::Gateway,
            (false, true, false) => Blame::Nobody,
            (false, false, _) => Blame::Store,
        }
    }

    /// Counts a decision that this gateway had no time for.
    pub fn shed(&self) {
        self.metrics.pressure.shed.inc();
        if let Some(more) = self.said.admit(self.clock.elapsed_us()) {
            tracing::error!(
                critical = true,
                patience = ?self.patience,
                more,
                "work waits too long for the processor: callers get service-overloaded"
            );
        }
    }
}

// === impl Waits ===

impl Waits {
    /// The look before this one.
    fn push(&self, late_us: u64) -> u64 {
        let mut seen_us = self.seen_us.lock().unwrap_or_else(PoisonError::into_inner);
        seen_us.rotate_right(1);
        let [latest_us, before_us, ..] = &mut *seen_us;
        *latest_us = late_us;
        *before_us
    }

    fn worst_us(&self) -> u64 {
        let seen_us = self.seen_us.lock().unwrap_or_else(PoisonError::into_inner);
        seen_us.iter().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::metrics::Metrics;

    fn pressure() -> Pressure {
        patient(Duration::from_millis(15))
    }

    fn patient(pool_wait: Duration) -> Pressure {
        let bounds =
            AdmissionSettings { max_in_flight: 1, pool_wait, deadline: Duration::from_millis(30) };
        Pressure::new(bounds, Arc::new(ManualClock::at(0)), Arc::new(Metrics::new()))
    }

    /// How many of 160 are shed after two looks.
    fn shed_after(first_us: u64, second_us: u64) -> usize {
        let pressure = pressure();
        pressure.note(first_us);
        pressure.note(second_us);
        let shed = (0..160).filter(|_| pressure.sheds()).count();
        assert_eq!(pressure.metrics.pressure.shed.get(), shed as u64);
        shed
    }

    #[tokio::test(start_paused = true)]
    async fn the_share_grows_as_the_waits_of_a_decision_exceed_the_patience() {
        assert_eq!(shed_after(3_750, 3_750), 0);
        assert_eq!(shed_after(3_751, 3_751), 10, "some, from the first µs on");
        assert_eq!(shed_after(5_625, 5_625), 80);
        assert_eq!(shed_after(7_500, 7_500), 160);
        assert_eq!(shed_after(u64::MAX, u64::MAX), 160);
    }

    #[tokio::test(start_paused = true)]
    async fn one_hiccup_sheds_nothing() {
        assert_eq!(shed_after(0, 40_000), 0);
        assert_eq!(shed_after(40_000, 0), 0, "and it is over as soon as a look is in time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_answers_nobody_is_excused_by_a_standstill_alone() {
        let pressure = pressure();
        assert_eq!(pressure.blame(0, 29_999), Blame::Store);
        assert_eq!(pressure.blame(0, 30_000), Blame::Gateway);
        pressure.note(3_750);
        assert_eq!(pressure.blame(0, 9), Blame::Store, "it answers nobody");
        tokio::time::advance(Duration::from_micros(7)).await;
        pressure.answered();
        assert_eq!(pressure.blame(7, 9), Blame::Store, "nor since then");
        for _ in 0..LOOKS {
            assert_eq!(pressure.blame(6, 9), Blame::Gateway);
            pressure.note(0);
        }
        assert_eq!(pressure.blame(6, 9), Blame::Nobody, "and nothing waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_is_spread_evenly() {
        let pressure = pressure();
        pressure.note(4_687);
        pressure.note(4_687);
        let shed: Vec<bool> = (0..8).map(|_| pressure.sheds()).collect();
        assert_eq!(shed, [false, false, false, true, false, false, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_patience_of_nothing_sheds_and_does_not_divide_by_zero() {
        let pressure = patient(Duration::ZERO);
        pressure.note(0);
        assert!(!pressure.sheds());
        pressure.note(9);
        pressure.note(9);
        assert!(pressure.sheds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_sees_the_time_that_it_was_not_woken_for() {
        let pressure = Arc::new(pressure());
        let watching = tokio::spawn({
            let pressure = Arc::clone(&pressure);
            async move { pressure.watch().await }
        });
        for _ in 0..3 {
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_millis(30)).await;
        }
        tokio::task::yield_now().await;
        assert!(pressure.sheds(), "two looks in a row came 25 ms late");
        for _ in 0..8 {
            tokio::time::advance(Duration::from_millis(1)).await;
            tokio::task::yield_now().await;
        }
        assert!(!pressure.sheds());
        watching.abort();
    }
}
